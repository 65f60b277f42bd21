"""Turns texts into token ids, which `datasets` caches."""

import logging
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import BatchEncoding, PreTrainedTokenizerBase

from bertkd.data.glue import Task

__all__ = ["tokenize"]

logger = logging.getLogger(__name__)

# Texts that are cut are named where they are at least this share of the rows.
NAMED_SHARE = 0.01


def tokenize(
    datasets: DatasetDict,
    task: Task,
    tokenizer: PreTrainedTokenizerBase,
    max_seq_length: int = 128,
) -> DatasetDict:
    """Turns texts into token ids without padding, which a collator adds per batch (`DataCollatorWithPadding`).

    The result has what the tokenizer returns (`input_ids`, `attention_mask`, ...) and `label`, which is left out of
    splits whose labels are all -1. `datasets` caches it on disk: the same rows, tokenizer and length are tokenized
    once. A warning says so where one row in a hundred, or more, is as long as that and may have been cut.

    Args:
        datasets: splits with the columns `task.text_keys` and `label`, as `load_glue` and `load_files` return them.
        task: says which columns hold the text.
        tokenizer: the student's tokenizer.
        max_seq_length: the most tokens of a sequence, special tokens included; of a pair, the longer text is cut
            first.

    Raises:
        ValueError: a split lacks a text column or labels some of its rows only, or the length leaves no room for text.
    """
    length = min(max_seq_length, tokenizer.model_max_length)
    if length < max_seq_length:
        logger.warning("max_seq_length=%d is more than the tokenizer's %d, which is used.", max_seq_length, length)

    special = tokenizer.num_special_tokens_to_add(pair=len(task.text_keys) == 2)
    if length <= special:
        raise ValueError(f"max_seq_length={max_seq_length} leaves no room for text beside {special} special tokens.")

    tokenized = {}
    for name, split in datasets.items():
        tokenized[name] = _tokenize_split(split, name, task, tokenizer, length)
    return DatasetDict(tokenized)


def _tokenize_split(split: Dataset, name: str, task: Task, tokenizer: PreTrainedTokenizerBase, length: int) -> Dataset:
    missing = [key for key in task.text_keys if key not in split.column_names]
    if missing:
        raise ValueError(
            f"Split {name} has no column {', '.join(missing)}, only {', '.join(split.column_names)}; {task.name} "
            f"reads its text from {', '.join(task.text_keys)}."
        )

    kept = () if _is_unlabeled(split, name, task) else ("label",)
    # The function is one of the module and its arguments are plain, so that `datasets` finds the same call again.
    tokenized = split.map(
        _encode,
        batched=True,
        fn_kwargs={"text_keys": task.text_keys, "tokenizer": tokenizer, "length": length},
        remove_columns=[column for column in split.column_names if column not in kept],
        desc=f"Tokenizing {name}",
    )
    _name_cut_rows(tokenized, name, tokenizer, length)
    return tokenized


def _name_cut_rows(tokenized: Dataset, name: str, tokenizer: PreTrainedTokenizerBase, length: int) -> None:
    if len(tokenized) == 0:
        return
    full = 0
    for chunk in tokenized.data.column("input_ids").chunks:
        full += int((np.diff(chunk.offsets.to_numpy()) == length).sum())
    if full < max(1, NAMED_SHARE * len(tokenized)):
        return

    more = f": max_seq_length may be up to {tokenizer.model_max_length}" if length < tokenizer.model_max_length else ""
    logger.warning(
        "Split %s: %d of %d rows fill all %d tokens, and what goes beyond is cut%s.",
        name,
        full,
        len(tokenized),
        length,
        more,
    )


def _encode(
    batch: dict[str, list[Any]], text_keys: tuple[str, ...], tokenizer: PreTrainedTokenizerBase, length: int
) -> BatchEncoding:
    texts = [batch[key] for key in text_keys]
    return tokenizer(*texts, truncation=True, max_length=length, padding=False)


def _is_unlabeled(split: Dataset, name: str, task: Task) -> bool:
    """Says whether no row of a split has a label; -1 stands for none, except among the scores of a regression."""
    labels = set(split.unique("label")) if "label" in split.column_names else {-1}
    if -1 in labels and len(labels) > 1 and not task.is_regression:
        raise ValueError(
            f"Split {name} has rows without a label (label -1) among labeled ones; filter them out, or load them "
            f"as a data set of their own."
        )
    return labels == {-1}
