"""Looks into tiny models: their outputs, feed-forward maps and word embeddings, and their compressed variants."""

from typing import Any

import torch
from helpers import PAD, VOCABULARY
from torch import Tensor
from transformers import (
    PreTrainedModel,
)

from bertkd.models import (
    encoder_layers,
    family_of,
)
from bertkd.students import factorize, prune, share_layers


def batch_of(family: str = "bert") -> dict[str, Tensor]:
    """Rows of random tokens, the last one padded."""
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[-1, 5:], mask[-1, 5:] = PAD[family], 0
    return {"input_ids": ids, "attention_mask": mask}


def outputs_of(model: PreTrainedModel, family: str = "bert") -> Tensor:
    with torch.no_grad():
        return model(**batch_of(family))[0]


def assert_equal_outputs(model: PreTrainedModel, expected: PreTrainedModel, family: str = "bert") -> None:
    torch.testing.assert_close(outputs_of(model, family), outputs_of(expected, family), rtol=0, atol=1e-5)


def maps_of(model: PreTrainedModel, layer: int) -> tuple[Any, Any]:
    """The two feed-forward maps of a layer."""
    family, module = family_of(model), encoder_layers(model)[layer]
    return module.get_submodule(family.ffn_in), module.get_submodule(family.ffn_out)


def table_of(model: PreTrainedModel) -> Any:
    return model.base_model.get_submodule(family_of(model).word_embeddings)


COMBINATIONS: dict[str, Any] = {
    "ffn": lambda model: factorize(model, ffn_rank=4),
    "embeddings": lambda model: factorize(model, embedding_rank=3),
    "shared": lambda model: share_layers(model, 2, "mean"),
    "all": lambda model: factorize(share_layers(model, [0, 1, 0, 1]), 4, 3),
    "the other way": lambda model: share_layers(factorize(model, 4, 3), 2),
    "pruned, then all": lambda model: share_layers(
        factorize(prune(model, [1, 1, 2, 2], [9, 9, 20, 20]), ffn_rank=3, embedding_rank=3), 2
    ),
    "all, then pruned": lambda model: prune(share_layers(factorize(model, 4, 3), 2), [1, 1, 0, 0], [9, 9, 20, 20]),
    "skipped, then factorized": lambda model: factorize(prune(model, [1, 2, 0, 2], [9, 0, 20, 24]), ffn_rank=3),
}
