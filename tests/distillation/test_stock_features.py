"""What transformers.Trainer offers goes well with a distillation, or is refused in a sentence."""

import copy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from helpers import SETTINGS, Collator, StopAt, dataset, tiny_model
from torch import Tensor, nn
from torch.utils.data import IterableDataset
from transformers import Trainer
from transformers.integrations import integration_utils
from transformers.trainer_pt_utils import LayerWiseDummyOptimizer
from transformers.trainer_utils import HPSearchBackend

from bertkd import (
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    DynaBertKDTrainer,
    PatientKDConfig,
    PatientKDTrainer,
    TinyBertKDConfig,
    TinyBertKDTrainer,
)
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer

TRAINERS: dict[type, Any] = {
    DistillationConfig: DistillationTrainer,
    DynaBertKDConfig: DynaBertKDTrainer,
    PatientKDConfig: PatientKDTrainer,
    PrunedKDConfig: PrunedKDTrainer,
    TinyBertKDConfig: TinyBertKDTrainer,
}


def make_trainer(
    folder: Path, config_class: type = DistillationConfig, trainer_class: Any = None, hidden: int = 16, **changes: Any
) -> Any:
    more = {name: changes.pop(name) for name in ("model_init", "train_dataset", "compute_metrics") if name in changes}
    given = {"model": tiny_model(hidden=hidden, seed=1)} if "model_init" not in more else {}
    return (trainer_class or TRAINERS[config_class])(
        teacher_model=tiny_model(seed=2),
        args=config_class(output_dir=str(folder), **{**SETTINGS, **changes}),
        data_collator=Collator(),
        **{"train_dataset": dataset(32), "eval_dataset": dataset(20, seed=4), **given, **more},
    )


# ---- searches ----


@pytest.fixture
def search_service(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands for the service whose trials are dicts."""
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: True)
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(run=SimpleNamespace(id="1")))


@pytest.mark.usefixtures("search_service")
def test_a_search_that_takes_the_model_away_can_go_on(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, model_init=lambda: tiny_model(seed=1))
    trainer.hp_search_backend = HPSearchBackend.WANDB
    for _ in range(2):
        trainer.model = None
        assert trainer.train(trial={"temperature": 3.0}).global_step == 4
    assert trainer.args.temperature == 3.0
    trainer.model = trainer.hp_search_backend = None
    assert trainer.train().global_step == 4


@pytest.mark.usefixtures("search_service")
def test_the_cache_of_a_trial_is_that_of_its_own_settings(tmp_path: Path) -> None:
    settings = {"teacher_cache_dir": str(tmp_path / "cache"), "beta": 10.0}
    trainer = make_trainer(
        tmp_path / "run", PatientKDConfig, strategy="1:1", model_init=lambda: tiny_model(seed=1), **settings
    )
    trainer.hp_search_backend = HPSearchBackend.WANDB
    assert trainer.train(trial={"strategy": "1:2"}).global_step == 4
    cached = trainer.model.state_dict()

    expected = make_trainer(tmp_path / "live", PatientKDConfig, strategy="1:2", beta=10.0)
    expected.train()
    for name, weight in expected.model.state_dict().items():
        torch.testing.assert_close(cached[name], weight, rtol=1e-4, atol=1e-5)


def test_a_student_that_is_made_anew_is_checked_too(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="The student is wrapped in DataParallel: give the model itself"):
        make_trainer(tmp_path, model_init=lambda: nn.DataParallel(tiny_model()))


def test_a_search_over_sub_networks_is_for_their_mean_and_a_loss_is_minimized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = DynaBertKDConfig(str(tmp_path), use_cpu=True, metric_for_best_model="eval_loss_w0.5_d1")
    assert args.greater_is_better is False
    assert DynaBertKDConfig(str(tmp_path), use_cpu=True, metric_for_best_model="accuracy_w0.5_d1").greater_is_better

    def metrics(_given: Any) -> dict[str, Any]:
        return {"accuracy": 0.5, "by_class": [0.1, 0.9], "nothing": None}

    trainer = make_trainer(
        tmp_path, DynaBertKDConfig, compute_metrics=metrics, stage="width", width_mult_list=[0.5, 1.0]
    )
    found = trainer.evaluate()
    assert found["eval_accuracy"] == 0.5 and "eval_by_class" not in found and "eval_nothing" not in found
    assert found["eval_by_class_w0.5_d1"] == [0.1, 0.9]
    numbers = {name: value for name, value in found.items() if name.startswith(("eval_loss", "eval_accuracy"))}
    assert len(numbers) == 6

    objectives: list[Any] = []
    monkeypatch.setattr(
        Trainer, "hyperparameter_search", lambda _self, _space, objective, **_: objectives.append(objective)
    )
    trainer.hyperparameter_search(direction="maximize")
    assert [objective(numbers) for objective in objectives] == [0.5]


# ---- batches ----


@pytest.mark.parametrize("name", ["split_batches", "dispatch_batches"])
def test_ways_to_spread_rows_that_would_lose_some_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="accelerator_config: split_batches and dispatch_batches.*Leave both out"):
        make_trainer(tmp_path, accelerator_config={name: True})


def test_a_batch_size_that_was_found_counts_when_a_run_goes_on(tmp_path: Path) -> None:
    stopped = make_trainer(tmp_path, per_device_train_batch_size=8, save_strategy="steps", save_steps=5)
    stopped.add_callback(StopAt(5))
    stopped.train()
    # Of 16 rows, the whole training would have four steps; 8 were found to fit.
    resumed = make_trainer(tmp_path, auto_find_batch_size=True)
    assert resumed.train(resume_from_checkpoint=True).global_step == 8
    assert resumed.args.per_device_train_batch_size == 16


class LongStream(IterableDataset):
    def __init__(self) -> None:
        self.rows = dataset(32)

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.rows)


def test_a_stream_that_knows_its_length_has_no_numbered_rows(tmp_path: Path) -> None:
    assert make_trainer(tmp_path, train_dataset=LongStream()).train().global_step == 4
    by_tokens = make_trainer(
        tmp_path, train_dataset=LongStream(), max_tokens_per_batch=64, train_sampling_strategy="group_by_length"
    )
    with pytest.raises(ValueError, match="max_tokens_per_batch cannot cut a stream into batches"):
        by_tokens.train()
    with pytest.raises(ValueError, match="teacher_cache_dir needs a training set with a length"):
        make_trainer(tmp_path, train_dataset=LongStream(), teacher_cache_dir=str(tmp_path / "cache")).train()
    with pytest.raises(ValueError, match="auto_find_batch_size has no effect on batches of max_tokens_per_batch"):
        make_trainer(
            tmp_path,
            max_tokens_per_batch=64,
            train_sampling_strategy="group_by_length",
            auto_find_batch_size=True,
        )


# ---- a training ----


def test_embeddings_thaw_although_settings_changed(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, PrunedKDConfig)
    trainer.args.temperature = 7.0
    trainer.train()
    assert all(parameter.requires_grad for parameter in trainer.model.parameters())


def test_what_settings_add_is_wrapped_anew(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    trainer.train()
    # As after a training of several processes, whose wrapper knows the parameters of that one.
    trainer.model_wrapped = nn.Linear(1, 1)
    trainer.args.temperature = 7.0
    trainer.train()
    assert trainer.model_wrapped is trainer.model


@pytest.mark.parametrize("splits", ["fsdp", "zero3"])
def test_a_model_that_is_split_over_processes_is_refused(
    splits: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def launched(trainer: Any) -> None:
        original(trainer)
        if splits == "fsdp":
            trainer.is_fsdp_enabled = True
        else:
            trainer.is_deepspeed_enabled = True
            trainer.accelerator.state = SimpleNamespace(deepspeed_plugin=SimpleNamespace(zero_stage=3))

    original = Trainer.create_accelerator_and_postprocess
    monkeypatch.setattr(Trainer, "create_accelerator_and_postprocess", launched)
    with pytest.raises(ValueError, match="FSDP and DeepSpeed's ZeRO-3 split a model over GPUs"):
        make_trainer(tmp_path)


class TwicePassed(DistillationTrainer):
    """Adds what two passes over the same rows differ by, as R-Drop does."""

    def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, Tensor]:
        parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
        again = self.model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"])
        parts["twice_loss"] = (student_outputs.logits - again.logits).pow(2).mean()
        return parts


def test_a_loss_may_run_the_student_once_more(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, trainer_class=TwicePassed)
    trainer.train()
    assert trainer.state.log_history[0]["twice_loss"] == pytest.approx(0.0, abs=1e-9)


def test_a_layer_wise_optimizer_is_seen_to_train_the_student(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.1) for parameter in trainer.model.parameters()}
    trainer._check_optimizer(LayerWiseDummyOptimizer(optimizer_dict=optimizers))
    stranger = nn.Linear(1, 1)
    optimizers = {parameter: torch.optim.SGD([parameter], lr=0.1) for parameter in stranger.parameters()}
    with pytest.raises(ValueError, match="trains none of the student's weights"):
        trainer._check_optimizer(LayerWiseDummyOptimizer(optimizer_dict=optimizers))


def test_a_finished_run_without_its_best_checkpoint_is_refused(tmp_path: Path) -> None:
    settings = {"save_strategy": "epoch", "eval_strategy": "epoch", "load_best_model_at_end": True}
    done = make_trainer(tmp_path, **settings)
    done.train()
    done.state.best_model_checkpoint = str(tmp_path / "checkpoint-2")
    done.state.save_to_json(str(tmp_path / "checkpoint-4" / "trainer_state.json"))
    shutil.rmtree(tmp_path / "checkpoint-2")
    with pytest.raises(
        ValueError, match="has finished, and the checkpoint of its best step, checkpoint-2, is missing"
    ):
        make_trainer(tmp_path, **settings).train(resume_from_checkpoint=True)


@pytest.mark.parametrize("evaluates", ["the trainer", "another trainer", "another training"])
def test_a_model_that_was_evaluated_is_trained_in_the_precision_that_is_asked_for(
    evaluates: str, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, bf16=True)
    before = trainer if evaluates == "the trainer" else make_trainer(tmp_path)
    before.model = before.model_wrapped = trainer.model
    if evaluates == "another training":
        before.train()
    else:
        before.evaluate()

    seen: set[torch.dtype] = set()
    dense = trainer.model.bert.encoder.layer[0].intermediate.dense
    dense.register_forward_hook(lambda _module, _args, output: seen.add(output.dtype))
    trainer.train()
    assert seen == {torch.bfloat16}


# ---- an evaluation ----


def test_an_evaluation_in_half_precision_keeps_its_projection(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, TinyBertKDConfig, hidden=8, stage="intermediate", bf16_full_eval=True)
    expected = make_trainer(tmp_path, TinyBertKDConfig, hidden=8, stage="intermediate")
    expected.extra_modules.load_state_dict(copy.deepcopy(trainer.extra_modules.state_dict()))
    assert trainer.evaluate()["eval_loss"] == pytest.approx(expected.evaluate()["eval_loss"], rel=0.05)


def test_logits_that_a_user_masks_are_no_fault(tmp_path: Path) -> None:
    def masked(logits: Tensor, _labels: Tensor) -> Tensor:
        return logits.masked_fill(torch.tensor([False, False, True]), -torch.inf)

    trainer = make_trainer(tmp_path, compute_metrics=lambda given: {"classes": int(given.predictions.argmax(1).max())})
    trainer.preprocess_logits_for_metrics = masked
    assert trainer.evaluate()["eval_classes"] <= 1
