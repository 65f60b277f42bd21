"""What the commands share: one training per seed, the summary at the end, and a user's mistake as one sentence."""

import gc
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers.utils import logging

from bertkd.atomic import storage_problem
from bertkd.cli.options import CorpusOptions, TaskOptions, TrainOptions
from bertkd.cli.parser import Config, Options, Own, parse_runs
from bertkd.metrics import main_value
from bertkd.pipeline.experiment import finished
from bertkd.records import RunResult, StageResult, terminal_table

__all__ = [
    "CORPUS_DEFAULTS",
    "print_summary",
    "quiet",
    "run_or_resume",
    "run_safely",
    "train_on_corpus",
    "train_seeds",
]

# A training without a metric keeps the last model, as there is nothing to choose by.
CORPUS_DEFAULTS = {"load_best_model_at_end": False, "metric_for_best_model": "loss"}

TaskRun = Options[TaskOptions, Own, Config]
CorpusRun = Options[CorpusOptions, Own, Config]


def quiet() -> None:
    """Leaves progress bars and the commands' own lines; `transformers` reports each weight that it loads."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def train_seeds(
    command: str,
    description: str,
    config_class: type[Config],
    train_one: Callable[[TaskRun[Own, Config]], RunResult | None],
    argv: Sequence[str] | None,
    defaults: dict[str, Any] | None = None,
    own_class: type[Own] = TrainOptions,  # type: ignore[assignment]
    has_summary: bool = True,
) -> list[RunResult]:
    """The body of every command that trains on a task: one training per seed, or what an earlier start left of it.

    Args:
        command, description, config_class, argv, defaults, own_class: see `parse_runs`.
        train_one: trains one run; None where it ends without a record.
        has_summary: whether a table of all runs is printed.

    Returns:
        The records.
    """
    quiet()
    runs: list[TaskRun[Own, Config]] = parse_runs(command, description, config_class, argv, defaults, own_class)
    results = []

    for options in runs:
        result = run_or_resume(options, train_one)
        if result is not None:
            results.append(result)
        # Frees a finished run's models before the next one loads its own.
        gc.collect()

    is_main = runs[-1].config.process_index == 0
    if has_summary and results and is_main:
        print_summary(results, [str(options.config.output_dir) for options in runs])
    return results


def run_or_resume(
    options: TaskRun[Own, Config], train_one: Callable[[TaskRun[Own, Config]], RunResult | None]
) -> RunResult | None:
    """Trains one run, unless an earlier start of the same command finished it."""
    return finished(RunResult, options.experiment(), options.config) or train_one(options)


def train_on_corpus(
    command: str,
    description: str,
    config_class: type[Config],
    train_one: Callable[[CorpusRun[Own, Config]], StageResult | None],
    argv: Sequence[str] | None,
    defaults: dict[str, Any],
    own_class: type[Own],
) -> list[StageResult]:
    """The body of every command that trains on plain text: one training per seed, or what an earlier start left."""
    quiet()
    all_defaults = {**CORPUS_DEFAULTS, **defaults}
    runs = parse_runs(command, description, config_class, argv, all_defaults, own_class, CorpusOptions)
    results = []

    for options in runs:
        result = finished(StageResult, options.experiment(), options.config) or train_one(options)
        if result is not None:
            results.append(result)
    return results


def print_summary(results: Sequence[RunResult], folders: Sequence[str]) -> None:
    """Prints what was trained, and where it lies."""
    rows = []
    for result in results:
        row = {"seed": str(result.seed), "method": result.method, "task": result.task, "metric": result.metric}
        if result.teacher_metrics:
            row["teacher"] = f"{main_value(result.teacher_metrics, result.metric):.4f}"
        row["before"] = f"{main_value(result.metrics_before, result.metric):.4f}"
        row["after"] = f"{result.value:.4f}"
        row["parameters"] = f"{result.parameters / 1e6:.1f}M"
        row["size"] = f"{result.size_mb:.0f} MB"
        if result.speedup is not None:
            row["speed-up"] = f"{result.speedup:.2f}x"
        rows.append(row)

    print(f"\n{terminal_table(rows)}")
    print(f"\nModel, tokenizer, card and {RunResult.FILE}: {', '.join(folders)}")

    if len(results) > 1:
        values = [result.value for result in results]
        mean, deviation = np.mean(values), np.std(values, ddof=1)
        print(f"{results[0].metric}: {mean:.4f} ± {deviation:.4f} over {len(values)} seeds")


def run_safely(main: Callable[[], Any], name: str) -> None:
    """Runs a command: a user's mistake is one sentence, and a group of processes ends cleanly."""
    try:
        main()
    except Exception as error:
        problem = storage_problem(error)
        is_sentence = isinstance(error, (ValueError, OSError, ImportError))
        if os.environ.get("BERTKD_TRACEBACK") or not (problem or is_sentence):
            raise
        sys.exit(f"{name}: {problem or error}\n(BERTKD_TRACEBACK=1 shows where)")

    if torch.distributed.is_initialized():
        # The teardown of gloo on a CPU often aborts a process after everything succeeded.
        torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
