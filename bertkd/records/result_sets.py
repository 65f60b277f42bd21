"""Sets of runs that belong in one table, told by the folders in which their results files lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bertkd.records import (
    ExportResult,
    RunResult,
    read_result,
    result_files,
)

__all__ = [
    "ASIDE",
    "RECORDS",
    "ResultSet",
    "read_export",
    "read_sets",
    "set_name",
]

RECORDS = ("results.json", "export_result.json")  # as recipes write them, into a folder for each run


ASIDE = ("grid", "ablation")  # folders whose runs have a table beside the main ones


@dataclass
class ResultSet:
    """Runs that belong in one table, and the search runs beside them."""

    name: str
    runs: list[RunResult] = field(default_factory=list)
    supernets: list[RunResult] = field(default_factory=list)  # each with many sizes
    grid: list[RunResult] = field(default_factory=list)
    ablation: list[RunResult] = field(default_factory=list)
    exports: list[ExportResult] = field(default_factory=list)

    def add(self, result: RunResult, parents: Sequence[str]) -> None:
        """Puts a result where it belongs, by the folders that it lies in."""
        if "grid" in parents:
            self.grid.append(result)
        elif result.subnetworks:
            self.supernets.append(result)
        else:
            (self.ablation if "ablation" in parents else self.runs).append(result)


def read_sets(folder: Path) -> list[ResultSet]:
    """The results below `folder`, by set: the unnamed one first, then by name."""
    results = {path.relative_to(folder): read_result(path) for path in result_files(folder)}
    sets: dict[str, ResultSet] = {}
    for path, result in results.items():
        name = set_name(path, result)
        sets.setdefault(name, ResultSet(name)).add(result, path.parts[:-1])
    for path in sorted(folder.rglob("*export_result.json")):
        inside = path.relative_to(folder)
        if not set(ASIDE) & set(inside.parts) and not path.name.startswith("."):
            export = read_export(path)
            name = set_name(inside, export)
            sets.setdefault(name, ResultSet(name)).exports.append(export)
    return [sets[name] for name in sorted(sets)]


def read_export(path: Path) -> ExportResult:
    """The result of an export.

    Raises:
        ValueError: the file holds none; the message names it.
    """
    try:
        return ExportResult.read(path)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} is no result of an export: {error}") from error


def set_name(path: Path, result: RunResult | ExportResult) -> str:
    """The set that a result belongs to, by its path below the results: the unnamed one where the folders only name
    its task or method, or are the run's own, which a recipe has left."""
    folders = path.parts[:-1]
    if path.name in RECORDS:
        folders = tuple(part for part in folders if not part.startswith("seed-"))[:-1]
    own = [part for part in folders[:1] if part not in (*ASIDE, result.task) and not result.method.startswith(part)]
    return own[0] if own else ""
