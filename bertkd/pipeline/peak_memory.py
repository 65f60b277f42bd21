"""Measures the memory of a model in a process of its own: `python -m bertkd.pipeline.peak_memory SETTINGS`."""

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil
import torch
from torch import nn

from bertkd.efficiency import Runner, measure_latency
from bertkd.export import available_engines, open_exported
from bertkd.pipeline.deployment import eager
from bertkd.pipeline.models import load_model

__all__ = ["MeasuredModel"]


@dataclass(frozen=True)
class MeasuredModel:
    """A model in a folder, and how it is run.

    Attributes:
        folder: of an export, or of a model that runs in eager PyTorch.
        is_eager: whether it is the latter.
        device: where PyTorch runs; the other engines run on the CPU.
        threads: of the CPU.
        batch_size, sequence_length: rows and tokens of a pass.
    """

    folder: str
    is_eager: bool
    device: str
    threads: int
    batch_size: int
    sequence_length: int

    def open(self) -> Runner:
        """The model, ready to run."""
        if self.is_eager:
            return eager(nn.Module.to(load_model(self.folder), device=self.device))
        return open_exported(self.folder, self.threads, self.device)

    def peak_memory_mb(self) -> float:
        """The MB (1e6 bytes) by which a process of its own grows at most while it opens the model and runs it.

        Raises:
            RuntimeError: the process failed.
        """
        command = [sys.executable, "-m", "bertkd.pipeline.peak_memory", json.dumps(asdict(self))]
        process = subprocess.run(command, capture_output=True, text=True, check=False)
        if process.returncode != 0:
            raise RuntimeError(f"Measuring the memory of {self.folder} failed: {process.stderr.strip()[-500:]}")
        return float(process.stdout.splitlines()[-1])


def _measure(model: MeasuredModel) -> float:
    """The MB by which this process grows."""
    # The engines' own size is no model's.
    for package in ("onnxruntime", "openvino"):
        if package in available_engines():
            __import__(package)

    process = psutil.Process()
    before = process.memory_info().rss
    runner = model.open()
    measure_latency({"model": runner}, model.batch_size, model.sequence_length, 2, 1, model.threads)

    # The other engines run on the CPU, whatever the device is.
    if runner.device == "cuda":
        return torch.cuda.max_memory_allocated(model.device) / 1e6
    return (_peak_bytes(process) - before) / 1e6


def _peak_bytes(process: psutil.Process) -> int:
    """The most memory that this process has had.

    Not `ru_maxrss` on Linux: a process inherits it from the one that started it, here a large one.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024

    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)

    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    print(_measure(MeasuredModel(**json.loads(sys.argv[1]))))
