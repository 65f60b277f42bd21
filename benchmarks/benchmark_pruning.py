"""Measures pruning without any training: accuracy and divergence by size, and by the number of calibration rows.

    python benchmarks/benchmark_pruning.py --model outputs/teacher --task_name sst2 --glue_dir ../shared/data/glue

For each number of rows the teacher's units are scored, the harms measured, and a model of each share of the encoder's
FLOPs is made, once as it is cut and once fitted. Everything goes into docs/pruning.json and the table of
docs/pruning.md.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bertkd.atomic import read_json, write_json, write_text
from bertkd.data import GLUE_TASKS, load_glue
from bertkd.distillation import DistillationConfig
from bertkd.metrics import main_value
from bertkd.models import layer_sizes
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline import TaskData, load_model
from bertkd.pipeline.evaluation import evaluate
from bertkd.pruning import Pruner, pruning_costs
from bertkd.pruning.budget import measure_of
from bertkd.pruning.network import Rows, as_batches, divergence
from bertkd.records import environment, markdown_table, metric_label, task_label
from bertkd.records.tables import fill_markers

RECORD = Path(__file__).parents[1] / "docs" / "pruning.json"
SEED = 42


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Prunes to every share with every number of rows; returns the content of the record."""
    torch.set_num_threads(options.threads)
    task = GLUE_TASKS[options.task_name]
    rows = load_glue(task.name, options.glue_dir, splits=["train", *task.validation_splits])
    data = TaskData.tokenized(rows, task, load_tokenizer(options.model), 128)
    config = DistillationConfig(output_dir="outputs/benchmark", use_cpu=True, report_to=[])

    def value_of(model: Any) -> float:
        return main_value(evaluate(model, data, config), task.metric)

    teacher = load_model(options.model).eval()
    count = len(data.first_validation)
    validation = as_batches(data.sampled_batches(count, SEED, split="validation", by_length=True), teacher)
    expected = Rows(teacher, validation).outputs()

    def divergence_of(model: Any) -> float:
        return divergence(expected, Rows(model.eval(), validation).outputs())

    costs = pruning_costs(teacher, measure_of("flops", 1, options.sequence_length))
    whole = costs.cost(layer_sizes(teacher)) - costs.fixed
    runs = []

    for count in options.rows:
        started = time.perf_counter()
        pruner = Pruner.prepared(teacher, data.sampled_batches(count, SEED, by_length=True), progress=True)
        seconds = time.perf_counter() - started
        for share in options.shares:
            selection = pruner.select(costs.fixed + share * whole, costs)
            cut = pruner.pruned(selection.sizes, rows=0)
            started = time.perf_counter()
            fitted = pruner.pruned(selection.sizes)
            seconds_fit = time.perf_counter() - started
            runs.append(
                {
                    "rows": count,
                    "share": share,
                    "sizes": selection.sizes._asdict(),
                    "value_cut": value_of(cut),
                    "value": value_of(fitted),
                    "divergence_cut": divergence_of(cut),
                    "divergence": divergence_of(fitted),
                    "seconds_harms": round(seconds, 1),
                    "seconds_fit": round(seconds_fit, 1),
                }
            )
            print(runs[-1], flush=True)

    return {
        "task": task.name,
        "metric": task.metric,
        "teacher": value_of(teacher),
        "sequence_length": options.sequence_length,
        "runs": runs,
        "command": shlex.join(["python", "benchmarks/benchmark_pruning.py", *sys.argv[1:]]),
        "seed": SEED,
        **environment(),
    }


def render(record: dict[str, Any]) -> str:
    """The table of a record."""
    metric = metric_label(record["metric"])
    rows = []
    for run in record["runs"]:
        rows.append(
            {
                "Rows": f"{run['rows']:,}",
                "Of the encoder's FLOPs": f"{100 * run['share']:g}%",
                f"{metric}, cut": f"{100 * run['value_cut']:.1f}",
                f"{metric}, fitted": f"{100 * run['value']:.1f}",
                "KL, cut": f"{run['divergence_cut']:.3f}",
                "KL, fitted": f"{run['divergence']:.3f}",
                "Seconds": f"{run['seconds_harms'] + run.get('seconds_fit', run.get('seconds_reconstruction')):.0f}",
            }
        )
    hardware = record["hardware"]
    # Earlier records have the evaluations before and after it in the time of a fit.
    with_evaluations = any("seconds_fit" not in run for run in record["runs"])
    note = "The seconds include the evaluations. " if with_evaluations else ""
    return (
        f"{markdown_table(rows)}\n\n{note}{task_label(record['task'])}, teacher {100 * record['teacher']:.1f}, "
        f"{hardware['cpu']}, {hardware['threads']} threads, `{record['command']}`."
    )


def with_table(page: str, record: dict[str, Any]) -> str:
    """A page with the table between its markers.

    Raises:
        ValueError: it has no markers.
    """
    return fill_markers(page, "training-free", render(record))


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, or only writes the table anew."""
    parser = argparse.ArgumentParser(description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="The fine-tuned teacher's folder; without it the table is made of the record.")
    parser.add_argument("--task_name", default="sst2", choices=GLUE_TASKS)
    parser.add_argument("--glue_dir", default="../shared/data/glue")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.6, 0.4, 0.2])
    parser.add_argument("--rows", type=int, nargs="+", default=[256, 512, 2048])
    parser.add_argument("--sequence_length", type=int, default=25, help="At which FLOPs are counted.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=RECORD)
    options = parser.parse_args(argv)

    if options.model is not None:
        write_json(options.output, measure(options))
    page = options.output.with_suffix(".md")
    if page.is_file():
        write_text(page, with_table(page.read_text(encoding="utf-8"), read_json(options.output)))


if __name__ == "__main__":
    main()
