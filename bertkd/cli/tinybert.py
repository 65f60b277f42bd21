"""TinyBERT's task distillation: augment the training rows, then attention and states, then predictions.

    python recipes/tinybert.py --config recipes/configs/tinybert/mrpc.yaml --glue_dir GLUE \
        --teacher_model_name_or_path outputs/teacher --model_name_or_path outputs/general \
        --augment_model bert-base-uncased --output_dir outputs/tinybert

The student starts from recipes/tinybert_general.py (--model_name_or_path), or at random in a shape (--student_shape,
or --num_hidden_layers and --hidden_size), or from the teacher's layers (--init_from teacher), which the paper does not
do. What is done is not done again: a killed run goes on when it is started once more.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from safetensors.torch import save_file
from transformers import PreTrainedModel, set_seed
from transformers.trainer_utils import SchedulerType

from bertkd import TinyBertKDConfig, TinyBertKDTrainer
from bertkd.cli.arguments import AugmentationArguments, Run, StudentArguments, check_stages, with_changes
from bertkd.cli.augment import augmented
from bertkd.cli.experiment import check_teacher, evaluate, run_seeds, train_and_report
from bertkd.cli.loading import (
    Data,
    is_released,
    label_config,
    load_data,
    load_model,
    load_teacher,
    make_small_student,
    make_student,
    projection_beside,
    require_teacher,
)
from bertkd.cli.stages import check_stage, finished_stage, train_stage
from bertkd.data import Task
from bertkd.distillation.trainer import EXTRA_FILE
from bertkd.records import RunResult
from bertkd.tinybert import load_released
from bertkd.tinybert.config import MAPS

STAGES = ("intermediate", "prediction")


@dataclass
class TinyBertArguments(AugmentationArguments, StudentArguments):
    """What the recipe does around its two stages. The Trainer's own options are those of stage prediction."""

    stages: list[str] = field(
        default_factory=lambda: list(STAGES), metadata={"help": f"Which to run, of {', '.join(STAGES)}."}
    )
    augment: bool = field(default=True, metadata={"help": "Train on augmented rows."})
    augment_prediction: bool = field(
        default=True, metadata={"help": "Stage prediction too; the paper finds the original rows better for STS-B."}
    )
    intermediate_num_train_epochs: float = field(default=20.0, metadata={"help": "Of stage intermediate."})
    intermediate_learning_rate: float = field(
        default=5e-5, metadata={"help": "Of stage intermediate; it stays constant, as in the released code."}
    )

    def __post_init__(self) -> None:
        check_stages(self.stages, STAGES)


def tinybert(run: Run[TinyBertKDConfig]) -> RunResult | None:
    """Run the stages that are not done yet; None where stage prediction is left out."""
    check_stage(run, "prediction")
    require_teacher(run)
    original = load_data(run)
    teacher = load_teacher(run, original.task)
    metrics = evaluate(teacher, run, original)
    check_teacher(metrics, original, run.model.ignore_weak_teacher)
    rows = load_data(run, partial(augmented, run)) if run.recipe.augment else original
    first = of_intermediate(run)
    if "intermediate" in run.recipe.stages and finished_stage(first) is None:
        train_intermediate(first, rows, teacher)
    if "prediction" not in run.recipe.stages:
        return None
    if finished_stage(first) is None:
        raise ValueError(
            f"Stage intermediate is not done in {first.training.output_dir}: run it first, with --stages intermediate "
            "or without."
        )
    rows = rows if run.recipe.augment_prediction else original
    student = load_model(first.training.output_dir, original.task)
    return train_and_report(run, rows, method_of(run), TinyBertKDTrainer, student, teacher, metrics)


def of_intermediate(run: Run[TinyBertKDConfig]) -> Run[TinyBertKDConfig]:
    """The run of stage intermediate, in a folder of its own."""
    training = with_changes(
        run.training,
        stage="intermediate",
        output_dir=str(Path(run.training.output_dir) / "intermediate"),
        alpha=1.0,
        learning_rate=run.recipe.intermediate_learning_rate,
        num_train_epochs=run.recipe.intermediate_num_train_epochs,
        lr_scheduler_type=SchedulerType.CONSTANT,
        warmup_steps=0.0,
        teacher_cache_dir=None,
        # Its loss goes on falling, and the metric is at chance: the last model is kept, as in the released code.
        load_best_model_at_end=False,
        metric_for_best_model="loss",
    )
    return dataclasses.replace(run, training=training)


def train_intermediate(run: Run[TinyBertKDConfig], data: Data, teacher: PreTrainedModel) -> None:
    """Train the student's layers, whose projection stays beside it."""
    student, projection = start_of_student(run, data.task, teacher)
    config = run.training
    trainer = TinyBertKDTrainer(
        model=student,
        teacher_model=teacher,
        args=with_changes(config, projection_from=config.projection_from or projection),
        train_dataset=data.splits["train"],
        eval_dataset=data.splits[data.task.validation_splits[0]],
        processing_class=data.tokenizer,
    )
    card = {"auto_class": "AutoModelForSequenceClassification", "untrained": "pooler and head are"}
    train_stage(run, "tinybert-intermediate", trainer, **card)


def start_of_student(run: Run, task: Task, teacher: PreTrainedModel) -> tuple[PreTrainedModel, str | None]:
    """The student before stage intermediate, and the folder of the projection that comes with it."""
    name = run.model.model_name_or_path
    if name is None and run.model.init_from != "teacher":
        return make_small_student(run, teacher, task), None
    if name is not None and is_released(name):
        set_seed(run.training.seed)  # the new head's weights
        student, projection = load_released(name, **label_config(task))
        folder = Path(run.training.output_dir)
        with run.training.main_process_first(local=False, desc="projection"):
            if run.training.process_index == 0:
                folder.mkdir(parents=True, exist_ok=True)
                save_file(projection, folder / EXTRA_FILE)
        return student, str(folder) if projection else None
    return make_student(run, task, teacher), projection_beside(name)


def method_of(run: Run[TinyBertKDConfig]) -> str:
    """The method's name, with what the paper's ablation leaves out, or does otherwise."""
    model, recipe, training = run.model, run.recipe, run.training
    left_out = {
        "fromteacher": model.init_from == "teacher",
        "nogd": model.model_name_or_path is None and model.init_from != "teacher",
        "noda": not recipe.augment,
        "noattn": training.attention_weight == 0,
        "nohidn": training.hidden_weight == 0,
        "noembd": training.embedding_weight == 0,
        training.strategy if training.strategy in MAPS else "map": training.strategy != "uniform",
    }
    return "-".join(["tinybert", *(name for name, is_so in left_out.items() if is_so)])


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    # Of stage prediction, as the released code's example.
    defaults = {"stage": "prediction", "alpha": 1.0, "learning_rate": 3e-5, "num_train_epochs": 3}
    return run_seeds(argv, TinyBertKDConfig, tinybert, defaults, TinyBertArguments)
