"""Computes GLUE's metrics as an `evaluate.Metric` on scikit-learn and scipy, without a network."""

import logging
from collections.abc import Callable, Mapping

import evaluate
import numpy as np
from datasets import Features, Value
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import accuracy_score, f1_score, matthews_corrcoef
from transformers import EvalPrediction

__all__ = ["GlueMetric", "glue_metrics", "main_value"]

logger = logging.getLogger(__name__)

Score = Callable[[np.ndarray, np.ndarray], dict[str, float]]


def glue_metrics(task: str) -> "GlueMetric":
    """Makes the metric of a GLUE task, ready to be passed as `compute_metrics`.

    Args:
        task: a GLUE task ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "mnli_matched", "mnli_mismatched", "qnli",
            "rte", "wnli", "ax"), or, for one's own data, "classification" or "regression".

    Raises:
        ValueError: the task has no metric; the message lists those that have one.

    Example:
        >>> trainer = Trainer(..., compute_metrics=glue_metrics("mrpc"))
        >>> glue_metrics("sst2").compute(predictions=[0, 1], references=[0, 0])
        {'accuracy': 0.5}
    """
    return GlueMetric(config_name=task, keep_in_memory=True)


class GlueMetric(evaluate.Metric):  # type: ignore[misc, unused-ignore]
    """The official GLUE metric: `accuracy`, `f1`, `matthews_correlation`, `pearson`, `spearmanr`, each in [-1, 1].

    Where a task has two of them, `combined_score` is their mean, as in `run_glue.py`. F1 is that of class 1. A
    correlation with a constant is undefined and counts as 0, as Matthews' does in scikit-learn: a NaN would
    never be beaten when the best checkpoint is chosen. Where all predictions are the same although the references
    are not, a warning says so, for then the figure is that of a constant answer; `warns_of_constants = False` leaves
    it out where nothing else is expected.

    Everything `evaluate.Metric` offers works: `compute`, `add_batch`, and several processes with
    `GlueMetric(config_name="mrpc", num_process=2, process_id=rank, experiment_id="name", cache_dir=shared)`.
    The metric can also be called with a `transformers.EvalPrediction`, which the `Trainer` has already gathered from
    all processes.
    """

    warns_of_constants = True

    def _info(self) -> evaluate.MetricInfo:
        if self.config_name not in _SCORES:
            raise ValueError(f"No GLUE metric for {self.config_name!r}; there is one for: {', '.join(_SCORES)}.")

        value = Value("float32" if self.is_regression else "int64")
        return evaluate.MetricInfo(
            description="The metric of a GLUE task.",
            citation="",
            inputs_description="predictions and references: label ids, or scores for a regression task.",
            features=Features({"predictions": value, "references": value}),
            format="numpy",
        )

    @property
    def is_regression(self) -> bool:
        """Says whether predictions are scores and not label ids."""
        return self.config_name in ("stsb", "regression")

    def _compute(self, predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
        predictions, references = np.asarray(predictions), np.asarray(references)
        self._check(predictions, references)
        result = _SCORES[self.config_name](predictions, references)
        if len(result) > 1:
            result["combined_score"] = sum(result.values()) / len(result)
        return result

    def _check(self, predictions: np.ndarray, references: np.ndarray) -> None:
        """Refuses what has no metric, and tells of predictions that are all the same."""
        if not references.size:
            raise ValueError(f"The metric of {self.config_name} has no examples to be computed on.")
        if not self.is_regression and references.min() < 0:
            row = int(np.argmax(references < 0))
            raise ValueError(
                f"The metric of {self.config_name} needs a label for every example, but that of example {row} is "
                f"{references[row]}, which stands for none: leave such rows out."
            )
        for name, values in (("prediction", predictions), ("label", references)):
            if not np.isfinite(values).all():
                row = int(np.argmin(np.isfinite(values)))
                raise ValueError(
                    f"The metric of {self.config_name} cannot be computed: the {name} of example {row} is "
                    f"{values[row]}. The model or the data is broken."
                )

        is_constant = len(predictions) > 1 and np.ptp(predictions) == 0 and np.ptp(references) > 0
        if is_constant and self.warns_of_constants:
            logger.warning(
                "All %d predictions are %g: the metric of %s is that of a constant answer.",
                len(predictions),
                predictions[0],
                self.config_name,
            )

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        """Computes the metric of a model's outputs.

        Args:
            prediction: `predictions` are logits (N, classes), label ids (N,), or scores (N,) or (N, 1) for regression;
                a tuple's first element counts. `label_ids` is (N,).

        Raises:
            ValueError: the two do not hold the same number of examples, one of them is not finite, an example has no
                label, or there is none.
        """
        outputs = prediction.predictions
        outputs = np.asarray(outputs[0] if isinstance(outputs, tuple) else outputs)
        references = np.asarray(prediction.label_ids)

        # The largest of a row that has a NaN is nothing.
        if outputs.ndim > 1 and np.isnan(outputs.astype(np.float32)).any():
            row = int(np.argmax(np.isnan(outputs.astype(np.float32)).any(axis=tuple(range(1, outputs.ndim)))))
            raise ValueError(
                f"The metric of {self.config_name} cannot be computed: the logits of example {row} are NaN, so the "
                "model has diverged, or its weights are broken."
            )

        if self.is_regression:
            predictions = outputs.reshape(-1).astype(np.float32)
        else:
            predictions = outputs.argmax(axis=-1) if outputs.ndim > 1 else outputs

        if predictions.shape != references.shape:
            raise ValueError(
                f"The metric of {self.config_name} got predictions of shape {outputs.shape} for labels of shape "
                f"{references.shape}; it needs one {'score' if self.is_regression else 'row of logits'} per label."
            )

        if not self.is_regression and outputs.ndim > 1 and references.size and references.max() >= outputs.shape[-1]:
            row = int(np.argmax(references >= outputs.shape[-1]))
            raise ValueError(
                f"The metric of {self.config_name} got {outputs.shape[-1]} logits per example, but the label of "
                f"example {row} is {references[row]}: the model was made for fewer classes."
            )
        return self._compute(predictions, references)


def _accuracy(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    return {"accuracy": float(accuracy_score(references, predictions))}


def _accuracy_and_f1(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    f1 = float(f1_score(references, predictions, pos_label=1, zero_division=0.0))
    return {**_accuracy(predictions, references), "f1": f1}


def _matthews(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    return {"matthews_correlation": float(matthews_corrcoef(references, predictions))}


def _correlations(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    x, y = predictions.astype(np.float64), references.astype(np.float64)

    # The correlation with a constant is undefined, and scipy would warn and give NaN.
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        return {"pearson": 0.0, "spearmanr": 0.0}
    return {"pearson": float(pearsonr(x, y)[0]), "spearmanr": float(spearmanr(x, y)[0])}


_SCORES: dict[str, Score] = {
    "cola": _matthews,
    "sst2": _accuracy,
    "mrpc": _accuracy_and_f1,
    "stsb": _correlations,
    "qqp": _accuracy_and_f1,
    "mnli": _accuracy,
    "mnli_matched": _accuracy,
    "mnli_mismatched": _accuracy,
    "qnli": _accuracy,
    "rte": _accuracy,
    "wnli": _accuracy,
    "ax": _accuracy,
    "classification": _accuracy,
    "regression": _correlations,
}


def main_value(metrics: Mapping[str, float], metric: str) -> float:
    """Returns the number that models are ranked by: the main metric, on the first of several validation sets.

    Args:
        metrics: the figures of a model by name; MNLI has a figure for each of its two validation sets.
        metric: the name of the task's main metric, with which the names of its figures begin.

    Returns:
        The figure, or NaN where `metrics` does not have it.
    """
    for name, value in metrics.items():
        if name.startswith(metric):
            return value
    return float("nan")
