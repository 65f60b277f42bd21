"""Masks tokens to predict: drawn anew in each step, by the step and the row's own tokens alone."""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from datasets import Dataset, IterableDataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase

__all__ = ["Masking", "count_tokens", "masking_weights"]

# The label of a token that is not predicted.
IGNORED = -100
# Rows of a stream whose tokens are counted.
COUNTED = 10_000
# Shares of the tokens to predict that are masked, and that become a random token; the others stay.
MASKED, RANDOM = 0.8, 0.1
# Added to the key of a place, so that the draws for it are independent of each other.
_DRAW, _KIND, _TOKEN, _ROUND = 1, 2, 3, 4


class Masking:
    """Masks token ids as DistilBERT's released code does.

    Rarer tokens are predicted more often: positions are drawn without replacement, with probabilities in proportion to
    `weights`. Of those drawn 80 % are masked, 10 % replaced by any token of the vocabulary and 10 % kept.

    Draws are hashes of the seed, the step, and the row's own tokens. The same row has other masks in another step, and
    the same ones in the same step, whichever process or micro-batch it is in.

    Args:
        weights: (V,), one for each token of the vocabulary; 0 for those that are never predicted.
        mask_token_id: the id that stands for a masked token.
        probability: share of the tokens (special ones count) to predict.
        unit: "row": in each row, floor of the share or one more, so that it holds on average; "batch": the ceiling of
            the share of all tokens of the batch, which may lie in any row, as in the released code.
        seed: decides all draws, together with step and row.
    """

    def __init__(
        self, weights: Tensor, mask_token_id: int, probability: float = 0.15, unit: str = "row", seed: int = 0
    ) -> None:
        # Minus infinity for tokens that are never predicted.
        self._log_weights = weights.double().log()
        self._mask_token_id = mask_token_id
        self._probability = probability
        self._unit = unit
        self._seed = seed

    def __call__(self, input_ids: Tensor, attention_mask: Tensor, step: int) -> tuple[Tensor, Tensor]:
        """The masked ids, and the labels: a drawn token's own id, elsewhere -100. Both (B, T)."""
        if input_ids.device.type == "mps":
            # It has no double precision.
            masked, labels = self(input_ids.cpu(), attention_mask.cpu(), step)
            return masked.to(input_ids.device), labels.to(input_ids.device)

        active = attention_mask.bool()
        keys = self._keys(input_ids, active, step)
        drawn = self._drawn(input_ids, active, keys)

        kind = _uniform(keys + _KIND)
        masked = torch.where(drawn & (kind < MASKED), self._mask_token_id, input_ids)
        random_tokens = (_uniform(keys + _TOKEN) * len(self._log_weights)).long()
        masked = torch.where(drawn & (kind >= MASKED) & (kind < MASKED + RANDOM), random_tokens, masked)
        return masked, torch.where(drawn, input_ids, IGNORED)

    def _keys(self, ids: Tensor, active: Tensor, step: int) -> Tensor:
        """A hash of the row's tokens, the place and the step for each place, (B, T); padding does not change it."""
        places = torch.arange(ids.shape[1], device=ids.device)
        rows = (_mixed(ids * 65_537 + places) * active).sum(1, keepdim=True)
        start = _mixed(torch.tensor(self._seed * 1_000_003 + step, device=ids.device))
        return _mixed(_mixed(rows + start) + places * 8)

    def _drawn(self, ids: Tensor, active: Tensor, keys: Tensor) -> Tensor:
        """Whether each token is to be predicted, (B, T)."""
        self._log_weights = self._log_weights.to(ids.device)
        weights = self._log_weights[ids].masked_fill(~active, -torch.inf)

        # The largest of log w + Gumbel noise are a draw without replacement in proportion to w.
        scores = weights - (-_uniform(keys + _DRAW).log()).log()

        count: Tensor | int
        if self._unit == "batch":
            # In single precision, 15 % of 100 tokens would be a little more than 15.
            count = math.ceil(self._probability * int(active.sum()))
            ranks = scores.flatten().argsort(descending=True).argsort().view_as(scores)
        else:
            share = self._probability * active.sum(1, keepdim=True)
            # Rounded up as often as the share is above a whole number.
            count = (share + _uniform(keys[:, :1] + _ROUND)).floor().long()
            ranks = scores.argsort(dim=1, descending=True).argsort(dim=1)

        return (ranks < count) & torch.isfinite(scores)


def _mixed(values: Tensor) -> Tensor:
    """The finalizer of splitmix64 (Steele et al., 2014), on 64-bit integers that wrap around."""
    values = (values ^ _shifted(values, 30)) * -4658895280553007687  # 0xBF58476D1CE4E5B9
    values = (values ^ _shifted(values, 27)) * -7723592293110705685  # 0x94D049BB133111EB
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, bits: int) -> Tensor:
    """A shift to the right without the sign."""
    return (values >> bits) & ((1 << (64 - bits)) - 1)


def _uniform(keys: Tensor) -> Tensor:
    """Numbers in (0, 1), in double precision."""
    return (_shifted(_mixed(keys), 12).double() + 0.5) * 2.0**-52


def count_tokens(dataset: Dataset | IterableDataset, vocab_size: int) -> Tensor:
    """Counts of each token in the rows' `input_ids`, (V,); for a stream, in its first `COUNTED` rows."""
    if isinstance(dataset, IterableDataset):
        dataset = Dataset.from_list([{"input_ids": row["input_ids"]} for row in dataset.take(COUNTED)])

    # Column by column, without a Python object for each token.
    counts = np.zeros(vocab_size, dtype=np.int64)
    for table in dataset.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=10_000):
        for chunk in table["input_ids"].chunks:
            counts += np.bincount(chunk.flatten().to_numpy(), minlength=vocab_size)
    return torch.from_numpy(counts)


def masking_weights(tokenizer: PreTrainedTokenizerBase | Any, counts: Tensor, smoothing: float) -> Tensor:
    """`max(count, 1)` to the power `-smoothing` for each token, 0 for special ones; (V,)."""
    weights = counts.clamp(min=1).double() ** -smoothing
    special: Iterable[int] = tokenizer.all_special_ids
    weights[list(special)] = 0.0
    return weights
