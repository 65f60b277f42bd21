"""Which checkpoint a run goes on from."""

import contextlib
import json
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["last_checkpoint"]


def last_checkpoint(output_dir: str | Path) -> str | None:
    """The newest whole checkpoint in a folder, or None.

    The Trainer writes `trainer_state.json` last; a folder without a readable one was torn by a kill.
    """
    folders = Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*")
    numbered = [f for f in folders if f.name.removeprefix(f"{PREFIX_CHECKPOINT_DIR}-").isdigit()]
    for folder in sorted(numbered, key=lambda f: int(f.name.rpartition("-")[2]), reverse=True):
        with contextlib.suppress(OSError, ValueError):
            json.loads((folder / TRAINER_STATE_NAME).read_text())
            return str(folder)
    return None
