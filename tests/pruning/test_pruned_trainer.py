"""Distillation of a pruned student: its loss, its promises, and what it refuses."""

from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
import torch.nn.functional as F
from helpers import Collator, StopAt, assert_same_run, dataset, go_on, rows, tiny_model
from torch import Tensor

from bertkd import losses
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer
from bertkd.students import prune

SETTINGS = helpers.SETTINGS | {"learning_rate": 0.02}


def make_trainer(output_dir: Path, student: Any = None, dropout: float = 0.0, **changes: Any) -> PrunedKDTrainer:
    teacher = tiny_model(layers=3, seed=2, dropout=dropout)
    # The second layer lacks its attention, and the third one is skipped as a whole.
    student = student or prune(teacher, [1, 0, 0], [12, 24, 0])
    return PrunedKDTrainer(
        model=student,
        teacher_model=tiny_model(layers=3, seed=2, dropout=0.5),
        args=PrunedKDConfig(output_dir=str(output_dir), **{**SETTINGS, **changes}),
        train_dataset=dataset(44),
        data_collator=Collator(),
    )


def relative_error(student: Tensor, teacher: Tensor, mask: Tensor) -> Tensor:
    errors = []
    for ours, theirs, real in zip(student, teacher, mask.bool(), strict=True):
        errors.append((ours[real] - theirs[real]).square().mean() / theirs[real].var(correction=0))
    return torch.stack(errors).mean()


def test_the_loss_is_the_formula(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, alpha=0.7, temperature=3.0, beta=0.4)
    batch = Collator()(rows(8))
    loss = trainer.compute_loss(trainer.model, batch)
    labels = batch.pop("labels")
    student = trainer.model(**batch, output_hidden_states=True)
    teacher = tiny_model(layers=3, seed=2)(**batch, output_hidden_states=True)

    ours, theirs = (F.log_softmax(outputs.logits / 3, -1) for outputs in (student, teacher))
    soft = 9 * (theirs.exp() * (theirs - ours)).sum() / 8
    # What goes into the two kept layers, and what comes out at the end.
    hidden = [
        relative_error(student.hidden_states[level], teacher.hidden_states[level], batch["attention_mask"])
        for level in (0, 1, 3)
    ]
    expected = 0.3 * F.cross_entropy(student.logits, labels) + 0.7 * soft + 0.4 * torch.stack(hidden).mean()
    torch.testing.assert_close(loss, expected)


def test_the_relative_loss_of_hidden_states_is_the_one_computed_by_hand() -> None:
    # A row of two tokens around the mean 1 with a sum of squares of 4, and an error of 1.
    teacher, student = torch.tensor([[[0.0, 2.0], [0.0, 2.0]]]), torch.tensor([[[0.0, 2.0], [0.0, 3.0]]])
    assert losses.relative_hidden_loss([student], [teacher]).item() == pytest.approx(0.25)
    assert losses.relative_hidden_loss([10 * student], [10 * teacher]).item() == pytest.approx(0.25)
    assert losses.relative_hidden_loss([student], [teacher], torch.tensor([[1, 0]])).item() == 0
    assert losses.relative_hidden_loss([student, teacher], [teacher, teacher]).item() == pytest.approx(0.125)
    # The mean of the teacher's states has an error of 1, whatever their scale.
    assert losses.relative_hidden_loss([torch.ones_like(teacher)], [teacher]).item() == pytest.approx(1)


def test_the_loss_of_a_batch_is_the_mean_of_its_parts_and_padding_changes_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    student, teacher = (torch.randn(4, 6, 5, generator=generator) for _ in range(2))
    mask = torch.tensor([[1] * 6, [1] * 4 + [0] * 2, [1] * 2 + [0] * 4, [1] * 6])
    whole = losses.relative_hidden_loss([student], [teacher], mask)
    parts = [losses.relative_hidden_loss([student[i : i + 2]], [teacher[i : i + 2]], mask[i : i + 2]) for i in (0, 2)]
    torch.testing.assert_close(whole, torch.stack(parts).mean())
    changed = student.masked_fill(mask[..., None] == 0, 7.0)
    torch.testing.assert_close(losses.relative_hidden_loss([changed], [teacher], mask), whole)


def test_accumulated_steps_change_nothing(tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", per_device_train_batch_size=16)
    parts = make_trainer(tmp_path / "parts", per_device_train_batch_size=4, gradient_accumulation_steps=4)
    whole.train()
    parts.train()
    assert_same_run(whole, parts)


def test_an_interrupted_and_resumed_run_changes_nothing(tmp_path: Path) -> None:
    settings = {"dropout": 0.1, "optim": "adamw_torch"}
    whole = make_trainer(tmp_path / "whole", **settings)
    whole.train()
    stopped = make_trainer(tmp_path / "run", **settings, save_strategy="steps", save_steps=2)
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = make_trainer(tmp_path / "run", **settings)
    go_on(resumed, steps=2)
    assert_same_run(whole, resumed)


@pytest.mark.parametrize("is_made_in_train", [False, True])
def test_word_embeddings_stay_the_teachers_unless_they_are_asked_for(is_made_in_train: bool, tmp_path: Path) -> None:
    teacher = tiny_model(layers=3, seed=2)
    words = teacher.get_input_embeddings().weight.clone()

    def pruned() -> Any:
        return prune(teacher, [1, 2, 2], [12, 24, 12])

    for is_frozen in (True, False):
        trainer = PrunedKDTrainer(
            model=None if is_made_in_train else pruned(),
            model_init=pruned if is_made_in_train else None,
            teacher_model=tiny_model(layers=3, seed=2),
            args=PrunedKDConfig(output_dir=str(tmp_path), freeze_embeddings=is_frozen, **SETTINGS),
            train_dataset=dataset(44),
            data_collator=Collator(),
        )
        trainer.train()
        assert torch.equal(trainer.model.get_input_embeddings().weight, words) == is_frozen
        assert not torch.equal(trainer.model.classifier.weight, teacher.classifier.weight)
        # Only while it trains: what comes next may train them.
        assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_word_embeddings_stay_in_a_second_training_too_and_what_was_frozen_stays_so(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    embeddings = trainer.model.get_input_embeddings()
    words = embeddings.weight.clone()
    trainer.model.classifier.bias.requires_grad_(False)
    for _ in range(2):
        trainer.train()
    assert torch.equal(embeddings.weight, words) and embeddings.weight.requires_grad
    assert not trainer.model.classifier.bias.requires_grad

    embeddings.requires_grad_(False)
    trainer.train()
    assert not embeddings.weight.requires_grad


def test_rows_without_labels_teach_too_and_nothing_reads_labels_by_default(tmp_path: Path) -> None:
    labeled = make_trainer(tmp_path / "labeled")
    unlabeled = make_trainer(tmp_path / "unlabeled")
    unlabeled.train_dataset = unlabeled.train_dataset.remove_columns("labels")
    labeled.train()
    unlabeled.train()
    assert_same_run(labeled, unlabeled)


def test_without_hidden_states_the_teacher_may_be_cached(tmp_path: Path) -> None:
    live = make_trainer(tmp_path / "live", beta=0.0)
    cached = make_trainer(tmp_path / "cached", beta=0.0, teacher_cache_dir=str(tmp_path / "cache"))
    live.train()
    cached.train()
    assert_same_run(live, cached)


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_hidden_layers is 2 and the teacher's 3"):
        make_trainer(tmp_path, tiny_model(layers=2))
    with pytest.raises(ValueError, match="hidden_size is 8 and the teacher's 16"):
        make_trainer(tmp_path, tiny_model(layers=3, hidden=8))
    make_trainer(tmp_path, tiny_model(layers=2, hidden=8), beta=0.0)
    with pytest.raises(ValueError, match="beta weights the hidden states' loss"):
        make_trainer(tmp_path, beta=-1.0)
    with pytest.raises(ValueError, match="teacher_cache_dir keeps no hidden states"):
        make_trainer(tmp_path, teacher_cache_dir=str(tmp_path / "cache"))
