"""Finds weights that are no numbers."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

__all__ = ["infinite_weights", "plain_tensors"]


def plain_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yields the floating-point parameters and buffers that lie whole in this process, by name.

    The tensors of quantized and sharded models have classes of their own, without the functions that are needed here.
    """
    for members in (model.named_parameters(), model.named_buffers()):
        for name, tensor in members:
            is_plain = type(tensor) in (Tensor, nn.Parameter) and tensor.device.type != "meta"
            if is_plain and tensor.is_floating_point() and tensor.numel():
                yield name, tensor


def infinite_weights(model: nn.Module) -> list[str]:
    """Names the parameters and buffers of a model that hold NaN or infinite numbers."""
    sums = []
    for _, tensor in plain_tensors(model):
        # A sum is finite only if every number is, and needs no memory. Sums of half precision would overflow, and not
        # every device knows double precision.
        sums.append(tensor.detach().sum(dtype=torch.float32 if tensor.itemsize < 4 else None).cpu().double())
    if not sums or torch.stack(sums).isfinite().all():
        return []

    # A sum may also overflow, and so each tensor is looked at.
    return [name for name, tensor in plain_tensors(model) if not tensor.isfinite().all()]
