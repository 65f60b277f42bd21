"""Nearest words by cosine, for words that a masked language model cannot predict in one piece."""

import hashlib
import itertools
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["WordVectors", "whole_words"]


class WordVectors:
    """Words and their vectors.

    Args:
        words: W of them, in lower case.
        vectors: (W, D).
        vector_of: gives the vector (D,) of a word that is not among them, or None; by default there is none.
    """

    def __init__(
        self, words: Sequence[str], vectors: Tensor, vector_of: Callable[[str], Tensor | None] | None = None
    ) -> None:
        self.words = list(words)
        self._rows = {word: row for row, word in enumerate(self.words)}
        self._vectors = F.normalize(vectors.float(), dim=-1)
        self._vector_of = vector_of

    @classmethod
    def read(cls, path: str | Path, limit: int | None = 100_000) -> "WordVectors":
        """Vectors from a file in GloVe's text format: a word and its numbers on each line.

        Words of letters a to z are kept; others could not stand in for one.

        Args:
            path: the file; word2vec's header line is skipped.
            limit: only the first lines, the most frequent words; 100,000 as TinyBERT's authors.

        Raises:
            ValueError: a line is malformed, or shorter or longer than the first, or there is none; file and line are
                named.
            FileNotFoundError: there is no such file.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"There is no file of word vectors {path}.")
        words: list[str] = []
        rows: list[np.ndarray] = []
        size = 0
        with path.open(encoding="utf-8", errors="replace") as file:  # the published files have stray bytes
            for number, line in enumerate(itertools.islice(file, limit), start=1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                    continue
                size = size or len(fields) - 1
                numbers, word = _numbers(fields, size, f"{path}, line {number}"), " ".join(fields[:-size])
                if word.isascii() and word.isalpha():
                    words.append(word)
                    rows.append(numbers)
        if not rows:
            raise ValueError(f"{path} has no vector of a word.")
        return cls(words, torch.from_numpy(np.stack(rows)))

    @classmethod
    def of_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> "WordVectors":
        """The input embeddings of a model's whole-word tokens; any other word is the mean of its pieces, if known."""
        embeddings = _embeddings(model).detach().float().cpu()
        ids = whole_words(tokenizer)
        by_word: dict[str, int] = {}
        for row, word in ids.items():
            by_word.setdefault(word.lower(), row)

        def vector_of(word: str) -> Tensor | None:
            pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
            return embeddings[pieces].mean(0) if pieces and tokenizer.unk_token_id not in pieces else None

        return cls(list(by_word), embeddings[list(by_word.values())], vector_of)

    def digest(self) -> str:
        """A name for words and vectors: 64 hexadecimal digits."""
        content = hashlib.sha256("\0".join(self.words).encode())
        content.update(self._vectors.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def neighbors(self, words: Iterable[str], count: int) -> dict[str, list[str]]:
        """The `count` most similar other words to each, the nearest first; none for a word without a vector."""
        nearest: dict[str, list[str]] = {word: [] for word in words}
        found = {word: vector for word in nearest if (vector := self._vector(word)) is not None}
        known = list(found)
        for start in range(0, len(known), 256):
            part = known[start : start + 256]
            similar = torch.stack([F.normalize(found[word], dim=-1) for word in part]) @ self._vectors.T
            for row, word in enumerate(part):
                if word in self._rows:
                    similar[row, self._rows[word]] = -2.0
            for word, rows in zip(part, similar.topk(min(count, len(self.words) - 1)).indices.tolist(), strict=True):
                nearest[word] = [self.words[row] for row in rows]
        return nearest

    def _vector(self, word: str) -> Tensor | None:
        if word in self._rows:
            return self._vectors[self._rows[word]]
        return self._vector_of(word) if self._vector_of is not None else None


def _embeddings(model: PreTrainedModel) -> Tensor:
    table: Any = model.get_input_embeddings()
    with torch.no_grad():  # asked for, not read: a factorized table holds its vectors in two parts
        vectors: Tensor = table(torch.arange(table.num_embeddings, device=table.weight.device))
    return vectors


def _numbers(fields: Sequence[str], size: int, where: str) -> np.ndarray:
    if size < 1 or len(fields) <= size:
        raise ValueError(f"{where}: expected a word and {max(size, 1)} numbers, found {len(fields)} fields.")
    # A word may hold blanks, as some of the published files' do, but no numbers.
    if extra := sum(map(_is_number, fields[1:-size])):
        raise ValueError(f"{where}: expected {size} numbers, as many as in the first row, found {size + extra}.")
    try:
        numbers = np.array(fields[-size:], dtype=np.float32)
    except ValueError:
        numbers = np.array([np.nan])
    if not np.isfinite(numbers).all():
        raise ValueError(f"{where}: expected {size} numbers after the word {fields[0]!r}, found something else.")
    return numbers


def _is_number(field: str) -> bool:
    try:
        float(field)
    except ValueError:
        return False
    return True


def whole_words(tokenizer: PreTrainedTokenizerBase) -> dict[int, str]:
    """The tokens that are a word of letters a to z by themselves, by their id."""
    vocabulary = tokenizer.get_vocab()
    # WordPiece marks the tokens that go on with a word (##s), other vocabularies those that begin one.
    # A vocabulary may hold another's mark as a word: the most frequent one counts.
    mark = max(("##", "Ġ", "▁"), key=lambda mark: sum(token.startswith(mark) for token in vocabulary))
    begins = "" if mark == "##" else mark
    words = {row: token.removeprefix(begins) for token, row in vocabulary.items() if token.startswith(begins)}
    return {row: word for row, word in sorted(words.items()) if word.isascii() and word.isalpha()}
