"""Checks the tokens of training rows, and names the first row that a model could not read."""

from collections.abc import Iterator, Mapping
from typing import Any

import datasets
import numpy as np
from transformers import PretrainedConfig

from bertkd.distillation.labels import is_at_hand
from bertkd.models.families import FAMILIES, PRUNED_PREFIX
from bertkd.models.positions import max_tokens

__all__ = ["check_tokens"]


def check_tokens(
    dataset: Any, config: PretrainedConfig, which: str = "the training set", whose: str = "student"
) -> None:
    """Raises ValueError for rows that a model cannot read; on a GPU they would end the process without a word.

    Rows that are made when they are read are not looked at.

    Args:
        dataset: the rows.
        config: the model's.
        which: how an error calls the rows.
        whose: how it calls the model.
    """
    if not is_at_hand(dataset):
        return

    vocabulary = getattr(config, "vocab_size", None) or np.inf
    # Other models may count distances between tokens, and read rows that are longer than a table of positions.
    is_known = config.model_type.removeprefix(PRUNED_PREFIX) in FAMILIES
    positions = (max_tokens(config) if is_known else None) or np.inf

    first_row = 0
    for rows in _batches_of_ids(dataset, which):
        lengths = [len(ids) for ids in rows]
        ids_of_all = np.concatenate(rows)
        is_good = min(lengths) > 0 and max(lengths) <= positions
        if not (is_good and ids_of_all.min() >= 0 and ids_of_all.max() < vocabulary):
            _refuse_first(rows, first_row, vocabulary, positions, which, whose)
        first_row += len(rows)


def _refuse_first(
    rows: list[np.ndarray], first_row: int, vocabulary: float, positions: float, which: str, whose: str
) -> None:
    """Raise ValueError for the first bad row of a batch, whose first row has the number `first_row`."""
    for row, ids in enumerate(rows, start=first_row):
        problem = ""
        if len(ids) == 0:
            problem = "has no tokens: leave it out"
        elif ids.max() >= vocabulary or ids.min() < 0:
            number = ids.max() if ids.max() >= vocabulary else ids.min()
            problem = (
                f"has the token {number}, and the {whose} knows the tokens 0 to {vocabulary - 1}: tokenize with the "
                f"{whose}'s own tokenizer"
            )
        elif len(ids) > positions:
            problem = f"has {len(ids)} tokens, and the {whose} reads at most {positions}: truncate the rows"
        if problem:
            raise ValueError(f"Row {row} of {which} (the first is row 0) {problem}.")


def _batches_of_ids(dataset: Any, which: str) -> Iterator[list[np.ndarray]]:
    """The token ids of the rows, many rows at a time; none for rows without, or with several texts to choose from."""
    if isinstance(dataset, datasets.Dataset):
        if "input_ids" not in dataset.column_names:
            return
        for table in dataset.select_columns(["input_ids"]).with_format("arrow").iter(batch_size=1000):
            column = table["input_ids"].combine_chunks()
            tokens = column.flatten()
            if hasattr(tokens, "value_lengths"):
                return
            # Without a Python object for each token.
            ends = column.value_lengths().to_numpy(zero_copy_only=False).cumsum()
            yield np.split(tokens.to_numpy(zero_copy_only=False), ends[:-1].astype(int))
        return

    for row, item in enumerate(dataset):
        if not isinstance(item, Mapping):
            raise ValueError(
                f"Row {row} of {which} (the first is row 0) is of type {type(item).__name__}: rows are dicts "
                "of input_ids, attention_mask and labels."
            )
        if "input_ids" not in item:
            return
        ids = item["input_ids"]
        if len(ids) > 1 and np.ndim(ids[0]) > 0:
            return
        yield [np.asarray(ids).reshape(-1)]
