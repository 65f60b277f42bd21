"""Reads command lines: options of dataclasses, a YAML file that the command line wins over, and one run per seed."""

import argparse
import dataclasses
import difflib
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NoReturn, TypeVar

from transformers import HfArgumentParser, TrainingArguments
from transformers.hf_argparser import string_to_bool
from transformers.integrations import get_available_reporting_integrations

from bertkd.cli.options import SHARED, CorpusOptions, ModelOptions, RunOptions, TaskOptions, TrainOptions
from bertkd.cli.rules import (
    COMMAND_NEEDS,
    CONFIG_NEEDS,
    CONFIG_RANGES,
    ONLY_NAMED,
    Range,
    unmet_need,
    unused_options,
    unused_settings,
)
from bertkd.cli.settings_file import read_options
from bertkd.data.glue import GLUE_TASKS, check_task_name
from bertkd.distillation import DistillationConfig
from bertkd.pipeline import Experiment
from bertkd.pipeline.experiment import output_folder
from bertkd.pipeline.training import TRAINING_DEFAULTS
from bertkd.records.secrets import words_without_secrets

__all__ = [
    "CommandParser",
    "Options",
    "PlainParser",
    "command_line",
    "note",
    "one_run",
    "option_value",
    "parse_runs",
    "typed_value",
]

Config = TypeVar("Config", bound=DistillationConfig)
Own = TypeVar("Own", bound=RunOptions)
Data = TypeVar("Data")
# The types of an object that never changes.
ConfigOf = TypeVar("ConfigOf", bound=DistillationConfig, covariant=True)
OwnOf = TypeVar("OwnOf", bound=RunOptions, covariant=True)
DataOf = TypeVar("DataOf", covariant=True)

# Fields of TrainingArguments that the first screen of a command's help shows, and under which title.
SHOWN_TRAINING = (
    "learning_rate",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "warmup_steps",
    "bf16",
    "use_cpu",
)
SHOWN_OUTPUT = ("output_dir", "seed", "push_to_hub", "hub_model_id")
# transformers takes any text for these, and stumbles over it in the first step.
JSON_OPTIONS = ("activation_checkpointing_kwargs", "gradient_checkpointing_kwargs", "lr_scheduler_kwargs")
# Metrics are computed from the answers of all rows, and these would leave some out.
WHOLE_EVALUATION = ("batch_eval_metrics", "eval_do_concat_batches", "prediction_loss_only")
# Names that other programs use for our options; an unknown option is answered with ours.
CALLED_ELSEWHERE = {
    "batch_size": "per_device_train_batch_size",
    "epochs": "num_train_epochs",
    "lr": "learning_rate",
    "max_length": "max_seq_length",
    "model": "model_name_or_path",
    "output": "output_dir",
    "task": "task_name",
    "teacher": "teacher_model_name_or_path",
}
# The help is printed at most this many columns wide.
MAX_WIDTH = 119
CONFIG_HELP = "A YAML file, or the name of shipped settings (`bertkd configs`). The command line wins over it."


@dataclass(frozen=True)
class Options(Generic[DataOf, OwnOf, ConfigOf]):
    """The command line of one training: one seed, one folder.

    Attributes:
        models: which models take part.
        data: which task or corpus.
        own: the command's own options.
        config: of the trainer.
        command: what was typed.
        default_config: the values of a config that nobody changed.
    """

    models: ModelOptions
    data: DataOf
    own: OwnOf
    config: ConfigOf
    command: str
    default_config: dict[str, Any]

    def own_options(self) -> dict[str, Any]:
        """Every option of models, data and the command itself that decides the outcome, as JSON values."""
        run_fields = {field.name for field in dataclasses.fields(TrainOptions)}
        own = {name: value for name, value in dataclasses.asdict(self.own).items() if name not in run_fields}
        return {**dataclasses.asdict(self.models), **dataclasses.asdict(self.data), **own}  # type: ignore[call-overload]

    def default_options(self) -> dict[str, Any]:
        """The values of options that nobody gave."""
        defaults: dict[str, Any] = {}
        for options in (self.models, self.data, self.own):
            defaults |= dataclasses.asdict(type(options)())  # type: ignore[arg-type]
        return defaults

    def experiment(self) -> Experiment:
        """The training, for its record. The student replaces the teacher, where there is one."""
        models = self.models
        teacher_name = models.teacher_model_name_or_path or ""
        if isinstance(self.data, CorpusOptions):
            teacher_name = teacher_name or models.model_name_or_path or ""

        training = self.own if isinstance(self.own, TrainOptions) else TrainOptions()
        return Experiment(
            command=self.command,
            options=self.own_options(),
            default_config=self.default_config,
            default_options=self.default_options(),
            result_name=self.own.result_name,
            note=self.own.paper,
            teacher_name=teacher_name,
            replaces=models.teacher_model_name_or_path,
            measures_speed=training.measure_speedup,
            keep_checkpoints=training.keep_checkpoints,
            is_dry_run=training.dry_run,
        )


# ---- parsers ----


class _Help(argparse.Action):
    """`--help` for the command's own options, `--help all` for all of them."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        if values not in (None, "all"):
            parser.error("write --help, or --help all for the options of transformers' TrainingArguments too.")
        parser.print_help_of("all" if values else "own")
        parser.exit()


class _CheckedParser:
    """A parser whose errors are sentences: it names the nearest option, and checks values against their rules."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        # The rules of each option, by name; `add_argument` fills them while the parser is made.
        self.needs: dict[str, str | Sequence[str]] = {}
        self.ranges: dict[str, Range] = {}
        super().__init__(*args, **settings)
        # argparse would take -1e-5 for an option.
        self._negative_number_matcher = re.compile(r"-(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$", re.IGNORECASE)

    def add_argument(self, *names: Any, needs: Any = None, range: Range | None = None, **settings: Any) -> Any:
        """Adds an option, and keeps its rules; see `bertkd.cli.rules`."""
        action = super().add_argument(*names, **settings)  # type: ignore[misc]
        self.needs[action.dest] = needs or CONFIG_NEEDS.get(action.dest, ())
        self.ranges[action.dest] = range or CONFIG_RANGES.get(action.dest, Range())
        return action

    def check_values(self, values: Mapping[str, Any]) -> None:
        """Ends the program where an option is given an empty value, or a number that is out of its range."""
        for name, value in values.items():
            for item in value if isinstance(value, list) else [value]:
                if name in JSON_OPTIONS and isinstance(item, str):
                    self._check_json(name, item)
                if item == "" and self.get_default(name) != "":  # type: ignore[attr-defined]
                    self._fail(f"--{name} is given an empty value: leave it out, or name something.")
                if not isinstance(item, int | float) or isinstance(item, bool):
                    continue
                if not self.ranges[name].contains(item):
                    self._fail(f"--{name} must be {self.ranges[name]}, not {item:g}.")

    def _check_json(self, name: str, text: str) -> None:
        try:
            is_mapping = isinstance(json.loads(text), dict)
        except ValueError:
            is_mapping = False
        if not is_mapping:
            self._fail(f"--{name} must be a mapping in JSON, such as '{{\"name\": 1}}', not {text!r}.")

    def _fail(self, sentence: str) -> NoReturn:
        self.error(sentence)  # type: ignore[attr-defined]
        raise AssertionError("argparse ends the program")

    def check_known(self, unknown: Sequence[str]) -> None:
        """Ends the program where a command line has words that no option takes.

        Raises:
            SystemExit: naming the first such word, and the nearest option.
        """
        if not unknown:
            return

        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            self._fail(f"{word!r} belongs to no option; --help lists the options.")

        options = [option for option in self._option_string_actions if option != "--help"]  # type: ignore[attr-defined]
        meant = f"--{CALLED_ELSEWHERE.get(word.lstrip('-'), '')}"
        hint = f", did you mean {meant}?" if meant in options else nearest(word, options)
        self._fail(f"there is no option {word}{hint or '.'} --help lists the options.")


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word that is closest to `name`; empty where none is close."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f", did you mean {close[0]}?" if close else ""


class _Formatter(argparse.HelpFormatter):
    """Shows each option once, and its default at the end of its help."""

    def __init__(self, prog: str, **settings: Any) -> None:
        width = min(shutil.get_terminal_size().columns, MAX_WIDTH)
        super().__init__(prog, max_help_position=36, width=width, **settings)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)

        # HfArgumentParser also knows every option with dashes in the place of underscores.
        name = max(action.option_strings, key=lambda option: (option.startswith("--"), "_" in option))
        if action.choices:
            return f"{name} {'|'.join(map(str, action.choices))}"
        if action.type is string_to_bool:
            return f"{name} true|false" if action.default else name
        placeholder = {int: "N", float: "X"}.get(action.type, "TEXT")  # type: ignore[call-overload]
        return name if action.nargs == 0 else f"{name} {placeholder}{' ...' if action.nargs in ('+', '*') else ''}"

    def _expand_help(self, action: argparse.Action) -> str:
        text = " ".join((action.help or "").replace("%(default)s", str(action.default)).split())
        has_default = action.default is not False and action.default not in (None, "", [], argparse.SUPPRESS)
        if not has_default or "default" in text.lower():
            return text

        default = " ".join(map(str, action.default)) if isinstance(action.default, list) else action.default
        return f"{text} (default: {default})"


class _PlainFormatter(_Formatter, argparse.RawDescriptionHelpFormatter):
    """The same, for a description whose lines stay as they are."""


class PlainParser(_CheckedParser, argparse.ArgumentParser):
    """The parser of a command that trains nothing and has few options."""

    def __init__(self, command: str, description: str) -> None:
        super().__init__(
            prog=f"bertkd {command}",
            description=description,
            formatter_class=_PlainFormatter,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str] | None) -> argparse.Namespace:
        """Parses a command line; None for that of this process.

        Raises:
            SystemExit: an unknown option, a value that does not fit, an empty one, or a number that is out of range.
        """
        options, unknown = self.parse_known_args(argv)
        self.check_known(unknown)
        self.check_values(vars(options))
        return options


class CommandParser(_CheckedParser, HfArgumentParser):
    """The parser of a command that has a trainer's options: those of dataclasses, `--config` and `--help all`."""

    def __init__(self, command: str, description: str, dataclass_types: Sequence[type], defaults: dict[str, Any]):
        super().__init__(
            list(dataclass_types),
            prog=f"bertkd {command}",
            description=description,
            formatter_class=_Formatter,
            # There are some 150 options: an error would be lost behind a list of them.
            usage=f"bertkd {command} [--config NAME] [--OPTION VALUE ...]",
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument("--config", help=CONFIG_HELP)
        self.add_argument("-h", "--help", nargs="?", action=_Help, help="Show this help, or with `all` every option.")
        self.set_defaults(**defaults)
        self.needs |= COMMAND_NEEDS.get(command, {})
        self.dataclasses = tuple(dataclass_types)
        config_fields = {field.name for field in dataclasses.fields(self.dataclasses[-1])}
        settings = unused_settings(command, config_fields)
        self.unused = unused_options(command) | settings
        self.only_named = (settings - unused_options(command)) | ONLY_NAMED | SHARED

    def option(self, name: str) -> argparse.Action | None:
        """The option of a name, which is also its key in a YAML file; None where there is none."""
        return self._option_string_actions.get(f"--{name}")

    def given(self, words: Sequence[str]) -> list[str]:
        """The names of the options in a command line, in its order; one that is given twice is there twice."""
        names = []
        for word in words:
            action = self._option_string_actions.get(word.partition("=")[0])
            if action is not None:
                names.append(action.dest)
        return names

    def parse_values(self, words: Sequence[str]) -> dict[str, Any]:
        """The value of every option, by name.

        Raises:
            SystemExit: an unknown option, a value that does not fit, an empty one, or a number that is out of range.
        """
        namespace, unknown = self.parse_known_args(list(words))
        self.check_known(unknown)

        self.check_values(vars(namespace))
        return vars(namespace)

    def ineffective(self, names: Iterable[str], values: dict[str, Any]) -> dict[str, str]:
        """Why options have no effect, as sentences by name; those that have one, or their default, are left out.

        Args:
            names: the options to look at.
            values: of all options.
        """
        changed = [name for name in names if name in values and values[name] != self.get_default(name)]
        unused = [name for name in changed if name in self.unused]
        reasons = {name: f"`{self.prog}` does not use --{name}" for name in unused}

        for name in changed:
            reason = unmet_need(self.needs[name], values)
            if reason is not None:
                reasons.setdefault(name, f"--{name} has no effect {reason}")
        return reasons

    def parse_objects(self, words: Sequence[str]) -> list[Any]:
        """One object of each dataclass from the words of a command line.

        Raises:
            SystemExit: an unknown option, or a value that does not fit.
        """
        *objects, unknown = self.parse_args_into_dataclasses(
            list(words), return_remaining_strings=True, look_for_args_file=False
        )
        self.check_known(unknown)
        return objects[: len(self.dataclasses)]

    def print_help_of(self, which: str) -> None:
        """Prints the help: the "own" options of a command, or "all"."""
        formatter = _Formatter(self.prog)

        for title, actions in self._sections(which).items():
            formatter.start_section(title)
            formatter.add_arguments(actions)
            formatter.end_section()

        if which == "own":
            formatter.add_text("`--help all` lists the options of transformers' TrainingArguments too.")
        # The description has examples, whose lines stay as they are.
        print(f"usage: {self.usage}\n\n{(self.description or '').strip()}\n\n{formatter.format_help()}", end="")

    def _sections(self, which: str) -> dict[str, list[argparse.Action]]:
        """The options under the titles of the help, in its order."""
        titles = {}
        for dataclass_type in self.dataclasses:
            for name in (field.name for field in dataclasses.fields(dataclass_type)):
                titles[name] = _title(dataclass_type, name)

        order = ("Models", "Data", "Method", "Training", "Output")
        sections: dict[str, list[argparse.Action]] = {title: [] for title in order}
        more = []
        for action in self._actions:
            title = titles.get(action.dest, "Output" if action.dest == "config" else "")
            # The twin of an option that is on by default says nothing that `--option false` does not.
            is_twin = any(option.startswith("--no_") for option in action.option_strings) and which == "own"
            if action.dest in self.unused:
                continue
            if title in sections and not is_twin:
                sections[title].append(action)
            elif action.dest != "help":
                more.append(action)

        if which == "all":
            sections["Every other option of transformers' TrainingArguments"] = more
        return {title: actions for title, actions in sections.items() if actions}


def _title(dataclass_type: type, name: str) -> str:
    """Under which title of the help a field stands; empty for one that only `--help all` shows."""
    if name in SHOWN_OUTPUT or name in {field.name for field in dataclasses.fields(TrainOptions)}:
        return "Output"
    if dataclass_type is ModelOptions:
        return "Models"
    if not issubclass(dataclass_type, (TrainingArguments, RunOptions)):
        return "Data"
    if name in SHOWN_TRAINING:
        return "Training"
    if name in {field.name for field in dataclasses.fields(TrainingArguments)}:
        # A method that changes the meaning of a field declares it again.
        return ""
    return "Method"


# ---- runs ----


def parse_runs(
    command: str,
    description: str,
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    defaults: dict[str, Any] | None = None,
    own_class: type[Own] = TrainOptions,  # type: ignore[assignment]
    data_class: type[Data] = TaskOptions,  # type: ignore[assignment]
) -> list[Options[Data, Own, Config]]:
    """The trainings that a command line asks for: one per seed.

    Args:
        command: the name of the command.
        description: its help's first sentences.
        config_class: the trainer's config, whose fields become options.
        argv: the command line; default: that of this process.
        defaults: the command's own defaults, on top of `TRAINING_DEFAULTS`.
        own_class: with the command's own options.
        data_class: `TaskOptions`, or `CorpusOptions` for plain text.

    Raises:
        SystemExit: an option or a key of the YAML file is unknown, or a value has the wrong type.
    """
    typed = list(sys.argv[1:] if argv is None else argv)
    types = (ModelOptions, data_class, own_class, config_class)
    parser = CommandParser(command, description, types, {**TRAINING_DEFAULTS, **(defaults or {})})

    # These two cannot be fields of the dataclasses: one names a file with all the others, one makes several runs.
    config_name, seeds, words = _split_off(parser, typed)
    from_file: list[str] = []
    if config_name is not None:
        from_file, file_seeds = _words_of_file(parser, config_name)
        from_file = _without_other_task(parser, from_file, typed, config_name)
        seeds = seeds or file_seeds
    seeds = seeds or ["42"]
    _check_seeds(parser, seeds)

    all_words = [*from_file, *words]
    values = parser.parse_values(all_words)
    _check_effects(parser, values, typed, from_file, config_name)
    _check_together(parser, values, len(seeds))

    # Made before the real ones: a config that is made resets the state of accelerate.
    default_config = config_class(output_dir="unused", use_cpu=values["use_cpu"]).to_dict()
    shown = command_line(command, argv)

    runs = []
    for seed in seeds:
        # Parsed once per seed, because a config that is made sets up the devices for its own seed.
        models, data, own, config = parser.parse_objects([*all_words, "--seed", seed])
        if len(seeds) > 1:
            config.output_dir = str(output_folder(config) / f"seed-{seed}")
        runs.append(Options(models, data, own, config, shown, default_config))
    return runs


def one_run(runs: Sequence[Options[Data, Own, Config]], why: str) -> Options[Data, Own, Config]:
    """The only run of a command that has one seed.

    Args:
        runs: those that were asked for.
        why: the reason that there can be only one, as a sentence.

    Raises:
        ValueError: several seeds were given.
    """
    if len(runs) > 1:
        raise ValueError(f"{why} Give one --seed.")
    return runs[0]


def _split_off(parser: CommandParser, argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Takes `--config` and `--seed`, which may name several, from a command line."""
    first = argparse.ArgumentParser(prog=parser.prog, add_help=False, allow_abbrev=False, usage=parser.usage)
    first.add_argument("--config")
    first.add_argument("--seed", nargs="+", default=[])
    options, words = first.parse_known_args(argv)
    return options.config, options.seed, words


def typed_value(words: Sequence[str], name: str) -> str | None:
    """The value of one option in a command line; None where it is not given."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument(f"--{name}")
    value: str | None = getattr(first.parse_known_args(list(words))[0], name)
    return value


def option_value(words: Sequence[str], name: str) -> str | None:
    """The value of one option, from a command line or from the YAML file that it names; None where it is not given."""
    value: Any = typed_value(words, name)
    file_name = typed_value(words, "config")
    if value is None and file_name is not None:
        try:
            value = read_options(file_name).get(name)
        except (OSError, ValueError):
            return None  # the whole parser says what is wrong with the file
    return None if value is None else str(value)


def _check_seeds(parser: CommandParser, seeds: Sequence[str]) -> None:
    """Checks that seeds are whole numbers, each given once: the spread over equal runs would be zero."""
    numbers = []
    for seed in seeds:
        if not (seed.isascii() and seed.isdigit()):
            listed = seed.replace(",", " ").split()
            hint = ""
            if len(listed) > 1:
                hint = (
                    f" Put spaces between several: --seed {' '.join(listed)}; in a file, seed: [{', '.join(listed)}]."
                )
            parser.error(f"argument --seed: {seed!r} is not a whole number.{hint}")
        # numpy takes no larger one.
        if int(seed) >= 2**32:
            parser.error(f"argument --seed: {seed} is too large; the largest is {2**32 - 1}.")
        if int(seed) in numbers:
            parser.error(f"argument --seed: {seed} is given twice, and equal runs say nothing about the spread.")
        numbers.append(int(seed))


def _check_effects(
    parser: CommandParser,
    values: dict[str, Any],
    typed: Sequence[str],
    from_file: Sequence[str],
    file_name: str | None,
) -> None:
    """Refuses options that have no effect, and names those that a file or a script brings along for other runs.

    Raises:
        SystemExit: an option that was typed has no effect.
    """
    names = parser.given(typed)
    if "init_from" in names and "model_name_or_path" in names and values["init_from"] == "teacher":
        parser.error(
            "--init_from teacher and --model_name_or_path are two ways to start the student: give one of them."
        )

    # What is only named is part of a run's settings nevertheless: a run that goes on has to name it again.
    for name, reason in parser.ineffective(names, values).items():
        if name not in parser.only_named:
            parser.error(f"{reason}: leave it out.")
        note(f"{reason}.")

    in_file = [name for name in parser.given(from_file) if name not in names]
    for reason in parser.ineffective(in_file, values).values():
        note(f"{file_name}: {reason}.")

    trains = "per_device_train_batch_size" in values and "per_device_train_batch_size" not in parser.unused
    if trains and "batch_size" in names and "per_device_train_batch_size" not in (*names, *parser.given(from_file)):
        note(
            f"--batch_size {values['batch_size']} is the rows of a timed pass; a training's are "
            f"--per_device_train_batch_size {values['per_device_train_batch_size']}."
        )
    for name in dict.fromkeys(names):
        if names.count(name) > 1:
            note(f"--{name} is given {names.count(name)} times: the last one counts.")


def _check_together(parser: CommandParser, values: dict[str, Any], count: int) -> None:
    """Checks what no single option shows.

    Args:
        parser: ends the program.
        values: of all options.
        count: of the runs.
    """
    if values["do_train"] or values["do_eval"]:
        parser.error(
            "--do_train and --do_eval are not used: a command that trains always does, and evaluates at its end. "
            "Leave them out."
        )
    if values["resume_from_checkpoint"] is not None:
        parser.error("--resume_from_checkpoint is not used: a command that is started again goes on by itself.")
    for name in WHOLE_EVALUATION if "train_file" in values else ():
        if values[name] != parser.get_default(name):
            parser.error(f"--{name}: a metric needs the answers of all rows at once, so leave it out.")
    if values["push_to_hub"] and values["hub_strategy"] != parser.get_default("hub_strategy"):
        parser.error("--hub_strategy is not used: the finished folder is uploaded once, at the end.")
    if values["push_to_hub"] and count > 1:
        parser.error("--push_to_hub uploads one model: give one --seed, or upload a folder yourself afterwards.")

    if "train_file" in values:
        if values["train_file"] is None and (values["validation_file"] or values["test_file"]):
            parser.error("--validation_file and --test_file go with --train_file.")
        if values["train_file"] is not None and values["task_name"] is not None:
            parser.error("give either --task_name or --train_file, not both.")
        _check_task(parser, values["task_name"])
        try:
            check_task_name(values["files_name"])
        except ValueError as error:
            parser.error(str(error))

    available = get_available_reporting_integrations()
    reports = values["report_to"] if isinstance(values["report_to"], list) else [values["report_to"]]
    for tracker in reports:
        if tracker == "all" and not available:
            parser.error("--report_to all finds no tracker: install one, such as tensorboard, or leave it out.")
        if tracker not in ("all", "none", None, *available):
            parser.error(
                f"--report_to {tracker}: this tracker is not installed, or unknown. Installed are "
                f"{', '.join(available) or 'none'}; install it with pip, or leave --report_to out."
            )


def _check_task(parser: CommandParser, name: str | None) -> None:
    """Checks that there is such a task, and that it can be trained on."""
    trainable = [task.name for task in GLUE_TASKS.values() if "train" in task.splits]
    if name is None or name in trainable:
        return
    if name in GLUE_TASKS:
        parser.error(f"--task_name {name}: this task has no training rows; the model of mnli answers it.")
    parser.error(f"there is no task {name!r}{nearest(name.lower(), trainable)}; the tasks are {', '.join(trainable)}.")


def note(text: str) -> None:
    """Says something to the user that is no error, once for all processes."""
    if os.environ.get("RANK", "0") == "0":
        print(f"note: {text}", file=sys.stderr)


def _words_of_file(parser: CommandParser, name: str) -> tuple[list[str], list[str]]:
    """The options of a YAML file as words, which argparse then checks like those of a command line, and its seeds."""
    try:
        options = read_options(name)
    except (OSError, ValueError) as error:
        parser.error(f"cannot read the config file {name}: {error}")

    words: list[str] = []
    seeds: list[str] = []
    for key, value in options.items():
        action = parser.option(key)
        if action is None or key in ("config", "help"):
            hidden = {*parser.unused, "config", "help"}
            known = [other.dest for other in parser._actions if other.dest not in hidden]
            parser.error(f"the config file {name} has the unknown option {key!r}{nearest(key, known)}")

        if key == "seed":
            seeds = value if isinstance(value, list) else [value]
        elif isinstance(value, str):
            # Other words for true and false that YAML 1.1 has.
            switches = {"on": "true", "off": "false"} if action.type is string_to_bool else {}
            words.append(f"--{key}={switches.get(value.lower(), value)}")
        elif action.nargs in ("+", "*"):
            words += [f"--{key}", *value]
        else:
            parser.error(f"the config file {name} gives {key} a list, but the option takes a single value.")
    return words, seeds


def _without_other_task(parser: CommandParser, from_file: list[str], typed: Sequence[str], name: str) -> list[str]:
    """The words of a YAML file without its task, where files were typed: shipped settings name the task they are for.

    Args:
        parser: knows the options.
        from_file, typed: the words of the file and of the command line.
        name: the file's.
    """
    names = parser.given(typed)
    if "train_file" not in names or "task_name" in names or "task_name" not in parser.given(from_file):
        return from_file
    note(f"{name}: its --task_name is not used beside --train_file.")
    return [word for word in from_file if not word.startswith("--task_name=")]


def command_line(command: str, argv: Sequence[str] | None) -> str:
    """What was typed, without secrets: `bertkd kd ...`, or `python recipes/kd.py ...` where a recipe was started."""
    started = Path(sys.argv[0]).resolve()
    typed = list(sys.argv[1:] if argv is None else argv)

    # The command of a recipe is recorded as it was typed, so that it can be repeated in the same way.
    if argv is None and started.parent.name == "recipes":
        words = ["python", f"recipes/{started.name}", *typed]
    elif argv is None and typed[:1] == [command]:
        words = ["bertkd", *typed]
    else:
        words = ["bertkd", command, *typed]
    return shlex.join(words_without_secrets(words))
