"""The report as one HTML page that needs nothing else, and as Markdown: charts, tables, and how they were made.

The page holds its own style and drawings and loads nothing: it can be mailed, archived, or opened without a network.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertkd.records.charts import Style, method_styles
from bertkd.records.frontier import (
    SIZE,
    SPEED,
    Axis,
    Point,
    all_points,
    best_students,
    is_drawn,
    paper_points,
    pareto_front,
)
from bertkd.records.papers import PAPERS, PaperTable
from bertkd.records.results import ExportResult, RunResult
from bertkd.records.svg import element, figure, legend, megabytes, millions, times, value_of
from bertkd.records.tables import (
    NUMBER,
    machine_label,
    markdown_table,
    method_label,
    metric_label,
    metric_parts,
    task_label,
)

__all__ = ["ReportSet", "frontier_label", "render_markdown", "render_page"]

PAPER_AXIS = Axis("speedup", "Speed-up over BERT-base, as published (×)", smaller_is_better=False)
NOTES = (
    "Metrics are in percent, on the validation split. ± and error bars are the sample standard deviation over seeds; "
    "a point without one has a single seed, and nothing tells how far it would scatter.",
    "Speed-up is the teacher's latency in float32 PyTorch over the model's, for one row of 128 tokens unless “How "
    "this was made” says otherwise. Both were measured in the same run: such ratios can be compared between runs, "
    "milliseconds cannot. Students run in PyTorch too, with the same attention as the teacher; exported models are "
    "compared with the teacher's attention written out (eager).",
    "The Pareto front joins the models that no other one beats: none is at least as good in both quality and cost and "
    "better in one. It rests on means; where error bars overlap, seeds may decide who is on it. Dominated models are "
    "pale.",
    "Models of one shape share the mean of the speed-ups measured for that shape, and stand side by side.",
)
PAPERS_NOTE = (
    "These figures are the papers' own, not ours. They were made with BERT-base teachers (where nothing else is "
    "said), some on GLUE's hidden test sets, with other metrics, and on the hardware named here. Values of our own "
    "runs, with another teacher, do not belong on one axis with them, so each is shown as the percentage of the "
    "BERT-base in its own table. Speed-ups of different hardware do not transfer: CoFi's small model is 12.1 times as "
    "fast as BERT-base on a V100, and a user measured 5.23 times on an A100. Even percentages are no ranking: they "
    "say less where guessing already scores high."
)
STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1c2126; --soft: #59636e; --line: #dfe3e8; --card: #f6f8fa;
  --link: #0b5cad; --pale: 0.45; }
@media (prefers-color-scheme: dark) {
  :root { --page: #12161b; --ink: #e6e9ed; --soft: #9aa5b1; --line: #2f3741; --card: #1a2027; --link: #7ab8ff;
    --pale: 0.6; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Roboto,
  "Helvetica Neue", Arial, "DejaVu Sans", sans-serif; }
header, main, footer { max-width: 1200px; margin: 0 auto; padding: 0 16px; }
header { padding-top: 24px; } footer { padding-bottom: 32px; color: var(--soft); font-size: 14px; }
h1 { font-size: 28px; margin: 0 0 4px; line-height: 1.2; } h2 { font-size: 22px; margin: 40px 0 8px; }
h3 { font-size: 18px; margin: 36px 0 8px; padding-top: 12px; border-top: 1px solid var(--line); }
p, li { max-width: 80ch; overflow-wrap: anywhere; }
.lead { color: var(--soft); margin: 0 0 12px; } a { color: var(--link); }
nav ul, .legend { list-style: none; padding: 0; display: flex; flex-wrap: wrap; gap: 4px 18px; margin: 8px 0; }
.legend { font-size: 14px; } .legend li { display: flex; align-items: center; gap: 6px; max-width: none; }
.legend svg { flex: none; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 500px), 1fr)); gap: 16px; }
figure { margin: 0; padding: 12px 8px 8px; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  min-width: 0; }
figcaption { font-weight: 600; font-size: 15px; padding: 0 8px 4px; }
figure svg { display: block; width: 100%; height: auto; } figure svg.narrow { display: none; }
@media (max-width: 560px) { figure svg.wide { display: none; } figure svg.narrow { display: block; }
  h1 { font-size: 24px; } .charts { gap: 12px; } }
.scroll { overflow-x: auto; margin: 12px 0; border: 1px solid var(--line); border-radius: 8px; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding: 8px 12px; color: var(--soft); }
th, td { padding: 5px 9px; text-align: left; border-top: 1px solid var(--line); white-space: nowrap; }
thead th { background: var(--card); border-top: 0; } tbody th { font-weight: 500; } .number { text-align: right; }
td.long { white-space: normal; min-width: 170px; color: var(--soft); }
details { margin: 12px 0; } summary { cursor: pointer; color: var(--link); }
pre { overflow-x: auto; background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  font-size: 13px; }
svg text { font: 12px system-ui, "Segoe UI", Roboto, Arial, "DejaVu Sans", sans-serif; fill: var(--soft); }
svg .label { fill: var(--ink); paint-order: stroke; stroke: var(--card); stroke-width: 3px; stroke-linejoin: round; }
svg .grid { stroke: var(--line); } svg .front { fill: none; stroke: var(--ink); stroke-width: 1.4; opacity: 0.65; }
svg .reference { stroke: var(--soft); stroke-dasharray: 5 4; } svg .leader { stroke: var(--soft); opacity: 0.6; }
svg .join { stroke-dasharray: 2 3; stroke-width: 1.6; } svg .mark { stroke: var(--card); stroke-width: 1; }
svg .hollow { fill: var(--card); stroke-width: 2; } svg .grey { fill: var(--soft); }
svg .pale { opacity: var(--pale); }
"""


@dataclass(frozen=True)
class ReportSet:
    """Runs that belong together, and the exports that were made of them. `name` may be empty."""

    name: str
    runs: tuple[RunResult, ...]
    exports: tuple[ExportResult, ...] = ()

    @property
    def results(self) -> tuple[RunResult | ExportResult, ...]:
        """The runs, then the exports."""
        return (*self.runs, *self.exports)

    @property
    def tasks(self) -> list[str]:
        """The tasks, by the name that readers see."""
        return sorted({one.task for one in self.results}, key=task_label)

    @property
    def points(self) -> list[Point]:
        """Every point of the set."""
        return all_points(self.runs, self.exports)


def frontier_label(runs: Iterable[RunResult | ExportResult], task: str) -> str:
    """What the charts of a task show: "accuracy (%)", or of which two metrics the mean is."""
    first = next(one for one in runs if one.task == task)
    if first.metric.removeprefix("eval_") == "combined_score" and len(parts := _parts(first)) == 2:
        return f"mean of {' and '.join(map(metric_label, parts))} (%)"
    return f"{metric_label(first.metric)} (%)"


def _parts(one: RunResult | ExportResult) -> tuple[str, ...]:
    return metric_parts(one)  # type: ignore[arg-type]


def render_page(sets: Sequence[ReportSet], title: str = "bertkd report", papers: Sequence[PaperTable] = PAPERS) -> str:
    """The whole page. The same results always give the same text.

    Args:
        sets: each gets an overview, and charts and a table for every task.
        title: of the page.
        papers: tables to show as reference; none for no such section.

    Raises:
        ValueError: there is no set, or a set's runs have no common mean, see `all_points`.
    """
    if not sets:
        raise ValueError("A report needs at least one set of results.")
    bodies = [_render_set(one, index) for index, one in enumerate(sets)]
    tasks = {task for one in sets for task in one.tasks}
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<link rel="icon" href="data:,">\n{element("title", html.escape(title))}\n<style>{STYLE}</style>\n</head>\n'
    )
    header = element("header", element("h1", html.escape(title)) + _lead(sets) + _navigation(sets, bool(papers)))
    notes = element("h2", "How to read this") + _list(NOTES)
    reference = _render_papers(tasks, papers) if papers else ""
    made = element("h2", "How this was made", id="made") + "".join(map(_render_making, sets))
    main = element("main", "\n".join([*bodies, notes, reference, made]))
    footer = element("footer", element("p", "Made by recipes/report.py from results files; no figure is typed."))
    return f"{head}<body>\n{header}\n{main}\n{footer}\n</body>\n</html>\n"


def _list(sentences: Iterable[str]) -> str:
    return element("ul", "".join(element("li", html.escape(one)) for one in sentences))


def _lead(sets: Sequence[ReportSet]) -> str:
    runs = sum(len(one.runs) for one in sets)
    exports = sum(len(one.exports) for one in sets)
    methods = {run.method for one in sets for run in one.runs} - {"teacher"}
    tasks = {task for one in sets for task in one.tasks}
    counts = [(runs, "run"), (exports, "exported model"), (len(methods), "method"), (len(tasks), "task")]
    said = ", ".join(f"{number} {noun}{'' if number == 1 else 's'}" for number, noun in counts if number)
    return element("p", f"Quality against speed and size: {said}.", class_="lead")


def _navigation(sets: Sequence[ReportSet], with_papers: bool) -> str:
    links = []
    for index, one in enumerate(sets):
        prefix = f"{one.name} " if len(sets) > 1 else ""
        links += [(f"#{_anchor(index, place)}", prefix + task_label(task)) for place, task in enumerate(one.tasks)]
    links += [("#papers", "The papers' own points")] if with_papers else []
    links.append(("#made", "How this was made"))
    items = "".join(element("li", element("a", html.escape(text), href=target)) for target, text in links)
    return element("nav", element("ul", items), aria_label="Sections")


def _anchor(index: int, place: int) -> str:
    return f"set{index + 1}-task{place + 1}"


def _set_title(one: ReportSet) -> str:
    return one.name or "Main runs"


def _render_set(one: ReportSet, index: int) -> str:
    points = one.points
    styles = method_styles(point.method for point in points)
    overview = _table(overview_rows(one, points), f"The best student of each task, in {_set_title(one)}")
    tasks = [
        _render_task(one, [point for point in points if point.task == task], styles, _anchor(index, place))
        for place, task in enumerate(one.tasks)
    ]
    return element("section", element("h2", html.escape(_set_title(one))) + overview + "".join(tasks))


def overview_rows(one: ReportSet, points: Sequence[Point]) -> list[dict[str, str]]:
    """One row per task: the teacher, the best student smaller than it, and what that keeps of the teacher.

    Students that are equal at the precision shown are all named; the figures are the first one's.
    """
    rows = []
    for task in one.tasks:
        own = [point for point in points if point.task == task]
        teacher = next((point for point in own if point.kind == "teacher"), None)
        equals = best_students(own)
        row = {
            "Task": task_label(task),
            "Metric": frontier_label(one.results, task).removesuffix(" (%)"),
        }
        row |= {"Teacher": "" if teacher is None else value_of(teacher)}
        if equals:
            best = equals[0]
            row |= {"Best student": "; ".join(one.label for one in equals), "Layers": str(best.layers or "")}
            row |= {"Its value": value_of(best), "Against the teacher": _difference(best, teacher)}
            row |= {"Kept": _share(best, teacher), "Speed-up": times(best.speedup), "Size": megabytes(best.size_mb)}
        rows.append(row)
    return rows


def _difference(best: Point, teacher: Point | None) -> str:
    return "" if teacher is None else f"{best.value - teacher.value:+.1f}"


def _share(best: Point, teacher: Point | None) -> str:
    known = teacher is not None and math.isfinite(teacher.value) and teacher.value > 0
    return f"{100 * best.value / teacher.value:.1f}%" if teacher is not None and known else ""


def point_rows(points: Sequence[Point], metric: str, parts: str) -> list[dict[str, str]]:
    """Every figure behind a task's charts, one row per point.

    Args:
        points: of one task.
        metric: name of the value's column.
        parts: name of a column with every metric; none where it is empty.
    """
    fronts = {"speed": pareto_front(points, SPEED), "size": pareto_front(points, SIZE)}
    rows = []
    for one in points:
        row = {"Model": one.label, "Layers": str(one.layers or ""), metric: value_of(one)}
        row |= {parts: one.metrics} if parts else {}
        row |= {"Before": "" if one.before is None else f"{one.before:.1f}"}
        row |= {"Seeds": ", ".join(map(str, one.seeds)), "Speed-up": times(one.speedup)}
        row |= {"Size": megabytes(one.size_mb), "Parameters": millions(one.parameters)}
        row |= {"Front": ", ".join(name for name, front in fronts.items() if one in front), "Note": one.note}
        rows.append(row)
    return _without_empty(rows)


def _without_empty(rows: Sequence[dict[str, str]]) -> list[dict[str, str]]:
    """The rows without the columns that are empty in all of them."""
    used = [key for key in rows[0] if any(row[key] for row in rows)] if rows else []
    return [{key: row[key] for key in used} for row in rows]


def _render_task(one: ReportSet, points: Sequence[Point], styles: Mapping[str, Style], anchor: str) -> str:
    task = points[0].task
    y_label = frontier_label(one.results, task)
    name = task_label(task)
    charts = [
        figure(points, SPEED, y_label, styles, f"{name}: quality against speed"),
        figure(points, SIZE, y_label, styles, f"{name}: quality against size"),
    ]
    rows = task_rows(one, points)
    return element(
        "section",
        element("h3", html.escape(name))
        + element("div", "".join(charts), class_="charts")
        + legend(points, styles)
        + _table(rows, f"{name}: every figure of the charts, in percent, MB and millions of parameters"),
        id=anchor,
    )


def task_rows(one: ReportSet, points: Sequence[Point]) -> list[dict[str, str]]:
    """`point_rows` with the metric's own column names."""
    task = points[0].task
    first = next(run for run in one.results if run.task == task)
    parts = _parts(first)
    metric = frontier_label(one.results, task).removesuffix(" (%)")
    return point_rows(points, metric, " / ".join(map(metric_label, parts)) if len(parts) > 1 else "")


def _table(rows: Sequence[dict[str, str]], caption: str) -> str:
    """A table with a caption, in a box that scrolls by itself on a narrow screen."""
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    numeric = {key: _is_numeric([row.get(key, "") for row in rows]) for key in keys}
    head = "".join(_cell("th", key, numeric[key], scope="col") for key in keys)
    body = ""
    for row in rows:
        first = _cell("th", row.get(keys[0], ""), numeric[keys[0]], scope="row")
        others = [_cell("td", row.get(key, ""), numeric[key], key == "Note") for key in keys[1:]]
        body += f"<tr>{first}{''.join(others)}</tr>\n"
    content = f"{element('caption', html.escape(caption))}<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody>"
    attributes = {"class_": "scroll", "role": "region", "tabindex": "0", "aria_label": caption}
    return element("div", element("table", content), **attributes)


def _cell(name: str, text: str, is_numeric: bool, is_note: bool = False, **attributes: str) -> str:
    kind = "number" if is_numeric else "long" if is_note else ""
    return element(name, html.escape(text), **attributes, **({"class_": kind} if kind else {}))


def _is_numeric(values: Sequence[str]) -> bool:
    filled = [value.partition(" (")[0] for value in values if value and value != "n/a"]
    return bool(filled) and all(NUMBER.match(value) for value in filled)


def _render_papers(tasks: Iterable[str], papers: Sequence[PaperTable]) -> str:
    """The papers' own points: charts of the tasks that we have too, and of MNLI, which most of them have; tables."""
    styles = method_styles(table.paper for table in papers)
    shown = sorted({*tasks, "mnli"}, key=task_label)
    points = {task: paper_points(task, papers) for task in shown}
    charts = [
        figure(
            points[task],
            PAPER_AXIS,
            "percent of BERT-base",
            styles,
            f"{task_label(task)}: the papers' models",
            at_100=True,
        )
        for task in shown
    ]
    drawn = [one for task in shown for one in points[task] if is_drawn(one, PAPER_AXIS)]
    hardware = {table.paper: f"{table.paper}: {table.hardware}" for table in papers}
    key = legend(drawn, styles, hardware.__getitem__) if drawn else ""
    tables = [_table(paper_rows(table), f"{table.paper}: {paper_facts(table)}") for table in papers]
    return (
        element("h2", "The papers' own points", id="papers")
        + element("p", html.escape(PAPERS_NOTE))
        + element("div", "".join(charts), class_="charts")
        + key
        + "".join(tables)
    )


def paper_facts(table: PaperTable) -> str:
    """Where a paper's figures stand and how they were made, in one line."""
    said = f"{table.place}. Scores: {table.split}. Speed-ups: {table.hardware}."
    return f"{said} {table.note}".strip()


def paper_rows(table: PaperTable) -> list[dict[str, str]]:
    """A paper's rows: scores, and in brackets the percentage of its BERT-base."""
    rows = []
    tasks = sorted({task for one in table.models for task in one.scores}, key=task_label)
    for one in (table.reference, *table.models):
        row = {"Model": one.name, "Layers": str(one.layers or "")}
        row |= {"Speed-up": "" if one.speedup is None else f"{one.speedup:g}x"}
        row |= {"Parameters": "" if one.parameters_m is None else f"{one.parameters_m:g}M"}
        reference = {} if one is table.reference else table.reference.scores
        row |= {task_label(task): _score(one.scores.get(task), reference.get(task)) for task in tasks}
        rows.append(row | {"Note": one.note})
    return _without_empty(rows)


def _score(score: float | None, reference: float | None) -> str:
    if score is None:
        return ""
    return f"{score:g}" if reference is None else f"{score:g} ({100 * score / reference:.1f}%)"


def _render_making(one: ReportSet) -> str:
    """Hardware, versions, commits, conditions, settings and commands of a set."""
    same, rows = settings_rows(one.runs)
    commands = "\n".join(dict.fromkeys(run.command for run in one.results))
    settings = _table(rows, "Settings that differ between runs")
    return (
        element("h3", html.escape(_set_title(one)))
        + _list(making_facts(one))
        + element("details", f"<summary>Settings</summary>{element('p', html.escape(same))}{settings}")
        + element("details", f"<summary>Commands</summary><pre><code>{html.escape(commands)}</code></pre>")
    )


def making_facts(one: ReportSet) -> list[str]:
    """What the figures of a set depend on, each value once."""
    made = one.results
    facts = {
        "Hardware": [machine_label(run.hardware) for run in made],
        "Versions": [", ".join(f"{name} {number}" for name, number in run.versions.items()) for run in made],
        "Commits": [run.commit for run in made],
        "Latency of exported models": [_pairs(run.conditions) for run in one.exports],
    }
    lines = [f"{name}: {'; '.join(dict.fromkeys(values))}." for name, values in facts.items() if values]
    dates = sorted(run.finished for run in made)
    hours = sum(run.seconds for run in one.runs) / 3600
    return [*lines, f"Training: {hours:.1f} hours in {len(one.runs)} runs, finished from {dates[0]} to {dates[-1]}."]


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def settings_rows(runs: Sequence[RunResult]) -> tuple[str, list[dict[str, str]]]:
    """The settings that all runs share, as a sentence, and a row per task, method and depth with those that differ.

    Paths and seeds are left out: they stand in the commands and in the tables.
    """
    flat = [{key: value for key, value in _flat(run.settings) if not _is_place(key)} for run in runs]
    keys = list(dict.fromkeys(key for one in flat for key in one))
    seen = {key: list(dict.fromkeys(one.get(key, "") for one in flat)) for key in keys}
    same = [f"{key} {values[0]}" for key, values in seen.items() if len(values) == 1 and values[0]]
    varied = [key for key, values in seen.items() if len(values) > 1]
    rows: dict[tuple[str, str, int], dict[str, list[str]]] = {}
    for run, one in zip(runs, flat, strict=True):
        row = rows.setdefault((run.task, run.method, run.layers), {key: [] for key in varied})
        for key in varied:
            row[key].append(one.get(key, ""))
    told = [
        {"Task": task_label(task), "Method": method_label(method), "Layers": str(layers)}
        | {key: ", ".join(dict.fromkeys(values)) for key, values in row.items()}
        for (task, method, layers), row in rows.items()
    ]
    return f"The same in all runs: {', '.join(same)}." if same else "No setting is the same in all runs.", told


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", f"{value:g}" if isinstance(value, float) else str(value)


def _is_place(key: str) -> bool:
    return key.endswith(("_path", "_dir", "_file", "_files", "seed"))


def render_markdown(sets: Sequence[ReportSet], charts: Mapping[tuple[str, str, str], str]) -> str:
    """The report's tables as Markdown, for where HTML cannot go.

    Args:
        sets: as for `render_page`.
        charts: file names of PNG charts by set, task and axis (`SPEED.field`, `SIZE.field`); those missing are left
            out.
    """
    parts = ["# bertkd report", "\n".join(f"- {note}" for note in NOTES)]
    for one in sets:
        points = one.points
        parts += [f"## {_set_title(one)}", markdown_table(overview_rows(one, points))]
        for task in one.tasks:
            names = [charts.get((one.name, task, axis.field)) for axis in (SPEED, SIZE)]
            images = [f"![{task_label(task)}]({name})" for name in names if name]
            own = [point for point in points if point.task == task]
            parts += [f"### {task_label(task)}", "\n".join(images), markdown_table(task_rows(one, own))]
    parts += ["## The papers' own points", PAPERS_NOTE]
    for table in PAPERS:
        parts += [f"### {table.paper}", paper_facts(table), markdown_table(paper_rows(table))]
    parts.append("## How this was made")
    for one in sets:
        parts += [f"### {_set_title(one)}", "\n".join(f"- {fact}" for fact in making_facts(one))]
    return "\n\n".join(part.strip() for part in parts if part.strip()) + "\n"
