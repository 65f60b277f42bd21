"""Make a fine-tuned model a network of many widths and depths (DynaBERT): importance, rewiring, three stages.

    bertkd dynabert --config dynabert/mrpc --teacher_model_name_or_path outputs/teacher --output_dir outputs/dynabert

Each stage leaves a folder of its own in the output folder, goes on where it was killed, and is not repeated once it is
done. `--stages depth finetune` runs some of them. The sizes of the last one are printed and charted.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from transformers import PreTrainedModel

from bertkd import DynaBertKDConfig
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, train_seeds
from bertkd.cli.options import AugmentationOptions, ImportanceOptions, TrainOptions, check_stages
from bertkd.dynabert.config import STAGES
from bertkd.dynabert.method import METHODS
from bertkd.pipeline.dynabert import train_dynabert
from bertkd.pipeline.task_data import TaskData
from bertkd.records import RunResult


@dataclass
class DynaBertOptions(AugmentationOptions, ImportanceOptions, TrainOptions):
    """What the command does around the three stages."""

    stages: list[str] = field(
        default_factory=lambda: list(STAGES),
        metadata={"help": "Which stages to run: some of width, depth and finetune, in this order."},
    )
    rewire: bool = field(default=True, metadata={"help": "Put the most important heads and neurons first."})
    augment: bool = field(
        default=False,
        metadata={
            "help": "Train stages width and depth on augmented rows, as the authors do.",
            "needs": "stages=width|depth",
        },
    )

    def __post_init__(self) -> None:
        check_stages(self.stages, STAGES)


def train(options: TaskRun[DynaBertOptions, DynaBertKDConfig]) -> RunResult | None:
    """Runs the stages that are not done yet; returns the record of the last one."""
    if options.own.augment and not options.own.dry_run:
        resolve.check_augmentation_model(options.own)
    rows, task = resolve.rows_to_train_on(options)
    data = resolve.tokenized(options, rows, task)
    check_labels(data, options.own)

    # Models are made when a stage needs them: one that is done needs neither teacher nor student.
    def make_student(teacher: PreTrainedModel) -> PreTrainedModel:
        return resolve.student(options.models, data.task, options.config.seed, teacher)

    return train_dynabert(
        options.experiment(),
        data,
        lambda: resolve.teacher(options, data.task),
        make_student,
        options.config,
        options.own.stages,
        options.own.importance_settings() if options.own.rewire else None,
        options.models.ignore_weak_teacher,
        partial(resolve.augmented_data, options, rows, task) if options.own.augment else None,
    )


def check_labels(data: TaskData, own: DynaBertOptions) -> None:
    """Checks that training rows have labels, where something is learned from them.

    Raises:
        ValueError: they have none.
    """
    if "label" in data.splits["train"].column_names:
        return

    if "finetune" in own.stages:
        raise ValueError(
            "The training rows have no labels, and stage finetune learns from nothing else: give labeled rows, or "
            "leave this stage out by `bertkd dynabert --stages width depth`."
        )
    if own.rewire and own.importance_split == "train":
        raise ValueError(
            "The training rows have no labels, by which heads and neurons are put in order: take the validation rows "
            "for it, with --importance_split validation, or leave it out with --no_rewire."
        )


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one supernet per seed."""
    defaults = {"init_from": "teacher", **METHODS[0].defaults}
    return train_seeds(
        "dynabert", str(__doc__), DynaBertKDConfig, train, argv, defaults, DynaBertOptions, has_summary=False
    )
