"""Summaries of runs as rows, and rows as Markdown and terminal tables; and the sentence that compares two methods."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from bertkd.records.results import RunResult, Spread, Summary, method_key

__all__ = [
    "best_students",
    "machine_label",
    "markdown_table",
    "method_label",
    "metric_label",
    "metric_parts",
    "percent",
    "result_rows",
    "size_rows",
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
METHODS = {
    "teacher": "Teacher",
    "finetuned": "Fine-tuned",
    "kd": "KD",
    "pkd-skip": "PKD-skip",
    "pkd-last": "PKD-last",
    "dynabert-width": "DynaBERT, stage width",
    "dynabert-depth": "DynaBERT, stage depth",
    "dynabert-finetune": "DynaBERT, fine-tuned",
    "dynabert-subnetwork": "DynaBERT, a sub-network",
    "dynabert-width-unwired": "DynaBERT, stage width, not rewired",
    "dynabert-depth-unwired": "DynaBERT, stage depth, not rewired",
    "dynabert-finetune-unwired": "DynaBERT, fine-tuned, not rewired",
    "dynabert-width-nokd": "DynaBERT, stage width, without distillation",
    "dynabert-depth-nokd": "DynaBERT, stage depth, without distillation",
    "dynabert-finetune-nokd": "DynaBERT, fine-tuned, without distillation",
    "distilbert": "DistilBERT",
    "distilbert-kd": "DistilBERT, second step",
    "distilbert-mlm": "DistilBERT without distillation",
    "distilbert-noce": "DistilBERT w/o soft targets",
    "distilbert-nocos": "DistilBERT w/o cosine",
    "distilbert-nomlm": "DistilBERT w/o masked words",
    "distilbert-random": "DistilBERT from a random start",
    "mlm": "masked language modeling",
    "shrunk": "Levers, without training",
    "tinybert": "TinyBERT",
    "tinybert-general": "TinyBERT, general distillation",
    "tinybert-intermediate": "TinyBERT, intermediate layers",
    "tinybert-nogd": "TinyBERT w/o general distillation",
    "tinybert-noda": "TinyBERT w/o augmentation",
    "tinybert-noattn": "TinyBERT w/o attention",
    "tinybert-nohidn": "TinyBERT w/o hidden states",
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


def method_label(method: str) -> str:
    """The method's name as the papers write it; another name stays."""
    return METHODS.get(method, method)


def machine_label(hardware: Mapping[str, Any]) -> str:
    """A machine in words: CPU, cores, threads, memory, GPUs."""
    gpus = ", ".join(hardware.get("gpu") or []) or "no GPU"
    memory, threads = hardware.get("memory_gib"), hardware.get("threads")
    return f"{hardware.get('cpu')}, {hardware.get('cores')} cores, {threads} threads, {memory} GiB, {gpus}"


def metric_label(metric: str) -> str:
    """A metric's name for people, without the Trainer's `eval_`."""
    name = metric.removeprefix("eval_")
    return METRICS.get(name, name.replace("_", " "))


def percent(spread: Spread) -> str:
    """A fraction in percent, with the standard deviation over seeds where there is one: "92.1 ± 0.3"."""
    if math.isnan(spread.mean):
        return "n/a"
    mean = f"{100 * spread.mean:.1f}"
    return mean if spread.std is None else f"{mean} ± {100 * spread.std:.1f}"


def metric_parts(summary: Summary | RunResult) -> tuple[str, ...]:
    """Names of the metrics to show: the two numbers behind a combined score, both MNLI accuracies, or the main one."""
    names = {key.removeprefix("eval_"): key for key in summary.metrics}
    main = summary.metric.removeprefix("eval_")
    if main == "combined_score":
        found = [names[part] for part in PARTS if part in names]
    else:
        found = [key for name, key in names.items() if name != main and main in name.split("_")]
        found = [*([summary.metric] if main in names else []), *found]
    return tuple(found) if len(found) > 1 else (summary.metric,)


def result_rows(summaries: Sequence[Summary], mark_best: bool = False) -> list[dict[str, str]]:
    """One row per method and number of layers, with one metric column per task.

    Metrics are in percent; where a task has two numbers (F1 / accuracy, Pearson / Spearman) both are shown. Speed-up
    is the mean over the tasks it was measured on, and 1.0x for the teacher when others have one.

    Args:
        summaries: of one set of runs.
        mark_best: sets the best student of each task and depth in bold (Markdown), by the main metric.
    """
    best = best_students(summaries) if mark_best else []
    headers = {task: _header([one for one in summaries if one.task == task]) for task in _tasks(summaries)}
    measured = any(one.speedup is not None for one in summaries)
    rows: list[dict[str, str]] = []
    for method, layers in _models(summaries):
        group = [one for one in summaries if (one.method, one.layers) == (method, layers)]
        row = {"Method": method_label(method), "Layers": str(layers)}
        row |= {headers[one.task]: _bold(_value(one), any(one is other for other in best)) for one in group}
        row = {key: row.get(key, "") for key in ("Method", "Layers", *headers.values())}
        row |= {"Seeds": _range([len(one.seeds) for one in group]), "Parameters": _count(group[0].parameters)}
        row["Size"] = _size(group[0].size_mb)
        if measured:
            row["Speed-up"] = _speedup(method, [one.speedup for one in group if one.speedup is not None])
        rows.append(row)
    return rows


def subnetwork_rows(result: RunResult, with_metrics: bool = True) -> list[dict[str, str]]:
    """One row per size of a network of many sizes: metrics in percent, and what the size costs."""
    parts = metric_parts(result) if with_metrics else ()
    rows = []
    for one in result.subnetworks:
        row = {"Width": f"{one.width:g}", "Depth": f"{one.depth:g}", "Layers": str(one.layers)}
        row |= {metric_label(part): f"{100 * one.metrics[part]:.1f}" for part in parts}
        row |= {"Parameters": _count(one.parameters), "GFLOPs": f"{one.flops / 1e9:.2f}"}
        rows.append(row | {"Latency": f"{one.latency_ms:.1f} ms", "Speed-up": f"{one.speedup:.2f}x"})
    return rows


def size_rows(results: Sequence[RunResult]) -> list[dict[str, str]]:
    """The sizes of networks of many sizes as in DynaBERT's table 1: a row per method and width, a column per depth.

    Args:
        results: of one task; several seeds of a method give mean and standard deviation, by the main metric.
    """
    depths = sorted({size.depth for one in results for size in one.subnetworks}, reverse=True)
    rows = []
    for method in sorted({one.method for one in results}, key=method_key):
        group = [one for one in results if one.method == method]
        for width in sorted({size.width for one in group for size in one.subnetworks}, reverse=True):
            row = {"Method": method_label(method), "Width": f"{width:g}"}
            for depth in depths:
                at = [s.value for one in group for s in one.subnetworks if (s.width, s.depth) == (width, depth)]
                row[f"depth {depth:g}"] = percent(Spread.of(at)) if at else ""
            rows.append(row | {"Seeds": str(len(group))})
    return rows


def best_students(summaries: Sequence[Summary]) -> list[Summary]:
    """The students whose main metric is highest, at the precision shown, for each task and number of layers."""
    groups: dict[tuple[str, int], list[Summary]] = {}
    for one in summaries:
        if one.method != "teacher" and not math.isnan(one.value.mean):
            groups.setdefault((one.task, one.layers), []).append(one)
    best: list[Summary] = []
    for group in groups.values():
        top = max(_shown(one) for one in group)
        best += [one for one in group if _shown(one) == top and len(group) > 1]
    return best


def verdict(ours: Summary, baseline: Summary) -> str:
    """One honest sentence on whether `ours` beats `baseline`, and whether by more than the seeds scatter.

    The scatter is the larger of the two sample standard deviations; with a single seed it is unknown, which is said.
    """
    name, other = method_label(ours.method), method_label(baseline.method)
    figures = f"{percent(ours.value)} against {percent(baseline.value)}"
    if math.isnan(ours.value.mean) or math.isnan(baseline.value.mean):
        return f"{name} and {other} cannot be compared: {figures}."
    points = _shown(ours) - _shown(baseline)
    if abs(points) < 0.05:
        return f"{name} equals {other} ({figures})."
    distance = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} ({figures})"
    stds = [std for std in (ours.value.std, baseline.value.std) if std is not None]
    if len(stds) < 2:
        counts = f"{name} {ours.value.count}, {other} {baseline.value.count}"
        return (
            f"{name} against {other}: {distance}; with so few seeds ({counts}) the spread is unknown, nothing shown."
        )
    largest = f"the larger standard deviation over seeds ({100 * max(stds):.1f})"
    if abs(ours.value.mean - baseline.value.mean) <= max(stds):
        return f"{name} does not clearly {'beat' if points > 0 else 'trail'} {other}: {distance}, within {largest}."
    return f"{name} {'beats' if points > 0 else 'does not beat'} {other}: {distance}, which exceeds {largest}."


def _shown(summary: Summary) -> float:
    return round(100 * summary.value.mean, 1)


def _tasks(summaries: Sequence[Summary]) -> list[str]:
    return sorted({one.task for one in summaries}, key=task_label)


def _models(summaries: Sequence[Summary]) -> list[tuple[str, int]]:
    models = {(one.method, one.layers) for one in summaries}
    return sorted(models, key=lambda model: (model[0] != "teacher", -model[1], method_key(model[0])))


def _header(group: Sequence[Summary]) -> str:
    parts = max((metric_parts(one) for one in group), key=len)
    return f"{task_label(group[0].task)} {' / '.join(map(metric_label, parts))}"


def _value(summary: Summary) -> str:
    return " / ".join(percent(summary.metrics.get(part, summary.value)) for part in metric_parts(summary))


def _bold(text: str, bold: bool) -> str:
    return f"**{text}**" if bold else text


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low}-{high}"


def _count(parameters: int) -> str:
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e6 else f"{parameters / 1e3:.1f}K"


def _size(megabytes: float) -> str:
    return "n/a" if math.isnan(megabytes) else f"{megabytes:.1f} MB"


def _speedup(method: str, measured: Sequence[float]) -> str:
    if not measured:
        return "1.0x" if method == "teacher" else ""
    return f"{sum(measured) / len(measured):.1f}x"


def markdown_table(rows: Sequence[dict[str, str]]) -> str:
    """A Markdown table, aligned in its source too; numbers to the right. Missing cells are empty; no rows, no text."""
    if not rows:
        return ""
    escaped = [{key: value.replace("|", "\\|").replace("\n", " ") for key, value in row.items()} for row in rows]
    columns = _columns(escaped, minimum=3)
    rule = [("-" * (width - 1) + ":") if right else "-" * width for _, width, right in columns]
    lines = [_cells(dict(zip(_keys(rows), _keys(rows), strict=True)), columns)]
    lines += [rule, *(_cells(row, columns) for row in escaped)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def terminal_table(rows: Sequence[dict[str, str]]) -> str:
    """A table for a terminal: columns aligned, numbers to the right, a rule below the header. No rows, no text."""
    if not rows:
        return ""
    columns = _columns(rows)
    header = _cells(dict(zip(_keys(rows), _keys(rows), strict=True)), columns)
    lines = [header, ["─" * width for _, width, _ in columns], *(_cells(row, columns) for row in rows)]
    return "\n".join(f"  {'  '.join(cells)}".rstrip() for cells in lines) + "\n"


def _keys(rows: Sequence[dict[str, str]]) -> list[str]:
    return list(dict.fromkeys(key for row in rows for key in row))


def _columns(rows: Sequence[dict[str, str]], minimum: int = 1) -> list[tuple[str, int, bool]]:
    """Name, width and whether it is set to the right, of each column."""
    columns = []
    for key in _keys(rows):
        values = [row.get(key, "") for row in rows]
        filled = [value for value in values if value and value != "n/a"]
        right = bool(filled) and all(NUMBER.match(value) for value in filled)
        columns.append((key, max(minimum, len(key), *map(len, values)), right))
    return columns


def _cells(row: dict[str, str], columns: Sequence[tuple[str, int, bool]]) -> list[str]:
    cells = [(row.get(key, ""), width, right) for key, width, right in columns]
    return [text.rjust(width) if right else text.ljust(width) for text, width, right in cells]
