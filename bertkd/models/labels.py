"""Compares what logits mean: two models and a data set may list the same labels in different orders."""

import re
from collections.abc import Sequence
from typing import Any

from transformers import PretrainedConfig

__all__ = ["label_names", "label_permutation", "unnamed"]

_HOW_TO_GIVE_THE_MAPPING = (
    "say what {given_by}'s logits mean with `teacher_labels`: these names in the order of its logits, which whoever "
    "trained it knows (on the command line --teacher_labels {labels} if the first logit is {first!r}, and in another "
    "order if it is not)"
)


def label_names(config: PretrainedConfig) -> list[str]:
    """Lists the labels of a model in the order of its logits."""
    names: dict[Any, str] = config.id2label or {}
    # A config made by hand may have strings for keys, and "10" must not come before "2".
    return [names[key] for key in sorted(names, key=int)]


def label_permutation(
    wanted: Sequence[str],
    given: Sequence[str],
    *,
    wanted_by: str = "the student",
    given_by: str = "the teacher",
    advice: str = "",
) -> list[int] | None:
    """Finds the positions `p` with which `logits[:, p]` puts the logits of `given` in the order of `wanted`.

    Names are compared without regard to case, spaces, "-" and "_", except for the sign of a number. Two lists of the
    same length without names of their own (LABEL_0, LABEL_1, ...) are taken to agree.

    Args:
        wanted: the labels in the order that is needed.
        given: the labels in the order of the logits.
        wanted_by: who needs that order, for the message of an error.
        given_by: whose logits they are, for the message of an error.
        advice: what to do where the names do not match; by default, how to give the mapping.

    Returns:
        The positions, or None where the two orders agree already.

    Raises:
        ValueError: the numbers of labels differ, or the names do not match; the message names both lists and the
            way out.
    """
    if len(wanted) != len(given):
        raise ValueError(
            f"{given_by} has {len(given)} labels ({', '.join(given)}) but {wanted_by} has {len(wanted)} "
            f"({', '.join(wanted)}); they must have the same ones."
        )
    # The same numbers in another order were given on purpose.
    are_nameless = unnamed(wanted) and unnamed(given) and set(wanted) != set(given)
    if len(wanted) == 1 or list(wanted) == list(given) or are_nameless:
        return None

    positions = {_normalize(name): position for position, name in enumerate(given)}
    order = [positions.get(_normalize(name), -1) for name in wanted]
    in_order = list(range(len(given)))

    # A name that is missing has -1, and two names that are equal once normalized share a position.
    if sorted(order) != in_order:
        how_to = _HOW_TO_GIVE_THE_MAPPING.format(given_by=given_by, labels=" ".join(wanted), first=wanted[0])
        raise ValueError(
            f"The labels of {given_by} ({', '.join(given)}) do not match those of {wanted_by} ({', '.join(wanted)}) "
            f"by name; {advice or how_to}."
        )
    return None if order == in_order else order


def _normalize(name: str) -> str:
    # The sign of a number is no hyphen: "-1" is not "1".
    sign = "-" if re.match(r"\s*-\s*\d", name) else ""
    return sign + re.sub(r"[\s_-]+", "", name).lower()


def unnamed(names: Sequence[str]) -> bool:
    """Says whether labels have no names of their own, only LABEL_0, LABEL_1, and so on."""
    return all(re.fullmatch(r"LABEL_\d+", name) for name in names)
