"""Draws what a command has printed as a table, where charts can be drawn."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bertkd.records import ChartPoint, curves_chart

__all__ = ["draw_curves"]


def draw_curves(curves: Mapping[str, Sequence[ChartPoint]], path: Path, *titles: str, **settings: Any) -> None:
    """Draws a chart and says where it lies. Without matplotlib it says so, as the table before it says the same.

    Args:
        curves, path, titles, settings: see `curves_chart`.
    """
    try:
        curves_chart(curves, path, *titles, **settings)
    except ImportError as error:
        print(f"There is no chart. {error}")
    else:
        print(f"Chart: {path}")
