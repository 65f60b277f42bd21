"""TinyBERT's trainer: what it computes, that it is the same however it is run, and its projection's life."""

import copy
import json
from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
import torch.nn.functional as F
from helpers import PAD, Collator, StopAt, assert_same_run, dataset, go_on, tiny_model
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoModelForSequenceClassification, BertConfig, BertForPreTraining, BertModel

from bertkd import TinyBertKDConfig, TinyBertKDTrainer
from bertkd.models import FAMILIES, attention_scores, layer_sizes
from bertkd.students import SHAPES, Shape, factorize, prune, share_layers, small_student
from bertkd.tinybert import load_released

# What the released config.json holds.
PLAIN = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
)
SETTINGS = helpers.SETTINGS | {"learning_rate": 0.02}


def make_trainer(
    output_dir: Path,
    stage: str = "intermediate",
    family: str = "bert",
    hidden: int = 8,
    layers: int = 2,
    num_labels: int = 3,
    **changes: Any,
) -> TinyBertKDTrainer:
    models = {
        "model": tiny_model(family, layers=layers, hidden=hidden, seed=1, num_labels=num_labels),
        "teacher_model": tiny_model(family, layers=4, seed=2, dropout=0.5, num_labels=num_labels),
    }
    if stage == "general":  # before any task there are no heads
        models = {name: model.base_model for name, model in models.items()}
    torch.manual_seed(7)  # the projection's weights
    return TinyBertKDTrainer(
        **models,
        args=TinyBertKDConfig(output_dir=str(output_dir), stage=stage, **{**SETTINGS, **changes}),
        train_dataset=dataset(44, labels=num_labels),
        eval_dataset=dataset(21, seed=4, labels=num_labels),
        data_collator=Collator(PAD[family]),
    )


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("intermediate", {"temperature": 5.0, "kd_reduction": "mean"}),
        ("prediction", {"relative_states": True, "hidden_weight": 2.0, "projection": "per_level", "strategy": "top"}),
    ],
)
def test_settings_of_another_stage_are_named(stage: str, settings: dict[str, Any], tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="has no effect, because") as warned:
        make_trainer(tmp_path, stage, max_steps=1, **settings).train()
    found = {str(one.message).partition("=")[0] for one in warned if "has no effect" in str(one.message)}
    assert found == settings.keys()

    shared = TinyBertKDConfig(output_dir=str(tmp_path), stage=stage, **{**SETTINGS, **settings})
    shared.is_one_of_several_stages = True
    assert not settings.keys() & shared.without_effect().keys()


def batch(family: str = "bert", labels: int = 3) -> dict[str, Tensor]:
    return Collator(PAD[family])([dict(row) for row in dataset(16, labels=labels)])


def step(trainer: TinyBertKDTrainer, inputs: dict[str, Tensor]) -> dict[str, float]:
    """The logged parts of one training step."""
    with trainer._extra_modules_attached():
        trainer.create_optimizer()
        trainer.training_step(trainer.model, dict(inputs))
    return trainer._window.averages(trainer.accelerator)


# ---- what is computed ----


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("projection", ["shared", "per_level"])
@pytest.mark.parametrize("family", ["bert", "roberta", "electra", "distilbert", "mpnet"])
def test_the_losses_are_those_of_the_index_tables(
    family: str, projection: str, mask_padding: bool, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, family=family, projection=projection, mask_padding=mask_padding)
    inputs = batch(family)
    parts = step(trainer, inputs)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    found = []
    for model in (trainer.model.eval(), trainer.teacher_model):
        with attention_scores(model) as captured, torch.no_grad():
            found.append((model(**given, output_hidden_states=True).hidden_states, captured.scores))
    (ours, our_scores), (theirs, their_scores) = found
    modules = trainer.extra_modules["projection"]
    mask = inputs["attention_mask"].bool()

    def mean(squared: Tensor, keep: Tensor) -> Tensor:
        """Over each row's elements that are kept and then over rows; without masking over all elements."""
        if not mask_padding:
            return squared.mean()
        return torch.stack([row[kept].mean() for row, kept in zip(squared, keep, strict=True)]).mean()

    # 4 -> 2 layers: hidden levels 0:0, 1:2, 2:4; attention of (0-based) layers 0 <- 1 and 1 <- 3.
    def level(student: int, teacher: int) -> Tensor:
        linear = modules if projection == "shared" else modules[str(student)]
        return mean((linear(ours[student]) - theirs[teacher]).square(), mask)

    attention = torch.zeros(())
    for student, teacher in ((0, 1), (1, 3)):
        pair = [torch.where(s[i] <= -100, 0, s[i]) for s, i in ((our_scores, student), (their_scores, teacher))]
        squared = (pair[0] - pair[1]).square().permute(0, 2, 3, 1)
        attention = attention + mean(squared, mask[:, :, None] & mask[:, None, :])
    with torch.no_grad():
        assert parts["embedding_loss"] == pytest.approx(level(0, 0).item(), rel=1e-4)
        assert parts["hidden_loss"] == pytest.approx((level(1, 2) + level(2, 4)).item(), rel=1e-4)
        assert parts["attention_loss"] == pytest.approx(attention.item(), rel=1e-4)
    assert set(parts) == {"embedding_loss", "hidden_loss", "attention_loss"}


@pytest.mark.parametrize("mask_padding", [True, False])
def test_relative_losses_of_states_are_shares_of_the_teachers_variance(mask_padding: bool, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, relative_states=True, mask_padding=mask_padding)
    inputs = batch()
    parts = step(trainer, inputs)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        ours = trainer.model.eval()(**given, output_hidden_states=True).hidden_states
        theirs = trainer.teacher_model(**given, output_hidden_states=True).hidden_states
        mask = inputs["attention_mask"].bool() if mask_padding else torch.ones_like(inputs["attention_mask"]).bool()

        def level(student: int, teacher: int) -> float:
            projected, shares = trainer.extra_modules["projection"](ours[student]), []
            for state, goal, real in zip(projected, theirs[teacher], mask, strict=True):
                error = (state[real] - goal[real]).square().mean()
                shares.append((error / goal[real].var(correction=0)).item())
            return sum(shares) / len(shares)

        assert parts["embedding_loss"] == pytest.approx(level(0, 0), rel=1e-4)
        assert parts["hidden_loss"] == pytest.approx(level(1, 2) + level(2, 4), rel=1e-4)

    plain = step(make_trainer(tmp_path, mask_padding=mask_padding), inputs)
    assert plain["attention_loss"] == pytest.approx(parts["attention_loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("strategy", "layers", "pairs"),
    [
        ("uniform", 2, ((0, 0), (1, 2), (2, 4))),
        ("top", 3, ((0, 0), (1, 2), (2, 3), (3, 4))),
        ("bottom", 3, ((0, 0), (1, 1), (2, 2), (3, 3))),
        ("0:0,1:3", 2, ((0, 0), (1, 3))),
    ],
)
def test_levels_follow_the_map(strategy: str, layers: int, pairs: tuple, tmp_path: Path) -> None:
    assert make_trainer(tmp_path, layers=layers, strategy=strategy).layer_map.pairs == pairs


@pytest.mark.parametrize("reduction", ["batchmean", "mean"])
def test_stage_prediction_is_soft_cross_entropy_without_labels(reduction: str, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "prediction", kd_reduction=reduction)
    inputs = {name: value for name, value in batch().items() if name != "labels"}
    parts = step(trainer, inputs)
    ours, theirs = trainer.model.eval()(**inputs).logits, trainer.teacher_model(**inputs).logits
    wanted = -(theirs.softmax(-1) * ours.log_softmax(-1)).sum(-1).mean() / (3 if reduction == "mean" else 1)
    assert parts == {"kd_loss": pytest.approx(wanted.item(), rel=1e-4)}
    assert "projection" not in trainer.extra_modules


def test_a_regression_task_fits_the_teachers_logits(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, "prediction", num_labels=1)
    inputs = batch(labels=1)
    parts = step(trainer, inputs)
    given = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    wanted = F.mse_loss(trainer.model.eval()(**given).logits, trainer.teacher_model(**given).logits)
    assert parts == {"kd_loss": pytest.approx(wanted.item(), rel=1e-4)}


def test_parts_can_be_left_out(tmp_path: Path) -> None:
    for name in ("attention", "hidden", "embedding"):
        parts = step(make_trainer(tmp_path, **{f"{name}_weight": 0.0}), batch())
        assert set(parts) == {"attention_loss", "hidden_loss", "embedding_loss"} - {f"{name}_loss"}


def test_everything_but_pooler_and_head_learns(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, optim="adamw_torch", weight_decay=0.1)
    before = copy.deepcopy(trainer.model.state_dict())
    teacher = copy.deepcopy(trainer.teacher_model.state_dict())
    trainer.train()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(before[name], tensor) == name.startswith(("bert.pooler", "classifier")), name
    assert all(torch.equal(teacher[name], tensor) for name, tensor in trainer.teacher_model.state_dict().items())
    assert not trainer.teacher_model.training


def test_general_distillation_needs_no_head_and_no_labels(tmp_path: Path) -> None:
    sizes = {"vocab_size": 50, "num_attention_heads": 2, "intermediate_size": 24, "max_position_embeddings": 40}
    models = [
        BertModel(BertConfig(**sizes, hidden_size=hidden, num_hidden_layers=layers))
        for hidden, layers in ((8, 2), (16, 4))
    ]
    for name, model in zip(("student", "teacher"), models, strict=True):
        model.save_pretrained(tmp_path / name)
    trainer = TinyBertKDTrainer(
        model=str(tmp_path / "student"),
        teacher_model=str(tmp_path / "teacher"),
        args=TinyBertKDConfig(output_dir=str(tmp_path / "run"), stage="general", **SETTINGS),
        train_dataset=dataset(44).remove_columns("labels"),
        eval_dataset=dataset(8).remove_columns("labels"),
        data_collator=Collator(),
    )
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    trainer.save_model(str(tmp_path / "general"))
    tiny = AutoModelForSequenceClassification.from_pretrained(tmp_path / "general", num_labels=3)
    assert tiny.config.hidden_size == 8


def test_states_of_models_of_many_labels_are_compared(tmp_path: Path) -> None:
    models = [tiny_model(layers=layers, problem_type="multi_label_classification") for layers in (2, 4)]
    data = dataset(16).map(lambda row: {"labels": [1.0, 0.0, float(row["labels"] == 2)]}, remove_columns="labels")
    settings: dict[str, Any] = {"output_dir": str(tmp_path), "eval_strategy": "epoch", **SETTINGS}

    def make(stage: str) -> TinyBertKDTrainer:
        args = TinyBertKDConfig(stage=stage, **settings)
        return TinyBertKDTrainer(*models, args, train_dataset=data, eval_dataset=data, data_collator=Collator())

    make("intermediate").train()
    with pytest.raises(ValueError, match="not multi-label models: the student is one"):
        make("prediction")


def test_evaluation_is_the_stages_own_loss_and_is_not_logged_as_training(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, num_train_epochs=1, eval_strategy="steps", eval_steps=1)
    trainer.train()
    evaluated = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    plain = make_trainer(tmp_path / "plain", num_train_epochs=1)
    plain.train()
    assert_same_run(trainer, plain)
    assert evaluated[-1] == pytest.approx(trainer.evaluate()["eval_loss"], rel=1e-5) and evaluated[-1] < evaluated[0]


def test_nothing_of_a_step_is_kept_after_it(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    step(trainer, batch())
    assert trainer._captured is None


# ---- promise 1 ----


@pytest.mark.parametrize("stage", ["intermediate", "prediction"])
@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_accumulation_changes_nothing(family: str, stage: str, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "a", stage, family)
    small = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    parts = make_trainer(tmp_path / "b", stage, family, **small)
    whole.train()
    parts.train()
    assert_same_run(whole, parts)


@pytest.mark.parametrize("stage", ["general", "intermediate", "prediction"])
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


def test_gradient_checkpointing_changes_nothing(tmp_path: Path) -> None:
    plain, checkpointed = make_trainer(tmp_path / "a"), make_trainer(tmp_path / "b", gradient_checkpointing=True)
    plain.train()
    checkpointed.train()
    assert_same_run(plain, checkpointed)


# ---- the projection ----


@pytest.mark.parametrize("projection", ["shared", "per_level"])
def test_the_projection_is_trained_kept_for_the_next_stage_and_not_in_the_student(
    projection: str, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path / "a", projection=projection)
    before = copy.deepcopy(trainer.extra_modules.state_dict())
    assert len(before) == (2 if projection == "shared" else 6)
    trainer.train()
    after = trainer.extra_modules.state_dict()
    assert all(not torch.equal(before[name], tensor) for name, tensor in after.items())
    trainer.save_model(str(tmp_path / "student"))
    assert not [name for name in load_file(tmp_path / "student" / "model.safetensors") if "projection" in name]
    trainer.save_projection(tmp_path / "kept")
    following = make_trainer(tmp_path / "b", projection=projection, projection_from=str(tmp_path / "kept"))
    for name, tensor in following.extra_modules.state_dict().items():
        assert torch.equal(tensor, after[name])
    other = "per_level" if projection == "shared" else "shared"
    with pytest.raises(ValueError, match="does not fit: it has"):
        make_trainer(tmp_path / "c", projection=other, projection_from=str(tmp_path / "kept"))
    with pytest.raises(ValueError, match="no projection in .*nothing.*save_projection"):
        make_trainer(tmp_path / "c", projection_from=str(tmp_path / "nothing"))


def test_equal_sizes_need_no_projection(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, hidden=16, projection="none")
    trainer.train()
    assert not len(trainer.extra_modules) and trainer.save_projection(tmp_path) is None
    with pytest.raises(ValueError, match="hidden size is 8 and the teacher's 16.*shared or per_level"):
        make_trainer(tmp_path, projection="none")


# ---- what is refused ----


def test_different_heads_need_the_attention_loss_off(tmp_path: Path) -> None:
    models = {
        "model": tiny_model(layers=2, hidden=8, num_attention_heads=4),
        "teacher_model": tiny_model(layers=4),
        "train_dataset": dataset(8),
    }
    with pytest.raises(ValueError, match="Layer 1 of the student has 4 attention heads and layer 2 of the teacher 2"):
        TinyBertKDTrainer(**models, args=TinyBertKDConfig(output_dir=str(tmp_path), **SETTINGS))
    args = TinyBertKDConfig(output_dir=str(tmp_path), **SETTINGS, attention_weight=0)
    TinyBertKDTrainer(**models, args=args, data_collator=Collator()).train()


def test_a_uniform_map_needs_a_multiple(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"layers \(4\) is a multiple of the student's \(3\); give an explicit map"):
        make_trainer(tmp_path, layers=3)
    with pytest.raises(ValueError, match="out of range: the student has 2 layers and the teacher 4"):
        make_trainer(tmp_path, strategy="0:0,1:2,2:5")


def test_a_part_of_the_loss_without_levels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pair 0:0 of the embeddings, so that embedding_weight would count"):
        make_trainer(tmp_path, strategy="1:2,2:4")
    with pytest.raises(ValueError, match=r"no pair of layers, so that attention_weight would count for nothing"):
        make_trainer(tmp_path, strategy="0:0")
    with pytest.raises(ValueError, match=r"no layer of the student, so that hidden_weight would count for nothing"):
        make_trainer(tmp_path, strategy="0:0", attention_weight=0.0)
    make_trainer(tmp_path, strategy="1:2,2:4", embedding_weight=0.0)
    make_trainer(tmp_path, strategy="0:0", attention_weight=0.0, hidden_weight=0.0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"stage": "final"}, "stage must be one of general, intermediate, prediction"),
        ({"projection": "two"}, "projection must be one of shared, per_level, none"),
        ({"attention_weight": -1}, "must not be negative"),
        ({"attention_weight": 0, "hidden_weight": 0, "embedding_weight": 0}, "nor all be 0"),
        ({"teacher_cache_dir": "cache"}, "cannot be used by stage intermediate.*works for stage prediction"),
        ({"strategy": "middle"}, "Cannot read the layer map 'middle'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        TinyBertKDConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


# ---- students ----


def test_the_papers_shapes_have_the_papers_parameters() -> None:
    teacher = BertModel(BertConfig())
    sizes = {name: sum(p.numel() for p in small_student(teacher, name).parameters()) for name in SHAPES}
    assert sizes == {"TinyBERT4": 14_350_248, "TinyBERT6": 66_955_008}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_of_another_shape_learns_from_its_teacher(family: str, tmp_path: Path) -> None:
    teacher = tiny_model(family, layers=4)
    student = small_student(teacher, Shape(2, 8, 20))
    assert layer_sizes(student) == ((2, 2), (20, 20)) and type(student) is type(teacher)
    assert student.config.hidden_size == 8 and student.config.num_labels == 3 and teacher.config.hidden_size == 16
    TinyBertKDTrainer(
        model=student,
        teacher_model=teacher,
        args=TinyBertKDConfig(output_dir=str(tmp_path), **SETTINGS | {"num_train_epochs": 1}),
        train_dataset=dataset(16),
        data_collator=Collator(PAD[family]),
    ).train()
    assert layer_sizes(small_student(teacher, Shape(2, 9, 20, num_attention_heads=3))).heads == (3, 3)
    # What was made of a teacher's layers has no meaning in another shape.
    for changed in (prune(teacher, [1, 2, 2, 2], [24] * 4), factorize(teacher, ffn_rank=4), share_layers(teacher, 2)):
        student = small_student(changed, Shape(2, 8, 20))
        assert type(student) is type(teacher) and layer_sizes(student).neurons == (20, 20)
    with pytest.raises(ValueError, match="9 cannot be divided into 2 heads"):
        small_student(teacher, Shape(2, 9, 20))
    with pytest.raises(ValueError, match="Unknown shape 'TinyBERT5': give one of TinyBERT4, TinyBERT6"):
        small_student(teacher, "TinyBERT5")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("file", ["pytorch_model.bin", "model.safetensors"])
def test_a_released_checkpoint_is_loaded_with_its_projection(file: str, version: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    tiny = BertForPreTraining(tiny_model(layers=2, hidden=8).config)
    names = ["fit_dense"] if version == 1 else [f"fit_denses.{level}" for level in range(3)]
    fit = {
        f"{name}.{part}": torch.rand((16, 8) if part == "weight" else (16,))
        for name in names
        for part in ("weight", "bias")
    }
    state = {name: tensor.clone() for name, tensor in {**tiny.state_dict(), **fit}.items()}
    if file.endswith(".bin"):
        torch.save(state, tmp_path / file)
    else:
        save_file(state, tmp_path / file)
    config = {name: value for name, value in tiny.config.to_dict().items() if name in PLAIN}
    (tmp_path / "config.json").write_text(json.dumps({**config, "pre_trained": "", "training": ""}))
    if version == 2:  # fine-tuned on a task: its head reads other states than a stock model's
        tuned = {**state, "classifier.weight": torch.zeros(3, 8), "classifier.bias": torch.zeros(3)}
        (torch.save if file.endswith(".bin") else save_file)(tuned, tmp_path / file)
    model, projection = load_released(tmp_path, num_labels=3)
    assert model.config.num_labels == 3 and model.classifier.weight.abs().min() > 0
    with pytest.raises(ValueError, match=r"reads the ReLU of the pooled state, .* Train it on the task first"):
        load_released(tmp_path, num_labels=3, needs_head=True)
    for name, tensor in model.bert.state_dict().items():
        assert torch.equal(tensor, state[f"bert.{name}"])
    save_file(projection, tmp_path / "projection.safetensors")
    kind = "shared" if version == 1 else "per_level"
    start = {"projection": kind, "projection_from": str(tmp_path / "projection.safetensors")}
    loaded = make_trainer(tmp_path / "run", **start).extra_modules.state_dict()
    assert torch.equal(
        loaded["projection.weight" if version == 1 else "projection.2.weight"], fit[f"{names[-1]}.weight"]
    )
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))
    with pytest.raises(ValueError, match=r"lacks bert\.encoder\.layer\.2\."):
        load_released(tmp_path)
    with pytest.raises(ValueError, match="is no TinyBERT checkpoint"):
        load_released(tmp_path / "nothing")
