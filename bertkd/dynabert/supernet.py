"""Makes a supernet and switches its width and depth, as DynaBERT does (Hou et al., arXiv 2004.04037, section 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.models import LayerSizes, encoder_layers, family_of, layer_sizes, refuse_factorized_or_shared
from bertkd.models.adaptive import AdaptiveLayers, AdaptiveLinear, is_adaptive
from bertkd.models.families import Family
from bertkd.models.sizes import check_sizes, head_size, refuse_shared_position_bias

__all__ = [
    "Subnetwork",
    "current_subnetwork",
    "kept_layers",
    "make_adaptive",
    "require_full_size",
    "require_supernet",
    "set_subnetwork",
    "width_sizes",
]

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Subnetwork:
    """The size of a sub-network: which layers it has, and how wide each is.

    Attributes:
        layers: 0-based layers of the supernet, increasing.
        heads: the number of heads of each of these layers; 0 leaves the layer's attention out.
        neurons: the number of neurons of each of these layers; 0 leaves the layer's feed-forward part out.
    """

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @classmethod
    def of(cls, model: PreTrainedModel, width: float = 1.0, depth: float = 1.0) -> Subnetwork:
        """The sub-network of a width and depth multiplier, by the rules of `width_sizes` and `kept_layers`.

        Raises:
            ValueError: a multiplier is not in (0, 1].
        """
        sizes = layer_sizes(model)
        layers = kept_layers(len(sizes.heads), depth)
        widths = [width_sizes(sizes.heads[layer], sizes.neurons[layer], width) for layer in layers]
        heads, neurons = zip(*widths, strict=True)
        return cls(tuple(layers), heads, neurons)


def check_multiplier(name: str, value: float) -> None:
    """Raise ValueError for a multiplier that is not in (0, 1]."""
    if not 0 < value <= 1:
        raise ValueError(f"{name} is a share of the full network and must lie in (0, 1], not {value}.")


def width_sizes(heads: int, neurons: int, width: float) -> tuple[int, int]:
    """Heads and neurons of a layer at a width multiplier, by the rule of the authors' code.

    `round(heads · width)` heads, a half rounded to even, and the same share of the neurons, rounded down. Where their
    code would give no head at all, one is kept. A part that the layer does not have stays away.

    Raises:
        ValueError: `width` is not in (0, 1].
    """
    check_multiplier("width", width)
    if heads == 0:
        return 0, math.floor(neurons * _exact(width))

    kept = max(1, round(heads * _exact(width)))
    return kept, max(1, neurons * kept // heads) if neurons else 0


def kept_layers(num_layers: int, depth: float) -> list[int]:
    """The 0-based layers kept at a depth multiplier: `floor(i / depth)` for i below `round(num_layers · depth)`.

    Of 12 layers, 0.75 drops 3, 7 and 11, and 0.5 every odd one, as the paper and the authors' code. At least one layer
    is kept.

    Raises:
        ValueError: `depth` is not in (0, 1].
    """
    check_multiplier("depth", depth)
    share = _exact(depth)
    return [math.floor(i / share) for i in range(max(1, round(num_layers * share)))]


def _exact(multiplier: float) -> Fraction:
    """The fraction that a multiplier stands for: 5/6 has no exact float, and would be rounded down by one too many."""
    return Fraction(multiplier).limit_denominator(1000)


def make_adaptive(model: Model) -> Model:
    """Turn a model into a supernet, in place: its width and depth can be switched by `set_subnetwork`.

    The linear maps of the layers are replaced by ones that use the leading part of the same parameters. At full size,
    which it starts with, and in its checkpoints it is the model that it was before. Rewire it first (`rewire`), so
    that the leading heads and neurons are the most important ones.

    Returns:
        `model`.

    Raises:
        ValueError: it is a supernet already, its layers are factorized or shared, or an unsupported `model_type`.
    """
    refuse_factorized_or_shared(model, "make_adaptive")
    if is_adaptive(model):
        raise ValueError("This model is a supernet already: make_adaptive is called once.")

    family, layers = family_of(model), encoder_layers(model)
    paths = (family.query, family.key, family.value, family.attention_output, family.ffn_in, family.ffn_out)
    for layer in layers:
        for path in paths:
            module = _submodule(layer, path)
            if type(module) is nn.Linear:
                layer.set_submodule(path, AdaptiveLinear(module))

    model.base_model.set_submodule(family.layers, AdaptiveLayers(list(layers)))
    return model


def _submodule(layer: nn.Module, path: str) -> nn.Module | None:
    """A part of a layer; None where a pruned layer does not have it."""
    try:
        return layer.get_submodule(path)
    except AttributeError:
        return None


def require_supernet(model: PreTrainedModel, what: str) -> None:
    """Raise ValueError for an ordinary model where a supernet is needed by `what`."""
    if not is_adaptive(model):
        raise ValueError(f"{what} needs a supernet, and this is an ordinary model: call make_adaptive(model) first.")


def set_subnetwork(
    model: PreTrainedModel, width: float = 1.0, depth: float = 1.0, subnetwork: Subnetwork | None = None
) -> None:
    """Switch a supernet to a size. Nothing is copied; parameters outside the size are left alone.

    Args:
        model: a supernet (`make_adaptive`).
        width: share of each layer's heads and neurons, in (0, 1].
        depth: share of the layers, in (0, 1].
        subnetwork: any size, uneven ones included, instead of the two multipliers.

    Raises:
        ValueError: an ordinary model, a multiplier out of (0, 1], or sizes that the model does not have.
    """
    require_supernet(model, "set_subnetwork")
    size = subnetwork or Subnetwork.of(model, width, depth)
    _check_fits(model, size)

    layers, family, width_of_head = encoder_layers(model), family_of(model), head_size(model.config)
    assert isinstance(layers, AdaptiveLayers)
    layers.active = size.layers

    for index, heads, neurons in zip(size.layers, size.heads, size.neurons, strict=True):
        layer = layers[index]
        _switch(layer, _attention_parts(family), off=heads == 0)
        _switch(layer, _ffn_parts(family), off=neurons == 0)

        for path in (family.query, family.key, family.value):
            _set_active(layer, path, rows=heads * width_of_head)
        _set_active(layer, family.attention_output, columns=heads * width_of_head)
        _set_active(layer, family.ffn_in, rows=neurons)
        _set_active(layer, family.ffn_out, columns=neurons)


def _set_active(layer: nn.Module, path: str, rows: int | None = None, columns: int | None = None) -> None:
    """Choose how many rows or columns of a linear map are used, if the layer has it."""
    module = _submodule(layer, path)
    if isinstance(module, AdaptiveLinear):
        module.active_out = module.active_out if rows is None else rows
        module.active_in = module.active_in if columns is None else columns


def _check_fits(model: PreTrainedModel, size: Subnetwork) -> None:
    """Raise ValueError for a size that the model does not have."""
    full = layer_sizes(model)
    is_increasing = list(size.layers) == sorted(set(size.layers))
    if not size.layers or not is_increasing or not 0 <= size.layers[0] <= size.layers[-1] < len(full.heads):
        raise ValueError(
            f"A sub-network needs increasing layers from 0 to {len(full.heads) - 1}, not {list(size.layers)}."
        )

    full_heads = tuple(full.heads[layer] for layer in size.layers)
    full_neurons = tuple(full.neurons[layer] for layer in size.layers)
    check_sizes(LayerSizes(size.heads, size.neurons), LayerSizes(full_heads, full_neurons))
    if any(heads not in (0, whole) for heads, whole in zip(size.heads, full_heads, strict=True)):
        refuse_shared_position_bias(model, "A narrower sub-network")


def current_subnetwork(model: PreTrainedModel) -> Subnetwork:
    """The size that a supernet is switched to.

    Raises:
        ValueError: an ordinary model.
    """
    require_supernet(model, "current_subnetwork")
    layers, family, width_of_head = encoder_layers(model), family_of(model), head_size(model.config)
    assert isinstance(layers, AdaptiveLayers)

    heads, neurons = [], []
    # Only the active layers are iterated over.
    for layer in layers:
        query, ffn_in = _submodule(layer, family.query), _submodule(layer, family.ffn_in)
        heads.append(query.active_out // width_of_head if isinstance(query, AdaptiveLinear) else 0)
        neurons.append(ffn_in.active_out if isinstance(ffn_in, AdaptiveLinear) else 0)
    return Subnetwork(layers.active, tuple(heads), tuple(neurons))


def require_full_size(model: PreTrainedModel, what: str) -> None:
    """Raise ValueError for a supernet that is switched to a smaller size; an ordinary model is of full size."""
    if is_adaptive(model) and current_subnetwork(model) != Subnetwork.of(model):
        raise ValueError(f"{what} needs the full network: call set_subnetwork(model) to switch back to it first.")


# ---- parts that are left out ----
# A module that is switched off gets another `forward` of its own, so that its parameters stay where they are.


def _attention_parts(family: Family) -> dict[str, Any]:
    """The modules of a layer's attention, each with what its `forward` is without attention."""
    parts = {family.attention: _no_attention, family.attention_norm: _identity}
    if not family.attention_output.startswith(f"{family.attention}."):
        parts[family.attention_output] = _identity
    return parts


def _ffn_parts(family: Family) -> dict[str, Any]:
    """The modules of a layer's feed-forward part, each with what its `forward` is without it."""
    return {family.ffn_in: _identity, family.ffn_out: torch.zeros_like, family.ffn_norm: _identity}


def _switch(layer: nn.Module, parts: dict[str, Any], off: bool) -> None:
    for path, replacement in parts.items():
        module = layer.get_submodule(path)
        if off:
            module.forward = replacement
        else:
            vars(module).pop("forward", None)


def _no_attention(hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
    return torch.zeros_like(hidden_states), None


def _identity(hidden_states: Tensor) -> Tensor:
    return hidden_states
