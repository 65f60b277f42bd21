"""TinyBERT's data augmentation: words replaced by what a masked language model or word vectors put in their place.

Jiao et al., arXiv 1909.10351, algorithm 1, as their released code carries it out, without its faults: the sentences
of a pair are varied one at a time against the other's original, nothing passes through a csv writer, and the masked
sentences of many rows go through the model together.
"""

import contextlib
import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import torch
from datasets import Dataset, Features, Value, concatenate_datasets
from filelock import FileLock
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertkd.distillation.checks import check_tokenizer
from bertkd.distillation.teacher_cache import fingerprint
from bertkd.models import encoder_layers, family_of
from bertkd.tinybert.stop_words import STOP_WORDS
from bertkd.tinybert.word_vectors import WordVectors, whole_words

__all__ = ["NUM_COPIES", "ROW", "augment"]

# The released code's N by task; the paper says 20 for all.
NUM_COPIES = {"cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "stsb": 30, "qqp": 10, "qnli": 20, "rte": 30}
# The column that says which row of the given data set a row was made of.
ROW = "original_row"
# Rows that are augmented, and written, together.
SHARD = 256
_WORD = re.compile("[A-Za-z]+")


@dataclass(frozen=True)
class _Slot:
    """A word that may be replaced: where it stands in its text, and by what."""

    start: int
    end: int
    candidates: tuple[str, ...]


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
    """Each row and its variants, whose label it keeps: up to 1 + `num_copies` rows for each of its texts.

    A word is replaced if it consists of letters and is not a stop word. Where it is one token of the model, its
    candidates are the most probable words at its masked place; otherwise they are its nearest words. They are found
    once, in the original sentence. Each copy replaces each word with `probability` by one of its candidates, all
    equally likely, in the text as it stands; copies that are equal count once. Of a pair, one text is varied while
    the other keeps its original.

    A row's variants depend on `seed`, its number and its text alone, so that batches and interruptions do not change
    them (but for ties between candidates within float noise).

    Args:
        dataset: rows with the columns `text_keys`, labels and whatever else they carry along.
        text_keys: the one or two text columns.
        model: a masked language model, run on the device where it is.
        tokenizer: the model's.
        vectors: nearest words; default: by the model's own input embeddings.
        probability: p_t of the paper.
        num_candidates: K of the paper.
        num_copies: N_a of the paper; `NUM_COPIES` has the released code's by task.
        conditional: the model also reads the whole sentence behind the masked one, as in the released code; False is
            the paper's text.
        seed: of the draws.
        batch_size: masked sentences per forward pass; default: 32, on a GPU 256.
        folder: to keep what is done in parts; an augmentation that was interrupted goes on from there, and a finished
            one is read. Another model, data set or setting has another place in it.
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
    place = None
    if folder is not None:
        settings = [text_keys, probability, num_candidates, num_copies, conditional, seed, words.digest()]
        place = Path(folder) / _fingerprint(model, tokenizer, dataset, text_keys, settings)
        place.mkdir(parents=True, exist_ok=True)
    size = batch_size or default_batch_size(model.device)
    finder = CandidateFinder(model, tokenizer, words, num_candidates, conditional, size)

    def variants_from(start: int) -> Dataset:
        rows = dataset.select(range(start, min(start + SHARD, len(dataset)))).to_list()
        slots = finder(dict.fromkeys(row[key] for row in rows for key in text_keys))
        numbered = enumerate(rows, start)
        made = [_variants(row, number, text_keys, slots, probability, num_copies, seed) for number, row in numbered]
        return Dataset.from_list(list(itertools.chain(*made)), features=features)

    starts = range(0, len(dataset), SHARD)
    bar = tqdm(starts, desc="Augmenting", unit=f" x {SHARD} rows", disable=not progress)
    with _one_progress_bar():
        return concatenate_datasets([_kept(place, start, variants_from, features) for start in bar])


def _kept(place: Path | None, start: int, make: Callable[[int], Dataset], features: Features) -> Dataset:
    """The part that begins with a row, from the folder where it is kept, whole or not at all; made where it is not.

    Another process that wants the same part meanwhile waits for it.
    """
    if place is None:
        return make(start)
    path = place / f"rows-{start:09d}.parquet"
    if not path.is_file():
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                partial = path.with_suffix(".partial")
                make(start).to_parquet(str(partial))
                partial.replace(path)
    return Dataset.from_parquet(str(path), features=features)


@contextlib.contextmanager
def _one_progress_bar() -> Iterator[None]:
    """Within, `datasets` shows none of its own, which would be several for each part."""
    were_shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if were_shown:
            datasets.enable_progress_bars()


def default_batch_size(device: torch.device) -> int:
    """Masked sentences per forward pass: a CPU is fastest where a batch stays in its cache."""
    return 32 if device.type == "cpu" else 256


def _check(
    dataset: Dataset,
    text_keys: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    size: int,
    probability: float,
    num_candidates: int,
    num_copies: int,
) -> None:
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
        if None in (texts := dataset[key]):
            raise ValueError(f"Row {list(texts).index(None)} has no text in column {key!r}: fill it in.")
    check_tokenizer(tokenizer, size)
    if tokenizer.mask_token_id is None or not tokenizer.is_fast:
        raise ValueError("The tokenizer has no mask token, or is not a fast one: give a masked language model's.")


def _variants(
    row: dict[str, Any],
    number: int,
    text_keys: Sequence[str],
    slots: dict[str, list[_Slot]],
    probability: float,
    num_copies: int,
    seed: int,
) -> Iterator[dict[str, Any]]:
    """The row itself, then those with one of its texts changed."""
    yield {**row, ROW: number}
    for key in text_keys:
        draw, text = random.Random(f"{seed} {number} {key}"), row[key]
        copies = (_copy(text, slots[text], probability, draw) for _ in range(num_copies))
        for changed in dict.fromkeys(copies):
            if changed != text:
                yield {**row, key: changed, ROW: number}


def _copy(text: str, slots: Sequence[_Slot], probability: float, draw: random.Random) -> str:
    parts, at = [], 0
    for slot in slots:
        chosen = draw.choice(slot.candidates)
        if draw.random() < probability:
            parts += [text[at : slot.start], chosen]
            at = slot.end
    return "".join([*parts, text[at:]])


class CandidateFinder:
    """What may stand in the place of the words of some texts."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        vectors: WordVectors,
        count: int,
        conditional: bool,
        batch_size: int,
    ) -> None:
        self._model, self._tokenizer, self._vectors, self._count = model, tokenizer, vectors, count
        self._conditional, self._batch_size = conditional, batch_size
        self._words, self._split = whole_words(tokenizer), BertPreTokenizer().pre_tokenize_str
        if not self._words:
            raise ValueError("The tokenizer has no token that is a whole word: words cannot be predicted with it.")
        self._no_word = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
        self._no_word[list(self._words)] = False
        self._last_norm = encoder_layers(model)[-1].get_submodule(family_of(model).attention_norm)
        longest = getattr(model.config, "max_position_embeddings", 512)
        # RoBERTa's positions begin after the padding's.
        self._length = min(tokenizer.model_max_length, longest - 2 if model.config.model_type != "bert" else longest)

    def __call__(self, texts: Sequence[str] | dict[str, None]) -> dict[str, list[_Slot]]:
        spans, masked, unpredicted = {}, list[tuple[str, tuple[int, int], list[int], int]](), set[str]()
        for text in texts:
            spans[text] = [span for word, span in self._split(text) if _is_replaced(word)]
            ids, positions = self._encode(text)
            end = max((stop for _, stop in positions), default=0)
            for span in spans[text]:
                word = text[slice(*span)].lower()
                if span in positions:
                    masked.append((text, span, ids, positions[span]))
                elif span[0] < end or not self._is_one_token(word):  # not behind what the model reads
                    unpredicted.add(word)
        predicted = self._predicted(masked)
        nearest = self._vectors.neighbors(sorted(unpredicted), self._count)
        slots: dict[str, list[_Slot]] = {text: [] for text in texts}
        for text, of_text in spans.items():
            for span in of_text:
                word = text[slice(*span)]
                found = predicted.get((text, span)) or nearest.get(word.lower(), [])
                if found:
                    cased = [one.title() for one in found] if word.istitle() else found
                    slots[text].append(_Slot(*span, tuple(cased)))
        return slots

    def _encode(self, text: str) -> tuple[list[int], dict[tuple[int, int], int]]:
        """A text's input, and the position in it of each stretch of the text that is one token."""
        # A text that fills the model by itself leaves no room for its second reading.
        pieces = len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        second = self._conditional and pieces + self._tokenizer.num_special_tokens_to_add(pair=True) < self._length
        encoded = self._tokenizer(
            text,
            text if second else None,
            truncation="only_second" if second else True,
            max_length=self._length,
            return_offsets_mapping=True,
        )
        ids, unknown = encoded["input_ids"], self._tokenizer.unk_token_id
        stretches = zip(encoded["offset_mapping"], encoded.sequence_ids(0), strict=True)
        positions = {
            tuple(span): position
            for position, (span, part) in enumerate(stretches)
            if part == 0 and ids[position] != unknown
        }
        return ids, positions

    def _is_one_token(self, word: str) -> bool:
        return len(self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1

    def _predicted(
        self, masked: Sequence[tuple[str, tuple[int, int], list[int], int]]
    ) -> dict[tuple[str, tuple[int, int]], list[str]]:
        """The most probable words at each masked place."""
        found = {}
        order = sorted(range(len(masked)), key=lambda query: len(masked[query][2]))
        was_training = self._model.training
        self._model.eval()
        for start in range(0, len(order), self._batch_size):
            batch = [masked[query] for query in order[start : start + self._batch_size]]
            best = self._most_probable([ids for _, _, ids, _ in batch], [position for *_, position in batch])
            for (text, span, _, _), rows in zip(batch, best, strict=True):
                found[text, span] = [self._words[row] for row in rows]
        self._model.train(was_training)
        return found

    @torch.no_grad()
    def _most_probable(self, inputs: Sequence[list[int]], positions: Sequence[int]) -> list[list[int]]:
        """The `count` most probable words' ids, one position masked in each input."""
        device = self._model.device
        batch = self._tokenizer.pad({"input_ids": list(inputs)}, return_tensors="pt").to(device)
        rows, places = torch.arange(len(inputs), device=device), torch.tensor(positions, device=device)
        batch["input_ids"][rows, places] = self._tokenizer.mask_token_id
        if "token_type_ids" in self._tokenizer.model_input_names:
            batch["token_type_ids"] = self._segments(batch["input_ids"], batch["attention_mask"])

        def keep_masked(_module: Any, _args: Any, states: Tensor) -> Tensor:
            return states[rows, places].unsqueeze(1)

        # Behind the last attention no place needs another: the rest, and the head, which costs a small model as much
        # as its layers, run at the masked place alone.
        hook = self._last_norm.register_forward_hook(keep_masked)
        try:
            logits = self._model(**batch).logits[:, 0]
        finally:
            hook.remove()
        words = logits.masked_fill(self._no_word, -torch.inf)
        best: list[list[int]] = words.topk(min(self._count, len(self._words))).indices.tolist()
        return best

    def _segments(self, ids: Tensor, mask: Tensor) -> Tensor:
        """0 up to the first separator, 1 after it, as the tokenizer marks pairs."""
        ended = (ids == self._tokenizer.sep_token_id).cumsum(-1)
        ended = torch.cat([torch.zeros_like(ended[:, :1]), ended[:, :-1]], dim=-1)
        return (ended > 0).long() * mask


def _is_replaced(word: str) -> bool:
    return _WORD.fullmatch(word) is not None and word.lower() not in STOP_WORDS


def _fingerprint(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    dataset: Dataset,
    text_keys: Sequence[str],
    settings: list[Any],
) -> str:
    rows = hashlib.sha256(str(dataset.features).encode())
    for row in dataset:
        rows.update(repr(list(row.values())).encode())
    kind = model.device.type
    precision = str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else "float32"
    reading = [tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length]
    given = {"settings": settings, "rows": rows.hexdigest(), "reading": reading, "precision": precision}
    return fingerprint(model, [], [], given)
