"""Checks exported models: each is opened again, compared and measured before it is kept."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.atomic import atomic_replacement
from bertkd.efficiency import Runner, TorchRunner
from bertkd.efficiency.runners import eval_mode
from bertkd.export.engines import MANIFEST, open_exported
from bertkd.export.exporting import Batches, check_calibration, quantization_schemes, random_batches, write_export

__all__ = [
    "AccuracyDropError",
    "Attempt",
    "Exported",
    "compare_logits",
    "export_model",
    "exported_size_mb",
    "predict",
]

# A float32 graph whose logits differ by more is another model.
TOLERANCE = 1e-3
# Rows and tokens of the batches that logits are compared on.
COMPARED_SHAPES = ((1, 1), (1, 7), (3, 128))
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")
MODEL_FILES = (".onnx", ".data", ".xml", ".bin", ".safetensors")


@dataclass(frozen=True)
class Attempt:
    """The figures of one quantization scheme that was tried. Results files have these names and values.

    Attributes:
        way: the name of the scheme, see `quantization_schemes`.
        value: the metric through the engine, NaN where none was asked for.
        logit_difference: the largest absolute difference of a logit to PyTorch's.
        agreement: the share of the compared rows with the same answer; None for a regression.
        size_mb: the size of all files but the tokenizer's, in MB (1e6 bytes).
    """

    way: str
    value: float
    logit_difference: float
    agreement: float | None
    size_mb: float


@dataclass(frozen=True)
class Exported:
    """An exported model that was kept.

    Attributes:
        folder: where it is.
        runner: the model in its engine.
        metrics: its metrics in the engine, as fractions; none where none were asked for.
        metrics_before: the metrics of the model in PyTorch.
        attempts: the schemes that were tried; the last one was kept.
    """

    folder: Path
    runner: Runner
    metrics: dict[str, float]
    metrics_before: dict[str, float]
    attempts: list[Attempt] = field(default_factory=list)


class AccuracyDropError(ValueError):
    """Every quantization scheme lost too much of the metric; `attempts` has the figures."""

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
    """Exports a model, opens what was written, compares it with the model, and keeps it only if it is as good.

    float32 must give PyTorch's logits. Other precisions must not lose more than `max_drop` of the metric: where one
    quantization scheme does, the next one of `quantization_schemes` is tried. The folder appears when all is done, or
    not at all; one that is there already is replaced.

    Args:
        model: a classifier of a supported family; it stays as it is.
        folder: where to write.
        engine: one of `ENGINES`.
        precision: one of `PRECISIONS`.
        tokenizer: is written beside the model, and tells which inputs there are.
        calibration: batches of inputs (B, T), for OpenVINO's int8; they also serve to compare the logits.
        evaluate: gives the metrics of a `Runner`, as fractions, the main one first. Without it, only logits are
            compared.
        max_drop: how much of the main metric may be lost, as a fraction.
        threads: the threads of the engine while it is compared and evaluated.
        device: where PyTorch runs the export meanwhile, such as "cuda"; the other engines run on the CPU.

    Raises:
        AccuracyDropError: each scheme loses more than `max_drop`; the message has the figures.
        ImportError: the engine is not installed.
        ValueError: an unknown engine or precision, no calibration for OpenVINO's int8, or float32 logits that differ.
    """
    folder = Path(folder)
    schemes = quantization_schemes(engine, precision)
    if calibration is not None:
        check_calibration(model, calibration)

    metrics_before: dict[str, float] = {}
    if evaluate is not None:
        with eval_mode(model):
            metrics_before = evaluate(TorchRunner(model))
    main_value_before = _main_value(metrics_before)

    compared = [*random_batches(model, COMPARED_SHAPES), *(calibration or [])]
    attempts: list[Attempt] = []
    with atomic_replacement(folder, MANIFEST) as partial:
        for scheme in schemes:
            shutil.rmtree(partial, ignore_errors=True)
            write_export(model, partial, engine, scheme, tokenizer, calibration)
            runner = open_exported(partial, threads, device)

            difference, agreement = compare_logits(runner, model, compared)
            if precision == "float32" and difference > TOLERANCE:
                raise ValueError(
                    f"The {engine} export gives other logits than PyTorch (by up to {difference:.2g}): it is not kept."
                )

            metrics = {} if evaluate is None else evaluate(runner)
            value = _main_value(metrics)
            attempts.append(Attempt(scheme, value, difference, agreement, exported_size_mb(partial)))
            # An engine may keep its files open, and they move to another place next.
            del runner

            if evaluate is None or value >= main_value_before - max_drop:
                break
        else:
            tried = "; ".join(f"{attempt.way}: {attempt.value:.4f}" for attempt in attempts)
            raise AccuracyDropError(
                f"{engine} in {precision} loses more than {max_drop:g} of {next(iter(metrics_before))} "
                f"({main_value_before:.4f} in PyTorch; {tried}). Allow more with max_drop, or choose another "
                "precision or engine.",
                attempts,
            )

    return Exported(folder, open_exported(folder, threads, device), metrics, metrics_before, attempts)


def _main_value(metrics: dict[str, float]) -> float:
    return next(iter(metrics.values()), float("nan"))


def compare_logits(
    runner: Runner, model: PreTrainedModel, batches: Sequence[dict[str, Tensor]]
) -> tuple[float, float | None]:
    """Compares the logits of a runner with those of the model in PyTorch.

    Args:
        runner: the exported model.
        model: the model it was made from.
        batches: inputs (B, T) to compare on.

    Returns:
        The largest absolute difference of a logit, and the share of rows with the same answer, which is None for a
        regression.
    """
    reference = TorchRunner(model)
    exported_logits, model_logits = [], []
    with eval_mode(model):
        for batch in batches:
            exported_logits.append(runner(batch).cpu().float())
            model_logits.append(reference(batch).cpu().float())

    exported, expected = torch.cat(exported_logits), torch.cat(model_logits)
    difference = (exported - expected).abs().max().item()
    if exported.shape[-1] == 1:
        return difference, None
    return difference, (exported.argmax(-1) == expected.argmax(-1)).float().mean().item()


def predict(runner: Runner, rows: Any, collate: Callable[[list[Any]], Any], batch_size: int = 32) -> np.ndarray:
    """Returns the logits (N, C) of tokenized rows, in their order; rows of similar length share a batch.

    Args:
        runner: the model in its engine.
        rows: a data set of rows with input_ids.
        collate: makes a batch of padded tensors of rows, such as `DataCollatorWithPadding`.
        batch_size: rows per batch.
    """
    inputs = rows.remove_columns([name for name in rows.column_names if name not in MODEL_INPUTS])
    by_length = sorted(range(len(inputs)), key=lambda row: len(inputs[row]["input_ids"]))

    batches: list[np.ndarray] = []
    for start in range(0, len(by_length), batch_size):
        batch = collate([inputs[row] for row in by_length[start : start + batch_size]])
        batches.append(runner(dict(batch)).cpu().float().numpy())

    sorted_logits = np.concatenate(batches)
    logits = np.empty_like(sorted_logits)
    logits[by_length] = sorted_logits
    return logits


def exported_size_mb(folder: Path) -> float:
    """Measures the files that an engine reads in a folder, graph and weights without tokenizer, in MB (1e6 bytes)."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in MODEL_FILES) / 1e6
