"""Opens the user's csv, tsv, json and parquet files, so that every value stays what it is."""

import bz2
import csv
import functools
import glob
import gzip
import hashlib
import logging
import lzma
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
from datasets import Dataset, Features, Value
from datasets.exceptions import DatasetGenerationError

from bertkd.atomic import file_sha256

__all__ = [
    "OPENERS",
    "READERS",
    "csv_options",
    "file_digest",
    "hint_of_header",
    "hint_of_separator",
    "name_of_contents",
    "read_file",
]

logger = logging.getLogger(__name__)

READERS = {".csv": "csv", ".tsv": "csv", ".json": "json", ".jsonl": "json", ".parquet": "parquet"}

# Every column of these is text for pandas: left alone, it would take "NA" for missing, "1" for 1 in one chunk of rows
# and for "1" in another, and "True" and "true" for the same.
_CSV: dict[str, Any] = {"keep_default_na": False, "encoding": "utf-8-sig"}
# Quotes have no meaning between tabs.
_TSV: dict[str, Any] = {**_CSV, "delimiter": "\t", "quoting": csv.QUOTE_NONE}

# The extensions of compressed files, and the function that opens each.
OPENERS: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}

# Python's reader refuses longer fields than 128 KiB, which pandas takes.
LONGEST_FIELD = 2**31 - 1
# As many rows of a tsv are looked at for quotes.
ROWS_LOOKED_AT = 1000


def read_file(path: Path) -> Dataset:
    """Reads one file, all columns of a csv or tsv as text.

    Raises:
        FileNotFoundError: it is missing.
        ValueError: its extension is not supported, or it is empty or cannot be read.
    """
    if path.suffix.lower() not in READERS:
        raise ValueError(f"{path}: {path.suffix or 'no extension'} is not supported; use {', '.join(READERS)}.")
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist.")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty; it needs a text and a label column.")

    reader, options = READERS[path.suffix.lower()], dict[str, Any]()
    if reader == "csv":
        options = csv_options(path)

    name, files = name_of_contents([path]), glob.escape(str(path.resolve()))
    try:
        dataset = datasets.load_dataset(reader, name, data_files=files, split="train", **options)
    except (DatasetGenerationError, ValueError) as error:
        reason = " ".join(str(error.__cause__ or error).split())
        hint = hint_of_separator(path, list(options.get("features", ())))
        if "EOF inside string" in reason:
            reason, hint = reason.replace("EOF inside string", "a quotation mark is not closed,"), ""
        text = f"{path} has no rows or cannot be read as {reader}: {reason}"
        raise ValueError(f"{text.rstrip('.')}.{hint}" if hint else text) from None

    if path.suffix.lower() == ".tsv":
        _tell_quotes(dataset, path)
    return dataset


def name_of_contents(paths: Sequence[Path]) -> str:
    """A name for `datasets` to cache what it reads under: that of the contents.

    By itself it knows files by path and time alone, and would give the old rows of a file that was replaced by one of
    the same time, as archives and synchronized folders do.
    """
    return hashlib.sha256("".join(map(file_digest, paths)).encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """The SHA-256 of a file's content, computed once as long as its size and times stay."""
    status = path.stat()
    return _digest(path.resolve(), status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@functools.cache
def _digest(path: Path, _size: int, _modified: int, _changed: int) -> str:
    return file_sha256(path)


def csv_options(path: Path) -> dict[str, Any]:
    """The options for `datasets` to read a csv or tsv file with, so that every value stays the text that it is.

    Raises:
        ValueError: the file has no header that can be read, or one that does not fit its rows.
    """
    options = _TSV if ".tsv" in path.name.lower() else _CSV
    # Python 3.11 cannot open it.
    if path.suffix.lower() == ".zst":
        return options
    columns = _header(path, options.get("delimiter", ","), options.get("quoting", csv.QUOTE_MINIMAL))
    return {**options, "features": Features({column: Value("string") for column in columns})}


def _header(path: Path, delimiter: str, quoting: Any) -> list[str]:
    """The names of a csv's columns, as pandas calls them.

    Raises:
        ValueError: two columns have the same name, or the rows have more columns than the header.
    """
    names: list[str] = []
    usual = csv.field_size_limit(LONGEST_FIELD)
    try:
        open_file = OPENERS.get(path.suffix.lower(), open)
        with open_file(path, "rt", encoding="utf-8-sig", newline="") as file:
            rows = (row for row in csv.reader(file, delimiter=delimiter, quoting=quoting) if row)
            names, first = next(rows, []), next(rows, [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path} has no rows or cannot be read as csv: {error}") from None
    finally:
        csv.field_size_limit(usual)
    if any("\0" in name for name in names):
        raise ValueError(f"{path} is no text file: its header has zero bytes. Save it as csv in UTF-8.")

    # pandas would take the first column for an index, and shift all others by one.
    if len(first) > len(names):
        hint = hint_of_separator(path, names) or " Mend the header."
        raise ValueError(f"{path}: its rows have more columns than its header names.{hint}")
    for name, count in Counter(names).items():
        if count > 1 and name:
            raise ValueError(f"{path} has {count} columns called {name!r}; rename them in its header.")
    return [name or f"Unnamed: {position}" for position, name in enumerate(names)]


def hint_of_header(path: Path, columns: Sequence[str]) -> str:
    """What else may be wrong with the header of a csv: its separator, or that it is not there."""
    hint = hint_of_separator(path, columns)
    is_csv = path.suffix.lower() in (".csv", ".tsv")
    return hint or (" Its first line must be a header." if is_csv and any(" " in name for name in columns) else "")


def hint_of_separator(path: Path, columns: Sequence[str]) -> str:
    """Which separator the header of a csv has, where it is not the comma; else empty."""
    separators = {";": "semicolons", "\t": "tabs", "|": "bars"}
    if path.suffix.lower() == ".csv" and len(columns) == 1:
        for character, name in separators.items():
            if character in columns[0]:
                return f" Its header is separated by {name} and not by commas."
    return ""


def _tell_quotes(dataset: Dataset, path: Path) -> None:
    """Tells where the texts of a tsv look quoted, as pandas writes them: quotes have no meaning between tabs here."""
    for name, values in dataset[:ROWS_LOOKED_AT].items():
        for row, value in enumerate(values, start=1):
            inner = value[1:-1] if value and len(value) > 1 and value[0] == value[-1] == '"' else ""
            # Texts that only stand in quotes have single ones inside.
            if '""' in inner and '"' not in inner.replace('""', ""):
                logger.warning(
                    "%s, row %d: the quotes in column %r are read as part of the text, as tsv files have no quoting; "
                    "save it as csv where they only hold the text together.",
                    path,
                    row,
                    name,
                )
                return
