"""Says how many tokens a text may have for a model."""

from typing import Any

from bertkd.models.families import PRUNED_PREFIX

__all__ = ["AFTER_PADDING", "max_tokens"]

# The positions of these families begin behind the number of the padding token.
AFTER_PADDING = ("roberta", "xlm-roberta", "mpnet")


def max_tokens(config: Any) -> int | None:
    """Returns how many tokens a row may have, which is less than RoBERTa's number of positions; None where unknown."""
    positions: int | None = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None

    family = str(getattr(config, "model_type", "")).removeprefix(PRUNED_PREFIX)
    if family in AFTER_PADDING:
        return positions - (config.pad_token_id or 0) - 1
    return positions
