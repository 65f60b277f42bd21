"""Distill a fine-tuned teacher into a smaller student by its softened predictions (vanilla KD).

    python recipes/kd.py --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased \
        --num_student_layers 6 --task_name sst2 --output_dir outputs/kd
"""

from collections.abc import Sequence

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli.arguments import Run
from bertkd.cli.experiment import check_teacher, evaluate, run_seeds, train_and_report
from bertkd.cli.loading import load_data, load_teacher, make_student
from bertkd.records import RunResult


def distill(run: Run, method: str, trainer_class: type[DistillationTrainer]) -> RunResult:
    """Check the teacher, and train one student."""
    data = load_data(run)
    teacher = load_teacher(run, data.task)
    teacher_metrics = evaluate(teacher, run, data)
    check_teacher(teacher_metrics, data, run.model.ignore_weak_teacher)
    student = make_student(run, data.task, teacher)
    return train_and_report(run, data, method, trainer_class, student, teacher, teacher_metrics)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    return run_seeds(argv, DistillationConfig, lambda run: distill(run, "kd", DistillationTrainer))
