"""Makes DistilBERT's student: half of the teacher's layers, everything else copied."""

from collections.abc import Sequence

from torch import Tensor, nn
from transformers import BertConfig, BertForMaskedLM, DistilBertConfig, DistilBertForMaskedLM, PreTrainedModel

from bertkd.models import encoder_layers, family_of, refuse_factorized_or_shared
from bertkd.students import drop_layers

__all__ = ["distilbert_layers", "distilbert_student"]

# The layers that the released code takes of twelve.
_OF_TWELVE = (0, 2, 4, 7, 9, 11)
# Of the LayerNorm of `transformers.DistilBertModel`, which no config sets.
_EPSILON = 1e-12


def distilbert_layers(teacher_layers: int) -> list[int]:
    """The 0-based layers of the teacher that the student starts from: 0, 2, 4, 7, 9, 11 of twelve, as in the released
    code; otherwise every second one, the first included."""
    return list(_OF_TWELVE) if teacher_layers == 12 else list(range(0, teacher_layers, 2))


def distilbert_student(
    teacher: PreTrainedModel, keep: Sequence[int] | None = None, fold_token_types: bool = True
) -> PreTrainedModel:
    """The student for a masked language model: a `DistilBertForMaskedLM` for a BERT, else a model of the same class.

    Embeddings, their LayerNorm and the whole head for masked words are copied. DistilBERT has no token types: row 0 of
    the teacher's is added to the position embeddings, so that with all layers kept the student is the teacher on one
    sentence. A RoBERTa gives a RoBERTa with fewer layers, as DistilRoBERTa.

    Args:
        teacher: a model with a head for masked words, of a family in `bertkd.models.families`.
        keep: 0-based layers, increasing; default: `distilbert_layers`.
        fold_token_types: False leaves the token types out, as in the released code.

    Raises:
        ValueError: `keep` does not fit, the teacher has no such head, or a BERT that DistilBERT's config cannot
            express (another LayerNorm epsilon, factorized or shared layers).
    """
    refuse_factorized_or_shared(teacher, "distilbert_student")
    if teacher.get_output_embeddings() is None:
        raise ValueError(
            f"{type(teacher).__name__} has no head for masked words, which the student's is copied from: load it as "
            "AutoModelForMaskedLM, or train a head with `bertkd mlm`."
        )

    layers = distilbert_layers(teacher.config.num_hidden_layers) if keep is None else list(keep)
    shorter = drop_layers(teacher, layers)
    if not isinstance(shorter, BertForMaskedLM):
        return shorter.requires_grad_(True)

    student = DistilBertForMaskedLM(_config(shorter.config))
    student.load_state_dict(_renamed(shorter, fold_token_types))
    nn.Module.to(student, device=teacher.device, dtype=teacher.dtype)
    return student.train(teacher.training)


def _config(bert: BertConfig) -> DistilBertConfig:
    """DistilBERT's config for the sizes of a BERT."""
    if bert.layer_norm_eps != _EPSILON:
        raise ValueError(
            f"DistilBERT's LayerNorm has an epsilon of {_EPSILON}, the teacher's {bert.layer_norm_eps}: give another "
            "teacher, or make a shorter BERT with bertkd.drop_layers."
        )
    return DistilBertConfig(
        vocab_size=bert.vocab_size,
        max_position_embeddings=bert.max_position_embeddings,
        n_layers=bert.num_hidden_layers,
        n_heads=bert.num_attention_heads,
        dim=bert.hidden_size,
        hidden_dim=bert.intermediate_size,
        dropout=bert.hidden_dropout_prob,
        attention_dropout=bert.attention_probs_dropout_prob,
        activation=bert.hidden_act,
        initializer_range=bert.initializer_range,
        pad_token_id=bert.pad_token_id,
        tie_word_embeddings=bert.tie_word_embeddings,
    )


def _renamed(teacher: BertForMaskedLM, fold_token_types: bool) -> dict[str, Tensor]:
    """The teacher's weights under DistilBERT's names."""
    bert, head = teacher.bert, teacher.cls.predictions
    modules: dict[str, nn.Module] = {
        "distilbert.embeddings.word_embeddings": bert.embeddings.word_embeddings,
        "distilbert.embeddings.LayerNorm": bert.embeddings.LayerNorm,
        "vocab_transform": head.transform.dense,
        "vocab_layer_norm": head.transform.LayerNorm,
        "vocab_projector": head.decoder,
    }

    student_family, teacher_family = family_of(DistilBertConfig()), family_of(teacher)
    names = ("query", "key", "value", "attention_output", "attention_norm", "ffn_in", "ffn_out", "ffn_norm")
    for number, layer in enumerate(encoder_layers(teacher)):
        for name in names:
            target = f"distilbert.{student_family.layers}.{number}.{getattr(student_family, name)}"
            modules[target] = layer.get_submodule(getattr(teacher_family, name))

    # DistilBERT has no token types: those of a single sentence may be added to every position instead.
    position = bert.embeddings.position_embeddings.weight.detach()
    if fold_token_types:
        position = position + bert.embeddings.token_type_embeddings.weight[0].detach()

    state: dict[str, Tensor] = {"distilbert.embeddings.position_embeddings.weight": position}
    for target, module in modules.items():
        for name, tensor in module.state_dict().items():
            state[f"{target}.{name}"] = tensor
    return state
