"""Names and figures for people, and tables as text."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

import pandas as pd

from bertkd.methods import method_label
from bertkd.records.results import RunResult

__all__ = [
    "fill_markers",
    "machine_label",
    "markdown_table",
    "markdown_text",
    "mean_and_std",
    "method_label",
    "metric_label",
    "metric_parts",
    "row_dicts",
    "subnetwork_rows",
    "task_label",
    "terminal_table",
    "text_of",
    "without_empty_columns",
]

TASKS = {"cola": "CoLA", "imdb": "IMDb", "mnli": "MNLI", "mrpc": "MRPC", "qnli": "QNLI"}
TASKS |= {"qqp": "QQP", "rte": "RTE", "sst2": "SST-2", "stsb": "STS-B", "wnli": "WNLI"}
METRICS = {"f1": "F1", "matthews_correlation": "Matthews", "pearson": "Pearson", "spearmanr": "Spearman"}
# The numbers that a combined score is the mean of, in the order in which GLUE's tables show them.
PARTS = ("f1", "accuracy", "pearson", "spearmanr")
NUMBER = re.compile(r"^[*~]*[-+]?\d[\d.,]*\s*([%xMKB]|MB|ms|s|GB)?([ ±/*\d.,-]|n/a)*$")


def task_label(task: str) -> str:
    """The task's name as GLUE writes it; another name stays."""
    return TASKS.get(task, task)


def metric_label(metric: str) -> str:
    """A metric's name for people, without the Trainer's `eval_`."""
    name = metric.removeprefix("eval_")
    return METRICS.get(name, name.replace("_", " "))


def machine_label(hardware: Mapping[str, Any]) -> str:
    """A machine in words: CPU with its instruction sets where they are known, cores, threads, memory, GPUs."""
    instructions = f" ({' '.join(hardware['instructions'])})" if hardware.get("instructions") else ""
    gpus = ", ".join(hardware.get("gpu") or []) or "no GPU"
    memory, threads = hardware.get("memory_gib"), hardware.get("threads")
    return (
        f"{hardware.get('cpu')}{instructions}, {hardware.get('cores')} cores, {threads} threads, {memory} GiB, {gpus}"
    )


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


def text_of(value: Any, form: str = "{}") -> str:
    """A value in a form such as "{:.1f} MB"; empty where it is missing."""
    return "" if value is None or value != value else form.format(value)


def row_dicts(table: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a table, by the names of its columns."""
    return cast(list[dict[str, Any]], table.to_dict("records"))


def without_empty_columns(table: pd.DataFrame) -> list[dict[str, str]]:
    """The rows of a table of texts, without the columns that are empty in all of them."""
    table = table.fillna("")
    return row_dicts(table.loc[:, (table != "").any()])


def subnetwork_rows(result: RunResult) -> list[dict[str, str]]:
    """One row per size of a supernet: metrics in percent, and what the size costs."""
    parts = metric_parts(result.metric, result.metrics)
    rows = []
    for size in result.subnetworks:
        row = {"Width": f"{size.width:g}", "Depth": f"{size.depth:g}", "Layers": str(size.layers)}
        for part in parts:
            row[metric_label(part)] = f"{100 * size.metrics[part]:.1f}"
        row |= {"Parameters": count_label(size.parameters), "GFLOPs": f"{size.flops / 1e9:.2f}"}
        if size.latency_ms is not None:
            row |= {"Latency": f"{size.latency_ms:.1f} ms", "Speed-up": f"{size.speedup:.2f}x"}
        rows.append(row)
    return rows


def markdown_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A Markdown table, aligned in its source too; numbers to the right. Missing cells are empty; no rows, no text."""
    table = pd.DataFrame(rows).fillna("").map(markdown_text)
    table.columns = table.columns.map(markdown_text)
    columns = _aligned(table, lambda width, right: "-" * (width - right) + ":" * right, minimum=3)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in zip(*columns, strict=True))


def markdown_text(text: object) -> str:
    """A text from outside as it may stand in a line or a cell of Markdown: it ends no cell, and opens no HTML."""
    return " ".join(str(text).splitlines()).replace("|", "\\|").replace("<", "&lt;")


def fill_markers(page: str, name: str, text: str) -> str:
    """A Markdown page with a generated text between the comments `<!-- NAME:start -->` and `<!-- NAME:end -->`.

    Raises:
        ValueError: the page lacks one of them, or they are in the wrong order.
    """
    start, end = f"<!-- {name}:start -->", f"<!-- {name}:end -->"
    if not -1 < page.find(start) < page.find(end):
        raise ValueError(f"The page has no place for the table: it needs {start} and, after it, {end}.")
    return f"{page.partition(start)[0]}{start}\n{text.rstrip()}\n{end}{page.partition(end)[2]}"


def terminal_table(rows: Sequence[Mapping[str, str]]) -> str:
    """A table for a terminal: columns aligned, numbers to the right, a rule below the header. No rows, no text."""
    columns = _aligned(pd.DataFrame(rows).fillna(""), lambda width, right: "─" * width)
    return "".join(f"  {'  '.join(cells)}".rstrip() + "\n" for cells in zip(*columns, strict=True))


def is_numeric(cells: Iterable[str]) -> bool:
    """Whether all filled cells of a column are numbers, perhaps with a unit or a remark in brackets."""
    filled = [cell.partition(" (")[0] for cell in cells if cell and cell != "n/a"]
    return bool(filled) and all(map(NUMBER.match, filled))


def _aligned(table: pd.DataFrame, rule: Callable[[int, bool], str], minimum: int = 1) -> list[list[str]]:
    """The columns' cells, all of one width: the name, a rule, the values."""
    columns = []
    for name in table:
        cells = pd.Series([str(name), *table[name]])
        is_right, width = is_numeric(table[name]), max(minimum, cells.str.len().max())
        padded = cells.str.pad(width, "left" if is_right else "right").tolist()
        columns.append([padded[0], rule(width, is_right), *padded[1:]])
    return columns
