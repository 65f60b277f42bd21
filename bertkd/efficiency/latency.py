"""Measures latency: all models interleaved in one process, with the conditions they were measured under."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from bertkd.efficiency.runners import Runner, TorchRunner, random_inputs
from bertkd.models.evaluated import eval_mode

__all__ = ["Latency", "check_device", "measure_latency"]


def check_device(name: str) -> None:
    """Checks that PyTorch can run on a device here.

    Args:
        name: such as "cpu", "cuda" or "cuda:1".

    Raises:
        ValueError: there is no such device.
    """
    try:
        # A device that holds no numbers, "meta", gives none back.
        torch.zeros(1, device=name).item()
    except (RuntimeError, AssertionError):
        gpus = torch.cuda.device_count()
        here = ", ".join(["cpu", *(f"cuda:{index}" for index in range(gpus))])
        raise ValueError(f"There is no device {name} here that PyTorch can run on: give one of {here}.") from None


@dataclass(frozen=True)
class Latency:
    """The time of one forward pass in ms (median and 95th percentile), and the conditions of the measurement.

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
    """Measures the wall time of forward passes in eval mode, all models interleaved (A A B B C C A A B B C C ...).

    Interleaving lets a disturbance of the machine hit all models alike. The first pass of each turn is not counted:
    threads of the model before still spin then, and caches hold its weights. A model that serves alone meets neither.
    The ids are random, without padding. Modes and the number of threads are what they were afterwards.

    Args:
        models: the models by name; the first is the baseline of `speedup`. A module stays on its device; another
            engine's model is a `Runner`.
        batch_size: rows per pass.
        sequence_length: tokens per row.
        repeats: measured passes per model, after the warm-up.
        warmup: turns per model that are not counted.
        threads: CPU threads of torch; as they are when None. Other engines were given theirs when they were opened.

    Raises:
        ValueError: no model, no repeat, or a sequence longer than a model's positions.
    """
    if not models or repeats < 1:
        raise ValueError(f"measuring needs at least one model and one repeat, got {len(models)} and {repeats}")

    runners: dict[str, Runner] = {}
    modules: list[nn.Module] = []
    for name, model in models.items():
        if isinstance(model, nn.Module):
            model = TorchRunner(model)
        if isinstance(model, TorchRunner):
            modules.append(model.model)
        runners[name] = model

    inputs = {name: random_inputs(name, runner, batch_size, sequence_length) for name, runner in runners.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runners}
    threads_before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads or threads_before)
        with eval_mode(*modules):
            for step in range(warmup + repeats):
                for name, runner in runners.items():
                    runner(inputs[name])
                    start = time.perf_counter()
                    runner(inputs[name])
                    if step >= warmup:
                        seconds[name].append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads_before)

    baseline = float(np.median(next(iter(seconds.values()))))
    latencies = {}
    for name, runner in runners.items():
        median = float(np.median(seconds[name]))
        latencies[name] = Latency(
            p50_ms=1000 * median,
            p95_ms=1000 * float(np.percentile(seconds[name], 95)),
            throughput=batch_size / median,
            speedup=baseline / median,
            batch_size=batch_size,
            sequence_length=sequence_length,
            repeats=repeats,
            threads=runner.threads or threads or threads_before,
            device=runner.device,
            engine=runner.engine,
            precision=runner.precision,
            attention=runner.attention,
        )
    return latencies
