"""The commands in README.md and docs/: how they are found, checked and run."""

import importlib
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from conftest import ROOT

from bertkd.cli import COMMANDS
from bertkd.cli.parser import CommandParser, PlainParser

CONFIGS = ROOT / "bertkd" / "configs"


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

    parse_objects, parse_plain = CommandParser.parse_objects, PlainParser.parse

    def parse_and_stop(parser: CommandParser, words: Sequence[str]) -> None:
        parse_objects(parser, [*words, "--use_cpu"])
        raise ParsedError

    def parse_plain_and_stop(parser: PlainParser, words: Any = None) -> None:
        parse_plain(parser, words)
        raise ParsedError

    with (
        mock.patch.object(CommandParser, "parse_objects", parse_and_stop),
        mock.patch.object(PlainParser, "parse", parse_plain_and_stop),
    ):
        try:
            module_of(name).main(options)
        except ParsedError:
            return
    raise AssertionError(f"{name} parsed nothing")


def run_command(name: str, options: list[str]) -> Any:
    """Run a command in this process."""
    return module_of(name).main(options)


def module_of(name: str) -> Any:
    return importlib.import_module(f"bertkd.cli.{name.replace('-', '_')}")
