"""Attention scores of stock models, before the softmax."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.models.families import encoder_layers, family_of
from bertkd.models.pruned import NoAttention

__all__ = ["CapturedScores", "attention_scores"]


class CapturedScores:
    """What `attention_scores` keeps of a forward pass: queries, keys and mask of each layer that was asked for."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = list(layers)
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor | None] = {}
        self._modules: dict[int, Any] = {}

    @property
    def scores(self) -> list[Tensor]:
        """`Q Kᵀ / sqrt(d)` plus the mask, (B, heads, T, T) for each layer that was asked for, in that order.

        A key that is masked has the lowest number of the dtype (some -3.4e38 in float32). Gradients flow into the
        model. Of several forward passes it is the last one's.

        Raises:
            RuntimeError: the model was not run inside the `with` block, or a layer was left out of the pass.
        """
        self._check_that_all_ran()
        return [self._scores(layer) for layer in self._layers]

    @property
    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs (Q / sqrt(d), K), each (B, heads, T, d): the scores without the mask are their product `Q @ K.mT`.

        Raises:
            RuntimeError: as `scores`.
        """
        self._check_that_all_ran()
        pairs = [self._by_head(layer) for layer in self._layers]
        return [(query * (1 / math.sqrt(query.shape[-1])), key) for query, key in pairs]

    def _check_that_all_ran(self) -> None:
        missing = [layer for layer in self._layers if layer not in self._keys]
        if missing:
            raise RuntimeError(
                f"Layers {', '.join(map(str, missing))} did not run: call the model inside the block of "
                "`with attention_scores(...)`, in the same thread."
            )

    def _by_head(self, layer: int) -> tuple[Tensor, Tensor]:
        size = self._modules[layer].attention_head_size
        query, key = (of[layer].unflatten(-1, (-1, size)).transpose(1, 2) for of in (self._queries, self._keys))
        return query, key

    def _scores(self, layer: int) -> Tensor:
        # Not in a hook: what it computed inside a checkpointed layer would be missing when that is recomputed.
        (query, key), mask = self._by_head(layer), self._masks[layer]
        scores = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]))
        if mask is None:
            return scores
        if mask.dim() == 2:  # (B, T), as flash attention gets it
            mask = mask[:, None, None, :].bool()
        if mask.dtype == torch.bool:  # sdpa: True may be attended to
            return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return (scores + mask).clamp(min=torch.finfo(scores.dtype).min)


@contextlib.contextmanager
def attention_scores(model: PreTrainedModel, layers: Sequence[int] | None = None) -> Iterator[CapturedScores]:
    """Keep the attention scores of the forward passes inside the block, as TinyBERT compares them.

        with attention_scores(model) as captured:
            outputs = model(**inputs)
        captured.scores  # a list of (B, heads, T, T)

    The model runs as it is, with whatever attention it has (sdpa, eager, ...): only queries and keys are kept, by
    hooks on their projections, and the scores are computed from them when they are asked for. `output_attentions`
    gives something else, the probabilities after softmax and dropout, and under sdpa nothing at all. Nothing is
    registered or switched, other threads that run the same model meanwhile are not seen, and after the block no hook
    is left.

    Args:
        model: of a family in `bertkd.models.families`, pruned and adaptive ones included. Of a wrapped one (DDP), the
            model inside.
        layers: 0-based; all of them by default.

    Raises:
        ValueError: a layer that the model does not have or whose attention was pruned away, or an unsupported
            `model_type`.
    """
    family, modules = family_of(model), list(encoder_layers(model).children())
    wanted = list(range(len(modules)) if layers is None else layers)
    if outside := [layer for layer in wanted if not 0 <= layer < len(modules)]:
        raise ValueError(f"The model has layers 0 to {len(modules) - 1}, not {', '.join(map(str, outside))}.")
    captured, owner, hooks = CapturedScores(wanted), threading.get_ident(), []
    for index in wanted:
        attention = modules[index].get_submodule(family.attention)
        if isinstance(attention, NoAttention):
            raise ValueError(f"Layer {index} has no attention, and so no scores: it was pruned away.")
        captured._modules[index] = attention
        query, key = modules[index].get_submodule(family.query), modules[index].get_submodule(family.key)
        hooks.append(query.register_forward_hook(_keep_output(captured._queries, index, owner)))
        hooks.append(key.register_forward_hook(_keep_output(captured._keys, index, owner)))
        hooks.append(attention.register_forward_pre_hook(_keep_mask(captured._masks, index, owner), with_kwargs=True))
    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _keep_output(kept: dict[int, Tensor], index: int, owner: int) -> Any:
    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        if threading.get_ident() == owner:
            kept[index] = output

    return hook


def _keep_mask(kept: dict[int, Tensor | None], index: int, owner: int) -> Any:
    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() == owner:
            kept[index] = kwargs["attention_mask"] if "attention_mask" in kwargs else (*args, None)[1]

    return hook
