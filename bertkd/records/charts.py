"""Charts as PNG files (matplotlib), and as interactive figures of the HTML page (plotly).

A PNG without matplotlib is an `ImportError` that says how to install it, one without any point a `ValueError`.
"""

from __future__ import annotations

import hashlib
import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd

from bertkd.atomic import atomic_path
from bertkd.methods import method_key, method_label
from bertkd.records.models import SIZE, SPEED, pareto_front
from bertkd.records.tables import row_dicts, task_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["AXIS_LABELS", "ChartPoint", "accuracy_chart", "bars_chart", "curves_chart", "frontier_chart"]
__all__ += ["interactive_chart", "is_chart_of", "method_colors"]

DPI = 100
# Okabe and Ito's palette first, for color-blind readers; all of it can be seen on white and on black.
COLORS = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9"]
COLORS += ["#999933", "#AA4499", "#7B61D8", "#44AA99", "#B07A3C", "#C2185B", "#5D6D7E"]
MARKERS = "osD^vPX<>hp"
SYMBOLS = {"teacher": "star", "student": "circle", "subnetwork": "diamond", "exported": "circle-open"}
GREY = "#7d8590"
AXIS_LABELS = {SPEED: "Speed-up over the teacher in float32 PyTorch (×)", SIZE: "Size (MB)"}
# Where the step line of the front falls, as matplotlib and plotly say: at the model for speed, at the next for size.
STEPS: dict[str, tuple[Literal["pre", "post"], str]] = {SPEED: ("pre", "vh"), SIZE: ("post", "hv")}
# A keyword in the PNG that tells which data it shows: pixels differ between versions of matplotlib, data do not.
DATA_KEY = "bertkd-data"
CHARTED = ["task", "label", "kind", "value", "std", SPEED, SIZE]


@dataclass(frozen=True)
class ChartPoint:
    """A model in the chart; `error` is a standard deviation in units of y."""

    label: str
    x: float
    y: float
    error: float | None = None


def accuracy_chart(points: Sequence[ChartPoint], path: str | Path, title: str, x_label: str, y_label: str) -> Path:
    """Draws accuracy against cost or speed as a PNG: points with error bars, "Teacher" as a dashed line.

    Points at the same x stand side by side, so that all can be seen.
    """
    drawn = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    figure, (panel,) = _figure((800, 500), title, y_label, path, min(1, len(drawn)))

    places = pd.Series([point.x for point in drawn])
    # An error bar would hide that of another model at the same place.
    twins = places.groupby(places.round(3))
    places += 0.02 * (places.max() - places.min()) * (twins.cumcount() - (twins.transform("size") - 1) / 2)

    for index, (point, x) in enumerate(zip(drawn, places, strict=True)):
        if point.label.lower() == "teacher":
            _draw_reference(panel, point)
        else:
            color, marker = COLORS[index % len(COLORS)], MARKERS[index % len(MARKERS)]
            style: dict[str, Any] = {
                "fmt": marker,
                "color": color,
                "markersize": 9,
                "capsize": 4,
                "label": point.label,
            }
            panel.errorbar(x, point.y, point.error, **style)

    panel.set_xlabel(x_label)
    panel.margins(0.15, 0.15)
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
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
    """
    figure, (panel,) = _figure((800, 500), title, y_label, path, min(1, len(curves)))
    drawn = [] if reference is None else [reference]

    styles = zip(COLORS * len(curves), MARKERS * len(curves), strict=False)
    for name, (color, marker) in zip(curves, styles, strict=False):
        drawn += curves[name]
        table = pd.DataFrame(curves[name]).sort_values("x")
        panel.plot(table["x"], table["y"], marker=marker, color=color, label=name)
        for point in curves[name]:
            place = (point.x, point.y)
            panel.annotate(point.label, place, (0, 7), textcoords="offset points", ha="center", fontsize=8)

    if reference is not None:
        _draw_reference(panel, reference)
    panel.set_xlabel(x_label)
    panel.margins(0.08, 0.12)
    panel.legend(frameon=False)
    return _save(figure, path, pd.DataFrame(drawn))


def _draw_reference(panel: Axes, point: ChartPoint) -> None:
    panel.axhline(point.y, color=GREY, linestyle="--", linewidth=1.2, zorder=1)
    panel.errorbar(point.x, point.y, point.error, fmt="*", color=GREY, markersize=13, capsize=4, label=point.label)


def bars_chart(models: pd.DataFrame, path: str | Path, title: str, y_label: str) -> Path:
    """Draws bars as a PNG: grouped by task, one color for each model, with values above and error bars.

    Where there are more models than colors, those whose color is taken are hatched.

    Args:
        models: teachers and students, as `summarize` gives them. Those of less than half of the tasks are left out,
            unless nothing would be left.
    """
    measured = models[models["value"].notna()]
    tasks_of = measured.groupby("label")["task"].transform("nunique")
    common = measured[tasks_of >= measured["task"].nunique() / 2]
    drawn = measured if common.empty else common
    figure, (panel,) = _figure((1100, 500), title, y_label, path, min(1, len(drawn)))

    labels = drawn["label"].unique()
    bars = drawn.assign(task=drawn["task"].map(task_label)).pivot(index="task", columns="label")
    values, stds = bars["value"][labels], bars["std"][labels]
    colors: Any = [*([GREY] if labels[0].startswith("Teacher") else []), *COLORS * len(labels)]
    values.plot.bar(ax=panel, yerr=stds, capsize=3, width=0.84, color=colors, rot=0, xlabel="", legend=False)

    bars_of_models: Any = [container for container in panel.containers if hasattr(container, "patches")]
    for place, (label, container) in enumerate(zip(labels, bars_of_models, strict=True)):
        if colors[place] in colors[:place]:
            for bar in container:
                bar.set(hatch="////", edgecolor="white")
        texts = values[label].map("{:.1f}".format).replace("nan", "")
        panel.bar_label(container, texts, padding=3, fontsize=8, rotation=90)

    panel.margins(y=0.15)
    panel.set_ylim(bottom=min(0.0, (values - stds.fillna(0)).min().min()))
    figure.legend(loc="outside lower center", ncols=min(4, len(labels)), frameon=False, fontsize=9)
    return _save(figure, path, models[CHARTED])


def frontier_chart(models: pd.DataFrame, path: str | Path, title: str, y_label: str) -> Path:
    """Draws quality against speed and against size as a PNG, each with the Pareto front.

    The front is a step line: the best value to be had at each speed-up or within each size. Models that another one
    beats are pale, exported ones are hollow, and sizes of a supernet are small.

    Args:
        models: of one task, as `summarize` gives them.
    """
    axes = list(filter(lambda axis: len(drawable(models, axis)), AXIS_LABELS))
    figure, panels = _figure((1200, 600), title, y_label, path, len(axes))
    colors = method_colors(models["method"])
    markers = dict(zip(colors, MARKERS * len(colors), strict=False)) | {"teacher": "*"}

    for panel, axis in zip(panels, axes, strict=True):
        points = drawable(models, axis)
        for model in row_dicts(points):
            style: dict[str, Any] = {"fmt": markers[model["method"]], "color": colors[model["method"]], "capsize": 3}
            style["alpha"] = 1.0 if model["on_front"] or model["kind"] == "teacher" else 0.4
            style["markersize"] = 6 if model["kind"] == "subnetwork" else 9
            style["markerfacecolor"] = "white" if model["kind"] == "exported" else style["color"]
            panel.errorbar(model[axis], model["value"], model["std"], **style)

        front = points[points["on_front"]].sort_values([axis, "value"])
        panel.step(front[axis], front["value"], where=STEPS[axis][0], color="black", alpha=0.6, linewidth=1, zorder=1)
        # No model can lie on this side of the front.
        side, align = (-5, "right") if axis == SIZE else (5, "left")
        for model in row_dicts(front):
            # The legend has the long names of the methods that sizes of a supernet belong to.
            text = model["variant" if model["kind"] == "subnetwork" else "label"]
            place = (model[axis], model["value"])
            panel.annotate(text, place, (side, 5), textcoords="offset points", ha=align, fontsize=8, in_layout=False)

        panel.set_xlabel(AXIS_LABELS[axis])
        panel.margins(0.25, 0.1)

    drawn = set(models["method"])
    for method, marker in markers.items():
        if method in drawn:
            panels[0].plot([], [], marker, color=colors[method], label=method_label(method))
    panels[0].plot([], [], color="black", alpha=0.6, label="Pareto front (others pale; exports hollow)")
    figure.legend(loc="outside lower center", ncols=4, frameon=False)
    return _save(figure, path, models[CHARTED])


def interactive_chart(models: pd.DataFrame, axis: str, name: str, labels: tuple[str, str, str]) -> str:
    """Makes the HTML of an interactive chart, with the Pareto front where `STEPS` has the axis. Empty without plotly.

    Args:
        models: of one task, with `method`, `kind`, `label`, `value`, `std` and `quality` as `summarize` gives them.
        axis: the column to draw them against.
        name: of the element, which no other one on the page has.
        labels: title of the chart, and those of its axes.
    """
    points = drawable(models, axis)
    try:
        from plotly import express
    except ImportError:
        return ""
    if points.empty:
        return ""

    # Plotly would show tags in texts, so that texts from files are escaped.
    points["method"] = points["method"].map(method_label)
    for column in ("method", "kind", "label", "quality"):
        points[column] = points[column].map(html.escape)
    title, x_label, y_label = map(html.escape, labels)
    colors = {}
    for method, color in method_colors(models["method"]).items():
        colors[html.escape(method_label(method))] = color

    columns = {"x": axis, "y": "value", "error_y": "std", "color": "method", "symbol": "kind", "hover_name": "label"}
    texts = {"title": title, "labels": {axis: x_label, "value": y_label, "std": "±"}, "hover_data": ["quality"]}
    style = {"color_discrete_map": colors, "symbol_map": SYMBOLS, "template": "none"}
    figure = express.scatter(points, **columns, **texts, **style)
    figure.update_traces(marker_size=9, error_y_thickness=1)

    if axis in STEPS:
        front = points[points["on_front"]].sort_values([axis, "value"])
        line = {"shape": STEPS[axis][1], "color": GREY, "width": 1.5}
        figure.add_scatter(x=front[axis], y=front["value"], mode="lines", line=line, name="Pareto front")

    # The page's colors show through, and the legend lies below.
    figure.update_layout(paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", height=560)
    figure.update_layout(legend_title="", legend_orientation="h", legend_y=-0.3)
    figure.update_layout(margin={"l": 50, "r": 10, "t": 50, "b": 40})
    config = {"responsive": True, "displayModeBar": False}
    return str(figure.to_html(config, include_plotlyjs=False, full_html=False, div_id=html.escape(name)))


def drawable(models: pd.DataFrame, axis: str) -> pd.DataFrame:
    """The models that have a value and a place on the axis, with `on_front` for those on the Pareto front."""
    points = models[models[axis].notna() & models["value"].notna()]
    return points.assign(on_front=pareto_front(points, axis) if axis in STEPS else True)


def method_colors(methods: Iterable[str]) -> dict[str, str]:
    """A color for each method, in the order of `method_key`; the teacher is grey."""
    ordered = sorted(set(methods) - {"teacher"}, key=method_key)
    return {"teacher": GREY} | dict(zip(ordered, COLORS * len(ordered), strict=False))


def _figure(
    size: tuple[int, int], title: str, y_label: str, path: str | Path, panels: int
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
    """Tells whether the PNG at `path` is a chart of exactly these models. It needs no matplotlib."""
    stamp = f"{DATA_KEY}\0{_digest(models[CHARTED])}".encode()
    return Path(path).is_file() and stamp in Path(path).read_bytes()


def _digest(data: pd.DataFrame) -> str:
    return hashlib.sha256(data.round(6).to_csv(index=False).encode()).hexdigest()
