"""Makes sub-networks models of their own, in forms that load again."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.atomic import atomic_folder
from bertkd.dynabert.supernet import Subnetwork, current_subnetwork, require_supernet, set_subnetwork
from bertkd.models.evaluated import eval_mode, in_own_precision
from bertkd.models.loading import load_checkpoint
from bertkd.models.tokenizer_files import save_tokenizer
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
    """Make a standalone model that computes what the supernet does at a size; this is checked before it is returned.

    Args:
        model: a supernet (`make_adaptive`); it stays as it is.
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
    extracted = prune(copy_layers(model, size.layers), size.heads, size.neurons)
    if format == "stock":
        extracted = zero_pad(extracted)
    _verify(extracted, model, size, "The extracted model")
    return extracted


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
        folder: where the model, and the tokenizer if one is given, are written; files appear whole or not at all.
        tokenizer: anything with `save_pretrained`.

    The other arguments, and the errors raised, are those of `extract_subnetwork`.

    Returns:
        The extracted model.
    """
    size = subnetwork or Subnetwork.of(model, width, depth)
    extracted = extract_subnetwork(model, subnetwork=size, format=format)

    with atomic_folder(folder) as partial:
        extracted.save_pretrained(partial)
        loaded = load_checkpoint(type(extracted), partial, dtype=extracted.dtype)
        _verify(nn.Module.to(loaded, model.device), model, size, f"The model that was written for {folder}")
        if tokenizer is not None:
            save_tokenizer(tokenizer, partial, extracted.config)
    return extracted


@contextmanager
def switched_to(model: PreTrainedModel, size: Subnetwork) -> Iterator[None]:
    """Within, a supernet has this size, and afterwards the one it had before."""
    before = current_subnetwork(model)
    set_subnetwork(model, subnetwork=size)
    try:
        yield
    finally:
        set_subnetwork(model, subnetwork=before)


def _verify(extracted: PreTrainedModel, model: PreTrainedModel, size: Subnetwork, what: str) -> None:
    """Raise RuntimeError if a model's logits are not those of the supernet at this size; `what` names the model."""
    with switched_to(model, size):
        expected = _outputs(model)
    difference = (_outputs(extracted) - expected).abs().max().item()

    # A difference that is not a number does not pass either.
    if not difference < TOLERANCE:
        raise RuntimeError(
            f"{what} does not compute what the sub-network does: logits differ by {difference:.2g}, and less than "
            f"{TOLERANCE:.0e} is allowed. It was not kept."
        )


@torch.no_grad()
def _outputs(model: PreTrainedModel) -> Tensor:
    """The first output for rows of random tokens, one of them padded, in eval mode and in the weights' own dtype."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(model.config.vocab_size, (4, 16), generator=generator)
    # No padding among the tokens: positions of RoBERTa depend on it.
    ids[ids == model.config.pad_token_id] += 1
    mask = torch.ones_like(ids)
    ids[-1, 8:], mask[-1, 8:] = model.config.pad_token_id or 0, 0

    with eval_mode(model), in_own_precision(model):
        return model(input_ids=ids.to(model.device), attention_mask=mask.to(model.device))[0].float()
