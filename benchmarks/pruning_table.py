"""Makes the tables of docs/pruning.md from the results files: pruned students, and the best of the papers' methods.

python benchmarks/pruning_table.py
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bertkd.atomic import write_text
from bertkd.methods import sizes_follow_task
from bertkd.metrics import main_value
from bertkd.pruning.method import SHARES, variant_name
from bertkd.records import RunResult, SubnetworkResult, markdown_table, method_label, summarize, task_label
from bertkd.records.result_sets import read_sets
from bertkd.records.tables import fill_markers, mean_and_std, row_dicts

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "pruning.md", ROOT / "docs" / "results"
SETS = ("base", "minilm-cpu")
# What a row of the table of ablations changes, by its name there.
ABLATIONS: dict[str, dict[str, Any]] = {
    "nothing": {},
    "units stay by score alone": {"unit_order": "score"},
    "units stay by error alone": {"unit_order": "error"},
    "no fit to the teacher": {"is_fitted": False},
    "no hidden states in the loss": {"beta": 0.0},
    "in rungs": {"has_rungs": True},
}
# A student's share of the encoder's weights, which its FLOPs follow, is as good as a budget's within this factor.
NEAR = 1.1


def read(name: str, has_ablations: bool = False) -> list[RunResult]:
    """The runs of a set of docs/results, and those of its ablations where they are asked for."""
    (results,) = (results for results in read_sets(RESULTS) if results.name == name)
    return [*results.runs, *(results.ablation if has_ablations else ())]


def render(runs: Sequence[RunResult]) -> str:
    """The table of a set: its teachers, and for each share of their FLOPs the students.

    These are the pruned one before and after its distillation, and the best one of another method, or size of a
    supernet, that has about this share of the encoder's weights, by its mean over the tasks with pruned students.
    """
    pruned = [run for run in runs if run.method in map(variant_name, SHARES)]
    tasks = {run.task for run in pruned}
    # Seeds may have teachers of their own; one that several have counts once.
    teachers = {(run.task, *run.teacher_metrics.values()): _with_metrics(run, run.teacher_metrics) for run in pruned}
    rows = [_row("100%", "teacher", list(teachers.values()), tasks)]

    for share in SHARES:
        of_share = [run for run in pruned if run.method == variant_name(share)]
        fitted = [_with_metrics(run, run.metrics_before) for run in of_share]
        rows += [_row(share, "fitted, not trained", fitted, tasks), _row(share, "distilled", of_share, tasks)]
        name, best = _best_other(runs, float(share.removesuffix("%")) / 100, tasks)
        if best:
            rows.append(_row(share, name, best, tasks))
    return markdown_table([row for row in rows if len(row) > 2])


def render_ablations(runs: Sequence[RunResult]) -> str:
    """The table of what is left out or done otherwise, beside the usual student; empty for none.

    Of a task, only the seeds count that all students of a size have.
    """
    rows = []
    for share in SHARES:
        by_name = {
            name: [run for run in runs if run.method == variant_name(share, **change)]
            for name, change in ABLATIONS.items()
        }
        compared = _compared(by_name.values())
        for name, students in by_name.items():
            found = [run for run in students if (run.task, run.seed) in compared]
            if found:
                fitted = [_with_metrics(run, run.metrics_before) for run in found]
                before, after = _row(share, name, fitted, set()), _row(share, name, found, set())
                row = {"FLOPs": after.pop("FLOPs"), "Changed": after.pop("Model")}
                for column, quality in after.items():
                    row |= {f"{column.partition(' ')[0]} before training": before[column], column: quality}
                rows.append(row)
    return markdown_table(rows) if rows else ""


def _compared(students: Iterable[Sequence[RunResult]]) -> set[tuple[str, int]]:
    """The seeds of each task, for tasks that several of these students have, that all of those have."""
    seeds_by_task: dict[str, list[set[int]]] = {}
    for runs in students:
        for task in {run.task for run in runs}:
            seeds_by_task.setdefault(task, []).append({run.seed for run in runs if run.task == task})
    return {
        (task, seed) for task, seeds in seeds_by_task.items() if len(seeds) > 1 for seed in set.intersection(*seeds)
    }


def with_tables(page: str) -> str:
    """A page with the tables of each set of `SETS` between its markers.

    Raises:
        ValueError: it has no markers.
    """
    for name in SETS:
        page = fill_markers(page, f"pruned {name}", render(read(name)))
        if ablations := render_ablations(read(name, has_ablations=True)):
            page = fill_markers(page, f"pruned ablations {name}", ablations)
    return page


def _with_metrics(run: RunResult, metrics: Mapping[str, float]) -> RunResult:
    """The record with the metrics of another model in the place of the student's."""
    return replace(run, metrics=dict(metrics), value=main_value(metrics, run.metric))


def _row(share: str, name: str, runs: Sequence[RunResult], tasks: set[str]) -> dict[str, str]:
    """Metrics of every task in percent, as means over seeds, and the mean of all tasks where there are all."""
    models = summarize(runs).sort_values("task", key=lambda column: column.map(task_label))

    row = {"FLOPs": share, "Model": name}
    for model in row_dicts(models):
        row[f"{task_label(model['task'])} {model['shown_metric']}"] = model["quality"]
    if set(models["task"]) == tasks:
        row["Mean"] = mean_and_std(models["value"].mean(skipna=False))
    return row


def _best_other(runs: Sequence[RunResult], share: float, tasks: set[str]) -> tuple[str, list[RunResult]]:
    """The name and the runs of the best method of the papers with about this share of the encoder's weights."""
    candidates = []
    for name, found in _by_method(runs).items():
        of_tasks = [run for run in found if run.task in tasks]
        weights = found[0].parameters - found[0].embedding_parameters
        whole = next(run.parameters - run.embedding_parameters for run in runs if run.method == "teacher")
        if {run.task for run in of_tasks} == tasks and share / NEAR <= weights / whole <= share * NEAR:
            mean = summarize(of_tasks)["value"].mean(skipna=False)
            candidates.append((-math.inf if math.isnan(mean) else mean, name, of_tasks))
    _, name, best = max(candidates, default=(0.0, "", []), key=lambda candidate: candidate[0])
    return name, best


def _by_method(runs: Sequence[RunResult]) -> dict[str, list[RunResult]]:
    """The runs of each method and depth that no budget decides on, and of each size of a supernet, by name."""
    of_method: dict[str, list[RunResult]] = {}
    for run in runs:
        if sizes_follow_task(run.method):
            continue
        for size in run.subnetworks:
            name = f"{method_label(run.method)}, width {size.width:g}, {size.layers} layers"
            of_method.setdefault(name, []).append(as_run(run, size))
        if not run.subnetworks:
            of_method.setdefault(f"{method_label(run.method)}, {run.layers} layers", []).append(run)
    return of_method


def as_run(run: RunResult, size: SubnetworkResult) -> RunResult:
    """A size of a supernet as if it were a student."""
    names = ("layers", "value", "metrics", "parameters", "embedding_parameters")
    return replace(run, subnetworks=[], **{name: getattr(size, name) for name in names})


if __name__ == "__main__":
    write_text(PAGE, with_tables(PAGE.read_text(encoding="utf-8")))
    print(f"wrote {PAGE.relative_to(ROOT)}")
