"""DistilBERT's student: half of the teacher's layers, everything else copied."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from bertkd.models import encoder_layers, family_of, refuse_factorized_or_shared
from bertkd.students import drop_layers

__all__ = ["distilbert_layers", "distilbert_student"]

_TWELVE = (0, 2, 4, 7, 9, 11)
_EPS = 1e-12


def distilbert_layers(teacher_layers: int) -> list[int]:
    """The 0-based layers of the teacher that the student starts from: 0, 2, 4, 7, 9, 11 of twelve, as the released
    code; otherwise every second one, the first included."""
    return list(_TWELVE) if teacher_layers == 12 else list(range(0, teacher_layers, 2))


def distilbert_student(
    teacher: PreTrainedModel, keep: Sequence[int] | None = None, fold_token_types: bool = True
) -> PreTrainedModel:
    """The student of a masked language model: a `DistilBertForMaskedLM` of a BERT, else a model of the same class.

    Embeddings, their LayerNorm and the whole head for masked words are copied. DistilBERT has no token types: row 0 of
    the teacher's is added to the position embeddings, so that with all layers kept the student is the teacher on one
    sentence. A RoBERTa gives a RoBERTa with fewer layers, as DistilRoBERTa.

    Args:
        teacher: with a head for masked words; of a family in `bertkd.models.families`.
        keep: 0-based layers, increasing; default: `distilbert_layers`.
        fold_token_types: False leaves the token types out, as the released code.

    Raises:
        ValueError: `keep` does not fit, the teacher has no such head, or a BERT that DistilBERT's config cannot
            express (another LayerNorm epsilon, factorized or shared layers).
    """
    refuse_factorized_or_shared(teacher, "distilbert_student")
    if teacher.get_output_embeddings() is None:
        raise ValueError(
            f"{type(teacher).__name__} has no head for masked words, which the student's is copied from: load it as "
            "AutoModelForMaskedLM, or train a head with recipes/train_mlm.py."
        )
    layers = distilbert_layers(teacher.config.num_hidden_layers) if keep is None else list(keep)
    shorter = drop_layers(teacher, layers)
    if not isinstance(shorter, BertForMaskedLM):
        return shorter.requires_grad_(True)
    student = DistilBertForMaskedLM(_config(shorter))
    student.load_state_dict(_renamed(shorter, fold_token_types))
    nn.Module.to(student, device=teacher.device, dtype=teacher.dtype)
    return student.train(teacher.training)


def _config(teacher: BertForMaskedLM) -> DistilBertConfig:
    given = teacher.config
    if given.layer_norm_eps != _EPS:
        raise ValueError(f"DistilBERT's LayerNorm has an epsilon of {_EPS}, the teacher's {given.layer_norm_eps}.")
    return DistilBertConfig(
        vocab_size=given.vocab_size,
        max_position_embeddings=given.max_position_embeddings,
        n_layers=given.num_hidden_layers,
        n_heads=given.num_attention_heads,
        dim=given.hidden_size,
        hidden_dim=given.intermediate_size,
        dropout=given.hidden_dropout_prob,
        attention_dropout=given.attention_probs_dropout_prob,
        activation=given.hidden_act,
        initializer_range=given.initializer_range,
        pad_token_id=given.pad_token_id,
        tie_word_embeddings=given.tie_word_embeddings,
    )


def _renamed(teacher: BertForMaskedLM, fold_token_types: bool) -> dict[str, Tensor]:
    """The teacher's weights under DistilBERT's names."""
    bert, head = teacher.bert, teacher.cls.predictions
    position = bert.embeddings.position_embeddings.weight.detach()
    if fold_token_types:
        position = position + bert.embeddings.token_type_embeddings.weight[0].detach()
    parts: dict[str, Tensor | nn.Module] = {
        "distilbert.embeddings.word_embeddings": bert.embeddings.word_embeddings,
        "distilbert.embeddings.position_embeddings.weight": position,
        "distilbert.embeddings.LayerNorm": bert.embeddings.LayerNorm,
        "vocab_transform": head.transform.dense,
        "vocab_layer_norm": head.transform.LayerNorm,
        "vocab_projector": head.decoder,
    }
    ours, theirs = family_of(DistilBertConfig()), family_of(teacher)
    names = ("query", "key", "value", "attention_output", "attention_norm", "ffn_in", "ffn_out", "ffn_norm")
    for number, layer in enumerate(encoder_layers(teacher)):
        for name in names:
            target = f"distilbert.{ours.layers}.{number}.{getattr(ours, name)}"
            parts[target] = layer.get_submodule(getattr(theirs, name))
    state: dict[str, Tensor] = {}
    for target, part in parts.items():
        weights = {"": part} if isinstance(part, torch.Tensor) else part.state_dict()
        state.update({f"{target}.{name}".rstrip("."): tensor for name, tensor in weights.items()})
    return state
