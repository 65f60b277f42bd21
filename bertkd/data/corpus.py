"""Loads plain text to train on without any task, from local files or the hub, and tokenizes it."""

import glob
import itertools
import lzma
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import datasets
import tokenizers
from datasets import Dataset, IterableDataset, Value
from datasets.exceptions import DatasetGenerationError
from huggingface_hub.errors import HfHubHTTPError
from transformers import PreTrainedTokenizerBase

from bertkd.data.reading import OPENERS, csv_options, name_of_contents

__all__ = ["hold_out", "load_corpus", "tokenize_corpus"]

Corpus = TypeVar("Corpus", Dataset, IterableDataset)

MODES = ("sentence", "block")

# A file with another extension is read as text, one line after the other.
_READERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".tsv": "csv"}
# A compression whose files only `datasets` can read.
_ZSTANDARD = ".zst"


def load_corpus(
    files: Sequence[str | Path] | str | Path | None = None,
    *,
    hub_name: str | None = None,
    hub_config: str | None = None,
    split: str = "train",
    text_key: str = "text",
    max_rows: int | None = None,
    streaming: bool = False,
) -> Any:
    """Loads texts as the one column "text" of a `datasets.Dataset`, or with `streaming` of an `IterableDataset`.

    A data set lies on disk and is mapped into memory, so a corpus may be larger than memory; one that should not even
    be copied to disk is streamed.

    Args:
        files: parquet, csv, tsv, json or jsonl files with a text column, and text files (any other extension), each
            line of which is a text; gzip and the like too. Folders stand for the files in them that are not hidden.
        hub_name: the name of a data set on the hub instead, e.g. "wikitext".
        hub_config: its configuration, e.g. "wikitext-103-raw-v1".
        split: the split of the hub's data set.
        text_key: the text's column in files that have columns.
        max_rows: how many of the first rows to take; None takes all.
        streaming: reads the texts while training.

    Raises:
        ConnectionError: the hub cannot be reached.
        FileNotFoundError: a file is missing, or a folder is empty.
        ValueError: neither or both of `files` and `hub_name`, a file that is empty, no UTF-8 (the line is named) or
            unreadable, or a missing text column.
    """
    if (files is None) == (hub_name is None):
        raise ValueError("Give a corpus: either text or parquet files, or the name of a data set on the hub.")

    if hub_name is not None:
        corpus = _text_column(_load_hub(hub_name, hub_config, split, streaming), text_key, hub_name)
    else:
        paths = _files([files] if isinstance(files, str | Path) else list(files or ()))
        corpus = _load_files(paths, text_key, streaming)

    if max_rows is None:
        return corpus
    return corpus.take(max_rows) if streaming else corpus.select(range(min(max_rows, len(corpus))))


def _files(entries: Sequence[str | Path]) -> list[Path]:
    """Lists the files among the entries and those in the folders among them."""
    paths: list[Path] = []
    for path in map(Path, entries):
        files = [path]
        if path.is_dir():
            files = sorted(file for file in path.iterdir() if file.is_file() and not file.name.startswith("."))

        if not files or not files[0].is_file():
            raise FileNotFoundError(f"The corpus {path} does not exist, or is a folder without files.")
        paths += files

    for path in paths:
        if path.stat().st_size == 0:
            raise ValueError(f"The corpus file {path} is empty.")
        if paths.count(path) > 1:
            raise ValueError(f"The corpus file {path} is given twice; its texts would count double.")
    return paths


def _suffix(path: Path) -> str:
    """Returns a file's extension, without that of a compression: ".json" for "a.json.gz"."""
    name = path.stem if path.suffix.lower() in (*OPENERS, _ZSTANDARD) else path.name
    return Path(name).suffix.lower()


def _load_files(paths: Sequence[Path], text_key: str, streaming: bool) -> Any:
    parts = []
    if text_key != "text" and all(_READERS.get(_suffix(path), "text") == "text" for path in paths):
        raise ValueError(
            f"Text files have no columns, so the column {text_key!r} (--corpus_text_column) has no effect: leave it "
            "out."
        )
    # Files that follow one another and have the same extension are read together; the order of the files stays.
    for suffix, group in itertools.groupby(paths, key=_suffix):
        files, reader = list(group), _READERS.get(suffix, "text")
        if reader != "parquet":
            _check_utf8(files)

        # The header of every file is checked; columns that differ are refused when they are read.
        options = [csv_options(file) for file in files] if reader == "csv" else [{}]
        names = [glob.escape(str(path.resolve())) for path in files]
        source = ", ".join(map(str, files))
        try:
            part = datasets.load_dataset(
                reader,
                # A stream is not cached.
                None if streaming else name_of_contents(files),
                data_files=names,
                split="train",
                streaming=streaming,
                **options[0],
            )
        except (DatasetGenerationError, ValueError) as error:
            reason = " ".join(str(error.__cause__ or error).split())
            raise ValueError(f"The corpus {source} cannot be read as {reader}: {reason}") from None
        parts.append(_text_column(part, "text" if reader == "text" else text_key, source))

    return datasets.concatenate_datasets(parts) if len(parts) > 1 else parts[0]


def _check_utf8(paths: Sequence[Path]) -> None:
    # `datasets` would name neither the file nor the line.
    for path in paths:
        if path.suffix.lower() == _ZSTANDARD:
            continue

        number = 0
        try:
            with OPENERS.get(path.suffix.lower(), open)(path, "rb") as file:
                for number, line in enumerate(file, start=1):
                    line.decode("utf-8")
                    if b"\0" in line:
                        raise ValueError(f"{path}, line {number}: a zero byte, so this is no text; convert the file.")
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file.") from None
        except (OSError, EOFError, lzma.LZMAError) as error:
            # A file that cannot be opened has a number of the system.
            if getattr(error, "errno", None) is not None:
                raise
            raise ValueError(f"{path} is not compressed as its name says, or is cut short: {error}.") from None


def _load_hub(name: str, config: str | None, split: str, streaming: bool) -> Any:
    try:
        return datasets.load_dataset(name, config, split=split, streaming=streaming)
    except (ConnectionError, FileNotFoundError, TimeoutError, HfHubHTTPError) as error:
        raise ConnectionError(
            f"The corpus {name} cannot be loaded from the Hugging Face hub ({type(error).__name__}): give text or "
            "parquet files instead."
        ) from None
    except RuntimeError as error:
        # Of a data set that is a script.
        raise ValueError(
            f"The corpus {name} cannot be loaded ({error}): give text or parquet files instead."
        ) from None


def _text_column(corpus: Corpus, text_key: str, source: str) -> Corpus:
    columns = corpus.column_names or list(next(iter(corpus), {}))
    if text_key not in columns:
        raise ValueError(
            f"The corpus {source} has no column {text_key!r}, only {', '.join(columns) or 'nothing'}: name the text's."
        )

    feature = None if corpus.features is None else corpus.features[text_key]
    dtype = str(getattr(feature, "dtype", ""))
    if feature is not None and not dtype.startswith(("string", "large_string", "int", "uint", "float", "null")):
        raise ValueError(f"The corpus {source} has no text in the column {text_key!r}, but lists or objects.")

    texts = corpus.select_columns([text_key])
    if text_key != "text":
        texts = texts.rename_column(text_key, "text")
    # A stream may not know the type of its column.
    if texts.features is None:
        return texts
    return texts.cast_column("text", Value("string"))


def tokenize_corpus(
    corpus: Corpus,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 128,
    mode: str = "sentence",
    min_tokens: int = 0,
    max_unknown: float = 1.0,
) -> Corpus:
    """Turns texts into token ids without padding, with the special tokens of one text.

    Nothing is cut off: a text longer than `max_seq_length` goes on in the next row. `datasets` caches the result on
    disk, so the same corpus is tokenized once; a streamed one is tokenized as it is read.

    Args:
        corpus: texts in the column "text", as `load_corpus` returns them.
        tokenizer: the tokenizer of the student and its teacher.
        max_seq_length: the most tokens of a row, special ones included.
        mode: "sentence": each text is a row. "block": texts follow one another, some hundred at a time, and are cut
            into rows of `max_seq_length`; nearly no padding is then needed.
        min_tokens: shorter rows are dropped; DistilBERT keeps those of 12 tokens and more.
        max_unknown: rows with this share of unknown tokens, or a larger one, are dropped; it is one half in
            DistilBERT.

    Raises:
        ImportError: the installed `tokenizers` loses the ends of long texts (0.23.2 does).
        ValueError: an unknown mode, no room beside the special tokens, or no row is left.
    """
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, not {mode!r}.")

    length = min(max_seq_length, tokenizer.model_max_length)
    if length <= tokenizer.num_special_tokens_to_add():
        raise ValueError(f"max_seq_length={max_seq_length} leaves no room for text beside the special tokens.")
    _check_that_nothing_is_lost(tokenizer, length)

    # A stream has no progress to show.
    options: dict[str, Any] = {} if isinstance(corpus, IterableDataset) else {"desc": "Tokenizing the corpus"}
    rows = corpus.map(
        _pieces,
        batched=True,
        fn_kwargs={
            "tokenizer": tokenizer,
            "length": length,
            "mode": mode,
            "min_tokens": min_tokens,
            "max_unknown": max_unknown,
        },
        remove_columns=["text"],
        **options,
    )

    if next(iter(rows), None) is None:
        raise ValueError("The corpus has no usable line: all of its texts are blank, too short or unknown words.")
    return rows


def _check_that_nothing_is_lost(tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    if not tokenizer.is_fast:
        raise ValueError(
            f"A {type(tokenizer).__name__} cuts a long text and loses the rest: a corpus needs a model with a fast "
            "tokenizer (tokenizer.json)."
        )
    text = "a " * (3 * length)
    uncut = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    pieces = tokenizer(text, truncation=True, max_length=length, return_overflowing_tokens=True)["input_ids"]

    if sum(len(piece) for piece in pieces) < len(uncut):
        raise ImportError(
            f"tokenizers {tokenizers.__version__} cuts a long text into {len(pieces)} pieces and loses the rest: "
            "install another version (0.23.3 is right, 0.23.2 is not)."
        )


def _pieces(
    batch: Mapping[str, list[str | None]],
    tokenizer: PreTrainedTokenizerBase,
    length: int,
    mode: str,
    min_tokens: int,
    max_unknown: float,
) -> dict[str, list[Any]]:
    """Tokenizes a batch of texts into rows of at most `length` tokens; blank texts and unusable rows are left out."""
    texts = [text for text in batch["text"] if text is not None and text.strip()]
    if not texts:
        return {name: [] for name in tokenizer.model_input_names}
    if mode == "block":
        texts = [" ".join(map(str.strip, texts))]

    encoded = tokenizer(texts, truncation=True, max_length=length, return_overflowing_tokens=True)
    kept = []
    for row, ids in enumerate(encoded["input_ids"]):
        if len(ids) >= min_tokens and ids.count(tokenizer.unk_token_id) < max_unknown * len(ids):
            kept.append(row)

    rows = {}
    for name in tokenizer.model_input_names:
        rows[name] = [encoded[name][row] for row in kept]
    return rows


def hold_out(corpus: Corpus, rows: int, seed: int) -> tuple[Corpus, Corpus]:
    """Splits a corpus into rows to train on and rows to evaluate on.

    Args:
        corpus: the rows.
        rows: how many rows to evaluate on; they are drawn at random, or are the first of a stream.
        seed: the seed of the random choice.

    Returns:
        The rows to train on, and those to evaluate on.

    Raises:
        ValueError: the corpus has no more rows than that, or none are asked for.
    """
    if rows < 1:
        raise ValueError(f"At least one row is held out for evaluation, not {rows} (--eval_rows).")

    if isinstance(corpus, IterableDataset):
        if next(iter(corpus.skip(rows)), None) is None:
            raise ValueError(f"The corpus has no more than the {rows} rows to be held out (--eval_rows).")
        return corpus.skip(rows), corpus.take(rows)

    if len(corpus) <= rows:
        raise ValueError(
            f"The corpus has {len(corpus)} rows, of which {rows} cannot be held out for evaluation: hold out fewer "
            "(--eval_rows)."
        )

    parts = corpus.train_test_split(test_size=rows, seed=seed)
    return parts["train"], parts["test"]
