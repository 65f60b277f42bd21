"""Checks exported models: each is opened again, compared and measured before it is kept."""

import math
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.atomic import atomic_replacement
from bertkd.efficiency import Runner, TorchRunner, check_device
from bertkd.export.checks import (
    check_calibration,
    check_export_tokenizer,
    check_folder,
    check_model,
    check_threads,
)
from bertkd.export.comparison import Answers, Comparison, RowByRow, answers_of, compare, has_many_labels
from bertkd.export.engines import INT8, MANIFEST, open_exported, require_engine
from bertkd.export.exporting import (
    COMPUTING,
    in_float32,
    needs_calibration,
    quantization_schemes,
    random_batches,
    write_export,
)
from bertkd.models.evaluated import eval_mode

__all__ = [
    "AccuracyDropError",
    "Attempt",
    "Exported",
    "export_model",
    "exported_size_mb",
    "predict",
]

# The name of int8 after a quantization-aware training, in records; and the loss of the metric from which it is tried.
TRAINED_INT8, TRAINED_FROM = "int8, trained", 0.003
# A float32 graph whose logits differ by more is another model; where logits are larger than 1, by a larger share.
TOLERANCE = 1e-3
# Rows and tokens of the batches that logits are compared on.
COMPARED_SHAPES = ((1, 1), (1, 7), (3, 128))
# The main metric must be one of which more is better.
LESS_IS_BETTER = ("loss", "error", "mse", "mae", "perplexity")
MODEL_INPUTS = ("input_ids", "attention_mask", "token_type_ids")


@dataclass(frozen=True)
class Attempt:
    """The figures of one quantization scheme that was tried. Results files have these names and values.

    Attributes:
        way: the name of the scheme, see `quantization_schemes`.
        value: the metric through the engine, NaN where none was asked for. Where a row's logits depend on its batch,
            it is the lower one of two: with the rows one by one, and in batches.
        logit_difference: the largest absolute difference of a logit to PyTorch's, on the rows that were evaluated, or
            without an evaluation on the calibration data and on random rows.
        agreement: the share of these rows with the same answer; None for a regression.
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
        attempts: the schemes that were tried, in their order.
        kept: the one of them that was kept.
    """

    folder: Path
    runner: Runner
    metrics: dict[str, float]
    metrics_before: dict[str, float]
    attempts: list[Attempt]
    kept: Attempt


class AccuracyDropError(ValueError):
    """Every quantization scheme lost too much; `attempts` has the figures."""

    def __init__(self, message: str, attempts: Sequence[Attempt]) -> None:
        super().__init__(message)
        self.attempts = list(attempts)


def export_model(
    model: PreTrainedModel,
    folder: str | Path,
    engine: str = "openvino",
    precision: str = "float32",
    tokenizer: Any = None,
    calibration: Iterable[dict[str, Tensor]] | None = None,
    evaluate: Callable[[Runner], dict[str, float]] | None = None,
    max_drop: float = 0.01,
    threads: int | None = None,
    device: str = "cpu",
    max_logit_change: float = 0.25,
    retrain: Callable[[PreTrainedModel], PreTrainedModel] | None = None,
) -> Exported:
    """Exports a model, opens what was written, compares it with the model, and keeps it only if it is as good.

    float32 must give PyTorch's logits. Other precisions must not lose more than `max_drop` of the metric, or without a
    metric not change logits by more than `max_logit_change`: where one quantization scheme does, the next one of
    `quantization_schemes` is tried. Where a row's logits depend on its batch, as in ONNX Runtime's int8, both must
    hold for rows one by one too. The folder appears when all is done, or not at all; one that is there already is
    replaced.

    Where int8 loses more than 0.3 points of the metric and `retrain` is given, what it makes of the model is exported
    in int8 too, and the better of both counts.

    Args:
        model: a classifier of a supported family; it stays as it is.
        folder: where to write.
        engine: one of `ENGINES`.
        precision: one of `PRECISIONS`.
        tokenizer: is written beside the model, and tells which inputs there are.
        calibration: batches of inputs (B, T), for OpenVINO's int8; without `evaluate`, logits are compared on them.
        evaluate: gives the metrics of a `Runner`, as fractions, the main one first, of which more is better. Logits
            are compared on the rows that it runs. Without it, only logits are compared.
        max_drop: how much of the main metric may be lost, as a fraction.
        threads: the threads of the engine while it is compared and evaluated.
        device: where PyTorch runs the export meanwhile, such as "cuda"; the other engines run on the CPU.
        max_logit_change: how much a logit may change where there is no metric, as a share of the distance between the
            model's lowest and highest logit.
        retrain: gives a copy of the model that was trained to bear int8 (`bertkd.models.fake_quantized`); it may take
            minutes, and is called at most once. None for no such training.

    Raises:
        AccuracyDropError: each scheme loses more than is allowed; the message has the figures.
        ImportError: the engine is not installed.
        ValueError: an unknown engine or precision, no calibration for OpenVINO's int8, numbers that are not finite, a
            folder that cannot be replaced, or float32 logits that differ.
    """
    folder = Path(folder)
    limits = _Limits(max_drop, max_logit_change)
    require_engine(engine)
    schemes = quantization_schemes(engine, precision)
    require_engine(engine, schemes[0])
    check_device(device)
    check_threads(threads)
    check_model(model)
    check_export_tokenizer(model, tokenizer)
    check_folder(folder, model)
    model = in_float32(model)
    if evaluate is not None and not callable(evaluate):
        raise ValueError(f"evaluate is of type {type(evaluate).__name__}: give a function of a runner, or None.")
    # A generator would be empty the second time.
    batches = None if calibration is None else list(calibration)
    check_calibration(model, batches, needs_calibration(engine, schemes[0]))

    compared = random_batches(model, COMPARED_SHAPES)
    for batch in batches or []:
        # A model that gets labels also computes a loss, and may refuse them.
        compared.append({name: batch[name] for name in MODEL_INPUTS if name in batch})
    with eval_mode(model):
        expected = answers_of(TorchRunner(model), evaluate, compared)
    _check_expected(expected, has_metrics=evaluate is not None)

    trials = _Trials(
        engine,
        precision,
        tokenizer,
        batches,
        expected,
        limits,
        evaluate,
        compared,
        threads,
        device,
        has_many_labels(model),
    )
    with atomic_replacement(folder, MANIFEST) as partial:
        for scheme in schemes:
            shutil.rmtree(partial, ignore_errors=True)
            kept = trials.written(model, partial, scheme, scheme)
            if scheme == INT8 and retrain is not None and expected.value - kept.attempt.value > TRAINED_FROM:
                kept = trials.better_of_trained(kept, partial, in_float32(retrain(model)))
            if kept.is_good:
                break
        else:
            raise limits.error(f"{engine} in {precision}", trials.attempts, expected, kept.comparison)

    runner = open_exported(folder, threads, device)
    return Exported(folder, runner, kept.answers.metrics, expected.metrics, trials.attempts, kept.attempt)


def _check_expected(expected: Answers, has_metrics: bool) -> None:
    """Checks that there is something to compare an export with.

    Raises:
        ValueError: the model's logits or its main metric are not finite, or less of the metric is better.
    """
    if not all(bool(torch.isfinite(logits).all()) for logits in (*expected.compared, *expected.evaluated)):
        raise ValueError("The model gives NaN or infinite logits in PyTorch: there is nothing to compare with.")
    if not has_metrics:
        return

    name = next(iter(expected.metrics), "")
    if not name:
        raise ValueError("evaluate gives no metric: return a dict such as {'accuracy': 0.93}, the main one first.")
    if expected.value > 1:
        raise ValueError(f"The {name} of the model is {expected.value:g}: return fractions, such as 0.93 and not 93.")
    if not math.isfinite(expected.value):
        raise ValueError(f"The {name} of the model in PyTorch is {expected.value}: there is nothing to compare with.")
    if name.lower().endswith(LESS_IS_BETTER):
        raise ValueError(f"The main metric is {name}, of which less is better: put one first of which more is better.")


@dataclass(frozen=True)
class _Limits:
    """How much an export may lose: `drop` of the metric, or without a metric `change` of the logits' range."""

    drop: float
    change: float

    def __post_init__(self) -> None:
        for name, limit in (("max_drop", self.drop), ("max_logit_change", self.change)):
            if not isinstance(limit, int | float):
                raise ValueError(f"{name} is {limit!r}: give a number, such as 0.01.")
        if not 0 <= self.drop <= 1:
            raise ValueError(f"max_drop is {self.drop}: give a fraction from 0 to 1, such as 0.01 for one percent.")
        if not 0 <= self.change < math.inf:
            raise ValueError(f"max_logit_change is {self.change}: give a share of the logits' range, such as 0.25.")

    def allow(self, answers: Answers, expected: Answers, comparison: Comparison) -> bool:
        """Says whether an export is as good as it has to be."""
        if not math.isfinite(comparison.difference):
            return False
        if expected.metrics:
            return answers.value >= expected.value - self.drop
        return comparison.change <= self.change

    def error(
        self, name: str, attempts: Sequence[Attempt], expected: Answers, comparison: Comparison
    ) -> AccuracyDropError:
        """Makes the error that says what each scheme lost."""
        if expected.metrics:
            tried = "; ".join(f"{attempt.way}: {attempt.value:.4f}" for attempt in attempts)
            return AccuracyDropError(
                f"{name} loses more than {self.drop:g} of {next(iter(expected.metrics))} ({expected.value:.4f} in "
                f"PyTorch; {tried}). Allow more with max_drop, or choose another precision or engine.",
                attempts,
            )

        tried = "; ".join(f"{attempt.way}: {attempt.logit_difference:.2g}" for attempt in attempts)
        return AccuracyDropError(
            f"{name} changes logits by more than {self.change:g} of their range ({tried}; the last one is "
            f"{comparison.change:.2g} of the range), and there is no metric that says whether this matters. Give "
            "evaluate, allow more with max_logit_change, or choose another precision or engine.",
            attempts,
        )


class _Tried(NamedTuple):
    """What was written: its figures, its answers, how they differ, and whether it is as good as it has to be."""

    attempt: Attempt
    answers: Answers
    comparison: Comparison
    is_good: bool


@dataclass
class _Trials:
    """Writes models for an engine, opens what was written, and compares it with the answers that are expected.

    Attributes:
        attempts: the figures of all that was written, in their order.
    """

    engine: str
    precision: str
    tokenizer: Any
    calibration: Sequence[dict[str, Tensor]] | None
    expected: Answers
    limits: _Limits
    evaluate: Callable[[Runner], dict[str, float]] | None
    compared: Sequence[dict[str, Tensor]]
    threads: int | None
    device: str
    has_many_labels: bool
    attempts: list[Attempt] = field(default_factory=list)

    def better_of_trained(self, kept: _Tried, folder: Path, trained: PreTrainedModel) -> _Tried:
        """Writes a model that was trained to bear int8, and keeps the better of both in the folder.

        Args:
            kept: what the folder holds.
            folder: of the export.
            trained: the model.
        """
        with tempfile.TemporaryDirectory() as work:
            other = Path(work) / "trained"
            tried = self.written(trained, other, INT8, TRAINED_INT8)
            if tried.attempt.value > kept.attempt.value:
                shutil.rmtree(folder)
                shutil.move(other, folder)
                return tried
        return kept

    def written(self, model: PreTrainedModel, folder: Path, scheme: str, way: str) -> _Tried:
        """Writes a model, opens and runs what was written.

        Args:
            model: what is exported.
            folder: where it is written.
            scheme: of the quantization.
            way: the name of the attempt.

        Raises:
            ValueError: it is in float32 and gives other logits.
        """
        write_export(model, folder, self.engine, scheme, self.tokenizer, self.calibration)
        runner = open_exported(folder, self.threads, self.device)
        answers = answers_of(runner, self.evaluate, self.compared)
        comparison = self.compared_with_expected(answers)
        is_good = self.limits.allow(answers, self.expected, comparison)

        # The worst of two: ONNX Runtime's int8 answers in another way for a row alone than in a batch.
        if is_good and getattr(runner, "depends_on_batch", False):
            alone = answers_of(RowByRow(runner), self.evaluate, self.compared)
            comparison = comparison.worse(self.compared_with_expected(alone))
            answers = min(answers, alone, key=lambda each: each.value)
            is_good = self.limits.allow(answers, self.expected, comparison)

        largest = max(float(logits.abs().max()) for logits in (*self.expected.evaluated, *self.expected.compared))
        if self.precision == "float32" and not comparison.difference <= TOLERANCE * max(1.0, largest):
            raise ValueError(
                f"The {runner.engine} export gives other logits than PyTorch (by up to {comparison.difference:.2g}): "
                "it is not kept."
            )
        size = exported_size_mb(folder)
        self.attempts.append(Attempt(way, answers.value, comparison.difference, comparison.agreement, size))
        return _Tried(self.attempts[-1], answers, comparison, is_good)

    def compared_with_expected(self, answers: Answers) -> Comparison:
        """The differences of answers to the model's own."""
        return compare(answers, self.expected, self.precision == "float32", self.has_many_labels)


def predict(runner: Runner, rows: Any, collate: Callable[[list[Any]], Any], batch_size: int = 32) -> np.ndarray:
    """Returns the logits (N, C) of tokenized rows, in their order; rows of similar length share a batch.

    Args:
        runner: the model in its engine.
        rows: a data set of rows with input_ids.
        collate: makes a batch of padded tensors of rows, such as `DataCollatorWithPadding`.
        batch_size: rows per batch.

    Raises:
        ValueError: there is no row.
    """
    if not hasattr(rows, "remove_columns"):
        raise ValueError(f"The rows to predict are a {type(rows).__name__}: give a tokenized datasets.Dataset.")
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}: give a whole number of 1 or more.")
    if not len(rows):
        raise ValueError("There are no rows to predict: give at least one.")
    inputs = rows.remove_columns([name for name in rows.column_names if name not in MODEL_INPUTS])
    by_length = sorted(range(len(inputs)), key=lambda row: len(inputs[row]["input_ids"]))

    batches: list[np.ndarray] = []
    # A model that was just trained would drop some of its units.
    with eval_mode(runner.model) if isinstance(runner, TorchRunner) else nullcontext():
        for start in range(0, len(by_length), batch_size):
            batch = collate([inputs[row] for row in by_length[start : start + batch_size]])
            batches.append(runner(dict(batch)).cpu().float().numpy())

    sorted_logits = np.concatenate(batches)
    logits = np.empty_like(sorted_logits)
    logits[by_length] = sorted_logits
    return logits


def exported_size_mb(folder: Path) -> float:
    """Measures the files that an engine reads in a folder, graph and weights without tokenizer, in MB (1e6 bytes)."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in COMPUTING) / 1e6
