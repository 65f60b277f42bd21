"""Checks the folder that a command writes to, before any work."""

import os
from collections.abc import Mapping
from pathlib import Path

from bertkd.pipeline.experiment import check_writable

__all__ = ["check_output", "check_separate"]


def check_output(folder: str | Path, inputs: Mapping[str, str | None]) -> None:
    """Checks that files can be written to a folder, and that a command reads nothing that it would overwrite there.

    Args:
        folder: of the output; it is made where it is not there.
        inputs: what the command reads, by option; a name that is no local folder, and None, are no obstacle.

    Raises:
        ValueError: an input is the output.
        OSError: nothing can be written there.
    """
    check_separate(folder, inputs)
    check_writable(Path(folder))


def check_separate(folder: str | Path, inputs: Mapping[str, str | None]) -> None:
    """Checks that no input of a command is its output folder, under another spelling or through a link either.

    Raises:
        ValueError: one is.
    """
    for option, name in inputs.items():
        if name is not None and os.path.exists(name) and os.path.realpath(name) == os.path.realpath(folder):
            raise ValueError(
                f"--output_dir {folder} is also {option}: its files would be overwritten while they are read. Choose "
                "another --output_dir."
            )
