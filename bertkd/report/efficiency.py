"""What a model costs: parameters, size on disk and latency, each with the conditions it was measured under."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

__all__ = ["Latency", "Parameters", "count_flops", "count_parameters", "measure_latency", "model_size_mb"]


@dataclass(frozen=True)
class Parameters:
    """Number of parameters: all of them, and the part that lies in embeddings."""

    total: int
    embeddings: int

    @property
    def encoder(self) -> int:
        """Everything that is no embedding: what the papers on BERT compression count, with pooler and head."""
        return self.total - self.embeddings


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of `model`, tied weights once; embeddings are every `nn.Embedding` (token, position, type)."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    embeddings = {id(weight): weight.numel() for table in tables for weight in table.parameters()}
    return Parameters(sum(weight.numel() for weight in model.parameters()), sum(embeddings.values()))


@torch.inference_mode()
def count_flops(model: PreTrainedModel, batch_size: int = 1, sequence_length: int = 128) -> int:
    """Floating-point operations of one forward pass: multiplications and additions, twice the "MACs" of some papers.

    Counted under eager attention, because the counter does not see that of sdpa on a CPU. BERT-base needs 22.35e9 at
    batch 1 and 128 tokens.

    Raises:
        ValueError: a sequence longer than the model's positions.
    """
    inputs = _inputs("the model", model, batch_size, sequence_length)
    attention, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")
    try:
        with FlopCounterMode(display=False) as counter:
            model.eval()(**inputs)
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
    return int(counter.get_total_flops())


def model_size_mb(folder: str | Path) -> float:
    """Size of the safetensors file or files in `folder`, in MB (1e6 bytes).

    Raises:
        FileNotFoundError: there is none.
    """
    files = list(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no *.safetensors in {folder}; save the model with save_pretrained first")
    return sum(file.stat().st_size for file in files) / 1e6


@dataclass(frozen=True)
class Latency:
    """Time of one forward pass in ms (median and 95th percentile), and what it was measured under.

    `speedup` is the first model's median over this one's; `precision` and `attention` are what the model really used.
    """

    p50_ms: float
    p95_ms: float
    speedup: float
    batch_size: int
    sequence_length: int
    repeats: int
    threads: int
    device: str
    precision: str
    attention: str


@torch.inference_mode()
def measure_latency(
    models: Mapping[str, nn.Module],
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
        models: by name; the first is the baseline of `speedup`. Each stays on its device.
        sequence_length: tokens per row.
        repeats: measured passes per model, after `warmup` passes that are not counted.
        threads: CPU threads of torch; as they are when None.

    Raises:
        ValueError: no model, no repeat, or a sequence longer than a model's positions.
    """
    if not models or repeats < 1:
        raise ValueError(f"measuring needs at least one model and one repeat, got {len(models)} and {repeats}")
    inputs = {name: _inputs(name, model, batch_size, sequence_length) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    before = torch.get_num_threads(), {name: model.training for name, model in models.items()}
    try:
        torch.set_num_threads(threads or before[0])
        for model in models.values():
            model.eval()
        for step in range(warmup + repeats):
            for name, model in models.items():
                elapsed = _time(model, inputs[name])
                if step >= warmup:
                    seconds[name].append(elapsed)
    finally:
        torch.set_num_threads(before[0])
        for name, model in models.items():
            model.train(before[1][name])
    baseline = float(np.median(next(iter(seconds.values()))))
    return {
        name: Latency(
            p50_ms=1000 * float(np.median(times)),
            p95_ms=1000 * float(np.percentile(times, 95)),
            speedup=baseline / float(np.median(times)),
            batch_size=batch_size,
            sequence_length=sequence_length,
            repeats=repeats,
            threads=threads or before[0],
            device=_device(models[name]).type,
            precision=str(next(models[name].parameters()).dtype).removeprefix("torch."),
            attention=str(getattr(getattr(models[name], "config", None), "_attn_implementation", None) or "unknown"),
        )
        for name, times in seconds.items()
    }


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _inputs(name: str, model: nn.Module, batch_size: int, sequence_length: int) -> dict[str, Tensor]:
    positions = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if positions is not None and sequence_length > positions:
        raise ValueError(
            f"sequence_length is {sequence_length}, but {name} has {positions} positions; give a shorter one"
        )
    vocabulary = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(vocabulary, (batch_size, sequence_length), generator=generator)
    return {"input_ids": ids.to(_device(model)), "attention_mask": torch.ones_like(ids).to(_device(model))}


def _time(model: nn.Module, inputs: dict[str, Tensor]) -> float:
    device = _device(model)
    _synchronise(device)
    start = time.perf_counter()
    model(**inputs)
    _synchronise(device)
    return time.perf_counter() - start


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
