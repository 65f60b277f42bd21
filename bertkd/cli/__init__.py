"""The command `bertkd`: one module for each of its commands."""

import importlib
import sys
from collections.abc import Sequence

__all__ = ["COMMANDS", "main", "run_command"]

# What each command does, in the order of `bertkd --help`. The module is the name with underscores.
COMMANDS = {
    "compress": "From a fine-tuned teacher and a budget to a folder to deploy.",
    "demo": "Distill a small model on built-in data, and compare.",
    "finetune": "Fine-tune a model on a task: a teacher, or the student that distillation has to beat.",
    "kd": "Distill by the teacher's softened predictions (vanilla KD).",
    "patient-kd": "Distill by predictions and the [CLS] states of intermediate layers (Patient-KD).",
    "distilbert": "Pretrain a general student of half the layers on plain text (DistilBERT).",
    "tinybert-general": "Pretrain a small student on plain text (TinyBERT, general distillation).",
    "tinybert": "Distill attention, states and predictions on augmented rows (TinyBERT).",
    "dynabert": "Train one network of many widths and depths (DynaBERT).",
    "mlm": "Train a masked language model on plain text.",
    "augment": "Augment a task's training rows as TinyBERT does.",
    "search": "Find the best sub-network of a DynaBERT network within a budget.",
    "extract": "Take one sub-network out of a DynaBERT network.",
    "shrink": "Make a model smaller without training: vocabulary, low rank, shared layers.",
    "export": "Export to OpenVINO, ONNX Runtime or PyTorch, quantized, with the accuracy checked.",
    "bench": "Measure parameters, FLOPs, memory and latency in every engine.",
    "report": "Make a page, charts and tables from results files.",
    "submit": "Predict GLUE's test sets, and write the files of the leaderboard.",
    "env": "Show versions, hardware, instruction sets and engines.",
    "configs": "List the shipped settings, or print one.",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command that `argv` names; default: the command line of this process."""
    argv = list(sys.argv[1:] if argv is None else argv)
    run_command(argv[0], argv[1:])


def run_command(name: str, argv: Sequence[str] | None = None) -> None:
    """Run one command with its arguments."""
    module = importlib.import_module(f"bertkd.cli.{name.replace('-', '_')}")
    run_script = importlib.import_module("bertkd.cli.experiment").run_script
    run_script(lambda: module.main(argv))
