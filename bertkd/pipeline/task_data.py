"""Holds a task with its rows, tokenized for one model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding

from bertkd.data import Task, tokenize

__all__ = ["TaskData", "limit_rows"]


@dataclass(frozen=True)
class TaskData:
    """A task, its tokenized splits, and the tokenizer that made them."""

    task: Task
    splits: DatasetDict
    tokenizer: Any

    @classmethod
    def tokenized(cls, rows: DatasetDict, task: Task, tokenizer: Any, max_seq_length: int) -> "TaskData":
        """Tokenizes a task's rows; inputs are cut to `max_seq_length` tokens."""
        return cls(task, tokenize(rows, task, tokenizer, max_seq_length), tokenizer)

    @property
    def validation(self) -> dict[str, Dataset]:
        """Every validation split of the task, by name."""
        return {name: self.splits[name] for name in self.task.validation_splits}

    @property
    def first_validation(self) -> Dataset:
        """The validation split that models are ranked by."""
        return self.splits[self.task.validation_splits[0]]

    def sampled_batches(
        self, rows: int, seed: int, split: str = "train", batch_size: int = 32, by_length: bool = False
    ) -> DataLoader:
        """Padded batches of rows that are drawn by the seed: model inputs, and the label.

        Args:
            rows: how many at most.
            seed: of the draw.
            split: where they are drawn from: "train", or "validation" for the split that models are ranked by.
            batch_size: rows of a batch.
            by_length: whether rows of like length make a batch, for little padding; batches still come at random.
        """
        drawn = (self.first_validation if split == "validation" else self.splits["train"]).shuffle(seed=seed)
        drawn = drawn.select(range(min(rows, len(drawn))))

        if by_length:
            lengths = np.array([len(ids) for ids in drawn["input_ids"]])
            batches = np.array_split(lengths.argsort(kind="stable"), range(batch_size, len(lengths), batch_size))
            order = np.random.default_rng(seed).permutation(len(batches))
            drawn = drawn.select(np.concatenate([batches[index] for index in order]))

        wanted = {*self.tokenizer.model_input_names, "label"}
        unused = [name for name in drawn.column_names if name not in wanted]
        collator = DataCollatorWithPadding(self.tokenizer)
        return DataLoader(drawn.remove_columns(unused), batch_size=batch_size, collate_fn=collator)

    def named_metrics(self, scores: Sequence[dict[str, float]]) -> dict[str, float]:
        """Puts the metrics of each validation split into one dict; with several splits, under names that tell which.

        Args:
            scores: the metrics of each split of `validation`, in its order.
        """
        metrics = {}
        for split, values in zip(self.validation, scores, strict=True):
            suffix = "" if len(self.validation) == 1 else f"_{split.removeprefix('validation_')}"
            for name in metric_names(self.task):
                metrics[f"{name}{suffix}"] = float(values[name])
        return metrics


def metric_names(task: Task) -> list[str]:
    """The metrics of a task, the main one first."""
    if task.metric != "combined_score":
        return [task.metric]
    return ["combined_score", "pearson", "spearmanr"] if task.is_regression else ["combined_score", "accuracy", "f1"]


def limit_rows(
    rows: DatasetDict, max_train: int | None = None, max_eval: int | None = None, sample_seed: int | None = None
) -> DatasetDict:
    """Keeps the first rows of each split, or with a seed some drawn at random.

    Args:
        rows: a task's splits.
        max_train: at most this many of "train"; None for all.
        max_eval: at most this many of every validation split; None for all. A test split stays whole: its answers
            are written down row by row.
        sample_seed: of the draw; None keeps the first rows.

    Raises:
        ValueError: the kept rows have one label where the whole split has several.
    """
    kept = DatasetDict()

    for name, split in rows.items():
        limit = max_train if name == "train" else max_eval
        if str(name).startswith("test"):
            limit = None
        kept[name] = split if limit is None or limit >= len(split) else _some(split, limit, sample_seed, str(name))

    return kept


def _some(split: Dataset, limit: int, sample_seed: int | None, name: str) -> Dataset:
    order = split if sample_seed is None else split.shuffle(seed=sample_seed)
    kept = order.select(range(limit))

    if "label" in split.column_names and len(set(kept["label"])) == 1 < len(set(split["label"])):
        raise ValueError(
            f"The first {limit} rows of {name!r} all have one label, as in a file that is sorted by label: draw them "
            "at random with --sample_seed 42, or take more of them."
        )
    return kept
