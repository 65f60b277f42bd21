"""The report as one interactive HTML page, which holds everything that it needs and loads nothing."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from bertkd.methods import method_label
from bertkd.records import sections
from bertkd.records.charts import AXIS_LABELS, GREY, STEPS, joins, method_colors, needs_log, placed
from bertkd.records.models import SPEED, summarize
from bertkd.records.rendering import render
from bertkd.records.result_sets import ReportSet
from bertkd.records.tables import count_label, mean_and_std, rows_of, task_label, with_unit

__all__ = ["read_reference_points", "render_page"]

# Plotly's marks, and the letters for them in the legend.
SYMBOLS = {
    "circle": "●",
    "square": "■",
    "diamond": "◆",
    "triangle-up": "▲",
    "triangle-down": "▼",
    "x": "✖",
    "cross": "✚",
}
SYMBOLS |= {"pentagon": "⬟", "hexagon": "⬢", "triangle-left": "◀", "triangle-right": "▶", "star": "★"}
TABLE_KEYS = {"paper", "place", "split", "hardware", "note", "reference", "models"}


def render_page(
    sets: Sequence[ReportSet], title: str = "bertkd report", reference_points: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Renders the whole page. The same results always give the same text.

    Without plotly the page has its tables, and says what is missing instead of the charts.

    Args:
        sets: each gets an overview, and charts and a table for every task.
        title: of the page.
        reference_points: tables of papers, as `read_reference_points` gives them, to show beside the results.

    Raises:
        ValueError: there is no set, or results of a set have no common mean, see `summarize`.
    """
    if not sets:
        raise ValueError("A report needs at least one set of results.")

    shown: list[dict[str, Any]] = []
    for results in sets:
        models, records = summarize(results.runs, results.exports), [*results.runs, *results.exports]
        colors, tasks = method_colors(models["method"]), []
        for task in sorted(models["task"].unique(), key=task_label):
            chosen = sections.with_fronts(models[models["task"] == task])
            charts = [_frontier(chosen, axis, colors, f"chart-{len(shown)}-{task}-{axis}") for axis in AXIS_LABELS]
            rows = sections.model_rows(chosen, as_charted=True)
            legend = _legend(chosen["method"].unique(), colors) if any(charts) else []
            tasks.append({"name": task_label(task), "charts": charts, "legend": legend, "rows": rows})
        shown.append({"title": results.title, "rows": sections.overview_rows(models), "tasks": tasks})
        shown[-1] |= {"facts": sections.facts(records), "settings": sections.setting_rows(results.runs)}
        shown[-1] |= {"commands": sections.commands(records), "counts": _counts(results)}

    our_tasks = {record.task for results in sets for record in results.records}
    papers = method_colors(table["paper"] for table in reference_points)
    return render(
        "page.html.j2",
        title=title,
        sets=shown,
        papers=[{**table, "rows": _paper_rows(table)} for table in reference_points],
        paper_charts=[
            _paper_chart(reference_points, task, papers) for task in sorted({*our_tasks, "mnli"}, key=task_label)
        ],
        paper_legend=_legend(papers, papers),
        plotly_js=_plotly_js(),
    )


def _plotly_js() -> str:
    """The library that draws the charts in the browser; empty where plotly is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return ""
    return str(get_plotlyjs())


def _symbols(colors: Mapping[str, str]) -> dict[str, str]:
    """Plotly's mark for each method of a set."""
    symbols = {method: list(SYMBOLS)[index % (len(SYMBOLS) - 1)] for index, method in enumerate(colors)}
    return symbols | {"teacher": "star"}


def _legend(methods: Iterable[str], colors: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Name, color and mark of each method in a chart."""
    symbols = _symbols(colors)
    return [
        (method_label(method), colors[method], SYMBOLS[symbols[method]]) for method in colors if method in set(methods)
    ]


def _counts(results: ReportSet) -> str:
    methods = {run.method for run in results.runs} - {"teacher"}
    counts = {"run": results.runs, "exported model": results.exports, "method": methods, "task": results.tasks}
    return ", ".join(f"{len(items)} {name}{'s' * (len(items) > 1)}" for name, items in counts.items() if items)


def _frontier(models: pd.DataFrame, axis: str, colors: Mapping[str, str], name: str) -> str:
    """The chart of quality against speed or size, as `frontier_chart` draws it."""
    points = placed(models, axis)
    if points.empty:
        return ""

    hovers = []
    for model in rows_of(points):
        value = f"{sections.quality_label(model)}: {mean_and_std(model['value'], model['std'])}"
        costs = (with_unit(model[SPEED], "{:.2f}x"), with_unit(model["size_mb"], "{:.1f} MB"))
        hovers.append([model["label"], value, *costs, f"{count_label(model['parameters'])} parameters", model["note"]])

    word = "speed" if axis == SPEED else "size"
    task = task_label(models["task"].iloc[0])
    labels = f"{task}: quality against {word}", AXIS_LABELS[axis], f"{sections.quality_label(rows_of(models)[0])} (%)"
    return _figure(name, points, hovers, labels, colors, joins(points), STEPS[axis])


def _figure(
    name: str,
    points: pd.DataFrame,
    hovers: Sequence[Sequence[str]],
    labels: tuple[str, str, str],
    colors: Mapping[str, str],
    lines: Iterable[tuple[str, list[float], list[float]]] = (),
    step: str = "",
) -> str:
    """The HTML of a chart: one trace per method, dotted lines to exported models, and the Pareto front.

    Args:
        name: of the element, which no other one on the page has.
        points: with `method`, `kind`, `label`, `variant`, `x`, `value`, `std` and `on_front`.
        hovers: lines of text to show for each point.
        labels: title of the chart, and those of its axes.
        colors: by method.
        lines, step: as `joins` and `STEPS` have them.
    """
    try:
        from plotly.graph_objects import Figure
    except ImportError:
        return ""

    figure = Figure()
    # Plotly shows tags in texts.
    texts = pd.Series(["<br>".join(html.escape(line) for line in lines if line) for lines in hovers], points.index)
    for method, symbol in _symbols(colors).items():
        group = points[points["method"] == method]
        marker = {
            "color": colors.get(method),
            "symbol": [symbol + "-open" * (kind == "exported") for kind in group["kind"]],
            "size": [8 if kind == "subnetwork" else 12 for kind in group["kind"]],
            "opacity": [1.0 if on_front else 0.45 for on_front in group["on_front"]],
        }
        if len(group):
            figure.add_scatter(
                x=group["x"].tolist(),
                y=group["value"].tolist(),
                error_y={"array": group["std"].tolist(), "thickness": 1, "visible": bool(group["std"].notna().any())},
                mode="markers",
                marker=marker,
                text=texts[group.index].tolist(),
                hoverinfo="text",
            )

    for method, xs, values in lines:
        line = {"dash": "dot", "color": colors[method], "width": 1.5}
        figure.add_scatter(x=xs, y=values, mode="lines", line=line, hoverinfo="skip")
    if step:
        front = points[points["on_front"]].sort_values(["x", "value"])
        names = front["method"].map(method_label).where(front["kind"] != "subnetwork", "")
        figure.add_scatter(
            x=front["x"].tolist(),
            y=front["value"].tolist(),
            mode="lines+text",
            line={"shape": {"pre": "vh", "post": "hv"}[step], "color": GREY, "width": 1.5},
            text=[html.escape(name) for name in names],
            # No model can lie on this side of the front.
            textposition="top right" if step == "pre" else "top left",
            textfont={"size": 11},
            cliponaxis=False,
            hoverinfo="skip",
        )

    title, x_label, y_label = labels
    is_log = needs_log(points["x"])
    ends = np.log10([points["x"].min(), points["x"].max()]) if is_log else [points["x"].min(), points["x"].max()]
    room = 0.25 * (ends[1] - ends[0] or 1)  # for the names of models
    x_range = [float(ends[0] - room), float(ends[1] + room)]
    figure.update_layout(
        title={"text": html.escape(title), "font": {"size": 15}, "x": 0.02},
        xaxis={"title": x_label, "type": "log" if is_log else "linear", "range": x_range, "nticks": 8},
        yaxis={"title": html.escape(y_label)},
        showlegend=False,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        margin={"l": 50, "r": 10, "t": 40, "b": 40},
        height=420,
        template="none",
    )
    config = {"responsive": True, "displayModeBar": False}
    return str(figure.to_html(config, include_plotlyjs=False, full_html=False, div_id=html.escape(name)))


def read_reference_points(path: str | Path) -> list[dict[str, Any]]:
    """Reads the tables of papers in a YAML file: figures of others to show beside one's own.

    Each table has `paper`, `place` (where the figures stand), `split`, `hardware`, a `note`, a `reference` model and
    `models`. A model has a `name`, `scores` in percent by task, and perhaps `layers`, `speedup`, `parameters_m` (in
    millions) and a `note`.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        tables = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        for table in tables:
            if missing := TABLE_KEYS - {"note"} - set(table):
                raise ValueError(f"a table lacks {', '.join(sorted(missing))}")
            if unknown := set(table) - TABLE_KEYS:
                raise ValueError(f"a table has unknown keys: {', '.join(sorted(unknown))}")
            for model in (table["reference"], *table["models"]):
                if not isinstance(model["scores"], dict):
                    raise ValueError(f"the scores of {model['name']} should be given by task")
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path} holds no tables of papers: {error}") from error
    return list(tables)


def _paper_chart(tables: Sequence[Mapping[str, Any]], task: str, colors: Mapping[str, str]) -> str:
    """The papers' models on a task, as percentages of the BERT-base in the same table, against published speed-ups."""
    rows, hovers = [], []
    for table in tables:
        reference = table["reference"]["scores"].get(task)
        for model in table["models"]:
            score = model["scores"].get(task)
            if reference is not None and score is not None and model.get("speedup"):
                row = {"method": table["paper"], "kind": "paper", "on_front": True, "std": None, "x": model["speedup"]}
                rows.append(row | {"value": 100 * score / reference})
                beside = f"{score:g} beside {table['reference']['name']}'s {reference:g}, {table['split']}"
                hovers.append(
                    [model["name"], beside, f"{model['speedup']}x, {table['hardware']}", model.get("note", "")]
                )

    if not rows:
        return ""
    labels = (
        f"{task_label(task)}: the papers' models",
        "Speed-up over BERT-base, as published (×)",
        "percent of BERT-base",
    )
    return _figure(f"papers-{task}", pd.DataFrame(rows), hovers, labels, colors)


def _paper_rows(table: Mapping[str, Any]) -> list[dict[str, str]]:
    """A paper's rows: scores, and in brackets the percentage of its BERT-base."""
    reference, rows = table["reference"], []
    tasks = sorted({task for model in table["models"] for task in model["scores"]}, key=task_label)
    for model in (reference, *table["models"]):
        row = {"Model": model["name"], "Layers": str(model.get("layers", ""))}
        row["Speed-up"] = with_unit(model.get("speedup"), "{:g}x")
        row["Parameters"] = with_unit(model.get("parameters_m"), "{:g}M")
        for task in tasks:
            score, share = model["scores"].get(task), ""
            if score is not None and model is not reference and task in reference["scores"]:
                share = f" ({100 * score / reference['scores'][task]:.1f}%)"
            row[task_label(task)] = with_unit(score, "{:g}") + share
        rows.append(row | {"Note": model.get("note", "")})
    return sections.without_empty(rows)
