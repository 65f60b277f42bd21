"""Lets one process at a time write to a folder.

The lock is the operating system's own: it goes when its process ends, however it ends, so that a killed run never
blocks the next one.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has other locks, and goes without.
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK_FILE", "check_writable", "folder_in_use", "has_dead_holder"]

# The Trainer uploads no file whose name begins so.
LOCK_FILE = "_in_use"
# How the operating system says that another process holds a lock.
HELD_BY_ANOTHER = (errno.EACCES, errno.EAGAIN)

# The folders that this process writes to. A child that it forks gets a copy of this, but not the locks.
_held: dict[Path, int] = {}


@contextmanager
def folder_in_use(folder: str | Path, command: str = "") -> Iterator[None]:
    """Within, no other process can take this folder. A process that has it already may take it again.

    Args:
        folder: it is made where it is not there.
        command: what was typed, which a second process is told.

    Raises:
        OSError: another process has it, or nothing can be written to it; the message says which.
    """
    folder = Path(folder).resolve()
    is_new = not folder.exists()
    check_writable(folder)
    if _held.get(folder) == os.getpid() or fcntl is None:
        yield
        return

    file = _lock(folder)
    if file is None:
        # Some network file systems have no locks.
        yield
        return

    _held[folder] = os.getpid()
    try:
        _write_holder(file, command)
        yield
    finally:
        del _held[folder]
        # Before the lock is given up: afterwards the file may be another process's.
        with suppress(OSError):
            (folder / LOCK_FILE).unlink(missing_ok=True)
        os.close(file)
        if is_new:
            # What was refused before anything was written leaves no empty folder.
            with suppress(OSError):
                folder.rmdir()


def check_writable(folder: Path, option: str = "--output_dir") -> None:
    """Makes a folder where it is not there, and checks that files can be written to it.

    Args:
        folder: the folder.
        option: what names it, for the message.

    Raises:
        OSError: they cannot; the message names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # A full disk may still take a name, and then no byte.
            file.write(b"x")
            file.flush()
    except OSError as error:
        raise OSError(f"Cannot write to {folder} ({error.strerror}): choose another {option}.") from None


def has_dead_holder(folder: Path) -> bool:
    """Whether the last process that took a folder was killed before it gave it back."""
    if fcntl is None or _held.get(folder.resolve()) == os.getpid():
        return False

    try:
        file = os.open(folder / LOCK_FILE, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except OSError:
        return False
    finally:
        os.close(file)


def _lock(folder: Path) -> int | None:
    """Opens and locks the lock file of a folder; None where the file system has no locks.

    Raises:
        OSError: another process holds it.
    """
    path = folder / LOCK_FILE
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            # Not `flock`, which the workers of a data loader inherit and keep when their parent is killed.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file), path.stat()):
                return file
        except OSError as error:
            holder = _read_holder(path)
            os.close(file)
            if error.errno in HELD_BY_ANOTHER:
                raise OSError(
                    f"{folder} is in use{holder}: wait until that process has ended, or choose another output folder."
                ) from None
            return None
        # Its last holder removed the file while this process opened it: there is a new one, or none.
        os.close(file)


def _write_holder(file: int, command: str) -> None:
    holder = {
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command,
    }
    os.ftruncate(file, 0)
    os.write(file, json.dumps(holder).encode())


def _read_holder(path: Path) -> str:
    """Describes the process that holds a lock, for a sentence; empty where it has not written yet who it is."""
    try:
        holder = json.loads(path.read_text(encoding="utf-8"))
        command = f", which runs `{holder['command']}`" if holder["command"] else ""
        return f" by process {holder['process']} on {holder['host']} since {holder['since']}{command}"
    except (OSError, ValueError, KeyError, TypeError):
        return ""
