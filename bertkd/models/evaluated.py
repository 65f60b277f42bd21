"""Runs a model for its answers alone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["evaluated"]


@contextmanager
def evaluated(*models: nn.Module) -> Iterator[None]:
    """Within, models are in eval mode and their parameters get no gradients; afterwards they are as they were.

    Gradients towards other tensors are computed.
    """
    modes = [model.training for model in models]
    trainable = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    try:
        for model in models:
            model.eval()
        for parameter in trainable:
            parameter.requires_grad_(False)
        with torch.enable_grad():
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)
        for model, mode in zip(models, modes, strict=True):
            model.train(mode)
