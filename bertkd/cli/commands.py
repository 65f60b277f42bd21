"""What the commands share: one training per seed, the summary at the end, and a user's mistake as one sentence."""

import gc
import os
import signal
import sys
import tempfile
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import numpy as np
import torch
from tqdm import tqdm
from transformers.utils import logging

import bertkd
from bertkd import DistillationConfig
from bertkd.atomic import ERROR_LOG, storage_problem, write_text
from bertkd.cli import process_count
from bertkd.cli.options import CorpusOptions, MeasuringOptions, TaskOptions, TrainOptions
from bertkd.cli.parser import Config, Options, Own, command_line, note, option_value, parse_runs
from bertkd.efficiency import is_fast_in_int8
from bertkd.metrics import main_value
from bertkd.pipeline.experiment import Finished, finished, output_folder
from bertkd.pipeline.folders import check_output, check_separate
from bertkd.pipeline.hub import check_login
from bertkd.records import RunResult, StageResult, terminal_table
from bertkd.records.secrets import text_without_secrets

__all__ = [
    "CORPUS_DEFAULTS",
    "check_outputs",
    "note_slow_int8",
    "print_summary",
    "quiet",
    "run_or_resume",
    "run_safely",
    "train_on_corpus",
    "train_seeds",
]

# A training without a metric keeps the last model, as there is nothing to choose by.
CORPUS_DEFAULTS = {"load_best_model_at_end": False, "metric_for_best_model": "loss"}

# The traceback of an error that nobody foresaw.
LOG = f"{ERROR_LOG}.log"
# Words in errors of gloo and NCCL that mean: another process of this run has died.
OF_ANOTHER_PROCESS = ("Connection closed by peer", "Connection reset by peer", "remote process exited")
PACKAGE = Path(bertkd.__file__).parent
GOES_ON = "A training goes on from its last checkpoint when the same command is started again."
STANDARD_OUTPUT = 1
# The exit codes of programs that a signal stopped: 128 and the number of SIGINT, or of SIGPIPE.
STOPPED_BY_USER, STOPPED_READING = 130, 141

TaskRun = Options[TaskOptions, Own, Config]
CorpusRun = Options[CorpusOptions, Own, Config]
AnyRun = TypeVar("AnyRun", bound=Options[Any, Any, Any])


def quiet() -> None:
    """Leaves progress bars and the commands' own lines; `transformers` reports each weight that it loads."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # Without a GPU, every data loader says that it cannot pin memory.
    warnings.filterwarnings("ignore", message=".*'pin_memory' argument is set as true")


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
    results = _train_all(runs, train_one, RunResult)

    is_main = runs[-1].config.process_index == 0
    if has_summary and results and is_main:
        print_summary(results, [str(options.config.output_dir) for options in runs])
    return results


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
    runs: list[CorpusRun[Own, Config]] = parse_runs(
        command, description, config_class, argv, all_defaults, own_class, CorpusOptions
    )
    return _train_all(runs, train_one, StageResult)


def _train_all(
    runs: Sequence[AnyRun], train_one: Callable[[AnyRun], Finished | None], record_class: type[Finished]
) -> list[Finished]:
    """Trains each run that no earlier start has finished; returns the records."""
    check_outputs(runs)
    results = []

    for options in runs:
        result = run_or_resume(options, train_one, record_class)
        if result is not None:
            results.append(result)
        # Frees a finished run's models before the next one loads its own.
        gc.collect()
    return results


def run_or_resume(
    options: AnyRun,
    train_one: Callable[[AnyRun], Finished | None],
    record_class: type[Finished] = RunResult,  # type: ignore[assignment]
) -> Finished | None:
    """Trains one run, unless an earlier start of the same command finished it.

    Args:
        options: the run.
        train_one: trains it; None where it ends without a record.
        record_class: what the training leaves, see `finished`.
    """
    return finished(record_class, options.experiment(), options.config) or train_one(options)


def check_outputs(runs: Sequence[Options[Any, Any, Any]]) -> None:
    """Checks the output folder of every run and the login for an upload, before the first one starts.

    Raises:
        ValueError, OSError: see `check_separate`, `check_output` and `check_login`.
    """
    for options in runs:
        models, folder = options.models, output_folder(options.config)
        inputs = {
            "--model_name_or_path": models.model_name_or_path,
            "--teacher_model_name_or_path": models.teacher_model_name_or_path,
            "--tokenizer_name": models.tokenizer_name,
        }
        check_separate(folder, inputs)
        if not getattr(options.own, "dry_run", False):
            check_output(folder)
            if options.config.process_index == 0:
                check_login(options.config)
        check_launcher(options.config)


def check_launcher(config: DistillationConfig) -> None:
    """Checks that each process has the whole model: the commands evaluate models that no optimizer belongs to.

    Raises:
        ValueError: FSDP or DeepSpeed would split it.
    """
    switches = [os.environ.get(f"ACCELERATE_USE_{name}", "").lower() for name in ("FSDP", "DEEPSPEED")]
    if config.fsdp or config.deepspeed or {"true", "1"} & set(switches):
        raise ValueError(
            "FSDP and DeepSpeed split a model over GPUs, which the commands do not bear: they evaluate models before "
            "and after the training. An encoder fits into one GPU many times: launch with the config of `bertkd "
            "configs accelerate/multi_gpu`."
        )


def note_slow_int8(options: MeasuringOptions) -> None:
    """Says so where int8 is asked for, and the CPU does not compute in it."""
    if options.precision == "int8" and options.device == "cpu" and not is_fast_in_int8():
        note(
            "this CPU has no instructions for int8, which saves memory here and may take longer than float32 in the "
            "same engine: compare both with `bertkd bench`."
        )


def print_summary(results: Sequence[RunResult], folders: Sequence[str]) -> None:
    """Prints what was trained, and where it lies."""
    rows = []
    for result in results:
        row = {"seed": str(result.seed), "method": result.method}
        row |= {"budget": result.budget} if result.budget else {}
        row |= {"task": result.task, "metric": result.metric}
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


def run_safely(main: Callable[[], Any], name: str, argv: Sequence[str] | None = None) -> None:
    """Runs a command: every error is one sentence, and a group of processes ends cleanly.

    Args:
        main: the command.
        name: how it was called, such as "bertkd kd".
        argv: the words after the name, whose `--output_dir` gets the log of an error that nobody foresaw; None for
            those of this process.
    """
    try:
        with _told_to_stop():
            main()
    except KeyboardInterrupt:
        print(f"\n{name}: stopped by Ctrl-C. {GOES_ON}", file=sys.stderr)
        sys.exit(STOPPED_BY_USER)
    except BrokenPipeError:
        # Whoever reads the output, such as `head`, has enough of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), STANDARD_OUTPUT)
        sys.exit(STOPPED_READING)
    except Exception as error:
        if os.environ.get("BERTKD_TRACEBACK", "0") != "0":
            raise
        # The sentence gets a line of its own, and not the end of a bar.
        for bar in [*getattr(tqdm, "_instances", ())]:
            bar.close()
        sys.exit(f"{name}: {sentence_of(error, name, argv)}")

    if torch.distributed.is_initialized():
        # The teardown of gloo on a CPU often aborts a process after everything succeeded.
        torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


@contextmanager
def _told_to_stop() -> Iterator[None]:
    """Within, a SIGTERM ends the program as an exception, so that files that are half written are removed.

    It is how clusters and containers stop a program. One of several processes may wait for another one, where Python
    does not come to handle a signal: it ends at once.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or process_count() > 1:
        yield
        return

    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(number: int, frame: FrameType | None) -> None:
    # A second one is not to interrupt the cleanup.
    signal.signal(number, signal.SIG_IGN)
    raise SystemExit(128 + number)


# ---- errors ----


def sentence_of(error: Exception, name: str, argv: Sequence[str] | None) -> str:
    """What a user is told of an error; what nobody foresaw is also written to a log, which the sentence names."""
    message = _message(error)
    has_own_sentence = isinstance(error, (ValueError, OSError, ImportError)) and _is_of_bertkd(error)
    if not has_own_sentence or getattr(error, "errno", None) is not None:
        problem = storage_problem(error)
        if problem is not None:
            return f"{problem}\n(BERTKD_TRACEBACK=1 shows where)"

    if _is_about_memory(error):
        where = "the GPU" if isinstance(error, torch.OutOfMemoryError) else "this machine"
        message = (
            f"the memory of {where} is full. Take a smaller --per_device_train_batch_size with more "
            "--gradient_accumulation_steps, a smaller --per_device_eval_batch_size or a shorter --max_seq_length. "
            f"{GOES_ON}"
        )
    elif has_own_sentence:
        return f"{message}\n(BERTKD_TRACEBACK=1 shows where)"
    elif not isinstance(error, (ValueError, OSError, ImportError)):
        if process_count() > 1 and any(text in str(error) for text in OF_ANOTHER_PROCESS):
            return "another process has ended: see what it says, if it could."
        message = (
            f"an error stopped it that bertkd did not foresee, which is a fault of bertkd: {type(error).__name__}: "
            f"{message} Please report it with the log."
        )
    return f"{message}\nThe log: {_write_log(error, name, argv)}"


def _message(error: Exception) -> str:
    """The text of an error; the system's errors without their numbers."""
    if isinstance(error, OSError) and error.strerror:
        files = [str(file) for file in (error.filename, error.filename2) if file is not None]
        return f"{error.strerror}{': ' if files else ''}{' -> '.join(files)}."
    text = str(error).strip()
    return text if text.endswith((".", "!", "?")) or not text else f"{text}."


def _is_about_memory(error: Exception) -> bool:
    texts = ("can't allocate memory", "not enough memory", "out of memory", "is killed by signal: Killed")
    is_known = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return is_known or (isinstance(error, RuntimeError) and any(text in str(error) for text in texts))


def _is_of_bertkd(error: Exception) -> bool:
    """Whether an error was raised in this package, whose sentences say what to do, and not in a library."""
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and Path(frames[-1].filename).is_relative_to(PACKAGE)


def _write_log(error: Exception, name: str, argv: Sequence[str] | None) -> Path:
    """Writes where an error happened, into the output folder where there is one; returns the path of the log."""
    words = list(sys.argv[1:] if argv is None else argv)
    command = command_line(name.removeprefix("bertkd "), words)
    text = text_without_secrets(f"{command}\n\n{''.join(traceback.format_exception(error))}")

    folder, rank = option_value(words, "output_dir"), os.environ.get("RANK", "0")
    for place in (*([folder] if folder else []), tempfile.gettempdir()):
        path = Path(place).absolute() / (LOG if rank == "0" else LOG.replace(".", f"-{rank}."))
        # An output folder that is not there was never written to, and a log alone is no reason to make one.
        if not path.parent.is_dir():
            continue
        try:
            write_text(path, text)
        except OSError:
            continue
        return path
    print(text, file=sys.stderr)
    return Path("above")
