"""Writes a model for an engine: ONNX or OpenVINO through `transformers.exporters`, or a folder for PyTorch."""

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

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TorchAoConfig

from bertkd.atomic import file_sha256, read_json, write_json
from bertkd.efficiency import is_fast_in_int8
from bertkd.efficiency.inputs import with_all_inputs
from bertkd.export.checks import check_calibration, check_export_tokenizer, check_model
from bertkd.export.engines import (
    ENGINES,
    FILES,
    INT8,
    MANIFEST,
    OWN_KEY,
    PARTLY,
    PRECISIONS,
    REDUCED_RANGE,
    WEIGHTS,
    require_engine,
)
from bertkd.export.onnx_graphs import fold_transposed_weights
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.evaluated import eval_mode, float32_copy, has_flash_attention, in_own_precision
from bertkd.models.families import encoder_layers, family_of
from bertkd.models.positions import max_tokens
from bertkd.models.pruned import PrunedModel
from bertkd.models.tokenizer_files import save_tokenizer
from bertkd.students.width import config_for, stock_class_of

__all__ = ["COMPUTING", "in_float32", "needs_calibration", "quantization_schemes", "random_batches", "write_export"]

SCHEMES_IN_INT8 = (INT8, PARTLY, WEIGHTS)

# The ends of the names of files with graphs and weights.
COMPUTING = (".bin", ".data", ".onnx", ".safetensors", ".xml")

Batches = Sequence[dict[str, Tensor]]


def quantization_schemes(engine: str, precision: str) -> list[str]:
    """Lists the schemes that reach a precision, the fastest model first; later ones lose less accuracy.

    For int8, these are: all matrix products (weights and activations); all but the second map of each feed-forward
    part, whose inputs have the outliers of BERT; weights alone. PyTorch has the first and the last. The scheme of a
    precision that needs no quantization has that precision's name.

    Raises:
        ValueError: an unknown precision, or one that the engine does not have.
    """
    if engine not in ENGINES:
        raise ValueError(f"There is no engine {engine!r}: choose one of {', '.join(ENGINES)}.")
    if precision not in PRECISIONS:
        raise ValueError(f"There is no precision {precision!r}: choose one of {', '.join(PRECISIONS)}.")
    if precision == "bfloat16" and engine == "onnxruntime":
        raise ValueError("ONNX Runtime computes in float32 or int8 on a CPU: choose openvino or pytorch for bfloat16.")

    if precision != "int8":
        return [precision]
    return [INT8, WEIGHTS] if engine == "pytorch" else list(SCHEMES_IN_INT8)


def in_float32(model: PreTrainedModel) -> PreTrainedModel:
    """Returns a model that can compute in float32 as it is, and of another one a copy that does."""
    is_float32 = all(weight.dtype == torch.float32 for weight in model.parameters())
    return model if is_float32 and not has_flash_attention(model) else float32_copy(model)


def needs_calibration(engine: str, scheme: str) -> bool:
    """Says whether a scheme reads the ranges of activations when the model is exported."""
    return engine == "openvino" and scheme in (INT8, PARTLY)


def write_export(
    model: PreTrainedModel,
    folder: str | Path,
    engine: str,
    scheme: str,
    tokenizer: Any = None,
    calibration: Batches | None = None,
    is_accurate: bool = True,
) -> Path:
    """Writes `model` for an engine, with its tokenizer; nothing is measured here (see `export_model`).

    Batch and length are dynamic. The folder's config is that of the stock family without foreign code: what computes
    is the graph. On a CPU without instructions for int8, whose sums would overflow, int8 weights have half of their
    range (NNCF's `overflow_fix`, ONNX Runtime's `reduce_range`).

    Args:
        model: a classifier of a supported family, of a stock or pruned class; it stays as it is.
        folder: where to write.
        engine: one of `ENGINES`.
        scheme: one of `quantization_schemes`.
        tokenizer: is written beside the model, and tells which inputs there are.
        calibration: batches of inputs (B, T); OpenVINO's int8 needs them.
        is_accurate: whether the biases of OpenVINO's int8 are corrected. It takes longer, and changes neither size nor
            speed: leave it out where only these are measured.

    Returns:
        The folder.

    Raises:
        ImportError: the engine is not installed.
        ValueError: int8 for OpenVINO without calibration, a batch of another tokenizer, or a supernet.
    """
    require_engine(engine, scheme)
    if scheme not in quantization_schemes(engine, INT8 if scheme in SCHEMES_IN_INT8 else scheme):
        raise ValueError(f"{engine} has no scheme {scheme!r}: see quantization_schemes.")
    check_model(model)
    check_export_tokenizer(model, tokenizer)
    refuse_supernet(model, "write_export")
    folder, model = Path(folder), in_float32(model)
    check_calibration(model, calibration, needs_calibration(engine, scheme))

    with in_own_precision(model):
        if engine == "pytorch":
            _write_torch(model, folder, scheme)
        else:
            _write_graph(model, folder, engine, scheme, tokenizer, calibration, is_accurate)

    _seal(folder)
    if tokenizer is not None:
        save_tokenizer(tokenizer, folder, model.config)
    return folder


def _seal(folder: Path) -> None:
    """Notes in the manifest what the files hold that compute, so that another file is noticed when they are opened."""
    manifest = read_json(folder / MANIFEST)
    files = [path for path in sorted(folder.iterdir()) if path.suffix in COMPUTING]
    manifest[OWN_KEY][FILES] = {path.name: file_sha256(path) for path in files}
    write_json(folder / MANIFEST, manifest)


def _write_graph(
    model: PreTrainedModel,
    folder: Path,
    engine: str,
    scheme: str,
    tokenizer: Any,
    calibration: Batches | None,
    is_accurate: bool,
) -> None:
    from transformers.exporters import OnnxConfig, OnnxExporter, OpenVINOConfig, OpenVINOExporter

    sample = _sample_inputs(model, tokenizer)
    device = next(model.parameters()).device
    try:
        with eval_mode(model), _quietly():
            exporter: Any
            config: Any
            if engine == "openvino":
                batches = [with_all_inputs(batch, sample) for batch in calibration or ()]
                exporter = OpenVINOExporter()
                quantizer = _openvino_quantizer(scheme, batches, is_accurate, _second_maps(model))
                config = OpenVINOConfig(dynamic=True, quantizer=quantizer)
            else:
                exporter = OnnxExporter()
                config = OnnxConfig(dynamic=True, quantizer=_onnx_quantizer(scheme, _second_maps(model)))
            exported = exporter.export(model.cpu(), sample, config)
    finally:
        nn.Module.to(model, device)

    # That of the stock family, so that the folder opens without our classes.
    is_pruned = isinstance(model, PrunedModel)
    exported.config = config_for(stock_class_of(type(model)), model.config, {}) if is_pruned else model.config
    exported.save_pretrained(folder)

    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    write_json(folder / MANIFEST, manifest | _own_part(scheme, is_graph=True))


def _own_part(scheme: str, is_graph: bool) -> dict[str, Any]:
    """Returns what bertkd adds to the manifest of an export, which is a graph for an engine or PyTorch's folder."""
    precision = INT8 if scheme in SCHEMES_IN_INT8 else scheme
    facts: dict[str, Any] = {"precision": precision, "way": scheme}
    if is_graph and scheme in (INT8, PARTLY):
        # Without instructions of their own, CPUs add two products of int8 up in 16 bits, which overflow. The weights
        # have half of their range there.
        facts[REDUCED_RANGE] = not is_fast_in_int8()
    return {OWN_KEY: facts}


def random_batches(
    model: PreTrainedModel, shapes: Iterable[tuple[int, int]] = ((4, 64),) * 8
) -> list[dict[str, Tensor]]:
    """Makes batches (B, T) of random tokens; where there are several rows, half of the last one is padding.

    They serve to compare logits on, or to calibrate a model of which only the speed matters.

    Args:
        model: the model whose vocabulary and positions count.
        shapes: B and T of each batch; T is cut at the model's positions.
    """
    generator = torch.Generator().manual_seed(0)
    positions = max_tokens(model.config) or 512

    batches = []
    for rows, tokens in shapes:
        tokens = min(tokens, positions)
        ids = torch.randint(model.config.vocab_size, (rows, tokens), generator=generator)
        mask = torch.ones_like(ids)
        if rows > 1:
            mask[-1, tokens // 2 :] = 0
        batches.append({"input_ids": ids, "attention_mask": mask})
    return batches


def _sample_inputs(model: PreTrainedModel, tokenizer: Any) -> dict[str, Any]:
    """Makes the inputs to trace the model with: two rows, the second one padded."""
    if tokenizer is not None:
        names = list(tokenizer.model_input_names)
    else:
        names = ["input_ids", "attention_mask"]
        if family_of(model).token_type_embeddings and model.config.type_vocab_size > 1:
            names.append("token_type_ids")

    ids = torch.arange(32).reshape(2, 16) % model.config.vocab_size
    mask = torch.ones_like(ids)
    mask[1, 10:] = 0
    sample = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}

    # A tokenizer may give more than the model takes.
    parameters = inspect.signature(model.forward).parameters
    return {name: sample[name] for name in names if name in parameters}


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Silences exporters and quantizers, which report each pass on several channels; no user acts on these reports."""
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


def _second_maps(model: PreTrainedModel) -> list[np.ndarray]:
    """The weights (H, neurons) that the activations of feed-forward parts go into; of factors, those of the first."""
    path, weights = family_of(model).ffn_out, []
    for layer in encoder_layers(model):
        for module in layer.get_submodule(path).modules():
            if isinstance(module, nn.Linear):
                weights.append(module.weight.detach().cpu().numpy())
                break
    return weights


def _left_out(products: Iterable[tuple[str, np.ndarray]], second_maps: Sequence[np.ndarray]) -> list[str]:
    """The names of those products whose weights are second feed-forward maps.

    Raises:
        ValueError: one is not found, so that the scheme would silently be int8 for more than it says.
    """
    names = []
    for name, weight in products:
        if any(np.array_equal(weight, second) or np.array_equal(weight, second.T) for second in second_maps):
            names.append(name)
    if len(names) < len(second_maps):
        raise ValueError(
            f"Of {len(second_maps)} second feed-forward maps, {len(names)} were found in the exported graph, so that "
            "they cannot be left out of int8: choose float32."
        )
    return names


def _openvino_quantizer(
    scheme: str, calibration: Batches, is_accurate: bool, second_maps: Sequence[np.ndarray] = ()
) -> Any:
    """Makes the quantizer of a scheme; None where nothing is quantized."""
    if scheme not in SCHEMES_IN_INT8:
        return None

    import nncf
    from transformers.exporters import NNCFOpenVINOQuantizer, NNCFQuantizationConfig, NNCFWeightCompressionConfig

    if scheme == WEIGHTS:
        return NNCFOpenVINOQuantizer(NNCFWeightCompressionConfig())
    advanced = nncf.AdvancedQuantizationParameters(
        disable_bias_correction=not is_accurate,
        overflow_fix=None if is_fast_in_int8() else nncf.OverflowFix.ENABLE,
    )
    config = NNCFQuantizationConfig(subset_size=len(calibration), advanced_parameters=advanced)
    if scheme == INT8:
        return NNCFOpenVINOQuantizer(config, calibration)

    class AllButFeedForward(NNCFOpenVINOQuantizer):
        def quantize(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            products = []
            for operation in model.get_ordered_ops():
                if operation.get_type_name() == "MatMul":
                    weight = operation.input_value(1).get_node()
                    if weight.get_type_name() == "Constant":
                        products.append((operation.get_friendly_name(), weight.get_data()))

            self.config.ignored_scope = nncf.IgnoredScope(names=_left_out(products, second_maps))
            return super().quantize(model, *args, **kwargs)

    return AllButFeedForward(config, calibration)


def _onnx_quantizer(scheme: str, second_maps: Sequence[np.ndarray] = ()) -> Any:
    """Makes the quantizer of a scheme; None where nothing is quantized."""
    if scheme not in SCHEMES_IN_INT8:
        return None

    from transformers.exporters import (
        NNCFOnnxQuantizer,
        NNCFWeightCompressionConfig,
        OnnxRuntimeDynamicConfig,
        OnnxRuntimeQuantizer,
    )

    if scheme == WEIGHTS:

        class OfWeights(NNCFOnnxQuantizer):
            def quantize(self, model: Any, *args: Any, **kwargs: Any) -> Any:
                fold_transposed_weights(model)
                return super().quantize(model, *args, **kwargs)

        return OfWeights(NNCFWeightCompressionConfig())

    # The default, one scale for a whole matrix, loses more accuracy and is no faster.
    config = OnnxRuntimeDynamicConfig(per_channel=True, reduce_range=not is_fast_in_int8())

    class OfProducts(OnnxRuntimeQuantizer):
        def quantize(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            fold_transposed_weights(model)
            if scheme == PARTLY:
                products = []
                for node in model.graph:
                    weight = node.inputs[1].const_value if node.op_type in ("MatMul", "Gemm") else None
                    if weight is not None:
                        products.append((node.name, weight.numpy()))

                self.config.nodes_to_exclude = _left_out(products, second_maps)
            return super().quantize(model, *args, **kwargs)

    return OfProducts(config)


def _write_torch(model: PreTrainedModel, folder: Path, scheme: str) -> None:
    """Writes a model folder of transformers; int8 is torchao's, whose settings stand in the folder's config."""
    if scheme in (INT8, WEIGHTS):
        converted = _quantized_by_torchao(model, scheme)
    else:
        converted = copy.deepcopy(model)
        nn.Module.to(converted, torch.bfloat16 if scheme == "bfloat16" else torch.float32)

    converted.save_pretrained(folder)
    write_json(folder / MANIFEST, _own_part(scheme, is_graph=False))


def _quantized_by_torchao(model: PreTrainedModel, scheme: str) -> PreTrainedModel:
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, Int8WeightOnlyConfig

    quant_type = Int8DynamicActivationInt8WeightConfig() if scheme == INT8 else Int8WeightOnlyConfig()
    settings = TorchAoConfig(quant_type=quant_type)
    # transformers quantizes while it loads.
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        quantized: PreTrainedModel = type(model).from_pretrained(
            folder, dtype=torch.float32, quantization_config=settings
        )
    return quantized
