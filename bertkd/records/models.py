"""Results as a table of models with means over seeds, its rows for people, and the models that are worth having."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from bertkd.methods import method_key, method_label
from bertkd.metrics import main_value
from bertkd.records import tables
from bertkd.records.results import ExportResult, RunResult

__all__ = ["SIZE", "SPEED", "best_students", "pareto_front", "result_rows", "summarize"]

# The columns that quality is drawn against.
SPEED, SIZE = "speedup", "size_mb"
KINDS = ["teacher", "student", "subnetwork", "exported"]
# Columns that tell one model from another. Exports of several sizes of one supernet may have as many layers. Those of
# students with a budget are not told apart by their parameters, which differ from seed to seed.
MODEL = ["task", "kind", "method", "layers", "variant", "exported_parameters"]
# Columns that tell what costs the same: one shape, run in the same way.
SHAPE = ["task", "kind", "layers", "parameters", "variant"]
NUMBERS = ["value", "size_mb", "speedup", "speedup_best", "value_before", "agreement", "width", "depth", "teacher"]
COLUMNS = [
    *MODEL,
    "seed",
    "label",
    "machine",
    "metric",
    "shown_metric",
    "scores",
    "parameters",
    "has_budget",
    *NUMBERS,
]
PERCENT = ["value", "value_before", "agreement", "teacher"]


def summarize(runs: Iterable[RunResult], exports: Iterable[ExportResult] = ()) -> pd.DataFrame:
    """Makes a table of models, with means over seeds, from the results of one set of runs.

    Returns:
        One row per model: teachers, students from deep to shallow, sizes of supernets, exported models. The columns:
            task, method, layers, metric, parameters, width, depth: see `RunResult` and `SubnetworkResult`.
            kind: "teacher", "student", "subnetwork" or "exported".
            variant: the size of a sub-network, a student's budget, or an export's budget, engine and precision; else
                empty.
            label: the name of the model in tables and charts.
            has_budget: see `TaskRecord`.
            machine: where the speed-up was measured; empty where none was.
            value, std, seeds: the main metric in percent, its standard deviation (NaN for one seed), and the seeds.
            shown_metric, quality: the metric as tables show it: "F1 / accuracy" and "82.3 ± 0.2 / 71.9 ± 0.4".
            speedup: over the teacher in float32 PyTorch: the mean over all models of the shape on the task, as noise
                between measurements of one shape should decide nothing. Of several machines, the one of most runs
                counts. NaN where none was measured.
            speedup_best: of an exported model, over the teacher in its fastest engine.
            size_mb: of the weights or of the engine's files, in MB (1e6 bytes); NaN where it is not known.
            value_before, agreement: of an exported model, the value before the export with the same seeds, and the
                share of rows with the same answer, both in percent.
            teacher: the value of the model's own teacher in percent; NaN where it has none, or none is known.

    Raises:
        ValueError: a seed occurs twice among the results of a model, or they mix metrics or sizes: such results are
            not repetitions of one experiment and have no common mean.
    """
    runs = sorted(runs, key=_order)
    teacher_shapes: dict[str, tuple[int, int]] = {}
    rows: list[dict[str, Any]] = []
    for run in runs:
        # The teachers come first.
        if run.method == "teacher":
            # Of several, the deepest.
            teacher_shapes.setdefault(run.task, (run.layers, run.parameters))
        rows += _rows_of_run(run, teacher_shapes.get(run.task))

    for export in sorted(exports, key=_order):
        # An engine may compute in another precision than the one asked for.
        computes = "" if export.runtime_precision == export.precision else f" (computes in {export.runtime_precision})"
        variant = ", ".join(filter(None, (export.budget, f"{export.engine} {export.precision}{computes}")))
        row = vars(export) | {"kind": "exported", "variant": variant, "has_budget": export.has_budget}
        rows.append(row | {"exported_parameters": 0 if export.has_budget else export.parameters})
    if not rows:
        return pd.DataFrame(columns=["task", "kind", "method", "layers", "value"])

    _tell_apart(rows)
    _leave_out_other_machines(rows)
    _name_machines(rows)
    # The teacher's 1.0 says nothing where no other model was timed.
    if all(row.get("speedup") is None for row in rows if row["kind"] != "teacher"):
        for row in rows:
            row["speedup"] = None

    depths = {row["layers"] for row in rows if row["kind"] == "student"}
    for row in rows:
        has_depth = len(depths) > 1 and row["kind"] != "subnetwork" and row["method"] != "teacher"
        has_depth = has_depth and not row["has_budget"]
        names = [method_label(row["method"]), f"{row['layers']} layers" if has_depth else "", row["variant"]]
        row["label"] = ", ".join(filter(None, names))

        parts = tables.metric_parts(row["metric"], row["metrics"])
        row["shown_metric"] = " / ".join(map(tables.metric_label, parts))
        row["scores"] = [100 * row["metrics"].get(part, row["value"]) for part in parts]
    _name_depths(rows)
    rows.sort(key=lambda row: KINDS.index(row["kind"]))

    table = pd.DataFrame(rows).reindex(columns=COLUMNS).astype(dict.fromkeys(NUMBERS, float))
    table[PERCENT] *= 100
    # A size of 0 is one that was not measured.
    table["size_mb"] = table["size_mb"].replace(0, math.nan)
    for column in ("speedup", "speedup_best"):
        table[column] = table.groupby(SHAPE)[column].transform("mean")
    return _means_over_seeds(table)


def _tell_apart(rows: list[dict[str, Any]]) -> None:
    """Adds the number of parameters to the variant of models that have everything else in common, a seed too.

    Such are the models that `bertkd shrink` and `bertkd extract` make of one model, or students of several teachers.
    Models with a budget differ in it from seed to seed.
    """
    rows = [row for row in rows if not row["has_budget"]]
    names = [name for name in MODEL if name != "task"]
    sizes: dict[tuple[Any, ...], set[int]] = {}
    for row in rows:
        run = (tuple(row[name] for name in names), row["task"], row["seed"])
        sizes.setdefault(run, set()).add(row["parameters"])

    alike = {model for (model, _, _), counts in sizes.items() if len(counts) > 1}
    for row in rows:
        if tuple(row[name] for name in names) in alike:
            row["variant"] = ", ".join(filter(None, (row["variant"], tables.count_label(row["parameters"]))))


def _leave_out_other_machines(rows: list[dict[str, Any]]) -> None:
    """Leaves out the speed-ups of runs on another machine than most, where the model has some of that one.

    How many times faster a model is than its teacher differs from machine to machine, as their records show.
    """
    machines = [tables.machine_label(row["hardware"]) for row in rows]
    timed = [(machine, row["kind"]) for machine, row in zip(machines, rows, strict=True) if row.get("speedup")]
    # A supernet has dozens of sizes.
    counted = [machine for machine, kind in timed if kind != "subnetwork"] or [machine for machine, _ in timed]
    usual = max(counted, key=counted.count, default="")

    # Means are over shapes and over the seeds of a model.
    kinds = [[tuple(row[name] for name in names) for names in (MODEL, SHAPE)] for row in rows]
    is_there = set()
    for kind, machine, row in zip(kinds, machines, rows, strict=True):
        if machine == usual and row.get("speedup") is not None:
            is_there |= set(kind)
    for kind, machine, row in zip(kinds, machines, rows, strict=True):
        if machine != usual and is_there & set(kind):
            row["speedup"], row["speedup_best"] = None, None


def _name_machines(rows: list[dict[str, Any]]) -> None:
    """Notes on which machines the speed-up of each row was measured: one shape of a task has one speed-up."""
    machines: dict[tuple[Any, ...], dict[str, None]] = {}
    for row in rows:
        if row.get("speedup") is not None and row["hardware"]:
            shape = tuple(row[name] for name in SHAPE)
            machines.setdefault(shape, {})[tables.machine_label(row["hardware"])] = None
    for row in rows:
        row["machine"] = "; ".join(machines.get(tuple(row[name] for name in SHAPE), ()))


def _name_depths(rows: list[dict[str, Any]]) -> None:
    """Adds the depth to labels that stand for models of several depths on one task."""
    depths: dict[tuple[str, str], set[int]] = {}
    for row in rows:
        depths.setdefault((row["task"], row["label"]), set()).add(row["layers"])

    shared = {label for (_, label), found in depths.items() if len(found) > 1}
    for row in rows:
        if row["label"] in shared:
            row["label"] += f", {row['layers']} layers"


def _order(record: RunResult | ExportResult) -> tuple[Any, ...]:
    """The sorting key of tables: the teacher, then from deep to shallow, by method, by budget from the largest."""
    is_student = record.method != "teacher"
    size = -record.parameters if record.budget else 0
    return (is_student, -record.layers, method_key(record.method), tables.task_label(record.task), size, record.seed)


def _rows_of_run(run: RunResult, teacher_shape: tuple[int, int] | None) -> list[dict[str, Any]]:
    """The run as a row, or for a supernet the sizes inside it."""
    shape = (run.layers, run.parameters)
    kind = "teacher" if run.method == "teacher" else "student"
    row = vars(run) | {"kind": kind, "variant": run.budget, "exported_parameters": 0, "has_budget": run.has_budget}
    # A speed-up over another model than the teacher, such as the checkpoint whose layers a student has.
    if teacher_shape is not None and run.speedup_over not in (None, teacher_shape[1]):
        row["speedup"] = None
    row["teacher"] = run.value if kind == "teacher" else main_value(run.teacher_metrics, run.metric)

    if not run.subnetworks:
        # The teacher's shape has the teacher's speed.
        if run.speedup is None and shape == teacher_shape:
            row["speedup"] = 1.0
        return [row]

    rows = []
    for size in run.subnetworks:
        size_row = row | vars(size) | {"kind": "subnetwork"}
        size_row["variant"] = f"width {size.width:g}, depth {size.depth:g}"
        # Only the full network is stored.
        size_row["size_mb"] = run.size_mb * size.parameters / run.parameters
        # Sizes were measured against the full network, which stands for the teacher only if it has its shape.
        if teacher_shape not in (None, shape):
            size_row["speedup"] = None
        rows.append(size_row)
    return rows


def _means_over_seeds(table: pd.DataFrame) -> pd.DataFrame:
    """One row per model from one row per seed."""
    groups = table.groupby(MODEL, sort=False)
    for _, group in groups:
        first, seeds = group.iloc[0], group["seed"]
        name = f"{first['label']} on {first['task']} with {first['layers']} layers"

        if seeds.duplicated().any():
            raise ValueError(
                f"{name}: a seed occurs twice among {seeds.tolist()}; keep runs with other settings in another folder."
            )
        # The rows that a seed draws decide which sizes are within a budget.
        for key in ("metric",) if first["has_budget"] else ("metric", "parameters"):
            if group[key].nunique() > 1:
                raise ValueError(f"{name}: the runs differ in {key}: {sorted(group[key].unique().tolist())}.")

    # What is the same for all seeds, what is a mean of them, and what needs a function.
    constant = groups[["label", "machine", "metric", "shown_metric", "has_budget", "width", "depth"]].first()
    means = groups[["parameters", "speedup", "speedup_best", "size_mb", "value_before", "agreement", "teacher"]].mean()
    own = groups.agg(value=("value", _mean), std=("value", "std"), quality=("scores", _quality), seeds=("seed", tuple))
    return pd.concat([constant, own, means], axis=1).reset_index()


def _mean(values: pd.Series[float]) -> float:
    """The mean, which is NaN where a seed has no finite value: leaving it out would flatter the model."""
    return float(values.mean(skipna=False))


def _quality(scores: pd.Series[Any]) -> str:
    """The text of one or two numbers, each a mean with its standard deviation."""
    table = pd.DataFrame(scores.tolist())
    return " / ".join(map(tables.mean_and_std, table.mean(skipna=False), table.std()))


def best_students(models: pd.DataFrame) -> pd.Series[bool]:
    """Tells which students have the highest value, at the precision shown, of their task and number of layers."""
    shown = models["value"].where(models["kind"] == "student").round(1)
    # Students of different budgets are no rivals.
    budget = models["label"].where(models["has_budget"].astype(bool), "")
    rivals = shown.groupby([models["task"], models["layers"], budget])
    return (shown == rivals.transform("max")) & (rivals.transform("count") > 1)


def result_rows(models: pd.DataFrame, mark_best: bool = False) -> list[dict[str, str]]:
    """One row per model, with one column of metrics per task; columns without any entry are left out.

    Metrics are in percent; where a task has two numbers (F1 / accuracy, Pearson / Spearman) both are shown, and the
    share of the teacher goes by their mean. That share is of the mean over the tasks that most rows have, and a row
    that lacks one of them has none, so that rows compare; where these are not all tasks, the column's name has their
    number. Size and speed-up are means over the tasks of a row.

    Args:
        models: of one set of runs, as `summarize` gives them.
        mark_best: sets the best student of each task and depth in bold (Markdown), by the main metric.
    """
    if models.empty:
        return []
    # Of a budget's students, which differ from task to task, the table has the mean.
    means = models.groupby("label")["parameters"].transform("mean")
    parameters = means.where(models["has_budget"].astype(bool), models["parameters"])
    models = models.assign(
        header=models["task"].map(tables.task_label) + " " + models["shown_metric"],
        count=parameters.map(tables.count_label),
        mark=best_students(models).map({True: "**" if mark_best else "", False: ""}),
    )
    teachers = models[models["kind"] == "teacher"].groupby("task")["value"].mean()
    groups = models.groupby(["label", "layers", "count"], sort=False)
    rows_with = {task: sum(task in set(group["task"]) for _, group in groups) for task in teachers.index}
    common = [task for task, count in rows_with.items() if count > len(groups) / 2]
    share_header = "Share of teacher"
    if len(common) < models["task"].nunique():
        share_header += f", {len(common)} task{'s' if len(common) > 1 else ''}"

    rows = []
    for (label, layers, count), group in groups:
        row = {"Method": str(label), "Layers": str(layers)} | dict.fromkeys(sorted(models["header"].unique()), "")
        for model in tables.row_dicts(group):
            row[model["header"]] = model["mark"] + model["quality"] + model["mark"]

        # A task may have fewer seeds than another one.
        seeds = group["seeds"].map(len)
        means = group[["size_mb", "speedup", "speedup_best", "value_before", "agreement"]].mean()
        row[share_header] = share_of_teacher(group, teachers[common])
        row["Seeds"] = str(seeds.min()) if seeds.nunique() == 1 else f"{seeds.min()}-{seeds.max()}"
        row["Parameters"] = str(count)
        row["Size"] = tables.text_of(means["size_mb"], "{:.1f} MB")
        row["Speed-up"] = tables.text_of(means["speedup"], "{:.1f}x")
        row["Over the teacher's fastest engine"] = tables.text_of(means["speedup_best"], "{:.1f}x")
        row["In PyTorch"] = tables.text_of(means["value_before"], "{:.1f}")
        row["Same answers"] = tables.text_of(means["agreement"], "{:.1f}%")
        rows.append(row)

    return tables.without_empty_columns(pd.DataFrame(rows))


def share_of_teacher(models: pd.DataFrame, teachers: pd.Series[float]) -> str:
    """The mean of a model over tasks as a share of its teachers' mean, such as "98.7%"; empty where it lacks a task.

    Args:
        models: of one kind of model, one for each task.
        teachers: the values of the tasks' teachers, which count for models that learned from none; other tasks do not
            count.
    """
    by_task = models.set_index("task").reindex(teachers.index)
    ours, theirs = by_task["value"].mean(skipna=False), by_task["teacher"].fillna(teachers).mean(skipna=False)
    # A correlation may be 0 or less, which has no shares.
    return f"{100 * ours / theirs:.1f}%" if theirs > 0 and not math.isnan(ours) else ""


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
