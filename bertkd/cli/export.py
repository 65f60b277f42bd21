"""Export a model for the engine that will run it, quantize it, and measure what that costs and gains.

    bertkd export --model_name_or_path outputs/pkd --teacher_model_name_or_path outputs/teacher --task_name sst2 \
        --engine openvino --precision int8 --output_dir outputs/pkd-int8

The metric is measured before and after, on the validation rows, through the engine itself. With
--quantization_aware_rows 6400, a model that loses more than 0.3 points in int8 is distilled into itself while it is
rounded, and the better of both exports is kept. Where int8 loses more than --max_drop, gentler quantizations are
tried. If none keeps the metric, nothing is written.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from bertkd import DistillationConfig
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, check_outputs, note_slow_int8, quiet
from bertkd.cli.options import MeasuringOptions
from bertkd.cli.parser import one_run, parse_runs
from bertkd.cli.rules import COUNT, NOT_NEGATIVE
from bertkd.pipeline.export import AccuracyCheck, export_for_task
from bertkd.records import ExportResult

DEFAULTS = {"alpha": 0.0, "engine": "openvino", "precision": "int8"}


@dataclass
class ExportOptions(MeasuringOptions):
    """For which engine, how precise, and how it is measured."""

    max_drop: float = field(
        default=0.01, metadata={"help": "The most that the metric may lose, as a fraction.", "range": NOT_NEGATIVE}
    )
    calibration_rows: int = field(
        default=256,
        metadata={
            "help": "How many training rows the ranges of OpenVINO's int8 are read from.",
            "needs": ["precision=int8", "engine=openvino"],
            "range": COUNT,
        },
    )
    quantization_aware_rows: int = field(
        default=0,
        metadata={
            "help": "Where int8 loses more than 0.3 points, the model is distilled into itself on so many training "
            "rows while it is rounded to int8; 0 for never.",
            "needs": "precision=int8",
            "range": NOT_NEGATIVE,
        },
    )


def accuracy_check_of(options: ExportOptions) -> AccuracyCheck:
    """How much the metric may lose."""
    return AccuracyCheck(options.max_drop, options.calibration_rows, options.quantization_aware_rows)


def export(options: TaskRun[ExportOptions, DistillationConfig]) -> ExportResult:
    """Exports one model."""
    models = options.models
    if models.model_name_or_path is None:
        raise ValueError("Name the model to export with --model_name_or_path.")

    # The teacher is only timed, and may read the ids of another tokenizer.
    of_the_model = replace(options, models=replace(models, teacher_model_name_or_path=None))
    return export_for_task(
        options.experiment(),
        resolve.task_data(of_the_model),
        models.model_name_or_path,
        options.config,
        options.own.deployment(),
        accuracy_check_of(options.own),
        models.teacher_model_name_or_path,
    )


def main(argv: Sequence[str] | None = None) -> ExportResult:
    """Exports one model."""
    quiet()
    runs: list[TaskRun[ExportOptions, DistillationConfig]] = parse_runs(
        "export", str(__doc__), DistillationConfig, argv, DEFAULTS, ExportOptions
    )
    options = one_run(runs, "The seed of an export only draws the rows for the calibration.")
    # A device that is not here ends the command before anything is read.
    options.own.deployment()
    check_outputs([options])
    note_slow_int8(options.own)
    return export(options)
