"""Opens exported models in the engine that runs them, and reads what that engine really computes in."""

import importlib.util
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from bertkd.atomic import file_sha256, read_json
from bertkd.efficiency import Runner, TorchRunner, check_device, is_fast_in_int8
from bertkd.efficiency.inputs import check_inputs, with_all_inputs
from bertkd.export.checks import check_threads
from bertkd.export.onnx_graphs import products_by_precision, reads_ranges_at_run_time
from bertkd.models.loading import load_checkpoint
from bertkd.models.positions import max_tokens

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
# The names of the quantization schemes, as results files and the manifests of exports have them.
INT8, PARTLY, WEIGHTS = "int8", "int8 but for the second feed-forward maps", "int8 weights"
# The figures of an export depend on the versions of these packages, besides those that every figure depends on.
ENGINE_PACKAGES = ("onnxruntime", "openvino", "nncf", "torchao")

# `transformers` writes this file; what bertkd has to say about an export lies in it under a key of its own.
MANIFEST = "export.json"
OWN_KEY = "bertkd"
# Key in that part: whether int8 weights use half of their range, so that sums cannot overflow on any CPU.
REDUCED_RANGE = "reduced_range"
# Key in that part: the SHA-256 of each file with a graph or weights, by name.
FILES = "files"

_ENGINE_OF_FORMAT = {"onnx": "onnxruntime", "openvino": "openvino"}
GRAPH_FILES = {"onnxruntime": "*.onnx", "openvino": "*.xml"}
# Each engine's extra, and the modules that it brings; PyTorch needs its extra to quantize only.
_EXTRAS = {
    "onnxruntime": ("export", ("onnx", "onnxruntime", "onnxscript", "nncf")),
    "openvino": ("export", ("openvino", "nncf")),
    "pytorch": ("torchao", ("torchao",)),
}
# OpenVINO's names of data types. It is told which to compute in, because its own choice is bfloat16 on some machines.
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


def available_engines() -> list[str]:
    """Lists the engines whose packages are installed; "pytorch" is always one of them."""
    return [engine for engine in ENGINES if not _missing_modules(engine, "float32")]


def runs_in(engine: str, precision: str, device: str = "cpu") -> bool:
    """Says whether an engine has a precision that is worth measuring.

    PyTorch's int8 takes a GPU and torchao, and ONNX Runtime has no bfloat16 on a CPU.
    """
    if (engine, precision) == ("pytorch", "int8"):
        return device != "cpu" and not _missing_modules(engine, precision)
    return (engine, precision) != ("onnxruntime", "bfloat16")


def require_engine(engine: str, precision: str = "float32") -> None:
    """Checks that an engine is known and installed.

    Args:
        engine: one of `ENGINES`.
        precision: a precision, or the name of a quantization scheme.

    Raises:
        ImportError: the engine is not installed; the message has the extra's name.
        ValueError: an unknown engine.
    """
    if engine not in ENGINES:
        raise ValueError(f"There is no engine {engine!r}: choose one of {', '.join(ENGINES)}.")

    missing = _missing_modules(engine, precision)
    if missing:
        extra, _ = _EXTRAS[engine]
        raise ImportError(
            f'The engine {engine} needs {", ".join(missing)}, which is not installed: pip install "bertkd[{extra}]".'
        )


def _missing_modules(engine: str, precision: str) -> list[str]:
    if engine == "pytorch" and not precision.startswith("int8"):
        return []
    _, modules = _EXTRAS[engine]
    return [name for name in modules if importlib.util.find_spec(name) is None]


def open_exported(folder: str | Path, threads: int | None = None, device: str = "cpu") -> Runner:
    """Opens the model in a folder, in its engine.

    Args:
        folder: what `export_model` wrote, or a model folder of transformers, which PyTorch runs in float32.
        threads: the threads of ONNX Runtime or OpenVINO, which run on the CPU; `torch.get_num_threads()` when None.
        device: where PyTorch runs the model.

    Raises:
        FileNotFoundError: the folder holds neither an exported model nor a model of transformers.
        ImportError: the engine is not installed.
        ValueError: the folder is of a format that is not one of ours, or a file is not the one that was exported.
    """
    folder = Path(folder)
    check_threads(threads)
    check_device(device)
    if not (folder / MANIFEST).is_file() and not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{folder} holds no model: neither {MANIFEST} nor config.json is there.")

    manifest = _read_manifest(folder)
    own_part = manifest.get(OWN_KEY, {})
    _check_files(folder, own_part.get(FILES, {}))
    precision = own_part.get("precision", "float32")
    export_format = manifest.get("export_format", "pytorch")
    if export_format == "pytorch":
        return _open_torch(folder, precision, device, own_part.get("way"))

    if export_format not in _ENGINE_OF_FORMAT:
        raise ValueError(f"{folder} holds an export of format {export_format!r}, which bertkd does not run.")
    engine = _ENGINE_OF_FORMAT[export_format]
    require_engine(engine)
    if not list(folder.glob(GRAPH_FILES[engine])):
        raise FileNotFoundError(
            f"{folder} holds no {GRAPH_FILES[engine]}, which {MANIFEST} speaks of: export it anew."
        )
    if own_part.get(REDUCED_RANGE) is False and not is_fast_in_int8():
        warnings.warn(
            f"{folder} was quantized on a CPU that has instructions for int8. This one has none: sums overflow here, "
            "and answers differ. Export the model on a CPU like this one.",
            stacklevel=2,
        )
    return ExportedRunner(folder, engine, precision, threads or torch.get_num_threads())


def _check_files(folder: Path, files: Mapping[str, str]) -> None:
    """Refuses a folder whose figures were measured on other files than it holds."""
    for name, digest in files.items():
        path = folder / name
        if not path.is_file():
            raise FileNotFoundError(f"{folder} holds no {name}, which {MANIFEST} speaks of: export it anew.")
        if file_sha256(path) != digest:
            raise ValueError(
                f"{path} is not the file that was exported and measured: it was damaged, or changed afterwards. Copy "
                "the folder again, or export it anew."
            )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Reads what a folder says of its export; a model folder of transformers says nothing."""
    path = folder / MANIFEST
    if not path.is_file():
        return {}

    manifest = read_json(path)
    own_part = manifest.get(OWN_KEY, {}) if isinstance(manifest, dict) else None
    if not isinstance(own_part, dict) or not isinstance(own_part.get(FILES, {}), dict):
        raise ValueError(f"{path} is no manifest of an export, it has no fields: export it anew.")
    if manifest.get("export_format", "pytorch") in _ENGINE_OF_FORMAT and not manifest.get("components"):
        raise ValueError(f"{path} is no manifest of an export, it names no components: export it anew.")
    return dict(manifest)


def _open_torch(folder: Path, precision: str, device: str, scheme: str | None) -> TorchRunner:
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    model = load_checkpoint(AutoModelForSequenceClassification, folder, dtype=dtype).eval()
    runner = TorchRunner(torch.nn.Module.to(model, device=device))

    is_quantized = any(type(weight).__module__.startswith("torchao.") for weight in runner.model.parameters())
    # Where the weights alone are int8, the products are not.
    if is_quantized and scheme != WEIGHTS:
        runner.precision = "int8"
    return runner


class ExportedRunner:
    """An exported model in ONNX Runtime or OpenVINO, on the CPU.

    It is a `bertkd.efficiency.Runner`: it maps inputs (B, T) to logits (B, C) in float32. Inputs that the graph does
    not know are left out. Where inputs that it wants are missing, every token counts and has the token type 0.

    Args:
        folder: what `export_model` wrote.
        engine: "onnxruntime" or "openvino".
        precision: the precision that was asked for when the model was exported.
        threads: the threads of the engine.

    Attributes:
        depends_on_batch: whether a row's logits depend on the other rows of its batch, and on padding. In ONNX
            Runtime's int8 they do, because the range of an activation is read from the whole batch.
    """

    attention: str = "exported"
    device: str = "cpu"

    def __init__(self, folder: str | Path, engine: str, precision: str, threads: int) -> None:
        from transformers.exporters import ExportedModel

        is_openvino = engine == "openvino"
        options = _openvino_options(precision, threads) if is_openvino else _onnxruntime_options(threads)
        self._model = ExportedModel.from_pretrained(folder, device="cpu", **options)
        self._graph_inputs = set(next(iter(self._model.components.values())).metadata.kwargs)

        config: Any = self._model.config
        self.engine = engine
        self.threads: int | None = threads
        self.vocabulary: int = config.vocab_size
        self.positions = max_tokens(config)
        self._token_types: int | None = getattr(config, "type_vocab_size", None)

        # An engine may compute in another precision than the one that was asked for: what most products have counts.
        program: Any = next(iter(self._model.runners.values()))
        products = _openvino_products(program.compiled_model) if is_openvino else products_by_precision(folder)
        self.precision = products.most_common(1)[0][0] if products else "unknown"
        self.depends_on_batch = not is_openvino and reads_ranges_at_run_time(folder)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits (B, C) for token ids and masks (B, T).

        Raises:
            ValueError: the model cannot read the inputs, see `check_inputs`; no engine says so reliably.
        """
        check_inputs(inputs, self.vocabulary, self.positions, self._token_types)

        # The graphs read whole numbers of 64 bits alone.
        feed: dict[str, Any] = {
            name: value.long() for name, value in with_all_inputs(inputs, self._graph_inputs).items()
        }
        logits: Tensor = self._model(**feed).logits
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
    # Threads that spin after a call take the cores from whatever runs next, such as another engine in a measurement.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return {"session_options": options}


def _openvino_products(compiled: Any) -> Counter[str]:
    """Counts the matrix products of a compiled model by what they are computed in."""
    names = {"f32": "float32", "bf16": "bfloat16", "f16": "float16", "i8": "int8", "u8": "int8"}
    kernels = ("FullyConnected", "MatMul", "Gemm")
    counts: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ops():
        info = operation.get_rt_info()
        if info["layerType"].astype(str) in kernels:
            # The kernel's name ends in what it computes in, which int8 weights alone do not change.
            data_type = info["primitiveType"].astype(str).lower().rpartition("_")[2]
            if data_type not in names:
                data_type = info["runtimePrecision"].astype(str)
            counts[names.get(data_type, data_type)] += 1
    return counts
