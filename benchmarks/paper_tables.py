"""Makes the tables that show a paper's claims beside our results at its size, each as a share of its own teacher.

python benchmarks/paper_tables.py
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from bertkd.atomic import write_text
from bertkd.records import RunResult, markdown_table, method_label, task_label
from bertkd.records.papers import read_reference_points
from bertkd.records.result_sets import read_sets
from bertkd.records.tables import fill_markers, mean_and_std

ROOT = Path(__file__).parents[1]
DOCS, RESULTS, PAPERS = ROOT / "docs", ROOT / "docs" / "results", ROOT / "benchmarks" / "papers.yaml"
# The set whose teacher has the papers' size.
SET = "base"
# The last stage of DynaBERT that was run on all tasks, and the last one with all sizes.
WIDTHS, SIZES = "dynabert-width", "dynabert-depth"
# The tables: a page and its markers, the paper, how the names of the rows begin, and the stage of sub-networks.
TABLES = (
    ("patient_kd.md", "beside the paper", "Patient-KD", ("Fine-tuned", "KD", "PKD"), SIZES),
    ("kd.md", "beside the paper", "Patient-KD", ("Fine-tuned", "KD"), SIZES),
    ("dynabert.md", "widths beside the paper", "DynaBERT", ("width",), WIDTHS),
    ("dynabert.md", "beside the paper", "DynaBERT", ("width",), SIZES),
)
# The papers' metrics; of the other tasks the accuracy.
METRICS = {"cola": "matthews_correlation", "stsb": "spearmanr"}
# The authors' script trains three layers with the last of the teacher's.
OTHER_NAMES = {"PKD, 3 layers": "PKD-last, 3 layers"}

# Shares of the teacher in percent, one for each seed, by model and task.
Shares = dict[str, dict[str, list[float]]]


def our_shares(runs: Sequence[RunResult], supernet: str = SIZES) -> Shares:
    """The shares of our models, by the names that papers.yaml has for theirs.

    Args:
        runs: of one set.
        supernet: the method whose sub-networks count.
    """
    teachers = {run.task: run for run in runs if run.method == "teacher"}
    shares: Shares = {}

    def add(name: str, task: str, metrics: Mapping[str, float]) -> None:
        metric = METRICS.get(task, "accuracy")
        share = 100 * metrics[metric] / teachers[task].metrics[metric]
        shares.setdefault(name, {}).setdefault(task, []).append(share)

    for run in runs:
        if run.method == supernet:
            for size in run.subnetworks:
                add(f"width {size.width:g}, depth {size.depth:g}", run.task, size.metrics)
        elif not run.subnetworks:
            add(f"{method_label(run.method)}, {run.layers} layers", run.task, run.metrics)
    return shares


def render(paper: Mapping[str, Any], kinds: Sequence[str], ours: Shares) -> str:
    """The table of a paper: for each of its models that we have the share it keeps of its teacher, there and here.

    Args:
        paper: as `read_reference_points` gives it.
        kinds: how the names of those models begin that belong in the table.
        ours: our shares.
    """
    whole, rows = paper["reference"]["scores"], []
    for model in paper["models"]:
        name = OTHER_NAMES.get(model["name"], model["name"])
        found = ours.get(name, {})
        tasks = sorted(set(found) & set(model["scores"]) & set(whole), key=task_label)
        if not tasks or not name.startswith(tuple(kinds)):
            continue

        row, means = {"Model": name}, []
        for task in tasks:
            theirs, shares = 100 * model["scores"][task] / whole[task], found[task]
            means.append((theirs, fmean(shares)))
            row[f"{task_label(task)}, paper"] = f"{theirs:.1f}"
            std = stdev(shares) if len(shares) > 1 else math.nan
            row[f"{task_label(task)}, here"] = mean_and_std(fmean(shares), std)
        row["Mean, paper"], row["Mean, here"] = (f"{fmean(column):.1f}" for column in zip(*means, strict=True))
        rows.append(row)
    return markdown_table(rows)


def pages() -> dict[Path, str]:
    """The pages as they should be."""
    (runs,) = (results.runs for results in read_sets(RESULTS) if results.name == SET)
    papers = {paper["paper"]: paper for paper in read_reference_points(PAPERS)}

    made: dict[Path, str] = {}
    for name, marker, paper, kinds, supernet in TABLES:
        page = made.get(DOCS / name) or (DOCS / name).read_text(encoding="utf-8")
        table = render(papers[paper], kinds, our_shares(runs, supernet))
        made[DOCS / name] = fill_markers(page, marker, table)
    return made


if __name__ == "__main__":
    for path, text in pages().items():
        write_text(path, text)
        print(f"wrote {path.relative_to(ROOT)}")
