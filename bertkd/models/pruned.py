"""Width-pruned encoders that save and load like any other model.

A layer may have fewer heads or neurons than its neighbours, or lack its attention or its feed-forward part. The sizes
stand in the config under `per_layer_config`, the vocabulary of `transformers` for such models:

    {"0": {"num_attention_heads": 3, "intermediate_size": 768}, "1": {"skip": ["attention"]}}

The config's global fields describe a layer of full size, and so the size of a head. `transformers` itself does not
build models from this yet; the classes here do. A folder that they save carries this file, so that it opens with
`import bertkd`, or without bertkd by `trust_remote_code=True`.
"""

from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

# Relative, because this file and its neighbour travel together with every model that they describe.
from .families import PRUNED_PREFIX, encoder_layers, family_of

SKIPPABLE = ("attention", "mlp")


class NoAttention(nn.Module):
    """In the place of a self-attention: adds nothing."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """(B, T, H) to zeros of that shape, and no weights."""
        return torch.zeros_like(hidden_states), None


class NoFeedForward(nn.Module):
    """In the place of a feed-forward part's second map: adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Zeros of the input's shape."""
        return torch.zeros_like(hidden_states)


def skip_attention(layer: nn.Module, config: PretrainedConfig) -> None:
    """Take the attention out of a layer, with its residual normalisation: hidden states pass unchanged."""
    family = family_of(config)
    layer.set_submodule(family.attention, NoAttention())
    if not family.attention_output.startswith(f"{family.attention}."):
        layer.set_submodule(family.attention_output, nn.Identity())
    layer.set_submodule(family.attention_norm, nn.Identity())


def skip_feed_forward(layer: nn.Module, config: PretrainedConfig) -> None:
    """Take the feed-forward part out of a layer, with its residual normalisation."""
    family = family_of(config)
    layer.set_submodule(family.ffn_in, nn.Identity())
    layer.set_submodule(family.ffn_out, NoFeedForward())
    layer.set_submodule(family.ffn_norm, nn.Identity())


def leading(linear: nn.Linear, rows: int, columns: int) -> nn.Linear:
    """A new linear map of the leading rows and columns of another; parameters are copies."""
    factory = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    made = nn.Linear(columns, rows, bias=linear.bias is not None, **factory)
    made.weight = nn.Parameter(linear.weight.detach()[:rows, :columns].clone(), linear.weight.requires_grad)
    if linear.bias is not None:
        made.bias = nn.Parameter(linear.bias.detach()[:rows].clone(), linear.bias.requires_grad)
    return made.train(linear.training)


def shrink_layer(layer: nn.Module, config: PretrainedConfig, heads: int, neurons: int) -> None:
    """Leave a layer its first heads and neurons."""
    family = family_of(config)
    width: Any = heads * layer.get_submodule(family.attention).attention_head_size  # type: ignore[operator]
    hidden: Any = layer.get_submodule(family.attention_output).out_features
    for path, rows, columns in (
        (family.query, width, hidden),
        (family.key, width, hidden),
        (family.value, width, hidden),
        (family.attention_output, hidden, width),
        (family.ffn_in, neurons, hidden),
        (family.ffn_out, hidden, neurons),
    ):
        linear = layer.get_submodule(path)
        assert isinstance(linear, nn.Linear)
        if (linear.out_features, linear.in_features) != (rows, columns):
            layer.set_submodule(path, leading(linear, rows, columns))


class PrunedModel:
    """What a pruned class adds to its stock class: layers of the sizes in `config.per_layer_config`."""

    def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        sizes = config.to_dict().get("per_layer_config")
        # The stock class builds a model of full size from the global fields, which are not to be read while layers
        # differ.
        config.per_layer_config = None
        try:
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        finally:
            config.per_layer_config = sizes
        family = family_of(config)
        for index, layer in enumerate(encoder_layers(self)):  # type: ignore[arg-type]
            own = config.per_layer_config[index]
            shrink_layer(layer, config, getattr(own, family.heads_field), getattr(own, family.neurons_field))
            skip = getattr(own, "skip", ())
            if unknown := sorted(set(skip) - set(SKIPPABLE)):
                raise ValueError(f"Layer {index} is to skip {', '.join(unknown)}: only {', '.join(SKIPPABLE)} can be.")
            if "attention" in skip:
                skip_attention(layer, config)
            if "mlp" in skip:
                skip_feed_forward(layer, config)

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """As `transformers`.

        Raises:
            ValueError: `ignore_mismatched_sizes` is set: layers would silently get new weights of another size.
        """
        if kwargs.get("ignore_mismatched_sizes"):
            raise ValueError(
                "A pruned model does not load with ignore_mismatched_sizes=True: layers whose size differs would get "
                "random weights without an error. Leave it out; for another number of labels, replace the head after "
                "loading."
            )
        return super().from_pretrained(*args, **kwargs)  # type: ignore[misc]


class PrunedBertConfig(BertConfig):
    """Config of a width-pruned BERT."""

    model_type = f"{PRUNED_PREFIX}bert"


class PrunedRobertaConfig(RobertaConfig):
    """Config of a width-pruned RoBERTa."""

    model_type = f"{PRUNED_PREFIX}roberta"


class PrunedXLMRobertaConfig(XLMRobertaConfig):
    """Config of a width-pruned XLM-RoBERTa."""

    model_type = f"{PRUNED_PREFIX}xlm-roberta"


class PrunedElectraConfig(ElectraConfig):
    """Config of a width-pruned ELECTRA."""

    model_type = f"{PRUNED_PREFIX}electra"


class PrunedDistilBertConfig(DistilBertConfig):
    """Config of a width-pruned DistilBERT."""

    model_type = f"{PRUNED_PREFIX}distilbert"


_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "Bert": PrunedBertConfig,
    "Roberta": PrunedRobertaConfig,
    "XLMRoberta": PrunedXLMRobertaConfig,
    "Electra": PrunedElectraConfig,
    "DistilBert": PrunedDistilBertConfig,
}
_TASKS = ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")


def _pruned(family: str, task: str) -> Any:
    """The pruned class of a family's stock class for a task."""
    stock, config_class = getattr(transformers, f"{family}For{task}"), _CONFIGS[family]
    config_class.register_for_auto_class()
    made: Any = type(
        f"Pruned{stock.__name__}",
        (PrunedModel, stock),
        {"config_class": config_class, "__module__": __name__, "__doc__": f"A width-pruned {stock.__name__}."},
    )
    made.register_for_auto_class(f"AutoModelFor{task}")
    return made


PRUNED_CLASSES: tuple[Any, ...] = tuple(_pruned(family, task) for family in _CONFIGS for task in _TASKS)
# `trust_remote_code` looks a class up by its name in this file.
globals().update({made.__name__: made for made in PRUNED_CLASSES})
