"""Reads and checks what the layers of a model have: heads and neurons, factorized maps, shared weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeVar

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from bertkd.models.families import encoder_layers, family_of
from bertkd.models.pruned import NoAttention, NoFeedForward, PrunedModel, tied_layers

__all__ = [
    "COMPRESSION_FIELDS",
    "LayerSizes",
    "Model",
    "check_shared_sizes",
    "check_sizes",
    "compression_fields",
    "full_size",
    "head_size",
    "layer_sizes",
    "match_device_dtype_and_mode",
    "new_model",
    "refuse_factorized_or_shared",
    "refuse_shared_position_bias",
    "shares_position_bias",
]

Model = TypeVar("Model", bound=PreTrainedModel)

COMPRESSION_FIELDS = ("ffn_rank", "embedding_rank", "layer_groups")
"""The config fields of a factorized model and of one whose layers share their weights."""


class LayerSizes(NamedTuple):
    """The widths of each layer, by layer; 0 where the layer has no such part."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]

    @property
    def are_alike(self) -> bool:
        """Whether all layers have the same numbers of heads and neurons."""
        return len(set(self.heads)) <= 1 and len(set(self.neurons)) <= 1


def head_size(config: PretrainedConfig) -> int:
    """Returns the dimensions of one attention head; pruning heads does not change it."""
    return int(config.hidden_size // full_size(config, family_of(config).heads_field))


def full_size(config: PretrainedConfig, name: str) -> int:
    """Returns the global value of a config field, also where layers differ in it.

    A config with `per_layer_config` refuses to give such a field as an attribute.
    """
    return int(config.to_dict()[name])


def layer_sizes(model: PreTrainedModel) -> LayerSizes:
    """Reads the heads and neurons that each layer of `model` really has off its weights.

    Raises:
        ValueError: the `model_type` is not supported.
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


def shares_position_bias(model: PreTrainedModel) -> bool:
    """Tells whether all layers add the same table of position biases, with a column for each head (stock MPNet)."""
    return family_of(model).position_bias is not None and not isinstance(model, PrunedModel)


def check_sizes(wanted: LayerSizes, available: LayerSizes) -> None:
    """Checks that `wanted` has a number for each layer, none above what the layer has.

    Raises:
        ValueError: it does not; the message has both lists.
    """
    for part, sizes, limits in zip(wanted._fields, wanted, available, strict=True):
        fits = len(sizes) == len(limits)
        if fits:
            fits = all(0 <= size <= limit for size, limit in zip(sizes, limits, strict=True))
        if not fits:
            raise ValueError(f"Cannot keep {list(sizes)} {part} of layers that have {list(limits)}.")


def compression_fields(model: PreTrainedModel) -> dict[str, Any]:
    """Returns those of `COMPRESSION_FIELDS` that the config of `model` sets, with their values."""
    values = {}
    for name in COMPRESSION_FIELDS:
        value = getattr(model.config, name, None)
        if value is not None:
            values[name] = value
    return values


def refuse_factorized_or_shared(model: PreTrainedModel, caller: str) -> None:
    """Refuses a model where layers of full rank are needed, each with weights of its own.

    Args:
        model: the model to check.
        caller: the name of the function that needs such layers, for the message.

    Raises:
        ValueError: `model` is factorized, or its layers share their weights.
    """
    fields = compression_fields(model)
    if fields:
        described = ", ".join(f"{name}={value}" for name, value in fields.items())
        raise ValueError(
            f"{caller} needs a model whose layers are neither factorized nor shared, and this one has {described}: "
            f"use {caller} before factorizing or sharing, or turn the model into a stock one with "
            "bertkd.students.zero_pad first."
        )


def refuse_shared_position_bias(model: PreTrainedModel, caller: str) -> None:
    """Refuses a stock MPNet where the heads of each layer are to differ, in number or in order.

    Args:
        model: the model to check.
        caller: what needs this, for the message.

    Raises:
        ValueError: all layers of `model` add the same table of position biases.
    """
    if shares_position_bias(model):
        raise ValueError(
            f"{caller} needs layers with heads of their own, and the layers of an MPNet share one table of position "
            "biases, with a column for each head: take bertkd.students.separate_position_bias(model)."
        )


def check_shared_sizes(sizes: LayerSizes, groups: Sequence[int] | None) -> None:
    """Checks that the layers of a group, which share their weights, have the same sizes.

    Args:
        sizes: heads and neurons of each layer.
        groups: the group of each layer; None where no layers share their weights.

    Raises:
        ValueError: two layers of a group differ in heads or neurons.
    """
    for layer, owner in tied_layers(groups or ()).items():
        if (sizes.heads[layer], sizes.neurons[layer]) != (sizes.heads[owner], sizes.neurons[owner]):
            raise ValueError(
                f"Layers {owner} and {layer} cannot share their weights with {sizes.heads[owner]} and "
                f"{sizes.heads[layer]} heads, {sizes.neurons[owner]} and {sizes.neurons[layer]} neurons: layers of a "
                "group need the same sizes."
            )


def new_model(model_class: Any, config: PretrainedConfig, like: PreTrainedModel) -> Any:
    """Makes a model of random weights, which has no pooler where `like` is an encoder that was built without one."""
    lacks_pooler = getattr(like, "pooler", like) is None
    return model_class(config, add_pooling_layer=False) if lacks_pooler else model_class(config)


def match_device_dtype_and_mode(new_model: Model, model: PreTrainedModel) -> Model:
    """Puts `new_model` on the device of `model`, in its dtype and in its mode (training or evaluation)."""
    nn.Module.to(new_model, device=model.device, dtype=model.dtype)
    return new_model.train(model.training)
