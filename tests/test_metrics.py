"""GLUE's metrics: the official keys and figures, without a network, from lists, outputs and several processes."""

import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
from transformers import EvalPrediction

from bertkd.metrics import GlueMetric, glue_metrics

# Two true positives, one false positive, one false negative, one true negative.
PREDICTIONS = [1, 1, 1, 0, 0]
REFERENCES = [1, 1, 0, 1, 0]
ACCURACY, F1 = 3 / 5, 2 * 2 / (2 * 2 + 1 + 1)
MATTHEWS = (2 * 1 - 1 * 1) / math.sqrt(3 * 3 * 2 * 2)
PAIRED = {"accuracy": ACCURACY, "f1": F1, "combined_score": (ACCURACY + F1) / 2}

# By hand: deviations (-1.5, -0.5, 0.5, 1.5) and (-2, 0, -1, 3) from means 2.5 and 3; ranks (1, 2, 3, 4), (1, 3, 2, 4).
SCORES, TARGETS = [1.0, 2.0, 3.0, 4.0], [1.0, 3.0, 2.0, 6.0]
PEARSON, SPEARMAN = 7 / math.sqrt(5 * 14), 1 - 6 * 2 / (4 * 15)
CORRELATIONS = {"pearson": PEARSON, "spearmanr": SPEARMAN, "combined_score": (PEARSON + SPEARMAN) / 2}

EXPECTED = {
    "cola": {"matthews_correlation": MATTHEWS},
    "sst2": {"accuracy": ACCURACY},
    "mrpc": PAIRED,
    "stsb": CORRELATIONS,
    "qqp": PAIRED,
    "mnli": {"accuracy": ACCURACY},
    "mnli_matched": {"accuracy": ACCURACY},
    "mnli_mismatched": {"accuracy": ACCURACY},
    "qnli": {"accuracy": ACCURACY},
    "rte": {"accuracy": ACCURACY},
    "wnli": {"accuracy": ACCURACY},
    "ax": {"accuracy": ACCURACY},
    "classification": {"accuracy": ACCURACY},
    "regression": CORRELATIONS,
}


def _data(task: str) -> tuple[list, list]:
    return (SCORES, TARGETS) if task in ("stsb", "regression") else (PREDICTIONS, REFERENCES)


def _logits(labels: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[labels] * 4 - 1


@pytest.mark.parametrize("task", EXPECTED)
def test_every_task_has_the_official_figures_under_the_official_names(task: str) -> None:
    predictions, references = _data(task)
    assert glue_metrics(task).compute(predictions=predictions, references=references) == pytest.approx(EXPECTED[task])


@pytest.mark.parametrize("task", EXPECTED)
def test_a_trainer_can_call_it_with_its_outputs(task: str) -> None:
    predictions, references = _data(task)
    regression = task in ("stsb", "regression")
    outputs = np.array(predictions, dtype=np.float32)[:, None] if regression else _logits(predictions)
    labels = np.array(references, dtype=np.float32 if regression else np.int64)
    metric = glue_metrics(task)

    assert metric(EvalPrediction(predictions=outputs, label_ids=labels)) == pytest.approx(EXPECTED[task])
    with_states = EvalPrediction(predictions=(outputs, np.zeros((5, 2))), label_ids=labels)
    assert metric(with_states) == pytest.approx(EXPECTED[task])


def test_batches_add_up() -> None:
    metric = glue_metrics("mrpc")
    metric.add_batch(predictions=PREDICTIONS[:2], references=REFERENCES[:2])
    metric.add_batch(predictions=np.array(PREDICTIONS[2:]), references=np.array(REFERENCES[2:]))
    assert metric.compute() == pytest.approx(PAIRED)


def test_regression_with_a_single_row_keeps_its_shape() -> None:
    result = glue_metrics("stsb")(EvalPrediction(predictions=np.ones((1, 1)), label_ids=np.ones(1)))
    assert result == {"pearson": 0.0, "spearmanr": 0.0, "combined_score": 0.0}


@pytest.mark.filterwarnings("error")
def test_the_correlation_of_a_constant_is_zero_and_not_nan() -> None:
    constant = glue_metrics("stsb").compute(predictions=[2.0, 2.0, 2.0], references=[1.0, 2.0, 3.0])
    assert constant == {"pearson": 0.0, "spearmanr": 0.0, "combined_score": 0.0}
    assert glue_metrics("cola").compute(predictions=[1, 1, 1], references=[0, 1, 1]) == {"matthews_correlation": 0.0}
    assert glue_metrics("mrpc").compute(predictions=[0, 0], references=[0, 0])["f1"] == 0.0


def test_two_processes_give_the_figure_of_one(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", _second_process(tmp_path)], cwd=Path(__file__).parents[1])
    try:
        metric = GlueMetric(
            config_name="mrpc", num_process=2, process_id=0, experiment_id="x", cache_dir=str(tmp_path)
        )
        metric.add_batch(predictions=PREDICTIONS[:3], references=REFERENCES[:3])
        result = metric.compute()
        assert other.wait(timeout=60) == 0
    finally:
        other.kill()
    assert result == pytest.approx(PAIRED)


def _second_process(cache_dir: Path) -> str:
    return textwrap.dedent(f"""
        from bertkd.metrics import GlueMetric
        metric = GlueMetric(
            config_name="mrpc", num_process=2, process_id=1, experiment_id="x", cache_dir={str(cache_dir)!r}
        )
        metric.add_batch(predictions={PREDICTIONS[3:]}, references={REFERENCES[3:]})
        assert metric.compute() is None  # the first process has it
    """)


def test_an_unknown_task_is_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ValueError, match=r"No GLUE metric for 'squad'; there is one for: cola, sst2, .*regression\."):
        glue_metrics("squad")


def test_outputs_that_do_not_fit_the_labels_are_refused() -> None:
    with pytest.raises(ValueError, match=r"stsb got predictions of shape \(4, 3\) for labels of shape \(4,\)"):
        glue_metrics("stsb")(EvalPrediction(predictions=np.zeros((4, 3)), label_ids=np.zeros(4)))
    with pytest.raises(ValueError, match=r"sst2 got predictions of shape \(3, 2\).* one row of logits per label"):
        glue_metrics("sst2")(EvalPrediction(predictions=np.zeros((3, 2)), label_ids=np.zeros(4)))
