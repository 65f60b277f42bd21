"""DistilBERT: the student, the masks, the triple loss, and how it is run."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from datasets import ClassLabel, Dataset
from helpers import SETTINGS, StopAt, assert_same_run, go_on, training_log, word_tokenizer
from transformers import (
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    BertModel,
    BertTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DistilBertForMaskedLM,
    ElectraConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    pipeline,
)

from bertkd import DistilBertKDConfig, DistilBertKDTrainer, losses
from bertkd.distilbert import distilbert_layers, distilbert_student
from bertkd.distilbert.chunks import chunked
from bertkd.distilbert.head import head_left_out
from bertkd.distilbert.masking import IGNORED, Masking, count_tokens, masking_weights
from bertkd.models.language_head import language_head

V = 40
SIZES: dict[str, Any] = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": V}


def language_model(layers: int = 4, seed: int = 0, kind: str = "bert", **changes: Any) -> PreTrainedModel:
    """Tiny and random, without dropout."""
    settings = {**SIZES, "num_hidden_layers": layers, "initializer_range": 0.3, **changes}
    settings |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    configs = {"bert": BertConfig, "roberta": RobertaConfig, "electra": ElectraConfig}
    torch.manual_seed(seed)
    return AutoModelForMaskedLM.from_config(configs[kind](**settings)).eval()


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> BertTokenizer:
    return word_tokenizer(tmp_path_factory.mktemp("vocabulary"), V)


def corpus(rows: int = 44, seed: int = 3) -> Dataset:
    generator = torch.Generator().manual_seed(seed)
    ids = []
    for row in range(rows):
        length = 6 + row % 9
        ids.append([2, *torch.randint(5, V, (length,), generator=generator).tolist(), 3])
    return Dataset.from_dict({"input_ids": ids, "attention_mask": [[1] * len(one) for one in ids]})


def make_trainer(folder: Path, tokenizer: BertTokenizer, **changes: Any) -> DistilBertKDTrainer:
    models = {"model": None, "teacher_model": None, "train_dataset": None, "token_counts": None}
    given = {name: changes.pop(name, None) for name in models}
    settings: dict[str, Any] = {
        **SETTINGS,
        "output_dir": str(folder),
        "learning_rate": 0.02,
        "mlm_probability": 0.3,
        "logits_chunk_size": 7,
        **changes,
    }
    teacher = given["teacher_model"] or language_model()
    torch.manual_seed(1)
    return DistilBertKDTrainer(
        model=given["model"] or distilbert_student(teacher),
        teacher_model=teacher,
        args=DistilBertKDConfig(**settings),
        train_dataset=given["train_dataset"] if given["train_dataset"] is not None else corpus(),
        eval_dataset=corpus(20, seed=9),
        processing_class=tokenizer,
        data_collator=DataCollatorWithPadding(tokenizer),
        token_counts=given["token_counts"],
    )


# ---- the student ----


def test_the_layers_of_the_released_code() -> None:
    assert distilbert_layers(12) == [0, 2, 4, 7, 9, 11]
    assert distilbert_layers(6) == [0, 2, 4] and distilbert_layers(7) == [0, 2, 4, 6]


def test_with_all_layers_and_token_types_folded_the_student_is_the_teacher() -> None:
    teacher, mask = language_model(), torch.tensor([[1] * 9, [1] * 6 + [0] * 3])
    ids = torch.randint(5, V, (2, 9))
    student = distilbert_student(teacher, keep=range(4))
    assert isinstance(student, DistilBertForMaskedLM)
    with torch.no_grad():
        ours = student(input_ids=ids, attention_mask=mask, output_hidden_states=True)
        theirs = teacher(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    for level, (a, b) in enumerate(zip(ours.hidden_states, theirs.hidden_states, strict=True)):
        torch.testing.assert_close(a[mask.bool()], b[mask.bool()], rtol=1e-5, atol=1e-5, msg=f"level {level}")
    torch.testing.assert_close(ours.logits[mask.bool()], theirs.logits[mask.bool()], rtol=1e-4, atol=1e-4)
    unfolded = distilbert_student(teacher, keep=range(4), fold_token_types=False)
    with torch.no_grad():
        assert (unfolded(input_ids=ids).logits - theirs.logits).abs().max() > 0.01


def test_a_student_has_the_layers_it_was_given_and_leaves_the_teacher_alone() -> None:
    teacher = language_model(6)
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    student = distilbert_student(teacher, keep=[1, 4])
    layers, own = student.distilbert.transformer.layer, teacher.bert.encoder.layer
    assert len(layers) == 2 and student.config.n_layers == 2
    for number, kept in enumerate((1, 4)):
        assert torch.equal(layers[number].ffn.lin1.weight, own[kept].intermediate.dense.weight)
        assert torch.equal(layers[number].sa_layer_norm.bias, own[kept].attention.output.LayerNorm.bias)
        assert torch.equal(layers[number].attention.q_lin.weight, own[kept].attention.self.query.weight)
    assert torch.equal(student.vocab_transform.weight, teacher.cls.predictions.transform.dense.weight)
    assert student.vocab_projector.weight is student.distilbert.embeddings.word_embeddings.weight
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(1.0)
    assert all(torch.equal(before[name], tensor) for name, tensor in teacher.state_dict().items())


def test_an_untied_head_stays_untied() -> None:
    teacher, ids = language_model(tie_word_embeddings=False), torch.randint(5, V, (2, 9))
    student = distilbert_student(teacher, keep=range(4))
    with torch.no_grad():
        torch.testing.assert_close(student(input_ids=ids).logits, teacher(input_ids=ids).logits, rtol=1e-4, atol=1e-4)


def test_a_roberta_gives_a_shorter_roberta() -> None:
    teacher = language_model(12, kind="roberta")
    student = distilbert_student(teacher)
    assert isinstance(student, RobertaForMaskedLM) and student.config.num_hidden_layers == 6
    assert all(parameter.requires_grad for parameter in student.parameters())
    kept = [layer.output.dense.weight for layer in student.roberta.encoder.layer]
    own = [teacher.roberta.encoder.layer[i].output.dense.weight for i in (0, 2, 4, 7, 9, 11)]
    assert all(torch.equal(a, b) for a, b in zip(kept, own, strict=True))


def test_teachers_that_cannot_give_a_student_are_refused() -> None:
    with pytest.raises(ValueError, match="BertModel has no head for masked words"):
        distilbert_student(BertModel(BertConfig(num_hidden_layers=2, **SIZES)))
    with pytest.raises(ValueError, match="epsilon of 1e-12, the teacher's 1e-05"):
        distilbert_student(language_model(layer_norm_eps=1e-5))


def test_the_saved_student_is_ordinary(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path / "run", tokenizer)
    trainer.train()
    trainer.save_model(str(tmp_path / "student"))
    model, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "student", output_loading_info=True)
    assert type(model) is DistilBertForMaskedLM and not report["missing_keys"] and not report["unexpected_keys"]
    (found, *_) = pipeline("fill-mask", model=str(tmp_path / "student"))("w1 [MASK] w3")
    assert found["token_str"] in tokenizer.get_vocab()


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_the_head_by_itself_gives_the_models_logits(kind: str) -> None:
    model, ids = language_model(kind=kind), torch.randint(5, V, (2, 7))
    with torch.no_grad():
        states = model.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(language_head(model)(states), model(input_ids=ids).logits)
    student = distilbert_student(language_model())
    with torch.no_grad():
        states = student.base_model(input_ids=ids).last_hidden_state
        torch.testing.assert_close(language_head(student)(states), student(input_ids=ids).logits)


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra"])
def test_a_model_without_its_head_gives_its_last_hidden_states(kind: str) -> None:
    model, ids = language_model(kind=kind), torch.randint(5, V, (2, 7))
    for masked_model in (model, distilbert_student(model) if kind == "bert" else model):
        with torch.no_grad():
            states = masked_model.base_model(input_ids=ids).last_hidden_state
            with head_left_out(masked_model):
                outputs = masked_model(input_ids=ids)
            assert torch.equal(outputs.hidden_states[-1], states)
            assert outputs.logits.shape == (2, 0, V)
            assert masked_model(input_ids=ids).logits.shape == (2, 7, V), "the head is back afterwards"


# ---- masks ----


def rows_of(count: int, length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    ids = torch.randint(5, V, (count, length), generator=torch.Generator().manual_seed(seed))
    ids[:, 0], ids[:, -1] = 2, 3
    return ids, torch.ones_like(ids)


def uniform_weights() -> torch.Tensor:
    weights = torch.ones(V)
    weights[:5] = 0.0
    return weights


def test_shares_and_kinds_of_masked_tokens() -> None:
    ids, mask = rows_of(2000, 21)
    masked, labels = Masking(uniform_weights(), 4, 0.15)(ids, mask, step=7)
    drawn = labels != IGNORED
    assert drawn.sum().item() / ids.numel() == pytest.approx(0.15, rel=0.01)
    assert set(drawn.sum(1).tolist()) == {3, 4}  # 0.15 * 21 = 3.15
    assert torch.equal(labels[drawn], ids[drawn]) and not drawn[:, [0, -1]].any()
    assert torch.equal(masked[~drawn], ids[~drawn])
    found, own = masked[drawn], ids[drawn]
    # One in V of the random tokens is the mask, or the token itself.
    assert (found == 4).float().mean().item() == pytest.approx(0.8 + 0.1 / V, abs=0.01)
    assert (found == own).float().mean().item() == pytest.approx(0.1 + 0.1 / V, abs=0.01)
    others = found[(found != 4) & (found != own)]
    assert torch.bincount(others, minlength=V).min() > 0 or len(others.unique()) >= V - 2
    places = drawn.float().mean(0)[1:-1]
    assert (places - places.mean()).abs().max() < 0.035


def test_rare_tokens_are_masked_more_often_as_the_paper_weighs_them() -> None:
    counts = torch.ones(V, dtype=torch.long)
    counts[5] = 1000

    class Tokenizer:
        all_special_ids = (0, 1, 2, 3, 4)

    weights = masking_weights(Tokenizer(), counts, 0.7)
    assert weights[5].item() == pytest.approx(1000**-0.7) and weights[6] == 1.0 and weights[:5].sum() == 0
    ids = torch.full((40_000, 12), 6)
    ids[:, 0], ids[:, -1], ids[:, 1:6] = 2, 3, 5
    ids[:, 6:11] = torch.randint(6, V, (40_000, 5), generator=torch.Generator().manual_seed(0))  # rows differ
    _, labels = Masking(weights, 4, 1 / 12 - 1e-9)(ids, torch.ones_like(ids), 0)
    often = (labels == 5).sum().item() / (labels != IGNORED).sum().item()
    assert often == pytest.approx(5 * 1000**-0.7 / (5 * 1000**-0.7 + 5), rel=0.15)


def test_a_batch_may_be_masked_as_a_whole() -> None:
    ids, mask = rows_of(7, 13)
    mask[3, 8:] = 0
    _, labels = Masking(uniform_weights(), 4, 0.15, unit="batch")(ids, mask, 0)
    assert (labels != IGNORED).sum() == math.ceil(0.15 * int(mask.sum())) and not (labels != IGNORED)[mask == 0].any()
    _, labels = Masking(uniform_weights(), 4, 0.15, unit="batch")(*rows_of(10, 10), 0)
    assert (labels != IGNORED).sum() == 15  # in single precision, 0.15 · 100 is above 15


def test_masks_depend_on_seed_step_and_row_alone() -> None:
    ids, mask = rows_of(8, 15)
    masking = Masking(uniform_weights(), 4, 0.3, seed=5)
    whole = masking(ids, mask, 2)
    padded = [F.pad(one, (0, 4)) for one in (ids, mask)]
    for part in (slice(0, 3), slice(3, 8)):
        masked, labels = masking(padded[0][part], padded[1][part], 2)
        assert torch.equal(masked[:, :15], whole[0][part]) and torch.equal(labels[:, :15], whole[1][part])
        assert (labels[:, 15:] == IGNORED).all()
    for other in (masking(ids, mask, 3), Masking(uniform_weights(), 4, 0.3, seed=6)(ids, mask, 2)):
        same = (other[1] != IGNORED) & (whole[1] != IGNORED)
        assert same.sum() < 0.6 * (whole[1] != IGNORED).sum()


def test_tokens_are_counted() -> None:
    counts = count_tokens(Dataset.from_dict({"input_ids": [[2, 7, 7, 3], [2, 8, 3]]}), V)
    assert {i: int(n) for i, n in enumerate(counts) if n} == {2: 2, 3: 2, 7: 2, 8: 1}


# ---- the loss ----


def test_the_cosine_loss_by_hand() -> None:
    student = torch.tensor([[[1.0, 0.0], [3.0, 4.0], [1.0, 1.0]]])
    teacher = torch.tensor([[[2.0, 0.0], [4.0, 3.0], [-1.0, -1.0]]])
    assert losses.cosine_loss(student, teacher).item() == pytest.approx((0 + (1 - 24 / 25) + 2) / 3)
    mask = torch.tensor([[1, 1, 0]])
    assert losses.cosine_loss(student, teacher, mask).item() == pytest.approx((1 - 24 / 25) / 2)
    with pytest.raises(ValueError, match="cosine_loss"):
        losses.cosine_loss(student, teacher[:, :2])


def by_hand(trainer: DistilBertKDTrainer, batch: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The parts, from whole logits of both models."""
    args, labels, active = trainer.args, batch["labels"], batch["attention_mask"].bool()
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    ours = trainer.model(**inputs, output_hidden_states=True)
    with torch.no_grad():
        theirs = trainer.teacher_model(**inputs, output_hidden_states=True)
    chosen = labels != IGNORED if args.restrict_ce_to_mask else active
    s, t = ours.logits[chosen], theirs.logits[chosen]
    T = args.temperature
    p, q = F.softmax(t / T, -1), F.log_softmax(s / T, -1)
    cos = 1 - F.cosine_similarity(ours.hidden_states[-1][active], theirs.hidden_states[-1][active], dim=-1)
    parts = {
        "kd_loss": args.alpha_ce * T**2 * (p * (p.log() - q)).sum(-1).mean(),
        "mlm_loss": args.alpha_mlm * F.cross_entropy(ours.logits.flatten(0, 1), labels.flatten(), ignore_index=-100),
        "mse_loss": args.alpha_mse * (s - t).square().sum(-1).mean(),
        "cos_loss": args.alpha_cos * cos.mean(),
    }
    weights = (args.alpha_ce, args.alpha_mlm, args.alpha_mse, args.alpha_cos)
    return {name: part for (name, part), weight in zip(parts.items(), weights, strict=True) if weight > 0}


@pytest.mark.parametrize(
    "weights",
    [
        {},
        {"restrict_ce_to_mask": True},
        {"alpha_mse": 0.5, "temperature": 1.0},
        {"alpha_ce": 0.0},
        {"alpha_mlm": 0.0},
        {"alpha_cos": 0.0},
        {"alpha_ce": 0.0, "alpha_mlm": 0.0},
        {"alpha_ce": 0.0, "alpha_cos": 0.0},
    ],
)
def test_parts_and_gradients_are_those_of_whole_logits(
    weights: dict[str, Any], tokenizer: BertTokenizer, tmp_path: Path
) -> None:
    trainer = make_trainer(tmp_path, tokenizer, **weights)
    batch = trainer.data_collator([dict(row) for row in corpus(16)])
    trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    trainer.model.train()
    tokens = batch["attention_mask"].sum()
    loss = trainer.compute_loss(trainer.model, batch, num_items_in_batch=tokens)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in trainer.model.named_parameters()}
    logged = trainer._window.averages(trainer.accelerator)
    trainer.model.zero_grad()
    expected = by_hand(trainer, batch)
    assert {name: pytest.approx(part.item(), rel=1e-5) for name, part in expected.items()} == logged
    torch.testing.assert_close(loss, sum(expected.values()))
    sum(expected.values()).backward()
    for name, parameter in trainer.model.named_parameters():
        own, wanted = gradients[name], parameter.grad
        if wanted is None:
            assert own is None or not own.abs().max()
        else:
            torch.testing.assert_close(own, wanted, rtol=1e-4, atol=1e-6)


def test_chunks_are_the_whole_forward_and_backward() -> None:
    torch.manual_seed(0)
    weight = torch.randn(V, 6, requires_grad=True)
    states, target = torch.randn(23, 6, requires_grad=True), torch.randint(0, V, (23,))

    def parts_of(piece: torch.Tensor, rows: slice) -> torch.Tensor:
        logits = piece @ weight.T
        return torch.stack([F.cross_entropy(logits, target[rows], reduction="sum"), logits.square().sum() / 7])

    whole = parts_of(states, slice(None))
    wanted = torch.autograd.grad(3 * whole.sum(), [states, weight])
    for size in (1, 5, 23, 100):
        parts = chunked(parts_of, states, [weight], size)
        torch.testing.assert_close(parts, whole)
        for a, b in zip(torch.autograd.grad(3 * parts.sum(), [states, weight]), wanted, strict=True):
            torch.testing.assert_close(a, b)
        with torch.no_grad():
            torch.testing.assert_close(chunked(parts_of, states, [weight], size), whole)


def test_a_gradient_that_overflows_half_precision_is_scaled_down() -> None:
    torch.manual_seed(0)
    states, target = 3 * torch.randn(120, 8), torch.zeros(120, dtype=torch.long)
    weight = torch.randn(V, 8, requires_grad=True)

    def gradient(dtype: torch.dtype, enabled: bool) -> torch.Tensor:
        def parts_of(piece: torch.Tensor, rows: slice) -> torch.Tensor:
            logits = F.linear(piece, weight).float()
            return torch.stack([2 * F.cross_entropy(logits, target[rows], reduction="sum") / 10])

        with torch.autocast("cpu", dtype, enabled):
            return torch.autograd.grad(chunked(parts_of, states, [weight], 40).sum(), weight)[0]

    wanted = gradient(torch.float16, enabled=False)
    assert wanted.abs().max() * 2**16 > torch.finfo(torch.float16).max  # as it is scaled at first
    torch.testing.assert_close(gradient(torch.float16, enabled=True), wanted, rtol=0.02, atol=0.02)


def test_chunks_train_the_head_of_a_frozen_encoder_and_keep_half_precision_gradients() -> None:
    torch.manual_seed(0)
    head, states = torch.nn.Linear(6, 3000), torch.randn(40, 6)
    target = torch.randint(0, 3000, (40,))

    def parts_of(piece: torch.Tensor, rows: slice) -> torch.Tensor:
        logits = head(piece).float()
        return torch.stack([F.cross_entropy(logits, target[rows], reduction="sum") / 4000])

    wanted = torch.autograd.grad(parts_of(states, slice(None)).sum(), list(head.parameters()))
    found = torch.autograd.grad(chunked(parts_of, states, list(head.parameters()), 7).sum(), list(head.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b)
    scale = 1024.0  # of a GradScaler
    for dtype in (torch.float16, torch.bfloat16):
        with torch.autocast("cpu", dtype):
            total = scale * chunked(parts_of, states, list(head.parameters()), 7).sum()
        for a, b in zip(torch.autograd.grad(total, list(head.parameters())), wanted, strict=True):
            assert (a / scale - b).norm() < 0.02 * b.norm()


def test_predictions_are_computed_in_the_precision_that_is_asked_for(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer, seen = make_trainer(tmp_path, tokenizer, bf16=True), []
    for model in (trainer.model, trainer.teacher_model):
        model.get_output_embeddings().register_forward_hook(lambda _m, _a, out: seen.append(out) if len(out) else None)
    trainer.train()
    assert seen and {out.dtype for out in seen if out.dim() == 2} == {torch.bfloat16}


def test_a_batch_without_masked_tokens_gives_zero(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, tokenizer, restrict_ce_to_mask=True, alpha_cos=0.0, alpha_mse=1.0)
    batch = trainer.data_collator([dict(row) for row in corpus(4)])
    batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
    trainer._masked_share = 0.3
    trainer.model.train()
    loss = trainer.compute_loss(trainer.model, batch)
    loss.backward()
    assert loss.item() == 0.0


def test_the_teacher_reads_what_is_masked_and_changes_nothing(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, tokenizer)
    before = {name: tensor.clone() for name, tensor in trainer.teacher_model.state_dict().items()}
    seen = []
    trainer.teacher_model.base_model.register_forward_pre_hook(
        lambda _m, _a, inputs: seen.append(inputs["input_ids"]), with_kwargs=True
    )
    trainer.train()
    assert all((ids == 4).any() for ids in seen) and not trainer.teacher_model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in trainer.teacher_model.state_dict().items())
    assert not trainer.model.base_model._forward_hooks


# ---- promise 1 ----


@pytest.mark.parametrize("changes", [{}, {"restrict_ce_to_mask": True, "alpha_mse": 0.1}])
def test_accumulation_changes_nothing(changes: dict[str, Any], tokenizer: BertTokenizer, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path, tokenizer, **changes)
    whole.train()
    spread = make_trainer(tmp_path, tokenizer, per_device_train_batch_size=4, gradient_accumulation_steps=4, **changes)
    spread.train()
    assert_same_run(whole, spread)


def test_an_interrupted_and_resumed_run_changes_nothing(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    whole = make_trainer(tmp_path / "a", tokenizer)
    whole.train()
    settings = {"save_strategy": "steps", "save_steps": 2}
    cut = make_trainer(tmp_path / "b", tokenizer, **settings)
    cut.add_callback(StopAt(4))
    cut.train()
    resumed = make_trainer(tmp_path / "b", tokenizer, **settings)
    go_on(resumed, steps=2)
    assert_same_run(whole, resumed)


def test_the_loss_falls_and_evaluation_repeats_itself(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, tokenizer, num_train_epochs=6)
    before = trainer.evaluate()["eval_loss"]
    assert before == trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before
    names = {"kd_loss", "mlm_loss", "cos_loss", "loss", "grad_norm"}
    assert set(training_log(trainer)[0]) == names


def test_bf16_runs(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    plain, half = make_trainer(tmp_path, tokenizer), make_trainer(tmp_path, tokenizer, bf16=True)
    plain.train(), half.train()
    for a, b in zip(training_log(plain), training_log(half), strict=True):
        assert a["loss"] == pytest.approx(b["loss"], rel=0.1)


def test_words_are_not_masked_twice(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, tokenizer)
    trainer.data_collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5)
    with pytest.raises(ValueError, match="has masked words already.*take DataCollatorWithPadding.*mlm_probability"):
        trainer.train()


def test_tags_of_tokens_are_no_masked_words(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    rows = corpus()
    rows = rows.add_column("labels", [[1] * len(ids) for ids in rows["input_ids"]])
    trainer = make_trainer(tmp_path, tokenizer, train_dataset=rows, max_steps=1)
    trainer.data_collator = DataCollatorForTokenClassification(tokenizer)
    trainer.train()


def test_a_column_of_classes_is_none_of_a_text_stages_business(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    rows = corpus().add_column("label", [row % 4 for row in range(44)])
    rows = rows.cast_column("label", ClassLabel(names=["a", "b", "c", "d"]))
    make_trainer(tmp_path, tokenizer, train_dataset=rows, max_steps=1).train()


def test_a_thinner_student_needs_a_projection(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    student = BertForMaskedLM(BertConfig(num_hidden_layers=2, **{**SIZES, "hidden_size": 8}))
    with pytest.raises(ValueError, match=r"hidden size is 8 and the teacher's 16.*project_hidden=True.*alpha_cos=0"):
        make_trainer(tmp_path, tokenizer, model=student)
    trainer = make_trainer(tmp_path, tokenizer, model=student, project_hidden=True)
    before = trainer.extra_modules["projection"].weight.detach().clone()
    trainer.train()
    assert not torch.equal(before, trainer.extra_modules["projection"].weight)
    make_trainer(tmp_path, tokenizer, model=student, alpha_cos=0.0).train()


def test_bad_input_is_named(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="BertModel has no head for masked words"):
        make_trainer(tmp_path, tokenizer, model=BertModel(BertConfig(num_hidden_layers=2, **SIZES)))
    other = language_model(vocab_size=V + 1)
    with pytest.raises(ValueError, match="vocabulary has 40 entries and the teacher's 41"):
        make_trainer(tmp_path, tokenizer, model=distilbert_student(language_model()), teacher_model=other)
    stream = corpus().to_iterable_dataset()
    with pytest.raises(ValueError, match="tokens of a list cannot be counted beforehand"):
        make_trainer(tmp_path, tokenizer, train_dataset=list(corpus()))
    small = language_model(vocab_size=V - 1)
    with pytest.raises(ValueError, match=f"token ids up to {V - 1} and the model knows only {V - 1} tokens"):
        make_trainer(tmp_path, tokenizer, model=distilbert_student(small), teacher_model=small)
    make_trainer(tmp_path, tokenizer, train_dataset=stream, max_steps=3, mlm_smoothing=0.0).train()
    make_trainer(tmp_path, tokenizer, train_dataset=stream, max_steps=3, token_counts=torch.ones(V)).train()
    for wrong, message in (
        ({"alpha_ce": 0.0, "alpha_mlm": 0.0, "alpha_cos": 0.0}, "nor all be 0"),
        ({"mlm_probability": 1.0}, "mlm_probability must lie between"),
        ({"mlm_smoothing": -1.0}, "mlm_smoothing must not be negative"),
        ({"mlm_unit": "page"}, "mlm_unit must be one of row, batch"),
        ({"logits_chunk_size": 0}, "logits_chunk_size must be at least 1"),
        ({"teacher_cache_dir": "x"}, "teacher_cache_dir cannot be used here"),
    ):
        with pytest.raises(ValueError, match=message):
            DistilBertKDConfig(output_dir=str(tmp_path), use_cpu=True, **wrong)
