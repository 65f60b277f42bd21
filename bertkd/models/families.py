"""A table of where each encoder family keeps its parts.

It takes the place of copies of the models: everything in bertkd that reads or changes a part of a stock
`transformers` model finds that part here.
"""

from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["FAMILIES", "PRUNED_PREFIX", "Family", "encoder_layers", "encoder_prefix", "family_of", "refuse_wrapper"]


@dataclass(frozen=True)
class Family:
    """Module paths of one `model_type`.

    `layers`, `embeddings` and `pooler` start at the base model (`model.base_model`), the parts of a layer start at
    the layer, and `head` starts at the sequence-classification model. None means that the family has no such part.
    """

    layers: str
    attention: str  # the module that takes hidden states and returns (context, weights)
    query: str
    key: str
    value: str
    attention_output: str  # the projection after the heads are joined: heads are its input columns
    attention_norm: str
    ffn_in: str
    ffn_out: str  # the projection after the activation: neurons are its input columns
    ffn_norm: str
    pooler: str | None
    head: tuple[str, ...]
    embeddings: str = "embeddings"
    word_embeddings: str = "embeddings.word_embeddings"
    position_embeddings: str = "embeddings.position_embeddings"
    token_type_embeddings: str | None = "embeddings.token_type_embeddings"
    embeddings_norm: str = "embeddings.LayerNorm"
    embeddings_projection: str | None = None
    # The table of position biases that all layers add to their attention scores, from the base model.
    position_bias: str | None = None

    # The names of the two widths of a layer in the config.
    heads_field: str = "num_attention_heads"
    neurons_field: str = "intermediate_size"


def _bert_family(pooler: str | None, head: tuple[str, ...], embeddings_projection: str | None = None) -> Family:
    return Family(
        layers="encoder.layer",
        attention="attention.self",
        query="attention.self.query",
        key="attention.self.key",
        value="attention.self.value",
        attention_output="attention.output.dense",
        attention_norm="attention.output.LayerNorm",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
        ffn_norm="output.LayerNorm",
        pooler=pooler,
        head=head,
        embeddings_projection=embeddings_projection,
    )


_ROBERTA = _bert_family(pooler=None, head=("classifier.dense", "classifier.out_proj"))

FAMILIES: dict[str, Family] = {
    "bert": _bert_family(pooler="pooler.dense", head=("classifier",)),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    # The projection is there only where ELECTRA's embeddings are narrower than its layers.
    "electra": _bert_family(
        pooler=None, head=("classifier.dense", "classifier.out_proj"), embeddings_projection="embeddings_project"
    ),
    "distilbert": Family(
        layers="transformer.layer",
        attention="attention",
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        ffn_in="ffn.lin1",
        ffn_out="ffn.lin2",
        ffn_norm="output_layer_norm",
        pooler=None,
        head=("pre_classifier", "classifier"),
        token_type_embeddings=None,
        heads_field="n_heads",
        neurons_field="hidden_dim",
    ),
    "mpnet": Family(
        layers="encoder.layer",
        attention="attention.attn",
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        ffn_in="intermediate.dense",
        ffn_out="output.dense",
        ffn_norm="output.LayerNorm",
        pooler=None,
        head=("classifier.dense", "classifier.out_proj"),
        token_type_embeddings=None,
        position_bias="encoder.relative_attention_bias",
    ),
}

# Width-pruned models (bertkd.models.pruned) keep their parts where their families do.
PRUNED_PREFIX = "pruned_"


def family_of(model: PreTrainedModel | PretrainedConfig) -> Family:
    """Looks up the row of the table for a model or its config.

    Raises:
        ValueError: the model's `model_type` is not supported; the message lists those that are.
    """
    config = model if isinstance(model, PretrainedConfig) else model.config
    name = config.model_type.removeprefix(PRUNED_PREFIX)

    if name not in FAMILIES:
        raise ValueError(
            f"bertkd does not know where a model of type {config.model_type!r} keeps its layers; supported types: "
            f"{', '.join(FAMILIES)}."
        )
    return FAMILIES[name]


def refuse_wrapper(model: Any) -> None:
    """Raises ValueError for what is no model of transformers itself, such as a compiled one."""
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"A {type(model).__name__} is no model of transformers: give the model inside of it, of a compiled one "
            "`_orig_mod`, of PEFT's what `merge_and_unload()` gives."
        )


def encoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """Returns the transformer layers of a model with or without a head.

    Raises:
        ValueError: the `model_type` is not supported, or it is a wrapper around a model.
    """
    refuse_wrapper(model)
    layers = model.base_model.get_submodule(family_of(model).layers)
    assert isinstance(layers, nn.ModuleList)  # true of every row above; tells mypy
    return layers


def encoder_prefix(model: PreTrainedModel) -> str:
    """How the names of the encoder's weights begin: such as "bert." in a model with a head, empty without one."""
    return "" if model.base_model is model else f"{model.base_model_prefix}."
