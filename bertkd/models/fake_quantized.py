"""Rounds weights and activations to int8's steps while a model is trained, so that it learns to bear int8."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FakeQuantizedLinear", "fake_quantized", "rounded_activations", "rounded_weight"]

# A scale has to be positive: that of a tensor of zeros.
LEAST_SCALE = 1e-12
# The steps of a weight on each side of 0; half of the range is for CPUs whose sums would overflow otherwise.
STEPS, STEPS_OF_HALF = 127, 63


class FakeQuantizedLinear(nn.Linear):
    """A linear map of rounded inputs by a rounded weight; gradients pass as if nothing had been rounded.

    The roundings are those of int8 engines (Jacob et al., arXiv 1712.05877), see `rounded_weight` and
    `rounded_activations`. They are in float32, whatever autocast does around them.
    """

    weight_steps: int = STEPS

    def forward(self, input: Tensor) -> Tensor:
        """Maps (..., in) to (..., out)."""
        with torch.autocast(input.device.type, enabled=False):
            rounded = rounded_activations(input.float())
            weight = rounded_weight(self.weight.float(), self.weight_steps)
        return F.linear(rounded, weight, self.bias)


def rounded_weight(weight: Tensor, steps: int = STEPS) -> Tensor:
    """A weight (out, in) in so many equal steps from 0 to the largest absolute value of its row."""
    scale = (weight.detach().abs().amax(1) / steps).clamp(min=LEAST_SCALE)
    zero = torch.zeros_like(scale, dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scale, zero, 0, -steps, steps)


def rounded_activations(values: Tensor) -> Tensor:
    """Activations in 255 steps from the least to the largest of them all, 0 among the steps.

    An engine's range is fixed by calibration rows; in a training each batch has its own, so that nothing has to be
    remembered, saved or shared between processes.
    """
    least, largest = values.detach().amin().clamp(max=0), values.detach().amax().clamp(min=0)
    scale = ((largest - least) / 255).clamp(min=LEAST_SCALE)
    zero = (-least / scale).round().int()
    return torch.fake_quantize_per_tensor_affine(values, scale, zero, 0, 255)


@contextmanager
def fake_quantized(model: nn.Module, has_half_range: bool = False) -> Iterator[None]:
    """Within, all linear maps of a model are `FakeQuantizedLinear`: the same parameters under the same names.

    Args:
        model: is changed in place.
        has_half_range: whether weights are rounded to half of int8's range, as exports for CPUs without instructions
            for int8 have them.
    """
    maps: list[Any] = [module for module in model.modules() if type(module) is nn.Linear]
    for module in maps:
        module.__class__ = FakeQuantizedLinear
        module.weight_steps = STEPS_OF_HALF if has_half_range else STEPS
    try:
        yield
    finally:
        for module in maps:
            del module.weight_steps
            module.__class__ = nn.Linear
