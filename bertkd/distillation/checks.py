"""Refuses what cannot work before the first step; each message names both sides and the way out."""

from typing import Any

import datasets
from transformers import PretrainedConfig

from bertkd.models import label_names, label_permutation
from bertkd.models.labels import unnamed

__all__ = [
    "check_label_order",
    "check_labels_present",
    "check_single_label",
    "check_tokenizer",
    "check_vocabularies",
]


def check_single_label(student: PretrainedConfig) -> None:
    """Raise ValueError for a multi-label model."""
    if student.problem_type == "multi_label_classification":
        raise ValueError("bertkd distills single-label classification and regression, not multi-label models.")


def check_label_order(dataset: Any, student: PretrainedConfig) -> None:
    """Raise ValueError when a `datasets` data set names its labels in another order than the student, or others."""
    feature = _label_feature(dataset)
    if not isinstance(feature, datasets.ClassLabel):
        return

    names = label_names(student)
    if len(names) == len(feature.names) and (unnamed(names) or unnamed(feature.names)):
        # LABEL_0, LABEL_1 and the like say nothing of an order.
        return

    advice = "set the student's config.id2label and label2id to the data set's labels"
    if label_permutation(names, feature.names, given_by="the data set", advice=advice) is not None:
        raise ValueError(
            f"The data set lists its labels as {', '.join(feature.names)} and the student as {', '.join(names)}: use "
            "`dataset.align_labels_with_mapping(student.config.label2id, ...)`, or make the student with the data "
            "set's order."
        )


def check_labels_present(dataset: Any, alpha: float) -> None:
    """Raise ValueError for a `datasets` data set without labels; `alpha` is what makes the loss use them."""
    if isinstance(dataset, datasets.Dataset) and _label_feature(dataset) is None:
        raise ValueError(
            f"The training set has no label column (it has {', '.join(dataset.column_names)}) but alpha is {alpha}; "
            "give labeled rows, or set alpha=1 to learn from the teacher alone."
        )


def check_vocabularies(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Raise ValueError when two models cannot read the same token ids."""
    if student.vocab_size != teacher.vocab_size:
        raise ValueError(
            f"The student's vocabulary has {student.vocab_size} entries and the teacher's {teacher.vocab_size}; both "
            "read the same token ids, so they must share one tokenizer."
        )


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Raise ValueError when a tokenizer has tokens that a model does not know."""
    last = max(tokenizer.get_vocab().values())
    if last >= vocab_size:
        raise ValueError(
            f"The tokenizer has token ids up to {last} and the model knows only {vocab_size} tokens: they do not "
            "belong together; load both from the same model."
        )


def _label_feature(dataset: Any) -> Any:
    """The feature of a `datasets` label column; None when there is none."""
    if not isinstance(dataset, datasets.Dataset):
        return None

    # The names that the data collators of transformers know.
    for name in ("labels", "label", "label_ids"):
        if name in dataset.features:
            return dataset.features[name]
    return None
