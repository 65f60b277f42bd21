"""No setting is ignored: not one that changes after the trainer was made, nor one that a checkpoint has otherwise."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import SETTINGS, Collator, StopAt, assert_same_run, dataset, go_on, tiny_model, word_tokenizer
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, set_seed
from transformers.trainer_utils import HPSearchBackend

from bertkd import (
    DistilBertKDConfig,
    DistilBertKDTrainer,
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    DynaBertKDTrainer,
    PatientKDConfig,
    PatientKDTrainer,
    TinyBertKDConfig,
    TinyBertKDTrainer,
)
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.models.adaptive import is_adaptive
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer

TRAINERS: dict[type, Any] = {
    DistillationConfig: DistillationTrainer,
    PatientKDConfig: PatientKDTrainer,
    TinyBertKDConfig: TinyBertKDTrainer,
    DynaBertKDConfig: DynaBertKDTrainer,
}


def make_trainer(folder: Path, config_class: Any, student: Any = None, teacher: Any = None, **settings: Any) -> Any:
    return TRAINERS[config_class](
        model=tiny_model(layers=2, seed=1) if student is None else student,
        teacher_model=tiny_model(layers=2, seed=2) if teacher is None else teacher,
        args=config_class(output_dir=str(folder), **{**SETTINGS, "per_device_train_batch_size": 8, **settings}),
        train_dataset=dataset(16, pairs=True),
        data_collator=Collator(),
    )


@pytest.mark.parametrize(
    ("config_class", "before", "after"),
    [
        (PatientKDConfig, {"beta": 0.0}, {"beta": 10.0}),
        (PatientKDConfig, {"strategy": "1:1"}, {"strategy": "1:2"}),
        (PatientKDConfig, {"beta": 10.0}, {"beta": 0.0}),
        (TinyBertKDConfig, {"stage": "prediction"}, {"stage": "intermediate"}),
        (TinyBertKDConfig, {"stage": "intermediate"}, {"stage": "prediction"}),
        (DynaBertKDConfig, {"width_mult_list": [0.5]}, {"width_mult_list": [0.5, 1.0]}),
        (DistillationConfig, {"temperature": 1.0}, {"temperature": 5.0}),
    ],
)
def test_settings_changed_after_the_trainer_was_made_count(
    config_class: Any, before: dict[str, Any], after: dict[str, Any], tmp_path: Path
) -> None:
    expected = make_trainer(tmp_path, config_class, **after)
    expected.train()
    changed = make_trainer(tmp_path, config_class, **before)
    for name, value in after.items():
        setattr(changed.args, name, value)
    # The trainer sets it when it is made, before a projection is drawn.
    set_seed(changed.args.seed)
    changed.train()
    assert_same_run(expected, changed)


def test_masks_follow_settings_that_change(tmp_path: Path) -> None:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    model = BertForMaskedLM(BertConfig(vocab_size=50, **sizes))
    trainer = DistilBertKDTrainer(
        model=model,
        args=DistilBertKDConfig(output_dir=str(tmp_path), **{**SETTINGS, "alpha_ce": 0.0, "alpha_cos": 0.0}),
        train_dataset=dataset(16).remove_columns("labels"),
        processing_class=word_tokenizer(tmp_path),
    )
    trainer.args.mlm_probability = 0.9
    trainer.train()
    ids = torch.full((4, 10), 20)
    _, labels = trainer._masking(ids, torch.ones_like(ids), 0)
    assert (labels != -100).float().mean() > 0.8


def test_a_trained_projection_stays_where_it_fits(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, TinyBertKDConfig, student=tiny_model(layers=2, hidden=8))
    trainer.train()
    weight = trainer.extra_modules["projection"].weight
    trainer.args.attention_weight = 0.5
    trainer.train()
    assert trainer.extra_modules["projection"].weight is weight


def test_a_trial_of_a_search_trains_its_own_layer_map(tmp_path: Path) -> None:
    trainer = PatientKDTrainer(
        model_init=lambda: tiny_model(layers=3),
        teacher_model=tiny_model(layers=4, seed=2),
        args=PatientKDConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=dataset(16),
        data_collator=Collator(),
    )
    assert trainer.layer_map.spec == "1:1,2:2"
    trainer.hp_search_backend = HPSearchBackend.RAY
    trainer._hp_search_setup({"strategy": "last"})
    assert trainer.layer_map.spec == "1:2,2:3"
    assert trainer.teacher_forward_kwargs == {"output_hidden_states": [2, 3]}


def test_an_optimizer_made_early_trains_the_projection(tmp_path: Path) -> None:
    expected = make_trainer(tmp_path, PatientKDConfig, student=tiny_model(hidden=8, seed=1), project_hidden=True)
    expected.train()
    early = make_trainer(tmp_path, PatientKDConfig, student=tiny_model(hidden=8, seed=1), project_hidden=True)
    early.create_optimizer()
    assert not hasattr(early.model, "distillation_modules")
    early.train()
    assert_same_run(expected, early)


def test_an_optimizer_that_is_given_may_train_the_projection(tmp_path: Path) -> None:
    student = tiny_model(hidden=8, seed=1)
    trainer = PatientKDTrainer(
        model=student,
        teacher_model=tiny_model(seed=2),
        args=PatientKDConfig(output_dir=str(tmp_path), **{**SETTINGS, "project_hidden": True}),
        train_dataset=dataset(16),
        data_collator=Collator(),
        optimizers=(torch.optim.SGD(student.parameters(), lr=0.1), None),
    )
    before = trainer.extra_modules["projection"].weight.detach().clone()
    trainer.optimizer.add_param_group({"params": list(trainer.extra_modules.parameters())})
    trainer.train()
    assert not torch.equal(before, trainer.extra_modules["projection"].weight)


def test_a_users_trainer_may_have_settings_of_its_own(tmp_path: Path) -> None:
    class MyTrainer(DistillationTrainer):
        pass

    trainer = MyTrainer(
        model=tiny_model(),
        teacher_model=tiny_model(seed=1),
        args=PatientKDConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=dataset(8),
        data_collator=Collator(),
    )
    trainer.train()


# ---- checkpoints ----


def interrupted(folder: Path) -> Path:
    trainer = make_trainer(folder, DistillationConfig, save_strategy="steps", save_steps=1)
    trainer.add_callback(StopAt(2))
    trainer.train()
    return folder / "checkpoint-2"


def test_a_checkpoint_keeps_the_settings(tmp_path: Path) -> None:
    checkpoint = interrupted(tmp_path)
    settings = json.loads((checkpoint / "distillation_settings.json").read_text())
    assert settings["alpha"] == 0.5 and settings["temperature"] == 2.0
    assert "learning_rate" not in settings


def test_a_checkpoint_without_settings_is_of_an_earlier_version(tmp_path: Path) -> None:
    checkpoint = interrupted(tmp_path)
    (checkpoint / "distillation_settings.json").unlink()
    trainer = make_trainer(tmp_path, DistillationConfig)
    go_on(trainer, steps=2, checkpoint=str(checkpoint))
    assert trainer.state.global_step == 4


def test_the_checkpoint_before_a_damaged_one_is_taken_with_a_warning(tmp_path: Path) -> None:
    checkpoint = interrupted(tmp_path)
    (checkpoint / "optimizer.pt").write_bytes(b"")
    with pytest.warns(UserWarning, match="checkpoint-2 has a damaged optimizer.pt: it is passed over"):
        assert last_checkpoint(tmp_path, with_optimizer=True, tells=True) == str(tmp_path / "checkpoint-1")
    # Of two processes, the second one may have been killed before it wrote its own file.
    shutil.copy(tmp_path / "checkpoint-1" / "rng_state.pth", tmp_path / "checkpoint-1" / "rng_state_0.pth")
    with pytest.warns(UserWarning, match="checkpoint-1 has no rng_state_1.pth: it is passed over"):
        assert last_checkpoint(tmp_path, with_optimizer=True, tells=True, processes=2) is None
    # Its weights are whole, and enough for a run that had finished.
    assert last_checkpoint(tmp_path) == str(checkpoint)


def test_checkpoints_of_weights_alone_can_be_resumed_where_they_were_asked_for(tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "save_only_model": True}
    trainer = make_trainer(tmp_path, DistillationConfig, **settings)
    trainer.add_callback(StopAt(2))
    trainer.train()
    resumed = make_trainer(tmp_path, DistillationConfig, **settings)
    with pytest.warns(UserWarning, match="has the weights alone .*: optimizer and learning rate begin anew"):
        go_on(resumed, steps=2)
    assert resumed.state.global_step == 4


@pytest.mark.parametrize("save_only_model", [True, False])
def test_a_checkpoint_of_another_student_is_refused(save_only_model: bool, tmp_path: Path) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "save_only_model": save_only_model}
    make_trainer(tmp_path, DistillationConfig, **settings).train()
    deeper = make_trainer(tmp_path, DistillationConfig, tiny_model(layers=3, seed=1), **settings)
    with pytest.raises(ValueError, match=r"one of another model .* it lacks bert\.encoder\.layer\.2\..* and 13 more"):
        deeper.train(resume_from_checkpoint=True)
    flatter = make_trainer(tmp_path, DistillationConfig, tiny_model(layers=1, seed=1), **settings)
    with pytest.raises(ValueError, match=r"it has bert\.encoder\.layer\.1\..* for which there is no place"):
        flatter.train(resume_from_checkpoint=True)


def test_a_student_of_a_file_with_older_names_loads_its_checkpoints(tmp_path: Path) -> None:
    """bert-base-uncased calls the weights of its norms gamma and beta, and transformers saves them so again."""
    model = tiny_model(layers=2, seed=1)
    model.save_pretrained(tmp_path / "old")
    older = {}
    for name, tensor in load_file(tmp_path / "old" / "model.safetensors").items():
        older[name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")] = tensor
    save_file(older, tmp_path / "old" / "model.safetensors", metadata={"format": "pt"})

    settings = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    for name in ("model", "path"):
        student = BertForSequenceClassification.from_pretrained(tmp_path / "old") if name == "model" else None
        trainer = DistillationTrainer(
            model=student if student is not None else str(tmp_path / "old"),
            args=DistillationConfig(output_dir=str(tmp_path / name), alpha=0.0, **{**SETTINGS, **settings}),
            train_dataset=dataset(16),
            eval_dataset=dataset(8),
            data_collator=Collator(),
        )
        trainer.train()
        saved = load_file(Path(trainer.state.best_model_checkpoint) / "model.safetensors")
        assert torch.equal(saved["bert.embeddings.LayerNorm.weight"], trainer.model.bert.embeddings.LayerNorm.weight)


def test_a_second_training_has_an_optimizer_of_its_own(tmp_path: Path) -> None:
    twice = make_trainer(tmp_path, DistillationConfig, optim="adamw_torch", learning_rate=1e-3)
    twice.train()
    twice.args.learning_rate = 1e-2
    once = make_trainer(tmp_path, DistillationConfig, optim="adamw_torch", learning_rate=1e-2)
    once.model.load_state_dict(twice.model.state_dict())
    for trainer in (twice, once):
        trainer.train()
    assert_same_run(twice, once)

    # One that was given stays.
    trainer = make_trainer(tmp_path, DistillationConfig)
    given = trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    for _ in range(2):
        trainer.train()
        assert trainer.optimizer.optimizer is given
    # So does one that is given, or made, between two trainings.
    trainer = make_trainer(tmp_path, DistillationConfig)
    trainer.train()
    given = trainer.optimizer = torch.optim.SGD(trainer.model.parameters(), lr=0.1)
    trainer.train()
    assert trainer.optimizer.optimizer is given
    trainer.optimizer = None
    made = trainer.create_optimizer()
    trainer.train()
    assert trainer.optimizer.optimizer is made


def test_embeddings_that_are_no_longer_frozen_are_trained(tmp_path: Path) -> None:
    trainer = PrunedKDTrainer(
        model=tiny_model(seed=1),
        teacher_model=tiny_model(seed=2),
        args=PrunedKDConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=dataset(16, pairs=True),
        data_collator=Collator(),
    )
    words = trainer.model.bert.embeddings.word_embeddings.weight
    start = words.detach().clone()
    trainer.train()
    assert torch.equal(words, start)
    trainer.args.freeze_embeddings = False
    trainer.train()
    assert not torch.equal(words, start)


def test_a_model_is_saved_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(tmp_path / "run", DistillationConfig)
    trainer.save_model(tmp_path / "student")
    before = {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}

    def cut(path: Any, *_: Any, **__: Any) -> None:
        Path(path, "model.safetensors").write_bytes(b"cut")
        raise OSError("killed")

    monkeypatch.setattr(trainer.model, "save_pretrained", cut)
    with pytest.raises(OSError, match="killed"):
        trainer.save_model(tmp_path / "student")
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "student").iterdir()}


def test_an_ordinary_model_that_is_made_anew_becomes_a_supernet(tmp_path: Path) -> None:
    trainer = DynaBertKDTrainer(
        model_init=lambda: tiny_model(layers=2, seed=1),
        teacher_model=tiny_model(layers=2, seed=2),
        args=DynaBertKDConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=dataset(16),
        data_collator=Collator(),
    )
    trainer.train()
    assert trainer.state.global_step == 2 and is_adaptive(trainer.model)


@pytest.mark.parametrize(
    ("config_class", "settings", "named"),
    [
        (
            TinyBertKDConfig,
            {"hidden_weight": 0.0, "embedding_weight": 0.0, "relative_states": True},
            "relative_states",
        ),
        (DynaBertKDConfig, {"width_lambda1": 0.0, "temperature": 4.0}, "temperature"),
        (DistilBertKDConfig, {"alpha_cos": 0.0, "project_hidden": True}, "project_hidden"),
    ],
)
def test_settings_of_a_part_without_weight_are_named(
    config_class: Any, settings: dict[str, Any], named: str, tmp_path: Path
) -> None:
    assert named in config_class(output_dir=str(tmp_path), **settings).without_effect()
    others = {name: value for name, value in settings.items() if name == named}
    assert named not in config_class(output_dir=str(tmp_path), **others).without_effect()


# ---- wrapped models ----


class Adapter(nn.Module):
    """Stands for the tuner inside of a PEFT model."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class PeftLike(nn.Module):
    """Behaves like a model of PEFT: its forward pass names no input, and it gives the model inside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.base_model = Adapter(model)
        self.config = model.config

    def get_base_model(self) -> Any:
        return self.base_model.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.base_model(*args, **kwargs)


WRAPPERS = {
    "peft": PeftLike,
    "compiled": lambda model: torch.compile(model, backend="eager"),
    "parallel": nn.DataParallel,
}


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("config_class", [DistillationConfig, PatientKDConfig, TinyBertKDConfig, DynaBertKDConfig])
def test_a_wrapped_teacher_teaches_what_the_model_inside_does(config_class: Any, wrapper: str, tmp_path: Path) -> None:
    plain = make_trainer(tmp_path, config_class, max_steps=1)
    plain.train()
    wrapped = make_trainer(tmp_path, config_class, teacher=WRAPPERS[wrapper](tiny_model(seed=2)), max_steps=1)
    wrapped.train()
    assert_same_run(plain, wrapped)


def test_a_model_with_prompts_is_no_teacher_and_no_student(tmp_path: Path) -> None:
    prompted = PeftLike(tiny_model(seed=2))
    prompted.active_peft_config = SimpleNamespace(is_prompt_learning=True)
    for place in ("teacher", "student"):
        with pytest.raises(ValueError, match="has prompts or prefixes of PEFT, without which it gives other answers"):
            make_trainer(tmp_path, DistillationConfig, **{place: prompted})


@pytest.mark.parametrize("config_class", [DistillationConfig, PatientKDConfig, TinyBertKDConfig])
def test_an_adapted_student_learns_as_the_model_inside(config_class: Any, tmp_path: Path) -> None:
    plain = make_trainer(tmp_path, config_class)
    plain.train()
    adapted = make_trainer(tmp_path, config_class, student=PeftLike(tiny_model(seed=1)))
    adapted.train()
    assert_same_run(plain, adapted)
