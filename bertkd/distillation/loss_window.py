"""Averages the parts of the loss for the logs."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["LossWindow"]


class LossWindow:
    """Sums the parts of the loss since the last log, on the device, so that no step waits for a value."""

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
        # Sorted, so that all processes add up the same parts.
        names = sorted(self.sums)
        if not names:
            return {}

        sums, weights = [], []
        for name in names:
            sums.append(self.sums[name])
            weights.append(torch.as_tensor(self.weights[name], dtype=torch.float32, device=self.sums[name].device))

        totals = torch.stack([torch.stack(sums), torch.stack(weights)])
        sum_of_all, weight_of_all = accelerator.reduce(totals, reduction="sum")
        self.sums, self.weights = {}, {}
        return dict(zip(names, (sum_of_all / weight_of_all).tolist(), strict=True))
