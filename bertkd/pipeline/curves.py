"""Draws what a command has printed as a table, where charts can be drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from bertkd.records import ChartPoint, curves_chart

__all__ = ["draw_curves"]


def draw_curves(
    curves: Mapping[str, Sequence[ChartPoint]],
    path: Path,
    title: str,
    x_label: str,
    y_label: str,
    reference: ChartPoint | None = None,
) -> None:
    """Draws a chart and says where it lies. Without matplotlib it says so, as the table before it says the same.

    Args:
        curves, path, title, x_label, y_label, reference: see `curves_chart`.
    """
    try:
        curves_chart(curves, path, title, x_label, y_label, reference)
    except ImportError as error:
        print(f"There is no chart. {error}")
    else:
        print(f"Chart: {path}")
