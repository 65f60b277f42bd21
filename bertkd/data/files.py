"""Loads the user's own csv, tsv, json and parquet files, with `run_glue.py`'s conventions."""

import csv
import glob
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict
from datasets.exceptions import DatasetGenerationError

from bertkd.data.glue import Task

__all__ = ["load_files"]

# Without the first option pandas would take texts such as "NA" and "null" for missing ones.
_CSV: dict[str, Any] = {"keep_default_na": False, "encoding": "utf-8-sig"}
_READERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".csv": ("csv", _CSV),
    ".tsv": ("csv", {**_CSV, "delimiter": "\t", "quoting": csv.QUOTE_NONE}),
    ".json": ("json", {}),
    ".jsonl": ("json", {}),
    ".parquet": ("parquet", {}),
}


def load_files(
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    *,
    text_keys: Sequence[str] | None = None,
    label_key: str = "label",
    labels: Sequence[str] | None = None,
) -> tuple[DatasetDict, Task]:
    """Loads one's own files as splits "train", "validation" and "test" with the columns `text_keys` and `label`.

    Without `labels`, classes are inferred from the first file given, as `run_glue.py` does: floats mean regression;
    strings and integers are classes in sorted order; a parquet `ClassLabel` keeps its names. Every other file must
    agree. A test file may come without labels, and so may a training file when `labels` is given (to distill on
    unlabeled text); their label is then -1.

    Args:
        train_file: a csv, tsv (without quoting), json, jsonl or parquet file.
        validation_file: a file of the same kinds.
        test_file: a file of the same kinds.
        text_keys: the one or two text columns; None takes `sentence1` and `sentence2` where both are there, else the
            first two columns of strings, or the only one.
        label_key: the label's column; it is called `label` in the result.
        labels: the names of the classes in the order of their ids. Integers in a file are ids, unless the names
            are numbers themselves.

    Returns:
        The splits, and the `Task` that describes them (`name` is "files").

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file, an unsupported extension, an empty or unreadable file, a missing column, text or label, a
            label that is not among the classes; the message names file, row (from 1, header not counted) and way out.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    paths = {split: Path(file) for split, file in files.items() if file is not None}
    if not paths:
        raise ValueError("No data: give at least one of --train_file, --validation_file and --test_file.")

    raw = {split: _read(path) for split, path in paths.items()}
    first = next(iter(raw))
    if text_keys and len(text_keys) > 2:
        raise ValueError(f"A model reads one or two texts, but --text_column_names names {', '.join(text_keys)}.")
    keys = tuple(text_keys) if text_keys else _infer_text_keys(raw[first], paths[first], label_key)
    for split, dataset in raw.items():
        unlabeled = split == "test" or (split == "train" and labels)
        _check_columns(dataset, paths[split], keys if unlabeled else (*keys, label_key))

    names = _infer_labels(raw[first], paths[first], label_key, labels)
    task = Task("files", "", keys, names, "accuracy" if names else "combined_score")
    # Integers inferred as names ("1", "2") are never ids, nor are they where the names given are numbers.
    named = bool(labels) or isinstance(raw[first].features.get(label_key), ClassLabel)
    numbers_are_ids = named and not any(name.isdigit() for name in names)

    converted = {}
    for split, dataset in raw.items():
        ids = _label_ids(dataset, paths[split], task, label_key, numbers_are_ids, split)
        converted[split] = dataset.map(
            _convert_rows,
            batched=True,
            with_indices=True,
            fn_kwargs={"path": str(paths[split]), "text_keys": keys, "label_key": label_key, "ids": ids},
            remove_columns=dataset.column_names,
            features=task.features,
            desc=f"Reading {paths[split].name}",
        )
    return DatasetDict(converted), task


def _read(path: Path) -> Dataset:
    if path.suffix.lower() not in _READERS:
        raise ValueError(f"{path}: {path.suffix or 'no extension'} is not supported; use {', '.join(_READERS)}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it needs a text and a label column.")

    reader, options = _READERS[path.suffix.lower()]
    try:
        dataset = datasets.load_dataset(reader, data_files=glob.escape(str(path.resolve())), split="train", **options)
    except (DatasetGenerationError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ValueError(f"{path} has no rows or cannot be read as {reader}: {reason}") from None

    # pandas takes a column without a name for an index, which would shift all others by one.
    if reader == "csv" and "__index_level_0__" in dataset.column_names:
        raise ValueError(f"{path}: its rows have more columns than its header names; mend the header.")
    return dataset


def _check_columns(dataset: Dataset, path: Path, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(
                f"{path} has no column {column!r}, only {', '.join(dataset.column_names)}; name the columns with "
                f"--text_column_names and --label_column_name."
            )


def _infer_text_keys(dataset: Dataset, path: Path, label_key: str) -> tuple[str, ...]:
    strings = []
    for name, feature in dataset.features.items():
        if name != label_key and getattr(feature, "dtype", "") in ("string", "large_string"):
            strings.append(name)

    if not strings:
        raise ValueError(
            f"{path} has no text column besides the label {label_key!r}, only {', '.join(dataset.column_names)}; name "
            f"the columns with --text_column_names and --label_column_name."
        )

    pair = ("sentence1", "sentence2")
    return pair if set(pair) <= set(strings) else tuple(strings[:2])


def _infer_labels(dataset: Dataset, path: Path, key: str, labels: Sequence[str] | None) -> tuple[str, ...]:
    """Returns the names of the classes; none for regression."""
    feature = dataset.features.get(key)
    is_float = feature is not None and str(getattr(feature, "dtype", "")).startswith("float")
    if labels:
        if is_float and not _is_missing(dataset, key):
            raise ValueError(f"{path}: column {key!r} holds floats, which means regression; leave out --class_names.")
        return tuple(labels)

    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    if feature is None or _is_missing(dataset, key) or set(dataset.unique(key)) == {-1}:
        raise ValueError(
            f"{path} has no labels in column {key!r}; name the classes with --class_names, or the column with "
            "--label_column_name."
        )

    if is_float:
        return ()
    values = [value for value in dataset.unique(key) if not _is_none(value)]
    return tuple(map(str, sorted(values)))


def _is_none(value: Any) -> bool:
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_missing(dataset: Dataset, key: str) -> bool:
    """Says whether the column holds nothing at all."""
    return key not in dataset.column_names or all(_is_none(value) for value in dataset.unique(key))


def _convert_rows(
    batch: Mapping[str, list[Any]],
    rows: list[int],
    path: str,
    text_keys: tuple[str, ...],
    label_key: str,
    ids: dict[Any, float] | None,
) -> dict[str, list[Any]]:
    converted: dict[str, list[Any]] = {}
    for key in text_keys:
        if None in batch[key]:
            raise ValueError(f"{path}, row {rows[batch[key].index(None)] + 1}: no text in column {key!r}; fill it in.")
        converted[key] = list(map(str, batch[key]))

    converted["label"] = [-1] * len(rows) if ids is None else [ids[value] for value in batch[label_key]]
    return converted


def _label_ids(
    dataset: Dataset, path: Path, task: Task, key: str, numbers_are_ids: bool, split: str
) -> dict[Any, float] | None:
    """Returns the id or score that each value of the label column stands for; None where the split has no labels."""
    values = dataset.unique(key) if key in dataset.column_names else []
    unlabeled = _is_missing(dataset, key) or (values == [-1] and "-1" not in task.labels and not task.is_regression)
    if unlabeled and split != "validation":
        return None

    feature = dataset.features[key]
    ids: dict[Any, float] = {}
    for value in values:
        name = feature.names[value] if isinstance(feature, ClassLabel) and value not in (None, -1) else value
        if task.is_regression:
            label = float(name) if isinstance(name, int | float) and math.isfinite(name) else None
        else:
            label = _class_id(name, task.labels, numbers_are_ids)

        if label is None:
            problem = "no label" if _is_none(value) else f"unknown label {name!r}"
            raise ValueError(
                f"{path}, row {_first_row(dataset[key], value)}: {problem} in column {key!r}, expected "
                f"{', '.join(task.labels) or 'a number'}; mend the file or name all classes with --class_names."
            )
        ids[value] = label
    return ids


def _first_row(values: Iterable[Any], value: Any) -> int:
    """Returns the number of the first row, from 1, that has this value; all missing values are alike."""
    for row, other in enumerate(values, start=1):
        if _is_none(other) if _is_none(value) else other == value:
            return row
    raise AssertionError("every value of a column is in one of its rows")


def _class_id(value: Any, names: tuple[str, ...], numbers_are_ids: bool) -> int | None:
    """Returns the id that a value stands for: that of its name, or the value itself; None where it is neither."""
    if str(value) in names and not _is_none(value):
        return names.index(str(value))
    is_id = numbers_are_ids and type(value) is int and 0 <= value < len(names)
    return value if is_id else None
