"""Names for people, rows of tables, the tables as text, and the sentence that compares two methods."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import pandas as pd

from bertkd.methods import method_key, method_label
from bertkd.records.results import RunResult

__all__ = [
    "best_of_depth",
    "machine_label",
    "markdown_table",
    "mean_and_std",
    "method_label",
    "metric_label",
    "metric_parts",
    "result_rows",
    "subnetwork_rows",
    "task_label",
    "terminal_table",
    "verdict",
]

TASKS = {
    "cola": "CoLA",
    "imdb": "IMDb",
    "mnli": "MNLI",
    "mrpc": "MRPC",
    "qnli": "QNLI",
    "qqp": "QQP",
    "rte": "RTE",
    "sst2": "SST-2",
    "stsb": "STS-B",
    "wnli": "WNLI",
}
METRICS = {
    "combined_score": "combined",
    "f1": "F1",
    "matthews_correlation": "Matthews",
    "pearson": "Pearson",
    "spearman": "Spearman",
    "spearmanr": "Spearman",
}
# The numbers that a combined score is the mean of, in the order in which GLUE's tables show them.
PARTS = ("f1", "accuracy", "pearson", "spearman", "spearmanr")
NUMBER = re.compile(r"^[*~]*[-+]?\d[\d.,]*\s*([%xMKB]|MB|ms|s|GB)?([ ±/*\d.,-]|n/a)*$")


def task_label(task: str) -> str:
    """The task's name as GLUE writes it; another name stays."""
    return TASKS.get(task, task)


def metric_label(metric: str) -> str:
    """A metric's name for people, without the Trainer's `eval_`."""
    name = metric.removeprefix("eval_")
    return METRICS.get(name, name.replace("_", " "))


def machine_label(hardware: Mapping[str, Any]) -> str:
    """A machine in words: CPU, cores, threads, memory, GPUs."""
    gpus = ", ".join(hardware.get("gpu") or []) or "no GPU"
    memory, threads = hardware.get("memory_gib"), hardware.get("threads")
    return f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {threads} threads, {memory} GiB, {gpus}"


def metric_parts(metric: str, names: Iterable[str]) -> list[str]:
    """The metrics to show among `names`: those behind a combined score, both MNLI accuracies, or the main one."""
    by_name = {name.removeprefix("eval_"): name for name in names}
    main = metric.removeprefix("eval_")
    if main == "combined_score":
        parts = [by_name[part] for part in PARTS if part in by_name]
    else:
        parts = [key for name, key in by_name.items() if main in name.split("_")]
        parts.sort(key=lambda part: part != metric)

    return parts if len(parts) > 1 else [metric]


def mean_and_std(mean: float, std: float = math.nan) -> str:
    """A mean with its standard deviation over seeds where there is one: "92.1 ± 0.3"."""
    if math.isnan(mean):
        return "n/a"
    return f"{mean:.1f}" if math.isnan(std) else f"{mean:.1f} ± {std:.1f}"


def count_label(parameters: float) -> str:
    """A number of parameters, such as "17.4M"."""
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e6 else f"{parameters / 1e3:.1f}K"


def with_unit(number: float | None, form: str) -> str:
    """A number as text in a form such as "{:.1f} MB"; empty where it is not known."""
    return "" if number is None or math.isnan(number) else form.format(number)


def rows_of(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns."""
    return cast(list[dict[str, Any]], table.to_dict("records"))


def best_of_depth(models: pd.DataFrame) -> pd.Series[bool]:
    """Tells which students have the highest value shown, among those of their task and number of layers."""
    students = models[(models["kind"] == "student") & models["value"].notna()]
    shown = students["value"].round(1).groupby([students["task"], students["layers"]])
    best = (students["value"].round(1) == shown.transform("max")) & (shown.transform("size") > 1)
    return best.reindex(models.index, fill_value=False)


def table_order(models: pd.DataFrame) -> pd.DataFrame:
    """The models as tables list them: the teacher, then from deep to shallow, then by method."""
    keys = [(row["kind"] != "teacher", -row["layers"], method_key(row["method"])) for row in rows_of(models)]
    return models.iloc[sorted(range(len(models)), key=keys.__getitem__)]


def result_rows(models: pd.DataFrame, mark_best: bool = False) -> list[dict[str, str]]:
    """One row per method and number of layers, with one metric column per task.

    Metrics are in percent; where a task has two numbers (F1 / accuracy, Pearson / Spearman) both are shown. Speed-up
    is the mean over the tasks it was measured on, and 1.0x for the teacher when others have one.

    Args:
        models: teachers and students of one set of runs, as `summarize` gives them.
        mark_best: sets the best student of each task and depth in bold (Markdown), by the main metric.
    """
    models = table_order(models.assign(best=best_of_depth(models) & mark_best))
    headers: dict[str, str] = {}
    for task, group in sorted(models.groupby("task"), key=lambda item: task_label(str(item[0]))):
        parts = max(group["metrics"], key=len)
        headers[str(task)] = f"{task_label(str(task))} {' / '.join(map(metric_label, parts))}"

    rows = []
    for (method, layers), group in models.groupby(["method", "layers"], sort=False):
        row = {"Method": method_label(str(method)), "Layers": str(layers)} | dict.fromkeys(headers.values(), "")
        for model in rows_of(group):
            text = " / ".join(model["metrics"].values())
            row[headers[model["task"]]] = f"**{text}**" if model["best"] else text

        seeds = group["seeds"].map(len)
        row["Seeds"] = str(seeds.min()) if seeds.nunique() == 1 else f"{seeds.min()}-{seeds.max()}"
        row["Parameters"] = count_label(group["parameters"].iloc[0])
        row["Size"] = with_unit(group["size_mb"].iloc[0], "{:.1f} MB") or "n/a"
        if models["speedup"].notna().any():
            speedup = 1.0 if method == "teacher" else group["speedup"].mean()
            row["Speed-up"] = with_unit(speedup, "{:.1f}x")
        rows.append(row)
    return rows


def subnetwork_rows(result: RunResult, with_metrics: bool = True) -> list[dict[str, str]]:
    """One row per size of a supernet: metrics in percent, and what the size costs."""
    parts = metric_parts(result.metric, result.metrics) if with_metrics else []
    rows = []
    for size in result.subnetworks:
        row = {"Width": f"{size.width:g}", "Depth": f"{size.depth:g}", "Layers": str(size.layers)}
        row |= {metric_label(part): f"{100 * size.metrics[part]:.1f}" for part in parts}
        row |= {"Parameters": count_label(size.parameters), "GFLOPs": f"{size.flops / 1e9:.2f}"}
        rows.append(row | {"Latency": f"{size.latency_ms:.1f} ms", "Speed-up": f"{size.speedup:.2f}x"})
    return rows


def verdict(ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """One honest sentence on whether `ours` beats `baseline`, and whether by more than the seeds scatter.

    The scatter is the larger of the two sample standard deviations; with a single seed it is unknown, which is said.

    Args:
        ours, baseline: rows of `summarize`.
    """
    name, other = method_label(ours["method"]), method_label(baseline["method"])
    figures = f"{mean_and_std(ours['value'], ours['std'])} against {mean_and_std(baseline['value'], baseline['std'])}"
    if math.isnan(ours["value"]) or math.isnan(baseline["value"]):
        return f"{name} and {other} cannot be compared: {figures}."

    points = round(ours["value"], 1) - round(baseline["value"], 1)
    if abs(points) < 0.05:
        return f"{name} equals {other} ({figures})."

    distance = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} ({figures})"
    if math.isnan(ours["std"]) or math.isnan(baseline["std"]):
        counts = f"{name} {len(ours['seeds'])}, {other} {len(baseline['seeds'])}"
        return (
            f"{name} against {other}: {distance}; with so few seeds ({counts}) the spread is unknown, nothing shown."
        )

    scatter = max(ours["std"], baseline["std"])
    largest = f"the larger standard deviation over seeds ({scatter:.1f})"
    if abs(ours["value"] - baseline["value"]) <= scatter:
        return f"{name} does not clearly {'beat' if points > 0 else 'trail'} {other}: {distance}, within {largest}."
    return f"{name} {'beats' if points > 0 else 'does not beat'} {other}: {distance}, which exceeds {largest}."


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table, aligned in its source too; numbers to the right. Missing cells are empty; no rows, no text."""
    table = pd.DataFrame(rows).fillna("").map(lambda cell: cell.replace("|", "\\|").replace("\n", " "))
    columns = _aligned(table, lambda width, right: "-" * (width - right) + ":" * right, minimum=3)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in zip(*columns, strict=True))


def terminal_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a terminal: columns aligned, numbers to the right, a rule below the header. No rows, no text."""
    columns = _aligned(pd.DataFrame(rows).fillna(""), lambda width, right: "─" * width)
    return "".join(f"  {'  '.join(cells)}".rstrip() + "\n" for cells in zip(*columns, strict=True))


def is_numeric(cells: Iterable[str]) -> bool:
    """Whether all filled cells of a column are numbers, perhaps with a unit or a remark in brackets."""
    filled = [cell.partition(" (")[0] for cell in cells if cell and cell != "n/a"]
    return bool(filled) and all(NUMBER.match(cell) for cell in filled)


def _aligned(table: pd.DataFrame, rule: Callable[[int, bool], str], minimum: int = 1) -> list[list[str]]:
    """The columns' cells, all of one width: the name, a rule, the values."""
    columns = []
    for name in table:
        is_right, cells = is_numeric(table[name]), [str(name), *table[name]]
        width = max(minimum, *map(len, cells))
        padded = [cell.rjust(width) if is_right else cell.ljust(width) for cell in cells]
        columns.append([padded[0], rule(width, is_right), *padded[1:]])
    return columns
