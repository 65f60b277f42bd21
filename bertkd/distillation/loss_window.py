"""Averages of the loss parts for the logs."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["LossWindow"]


class LossWindow:
    """Sums of the loss parts since the last log, kept on the device: no step waits for a value."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weight: Tensor | float = 0.0

    def add(self, parts: dict[str, Tensor], share: Tensor | float) -> None:
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().float() * share
        self.weight = self.weight + share

    def averages(self, accelerator: Any) -> dict[str, float]:
        """Averages over the window and all processes; starts a new window."""
        names = sorted(self.sums)
        if not names:
            return {}
        device = self.sums[names[0]].device
        weight = torch.as_tensor(self.weight, dtype=torch.float32, device=device)
        totals = accelerator.reduce(torch.stack([*(self.sums[name] for name in names), weight]), reduction="sum")
        *sums, weight = totals.tolist()
        self.sums, self.weight = {}, 0.0
        return {name: value / weight for name, value in zip(names, sums, strict=True)}
