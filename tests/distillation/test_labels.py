"""Labels mean what they say: rows without one, shapes, and rows that are only made when they are read."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from helpers import SETTINGS, Collator, assert_same_run, rows, tiny_model

from bertkd import DistillationConfig, DistillationTrainer, DynaBertKDConfig, DynaBertKDTrainer
from bertkd.distillation.labels import class_labels, has_label, number_labels
from bertkd.models import label_permutation

# Some of 22 rows have no label: whole micro-batches of them, and parts of others.
UNLABELED = {0, 1, 2, 3, 5, 6, 14, 20}


def labeled(labels: list[Any]) -> list[dict[str, Any]]:
    return [{**row, "labels": label} for row, label in zip(rows(len(labels)), labels, strict=True)]


def some_unlabeled() -> list[dict[str, Any]]:
    return labeled([-100 if row in UNLABELED else row % 3 for row in range(22)])


def make_trainer(folder: Path, data: Any, trainer_class: Any = DistillationTrainer, **settings: Any) -> Any:
    config_class = DynaBertKDConfig if trainer_class is DynaBertKDTrainer else DistillationConfig
    regression = {"num_labels": 1} if settings.pop("is_regression", False) else {}
    settings = {**SETTINGS, "learning_rate": 0.05, "train_sampling_strategy": "sequential", **settings}
    return trainer_class(
        model=tiny_model(seed=1, **regression),
        teacher_model=tiny_model(seed=2, **regression),
        args=config_class(output_dir=str(folder), **settings),
        train_dataset=data,
        eval_dataset=data,
        data_collator=Collator(),
    )


@pytest.mark.parametrize("trainer_class", [DistillationTrainer, DynaBertKDTrainer])
def test_rows_without_a_label_split_into_micro_batches_change_nothing(trainer_class: Any, tmp_path: Path) -> None:
    settings = {"alpha": 0.5, "max_grad_norm": 100.0}
    if trainer_class is DynaBertKDTrainer:
        settings["width_mult_list"] = [0.5, 1.0]
    whole = make_trainer(tmp_path, some_unlabeled(), trainer_class, **settings)
    whole.train()
    split = make_trainer(
        tmp_path,
        some_unlabeled(),
        trainer_class,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=8,
        **settings,
    )
    split.train()
    assert_same_run(whole, split)


def test_the_loss_on_labels_is_a_mean_over_the_labeled_rows_of_a_step(tmp_path: Path) -> None:
    data = some_unlabeled()
    trainer = make_trainer(tmp_path, data, alpha=0.0, per_device_train_batch_size=22, max_steps=1)
    trainer.teacher_model = None
    batch = Collator()(data)
    with torch.no_grad():
        logits = trainer.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    trainer.train()
    assert trainer.state.log_history[0]["task_loss"] == pytest.approx(F.cross_entropy(logits, batch["labels"]).item())


@pytest.mark.parametrize("batch_size", [2, 3, 22])
def test_an_evaluation_counts_labeled_rows_in_batches_of_any_size(batch_size: int, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, some_unlabeled(), per_device_eval_batch_size=batch_size)
    batch = Collator()(some_unlabeled())
    with torch.no_grad():
        logits = trainer.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = F.cross_entropy(logits, batch["labels"]).item()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected, rel=1e-5)


def test_labels_in_a_column_of_their_own_give_the_same_losses(tmp_path: Path) -> None:
    # (B, 1) in the place of (B,), with rows that have no label.
    column = [{**row, "labels": [row["labels"]]} for row in some_unlabeled()]
    settings = {"alpha": 0.5, "per_device_train_batch_size": 2, "gradient_accumulation_steps": 8}
    plain = make_trainer(tmp_path, some_unlabeled(), **settings)
    plain.train()
    trainer = make_trainer(tmp_path, column, **settings)
    trainer.train()
    assert_same_run(plain, trainer)
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"])
    assert has_label(torch.tensor([[0], [-100]])).tolist() == [True, False]
    assert has_label(torch.tensor([[0.0], [-100.0]])).tolist() == [True, True]


def test_a_number_below_zero_is_a_label_of_a_regression(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, labeled([-100] * 4), is_regression=True, alpha=0.0, max_steps=1)
    trainer.train()
    assert trainer.state.log_history[0]["task_loss"] > 1000


@pytest.mark.parametrize("is_regression", [True, False])
def test_a_label_in_a_list_is_that_label(is_regression: bool, tmp_path: Path) -> None:
    labels = [float(row) if is_regression else row % 3 for row in range(8)]
    flat = make_trainer(tmp_path, labeled(labels), is_regression=is_regression)
    listed = make_trainer(tmp_path, labeled([[label] for label in labels]), is_regression=is_regression)
    flat.train()
    listed.train()
    assert_same_run(flat, listed)
    assert listed.predict(listed.eval_dataset).label_ids.shape == (8,)


def test_probabilities_of_classes_are_labels(tmp_path: Path) -> None:
    vectors = [[0.0, 0.0, 0.0] for _ in range(8)]
    for row, vector in enumerate(vectors):
        vector[row % 3] = 1.0
    hard = make_trainer(tmp_path, labeled([row % 3 for row in range(8)]))
    soft = make_trainer(tmp_path, labeled(vectors))
    hard.train()
    soft.train()
    assert_same_run(hard, soft)


def test_labels_that_no_loss_reads_may_be_out_of_range(tmp_path: Path) -> None:
    make_trainer(tmp_path, labeled([-1] * 4), alpha=1.0, max_steps=1).train()


def test_rows_made_when_they_are_read_are_checked_in_their_batch(tmp_path: Path) -> None:
    table = Dataset.from_list(labeled([0, 1, 2, 7]))
    read: list[int] = []

    def make(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        read.append(len(batch["labels"]))
        return batch

    table.set_transform(make)
    trainer = make_trainer(tmp_path, table, remove_unused_columns=False, train_sampling_strategy="random")
    collator = trainer.data_collator
    with pytest.raises(ValueError, match=r"Row \d of a training batch .* has the label 7"):
        trainer.train()
    assert trainer.data_collator is collator
    # No row is made for the check alone.
    assert sum(read) <= 8


def test_a_subclass_may_give_labels_any_form(tmp_path: Path) -> None:
    class TokenTrainer(DistillationTrainer):
        def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, Any]:
            assert inputs["labels"].shape == (4, 3)
            return {"task_loss": student_outputs.logits.square().mean()}

    make_trainer(tmp_path, labeled([[9, 9, 9]] * 4), TokenTrainer, max_steps=1).train()


def test_shapes_of_labels() -> None:
    logits = torch.zeros(4, 3)
    assert class_labels(torch.zeros(4, 1, dtype=torch.long), logits).shape == (4,)
    assert class_labels(torch.tensor([True, False, True, True]), logits).dtype == torch.long
    for labels in (torch.zeros(4), torch.zeros(3, dtype=torch.long), torch.zeros(4, 2), torch.zeros(4, 3).long()):
        with pytest.raises(ValueError, match="give one class for each row"):
            class_labels(labels, logits)
    with pytest.raises(ValueError, match="give one number for each row"):
        number_labels(torch.zeros(4, 2), torch.zeros(4))


def test_a_sign_belongs_to_the_name_of_a_label() -> None:
    assert label_permutation(["-1", "0", "1"], ["1", "0", "-1"]) == [2, 1, 0]
    assert label_permutation(["-1", "1"], ["1", "-1"]) == [1, 0]
    assert label_permutation(["not-entailment", "entailment"], ["not_entailment", "entailment"]) is None
    # Numbers of labels that were given in another order were given on purpose.
    assert label_permutation(["LABEL_0", "LABEL_1"], ["LABEL_1", "LABEL_0"]) == [1, 0]
