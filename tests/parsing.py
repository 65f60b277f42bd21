"""Parses command lines for tests, with the options of any command."""

from collections.abc import Sequence
from typing import Any

from bertkd.cli.options import TaskOptions, TrainOptions
from bertkd.cli.parser import Options, parse_runs


def parse(
    config_class: Any,
    argv: Sequence[str],
    defaults: dict[str, Any] | None = None,
    own_class: Any = TrainOptions,
    data_class: Any = TaskOptions,
) -> list[Options[Any, Any, Any]]:
    """The runs that a command line asks for."""
    return parse_runs("kd", "A command.", config_class, argv, defaults, own_class, data_class)
