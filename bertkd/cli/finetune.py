"""Fine-tune a teacher on a task; with --num_student_layers, the fine-tuned student that distillation has to beat.

bertkd finetune --model_name_or_path bert-base-uncased --task_name sst2 --output_dir outputs/teacher
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, train_seeds
from bertkd.methods import method_named
from bertkd.pipeline import train_on_task
from bertkd.records import RunResult


def train(options: TaskRun[Any, DistillationConfig]) -> RunResult | None:
    """Trains one model on labels alone."""
    data = resolve.task_data(options)
    is_student = resolve.layer_count(options.models) is not None
    student = resolve.student(options.models, data.task, options.config.seed)

    # A student is compared with the checkpoint whose layers were dropped, a teacher with nothing.
    experiment = options.experiment()
    if experiment.replaces is None and is_student:
        experiment = replace(experiment, replaces=options.models.model_name_or_path)

    name = "finetuned" if is_student else "teacher"
    return train_on_task(experiment, data, student, options.config, DistillationTrainer, name)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one model per seed."""
    defaults = dict(method_named("finetuned").defaults)
    return train_seeds("finetune", str(__doc__), DistillationConfig, train, argv, defaults)
