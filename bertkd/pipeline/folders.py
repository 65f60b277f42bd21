"""Checks the folder that a command writes to, before any work."""

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bertkd.folder_lock import check_writable
from bertkd.pipeline.contents import PATH_OPTIONS, paths_of

__all__ = ["check_not_input", "check_output", "check_separate"]


def check_output(folder: str | Path) -> None:
    """Checks that files can be written to a folder, which need not be there.

    Raises:
        OSError: nothing can be written there.
    """
    was_there = os.path.exists(folder)
    check_writable(Path(folder))
    # A command that is refused later leaves no empty folder. Of several processes, another one may be using it by now.
    is_alone = int(os.environ.get("WORLD_SIZE", "1")) == 1
    if is_alone and not was_there:
        with suppress(OSError):
            Path(folder).rmdir()


def check_separate(folder: str | Path, inputs: Mapping[str, str | None]) -> None:
    """Checks that no input of a command is its output folder, under another spelling or through a link either.

    Args:
        folder: of the output.
        inputs: what the command reads, by option; a name that is no local folder, and None, are no obstacle.

    Raises:
        ValueError: one is.
    """
    for option, name in inputs.items():
        if name is not None and os.path.exists(name) and os.path.realpath(name) == os.path.realpath(folder):
            raise ValueError(
                f"--output_dir {folder} is also {option}, which would be overwritten: choose another --output_dir."
            )


def check_not_input(folder: Path, options: Mapping[str, Any], is_replaced: bool = False) -> None:
    """Checks that writing to a folder leaves what is read as it is.

    Args:
        folder: the output folder.
        options: name what is read; others are passed over.
        is_replaced: whether everything in the folder is removed, as by an export.

    Raises:
        ValueError: the folder is one of these, or holds one that would be removed.
    """
    output = folder.resolve()
    for name in PATH_OPTIONS:
        for path in paths_of(options, name):
            check_separate(folder, {f"--{name}": str(path)})
            source = path.resolve()
            is_checkpoint = source.is_relative_to(output) and any(
                part.startswith(f"{PREFIX_CHECKPOINT_DIR}-") for part in source.relative_to(output).parts
            )
            if is_checkpoint or (is_replaced and source.is_relative_to(output)):
                raise ValueError(
                    f"--{name} {path} lies in --output_dir {folder}, where it would be removed: choose another "
                    "--output_dir."
                )
