"""Writes files that appear whole or not at all; everything that bertkd writes goes through here.

It is on the ground floor because the lowest rooms write files too: caches, submissions, sub-networks.
"""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import math
import os
import re
import shutil
import socket
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

import psutil

from bertkd.folder_lock import LOCK_FILE

__all__ = [
    "ERROR_LOG",
    "LFS_POINTER",
    "atomic_folder",
    "atomic_path",
    "atomic_replacement",
    "check_replaceable",
    "file_sha256",
    "is_nobodys",
    "plain_json",
    "read_json",
    "storage_problem",
    "write_bytes",
    "write_json",
    "write_text",
]

# Says that the disk, and not the program, is the reason: no space, a quota, read-only, broken, gone.
_OF_THE_DISK = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "ENODEV", "ENXIO", "ESTALE")
    if hasattr(errno, name)
}
# Process numbers are those of one machine, and a folder may be shared by several.
_HOST = f"{zlib.crc32(socket.gethostname().encode()):08x}"


# Entries that do not make a folder somebody's: the lock of the run that works in it (also as earlier versions called
# it), remains of a killed run, and folders of the file system and of the hub's client.
_NOT_CONTENT = {LOCK_FILE, ".in_use", ".partial", ".cache", "lost+found"}
# How the names of logs begin, of errors that nobody foresaw.
ERROR_LOG = "bertkd-error"

# What Git leaves in the place of a large file that was not fetched.
LFS_POINTER = b"version https://git-lfs"


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it becomes `path` when the block ends, and is removed when it fails.

    Parent folders are created. A reader, or a run killed at any moment, sees the old file or the new one, never half.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_of_dead(path)
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        yield temporary
        _to_disk(temporary)
        os.replace(temporary, path)
    finally:
        _remove_quietly(temporary)


@contextmanager
def atomic_folder(folder: str | Path) -> Iterator[Path]:
    """A temporary folder to write a model's files to; they move into `folder`, each whole, when the block ends.

    `config.json` goes first and comes last, so that a folder that has one has the weights that belong to it. Nothing
    moves when the block fails.
    """
    folder = Path(folder)
    partial = folder / ".partial"
    # A run that was killed may have left one.
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)

    try:
        yield partial
        config = partial / "config.json"
        files = sorted((path for path in partial.rglob("*") if path.is_file()), key=lambda file: file == config)
        for file in files:
            _to_disk(file)
        # An earlier model's config would open the new weights, or the new one the earlier weights.
        if files and files[-1] == config:
            (folder / "config.json").unlink(missing_ok=True)
        for file in files:
            target = folder / file.relative_to(partial)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(file, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def atomic_replacement(folder: str | Path, mark: str) -> Iterator[Path]:
    """A path for a new folder, which replaces `folder` and all it holds when the block ends.

    The path does not exist yet: the block makes the folder. When the block fails, what it wrote is removed, and
    `folder` stays as it was. A link stays a link, and what it points to is replaced.

    Args:
        folder: the folder to replace.
        mark: the name of a file that every folder written in this way has. One that has files but not this one is
            somebody else's, and is not removed.

    Raises:
        ValueError: the folder is somebody else's.
    """
    folder = Path(folder).resolve()
    is_fixed = _is_fixed(folder)
    partial = folder / ".partial" if is_fixed else folder.with_name(f".{folder.name}.partial")
    old = folder.with_name(f".{folder.name}.old")

    is_kept = False
    check_replaceable(folder, mark)
    # A run that was killed may have left one, or have ended between the two renames below.
    shutil.rmtree(partial, ignore_errors=True)
    if old.exists() and not folder.exists():
        old.rename(folder)

    try:
        yield partial
        for file in partial.rglob("*"):
            if file.is_file():
                _to_disk(file)

        if is_fixed:
            # From here on the new files are whole, and the old ones no longer are.
            is_kept = True
            _replace_files(folder, partial, mark)
            is_kept = False
            return

        # Whoever holds the folder goes on to hold it.
        if (folder / LOCK_FILE).exists():
            os.replace(folder / LOCK_FILE, partial / LOCK_FILE)
        shutil.rmtree(old, ignore_errors=True)
        # A folder cannot be renamed to one that has files, so the old one steps aside first.
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        if not is_kept:
            shutil.rmtree(partial, ignore_errors=True)


def _is_fixed(folder: Path) -> bool:
    """Whether a folder must stay where it is: a disk of its own, one that we work in, or one alone in its place."""
    if not folder.exists():
        return False
    return os.path.ismount(folder) or Path.cwd().is_relative_to(folder) or not os.access(folder.parent, os.W_OK)


def _replace_files(folder: Path, partial: Path, mark: str) -> None:
    """Removes what a folder holds and moves new files into it; only a whole folder has the file `mark`."""
    (folder / mark).unlink(missing_ok=True)
    for file in folder.iterdir():
        if file.name in _NOT_CONTENT:
            continue
        if file.is_dir() and not file.is_symlink():
            shutil.rmtree(file)
        else:
            file.unlink()
    for file in sorted(partial.iterdir(), key=lambda file: file.name == mark):
        os.replace(file, folder / file.name)


def is_nobodys(name: str) -> bool:
    """Whether a file or folder of this name may be in any folder, and makes it nobody's."""
    return name in _NOT_CONTENT or name.startswith(ERROR_LOG)


def check_replaceable(folder: Path, mark: str) -> None:
    """Checks that `atomic_replacement` may replace a folder.

    Raises:
        ValueError: the folder is somebody else's.
    """
    # A run that was killed while it moved files may have left the mark where it came from.
    if not folder.is_dir() or (folder / mark).is_file() or (folder / ".partial" / mark).is_file():
        return

    others = sorted(file.name for file in folder.iterdir() if not is_nobodys(file.name))
    if others:
        raise ValueError(
            f"{folder} holds {', '.join(others[:3])} and no {mark}: all of it would be replaced. Choose another "
            "folder, or remove it first."
        )


def _remove_of_dead(path: Path) -> None:
    """Removes temporary files for `path` of processes of this machine that were killed."""
    for file in path.parent.glob(f".{glob.escape(path.name)}.{_HOST}-*.tmp"):
        process = file.name.removesuffix(".tmp").rpartition("-")[2]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            _remove_quietly(file)


def _to_disk(path: Path) -> None:
    """Waits until a file's bytes are on the disk: a power cut must not leave an empty file under the final name."""
    # Windows only waits for files that may be written.
    file = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems cannot tell, and no file was lost.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


def _remove_quietly(path: Path) -> None:
    # The reason why it could not be written is what the user has to read, and not why it could not be removed.
    with suppress(OSError):
        path.unlink(missing_ok=True)


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes `content`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` as UTF-8, with its line ends as they are, whole or not at all."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: str | Path, value: object) -> None:
    """Writes `value` as JSON, whole or not at all.

    Dataclasses, paths, tensors and NumPy numbers are accepted. A number that is not finite becomes `null`, since JSON
    has none, and a function or class its full name; anything else becomes its `str`, so that a long run never ends
    without its results file.
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

    # The text of a function has its address, which changes from run to run.
    if hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
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


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def storage_problem(error: BaseException) -> str | None:
    """Describes an error of the disk in one sentence; None for an error of another kind.

    Libraries that write files in another language than Python raise errors of their own, and some wrap them.
    """
    seen: BaseException | None = error
    while seen is not None:
        number: int | None = seen.errno if isinstance(seen, OSError) else None
        place = getattr(seen, "filename", None)
        # Rust, in safetensors and tokenizers.
        if match := re.search(r"\(os error (\d+)\)", str(seen)):
            number = int(match.group(1))

        if "PytorchStreamWriter" in str(seen):
            return _storage_sentence("a checkpoint", "its disk is full, read-only or gone")
        if number is not None and number in _OF_THE_DISK:
            return _storage_sentence(str(place or "a file"), os.strerror(number))
        if number == errno.ENOENT:
            return f"{place or 'A file or folder'} is not there: it was removed or renamed, or its name is mistyped."
        if number is not None and place is not None:
            return f"{place}: {os.strerror(number)}."
        # An error that was raised `from None` is a sentence of its own.
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return None


def _storage_sentence(what: str, reason: str) -> str:
    return (
        f"Cannot write {what} ({reason}). Make room, or see to the disk, and start the same command again: it goes on "
        "from what was written before, which is whole."
    )
