"""Width-pruned, factorized and weight-sharing encoders, which no stock config describes; they save and load as usual.

A layer may have fewer heads or neurons than its neighbors, or lack its attention or its feed-forward part. The sizes
stand in the config under `per_layer_config`, the vocabulary of `transformers` for such models:

    {"0": {"num_attention_heads": 3, "intermediate_size": 768}, "1": {"skip": ["attention"]}}

The config's global fields describe a layer of full size, and so the size of a head. `transformers` itself does not
build models from this yet; the classes here do. `ffn_rank`, `embedding_rank` and `layer_groups` (see
`FactorizedOrShared`) go with it or stand alone. A folder that these classes save carries this file, so that it opens
with `import bertkd`, or without bertkd by `trust_remote_code=True`.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    DistilBertConfig,
    ElectraConfig,
    MPNetConfig,
    PretrainedConfig,
    RobertaConfig,
    XLMRobertaConfig,
)

# This import is relative because this file and its neighbor travel together with every model that they describe.
from .families import PRUNED_PREFIX, encoder_layers, encoder_prefix, family_of

SKIPPABLE = ("attention", "mlp")

# Before this version, `transformers` does not read `per_layer_config` as these classes do.
OLDEST_TRANSFORMERS = (5, 23)


def check_transformers(version: str) -> None:
    """Checks that this version of `transformers` gives layers the sizes that stand in the config.

    Raises:
        ImportError: it is too old: it ends in an error without a meaning, or with small changes in wrong logits.
    """
    major, minor = version.split(".")[:2]
    if (int(major), int(minor)) < OLDEST_TRANSFORMERS:
        raise ImportError(
            f"A pruned model needs transformers 5.23 or newer, and this is {version}: upgrade transformers, or write "
            "the sub-network with `bertkd extract --format stock`, which any version opens."
        )


check_transformers(transformers.__version__)


class NoAttention(nn.Module):
    """Takes the place of a self-attention and adds nothing."""

    def forward(self, hidden_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, None]:
        """Maps (B, T, H) to zeros of that shape, and gives no attention weights."""
        return torch.zeros_like(hidden_states), None


class NoFeedForward(nn.Module):
    """Takes the place of the second map of a feed-forward part and adds nothing."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """Returns zeros of the input's shape."""
        return torch.zeros_like(hidden_states)


def skip_attention(layer: nn.Module, config: PretrainedConfig) -> None:
    """Takes the attention out of a layer, with its residual normalization: hidden states pass unchanged."""
    family = family_of(config)
    layer.set_submodule(family.attention, NoAttention())

    # In DistilBERT the output projection is a part of the attention, and so it is gone already.
    if not family.attention_output.startswith(f"{family.attention}."):
        layer.set_submodule(family.attention_output, nn.Identity())

    layer.set_submodule(family.attention_norm, nn.Identity())


def skip_feed_forward(layer: nn.Module, config: PretrainedConfig) -> None:
    """Takes the feed-forward part out of a layer, with its residual normalization."""
    family = family_of(config)
    layer.set_submodule(family.ffn_in, nn.Identity())
    layer.set_submodule(family.ffn_out, NoFeedForward())
    layer.set_submodule(family.ffn_norm, nn.Identity())


def leading(linear: nn.Linear, rows: int, columns: int) -> nn.Linear:
    """Makes a new linear map of the leading rows and columns of another; its parameters are copies."""
    factory = {"device": linear.weight.device, "dtype": linear.weight.dtype}
    smaller = nn.Linear(columns, rows, bias=linear.bias is not None, **factory)

    smaller.weight = nn.Parameter(linear.weight.detach()[:rows, :columns].clone(), linear.weight.requires_grad)
    if linear.bias is not None:
        smaller.bias = nn.Parameter(linear.bias.detach()[:rows].clone(), linear.bias.requires_grad)

    return smaller.train(linear.training)


def shrink_layer(layer: nn.Module, config: PretrainedConfig, heads: int, neurons: int) -> None:
    """Leaves a layer its first heads and neurons."""
    family = family_of(config)
    width: Any = heads * layer.get_submodule(family.attention).attention_head_size  # type: ignore[operator]
    hidden: Any = layer.get_submodule(family.attention_output).out_features

    attention = layer.get_submodule(family.attention)
    if isinstance(attention, BiasedAttention) and attention.position_bias.embedding_dim != heads:
        weight = attention.position_bias.weight.data[:, :heads].clone()
        attention.position_bias = nn.Embedding(len(weight), heads, _weight=weight)

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


class PassBuckets(nn.Module):
    """Takes the place of MPNet's table of position biases: the layers get the rows, and look them up themselves."""

    def forward(self, buckets: Tensor) -> Tensor:
        """Maps the bucket of each pair of positions, (T, T), to itself as (T, T, 1)."""
        return buckets.unsqueeze(-1)


class BiasedAttention(nn.Module):
    """An MPNet self-attention with a table of position biases of its own, for any number of heads.

    A stock MPNet has one table for all layers, with a column for each head. Where layers differ in their heads, or in
    the order of these, each layer needs its own.
    """

    def __init__(self, attention: Any, table: nn.Embedding) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = attention.q, attention.k, attention.v, attention.o
        self.dropout = attention.dropout
        self.attention_head_size = attention.attention_head_size

        self.position_bias = nn.Embedding(*table.weight.shape)
        self.position_bias.weight.data.copy_(table.weight.data)

    def bias(self, buckets: Tensor) -> Tensor:
        """Maps the bucket of each pair of positions, (B, 1, T, T), to the bias of each head, (1, heads, T, T)."""
        return self.position_bias(buckets[0, 0]).permute(2, 0, 1).unsqueeze(0)

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        position_bias: Tensor | None = None,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[Tensor, ...]:
        """Attends as `MPNetSelfAttention` does.

        Args:
            hidden_states: (B, T, H).
            attention_mask: numbers to add to the scores, (B, 1, T, T).
            position_bias: the buckets of `PassBuckets`.
            output_attentions: whether the probabilities, (B, heads, T, T), are returned too.
        """
        by_head = (*hidden_states.shape[:-1], -1, self.attention_head_size)
        query = self.q(hidden_states).view(by_head).transpose(1, 2)
        key = self.k(hidden_states).view(by_head).transpose(1, 2)
        value = self.v(hidden_states).view(by_head).transpose(1, 2)

        scores = query @ key.transpose(-1, -2) / math.sqrt(self.attention_head_size)
        if position_bias is not None:
            # A supernet that is switched to fewer heads uses the leading ones.
            scores = scores + self.bias(position_bias)[:, : scores.shape[1]]
        if attention_mask is not None:
            scores = scores + attention_mask

        probabilities = self.dropout(scores.softmax(dim=-1))
        context = (probabilities @ value).transpose(1, 2).flatten(2)
        output = self.o(context)
        return (output, probabilities) if output_attentions else (output,)


def give_layers_their_bias(model: Any) -> None:
    """Gives each layer of a stock MPNet a copy of the table of position biases, in place."""
    family = family_of(model)
    table = model.base_model.get_submodule(family.position_bias)
    for layer in encoder_layers(model):
        layer.set_submodule(family.attention, BiasedAttention(layer.get_submodule(family.attention), table))
    model.base_model.set_submodule(family.position_bias, PassBuckets())


class FactorizedLinear(nn.Module):
    """A linear map in two steps: `down` to `rank` dimensions, without a bias, and `up` from there."""

    def __init__(self, linear: nn.Linear, rank: int) -> None:
        super().__init__()
        factory: Any = {"device": linear.weight.device, "dtype": linear.weight.dtype}
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.down = nn.Linear(linear.in_features, rank, bias=False, **factory)
        self.up = nn.Linear(rank, linear.out_features, bias=linear.bias is not None, **factory)

    def forward(self, input: Tensor) -> Tensor:
        """Maps (..., in_features) to (..., out_features)."""
        return self.up(self.down(input))


class FactorizedEmbedding(nn.Embedding):
    """An embedding table of V x rank, and a map without a bias from there to the width of the embeddings.

    It is an `nn.Embedding` so that code that counts, resizes or looks for embeddings finds it.
    """

    def __init__(self, table: nn.Embedding, rank: int) -> None:
        factory: Any = {"device": table.weight.device, "dtype": table.weight.dtype}
        super().__init__(table.num_embeddings, rank, padding_idx=table.padding_idx, **factory)
        self.projection = nn.Linear(rank, table.embedding_dim, bias=False, **factory)

    def forward(self, input: Tensor) -> Tensor:
        """Maps token ids (...) to embeddings (..., width)."""
        return self.projection(super().forward(input))


def tied_layers(groups: Sequence[int]) -> dict[int, int]:
    """Maps each layer that uses another layer's weights to that other: the first layer of its group."""
    first_of_group: dict[int, int] = {}
    owners = {}
    for layer, group in enumerate(groups):
        owner = first_of_group.setdefault(group, layer)
        if owner != layer:
            owners[layer] = owner
    return owners


class PrunedModel:
    """The part of a pruned class that its stock class lacks.

    It gives the layers the sizes in `config.per_layer_config`, and applies the fields of `FactorizedOrShared`. Layers
    of a group are modules of their own with the same parameters: hooks see each of them, and `transformers` saves and
    restores them as it does tied embeddings.
    """

    def __init__(self, config: PretrainedConfig, *args: Any, **kwargs: Any) -> None:
        sizes = config.to_dict().get("per_layer_config")

        # The stock class builds a model of full size from the global fields, and the config refuses to give these
        # while layers differ.
        config.per_layer_config = None
        try:
            super().__init__(config, *args, **kwargs)  # type: ignore[call-arg]
        finally:
            config.per_layer_config = sizes

        if family_of(config).position_bias is not None:
            give_layers_their_bias(self)

        # The order counts: factors are made of maps that have their final size, and then layers share what they have.
        if sizes is not None:
            self._cut_layers(config)
        self._factorize(config)
        if config.layer_groups is not None:
            self._share_layers(config)

    def _cut_layers(self: Any, config: PretrainedConfig) -> None:
        family = family_of(config)
        for index, layer in enumerate(encoder_layers(self)):
            layer_config = config.per_layer_config[index]
            heads, neurons = getattr(layer_config, family.heads_field), getattr(layer_config, family.neurons_field)
            shrink_layer(layer, config, heads, neurons)

            skip = getattr(layer_config, "skip", ())
            unknown = sorted(set(skip) - set(SKIPPABLE))
            if unknown:
                raise ValueError(f"Layer {index} is to skip {', '.join(unknown)}: only {', '.join(SKIPPABLE)} can be.")
            if "attention" in skip:
                skip_attention(layer, config)
            if "mlp" in skip:
                skip_feed_forward(layer, config)

    def _factorize(self: Any, config: PretrainedConfig) -> None:
        family = family_of(config)
        new_modules: list[nn.Module] = []

        if config.ffn_rank is not None:
            for layer in encoder_layers(self):
                for path in (family.ffn_in, family.ffn_out):
                    linear = layer.get_submodule(path)
                    # A part that is skipped has no linear maps.
                    if isinstance(linear, nn.Linear):
                        factorized = FactorizedLinear(linear, config.ffn_rank)
                        layer.set_submodule(path, factorized)
                        new_modules.append(factorized)

        if config.embedding_rank is not None:
            table = self.base_model.get_submodule(family.word_embeddings)
            embedding = FactorizedEmbedding(table, config.embedding_rank)
            self.base_model.set_submodule(family.word_embeddings, embedding)
            new_modules.append(embedding)

        for module in new_modules:
            module.apply(self._init_weights)

    def _share_layers(self: Any, config: PretrainedConfig) -> None:
        groups, layers = config.layer_groups, encoder_layers(self)
        if len(groups) != len(layers):
            raise ValueError(f"layer_groups names {len(groups)} layers, and the model has {len(layers)}.")

        path = f"{encoder_prefix(self)}{family_of(config).layers}"
        ties = {}
        for layer, owner in tied_layers(groups).items():
            for name, _ in layers[layer].named_parameters():
                ties[f"{path}.{layer}.{name}"] = f"{path}.{owner}.{name}"

        # `save_pretrained` looks under this name for the parameters that are saved once.
        self._tied_weights_keys = {**(self._tied_weights_keys or {}), **ties}
        self.all_tied_weights_keys.update(ties)
        self.tie_weights(recompute_mapping=False)

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # `transformers` guesses the answer from the source file of a class, and would take NoAttention for the
        # attention.
        return True

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Loads a model as `transformers` does.

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

    def save_pretrained(self: Any, *args: Any, **kwargs: Any) -> None:
        """Saves a model as `transformers` does; without bertkd, the folder opens as any class of the family."""
        # By itself, `transformers` names the class of this model alone, and without its head it would not open.
        file = __name__.rpartition(".")[2]
        of_family = [model_class for model_class in PRUNED_CLASSES if model_class.config_class is self.config_class]
        self.config.auto_map = {each._auto_class: f"{file}.{each.__name__}" for each in of_family}
        super().save_pretrained(*args, **kwargs)  # type: ignore[misc]


class FactorizedOrShared:
    """The config fields of a pruned model beside `per_layer_config`; each is None where it is not used.

    Attributes:
        ffn_rank: the rank of both maps of every feed-forward part, each of which is the product of two smaller ones.
        embedding_rank: the rank of the word embeddings.
        layer_groups: a number for each layer; layers with the same number have the same weights.
    """

    ffn_rank: int | None = None
    embedding_rank: int | None = None
    layer_groups: list[int] | None = None


class PrunedBertConfig(FactorizedOrShared, BertConfig):
    """Config of a width-pruned BERT."""

    model_type = f"{PRUNED_PREFIX}bert"


class PrunedRobertaConfig(FactorizedOrShared, RobertaConfig):
    """Config of a width-pruned RoBERTa."""

    model_type = f"{PRUNED_PREFIX}roberta"


class PrunedXLMRobertaConfig(FactorizedOrShared, XLMRobertaConfig):
    """Config of a width-pruned XLM-RoBERTa."""

    model_type = f"{PRUNED_PREFIX}xlm-roberta"


class PrunedElectraConfig(FactorizedOrShared, ElectraConfig):
    """Config of a width-pruned ELECTRA."""

    model_type = f"{PRUNED_PREFIX}electra"


class PrunedDistilBertConfig(FactorizedOrShared, DistilBertConfig):
    """Config of a width-pruned DistilBERT."""

    model_type = f"{PRUNED_PREFIX}distilbert"

    def to_dict(self) -> dict[str, Any]:
        """The values, with the number of layers under the name that `per_layer_config` is read with everywhere."""
        return {**super().to_dict(), "num_hidden_layers": self.num_hidden_layers}


class PrunedMPNetConfig(FactorizedOrShared, MPNetConfig):
    """Config of a width-pruned MPNet, each layer of which has a table of position biases of its own."""

    model_type = f"{PRUNED_PREFIX}mpnet"


_CONFIGS: dict[str, type[PretrainedConfig]] = {
    "Bert": PrunedBertConfig,
    "Roberta": PrunedRobertaConfig,
    "XLMRoberta": PrunedXLMRobertaConfig,
    "Electra": PrunedElectraConfig,
    "DistilBert": PrunedDistilBertConfig,
    "MPNet": PrunedMPNetConfig,
}
# What a stock class is for, as the end of its name.
_KINDS = ("Model", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering", "ForMaskedLM")


def _pruned_class(family: str, kind: str) -> Any:
    """Makes the pruned class that belongs to a stock class of a family."""
    stock, config_class = getattr(transformers, f"{family}{kind}"), _CONFIGS[family]
    config_class.register_for_auto_class()

    pruned_class: Any = type(
        f"Pruned{stock.__name__}",
        (PrunedModel, stock),
        {"config_class": config_class, "__module__": __name__, "__doc__": f"A width-pruned {stock.__name__}."},
    )
    pruned_class.register_for_auto_class(f"AutoModel{kind.removeprefix('Model')}")
    return pruned_class


PRUNED_CLASSES: tuple[Any, ...] = tuple(_pruned_class(family, kind) for family in _CONFIGS for kind in _KINDS)

# `trust_remote_code` looks a class up by its name in this file.
globals().update({pruned_class.__name__: pruned_class for pruned_class in PRUNED_CLASSES})
