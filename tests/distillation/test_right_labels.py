"""Labels mean the same to models, rows and stages, wherever they come from: another order is refused or put right."""

from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from helpers import SETTINGS, Collator, dataset, tiny_model
from transformers import PreTrainedModel

from bertkd import DistillationConfig, DistillationTrainer, DynaBertKDConfig
from bertkd.pipeline.dynabert import stage_config
from bertkd.pruning import Pruner, reconstruct
from bertkd.students import prune

OURS, THEIRS = ("entailment", "neutral", "contradiction"), ("contradiction", "entailment", "neutral")
REFUSED = "lists its labels as contradiction, entailment, neutral and the student as entailment, neutral"


def named(names: tuple[str, ...], **settings: Any) -> PreTrainedModel:
    labels = dict(enumerate(names))
    return tiny_model(id2label=labels, label2id={name: label for label, name in labels.items()}, **settings)


def of_others(count: int = 16) -> datasets.Dataset:
    return dataset(count).cast_column("labels", datasets.ClassLabel(names=list(THEIRS)))


def trainer_of(folder: Path, train_dataset: Any = None, **settings: Any) -> DistillationTrainer:
    return DistillationTrainer(
        model=named(OURS, seed=1),
        teacher_model=named(OURS, seed=2),
        args=DistillationConfig(output_dir=str(folder), **{**SETTINGS, **settings}),
        train_dataset=train_dataset,
        data_collator=Collator(),
    )


def test_rows_that_come_later_are_compared_too(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, dataset(16))
    with pytest.raises(ValueError, match=REFUSED):
        trainer.evaluate(of_others())
    # Whoever rearranges the logits may say so, and a metric may join classes.
    trainer.checks_label_order = False
    trainer.evaluate(of_others())
    trainer.checks_label_order = True
    trainer.evaluate(dataset(8, labels=2).cast_column("labels", datasets.ClassLabel(names=["no", "yes"])))
    trainer.train_dataset = of_others()
    with pytest.raises(ValueError, match=REFUSED):
        trainer.train()


def test_a_stream_that_knows_its_labels_is_compared(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        trainer_of(tmp_path, of_others().to_iterable_dataset(), max_steps=1)


def test_rows_to_evaluate_that_the_model_cannot_read_are_named(tmp_path: Path) -> None:
    long = datasets.Dataset.from_list([{"input_ids": [5] * 41, "attention_mask": [1] * 41, "labels": 0}])
    with pytest.raises(
        ValueError, match="Row 0 of the evaluation set .* has 41 tokens, and the student reads at most"
    ):
        trainer_of(tmp_path).evaluate(long)


def test_rows_that_the_teacher_cannot_read_are_named(tmp_path: Path) -> None:
    trainer = DistillationTrainer(
        model=tiny_model(seed=1),
        teacher_model=tiny_model(seed=2, max_position_embeddings=8),
        args=DistillationConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=dataset(16),
        data_collator=Collator(),
    )
    with pytest.raises(ValueError, match="tokens, and the teacher reads at most 8: truncate the rows"):
        trainer.train()
    # One that is not used reads nothing.
    trainer.args.alpha = 0.0
    with pytest.warns(UserWarning, match="The teacher is not used"):
        trainer.train()


def test_two_models_without_names_beside_rows_with_names_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def make(rows: Any, **settings: Any) -> str:
        caplog.clear()
        args = DistillationConfig(output_dir=str(tmp_path), **SETTINGS, **settings)
        DistillationTrainer(tiny_model(seed=1), teacher_model=tiny_model(seed=2), args=args, train_dataset=rows)
        return caplog.text

    told = "both are taken to have the order of the data set, contradiction, entailment, neutral."
    assert told in make(of_others())
    names = ["LABEL_0", "LABEL_1", "LABEL_2"]
    assert not make(dataset(16)) and not make(of_others(), teacher_labels=names)


def test_labels_in_two_columns_are_refused(tmp_path: Path) -> None:
    rows = dataset(16)
    with pytest.raises(
        ValueError, match="have labels in labels and others in label, .* remove the column that is not"
    ):
        trainer_of(tmp_path, rows.add_column("label", [0] * 16)).train()
    # Equal ones are usual, and unused ones harm nobody.
    trainer_of(tmp_path, rows.add_column("label", rows["labels"][:])).train()
    trainer_of(tmp_path, rows.add_column("label", [0] * 16), alpha=1.0).train()


def test_what_the_first_teachers_logits_mean_is_nothing_to_later_stages() -> None:
    config = DynaBertKDConfig(output_dir="out", teacher_labels=list(THEIRS), use_cpu=True)
    labels = {stage: stage_config(config, stage).teacher_labels for stage in ("width", "depth", "finetune")}
    assert labels == {"width": list(THEIRS), "depth": None, "finetune": None}


def test_a_pruned_model_is_compared_with_a_teacher_of_the_same_labels() -> None:
    student = prune(named(OURS), [1, 1], [12, 12])
    generator = torch.Generator().manual_seed(0)
    ids = [torch.randint(3, 50, (8, 6), generator=generator) for _ in range(2)]
    batches = [{"input_ids": one, "attention_mask": torch.ones_like(one)} for one in ids]
    told = (
        "labels of the pruned model are entailment, .* those of the teacher contradiction, .* compares their predict"
    )
    with pytest.raises(ValueError, match=f"{told}.*Give the teacher with the student's order"):
        reconstruct(student, named(THEIRS), batches)
    with pytest.raises(ValueError, match=told):
        Pruner.prepared(student, batches, teacher=named(THEIRS))
    reconstruct(student, named(OURS), batches)
    reconstruct(student, tiny_model(), batches)  # without names there is no other order
    for ridge in (0.0, -1.0, float("nan")):
        with pytest.raises(ValueError, match="ridges must be above 0"):
            reconstruct(student, named(OURS), batches, ridges=(ridge,))
