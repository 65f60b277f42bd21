"""Loads the nine GLUE tasks and the AX diagnostic set, from the hub or from a folder of the official tsv files.

Both give the columns, labels and label order of `nyu-mll/glue`, so what is trained on one can be evaluated on the
other. A tsv is read here and not by a csv reader: quotes have no meaning in it, and a bad row should be named.
"""

import hashlib
import logging
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from datasets import ClassLabel, Dataset, DatasetDict, Features, NamedSplit, Value
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HfHubHTTPError

from bertkd.atomic import file_sha256

__all__ = ["GLUE_TASKS", "Task", "check_task_name", "load_glue"]

logger = logging.getLogger(__name__)

HUB_NAME = "nyu-mll/glue"
# The similarities of STS-B go from 0 to it.
HIGHEST_SCORE = 5


def check_task_name(name: str) -> None:
    """Checks that a task's name, of which files and folders are called, cannot lead out of their folder.

    Raises:
        ValueError: it has others than letters, digits, spaces, "-", "_" and ".", or begins otherwise, or is too long.
    """
    if re.fullmatch(r"[^\W_][\w. -]{0,99}", name) is None:
        raise ValueError(
            f"{name!r} cannot name a task (--files_name), because files are called by it: take letters, digits, "
            "spaces, '-', '_' and '.', at most 100 in all, and begin with a letter or digit."
        )


@dataclass(frozen=True)
class Task:
    """A classification or regression task: its texts, its labels and its metric.

    Args:
        name: its name on the hub, e.g. "sst2"; "files" for one's own files.
        folder: its folder among the official tsv files, e.g. "SST-2"; "" for one's own files.
        text_keys: the one or two columns that hold text, in the order in which the model reads them.
        labels: the names of the classes in the order of their ids (the hub's); empty for regression.
        metric: the figure by which runs are selected and ranked.

    Raises:
        ValueError: the name cannot be that of a file.
    """

    name: str
    folder: str
    text_keys: tuple[str, ...]
    labels: tuple[str, ...]
    metric: str

    def __post_init__(self) -> None:
        check_task_name(self.name)

    @property
    def is_regression(self) -> bool:
        """Whether labels are scores and not classes."""
        return not self.labels

    @property
    def num_labels(self) -> int:
        """The number of outputs that a model needs: one per class, or 1 for regression."""
        return len(self.labels) or 1

    @property
    def validation_splits(self) -> tuple[str, ...]:
        """The labeled splits to evaluate on; MNLI has two, AX none."""
        if self.name == "ax":
            return ()
        return ("validation_matched", "validation_mismatched") if self.name == "mnli" else ("validation",)

    @property
    def test_splits(self) -> tuple[str, ...]:
        """The splits to predict on; MNLI has two."""
        return ("test_matched", "test_mismatched") if self.name == "mnli" else ("test",)

    @property
    def splits(self) -> tuple[str, ...]:
        """All splits; AX has no training part."""
        train_splits = () if self.name == "ax" else ("train",)
        return (*train_splits, *self.validation_splits, *self.test_splits)

    @property
    def metric_config(self) -> str:
        """The argument of `bertkd.metrics.glue_metrics` for this task."""
        if self.name in GLUE_TASKS:
            return self.name
        return "regression" if self.is_regression else "classification"

    @property
    def features(self) -> Features:
        """The text columns (strings) and `label` (ClassLabel, or float32 for regression)."""
        features = {key: Value("string") for key in self.text_keys}
        features["label"] = Value("float32") if self.is_regression else ClassLabel(names=list(self.labels))
        return Features(features)


_PAIR = ("sentence1", "sentence2")
_NLI = ("entailment", "neutral", "contradiction")

GLUE_TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        Task("cola", "CoLA", ("sentence",), ("unacceptable", "acceptable"), "matthews_correlation"),
        Task("sst2", "SST-2", ("sentence",), ("negative", "positive"), "accuracy"),
        Task("mrpc", "MRPC", _PAIR, ("not_equivalent", "equivalent"), "combined_score"),
        Task("stsb", "STS-B", _PAIR, (), "combined_score"),
        Task("qqp", "QQP", ("question1", "question2"), ("not_duplicate", "duplicate"), "combined_score"),
        Task("mnli", "MNLI", ("premise", "hypothesis"), _NLI, "accuracy"),
        Task("qnli", "QNLI", ("question", "sentence"), ("entailment", "not_entailment"), "accuracy"),
        Task("rte", "RTE", _PAIR, ("entailment", "not_entailment"), "accuracy"),
        Task("wnli", "WNLI", _PAIR, ("not_entailment", "entailment"), "accuracy"),
        Task("ax", "diagnostic", ("premise", "hypothesis"), _NLI, "accuracy"),
    )
}
"""The GLUE tasks by their name on the hub."""


def load_glue(task: str, glue_dir: str | Path | None = None, splits: Sequence[str] | None = None) -> DatasetDict:
    """Loads a GLUE task with the hub's columns: its text keys, `label` and `idx` (the row's number in its split).

    Labels are a `ClassLabel`, or float32 from 0 to 5 for "stsb". A row without a label, as in the tests, has -1.

    Args:
        task: a key of `GLUE_TASKS`.
        glue_dir: the folder of the official tsv files, with `SST-2/train.tsv` and so on; None loads from the hub.
        splits: the splits to load; None loads those that are there. Other files are not opened.

    Raises:
        ConnectionError: the hub cannot be reached; the message names the ways to use local files.
        FileNotFoundError: a requested split's file, or every file of the task, is missing.
        ValueError: an unknown task or split, a missing column, or a row that cannot be read; the message names file,
            line, what was expected and what was found.
    """
    if task not in GLUE_TASKS:
        raise ValueError(f"Unknown GLUE task {task!r}; it is one of {', '.join(GLUE_TASKS)}.")
    glue_task = GLUE_TASKS[task]
    for split in splits or ():
        if split not in glue_task.splits:
            raise ValueError(f"{task} has no split {split!r}; its splits are {', '.join(glue_task.splits)}.")

    if glue_dir is None:
        return _load_hub(glue_task, splits)
    paths = _find_files(glue_task, Path(glue_dir), splits)
    return DatasetDict({split: _read(path, glue_task, split) for split, path in paths.items()})


def _load_hub(task: Task, splits: Sequence[str] | None) -> DatasetDict:
    try:
        loaded = datasets.load_dataset(HUB_NAME, task.name)
    except (ConnectionError, FileNotFoundError, TimeoutError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"{HUB_NAME} cannot be loaded from the Hugging Face hub ({type(error).__name__}): give a folder of the "
            f"official GLUE files with --glue_dir (glue_dir=), or files of your own with --train_file."
        ) from None

    missing = [split for split in splits or () if split not in loaded]
    if missing:
        raise ValueError(f"{HUB_NAME} has no split {', '.join(missing)} for {task.name}; it has {', '.join(loaded)}.")
    return DatasetDict({split: loaded[split] for split in splits or loaded})


@dataclass(frozen=True)
class _Layout:
    """The way in which a task's official tsv files are written.

    Args:
        text: the columns of the task's text keys.
        label: the label's column.
        values: how the labels are written, in the order of their ids; empty for scores from 0 to 5.
        headless: the columns of the labeled files where these have no header.
        ragged: whether some labeled rows are known to be cut short.
    """

    text: tuple[str, ...]
    label: str = "label"
    values: tuple[str, ...] = ("0", "1")
    headless: tuple[str, ...] = ()
    ragged: bool = False


_LAYOUTS = {
    "cola": _Layout(("sentence",), headless=("source", "label", "mark", "sentence")),
    "sst2": _Layout(("sentence",)),
    "mrpc": _Layout(("#1 String", "#2 String"), "Quality"),
    "stsb": _Layout(_PAIR, "score", ()),
    "qqp": _Layout(("question1", "question2"), "is_duplicate", ragged=True),
    "mnli": _Layout(_PAIR, "gold_label", _NLI),
    "qnli": _Layout(("question", "sentence"), values=("entailment", "not_entailment")),
    "rte": _Layout(_PAIR, values=("entailment", "not_entailment")),
    "wnli": _Layout(_PAIR),
    "ax": _Layout(_PAIR, values=_NLI),
}

# This is a part of every fingerprint: raise it when the rows read from the same bytes change.
_READER_VERSION = 1


def _find_files(task: Task, glue_dir: Path, splits: Sequence[str] | None) -> dict[str, Path]:
    """Returns the files of the wanted splits, or of the splits that are there."""
    existing: dict[str, Path] = {}
    missing = []
    for split in splits or task.splits:
        name = "diagnostic.tsv" if task.name == "ax" else f"{split.replace('validation', 'dev')}.tsv"
        path = glue_dir / task.folder / name
        if path.is_file():
            existing[split] = path
        else:
            missing.append(f"{path} (split {split})")

    if missing and (splits or not existing):
        raise FileNotFoundError(
            f"No file for {task.name}: {', '.join(missing)}; --glue_dir (glue_dir=) must be the folder that holds "
            f"{task.folder}/ with the official GLUE files."
        )
    return existing


def _read(path: Path, task: Task, split: str) -> Dataset:
    # The rows are on disk and named by content, so that what is mapped over them (tokenization) is cached from run to
    # run.
    try:
        return Dataset.from_generator(
            lambda: _examples(path, task, split),
            features=Features({**task.features, "idx": Value("int32")}),
            split=NamedSplit(split),
            fingerprint=_fingerprint(path, task, split),
        )
    except DatasetGenerationError as error:
        raise (error.__cause__ or error) from None


def _fingerprint(path: Path, task: Task, split: str) -> str:
    content = file_sha256(path)
    return hashlib.sha256(f"{_READER_VERSION} {task.name} {split} {content}".encode()).hexdigest()[:32]


def _examples(path: Path, task: Task, split: str) -> Iterator[dict[str, Any]]:
    layout, lines = _LAYOUTS[task.name], _lines(path)
    is_test = split in task.test_splits
    if layout.headless and not is_test:
        columns = list(layout.headless)
    else:
        _, columns = next(lines, (0, []))
    text_positions, label_position = _positions(path, split, columns, layout, is_test)

    rows = skipped = 0
    for idx, (line, fields) in enumerate(lines):
        if len(fields) < len(columns) and layout.ragged and not is_test:
            skipped += 1
            continue
        if len(fields) != len(columns):
            raise ValueError(
                f"{path}, line {line}: expected {len(columns)} tab-separated columns ({', '.join(columns)}), "
                f"found {len(fields)}."
            )

        example: dict[str, Any] = {}
        for key, position in zip(task.text_keys, text_positions, strict=True):
            example[key] = fields[position]
        example["label"] = -1 if label_position is None else _label(path, line, layout, fields[label_position])
        example["idx"] = idx
        yield example
        rows += 1

    if skipped:
        logger.warning("%s: skipped %d of %d rows that end before the label.", path, skipped, rows + skipped)
    if not rows:
        raise ValueError(f"{path} (split {split}) has no rows; put the official file there.")


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yields the number of each line, from 1, and its fields."""
    # The file is opened as bytes because only "\n" ends a row: text mode and str.splitlines() know a dozen more
    # separators.
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            try:
                line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 ({error.reason} at byte {error.start}); convert the file."
                ) from None
            yield number, line.rstrip("\r\n").split("\t")


def _positions(
    path: Path, split: str, columns: list[str], layout: _Layout, is_test: bool
) -> tuple[list[int], int | None]:
    """Finds the columns of the texts and of the label; the latter is None where a test has no labels."""
    has_label = not is_test or layout.label in columns
    for column in (*layout.text, layout.label) if has_label else layout.text:
        if column not in columns:
            raise ValueError(
                f"{path} (split {split}) has no column {column!r}; its header has: {', '.join(columns) or 'nothing'}."
            )

    label_position = columns.index(layout.label) if has_label else None
    return [columns.index(column) for column in layout.text], label_position


def _label(path: Path, line: int, layout: _Layout, value: str) -> float:
    """Reads the id of a label, or the score of a regression task."""
    if value in layout.values:
        return layout.values.index(value)
    if layout.values:
        raise ValueError(f"{path}, line {line}: unknown label {value!r}; expected one of {', '.join(layout.values)}.")

    try:
        score = float(value)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise ValueError(f"{path}, line {line}: expected a number as {layout.label}, found {value!r}.")
    if not 0 <= score <= HIGHEST_SCORE:
        raise ValueError(f"{path}, line {line}: expected a {layout.label} from 0 to {HIGHEST_SCORE}, found {value}.")
    return score
