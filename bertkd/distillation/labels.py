"""Checks the labels of training and evaluation rows, and names the first row that has a bad one."""

import contextlib
import math
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor
from transformers import PretrainedConfig

from bertkd.distillation.origin import is_of_bertkd
from bertkd.distillation.trainer_hooks import TrainerHooks

__all__ = [
    "NO_LABEL",
    "EvaluatedLabels",
    "LabelsMixin",
    "check_logits",
    "class_labels",
    "has_label",
    "is_at_hand",
    "is_regression",
    "label_column",
    "logits_of",
    "number_labels",
]

# The class of a row without a label, as in PyTorch.
NO_LABEL = -100
# The names that the data collators of transformers know.
LABEL_COLUMNS = ("labels", "label", "label_ids")
# How a sum of class probabilities may be rounded.
ROUNDING = 1e-3


class LabelsMixin(TrainerHooks):
    """Refuses labels that the loss of the base class cannot mean, before the first step where rows can be read."""

    @property
    def needs_labels(self) -> bool:
        """Whether the training rows must have labels; override it where the collator makes them."""
        return self.args.alpha < 1

    @property
    def _is_regression(self) -> bool:
        return is_regression(self.model.config)

    @property
    def _checks_labels(self) -> bool:
        """Whether labels are compared by the losses of bertkd, and not by a subclass that may give them any form."""
        losses = (type(self).distillation_loss, type(self).task_loss)  # type: ignore[attr-defined]
        return all(map(is_of_bertkd, losses))

    def _check_labels_of(self, dataset: Any, name: str, is_used: bool, needs_one: bool = False) -> None:
        """Raise ValueError for a bad label in rows that are at hand; those made when they are read are left out.

        Args:
            dataset: the rows.
            name: how the message calls them.
            is_used: whether the loss reads the labels; where it does not, they need only be numbers.
            needs_one: whether at least one row needs a label.
        """
        if not self._checks_labels or dataset is None:
            return

        labels = _labels_at_hand(dataset)
        if labels is None:
            return
        if is_used and isinstance(dataset, datasets.Dataset):
            _check_other_columns(dataset, labels)
        problem = _first_problem(labels, self.model.config, is_used)
        if problem is not None:
            raise ValueError(f"Row {problem[0]} of {name} (the first is row 0) {problem[1]}.")

        if is_used and needs_one and not self._is_regression and all(label == NO_LABEL for label in labels):
            raise ValueError(
                f"All rows of {name} have the label {NO_LABEL}, which stands for none: give labeled rows, or set "
                "alpha=1 to learn from the teacher alone."
            )

    @contextlib.contextmanager
    def _labels_checked(self) -> Iterator[None]:
        """Within, the labels of training rows that are made when they are read are checked batch by batch.

        The collator does it, on the CPU: on a GPU a class out of range ends the process.
        """
        is_checked = self.needs_labels and self._checks_labels
        if not is_checked or is_at_hand(self.train_dataset):
            yield
            return

        collator = self.data_collator
        self.data_collator = _CheckingCollator(collator, self.model.config)
        try:
            yield
        finally:
            self.data_collator = collator


class _CheckingCollator:
    """Checks the labels of each batch that another collator makes."""

    def __init__(self, collator: Callable[[list[Any]], Any], config: PretrainedConfig) -> None:
        self.collator = collator
        self.config = config
        # The Trainer saves it with a checkpoint.
        self.tokenizer = getattr(collator, "tokenizer", None)

    def __call__(self, features: list[Any]) -> Any:
        batch = self.collator(features)
        labels = batch.get("labels") if hasattr(batch, "get") else None
        if isinstance(labels, Tensor):
            problem = _first_problem(labels.tolist(), self.config, True)
            if problem is not None:
                raise ValueError(f"Row {problem[0]} of a training batch (the first is row 0) {problem[1]}.")
        return batch


def label_column(columns: Collection[str]) -> str | None:
    """Returns the name of the column with labels among these columns; None where there is none."""
    return next((name for name in LABEL_COLUMNS if name in columns), None)


def _check_other_columns(dataset: datasets.Dataset, labels: Sequence[Any]) -> None:
    """Raise ValueError where another column that a collator may take for the labels holds others."""
    name = label_column(dataset.column_names)
    for other in LABEL_COLUMNS:
        if other == name or other not in dataset.column_names:
            continue
        if dataset.select_columns([other]).with_format("arrow")[:][other].to_pylist() != labels:
            raise ValueError(
                f"The rows have labels in {name} and others in {other}, and data collators take the one or the other: "
                "remove the column that is not meant."
            )


def is_at_hand(dataset: Any) -> bool:
    """Says whether rows can be read without making them, which may take time and random numbers."""
    if isinstance(dataset, datasets.Dataset):
        return bool(dataset.format["type"] != "custom")
    return isinstance(dataset, list | tuple)


def _labels_at_hand(dataset: Any) -> Sequence[Any] | None:
    """The labels of all rows as Python values; None where there are none, or rows are made when they are read."""
    if not is_at_hand(dataset):
        return None

    if isinstance(dataset, datasets.Dataset):
        name = label_column(dataset.column_names)
        if name is None:
            return None
        column: Sequence[Any] = dataset.select_columns([name]).with_format("arrow")[:][name].to_pylist()
        return column

    labels: list[Any] = []
    for row in dataset:
        name = label_column(row) if hasattr(row, "keys") else None
        if name is not None:
            value = row[name]
            labels.append(value.tolist() if hasattr(value, "tolist") else value)
        else:
            labels.append(None)

    # Rows without any label are another matter, see `check_labels_present`.
    return labels if any(label is not None for label in labels) else None


def _first_problem(labels: Sequence[Any], config: PretrainedConfig, is_used: bool) -> tuple[int, str] | None:
    """The first row whose label is bad, and what is wrong with it."""
    problem_of = _problem_of_number if is_regression(config) else _problem_of_class
    classes = int(config.num_labels or 0)

    # The same few labels stand in many rows.
    good: set[Any] = set()
    for row, label in enumerate(labels):
        key = label if isinstance(label, int | str) and not isinstance(label, bool) else None
        if key is not None and key in good:
            continue

        problem = problem_of(label, classes, is_used)
        if problem:
            return row, problem
        if key is not None:
            good.add(key)
    return None


def is_regression(config: PretrainedConfig) -> bool:
    """Says whether a model's task is a regression: it gives numbers, not classes."""
    return bool(config.num_labels == 1 or config.problem_type == "regression")


def _problem_of_class(label: Any, classes: int, is_used: bool) -> str:
    """What is wrong with the label of a classification task; empty for a good one."""
    if label is None:
        return f"has no label (None): give {NO_LABEL} to rows without one, or leave them out"
    if isinstance(label, str):
        return (
            f"has the text {label!r} for a label: give the number of its class, e.g. with "
            "dataset.class_encode_column or model.config.label2id"
        )

    if isinstance(label, list):
        if len(label) == 1:
            return _problem_of_class(label[0], classes, is_used)
        return _problem_of_vector(label, classes) if is_used else ""

    if isinstance(label, float):
        return f"has the number {label} for a label: classes are whole numbers of type int, from 0 to {classes - 1}"
    if is_used and label != NO_LABEL and not 0 <= label < classes:
        return (
            f"has the label {label}, and the student's classes are 0 to {classes - 1} ({NO_LABEL} stands for no "
            "label): renumber the labels, or make the student with as many"
        )
    return ""


def _problem_of_vector(label: list[Any], classes: int) -> str:
    """What is wrong with a vector that stands for a class label: it may give the probability of each class."""
    if len(label) != classes or not all(isinstance(value, float) for value in label):
        return (
            f"has a list of {len(label)} values for a label: give one class for the whole text, from 0 to "
            f"{classes - 1}; labels of tokens need a subclass with a loss of its own"
        )
    if min(label) < 0 or not abs(sum(label) - 1) <= ROUNDING:
        return (
            f"has the label {label}, which is no distribution over {classes} classes: bertkd does not train several "
            "labels at once (multi-label), give one class for each row"
        )
    return ""


def _problem_of_number(label: Any, classes: int, is_used: bool) -> str:
    """What is wrong with the label of a regression task; empty for a good one."""
    if label is None:
        return "has no label (None): leave it out, or give it a number"
    if isinstance(label, str):
        return f"has the text {label!r} for a label: give a number, the student's task is a regression"

    values = label if isinstance(label, list) else [label]
    if len(values) != classes and is_used:
        return f"has {len(values)} values for a label, and the student gives {classes}"
    for value in values:
        if not math.isfinite(value):
            return f"has the label {value}, which is not finite: leave the row out, or give it a number"
    return ""


class EvaluatedLabels:
    """Adds up the losses of an evaluation over the rows that have a label.

    The Trainer weighs the mean loss of a batch by all its rows, which is right where all have one.
    """

    def __init__(self) -> None:
        # The sum of the losses, the labeled rows, and all rows; on the device.
        self._totals: Tensor | None = None

    def add(self, loss: Tensor, labels: Tensor) -> None:
        """Count a batch whose mean loss over labeled rows is `loss`."""
        labeled = has_label(labels).sum()
        totals = torch.stack([loss.detach().float() * labeled, labeled, torch.full_like(labeled, len(labels))])
        self._totals = totals if self._totals is None else self._totals + totals

    def mean_if_some_are_missing(self, accelerator: Any) -> float | None:
        """The mean over labeled rows; None where every row has a label."""
        if self._totals is None:
            return None

        total, labeled, rows = accelerator.reduce(self._totals, reduction="sum").tolist()
        if labeled == rows:
            return None
        if labeled == 0:
            raise ValueError(
                f"No evaluation row has a label (all are {NO_LABEL}): give labeled rows, or leave the column out."
            )
        return float(total / labeled)


# ---- the labels of one batch, as the loss needs them ----


def has_label(labels: Tensor) -> Tensor:
    """Whether each row has a label: a class of -100 stands for none, while a number or a vector is always one.

    Args:
        labels: (B,) or (B, 1) of classes, (B,) of numbers, or (B, C) of vectors.
    """
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dim() == 1 and not labels.is_floating_point():
        return labels != NO_LABEL
    return torch.ones(len(labels), dtype=torch.bool, device=labels.device)


def logits_of(outputs: Any, whose: str) -> Tensor:
    """Returns the logits among the outputs of a model.

    Raises:
        ValueError: the model has no head that gives any.
    """
    logits: Tensor | None = getattr(outputs, "logits", None)
    if logits is None:
        raise ValueError(
            f"The {whose} gives no logits: it has no head. Load it with one, e.g. as "
            "AutoModelForSequenceClassification."
        )
    return logits


def check_logits(logits: Tensor, config: PretrainedConfig) -> None:
    """Refuses logits that are not one prediction for each row, (B, C).

    Raises:
        ValueError: they are predictions of tokens, or of another number of classes than the config says.
    """
    if logits.dim() != 2:
        raise ValueError(
            f"The student's logits have the shape {tuple(logits.shape)} and not (rows, classes): this loss is that of "
            "whole texts. For predictions of tokens, override distillation_loss and task_loss in a subclass: they get "
            "the batch, whose padding and labels of -100 have to be left out."
        )
    if logits.shape[-1] != config.num_labels:
        raise ValueError(
            f"The student gives {logits.shape[-1]} logits for each row, and its config says num_labels="
            f"{config.num_labels}: load it with the number of labels that its head has."
        )


def class_labels(labels: Tensor, logits: Tensor) -> Tensor:
    """Gives class labels in the form that the cross entropy reads: (B,) whole numbers, or (B, C) probabilities.

    Raises:
        ValueError: another shape or type than (B,) or (B, 1) of whole numbers, or (B, C) of probabilities.
    """
    if labels.dim() == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.dtype == torch.bool:
        labels = labels.long()

    is_classes = labels.shape == logits.shape[:1] and not labels.is_floating_point()
    is_probabilities = labels.shape == logits.shape and labels.is_floating_point()
    if not (is_classes or is_probabilities):
        raise ValueError(
            f"The labels have the shape {tuple(labels.shape)} and the type {labels.dtype}, "
            f"and the logits {tuple(logits.shape)}: give one class for each row, as a whole number."
        )
    return labels


def number_labels(labels: Tensor, predictions: Tensor) -> Tensor:
    """Gives the labels of a regression in the shape of the predictions, (B,) or (B, C).

    Raises:
        ValueError: there are more or fewer labels than predictions.
    """
    if labels.shape == predictions.shape:
        return labels
    # A broadcast would silently compare each row with all others.
    if labels.numel() != predictions.numel():
        raise ValueError(
            f"The labels have the shape {tuple(labels.shape)} and the predictions {tuple(predictions.shape)}: give "
            "one number for each row."
        )
    return labels.reshape(predictions.shape)
