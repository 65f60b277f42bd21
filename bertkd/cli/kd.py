"""Distill a fine-tuned teacher into a smaller student by its softened predictions (vanilla KD).

    bertkd kd --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased \
        --num_student_layers 6 --task_name sst2 --output_dir outputs/kd
"""

from collections.abc import Sequence
from typing import Any

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, train_seeds
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


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one student per seed."""
    return train_seeds("kd", str(__doc__), DistillationConfig, train, argv)
