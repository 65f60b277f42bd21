"""Loads the user's own csv, tsv, json and parquet files, with `run_glue.py`'s conventions."""

import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Value

from bertkd.data.glue import GLUE_TASKS, Task
from bertkd.data.reading import hint_of_header, read_file

__all__ = ["check_rows", "load_files", "load_texts"]

logger = logging.getLogger(__name__)

# Files whose columns are all text for the reader.
_TEXT_TABLES = (".csv", ".tsv")

# What the column of labels is called once a file is read, as in the hub's data sets.
LABEL = "label"
# Columns that number the rows, whatever they hold; pandas gives the last one to the index of a parquet file.
_ID_NAMES = {"id", "idx", "index", "guid", "uid", "uuid", "__index_level_0__"}
# Columns that are known for two texts.
_PAIRS = tuple(dict.fromkeys(task.text_keys for task in GLUE_TASKS.values() if len(task.text_keys) == 2))
# From so many classes on, they are told; from so many on, with hardly two rows each, they are no classes.
_MANY_CLASSES = 100
_LEAST_SUSPICIOUS = 20

# What a label may be once its file is read: text, a number, true or false, or nothing.
Label = str | int | float | bool | None


def load_files(
    train_file: str | Path | None = None,
    validation_file: str | Path | None = None,
    test_file: str | Path | None = None,
    *,
    text_keys: Sequence[str] | None = None,
    label_key: str = LABEL,
    labels: Sequence[str] | None = None,
) -> tuple[DatasetDict, Task]:
    """Loads one's own files as splits "train", "validation" and "test" with the columns `text_keys` and `label`.

    Without `labels`, classes are inferred from the first file given, as `run_glue.py` does: floats mean regression;
    strings and integers are classes in sorted order; a parquet `ClassLabel` keeps its names. A column of a csv or tsv
    holds numbers where all of its values are numbers; "NaN", "None" and "NA" are text like any other. Every other file
    must agree. A test file may come without labels, and so may a training file when `labels` is given (to distill on
    unlabeled text); their label is then -1.

    Args:
        train_file: a csv, tsv (without quoting), json, jsonl or parquet file.
        validation_file: a file of the same kinds.
        test_file: a file of the same kinds.
        text_keys: the one or two text columns; None takes the names of one of GLUE's pairs, such as `sentence1` and
            `sentence2`, where both are there, else the first two columns of strings, or the only one. Left out are
            columns that number the rows, that say the label in other words, or that are blank. What was left out, and
            that two columns were taken, is told.
        label_key: the label's column; it is called `label` in the result.
        labels: the names of the classes in the order of their ids. Integers in a file are ids, unless the names
            are numbers themselves.

    Returns:
        The splits, and the `Task` that describes them (`name` is "files").

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: no file, an unsupported extension, an empty or unreadable file, a missing column, text or label, a
            label that is not among the classes, or labels that cannot be classes: a single one, two that differ only
            in spaces, nearly as many as rows. The message names file, row (from 1, header not counted) and way out.
    """
    files = {"train": train_file, "validation": validation_file, "test": test_file}
    paths = {split: Path(file) for split, file in files.items() if file is not None}
    if not paths:
        raise ValueError("No data: give at least one of --train_file, --validation_file and --test_file.")

    raw = {split: read_file(path) for split, path in paths.items()}
    first = next(iter(raw))
    if text_keys and len(text_keys) > 2:
        raise ValueError(f"A model reads one or two texts, but --text_column_names names {', '.join(text_keys)}.")
    if text_keys and len(set(text_keys)) < len(text_keys):
        raise ValueError(f"--text_column_names names {text_keys[0]} twice; one name is enough.")
    if text_keys and label_key in text_keys:
        raise ValueError(f"Column {label_key!r} cannot be both a text and the label: see --label_column_name.")
    if text_keys and LABEL in text_keys:
        raise ValueError(f"A column of texts cannot be called {LABEL!r}, as the labels are afterwards: rename it.")
    if labels:
        _check_names(labels)

    keys = tuple(text_keys) if text_keys else _infer_text_keys(raw[first], paths[first], label_key)
    for split, dataset in raw.items():
        unlabeled = split == "test" or (split == "train" and labels)
        _check_columns(dataset, paths[split], keys)
        if not unlabeled and label_key not in dataset.column_names:
            raise ValueError(
                f"{paths[split]} has no column {label_key!r}, only {', '.join(dataset.column_names)}; name the column "
                "of labels with --label_column_name, or learn from the teacher alone with --alpha 1 and --class_names."
                f"{hint_of_header(paths[split], dataset.column_names)}"
            )
        _check_text(dataset, paths[split], keys)

    read_labels = {split: _labels_of(dataset, paths[split], label_key) for split, dataset in raw.items()}
    feature = raw[first].features.get(label_key)
    names = tuple(feature.names) if isinstance(feature, ClassLabel) and not labels else None
    if names is None:
        names = _infer_classes(raw[first], read_labels[first], paths[first], label_key, labels)
    task = Task("files", "", keys, names, "accuracy" if names else "combined_score")
    # Integers inferred as names ("1", "2") are never ids, nor are they where the names given are numbers.
    named = bool(labels) or isinstance(feature, ClassLabel)
    numbers_are_ids = named and not any(name.isdigit() for name in names)

    converted = {}
    for split, dataset in raw.items():
        ids = _label_ids(dataset, read_labels[split], paths[split], task, label_key, numbers_are_ids, split)
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


def load_texts(file: str | Path, task: Task) -> Dataset:
    """Loads the texts of one file for a task, whatever its labels are.

    Args:
        file: of the kinds of `load_files`.
        task: names the columns that hold text.

    Returns:
        Rows with the columns `task.text_keys`.

    Raises:
        FileNotFoundError: the file is missing.
        ValueError: it cannot be read, or lacks a column or a text.
    """
    path = Path(file)
    dataset = read_file(path)
    _check_columns(dataset, path, task.text_keys)
    _check_text(dataset, path, task.text_keys)
    texts = dataset.map(
        _convert_rows,
        batched=True,
        with_indices=True,
        fn_kwargs={"path": str(path), "text_keys": task.text_keys, "label_key": LABEL, "ids": None},
        remove_columns=dataset.column_names,
        features=task.features,
        desc=f"Reading {path.name}",
    )
    return texts.select_columns(list(task.text_keys))


def check_rows(rows: DatasetDict, task: Task) -> None:
    """Checks that there is something to learn from the training rows, and something to measure on the others.

    Raises:
        ValueError: all training rows have the same label, or every validation row is a training row, so that its
            metric says nothing about new texts. Where many are, a warning counts them.
    """
    if "train" not in rows:
        return
    labels = set(rows["train"][LABEL])
    if len(labels) == 1 and labels != {-1}:
        (label,) = labels
        shown = f"{label:g}" if task.is_regression else repr(task.labels[int(label)])
        raise ValueError(f"Every row of --train_file has the label {shown}: there is nothing to learn from it.")

    known = set(zip(*(rows["train"][key] for key in task.text_keys), strict=True))
    for split in task.validation_splits:
        texts = list(zip(*(rows[split][key] for key in task.text_keys), strict=True)) if split in rows else []
        common = sum(text in known for text in texts)
        if texts and common == len(texts):
            raise ValueError(
                f"All {len(texts)} rows of --validation_file are in --train_file too, so its metric would say nothing "
                "about new texts: give rows that are not trained on."
            )
        if common > len(texts) / 10:
            logger.warning(
                "%d of the %d rows of --validation_file are in --train_file too: the metric is too high.",
                common,
                len(texts),
            )


# ---- columns ----


def _check_columns(dataset: Dataset, path: Path, columns: Sequence[str]) -> None:
    for column in columns:
        if column not in dataset.column_names:
            raise ValueError(
                f"{path} has no column {column!r}, only {', '.join(dataset.column_names)}; name the columns with "
                f"--text_column_names.{hint_of_header(path, dataset.column_names)}"
            )


def _check_text(dataset: Dataset, path: Path, keys: Sequence[str]) -> None:
    """Checks that the text columns hold text, or numbers, which are texts too."""
    for key in keys:
        feature = dataset.features[key]
        dtype = str(getattr(feature, "dtype", ""))
        if isinstance(feature, ClassLabel) or not dtype.startswith(("string", "large_string", "int", "uint", "float")):
            raise ValueError(f"{path}: column {key!r} holds {_kind(feature)} and not text; name another column.")


def _kind(feature: Any) -> str:
    """What a column holds, in words."""
    if isinstance(feature, ClassLabel):
        return "class labels"
    return {"Value": f"values of type {getattr(feature, 'dtype', '')}", "Json": "values of several types"}.get(
        type(feature).__name__, "lists" if type(feature).__name__ in ("List", "LargeList", "Sequence") else "objects"
    )


def _infer_text_keys(dataset: Dataset, path: Path, label_key: str) -> tuple[str, ...]:
    is_text_table = path.suffix.lower() in _TEXT_TABLES
    strings = []
    for name, feature in dataset.features.items():
        if name not in (label_key, LABEL) and getattr(feature, "dtype", "") in ("string", "large_string"):
            values = [value for value in dataset.unique(name) if not _is_none(value)]
            # A column of a csv is text for the reader, whatever it holds.
            if values and not (is_text_table and _are_numbers(values)):
                strings.append(name)

    if not strings:
        raise ValueError(
            f"{path} has no text column besides the label {label_key!r}, only {', '.join(dataset.column_names)}; name "
            f"the columns with --text_column_names and --label_column_name."
        )

    known = next((pair for pair in _PAIRS if set(pair) <= set(strings)), ())
    words = [name for name in strings if not _numbers_rows(name, dataset[name])]
    texts = [name for name in words if not _says_the_label(dataset, name, label_key)]
    keys = known or tuple((texts or words or strings)[:2])
    left_out = "".join(f", and {name} is not" for name in strings if name not in keys)
    if (left_out and keys != ("sentence1", "sentence2")) or (len(keys) == 2 and not known):
        is_read = f"{keys[0]} is read as the text" if len(keys) == 1 else f"{' and '.join(keys)} are read as two texts"
        logger.warning("%s: %s%s; choose with --text_column_names.", path, is_read, left_out)
    return keys


def _says_the_label(dataset: Dataset, name: str, label_key: str) -> bool:
    """Whether a column repeats the label in other words: each value has one label, and each label one value."""
    # Labels that are lists or objects are refused later.
    if not isinstance(dataset.features.get(label_key), Value | ClassLabel):
        return False
    count = len(dataset.unique(name))
    # Scores are nearly as many as rows, and so are the texts that they belong to.
    if not (1 < count == len(dataset.unique(label_key)) and 2 * count <= len(dataset)):
        return False
    return len(set(zip(dataset[name], dataset[label_key], strict=True))) == count


def _numbers_rows(name: str, values: Iterable[str | None]) -> bool:
    """Whether a column only says which row is which: by its name, or by words with a digit that never come twice."""
    words = list(values)
    if any(word is None or re.search(r"\s", word.strip()) for word in words):
        return False
    is_numbered = all(re.search(r"\d", str(word)) for word in words) and len(set(words)) == len(words) > 1
    return is_numbered or name.lower() in _ID_NAMES


# ---- labels ----


def _labels_of(dataset: Dataset, path: Path, key: str) -> dict[Any, Label]:
    """What each value of the label column stands for: text or a number; nothing without that column.

    Raises:
        ValueError: the column holds lists, objects, or text among numbers.
    """
    feature = dataset.features.get(key)
    if feature is None:
        return {}
    if type(feature).__name__ == "Json":
        _check_one_type(dataset[key], path, key)
    dtype = str(getattr(feature, "dtype", ""))
    if not isinstance(feature, ClassLabel) and not dtype.startswith(
        ("string", "large_string", "int", "uint", "float", "bool", "null")
    ):
        raise ValueError(
            f"{path}: column {key!r} holds {_kind(feature)}, but a row has a single label, a word or a number; name "
            "the label's column with --label_column_name."
        )

    values = dataset.unique(key)
    if isinstance(feature, ClassLabel):
        return {value: feature.names[value] if value not in (None, -1) else value for value in values}
    if path.suffix.lower() not in _TEXT_TABLES:
        return {value: value for value in values}

    present = [value for value in values if not _is_none(value)]
    numbers = [value for value in present if _are_numbers([value])]
    are_numbers = len(numbers) == len(present)
    # Some scores and a word among them are no classes.
    if not are_numbers and 2 * len(numbers) > len(present) and not all(_is_integer(number) for number in numbers):
        word = next(value for value in present if value not in numbers)
        raise ValueError(
            f"{path}, row {_first_row(dataset[key], word)}: {word!r} in column {key!r} is no number, as most other "
            "labels are; mend the file."
        )
    if not are_numbers:
        return {value: value for value in values}

    convert = int if all(_is_integer(value) for value in present) else float
    return {value: None if _is_none(value) else convert(value) for value in values}


def _check_one_type(values: Iterable[Any], path: Path, key: str) -> None:
    """Refuses a column of words and numbers, or of other kinds of values."""
    first: Any = None
    for row, value in enumerate(values, start=1):
        if value is None:
            continue
        if not isinstance(value, str | int | float):
            raise ValueError(
                f"{path}, row {row}: the label {value!r} in column {key!r} is neither a word nor a number."
            )
        if first is not None and isinstance(value, str) != isinstance(first, str):
            raise ValueError(
                f"{path}, row {row}: the label {value!r} in column {key!r} is {_type_name(value)}, but the one before "
                f"is {_type_name(first)}; write them all alike."
            )
        first = value


def _type_name(value: Any) -> str:
    return "a word" if isinstance(value, str) else "a number"


def _are_numbers(values: Iterable[str | None]) -> bool:
    """Whether texts are finite numbers; "nan" is a word, and so is "1_2", which Python takes for 12."""
    try:
        return all(value is not None and "_" not in value and math.isfinite(float(value)) for value in values)
    except ValueError:
        return False


def _is_integer(value: str) -> bool:
    return re.fullmatch(r"\s*[+-]?[0-9]+\s*", value) is not None


def _infer_classes(
    dataset: Dataset, read_labels: Mapping[Any, Label], path: Path, key: str, labels: Sequence[str] | None
) -> tuple[str, ...]:
    """Returns the names of the classes; none for regression."""
    present = [label for label in read_labels.values() if not _is_none(label)]
    is_float = any(isinstance(label, float) for label in present)
    if labels:
        if is_float:
            raise ValueError(f"{path}: column {key!r} holds floats, which means regression; leave out --class_names.")
        return tuple(labels)

    if not present or set(present) == {-1}:
        raise ValueError(
            f"{path} has no labels in column {key!r}; name the classes with --class_names, or the column with "
            "--label_column_name."
        )

    if is_float:
        _tell_whole_scores(present, path, key)
        return ()
    names = tuple(map(str, sorted(set(present))))  # type: ignore[type-var]
    _check_inferred(names, dataset, path, key)
    return names


def _tell_whole_scores(scores: Sequence[Any], path: Path, key: str) -> None:
    """Tells where scores look like classes."""
    if all(float(score).is_integer() for score in scores):
        logger.warning(
            "%s: the labels in column %r are whole numbers with a decimal point, and are read as scores (regression); "
            "write 1 in the place of 1.0 where they are classes.",
            path,
            key,
        )


def _check_names(names: Sequence[str]) -> None:
    """Refuses names of classes that are blank, given twice, or alone."""
    if len(names) < 2:
        raise ValueError(f"--class_names names only {', '.join(names)}: a classification has at least two classes.")
    for name in names:
        if not name.strip() or list(names).count(name) > 1:
            raise ValueError(f"--class_names has the name {name!r} twice, or it is blank: name each class once.")


def _check_inferred(names: Sequence[str], dataset: Dataset, path: Path, key: str) -> None:
    """Refuses labels that cannot be meant as classes, and tells those that hardly can."""
    by_text: dict[str, str] = {}
    for name in names:
        other = by_text.setdefault(name.strip(), name)
        if other != name:
            with_spaces = name if name != name.strip() else other
            raise ValueError(
                f"{path}, row {_first_row(dataset[key], with_spaces)}: the labels {other!r} and {name!r} in column "
                f"{key!r} differ only in spaces; mend the file, or name all classes with --class_names."
            )

    by_text = {}
    for name in names:
        other = by_text.setdefault(name.strip().casefold(), name)
        if other != name:
            logger.warning("%s: the labels %r and %r in column %r are read as two classes.", path, other, name, key)

    if len(names) >= _LEAST_SUSPICIOUS and len(names) > len(dataset) / 2:
        raise ValueError(
            f"{path}: column {key!r} has {len(names)} different labels in {len(dataset)} rows, such as {names[0]!r} "
            f"and {names[1]!r}; these are hardly classes. Name the label's column with --label_column_name, write "
            "scores with a decimal point, or name all classes with --class_names."
        )
    if len(names) > _MANY_CLASSES:
        logger.warning("%s: column %r is read as %d classes.", path, key, len(names))


def _is_none(value: Any) -> bool:
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


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
        for row, text in zip(rows, batch[key], strict=True):
            if _is_none(text):
                raise ValueError(
                    f"{path}, row {row + 1}: no text in column {key!r}; fill it in, or choose the texts with "
                    "--text_column_names."
                )
        converted[key] = list(map(str, batch[key]))

    converted[LABEL] = [-1] * len(rows) if ids is None else [ids[value] for value in batch[label_key]]
    return converted


def _label_ids(
    dataset: Dataset,
    read_labels: Mapping[Any, Label],
    path: Path,
    task: Task,
    key: str,
    numbers_are_ids: bool,
    split: str,
) -> dict[Any, float] | None:
    """Returns the id or score that each value of the label column stands for; None where the split has no labels."""
    is_blank = all(_is_none(label) for label in read_labels.values())
    is_minus_one = set(read_labels.values()) == {-1} and "-1" not in task.labels and not task.is_regression
    if (is_blank or is_minus_one) and split != "validation":
        return None

    ids: dict[Any, float] = {}
    for value, name in read_labels.items():
        if task.is_regression:
            is_number = isinstance(name, int | float) and not isinstance(name, bool) and math.isfinite(name)
            label = float(name) if is_number else None  # type: ignore[arg-type]
        else:
            label = _class_id(name, task.labels, numbers_are_ids)
            # "01" is the number 1 in a file of numbers, and a name where the first file has words too.
            if label is None and isinstance(value, str):
                label = _class_id(value, task.labels, numbers_are_ids)

        if label is None:
            problem = "no label" if _is_none(name) else f"unknown label {name!r}"
            raise ValueError(
                f"{path}, row {_first_row(dataset[key], value)}: {problem} in column {key!r}, expected "
                f"{_shown(task.labels) or 'a number'}; mend the file or name all classes with --class_names."
            )
        ids[value] = label
    return ids


def _shown(names: Sequence[str]) -> str:
    """The names of classes, the first few of many."""
    shown = ", ".join(names[:20])
    return shown if len(names) <= 20 else f"{shown} or another of {len(names)}"


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
