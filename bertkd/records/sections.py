"""The parts of a report on one task: tables, and the sentences without which their figures would mislead."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from bertkd.methods import compared_with, method_label
from bertkd.metrics import main_value
from bertkd.records import tables
from bertkd.records.models import result_rows, summarize
from bertkd.records.result_sets import ReportSet
from bertkd.records.results import ExportResult, RunResult, TaskRecord

__all__ = ["Section", "caveats", "facts", "quality_label", "setting_rows", "task_sections", "verdict"]

# The settings that tables show.
SETTINGS = ["alpha", "temperature", "beta", "strategy", "learning_rate", "num_train_epochs"]
SETTINGS += ["per_device_train_batch_size", "max_train_samples"]
# Settings that may differ between repetitions: where things lie, and budgets that have a model each.
UNLIKE_BUT_SAME = {"budget", "glue_dir", "teacher_model_name_or_path"}
# Settings that a record has only where they are on.
PRECISIONS = ("bf16", "fp16", "tf32")
# Evaluations of one model on a GPU in half precision differ by a row or so of a small task.
NOISE = 0.005
EXPORT_NOTE = "Speed-ups are over the teacher in eager float32 PyTorch."
SEARCH_NOTE = "Measured on the validation split that the other tables report, which flatters methods with many trials."


@dataclass
class Section:
    """A part of a page: a table, and what a reader should know of it."""

    title: str
    rows: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)


def task_sections(results: ReportSet, models: pd.DataFrame) -> list[Section]:
    """Makes the tables of a task that have rows, with their notes.

    Args:
        results, models: of one task; the models as `summarize` gives them.
    """
    main = models[models["kind"].isin(["teacher", "student"])]
    runs: list[RunResult] = []
    supernets: list[RunResult] = []
    for run in results.runs:
        (supernets if run.subnetworks else runs).append(run)

    # The full methods stand beside what lacks a part of them, with the same seeds.
    compared = []
    for run in results.runs:
        for lacking in results.ablation:
            is_part = lacking.method.startswith(f"{run.method}-")
            ours, theirs = ((one.layers, one.seed, one.budget) for one in (run, lacking))
            if is_part and ours == theirs and run not in compared:
                compared.append(run)
    compared += results.ablation

    exported = result_rows(models[models["kind"] == "exported"])
    sections = [
        Section(
            "Methods",
            result_rows(main, mark_best=True),
            [*verdicts(main), *caveats(runs, results.runs), *timed_elsewhere(models, ["student"])],
        ),
        Section("Exported models", exported, [EXPORT_NOTE, *timed_elsewhere(models, ["exported"])]),
        Section(
            "Sizes inside supernets",
            size_rows(models),
            [*caveats(supernets, results.runs), *timed_elsewhere(models, ["subnetwork"])],
        ),
        Section(
            "Ablation",
            result_rows(_with_speedups_of(main, runs, summarize(compared))),
            caveats(compared, results.runs),
        ),
        Section("Search", search_rows(results.grid), [SEARCH_NOTE]),
    ]
    return [section for section in sections if section.rows]


def _with_speedups_of(models: pd.DataFrame, runs: Sequence[RunResult], others: pd.DataFrame) -> pd.DataFrame:
    """Other models with the speed-ups of a page's models, where these have the same shape: one shape has one speed.

    Args:
        models: those of the page, with means over seeds.
        runs: what they are made of; seeds may have different numbers of parameters.
        others: the other models.
    """
    if others.empty:
        return others
    names = ["method", "layers", "variant"]
    speedups = models.drop_duplicates(names).set_index(names)["speedup"]
    of_shape = {}
    for run in runs[::-1]:
        of_shape[run.layers, run.parameters] = speedups.get((run.method, run.layers, run.budget), math.nan)
    shapes = zip(others["layers"], others["parameters"], strict=True)
    known = pd.Series([of_shape.get(shape, math.nan) for shape in shapes], others.index, dtype=float)
    return others.assign(speedup=known.fillna(others["speedup"]))


def quality_label(models: pd.DataFrame) -> str:
    """The name of the number that charts and verdicts of a task go by; empty where no model has one."""
    if models["value"].isna().all():
        return ""
    # A combined score is the mean of the two numbers that tables show.
    shown = str(models["shown_metric"].iloc[0])
    is_combined = models["metric"].iloc[0].endswith("combined_score")
    return f"mean of {shown.replace(' / ', ' and ')}" if is_combined else shown


def verdicts(models: pd.DataFrame) -> list[str]:
    """Says whether methods beat what they add to, at each depth, and which comparison is missing."""
    students = models[models["kind"] == "student"]
    sentences = []

    for layers, group in students.groupby("layers", sort=False):
        depth = f"{layers} layers: " if students["layers"].nunique() > 1 else ""
        by_method = dict(zip(group["method"], tables.row_dicts(group), strict=True))

        for method, model in by_method.items():
            other = compared_with(method)
            if other in by_method:
                sentences.append(depth + verdict(model, by_method[other]))
            elif other:
                ours, theirs = method_label(method), method_label(other)
                sentences.append(f"{depth}Whether {ours} beats {theirs} is open: there is no run of {theirs} here.")
    return sentences


def verdict(ours: Mapping[str, Any], baseline: Mapping[str, Any]) -> str:
    """Says in one honest sentence whether `ours` beats `baseline`, and whether by more than the seeds scatter.

    The scatter is the larger of the two sample standard deviations; with a single seed it is unknown, which is said.

    Args:
        ours, baseline: rows of `summarize`.
    """
    name, other = method_label(ours["method"]), method_label(baseline["method"])
    our_figure = tables.mean_and_std(ours["value"], ours["std"])
    figures = f"{our_figure} against {tables.mean_and_std(baseline['value'], baseline['std'])}"
    if math.isnan(ours["value"]) or math.isnan(baseline["value"]):
        return f"{name} and {other} cannot be compared: {figures}."

    # The difference that a reader of the table takes.
    points = round(ours["value"], 1) - round(baseline["value"], 1)
    if abs(points) < 0.05:
        return f"{name} equals {other} ({figures})."

    distance = f"{abs(points):.1f} points {'higher' if points > 0 else 'lower'} ({figures})"
    scatter = max(ours["std"], baseline["std"])
    if math.isnan(ours["std"]) or math.isnan(baseline["std"]):
        counts = f"{name} {len(ours['seeds'])}, {other} {len(baseline['seeds'])}"
        return (
            f"{name} against {other}: {distance}; with so few seeds ({counts}) the spread is unknown, nothing shown."
        )

    largest = f"the larger standard deviation over seeds ({scatter:.1f})"
    if abs(ours["value"] - baseline["value"]) <= scatter:
        return f"{name} does not clearly {'beat' if points > 0 else 'trail'} {other}: {distance}, within {largest}."
    return f"{name} {'beats' if points > 0 else 'does not beat'} {other}: {distance}, which exceeds {largest}."


def caveats(runs: Sequence[RunResult], all_runs: Sequence[RunResult]) -> list[str]:
    """Says what makes runs of a table unlike the others of the task: fewer rows, other settings, another teacher.

    Args:
        runs: those of the table.
        all_runs: the task's; where no teacher is among them, the first run's teacher counts as the task's.
    """
    # Dictionaries, because they name each method once and keep the order.
    first_rows: dict[str, None] = {}
    random_rows: dict[str, None] = {}
    few_judges: dict[str, None] = {}
    other_teacher: dict[str, None] = {}
    untrained: dict[str, None] = {}
    known = [run.value for run in all_runs if run.method == "teacher"]

    for run in runs:
        label, settings = run.label, run.settings
        limit = settings.get("max_train_samples")
        if limit is not None and limit <= run.rows.get("train", 0):
            drawn = first_rows if settings.get("sample_seed") is None else random_rows
            drawn[f"{label} ({limit:,})"] = None
        if settings.get("max_eval_samples") is not None:
            few_judges[f"{label} ({settings['max_eval_samples']:,})"] = None

        if run.is_start:
            untrained[f"{label} (seed {run.seed})"] = None

        value = main_value(run.teacher_metrics, run.metric)
        if math.isnan(value):
            continue
        known = known or [value]
        if abs(pd.Series(known) - value).min() > NOISE:
            other_teacher[f"{label} ({100 * value:.1f})"] = None

    notes = []
    if first_rows:
        notes.append(f"Trained on the task's first rows only: {'; '.join(first_rows)}.")
    if random_rows:
        notes.append(f"Trained on rows that were drawn from the task's: {'; '.join(random_rows)}.")
    if few_judges:
        notes.append(f"Evaluated on a part of the validation split only: {'; '.join(few_judges)}.")
    if untrained:
        notes.append(f"As before their training, which made them no better: {'; '.join(untrained)}.")
    notes += unlike_seeds(runs)
    if other_teacher:
        reached = ", ".join((100 * pd.Series(known)).map("{:.1f}".format).unique())
        notes.append(f"The task's teacher reaches {reached}; taught by another one: {'; '.join(other_teacher)}.")
    return notes


def unlike_seeds(runs: Sequence[RunResult]) -> list[str]:
    """Says which models have a mean over runs that differ in more than their seed: in settings, or in their rows.

    A setting that one of the runs does not name is not compared: it may be younger than the run. Precisions are, which
    stand there only where they are on.
    """
    groups: dict[tuple[str, int], list[RunResult]] = {}
    for run in runs:
        groups.setdefault((run.label, run.layers), []).append(run)

    notes = []
    for (label, _), seeds in groups.items():
        first, differing = seeds[0], set()
        for run in seeds[1:]:
            shared = first.settings.keys() & run.settings.keys() - UNLIKE_BUT_SAME
            differing |= {name for name in shared if first.settings[name] != run.settings[name]}
            differing |= {name for name in PRECISIONS if first.settings.get(name) != run.settings.get(name)}
            differing |= {f"rows of {split}" for split in first.rows if first.rows[split] != run.rows.get(split)}
            values = [main_value(one.teacher_metrics, one.metric) for one in (first, run)]
            differing |= {"their teacher or its evaluation"} if abs(values[0] - values[1]) > 1e-6 else set()
        if differing:
            notes.append(f"The runs of {label} differ in more than their seed: in {', '.join(sorted(differing))}.")
    return notes


def timed_elsewhere(models: pd.DataFrame, kinds: Sequence[str]) -> list[str]:
    """Says which speed-ups come from another machine than most students', and so compare with its own alone.

    Args:
        models: all of the task, as `summarize` gives them.
        kinds: of the models that are looked at.
    """
    timed = models[(models["machine"] != "") & (models["kind"] != "teacher")]
    if timed["machine"].nunique() < 2:
        return []

    # A supernet has dozens of sizes.
    students = timed[timed["kind"] == "student"]
    usual = (timed if students.empty else students)["machine"].mode()[0]
    others = timed[(timed["machine"] != usual) & timed["kind"].isin(kinds)]
    notes = []
    for machine, group in others.groupby("machine", sort=False):
        names = dict.fromkeys(
            method_label(model["method"]) if model["kind"] == "subnetwork" else model["label"]
            for model in tables.row_dicts(group)
        )
        notes.append(
            f"Timed on another machine than most students ({machine}), whose speed-ups are others: {'; '.join(names)}."
        )
    return notes


def size_rows(models: pd.DataFrame) -> list[dict[str, str]]:
    """One row per size of supernets, as in DynaBERT's table 1, with a column for each stage or variant."""
    sizes = models[models["kind"] == "subnetwork"]
    costs = ["Depth", "Width", "Layers", "Parameters", "Speed-up"]
    table = pd.DataFrame(
        {
            "Depth": sizes["depth"].map("{:g}".format),
            "Width": sizes["width"].map("{:g}".format),
            "Layers": sizes["layers"].astype(str),
            "Parameters": sizes["parameters"].map(tables.count_label),
            "Speed-up": sizes["speedup"].map("{:.2f}x".format).replace("nanx", ""),
            "method": sizes["method"].map(method_label),
            "quality": sizes["quality"] if len(sizes) else "",
        }
    )
    pivoted = table.pivot(index=costs, columns="method", values="quality")[table["method"].unique()]
    return tables.without_empty_columns(pivoted.sort_index(ascending=False).reset_index())


def search_rows(runs: Sequence[RunResult]) -> list[dict[str, str]]:
    """One row per setting that was tried, with the best of each method and depth in bold."""
    if not runs:
        return []
    # Only the settings that were varied tell the rows apart, whichever they are.
    others = {name for run in runs for name in run.settings} - {*SETTINGS, *UNLIKE_BUT_SAME}
    table = _settings(runs, [*SETTINGS, *sorted(others)])
    varied = table.map(str).nunique() > 1
    tried = table.loc[:, varied | table.columns.isin(["Method", "Layers"])].drop(columns="Seed", errors="ignore")
    names = list(tried)
    twice = table.assign(**tried.map(str)).duplicated([*names, "Seed"])
    if twice.any():
        raise ValueError(
            f"A search has two runs of {table['Method'][twice].iloc[0]} with the same settings and seed: keep one of "
            "them."
        )
    values = 100 * pd.DataFrame(map(vars, runs))["value"]
    groups = tried.assign(value=values).groupby(names, dropna=False)["value"]
    means = groups.agg(["mean", "std", "count"]).reset_index()

    best = means.groupby(["Method", "Layers"])["mean"].transform("max")
    mark = (means["mean"] == best).map({True: "**", False: ""})
    quality = pd.Series(list(map(tables.mean_and_std, means["mean"], means["std"])))

    rows = means[names].map(_text)
    rows[tables.metric_label(runs[0].metric)] = mark + quality + mark
    rows["Seeds"] = means["count"].astype(str)
    return tables.row_dicts(rows)


def setting_rows(runs: Sequence[RunResult]) -> list[dict[str, str]]:
    """The main settings, one row per run."""
    return tables.without_empty_columns(_settings(runs, SETTINGS).map(_text)) if runs else []


def _settings(runs: Iterable[RunResult], names: Sequence[str]) -> pd.DataFrame:
    rows = []
    for run in runs:
        row: dict[str, Any] = {"Method": run.label, "Layers": run.layers, "Seed": run.seed}
        for name in names:
            value = run.settings.get(name)
            # A list is no key of a group.
            row[name] = " ".join(map(str, value)) if isinstance(value, list) else value
        rows.append(row)
    return pd.DataFrame(rows)


def _text(value: Any) -> str:
    return tables.text_of(value, "{:g}" if isinstance(value, float) else "{}")


def facts(records: Sequence[TaskRecord]) -> dict[str, str]:
    """What figures depend on besides their settings, each value once: machines, versions, which epoch counts, ..."""
    titles = ("Hardware", "Versions", "Commits", "Epoch that counts", "Latency of exports")
    values: dict[str, dict[str, None]] = {title: {} for title in titles}
    for record in records:
        # What was not trained has no epoch, and records of earlier programs of one's own do not say it.
        if isinstance(record, RunResult) and record.seconds > 0 and "num_train_epochs" in record.settings:
            is_best = bool(record.settings.get("load_best_model_at_end"))
            values["Epoch that counts"][
                "the best one on the rows that are reported" if is_best else "the last one"
            ] = None
        values["Hardware"][tables.machine_label(record.hardware)] = None
        values["Versions"][_pairs(record.versions)] = None
        values["Commits"][record.commit] = None
        if isinstance(record, ExportResult):
            values["Latency of exports"][_pairs(record.conditions)] = None

    texts = pd.Series(values).map("; ".join)
    return dict(texts[texts != ""])


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())
