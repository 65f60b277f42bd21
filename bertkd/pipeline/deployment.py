"""Runs and times models in the engine and precision that are to serve them."""

import contextlib
import copy
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from transformers import PreTrainedModel

from bertkd.efficiency import (
    Latency,
    Runner,
    TorchRunner,
    check_device,
    count_flops,
    count_parameters,
    measure_latency,
)
from bertkd.export import exported_size_mb, open_exported, quantization_schemes, random_batches, write_export

__all__ = ["Deployment", "Timing", "eager"]

# Models that are timed side by side: many of a large model's sizes do not fit into memory.
TOGETHER = 6
# Rows and tokens of the random batch that int8 is calibrated on where only size and speed are measured.
RANGE_SHAPES = ((2, 32),)


@dataclass(frozen=True)
class Timing:
    """How forward passes are timed.

    Attributes:
        batch_size, sequence_length: rows and tokens of a pass; none is padding.
        repeats: measured passes of each model.
        threads: of the CPU; None for torch's number.
    """

    batch_size: int = 1
    sequence_length: int = 128
    repeats: int = 20
    threads: int | None = None

    def measure(self, models: dict[str, Runner]) -> dict[str, Latency]:
        """The latencies of models that take turns; the first is the baseline of the speed-ups."""
        return measure_latency(models, self.batch_size, self.sequence_length, self.repeats, threads=self.threads)


@dataclass(frozen=True)
class Deployment:
    """Where a model is to serve: the engine, what it computes in, and how its passes are timed.

    Attributes:
        device: where PyTorch runs, such as "cuda"; the other engines run on the CPU.

    Raises:
        ValueError: the engine does not run on the device, or the device is not here.
    """

    engine: str = "pytorch"
    precision: str = "float32"
    timing: Timing = Timing()
    device: str = "cpu"

    def __post_init__(self) -> None:
        if self.device != "cpu" and self.engine != "pytorch":
            raise ValueError(f"{self.engine} runs on the CPU here: leave --device out, or take --engine pytorch.")
        check_device(self.device)

    def write(self, model: PreTrainedModel, folder: str | Path) -> Path:
        """Writes a model in the form that the engine reads, for its size and speed: its int8 answers are rough."""
        scheme = quantization_schemes(self.engine, self.precision)[0]
        rows = random_batches(model, RANGE_SHAPES)
        return write_export(model, folder, self.engine, scheme, calibration=rows, is_accurate=False)

    @contextlib.contextmanager
    def opened(self, models: Sequence[PreTrainedModel]) -> Iterator[list[Runner]]:
        """The models in the engine, while the block runs."""
        if (self.engine, self.precision) == ("pytorch", "float32"):
            yield [TorchRunner(self._on_device(model)) for model in models]
            return

        with tempfile.TemporaryDirectory() as work:
            runners: list[Runner] = []
            for index, model in enumerate(models):
                folder = self.write(model, Path(work) / str(index))
                runners.append(self.open(folder))
            yield runners

    def open(self, folder: Path) -> Runner:
        """An exported model, on the device."""
        return open_exported(folder, self.timing.threads, self.device)

    def _on_device(self, model: PreTrainedModel) -> PreTrainedModel:
        """The model where it is on the device; else a copy there."""
        wanted = torch.device(self.device)
        if model.device.type == wanted.type and wanted.index in (None, model.device.index):
            return model
        return nn.Module.to(copy.deepcopy(model), self.device)

    def milliseconds(self, folder: Path) -> float:
        """The median latency of an exported model that runs alone, as where it serves: its weights stay in caches."""
        runner = self.open(folder)
        return self.timing.measure({"model": runner})["model"].p50_ms

    def milliseconds_beside(self, model: PreTrainedModel, usual: float, folder: Path) -> tuple[float, float]:
        """The median latency of an exported model when the machine is as fast as when `model` took `usual` ms.

        Both take turns: a machine that others use too may be slower now than when a budget was set by its clock.

        Returns:
            This latency, and what `model` takes now, both in ms.
        """
        with self.opened([model]) as (beside,):
            runners = {"beside": beside, "exported": self.open(folder)}
            latency = self.timing.measure(runners)
        return usual / latency["exported"].speedup, latency["beside"].p50_ms

    def costs(self, models: Sequence[PreTrainedModel], unit: str) -> list[float]:
        """What models cost when they are deployed: "ms", "mb" of their files, "parameters" or "gflops" of a pass.

        Models that are timed take turns in groups, each of which has the first model in it too, so that a machine that
        slows down meanwhile changes no ratio.
        """
        if unit != "ms":
            return [self.cost(model, unit) for model in models]

        with self.opened(models[:1]) as (first,):
            if len(models) == 1:
                return [self.timing.measure({"model": first})["model"].p50_ms]

            ratios, baselines = [1.0], []
            for start in range(1, len(models), TOGETHER):
                with self.opened(models[start : start + TOGETHER]) as runners:
                    named = {str(place): runner for place, runner in enumerate(runners)}
                    latency = self.timing.measure({"first": first, **named})
                baselines.append(latency["first"].p50_ms)
                ratios += [1 / latency[name].speedup for name in named]
        usual = sorted(baselines)[len(baselines) // 2]
        return [ratio * usual for ratio in ratios]

    def costs_beside(
        self, whole: PreTrainedModel, usual: float, models: Sequence[PreTrainedModel], unit: str
    ) -> list[float]:
        """What models cost when `whole` costs `usual`: they are timed beside it, as a machine may slow down."""
        if unit != "ms":
            return self.costs(models, unit)
        now, *costs = self.costs([whole, *models], unit)
        return [cost * usual / now for cost in costs]

    def cost(self, model: PreTrainedModel, unit: str) -> float:
        """What a model costs when it is deployed, as `costs` has it; one that is timed runs alone."""
        if unit == "parameters":
            return float(count_parameters(model).total)
        if unit == "gflops":
            return count_flops(model, self.timing.batch_size, self.timing.sequence_length) / 1e9

        with tempfile.TemporaryDirectory() as work:
            folder = self.write(model, work)
            return exported_size_mb(folder) if unit == "mb" else self.milliseconds(folder)


def eager(model: PreTrainedModel) -> TorchRunner:
    """The model as the papers measure it: PyTorch, float32, attention written out."""
    model.set_attn_implementation("eager")
    return TorchRunner(model.float())
