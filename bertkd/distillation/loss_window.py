"""Averages the parts of the loss for the logs, and remembers where one was not finite."""

from collections.abc import Mapping
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

__all__ = ["FirstStep", "LossWindow"]


class FirstStep:
    """Remembers, on the device, the first step in which a value was NaN or infinite."""

    def __init__(self) -> None:
        self._step: Tensor | None = None

    def watch(self, value: Tensor, step: int) -> None:
        """Look at the scalar of a step; nothing waits for it."""
        if self._step is None or self._step.device != value.device:
            self._step = torch.zeros((), dtype=torch.int64, device=value.device)
        is_new = (self._step == 0) & ~value.detach().isfinite()
        self._step = torch.where(is_new, step, self._step)

    def read(self) -> int | None:
        """The step, counted from 1; None where all values were finite. This waits for the device."""
        return None if self._step is None else int(self._step) or None


class LossWindow:
    """Sums the parts of the loss since the last log, on the device, so that no step waits for a value."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.weights: dict[str, Tensor | float] = {}
        self._first_steps: dict[str, FirstStep] = {}

    def add(self, parts: dict[str, Tensor], share: Tensor | float, step: int = 0) -> None:
        """Count parts that were computed on a `share` of an optimizer step's rows."""
        for name, part in parts.items():
            self.sums[name] = self.sums.get(name, 0.0) + part.detach().float() * share
            self.weights[name] = self.weights.get(name, 0.0) + share
            self._first_steps.setdefault(name, FirstStep()).watch(part, step)

    def first_bad(self) -> tuple[int, list[str]]:
        """The first step in which this process had a part that is not finite, and those parts; 0 for none."""
        steps: dict[int, list[str]] = {}
        for name, first_step in self._first_steps.items():
            step = first_step.read()
            if step is not None:
                steps.setdefault(step, []).append(name)
        first = min(steps, default=0)
        return first, steps.get(first, [])

    def totals(self) -> dict[str, float]:
        """The sums so far, in this process; the window goes on."""
        if not self.sums:
            return {}
        return dict(zip(self.sums, torch.stack(list(self.sums.values())).tolist(), strict=True))

    def averages(self, accelerator: Any) -> dict[str, float]:
        """Averages over the steps of the window that had the part, and all processes."""
        # All processes add up the same parts in the same order, also those that a process did not have.
        names = sorted(set(gather_object(list(self.sums))))
        if not names:
            return {}

        def ordered(values: Mapping[str, Tensor | float]) -> Tensor:
            kind = {"dtype": torch.float32, "device": accelerator.device}
            return torch.stack([torch.as_tensor(values.get(name, 0.0), **kind) for name in names])

        totals = torch.stack([ordered(self.sums), ordered(self.weights)])
        sum_of_all, weight_of_all = accelerator.reduce(totals, reduction="sum")
        return dict(zip(names, (sum_of_all / weight_of_all).tolist(), strict=True))
