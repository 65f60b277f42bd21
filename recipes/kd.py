"""Distil a fine-tuned teacher into a smaller student by its softened predictions (vanilla KD).

    python recipes/kd.py --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased \
        --num_student_layers 6 --task_name sst2 --output_dir outputs/kd
"""

from collections.abc import Callable, Sequence

from arguments import Config, Run, parse
from experiment import (
    check_teacher,
    evaluate,
    finished_result,
    load_data,
    load_teacher,
    make_student,
    print_summary,
    quiet,
    release,
    run_script,
    train_and_report,
)

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.report import RunResult


def distil(run: Run, method: str, trainer_class: type[DistillationTrainer]) -> RunResult:
    """Train one student, or return the result of the run that did."""
    if (result := finished_result(run)) is not None:
        return result
    data = load_data(run)
    teacher = load_teacher(run, data.task)
    teacher_metrics = evaluate(teacher, run, data)
    check_teacher(teacher_metrics, data, run.model.ignore_weak_teacher)
    student = make_student(run, data.task, teacher)
    return train_and_report(run, data, method, trainer_class, student, teacher, teacher_metrics)


def distil_all(
    argv: Sequence[str] | None,
    config_class: type[Config],
    trainer_class: type[DistillationTrainer],
    method: Callable[[Config], str],
) -> list[RunResult]:
    """The main of every distillation recipe: one student per seed."""
    quiet()
    runs = parse(config_class, argv)
    results = []
    for run in runs:
        results.append(distil(run, method(run.training), trainer_class))
        release()
    print_summary(runs[-1], results)
    return results


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    return distil_all(argv, DistillationConfig, DistillationTrainer, lambda config: "kd")


if __name__ == "__main__":
    run_script(main)
