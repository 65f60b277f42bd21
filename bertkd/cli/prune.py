"""Prune a fine-tuned teacher to a budget, fit what is left to it, and distill it.

    bertkd prune --teacher_model_name_or_path outputs/teacher --task_name sst2 --budget 50% --unit gflops \
        --output_dir outputs/half

The heads and neurons that the teacher's own predictions depend on least are removed. A measured table of costs and
harms says how many in each layer. Several budgets, from the largest to the smallest, are called rungs: each student is
pruned from the one before, or with --rungs false from the teacher.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, check_outputs, note_slow_int8, print_summary, quiet
from bertkd.cli.options import MeasuringOptions, TrainOptions
from bertkd.cli.parser import parse_runs
from bertkd.cli.rules import COUNT
from bertkd.pipeline.limits import UNITS, Limit
from bertkd.pipeline.pruning import Pruning, train_pruned
from bertkd.pruning import PrunedKDConfig
from bertkd.pruning.harms import UNIT_ORDERS
from bertkd.pruning.method import METHODS
from bertkd.records import RunResult


@dataclass
class PruneOptions(MeasuringOptions, TrainOptions):
    """To what the teacher is pruned, and how."""

    budget: list[str] = field(
        default_factory=list,
        metadata={
            "help": "The most that the student may cost, in --unit, or as a share of what the teacher costs such as "
            "50%. Several, falling, give a student each."
        },
    )
    rungs: bool = field(
        default=True,
        metadata={
            "help": "Let each student of several budgets start from the one before. Otherwise each is pruned out of "
            "the teacher, whose harms are measured once."
        },
    )
    unit: str = field(
        default="ms",
        metadata={
            "choices": UNITS,
            "help": "The unit of the budget: ms (measured here), mb (of the file), parameters or gflops.",
        },
    )
    pruning_rows: int = field(
        default=2048,
        metadata={
            "help": "At most this many training rows, drawn by the seed, say what is pruned and how it is fitted.",
            "range": COUNT,
        },
    )
    unit_order: str = field(
        default="measured",
        metadata={
            "choices": UNIT_ORDERS,
            "help": "How it is chosen which heads and neurons of a layer stay: by their score, by the error that the "
            "others cannot make up for, or by the one of both that is measured to harm less.",
        },
    )
    reconstruct: bool = field(
        default=True, metadata={"help": "Fit the output projections of what is left to the teacher."}
    )


def pruning_of(options: PruneOptions) -> Pruning:
    """The budgets that are asked for."""
    limits = [Limit(text, options.unit) for text in options.budget]
    return Pruning(
        limits,
        options.deployment(),
        options.pruning_rows,
        options.reconstruct,
        has_rungs=options.rungs,
        unit_order=options.unit_order,
    )


def train(options: TaskRun[PruneOptions, PrunedKDConfig]) -> list[RunResult]:
    """Prunes and distills for every budget."""
    pruning = pruning_of(options.own)
    resolve.required_teacher(options.models)
    data = resolve.task_data(options)
    teacher = resolve.teacher(options, data.task)
    return train_pruned(
        options.experiment(), data, teacher, pruning, options.config, options.models.ignore_weak_teacher
    )


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Prunes and distills, once for each seed."""
    quiet()
    runs: list[TaskRun[PruneOptions, PrunedKDConfig]] = parse_runs(
        "prune", str(__doc__), PrunedKDConfig, argv, dict(METHODS[0].defaults), PruneOptions
    )
    check_outputs(runs)
    if runs[0].own.dry_run and runs[0].config.world_size > 1:
        raise ValueError("--dry_run of bertkd prune measures in one process: leave the launcher out.")
    note_slow_int8(runs[0].own)
    by_seed = [train(options) for options in runs]

    pruning = pruning_of(runs[0].own)
    if runs[-1].config.process_index == 0:
        # The mean of students of different budgets says nothing: each budget has a table. A dry run has none.
        for limit, results in zip(pruning.limits, zip(*by_seed, strict=True), strict=False):
            print_summary(results, [str(pruning.folder_of(limit, options.config)) for options in runs])
    return [result for results in by_seed for result in results]
