"""TinyBERT's task distillation: augment the training rows, then distill attention and states, then predictions.

    bertkd tinybert --config tinybert/mrpc --teacher_model_name_or_path outputs/teacher \
        --model_name_or_path outputs/general --augment_model bert-base-uncased --output_dir outputs/tinybert

The student starts from `bertkd tinybert-general` (--model_name_or_path), or with random weights in a shape
(--student_shape, or --num_hidden_layers and --hidden_size), or from the teacher's layers (--init_from teacher), which
the paper does not do. A command that was killed goes on when it is started again.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from transformers import PreTrainedModel

from bertkd import TinyBertKDConfig
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, train_seeds
from bertkd.cli.options import AugmentationOptions, ModelOptions, ShapeOptions, check_stages
from bertkd.cli.rules import NOT_NEGATIVE
from bertkd.data import Task
from bertkd.pipeline import TaskData, load_model
from bertkd.pipeline.models import is_released_tinybert, projection_folder
from bertkd.pipeline.tinybert import TASK_STAGES, TinyBertStages, released_student, train_tinybert
from bertkd.records import RunResult
from bertkd.tinybert.config import MAPS
from bertkd.tinybert.method import METHODS


@dataclass
class TinyBertOptions(AugmentationOptions, ShapeOptions):
    """What the command does around the two stages. The trainer's own options are those of stage prediction."""

    stages: list[str] = field(
        default_factory=lambda: list(TASK_STAGES),
        metadata={"help": "Which stages to run: intermediate, prediction or both."},
    )
    augment: bool = field(default=True, metadata={"help": "Train on augmented rows."})
    augment_prediction: bool = field(
        default=True,
        metadata={
            "help": "Train stage prediction on augmented rows too. The paper finds the original rows better for "
            "STS-B.",
            "needs": "augment",
        },
    )
    intermediate_num_train_epochs: float = field(
        default=20.0,
        metadata={
            "help": "The number of epochs of stage intermediate.",
            "range": NOT_NEGATIVE,
        },
    )
    intermediate_learning_rate: float = field(
        default=5e-5,
        metadata={
            "help": "The learning rate of stage intermediate. It stays constant, as in the released code.",
            "range": NOT_NEGATIVE,
        },
    )

    def __post_init__(self) -> None:
        check_stages(self.stages, TASK_STAGES)


Run = TaskRun[TinyBertOptions, TinyBertKDConfig]


def check_trainer_stage(config: TinyBertKDConfig, stage: str) -> None:
    """Checks that the trainer's stage is the one that the command runs.

    Raises:
        ValueError: the command line asks for another.
    """
    if config.stage != stage:
        raise ValueError(f"--stage is set by the command ({stage}): leave it out. TinyBERT's others are --stages.")


def train(options: Run) -> RunResult | None:
    """Runs the stages that are not done yet; None where stage prediction is left out."""
    check_trainer_stage(options.config, "prediction")
    resolve.required_teacher(options.models)
    own, config = options.own, options.config
    if own.augment and not own.dry_run:
        resolve.check_augmentation_model(own)

    rows, task = resolve.rows_to_train_on(options)
    original = resolve.tokenized(options, rows, task)
    teacher = resolve.teacher(options, task)

    # After the teacher was checked: augmenting a large task takes hours.
    def make_rows() -> TaskData:
        return resolve.augmented_data(options, rows, task) if own.augment else original

    stages = TinyBertStages(own.stages, own.intermediate_num_train_epochs, own.intermediate_learning_rate)
    return train_tinybert(
        options.experiment(),
        original,
        make_rows,
        teacher,
        partial(start_of_student, options, task, teacher, stages.intermediate_config(config)),
        config,
        stages,
        method_name(options.models, own, config),
        own.augment_prediction,
        options.models.ignore_weak_teacher,
    )


def start_of_student(
    options: Run, task: Task, teacher: PreTrainedModel, config: TinyBertKDConfig
) -> tuple[PreTrainedModel, str | None]:
    """The student before stage intermediate, and the folder of the projection that comes with it.

    Args:
        options: say how it starts.
        task: whose labels the head is to have.
        teacher: whose shape or layers it may take.
        config: of stage intermediate.
    """
    models, seed = options.models, config.seed
    name = models.model_name_or_path

    if name is None and models.init_from != "teacher":
        return resolve.new_student(models, options.own, seed, teacher, task), None
    if name is not None and is_released_tinybert(name):
        # The projection of a released checkpoint becomes a file of the run, which a dry run has not.
        return (load_model(name, task), None) if options.own.dry_run else released_student(name, task, config)
    return resolve.student(models, task, seed, teacher), projection_folder(name)


def method_name(models: ModelOptions, own: TinyBertOptions, config: TinyBertKDConfig) -> str:
    """The method's name, with what is left out of it, or done otherwise."""
    from_teacher = models.init_from == "teacher"
    changes = {
        "fromteacher": from_teacher,
        "nogd": models.model_name_or_path is None and not from_teacher,
        "noda": not own.augment,
        "noattn": config.attention_weight == 0,
        "nohidn": config.hidden_weight == 0,
        "noembd": config.embedding_weight == 0,
        "relative": config.relative_states,
        config.strategy if config.strategy in MAPS else "map": config.strategy != "uniform",
    }
    return "-".join(["tinybert", *(name for name, applies in changes.items() if applies)])


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one student per seed."""
    defaults = dict(METHODS[0].defaults)
    return train_seeds("tinybert", str(__doc__), TinyBertKDConfig, train, argv, defaults, TinyBertOptions)
