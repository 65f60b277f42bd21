"""Writes files that appear whole or not at all; everything that bertkd writes goes through here.

It is on the ground floor because the lowest rooms write files too: caches, submissions, sub-networks.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "LFS_POINTER",
    "atomic_folder",
    "atomic_path",
    "atomic_replacement",
    "plain_json",
    "read_json",
    "write_bytes",
    "write_json",
    "write_text",
]


# What Git leaves in the place of a large file that was not fetched.
LFS_POINTER = b"version https://git-lfs"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends, and is removed when it fails.

    Parent folders are created. A reader, or a run killed at any moment, sees the old file or the new one, never half.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to write a model's files to; they move into `folder`, each whole, when the block ends.

    `config.json` moves last, so that a folder that has one has the weights too. Nothing moves when the block fails.
    """
    folder = Path(folder)
    partial = folder / ".partial"
    # A run that was killed may have left one.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    try:
        yield partial
        for file in sorted(partial.iterdir(), key=lambda file: file.name == "config.json"):
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_replacement(folder: str | Path) -> Iterator[Path]:
    """A path beside `folder` for a new folder, which replaces `folder` and all it holds when the block ends.

    The path does not exist yet: the block makes the folder. When the block fails, what it wrote is removed, and
    `folder` stays as it was.
    """
    folder = Path(folder)
    partial, old = folder.with_name(f".{folder.name}.partial"), folder.with_name(f".{folder.name}.old")
    # A run that was killed may have left one.
    shutil.rmtree(partial, ignore_errors=True)

    try:
        yield partial
        shutil.rmtree(old, ignore_errors=True)
        # A folder cannot be renamed to one that has files, so the old one steps aside first.
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes `content`, whole or not at all."""
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(content)
        # A power cut must not leave an empty file under the final name.
        file.flush()
        os.fsync(file.fileno())


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, with its line ends as they are, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: object) -> None:
    """Writes `value` as JSON, whole or not at all.

    Dataclasses, paths, tensors and NumPy numbers are accepted. A number that is not finite becomes `null`, since JSON
    has none; anything else becomes its `str`, so that a long run never ends without its results file.
    """
    write_text(path, json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def plain_json(value: Any) -> Any:
    """Converts a value to what JSON can hold, as `write_json` describes."""
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None

    if is_dataclass(value) and not isinstance(value, type):
        return plain_json(asdict(value))
    if isinstance(value, dict):
        return {str(key): plain_json(item) for key, item in value.items()}

    # The order of a set changes from run to run.
    if isinstance(value, set | frozenset):
        return [plain_json(item) for item in sorted(value, key=str)]
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]

    # Tensors and NumPy arrays, of any rank.
    if hasattr(value, "tolist"):
        return plain_json(value.tolist())
    return str(value)


def read_json(path: str | Path) -> Any:
    """Reads a JSON file.

    Raises:
        ValueError: it is broken; the message names the file, the place, and the likely reason.
        OSError: it cannot be opened.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise OSError(f"Cannot read {path}: {error.strerror}.") from None

    if not content.strip():
        raise ValueError(f"{path} is empty: a JSON file is expected.")
    if content.startswith(LFS_POINTER):
        raise ValueError(f"{path} is a pointer of Git LFS and not the file itself: fetch it with `git lfs pull`.")
    try:
        return json.loads(content.decode("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is broken JSON at line {error.lineno}, column {error.colno}: {error.msg}.") from None
    except (UnicodeDecodeError, RecursionError):
        raise ValueError(f"{path} is no JSON file in UTF-8.") from None
