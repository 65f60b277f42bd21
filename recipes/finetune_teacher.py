"""Fine-tune a teacher on a task; with --num_student_layers, the fine-tuned student that distillation has to beat.

python recipes/finetune_teacher.py --model_name_or_path bert-base-uncased --task_name sst2 --output_dir outputs/teacher
"""

from collections.abc import Sequence

from arguments import Run, parse
from experiment import (
    finished_result,
    load_data,
    make_student,
    print_summary,
    quiet,
    release,
    run_script,
    train_and_report,
)

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.report import RunResult


def finetune(run: Run) -> RunResult:
    """Train one model on labels alone, or return the result of the run that did."""
    if (result := finished_result(run)) is not None:
        return result
    data = load_data(run)
    model = make_student(run, data.task)
    method = "teacher" if run.model.num_student_layers is None else "finetuned"
    return train_and_report(run, data, method, DistillationTrainer, model)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    quiet()
    # No teacher: the loss is the labels' alone.
    runs = parse(DistillationConfig, argv, defaults={"alpha": 0.0})
    results = []
    for run in runs:
        results.append(finetune(run))
        release()
    print_summary(runs[-1], results)
    return results


if __name__ == "__main__":
    run_script(main)
