"""Runs and times models in the engine and precision that are to serve them."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from tqdm.auto import tqdm
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

    def runner(self, model: PreTrainedModel) -> Runner:
        """A model in the engine."""
        if (self.engine, self.precision) == ("pytorch", "float32"):
            return TorchRunner(self._on_device(model))
        # What is opened holds all that it needs of the files.
        with tempfile.TemporaryDirectory() as work:
            return self.open(self.write(model, work))

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
        latency = self.timing.measure({"beside": self.runner(model), "exported": self.open(folder)})
        return usual / latency["exported"].speedup, latency["beside"].p50_ms

    def costs(self, models: Sequence[PreTrainedModel], unit: str, progress: bool = False) -> list[float]:
        """What models cost when they are deployed: "ms", "mb" of their files, "parameters" or "gflops" of a pass.

        Args:
            models: of which those that are timed take turns with the first one.
            unit: what is counted or measured.
            progress: whether a progress bar is shown where models are timed.
        """
        if unit != "ms" or len(models) == 1:
            return [self.cost(model, unit) for model in models]
        usual, costs = self._timed_beside(self.runner(models[0]), models[1:], progress)
        return [usual, *costs]

    def milliseconds_of(
        self, models: Sequence[PreTrainedModel], whole: Runner, usual: float, progress: bool = False
    ) -> list[float]:
        """What models take when `whole` takes `usual` ms: they are timed beside it, as a machine may slow down."""
        if not models:
            return []
        now, costs = self._timed_beside(whole, models, progress)
        return [cost * usual / now for cost in costs]

    def _timed_beside(
        self, first: Runner, models: Sequence[PreTrainedModel], progress: bool
    ) -> tuple[float, list[float]]:
        """The latencies of a model in the engine and of others, in ms.

        They take turns in groups, each of which has the first model in it too, so that a machine that slows down
        meanwhile changes no ratio.
        """
        ratios, baselines = [], []
        with tqdm(total=len(models), desc="Measuring", unit="network", disable=not progress) as bar:
            for start in range(0, len(models), TOGETHER):
                group = {}
                for place, model in enumerate(models[start : start + TOGETHER]):
                    group[str(place)] = self.runner(model)
                    bar.update()
                latency = self.timing.measure({"first": first, **group})
                baselines.append(latency["first"].p50_ms)
                ratios += [1 / latency[name].speedup for name in group]
        usual = sorted(baselines)[len(baselines) // 2]
        return usual, [ratio * usual for ratio in ratios]

    def cost(self, model: PreTrainedModel, unit: str) -> float:
        """What a model costs when it is deployed, as `costs` has it; one that is timed runs alone."""
        if unit == "parameters":
            return float(count_parameters(model).total)
        if unit == "gflops":
            return count_flops(model, self.timing.batch_size, self.timing.sequence_length) / 1e9

        if unit == "ms":
            return self.timing.measure({"model": self.runner(model)})["model"].p50_ms

        with tempfile.TemporaryDirectory() as work:
            return exported_size_mb(self.write(model, work))


def eager(model: PreTrainedModel) -> TorchRunner:
    """The model as the papers measure it: PyTorch, float32, attention written out."""
    model.set_attn_implementation("eager")
    return TorchRunner(model.float())
