"""Charts of accuracy, as PNG files. Needs matplotlib: `pip install "bertkd[plot]"`."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise, product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bertkd.atomic import atomic_path
from bertkd.records.frontier import Axis, Point, front_line, is_drawn, joins, pareto_front
from bertkd.records.results import method_key
from bertkd.records.tables import method_label

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Bar",
    "Box",
    "ChartPoint",
    "Style",
    "accuracy_chart",
    "along",
    "bars_chart",
    "best_place",
    "curves_chart",
    "frontier_chart",
    "greyed",
    "is_chart_of",
    "labeled",
    "method_styles",
    "needs_log",
    "padded",
    "side_by_side",
    "value_ends",
]

DPI = 100
# Pixels of a bar below which its value does not fit above it, unless it is turned.
NARROW = 26
# Okabe and Ito's palette: distinct for color-blind readers, and in this order in grey as well.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#999933")
MARKERS = "osD^vPX"
GREY = "#555555"
PALE = "#bdbdbd"  # what a dominated point's color is mixed with
# A keyword in the PNG that tells which data it shows: pixels differ between versions of matplotlib, data do not.
DATA_KEY = "bertkd-data"


@dataclass(frozen=True)
class ChartPoint:
    """A model in the chart; `error` is a standard deviation in units of y.

    A `reference` is also drawn as a dashed line; a point labeled "Teacher" is one without being told.
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


Drawn = Sequence[ChartPoint] | Sequence[Bar] | Sequence[Point]


def accuracy_chart(
    points: Sequence[ChartPoint],
    path: str | Path,
    title: str,
    x_label: str,
    y_label: str,
    size: tuple[int, int] = (800, 500),
) -> Path:
    """Accuracy against cost or speed: labeled points with error bars, the teacher as a dashed line; a PNG of `size`.

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
    height = axes.transData.transform((0, 1))[1] - axes.transData.transform((0, 0))[1]
    labels = [
        _Label(point.label, *spot, max(9.0, height * (point.error or 0) + 4), _darker(_color(point, index)))
        for index, (point, spot) in enumerate(zip(drawn, spots, strict=True))
    ]
    _place_labels(figure, axes, labels)
    return _save(figure, path, points)


def _draw_point(axes: Axes, point: ChartPoint, index: int, dodge: float) -> tuple[float, float]:
    """Draws the point, `dodge` pixels beside its place, and returns where it is, in pixels."""
    from matplotlib.transforms import Affine2D

    color = _color(point, index)
    if _is_reference(point):
        axes.axhline(point.y, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
    axes.errorbar(
        [point.x],
        [point.y],
        yerr=None if point.error is None else [point.error],
        fmt="*" if _is_reference(point) else MARKERS[index % len(MARKERS)],
        markersize=13 if _is_reference(point) else 9,
        color=color,
        markeredgecolor="white",
        ecolor=color,
        elinewidth=1.6,
        capsize=4,
        transform=axes.transData + Affine2D().translate(dodge, 0),
        zorder=3,
    )
    x, y = axes.transData.transform((point.x, point.y))
    return float(x) + dodge, float(y)


def _color(point: ChartPoint, index: int) -> str:
    return GREY if _is_reference(point) else COLOURS[index % len(COLOURS)]


def _darker(color: str) -> str:
    """The color for text: on white, the palette's yellow and blue are too light to read."""
    return "#" + "".join(f"{int(0.75 * int(color[start : start + 2], 16)):02x}" for start in (1, 3, 5))


def _is_reference(point: ChartPoint) -> bool:
    return point.reference or point.label.lower() == "teacher"


def _dodge(points: Sequence[ChartPoint], index: int) -> float:
    """Pixels beside its place at which a point is drawn: neighbors at nearly the same x share the room around it."""
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


class Box(NamedTuple):
    """A rectangle in pixels."""

    x0: float
    y0: float
    x1: float
    y1: float

    def overlaps(self, other: Box) -> bool:
        """Whether the two share some of their insides."""
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1


class _Label(NamedTuple):
    """A text (none: a point that only takes its room) to place around (x, y); the point reaches up and down."""

    text: str
    x: float
    y: float
    reach: float
    color: str


def _place_labels(
    figure: Figure, axes: Axes, labels: Sequence[_Label], keep_all: bool = True, lines: Sequence[Box] = ()
) -> None:
    """Writes each label at the nearest free place around its point, with a thin line to it when it is not close.

    A label without a free place lies beside its point; or, without `keep_all`, is left out. `lines` are avoided where
    that is possible.
    """
    extent = axes.get_window_extent()
    frame = Box(extent.x0, extent.y0, extent.x1, extent.y1)
    taken = [Box(one.x - 9, one.y - one.reach, one.x + 9, one.y + one.reach) for one in labels]
    for label in sorted((one for one in labels if one.text), key=lambda one: -one.y):
        x, y = label.x, label.y
        text = axes.annotate(
            label.text,
            (x, y),
            xycoords="figure pixels",
            fontsize=10.5,
            color=label.color,
            va="center",
            ha="center",
            zorder=4,
        )
        box = text.get_window_extent(figure.canvas.get_renderer())  # type: ignore[attr-defined]
        others = [(one.x, one.y) for one in labels if (one.x, one.y) != (x, y)]
        place = best_place(x, y, box.width, box.height, taken, frame, others, lines)
        if place is None and not keep_all:
            text.remove()
            continue
        place = place or next(_around(x, y, box.width, box.height))
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


def best_place(
    x: float,
    y: float,
    width: float,
    height: float,
    taken: Sequence[Box],
    frame: Box,
    others: Sequence[tuple[float, float]],
    lines: Sequence[Box] = (),
) -> Box | None:
    """The best free place of a label around its point, in pixels; None where all are taken.

    Args:
        x, y: the point.
        width, height: of the label.
        taken: what it must not cover.
        frame: what it must lie in.
        others: other points, which should not be nearer to the label than its own.
        lines: what it should rather not cover, as from `along`.
    """
    free = [spot for spot in _around(x, y, width, height) if _is_free(spot, taken, frame)]
    return min(free, key=partial(_badness, x=x, y=y, others=others, lines=lines), default=None)


def along(corners: Sequence[tuple[float, float]], step: float = 8) -> list[Box]:
    """Small boxes, `step` pixels apart, that cover a line through these corners."""
    boxes = []
    for (x0, y0), (x1, y1) in pairwise(corners):
        count = max(1, round(math.hypot(x1 - x0, y1 - y0) / step))
        for part in range(count + 1):
            x, y = x0 + (x1 - x0) * part / count, y0 + (y1 - y0) * part / count
            boxes.append(Box(x - 1, y - 1, x + 1, y + 1))
    return boxes


def _around(x: float, y: float, width: float, height: float) -> Iterator[Box]:
    """Candidate boxes of a label around a point, in pixels."""
    for gap, rise, side in product((14, 34, 54, 74), range(-8, 9), (1, -1)):
        left = x + gap if side > 0 else x - gap - width
        bottom = y + rise * 0.6 * height - height / 2
        yield Box(left, bottom, left + width, bottom + height)
    for shift, rise, side in product((0, 0.4, -0.4, 0.8, -0.8), (14, 24, 34, 54), (1, -1)):
        bottom = y + rise if side > 0 else y - rise - height
        left = x - width / 2 + shift * width
        yield Box(left, bottom, left + width, bottom + height)


def _is_free(box: Box, taken: Sequence[Box], frame: Box) -> bool:
    inside = frame.x0 + 3 < box.x0 and box.x1 < frame.x1 - 3 and frame.y0 + 3 < box.y0 and box.y1 < frame.y1 - 3
    return inside and not any(box.overlaps(other) for other in taken)


def _badness(box: Box, x: float, y: float, others: Sequence[tuple[float, float]], lines: Sequence[Box] = ()) -> float:
    """Pixels from the label to its point.

    It is more where another point is nearer and would seem to own the label, and where the label lies on a line.
    """
    own = _distance(box, x, y)
    crossed = 40.0 if any(box.overlaps(line) for line in lines) else 0.0
    return own + crossed + 3 * max([0.0, *(own - _distance(box, *other) + 6 for other in others)])


def _distance(box: Box, x: float, y: float) -> float:
    return math.hypot(max(box.x0 - x, 0, x - box.x1), max(box.y0 - y, 0, y - box.y1))


class Style(NamedTuple):
    """How the points of a method look: a color, and one of matplotlib's markers."""

    color: str
    marker: str


def method_styles(methods: Iterable[str]) -> dict[str, Style]:
    """A look for each method, in the order of `method_key`; the teacher is a grey star. No two of 49 look alike."""
    ordered = sorted(set(methods) - {"teacher"}, key=method_key)
    styles = {
        one: Style(COLOURS[index % len(COLOURS)], MARKERS[(index + index // len(COLOURS)) % len(MARKERS)])
        for index, one in enumerate(ordered)
    }
    return styles | {"teacher": Style(GREY, "*")}


def greyed(color: str) -> str:
    """The color of a dominated point: mostly grey, with a tint of its method."""
    mixed = (0.35 * int(color[at : at + 2], 16) + 0.65 * int(PALE[at : at + 2], 16) for at in (1, 3, 5))
    return "#" + "".join(f"{round(one):02x}" for one in mixed)


def needs_log(places: Sequence[float]) -> bool:
    """Whether places on an axis are so far apart, and all positive, that ratios should be seen."""
    return min(places) > 0 and max(places) / min(places) > 4


def padded(low: float, high: float, share: float, log: bool = False) -> tuple[float, float]:
    """Ends of an axis with room around the data: `share` of what they span, on either side."""
    if log:
        ratio = (high / low) ** share
        return low / ratio, high * ratio
    span = high - low or abs(high) / 10 or 1.0
    return low - share * span, high + share * span


def side_by_side(rooms: Sequence[Box], step: float, fixed: Sequence[bool]) -> list[float]:
    """How far to move each point to the right, in pixels, so that those which hide each other stand `step` apart.

    Args:
        rooms: of the points, with their error bars, all of the same width.
        step: in pixels.
        fixed: which points lie on the front, whose line should meet them: the first of these in a group stays.
    """
    groups: list[list[int]] = []
    for one in sorted(range(len(rooms)), key=lambda one: (rooms[one].x0, one)):
        near = (group for group in groups if rooms[one].x0 - rooms[group[0]].x0 < 0.75 * step)
        hidden = next((group for group in near if any(rooms[one].overlaps(rooms[other]) for other in group)), None)
        if hidden is None:
            groups.append([one])
        else:
            hidden.append(one)
    moves = [0.0] * len(rooms)
    for group in groups:
        group.sort()
        middle = next((rank for rank, one in enumerate(group) if fixed[one]), (len(group) - 1) / 2)
        for rank, one in enumerate(group):
            moves[one] = step * (rank - middle)
    return moves


def labeled(points: Sequence[Point], front: Sequence[Point], most: int = 8) -> list[bool]:
    """Which points bear their label: all of a few, and papers'; else the teacher and the front."""
    return [len(points) <= most or one.kind in ("teacher", "paper") or one in front for one in points]


def value_ends(points: Sequence[Point]) -> list[float]:
    """The values that a chart of these points must have room for: ends of error bars, and of joins."""
    ends = [one.value + sign * (one.error or 0) for one in points for sign in (-1, 1)]
    return [*ends, *(one.before for one in points if one.before is not None)]


def frontier_chart(
    points: Sequence[Point],
    path: str | Path,
    title: str,
    axis: Axis,
    y_label: str,
    styles: Mapping[str, Style] | None = None,
    size: tuple[int, int] = (900, 600),
) -> Path:
    """Quality against speed or size with the Pareto front; a PNG of `size`.

    The front is a step line: the best value to be had at each speed-up or within each size. Dominated points are pale,
    exported ones hollow, with a dotted line from the float32 value of the same seeds at their origin's place. Points
    at the same place stand side by side. With more than a few points, only the teacher and the front bear labels.

    Args:
        points: of one task; those without a place on the axis are not drawn.
        path: the file to write.
        title, y_label: of the chart.
        axis: `SPEED` or `SIZE`; logarithmic where the points span more than a factor of four.
        styles: looks by method; default: `method_styles` of the points.
        size: of the picture in pixels.

    Raises:
        ImportError: matplotlib is missing; the message says how to install it.
        ValueError: there is no point to draw.
    """
    drawn = [one for one in points if is_drawn(one, axis)]
    if not drawn:
        raise ValueError(f"no point to draw for {path}")
    looks = dict(styles or method_styles(one.method for one in drawn))
    front = pareto_front(drawn, axis)
    figure, axes = _figure(size, title, y_label)
    _frontier_axes(axes, drawn, axis)
    _draw_front(axes, drawn, front, axis)
    _frontier_legend(figure, axes, drawn, looks)
    # The layout is settled before labels are placed in pixels, and stays.
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    spots = [axes.transData.transform((axis.of(one), one.value)) for one in drawn]
    height = axes.transData.transform((1, 1))[1] - axes.transData.transform((1, 0))[1]
    reach = [max(9.0, height * (one.error or 0) + 4) for one in drawn]
    rooms = [Box(x - 9, y - up, x + 9, y + up) for (x, y), up in zip(spots, reach, strict=True)]
    moves = side_by_side(rooms, 16, [one in front for one in drawn])
    lines = _front_in_pixels(axes, front, axis)
    lines += _draw_joins(axes, drawn, axis, looks, dict(zip(drawn, moves, strict=True)))
    for point, move in zip(drawn, moves, strict=True):
        _draw_frontier_point(axes, point, axis, looks[point.method], point in front, move)
    _place_labels(figure, axes, _frontier_labels(axes, drawn, front, looks, spots, moves), keep_all=False, lines=lines)
    return _save(figure, path, points)


def _frontier_axes(axes: Axes, points: Sequence[Point], axis: Axis) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    places = [axis.of(one) for one in points]
    values = value_ends(points)
    log = needs_log(places)
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda place, _: f"{place:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_xlim(*padded(min(places), max(places), 0.2, log))
    axes.set_ylim(*padded(min(values), max(values), 0.12))
    axes.set_xlabel(axis.label, fontsize=11)
    axes.grid(axis="x", color="#eeeeee")


def _draw_front(axes: Axes, points: Sequence[Point], front: Sequence[Point], axis: Axis) -> None:
    for teacher in (one for one in points if one.kind == "teacher"):
        axes.axhline(teacher.value, color=GREY, linestyle=(0, (5, 4)), linewidth=1.2, zorder=1)
    corners = front_line(front, axis, *axes.get_xlim(), axes.get_ylim()[0])
    axes.plot([x for x, _ in corners], [y for _, y in corners], color="#333333", linewidth=1.3, alpha=0.6, zorder=1.5)


def _draw_joins(
    axes: Axes, points: Sequence[Point], axis: Axis, looks: Mapping[str, Style], moves: Mapping[Point, float]
) -> list[Box]:
    """Dotted lines to exported points, from where the model they were made from would stand with the same seeds.

    Returns the room that they take.
    """
    taken = []
    for origin, exported in joins(points):
        before = origin.value if exported.before is None else exported.before
        start = axes.transData.transform((axis.of(origin), before))
        end = axes.transData.transform((axis.of(exported), exported.value))
        xs = [float(start[0]) + moves[origin], float(end[0]) + moves[exported]]
        color = looks[origin.method].color
        axes.plot(xs, [float(start[1]), float(end[1])], ":", color=color, linewidth=1.6, transform=None, zorder=2)
        taken += along([(xs[0], float(start[1])), (xs[1], float(end[1]))])
    return taken


def _front_in_pixels(axes: Axes, front: Sequence[Point], axis: Axis) -> list[Box]:
    corners = front_line(front, axis, *axes.get_xlim(), axes.get_ylim()[0])
    places = [axes.transData.transform(corner) for corner in corners]
    return along([(float(x), float(y)) for x, y in places])


def _draw_frontier_point(axes: Axes, point: Point, axis: Axis, look: Style, on_front: bool, move: float) -> None:
    from matplotlib.transforms import Affine2D

    color = look.color if on_front or point.kind == "teacher" else greyed(look.color)
    hollow = point.kind == "exported"
    axes.errorbar(
        [axis.of(point)],
        [point.value],
        yerr=None if point.error is None else [point.error],
        fmt=look.marker,
        markersize=13 if look.marker == "*" else 7 if point.kind == "subnetwork" else 9,
        color=color,
        markerfacecolor="white" if hollow else color,
        markeredgecolor=color if hollow else "white",
        markeredgewidth=1.8 if hollow else 1.0,
        ecolor=color,
        elinewidth=1.6,
        capsize=4,
        transform=axes.transData + Affine2D().translate(move, 0),
        zorder=3.5 if on_front else 3,
    )


def _frontier_labels(
    axes: Axes,
    points: Sequence[Point],
    front: Sequence[Point],
    looks: Mapping[str, Style],
    spots: Sequence[Any],
    moves: Sequence[float],
) -> list[_Label]:
    height = axes.transData.transform((1, 1))[1] - axes.transData.transform((1, 0))[1]
    return [
        _Label(
            (point.tag or point.label) if has_label else "",
            float(x) + move,
            float(y),
            max(9.0, height * (point.error or 0) + 4),
            _darker(looks[point.method].color) if point in front else GREY,
        )
        for point, has_label, (x, y), move in zip(points, labeled(points, front), spots, moves, strict=True)
    ]


def _frontier_legend(figure: Figure, axes: Axes, points: Sequence[Point], looks: Mapping[str, Style]) -> None:
    for method, look in looks.items():
        if any(one.method == method for one in points):
            size = 12 if look.marker == "*" else 8
            axes.plot([], [], look.marker, color=look.color, markersize=size, label=method_label(method))
    axes.plot([], [], color="#333333", linewidth=1.3, alpha=0.6, label="Pareto front (others pale)")
    if any(one.kind == "exported" for one in points):
        (line,) = axes.plot([], [], ":o", color=GREY, markersize=7, label="exported (hollow)")
        line.set(markerfacecolor="white", markeredgewidth=1.8)
    longest = max((len(text) for text in axes.get_legend_handles_labels()[1]), default=0)
    figure.legend(loc="outside lower center", ncols=4 if longest <= 26 else 3, frameon=False, fontsize=10)


def bars_chart(
    bars: Sequence[Bar], path: str | Path, title: str, y_label: str, size: tuple[int, int] = (1100, 500)
) -> Path:
    """Bars grouped by task, one color per method, with values above and error bars; a PNG of `size`, axis from zero.

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
    turned = 0.9 * size[0] / len(groups) * width < NARROW
    for index, name in enumerate(series):
        chosen = [bar for bar in drawn if bar.series == name]
        places = [groups.index(bar.group) + (index - (len(series) - 1) / 2) * width for bar in chosen]
        look = {"color": "#bbbbbb" if name.lower() == "teacher" else COLOURS[index % len(COLOURS)]}
        if index >= len(COLOURS):  # the colors begin anew
            look |= {"hatch": "////", "edgecolor": "white"}
        _draw_bars(axes, chosen, places, width, look, turned)
    axes.set_xticks(range(len(groups)), groups, fontsize=11)
    axes.tick_params(axis="x", length=0)
    tops = [bar.value + (bar.error or 0) for bar in drawn]
    room = 1.18 if turned else 1.12
    axes.set_ylim(min(0.0, *(room * (bar.value - (bar.error or 0)) for bar in drawn)), room * max(*tops, 1e-9))
    axes.axhline(0, color=GREY, linewidth=0.8)
    figure.legend(loc="outside lower center", ncols=min(6, len(series)), frameon=False, fontsize=10)
    return _save(figure, path, bars)


def _draw_bars(
    axes: Axes, bars: Sequence[Bar], places: Sequence[float], width: float, look: Mapping[str, Any], turned: bool
) -> None:
    values = [bar.value for bar in bars]
    errors = [bar.error or 0.0 for bar in bars]
    axes.bar(places, values, 0.92 * width, **look, label=bars[0].series, zorder=2)
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
            rotation=90 if turned else 0,
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
    """Families of models as joined points, one color each, every point with its label; a PNG of `size`.

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
        color = COLOURS[index % len(COLOURS)]
        style = {"color": color, "marker": MARKERS[index % len(MARKERS)], "markersize": 7}
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


def _save(figure: Figure, path: str | Path, data: Drawn) -> Path:
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=DPI, metadata={"Software": None, DATA_KEY: _digest(data)})
    return Path(path)


def is_chart_of(path: str | Path, data: Drawn) -> bool:
    """Whether the PNG at `path` shows exactly these points or bars. Needs no matplotlib."""
    stamp = f"{DATA_KEY}\0{_digest(data)}".encode()
    return Path(path).is_file() and stamp in Path(path).read_bytes()


def _digest(data: Sequence[Any]) -> str:
    rounded = [
        {key: round(value, 6) if isinstance(value, float) else value for key, value in asdict(one).items()}
        for one in data
    ]
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()
