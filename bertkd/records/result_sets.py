"""Sets of runs that belong in one report, told by the folders in which their results files lie."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bertkd.dynabert.config import STAGES
from bertkd.records.results import ExportResult, RunResult, TaskRecord, read_result, result_files
from bertkd.records.tables import task_label

__all__ = ["ReportSet", "read_sets"]

# The folder of one of several seeds.
SEED = re.compile(r"seed-\d+")
# The folder of one of several budgets of a command.
BUDGET = re.compile(r"(ms|mb|parameters|gflops)-\d.*")
KINDS = ("runs", "exports", "grid", "ablation")


@dataclass
class ReportSet:
    """Runs that belong together, and what was made of them.

    Attributes:
        name: may be empty.
        runs: the main runs, supernets too.
        exports: the exported models.
        grid: runs of a search over settings.
        ablation: runs that leave a part of a method out.
    """

    name: str
    runs: Sequence[RunResult] = ()
    exports: Sequence[ExportResult] = ()
    grid: Sequence[RunResult] = ()
    ablation: Sequence[RunResult] = ()

    @property
    def title(self) -> str:
        """The heading of the set."""
        return self.name or "Main runs"

    @property
    def records(self) -> list[TaskRecord]:
        """All results: the runs of every kind, then the exports."""
        return [*self.runs, *self.ablation, *self.grid, *self.exports]

    @property
    def tasks(self) -> list[str]:
        """The tasks, by the name that readers see."""
        return sorted({record.task for record in self.records}, key=task_label)

    def of_task(self, task: str) -> ReportSet:
        """The part of the set that belongs to one task."""
        parts: dict[str, Any] = {}
        for kind in KINDS:
            parts[kind] = [record for record in getattr(self, kind) if record.task == task]
        return ReportSet(self.name, **parts)


def read_sets(folder: Path) -> list[ReportSet]:
    """Reads the results below `folder`, by set: the unnamed one first, then by name.

    The first folder below `folder` names a set, unless it bears the name of the task or the method, or is the run's
    own. Files below a folder `grid` are runs of a search, those below `ablation` leave a part of a method out.

    Raises:
        FileNotFoundError: there is no results file. ValueError: a file is broken; the message names it.
    """
    sets: dict[str, dict[str, list[Any]]] = {}
    exports = sorted(folder.rglob(f"[!.]*{ExportResult.FILE}")) + sorted(folder.rglob(ExportResult.FILE))

    for path in [*result_files(folder), *exports]:
        place, kind = path.relative_to(folder), "exports" if path in exports else "runs"
        if "grid" in place.parts or "ablation" in place.parts:
            if kind == "exports":
                continue
            kind = "grid" if "grid" in place.parts else "ablation"

        record = ExportResult.read(path) if kind == "exports" else read_result(path)
        sets.setdefault(_set_name(place, record), {}).setdefault(kind, []).append(record)

    reports = []
    for name, parts in sorted(sets.items()):
        reports.append(ReportSet(name, **parts))
    return reports


def _set_name(place: Path, record: TaskRecord) -> str:
    """The set that a result belongs to, by its path below the results; empty for the unnamed one."""
    folders = place.parts[:-1]
    # A command leaves its record in a folder of its own, with one below it for each of several seeds, and in that of a
    # seed one for each of several budgets.
    if place.name == record.FILE:
        seed = next((index for index, name in enumerate(folders) if SEED.fullmatch(name)), len(folders))
        # A student of several budgets, and a stage, have a folder in that of their command.
        if seed == len(folders) > 0 and _is_part(folders[-1], record):
            seed -= 1
        folders = folders[: max(0, seed - 1)]

    if not folders or folders[0] in ("grid", "ablation", record.task) or record.method.startswith(folders[0]):
        return ""
    return folders[0]


def _is_part(folder: str, record: TaskRecord) -> bool:
    """Whether a folder is that of one of a command's several models."""
    is_stage = folder in STAGES and record.method.startswith("dynabert")
    return is_stage or BUDGET.fullmatch(folder) is not None
