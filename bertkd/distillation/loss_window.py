"""Averages of the loss parts for the logs."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["LossWindow"]


class LossWindow:
    """Sums of the loss parts since the last log, kept on the device: no step waits for a value."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor | float] = {}

    def add(self, parts: dict[str, Tensor], share: Tensor | float) -> None:
        """Count parts that were computed on a `share` of an optimizer step's rows."""
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().float() * share
            self.weights[name] = self.weights.get(name, 0.0) + share

    def averages(self, accelerator: Any) -> dict[str, float]:
        """Averages over the steps of the window that had the part, and all processes; starts a new window."""
        names = sorted(self.sums)
        if not names:
            return {}
        device = self.sums[names[0]].device
        weights = [torch.as_tensor(self.weights[name], dtype=torch.float32, device=device) for name in names]
        sums = torch.stack([self.sums[name] for name in names])
        sums, weights = accelerator.reduce(torch.stack([sums, torch.stack(weights)]), reduction="sum")
        self.sums, self.weights = {}, {}
        return dict(zip(names, (sums / weights).tolist(), strict=True))
