"""Compares the answers of an exported model with those of the model in PyTorch."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.efficiency import Runner, TorchRunner
from bertkd.models.evaluated import eval_mode

__all__ = ["Answers", "Comparison", "RowByRow", "answers_of", "compare", "compare_logits", "has_many_labels"]


class _Delegating:
    """A runner that passes everything but its calls on to another runner."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runner, name)


class RowByRow(_Delegating):
    """Runs the rows of a batch one by one without the padding behind them, as a server of single requests does."""

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps inputs (B, T) to logits (B, C)."""
        ids = inputs["input_ids"]
        logits = []
        for row, mask in enumerate(inputs.get("attention_mask", torch.ones_like(ids))):
            length = int(mask.nonzero().max()) + 1
            # What is no column of tokens, such as labels, has one item a row.
            alone = {name: tensor[row : row + 1] for name, tensor in inputs.items()}
            for name, tensor in alone.items():
                alone[name] = tensor[:, :length] if tensor.shape[1:] == ids.shape[1:] else tensor
            logits.append(self._runner(alone))
        return torch.cat(logits)


class _Recording(_Delegating):
    """Remembers the token ids that it is shown, and the logits that it gives."""

    def __init__(self, runner: Runner) -> None:
        super().__init__(runner)
        self.ids: list[Tensor] = []
        self.logits: list[Tensor] = []

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits = self._runner(inputs)
        self.ids.append(inputs["input_ids"].cpu())
        self.logits.append(logits.detach().cpu().float())
        return logits


@dataclass(frozen=True)
class Answers:
    """The answers of one runner.

    Attributes:
        metrics: of the evaluation, the main one first; none without an evaluation.
        ids: the token ids of each batch that the evaluation ran.
        evaluated: the logits of each of these batches.
        compared: the logits of batches that every runner gets.
    """

    metrics: dict[str, float]
    ids: list[Tensor]
    evaluated: list[Tensor]
    compared: list[Tensor]

    @property
    def value(self) -> float:
        """The main metric, NaN where there is none."""
        return next(iter(self.metrics.values()), float("nan"))


def answers_of(
    runner: Runner, evaluate: Callable[[Runner], dict[str, float]] | None, batches: Sequence[dict[str, Tensor]]
) -> Answers:
    """Runs an evaluation, if there is one, and some batches."""
    recording, plain = _Recording(runner), _Recording(runner)
    metrics = {} if evaluate is None else _as_numbers(evaluate(recording))
    for batch in batches:
        plain(batch)
    return Answers(metrics, recording.ids, recording.logits, plain.logits)


def _as_numbers(metrics: Any) -> dict[str, float]:
    """Makes numbers of what an evaluation gives, which may be tensors of one number.

    Raises:
        ValueError: it is no dict, or holds something else.
    """
    try:
        return {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(
            f"evaluate gives {metrics!r}: return a dict of numbers, such as {{'accuracy': 0.93}}."
        ) from None


@dataclass(frozen=True)
class Comparison:
    """The difference between two models' logits on the same rows.

    Attributes:
        difference: the largest absolute difference of a logit; NaN where a logit is.
        agreement: the share of rows with the same answer, of all labels where there are many; None for a regression.
        change: the difference as a share of the distance between the lowest and the highest expected logit.
    """

    difference: float
    agreement: float | None
    change: float

    def worse(self, other: "Comparison") -> "Comparison":
        """Returns the larger differences and the smaller agreement of two comparisons."""
        agreement = self.agreement
        if agreement is not None and other.agreement is not None:
            agreement = min(agreement, other.agreement)

        # NumPy's maximum of NaN and a number is NaN.
        difference = float(np.maximum(self.difference, other.difference))
        return Comparison(difference, agreement, float(np.maximum(self.change, other.change)))


def has_many_labels(model: PreTrainedModel) -> bool:
    """Whether each row of a model's task may have several labels, of which each has a logit above 0."""
    return getattr(model.config, "problem_type", None) == "multi_label_classification"


def compare(answers: Answers, expected: Answers, everywhere: bool = False, many_labels: bool = False) -> Comparison:
    """Compares answers on the rows of the evaluation, which are the task's own.

    Args:
        answers: of the exported model.
        expected: of the model in PyTorch.
        everywhere: compares on the batches that every runner gets too. They are what is left where there was no
            evaluation, or one that does not run the same rows in the same order each time.
        many_labels: see `has_many_labels`.
    """
    has_same_rows = len(answers.ids) == len(expected.ids) > 0
    for ids, expected_ids in zip(answers.ids, expected.ids, strict=False):
        has_same_rows = has_same_rows and torch.equal(ids, expected_ids)

    logits, expected_logits = list(answers.evaluated), list(expected.evaluated)
    if not has_same_rows:
        logits, expected_logits, everywhere = [], [], True
    if everywhere:
        logits += answers.compared
        expected_logits += expected.compared

    if not logits:
        raise ValueError("There are no rows to compare logits on: give at least one batch.")
    result, target = torch.cat(logits), torch.cat(expected_logits)
    if result.shape != target.shape:
        raise ValueError(
            f"The export gives logits of the shape {tuple(result.shape)}, and the model {tuple(target.shape)}: it was "
            "made of another model."
        )
    difference = (result - target).abs().max().item()
    spread = (target.max() - target.min()).item()
    agreement = None
    if many_labels:
        agreement = ((result > 0) == (target > 0)).all(-1).float().mean().item()
    elif target.shape[-1] > 1:
        agreement = (result.argmax(-1) == target.argmax(-1)).float().mean().item()
    return Comparison(difference, agreement, difference / max(spread, 1e-12))


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
    with eval_mode(model):
        expected = answers_of(TorchRunner(model), None, batches)
    comparison = compare(answers_of(runner, None, batches), expected, many_labels=has_many_labels(model))
    return comparison.difference, comparison.agreement
