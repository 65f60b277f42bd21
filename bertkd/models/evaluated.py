"""Runs a model for its answers alone."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel

__all__ = ["eval_mode", "evaluated", "float32_copy", "has_flash_attention", "in_own_precision"]

# What mixed precision of accelerate leaves on a model that a Trainer has trained or evaluated.
_WRAPPED, _ORIGINAL = "forward", "_original_forward"


@contextmanager
def in_own_precision(*models: nn.Module) -> Iterator[None]:
    """Within, models compute in the dtype of their weights; afterwards they are as they were.

    A Trainer with `bf16` or `fp16` wraps the forward pass of its model for good, so that the model goes on in mixed
    precision wherever it is used later, and its dtype does not say so.
    """
    taken: list[dict[str, Any]] = []
    try:
        for model in models:
            is_wrapped = _ORIGINAL in vars(model)
            names = [name for name in (_WRAPPED, _ORIGINAL) if is_wrapped and name in vars(model)]
            taken.append({name: vars(model).pop(name) for name in names})
        yield
    finally:
        for model, attributes in zip(models, taken, strict=False):
            vars(model).update(attributes)


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Within, modules are in eval mode; afterwards each of their parts is in the mode it was in."""
    modes = {part: part.training for module in modules for part in module.modules()}
    try:
        for module in modules:
            module.eval()
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def evaluated(*models: nn.Module) -> Iterator[None]:
    """Within, models are in eval mode and their parameters get no gradients; afterwards they are as they were.

    They compute in the dtype of their weights (`in_own_precision`). Gradients towards other tensors are computed.
    """
    trainable = [parameter for model in models for parameter in model.parameters() if parameter.requires_grad]
    try:
        for parameter in trainable:
            parameter.requires_grad_(False)
        with eval_mode(*models), torch.enable_grad(), in_own_precision(*models):
            yield
    finally:
        for parameter in trainable:
            parameter.requires_grad_(True)


def has_flash_attention(model: PreTrainedModel) -> bool:
    """Whether the attention of a model runs by a kernel that knows half precision alone."""
    return "flash" in str(model.config._attn_implementation)


def float32_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of a model that computes in float32, by PyTorch's attention where its own cannot."""
    copied = copy.deepcopy(model).float()
    if has_flash_attention(copied):
        copied.set_attn_implementation("sdpa")
    return copied
