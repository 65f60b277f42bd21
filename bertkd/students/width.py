"""Makes models of fewer heads and neurons, and pads them with zeros where only stock models can be used."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import encoder_layers, encoder_prefix, family_of
from bertkd.models.pruned import (
    PRUNED_CLASSES,
    BiasedAttention,
    FactorizedEmbedding,
    FactorizedLinear,
    FactorizedOrShared,
    PrunedModel,
)
from bertkd.models.sizes import (
    COMPRESSION_FIELDS,
    LayerSizes,
    Model,
    check_shared_sizes,
    check_sizes,
    compression_fields,
    full_size,
    head_size,
    layer_sizes,
    match_device_dtype_and_mode,
    new_model,
    refuse_factorized_or_shared,
    refuse_shared_position_bias,
    shares_position_bias,
)

__all__ = [
    "config_for",
    "new_pruned_model",
    "prune",
    "reorder_units",
    "separate_position_bias",
    "state_for_pruned",
    "stock_class_of",
    "zero_pad",
]

# These fields describe the class of a model, and so they are not copied into the config of another class.
_CLASS_FIELDS = ("model_type", "architectures", "auto_map", "per_layer_config", "transformers_version")


def prune(model: PreTrainedModel, heads: Sequence[int], neurons: Sequence[int]) -> PreTrainedModel:
    """Makes a new model with the first `heads[l]` heads and `neurons[l]` feed-forward neurons of each layer l.

    Where 0 is asked for, the layer loses that part with its residual normalization. The result is of the stock class
    when its config can say so (all heads, and equally many neurons in all layers), otherwise of the pruned class in
    `bertkd.models.pruned`; both save and load as usual. `model` stays as it is. The new model is on the same device,
    in the same dtype and mode. A factorized model keeps its ranks, and a weight-sharing one its groups.

    Args:
        model: a model of a family in `bertkd.models.families`.
        heads: how many heads to keep in each layer.
        neurons: how many feed-forward neurons to keep in each layer.

    Raises:
        ValueError: not one number per layer, a number out of range, different sizes for layers that share their
            weights, a supernet (extract a sub-network instead), or a class that has no pruned one.
    """
    refuse_supernet(model, "prune")
    sizes = LayerSizes(tuple(heads), tuple(neurons))
    check_sizes(sizes, layer_sizes(model))
    check_shared_sizes(sizes, compression_fields(model).get("layer_groups"))

    student_class, config = _class_for(model, sizes)
    student = new_model(student_class, config, like=model)

    source = state_for_pruned(model) if isinstance(student, PrunedModel) else model.state_dict()
    state = {}
    for name, tensor in student.state_dict().items():
        state[name] = source[name][_leading(tensor)]
    student.load_state_dict(state)
    return match_device_dtype_and_mode(student, model)


@torch.no_grad()
def reorder_units(model: Model, heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> Model:
    """Puts the heads and neurons of each layer into another order, in place.

    What the model computes does not change; which units `prune` and narrower sub-networks keep does.

    Args:
        model: an ordinary model or a supernet, of a family in `bertkd.models.families`.
        heads: for each layer its heads, 0-based, in their new order; nothing for a layer without attention.
        neurons: for each layer its neurons, likewise.

    Raises:
        ValueError: layers are factorized or shared, or share their position biases, or the numbers are not those of
            the model's units; `model` is unchanged then.
    """
    refuse_factorized_or_shared(model, "reorder_units")
    refuse_shared_position_bias(model, "reorder_units")
    _check_orders(model, heads, neurons)

    # All layers, whichever of them a supernet is switched to.
    layers = list(encoder_layers(model).children())
    family, size = family_of(model), head_size(model.config)
    for layer, by_head, by_neuron in zip(layers, heads, neurons, strict=True):
        if len(by_head):
            # A head is `size` rows of query, key and value one after the other.
            rows = (by_head[:, None] * size + torch.arange(size, device=by_head.device)).flatten()
            for path in (family.query, family.key, family.value):
                _reorder(layer, path, rows, dim=0)
            _reorder(layer, family.attention_output, rows, dim=1)
            attention = layer.get_submodule(family.attention)
            if isinstance(attention, BiasedAttention):
                table = attention.position_bias.weight
                table.copy_(table[:, by_head.to(table.device)])

        if len(by_neuron):
            _reorder(layer, family.ffn_in, by_neuron, dim=0)
            _reorder(layer, family.ffn_out, by_neuron, dim=1)
    return model


def _check_orders(model: PreTrainedModel, heads: Sequence[Tensor], neurons: Sequence[Tensor]) -> None:
    for name, orders, counts in zip(LayerSizes._fields, (heads, neurons), layer_sizes(model), strict=True):
        found = [sorted(order.tolist()) for order in orders]
        if found != [list(range(count)) for count in counts]:
            raise ValueError(f"The new order of {name} is not one of the model's {list(counts)} {name}, each once.")


def _reorder(layer: nn.Module, path: str, order: Tensor, dim: int) -> None:
    """Puts the rows (0) or columns (1) of a linear map into `order`; the bias goes with the rows."""
    linear = layer.get_submodule(path)
    assert isinstance(linear, nn.Linear)
    order = order.to(linear.weight.device)
    linear.weight.copy_(linear.weight.index_select(dim, order))
    if dim == 0 and linear.bias is not None:
        linear.bias.copy_(linear.bias[order])


def separate_position_bias(model: PreTrainedModel) -> PreTrainedModel:
    """Makes a model of the pruned class in full size, each layer of which has position biases of its own.

    It computes what the MPNet computes that it is made of, whose layers share one table with a column for each head.
    `rewire` and narrower sub-networks need this, because a layer's heads then differ from those of its neighbors.
    Models of all other families, and those that have such layers already, are returned as they are.

    Args:
        model: a model of a family in `bertkd.models.families`, with or without a head.

    Raises:
        ValueError: a supernet, an unsupported `model_type`, or a class that has no pruned one.
    """
    refuse_supernet(model, "separate_position_bias")
    if not shares_position_bias(model):
        return model

    student = new_pruned_model(model)
    student.load_state_dict(state_for_pruned(model))
    return match_device_dtype_and_mode(student, model)


def state_for_pruned(model: PreTrainedModel) -> dict[str, Tensor]:
    """Returns the state dict under the names of the pruned class: a table of position biases goes to each layer."""
    state: dict[str, Tensor] = dict(model.state_dict())
    if not shares_position_bias(model):
        return state

    family, prefix = family_of(model), encoder_prefix(model)
    table = state.pop(f"{prefix}{family.position_bias}.weight")
    for index in range(model.config.num_hidden_layers):
        path = f"{prefix}{family.layers}.{index}.{family.attention}"
        state[f"{path}.position_bias.weight"] = table
    return state


def new_pruned_model(model: PreTrainedModel, **fields: Any) -> PreTrainedModel:
    """Makes a model of the pruned class with the sizes, ranks and groups of `model`, but for the given config fields.

    Its weights are random and still to be loaded.

    Raises:
        ValueError: a class that has no pruned one.
    """
    student_class = _pruned_class(type(model))
    sizes = model.config.to_dict().get("per_layer_config")
    if sizes is not None:
        fields = {"per_layer_config": copy.deepcopy(sizes)} | fields

    return new_model(student_class, config_for(student_class, model.config, fields), like=model)


def _class_for(model: PreTrainedModel, sizes: LayerSizes) -> tuple[Any, PretrainedConfig]:
    """Returns the class of a model of these sizes, and its config."""
    family, config = family_of(model), model.config
    all_heads = full_size(config, family.heads_field)
    all_neurons = full_size(config, family.neurons_field)

    # A stock config can express this.
    if set(sizes.heads) == {all_heads} and len(set(sizes.neurons)) == 1 and sizes.neurons[0] > 0:
        # The tables of position biases may have become different ones.
        keeps_class = compression_fields(model) or family.position_bias is not None
        student_class = type(model) if keeps_class else stock_class_of(type(model))
        return student_class, config_for(student_class, config, {family.neurons_field: sizes.neurons[0]})

    layers: dict[int, dict[str, Any]] = {}
    for index, (heads, neurons) in enumerate(zip(*sizes, strict=True)):
        # A part that is skipped keeps its global size in the config: 0 heads would be refused by stock validation.
        layers[index] = {family.heads_field: heads or all_heads, family.neurons_field: neurons or all_neurons}
        skip = []
        if heads == 0:
            skip.append("attention")
        if neurons == 0:
            skip.append("mlp")
        if skip:
            layers[index]["skip"] = skip

    student_class = _pruned_class(type(model))
    return student_class, config_for(student_class, config, {"per_layer_config": layers})


def config_for(model_class: Any, source: PretrainedConfig, changes: dict[str, Any]) -> PretrainedConfig:
    """Makes the config of a class from that of another one, with changes."""
    left_out = set(_CLASS_FIELDS)
    if not issubclass(model_class.config_class, FactorizedOrShared):
        left_out |= set(COMPRESSION_FIELDS)

    values = {name: value for name, value in source.to_dict().items() if name not in left_out}
    config = model_class.config_class.from_dict(copy.deepcopy(values) | changes)
    config._attn_implementation = source._attn_implementation
    return config


def stock_class_of(model_class: type) -> Any:
    """Returns the stock class of a pruned one; a stock class is its own."""
    if not issubclass(model_class, PrunedModel):
        return model_class
    return next(base for base in model_class.__mro__ if base.__name__ == model_class.__name__.removeprefix("Pruned"))


def _pruned_class(model_class: type) -> Any:
    if issubclass(model_class, PrunedModel):
        return model_class

    for pruned in PRUNED_CLASSES:
        if model_class in pruned.__bases__:
            return pruned

    known = ", ".join(pruned.__name__.removeprefix("Pruned") for pruned in PRUNED_CLASSES)
    raise ValueError(f"There is no pruned class for {model_class.__name__}; there is one for {known}.")


def zero_pad(model: PreTrainedModel) -> PreTrainedModel:
    """Makes the stock model that computes what a pruned one does: missing heads and neurons are zeros.

    It loads wherever the stock class does, with nothing of bertkd. Heads are filled up to the full number, neurons to
    the widest layer's, the two factors of a map are multiplied, and layers that share their weights get copies. A
    model of a stock class is copied.

    Raises:
        ValueError: a layer lacks its attention or feed-forward part, which no weights of a stock layer express, or an
            MPNet whose layers have different position biases.
    """
    sizes = layer_sizes(model)
    lacking = [index for index, pair in enumerate(zip(*sizes, strict=True)) if 0 in pair]
    if lacking:
        raise ValueError(
            f"Layers {', '.join(map(str, lacking))} skip their attention or feed-forward part: a stock model cannot "
            "express this. Save the model as it is, in the pruned format."
        )

    stock_class = stock_class_of(type(model))
    config = config_for(stock_class, model.config, {family_of(model).neurons_field: max(sizes.neurons)})
    padded = new_model(stock_class, config, like=model)

    state = {name: torch.zeros_like(tensor) for name, tensor in padded.state_dict().items()}
    for name, tensor in _stock_state(model).items():
        state[name][_leading(tensor)] = tensor
    padded.load_state_dict(state)
    return match_device_dtype_and_mode(padded, model)


def _stock_state(model: PreTrainedModel) -> dict[str, Tensor]:
    """Returns the state dict under the names of the stock class, with products in the place of factors."""
    state: dict[str, Tensor] = dict(model.state_dict())

    for path, module in model.named_modules():
        if isinstance(module, FactorizedLinear):
            state[f"{path}.weight"] = state.pop(f"{path}.up.weight") @ state.pop(f"{path}.down.weight")
            if module.up.bias is not None:
                state[f"{path}.bias"] = state.pop(f"{path}.up.bias")
        elif isinstance(module, FactorizedEmbedding):
            state[f"{path}.weight"] = state[f"{path}.weight"] @ state.pop(f"{path}.projection.weight").T

    tables = []
    for path, module in model.named_modules():
        if isinstance(module, BiasedAttention):
            tables.append(state.pop(f"{path}.position_bias.weight"))
    if tables:
        state[f"{encoder_prefix(model)}{family_of(model).position_bias}.weight"] = _one_table(tables)
    return state


def _one_table(tables: Sequence[Tensor]) -> Tensor:
    """Returns the table of position biases of which each layer's is the leading part."""
    widest = max(tables, key=lambda table: table.shape[1])
    for table in tables:
        if not torch.equal(table, widest[_leading(table)]):
            raise ValueError(
                "The layers of this MPNet have different position biases, and a stock MPNet has one table for all of "
                "them: save the model as it is, in the pruned format."
            )
    return widest


def _leading(tensor: Tensor) -> tuple[slice, ...]:
    """Returns the index of the leading part of a larger tensor that is as large as this one."""
    return tuple(slice(0, size) for size in tensor.shape)
