"""Numbers that are not finite stop a training, and what is finite costs no waiting."""

import math
import traceback
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SETTINGS, Collator, dataset, tiny_model

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.distillation.loss_window import FirstStep, LossWindow
from bertkd.models.loading import check_finite


class NanFrom(DistillationTrainer):
    """A trainer whose soft term is NaN from a step on."""

    bad_step = 3

    def kd_loss(self, student_logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        loss = super().kd_loss(student_logits, teacher_logits)
        return loss * (math.nan if self.state.global_step + 1 >= self.bad_step else 1.0)


def make_trainer(folder: Path, trainer_class: Any = NanFrom, **settings: Any) -> Any:
    return trainer_class(
        model=tiny_model(seed=1),
        teacher_model=tiny_model(seed=2),
        args=DistillationConfig(output_dir=str(folder), **{**SETTINGS, "per_device_train_batch_size": 4, **settings}),
        train_dataset=dataset(16),
        eval_dataset=dataset(4),
        data_collator=Collator(),
    )


def test_the_first_step_is_remembered() -> None:
    first = FirstStep()
    assert first.read() is None
    for step, value in enumerate((1.0, math.inf, 2.0, math.nan), start=1):
        first.watch(torch.tensor(value), step)
    assert first.read() == 2


def test_a_window_keeps_a_number_that_is_not_finite() -> None:
    window = LossWindow()
    for step, value in enumerate((1.0, math.nan, 1.0), start=1):
        window.add({"a": torch.tensor(1.0), "b": torch.tensor(value)}, 1.0, step)
    totals = window.totals()
    assert totals["a"] == 3.0 and math.isnan(totals["b"])
    assert window.first_bad() == (2, ["b"])


@pytest.mark.parametrize("settings", [{"logging_steps": 50}, {"logging_steps": 2}, {"gradient_accumulation_steps": 2}])
def test_the_step_and_the_part_are_named_however_often_is_logged(settings: dict[str, Any], tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, **settings)
    with pytest.raises(ValueError, match=r"not finite in step 3 \(kd_loss is nan\)"):
        trainer.train()


def test_nothing_is_saved_after_a_loss_that_is_not_finite(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="steps", save_steps=1, logging_steps=50)
    with pytest.raises(ValueError, match="not finite in step 3"):
        trainer.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-1", "checkpoint-2"]
    for path in tmp_path.glob("checkpoint-*/model.safetensors"):
        assert path.stat().st_size > 0


def test_an_evaluation_comes_after_the_check(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, eval_strategy="steps", eval_steps=1, logging_steps=50)
    with pytest.raises(ValueError, match="not finite in step 3"):
        trainer.train()
    evaluated = [entry["step"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert evaluated == [1, 2]


def test_a_trainer_can_be_used_again_after_it_stopped(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    with pytest.raises(ValueError, match="not finite"):
        trainer.train()
    trainer.model.load_state_dict(tiny_model(seed=1).state_dict())
    trainer.bad_step = 100
    assert math.isfinite(trainer.train().training_loss)


def test_no_value_is_read_in_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[int] = []
    trainer = make_trainer(tmp_path, DistillationTrainer, logging_steps=50)
    trainer.create_optimizer()
    batch = trainer._prepare_inputs(next(iter(trainer.get_train_dataloader())))

    def count(read: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            # Models of transformers read whether their mask leaves anything out.
            if not any("masking_utils" in frame.filename for frame in traceback.extract_stack()):
                reads.append(trainer.state.global_step)
            return read(*args, **kwargs)

        return counted

    # What a GPU would be waited for.
    for name in ("item", "tolist", "__bool__", "__int__", "__float__"):
        monkeypatch.setattr(torch.Tensor, name, count(getattr(torch.Tensor, name)))
    window_reads = len(reads)
    for step in range(5):
        trainer._window.add({"a": torch.tensor(1.0)}, torch.tensor(0.5), step)
        trainer._after_gradients(torch.tensor(1.0))
        size = trainer._size_of_step([batch], torch.device("cpu"))
        trainer.training_step(trainer.model, dict(batch), size)
    assert len(reads) == window_reads


def test_gradients_that_overflow_under_a_scaler_are_left_to_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, DistillationTrainer)
    trainer.accelerator.scaler = object()
    trainer._after_gradients(torch.tensor(math.inf))
    assert trainer._gradients.read() is None


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_weights_are_checked_in_every_precision(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    with torch.no_grad():
        # Finite, while their sum in half precision would not be.
        model.bert.embeddings.word_embeddings.weight.fill_(6e4)
    check_finite(model, "The model")

    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[3, 4] = math.inf
    with pytest.raises(ValueError, match=r"The model has weights .*: bert.embeddings.word_embeddings.weight\."):
        check_finite(model, "The model")


def test_a_run_that_changes_weights_says_nothing(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    make_trainer(tmp_path, DistillationTrainer).train()
    assert not [warning for warning in recwarn if "changed no weight" in str(warning.message)]
