"""Checks and fills a batch before an engine runs it: some engines answer for inputs that the model cannot read."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor

__all__ = ["check_inputs", "with_all_inputs"]


def check_inputs(
    inputs: Mapping[str, Tensor], vocabulary: int, positions: int | None, token_types: int | None
) -> None:
    """Checks that a model can read a batch of token ids.

    OpenVINO answers for anything: for rows that are too long or empty it gives the logits of the call before, with one
    thread without an error, and it reads some other row of a table for an id that does not exist.

    Args:
        inputs: `input_ids` (B, T), and maybe `attention_mask` and `token_type_ids` of the same shape.
        vocabulary: how many token ids there are.
        positions: how many tokens a row may have; None where that is not known.
        token_types: how many token types there are; None where that is not known.

    Raises:
        ValueError: there are no token ids, rows or tokens; a row is too long or is all padding; an id does not exist;
            or the inputs do not have one shape.
    """
    ids = inputs.get("input_ids")
    if ids is None:
        raise ValueError(f"The inputs have no input_ids, only {', '.join(inputs) or 'nothing'}: give them, (B, T).")
    if ids.is_floating_point():
        raise ValueError(f"The token ids are of type {ids.dtype}: give whole numbers, as a tokenizer does.")
    if ids.ndim != 2 or ids.numel() == 0:
        raise ValueError(
            f"The token ids have the shape {tuple(ids.shape)}: give at least one row of at least one token, as (B, T)."
        )

    tokens = ids.shape[1]
    if positions is not None and tokens > positions:
        raise ValueError(
            f"A row has {tokens} tokens, and the model takes {positions}: cut the texts with the tokenizer's "
            f"truncation=True, max_length={positions}."
        )

    _check_range(ids, vocabulary, "token id", "they were made by another tokenizer than the model's")
    for name in ("attention_mask", "token_type_ids"):
        if name in inputs and inputs[name].shape != ids.shape:
            raise ValueError(f"{name} has the shape {tuple(inputs[name].shape)}, and input_ids {tuple(ids.shape)}.")
    if "token_type_ids" in inputs and token_types is not None:
        _check_range(inputs["token_type_ids"], token_types, "token type", "leave token_type_ids out for a single text")

    mask = inputs.get("attention_mask")
    if mask is not None and not bool(mask.any(dim=1).all()):
        row = int((~mask.any(dim=1)).nonzero()[0])
        raise ValueError(f"Row {row} has no token, its attention_mask is zero throughout: leave empty rows out.")


def with_all_inputs(inputs: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """A batch with all inputs of a graph: without a mask all tokens count, without types all have type 0."""
    filled = {}
    for name in names:
        if name in inputs:
            filled[name] = inputs[name]
        else:
            filled[name] = torch.full_like(inputs["input_ids"], int(name == "attention_mask"))
    return filled


def _check_range(ids: Tensor, size: int, what: str, reason: str) -> None:
    smallest, largest = int(ids.min()), int(ids.max())
    if smallest < 0 or largest >= size:
        wrong = smallest if smallest < 0 else largest
        raise ValueError(f"There is no {what} {wrong}, the model knows 0 to {size - 1}: {reason}.")
