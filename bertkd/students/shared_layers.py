"""Shares weights across layers: several layers of an encoder run with one set of weights."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.models import layer_sizes
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import encoder_prefix, family_of
from bertkd.models.pruned import tied_layers
from bertkd.models.sizes import check_shared_sizes, compression_fields, match_device_dtype_and_mode
from bertkd.students.width import new_pruned_model, state_for_pruned

__all__ = ["SHARED_WEIGHTS", "layer_groups", "share_layers"]

SHARED_WEIGHTS = ("first", "mean")


def share_layers(model: PreTrainedModel, groups: int | Sequence[int], weights: str = "first") -> PreTrainedModel:
    """Makes a new model as deep as `model`, in which the layers of a group have the same weights.

    ALBERT (Lan et al., arXiv 1909.11942) shares all layers in this way. The new model computes as much as before:
    parameters and file get smaller, latency does not. Gradients of the layers of a group add up. The result is of the
    pruned class in `bertkd.models.pruned`: saved once, the weights are shared again after loading. `model` stays as it
    is. The new model is on the same device, in the same dtype and mode.

    Args:
        model: a model of a family in `bertkd.models.families`, with or without a head; width-pruned and factorized
            ones are welcome.
        groups: how many different layers there are to be, of which each serves for as many consecutive ones as the
            others; or a number for each layer, equal for layers that share, such as `[0, 0, 1, 1, 2, 2]`.
        weights: "first", those of the group's first layer, or "mean", the mean of the group's layers.

    Raises:
        ValueError: groups that do not fit the layers or share nothing, layers of different sizes in a group, unknown
            `weights`, the mean of factorized layers, a model that shares already, a supernet, or a class that has no
            pruned one.
    """
    refuse_supernet(model, "share_layers")
    if weights not in SHARED_WEIGHTS:
        raise ValueError(f"weights must be one of {', '.join(SHARED_WEIGHTS)}, not {weights!r}.")

    fields = compression_fields(model)
    if "layer_groups" in fields:
        raise ValueError(f"The layers share their weights already, in the groups {fields['layer_groups']}.")
    if weights == "mean" and "ffn_rank" in fields:
        raise ValueError("The mean of factors is not the factors of a mean: share the layers first, then factorize.")

    sizes = layer_sizes(model)
    numbers = layer_groups(groups, len(sizes.heads))
    check_shared_sizes(sizes, numbers)

    student = new_pruned_model(model, layer_groups=numbers)
    student.load_state_dict(_shared(model, numbers, weights))
    return match_device_dtype_and_mode(student, model)


def layer_groups(groups: int | Sequence[int], layers: int) -> list[int]:
    """Numbers the groups of the layers from 0 on, in the order of the layers.

    Args:
        groups: the number of groups, or a number for each layer, equal for layers of a group.
        layers: the number of layers.

    Returns:
        The group of each layer.

    Raises:
        ValueError: fewer than one group or at least as many as layers, or a list of another length or without two
            equal numbers.
    """
    if isinstance(groups, int):
        if not 1 <= groups < layers:
            raise ValueError(
                f"Cannot share {groups} layers among {layers}: give a number from 1 to {layers - 1}, or a group for "
                "each layer."
            )
        return [layer * groups // layers for layer in range(layers)]

    if len(groups) != layers:
        raise ValueError(f"The groups {list(groups)} are of {len(groups)} layers, and the model has {layers}.")
    if len(set(groups)) == layers:
        raise ValueError(f"The groups {list(groups)} share nothing: give at least two layers the same number.")

    order = list(dict.fromkeys(groups))
    return [order.index(group) for group in groups]


def _shared(model: PreTrainedModel, groups: Sequence[int], weights: str) -> dict[str, Tensor]:
    """Returns the state dict of `model`, with the same weights in all layers of a group."""
    state = state_for_pruned(model)
    path = f"{encoder_prefix(model)}{family_of(model).layers}"

    members: dict[int, list[int]] = {}
    for layer, owner in tied_layers(groups).items():
        members.setdefault(owner, [owner]).append(layer)

    for owner, layers in members.items():
        prefix = f"{path}.{owner}."
        names = [name.removeprefix(prefix) for name in state if name.startswith(prefix)]
        for name in names:
            tensors = [state[f"{path}.{layer}.{name}"] for layer in layers]
            value = tensors[0] if weights == "first" else _mean(tensors)
            for layer in layers:
                state[f"{path}.{layer}.{name}"] = value

    return state


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    # Sums of half-precision weights would lose digits.
    exact = torch.promote_types(tensors[0].dtype, torch.float32)
    return torch.stack([tensor.to(exact) for tensor in tensors]).mean(0).to(tensors[0].dtype)
