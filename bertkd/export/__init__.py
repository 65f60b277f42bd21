"""From a model to what an engine runs: ONNX Runtime, OpenVINO or PyTorch, quantized, with the loss measured."""

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
from bertkd.export.exporting import random_batches, ways_to_quantize, write_export
from bertkd.export.gate import (
    AccuracyDropError,
    Attempt,
    Exported,
    compare_logits,
    export_model,
    exported_size_mb,
    predict,
)

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
    "random_batches",
    "require_engine",
    "runs_in",
    "ways_to_quantize",
    "write_export",
]
