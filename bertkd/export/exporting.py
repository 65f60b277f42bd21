"""Writing a model for an engine: ONNX or OpenVINO through `transformers.exporters`, or a folder for PyTorch."""

import contextlib
import copy
import inspect
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, TorchAoConfig

from bertkd.atomic import write_json
from bertkd.export.engines import MANIFEST, OWN_KEY, PRECISIONS, require_engine
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import PRUNED_PREFIX, family_of

__all__ = ["random_batches", "ways_to_quantize", "write_export"]

INT8, PARTLY, WEIGHTS = "int8", "int8 but for the second feed-forward maps", "int8 weights"
ACTIVATIONS = {"Gelu", "Relu", "Swish", "Tanh", "Erf", "HSwish", "Mish"}
Batches = Sequence[dict[str, Tensor]]


def ways_to_quantize(engine: str, precision: str) -> list[str]:
    """The ways to reach a precision, the fastest model first; later ones lose less accuracy.

    For int8: all matrix products (weights and activations); all but the second map of each feed-forward part, whose
    inputs have the outliers of BERT; weights alone. PyTorch has the first and the last.

    Raises:
        ValueError: an unknown precision, or one that the engine has not.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    if precision == "bfloat16" and engine == "onnxruntime":
        raise ValueError("ONNX Runtime computes in float32 or int8 on a CPU: choose openvino or pytorch for bfloat16.")
    if precision != "int8":
        return [precision]
    return [INT8, WEIGHTS] if engine == "pytorch" else [INT8, PARTLY, WEIGHTS]


def write_export(
    model: PreTrainedModel,
    folder: str | Path,
    engine: str,
    way: str,
    tokenizer: Any = None,
    calibration: Batches | None = None,
) -> Path:
    """Write `model` for an engine, with its tokenizer; nothing is measured here (see `export_model`).

    Batch and length are dynamic. The folder's config is that of the stock family without foreign code: what computes
    is the graph.

    Args:
        model: a classifier of a supported family, of a stock or pruned class; it stays as it is.
        engine: one of `ENGINES`.
        way: one of `ways_to_quantize`.
        calibration: batches of inputs (B, T); OpenVINO's int8 needs them.

    Raises:
        ImportError: the engine is not installed. ValueError: int8 for OpenVINO without calibration, a batch of
            another tokenizer, or a supernet.
    """
    require_engine(engine, way)
    refuse_supernet(model, "write_export")
    folder = Path(folder)
    if calibration is not None:
        check_calibration(model, calibration)
    if engine == "pytorch":
        _write_torch(model, folder, way)
    else:
        _write_graph(model, folder, engine, way, tokenizer, calibration)
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    return folder


def check_calibration(model: PreTrainedModel, calibration: Batches) -> None:
    """Raises ValueError where the calibration data are empty, or of another tokenizer."""
    size = model.config.vocab_size
    largest = max((int(batch["input_ids"].max()) for batch in calibration), default=-1)
    if largest < 0:
        raise ValueError("The calibration data hold no batch: give some rows of the training data.")
    if largest >= size:
        raise ValueError(
            f"The calibration data hold the token {largest}, but the model knows {size}: they were made by another "
            "tokenizer. Use the model's own."
        )


def _write_graph(
    model: PreTrainedModel,
    folder: Path,
    engine: str,
    way: str,
    tokenizer: Any,
    calibration: Batches | None,
) -> None:
    from transformers.exporters import OnnxConfig, OnnxExporter, OpenVINOConfig, OpenVINOExporter

    if engine == "openvino" and way in (INT8, PARTLY) and not calibration:
        raise ValueError("OpenVINO's int8 needs calibration data: give some batches of the training data.")
    exporter, config_class = (OpenVINOExporter, OpenVINOConfig) if engine == "openvino" else (OnnxExporter, OnnxConfig)
    make = _openvino_quantizer if engine == "openvino" else _onnx_quantizer
    training, device = model.training, next(model.parameters()).device
    sample = _sample(model, tokenizer)
    batches = [_filled(batch, sample) for batch in calibration or ()]
    try:
        with _quietly():
            config = config_class(dynamic=True, quantizer=make(way, batches))
            exported = exporter().export(model.eval().cpu(), sample, config)
    finally:
        model.train(training).to(device)
    exported.config = _stock_config(model.config)
    exported.save_pretrained(folder)
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    precision = INT8 if way in (INT8, PARTLY, WEIGHTS) else way
    write_json(folder / MANIFEST, manifest | {OWN_KEY: {"precision": precision, "way": way}})


def random_batches(
    model: PreTrainedModel, shapes: Iterable[tuple[int, int]] = ((4, 64),) * 8
) -> list[dict[str, Tensor]]:
    """Batches (B, T) of random tokens; where there are several rows, half of the last one is padding.

    To compare logits on, or to calibrate a model of which only the speed matters. T is cut at the model's positions.
    """
    generator = torch.Generator().manual_seed(0)
    positions = getattr(model.config, "max_position_embeddings", None) or 512
    batches = []
    for rows, tokens in shapes:
        tokens = min(tokens, positions - 2)  # RoBERTa's first position has the number 2
        ids = torch.randint(model.config.vocab_size, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids)
        if rows > 1:
            mask[-1, tokens // 2 :] = 0
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


def _filled(batch: dict[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A batch with all inputs of the graph: token types are zeros where they are missing."""
    return {name: batch[name] if name in batch else torch.zeros_like(batch["input_ids"]) for name in names}


def _sample(model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
    """Inputs to trace with: two rows, the second one padded."""
    known = inspect.signature(model.forward).parameters
    names = list(tokenizer.model_input_names) if tokenizer is not None else ["input_ids", "attention_mask"]
    if tokenizer is None and family_of(model).token_type_embeddings and model.config.type_vocab_size > 1:
        names.append("token_type_ids")
    ids = torch.arange(32).reshape(2, 16) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    sample = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    return {name: sample[name] for name in names if name in known}


def _stock_config(config: PretrainedConfig) -> PretrainedConfig:
    """The config of a pruned model as its stock family's, so that the folder opens without our classes."""
    if not config.model_type.startswith(PRUNED_PREFIX):
        return config
    known = [base for base in type(config).__mro__ if issubclass(base, PretrainedConfig)]
    stock: Any = next(base for base in known if not base.model_type.startswith(PRUNED_PREFIX))
    values = config.to_dict()
    for name in ("model_type", "auto_map", "per_layer_config", "architectures", "transformers_version"):
        values.pop(name, None)
    made: PretrainedConfig = stock.from_dict(values)
    return made


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Exporters and quantizers report each pass on several channels, none of which a user acts on."""
    names = ("nncf", "torch.onnx", "torch.onnx._internal.exporter._registration", "root", "transformers.exporters")
    loggers = [logging.getLogger(None if name == "root" else name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _openvino_quantizer(way: str, calibration: Batches) -> Any:
    if way not in (INT8, PARTLY, WEIGHTS):
        return None
    import nncf
    from transformers.exporters import NNCFOpenVINOQuantizer, NNCFQuantizationConfig, NNCFWeightCompressionConfig

    if way == WEIGHTS:
        return NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig())
    config = NNCFQuantizationConfig(subset_size=len(calibration))
    if way == INT8:
        return NNCFOpenVINOQuantizer(config, calibration)

    class AllButFeedForward(NNCFOpenVINOQuantizer):
        def quantize(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            names = [
                operation.get_friendly_name()
                for operation in model.get_ordered_ops()
                if operation.get_type_name() == "MatMul"
                and operation.input_value(0).get_node().get_type_name() in ACTIVATIONS
            ]
            self.config.ignored_scope = nncf.IgnoredScope(names=_some(names))
            return super().quantize(model, *args, **kwargs)

    return AllButFeedForward(config, calibration)


def _onnx_quantizer(way: str, _: Batches) -> Any:
    if way not in (INT8, PARTLY, WEIGHTS):
        return None
    from transformers.exporters import (
        NNCFOnnxQuantizer,
        NNCFWeightCompressionConfig,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )

    if way == WEIGHTS:
        return NNCFOnnxQuantizer(NNCFWeightCompressionConfig())
    # Per channel: the default, one scale for a whole matrix, loses more and is no faster.
    config = OnnxRuntimeDynamicConfig(per_channel=True)
    if way == INT8:
        return OnnxRuntimeQuantizer(config)

    class AllButFeedForward(OnnxRuntimeQuantizer):
        def quantize(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            names = [
                node.name
                for node in model.graph
                if node.op_type in ("MatMul", "Gemm")
                and (producer := node.inputs[0].producer()) is not None
                and producer.op_type in ACTIVATIONS
            ]
            self.config.nodes_to_exclude = _some(names)
            return super().quantize(model, *args, **kwargs)

    return AllButFeedForward(config)


def _some(names: list[str]) -> list[str]:
    if not names:
        raise ValueError("No matrix product behind an activation was found in the exported graph.")
    return names


def _write_torch(model: PreTrainedModel, folder: Path, way: str) -> None:
    """A model folder of transformers; int8 is torchao's, whose settings stand in the folder's config."""
    if way in (INT8, WEIGHTS):
        made = _quantized_by_torchao(model, way)
    else:
        made = copy.deepcopy(model)
        nn.Module.to(made, torch.bfloat16 if way == "bfloat16" else torch.float32)
    made.save_pretrained(folder)
    write_json(folder / MANIFEST, {OWN_KEY: {"precision": way if way in PRECISIONS else INT8, "way": way}})


def _quantized_by_torchao(model: PreTrainedModel, way: str) -> PreTrainedModel:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    kind = Int8DynamicActivationInt8WeightConfig() if way == INT8 else Int8WeightOnlyConfig()
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        settings = TorchAoConfig(quant_type=kind)
        made: PreTrainedModel = type(model).from_pretrained(folder, dtype=torch.float32, quantization_config=settings)
    return made
