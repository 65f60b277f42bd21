"""What users' own trainers, configs, labels, collators and data sets find: what works, and what is refused."""

import pickle
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from datasets.distributed import split_dataset_by_node
from helpers import SETTINGS, Collator, assert_same_run, dataset, rows, tiny_model, training_log, word_tokenizer
from torch import Tensor
from transformers import BertForQuestionAnswering, BertForTokenClassification, DataCollatorWithPadding

from bertkd import DistillationConfig, DistillationTrainer, PatientKDConfig, PatientKDTrainer, losses
from bertkd.distillation.labels import _CheckingCollator
from bertkd.distillation.resuming import _compared_settings
from bertkd.distillation.steps import OneStream
from bertkd.distillation.teacher_cache import ROW_COLUMN, with_rows
from bertkd.distillation.tokens import check_tokens
from bertkd.students import prune


def make_trainer(
    folder: Path,
    trainer_class: type[DistillationTrainer] = DistillationTrainer,
    config_class: type[DistillationConfig] = DistillationConfig,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    return trainer_class(
        **{
            "model": tiny_model(seed=1),
            "teacher_model": tiny_model(seed=2),
            "args": config_class(output_dir=str(folder), **{**SETTINGS, **settings}),
            "train_dataset": dataset(16),
            "eval_dataset": dataset(8),
            "data_collator": Collator(),
            **(arguments or {}),
        }
    )


# ---- trainers ----


def test_a_loss_of_ones_own_says_whether_it_is_weighed(tmp_path: Path) -> None:
    class Batch(DistillationTrainer):
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **more: Any) -> Any:
            loss = torch.nn.functional.cross_entropy(
                model(**{name: value for name, value in inputs.items() if name != "labels"}).logits, inputs["labels"]
            )
            return (loss, {"loss": loss}) if return_outputs else loss

    with pytest.raises(ValueError, match="Batch overrides compute_loss: override distillation_loss.*loss_is_scaled"):
        make_trainer(tmp_path, Batch)

    class Mean(Batch):
        compute_loss = Batch.compute_loss
        loss_is_scaled_for_ga = False

    plain = {"arguments": {"teacher_model": None}, "alpha": 0.0, "train_sampling_strategy": "sequential"}
    whole = make_trainer(tmp_path / "whole", Mean, **plain)
    spread = make_trainer(
        tmp_path / "spread", Mean, **plain, per_device_train_batch_size=4, gradient_accumulation_steps=4
    )
    whole.train()
    spread.train()
    assert_same_run(whole, spread)

    class Told(DistillationTrainer):
        loss_is_scaled_for_ga = False

    class Own(Told):
        compute_loss = Batch.compute_loss

    make_trainer(tmp_path, Own)


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        (lambda loss: loss, "gave a Tensor and not the parts of the loss by name"),
        (lambda loss: {}, "with one part at least"),
        (lambda loss: {"mine": 0.0}, "'mine', which is a float"),
        (lambda loss: {"mine": loss.expand(4)}, r"'mine', which is of the shape \(4,\): each part is one tensor"),
    ],
)
def test_the_parts_of_a_loss_are_named_means(parts: Any, says: str, tmp_path: Path) -> None:
    class Own(DistillationTrainer):
        def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> Any:
            return parts(student_outputs.logits.mean())

    with pytest.raises(ValueError, match=says):
        make_trainer(tmp_path, Own).train()


def test_a_loss_on_labels_may_read_hidden_states_and_modules_in_an_evaluation(tmp_path: Path) -> None:
    class Own(DistillationTrainer):
        def _set_up_method(self) -> None:
            super()._set_up_method()
            self.student_forward_kwargs = {"output_hidden_states": True}
            self.extra_modules["head"] = torch.nn.Linear(16, 3)

        def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
            logits = self.extra_modules["head"](student_outputs.hidden_states[-1][:, 0])
            return torch.nn.functional.cross_entropy(logits, inputs["labels"])

    trainer = make_trainer(tmp_path, Own)
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] != before


class CountedTrainer(DistillationTrainer):
    """Takes the first rows of a batch for its only ones, as a process does whose last batch was filled up."""

    counted = 3

    def _rows_not_filled_up(self, inputs: Any) -> int:
        return self.counted


def test_a_batch_that_was_filled_up_is_cut_in_whatever_a_loss_reads(tmp_path: Path) -> None:
    class Own(CountedTrainer):
        def _set_up_method(self) -> None:
            super()._set_up_method()
            self.student_forward_kwargs = {"output_hidden_states": True}

        def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
            assert student_outputs.attentions is None
            return (student_outputs.hidden_states[-1][:, 0, 0] - inputs["labels"]).square().mean()

    trainer, batch = make_trainer(tmp_path, Own), Collator()(rows(8))
    loss, *_ = trainer.prediction_step(trainer.model, batch, False)
    few = {name: tensor[:3] for name, tensor in batch.items()}
    torch.testing.assert_close(loss, trainer.prediction_step(trainer.model, few, False)[0])


def test_a_loss_that_a_model_computes_itself_leaves_rows_out_that_filled_up_a_batch(tmp_path: Path) -> None:
    model = BertForQuestionAnswering(tiny_model(num_labels=2).config).eval()
    trainer = make_trainer(tmp_path, CountedTrainer, arguments={"model": model, "teacher_model": None}, alpha=0.0)
    batch = {name: tensor for name, tensor in Collator()(rows(8)).items() if name != "labels"}
    batch |= {"start_positions": torch.arange(8) % 4, "end_positions": torch.arange(8) % 3}
    loss, predictions, _ = trainer.prediction_step(model, batch, False)
    expected = model(**{name: tensor[:3] for name, tensor in batch.items()}).loss
    torch.testing.assert_close(loss, expected.detach())
    assert len(predictions[0]) == 8


def test_a_column_that_all_rows_share_is_no_measure_of_a_batch(tmp_path: Path) -> None:
    class Positions(Collator):
        def __call__(self, features: list[dict[str, Any]]) -> dict[str, Tensor]:
            batch = super().__call__(features)
            return {"position_ids": torch.arange(batch["input_ids"].shape[1])[None], **batch}

    plain = make_trainer(tmp_path / "plain")
    shared = make_trainer(tmp_path / "shared", arguments={"data_collator": Positions()})
    assert shared.evaluate()["eval_loss"] == pytest.approx(plain.evaluate()["eval_loss"])
    plain.train()
    shared.train()
    assert_same_run(plain, shared)


def test_an_optimizer_of_ones_own_trains_the_projection_too(tmp_path: Path) -> None:
    class Own(PatientKDTrainer):
        def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
            self.optimizer = torch.optim.SGD(self.model.bert.parameters(), lr=0.1)
            return self.optimizer

    small = {"model": tiny_model(layers=2, hidden=8, seed=1), "teacher_model": tiny_model(layers=4, seed=2)}
    trainer = make_trainer(tmp_path, Own, PatientKDConfig, small, project_hidden=True)
    with pytest.raises(
        ValueError, match=r"projection: where a create_optimizer .* add self\.extra_modules\.parameters"
    ):
        trainer.train()

    class Both(PatientKDTrainer):
        def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
            trained = [*self.model.bert.parameters(), *self.extra_modules.parameters()]
            self.optimizer = torch.optim.SGD(trained, lr=0.1)
            return self.optimizer

    make_trainer(tmp_path, Both, PatientKDConfig, small, project_hidden=True).train()


def test_the_outputs_of_a_typed_teacher_forward_are_cached(tmp_path: Path) -> None:
    typed: dict[str, Any] = {}
    exec("def forward(self, inputs): return {'logits': self.teacher_model(**inputs).logits}", typed)
    own = type("Own", (DistillationTrainer,), {"teacher_forward": typed["forward"]})
    unlabeled = {"train_dataset": dataset(16).remove_columns("labels")}
    settings: dict[str, Any] = {"teacher_cache_dir": str(tmp_path / "cache"), "alpha": 1.0, "max_steps": 1}
    make_trainer(tmp_path, own, arguments=unlabeled, **settings).train()


# ---- labels ----


def test_answers_in_texts_are_distilled_and_evaluated_under_their_own_names(tmp_path: Path) -> None:
    class Answers(DistillationTrainer):
        needs_labels = compares_predictions = False

        def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, Tensor]:
            starts = losses.kd_kl(student_outputs.start_logits, teacher_outputs.start_logits, 2.0)
            return {"kd_loss": starts, "task_loss": student_outputs.loss}

    made = []
    for row in rows(16):
        labels = {"start_positions": 1, "end_positions": 2}
        made.append({**{name: row[name] for name in ("input_ids", "attention_mask")}, **labels})
    models = {
        "model": BertForQuestionAnswering(tiny_model(num_labels=2).config),
        "teacher_model": BertForQuestionAnswering(tiny_model(num_labels=2).config),
    }
    seen: list[Any] = []

    def metrics(prediction: Any) -> dict[str, float]:
        seen.append(prediction)
        return {"exact": 0.5}

    data = {"train_dataset": made, "eval_dataset": made, "compute_metrics": metrics}
    best = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = make_trainer(tmp_path, Answers, arguments=models | data, **best)
    trainer.train()
    evaluated = trainer.evaluate()
    starts, ends = seen[-1].label_ids
    assert evaluated["eval_exact"] == 0.5 and evaluated["eval_loss"] > 0
    assert set(starts.tolist()) == {1} and set(ends.tolist()) == {2} and len(seen[-1].predictions) == 2


def test_labels_of_tokens_are_put_into_the_students_order(tmp_path: Path) -> None:
    def model(names: tuple[str, ...], seed: int) -> Any:
        config = tiny_model(seed=seed).config
        config.id2label, config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
        torch.manual_seed(seed)
        return BertForTokenClassification(config).eval()

    teacher = model(("c", "a", "b"), 2)
    trainer = make_trainer(
        tmp_path,
        arguments={"model": model(("a", "b", "c"), 1), "teacher_model": teacher, "train_dataset": None},
    )
    inputs = {name: value for name, value in Collator()(rows(3)).items() if name != "labels"}
    with torch.no_grad():
        expected = teacher(**inputs).logits[..., [1, 2, 0]]
    torch.testing.assert_close(trainer._teacher_outputs(inputs).logits, expected)


def test_a_teacher_of_many_labels_is_refused(tmp_path: Path) -> None:
    teacher = tiny_model(problem_type="multi_label_classification")
    with pytest.raises(ValueError, match="not multi-label models: the teacher is one"):
        make_trainer(tmp_path, arguments={"teacher_model": teacher})


# ---- settings, students, collators and data sets ----


class Kind(Enum):
    ONE = "one"


@dataclass
class OwnConfig(DistillationConfig):
    prior: Path = Path("prior")
    kind: Kind = Kind.ONE
    weights: dict[int, float] = field(default_factory=lambda: {1: 0.5})


class OwnTrainer(DistillationTrainer):
    config_class = OwnConfig


def test_settings_of_any_type_are_kept_and_compared(tmp_path: Path) -> None:
    save = {"trainer_class": OwnTrainer, "config_class": OwnConfig, "save_strategy": "epoch"}
    make_trainer(tmp_path, **save, num_train_epochs=1).train()
    make_trainer(tmp_path, **save, num_train_epochs=2).train(resume_from_checkpoint=True)
    with pytest.raises(ValueError, match="prior was 'prior' and is 'other'"):
        make_trainer(tmp_path, **save, num_train_epochs=3, prior=Path("other")).train(resume_from_checkpoint=True)


def test_settings_are_compared_by_what_they_are_and_not_by_their_address(tmp_path: Path) -> None:
    values: dict[str, Any] = {"prior": make_trainer, "kind": Collator, "weights": {1: object()}}
    compared = _compared_settings(OwnConfig(str(tmp_path), **values))
    assert compared["prior"].endswith("test_subclasses.make_trainer") and compared["kind"] == "helpers.Collator"
    assert "weights" not in compared and "alpha" in compared


def test_a_student_in_half_precision_is_refused_where_it_would_be_trained(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, arguments={"model": tiny_model(seed=1).bfloat16()})
    trainer.evaluate()
    with pytest.raises(ValueError, match=r"weights are in bfloat16.*model\.float\(\).*bf16=True"):
        trainer.train()


def test_checkpoints_have_the_collators_tokenizer_without_its_truncation(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path)
    tokenizer(["w1 w2 w3"], truncation=True, max_length=3)
    # A torch data set, whose labels are checked batch by batch.
    data = torch.utils.data.Subset(rows(16), range(16))
    arguments = {"data_collator": DataCollatorWithPadding(tokenizer), "train_dataset": data}
    make_trainer(tmp_path / "run", arguments=arguments, save_strategy="epoch", num_train_epochs=1).train()
    (checkpoint,) = (tmp_path / "run").glob("checkpoint-*")
    assert '"truncation": null' in (checkpoint / "tokenizer.json").read_text()


def test_a_collator_that_checks_labels_can_be_sent_to_another_process() -> None:
    sent = pickle.loads(pickle.dumps(_CheckingCollator(Collator(pad=7), tiny_model().config)))
    assert sent.collator.padding["input_ids"] == 7 and sent.tokenizer is None


def test_rows_that_are_shown_as_tensors_are_so_with_a_cache_too(tmp_path: Path) -> None:
    def collate(examples: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.stack([example[name] for example in examples]) for name in examples[0]}

    equal = [
        {name: value[:5] if isinstance(value, list) else value for name, value in row.items()} for row in rows(16)
    ]
    shown = dataset(1).from_list([row for row in equal if len(row["input_ids"]) == 5]).with_format("torch")
    arguments = {"train_dataset": shown, "data_collator": collate}
    some = dataset(8).with_format("torch", ["input_ids"], output_all_columns=True)
    assert set(with_rows(some)[0]) == {"input_ids", "attention_mask", "labels", ROW_COLUMN}
    live = make_trainer(tmp_path / "live", arguments=arguments)
    cached = make_trainer(tmp_path / "cached", arguments=arguments, teacher_cache_dir=str(tmp_path / "cache"))
    live.train()
    cached.train()
    assert training_log(live) and shown.format["type"] == "torch"
    assert_same_run(live, cached)


def test_rows_that_are_too_long_for_a_pruned_student_are_refused(tmp_path: Path) -> None:
    long = [{"input_ids": [5] * 600, "attention_mask": [1] * 600, "labels": 1}]
    arguments = {"model": prune(tiny_model(seed=1), [1, 2], [12, 24]), "train_dataset": long}
    with pytest.raises(ValueError, match="has 600 tokens, and the student reads at most"):
        make_trainer(tmp_path, arguments=arguments).train()


@pytest.mark.parametrize("make", [list, Dataset.from_list])
def test_rows_of_several_texts_are_not_taken_for_one(make: Any) -> None:
    config = tiny_model().config
    for choices in ([[5] * 30, [6] * 20], [[5] * 30] * 2):
        check_tokens(make([{"input_ids": choices}] * 3), config)
    check_tokens([{"input_ids": torch.full((2, 30), 5)}], config)
    with pytest.raises(ValueError, match="Row 1 .* has 60 tokens"):
        check_tokens([{"input_ids": torch.full((1, length), 5)} for length in (30, 60)], config)
    with pytest.raises(ValueError, match="Row 0 .* has no tokens"):
        check_tokens(make([{"input_ids": []}] * 2), config)


def test_rows_to_evaluate_that_are_too_long_are_refused_before_the_training(tmp_path: Path) -> None:
    long = [{"input_ids": [5] * 600, "attention_mask": [1] * 600, "labels": 1}]
    trainer = make_trainer(tmp_path, arguments={"eval_dataset": long}, eval_strategy="epoch")
    with pytest.raises(ValueError, match=r"Row 0 of the evaluation set .* has 600 tokens, and the student reads at"):
        trainer.train()


def test_a_stream_that_is_split_already_is_refused_with_several_processes() -> None:
    stream = dataset(8).to_iterable_dataset()
    assert [row["labels"] for row in OneStream(stream)] == dataset(8)["labels"]
    with pytest.raises(ValueError, match=r"split by split_dataset_by_node.*give the whole stream"):
        OneStream(split_dataset_by_node(stream, rank=0, world_size=2))
