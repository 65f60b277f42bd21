"""Reports of sets of results: Markdown pages with PNG charts, and one interactive HTML page, from the same tables."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from bertkd.atomic import write_text
from bertkd.records.charts import AXIS_LABELS, bars_chart, frontier_chart, interactive_chart, is_chart_of
from bertkd.records.models import SPEED, result_rows, summarize
from bertkd.records.papers import paper_charts, paper_rows
from bertkd.records.rendering import render
from bertkd.records.result_sets import ReportSet
from bertkd.records.sections import facts, quality_label, setting_rows, task_sections
from bertkd.records.tables import task_label

__all__ = ["MarkdownReport", "markdown_report", "render_page"]


@dataclass
class MarkdownReport:
    """Pages and charts that are made but not written yet, by the paths that they belong to."""

    pages: dict[Path, str] = field(default_factory=dict)
    charts: dict[Path, tuple[Callable[..., Path], pd.DataFrame, str, str]] = field(default_factory=dict)

    def stale_files(self) -> list[Path]:
        """Finds the files that are missing, or are not what they should be; of a chart the data counts."""
        stale = []
        for path, text in self.pages.items():
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path)
        for path, (_, models, *_) in self.charts.items():
            if not is_chart_of(path, models):
                stale.append(path)
        return stale

    def write(self) -> None:
        """Writes what is stale; a chart that shows its data stays, as pixels differ between versions of matplotlib."""
        for path in self.stale_files():
            if path in self.pages:
                write_text(path, self.pages[path])
            else:
                draw, models, title, y_label = self.charts[path]
                draw(models, path, title, y_label)


def set_values(results: ReportSet) -> dict[str, Any]:
    """What both kinds of pages show of a set: an overview, facts, and for each task its tables and commands."""
    models = summarize(results.runs, results.exports)
    main = models[models["kind"].isin(["teacher", "student"])]

    tasks = []
    for task in results.tasks:
        of_task, chosen = results.of_task(task), models[models["task"] == task]
        shown = {"task": task, "name": task_label(task), "models": chosen, "quality": quality_label(chosen)}
        shown["sections"] = task_sections(of_task, chosen)
        shown["settings"] = setting_rows([*of_task.runs, *of_task.ablation])
        shown["commands"] = pd.DataFrame(map(vars, of_task.records))["command"].unique().tolist()
        tasks.append(shown)

    values = {"title": results.title, "main": main, "rows": result_rows(main, mark_best=True), "tasks": tasks}
    # A sub-network whose size was not evaluated has no value.
    return values | {"has_overview": bool(main["value"].notna().any()), "facts": facts(results.records)}


def markdown_report(sets: Sequence[ReportSet], index: Path, source: str) -> MarkdownReport:
    """Makes an index page, with a table and a chart of each set, and a page for each task of a set.

    Args:
        sets: as `read_sets` gives them.
        index: where the index will lie; the others lie beside it, in folders with the names of the sets.
        source: where the results files lie, for the remark that the pages are generated.

    Raises:
        ValueError: results of a set have no common mean, see `summarize`.
    """
    report, shown = MarkdownReport(), []
    for results in sets:
        values, folder = set_values(results), index.parent / results.name
        if values["has_overview"]:
            chart = (bars_chart, values["main"], "Validation, mean over seeds", "main metric (%)")
            report.charts[folder / "overview.png"] = chart

        link = Path(os.path.relpath(index, folder)).as_posix()
        for task in values["tasks"]:
            page, title = folder / f"{task['task']}.md", f"{task['name']}: quality against speed and size"
            if task["quality"]:
                chart = (frontier_chart, task["models"], title, f"{task['quality']} (%)")
                report.charts[page.with_suffix(".png")] = chart
            report.pages[page] = render("results_task.md.j2", **task, set=results, index=link, source=source)
        shown.append(values | {"place": f"{results.name}/" if results.name else ""})

    report.pages[index] = render("results_index.md.j2", sets=shown, source=source)
    return report


def render_page(
    sets: Sequence[ReportSet], title: str = "bertkd report", reference_points: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Renders all results as one HTML page that loads nothing. The same results always give the same text.

    Without plotly the page has its tables, and says what is missing instead of the charts.

    Args:
        sets: each gets an overview, and charts and tables for every task.
        title: of the page.
        reference_points: tables of papers, as `read_reference_points` gives them, to show beside the results.

    Raises:
        ValueError: there is no set, or results of a set have no common mean, see `summarize`.
    """
    if not sets:
        raise ValueError("A report needs at least one set of results.")
    try:
        from plotly.offline import get_plotlyjs

        plotly_js = str(get_plotlyjs())
    except ImportError:
        plotly_js = ""

    shown, our_tasks = [], {"mnli"}
    for number, results in enumerate(sets):
        shown.append(set_values(results))
        our_tasks.update(results.tasks)
        for task in shown[-1]["tasks"]:
            task["charts"] = []
            for axis, axis_label in AXIS_LABELS.items():
                chart_title = f"{task['name']}: quality against {'speed' if axis == SPEED else 'size'}"
                labels = (chart_title, axis_label, f"{task['quality']} (%)")
                name = f"chart-{number}-{task['task']}-{axis}"
                task["charts"].append(interactive_chart(task["models"], axis, name, labels))

    papers = []
    for table in reference_points:
        papers.append({**table, "rows": paper_rows(table)})
    charts = paper_charts(reference_points, sorted(our_tasks, key=task_label))
    return render("page.html.j2", title=title, sets=shown, papers=papers, charts=charts, plotly_js=plotly_js)
