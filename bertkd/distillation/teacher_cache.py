"""Keeps the teacher's outputs for every training row on disk: computed once, read in each epoch.

A cache is a folder of `.npy` files, one per tensor, with the row as first dimension; they are memory-mapped, so a
batch reads only its rows. The folder's name is a fingerprint of everything the outputs depend on. A changed teacher,
data set, tokenizer or length therefore has another folder. The folder also holds checksums of its files: contents that
were edited, cut short or swapped are never used.

Some things have no fingerprint: a collator that draws, a function that `teacher_forward` calls, a value that it
counts. For these the cache is compared with the live teacher, see `TeacherMixin`.
"""

import hashlib
import inspect
import json
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from bertkd.atomic import atomic_replacement, file_sha256, write_json
from bertkd.folder_lock import check_writable

__all__ = [
    "ROW_COLUMN",
    "TeacherCache",
    "batch_digest",
    "check_numbers",
    "check_one_per_row",
    "fingerprint",
    "largest_difference",
    "method_sources",
    "with_rows",
]

logger = logging.getLogger(__name__)

ROW_COLUMN = "teacher_row"
_META = "meta.json"
# Version of the cache's format: raise it when its files, or what is checked of them, change.
_VERSION = 2
# What a config says of a file or a version, and not of a model.
_UNIMPORTANT = ("_name_or_path", "transformers_version", "architectures")


class _WithRows(torch.utils.data.Dataset):
    """A data set of dicts whose items also carry their row number."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**self.dataset[row], ROW_COLUMN: row}


def with_rows(dataset: Any) -> Any:
    """The data set with each row's number under `ROW_COLUMN`."""
    if _is_table(dataset):
        return dataset.add_column(ROW_COLUMN, list(range(len(dataset))))
    return _WithRows(dataset)


def _is_table(dataset: Any) -> bool:
    """Whether what the models read stands in a `datasets` table: a transform makes it only when a row is read."""
    return isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom"


class TeacherCache:
    """Reads the teacher's tensors by row.

    Args:
        folder: the folder that `TeacherCache.build` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / _META).read_text(encoding="utf-8"))
        self.names: list[str] = sorted(self.meta["checksums"])
        self.arrays: dict[str, np.ndarray] = {}
        for name in self.names:
            self.arrays[name] = np.load(folder / f"{name}.npy", mmap_mode="r", allow_pickle=False)

    def __getitem__(self, rows: Tensor) -> dict[str, Tensor]:
        """The tensors of these rows, float32, on the device of `rows`, shapes (B, ...)."""
        index = rows.cpu().numpy()
        tensors = {}
        for name, array in self.arrays.items():
            values = np.asarray(array[index], dtype=np.float32)
            tensors[name] = torch.from_numpy(values).to(rows.device)
        return tensors

    @staticmethod
    def lock(folder: Path) -> FileLock:
        """A lock to hold while a missing cache is made; other processes wait for it, and then look again.

        Raises:
            OSError: nothing can be written there.
        """
        check_writable(folder.parent, "teacher_cache_dir")
        return FileLock(f"{folder}.lock")

    @classmethod
    def open(cls, folder: Path, num_rows: int) -> "TeacherCache | None":
        """The cache in `folder`, or None when there is none, or not a whole and unchanged one for `num_rows` rows."""
        if not (folder / _META).is_file():
            return None

        try:
            cache = cls(folder)
            is_whole = cache._is_as_written(num_rows)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            is_whole = False
        if not is_whole:
            logger.warning("The teacher cache %s is damaged or of an earlier version: it is computed anew.", folder)
            return None
        return cache

    def _is_as_written(self, num_rows: int) -> bool:
        """Whether the files are those that `build` wrote for this folder."""
        if self.meta["version"] != _VERSION or self.meta["fingerprint"] != self.folder.name:
            return False

        for name, checksum in self.meta["checksums"].items():
            if len(self.arrays[name]) != num_rows or file_sha256(self.folder / f"{name}.npy") != checksum:
                return False
        return True

    @classmethod
    def build(
        cls,
        folder: Path,
        num_rows: int,
        batches: Iterable[tuple[Sequence[int], Any]],
        forward: Callable[[Any], dict[str, Tensor]],
        dtype: str,
    ) -> "TeacherCache":
        """Run `forward` over `batches` of (rows, inputs) and write what it returns; whole or not at all.

        One process at a time may do so: it holds `TeacherCache.lock`.

        Raises:
            ValueError: `forward` returns something that does not have one entry of fixed shape per row, or a number
                that is not finite, or that `dtype` cannot hold.
        """
        arrays: dict[str, np.ndarray] = {}
        with atomic_replacement(folder, _META) as partial:
            partial.mkdir(parents=True)
            for rows, inputs in batches:
                for name, tensor in forward(inputs).items():
                    values = tensor.float().cpu().numpy()
                    # The first batch decides the shape of a row.
                    if name not in arrays:
                        shape = (num_rows, *values.shape[1:])
                        arrays[name] = _new_array(partial / f"{name}.npy", dtype, shape)

                    check_one_per_row(name, values.shape, (len(rows), *arrays[name].shape[1:]))
                    check_numbers(name, values, rows, dtype)
                    arrays[name][list(rows)] = values

            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            checksums = {name: file_sha256(partial / f"{name}.npy") for name in sorted(arrays)}
            meta = {"version": _VERSION, "fingerprint": folder.name, "rows": num_rows, "checksums": checksums}
            write_json(partial / _META, meta)

        return cls(folder)


def _new_array(path: Path, dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    """A memory-mapped array in a new file, whose place on the disk is taken at once.

    Raises:
        OSError: there is no place for it.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
    # Where the disk is full later, a write to mapped memory would kill the process without a word.
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


def check_one_per_row(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Checks the shape of a teacher's output, whose first dimension is the rows of a batch.

    Raises:
        ValueError: it is not `expected`.
    """
    if shape != expected:
        raise ValueError(
            f"The teacher's output {name!r} has shape {shape} for {expected[0]} rows where {expected} was expected; "
            "only outputs of one fixed shape per row can be cached. Return such ones from teacher_forward, or leave "
            "teacher_cache_dir out."
        )


def check_numbers(name: str, values: np.ndarray, rows: Sequence[int], dtype: str) -> None:
    """Raises ValueError for a number that is not finite, or that `dtype` cannot hold."""
    largest = np.abs(values).reshape(len(values), -1).max(axis=1, initial=0)
    if not np.isfinite(largest).all():
        row = rows[int(np.argmin(np.isfinite(largest)))]
        raise ValueError(
            f"The teacher's output {name!r} is not a finite number in row {row}: nothing can be learned from it. "
            "Check the teacher's weights and this row."
        )
    if largest.max(initial=0) > np.finfo(dtype).max:
        row = rows[int(np.argmax(largest))]
        raise ValueError(
            f"The teacher's output {name!r} reaches {largest.max():.4g} in row {row}, which {dtype} cannot hold: set "
            "teacher_cache_dtype to float32."
        )


def largest_difference(outputs: dict[str, Tensor], expected: dict[str, Tensor]) -> tuple[str, float]:
    """Compares two results for the same rows.

    Returns:
        The output that differs most, and by how much: a share of the largest absolute value that is expected. It is
        infinite for outputs of other names or shapes, or that are not numbers.
    """
    if outputs.keys() != expected.keys():
        return ", ".join(sorted(outputs.keys() ^ expected.keys())), float("inf")

    worst, worst_name = 0.0, next(iter(expected), "")
    for name, tensor in outputs.items():
        other = expected[name].to(tensor.device)
        if tensor.shape != other.shape:
            return name, float("inf")
        if not tensor.numel():
            continue

        scale = other.abs().max().item() or 1.0
        difference = (tensor.float() - other.float()).abs().max().item() / scale
        if not difference <= worst:
            worst, worst_name = difference if difference == difference else float("inf"), name
    return worst_name, worst


def fingerprint(teacher: nn.Module, dataset: Any, columns: Sequence[str], settings: dict[str, Any]) -> str:
    """A name for what a teacher says of a data set: 32 hexadecimal digits over weights, rows and settings.

    Args:
        teacher: its parameters, buffers and config count.
        dataset: the tokenized rows; tokenizer and lengths count through them.
        columns: those of its columns that the teacher reads.
        settings: everything else that the outputs depend on; it must fit into JSON.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())

    config = getattr(teacher, "config", None)
    if config is not None:
        values = config.to_dict()
        for name in _UNIMPORTANT:
            values.pop(name, None)
        digest.update(json.dumps(values, sort_keys=True, default=str).encode())

    for name, tensor in sorted(teacher.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())

    for part in _row_bytes(dataset, columns):
        digest.update(part)
    return digest.hexdigest()[:32]


def batch_digest(batch: Any, columns: Sequence[str]) -> str:
    """A hash of what the teacher reads of a collated batch."""
    digest = hashlib.sha256()
    for name in columns:
        if name in batch:
            digest.update(name.encode())
            digest.update(_value_bytes(batch[name]))
    return digest.hexdigest()


def _value_bytes(value: Any) -> bytes:
    """What a value of a row or a batch holds, for a hash: a tensor, numbers, texts, or a list of these."""
    try:
        values = np.ascontiguousarray(value)
    except ValueError:  # its lists have different lengths
        return b"".join(map(_value_bytes, value))
    # Of objects an array has the addresses.
    return f"{values.shape}{values.dtype}".encode() + (
        repr(value).encode() if values.dtype == object else values.tobytes()
    )


def method_sources(cls: type, name: str) -> list[str]:
    """The source of a method in a class and its bases: code that was edited makes other outputs."""
    sources = []
    for base in cls.__mro__:
        if name not in vars(base):
            continue
        try:
            sources.append(inspect.getsource(vars(base)[name]))
        except (OSError, TypeError):
            # It was typed into an interpreter, which keeps no source.
            sources.append(f"{base.__module__}.{base.__qualname__}")
    return sources


def _row_bytes(dataset: Any, columns: Sequence[str]) -> Iterable[bytes]:
    """Everything that the given columns of a data set hold, for a hash."""
    yield str(len(dataset)).encode()

    if not _is_table(dataset):
        for row in range(len(dataset)):
            item = dataset[row]
            for name in columns:
                if name in item:
                    yield name.encode()
                    yield _value_bytes(item[name])
        return

    kept = [name for name in columns if name in dataset.column_names]
    for table in dataset.select_columns(kept).with_format("arrow").iter(batch_size=1000):
        for name in kept:
            column = table[name].combine_chunks()
            yield name.encode()

            if hasattr(column, "value_lengths"):
                # Lists: two rows of other lengths may hold the same values one after the other.
                yield column.value_lengths().to_numpy(zero_copy_only=False).tobytes()
                column = column.flatten()
            values = column.to_numpy(zero_copy_only=False)
            # Of texts the array has the addresses.
            yield repr(column.to_pylist()).encode() if values.dtype == object else values.tobytes()
