"""Measures latency: all models interleaved in one process, with the conditions they were measured under."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["Latency", "Runner", "TorchRunner", "measure_latency", "random_inputs"]


class Runner(Protocol):
    """A classifier in the engine that runs it.

    Attributes:
        engine: its name, such as "pytorch".
        precision: what it computes in, as the engine tells.
        attention: the implementation, where there is a choice.
        device: such as "cpu".
        threads: of a CPU; None where torch's number at the time of a call counts.
        vocabulary, positions: how many there are; positions may be None.
    """

    engine: str
    precision: str
    attention: str
    device: str
    threads: int | None
    vocabulary: int
    positions: int | None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Token ids and masks (B, T) to logits (B, C); they are there when the call returns."""


class TorchRunner:
    """A module, run by PyTorch on the device where it is.

    Args:
        model: in the mode it is in; `measure_latency` puts it into eval mode meanwhile.
        autocast: computes in this dtype by autocast; None for the weights' own.
    """

    engine: str = "pytorch"
    threads: int | None = None

    def __init__(self, model: nn.Module, autocast: torch.dtype | None = None) -> None:
        self.model = model
        self.autocast = autocast
        config: Any = getattr(model, "config", None)
        weights = next(model.parameters())
        self.precision = str(autocast or weights.dtype).removeprefix("torch.")
        self.attention = str(getattr(config, "_attn_implementation", None) or "unknown")
        self._device = weights.device
        self.device = self._device.type
        self.vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        self.positions: int | None = getattr(config, "max_position_embeddings", None)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Logits (B, C), after the device has computed them."""
        given = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        with torch.inference_mode(), torch.autocast(self.device, self.autocast) if self.autocast else nullcontext():
            logits: Tensor = self.model(**given).logits
        if self.device == "cuda":
            torch.cuda.synchronize(self._device)
        return logits


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in ms (median and 95th percentile), and what it was measured under.

    `throughput` is in rows per second at the median; `speedup` is the first model's median over this one's;
    `precision` and `attention` are what the model really used; every row has all its tokens (`padding`).
    """

    p50_ms: float
    p95_ms: float
    throughput: float
    speedup: float
    batch_size: int
    sequence_length: int
    repeats: int
    threads: int
    device: str
    engine: str
    precision: str
    attention: str
    padding: str = "none"


def measure_latency(
    models: Mapping[str, nn.Module | Runner],
    batch_size: int = 1,
    sequence_length: int = 128,
    repeats: int = 20,
    warmup: int = 3,
    threads: int | None = None,
) -> dict[str, Latency]:
    """Wall time of forward passes in eval mode, all models interleaved (A B C A B C ...) in this process.

    Interleaving lets a disturbance of the machine hit all models alike. The ids are random, without padding. Modes and
    the number of threads are what they were afterwards.

    Args:
        models: by name; the first is the baseline of `speedup`. A module stays on its device; another engine's model
            is a `Runner`.
        sequence_length: tokens per row.
        repeats: measured passes per model, after `warmup` passes that are not counted.
        threads: CPU threads of torch; as they are when None. Other engines were given theirs when they were opened.

    Raises:
        ValueError: no model, no repeat, or a sequence longer than a model's positions.
    """
    if not models or repeats < 1:
        raise ValueError(f"measuring needs at least one model and one repeat, got {len(models)} and {repeats}")
    runners: dict[str, Runner] = {
        name: TorchRunner(model) if isinstance(model, nn.Module) else model for name, model in models.items()
    }
    inputs = {name: random_inputs(name, runner, batch_size, sequence_length) for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    before = torch.get_num_threads()
    modules = [runner.model for runner in runners.values() if isinstance(runner, TorchRunner)]
    modes = [module.training for module in modules]
    try:
        torch.set_num_threads(threads or before)
        for module in modules:
            module.eval()
        for step in range(warmup + repeats):
            for name, runner in runners.items():
                start = time.perf_counter()
                runner(inputs[name])
                if step >= warmup:
                    seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(before)
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
    baseline = float(np.median(next(iter(seconds.values()))))
    return {
        name: Latency(
            p50_ms=1000 * float(np.median(times)),
            p95_ms=1000 * float(np.percentile(times, 95)),
            throughput=batch_size / float(np.median(times)),
            speedup=baseline / float(np.median(times)),
            batch_size=batch_size,
            sequence_length=sequence_length,
            repeats=repeats,
            threads=runners[name].threads or threads or before,
            device=runners[name].device,
            engine=runners[name].engine,
            precision=runners[name].precision,
            attention=runners[name].attention,
        )
        for name, times in seconds.items()
    }


def random_inputs(name: str, runner: Runner, batch_size: int, sequence_length: int) -> dict[str, Tensor]:
    if runner.positions is not None and sequence_length > runner.positions:
        raise ValueError(
            f"sequence_length is {sequence_length}, but {name} has {runner.positions} positions; give a shorter one"
        )
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(runner.vocabulary, (batch_size, sequence_length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
