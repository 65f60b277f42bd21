"""Runs the main job on built-in data: teach MiniLM a task, distill it into three layers in four ways, compare."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import set_seed

from bertkd.atomic import write_json
from bertkd.data import GLUE_TASKS, load_glue
from bertkd.data.demo import make_demo_task
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.efficiency import measure_latency
from bertkd.models.loading import load_tokenizer
from bertkd.patient_kd import PatientKDConfig, PatientKDTrainer
from bertkd.pipeline.experiment import Experiment, finished
from bertkd.pipeline.models import load_model, load_teacher, resolve_model_name, shortened
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.training import TRAINING_DEFAULTS, distill, train_on_task
from bertkd.records import ChartPoint, RunResult, accuracy_chart, method_label, result_rows, summarize, terminal_table

__all__ = ["run_demo"]

# The built-in task has the form of SST-2.
TASK = GLUE_TASKS["sst2"]
MODEL = "minilm"
MAX_TOKENS = 64
STUDENT_LAYERS = 3
COMMON: dict[str, Any] = {**TRAINING_DEFAULTS, "bf16": True, "use_cpu": True, "logging_steps": 25, "seed": 42}
SOFT_TARGETS: dict[str, Any] = {"alpha": 0.7, "temperature": 5.0}


@dataclass(frozen=True)
class DemoRun:
    """One of the trainings that are compared."""

    name: str
    trainer_class: type[DistillationTrainer] = DistillationTrainer
    config_class: type[DistillationConfig] = DistillationConfig
    settings: dict[str, Any] = field(default_factory=dict)
    learns_from_teacher: bool = True


TEACHER = DemoRun(
    "teacher",
    settings={"alpha": 0.0, "learning_rate": 1e-4, "num_train_epochs": 3},
    learns_from_teacher=False,
)
STUDENTS = (
    DemoRun("finetuned", settings={"alpha": 0.0}, learns_from_teacher=False),
    DemoRun("kd", settings={**SOFT_TARGETS, "kd_reduction": "mean"}),
    DemoRun("pkd-skip", PatientKDTrainer, PatientKDConfig, {**SOFT_TARGETS, "beta": 100.0}),
    DemoRun("pkd-last", PatientKDTrainer, PatientKDConfig, {**SOFT_TARGETS, "beta": 100.0, "strategy": "last"}),
)


def run_demo(folder: Path, epochs: float, command: str) -> list[RunResult]:
    """Trains a teacher and four students, and leaves a table, a chart, results.json and every model's folder.

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

    results = [_train(TEACHER, data, folder, command, {})]
    for run in STUDENTS:
        results.append(_train(run, data, folder, command, {"learning_rate": 2e-4, "num_train_epochs": epochs}))

    _measure_together(folder, results)
    write_json(folder / RunResult.FILE, [result.to_json() for result in results])
    points = [
        ChartPoint(method_label(result.method), result.parameters / 1e6, 100 * result.value) for result in results
    ]
    chart = accuracy_chart(
        points, folder / "chart.png", "Built-in task: accuracy against size", "Parameters (millions)", "Accuracy (%)"
    )

    print(f"\n{terminal_table(result_rows(summarize(results)))}\n")
    print(f"Chart: {chart}\nResults: {folder / RunResult.FILE}\nStudent (Patient-KD): {folder / 'pkd-skip'}")
    return results


def _train(run: DemoRun, data: TaskData, folder: Path, command: str, student_settings: dict[str, Any]) -> RunResult:
    """Trains one model, or finds it finished."""
    print(f"\n=== {run.name} ===", flush=True)
    settings = {**COMMON, **student_settings, **run.settings, "output_dir": str(folder / run.name)}
    if run.learns_from_teacher:
        settings["teacher_cache_dir"] = str(folder / "cache")
    config = run.config_class(**settings)

    teacher_name = str(folder / TEACHER.name)
    experiment = Experiment(
        command=command,
        options={"model": MODEL, "task": "built-in", "student_layers": STUDENT_LAYERS},
        teacher_name=teacher_name if run.learns_from_teacher else "",
        replaces=None if run is TEACHER else teacher_name,
    )
    result = finished(RunResult, experiment, config)
    if result is not None:
        return result

    # Every run draws the same new head.
    set_seed(config.seed)
    model = load_model(MODEL, data.task)
    if run is not TEACHER:
        model = shortened(model, "first", STUDENT_LAYERS)

    if run.learns_from_teacher:
        teacher = load_teacher(teacher_name, data.task)
        result = distill(experiment, data, teacher, model, config, run.trainer_class, run.name)
    else:
        result = train_on_task(experiment, data, model, config, run.trainer_class, run.name)
    assert result is not None
    return result


def _measure_together(folder: Path, results: list[RunResult]) -> None:
    """Replaces each run's own speed-up by one measurement of all models side by side."""
    models = {result.method: load_model(str(folder / result.method)).eval() for result in results}
    latency = measure_latency(models, batch_size=1, sequence_length=MAX_TOKENS, repeats=30)

    for result in results:
        result.speedup = round(latency["teacher"].p50_ms / latency[result.method].p50_ms, 2)
