"""Charts as PNG files. They need matplotlib: `pip install "bertkd[report]"`."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bertkd.atomic import atomic_path
from bertkd.methods import method_key, method_label
from bertkd.records.models import SIZE, SPEED, origin, pareto_front
from bertkd.records.tables import rows_of, table_order, task_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "AXIS_LABELS",
    "ChartPoint",
    "accuracy_chart",
    "bars_chart",
    "curves_chart",
    "frontier_chart",
    "is_chart_of",
    "method_colors",
    "needs_log",
    "side_by_side",
]

DPI = 100
# Okabe and Ito's palette first, for color-blind readers; all of it can be seen on white and on black.
COLORS = (
    *("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"),
    *("#999933", "#AA4499", "#7B61D8", "#44AA99", "#B07A3C", "#C2185B"),
)
MARKERS = "osD^vPX<>hpd"
GREY = "#7d8590"
AXIS_LABELS = {SPEED: "Speed-up over the teacher in float32 PyTorch (×)", SIZE: "Size (MB)"}
# Where the step line of the front falls: at the model for speed, at the next one for size.
STEPS: dict[str, Literal["pre", "post"]] = {SPEED: "pre", SIZE: "post"}
# A keyword in the PNG that tells which data it shows: pixels differ between versions of matplotlib, data do not.
DATA_KEY = "bertkd-data"
CHARTED = ["task", "label", "kind", "value", "std", SPEED, SIZE, "before"]


@dataclass(frozen=True)
class ChartPoint:
    """A model in the chart; `error` is a standard deviation in units of y.

    A `reference` is also drawn as a dashed line; a point labeled "Teacher" is always one.
    """

    label: str
    x: float
    y: float
    error: float | None = None
    reference: bool = False


def accuracy_chart(points: Sequence[ChartPoint], path: str | Path, title: str, x_label: str, y_label: str) -> Path:
    """Draws accuracy against cost or speed as a PNG: points with error bars, the teacher as a dashed line.

    Points at the same x stand side by side, so that all can be seen.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    drawn = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    figure, (axes,) = _figure((800, 500), title, y_label, path, min(1, len(drawn)))
    places = side_by_side(pd.Series([point.x for point in drawn]), log=False)

    for index, (point, x) in enumerate(zip(drawn, places, strict=True)):
        is_reference = point.reference or point.label.lower() == "teacher"
        color, marker = (GREY, "*") if is_reference else (COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)])
        if is_reference:
            axes.axhline(point.y, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
        axes.errorbar(x, point.y, point.error, fmt=marker, color=color, markersize=9, capsize=4, label=point.label)

    axes.set_xlabel(x_label)
    axes.margins(0.15, 0.15)
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return _save(figure, path, pd.DataFrame(points))


def curves_chart(
    curves: Mapping[str, Sequence[ChartPoint]],
    path: str | Path,
    title: str,
    x_label: str,
    y_label: str,
    reference: ChartPoint | None = None,
) -> Path:
    """Draws families of models as a PNG: joined points, one color for each family, every point with its label.

    Args:
        curves: points by name, which stands in the legend; a curve is joined in the order of x.
        reference: a model to compare with, drawn as a star and a dashed line.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    points = [point for curve in curves.values() for point in curve]
    figure, (axes,) = _figure((800, 500), title, y_label, path, min(1, len(points)))

    for index, (name, curve) in enumerate(curves.items()):
        table = pd.DataFrame(curve).sort_values("x")
        axes.plot(
            table["x"], table["y"], marker=MARKERS[index % len(MARKERS)], color=COLORS[index % len(COLORS)], label=name
        )
        for point in curve:
            axes.annotate(point.label, (point.x, point.y), (0, 7), textcoords="offset points", ha="center", fontsize=8)

    if reference is not None:
        points.append(reference)
        axes.axhline(reference.y, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
        axes.plot(reference.x, reference.y, "*", color=GREY, markersize=13, label=reference.label)
    axes.set_xlabel(x_label)
    axes.margins(0.08, 0.12)
    axes.legend(frameon=False)
    return _save(figure, path, pd.DataFrame(points))


def bars_chart(models: pd.DataFrame, path: str | Path, title: str, y_label: str) -> Path:
    """Draws bars as a PNG: grouped by task, one color for each model, with values above and error bars.

    Args:
        models: teachers and students, as `summarize` gives them.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no bar to draw.
    """
    drawn = table_order(models[models["value"].notna()])
    figure, (axes,) = _figure((1100, 500), title, y_label, path, min(1, len(drawn)))

    labels = drawn["label"].unique()
    bars = drawn.assign(task=drawn["task"].map(task_label)).pivot(index="task", columns="label")
    values, stds = bars["value"][labels], bars["std"][labels]
    colors: Any = [
        GREY if label == "Teacher" else COLORS[index % len(COLORS)] for index, label in enumerate(labels, -1)
    ]
    values.plot.bar(ax=axes, yerr=stds, capsize=3, width=0.84, color=colors, rot=0, xlabel="", legend=False)
    bars_of_models: Any = [container for container in axes.containers if hasattr(container, "patches")]
    for label, container in zip(labels, bars_of_models, strict=True):
        texts = ["" if math.isnan(value) else f"{value:.1f}" for value in values[label]]
        axes.bar_label(container, texts, padding=3, fontsize=8, rotation=90)

    axes.margins(y=0.15)
    axes.set_ylim(bottom=min(0.0, (values - stds.fillna(0)).min().min()))
    figure.legend(loc="outside lower center", ncols=min(6, len(labels)), frameon=False)
    return _save(figure, path, models[CHARTED])


def frontier_chart(models: pd.DataFrame, path: str | Path, title: str, y_label: str) -> Path:
    """Draws quality against speed and against size as a PNG, each with the Pareto front.

    The front is a step line: the best value to be had at each speed-up or within each size. Models that another one
    beats are pale. Exported ones are hollow, with a dotted line from the float32 value of the same seeds at their
    origin's place.

    Args:
        models: of one task, as `summarize` gives them.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    axes_with_points = [axis for axis in (SPEED, SIZE) if len(placed(models, axis))]
    figure, panels = _figure((1200, 600), title, y_label, path, len(axes_with_points))
    colors = method_colors(models["method"])

    for panel, axis in zip(panels, axes_with_points, strict=True):
        _draw_frontier(panel, placed(models, axis), axis, colors)

    for marker, (method, color) in zip(_markers(colors), colors.items(), strict=True):
        panels[0].plot([], [], marker, color=color, label=method_label(method))
    panels[0].plot([], [], color="black", alpha=0.6, label="Pareto front (others pale)")
    if (models["kind"] == "exported").any():
        panels[0].plot([], [], "o:", color=GREY, markerfacecolor="white", label="exported (hollow)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return _save(figure, path, models[CHARTED])


def _draw_frontier(panel: Axes, models: pd.DataFrame, axis: str, colors: Mapping[str, str]) -> None:
    """Draws one panel of the chart: models as `placed` gives them, what joins them, and the front."""
    markers = dict(zip(colors, _markers(colors), strict=True))
    for model in rows_of(models):
        color = colors[model["method"]]
        panel.errorbar(
            model["x"],
            model["value"],
            None if math.isnan(model["std"]) else model["std"],
            fmt=markers[model["method"]],
            color=color,
            markersize=6 if model["kind"] == "subnetwork" else 9,
            markerfacecolor="white" if model["kind"] == "exported" else color,
            capsize=3,
            alpha=1.0 if model["on_front"] or model["kind"] == "teacher" else 0.4,
        )
    for method, xs, values in joins(models):
        panel.plot(xs, values, ":", color=colors[method], zorder=1)
    for value in models[models["kind"] == "teacher"]["value"]:
        panel.axhline(value, color=GREY, linestyle="--", linewidth=1, zorder=1)

    front = models[models["on_front"]].sort_values(["x", "value"])
    panel.step(front["x"], front["value"], where=STEPS[axis], color="black", alpha=0.6, linewidth=1.2, zorder=1)
    # No model can lie on this side of the front.
    side, align = (-5, "right") if axis == SIZE else (5, "left")
    for model in rows_of(front):
        text = model["variant"] if model["kind"] == "subnetwork" else model["label"]
        panel.annotate(text, (model["x"], model["value"]), (side, 5), textcoords="offset points", ha=align, fontsize=8)

    if needs_log(models[axis]):
        panel.set_xscale("log", subs=[2, 5])
        panel.xaxis.set_major_formatter("{x:g}")
        panel.xaxis.set_minor_formatter("{x:g}")
    panel.set_xlabel(AXIS_LABELS[axis])
    panel.margins(0.25, 0.1)


def placed(models: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The models that have a place `x` on the axis, with `on_front` for those on the Pareto front."""
    drawn = models[models[axis].notna() & models["value"].notna()]
    on_front = pareto_front(drawn, axis)
    # The line of the front meets its models.
    x = drawn[axis].where(on_front, side_by_side(drawn[axis], needs_log(drawn[axis])))
    return drawn.assign(x=x, on_front=on_front)


def joins(models: pd.DataFrame) -> list[tuple[str, list[float], list[float]]]:
    """Lines to exported models, from where the model they were made from would stand with the same seeds.

    Returns:
        Method, both places and both values of each line.
    """
    lines = []
    for exported in rows_of(models[models["kind"] == "exported"]):
        model = origin(models, exported)
        if model is not None:
            lines.append((exported["method"], [model["x"], exported["x"]], [exported["before"], exported["value"]]))
    return lines


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """A color for each method, in the order of `method_key`; the teacher is grey."""
    ordered = sorted(set(methods), key=method_key)
    students = [method for method in ordered if method != "teacher"]
    colors = {method: COLORS[index % len(COLORS)] for index, method in enumerate(students)}
    return {method: colors.get(method, GREY) for method in ordered}


def _markers(methods: Iterable[str]) -> list[str]:
    return ["*" if method == "teacher" else MARKERS[index % len(MARKERS)] for index, method in enumerate(methods)]


def needs_log(places: pd.Series[float]) -> bool:
    """Whether places on an axis are so far apart, and all positive, that ratios should be seen."""
    return bool(places.min() > 0 and places.max() / places.min() > 4)


def side_by_side(places: pd.Series[float], log: bool) -> pd.Series[float]:
    """Moves points that stand at nearly the same place apart, so that none hides another one's error bar."""
    scaled = places.map(math.log) if log else places
    span = (scaled.max() - scaled.min()) or 1.0
    groups = scaled.groupby((scaled / span * 50).round())
    moved = scaled + 0.02 * span * (groups.cumcount() - (groups.transform("size") - 1) / 2)
    return moved.map(math.exp) if log else moved


def _figure(
    size: tuple[int, int], title: str, y_label: str, path: str | Path, panels: int = 1
) -> tuple[Figure, list[Axes]]:
    """An empty figure of `size` pixels, made without pyplot, so that no display and no global state is touched."""
    if not panels:
        raise ValueError(f"There is no point to draw for {path}.")
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('Charts need matplotlib: pip install "bertkd[report]".') from error

    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(1, panels, sharey=True, squeeze=False)[0])
    axes[0].set_ylabel(y_label)
    for panel in axes:
        panel.grid(color="#e5e5e5")
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: str | Path, data: pd.DataFrame) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None, DATA_KEY: _digest(data)})
    return Path(path)


def is_chart_of(path: str | Path, models: pd.DataFrame) -> bool:
    """Whether the PNG at `path` is a chart of exactly these models. Needs no matplotlib."""
    stamp = f"{DATA_KEY}\0{_digest(models[CHARTED])}".encode()
    return Path(path).is_file() and stamp in Path(path).read_bytes()


def _digest(data: pd.DataFrame) -> str:
    return hashlib.sha256(data.round(6).to_csv(index=False).encode()).hexdigest()
