"""Models as points of quality against speed or size, and which of them are worth having: the Pareto front."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from bertkd.records.papers import PAPERS, PaperModel, PaperTable
from bertkd.records.results import (
    ExportResult,
    RunResult,
    Spread,
    SubnetworkResult,
    Summary,
    method_key,
    speedups_of_shape,
    summarize,
)
from bertkd.records.tables import method_label, metric_parts, percent

__all__ = [
    "SIZE",
    "SPEED",
    "Axis",
    "Point",
    "all_points",
    "best_students",
    "export_points",
    "front_line",
    "is_drawn",
    "joins",
    "paper_points",
    "pareto_front",
    "run_points",
    "subnetwork_points",
]

Kind = Literal["teacher", "student", "subnetwork", "exported", "paper"]


@dataclass(frozen=True)
class Point:
    """One model on one task.

    Attributes:
        task, method, layers: as in `RunResult`; for a paper's point `method` is the paper.
        kind: "teacher", "student", "subnetwork" (a size of a network of many), "exported" or "paper".
        label: what tables call it.
        tag: what charts call it, where the look of its method says the rest; the label where it is empty.
        value: the main metric in percent, a mean over seeds; for a paper's point the percentage of its reference.
        error: sample standard deviation over seeds, in the same unit; None for one seed.
        seeds: those that `value` is the mean of.
        speedup: the teacher's latency in float32 PyTorch over this model's; None where it is not known.
        size_mb: of the weights or of the engine's files, in MB (1e6 bytes); None where it is not known.
        parameters: their number; None where it is not known.
        metrics: every metric to show, as text in percent.
        before: of an exported point, the main metric in percent of the model it was made from, with the same seeds.
        note: what else a reader should know.
    """

    task: str
    method: str
    layers: int | None
    kind: Kind
    label: str
    value: float
    error: float | None = None
    seeds: tuple[int, ...] = ()
    speedup: float | None = None
    size_mb: float | None = None
    parameters: int | None = None
    metrics: str = ""
    before: float | None = None
    note: str = ""
    tag: str = ""


@dataclass(frozen=True)
class Axis:
    """What quality is drawn against: a field of `Point`, its label, and which direction is better."""

    field: Literal["speedup", "size_mb"]
    label: str
    smaller_is_better: bool

    def of(self, point: Point) -> float:
        """The point's place on this axis; NaN where it is not known."""
        value = point.speedup if self.field == "speedup" else point.size_mb
        return math.nan if value is None else value


SPEED = Axis("speedup", "Speed-up over the teacher in float32 PyTorch (×)", smaller_is_better=False)
SIZE = Axis("size_mb", "Size (MB)", smaller_is_better=True)


def all_points(results: Sequence[RunResult], exports: Sequence[ExportResult] = ()) -> list[Point]:
    """Every point of one set of runs: teachers, students, sizes of networks of many sizes, exported models.

    Raises:
        ValueError: runs that are no repetitions of one experiment, see `summarize`; or a seed was exported twice.
    """
    return [*run_points(results), *subnetwork_points(results), *export_points(exports, _depths(results))]


def run_points(results: Sequence[RunResult]) -> list[Point]:
    """Teachers and students, one point per task, method and number of layers: means over seeds.

    Models of one task with the same layers and parameters have the same shape, and so the same cost: they share the
    mean of the speed-ups that were measured for any of them. What their measurements differ by is noise, which should
    not decide what lies on the front.

    Raises:
        ValueError: see `summarize`.
    """
    runs = [one for one in results if not one.subnetworks]
    return [_run_point(one, runs, _depths(results)) for one in summarize(runs)]


def _run_point(summary: Summary, runs: Sequence[RunResult], depths: set[int]) -> Point:
    is_teacher = summary.method == "teacher"
    speedup, note = (1.0, "") if is_teacher else _shared_speedup(summary, runs)
    return Point(
        task=summary.task,
        method=summary.method,
        layers=summary.layers,
        kind="teacher" if is_teacher else "student",
        label=_label(summary.method, summary.layers, depths),
        value=100 * summary.value.mean,
        error=_percent(summary.value.std),
        seeds=summary.seeds,
        speedup=speedup,
        size_mb=_known(summary.size_mb),
        parameters=summary.parameters,
        metrics=" / ".join(percent(summary.metrics.get(one, summary.value)) for one in metric_parts(summary)),
        note=note,
    )


def _shared_speedup(summary: Summary, runs: Sequence[RunResult]) -> tuple[float | None, str]:
    """The mean of the speed-ups measured for this shape on this task, and what it is the mean of."""
    measured = speedups_of_shape(summary, runs)
    if not measured:
        teachers = {(one.task, one.layers, one.parameters) for one in runs if one.method == "teacher"}
        # The shape of the teacher itself; else it was not measured.
        return (1.0, "") if (summary.task, summary.layers, summary.parameters) in teachers else (None, "")
    return statistics.fmean(measured), _spread_note(measured)


def _spread_note(measured: Sequence[float]) -> str:
    if min(measured) == max(measured):
        return ""
    return f"speed-ups of this shape: {min(measured):.2f} to {max(measured):.2f}"


def subnetwork_points(results: Sequence[RunResult]) -> list[Point]:
    """The sizes of networks of many sizes, one point per task, method, width and depth: means over seeds.

    Their speed-ups were measured against the full network. That is one over the teacher where both have the same
    shape, as they have in DynaBERT; where the teacher's shape is another, the speed-up is left out. Sizes in MB follow
    from the parameters, since only the full network is stored.
    """
    teachers = {one.task: one for one in results if one.method == "teacher"}
    groups: dict[tuple[str, str, float, float], list[tuple[RunResult, SubnetworkResult]]] = {}
    for result in results:
        for size in result.subnetworks:
            groups.setdefault((result.task, result.method, size.width, size.depth), []).append((result, size))
    speedups: dict[tuple[str, int, int], list[float]] = {}
    for (task, *_), group in groups.items():
        for _, size in group:
            speedups.setdefault((task, size.layers, size.parameters), []).append(size.speedup)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], method_key(item[0][1]), -item[0][2], -item[0][3]))
    return [_subnetwork_point(group, teachers.get(key[0]), speedups) for key, group in ordered]


def _subnetwork_point(
    group: Sequence[tuple[RunResult, SubnetworkResult]],
    teacher: RunResult | None,
    speedups: dict[tuple[str, int, int], list[float]],
) -> Point:
    whole, size = group[0]
    value = Spread.of(one.value for _, one in group)
    has_teachers_shape = teacher is None or (teacher.layers, teacher.parameters) == (whole.layers, whole.parameters)
    measured = speedups[whole.task, size.layers, size.parameters]
    parts = [Spread.of(one.metrics.get(part, math.nan) for _, one in group) for part in metric_parts(whole)]
    return Point(
        task=whole.task,
        method=whole.method,
        layers=size.layers,
        kind="subnetwork",
        label=f"{method_label(whole.method)}, width {size.width:g}, depth {size.depth:g}",
        value=100 * value.mean,
        error=_percent(value.std),
        seeds=tuple(sorted(result.seed for result, _ in group)),
        speedup=statistics.fmean(measured) if has_teachers_shape else None,
        size_mb=_known(whole.size_mb * size.parameters / whole.parameters),
        parameters=size.parameters,
        metrics=" / ".join(percent(part) for part in parts),
        note="" if has_teachers_shape else "the full network has not the teacher's shape: no speed-up",
        tag=f"width {size.width:g}, depth {size.depth:g}",
    )


def export_points(exports: Sequence[ExportResult], depths: set[int] | None = None) -> list[Point]:
    """Exported models, one point per model, engine and precision: means over seeds.

    Args:
        exports: of one set.
        depths: the students' numbers of layers; with more than one, labels name the number.

    Raises:
        ValueError: the same seed was exported twice in the same way.
    """
    groups: dict[tuple[str, str, int, int, str, str], list[ExportResult]] = {}
    for one in exports:
        key = (one.task, one.method, one.layers, one.parameters, one.engine, one.precision)
        groups.setdefault(key, []).append(one)
    ordered = sorted(groups, key=lambda key: (key[0], method_key(key[1]), *key[2:]))
    return [_export_point(groups[key], _alike(groups[key][0], exports), depths or set()) for key in ordered]


def _alike(first: ExportResult, exports: Iterable[ExportResult]) -> list[ExportResult]:
    """Exports that have the same shape and run in the same way, and so cost the same, as in `run_points`."""

    def cost(one: ExportResult) -> tuple[object, ...]:
        return one.task, one.layers, one.parameters, one.engine, one.precision

    return [one for one in exports if cost(one) == cost(first)]


def _export_point(group: Sequence[ExportResult], alike: Sequence[ExportResult], depths: set[int]) -> Point:
    first, seeds = group[0], sorted(one.seed for one in group)
    label = f"{_label(first.method, first.layers, depths)}, {first.engine} {first.precision}"
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{label} on {first.task}: a seed was exported twice, among {seeds}; keep one of the files")
    value = Spread.of(one.value for one in group)
    speedups = [one.speedup for one in alike if one.speedup is not None]
    best = [one.speedup_best for one in alike if one.speedup_best is not None]
    notes = [f"computes in {one}" for one in sorted({one.runtime_precision for one in group} - {first.precision})]
    if best:
        notes.append(f"{statistics.fmean(best):.2f}x over the teacher in its fastest engine")
    if len(alike) > len(group) and speedups and (spread := _spread_note(speedups)):
        notes.append(spread)
    return Point(
        task=first.task,
        method=first.method,
        layers=first.layers,
        kind="exported",
        label=label,
        value=100 * value.mean,
        error=_percent(value.std),
        seeds=tuple(seeds),
        speedup=statistics.fmean(speedups) if speedups else None,
        size_mb=_known(statistics.fmean(one.size_mb for one in group)),
        parameters=first.parameters,
        metrics=_export_metrics(group),
        before=100 * statistics.fmean(one.value_before for one in group),
        note="; ".join(notes),
    )


def _export_metrics(group: Sequence[ExportResult]) -> str:
    """The same metrics as for the run that made the model, which may be two."""
    means = {key: Spread.of(one.metrics.get(key, math.nan) for one in group) for key in group[0].metrics}
    first = group[0]
    value = Spread.of(one.value for one in group)
    summary = Summary(first.task, first.method, first.layers, first.metric, (first.seed,), value, means)
    return " / ".join(percent(means.get(part, value)) for part in metric_parts(summary))


def paper_points(task: str, tables: Sequence[PaperTable] = PAPERS) -> list[Point]:
    """The papers' own models on a task, as percentages of the BERT-base of the same table.

    Args:
        task: such as "mnli".
        tables: where to take them from.
    """
    return [
        _paper_point(task, table, model)
        for table in tables
        for model in table.models
        if task in model.scores and task in table.reference.scores
    ]


def _paper_point(task: str, table: PaperTable, model: PaperModel) -> Point:
    score, reference = model.scores[task], table.reference.scores[task]
    own = f"{score:g} beside {table.reference.name}'s {reference:g}, {table.split}"
    return Point(
        task=task,
        method=table.paper,
        layers=model.layers,
        kind="paper",
        label=model.name,
        value=100 * score / reference,
        speedup=model.speedup,
        parameters=None if model.parameters_m is None else round(1e6 * model.parameters_m),
        note="; ".join(filter(None, (own, table.hardware, model.note))),
    )


def pareto_front(points: Iterable[Point], axis: Axis) -> list[Point]:
    """The points that no other beats, by place on the axis.

    One point beats another when it is at least as good in both quality and cost, and better in one. Equal points do
    not beat each other. Papers' points, and points whose place or value is not known, take no part.
    """
    known = [one for one in points if one.kind != "paper" and is_drawn(one, axis)]
    front = [one for one in known if not any(_beats(other, one, axis) for other in known)]
    return sorted(front, key=lambda one: (axis.of(one), one.value, one.label))


def is_drawn(point: Point, axis: Axis) -> bool:
    """Whether the point has a place in a chart of this axis."""
    return math.isfinite(axis.of(point)) and math.isfinite(point.value)


def _beats(one: Point, other: Point, axis: Axis) -> bool:
    sign = -1 if axis.smaller_is_better else 1
    gains = (one.value - other.value, sign * (axis.of(one) - axis.of(other)))
    return min(gains) >= 0 and max(gains) > 0


def front_line(
    front: Sequence[Point], axis: Axis, low: float, high: float, bottom: float
) -> list[tuple[float, float]]:
    """Corners of the front's step line: the best value to be had at each speed-up, or within each size.

    Args:
        front: as `pareto_front` gives it.
        axis: of the chart.
        low, high: the ends of the axis.
        bottom: the lower end of the values.
    """
    steps = sorted({(axis.of(one), one.value) for one in front})
    if not steps:
        return []
    if axis.smaller_is_better:
        corners = [(steps[0][0], bottom), steps[0]]
        for (_, before), (x, y) in pairwise(steps):
            corners += [(x, before), (x, y)]
        return [*corners, (high, steps[-1][1])]
    corners = [(low, steps[0][1]), steps[0]]
    for (before, _), (x, y) in pairwise(steps):
        corners += [(before, y), (x, y)]
    return [*corners, (steps[-1][0], bottom)]


def joins(points: Sequence[Point]) -> list[tuple[Point, Point]]:
    """Each exported point with the one it was made from: of the same task, method and layers.

    Where several are, as the sizes of a network of many, it is the one with as many parameters. An exported point
    without its origin among `points` is left out.
    """
    pairs = []
    for exported in (one for one in points if one.kind == "exported"):
        key = (exported.task, exported.method, exported.layers)
        made = [one for one in points if one.kind != "exported" and (one.task, one.method, one.layers) == key]
        if len(made) > 1:
            made = [one for one in made if one.parameters == exported.parameters]
        if made:
            pairs.append((made[0], exported))
    return pairs


def best_students(points: Sequence[Point]) -> list[Point]:
    """The students and sub-networks with the highest value, at the precision shown, among those below the teacher.

    Below means fewer parameters; without a teacher every student takes part. Empty where there is no student.
    """
    teacher = next((one for one in points if one.kind == "teacher"), None)
    limit = math.inf if teacher is None or teacher.parameters is None else teacher.parameters
    students = [
        one
        for one in points
        if one.kind in ("student", "subnetwork") and math.isfinite(one.value) and (one.parameters or 0) < limit
    ]
    top = max((round(one.value, 1) for one in students), default=0.0)
    return [one for one in students if round(one.value, 1) == top]


def _depths(results: Sequence[RunResult]) -> set[int]:
    return {one.layers for one in results if one.method != "teacher" and not one.subnetworks}


def _label(method: str, layers: int, depths: set[int]) -> str:
    several = len(depths) > 1 and method != "teacher"
    return f"{method_label(method)}, {layers} layers" if several else method_label(method)


def _percent(fraction: float | None) -> float | None:
    return None if fraction is None else 100 * fraction


def _known(number: float) -> float | None:
    return number if math.isfinite(number) and number > 0 else None
