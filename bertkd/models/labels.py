"""Which logit means which label: two models and a data set may list the same labels in different orders."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

__all__ = ["label_names", "label_permutation", "unnamed"]

_MAPPING = (
    "say what {given_by}'s logits mean, in their order, with `teacher_labels` (on the command line "
    "--teacher_labels {labels})"
)


def label_names(config: PretrainedConfig) -> list[str]:
    """A model's labels in the order of its logits."""
    names: dict[Any, str] = config.id2label or {}
    return [names[i] for i in sorted(names, key=int)]  # a config made by hand may have strings for keys


def label_permutation(
    wanted: Sequence[str],
    given: Sequence[str],
    *,
    wanted_by: str = "the student",
    given_by: str = "the teacher",
    advice: str = "",
) -> list[int] | None:
    """Positions `p` such that `logits[:, p]` puts `given`'s logits in `wanted`'s order; None when they are in it.

    Names are compared without regard to case, spaces, "-" and "_". Two lists of the same length without names of
    their own (LABEL_0, LABEL_1, ...) are taken to agree.

    Raises:
        ValueError: the numbers of labels differ, or the names do not match; the message names both lists and the
            way out: `advice`, or how to give the mapping.
    """
    if len(wanted) != len(given):
        raise ValueError(
            f"{given_by} has {len(given)} labels ({', '.join(given)}) but {wanted_by} has {len(wanted)} "
            f"({', '.join(wanted)}); they must have the same ones."
        )
    if len(wanted) == 1 or list(wanted) == list(given) or (unnamed(wanted) and unnamed(given)):
        return None
    positions = {_normalize(name): i for i, name in enumerate(given)}
    order = [positions.get(_normalize(name), -1) for name in wanted]
    if sorted(order) != list(range(len(given))):
        raise ValueError(
            f"The labels of {given_by} ({', '.join(given)}) do not match those of {wanted_by} ({', '.join(wanted)}) "
            f"by name; {advice or _MAPPING.format(given_by=given_by, labels=' '.join(wanted))}."
        )
    return None if order == list(range(len(order))) else order


def _normalize(name: str) -> str:
    return re.sub(r"[\s_-]+", "", name).lower()


def unnamed(names: Sequence[str]) -> bool:
    """Whether labels have no names of their own: LABEL_0, LABEL_1, ..."""
    return all(re.fullmatch(r"LABEL_\d+", name) for name in names)
