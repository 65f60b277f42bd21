"""Find the best sub-network within a budget, in a supernet that `bertkd dynabert` has trained.

    bertkd search --model_name_or_path outputs/dynabert/finetune --task_name mrpc --budget 10 --unit ms \
        --output_dir outputs/mrpc-10ms

Costs are measured here: milliseconds in the engine and precision that are asked for, or megabytes, parameters or
GFLOPs; --budget 50% is a share of what the whole supernet costs. The candidates that retain the most importance are
measured and, where they are within the budget, evaluated on the validation split. The best of them is written and
measured once more. Nothing is trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from bertkd import DistillationConfig
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, check_outputs, note_slow_int8, quiet
from bertkd.cli.options import ImportanceOptions, MeasuringOptions
from bertkd.cli.parser import one_run, parse_runs
from bertkd.cli.rules import COUNT
from bertkd.pipeline.limits import COST_UNITS, Limit
from bertkd.pipeline.subnetwork_search import find_subnetwork


@dataclass
class SearchOptions(ImportanceOptions, MeasuringOptions):
    """What to look for, and under which conditions a size is measured."""

    budget: str = field(
        default="",
        metadata={
            "help": "The most that the sub-network may cost, in --unit, or as a share of what the whole supernet "
            "costs such as 50%."
        },
    )
    unit: str = field(
        default="ms",
        metadata={
            "choices": COST_UNITS,
            "help": "The unit of the budget: ms (measured here), mb (of the file), parameters or gflops.",
        },
    )
    candidates: int = field(default=6, metadata={"help": "How many sub-networks are evaluated.", "range": COUNT})


def search(options: TaskRun[SearchOptions, DistillationConfig]) -> dict[str, Any]:
    """Searches, and leaves the folder of the best sub-network."""
    limit = Limit(options.own.budget, options.own.unit)
    supernet = options.models.model_name_or_path
    if supernet is None:
        raise ValueError("Name the folder of the trained supernet with --model_name_or_path.")

    return find_subnetwork(
        options.experiment(),
        resolve.task_data(options),
        supernet,
        limit,
        options.own.candidates,
        options.own.deployment(),
        options.own.importance_settings(),
        options.config,
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Searches once."""
    quiet()
    runs: list[TaskRun[SearchOptions, DistillationConfig]] = parse_runs(
        "search", str(__doc__), DistillationConfig, argv, {"alpha": 0.0}, SearchOptions
    )
    options = one_run(runs, "The seed of a search only draws the rows for the importance.")
    check_outputs([options])
    note_slow_int8(options.own)
    return search(options)
