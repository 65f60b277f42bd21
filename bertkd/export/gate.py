"""An export that is opened again, compared and measured before it is kept."""

import contextlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.efficiency import Runner, TorchRunner
from bertkd.export.engines import open_exported
from bertkd.export.exporting import Batches, check_calibration, random_batches, ways_to_quantize, write_export

__all__ = [
    "AccuracyDropError",
    "Attempt",
    "Exported",
    "compare_logits",
    "export_model",
    "exported_size_mb",
    "predict",
]

# A float32 graph that differs by more is another model.
TOLERANCE = 1e-3
SHAPES = ((1, 1), (1, 7), (3, 128))


@dataclass(frozen=True)
class Attempt:
    """One way to export, and what came of it.

    Attributes:
        way: its name.
        value: the metric through the engine, NaN where none was asked for.
        logit_difference: the largest absolute one to PyTorch's.
        agreement: share of the compared rows with the same answer; None for a regression.
        size_mb: of all files but the tokenizer's, in MB (1e6 bytes).
    """

    way: str
    value: float
    logit_difference: float
    agreement: float | None
    size_mb: float


@dataclass(frozen=True)
class Exported:
    """What was kept: its folder, the model in its engine, and every attempt, the last being the one that was kept."""

    folder: Path
    runner: Runner
    metrics: dict[str, float]
    metrics_before: dict[str, float]
    attempts: list[Attempt] = field(default_factory=list)


class AccuracyDropError(ValueError):
    """No way to quantize kept the metric; `attempts` has the figures."""

    def __init__(self, message: str, attempts: Sequence[Attempt]) -> None:
        super().__init__(message)
        self.attempts = list(attempts)


def export_model(
    model: PreTrainedModel,
    folder: str | Path,
    engine: str = "openvino",
    precision: str = "float32",
    tokenizer: Any = None,
    calibration: Batches | None = None,
    evaluate: Callable[[Runner], dict[str, float]] | None = None,
    max_drop: float = 0.01,
    threads: int | None = None,
    device: str = "cpu",
) -> Exported:
    """Export a model, open what was written, compare it with the model, and keep it only if it is as good.

    float32 must give PyTorch's logits. Other precisions must not lose more than `max_drop` of the metric: where one
    way to quantize does, the next one of `ways_to_quantize` is tried. The folder appears when all is done, or not at
    all; one that is there already is replaced.

    Args:
        model: a classifier of a supported family; it stays as it is.
        folder: where to write.
        engine, precision: one of `ENGINES` and of `PRECISIONS`.
        tokenizer: written beside the model, and asked which inputs there are.
        calibration: batches of inputs (B, T), for OpenVINO's int8; they also serve to compare the logits.
        evaluate: the metrics of a `Runner`, as fractions, the main one first. Without it, only logits are compared.
        max_drop: how much of the main metric may be lost, as a fraction.
        threads: of the engine while it is compared and evaluated.
        device: where PyTorch runs the export meanwhile, such as "cuda"; the other engines run on the CPU.

    Raises:
        AccuracyDropError: each way loses more than `max_drop`; the message has the figures.
        ImportError: the engine is not installed.
        ValueError: an unknown engine or precision, no calibration for OpenVINO's int8, or float32 logits that differ.
    """
    folder = Path(folder)
    ways = ways_to_quantize(engine, precision)
    if calibration is not None:
        check_calibration(model, calibration)
    with _eval_mode(model):
        before = {} if evaluate is None else evaluate(TorchRunner(model))
    partial = folder.with_name(f".{folder.name}.partial")
    compared = [*random_batches(model, SHAPES), *(calibration or [])]
    attempts: list[Attempt] = []
    try:
        for way in ways:
            shutil.rmtree(partial, ignore_errors=True)
            write_export(model, partial, engine, way, tokenizer, calibration)
            runner = open_exported(partial, threads, device)
            difference, agreement = compare_logits(runner, model, compared)
            if precision == "float32" and difference > TOLERANCE:
                raise ValueError(
                    f"The {engine} export gives other logits than PyTorch (by up to {difference:.2g}): it is not kept."
                )
            metrics = {} if evaluate is None else evaluate(runner)
            value = next(iter(metrics.values()), float("nan"))
            attempts.append(Attempt(way, value, difference, agreement, exported_size_mb(partial)))
            if evaluate is None or value >= next(iter(before.values())) - max_drop:
                del runner  # its files are about to move
                _replace(partial, folder)
                return Exported(folder, open_exported(folder, threads, device), metrics, before, attempts)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    tried = "; ".join(f"{one.way}: {one.value:.4f}" for one in attempts)
    raise AccuracyDropError(
        f"{engine} in {precision} loses more than {max_drop:g} of {next(iter(before))} "
        f"({next(iter(before.values())):.4f} in PyTorch; {tried}). Allow more with max_drop, or choose another "
        "precision or engine.",
        attempts,
    )


@contextlib.contextmanager
def _eval_mode(model: PreTrainedModel) -> Iterator[None]:
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def compare_logits(
    runner: Runner, model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]
) -> tuple[float, float | None]:
    """The largest absolute difference of logits; the share of rows with the same answer, None for a regression."""
    with _eval_mode(model):
        reference = TorchRunner(model)
        pairs = [(runner(batch).cpu().float(), reference(batch).cpu().float()) for batch in batches]
    ours, theirs = (torch.cat(list(logits)) for logits in zip(*pairs, strict=True))
    agreement = (ours.argmax(-1) == theirs.argmax(-1)).float().mean().item() if ours.shape[-1] > 1 else None
    return (ours - theirs).abs().max().item(), agreement


def predict(runner: Runner, rows: Any, collate: Callable[[list[Any]], Any], batch_size: int = 32) -> np.ndarray:
    """Logits (N, C) of tokenized rows, in their order; rows of similar length share a batch.

    Args:
        rows: a data set of rows with input_ids.
        collate: rows to a batch of padded tensors, such as `DataCollatorWithPadding`.
    """
    inputs = rows.remove_columns([name for name in rows.column_names if name not in _INPUTS])
    order = sorted(range(len(inputs)), key=lambda row: len(inputs[row]["input_ids"]))
    found: list[np.ndarray] = []
    for start in range(0, len(order), batch_size):
        batch = collate([inputs[row] for row in order[start : start + batch_size]])
        found.append(runner(dict(batch)).cpu().float().numpy())
    logits = np.concatenate(found)
    unsorted = np.empty_like(logits)
    unsorted[order] = logits
    return unsorted


_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def exported_size_mb(folder: Path) -> float:
    """Size in MB (1e6 bytes) of what an engine reads in a folder: graph and weights, not the tokenizer."""
    files = (file for file in folder.iterdir() if file.suffix in (".onnx", ".data", ".xml", ".bin", ".safetensors"))
    return sum(file.stat().st_size for file in files) / 1e6


def _replace(partial: Path, folder: Path) -> None:
    old = folder.with_name(f".{folder.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    partial.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
