"""Sub-networks as models of their own, in forms that load again."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.dynabert.supernet import Subnetwork, current_subnetwork, require_supernet, set_subnetwork
from bertkd.students import prune, zero_pad
from bertkd.students.layers import copy_layers

__all__ = ["FORMATS", "TOLERANCE", "extract_subnetwork", "save_subnetwork", "switched_to"]

FORMATS = ("auto", "stock")
# Largest difference of a logit between a sub-network inside the supernet and on its own.
TOLERANCE = 1e-5


def extract_subnetwork(
    model: PreTrainedModel,
    width: float = 1.0,
    depth: float = 1.0,
    subnetwork: Subnetwork | None = None,
    format: str = "auto",
) -> PreTrainedModel:
    """A standalone model that computes what the supernet does at a size, which is checked before it is returned.

    Args:
        model: made by `make_adaptive`; it stays as it is.
        width: share of each layer's heads and neurons, in (0, 1].
        depth: share of the layers, in (0, 1].
        subnetwork: any size, uneven ones included, instead of the two multipliers.
        format: "auto" gives a model of the stock class where its config can express the size (fewer layers, or fewer
            neurons in all layers alike), and of the pruned class otherwise. "stock" always gives the stock class, its
            missing heads and neurons filled with zeros: larger, but known everywhere.

    Returns:
        The model, on the same device, in the same dtype and mode. It shares nothing with the supernet.

    Raises:
        ValueError: an ordinary model, a size that does not exist, an unknown format, or one that cannot express it.
        RuntimeError: the model does not compute what the sub-network does: the largest difference of a logit on random
            rows is `TOLERANCE` or more.
    """
    require_supernet(model, "extract_subnetwork")
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {format!r}.")
    size = subnetwork or Subnetwork.of(model, width, depth)
    made = prune(copy_layers(model, size.layers), size.heads, size.neurons)
    made = zero_pad(made) if format == "stock" else made
    _verify(made, model, size, "The extracted model")
    return made


def save_subnetwork(
    model: PreTrainedModel,
    folder: str | Path,
    width: float = 1.0,
    depth: float = 1.0,
    subnetwork: Subnetwork | None = None,
    format: str = "auto",
    tokenizer: Any = None,
) -> PreTrainedModel:
    """Extract a sub-network and write its folder, once the model that loads from there has passed the check too.

    Args:
        folder: gets the model, and the tokenizer if one is given; its files appear whole or not at all.
        tokenizer: anything with `save_pretrained`.

    The other arguments, and the errors raised, are those of `extract_subnetwork`.

    Returns:
        The extracted model.
    """
    size = subnetwork or Subnetwork.of(model, width, depth)
    made = extract_subnetwork(model, subnetwork=size, format=format)
    folder = Path(folder)
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    made.save_pretrained(partial)
    loaded = type(made).from_pretrained(partial, dtype=made.dtype)
    try:
        _verify(torch.nn.Module.to(loaded, model.device), model, size, f"The model that was written for {folder}")
        if tokenizer is not None:
            tokenizer.save_pretrained(partial)
        for file in partial.iterdir():
            os.replace(file, folder / file.name)
    finally:
        shutil.rmtree(partial)
    return made


@contextlib.contextmanager
def switched_to(model: PreTrainedModel, size: Subnetwork) -> Iterator[None]:
    """A supernet at a size, and afterwards at the one it had."""
    before = current_subnetwork(model)
    set_subnetwork(model, subnetwork=size)
    try:
        yield
    finally:
        set_subnetwork(model, subnetwork=before)


def _verify(made: PreTrainedModel, model: PreTrainedModel, size: Subnetwork, what: str) -> None:
    with switched_to(model, size):
        wanted = _outputs(model)
    difference = (_outputs(made) - wanted).abs().max().item()
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{what} does not compute what the sub-network does: logits differ by {difference:.2g}, allowed is less "
            f"than {TOLERANCE:.0e}. It was not kept."
        )


@torch.no_grad()
def _outputs(model: PreTrainedModel) -> Tensor:
    """The first output for rows of random tokens, one of them padded, in eval mode."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (4, 16), generator=generator)
    # No padding among the tokens: positions of RoBERTa depend on it.
    ids[ids == model.config.pad_token_id] += 1
    mask = torch.ones_like(ids)
    ids[-1, 8:], mask[-1, 8:] = model.config.pad_token_id or 0, 0
    training = model.training
    try:
        return model.eval()(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))[0].float()
    finally:
        model.train(training)
