"""Reports of sets of results as Markdown pages with PNG charts."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from bertkd.atomic import write_text
from bertkd.records import sections
from bertkd.records.charts import bars_chart, frontier_chart, is_chart_of
from bertkd.records.models import summarize
from bertkd.records.rendering import render
from bertkd.records.result_sets import ReportSet
from bertkd.records.tables import result_rows, rows_of, subnetwork_rows, table_order, task_label

__all__ = ["MarkdownReport", "markdown_report"]


class MarkdownReport:
    """Pages and charts that are made but not written yet, by the paths that they belong to."""

    def __init__(self) -> None:
        self.pages: dict[Path, str] = {}
        self.charts: dict[Path, tuple[Callable[..., Path], pd.DataFrame, str, str]] = {}

    def stale_files(self) -> list[Path]:
        """The files that are missing, or are not what they should be; of a chart the data counts."""
        stale = []
        for path, text in self.pages.items():
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                stale.append(path)
        return stale + [path for path, (_, models, *_) in self.charts.items() if not is_chart_of(path, models)]

    def write(self) -> None:
        """Writes what is stale; a chart that shows its data stays, as pixels differ between versions of matplotlib."""
        for path in self.stale_files():
            if path in self.pages:
                write_text(path, self.pages[path])
            else:
                draw, models, title, y_label = self.charts[path]
                draw(models, path, title, y_label)


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
        folder, tasks = index.parent / results.name, {}
        models = summarize(results.runs, results.exports)
        main = models[models["kind"].isin(["teacher", "student"])]
        if len(main):
            report.charts[folder / "overview.png"] = (
                bars_chart,
                main,
                "Validation, mean over seeds",
                "main metric (%)",
            )

        for task in results.tasks:
            page, name, chosen = folder / f"{task}.md", task_label(task), models[models["task"] == task]
            if len(chosen):
                y_label = f"{sections.quality_label(rows_of(chosen)[0])} (%)"
                title = f"{name}: quality against speed and size"
                report.charts[page.with_suffix(".png")] = (frontier_chart, chosen, title, y_label)
            values = _task_values(results.of_task(task), chosen)
            up = Path(os.path.relpath(index, folder)).as_posix()
            chart = f"{task}.png" if len(chosen) else ""
            report.pages[page] = render(
                "results_task.md.j2", task=task, chart=chart, index=up, source=source, **values
            )
            tasks[name] = page.relative_to(index.parent).as_posix()

        place = f"{results.name}/" if results.name else ""
        rows = result_rows(main, mark_best=True) if len(main) else []
        shown.append({"title": results.title, "place": place, "rows": rows, "tasks": tasks})
    report.pages[index] = render("results_index.md.j2", sets=shown, source=source)
    return report


def _task_values(results: ReportSet, models: pd.DataFrame) -> Mapping[str, Any]:
    """Everything that the page of a task shows."""
    supernets = [run for run in results.runs if run.subnetworks]
    runs = [run for run in results.runs if not run.subnetworks]
    models = sections.with_fronts(models)
    main = table_order(models[models["kind"].isin(["teacher", "student"])])
    return {
        "results": results,
        "rows": sections.model_rows(main, mark_best=True),
        "notes": [*sections.verdicts(main), *sections.training_notes(runs)],
        "exports": sections.model_rows(models[models["kind"] == "exported"]),
        "sizes": sections.size_rows(models),
        "size_notes": [*sections.supernet_notes(models, supernets), *sections.training_notes(supernets)],
        "costs": subnetwork_rows(max(supernets, key=lambda run: len(run.subnetworks)), False) if supernets else [],
        "ablations": sections.ablation_tables(results),
        "grid": sections.grid_rows(results.grid),
        "facts": sections.facts(results.records),
        "settings": sections.setting_rows([*results.runs, *results.ablation]),
        "commands": sections.commands(results.records),
    }
