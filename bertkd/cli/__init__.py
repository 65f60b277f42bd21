"""The command `bertkd`: one module for each of its commands."""

import difflib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["COMMANDS", "IN_ONE_PROCESS", "main", "process_count", "run_command"]

# By these a launcher, torchrun or one of MPI, says how many processes there are, as accelerate reads it.
PROCESS_COUNTS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")
# What each command does, in the order of `bertkd --help`. The module is the name with underscores.
COMMANDS = {
    "compress": "Go from a fine-tuned teacher and a budget to a folder to deploy.",
    "demo": "Prune and distill a small model on built-in data: a table and a chart.",
    "finetune": "Fine-tune a teacher, or the student that distillation has to beat.",
    "kd": "Distill by the teacher's softened predictions (vanilla KD).",
    "patient-kd": "Distill by predictions and the [CLS] states of intermediate layers.",
    "distilbert": "Pretrain a general student with half of the layers on plain text.",
    "tinybert-general": "Pretrain a small student of another shape on plain text.",
    "tinybert": "Distill attention, states and predictions on augmented rows.",
    "dynabert": "Train one supernet that runs at many widths and depths.",
    "mlm": "Train a masked language model on plain text.",
    "augment": "Augment a task's training rows as TinyBERT does.",
    "prune": "Prune a teacher to a budget, fit what is left, and distill it.",
    "search": "Find the best sub-network of a supernet within a budget.",
    "extract": "Take one sub-network out of a supernet.",
    "shrink": "Make a model smaller without training.",
    "export": "Export to OpenVINO, ONNX Runtime or PyTorch, and check the accuracy.",
    "bench": "Measure parameters, FLOPs, memory and latency in every engine.",
    "report": "Make a page, charts and tables from results files.",
    "submit": "Predict GLUE's test sets for the leaderboard.",
    "env": "Show versions, hardware, instruction sets and engines.",
    "configs": "List the shipped settings, or print one of them.",
}
# Commands that measure, or write files that two processes would write at once.
IN_ONE_PROCESS = {"compress", "demo", "search", "extract", "shrink", "export", "bench", "report", "submit"}
HELP = """\
usage: bertkd COMMAND [--OPTION VALUE ...]

Compresses BERT: knowledge distillation, pruning and quantization on current transformers.

commands:
{commands}

`bertkd COMMAND --help` lists the options of a command.
Train on several GPUs: accelerate launch -m bertkd COMMAND ...
"""


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command that `argv` names; default: the command line of this process."""
    try:
        _run(argv)
    except KeyboardInterrupt:
        # Before the command itself has begun, while libraries are loaded.
        sys.exit(130)


def _run(argv: Sequence[str] | None) -> None:
    words = list(sys.argv[1:] if argv is None else argv)

    if not words or words[0] in ("-h", "--help", "help"):
        commands = "\n".join(f"  {name:<18}{text}" for name, text in COMMANDS.items())
        print(HELP.format(commands=commands), end="")
        return
    if words[0] in ("-V", "--version"):
        print(importlib.import_module("bertkd").__version__)
        return

    name = words[0].replace("_", "-")
    known = [*COMMANDS, *_commands_of_methods()]
    if name not in known:
        close = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {close[0]}?" if close else "."
        sys.exit(f"bertkd: there is no command {words[0]}{hint} `bertkd --help` lists them.")
    run_command(name, words[1:])


def process_count() -> int:
    """How many processes a launcher has started."""
    return max(int(os.environ.get(name, "1")) for name in PROCESS_COUNTS)


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """Runs one command with its arguments; a user's mistake is one sentence.

    Args:
        name: a key of `COMMANDS`, or the command of a method that has no module here.
        argv: the words after the command; None for the command line of a recipe's process.
    """
    commands = importlib.import_module("bertkd.cli.commands")
    if name in COMMANDS:
        main_of_command = importlib.import_module(f"bertkd.cli.{name.replace('-', '_')}").main
    else:
        main_of_command = importlib.import_module("bertkd.cli.kd").main_of(_commands_of_methods()[name])

    def run() -> None:
        if name in IN_ONE_PROCESS and process_count() > 1:
            raise ValueError(
                f"bertkd {name} runs in one process: start it without a launcher. Commands that train, such as "
                "bertkd prune, run under one, and bertkd export makes what is deployed of their student."
            )
        main_of_command(argv)

    commands.run_safely(run, f"bertkd {name}", argv)


def _commands_of_methods() -> dict[str, Any]:
    """The methods by command, of those whose command needs nothing of its own and so has no module here."""
    methods = importlib.import_module("bertkd.methods").all_methods()
    return {method.command: method for method in methods if method.command not in COMMANDS}
