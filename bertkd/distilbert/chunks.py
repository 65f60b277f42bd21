"""Computes losses on predictions over the vocabulary while only some tokens' predictions are in memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["chunked"]

# Takes the states of some tokens and which tokens these are; gives the named parts of the loss, summed over them.
PartsOf = Callable[[Tensor, slice], Tensor]


class _Chunked(torch.autograd.Function):
    """Sums parts over chunks and takes the gradient of their total chunk by chunk, in the forward pass.

    What a chunk needs for its gradient is gone when the next begins; nothing is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, parts_of: PartsOf, size: int, states: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        device = states.device.type
        dtype, is_autocast = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        # A GradScaler comes too late for gradients that are taken here, and vanish in half precision.
        scale = 2.0**16 if is_autocast and dtype == torch.float16 else 1.0

        # Gradients are added up in float32, whatever the weights are.
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        states_gradient = torch.zeros_like(states, dtype=torch.float32)
        trained_gradients = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        sums = []

        for rows in _slices(len(states), size):
            while True:
                chunk = states[rows].detach().requires_grad_(True)
                # Autocast would keep one cast copy of the weights for all chunks, whose graph the first one frees.
                with torch.enable_grad(), torch.autocast(device, dtype, is_autocast, cache_enabled=False):
                    parts = parts_of(chunk, rows)
                    gradients = torch.autograd.grad(parts.sum() * scale, [chunk, *trained], allow_unused=True)

                # Nor can a GradScaler take back what has overflowed here: the chunk is computed again.
                if scale == 1.0 or all(gradient is None or gradient.isfinite().all() for gradient in gradients):
                    break
                scale /= 16

            sums.append(parts.detach())
            for total, gradient in zip([states_gradient[rows], *trained_gradients], gradients, strict=True):
                if gradient is not None:
                    total += gradient.float() / scale

        ctx.save_for_backward(states_gradient, *trained_gradients)
        ctx.states_dtype = states.dtype
        ctx.parameters = [(parameter.dtype, parameter.requires_grad) for parameter in parameters]
        summed = torch.stack(sums).sum(0)
        ctx.mark_non_differentiable(summed)
        return summed.sum(), summed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        states_gradient, *trained_gradients = ctx.saved_tensors
        factor = upstream[0]

        remaining = iter(trained_gradients)
        gradients: list[Tensor | None] = []
        for dtype, is_trained in ctx.parameters:
            gradients.append((next(remaining) * factor).to(dtype) if is_trained else None)

        # None for `parts_of` and `size`, which have no gradient.
        return None, None, (states_gradient * factor).to(ctx.states_dtype), *gradients


def _slices(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` tokens; at least one, which may be empty."""
    for start in range(0, max(count, 1), size):
        yield slice(start, start + size)


def chunked(parts_of: PartsOf, states: Tensor, parameters: Sequence[Tensor], size: int) -> Tensor:
    """Sums of the parts over all tokens, (P,): the same as `parts_of(states, slice(None))`, with less memory.

    The gradient is that of their total: it is right as long as all parts enter the loss with the same factor, and so
    their weights belong into `parts_of`.

    Args:
        parts_of: takes the states (n, H) of some tokens and which these are, gives the parts (P,) summed over them.
        states: (N, H).
        parameters: the parameters that `parts_of` uses.
        size: tokens at a time.
    """
    is_trained = states.requires_grad or any(parameter.requires_grad for parameter in parameters)
    if not (torch.is_grad_enabled() and is_trained):
        return torch.stack([parts_of(states[rows], rows) for rows in _slices(len(states), size)]).sum(0)

    total, parts = _Chunked.apply(parts_of, size, states, *parameters)
    # The values of the parts, and the gradient of their total on the first.
    selector = torch.zeros_like(parts)
    selector[0] = 1.0
    return parts + selector * (total - total.detach())
