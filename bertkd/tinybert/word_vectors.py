"""Finds nearest words by cosine, for words that a masked language model cannot predict in one piece."""

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

# Words that are compared with all others at the same time.
_BATCH = 256


class WordVectors:
    """Finds the nearest of some words, by the cosine between their vectors.

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
        """Read vectors from a file in GloVe's text format: a word and its numbers on each line.

        Words of letters a to z are kept; others could not stand in for one.

        Args:
            path: the file; word2vec's header line is skipped.
            limit: how many lines are read, which have the most frequent words; 100,000 in TinyBERT's code.

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
        # The published files have stray bytes.
        with path.open(encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(itertools.islice(file, limit), start=1):
                fields = line.rstrip().split(" ")
                if number == 1 and len(fields) == 2 and all(field.isdigit() for field in fields):
                    continue

                # The first row decides how many numbers there are.
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
        """Take the input embeddings of a model's whole-word tokens; any other word is the mean of its pieces."""
        table: Any = model.get_input_embeddings()
        # Asked for, not read: a factorized table holds its vectors in two parts.
        with torch.no_grad():
            embeddings = table(torch.arange(table.num_embeddings, device=table.weight.device)).detach().float().cpu()

        # A cased vocabulary has a word several times; the first is taken.
        ids: dict[str, int] = {}
        for token_id, word in whole_words(tokenizer).items():
            ids.setdefault(word.lower(), token_id)

        def vector_of(word: str) -> Tensor | None:
            pieces = tokenizer(word, add_special_tokens=False)["input_ids"]
            is_known = pieces and tokenizer.unk_token_id not in pieces
            return embeddings[pieces].mean(0) if is_known else None

        return cls(list(ids), embeddings[list(ids.values())], vector_of)

    def digest(self) -> str:
        """A name for these words and vectors: 64 hexadecimal digits."""
        content = hashlib.sha256("\0".join(self.words).encode())
        content.update(self._vectors.cpu().contiguous().numpy().tobytes())
        return content.hexdigest()

    def neighbors(self, words: Iterable[str], count: int) -> dict[str, list[str]]:
        """The `count` most similar other words to each, the nearest first; none for a word without a vector."""
        nearest: dict[str, list[str]] = {}
        vectors: dict[str, Tensor] = {}
        for word in words:
            nearest[word] = []
            vector = self._vector(word)
            if vector is not None:
                vectors[word] = vector

        count = min(count, len(self.words) - 1)
        known = list(vectors)
        for start in range(0, len(known), _BATCH):
            batch = known[start : start + _BATCH]
            similarities = torch.stack([F.normalize(vectors[word], dim=-1) for word in batch]) @ self._vectors.T
            for row, word in enumerate(batch):
                if word in self._rows:
                    # No word is its own neighbor: this is less than any cosine.
                    similarities[row, self._rows[word]] = -2.0

            for word, rows in zip(batch, similarities.topk(count).indices.tolist(), strict=True):
                nearest[word] = [self.words[row] for row in rows]
        return nearest

    def _vector(self, word: str) -> Tensor | None:
        """A word's vector (D,); None where there is none."""
        if word in self._rows:
            return self._vectors[self._rows[word]]
        return self._vector_of(word) if self._vector_of is not None else None


def _numbers(fields: Sequence[str], size: int, where: str) -> np.ndarray:
    """The numbers at the end of a line, `size` of them; `where` names the line in errors."""
    if size < 1 or len(fields) <= size:
        raise ValueError(f"{where}: expected a word and {max(size, 1)} numbers, found {len(fields)} fields.")
    # A word may hold blanks, as some words of the published files do, but no numbers.
    if extra := sum(map(_is_number, fields[1:-size])):
        raise ValueError(f"{where}: expected {size} numbers, as many as in the first row, found {size + extra}.")

    try:
        numbers = np.array(fields[-size:], dtype=np.float32)
    except ValueError:
        # No number at all is answered like one that is not finite.
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

    def frequency(mark: str) -> int:
        return sum(token.startswith(mark) for token in vocabulary)

    # WordPiece marks the tokens that go on with a word (##s), other vocabularies those that begin one.
    # A vocabulary may hold another's mark as a word: the most frequent one counts.
    mark = max(("##", "Ġ", "▁"), key=frequency)
    beginning = "" if mark == "##" else mark

    words: dict[int, str] = {}
    for token, token_id in sorted(vocabulary.items(), key=lambda item: item[1]):
        word = token.removeprefix(beginning)
        if token.startswith(beginning) and word.isascii() and word.isalpha():
            words[token_id] = word
    return words
