"""Charts for the HTML page, drawn as SVG: they follow its colors, fit its width, and tell their points' figures.

Where labels go, and which colors and markers methods have, is shared with the PNG charts.
"""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bertkd.records.charts import Box, Style, along, best_place, labeled, needs_log, padded, side_by_side, value_ends
from bertkd.records.frontier import Axis, Point, front_line, is_drawn, joins, pareto_front
from bertkd.records.tables import method_label

__all__ = ["element", "figure", "legend", "megabytes", "millions", "times", "value_of"]


def element(name: str, content: str, **attributes: str) -> str:
    """An HTML element around markup. Attributes are escaped here; text in the content is escaped by the caller."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(value)}"' for key, value in attributes.items()
    )
    return f"<{name}{written}>{content}</{name}>"


def value_of(point: Point) -> str:
    if math.isnan(point.value):
        return "n/a"
    return f"{point.value:.1f}" + ("" if point.error is None else f" ± {point.error:.1f}")


def times(speedup: float | None) -> str:
    return "" if speedup is None else f"{speedup:.2f}x"


def megabytes(size: float | None) -> str:
    return "" if size is None else f"{size:.1f} MB"


def millions(parameters: int | None) -> str:
    if parameters is None:
        return ""
    return f"{parameters / 1e6:.1f}M" if parameters >= 1e6 else f"{parameters / 1e3:.1f}K"


def figure(
    points: Sequence[Point], axis: Axis, y_label: str, styles: Mapping[str, Style], title: str, at_100: bool = False
) -> str:
    """A chart in two shapes, of which the style shows the one that fits the screen. Nothing where nothing is drawn."""
    drawn = [one for one in points if is_drawn(one, axis)]
    if not drawn:
        return ""
    caption = f"{title} (logarithmic axis)" if needs_log([axis.of(one) for one in drawn]) else title
    drawing = _Drawing(drawn, axis, y_label, styles, title, at_100)
    shapes = _svg(drawing, 580, 400, "wide") + _svg(drawing, 350, 340, "narrow")
    return element("figure", element("figcaption", html.escape(caption)) + shapes)


@dataclass(frozen=True)
class _Drawing:
    """What a chart shows, whatever its shape; `at_100` is for values that are percentages of a reference."""

    points: Sequence[Point]
    axis: Axis
    y_label: str
    styles: Mapping[str, Style]
    title: str
    at_100: bool


@dataclass(frozen=True)
class _Scale:
    """From data to pixels: `low` and `high` lie at `start` and `end`."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def at(self, value: float) -> float:
        """The pixel of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values inside the scale, not more than `most` of them where steps are even."""
        if self.log:
            powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 3, 5) if self.high / self.low < 30 else (1, 2, 5)
            return [x for power in powers for n in steps if self.low <= (x := n * 10.0**power) <= self.high]
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * n for n in (1, 2, 2.5, 5, 10) if power * n >= raw * (1 - 1e-9))
        return [step * n for n in range(math.ceil(self.low / step), math.floor(self.high / step) + 1)]


def _svg(drawing: _Drawing, width: int, height: int, shape: str) -> str:
    """The chart as an SVG element: grid, front, joins, points with titles, labels."""
    drawn, axis, styles = drawing.points, drawing.axis, drawing.styles
    x, y = _scales(drawing, width, height)
    front = pareto_front(drawn, axis)
    places = [(x.at(axis.of(one)), y.at(one.value)) for one in drawn]
    rooms = [_room(one, place, y) for one, place in zip(drawn, places, strict=True)]
    moves = side_by_side(rooms, 15, [one in front for one in drawn])
    spot = {one: (a + move, b) for one, (a, b), move in zip(drawn, places, moves, strict=True)}
    corners = [(x.at(a), y.at(b)) for a, b in front_line(front, axis, x.low, x.high, y.low)]
    parts = [_grid(x, y, axis.label, drawing.y_label), *_reference(drawing, x, y), _path(corners, "front")]
    lines = along(corners)
    for origin, exported in joins(drawn):
        before = origin.value if exported.before is None else exported.before
        ends = (spot[origin][0], y.at(before)), spot[exported]
        parts.append(_line(*ends, class_="join", stroke=styles[origin.method].color))
        lines += along(ends)
    below_front = sorted(drawn, key=lambda one: one in front)
    parts += [_mark(one, spot[one], y, styles[one.method], one in front or one.kind == "paper") for one in below_front]
    parts += _labels(drawn, front, spot, y, Box(x.start, y.end, x.end, y.start), lines)
    said = f"{drawing.title}. {drawing.y_label} against {axis.label}; a table below has every figure."
    return element("svg", "".join(parts), class_=shape, viewBox=f"0 0 {width} {height}", role="img", aria_label=said)


def _scales(drawing: _Drawing, width: int, height: int) -> tuple[_Scale, _Scale]:
    """Both scales, with room around the data for labels, and around the axes for numbers."""
    places = [drawing.axis.of(one) for one in drawing.points]
    ends = [*value_ends(drawing.points), *([100.0] if drawing.at_100 else [])]
    log = needs_log(places)
    x = _Scale(*padded(min(places), max(places), 0.16, log), 54, width - 12, log)
    return x, _Scale(*padded(min(ends), max(ends), 0.1), height - 46, 10)


def _grid(x: _Scale, y: _Scale, x_label: str, y_label: str) -> str:
    """Grid lines, numbers and axis labels."""
    wide = x.end > 400
    parts = []
    for tick in y.ticks(6):
        at = y.at(tick)
        parts.append(_line((x.start, at), (x.end, at), class_="grid"))
        parts.append(_text(f"{tick:g}", x.start - 8, at + 4, "end"))
    for tick in x.ticks(7 if wide else 4):
        at = x.at(tick)
        parts.append(_line((at, y.start), (at, y.end), class_="grid"))
        parts.append(_text(f"{tick:g}", at, y.start + 18, "middle"))
    short = x_label if wide else x_label.replace(" in float32 PyTorch", "")
    parts.append(_text(short, (x.start + x.end) / 2, y.start + 38, "middle"))
    turned = f"rotate(-90 12 {_number((y.start + y.end) / 2)})"
    parts.append(_text(y_label, 12, (y.start + y.end) / 2, "middle", transform=turned))
    return "".join(parts)


def _reference(drawing: _Drawing, x: _Scale, y: _Scale) -> list[str]:
    """Dashed lines at the teachers' values, or at 100 percent."""
    values = [100.0] if drawing.at_100 else [one.value for one in drawing.points if one.kind == "teacher"]
    heights = [y.at(value) for value in values]
    return [_line((x.start, at), (x.end, at), class_="reference") for at in heights]


def _mark(point: Point, spot: tuple[float, float], y: _Scale, style: Style, full: bool) -> str:
    """A point with its error bar and the text that appears when the mouse rests on it."""
    is_teacher = point.kind == "teacher"
    color = style.color
    parts = [element("title", html.escape(_tooltip(point)))]
    if point.error:
        low, high = y.at(point.value - point.error), y.at(point.value + point.error)
        place = spot[0]
        bars = [((place, low), (place, high)), *(((place - 4, at), (place + 4, at)) for at in (low, high))]
        parts += [_line(*bar, stroke="var(--soft)" if is_teacher else color, stroke_width="1.6") for bar in bars]
    radius = 8.0 if is_teacher else 4.2 if point.kind in ("subnetwork", "paper") else 5.5
    looks = {"class_": "mark grey"} if is_teacher else {"class_": "mark", "fill": color}
    if point.kind == "exported":
        looks = {"class_": "hollow", "stroke": "var(--soft)" if point.method == "teacher" else color}
    return element(
        "g", "".join(parts) + _marker(style.marker, *spot, radius, looks), class_="full" if full else "pale"
    )


def _tooltip(point: Point) -> str:
    known = [
        point.label,
        f"{value_of(point)}%",
        "" if point.before is None else f"before export {point.before:.1f}%",
        f"{times(point.speedup)} as fast" if point.speedup else "",
        megabytes(point.size_mb),
        f"{millions(point.parameters)} parameters" if point.parameters else "",
        f"seeds {', '.join(map(str, point.seeds))}" if point.seeds else "",
        point.note,
    ]
    return "\n".join(filter(None, known))


def _marker(marker: str, x: float, y: float, radius: float, looks: Mapping[str, str]) -> str:
    """One of matplotlib's markers, in SVG."""
    if marker == "o":
        return element("circle", "", cx=_number(x), cy=_number(y), r=_number(radius), **looks)
    corners = " ".join(f"{_number(x + radius * a)},{_number(y + radius * b)}" for a, b in MARKER_SHAPES[marker])
    return element("polygon", "", points=corners, **looks)


def _star() -> list[tuple[float, float]]:
    return [
        (length * math.sin(math.pi * n / 5), -length * math.cos(math.pi * n / 5))
        for n, length in enumerate([1.2, 0.5] * 5)
    ]


def _plus() -> list[tuple[float, float]]:
    quarter = [(-0.4, -1.1), (0.4, -1.1), (0.4, -0.4)]
    return [point for turn in range(4) for point in _turned(quarter, turn * math.pi / 2)]


def _turned(points: Iterable[tuple[float, float]], angle: float) -> list[tuple[float, float]]:
    cos, sin = math.cos(angle), math.sin(angle)
    return [(a * cos - b * sin, a * sin + b * cos) for a, b in points]


# Corners around (0, 0), y downwards, by matplotlib's names.
MARKER_SHAPES: dict[str, Sequence[tuple[float, float]]] = {
    "s": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
    "D": [(0, -1.15), (1.15, 0), (0, 1.15), (-1.15, 0)],
    "^": [(0, -1.1), (1.1, 0.9), (-1.1, 0.9)],
    "v": [(0, 1.1), (1.1, -0.9), (-1.1, -0.9)],
    "P": _plus(),
    "X": _turned(_plus(), math.pi / 4),
    "*": _star(),
}


def _labels(
    drawn: Sequence[Point],
    front: Sequence[Point],
    spot: Mapping[Point, tuple[float, float]],
    y: _Scale,
    frame: Box,
    lines: Sequence[Box],
) -> list[str]:
    """Names beside points, where there is room for them; the others are in the titles and in the table."""
    wanted = [one for one, is_wanted in zip(drawn, labeled(drawn, front), strict=True) if is_wanted]
    taken = [_room(one, spot[one], y) for one in drawn]
    # Long lines from many points to their names would be a web.
    farthest = 80 if len(wanted) <= 12 else 30
    parts = []
    for one in sorted(wanted, key=lambda one: spot[one][1]):
        name = one.tag or one.label
        others = [at for other, at in spot.items() if other is not one]
        # Letters of most system fonts are narrower than 6.9 pixels.
        place = best_place(*spot[one], 6.9 * len(name), 15, taken, frame, others, lines)
        if place is None:
            continue
        near = (min(max(spot[one][0], place.x0), place.x1), min(max(spot[one][1], place.y0), place.y1))
        if math.dist(near, spot[one]) > farthest:
            continue
        taken.append(place)
        if math.dist(near, spot[one]) > 20:
            parts.append(_line(near, spot[one], class_="leader"))
        parts.append(_text(name, (place.x0 + place.x1) / 2, place.y0 + 11.5, "middle", class_="label"))
    return parts


def _room(point: Point, spot: tuple[float, float], y: _Scale) -> Box:
    """The room of a point and its error bar."""
    reach = max(9.0, abs(y.at(point.error or 0) - y.at(0)) + 4)
    return Box(spot[0] - 8, spot[1] - reach, spot[0] + 8, spot[1] + reach)


def _line(start: tuple[float, float], end: tuple[float, float], **attributes: str) -> str:
    ends = {"x1": start[0], "y1": start[1], "x2": end[0], "y2": end[1]}
    return element("line", "", **{key: _number(value) for key, value in ends.items()}, **attributes)


def _path(points: Iterable[tuple[float, float]], class_: str) -> str:
    corners = " ".join(f"{_number(a)},{_number(b)}" for a, b in points)
    return element("polyline", "", points=corners, class_=class_) if corners else ""


def _text(text: str, x: float, y: float, anchor: str, **attributes: str) -> str:
    return element("text", html.escape(text), x=_number(x), y=_number(y), text_anchor=anchor, **attributes)


def _number(value: float) -> str:
    return f"{value:.1f}"


def legend(points: Sequence[Point], styles: Mapping[str, Style], name: Callable[[str], str] = method_label) -> str:
    """What the looks of the points mean."""
    used = {one.method for one in points}
    entries = [(_swatch(style, "mark"), name(method)) for method, style in styles.items() if method in used]
    if points[0].kind == "paper":
        entries.append((_stroke("reference"), "BERT-base of the same table"))
    else:
        entries.append((_stroke("front"), "Pareto front; dominated models are pale"))
    if any(one.kind == "exported" for one in points):
        entries.append((_swatch(Style("#888888", "o"), "hollow"), "exported; dotted from the same seeds in PyTorch"))
    if any(one.kind == "subnetwork" for one in points):
        entries.append(("", "small marks: sizes of one network"))
    items = "".join(element("li", f"{mark}<span>{html.escape(text)}</span>") for mark, text in entries)
    return element("ul", items, class_="legend")


def _stroke(class_: str) -> str:
    return element("svg", _line((0, 6), (26, 6), class_=class_), width="26", height="12", aria_hidden="true")


def _swatch(style: Style, class_: str) -> str:
    looks = (
        {"class_": class_, "stroke": style.color} if class_ == "hollow" else {"class_": class_, "fill": style.color}
    )
    if style.marker == "*":
        looks = {"class_": "mark grey"}
    mark = _marker(style.marker, 8, 8, 5.5, looks)
    return f'<svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">{mark}</svg>'
