"""Export a model for the engine that will run it, quantize it, and measure what that costs and gains.

    bertkd export --model_name_or_path outputs/pkd --teacher_model_name_or_path outputs/teacher --task_name sst2 \
        --engine openvino --precision int8 --output_dir outputs/pkd-int8

The metric is measured before and after, on the validation rows, through the engine itself. Where int8 loses more than
--max_drop, gentler quantizations are tried. If none keeps the metric, nothing is written and the figures are told.
"""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace

from bertkd import DistillationConfig
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, quiet
from bertkd.cli.options import MeasuringOptions
from bertkd.cli.parser import one_run, parse_runs
from bertkd.cli.search import deployment_of
from bertkd.pipeline.export import AccuracyCheck, export_for_task
from bertkd.records import ExportResult

# Fields of the trainer's config that an export reads, and options that make a student of a model.
READ_BY_AN_EXPORT = ("output_dir", "seed", "use_cpu", "teacher_labels", "do_predict", "disable_tqdm")
OF_A_STUDENT = ("num_student_layers", "student_layers", "init_from")
DEFAULTS = {"alpha": 0.0, "engine": "openvino", "precision": "int8"}


@dataclass
class ExportOptions(MeasuringOptions):
    """For which engine, how precise, and how it is measured."""

    max_drop: float = field(default=0.01, metadata={"help": "The most that the metric may lose, as a fraction."})
    calibration_rows: int = field(
        default=256, metadata={"help": "How many training rows the ranges of int8 are read from."}
    )
    device: str = field(
        default="cpu",
        metadata={"help": "Where --engine pytorch runs, and eager PyTorch beside it, such as cuda."},
    )


def export(options: TaskRun[ExportOptions, DistillationConfig]) -> ExportResult:
    """Exports one model."""
    models = options.models
    if models.model_name_or_path is None:
        raise ValueError("Name the model to export with --model_name_or_path.")

    deployment = deployment_of(options.own)
    check = AccuracyCheck(options.own.max_drop, options.own.calibration_rows)
    # The teacher is only timed, and may read the ids of another tokenizer.
    of_the_model = replace(options, models=replace(models, teacher_model_name_or_path=None))
    return export_for_task(
        options.experiment(),
        resolve.task_data(of_the_model),
        models.model_name_or_path,
        options.config,
        deployment,
        check,
        options.own.device,
        models.teacher_model_name_or_path,
    )


def options_without_effect(command: str) -> list[str]:
    """Lists what was typed and only a training reads. Settings in a file may be shared with one: they stay unnamed."""
    training = {member.name for member in fields(DistillationConfig)} - set(READ_BY_AN_EXPORT)
    names = []
    for word in shlex.split(command):
        name = word.partition("=")[0].removeprefix("--").replace("-", "_")
        is_of_training = name in training and not name.startswith(("hub_", "push_to_hub"))
        if word.startswith("--") and (is_of_training or name in OF_A_STUDENT):
            names.append(f"--{name}")
    return names


def main(argv: Sequence[str] | None = None) -> ExportResult:
    """Exports one model."""
    quiet()
    runs: list[TaskRun[ExportOptions, DistillationConfig]] = parse_runs(
        "export", str(__doc__), DistillationConfig, argv, DEFAULTS, ExportOptions
    )
    options = one_run(runs, "The seed of an export only draws the rows for the calibration.")
    # Not in `export`, which `bertkd compress` calls with the options of its training.
    if unused := options_without_effect(options.command):
        print(f"An export trains nothing, so these options have no effect: {', '.join(unused)}.")
    return export(options)
