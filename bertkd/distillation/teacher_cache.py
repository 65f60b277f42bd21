"""Keeps the teacher's outputs for every training row on disk: computed once, read in each epoch.

A cache is a folder of `.npy` files, one per tensor, with the row as first dimension; they are memory-mapped, so a
batch reads only its rows. The folder's name is a fingerprint of everything the outputs depend on. A changed teacher,
data set, tokenizer or length therefore has another folder, and a cache that does not fit is never used.
"""

import hashlib
import inspect
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from filelock import FileLock
from torch import Tensor, nn

from bertkd.atomic import atomic_replacement

__all__ = ["ROW_COLUMN", "TeacherCache", "fingerprint", "method_sources", "with_rows"]

ROW_COLUMN = "teacher_row"
_META = "meta.json"
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
        self.names: list[str] = json.loads((folder / _META).read_text())["names"]
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
        """A lock to hold while a missing cache is made; other processes wait for it, and then look again."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        return FileLock(f"{folder}.lock")

    @classmethod
    def open(cls, folder: Path, num_rows: int) -> "TeacherCache | None":
        """The cache in `folder`, or None when there is none, or not a whole one for `num_rows` rows."""
        try:
            cache = cls(folder)
        except (OSError, ValueError, KeyError):
            return None

        is_whole = all(len(array) == num_rows for array in cache.arrays.values())
        return cache if is_whole else None

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
            ValueError: `forward` returns something that does not have one entry of fixed shape per row.
        """
        arrays: dict[str, np.ndarray] = {}
        with atomic_replacement(folder, _META) as partial:
            partial.mkdir(parents=True)
            for rows, inputs in batches:
                for name, tensor in forward(inputs).items():
                    values = tensor.float().cpu().numpy()
                    if name not in arrays:
                        path, shape = partial / f"{name}.npy", (num_rows, *values.shape[1:])
                        arrays[name] = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)

                    # The first batch decides the shape of a row.
                    expected = (len(rows), *arrays[name].shape[1:])
                    if values.shape != expected:
                        raise ValueError(
                            f"The teacher's output {name!r} has shape {values.shape} for {len(rows)} rows where "
                            f"{expected} was expected; only outputs of one fixed shape per row can be cached. Return "
                            "such ones from teacher_forward, or leave teacher_cache_dir out."
                        )
                    arrays[name][list(rows)] = values

            for array in arrays.values():
                array.flush()  # type: ignore[attr-defined]
            (partial / _META).write_text(json.dumps({"names": sorted(arrays)}))

        return cls(folder)


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
            values = [(name, np.asarray(item[name]).tolist()) for name in columns if name in item]
            yield repr(values).encode()
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
            yield column.to_numpy(zero_copy_only=False).tobytes()
