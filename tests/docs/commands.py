"""The commands in README.md and docs/: how they are found, checked and run."""

import argparse
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from conftest import ROOT

from bertkd import DistilBertKDConfig, DistillationConfig, DynaBertKDConfig, PatientKDConfig, TinyBertKDConfig
from bertkd.cli import COMMANDS, bench, compress, distilbert, dynabert, export, mlm, search, shrink, tinybert
from bertkd.cli.arguments import CorpusArguments, DataArguments, RecipeArguments, StudentArguments, parse
from bertkd.cli.augment import AugmentRecipeArguments

CONFIGS = ROOT / "bertkd" / "configs"
# What the command line of a training command consists of.
OPTIONS: dict[str, tuple[Any, Any, Any]] = {
    "finetune": (DistillationConfig, RecipeArguments, DataArguments),
    "kd": (DistillationConfig, RecipeArguments, DataArguments),
    "patient-kd": (PatientKDConfig, RecipeArguments, DataArguments),
    "dynabert": (DynaBertKDConfig, dynabert.DynaBertArguments, DataArguments),
    "search": (DistillationConfig, search.SearchArguments, DataArguments),
    "tinybert": (TinyBertKDConfig, tinybert.TinyBertArguments, DataArguments),
    "export": (DistillationConfig, export.ExportArguments, DataArguments),
    "augment": (DistillationConfig, AugmentRecipeArguments, DataArguments),
    "tinybert-general": (TinyBertKDConfig, StudentArguments, CorpusArguments),
    "distilbert": (DistilBertKDConfig, distilbert.DistilBertArguments, CorpusArguments),
    "mlm": (DistilBertKDConfig, mlm.MaskedLMArguments, CorpusArguments),
    "shrink": (DistillationConfig, shrink.ShrinkArguments, DataArguments),
}
# Options and commands that the documentation describes and the command line does not have yet.
NOT_YET = ("--dry_run",)


class ParsedError(Exception):
    """Raised by a parser that is done, so that the command behind it does not run."""


def blocks(page: Path, language: str) -> list[str]:
    """The code blocks of a page in one language."""
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path) -> Iterator[list[str]]:
    """The words of every command line of a page."""
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words


def bertkd_command(words: list[str]) -> tuple[str, list[str]] | None:
    """The name and the options of a `bertkd` command, behind a launcher too; None for another program."""
    while "=" in words[0]:  # a variable of the environment
        words = words[1:]
    if words[0] in ("accelerate", "torchrun", "python"):
        start = words.index("-m")
        assert words[start + 1] == "bertkd", words
        words = words[start + 1 :]
    if words[0] != "bertkd":
        return None
    if ">" in words:
        words = words[: words.index(">")]

    return words[1], words[2:]


def check_command(name: str, options: list[str]) -> None:
    """Parse the options of a command as the command does, without running it.

    Raises:
        AssertionError: there is no such command or settings file.
        SystemExit: an option is unknown, or a value has the wrong type.
    """
    if name.startswith("--"):
        return
    assert name in COMMANDS, f"there is no command {name!r}"
    if name == "configs":
        assert all((CONFIGS / f"{option}.yaml").is_file() for option in options), options
    if name in ("configs", "env") or "--help" in options:
        return

    options = with_settings_path(options)
    if name == "bench":
        bench.parse_arguments(options)
    elif name == "compress":
        parsed, others = compress.parse_arguments(options)
        _, config_class, recipe_class = compress.RECIPES[parsed.method]
        parse(config_class, [*others, "--use_cpu"], {}, recipe_class)
    elif name in OPTIONS:
        config_class, recipe_class, data_class = OPTIONS[name]
        parse(config_class, [*options, "--use_cpu"], {}, recipe_class, data_class)
    else:
        check_parser_of_main(name, options)


def check_parser_of_main(name: str, options: list[str]) -> None:
    """Parse the options of a command whose parser is inside its `main`."""
    parse_args = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, words: Any = None) -> None:
        parse_args(parser, words)
        raise ParsedError

    with mock.patch.object(argparse.ArgumentParser, "parse_args", parse_and_stop):
        try:
            module_of(name).main(options)
        except ParsedError:
            return
    raise AssertionError(f"{name} parsed nothing")


def run_command(name: str, options: list[str]) -> Any:
    """Run a command in this process."""
    return module_of(name).main(with_settings_path(options))


def module_of(name: str) -> Any:
    return importlib.import_module(f"bertkd.cli.{name.replace('-', '_')}")


def with_settings_path(options: list[str]) -> list[str]:
    """The options, with the path of a settings file in the place of its name."""
    options = [option for option in options if option not in NOT_YET]
    if "--config" in options:
        place = options.index("--config") + 1
        options[place] = str(CONFIGS / f"{options[place]}.yaml")
        assert Path(options[place]).is_file(), options[place]
    return options
