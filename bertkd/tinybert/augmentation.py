"""TinyBERT's data augmentation: words are replaced by those that a masked language model or word vectors suggest.

Jiao et al., arXiv 1909.10351, algorithm 1, as their released code carries it out, without its faults: the sentences
of a pair are varied one at a time against the other's original, nothing passes through a csv writer, and the masked
sentences of many rows go through the model together.
"""

import glob
import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, Features, Value, concatenate_datasets
from filelock import FileLock
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertkd.atomic import atomic_path
from bertkd.distillation.checks import check_tokenizer
from bertkd.distillation.teacher_cache import fingerprint
from bertkd.tinybert.candidates import CandidateFinder, Slot, default_batch_size
from bertkd.tinybert.word_vectors import WordVectors

__all__ = ["NUM_COPIES", "ROW", "augment"]

# The released code's N by task; the paper says 20 for all.
NUM_COPIES = {"cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "stsb": 30, "qqp": 10, "qnli": 20, "rte": 30}
# The column that says which row of the original data set a row was made of.
ROW = "original_row"
# Rows that are augmented, and written, together.
SHARD = 256


def augment(
    dataset: Dataset,
    text_keys: Sequence[str],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vectors: WordVectors | None = None,
    *,
    probability: float = 0.4,
    num_candidates: int = 15,
    num_copies: int = 20,
    conditional: bool = True,
    seed: int = 42,
    batch_size: int | None = None,
    folder: str | Path | None = None,
    progress: bool = False,
) -> Dataset:
    """Make variants of each row, which keep its label: up to `num_copies` for each of its texts, besides the row.

    A word is replaced if it consists of letters and is not a stop word. Where it is one token of the model, its
    candidates are the most probable words at its masked place; otherwise they are its nearest words. They are found
    once, in the original sentence. Each copy replaces each word with `probability` by one of its candidates, all
    equally likely, in the text as it stands; copies that are equal count once. Of a pair, one text is varied while
    the other keeps its original.

    A row's variants depend on `seed`, its number and its text alone, so that batches and interruptions do not change
    them (but for ties between candidates within float noise).

    Args:
        dataset: rows with the columns `text_keys`, labels and any other columns.
        text_keys: the one or two text columns.
        model: a masked language model, run on the device where it is.
        tokenizer: the tokenizer of `model`.
        vectors: find the nearest words; default: the model's own input embeddings.
        probability: p_t of the paper.
        num_candidates: K of the paper.
        num_copies: N_a of the paper; `NUM_COPIES` has the released code's by task.
        conditional: the model also reads the whole sentence behind the masked one, as in the released code; False
            follows the paper's text.
        seed: decides the draws, together with a row's number.
        batch_size: masked sentences per forward pass; default: 32, on a GPU 256.
        folder: keeps the result in parts; an augmentation that was interrupted goes on from there, and a finished one
            is read. Another model, data set or setting has another place in it.
        progress: show a progress bar.

    Returns:
        The columns of `dataset` and `ROW`, the number of the original row, which comes first of its variants.

    Raises:
        ValueError: no text column, one that is missing, a setting out of range, or a model or tokenizer that does not
            predict masked words.
    """
    _check(dataset, text_keys, tokenizer, model.config.vocab_size, probability, num_candidates, num_copies)
    words = vectors if vectors is not None else WordVectors.of_model(model, tokenizer)
    features = Features({**dataset.features, ROW: Value("int64")})
    size = batch_size or default_batch_size(model.device)
    finder = CandidateFinder(model, tokenizer, words, num_candidates, conditional, size)

    parts_folder = None
    if folder is not None:
        settings = [text_keys, probability, num_candidates, num_copies, conditional, seed, words.digest()]
        parts_folder = Path(folder) / _fingerprint(model, tokenizer, dataset, text_keys, settings)
        parts_folder.mkdir(parents=True, exist_ok=True)

    def augment_part(start: int) -> Dataset:
        """The augmented rows of the part that begins with row `start`."""
        rows = dataset.select(range(start, min(start + SHARD, len(dataset)))).to_list()
        texts: list[str] = []
        for row in rows:
            texts += [row[key] for key in text_keys]
        # Equal texts have the same candidates, which are found once.
        slots = finder(list(dict.fromkeys(texts)))

        augmented: list[dict[str, Any]] = []
        for number, row in enumerate(rows, start):
            augmented += _variants(row, number, text_keys, slots, probability, num_copies, seed)
        return Dataset.from_list(augmented, features=features)

    starts = range(0, len(dataset), SHARD)
    parts = []
    with _progress_bars_of_datasets_off():
        for start in tqdm(starts, desc="Augmenting", unit=f" x {SHARD} rows", disable=not progress):
            parts.append(_stored_part(parts_folder, start, augment_part, features))
        return concatenate_datasets(parts)


def _stored_part(
    folder: Path | None, start: int, augment_part: Callable[[int], Dataset], features: Features
) -> Dataset:
    """The part that begins with row `start`, from its file in `folder`, which is written where it is missing.

    Another process that needs the same part meanwhile waits for it.
    """
    if folder is None:
        return augment_part(start)

    path = folder / f"rows-{start:09d}.parquet"
    if not path.is_file():
        with FileLock(path.with_suffix(".lock")):
            # Another process may have written it while this one waited for the lock.
            if not path.is_file():
                with atomic_path(path) as temporary:
                    augment_part(start).to_parquet(str(temporary))
    # The name of a folder may have brackets.
    return Dataset.from_parquet(glob.escape(str(path)), features=features)


@contextmanager
def _progress_bars_of_datasets_off() -> Iterator[None]:
    """Within, `datasets` shows no progress bars of its own, of which there would be several for each part."""
    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()


def _check(
    dataset: Dataset,
    text_keys: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    probability: float,
    num_candidates: int,
    num_copies: int,
) -> None:
    """Raise ValueError for what cannot be augmented."""
    if not text_keys:
        raise ValueError("Only texts can be augmented, and this task names no text column: give its text_keys.")
    if missing := [key for key in text_keys if key not in dataset.column_names]:
        raise ValueError(
            f"The data set has no text column {', '.join(missing)}, only {', '.join(dataset.column_names)}."
        )
    if not len(dataset):
        raise ValueError("The data set to augment has no rows.")
    if not (0 < probability <= 1 and num_candidates >= 1 and num_copies >= 1):
        raise ValueError(
            "probability must be above 0 and at most 1, num_candidates and num_copies at least 1: "
            f"{probability}, {num_candidates}, {num_copies}."
        )
    for key in text_keys:
        texts = list(dataset[key])
        if None in texts:
            raise ValueError(f"Row {texts.index(None)} has no text in column {key!r}: fill it in.")

    check_tokenizer(tokenizer, size)
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise ValueError("The tokenizer has no mask token, or is not a fast one: give a masked language model's.")


def _variants(
    row: dict[str, Any],
    number: int,
    text_keys: Sequence[str],
    slots: dict[str, list[Slot]],
    probability: float,
    num_copies: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The row itself, then those with one of its texts changed."""
    yield {**row, ROW: number}

    for key in text_keys:
        text = row[key]
        draw = random.Random(f"{seed} {number} {key}")
        copies = [_copy(text, slots[text], probability, draw) for _ in range(num_copies)]
        # Copies that are equal count once, in the order in which they were drawn.
        for copy in dict.fromkeys(copies):
            if copy != text:
                yield {**row, key: copy, ROW: number}


def _copy(text: str, slots: Sequence[Slot], probability: float, draw: random.Random) -> str:
    """A text with each of its replaceable words replaced with a probability."""
    pieces: list[str] = []
    end_of_copied = 0
    for slot in slots:
        # Drawn for a word that stays, too: the draws do not depend on which words before it were replaced.
        candidate = draw.choice(slot.candidates)
        if draw.random() < probability:
            pieces += [text[end_of_copied : slot.start], candidate]
            end_of_copied = slot.end
    return "".join([*pieces, text[end_of_copied:]])


def _fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    text_keys: Sequence[str],
    settings: list[Any],
) -> str:
    """A name for an augmentation: 32 hexadecimal digits over everything that it depends on."""
    rows = hashlib.sha256(str(dataset.features).encode())
    for row in dataset:
        rows.update(repr(list(row.values())).encode())

    device = model.device.type
    precision = str(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else "float32"
    everything_else = {
        "settings": settings,
        "rows": rows.hexdigest(),
        "reading": [tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length],
        "precision": precision,
    }
    return fingerprint(model, [], [], everything_else)
