"""Runs the main job on built-in data: teach MiniLM a task, prune it to a half and a quarter, distill, and export."""

from pathlib import Path
from typing import Any

from transformers import set_seed

from bertkd.atomic import write_json
from bertkd.data import GLUE_TASKS, load_glue
from bertkd.data.demo import make_demo_task
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.efficiency import Runner, is_fast_in_bfloat16, is_fast_in_int8
from bertkd.export import open_exported
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline.deployment import Deployment, Timing, eager
from bertkd.pipeline.experiment import Experiment, finished
from bertkd.pipeline.export import AccuracyCheck, export_for_task
from bertkd.pipeline.limits import Limit
from bertkd.pipeline.models import load_model, load_teacher, resolve_model_name
from bertkd.pipeline.pruning import Pruning, train_pruned
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.training import TRAINING_DEFAULTS, train_on_task
from bertkd.pruning import PrunedKDConfig
from bertkd.records import ChartPoint, ExportResult, RunResult, accuracy_chart, terminal_table

__all__ = ["run_demo"]

# The built-in task has the form of SST-2.
TASK = GLUE_TASKS["sst2"]
MODEL = "minilm"
# The figures of all models in one list, which is no record of a run.
FILE = "table.json"
MAX_TOKENS = 64
# Of the teacher's FLOPs: the second student is pruned out of the first.
BUDGETS = ("50%", "25%")
PRUNING_ROWS = 768
COMMON: dict[str, Any] = {
    **TRAINING_DEFAULTS,
    "bf16": is_fast_in_bfloat16("cpu"),
    "use_cpu": True,
    "logging_steps": 25,
    "seed": 42,
}
TEACHER: dict[str, Any] = {"alpha": 0.0, "learning_rate": 1e-4, "num_train_epochs": 3}


def run_demo(folder: Path, epochs: float, command: str) -> list[RunResult]:
    """Trains a teacher and two students, exports all of them in int8, and leaves a table, a chart and every folder.

    An interrupted demo goes on where it was.

    Args:
        folder: where everything is written.
        epochs: of each student.
        command: what was typed.

    Returns:
        The records, the teacher's first.
    """
    glue_dir = make_demo_task(folder / "data")
    rows = load_glue(TASK.name, str(glue_dir), splits=["train", *TASK.validation_splits])
    tokenizer = load_tokenizer(resolve_model_name(MODEL))
    data = TaskData.tokenized(rows, TASK, tokenizer, MAX_TOKENS)
    teacher_folder, deployment = folder / "teacher", Deployment("openvino", "int8", Timing(1, MAX_TOKENS, repeats=30))

    results = [_train_teacher(data, teacher_folder, command)]
    results += _train_students(data, folder / "students", teacher_folder, epochs, command, deployment)
    folders = [teacher_folder, *(_student_folder(folder / "students", budget) for budget in BUDGETS)]
    exports = [_export(data, model, command, deployment) for model in folders]

    _measure_together(folders, results, exports, deployment)
    write_json(folder / FILE, [record.to_json() for record in (*results, *exports)])
    _show(folder, folders, results, exports)
    return results


def _train_teacher(data: TaskData, folder: Path, command: str) -> RunResult:
    """Fine-tunes the teacher, or finds it finished."""
    print("\n=== teacher ===", flush=True)
    config = DistillationConfig(**{**COMMON, **TEACHER, "output_dir": str(folder)})
    experiment = Experiment(command=command, options={"model": MODEL, "task": "built-in"}, measures_speed=False)

    result = finished(RunResult, experiment, config)
    if result is None:
        set_seed(config.seed)
        model = load_model(MODEL, data.task)
        result = train_on_task(experiment, data, model, config, DistillationTrainer, "teacher")
    assert result is not None
    return result


def _train_students(
    data: TaskData, folder: Path, teacher_folder: Path, epochs: float, command: str, deployment: Deployment
) -> list[RunResult]:
    """Prunes the teacher to the budgets, one after the other, and distills it into each of the students."""
    print(f"\n=== students of {' and '.join(BUDGETS)} of the teacher's FLOPs ===", flush=True)
    settings = {"learning_rate": 1e-4, "num_train_epochs": epochs, "output_dir": str(folder)}
    config = PrunedKDConfig(**{**COMMON, **settings})
    experiment = Experiment(
        command=command,
        options={"model": MODEL, "task": "built-in", "budget": list(BUDGETS), "unit": "gflops"},
        teacher_name=str(teacher_folder),
        measures_speed=False,
    )
    limits = [Limit(budget, "gflops") for budget in BUDGETS]
    teacher = load_teacher(str(teacher_folder), data.task)
    return train_pruned(experiment, data, teacher, Pruning(limits, deployment, PRUNING_ROWS), config)


def _student_folder(folder: Path, budget: str) -> Path:
    return Limit(budget, "gflops").folder_in(folder)


def _export(data: TaskData, model: Path, command: str, deployment: Deployment) -> ExportResult:
    """Exports a model in int8, or finds it exported."""
    folder = model / "int8"
    exported = ExportResult.of(folder)
    if exported is not None:
        return exported

    config = DistillationConfig(**{**COMMON, "alpha": 0.0, "output_dir": str(folder)})
    return export_for_task(Experiment(command=command), data, str(model), config, deployment, AccuracyCheck())


def _measure_together(
    folders: list[Path], results: list[RunResult], exports: list[ExportResult], deployment: Deployment
) -> None:
    """Measures all models side by side: speed-ups are over the teacher in PyTorch, as the papers measure it."""
    runners: dict[str, Runner] = {}
    for folder in folders:
        runners[str(folder)] = eager(load_model(str(folder)).eval())
    for folder in folders:
        runners[str(folder / "int8")] = open_exported(folder / "int8", deployment.timing.threads)
    latency = deployment.timing.measure(runners)

    for folder, result, export in zip(folders, results, exports, strict=True):
        result.speedup = round(latency[str(folder)].speedup, 2)
        export.speedup, export.latency_ms = latency[str(folder / "int8")].speedup, latency[str(folder / "int8")].p50_ms


def _show(folder: Path, folders: list[Path], results: list[RunResult], exports: list[ExportResult]) -> None:
    """Prints the table, and draws accuracy against speed."""
    rows, points = [], []
    for model, result, export in zip(folders, results, exports, strict=True):
        name = result.label
        for label, record, where in ((name, result, model), (f"{name}, int8", export, model / "int8")):
            rows.append(
                {
                    "model": label,
                    "accuracy": f"{100 * record.value:.1f}",
                    "parameters": f"{record.parameters / 1e6:.1f}M",
                    "size": f"{record.size_mb:.0f} MB",
                    "speed-up": f"{record.speedup or 1:.1f}x",
                    "folder": str(where),
                }
            )
            points.append(ChartPoint(label, record.speedup or 1.0, 100 * record.value))

    chart = accuracy_chart(
        points,
        folder / "chart.png",
        "Built-in task: accuracy against speed",
        "Times faster than the teacher in PyTorch (batch 1)",
        "Accuracy (%)",
    )
    print(f"\n{terminal_table(rows)}\n")
    if not is_fast_in_int8():
        print("This CPU has no instructions for int8: int8 models are faster on one that has.")
    print(f"Chart: {chart}\nResults: {folder / FILE}\nSmallest model to deploy: {folders[-1] / 'int8'}")
