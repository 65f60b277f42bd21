"""Captures the attention scores of stock models, before the softmax."""

import contextlib
import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.models.families import encoder_layers, family_of
from bertkd.models.pruned import BiasedAttention, NoAttention

__all__ = ["CapturedScores", "attention_scores"]


class CapturedScores:
    """The queries, keys and mask of a forward pass that `attention_scores` keeps, for each layer asked for."""

    def __init__(self, layers: Sequence[int]) -> None:
        self._layers = list(layers)
        self._queries: dict[int, Tensor] = {}
        self._keys: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor | None] = {}
        self._biases: dict[int, Tensor | None] = {}
        self._modules: dict[int, Any] = {}

    @property
    def scores(self) -> list[Tensor]:
        """The scores `Q Kᵀ / sqrt(d)` plus the mask, (B, heads, T, T) for each layer asked for, in that order.

        MPNet's position biases are part of its scores.

        A masked key has the lowest number of the dtype (some -3.4e38 in float32). Gradients flow into the model.
        After several forward passes, these are the scores of the last one.

        Raises:
            RuntimeError: the model was not run inside the `with` block, or a layer was left out of the pass.
        """
        self._check_that_all_ran()
        return [self._masked_scores(layer) for layer in self._layers]

    @property
    def factors(self) -> list[tuple[Tensor, Tensor]]:
        """Pairs (Q / sqrt(d), K), each (B, heads, T, d): the scores without the mask are their product `Q @ K.mT`.

        Raises:
            RuntimeError: the model was not run inside the `with` block, a layer was left out of the pass, or scores
                have position biases, which no factors express.
        """
        self._check_that_all_ran()
        if self.have_position_biases:
            raise RuntimeError("The scores have position biases, which no factors express: take `scores`.")

        pairs = []
        for layer in self._layers:
            query, key = self._by_head(layer)
            pairs.append((query * (1 / math.sqrt(query.shape[-1])), key))
        return pairs

    @property
    def have_position_biases(self) -> bool:
        """Whether the model adds a bias for the distance of two tokens to their score, as MPNet does."""
        return any(bias is not None for bias in self._biases.values())

    @property
    def layers(self) -> list[int]:
        """The layers asked for, counted from 0."""
        return list(self._layers)

    @property
    def layers_without_gradient(self) -> list[int]:
        """The layers, counted from 0, that a loss on their scores would not train."""
        return [
            layer
            for layer in self._layers
            if not (self._queries[layer].requires_grad or self._keys[layer].requires_grad)
        ]

    def _check_that_all_ran(self) -> None:
        missing = [layer for layer in self._layers if layer not in self._keys]
        if missing:
            raise RuntimeError(
                f"Layers {', '.join(map(str, missing))} did not run: call the model inside the block of "
                "`with attention_scores(...)`, in the same thread."
            )

    def _by_head(self, layer: int) -> tuple[Tensor, Tensor]:
        """Splits the queries and keys of a layer, (B, T, heads * d), into (B, heads, T, d)."""
        size = self._modules[layer].attention_head_size
        query = self._queries[layer].unflatten(-1, (-1, size)).transpose(1, 2)
        key = self._keys[layer].unflatten(-1, (-1, size)).transpose(1, 2)
        return query, key

    def _masked_scores(self, layer: int) -> Tensor:
        # This is not done in a hook: a tensor computed inside a checkpointed layer would be missing when that layer
        # is recomputed for the backward pass.
        query, key = self._by_head(layer)
        scores = query @ key.transpose(-1, -2) * (1 / math.sqrt(query.shape[-1]))
        lowest = torch.finfo(scores.dtype).min

        bias, attention = self._biases[layer], self._modules[layer]
        if bias is not None:
            # Layers with a table of their own get the rows of it.
            own_bias = attention.bias(bias) if isinstance(attention, BiasedAttention) else bias
            scores = scores + own_bias[:, : scores.shape[1]]

        mask = self._masks[layer]
        if mask is None:
            return scores

        if not isinstance(mask, Tensor):
            raise ValueError("Flex attention has no mask that scores can be masked with: load the model with sdpa.")
        # Flash attention gets the (B, T) mask of the tokens.
        if mask.dim() == 2:
            mask = mask[:, None, None, :].bool()
        # SDPA gets a boolean mask, in which True may be attended to.
        if mask.dtype == torch.bool:
            return scores.masked_fill(~mask, lowest)
        # Eager attention gets numbers to add. Their sum with a score could be less than the dtype has.
        return (scores + mask).clamp(min=lowest)


@contextlib.contextmanager
def attention_scores(model: PreTrainedModel, layers: Sequence[int] | None = None) -> Iterator[CapturedScores]:
    """Keeps the attention scores of the forward passes inside the block, as TinyBERT compares them.

        with attention_scores(model) as captured:
            outputs = model(**inputs)
        captured.scores  # a list of (B, heads, T, T)

    The model runs as it is, with whatever attention it has (sdpa, eager, ...): only queries and keys are kept, by
    hooks on their projections, and the scores are computed from them when they are asked for. `output_attentions`
    gives something else, the probabilities after softmax and dropout, and under sdpa nothing at all. Nothing is
    registered or switched, other threads that run the same model meanwhile are not seen, and after the block no hook
    is left.

    Args:
        model: a model of a family in `bertkd.models.families`; pruned and adaptive ones are welcome. Give the model
            inside a wrapper (DDP), not the wrapper.
        layers: the layers, counted from 0; all of them by default.

    Raises:
        ValueError: a layer does not exist or its attention was pruned away, or the `model_type` is not supported.
    """
    family, modules = family_of(model), list(encoder_layers(model).children())
    wanted = list(range(len(modules)) if layers is None else layers)

    outside = [layer for layer in wanted if not 0 <= layer < len(modules)]
    if outside:
        raise ValueError(f"The model has layers 0 to {len(modules) - 1}, not {', '.join(map(str, outside))}.")

    captured, thread, hooks = CapturedScores(wanted), threading.get_ident(), []
    for index in wanted:
        attention = modules[index].get_submodule(family.attention)
        if isinstance(attention, NoAttention):
            raise ValueError(f"Layer {index} has no attention, and so no scores: it was pruned away.")
        captured._modules[index] = attention

        query, key = modules[index].get_submodule(family.query), modules[index].get_submodule(family.key)
        hooks.append(query.register_forward_hook(_keep_output(captured._queries, index, thread)))
        hooks.append(key.register_forward_hook(_keep_output(captured._keys, index, thread)))
        # The mask comes second, and MPNet's biases third.
        for name, place, kept in (("attention_mask", 1, captured._masks), ("position_bias", 2, captured._biases)):
            hook = _keep_argument(name, place, kept, index, thread)
            hooks.append(attention.register_forward_pre_hook(hook, with_kwargs=True))

    try:
        yield captured
    finally:
        for hook in hooks:
            hook.remove()


def _keep_output(outputs: dict[int, Tensor], index: int, thread: int) -> Any:
    """Makes a hook that puts the output of a module into `outputs`, if it runs in that thread."""

    def hook(_module: nn.Module, _args: Any, output: Tensor) -> None:
        if threading.get_ident() == thread:
            outputs[index] = output

    return hook


def _keep_argument(name: str, place: int, kept: dict[int, Tensor | None], index: int, thread: int) -> Any:
    """Makes a hook that puts an argument of an attention into `kept`, if the attention runs in that thread."""

    def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != thread:
            return

        # A layer may pass the argument by name or in its place, or leave it out.
        if name in kwargs:
            kept[index] = kwargs[name]
        else:
            kept[index] = args[place] if len(args) > place else None

    return hook
