"""Results as a table of models, one row each with means over seeds; and which of the models are worth having."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from bertkd.methods import method_key, method_label
from bertkd.records.results import ExportResult, RunResult
from bertkd.records.tables import mean_and_std, metric_parts, rows_of

__all__ = ["SIZE", "SPEED", "best_students", "origin", "pareto_front", "summarize"]

# The columns that quality is drawn against.
SPEED, SIZE = "speedup_of_shape", "size_mb"
ORDER = {"teacher": 0, "student": 0, "subnetwork": 1, "exported": 2}
# What makes results repetitions of one experiment. Exports of several sizes of one supernet may have as many layers.
MODEL = ["task", "kind", "method", "layers", "variant", "exported_parameters"]
# What makes models cost the same: one shape, run in the same way.
SHAPE = ["task", "kind", "layers", "parameters", "engine", "precision"]
KEPT = ["task", "kind", "method", "layers", "variant", "label", "metric", "parameters", "embedding_parameters"]
KEPT += ["width", "depth"]
NUMBERS = ["value", "size_mb", "speedup", "speedup_best", "value_before", "agreement", "width", "depth"]
DEFAULTS = {
    "variant": "",
    "exported_parameters": 0,
    "engine": "",
    "precision": "",
    "runtime_precision": "",
    "note": "",
}


def summarize(runs: Iterable[RunResult], exports: Iterable[ExportResult] = ()) -> pd.DataFrame:
    """Makes a table of models, with means over seeds, from the results of one set of runs.

    Returns:
        One row per model: teachers and students, then the sizes of supernets, then exported models. The columns:
            task, method, layers, metric, parameters, embedding_parameters: see `RunResult`.
            kind: "teacher", "student", "subnetwork" or "exported".
            variant: the size of a sub-network, or the engine and precision of an export; else empty.
            width, depth: of a sub-network; else NaN.
            label: the name of the model in tables and charts.
            value, std: the main metric in percent; the standard deviation of a single seed is NaN.
            metrics: texts, in percent, of the metrics to show, by their names.
            seeds: the seeds that `value` is the mean of.
            speedup: over the teacher in float32 PyTorch, measured for this model, else for its shape; NaN for neither.
            speedup_of_shape: the mean over all models of the shape on the task, 1 for the teacher's. Charts show it,
                as noise between measurements of one shape should not decide what lies on the Pareto front.
            size_mb: of the weights or of the engine's files, in MB (1e6 bytes); NaN where it is not known.
            before: of an exported model, the value of the model it was made from, with the same seeds.
            agreement: of an exported model, the share of rows in percent with the same answer as before.
            note: what else a reader should know.

    Raises:
        ValueError: a seed occurs twice among the results of a model, or they mix metrics or sizes: such results are
            not repetitions of one experiment and have no common mean.
    """
    runs = list(runs)
    teachers = {run.task: (run.layers, run.parameters) for run in runs if run.method == "teacher"}
    depths = {run.layers for run in runs if run.method != "teacher" and not run.subnetworks}
    rows: list[dict[str, Any]] = []
    for run in runs:
        rows += _rows_of_run(run, teachers.get(run.task))
    for export in exports:
        rank, variant = (export.layers, export.parameters), f"{export.engine} {export.precision}"
        changes = {"kind": "exported", "variant": variant, "exported_parameters": export.parameters, "rank": rank}
        rows.append(DEFAULTS | vars(export) | changes)
    if not rows:
        return pd.DataFrame(columns=["task", "kind", "method", "value"])

    for row in rows:
        has_depth = len(depths) > 1 and row["kind"] != "subnetwork" and row["method"] != "teacher"
        names = (method_label(row["method"]), f"{row['layers']} layers" if has_depth else "", row["variant"])
        row["label"] = ", ".join(filter(None, names))

    rows.sort(key=lambda row: (row["task"], ORDER[row["kind"]], method_key(row["method"]), row["rank"], row["seed"]))
    frame = pd.DataFrame(rows).reindex(columns=[*dict.fromkeys([*rows[0], *NUMBERS])])
    frame = frame.astype(dict.fromkeys(NUMBERS, float))
    speedups = frame.groupby(SHAPE)["speedup"]
    frame = frame.assign(
        shared=speedups.transform("mean"), low=speedups.transform("min"), high=speedups.transform("max")
    )
    frame["best"] = frame.groupby(SHAPE)["speedup_best"].transform("mean")
    return pd.DataFrame([_model(group, teachers) for _, group in frame.groupby(MODEL, sort=False)])


def _rows_of_run(run: RunResult, teacher: tuple[int, int] | None) -> list[dict[str, Any]]:
    """The run as a row, or for a supernet the sizes inside it."""
    kind = "teacher" if run.method == "teacher" else "student"
    row = DEFAULTS | vars(run) | {"kind": kind, "rank": (run.layers, 0)}
    if not run.subnetworks:
        return [row]

    rows = []
    for size in run.subnetworks:
        size_row = row | vars(size) | {"kind": "subnetwork", "rank": (-size.width, -size.depth)}
        size_row["variant"] = f"width {size.width:g}, depth {size.depth:g}"
        # Only the full network is stored.
        size_row["size_mb"] = run.size_mb * size.parameters / run.parameters
        # Sizes were measured against the full network, which stands for the teacher if it has its shape.
        if teacher not in (None, (run.layers, run.parameters)):
            size_row |= {"speedup": None, "note": "the full network has not the teacher's shape: no speed-up"}
        rows.append(size_row)
    return rows


def _model(group: pd.DataFrame, teachers: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The row of one model, from the rows of its seeds."""
    first, seeds = rows_of(group)[0], group["seed"].tolist()
    name = f"{first['label']} on {first['task']} with {first['layers']} layers"
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}: a seed occurs twice among {seeds}; keep runs with other settings in another folder")
    for key in ("metric", "parameters"):
        if group[key].nunique() > 1:
            raise ValueError(f"{name}: the runs differ in {key}: {sorted(group[key].unique().tolist())}")

    metrics, texts = pd.DataFrame(list(group["metrics"]), index=group.index), {}
    for part in metric_parts(first["metric"], metrics.columns):
        values = 100 * metrics.get(part, group["value"])
        texts[part] = mean_and_std(values.mean(skipna=False), values.std())

    speedup, shared = group["speedup"].mean(), first["shared"]
    # The teacher's shape has the teacher's speed, in PyTorch.
    has_teachers_shape = teachers.get(first["task"]) == (first["layers"], first["parameters"]) and not first["variant"]
    return {key: first[key] for key in KEPT} | {
        "value": 100 * group["value"].mean(skipna=False),
        "std": 100 * group["value"].std(),
        "metrics": texts,
        "seeds": tuple(seeds),
        "speedup": shared if math.isnan(speedup) else speedup,
        SPEED: 1.0 if math.isnan(shared) and has_teachers_shape else shared,
        SIZE: group["size_mb"].mean() or math.nan,
        "before": 100 * group["value_before"].mean(),
        "agreement": 100 * group["agreement"].mean(),
        "note": "; ".join(_notes(first)),
    }


def _notes(row: Mapping[str, Any]) -> list[str]:
    notes = [row["note"]] if row["note"] else []
    if row["runtime_precision"] != row["precision"]:
        notes.append(f"computes in {row['runtime_precision']}")
    if not math.isnan(row["best"]):
        notes.append(f"{row['best']:.2f}x over the teacher in its fastest engine")
    if row["low"] < row["high"] and row["kind"] != "subnetwork":
        notes.append(f"speed-ups of this shape: {row['low']:.2f} to {row['high']:.2f}")
    return notes


def pareto_front(models: pd.DataFrame, axis: str) -> pd.Series[bool]:
    """Tells which models no other one beats: none is at least as good in both quality and cost, and better in one.

    Equal models do not beat each other. Models whose place or value is not known take no part.

    Args:
        models: of one task.
        axis: `SPEED`, where more is better, or `SIZE`, where less is.
    """
    value = models["value"].to_numpy(float)
    gain = models[axis].to_numpy(float) * (-1 if axis == SIZE else 1)

    # One row per model, one column per rival; a comparison with NaN is false.
    is_as_good = (value >= value[:, None]) & (gain >= gain[:, None])
    is_better = (value > value[:, None]) | (gain > gain[:, None])
    is_beaten = pd.Series((is_as_good & is_better).any(axis=1), models.index)
    return models[axis].notna() & models["value"].notna() & ~is_beaten


def best_students(models: pd.DataFrame) -> pd.DataFrame:
    """Selects the students and sub-networks of a task with the highest value, at the precision shown.

    Only those with fewer parameters than the teacher take part; without a teacher all do.
    """
    students = models[models["kind"].isin(["student", "subnetwork"]) & models["value"].notna()]
    teachers = models[models["kind"] == "teacher"]
    if len(teachers):
        students = students[students["parameters"] < teachers["parameters"].iloc[0]]
    shown = students["value"].round(1)
    return students[shown == shown.max()]


def origin(models: pd.DataFrame, exported: Mapping[str, Any]) -> dict[str, Any] | None:
    """Finds the model that an exported one was made from; None where it is not among the models of the task."""
    same = (models["method"] == exported["method"]) & (models["layers"] == exported["layers"])
    candidates = models[same & (models["kind"] != "exported")]
    # Several sizes of a supernet may have as many layers.
    if len(candidates) > 1:
        candidates = candidates[candidates["parameters"] == exported["parameters"]]
    return rows_of(candidates)[0] if len(candidates) else None
