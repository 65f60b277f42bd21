"""Fine-tune a teacher on a task; with --num_student_layers, the fine-tuned student that distillation has to beat.

python recipes/finetune_teacher.py --model_name_or_path bert-base-uncased --task_name sst2 --output_dir outputs/teacher
"""

from collections.abc import Sequence

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli.arguments import Run
from bertkd.cli.experiment import run_seeds, train_and_report
from bertkd.cli.loading import load_data, make_student, number_of_layers
from bertkd.records import RunResult


def finetune(run: Run[DistillationConfig]) -> RunResult:
    """Train one model on labels alone."""
    data = load_data(run)
    method = "teacher" if number_of_layers(run.model) is None else "finetuned"
    return train_and_report(run, data, method, DistillationTrainer, make_student(run, data.task))


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    # No teacher: the loss is the labels' alone.
    return run_seeds(argv, DistillationConfig, finetune, defaults={"alpha": 0.0})
