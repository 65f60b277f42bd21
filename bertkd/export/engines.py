"""The engines that run exported models, and what each of them really computes in."""

import importlib.util
import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from bertkd.efficiency import Runner, TorchRunner

__all__ = [
    "ENGINES",
    "ENGINE_PACKAGES",
    "MANIFEST",
    "PRECISIONS",
    "ExportedRunner",
    "available_engines",
    "open_exported",
    "require_engine",
    "runs_in",
]

ENGINES = ("pytorch", "onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16", "int8")
# What an export's figures depend on, besides what every figure does.
ENGINE_PACKAGES = ("onnxruntime", "openvino", "nncf", "torchao")
# Written by transformers; our own part of it lies under a key of ours.
MANIFEST = "export.json"
OWN_KEY = "bertkd"
_FORMATS = {"onnx": "onnxruntime", "openvino": "openvino"}
# An engine's extra, and the modules that it brings; PyTorch needs one to quantize.
_EXTRAS = {
    "onnxruntime": ("export", ("onnx", "onnxruntime", "onnxscript", "nncf")),
    "openvino": ("openvino", ("openvino", "nncf")),
    "pytorch": ("torchao", ("torchao",)),
}
# OpenVINO's name for what it computes in, where its own choice is not wanted: on some machines that is bfloat16.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}
_INTEGER_OPS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}


def available_engines() -> list[str]:
    """The engines whose packages are installed; "pytorch" always is one."""
    return [engine for engine in ENGINES if not _missing(engine, "float32")]


def runs_in(engine: str, precision: str, device: str = "cpu") -> bool:
    """Whether an engine has a precision worth measuring: PyTorch's int8 takes a GPU and torchao, ONNX Runtime has no
    bfloat16 on a CPU."""
    if (engine, precision) == ("pytorch", "int8"):
        return device != "cpu" and not _missing(engine, precision)
    return (engine, precision) != ("onnxruntime", "bfloat16")


def require_engine(engine: str, precision: str = "float32") -> None:
    """Raises ValueError for an unknown engine, ImportError (with the extra's name) for one that is not installed."""
    if engine not in ENGINES:
        raise ValueError(f"There is no engine {engine!r}: choose one of {', '.join(ENGINES)}.")
    if missing := _missing(engine, precision):
        extra, _ = _EXTRAS[engine]
        raise ImportError(
            f'The engine {engine} needs {", ".join(missing)}, which is not installed: pip install "bertkd[{extra}]".'
        )


def _missing(engine: str, precision: str) -> list[str]:
    needed = () if engine == "pytorch" and not precision.startswith("int8") else _EXTRAS[engine][1]
    return [name for name in needed if importlib.util.find_spec(name) is None]


def open_exported(folder: str | Path, threads: int | None = None, device: str = "cpu") -> Runner:
    """The model in a folder, in its engine.

    Args:
        folder: what `export_model` wrote, or a model folder of transformers, which PyTorch runs in float32.
        threads: of ONNX Runtime or OpenVINO, which run on the CPU; `torch.get_num_threads()` when None.
        device: where PyTorch runs it.

    Raises:
        FileNotFoundError: the folder holds neither an exported model nor a model of transformers.
        ImportError: the engine is not installed.
        ValueError: the folder is of a format that is not one of ours.
    """
    folder = Path(folder)
    described = _manifest(folder)
    own = described.get(OWN_KEY, {})
    precision = own.get("precision", "float32")
    kind = described.get("export_format", "pytorch")
    if kind == "pytorch":
        return _open_torch(folder, precision, device, own.get("way"))
    if kind not in _FORMATS:
        raise ValueError(f"{folder} holds an export of format {kind!r}, which bertkd does not run.")
    require_engine(_FORMATS[kind])
    return ExportedRunner(folder, _FORMATS[kind], precision, threads or torch.get_num_threads())


def _manifest(folder: Path) -> dict[str, Any]:
    if (folder / MANIFEST).is_file():
        described: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return described
    if (folder / "config.json").is_file():
        return {}
    raise FileNotFoundError(f"{folder} holds no model: neither {MANIFEST} nor config.json is there.")


def _open_torch(folder: Path, precision: str, device: str, way: str | None) -> TorchRunner:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    runner = TorchRunner(AutoModelForSequenceClassification.from_pretrained(folder, dtype=dtype).to(device).eval())
    is_quantized = any(type(weight).__module__.startswith("torchao.") for weight in runner.model.parameters())
    if is_quantized and way != "int8 weights":  # where weights alone are int8, products are not
        runner.precision = "int8"
    return runner


class ExportedRunner:
    """An exported model in ONNX Runtime or OpenVINO, on the CPU.

    It is called as a `bertkd.report.Runner`: inputs (B, T) to logits (B, C) in float32. Inputs that the graph does
    not know are left out, and token types that it wants are zeros where they are missing.

    Args:
        folder: what `export_model` wrote.
        engine: "onnxruntime" or "openvino".
        precision: what was asked for when it was exported.
        threads: of the engine.
    """

    attention: str = "exported"
    device: str = "cpu"

    def __init__(self, folder: str | Path, engine: str, precision: str, threads: int) -> None:
        from transformers.exporters import ExportedModel

        options = _openvino_options(precision, threads) if engine == "openvino" else _onnxruntime_options(threads)
        self.engine = engine
        self._model = ExportedModel.from_pretrained(folder, device="cpu", **options)
        config: Any = self._model.config
        self.threads: int | None = threads
        self.vocabulary: int = config.vocab_size
        self.positions: int | None = getattr(config, "max_position_embeddings", None)
        self._inputs = set(next(iter(self._model.components.values())).metadata.kwargs)
        program: Any = next(iter(self._model.runners.values()))
        is_openvino = engine == "openvino"
        self.precision = _openvino_precision(program.compiled_model) if is_openvino else _onnx_precision(folder)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, C) for token ids and masks (B, T)."""
        given: dict[str, Any] = {name: tensor for name, tensor in inputs.items() if name in self._inputs}
        for name in self._inputs - given.keys():
            given[name] = torch.zeros_like(inputs["input_ids"])
        logits: Tensor = self._model(**given).logits
        return logits.float()


def _openvino_options(precision: str, threads: int) -> dict[str, Any]:
    config: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads}
    if precision in _HINTS:
        config["INFERENCE_PRECISION_HINT"] = _HINTS[precision]
    return {"config": config}


def _onnxruntime_options(threads: int) -> dict[str, Any]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Threads that spin after a call take the cores from whatever runs next, another engine in a measurement say.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return {"session_options": options}


def _openvino_precision(compiled: Any) -> str:
    """What most matrix products of a compiled model are computed in."""
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "int8"}
    kinds: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        facts = operation.get_rt_info()
        if facts["layerType"].astype(str) in ("FullyConnected", "MatMul", "Gemm"):
            kind = facts["runtimePrecision"].astype(str)
            kinds[names.get(kind, kind)] += 1
    return kinds.most_common(1)[0][0] if kinds else "unknown"


def _onnx_precision(folder: str | Path) -> str:
    """What the matrix products of an ONNX file are computed in, read off its operators."""
    import onnx

    graph = onnx.load(str(next(Path(folder).glob("*.onnx"))), load_external_data=False).graph
    kinds = {node.op_type for node in graph.node}
    return "int8" if kinds & _INTEGER_OPS else "float32"
