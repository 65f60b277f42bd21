"""Exports a model to ONNX Runtime, OpenVINO or PyTorch, quantized if wanted, and measures the loss of accuracy."""

from bertkd.export.accuracy_check import (
    AccuracyDropError,
    Attempt,
    Exported,
    export_model,
    exported_size_mb,
    predict,
)
from bertkd.export.comparison import compare_logits
from bertkd.export.engines import (
    ENGINE_PACKAGES,
    ENGINES,
    PRECISIONS,
    ExportedRunner,
    available_engines,
    open_exported,
    require_engine,
    runs_in,
)
from bertkd.export.exporting import quantization_schemes, random_batches, write_export

__all__ = [
    "ENGINES",
    "ENGINE_PACKAGES",
    "PRECISIONS",
    "AccuracyDropError",
    "Attempt",
    "Exported",
    "ExportedRunner",
    "available_engines",
    "compare_logits",
    "export_model",
    "exported_size_mb",
    "open_exported",
    "predict",
    "quantization_schemes",
    "random_batches",
    "require_engine",
    "runs_in",
    "write_export",
]
