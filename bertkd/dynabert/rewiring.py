"""Rewires a network: the most important heads and neurons come first (DynaBERT, arXiv 2004.04037, section 2.1)."""

from typing import TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.dynabert.importance import Importance
from bertkd.models import encoder_layers, family_of, layer_sizes, refuse_factorized_or_shared
from bertkd.models.pruned import BiasedAttention
from bertkd.models.sizes import head_size, refuse_shared_position_bias

__all__ = ["rewire"]

Model = TypeVar("Model", bound=PreTrainedModel)


@torch.no_grad()
def rewire(model: Model, importance: Importance) -> Model:
    """Sort the heads and neurons of each layer by descending importance, in place.

    What the model computes does not change; which heads and neurons a narrower model keeps does. Equal importances
    keep their order. `importance` then describes the model as it was before: its entries are not sorted.

    Args:
        model: an ordinary model or a supernet, of a family in `bertkd.models.families`.
        importance: the result of `compute_importance` on this model.

    Returns:
        `model`.

    Raises:
        ValueError: `importance` is that of a model with other layers, heads or neurons, or layers are factorized or
            shared, or share their position biases; `model` is unchanged then.
    """
    refuse_factorized_or_shared(model, "rewire")
    refuse_shared_position_bias(model, "rewire")
    _check_shapes(model, importance)

    # All layers, whichever of them a supernet is switched to.
    layers = list(encoder_layers(model).children())
    family, size = family_of(model), head_size(model.config)
    for layer, heads, neurons in zip(layers, importance.heads, importance.neurons, strict=True):
        by_head = torch.argsort(heads, descending=True, stable=True)
        # A head is `size` rows of query, key and value one after the other.
        rows = (by_head[:, None] * size + torch.arange(size)).flatten()
        for path in (family.query, family.key, family.value):
            _sort(layer, path, rows, dim=0)
        _sort(layer, family.attention_output, rows, dim=1)
        attention = layer.get_submodule(family.attention)
        if isinstance(attention, BiasedAttention):
            table = attention.position_bias.weight
            table.copy_(table[:, by_head.to(table.device)])

        by_neuron = torch.argsort(neurons, descending=True, stable=True)
        _sort(layer, family.ffn_in, by_neuron, dim=0)
        _sort(layer, family.ffn_out, by_neuron, dim=1)
    return model


def _check_shapes(model: PreTrainedModel, importance: Importance) -> None:
    """Raise ValueError for an importance of other layers, heads or neurons than the model has."""
    sizes = layer_sizes(model)
    for name, rows, counts in (
        ("heads", importance.heads, sizes.heads),
        ("neurons", importance.neurons, sizes.neurons),
    ):
        counts_of_rows = [len(row) for row in rows]
        if counts_of_rows != list(counts):
            raise ValueError(
                f"The importance is of {len(rows)} layers with {counts_of_rows} {name}, and the model has "
                f"{list(counts)}: compute it on this very model."
            )


def _sort(layer: nn.Module, path: str, order: Tensor, dim: int) -> None:
    """Put the rows (0) or columns (1) of a linear map into `order`; the bias goes with the rows."""
    linear = layer.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    order = order.to(linear.weight.device)
    linear.weight.copy_(linear.weight.index_select(dim, order))
    if dim == 0 and linear.bias is not None:
        linear.bias.copy_(linear.bias[order])
