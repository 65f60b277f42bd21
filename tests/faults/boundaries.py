"""Stops a process, or lets its disk fail, at one chosen place among all that it writes.

`install` patches what writes in this process: `open` and its files, the functions of `os`, and the writers of
safetensors, PyTorch and tokenizers, which are not Python. Each file that is opened for writing, write, rename,
removal, new folder and fsync is a boundary. Boundaries are numbered from 0 in the order in which they are reached.
"""

import builtins
import errno
import io
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors.torch
import torch
from safetensors import SafetensorError
from transformers.tokenization_utils_tokenizers import TokenizersBackend

__all__ = ["FAULTS", "Boundaries"]

Action = Literal["none", "kill", "disk full", "quota", "read-only", "input/output error", "vanished"]
# What each fault lets the operating system say. All but the last two let nothing but writes fail.
FAULTS: dict[str, int] = {
    "disk full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "input/output error": errno.EIO,
    "read-only": errno.EROFS,
    "vanished": errno.ENOENT,
}

# The operations that need room.
WRITES = ("write", "tensors", "torch.save", "tokenizer", "fsync", "allocate")


class Boundaries:
    """The boundaries of one process.

    Args:
        root: only what is written under this folder counts.
        log: a file outside of `root` that gets a line for each boundary.
        action: what happens at the chosen one.
        at: its number.
        vanishing: the folder that the action "vanished" removes.
    """

    def __init__(self, root: Path, log: Path, action: Action = "none", at: int = -1, vanishing: Path | None = None):
        self.root = str(root.resolve())
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        self.action, self.at, self.vanishing = action, at, vanishing
        self.count = 0
        self.has_failed = False
        self._write = os.write
        self._kill = os.kill

    def reached(self, what: str, path: Any, half: Callable[[], Any] = lambda: None) -> None:
        """Counts a boundary, and does what is to be done there.

        Args:
            what: the operation.
            path: what it changes; other paths than those under `root` pass.
            half: leaves half of what the operation would write.
        """
        place = os.path.abspath(os.fsdecode(path)) if not isinstance(path, int) else self._path_of(path)
        if not (place == self.root or place.startswith(self.root + os.sep)):
            return

        is_chosen = self.count == self.at
        self.count += 1
        self._write(self.log, f"{what} {place[len(self.root) :]}\n".encode())
        if is_chosen and self.action == "kill":
            half()
            self._kill(os.getpid(), signal.SIGKILL)
        if is_chosen and self.action == "vanished":
            assert self.vanishing is not None
            self.action = "none"
            shutil.rmtree(self.vanishing, ignore_errors=True)
        if self.action in FAULTS and (is_chosen or self.has_failed):
            self._fail(what, place, half)

    def _fail(self, what: str, place: str, half: Callable[[], Any]) -> None:
        """Raises what the writer would raise, as long as the disk is in this state."""
        self.has_failed = True
        number = FAULTS[self.action]
        if self.action != "read-only" and what not in (
            "write",
            "tensors",
            "torch.save",
            "tokenizer",
            "fsync",
            "allocate",
        ):
            return

        half()
        reason = os.strerror(number)
        if what == "tensors":
            raise SafetensorError(f"Error while serializing: I/O error: {reason} (os error {number})")
        if what == "torch.save":
            raise RuntimeError(
                "[enforce fail at inline_container.cc:706] . PytorchStreamWriter failed writing file data/0: file "
                "write failed"
            )
        if what == "tokenizer":
            raise Exception(f"{reason} (os error {number})")
        raise OSError(number, reason, place)

    def _path_of(self, descriptor: int) -> str:
        return os.readlink(f"/proc/self/fd/{descriptor}")

    def _in_folder(self, path: Any, dir_fd: int | None) -> Any:
        return path if dir_fd is None else os.path.join(self._path_of(dir_fd), os.fsdecode(path))

    # ---- what is patched ----

    def install(self) -> None:
        """Patches this process, for good."""
        self._patch_open()
        self._patch_os()
        self._patch_libraries()

    def _patch_open(self) -> None:
        real_open = builtins.open

        def watched_open(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
            if not any(letter in mode for letter in "wax+") or isinstance(file, int):
                return real_open(file, mode, *args, **kwargs)
            if self.action == "kill":
                # Killed right after it was opened: the file is there and empty.
                opened = real_open(file, mode, *args, **kwargs)
                self.reached("open", file)
            else:
                self.reached("open", file)
                opened = real_open(file, mode, *args, **kwargs)
            return _WatchedFile(opened, file, self)

        builtins.open = watched_open  # type: ignore[assignment]
        io.open = watched_open  # type: ignore[assignment]

    def _patch_os(self) -> None:
        for name in ("replace", "rename"):
            self._patch_rename(name)
        for name in ("unlink", "remove", "rmdir", "mkdir"):
            self._patch_path(name)
        for name in ("fsync", "posix_fallocate"):
            self._patch_descriptor(name, {"posix_fallocate": "allocate"}.get(name, name))

    def _patch_rename(self, name: str) -> None:
        real = getattr(os, name)

        def watched(source: Any, target: Any, **kwargs: Any) -> None:
            self.reached("rename", target)
            real(source, target, **kwargs)

        setattr(os, name, watched)

    def _patch_path(self, name: str) -> None:
        real = getattr(os, name)

        def watched(path: Any, *args: Any, dir_fd: int | None = None, **kwargs: Any) -> None:
            self.reached(name, self._in_folder(path, dir_fd))
            real(path, *args, dir_fd=dir_fd, **kwargs)

        setattr(os, name, watched)

    def _patch_descriptor(self, name: str, what: str) -> None:
        real = getattr(os, name)

        def watched(descriptor: Any, *args: Any) -> None:
            self.reached(what, descriptor if isinstance(descriptor, int) else descriptor.fileno())
            real(descriptor, *args)

        setattr(os, name, watched)

    def _patch_libraries(self) -> None:
        """Writers that are not Python: what they write is cut in half."""
        write_tensors, save, flush = safetensors.torch.serialize_file, torch.save, np.memmap.flush
        save_tokenizer = TokenizersBackend._save_pretrained

        def tensors(content: Any, filename: Any, *args: Any, **kwargs: Any) -> None:
            self.reached("tensors", filename, lambda: _halved(filename, lambda: write_tensors(content, filename)))
            write_tensors(content, filename, *args, **kwargs)

        def torch_save(content: Any, file: Any, *args: Any, **kwargs: Any) -> None:
            if isinstance(file, str | os.PathLike):
                self.reached("torch.save", file, lambda: _halved(file, lambda: save(content, file)))
            save(content, file, *args, **kwargs)

        def tokenizer(instance: Any, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
            path = Path(save_directory) / "tokenizer.json"
            self.reached("tokenizer", path, lambda: _halved(path, lambda: instance.backend_tokenizer.save(str(path))))
            return save_tokenizer(instance, save_directory, *args, **kwargs)

        def memmap_flush(instance: Any) -> None:
            self.reached("fsync", instance.filename)
            flush(instance)

        safetensors.torch.serialize_file = tensors  # type: ignore[assignment]
        torch.save = torch_save
        TokenizersBackend._save_pretrained = tokenizer  # type: ignore[method-assign]
        np.memmap.flush = memmap_flush  # type: ignore[method-assign]


class _WatchedFile:
    """A file whose writes are boundaries."""

    def __init__(self, file: Any, path: Any, boundaries: Boundaries) -> None:
        self._file, self._path, self._boundaries = file, path, boundaries

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "_WatchedFile":
        self._file.__enter__()
        return self

    def __exit__(self, *error: Any) -> Any:
        return self._file.__exit__(*error)

    def __iter__(self) -> Any:
        return iter(self._file)

    def write(self, content: Any) -> Any:
        def half() -> None:
            self._file.write(content[: len(content) // 2])
            self._file.flush()

        self._boundaries.reached("write", self._path, half)
        return self._file.write(content)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)


def _halved(path: Any, write: Callable[[], Any]) -> None:
    write()
    os.truncate(path, os.path.getsize(path) // 2)
