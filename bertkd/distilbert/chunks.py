"""Losses on predictions over the vocabulary, of which only some tokens' are in memory at a time."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["chunked"]

# Of some tokens' states and their numbers: the named parts of the loss, sums over these tokens.
PartsOf = Callable[[Tensor, slice], Tensor]


class _Chunked(torch.autograd.Function):
    """Sums parts over chunks and takes the gradient of their total chunk by chunk, in the forward pass.

    What a chunk needs for its gradient is gone when the next begins; nothing is computed twice.
    """

    @staticmethod
    def forward(ctx: Any, parts_of: PartsOf, size: int, states: Tensor, *parameters: Tensor) -> tuple[Tensor, Tensor]:
        wanted = [states, *parameters]
        gradients = [torch.zeros_like(tensor) for tensor in wanted]
        kind, sums = states.device.type, []
        for start in range(0, max(len(states), 1), size):
            rows = slice(start, start + size)
            piece = states[rows].detach().requires_grad_(True)
            # Autocast would keep one cast copy of the weights for all chunks, whose graph the first one frees.
            with (
                torch.enable_grad(),
                torch.autocast(
                    kind,
                    dtype=torch.get_autocast_dtype(kind),
                    enabled=torch.is_autocast_enabled(kind),
                    cache_enabled=False,
                ),
            ):
                parts = parts_of(piece, rows)
                total = parts.sum()
            sums.append(parts.detach())
            if not ctx.needs_input_grad[2]:
                continue
            found = torch.autograd.grad(total, [piece, *parameters], allow_unused=True)
            gradients[0][rows] = found[0]
            for gradient, own in zip(gradients[1:], found[1:], strict=True):
                if own is not None:
                    gradient += own
        ctx.save_for_backward(*gradients)
        summed = torch.stack(sums).sum(0)
        ctx.mark_non_differentiable(summed)
        return summed.sum(), summed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        return None, None, *(gradient * upstream[0] for gradient in ctx.saved_tensors)


def chunked(parts_of: PartsOf, states: Tensor, parameters: Sequence[Tensor], size: int) -> Tensor:
    """Sums of the parts over all tokens, (P,), as `parts_of(states, slice(None))`, with less memory.

    The gradient is that of their total: it is right as long as all parts enter the loss with the same factor, and so
    their weights belong into `parts_of`.

    Args:
        parts_of: takes the states (n, H) of some tokens and which these are, gives the parts (P,) summed over them.
        states: (N, H).
        parameters: what `parts_of` uses and is to be trained.
        size: tokens at a time.
    """
    if not torch.is_grad_enabled():
        starts = range(0, max(len(states), 1), size)
        pieces = [parts_of(states[start : start + size], slice(start, start + size)) for start in starts]
        return torch.stack(pieces).sum(0)
    total, parts = _Chunked.apply(parts_of, size, states, *parameters)
    # The values of the parts, and the gradient of their total on the first.
    gradient = torch.zeros_like(parts)
    gradient[0] = 1.0
    return parts + gradient * (total - total.detach())
