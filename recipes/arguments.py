"""The recipes' arguments: `run_glue.py`'s names, a YAML file, and the command line, which wins over the file."""

import argparse
import copy
import dataclasses
import difflib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from transformers import HfArgumentParser

from bertkd import DistillationConfig

Config = TypeVar("Config", bound=DistillationConfig)

# What a recipe wants of the Trainer where nobody says otherwise: the best epoch by the task's metric is kept, as the
# Patient-KD authors do, and a killed run loses at most one epoch.
RECIPE_DEFAULTS: dict[str, Any] = {
    "output_dir": "outputs",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    "save_total_limit": 1,
    "load_best_model_at_end": True,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 5e-5,
    "num_train_epochs": 4,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "logging_steps": 50,
}


@dataclass
class ModelArguments:
    """Which models take part, and how the student starts."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "The pretrained checkpoint that is trained, or whose layers the student starts from; 'minilm' is "
            "the one of the extra 'demo'."
        },
    )
    teacher_model_name_or_path: str | None = field(default=None, metadata={"help": "The fine-tuned teacher."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Default: the teacher's, or the model's."})
    num_student_layers: int | None = field(
        default=None, metadata={"help": "Keep this many layers; default: the checkpoint as it is."}
    )
    student_layers: str = field(
        default="first", metadata={"help": "Which layers: first, every, last, or 0-based ones such as 0,2,4."}
    )
    init_from: str = field(
        default="pretrained",
        metadata={
            "choices": ["pretrained", "teacher"],
            "help": "Start the student from model_name_or_path (the authors' way), or from the teacher's layers.",
        },
    )
    ignore_weak_teacher: bool = field(
        default=False, metadata={"help": "Go on although the teacher is no better than the majority class."}
    )


@dataclass
class DataArguments:
    """The task: one of GLUE, from the hub or a folder, or own files."""

    task_name: str | None = field(default=None, metadata={"help": "cola sst2 mrpc stsb qqp mnli qnli rte wnli."})
    glue_dir: str | None = field(default=None, metadata={"help": "Folder of official tsv files; default: the hub."})
    train_file: str | None = field(default=None, metadata={"help": "Own csv, tsv, json or parquet file."})
    validation_file: str | None = field(default=None, metadata={"help": "Own file to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "Own file to predict."})
    text_column_names: list[str] | None = field(
        default=None, metadata={"help": "Of own files: the one or two text columns; default: inferred."}
    )
    label_column_name: str = field(default="label", metadata={"help": "Of own files."})
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Of own files: the classes, in the order of their ids; needed where training rows have none."
        },
    )
    max_seq_length: int = field(default=128, metadata={"help": "Longer inputs are cut, in tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only the first rows."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use only the first rows."})


@dataclass
class RecipeArguments:
    """What a recipe does around the training."""

    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep the checkpoints of a finished run."})
    paper: str = field(default="", metadata={"help": "A note for the results file, e.g. what the paper reports."})


@dataclass
class Run(Generic[Config]):
    """All arguments of one training: one seed, one folder."""

    model: ModelArguments
    data: DataArguments
    recipe: RecipeArguments
    training: Config
    command: str

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as JSON; the seed and the output folder are not among it."""
        default = type(self.training)(output_dir="unused", use_cpu=True)
        unimportant = {"output_dir", "seed", "run_name", "use_cpu", "disable_tqdm", "logging_steps"}
        always = {"learning_rate", "num_train_epochs", "per_device_train_batch_size"}
        own = {f.name for f in dataclasses.fields(type(self.training))} - {
            f.name for f in dataclasses.fields(DistillationConfig.__mro__[1])
        }
        training = {
            name: value
            for name, value in self.training.to_dict().items()
            if name not in unimportant
            and not name.startswith(("logging", "hub", "push", "report"))
            and (name in always | own or value != getattr(default, name, None))
        }
        return {**dataclasses.asdict(self.model), **dataclasses.asdict(self.data), **_plain(training)}


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    plain = (str, int, float, bool, list, dict, type(None))
    return {name: value if isinstance(value, plain) else str(value) for name, value in values.items()}


def parse(
    config_class: type[Config], argv: Sequence[str] | None = None, defaults: dict[str, Any] | None = None
) -> list[Run[Config]]:
    """The runs that a command line asks for: one per seed.

    Args:
        config_class: the trainer's config, whose fields become options.
        argv: the command line; default: that of this process.
        defaults: a recipe's own defaults, on top of `RECIPE_DEFAULTS`.

    Raises:
        SystemExit: an option or a key of the file is unknown, or a value has the wrong type.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(
        [ModelArguments, DataArguments, RecipeArguments, config_class],  # type: ignore[arg-type]
        allow_abbrev=False,
        # The options are some 150: an error would be lost behind them.
        usage="%(prog)s [--config FILE] [--OPTION VALUE ...]; --help lists the options",
    )
    parser.add_argument("--config", help="YAML file with any of these options; the command line wins over it.")
    parser.set_defaults(**RECIPE_DEFAULTS, **(defaults or {}))
    config_path, seeds, rest = _split_off(argv)
    if config_path is not None:
        values = _read_yaml(parser, config_path)
        seeds = seeds or [str(seed) for seed in _as_list(values.pop("seed", []))]
        parser.set_defaults(**values)
    seeds = seeds or ["42"]
    command = shlex.join(["python", _script(), *argv])
    return [_run(parser, rest, seed, len(seeds) > 1, command) for seed in seeds]


def _run(parser: HfArgumentParser, argv: list[str], seed: str, several: bool, command: str) -> Run:
    # The metric of the best epoch is the task's, known only with the data: a stand-in lets the config be made.
    parser.set_defaults(metric_for_best_model="loss")
    model, data, recipe, training, _ = parser.parse_args_into_dataclasses([*argv, "--seed", seed])
    if several:
        training.output_dir = str(Path(training.output_dir) / f"seed-{seed}")
    return Run(model, data, recipe, training, command)


def _split_off(argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Takes `--config` and `--seed`, which may name several, from a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--seed", nargs="+", default=[])
    known, rest = parser.parse_known_args(argv)
    for seed in known.seed:
        if not seed.isdigit():
            parser.error(f"argument --seed: {seed!r} is not a whole number.")
    return known.config, known.seed, rest


def _read_yaml(parser: HfArgumentParser, path: str) -> dict[str, Any]:
    known = {action.dest for action in parser._actions}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read the config file {path}: {error}")
    if not isinstance(values, dict):
        parser.error(f"the config file {path} must hold one `option: value` per line.")
    for key in values:
        if key not in known or key in ("config", "help"):
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            parser.error(f"the config file {path} has the unknown option {key!r}{hint}")
    # argparse converts only strings: "5e-5" is one for YAML, and a list is taken as it is.
    return {key: value if isinstance(value, list | bool | None) else str(value) for key, value in values.items()}


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _script() -> str:
    path = Path(sys.argv[0])
    return f"recipes/{path.name}" if path.parent.name == "recipes" else path.name


def with_changes(config: Config, **changes: Any) -> Config:
    """A copy of a config with other values, without running its `__post_init__`, which resets accelerate's state."""
    changed = copy.copy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
