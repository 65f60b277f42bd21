"""Distill a fine-tuned teacher into a smaller student by its softened predictions (vanilla KD).

    bertkd kd --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased \
        --num_student_layers 6 --task_name sst2 --output_dir outputs/kd
"""

from collections.abc import Callable, Sequence
from typing import Any

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, train_seeds
from bertkd.distillation.method import Method
from bertkd.pipeline import distill
from bertkd.records import RunResult


def distill_run(
    options: TaskRun[Any, Any], method_name: str, trainer_class: type[DistillationTrainer]
) -> RunResult | None:
    """Trains one student of a method that needs a teacher and the task's rows, and nothing else."""
    data = resolve.task_data(options)
    teacher = resolve.teacher(options, data.task)
    student = resolve.student(options.models, data.task, options.config.seed, teacher)

    return distill(
        options.experiment(),
        data,
        teacher,
        student,
        options.config,
        trainer_class,
        method_name,
        options.models.ignore_weak_teacher,
    )


def train(options: TaskRun[Any, DistillationConfig]) -> RunResult | None:
    """Trains one student."""
    return distill_run(options, "kd", DistillationTrainer)


def main_of(method: Method) -> Callable[[Sequence[str] | None], list[RunResult]]:
    """The command of a method that needs a teacher and the task's rows, and has no module of its own here."""

    def main_of_method(argv: Sequence[str] | None = None) -> list[RunResult]:
        def train_one(options: TaskRun[Any, Any]) -> RunResult | None:
            return distill_run(options, method.name, method.trainer_class)

        description = f"Distill a fine-tuned teacher into a smaller student by {method.label}."
        defaults = dict(method.defaults)
        return train_seeds(method.command, description, method.config_class, train_one, argv, defaults)

    return main_of_method


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one student per seed."""
    return train_seeds("kd", str(__doc__), DistillationConfig, train, argv)
