"""Makes the table of docs/pruning.md from the results files of the pruned students: before and after distillation.

python benchmarks/pruning_table.py
"""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from bertkd.atomic import write_text
from bertkd.pruning.method import SHARES, variant_name
from bertkd.records import RunResult, markdown_table, metric_label, task_label
from bertkd.records.tables import mean_and_std, metric_parts

ROOT = Path(__file__).parents[1]
PAGE, RESULTS = ROOT / "docs" / "pruning.md", ROOT / "docs" / "results" / "base"
MARKERS = ("<!-- pruned:start -->", "<!-- pruned:end -->")


def read(folder: Path) -> list[RunResult]:
    """The records of students that were pruned from the teacher at once, of every task and seed."""
    names = [variant_name(share) for share in SHARES]
    return [RunResult.read(file) for name in names for file in sorted(folder.glob(f"*/{name}-seed*.json"))]


def render(runs: Sequence[RunResult]) -> str:
    """The table: the teacher, and for each share of its FLOPs the student before and after its distillation."""
    rows = [_row("100%", "teacher", [(run, run.teacher_metrics or {}) for run in runs])]
    for share in SHARES:
        of_share = [run for run in runs if run.method == variant_name(share)]
        rows.append(_row(share, "fitted, not trained", [(run, run.metrics_before or {}) for run in of_share]))
        rows.append(_row(share, "distilled", [(run, run.metrics) for run in of_share]))
    return markdown_table(rows)


def with_table(page: str, runs: Sequence[RunResult]) -> str:
    """A page with the table between its markers.

    Raises:
        ValueError: it has no markers.
    """
    start, end = (page.find(marker) for marker in MARKERS)
    if start == -1 or end < start:
        raise ValueError(f"The page has no place for the table: it needs {MARKERS[0]} and {MARKERS[1]}.")
    return f"{page[: start + len(MARKERS[0])]}\n{render(runs)}{page[end:]}"


def _row(share: str, student: str, values: Sequence[tuple[RunResult, Mapping[str, float]]]) -> dict[str, str]:
    """Metrics of every task in percent, as means over seeds; with their standard deviation where there are several."""
    by_task: dict[str, list[tuple[RunResult, Mapping[str, float]]]] = {}
    for run, metrics in values:
        by_task.setdefault(run.task, []).append((run, metrics))

    row = {"FLOPs": share, "Model": student}
    for task, found in sorted(by_task.items()):
        parts = metric_parts(found[0][0].metric, found[0][0].metrics)
        name = f"{task_label(task)} {' / '.join(map(metric_label, parts))}"
        row[name] = " / ".join(_over_seeds([100 * metrics[part] for _, metrics in found]) for part in parts)
    return row


def _over_seeds(values: Sequence[float]) -> str:
    # The one teacher is the same in the record of every seed.
    if len(set(values)) == 1:
        return mean_and_std(values[0])
    return mean_and_std(statistics.fmean(values), statistics.stdev(values))


if __name__ == "__main__":
    write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), read(RESULTS)))
    print(f"wrote {PAGE.relative_to(ROOT)}")
