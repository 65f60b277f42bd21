"""The head for masked words of a stock model, to run where it is needed only."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from bertkd.models.families import PRUNED_PREFIX

__all__ = ["language_head"]


def language_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """What a masked language model does with its last hidden states: (..., H) to logits (..., V).

    Raises:
        ValueError: the model has no such head, or one that is not known here.
    """
    kind, parts = model.config.model_type.removeprefix(PRUNED_PREFIX), dict(model.named_children())
    if kind == "bert" and "cls" in parts:
        return parts["cls"]
    if kind in ("roberta", "xlm-roberta") and "lm_head" in parts:
        return parts["lm_head"]
    if kind == "electra" and "generator_lm_head" in parts:
        return lambda hidden: parts["generator_lm_head"](parts["generator_predictions"](hidden))
    if kind == "distilbert" and "vocab_projector" in parts:
        return lambda hidden: parts["vocab_projector"](
            parts["vocab_layer_norm"](parts["activation"](parts["vocab_transform"](hidden)))
        )
    raise ValueError(
        f"{type(model).__name__} has no head for masked words: load the model as AutoModelForMaskedLM, or train a "
        "head with recipes/train_mlm.py."
    )
