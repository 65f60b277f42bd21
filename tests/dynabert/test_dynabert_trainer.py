"""DynaBERT's trainer: what it computes, and that it is the same however it is run."""

import copy
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
import torch.nn.functional as F
from helpers import PAD, Collator, StopAt, assert_same_run, dataset, go_on, tiny_model, training_log
from torch import Tensor
from transformers import AutoModelForSequenceClassification, PreTrainedModel, TrainerCallback

from bertkd import DynaBertKDConfig, DynaBertKDTrainer, losses
from bertkd.dynabert import Subnetwork, extract_subnetwork, make_adaptive, set_subnetwork
from bertkd.dynabert.supernet import current_subnetwork
from bertkd.models.adaptive import is_adaptive

SETTINGS = helpers.SETTINGS | {
    "learning_rate": 0.02,
    "width_mult_list": [0.5, 1.0],
    "depth_mult_list": [0.5, 1.0],
}
NAMES = {"width": ["w0.5_d1", "w1_d1"], "depth": ["w0.5_d0.5", "w0.5_d1", "w1_d0.5", "w1_d1"]}
NAMES["finetune"] = NAMES["depth"]


def make_trainer(
    output_dir: Path, stage: str = "depth", family: str = "bert", data: Any = None, num_labels: int = 3, **changes: Any
) -> DynaBertKDTrainer:
    args = DynaBertKDConfig(output_dir=str(output_dir), stage=stage, **{**SETTINGS, **changes})
    return DynaBertKDTrainer(
        model=tiny_model(family, layers=4, seed=1, num_labels=num_labels),
        teacher_model=None if stage == "finetune" else tiny_model(family, layers=4, seed=2, num_labels=num_labels),
        args=args,
        train_dataset=data if data is not None else dataset(44, labels=num_labels),
        eval_dataset=dataset(21, seed=4, labels=num_labels),
        data_collator=Collator(PAD[family]),
        compute_metrics=lambda given: {"mean": float(given.predictions.mean())},
    )


def batch() -> dict[str, Tensor]:
    return Collator()([dict(row) for row in dataset(16)])


# ---- what is computed ----


def expected_parts(trainer: DynaBertKDTrainer, inputs: dict[str, Tensor], label: str) -> dict[str, Tensor]:
    """The loss of one sub-network, from standalone models and the specification's index sets."""
    args = trainer.args
    width, size = trainer.subnetworks[label]
    student = extract_subnetwork(trainer.model, subnetwork=size)
    teacher = trainer.teacher_model
    if args.stage == "depth" and args.teacher_width == "same":
        teacher = extract_subnetwork(teacher, width=width)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    ours, theirs = (model(**given, output_hidden_states=True) for model in (student, teacher))
    levels = {(4, 1.0): [0, 1, 2, 3, 4], (4, 0.5): [0, 2, 4]}[4, float(label.split("_d")[1])]
    soft = -(theirs.logits.softmax(-1) * ours.logits.log_softmax(-1)).sum(-1).mean()
    mask, hidden = inputs["attention_mask"].bool(), torch.zeros(())
    for own, level in enumerate(levels):
        squared = (ours.hidden_states[own] - theirs.hidden_states[level]).square()
        hidden = hidden + torch.stack([row[keep].mean() for row, keep in zip(squared, mask, strict=True)]).mean()
    return {"kd_loss": args.lambda1 * soft, "hidden_loss": args.lambda2 * hidden}


@pytest.mark.parametrize("teacher_width", ["same", "full"])
@pytest.mark.parametrize("stage", ["width", "depth"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_gradients_are_those_of_separate_backward_passes(
    family: str, stage: str, teacher_width: str, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, stage, family, teacher_width=teacher_width)
    assert list(trainer.subnetworks) == NAMES[stage]
    inputs = Collator(PAD[family])([dict(row) for row in dataset(16)])
    trainer.create_optimizer()
    total = trainer.training_step(trainer.model, inputs)
    found = {name: p.grad.clone() for name, p in trainer.model.named_parameters() if p.grad is not None}
    trainer.model.zero_grad()
    trainer.model.eval()
    parts = trainer._window.averages(trainer.accelerator)
    losses_of = {}
    for label in NAMES[stage]:
        with torch.no_grad():
            expected = expected_parts(trainer, inputs, label)
        for name, value in expected.items():
            assert parts.pop(f"{name}_{label}") == pytest.approx(value.item(), rel=1e-4)
        losses_of[label] = sum(expected.values())
        # The gradient, by a pass of its own through the supernet.
        trainer._run_at(label)
        trainer._teacher_of_step = {}
        trainer.compute_loss(trainer.model, inputs).backward()
    trainer._run_at_full_size()
    assert not {name for name in parts if not name.endswith(tuple(NAMES[stage]))}
    assert total.item() == pytest.approx(sum(losses_of.values()).item(), rel=1e-4)
    wanted = {name: p.grad for name, p in trainer.model.named_parameters() if p.grad is not None}
    assert found.keys() == wanted.keys()
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-6)


def test_finetuning_uses_labels_alone(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "finetune")
    inputs = batch()
    trainer.create_optimizer()
    trainer.training_step(trainer.model, inputs)
    parts = trainer._window.averages(trainer.accelerator)
    assert set(parts) == {f"task_loss_{label}" for label in NAMES["finetune"]}
    small = extract_subnetwork(trainer.model.eval(), 0.5, 0.5)
    logits = small(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert parts["task_loss_w0.5_d0.5"] == pytest.approx(F.cross_entropy(logits, inputs["labels"]).item(), rel=1e-4)


def test_without_distillation_it_is_vanilla_dynabert(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "width", alpha=0.0)
    trainer.train()
    assert {name for name in training_log(trainer)[0] if "_w" in name} == {f"task_loss_{n}" for n in NAMES["width"]}


def test_regression_distils_the_logits(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "width", num_labels=1)
    inputs = Collator()([dict(row) for row in dataset(16, labels=1)])
    trainer.create_optimizer()
    trainer.training_step(trainer.model, inputs)
    parts = trainer._window.averages(trainer.accelerator)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    wanted = F.mse_loss(trainer.model.eval()(**given).logits, trainer.teacher_model(**given).logits)
    assert parts["kd_loss_w1_d1"] == pytest.approx(wanted.item(), rel=1e-4)
    assert trainer.model.classifier.weight.grad.abs().max() > 0


def test_the_teacher_runs_once_for_each_width(tmp_path: Path) -> None:
    for stage, width, runs in (("depth", "same", 2), ("depth", "full", 1), ("width", "same", 1)):
        trainer = make_trainer(tmp_path, stage, teacher_width=width)
        calls: list[int] = []
        trainer.teacher_model.register_forward_hook(lambda *_args, calls=calls: calls.append(1))
        trainer.create_optimizer()
        trainer.training_step(trainer.model, batch())
        assert len(calls) == runs


def test_the_word_embeddings_get_one_gradient_a_step(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    calls: list[int] = []
    trainer.model.bert.embeddings.word_embeddings.weight.register_hook(lambda _gradient: calls.append(1))
    trainer.create_optimizer()
    trainer.training_step(trainer.model, batch())
    assert len(calls) == 1


def test_gradients_are_clipped_once(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, max_grad_norm=1e-3, learning_rate=1.0, num_train_epochs=1, weight_decay=0.0)
    before = copy.deepcopy(trainer.model.state_dict())
    seen: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            now = trainer.model.state_dict()
            changes = [(now[name] - tensor).double().norm() ** 2 for name, tensor in before.items()]
            seen.append(torch.stack(changes).sum().sqrt().item())
            before.update(copy.deepcopy(now))

    trainer.add_callback(Watch())
    trainer.train()
    assert seen[0] == pytest.approx(1e-3, rel=1e-2)


def test_padding_can_count_as_in_the_authors_code(tmp_path: Path) -> None:
    inputs = batch()
    found = []
    for mask in (True, False):
        trainer = make_trainer(tmp_path, "width", mask_padding=mask)
        trainer.create_optimizer()
        trainer.training_step(trainer.model, inputs)
        found.append(trainer._window.averages(trainer.accelerator)["hidden_loss_w1_d1"])
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    models = (trainer.model.eval(), trainer.teacher_model)
    ours, theirs = (model(**given, output_hidden_states=True).hidden_states for model in models)
    plain = sum(F.mse_loss(a, b) for a, b in zip(ours, theirs, strict=True))
    assert found[1] == pytest.approx(0.1 * plain.item(), rel=1e-4)
    assert found[0] != pytest.approx(found[1], rel=1e-3)


# ---- promise 1 ----


@pytest.mark.parametrize("stage", ["width", "depth", "finetune"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_accumulation_changes_nothing(family: str, stage: str, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "a", stage, family)
    parts = make_trainer(tmp_path / "b", stage, family, per_device_train_batch_size=4, gradient_accumulation_steps=4)
    whole.train()
    parts.train()
    assert_same_run(whole, parts)


@pytest.mark.parametrize("stage", ["width", "depth", "finetune"])
def test_an_interrupted_and_resumed_stage_changes_nothing(stage: str, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "a", stage)
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 2}
    cut = make_trainer(tmp_path / "b", stage, **settings)
    cut.add_callback(StopAt(4))
    cut.train()
    resumed = make_trainer(tmp_path / "b", stage, **settings)
    go_on(resumed, steps=2)
    assert_same_run(whole, resumed)


# ---- evaluation and checkpoints ----


def test_evaluation_is_of_every_sub_network_and_their_mean(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    metrics = trainer.evaluate()
    for label in NAMES["depth"]:
        _, size = trainer.subnetworks[label]
        alone = make_trainer(tmp_path, "finetune", width_mult_list=[1.0], depth_mult_list=[1.0])
        alone.model = alone.model_wrapped = make_adaptive(extract_subnetwork(trainer.model, subnetwork=size))
        alone.subnetworks = {"w1_d1": (1.0, Subnetwork.of(alone.model))}
        for name, value in alone.evaluate().items():
            if name in ("eval_loss", "eval_mean"):
                assert metrics[f"{name}_{label}"] == pytest.approx(value, abs=1e-5)
    for name in ("eval_loss", "eval_mean"):
        each = [metrics[f"{name}_{label}"] for label in NAMES["depth"]]
        assert len(set(each)) == 4 and metrics[name] == pytest.approx(sum(each) / 4)


def test_predictions_are_of_the_size_that_is_set(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    full = trainer.predict(trainer.eval_dataset).predictions
    set_subnetwork(trainer.model, 0.5, 0.5)
    small = trainer.predict(trainer.eval_dataset).predictions
    alone = extract_subnetwork(trainer.model, 0.5, 0.5)
    rows = Collator()([dict(row) for row in trainer.eval_dataset])
    logits = alone(input_ids=rows["input_ids"], attention_mask=rows["attention_mask"]).logits.detach()
    torch.testing.assert_close(torch.tensor(small), logits, atol=1e-5, rtol=0)
    assert abs(full - small).max() > 1e-3


def test_evaluation_leaves_the_student_at_its_size(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    set_subnetwork(trainer.model, 0.5, 0.5)
    before = trainer.predict(trainer.eval_dataset).predictions
    trainer.evaluate()
    assert abs(trainer.predict(trainer.eval_dataset).predictions - before).max() == 0


def test_what_was_trained_in_mixed_precision_is_extracted_as_it_is(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, bf16=True, max_steps=1)
    trainer.train()
    assert "_original_forward" in vars(trainer.model), "mixed precision is left on the model"
    extracted = extract_subnetwork(trainer.model, 0.5, 0.5)
    assert {parameter.dtype for parameter in extracted.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("stage", "settings", "named"),
    [
        ("width", {"depth_lambda1": 0.5, "teacher_width": "full"}, {"depth_lambda1", "teacher_width"}),
        ("depth", {"width_lambda2": 0.5, "mask_padding": False}, {"width_lambda2"}),
        ("finetune", {"width_lambda2": 0.5, "mask_padding": False}, {"width_lambda2", "mask_padding"}),
    ],
)
def test_settings_of_another_stage_are_named(
    stage: str, settings: dict[str, Any], named: set[str], tmp_path: Path
) -> None:
    with pytest.warns(UserWarning, match="has no effect, because") as warned:
        make_trainer(tmp_path, stage, max_steps=1, **settings).train()
    found = {str(one.message).partition("=")[0] for one in warned if "has no effect" in str(one.message)}
    assert found - {"depth_mult_list"} == named

    shared = DynaBertKDConfig(output_dir=str(tmp_path), stage=stage, **{**SETTINGS, **settings})
    shared.is_one_of_several_stages = True
    assert not named & shared.without_effect().keys()


def test_the_best_checkpoint_is_chosen_by_the_mean(tmp_path: Path) -> None:
    trainer = make_trainer(
        tmp_path,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        num_train_epochs=3,
    )
    trainer.train()
    found = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(found) == 3 and trainer.state.best_metric == pytest.approx(min(found))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(min(found), rel=1e-5)


def test_what_is_saved_is_an_ordinary_model_of_full_size(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    trainer.save_model(str(tmp_path / "model"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    assert type(loaded).__name__ == "BertForSequenceClassification" and not is_adaptive(loaded)
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


@pytest.mark.parametrize("stage", ["width", "depth"])
def test_the_teacher_never_changes(stage: str, tmp_path: Path) -> None:
    teacher = tiny_model(layers=4, seed=2, dropout=0.5)
    before = copy.deepcopy(teacher.state_dict())
    args = DynaBertKDConfig(output_dir=str(tmp_path), stage=stage, **SETTINGS)
    model = tiny_model(layers=4, seed=1)
    trainer = DynaBertKDTrainer(
        model=model, teacher_model=teacher, args=args, train_dataset=dataset(44), data_collator=Collator()
    )
    trainer.train()
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())
    assert not is_adaptive(teacher) and not trainer.teacher_model.training
    if is_adaptive(trainer.teacher_model):
        assert current_subnetwork(trainer.teacher_model) == Subnetwork.of(trainer.teacher_model)
    assert trainer.model is model and is_adaptive(model)


def test_a_trained_sub_network_trains_on(tmp_path: Path) -> None:
    from bertkd import PatientKDConfig, PatientKDTrainer

    trainer = make_trainer(tmp_path / "supernet")
    trainer.train()
    small = extract_subnetwork(trainer.model, 0.5, 0.5)
    before = copy.deepcopy(small.state_dict())
    shared = {name: value for name, value in SETTINGS.items() if "mult" not in name}
    patient = PatientKDTrainer(
        model=small,
        teacher_model=tiny_model(layers=4, seed=2),
        args=PatientKDConfig(output_dir=str(tmp_path / "small"), **shared),
        train_dataset=dataset(44),
        data_collator=Collator(),
    )
    patient.train()
    assert any(not torch.equal(before[name], tensor) for name, tensor in small.state_dict().items())


# ---- what is refused ----


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "both"}, "stage must be one of width, depth, finetune"),
        ({"width_mult_list": [0.5, 0]}, r"width_mult_list .*\(0, 1\], not 0"),
        ({"depth_mult_list": [1.25]}, r"depth_mult_list .*\(0, 1\], not 1.25"),
        ({"width_mult_list": []}, "width_mult_list is empty"),
        ({"teacher_width": "half"}, "teacher_width must be one of same, full"),
        ({"width_lambda1": 0, "width_lambda2": 0}, "nor both be 0"),
        ({"stage": "depth", "depth_lambda2": -1}, "weights of stage depth must not be negative"),
        ({"teacher_cache_dir": "cache"}, "teacher_cache_dir cannot be used by DynaBERT"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DynaBertKDConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


def build(tmp_path: Path, student: PreTrainedModel, teacher: PreTrainedModel | None) -> DynaBertKDTrainer:
    args = DynaBertKDConfig(output_dir=str(tmp_path), **SETTINGS)
    return DynaBertKDTrainer(model=student, teacher_model=teacher, args=args, train_dataset=dataset(8))


def test_a_teacher_of_another_shape_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="student's num_hidden_layers is 4 and the teacher's 6"):
        build(tmp_path, tiny_model(layers=4), tiny_model(layers=6))
    with pytest.raises(ValueError, match="student's hidden_size is 16 and the teacher's 8"):
        build(tmp_path, tiny_model(layers=4), tiny_model(layers=4, hidden=8))
    with pytest.raises(ValueError, match="DynaBertKDTrainer needs a teacher_model"):
        build(tmp_path, tiny_model(layers=4), None)


# ---- the loss ----


def test_hidden_state_loss_by_hand() -> None:
    student = [torch.tensor([[[1.0, 2.0], [0.0, 0.0]], [[1.0, 1.0], [3.0, 5.0]]])] * 2
    teacher = [torch.zeros(2, 2, 2), torch.ones(2, 2, 2)]
    mask = torch.tensor([[1, 0], [1, 1]])
    # Squared differences per token: level 0: 2.5, 0, 1, 17; level 1: 0.5, 1, 0, 10.
    assert losses.hidden_state_loss(student, teacher).item() == pytest.approx(20.5 / 4 + 11.5 / 4)
    assert losses.hidden_state_loss(student, teacher, mask).item() == pytest.approx(20.5 / 3 + 10.5 / 3)
    by_rows = losses.hidden_state_loss(student, teacher, mask, reduction="rows")
    assert by_rows.item() == pytest.approx((2.5 + 9) / 2 + (0.5 + 5) / 2)


def test_hidden_state_loss_has_the_gradient_of_its_formula() -> None:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(2, 3, 4, generator=generator, dtype=torch.float32, requires_grad=True)
    teacher = torch.randn(2, 3, 4, generator=generator)
    losses.hidden_state_loss([student], [teacher]).backward()
    torch.testing.assert_close(student.grad, 2 * (student - teacher).detach() / 24)


def test_hidden_state_loss_refuses_what_does_not_fit() -> None:
    level = torch.zeros(1, 2, 3)
    with pytest.raises(ValueError, match="student has 1 levels and the teacher 2"):
        losses.hidden_state_loss([level], [level, level])
    with pytest.raises(ValueError, match="0 levels"):
        losses.hidden_state_loss([], [])
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and the teacher's \(1, 2, 4\)"):
        losses.hidden_state_loss([level], [torch.zeros(1, 2, 4)])
    with pytest.raises(ValueError, match='"mean" or "rows"'):
        losses.hidden_state_loss([level], [level], reduction="sum")
