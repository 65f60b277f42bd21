"""Parses command lines for tests, with the options of any command."""

import functools
from collections.abc import Sequence
from typing import Any

import pytest

from bertkd.cli import COMMANDS, run_command
from bertkd.cli.options import TaskOptions, TrainOptions
from bertkd.cli.parser import CommandParser, Options, PlainParser, parse_runs


def parse(
    config_class: Any,
    argv: Sequence[str],
    defaults: dict[str, Any] | None = None,
    own_class: Any = TrainOptions,
    data_class: Any = TaskOptions,
) -> list[Options[Any, Any, Any]]:
    """The runs that a command line asks for."""
    return parse_runs("kd", "A command.", config_class, argv, defaults, own_class, data_class)


@functools.cache
def all_parsers() -> dict[str, Any]:
    """The parser of each command."""
    found: dict[str, Any] = {}

    def keep(parser: Any, *_: Any) -> None:
        found[current] = parser
        raise SystemExit(0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandParser, "print_help_of", keep)
        patch.setattr(PlainParser, "parse", keep)
        for current in COMMANDS:
            with pytest.raises(SystemExit):
                run_command(current, ["--help"])
    return found
