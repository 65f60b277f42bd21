"""Make the report of results files: a page that opens anywhere, charts, and Markdown tables.

    python recipes/report.py --results_dir docs/results --output_dir outputs/report

Writes index.html (one file, nothing else is loaded), report.md and its PNG charts: quality against speed and size,
with the Pareto front. Sets of runs are those of recipes/collect_results.py; files named *export_result.json join the
set of their folder. The same files always give the same page.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bertkd.atomic import write_text
from bertkd.records import (
    SIZE,
    SPEED,
    Axis,
    Point,
    ReportSet,
    frontier_chart,
    is_chart_of,
    render_markdown,
    render_page,
    task_label,
)
from bertkd.records.charts import method_styles
from bertkd.records.frontier import is_drawn
from bertkd.records.page import frontier_label
from bertkd.records.result_sets import ASIDE, read_sets


def read_report_sets(folder: Path) -> list[ReportSet]:
    """The sets of results below a folder, with the exports of each.

    Raises:
        FileNotFoundError: there is no results file. ValueError: a file is broken; the message names it.
    """
    sets = [
        ReportSet(one.name, (*one.runs, *one.supernets), tuple(one.exports))
        for one in read_sets(folder)
        if one.runs or one.supernets or one.exports
    ]
    if not sets:
        raise ValueError(f"{folder} has no main runs; a report needs some outside of {' and '.join(ASIDE)}.")
    return sets


def draw_charts(one: ReportSet, folder: Path) -> dict[tuple[str, str, str], str]:
    """Draws a set's charts where their data changed; returns their names by set, task and axis."""
    points = one.points
    styles = method_styles(point.method for point in points)
    names = {}
    for task in one.tasks:
        own = [point for point in points if point.task == task]
        for axis, word in ((SPEED, "speed"), (SIZE, "size")):
            if any(is_drawn(point, axis) for point in own):
                name = f"{'-'.join(filter(None, (one.name, task, word)))}.png"
                title = f"{task_label(task)}: quality against {word}"
                draw(own, folder / name, title, axis, frontier_label(one.results, task), styles)
                names[one.name, task, axis.field] = name
    return names


def draw(points: Sequence[Point], path: Path, title: str, axis: Axis, y_label: str, styles: dict) -> None:
    """Draws a chart, unless the file already shows these points."""
    if not is_chart_of(path, points):
        frontier_chart(points, path, title, axis, y_label, styles)


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results_dir", default="docs/results", help="Folder with the results files.")
    parser.add_argument("--output_dir", default="outputs/report", help="Folder to write the report to.")
    parser.add_argument("--title", default="bertkd report", help="Title of the page.")
    arguments = parser.parse_args(argv)
    sets, folder = read_report_sets(Path(arguments.results_dir)), Path(arguments.output_dir)
    page = render_page(sets, arguments.title)
    charts = {key: name for one in sets for key, name in draw_charts(one, folder).items()}
    write_text(folder / "report.md", render_markdown(sets, charts))
    write_text(folder / "index.html", page)
    print(f"Report: {folder / 'index.html'}, with report.md and {len(charts)} charts beside it")
    return folder / "index.html"
