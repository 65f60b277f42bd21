"""Losses on predictions over the vocabulary, of which only some tokens' are in memory at a time."""

from collections.abc import Callable, Iterator, Sequence
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
        kind, sums = states.device.type, []
        dtype, is_autocast = torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)
        # A GradScaler comes too late for gradients that are taken here, and vanish in half precision.
        scale = 2.0**16 if is_autocast and dtype == torch.float16 else 1.0
        of_states = torch.zeros_like(states, dtype=torch.float32)
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        of_trained = [torch.zeros_like(parameter, dtype=torch.float32) for parameter in trained]
        for rows in _pieces(len(states), size):
            while True:
                piece = states[rows].detach().requires_grad_(True)
                # Autocast would keep one cast copy of the weights for all chunks, whose graph the first one frees.
                with torch.enable_grad(), torch.autocast(kind, dtype, is_autocast, cache_enabled=False):
                    parts = parts_of(piece, rows)
                    found = torch.autograd.grad(parts.sum() * scale, [piece, *trained], allow_unused=True)
                # Nor can it take back what has overflowed here.
                if scale == 1.0 or all(one.isfinite().all() for one in found if one is not None):
                    break
                scale /= 16
            sums.append(parts.detach())
            for total, own in zip([of_states[rows], *of_trained], found, strict=True):
                if own is not None:
                    total += own.float() / scale
        ctx.save_for_backward(of_states, *of_trained)
        ctx.wanted = [(tensor.dtype, tensor.requires_grad) for tensor in (states, *parameters)]
        summed = torch.stack(sums).sum(0)
        ctx.mark_non_differentiable(summed)
        return summed.sum(), summed

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        of_states, *of_trained = ctx.saved_tensors
        found = iter(of_trained)
        (dtype, _), *parameters = ctx.wanted
        of_parameters = [(next(found) * upstream[0]).to(kind) if needed else None for kind, needed in parameters]
        return None, None, (of_states * upstream[0]).to(dtype), *of_parameters


def _pieces(count: int, size: int) -> Iterator[slice]:
    """At least one, which may be empty."""
    for start in range(0, max(count, 1), size):
        yield slice(start, start + size)


def chunked(parts_of: PartsOf, states: Tensor, parameters: Sequence[Tensor], size: int) -> Tensor:
    """Sums of the parts over all tokens, (P,), as `parts_of(states, slice(None))`, with less memory.

    The gradient is that of their total: it is right as long as all parts enter the loss with the same factor, and so
    their weights belong into `parts_of`.

    Args:
        parts_of: takes the states (n, H) of some tokens and which these are, gives the parts (P,) summed over them.
        states: (N, H).
        parameters: what `parts_of` uses.
        size: tokens at a time.
    """
    is_trained = states.requires_grad or any(parameter.requires_grad for parameter in parameters)
    if not (torch.is_grad_enabled() and is_trained):
        return torch.stack([parts_of(states[rows], rows) for rows in _pieces(len(states), size)]).sum(0)
    total, parts = _Chunked.apply(parts_of, size, states, *parameters)
    # The values of the parts, and the gradient of their total on the first.
    gradient = torch.zeros_like(parts)
    gradient[0] = 1.0
    return parts + gradient * (total - total.detach())
