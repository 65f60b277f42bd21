"""The parts of a report on one set of runs: rows of its tables, and the sentences beside them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import compress
from typing import Any

import pandas as pd

from bertkd.methods import compared_with, method_key, method_label
from bertkd.metrics import main_value
from bertkd.records.models import SIZE, SPEED, best_students, pareto_front, summarize
from bertkd.records.result_sets import ReportSet
from bertkd.records.results import ExportResult, RunResult, TaskRecord
from bertkd.records.tables import (
    best_of_depth,
    count_label,
    machine_label,
    mean_and_std,
    metric_label,
    rows_of,
    table_order,
    task_label,
    verdict,
    with_unit,
)

__all__ = [
    "ablation_tables",
    "facts",
    "grid_rows",
    "model_rows",
    "overview_rows",
    "quality_label",
    "setting_rows",
    "size_rows",
    "training_notes",
    "verdicts",
]

# Settings in the tables: the first three always, the others where they are used.
SETTINGS = ["alpha", "temperature", "beta", "strategy", "learning_rate", "num_train_epochs"]
SETTINGS += ["per_device_train_batch_size", "max_train_samples"]
# Evaluations of one model on a GPU in half precision differ by a row or so of a small task.
NOISE = 0.005
# What the name of a run of DynaBERT's first stage says that it lacks.
WITHOUT = {"dynabert-width-unwired": "rewiring", "dynabert-width-nokd": "distillation"}


def quality_label(model: Mapping[str, Any]) -> str:
    """The main metric of a model for people, or of which two metrics it is the mean."""
    parts = list(model["metrics"])
    if model["metric"].removeprefix("eval_") == "combined_score" and len(parts) == 2:
        return f"mean of {' and '.join(map(metric_label, parts))}"
    return metric_label(model["metric"])


def with_fronts(models: pd.DataFrame) -> pd.DataFrame:
    """The models of a task with a column `front`, which says in words on which Pareto fronts they lie."""
    words = []
    for on_front in zip(pareto_front(models, SPEED), pareto_front(models, SIZE), strict=True):
        words.append(", ".join(compress(("speed", "size"), on_front)))
    return models.assign(front=words)


def model_rows(models: pd.DataFrame, mark_best: bool = False, as_charted: bool = False) -> list[dict[str, str]]:
    """One row per model of a task with everything that is known of it; columns without any entry are left out.

    Args:
        models: as `summarize` gives them.
        mark_best: sets the best student of each depth in bold (Markdown).
        as_charted: shows the speed-ups of shapes that charts have, and parameters in millions.
    """
    rows = []
    for model, is_best in zip(rows_of(models), best_of_depth(models), strict=True):
        mark = "**" if is_best and mark_best else ""
        row = {"Model": f"{mark}{model['label']}{mark}", "Layers": str(model["layers"])}
        row[quality_label(model)] = f"{mark}{mean_and_std(model['value'], model['std'])}{mark}"
        row |= {metric_label(part): text for part, text in model["metrics"].items() if part != model["metric"]}
        row["In PyTorch"] = with_unit(model["before"], "{:.1f}")
        row["Seeds"] = ", ".join(map(str, model["seeds"]))
        row["Speed-up"] = with_unit(model[SPEED if as_charted else "speedup"], "{:.2f}x")
        row["Size"] = with_unit(model[SIZE], "{:.1f} MB")
        if as_charted:
            row["Parameters"] = count_label(model["parameters"])
        else:
            row["Parameters"] = f"{model['parameters']:,}"
            row["of which embeddings"] = f"{model['embedding_parameters']:,}"
            row["Same answers"] = with_unit(model["agreement"], "{:.1f}%")
        rows.append(row | {"Pareto front": model.get("front", ""), "Note": model["note"]})

    return without_empty(rows)


def without_empty(rows: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    """The rows of a table without the columns that are empty in all of them."""
    table = pd.DataFrame(rows).fillna("")
    return rows_of(table.loc[:, (table != "").any()])


def overview_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """One row per task: the teacher, the best student smaller than it, and what that keeps of the teacher.

    Students that are equal at the precision shown are all named; the figures are the first one's.
    """
    rows = []
    for task, group in models.groupby("task"):
        teacher = next((model for model in rows_of(group) if model["kind"] == "teacher"), None)
        row = {"Task": task_label(str(task)), "Metric": quality_label(rows_of(group)[0])}
        row["Teacher"] = "" if teacher is None else mean_and_std(teacher["value"], teacher["std"])

        students = rows_of(best_students(group))
        if students:
            best = students[0]
            row |= {"Best student": "; ".join(model["label"] for model in students), "Layers": str(best["layers"])}
            row["Its value"] = mean_and_std(best["value"], best["std"])
            if teacher is not None:
                row["Against the teacher"] = f"{best['value'] - teacher['value']:+.1f}"
                row["Kept"] = f"{100 * best['value'] / teacher['value']:.1f}%" if teacher["value"] > 0 else ""
            row |= {"Speed-up": with_unit(best[SPEED], "{:.2f}x"), "Size": with_unit(best[SIZE], "{:.1f} MB")}
        rows.append(row)
    return sorted(rows, key=lambda row: row["Task"])


def size_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """The sizes of supernets as in DynaBERT's table 1: a row per method and width, a column per depth."""
    depths = sorted(models["depth"].dropna().unique(), reverse=True)
    rows = []
    for (method, width), group in models[models["kind"] == "subnetwork"].groupby(["method", "width"], sort=False):
        row = {"Method": method_label(str(method)), "Width": f"{width:g}"}
        row |= {f"depth {depth:g}": "" for depth in depths}
        for model in rows_of(group):
            row[f"depth {model['depth']:g}"] = mean_and_std(model["value"], model["std"])
        rows.append(row | {"Seeds": str(len(group["seeds"].iloc[0]))})
    return rows


def verdicts(models: pd.DataFrame) -> list[str]:
    """Whether methods beat what they add to, at each depth; and which comparison is missing."""
    students = models[models["kind"] == "student"]
    sentences = []
    for layers in sorted(students["layers"].unique(), reverse=True):
        depth = f"{layers} layers: " if students["layers"].nunique() > 1 else ""
        by_method = {model["method"]: model for model in rows_of(students[students["layers"] == layers])}
        for method, model in by_method.items():
            other = compared_with(method)
            if other in by_method:
                sentences.append(depth + verdict(model, by_method[other]))
            elif other:
                ours, theirs = method_label(method), method_label(other)
                sentences.append(f"{depth}Whether {ours} beats {theirs} is open: there is no run of {theirs} here.")
    return sentences


def training_notes(runs: Sequence[RunResult]) -> list[str]:
    """What a reader should know of the training of these runs of one task: less data, or another teacher."""
    notes = []
    by_rows: dict[int, list[str]] = {}
    by_teacher: dict[str, list[str]] = {}
    teachers = [run.value for run in runs if run.method == "teacher"]

    for run in runs:
        limit = _setting(run.settings, "max_train_samples")
        if limit is not None and limit <= run.rows.get("train", 0):
            by_rows.setdefault(limit, []).append(method_label(run.method))
        taught = main_value(run.teacher_metrics, run.metric)
        if teachers and all(abs(taught - value) > NOISE for value in teachers):
            by_teacher.setdefault(f"{100 * taught:.1f}", []).append(method_label(run.method))

    for limit, names in by_rows.items():
        notes.append(f"Trained on the task's first {limit:,} rows only: {'; '.join(dict.fromkeys(names))}.")
    for score, names in by_teacher.items():
        names_once = ", ".join(dict.fromkeys(names))
        notes.append(f"Taught by another training of the teacher, which reaches {score}: {names_once}.")
    return notes


def supernet_notes(models: pd.DataFrame, runs: Sequence[RunResult]) -> list[str]:
    """The teacher of DynaBERT's first stage, and what its narrowest network loses without rewiring or distillation."""
    stage = [run for run in runs if run.method.startswith("dynabert-width")]
    taught = {mean_and_std(100 * main_value(run.teacher_metrics, run.metric)) for run in stage} - {"n/a"}
    notes = [f"The teacher of stage width: {', '.join(sorted(taught))}."] if taught else []

    sizes = models[models["kind"] == "subnetwork"].sort_values("width", kind="stable")
    narrowest = {model["method"]: model for model in rows_of(sizes.drop_duplicates("method"))}
    full = narrowest.get("dynabert-width")
    for method, part in WITHOUT.items():
        if full is not None and method in narrowest:
            lacking, seeds = narrowest[method], len(full["seeds"])
            gain = full["value"] - lacking["value"]
            distance = f"{abs(gain):.1f} points {'higher' if gain >= 0 else 'lower'}"
            figures = " against ".join(mean_and_std(model["value"], model["std"]) for model in (full, lacking))
            figures += f"; {seeds} seed{'s' if seeds > 1 else ''}"
            notes.append(
                f"At width {full['width']:g}, stage width with {part} is {distance} than without ({figures})."
            )
    return notes


def ablation_tables(results: ReportSet) -> list[tuple[list[dict[str, str]], list[str]]]:
    """A table and notes for each method: the full method, then what lacks a part, with the seeds of the latter.

    Args:
        results: of one task.
    """
    by_method: dict[str, list[RunResult]] = {}
    for run in results.ablation:
        full = [other.method for other in results.runs if run.method.startswith(f"{other.method}-")]
        by_method.setdefault(max(full, key=len, default=run.method.split("-")[0]), []).append(run)

    tables = []
    for method, lacking in by_method.items():
        compared = {(run.layers, run.seed) for run in lacking}
        full_runs = [run for run in results.runs if run.method == method and (run.layers, run.seed) in compared]
        runs = [*full_runs, *lacking]
        tables.append((model_rows(table_order(summarize(runs))), [*training_notes(runs), *_different_teachers(runs)]))
    return tables


def _different_teachers(runs: Iterable[RunResult]) -> list[str]:
    """A sentence where the compared runs learned from different trainings of the teacher."""
    taught: dict[float, list[str]] = {}
    for run in runs:
        value = main_value(run.teacher_metrics, run.metric)
        if not math.isnan(value):
            same = next((other for other in taught if abs(value - other) <= NOISE), value)
            taught.setdefault(same, []).append(method_label(run.method))

    parts = [f"{', '.join(dict.fromkeys(names))} from one of {100 * value:.1f}" for value, names in taught.items()]
    return [f"Different trainings of the teacher: {'; '.join(parts)}."] if len(parts) > 1 else []


def grid_rows(runs: Sequence[RunResult]) -> list[dict[str, str]]:
    """The search runs of a task, one row per setting, with the best of each method and depth in bold."""
    if not runs:
        return []
    table = pd.DataFrame([{key: _setting(run.settings, key) for key in SETTINGS} for run in runs])
    varied = [key for key in SETTINGS if key in SETTINGS[:3] or table[key].astype(str).nunique() > 1]
    table = table[varied].assign(
        Method=[run.method for run in runs],
        Layers=[run.layers for run in runs],
        value=[100 * run.value for run in runs],
        seed=[run.seed for run in runs],
    )
    groups = table.groupby(["Method", "Layers", *varied], dropna=False)
    settings = groups.agg(mean=("value", "mean"), std=("value", "std"), seeds=("seed", sorted)).reset_index()
    best = settings.groupby(["Method", "Layers"])["mean"].transform("max")

    rows = []
    order = sorted(settings.index, key=lambda index: (method_key(settings["Method"][index]), index))
    for index in order:
        setting = settings.loc[index]
        mark = "**" if setting["mean"] == best[index] else ""
        row = {"Method": method_label(setting["Method"]), "Layers": str(setting["Layers"])}
        row |= {key: _text(setting[key]) for key in varied}
        row[metric_label(runs[0].metric)] = f"{mark}{mean_and_std(setting['mean'], setting['std'])}{mark}"
        rows.append(row | {"Seeds": ", ".join(map(str, setting["seeds"]))})
    return rows


def setting_rows(runs: Iterable[RunResult]) -> list[dict[str, str]]:
    """The settings that tables show, one row per task, method and number of layers."""
    table = []
    for run in runs:
        row = {"Task": task_label(run.task), "Method": method_label(run.method), "Layers": str(run.layers)}
        table.append(row | {key: _text(_setting(run.settings, key)) for key in SETTINGS})
    if not table:
        return []

    models = pd.DataFrame(table).groupby(["Task", "Method", "Layers"], sort=False)
    return without_empty(rows_of(models.agg(_each_once).reset_index()))


def _each_once(texts: pd.Series[str]) -> str:
    return ", ".join(dict.fromkeys(texts))


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    """A setting by its name, also from a group of settings within the settings; None where there is none."""
    if name in settings:
        return settings[name]
    groups = (value for value in settings.values() if isinstance(value, Mapping))
    return next((group[name] for group in groups if name in group), None)


def _text(value: object) -> str:
    if value is None or value != value:  # a missing value in a table is NaN
        return ""
    return f"{value:g}" if isinstance(value, float) else str(value)


def facts(records: Sequence[TaskRecord]) -> dict[str, str]:
    """What the figures depend on, each value once: hardware, versions, commits, conditions, time."""
    values: dict[str, dict[str, None]] = {"Hardware": {}, "Versions": {}, "Commits": {}}
    for record in records:
        values["Hardware"][machine_label(record.hardware)] = None
        values["Versions"][_pairs(record.versions)] = None
        values["Commits"][record.commit] = None
        if isinstance(record, ExportResult):
            values.setdefault("Latency of exported models", {})[_pairs(record.conditions)] = None

    seconds = [record.seconds for record in records if isinstance(record, RunResult)]
    dates = sorted(record.finished for record in records)
    time = f"{sum(seconds) / 3600:.1f} hours in {len(seconds)} runs, finished from {dates[0]} to {dates[-1]}"
    return {name: "; ".join(texts) for name, texts in values.items()} | {"Training": time}


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def commands(records: Iterable[TaskRecord]) -> list[str]:
    """The commands that gave these results, each once."""
    return list(dict.fromkeys(record.command for record in records))
