"""Finds the checkpoint that an interrupted run goes on from."""

import json
import warnings
import zipfile
from pathlib import Path

from safetensors import SafetensorError, safe_open
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

__all__ = ["damage_of", "last_checkpoint"]

# The states of optimizer and schedule, in the files of a training that is not sharded.
STATE_FILES = ("optimizer.pt", "scheduler.pt")


def last_checkpoint(
    output_dir: str | Path, with_optimizer: bool = False, tells: bool = False, processes: int = 1
) -> str | None:
    """Finds the newest whole checkpoint in a folder.

    Args:
        output_dir: the folder of the training.
        with_optimizer: whether a checkpoint without the optimizer's state is passed over, too: a training that went
            on from it would not be the one that was interrupted.
        tells: whether warnings name newer ones that are passed over.
        processes: how many train together; each has a file with the state of its random numbers.

    Returns:
        Its path, or None where there is none.
    """
    prefix = f"{PREFIX_CHECKPOINT_DIR}-"
    by_step: dict[int, Path] = {}
    for folder in Path(output_dir).glob(f"{prefix}*"):
        number = folder.name.removeprefix(prefix)
        if number.isdigit():
            by_step[int(number)] = folder

    for step in sorted(by_step, reverse=True):
        damage = damage_of(by_step[step], with_optimizer, processes)
        if not damage:
            return str(by_step[step])
        if tells:
            warnings.warn(f"The checkpoint {by_step[step]} {damage}: it is passed over.", stacklevel=2)
    return None


def damage_of(folder: Path, with_optimizer: bool, processes: int = 1) -> str:
    """Says what is wrong with a checkpoint; empty for a whole one.

    Args:
        folder: the checkpoint.
        with_optimizer: whether it has to hold the optimizer's state.
        processes: see `last_checkpoint`.
    """
    try:
        # The Trainer writes it last: a folder without a readable one was torn by a kill.
        json.loads((folder / TRAINER_STATE_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return f"has no readable {TRAINER_STATE_NAME}"

    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "pt"):
                pass
        except (OSError, SafetensorError):
            return f"has a damaged {path.name}"

    if not with_optimizer:
        return ""

    # PyTorch's files are archives, with a checksum for each tensor.
    for path in sorted([*folder.glob("*.pt"), *folder.glob("*.pth")]):
        try:
            with zipfile.ZipFile(path) as archive:
                is_whole = archive.testzip() is None
        except (OSError, zipfile.BadZipFile):
            is_whole = False
        if not is_whole:
            return f"has a damaged {path.name}"

    # The first process writes the file that makes a checkpoint whole, and does not wait for the others.
    is_of_several = any(folder.glob("rng_state_*.pth"))
    for process in range(processes) if is_of_several else ():
        if not (folder / f"rng_state_{process}.pth").is_file():
            return f"has no rng_state_{process}.pth"

    # A sharded training has a folder, or a file for each process.
    is_sharded = any(folder.glob("global_step*")) or any(folder.glob("*optimizer_*"))
    if is_sharded:
        return ""
    for name in STATE_FILES:
        if not (folder / name).is_file():
            return f"has no {name}"
    return ""
