"""Finds the checkpoint that an interrupted run goes on from."""

import json
import logging
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["last_checkpoint"]

logger = logging.getLogger(__name__)


def last_checkpoint(output_dir: str | Path, tells: bool = False) -> str | None:
    """The newest whole checkpoint in a folder, or None.

    Args:
        output_dir: the folder of a run.
        tells: whether checkpoints that are passed over are named in the log.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    by_step: dict[int, Path] = {}
    for folder in Path(output_dir).glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix)
        if number.isdigit():
            by_step[int(number)] = folder

    torn = []
    newest = None
    for step in sorted(by_step, reverse=True):
        damage = _damage(by_step[step])
        if damage is None:
            newest = by_step[step]
            break
        torn.append(f"{by_step[step]} ({damage})")

    if torn and tells:
        start = "from the start" if newest is None else f"from {newest}"
        logger.warning("Not whole, and passed over: %s. The training goes on %s.", "; ".join(torn), start)
    return None if newest is None else str(newest)


def _damage(checkpoint: Path) -> str | None:
    """What keeps a training from going on from a checkpoint; None where it is whole."""
    try:
        # The Trainer writes it last: without it, the run was killed while it wrote the others.
        json.loads((checkpoint / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"no readable {TRAINER_STATE_NAME}"

    for path in sorted(checkpoint.glob("*.safetensors")):
        try:
            # The header says how long the file is.
            with safe_open(path, framework="pt"):
                pass
        except (OSError, SafetensorError):
            return f"{path.name} is damaged"

    # PyTorch's files are archives, with a checksum for each tensor.
    for path in sorted([*checkpoint.glob("*.pt"), *checkpoint.glob("*.pth")]):
        try:
            with zipfile.ZipFile(path) as archive:
                is_whole = archive.testzip() is None
        except (OSError, zipfile.BadZipFile):
            is_whole = False
        if not is_whole:
            return f"{path.name} is damaged"

    # The two are written together.
    if (checkpoint / SCHEDULER_NAME).is_file() and not list(checkpoint.glob(f"{Path(OPTIMIZER_NAME).stem}*")):
        return f"{OPTIMIZER_NAME} is missing"
    return None
