"""The table of families, and students with fewer layers."""

from pathlib import Path

import pytest
import torch
from helpers import PAD, tiny_model
from torch import nn
from transformers import (
    AlbertConfig,
    AutoModelForSequenceClassification,
    BertConfig,
    BertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from bertkd import drop_layers
from bertkd.models import FAMILIES, encoder_layers, family_of, label_permutation
from bertkd.models.evaluated import eval_mode
from bertkd.students import layers_to_keep

INPUTS = {"input_ids": torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]]), "attention_mask": torch.ones(2, 5).long()}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_path_of_the_table_leads_to_a_module_of_the_right_shape(family: str) -> None:
    model = tiny_model(family, hidden=16)
    table = family_of(model)
    layer = encoder_layers(model)[0]
    for name in ("query", "key", "value", "attention_output"):
        assert layer.get_submodule(getattr(table, name)).weight.shape == (16, 16)

    assert layer.get_submodule(table.ffn_in).weight.shape == (24, 16)
    assert layer.get_submodule(table.ffn_out).weight.shape == (16, 24)
    for name in (table.attention_norm, table.ffn_norm):
        assert isinstance(layer.get_submodule(name), nn.LayerNorm)
    base = model.base_model

    assert base.get_submodule(table.embeddings)
    assert isinstance(base.get_submodule(table.embeddings_norm), nn.LayerNorm)
    embeddings = (table.word_embeddings, table.position_embeddings, table.token_type_embeddings)
    for path in filter(None, embeddings):
        assert isinstance(base.get_submodule(path), nn.Embedding)
    for path in filter(None, (table.pooler, table.embeddings_projection)):
        assert isinstance(base.get_submodule(path), nn.Linear)
    assert model.get_submodule(table.head[-1]).weight.shape[0] == 3


@pytest.mark.parametrize("family", FAMILIES)
def test_dropping_layers_equals_skipping_them(family: str) -> None:
    model = tiny_model(family, layers=4)
    student = drop_layers(model, [0, 2, 3])
    layers = encoder_layers(model)
    del layers[1]
    inputs = {**INPUTS, "input_ids": INPUTS["input_ids"] + PAD[family]}
    torch.testing.assert_close(student(**inputs).logits, model(**inputs).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_student_is_an_ordinary_checkpoint(family: str, tmp_path: Path) -> None:
    student = drop_layers(tiny_model(family, layers=4), [1, 3])
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(loaded) is type(student) and loaded.config.num_hidden_layers == 2
    torch.testing.assert_close(loaded(**INPUTS).logits, student(**INPUTS).logits, rtol=0, atol=0)


def test_the_model_and_its_config_stay_as_they_are() -> None:
    model = tiny_model(layers=4)
    before = model(**INPUTS).logits
    student = drop_layers(model, [0])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()

    assert model.config.num_hidden_layers == 4 and student.config is not model.config
    torch.testing.assert_close(model(**INPUTS).logits, before)


@pytest.mark.parametrize(
    ("config", "model_class"), [(BertConfig, BertForMaskedLM), (RobertaConfig, RobertaForMaskedLM)]
)
def test_other_heads_and_tied_weights_survive(config: type, model_class: type[PreTrainedModel]) -> None:
    model = model_class(config(vocab_size=50, hidden_size=16, num_hidden_layers=3, num_attention_heads=2)).half()
    student = drop_layers(model, [0, 1, 2])
    assert student.dtype == torch.float16
    assert student.get_output_embeddings().weight is student.get_input_embeddings().weight
    for name, tensor in model.state_dict().items():
        assert torch.equal(student.state_dict()[name], tensor)


@pytest.mark.parametrize("keep", [[], [0, 4], [-1], [1, 0], [1, 1]])
def test_layers_that_are_not_there_are_refused(keep: list[int]) -> None:
    with pytest.raises(ValueError, match=r"Cannot keep layers .* of a model with 4 layers: .* from 0 to 3"):
        drop_layers(tiny_model(layers=4), keep)


def test_other_families_are_refused_with_the_list_of_known_ones() -> None:
    with pytest.raises(ValueError, match="'albert'.*bert, roberta, xlm-roberta, electra, distilbert, mpnet"):
        family_of(AlbertConfig())


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("first", [0, 1, 2]), ("last", [9, 10, 11]), ("every", [3, 7, 11]), ("0,5,11", [0, 5, 11])],
)
def test_layers_to_keep(strategy: str, expected: list[int]) -> None:
    assert layers_to_keep(strategy, 12, 3) == expected


@pytest.mark.parametrize(
    ("strategy", "count", "message"),
    [
        ("first", 13, "Cannot keep 13 of 12 layers"),
        ("first", 0, "Cannot keep 0 of 12 layers"),
        ("0,2", 3, "names 2 layers, but the student is to have 3"),
        ("0,12", 2, "of a model with 12 layers"),
        ("middle", 3, "Unknown layers 'middle': give one of first, every, last"),
    ],
)
def test_wrong_choices_of_layers_are_refused(strategy: str, count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        layers_to_keep(strategy, 12, count)


def test_labels_are_permuted_by_name() -> None:
    hub, authors = ["entailment", "neutral", "contradiction"], ["CONTRADICTION", "Entailment", "neutral"]
    order = label_permutation(hub, authors)
    assert order is not None and [authors[i].lower() for i in order] == hub
    assert label_permutation(["not_entailment", "entailment"], ["Not Entailment", "entailment"]) is None
    assert label_permutation(["LABEL_0", "LABEL_1"], ["LABEL_0", "LABEL_1"]) is None


def test_labels_that_do_not_match_say_how_to_give_the_mapping() -> None:
    with pytest.raises(ValueError, match=r"LABEL_0, LABEL_1.*negative, positive.*--teacher_labels negative positive"):
        label_permutation(["negative", "positive"], ["LABEL_0", "LABEL_1"])
    with pytest.raises(ValueError, match="has 3 labels .* but the student has 2"):
        label_permutation(["a", "b"], ["a", "b", "c"])


def test_parts_that_were_in_eval_mode_come_out_so() -> None:
    model = tiny_model().train()
    model.base_model.embeddings.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with eval_mode(model):
        assert not any(module.training for module in model.modules())
    assert {name: module.training for name, module in model.named_modules()} == before
