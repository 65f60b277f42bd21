"""Finds the head of a masked language model, so that it can be run on chosen tokens only."""

from collections.abc import Callable

from torch import Tensor
from transformers import PreTrainedModel

from bertkd.models.families import PRUNED_PREFIX

__all__ = ["language_head"]


def language_head(model: PreTrainedModel) -> Callable[[Tensor], Tensor]:
    """Returns the function that a masked language model applies to its last hidden states.

    Returns:
        A function from hidden states (..., H) to logits (..., V).

    Raises:
        ValueError: the model has no head for masked words, or one that bertkd does not know.
    """
    family = model.config.model_type.removeprefix(PRUNED_PREFIX)
    parts = dict(model.named_children())

    if family == "bert" and "cls" in parts:
        return parts["cls"]

    if family in ("roberta", "xlm-roberta", "mpnet") and "lm_head" in parts:
        return parts["lm_head"]

    if family == "electra" and "generator_lm_head" in parts:
        return lambda hidden: parts["generator_lm_head"](parts["generator_predictions"](hidden))

    # DistilBERT keeps the steps of its head as four modules of the model itself.
    if family == "distilbert" and "vocab_projector" in parts:
        return lambda hidden: parts["vocab_projector"](
            parts["vocab_layer_norm"](parts["activation"](parts["vocab_transform"](hidden)))
        )

    raise ValueError(
        f"{type(model).__name__} has no head for masked words: load the model as AutoModelForMaskedLM, or train a "
        "head with `bertkd mlm`."
    )
