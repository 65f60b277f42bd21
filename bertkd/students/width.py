"""Models of fewer heads and neurons: cut from a model, or padded with zeros where only stock models are known."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import family_of
from bertkd.models.pruned import (
    PRUNED_CLASSES,
    FactorizedEmbedding,
    FactorizedLinear,
    Levers,
    PrunedModel,
)
from bertkd.models.sizes import LEVERS, LayerSizes, check_groups, check_sizes, full_size, layer_sizes, levers_of, like

__all__ = ["prune", "pruned_like", "zero_pad"]


def prune(model: PreTrainedModel, heads: Sequence[int], neurons: Sequence[int]) -> PreTrainedModel:
    """A new model with the first `heads[l]` heads and `neurons[l]` feed-forward neurons of each layer l.

    Where 0 is asked for, the layer loses that part with its residual normalization. The result is of the stock class
    when its config can say so (all heads, and equally many neurons in all layers), otherwise of the pruned class in
    `bertkd.models.pruned`; both save and load as usual. `model` stays as it is. The new model is on the same device,
    in the same dtype and mode. A factorized model keeps its ranks, and a shared one its groups.

    Raises:
        ValueError: not one number per layer, a number out of range, different sizes for layers that share their
            weights, a supernet (extract a sub-network instead), or a class that has no pruned one.
    """
    refuse_supernet(model, "prune")
    sizes = LayerSizes(tuple(heads), tuple(neurons))
    check_sizes(sizes, layer_sizes(model))
    check_groups(sizes, levers_of(model).get("layer_groups"))
    made_class, config = _class_for(model, sizes)
    made = made_class(config)
    source = model.state_dict()
    made.load_state_dict({name: source[name][_leading(tensor)] for name, tensor in made.state_dict().items()})
    return like(made, model)


def pruned_like(model: PreTrainedModel, **fields: Any) -> PreTrainedModel:
    """A model of the pruned class, of the sizes and levers of `model` but for the given config fields.

    Its weights are random and still to be loaded.

    Raises:
        ValueError: a class that has no pruned one.
    """
    made_class, sizes = _pruned_class(type(model)), model.config.to_dict().get("per_layer_config")
    kept = {} if sizes is None else {"per_layer_config": copy.deepcopy(sizes)}
    made: PreTrainedModel = made_class(_config_for(made_class, model.config, kept | fields))
    return made


def _class_for(model: PreTrainedModel, sizes: LayerSizes) -> tuple[Any, PretrainedConfig]:
    """The class of a model of these sizes, and its config."""
    family, old = family_of(model), model.config
    full = full_size(old, family.heads_field)
    if set(sizes.heads) == {full} and len(set(sizes.neurons)) == 1 and sizes.neurons[0] > 0:
        made_class = type(model) if levers_of(model) else _stock_class(type(model))
        return made_class, _config_for(made_class, old, {family.neurons_field: sizes.neurons[0]})
    layers: dict[int, dict[str, Any]] = {}
    for index, (heads, neurons) in enumerate(zip(*sizes, strict=True)):
        skip = [part for part, size in (("attention", heads), ("mlp", neurons)) if size == 0]
        # A part that is skipped keeps its global size in the config: 0 heads would be refused by stock validation.
        layers[index] = {family.heads_field: heads or full}
        layers[index][family.neurons_field] = neurons or full_size(old, family.neurons_field)
        if skip:
            layers[index]["skip"] = skip
    made_class = _pruned_class(type(model))
    return made_class, _config_for(made_class, old, {"per_layer_config": layers})


def _config_for(made_class: Any, old: PretrainedConfig, changes: dict[str, Any]) -> PretrainedConfig:
    own = _OWN_TO_A_CLASS if issubclass(made_class.config_class, Levers) else (*_OWN_TO_A_CLASS, *LEVERS)
    values = {name: value for name, value in old.to_dict().items() if name not in own}
    config = made_class.config_class.from_dict(copy.deepcopy(values) | changes)
    config._attn_implementation = old._attn_implementation
    return config


_OWN_TO_A_CLASS = ("model_type", "architectures", "auto_map", "per_layer_config", "transformers_version")


def _stock_class(model_class: type) -> Any:
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
    """The stock model that computes what a pruned one does: missing heads and neurons are zeros.

    It loads wherever the stock class does, with nothing of bertkd. Heads are filled up to the full number, neurons to
    the widest layer's, the two factors of a map are multiplied, and layers that share their weights get copies. A
    model of a stock class is copied.

    Raises:
        ValueError: a layer lacks its attention or feed-forward part, which no weights of a stock layer express.
    """
    sizes = layer_sizes(model)
    lacking = [index for index, pair in enumerate(zip(*sizes, strict=True)) if 0 in pair]
    if lacking:
        raise ValueError(
            f"Layers {', '.join(map(str, lacking))} skip their attention or feed-forward part: a stock model cannot "
            "express this. Save the model as it is, in the pruned format."
        )
    made_class = _stock_class(type(model))
    made = made_class(_config_for(made_class, model.config, {family_of(model).neurons_field: max(sizes.neurons)}))
    state = {name: torch.zeros_like(tensor) for name, tensor in made.state_dict().items()}
    for name, tensor in _multiplied(model).items():
        state[name][_leading(tensor)] = tensor
    made.load_state_dict(state)
    return like(made, model)


def _multiplied(model: PreTrainedModel) -> dict[str, Tensor]:
    """The state dict with the product of the factors of each factorized map in their place."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for path, module in model.named_modules():
        if isinstance(module, FactorizedLinear):
            state[f"{path}.weight"] = state.pop(f"{path}.up.weight") @ state.pop(f"{path}.down.weight")
            if module.up.bias is not None:
                state[f"{path}.bias"] = state.pop(f"{path}.up.bias")
        elif isinstance(module, FactorizedEmbedding):
            state[f"{path}.weight"] = state[f"{path}.weight"] @ state.pop(f"{path}.projection.weight").T
    return state


def _leading(tensor: Tensor) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in tensor.shape)
