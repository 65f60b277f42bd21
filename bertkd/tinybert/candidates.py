"""Finds the words that may take the place of the words of a text."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from bertkd.models import encoder_layers, family_of
from bertkd.models.evaluated import eval_mode
from bertkd.models.positions import max_tokens
from bertkd.tinybert.stop_words import STOP_WORDS
from bertkd.tinybert.word_vectors import WordVectors, whole_words

__all__ = ["CandidateFinder", "Slot", "default_batch_size"]

# The first and the end character of a word in its text.
Span = tuple[int, int]
_WORD = re.compile("[A-Za-z]+")


@dataclass(frozen=True)
class Slot:
    """A word that may be replaced: where it stands in its text, and by which words."""

    start: int
    end: int
    candidates: tuple[str, ...]


class _Query(NamedTuple):
    """A word to predict: the model's input for its text, and the word's position in it."""

    text: str
    span: Span
    ids: list[int]
    position: int


def default_batch_size(device: torch.device) -> int:
    """Masked sentences per forward pass: a CPU is fastest where a batch stays in its cache."""
    return 32 if device.type == "cpu" else 256


class CandidateFinder:
    """Finds candidates by a masked language model, or by word vectors for words that are not one token of it.

    Args:
        model: a masked language model.
        tokenizer: the tokenizer of `model`.
        vectors: find the nearest words of those that the model cannot predict.
        count: candidates for each word.
        conditional: whether the model also reads the whole sentence behind the masked one.
        batch_size: masked sentences per forward pass.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        vectors: WordVectors,
        count: int,
        conditional: bool,
        batch_size: int,
    ) -> None:
        self._model = model
        self._tokenizer = tokenizer
        self._vectors = vectors
        self._count = count
        self._conditional = conditional
        self._batch_size = batch_size
        self._split = BertPreTokenizer().pre_tokenize_str

        self._words = whole_words(tokenizer)
        if not self._words:
            raise ValueError("The tokenizer has no token that is a whole word: words cannot be predicted with it.")
        self._no_word = torch.ones(model.config.vocab_size, dtype=torch.bool, device=model.device)
        self._no_word[list(self._words)] = False

        self._last_norm = encoder_layers(model)[-1].get_submodule(family_of(model).attention_norm)
        self._max_length = min(tokenizer.model_max_length, max_tokens(model.config) or tokenizer.model_max_length)

    def __call__(self, texts: Sequence[str]) -> dict[str, list[Slot]]:
        """The words of each text that may be replaced, and by which words; without those that have no candidate."""
        spans: dict[str, list[Span]] = {}
        queries: list[_Query] = []
        unpredicted: set[str] = set()
        for text in texts:
            spans[text] = [span for word, span in self._split(text) if _may_be_replaced(word)]
            ids, positions = self._encode(text)
            end_of_read = max((end for _, end in positions), default=0)

            for span in spans[text]:
                word = text[slice(*span)].lower()
                if span in positions:
                    queries.append(_Query(text, span, ids, positions[span]))
                elif span[0] < end_of_read or not self._is_one_token(word):
                    # A word that is one token, but stands behind what the model reads, gets no candidates.
                    unpredicted.add(word)

        predicted = self._predict(queries)
        nearest = self._vectors.neighbors(sorted(unpredicted), self._count)

        slots: dict[str, list[Slot]] = {}
        for text in texts:
            slots[text] = []
            for span in spans[text]:
                word = text[slice(*span)]
                candidates = predicted.get((text, span)) or nearest.get(word.lower(), [])
                if word.istitle():
                    candidates = [candidate.title() for candidate in candidates]
                if candidates:
                    slots[text].append(Slot(*span, tuple(candidates)))
        return slots

    def _encode(self, text: str) -> tuple[list[int], dict[Span, int]]:
        """The model's input for a text, and the position in it of each stretch of the text that is one token."""
        # A text that fills the model by itself leaves no room for its second reading.
        length = len(self._tokenizer(text, add_special_tokens=False)["input_ids"])
        length_of_pair = length + self._tokenizer.num_special_tokens_to_add(pair=True)
        is_read_twice = self._conditional and length_of_pair < self._max_length
        encoded = self._tokenizer(
            text,
            text if is_read_twice else None,
            truncation="only_second" if is_read_twice else True,
            max_length=self._max_length,
            return_offsets_mapping=True,
        )

        ids = encoded["input_ids"]
        positions: dict[Span, int] = {}
        tokens = zip(ids, encoded["offset_mapping"], encoded.sequence_ids(0), strict=True)
        for position, (token_id, span, sequence) in enumerate(tokens):
            # Only the first reading is masked; special tokens belong to neither.
            if sequence == 0 and token_id != self._tokenizer.unk_token_id:
                positions[tuple(span)] = position
        return ids, positions

    def _is_one_token(self, word: str) -> bool:
        return len(self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]) == 1

    def _predict(self, queries: Sequence[_Query]) -> dict[tuple[str, Span], list[str]]:
        """The most probable words for each query, the most probable first."""
        # Inputs of similar length go together, and need little padding.
        ordered = sorted(queries, key=lambda query: len(query.ids))
        predicted: dict[tuple[str, Span], list[str]] = {}

        with eval_mode(self._model):
            for start in range(0, len(ordered), self._batch_size):
                batch = ordered[start : start + self._batch_size]
                best = self._most_probable([query.ids for query in batch], [query.position for query in batch])
                for query, token_ids in zip(batch, best, strict=True):
                    predicted[query.text, query.span] = [self._words[token_id] for token_id in token_ids]
        return predicted

    @torch.no_grad()
    def _most_probable(self, inputs: Sequence[list[int]], positions: Sequence[int]) -> list[list[int]]:
        """The ids of the most probable words in one forward pass, one position masked in each input."""
        device = self._model.device
        batch = self._tokenizer.pad({"input_ids": list(inputs)}, return_tensors="pt").to(device)
        rows, places = torch.arange(len(inputs), device=device), torch.tensor(positions, device=device)
        batch["input_ids"][rows, places] = self._tokenizer.mask_token_id
        if "token_type_ids" in self._tokenizer.model_input_names:
            batch["token_type_ids"] = self._segments(batch["input_ids"], batch["attention_mask"])

        def keep_masked(_module: Any, _args: Any, states: Tensor) -> Tensor:
            return states[rows, places].unsqueeze(1)

        # Behind the last attention no place needs another one: the feed-forward part and the head, which costs a
        # small model as much as its layers, run at the masked place alone.
        hook = self._last_norm.register_forward_hook(keep_masked)
        try:
            logits = self._model(**batch).logits[:, 0]
        finally:
            hook.remove()

        word_logits = logits.masked_fill(self._no_word, -torch.inf)
        best: list[list[int]] = word_logits.topk(min(self._count, len(self._words))).indices.tolist()
        return best

    def _segments(self, ids: Tensor, mask: Tensor) -> Tensor:
        """The token types: 0 up to the first separator and 1 after it, as the tokenizer marks pairs."""
        separators = (ids == self._tokenizer.sep_token_id).cumsum(-1)
        # The separator itself belongs to the first sentence.
        separators_before = torch.cat([torch.zeros_like(separators[:, :1]), separators[:, :-1]], dim=-1)
        return (separators_before > 0).long() * mask


def _may_be_replaced(word: str) -> bool:
    return _WORD.fullmatch(word) is not None and word.lower() not in STOP_WORDS
