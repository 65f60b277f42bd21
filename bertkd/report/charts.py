"""Charts of accuracy, as PNG files. Needs matplotlib: `pip install "bertkd[plot]"`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bertkd.report.results import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["Bar", "ChartPoint", "accuracy_chart", "bars_chart", "curves_chart", "is_chart_of"]

DPI = 100
# Okabe and Ito's palette: distinct for colour-blind readers, and in this order in grey as well.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933")
MARKERS = "osD^vPX"
GREY = "#555555"
# A keyword in the PNG that tells which data it shows: pixels differ between versions of matplotlib, data do not.
DATA_KEY = "bertkd-data"


@dataclass(frozen=True)
class ChartPoint:
    """A model in the chart; `error` is a standard deviation in units of y.

    A `reference` is also drawn as a dashed line; a point labelled "Teacher" is one without being told.
    """

    label: str
    x: float
    y: float
    error: float | None = None
    reference: bool = False


@dataclass(frozen=True)
class Bar:
    """One bar: `group` on the axis (a task), `series` in the legend (a method), `error` a standard deviation."""

    group: str
    series: str
    value: float
    error: float | None = None


def accuracy_chart(
    points: Sequence[ChartPoint],
    path: str | Path,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (800, 500),
) -> Path:
    """Accuracy against cost or speed: labelled points with error bars, the teacher as a dashed line; a PNG of `size`.

    Points at the same x stand side by side, some pixels apart, so that all can be seen.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    drawn = [point for point in points if math.isfinite(point.x) and math.isfinite(point.y)]
    if not drawn:
        raise ValueError(f"no point to draw for {path}")
    figure, axes = _figure(size, title, y_label)
    axes.set_xlabel(x_label)
    axes.grid(axis="x", color="#eeeeee")
    _limits(axes, drawn)
    # The layout is settled before labels are placed in pixels, and stays.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    spots = [_draw_point(axes, point, index, _dodge(drawn, index)) for index, point in enumerate(drawn)]
    _place_labels(figure, axes, drawn, spots)
    return _save(figure, path, points)


def _draw_point(axes: Axes, point: ChartPoint, index: int, dodge: float) -> tuple[float, float]:
    """Draws the point, `dodge` pixels beside its place, and returns where it is, in pixels."""
    from matplotlib.transforms import Affine2D

    colour = _colour(point, index)
    if _is_reference(point):
        axes.axhline(point.y, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
    axes.errorbar(
        [point.x],
        [point.y],
        yerr=None if point.error is None else [point.error],
        fmt="*" if _is_reference(point) else MARKERS[index % len(MARKERS)],
        markersize=13 if _is_reference(point) else 9,
        color=colour,
        markeredgecolor="white",
        ecolor=colour,
        elinewidth=1.6,
        capsize=4,
        transform=axes.transData + Affine2D().translate(dodge, 0),
        zorder=3,
    )
    x, y = axes.transData.transform((point.x, point.y))
    return float(x) + dodge, float(y)


def _colour(point: ChartPoint, index: int) -> str:
    return GREY if _is_reference(point) else COLOURS[index % len(COLOURS)]


def _darker(colour: str) -> str:
    """The colour for text: on white, the palette's yellow and blue are too light to read."""
    return "#" + "".join(f"{int(0.75 * int(colour[start : start + 2], 16)):02x}" for start in (1, 3, 5))


def _is_reference(point: ChartPoint) -> bool:
    return point.reference or point.label.lower() == "teacher"


def _dodge(points: Sequence[ChartPoint], index: int) -> float:
    """Pixels beside its place at which a point is drawn: neighbours at nearly the same x share the room around it."""
    span = max(point.x for point in points) - min(point.x for point in points)
    close = [one for one, point in enumerate(points) if abs(point.x - points[index].x) <= 0.02 * span]
    return 16 * (close.index(index) - (len(close) - 1) / 2)


def _limits(axes: Axes, points: Sequence[ChartPoint]) -> None:
    """Room around the points for labels."""
    xs = [point.x for point in points]
    ys = [point.y + sign * (point.error or 0) for point in points for sign in (-1, 1)]
    x_span = max(xs) - min(xs) or abs(max(xs)) or 1.0
    y_span = max(ys) - min(ys) or abs(max(ys)) / 10 or 1.0
    axes.set_xlim(min(xs) - 0.25 * x_span, max(xs) + 0.25 * x_span)
    axes.set_ylim(min(ys) - 0.15 * y_span, max(ys) + 0.15 * y_span)


def _place_labels(
    figure: Figure, axes: Axes, points: Sequence[ChartPoint], spots: Sequence[tuple[float, float]]
) -> None:
    """Writes each label at the nearest free place around its point, with a thin line to it when it is not close."""
    from matplotlib.transforms import Bbox

    frame = axes.get_window_extent()
    height = axes.transData.transform((0, 1))[1] - axes.transData.transform((0, 0))[1]
    taken: list[Bbox] = []
    for (x, y), point in zip(spots, points, strict=True):
        reach = max(9.0, height * (point.error or 0) + 4)
        taken.append(Bbox.from_extents(x - 9, y - reach, x + 9, y + reach))
    for index in sorted(range(len(points)), key=lambda one: -points[one].y):
        x, y = spots[index]
        text = axes.annotate(
            points[index].label,
            (x, y),
            xycoords="figure pixels",
            fontsize=10.5,
            color=_darker(_colour(points[index], index)),
            va="center",
            ha="center",
            zorder=4,
        )
        box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        free = [spot for spot in _around(x, y, box.width, box.height) if _is_free(spot, taken, frame)]
        others = [spot for spot in spots if spot != (x, y)]
        nearest_first = partial(_badness, x=x, y=y, others=others)
        place = min(free, key=nearest_first) if free else next(_around(x, y, box.width, box.height))
        taken.append(place)
        text.set_position(((place.x0 + place.x1) / 2, (place.y0 + place.y1) / 2))
        text.set_bbox({"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": "none", "alpha": 0.8})
        if _distance(place, x, y) > 24:
            nearest = (min(max(x, place.x0), place.x1), min(max(y, place.y0), place.y1))
            axes.annotate(
                "",
                (x, y),
                nearest,
                "figure pixels",
                "figure pixels",
                {"arrowstyle": "-", "color": "#aaaaaa"},
                zorder=2,
            )


def _around(x: float, y: float, width: float, height: float) -> Iterator[Bbox]:
    """Candidate boxes of a label around a point, in pixels."""
    from matplotlib.transforms import Bbox

    for gap, rise, side in product((14, 34, 54, 74), range(-8, 9), (1, -1)):
        left = x + gap if side > 0 else x - gap - width
        yield Bbox.from_bounds(left, y + rise * 0.6 * height - height / 2, width, height)
    for shift, rise, side in product((0, 0.4, -0.4, 0.8, -0.8), (14, 24, 34, 54), (1, -1)):
        bottom = y + rise if side > 0 else y - rise - height
        yield Bbox.from_bounds(x - width / 2 + shift * width, bottom, width, height)


def _is_free(box: Bbox, taken: Sequence[Bbox], frame: Bbox) -> bool:
    inside = frame.x0 + 3 < box.x0 and box.x1 < frame.x1 - 3 and frame.y0 + 3 < box.y0 and box.y1 < frame.y1 - 3
    return inside and not any(box.overlaps(other) for other in taken)


def _badness(box: Bbox, x: float, y: float, others: Sequence[tuple[float, float]]) -> float:
    """Pixels from the label to its point, and more where another point is nearer and would seem to own the label."""
    own = _distance(box, x, y)
    return own + 3 * max([0.0, *(own - _distance(box, *other) + 6 for other in others)])


def _distance(box: Bbox, x: float, y: float) -> float:
    return math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))


def bars_chart(
    bars: Sequence[Bar], path: str | Path, title: str, y_label: str, size: tuple[int, int] = (1100, 500)
) -> Path:
    """Bars grouped by task, one colour per method, with values above and error bars; a PNG of `size`, axis from zero.

    Groups and series stand in the order in which they first occur. A bar that is not given is left out.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no bar to draw.
    """
    drawn = [bar for bar in bars if math.isfinite(bar.value)]
    if not drawn:
        raise ValueError(f"no bar to draw for {path}")
    groups = list(dict.fromkeys(bar.group for bar in drawn))
    series = list(dict.fromkeys(bar.series for bar in drawn))
    figure, axes = _figure(size, title, y_label)
    width = 0.84 / len(series)
    for index, name in enumerate(series):
        chosen = [bar for bar in drawn if bar.series == name]
        places = [groups.index(bar.group) + (index - (len(series) - 1) / 2) * width for bar in chosen]
        _draw_bars(
            axes, chosen, places, width, "#bbbbbb" if name.lower() == "teacher" else COLOURS[index % len(COLOURS)]
        )
    axes.set_xticks(range(len(groups)), groups, fontsize=11)
    axes.tick_params(axis="x", length=0)
    tops = [bar.value + (bar.error or 0) for bar in drawn]
    axes.set_ylim(min(0.0, *(1.12 * (bar.value - (bar.error or 0)) for bar in drawn)), 1.12 * max(*tops, 1e-9))
    axes.axhline(0, color=GREY, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=min(6, len(series)), frameon=False, fontsize=10)
    return _save(figure, path, bars)


def _draw_bars(axes: Axes, bars: Sequence[Bar], places: Sequence[float], width: float, colour: str) -> None:
    values = [bar.value for bar in bars]
    errors = [bar.error or 0.0 for bar in bars]
    axes.bar(places, values, 0.92 * width, color=colour, label=bars[0].series, zorder=2)
    for place, value, error in zip(places, values, errors, strict=True):
        if error:
            axes.errorbar([place], [value], yerr=[error], color="#222222", elinewidth=1.2, capsize=3, zorder=3)
        up = value >= 0
        axes.annotate(
            f"{value:.1f}",
            (place, value + error if up else value - error),
            (0, 3 if up else -3),
            textcoords="offset points",
            ha="center",
            va="bottom" if up else "top",
            fontsize=8,
        )


def curves_chart(
    curves: Mapping[str, Sequence[ChartPoint]],
    path: str | Path,
    title: str,
    x_label: str,
    y_label: str,
    reference: ChartPoint | None = None,
    size: tuple[int, int] = (800, 500),
) -> Path:
    """Families of models as joined points, one colour each, every point with its label; a PNG of `size`.

    Args:
        curves: points by name, which stands in the legend; a curve is joined in the order of x.
        reference: a model to compare with, drawn as a star and a dashed line.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    points = [point for curve in curves.values() for point in curve]
    if not points:
        raise ValueError(f"no point to draw for {path}")
    figure, axes = _figure(size, title, y_label)
    axes.set_xlabel(x_label)
    axes.grid(axis="x", color="#eeeeee")
    for index, (name, curve) in enumerate(curves.items()):
        ordered = sorted(curve, key=lambda point: point.x)
        colour = COLOURS[index % len(COLOURS)]
        style = {"color": colour, "marker": MARKERS[index % len(MARKERS)], "markersize": 7}
        axes.plot([one.x for one in ordered], [one.y for one in ordered], label=name, **style)  # type: ignore[arg-type]
        for one in ordered:
            axes.annotate(one.label, (one.x, one.y), (0, 7), textcoords="offset points", ha="center", fontsize=8)
    if reference is not None:
        points.append(reference)
        axes.axhline(reference.y, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
        axes.plot([reference.x], [reference.y], "*", color=GREY, markersize=13, label=reference.label)
    axes.margins(0.08, 0.12)
    axes.legend(frameon=False, fontsize=10)
    return _save(figure, path, points)


def _figure(size: tuple[int, int], title: str, y_label: str) -> tuple[Figure, Axes]:
    """An empty figure of `size` pixels, drawn without pyplot, so that no display and no global state is touched."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError('charts need matplotlib: pip install "bertkd[plot]"') from error
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_title(title, fontsize=13, loc="left", pad=10)
    axes.set_ylabel(y_label, fontsize=11)
    axes.grid(axis="y", color="#e5e5e5")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _save(figure: Figure, path: str | Path, data: Sequence[ChartPoint] | Sequence[Bar]) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None, DATA_KEY: _digest(data)})
    return Path(path)


def is_chart_of(path: str | Path, data: Sequence[ChartPoint] | Sequence[Bar]) -> bool:
    """Whether the PNG at `path` shows exactly these points or bars. Needs no matplotlib."""
    stamp = f"{DATA_KEY}\0{_digest(data)}".encode()
    return Path(path).is_file() and stamp in Path(path).read_bytes()


def _digest(data: Sequence[Any]) -> str:
    rounded = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(one).items()}
        for one in data
    ]
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()
