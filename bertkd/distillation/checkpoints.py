"""Finds the checkpoint that an interrupted run goes on from."""

import json
from contextlib import suppress
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["last_checkpoint"]


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint in a folder, or None.

    The Trainer writes `trainer_state.json` last; a folder without a readable one was torn by a kill.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    by_step: dict[int, Path] = {}
    for folder in Path(output_dir).glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix)
        if number.isdigit():
            by_step[int(number)] = folder

    for step in sorted(by_step, reverse=True):
        with suppress(OSError, ValueError):
            json.loads((by_step[step] / TRAINER_STATE_NAME).read_text())
            return str(by_step[step])

    return None
