"""An export is judged on the task's own rows, in batches and row by row, and without a task by its logits."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Collator, dataset, tiny_model
from torch import Tensor

from bertkd.efficiency import Runner, TorchRunner
from bertkd.export import AccuracyDropError, export_model, predict
from bertkd.export.comparison import Answers, RowByRow, compare, has_many_labels

CHECK = "bertkd.export.accuracy_check"
VALIDATION = dataset(24, seed=1)
INPUTS = torch.tensor([[3, 5, 7, 9]])
BATCH = {"input_ids": INPUTS, "attention_mask": torch.ones_like(INPUTS)}


class ChangedRunner(TorchRunner):
    """Stands for an export: the model's logits, changed by a function of logits and inputs."""

    def __init__(self, change: Callable[[Tensor, Mapping[str, Tensor]], Tensor], depends_on_batch: bool) -> None:
        super().__init__(tiny_model(seed=1))
        self.change = change
        self.depends_on_batch = depends_on_batch

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.change(super().__call__(inputs), inputs)


@pytest.fixture
def export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Exports to an engine that answers with changed logits."""

    def export_changed(
        change: Callable[[Tensor, Mapping[str, Tensor]], Tensor], depends_on_batch: bool = False, **options: Any
    ) -> Any:
        monkeypatch.setattr(f"{CHECK}.write_export", lambda _, folder, *rest: Path(folder).mkdir())
        monkeypatch.setattr(f"{CHECK}.open_exported", lambda *rest: ChangedRunner(change, depends_on_batch))
        options = {"engine": "onnxruntime", "precision": "int8", "model": tiny_model(seed=1), **options}
        return export_model(options.pop("model"), tmp_path / "out", **options)

    return export_changed


def agreement_with_pytorch(runner: Runner) -> dict[str, float]:
    answers = predict(TorchRunner(tiny_model(seed=1)), VALIDATION, Collator()).argmax(-1)
    return {"accuracy": float((predict(runner, VALIDATION, Collator()).argmax(-1) == answers).mean())}


def test_without_a_task_logits_that_change_too_much_are_refused(export: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(AccuracyDropError, match=r"changes logits by more than 0\.25 of their range \(int8: 3; .*Give"):
        export(lambda logits, _: logits + 3.0)
    assert not list(tmp_path.iterdir())

    kept = export(lambda logits, _: logits + 0.05)
    assert kept.attempts[0].logit_difference == pytest.approx(0.05, abs=1e-4)
    assert export(lambda logits, _: logits + 3.0, max_logit_change=2.0).attempts[0].logit_difference > 2.9


def test_logits_are_compared_on_the_rows_of_the_task(export: Callable[..., Any]) -> None:
    known = {tuple(row["input_ids"][:4]) for row in VALIDATION}

    def wrong_on_validation_rows(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        is_known = [tuple(row[:4].tolist()) in known for row in inputs["input_ids"]]
        return logits + 1.5 * torch.tensor(is_known)[:, None]

    # Random rows and calibration data show nothing of it.
    calibration = [BATCH]
    kept = export(wrong_on_validation_rows, evaluate=agreement_with_pytorch, calibration=calibration)
    assert kept.attempts[0].logit_difference == pytest.approx(1.5, abs=1e-4) and kept.metrics == {"accuracy": 1.0}
    assert export(wrong_on_validation_rows, calibration=calibration).attempts[0].logit_difference < 1e-4

    # An evaluation that does not run the same rows each time leaves the random ones to compare.
    generator = np.random.default_rng(0)

    def of_some_rows(runner: Runner) -> dict[str, float]:
        predict(runner, VALIDATION.select(generator.permutation(24)[:5]), Collator())
        return {"accuracy": 1.0}

    assert export(wrong_on_validation_rows, evaluate=of_some_rows).attempts[0].logit_difference < 1e-4


def test_an_engine_whose_answers_depend_on_the_batch_is_also_checked_row_by_row(export: Callable[..., Any]) -> None:
    def wrong_alone(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return -logits if len(inputs["input_ids"]) == 1 else logits

    options = {"evaluate": agreement_with_pytorch, "max_drop": 0.2}
    assert export(wrong_alone, **options).metrics == {"accuracy": 1.0}
    with pytest.raises(
        AccuracyDropError, match=r"loses more than 0\.2 of accuracy \(1\.0000 in PyTorch; int8: 0\.0000"
    ):
        export(wrong_alone, depends_on_batch=True, **options)

    # The figures that are kept are the worse ones.
    def slightly_wrong_alone(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return logits + 0.5 if len(inputs["input_ids"]) == 1 else logits + 0.1

    kept = export(slightly_wrong_alone, depends_on_batch=True, **options)
    assert kept.attempts[0].logit_difference == pytest.approx(0.5, abs=1e-4)


def test_rows_run_one_by_one_lose_their_padding_and_keep_their_logits() -> None:
    rows = [{"input_ids": row["input_ids"], "attention_mask": row["attention_mask"]} for row in VALIDATION]
    batch = Collator()(rows)
    runner = TorchRunner(tiny_model(seed=1))
    lengths: list[int] = []

    def seen(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        lengths.append(inputs["input_ids"].shape[1])
        return logits

    torch.testing.assert_close(RowByRow(ChangedRunner(seen, True))(batch), runner(batch), rtol=1e-4, atol=1e-5)
    assert lengths == [len(row["input_ids"]) for row in rows]
    # An evaluation may pass whole batches on, labels included.
    labeled = {**batch, "labels": torch.zeros(len(rows), dtype=torch.long)}
    torch.testing.assert_close(RowByRow(runner)(labeled), runner(batch), rtol=1e-4, atol=1e-5)


def test_float32_logits_may_differ_in_their_last_digits(export: Callable[..., Any]) -> None:
    def scaled(model: Any) -> Any:
        model.classifier.weight.data *= 1e5
        return model

    large = scaled(tiny_model(seed=1))
    options = {"precision": "float32", "model": large}
    logits = float(TorchRunner(large)(BATCH).abs().max())
    assert logits > 1000
    assert export(lambda logits, _: logits * 1e5 * (1 + 1e-6), **options).attempts[0].logit_difference > 1e-3
    with pytest.raises(ValueError, match="gives other logits than PyTorch"):
        export(lambda logits, _: logits * 1e5 * 1.01, **options)


def test_the_same_answer_of_many_labels_is_that_of_each_label() -> None:
    model = tiny_model(problem_type="multi_label_classification")
    expected = torch.tensor([[3.0, 2.0, -1.0], [5.0, -2.0, 1.0]])
    given = torch.tensor([[3.0, -2.0, -1.0], [5.0, -2.0, 1.0]])
    answers = [Answers({}, [], [], [logits]) for logits in (given, expected)]
    assert compare(*answers, many_labels=has_many_labels(model)).agreement == 0.5
    assert compare(*answers, many_labels=has_many_labels(tiny_model())).agreement == 1.0


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_logits_that_are_no_numbers_are_never_kept(precision: str, export: Callable[..., Any]) -> None:
    def broken(logits: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        # Of one class that no row has, so that accuracy shows nothing.
        return torch.cat([logits[:, :2], torch.full_like(logits[:, 2:], float("nan"))], dim=1)

    with pytest.raises(ValueError, match="gives other logits than PyTorch|loses more than|changes logits"):
        export(broken, precision=precision, evaluate=lambda runner: {"accuracy": float(runner(BATCH).shape[0])})
    with pytest.raises(ValueError, match="gives other logits than PyTorch|changes logits"):
        export(broken, precision=precision)
