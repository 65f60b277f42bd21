"""What each layer of a model has: heads and neurons, factorized maps, shared weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from bertkd.models.families import encoder_layers, family_of
from bertkd.models.pruned import (
    NoAttention,
    NoFeedForward,
    tied_layers,
)

__all__ = [
    "LEVERS",
    "LayerSizes",
    "Model",
    "check_groups",
    "check_sizes",
    "full_size",
    "head_size",
    "layer_sizes",
    "levers_of",
    "like",
    "refuse_levers",
]

Model = TypeVar("Model", bound=PreTrainedModel)


LEVERS = ("ffn_rank", "embedding_rank", "layer_groups")


class LayerSizes(NamedTuple):
    """Widths of each layer, by layer; 0 where the layer has no such part."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def head_size(config: PretrainedConfig) -> int:
    """Dimensions of one attention head; pruning heads does not change it."""
    return int(config.hidden_size // full_size(config, family_of(config).heads_field))


def full_size(config: PretrainedConfig, name: str) -> int:
    """A field's global value, which a config of differing layers does not give away as an attribute."""
    return int(config.to_dict()[name])


def layer_sizes(model: PreTrainedModel) -> LayerSizes:
    """What each layer of `model` really has, read off its weights.

    Raises:
        ValueError: an unsupported `model_type`.
    """
    family, size = family_of(model), head_size(model.config)
    heads, neurons = [], []
    for layer in encoder_layers(model).children():
        has_attention = not isinstance(layer.get_submodule(family.attention), NoAttention)
        has_ffn = not isinstance(layer.get_submodule(family.ffn_out), NoFeedForward)
        heads.append(_rows(layer, family.query) // size if has_attention else 0)
        neurons.append(_rows(layer, family.ffn_in) if has_ffn else 0)
    return LayerSizes(tuple(heads), tuple(neurons))


def _rows(layer: nn.Module, path: str) -> int:
    return int(layer.get_submodule(path).out_features)  # type: ignore[arg-type]


def check_sizes(wanted: LayerSizes, have: LayerSizes) -> None:
    """Raises ValueError unless `wanted` has a number for each layer, none above what the layer has."""
    for what, sizes, most in zip(wanted._fields, wanted, have, strict=True):
        if len(sizes) != len(most) or any(not 0 <= n <= m for n, m in zip(sizes, most, strict=True)):
            raise ValueError(f"Cannot keep {list(sizes)} {what} of layers that have {list(most)}.")


def levers_of(model: PreTrainedModel) -> dict[str, Any]:
    """The levers (factorization, shared layers) that a model was made with, and their values."""
    values = {name: getattr(model.config, name, None) for name in LEVERS}
    return {name: value for name, value in values.items() if value is not None}


def refuse_levers(model: PreTrainedModel, what: str) -> None:
    """Raise ValueError where layers of full rank, each with weights of its own, are needed.

    Args:
        what: the name of what needs them, for the message.
    """
    if given := levers_of(model):
        shown = ", ".join(f"{name}={value}" for name, value in given.items())
        raise ValueError(
            f"{what} needs a model whose layers are neither factorized nor shared, and this one has {shown}: use it "
            "before these levers, or turn the model into a stock one with bertkd.models.zero_pad first."
        )


def check_groups(sizes: LayerSizes, groups: Sequence[int] | None) -> None:
    """Raises ValueError where layers that share their weights differ in heads or neurons."""
    for layer, owner in tied_layers(groups or ()).items():
        if (sizes.heads[layer], sizes.neurons[layer]) != (sizes.heads[owner], sizes.neurons[owner]):
            raise ValueError(
                f"Layers {owner} and {layer} cannot share their weights with {sizes.heads[owner]} and "
                f"{sizes.heads[layer]} heads, {sizes.neurons[owner]} and {sizes.neurons[layer]} neurons: layers of a "
                "group need the same sizes."
            )


def like(made: Model, model: PreTrainedModel) -> Model:
    """`made` on the device of `model`, in its dtype and mode."""
    nn.Module.to(made, device=model.device, dtype=model.dtype)
    return made.train(model.training)
