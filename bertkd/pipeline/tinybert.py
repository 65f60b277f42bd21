"""Trains TinyBERT on a task: attention and states first (stage "intermediate"), then predictions."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from safetensors.torch import save_file
from transformers import PreTrainedModel, set_seed
from transformers.trainer_utils import SchedulerType

from bertkd.atomic import atomic_path
from bertkd.data import Task
from bertkd.distillation.extra_modules import EXTRA_FILE
from bertkd.pipeline.evaluation import evaluate_teacher
from bertkd.pipeline.experiment import Experiment, finished, output_folder, trainer_config, with_changes
from bertkd.pipeline.models import label_settings, load_model
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.text import train_stage
from bertkd.pipeline.training import train_on_task
from bertkd.records import RunResult, StageResult
from bertkd.tinybert import TinyBertKDConfig, TinyBertKDTrainer, load_released

__all__ = ["TASK_STAGES", "MakeStudent", "TinyBertStages", "released_student", "train_tinybert"]

TASK_STAGES = ("intermediate", "prediction")

# Gives the student before stage "intermediate", and the folder of the projection that comes with it, if any.
MakeStudent = Callable[[], tuple[PreTrainedModel, str | None]]


@dataclass(frozen=True)
class TinyBertStages:
    """Which stages run, and how the first one trains; the trainer's config is that of stage "prediction".

    Attributes:
        stages: some of `TASK_STAGES`, in their order.
        num_train_epochs, learning_rate: of stage "intermediate", whose learning rate stays constant, as in the
            released code.
    """

    stages: Sequence[str] = TASK_STAGES
    num_train_epochs: float = 20.0
    learning_rate: float = 5e-5

    def intermediate_config(self, config: TinyBertKDConfig) -> TinyBertKDConfig:
        """The config of stage "intermediate", in a folder of its own."""
        return with_changes(
            config,
            stage="intermediate",
            output_dir=str(output_folder(config) / "intermediate"),
            alpha=1.0,
            learning_rate=self.learning_rate,
            num_train_epochs=self.num_train_epochs,
            lr_scheduler_type=SchedulerType.CONSTANT,
            warmup_steps=0.0,
            teacher_cache_dir=None,
            push_to_hub=False,
            hub_token=None,
            # Its loss goes on falling, and the metric is at chance: the last model is kept, as in the released code.
            load_best_model_at_end=False,
            metric_for_best_model="loss",
            greater_is_better=False,
        )


def train_tinybert(
    experiment: Experiment,
    original: TaskData,
    make_rows: Callable[[], TaskData],
    teacher: PreTrainedModel,
    make_student: MakeStudent,
    config: TinyBertKDConfig,
    stages: TinyBertStages,
    method_name: str,
    augment_prediction: bool = True,
    ignore_weak_teacher: bool = False,
) -> RunResult | None:
    """Runs the stages that an earlier start has not done.

    Args:
        experiment: what the training is called and where it came from.
        original: the task.
        make_rows: gives the task with its augmented rows.
        teacher: fine-tuned on the task.
        make_student: gives the student before stage "intermediate".
        config: of stage "prediction".
        stages: which run, and how the first trains.
        method_name: the method's name in the record.
        augment_prediction: whether stage "prediction" trains on augmented rows too.
        ignore_weak_teacher: whether a teacher that is no better than a constant answer is accepted.

    Returns:
        The record of stage "prediction"; None where it is left out, and for a dry run.

    Raises:
        ValueError: stage "prediction" is to run before stage "intermediate" is done.
    """
    config = with_changes(config, is_one_of_several_stages=True)
    first = stages.intermediate_config(config)
    is_first_done = finished(StageResult, experiment, first) is not None
    if "intermediate" not in stages.stages and not is_first_done and not experiment.is_dry_run:
        raise ValueError(
            f"Stage intermediate is not done in {first.output_dir}: run it first, with --stages intermediate or "
            "without."
        )
    teacher_metrics = evaluate_teacher(teacher, original, config, ignore_weak_teacher)

    # Made only where a stage learns from them, and once: augmenting a large task takes hours.
    rows = functools.cache(make_rows)
    if "intermediate" in stages.stages and not is_first_done:
        _train_intermediate(experiment, rows(), teacher, make_student, first)
    if "prediction" not in stages.stages:
        return None

    student = make_student()[0] if experiment.is_dry_run else load_model(str(first.output_dir), original.task)
    data = rows() if augment_prediction else original
    return train_on_task(experiment, data, student, config, TinyBertKDTrainer, method_name, teacher, teacher_metrics)


def _train_intermediate(
    experiment: Experiment,
    data: TaskData,
    teacher: PreTrainedModel,
    make_student: MakeStudent,
    config: TinyBertKDConfig,
) -> None:
    """Trains the student's layers; the projection stays beside the model."""
    student, projection = make_student()
    trainer = TinyBertKDTrainer(
        model=student,
        teacher_model=teacher,
        args=with_changes(trainer_config(experiment, config), projection_from=config.projection_from or projection),
        train_dataset=data.splits["train"],
        eval_dataset=data.first_validation,
        processing_class=data.tokenizer,
    )
    train_stage(
        # A name that the user gives is that of the last stage.
        replace(experiment, result_name=""),
        config,
        trainer,
        "tinybert-intermediate",
        auto_class="AutoModelForSequenceClassification",
        untrained="pooler and head are",
    )


def released_student(name: str, task: Task, config: TinyBertKDConfig) -> tuple[PreTrainedModel, str | None]:
    """A student from a checkpoint in the form that TinyBERT's authors released, and the folder of its projection.

    Args:
        name: the folder of the checkpoint.
        task: whose labels the head is to have.
        config: whose `output_dir` gets the projection, and whose seed draws a new head.
    """
    set_seed(config.seed)
    student, projection = load_released(name, **label_settings(task))
    folder = output_folder(config)

    with config.main_process_first(local=False, desc="projection"):
        # An empty file would be taken for a projection that is wrong.
        if projection and config.process_index == 0:
            with atomic_path(folder / EXTRA_FILE) as partial:
                save_file(projection, partial)
    return student, str(folder) if projection else None
