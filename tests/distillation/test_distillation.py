"""The base trainer: what it computes, and that it is the same however it is run."""

import copy
import json
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import datasets
import helpers
import numpy as np
import pytest
import torch
from helpers import PAD, Collator, StopAt, assert_same_run, dataset, go_on, rows, tiny_model, training_log
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, TrainerCallback, TrainingArguments

from bertkd import (
    DistillationConfig,
    DistillationTrainer,
    PatientKDConfig,
    PatientKDTrainer,
    drop_layers,
    losses,
)
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.distillation.sampler import StepSampler, TokenStepSampler
from bertkd.distillation.teacher_cache import TeacherCache, _row_bytes, batch_digest, method_sources
from bertkd.efficiency import is_fast_in_bfloat16

SETTINGS = helpers.SETTINGS | {"learning_rate": 0.05, "warmup_steps": 1}


def make_trainer(
    output_dir: Path, family: str = "bert", hidden: int = 16, data: Any = None, dropout: float = 0.0, **changes: Any
) -> PatientKDTrainer:
    args = PatientKDConfig(
        output_dir=str(output_dir), **{**SETTINGS, "beta": 1.0, "kd_reduction": "batchmean", **changes}
    )
    torch.manual_seed(7)  # the projection's weights
    return PatientKDTrainer(
        model=tiny_model(family, layers=3, hidden=hidden, seed=1, dropout=dropout),
        teacher_model=tiny_model(family, layers=6, seed=2, dropout=0.5),
        args=args,
        train_dataset=data if data is not None else dataset(44),
        data_collator=Collator(PAD[family]),
    )


# ---- promise 1: the same loss, however it is run ----


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_accumulation_changes_nothing(family: str, tmp_path: Path) -> None:
    # 38 rows: the last step of an epoch has micro-batches of 4 and of 2 rows.
    whole = make_trainer(tmp_path, family, data=dataset(38))
    whole.train()
    parts = make_trainer(
        tmp_path, family, data=dataset(38), per_device_train_batch_size=4, gradient_accumulation_steps=4
    )
    parts.train()
    assert_same_run(whole, parts)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_cached_teacher_changes_nothing(family: str, tmp_path: Path) -> None:
    live = make_trainer(tmp_path, family)
    live.train()
    cached = make_trainer(tmp_path, family, teacher_cache_dir=str(tmp_path / "cache"))
    cached.train()
    assert_same_run(live, cached)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_interrupted_and_resumed_run_changes_nothing(family: str, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "whole", family, dropout=0.1, optim="adamw_torch")
    whole.train()
    stopped = make_trainer(
        tmp_path / "run", family, dropout=0.1, optim="adamw_torch", save_strategy="steps", save_steps=2
    )
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = make_trainer(tmp_path / "run", family, dropout=0.1, optim="adamw_torch")
    go_on(resumed, steps=2)
    assert_same_run(whole, resumed)


def test_resuming_a_finished_run_takes_no_further_step(tmp_path: Path) -> None:
    done = make_trainer(tmp_path, save_strategy="epoch")
    done.train()
    again = make_trainer(tmp_path, save_strategy="epoch")
    go_on(again, steps=0)
    assert again.state.global_step == done.state.global_step
    assert_same_run(done, again)


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    make_trainer(tmp_path, save_strategy="epoch").train()
    torn = tmp_path / "checkpoint-99"
    torn.mkdir()
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    (torn / "trainer_state.json").write_text('{"best_glob')
    assert last_checkpoint(tmp_path) == str(tmp_path / "checkpoint-6")
    assert last_checkpoint(tmp_path / "nowhere") is None


def sampled(num_rows: int, lengths: list[int] | None = None, epoch: int = 0, **settings: Any) -> list[list[int]]:
    sampler = StepSampler(num_rows, lengths, **settings)
    sampler.set_epoch(epoch)
    batches = list(sampler)
    assert len(batches) == len(sampler)
    return batches


def test_batches_of_similar_length_are_seeded_and_cover_every_row() -> None:
    lengths = [len(row["input_ids"]) for row in rows(200)]
    torch.manual_seed(0)
    first = sampled(200, lengths, batch_size=16, seed=3)
    torch.manual_seed(1)
    assert first == sampled(200, lengths, batch_size=16, seed=3)
    # Another epoch, another seed, and no seed sees what another one saw an epoch before.
    assert first != sampled(200, lengths, batch_size=16, seed=3, epoch=1)
    assert sampled(200, lengths, batch_size=16, seed=3, epoch=1) != sampled(200, lengths, batch_size=16, seed=4)
    assert sorted(row for batch in first for row in batch) == list(range(200))
    spans = [np.ptp([lengths[i] for i in batch]) for batch in first[:-1]]
    assert np.mean(spans) < np.ptp(lengths) / 3


@pytest.mark.parametrize("count", [48, 44, 35])
@pytest.mark.parametrize(("processes", "accumulation"), [(1, 4), (2, 1), (2, 2), (3, 1)])
def test_each_step_has_the_same_rows_however_it_is_spread(count: int, processes: int, accumulation: int) -> None:
    size = 16 // (processes * accumulation)
    lengths = [len(row["input_ids"]) for row in rows(count)]
    whole = sampled(count, lengths, batch_size=size * processes * accumulation, seed=1)
    spread = {"batch_size": size, "grad_accum": accumulation, "processes": processes, "seed": 1}
    ranks = [sampled(count, lengths, rank=rank, **spread) for rank in range(processes)]
    assert len({len(batches) for batches in ranks}) == 1
    for step, rows_of_step in enumerate(whole):
        parts = [batch for batches in ranks for batch in batches[step * accumulation : (step + 1) * accumulation]]
        assert sorted(row for part in parts for row in part) == sorted(rows_of_step)


@pytest.mark.parametrize(("processes", "accumulation"), [(2, 4), (3, 2), (4, 3)])
def test_no_micro_batch_of_the_last_step_is_without_a_row(processes: int, accumulation: int) -> None:
    spread = {"grad_accum": accumulation, "processes": processes, "seed": 1}
    for count in range(1, 40):
        by_rows = [sampled(count, batch_size=1, rank=rank, **spread) for rank in range(processes)]
        by_tokens = [list(TokenStepSampler([16] * count, 16, rank=rank, **spread)) for rank in range(processes)]
        for ranks in (by_rows, by_tokens):
            assert len({len(batches) for batches in ranks}) == 1
            assert all(batch for batches in ranks for batch in batches), count
            assert {row for batches in ranks for batch in batches for row in batch} == set(range(count))


def test_fewer_rows_than_processes_are_seen_twice() -> None:
    assert [sampled(1, batch_size=4, processes=2, rank=rank) for rank in (0, 1)] == [[[0]], [[0]]]


def test_sequential_random_and_dropped_rows() -> None:
    assert sampled(5, batch_size=2, shuffle=False) == [[0, 1], [2, 3], [4]]
    assert sampled(5, batch_size=2, shuffle=False, drop_last=True) == [[0, 1], [2, 3]]
    assert sorted(row for batch in sampled(50, batch_size=8, seed=1) for row in batch) == list(range(50))


def test_batches_by_tokens_fill_their_budget_and_cover_every_row() -> None:
    lengths = [8 + 3 * (row % 40) for row in range(300)]
    spread = {"grad_accum": 2, "processes": 2, "seed": 5}
    epochs = []
    for epoch in (0, 1):
        samplers = [TokenStepSampler(lengths, 256, rank=rank, **spread) for rank in (0, 1)]
        for sampler in samplers:
            sampler.set_epoch(epoch)
        ranks = [list(sampler) for sampler in samplers]
        assert [len(batches) for batches in ranks] == [len(sampler) for sampler in samplers] == [len(ranks[0])] * 2
        batches = [batch for rank in ranks for batch in rank]
        assert sorted(row for batch in batches for row in batch) == list(range(300))
        padded = [len(batch) * max(lengths[row] for row in batch) for batch in batches]
        assert max(padded) <= 256 and np.mean(padded) > 0.75 * 256
        assert max(map(len, batches)) >= 4 * min(map(len, batches))
        # Each optimizer step, the last one apart, has all its micro-batches.
        assert samplers[0].micro_steps()[:-1] == [2] * (len(samplers[0].micro_steps()) - 1)
        epochs.append(ranks)
    assert epochs[0] != epochs[1] and len(epochs[0][0]) == len(epochs[1][0])


@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_by_tokens_is_seen_through_and_resumed(tmp_path: Path, accumulation: int) -> None:
    options: dict[str, Any] = {"max_tokens_per_batch": 64, "gradient_accumulation_steps": accumulation}
    whole = make_trainer(tmp_path / "whole", **options)
    seen: list[int] = []
    collate = whole.data_collator
    whole.data_collator = lambda batch: seen.extend([len(batch)]) or collate(batch)
    whole.train()
    assert sum(seen) == len(whole.train_dataset) * whole.args.num_train_epochs and len(set(seen)) > 1
    stopped = make_trainer(tmp_path / "run", save_strategy="steps", save_steps=2, **options)
    stopped.add_callback(StopAt(4))
    stopped.train()
    resumed = make_trainer(tmp_path / "run", **options)
    go_on(resumed, steps=whole.state.global_step - 4)
    assert_same_run(whole, resumed)


def test_tokens_that_cannot_be_counted_or_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"A row has \d+ tokens, more than max_tokens_per_batch=4"):
        make_trainer(tmp_path, max_tokens_per_batch=4).train()
    with pytest.raises(ValueError, match="leave train_sampling_strategy as it is"):
        make_trainer(tmp_path, max_tokens_per_batch=64, train_sampling_strategy="random")
    stream = make_trainer(tmp_path, max_tokens_per_batch=64, max_steps=2)
    stream.train_dataset = datasets.Dataset.from_list(rows(8)).to_iterable_dataset()
    with pytest.raises(ValueError, match="cannot cut a stream into batches"):
        stream.train()


# ---- the loss ----


def test_parts_are_logged_and_add_up_to_the_loss(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, logging_steps=4, per_device_train_batch_size=3, gradient_accumulation_steps=2)
    trainer.train()
    for entry in training_log(trainer):
        assert entry["loss"] == pytest.approx(entry["task_loss"] + entry["kd_loss"] + entry["patience_loss"], rel=1e-5)


def test_trackers_get_the_parts(tmp_path: Path) -> None:
    seen = []

    class Tracker(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            seen.append(set(logs))

    trainer = make_trainer(tmp_path)
    trainer.add_callback(Tracker())
    trainer.train()
    assert {"loss", "task_loss", "kd_loss", "patience_loss"} <= seen[0]


def test_without_a_teacher_it_is_plain_fine_tuning(tmp_path: Path) -> None:
    model = tiny_model(seed=1)
    expected = copy.deepcopy(model)
    data = dataset(16)
    args = DistillationConfig(
        output_dir=str(tmp_path), alpha=0, **{**SETTINGS, "num_train_epochs": 1, "warmup_steps": 0}
    )
    DistillationTrainer(model=model, args=args, train_dataset=data, data_collator=Collator()).train()
    loss = expected(**Collator()(list(data))).loss
    gradients = torch.autograd.grad(loss, list(expected.parameters()))
    norm = torch.stack([g.norm() for g in gradients]).norm().clamp(min=1.0)
    for parameter, gradient, trained in zip(expected.parameters(), gradients, model.parameters(), strict=True):
        torch.testing.assert_close(trained, parameter - 0.05 * gradient / norm, rtol=1e-4, atol=1e-6)


def test_regression_distils_the_logits(tmp_path: Path) -> None:
    student = tiny_model(num_labels=1, seed=1, problem_type="regression")
    teacher = tiny_model(num_labels=1, seed=2, problem_type="regression")
    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=DistillationConfig(output_dir=str(tmp_path), alpha=0.25, use_cpu=True),
    )
    batch = Collator()(rows(8, labels=1))
    loss = trainer.compute_loss(student, batch)
    labels = batch.pop("labels")
    s, t = student(**batch).logits.squeeze(-1), teacher(**batch).logits.squeeze(-1)
    torch.testing.assert_close(loss, 0.75 * (s - labels).square().mean() + 0.25 * (s - t).square().mean())


def test_rows_without_labels_teach_with_alpha_one(tmp_path: Path) -> None:
    unlabeled = dataset(32).remove_columns("labels")
    trainer = make_trainer(tmp_path, data=unlabeled, alpha=1.0)
    trainer.train()
    assert "task_loss" not in training_log(trainer)[0]
    with pytest.raises(ValueError, match=r"no label column .*alpha is 0\.5.*alpha=1"):
        make_trainer(tmp_path, data=unlabeled).train()


@pytest.mark.parametrize("settings", [{"bf16": True}, {"gradient_checkpointing": True}, {"torch_compile": True}])
def test_precision_checkpointing_and_compile_train(settings: dict[str, Any], tmp_path: Path) -> None:
    if "torch_compile" in settings:
        settings["torch_compile_backend"] = "aot_eager"
    # Of one length, because each is compiled anew.
    names = ("input_ids", "attention_mask")
    data = dataset(44).map(lambda row: {name: row[name][:3] for name in names})
    plain = make_trainer(tmp_path, data=data, max_steps=2)
    plain.train()
    trainer = make_trainer(tmp_path, data=data, max_steps=2, **settings)
    trainer.train()
    tolerance = 0.05 if "bf16" in settings else 1e-3
    if "bf16" in settings:
        assert training_log(trainer) != training_log(plain)
    assert trainer.model.is_gradient_checkpointing == ("gradient_checkpointing" in settings)
    assert hasattr(trainer.model_wrapped, "_orig_mod") == ("torch_compile" in settings)
    for entry, expected in zip(training_log(trainer), training_log(plain), strict=True):
        assert entry["loss"] == pytest.approx(expected["loss"], rel=tolerance)


# ---- promise 2: the teacher ----


def test_the_teacher_never_changes_and_is_not_in_the_checkpoint(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, save_strategy="epoch")
    before = copy.deepcopy(trainer.teacher_model.state_dict())
    trainer.train()
    assert not trainer.teacher_model.training
    assert not any(parameter.requires_grad for parameter in trainer.teacher_model.parameters())
    for name, tensor in trainer.teacher_model.state_dict().items():
        assert torch.equal(tensor, before[name])
    checkpoint = tmp_path / "checkpoint-6"
    assert not list(checkpoint.glob("*teacher*"))
    assert set(load_file(checkpoint / "model.safetensors")) == set(trainer.model.state_dict())
    assert AutoModelForSequenceClassification.from_pretrained(checkpoint).config.num_hidden_layers == 3


def test_token_types_reach_the_bert_teacher_of_a_distilbert_student(tmp_path: Path) -> None:
    data = dataset(16, pairs=True)
    seen = []

    class Recording(DistillationTrainer):
        def teacher_forward(self, inputs: dict[str, torch.Tensor]) -> Any:
            outputs = super().teacher_forward(inputs)
            seen.append((dict(inputs), outputs.logits))
            return outputs

    trainer = Recording(
        model=tiny_model("distilbert", seed=1),
        teacher_model=tiny_model("bert", seed=2),
        args=DistillationConfig(output_dir=str(tmp_path), **SETTINGS),
        train_dataset=data,
        data_collator=Collator(),
    )
    trainer.train()
    inputs, logits = seen[0]
    assert inputs["token_type_ids"].any()
    teacher = tiny_model("bert", seed=2)
    columns = ("input_ids", "attention_mask", "token_type_ids")
    torch.testing.assert_close(logits, teacher(**{name: inputs[name] for name in columns}).logits)
    without = teacher(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits
    assert not torch.allclose(logits, without)


MNLI = ("entailment", "neutral", "contradiction")


def named(names: tuple[str, ...], **settings: Any) -> Any:
    labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    return tiny_model(**labels, **settings)


def test_a_teacher_with_labels_in_another_order_is_put_right(tmp_path: Path) -> None:
    student, teacher = named(MNLI, seed=1), named(("contradiction", "entailment", "neutral"), seed=2)
    args = DistillationConfig(output_dir=str(tmp_path), alpha=1.0, use_cpu=True)
    trainer = DistillationTrainer(model=student, teacher_model=teacher, args=args)
    batch = Collator()(rows(8))
    loss = trainer.compute_loss(student, dict(batch))
    batch.pop("labels")
    expected = losses.kd_kl(student(**batch).logits, teacher(**batch).logits[:, [1, 2, 0]], 2.0)
    torch.testing.assert_close(loss, expected)


def test_a_teacher_with_labels_of_no_name_needs_the_mapping(tmp_path: Path) -> None:
    student, teacher = named(MNLI, seed=1), tiny_model(seed=2)
    with pytest.raises(ValueError, match=r"LABEL_0.*--teacher_labels entailment neutral contradiction"):
        DistillationTrainer(
            model=student, teacher_model=teacher, args=DistillationConfig(output_dir=str(tmp_path), use_cpu=True)
        )
    args = DistillationConfig(
        output_dir=str(tmp_path), use_cpu=True, teacher_labels=["contradiction", "entailment", "neutral"]
    )
    assert DistillationTrainer(model=student, teacher_model=teacher, args=args)._label_permutation == [1, 2, 0]


def test_data_with_labels_in_another_order_is_refused(tmp_path: Path) -> None:
    data = dataset(8).cast_column("labels", datasets.ClassLabel(names=["contradiction", "entailment", "neutral"]))
    with pytest.raises(ValueError, match="lists its labels as contradiction, entailment, neutral and the student as"):
        DistillationTrainer(
            model=named(MNLI),
            args=DistillationConfig(output_dir=str(tmp_path), alpha=0, use_cpu=True),
            train_dataset=data,
        )


# ---- the teacher cache ----


def test_a_cache_is_used_again_and_rebuilt_when_anything_changed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def folders(**settings: Any) -> set[str]:
        make_trainer(tmp_path, teacher_cache_dir=str(cache), **settings).train()
        return {folder.name for folder in cache.iterdir() if folder.is_dir()}

    first = folders()
    assert len(first) == 1
    written = {file: file.stat().st_mtime_ns for file in cache.glob("*/*")}
    for lock in cache.glob("*.lock"):
        lock.unlink()
    assert folders() == first and not list(cache.glob("*.lock")), "a cache that is there is only read"
    assert {file: file.stat().st_mtime_ns for file in cache.glob("*/*")} == written
    assert len(folders(data=dataset(44, seed=5))) == 2  # other rows
    assert len(folders(strategy="last")) == 3  # other layers
    assert len(folders(teacher_cache_dtype="float16")) == 4
    other = make_trainer(tmp_path, teacher_cache_dir=str(cache))
    with torch.no_grad():
        other.teacher_model.classifier.bias += 1
    other.train()
    assert len(list(cache.glob("*/meta.json"))) == 5  # other weights


def test_a_cache_knows_the_texts_that_a_collator_tokenizes(tmp_path: Path) -> None:
    cache = tmp_path / "cache"

    def collate(features: list[dict[str, Any]]) -> dict[str, Any]:
        rows = [{"input_ids": [3 + ord(letter) % 40 for letter in row["text"]]} for row in features]
        for row, feature in zip(rows, features, strict=True):
            row |= {"attention_mask": [1] * len(row["input_ids"]), "labels": 0}
            # The first rows are collated before they have a number.
            row |= {name: value for name, value in feature.items() if name == "teacher_row"}
        return Collator()(rows)

    def caches(texts: list[str]) -> int:
        DistillationTrainer(
            model=tiny_model(seed=1),
            teacher_model=tiny_model(seed=2),
            args=DistillationConfig(
                output_dir=str(tmp_path / "run"),
                teacher_cache_dir=str(cache),
                alpha=1.0,
                remove_unused_columns=False,
                train_sampling_strategy="random",
                **{**SETTINGS, "num_train_epochs": 1},
            ),
            train_dataset=datasets.Dataset.from_dict({"text": texts}),
            data_collator=collate,
        ).train()
        return len(list(cache.glob("*/meta.json")))

    texts = [f"text {number}" for number in range(100, 164)]
    assert caches(texts) == caches(texts) == 1
    # One that lies between the rows by which a cache is compared with the teacher.
    assert caches([*texts[:1], "another", *texts[2:]]) == 2


def test_a_teacher_in_half_precision_may_round_from_batch_to_batch(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher_cache_dir=str(tmp_path / "cache"))
    assert trainer._cache_tolerance == 0.005
    trainer.teacher_model.to(torch.bfloat16)
    assert trainer._cache_tolerance == 0.05
    trainer.train()


def test_runs_that_share_a_cache_wait_for_the_one_that_makes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, built, build = tmp_path / "cache", list[Path](), TeacherCache.build

    def slow(folder: Path, *rest: Any) -> TeacherCache:
        built.append(folder)
        time.sleep(0.5)  # the other run looks for it meanwhile
        return build(folder, *rest)

    monkeypatch.setattr(TeacherCache, "build", slow)
    runs = [make_trainer(tmp_path / name, teacher_cache_dir=str(cache)) for name in "ab"]
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda run: run._open_teacher_cache(cache), runs))
    assert len(built) == 1 and found[0].folder == found[1].folder == built[0]


def test_a_damaged_cache_is_rebuilt(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    whole = make_trainer(tmp_path, teacher_cache_dir=str(cache))
    whole.train()
    logits = next(cache.glob("*/logits.npy"))
    logits.write_bytes(logits.read_bytes()[:100])
    again = make_trainer(tmp_path, teacher_cache_dir=str(cache))
    again.train()
    assert_same_run(whole, again)
    assert logits.stat().st_size > 100


def test_a_cache_is_joined_by_row(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, teacher_cache_dir=str(tmp_path / "cache"), data=dataset(20).shuffle(seed=1))
    with trainer._teacher_cached():
        batch = Collator()([trainer.train_dataset[i] for i in (7, 0, 19, 3)])
        # What is read is what was stored: the teacher is another one by now.
        with torch.no_grad():
            trainer.teacher_model.classifier.bias.add_(1)
        cached = trainer._teacher_outputs(batch)
        trainer.teacher_model.classifier.bias.data.sub_(1)
    live = trainer._teacher_outputs(batch)
    torch.testing.assert_close(cached.logits, live.logits)
    torch.testing.assert_close(cached.cls_states, live.cls_states)


def test_a_cache_of_rows_made_by_a_transform_depends_on_what_it_makes(tmp_path: Path) -> None:
    def tokenized(shift: int) -> Any:
        def transform(batch: dict[str, list]) -> dict[str, list]:
            made = [rows(44)[i] for i in batch["number"]]
            ids = [[(token + shift) % 40 + 3 for token in row["input_ids"]] for row in made]
            rest = {name: [row[name] for row in made] for name in ("attention_mask", "labels")}
            return {"input_ids": ids, **rest}

        numbers = datasets.Dataset.from_dict({"number": list(range(44))})
        return numbers.with_transform(transform)

    settings = {"remove_unused_columns": False, "teacher_cache_dir": str(tmp_path / "cache"), "alpha": 1.0}
    for shift in (0, 1):
        trainer = make_trainer(tmp_path, data=tokenized(shift), **settings)
        trainer.train()
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 2


def test_rows_made_by_a_transform_are_grouped_with_and_without_a_cache(tmp_path: Path) -> None:
    numbers = datasets.Dataset.from_dict({"number": list(range(44))})
    made = numbers.with_transform(
        lambda batch: {
            name: [rows(44)[number][name] for number in batch["number"]]
            for name in ("input_ids", "attention_mask", "labels")
        }
    )
    settings = {"remove_unused_columns": False, "data": made, "alpha": 1.0}
    live = make_trainer(tmp_path / "live", **settings)
    cached = make_trainer(tmp_path / "cached", teacher_cache_dir=str(tmp_path / "cache"), **settings)
    stored = make_trainer(tmp_path / "stored", alpha=1.0)
    for trainer in (live, cached, stored):
        trainer.train()
    assert_same_run(live, cached)
    assert_same_run(live, stored)


def test_a_cache_of_a_users_teacher_forward_depends_on_every_column(tmp_path: Path) -> None:
    class Corrected(DistillationTrainer):
        def teacher_forward(self, inputs: dict[str, torch.Tensor]) -> Any:
            logits = super().teacher_forward(inputs).logits
            return {"logits": logits + torch.nn.functional.one_hot(inputs["labels"], 3)}

    def distilled(data: Any, **settings: Any) -> Any:
        args = DistillationConfig(output_dir=str(tmp_path), **{**SETTINGS, "alpha": 1.0, **settings})
        trainer = Corrected(
            model=tiny_model(seed=1),
            teacher_model=tiny_model(seed=2),
            args=args,
            train_dataset=data,
            data_collator=Collator(),
        )
        trainer.train()
        return trainer

    data, cache = dataset(400), {"teacher_cache_dir": str(tmp_path / "cache"), "max_steps": 2}
    # A dict will do without a cache too.
    assert_same_run(distilled(data, max_steps=2), distilled(data, **cache))
    changed = [(label + 1) % 3 if row == 17 else label for row, label in enumerate(data["labels"])]
    distilled(data.remove_columns("labels").add_column("labels", changed), **cache)
    assert len(list((tmp_path / "cache").glob("*/meta.json"))) == 2


def test_a_teacher_that_was_trained_in_mixed_precision_teaches_in_its_own(tmp_path: Path) -> None:
    teacher = tiny_model(seed=2)
    inputs = Collator()([dict(row) for row in dataset(8)])

    def taught_by() -> torch.Tensor:
        args = DistillationConfig(output_dir=str(tmp_path), **SETTINGS)
        trainer = DistillationTrainer(
            model=tiny_model(seed=1), teacher_model=teacher, args=args, train_dataset=dataset(8)
        )
        return trainer._teacher_outputs(inputs).logits

    before = taught_by()
    bf16 = DistillationConfig(output_dir=str(tmp_path / "t"), **{**SETTINGS, "alpha": 0.0, "bf16": True})
    teacher.requires_grad_(True)
    DistillationTrainer(
        model=teacher, args=bf16, train_dataset=dataset(8), eval_dataset=dataset(8), data_collator=Collator()
    ).evaluate()
    assert "_original_forward" in vars(teacher), "mixed precision is left on the teacher"
    assert torch.equal(taught_by(), before)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([[1, 2], [3]], [[1], [2, 3]]),
        (["a", None], ["b", None]),
        (torch.ones(2), torch.zeros(2)),
        ([torch.ones(2), torch.ones(1)], [torch.ones(2), torch.zeros(1)]),
        ([1, 2], [[1, 2]]),
    ],
)
def test_rows_of_any_values_are_told_apart(one: Any, other: Any) -> None:
    assert batch_digest({"a": one}, ["a"]) == batch_digest({"a": one}, ["a"]) != batch_digest({"a": other}, ["a"])
    assert [*_row_bytes([{"a": one}], ["a"])] != [*_row_bytes([{"a": other}], ["a"])]


def test_a_cache_depends_on_the_code_of_teacher_forward() -> None:
    class Doubled(DistillationTrainer):
        def teacher_forward(self, inputs: dict[str, torch.Tensor]) -> Any:
            return {"logits": 2 * super().teacher_forward(inputs).logits}

    own, base = method_sources(Doubled, "teacher_forward"), method_sources(DistillationTrainer, "teacher_forward")
    assert own[1:] == base and "2 * super()" in own[0]


def test_a_half_precision_cache_is_close(tmp_path: Path) -> None:
    live = make_trainer(tmp_path)
    live.train()
    half = make_trainer(tmp_path, teacher_cache_dir=str(tmp_path / "cache"), teacher_cache_dtype="float16")
    half.train()
    assert np.load(next((tmp_path / "cache").glob("*/logits.npy"))).dtype == np.float16
    for a, b in zip(training_log(live), training_log(half), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-2)


def test_outputs_that_are_not_one_per_row_cannot_be_cached(tmp_path: Path) -> None:
    class AllTokens(DistillationTrainer):
        def teacher_forward(self, inputs: dict[str, torch.Tensor]) -> Any:
            outputs = super().teacher_forward(inputs)
            return {"logits": outputs.logits, "tokens": inputs["input_ids"].float()}

    args = DistillationConfig(output_dir=str(tmp_path), teacher_cache_dir=str(tmp_path / "c"), **SETTINGS)
    trainer = AllTokens(
        model=tiny_model(), teacher_model=tiny_model(), args=args, train_dataset=dataset(64), data_collator=Collator()
    )
    with pytest.raises(ValueError, match="'tokens'.*fixed shape per row can be cached"):
        trainer.train()
    assert not list((tmp_path / "c").glob("*[!l]/")), "a cache that is not whole has its name"


# ---- the projection between hidden sizes ----


def test_a_projection_is_trained_saved_and_restored(tmp_path: Path) -> None:
    settings = {"hidden": 8, "project_hidden": True, "save_strategy": "steps", "save_steps": 2, "optim": "adamw_torch"}
    whole = make_trainer(tmp_path / "whole", **settings)
    start = copy.deepcopy(whole.extra_modules["projection"].state_dict())
    whole.train()
    assert not torch.allclose(start["weight"], whole.extra_modules["projection"].weight)
    stopped = make_trainer(tmp_path / "run", **settings)
    stopped.add_callback(StopAt(4))
    stopped.train()
    assert (tmp_path / "run" / "checkpoint-4" / "distillation_modules.safetensors").is_file()
    resumed = make_trainer(tmp_path / "run", **settings)
    go_on(resumed, steps=2)
    assert_same_run(whole, resumed)
    torch.testing.assert_close(whole.extra_modules["projection"].weight, resumed.extra_modules["projection"].weight)


def test_a_projection_stays_out_of_the_student(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", hidden=8, project_hidden=True, save_strategy="epoch")
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    assert {file.name for file in (tmp_path / "student").iterdir()} == {"config.json", "model.safetensors"}
    for folder in (tmp_path / "student", tmp_path / "run" / "checkpoint-6"):
        loaded, report = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
        assert not report["unexpected_keys"] and not report["missing_keys"]
        batch = Collator()(rows(4))
        torch.testing.assert_close(loaded(**batch).logits, trainer.model(**batch).logits)


def test_resuming_without_the_projections_file_is_refused(tmp_path: Path) -> None:
    make_trainer(tmp_path, hidden=8, project_hidden=True, save_strategy="epoch").train()
    (tmp_path / "checkpoint-6" / "distillation_modules.safetensors").unlink()
    with pytest.raises(ValueError, match=r"no distillation_modules\.safetensors.*projection"):
        make_trainer(tmp_path, hidden=8, project_hidden=True, num_train_epochs=3).train(resume_from_checkpoint=True)


# ---- evaluation ----


def test_streams_of_several_names_keep_their_own_loaders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"dataloader_persistent_workers": True, "dataloader_num_workers": 1}
    streams = {name: dataset(8, seed=seed).to_iterable_dataset() for seed, name in enumerate("ab")}
    trainer = make_trainer(tmp_path, **settings)
    trainer.eval_dataset = streams
    monkeypatch.setattr(TrainingArguments, "world_size", property(lambda _self: 2))
    loaders = [trainer.get_eval_dataloader(name) for name in "aba"]
    assert loaders[0] is loaders[2] is not loaders[1] and trainer.eval_dataset is streams


def test_predictions_stand_in_the_order_of_the_rows(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    data = dataset(21, seed=3)
    predictions = trainer.predict(data).predictions
    for row, logits in zip(data, predictions, strict=True):
        alone = trainer.model(**Collator()([row])).logits[0]
        np.testing.assert_allclose(logits, alone.detach().numpy(), atol=1e-5)


def test_evaluation_is_the_students_loss_on_labels(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path)
    data = dataset(8)
    batch = Collator()(list(data))
    assert trainer.evaluate(data)["eval_loss"] == pytest.approx(trainer.model(**batch).loss.item(), rel=1e-5)


# ---- what is refused ----


def test_a_missing_teacher_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"needs a teacher_model.*alpha=0\.5.*alpha=0"):
        DistillationTrainer(model=tiny_model(), args=DistillationConfig(output_dir=str(tmp_path), use_cpu=True))


def test_different_vocabularies_are_refused(tmp_path: Path) -> None:
    teacher = tiny_model()
    teacher.config.vocab_size = 60
    with pytest.raises(ValueError, match="student's vocabulary has 50 entries and the teacher's 60"):
        DistillationTrainer(
            model=tiny_model(), teacher_model=teacher, args=DistillationConfig(output_dir=str(tmp_path), use_cpu=True)
        )


def test_other_arguments_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="PatientKDTrainer needs args of type PatientKDConfig, not TrainingArguments"):
        PatientKDTrainer(model=tiny_model(), args=TrainingArguments(output_dir=str(tmp_path), use_cpu=True))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alpha": 1.5}, "alpha .* between 0 and 1, not 1.5"),
        ({"temperature": 0}, "temperature must be greater than 0"),
        ({"kd_reduction": "sum"}, "kd_reduction must be one of batchmean, mean, not 'sum'"),
        ({"teacher_cache_dtype": "int8"}, "teacher_cache_dtype must be one of float32, float16"),
        ({"train_sampling_strategy": "length"}, "train_sampling_strategy must be one of group_by_length"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        DistillationConfig(output_dir=str(tmp_path), use_cpu=True, **settings)


# ---- users' own ----


def test_a_subclass_with_its_own_part(tmp_path: Path) -> None:
    class WithEntropy(DistillationTrainer):
        def distillation_loss(
            self, student_outputs: Any, teacher_outputs: Any, inputs: Any
        ) -> dict[str, torch.Tensor]:
            parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
            log_p = student_outputs.logits.log_softmax(-1)
            return {**parts, "confidence": 0.1 * (log_p.exp() * log_p).sum(-1).mean()}

    args = DistillationConfig(output_dir=str(tmp_path), **SETTINGS)
    trainer = WithEntropy(
        model=tiny_model(seed=1),
        teacher_model=tiny_model(seed=2),
        args=args,
        train_dataset=dataset(),
        data_collator=Collator(),
    )
    trainer.train()
    assert trainer.state.log_history[0]["confidence"] < 0


def test_models_may_be_given_by_path(tmp_path: Path) -> None:
    teacher = tiny_model(layers=4)
    teacher.half().save_pretrained(tmp_path / "teacher")
    drop_layers(teacher, [0, 1]).save_pretrained(tmp_path / "student")
    args = DistillationConfig(output_dir=str(tmp_path / "run"), **SETTINGS)
    trainer = DistillationTrainer(
        model=str(tmp_path / "student"),
        teacher_model=tmp_path / "teacher",
        args=args,
        train_dataset=dataset(16),
        data_collator=Collator(),
    )
    assert trainer.model.dtype == trainer.teacher_model.dtype == torch.float32
    trainer.train()
    assert json.loads((tmp_path / "student" / "config.json").read_text())["num_hidden_layers"] == 2


# ---- the machine ----


def test_bfloat16_on_a_cpu_without_it_is_warned_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def capable(**instructions: bool) -> bool:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **instructions}, raising=False)
        return is_fast_in_bfloat16()

    assert capable(avx512_bf16=True) and capable(amx_bf16=True) and capable(bf16=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        PatientKDConfig(output_dir=str(tmp_path), bf16=True, use_cpu=True)

    assert not capable() and not capable(avx512_bf16=False) and not capable(avx_vnni=True)
    with pytest.warns(UserWarning, match="bf16 is slower than float32 here, because this CPU has no"):
        PatientKDConfig(output_dir=str(tmp_path), bf16=True, use_cpu=True)
    # A GPU that computes in bfloat16 by other instructions is as slow.
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not is_fast_in_bfloat16("cuda:0")


def test_parameters_without_a_gradient_are_expected_beside_checkpointing(tmp_path: Path) -> None:
    def expected(**settings: Any) -> bool | None:
        return make_trainer(tmp_path, **settings).args.ddp_find_unused_parameters

    assert expected() and expected(activation_checkpointing=True)
    assert expected(ddp_find_unused_parameters=False) is False
    reentrant = {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}}
    assert expected(**reentrant) is None


def test_each_data_set_is_evaluated_with_persistent_workers_too(tmp_path: Path) -> None:
    few, many = dataset(3), dataset(5)
    trainer = make_trainer(tmp_path, dataloader_num_workers=1, dataloader_persistent_workers=True)
    trainer.eval_dataset = many

    def rows(data: Any = None) -> int:
        return len(trainer.get_eval_dataloader(data).dataset)

    assert [rows(few), rows(many), rows(few), rows()] == [3, 5, 3, 5]
    # One data set keeps its workers.
    assert trainer.get_eval_dataloader(few) is trainer.get_eval_dataloader(few)
