"""Layers that share weights: groups, gradients, files, and what is refused."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_model
from safetensors.torch import load_file
from tiny_students import assert_equal_outputs, batch_of, outputs_of, table_of
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    BertForMaskedLM,
)

from bertkd.efficiency import count_flops, count_parameters, model_size_mb
from bertkd.models import (
    FAMILIES,
    attention_scores,
    encoder_layers,
)
from bertkd.students import factorize, prune, separate_position_bias, share_layers, zero_pad
from bertkd.students.shared_layers import layer_groups


def test_groups_are_even_and_in_the_layers_order() -> None:
    assert layer_groups(3, 6) == [0, 0, 1, 1, 2, 2]
    assert layer_groups(1, 3) == [0, 0, 0]
    assert layer_groups(5, 12) == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert layer_groups([7, 2, 7, 2], 4) == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (0, "Cannot share 0 layers among 4: give a number from 1 to 3"),
        (4, "Cannot share 4 layers among 4"),
        ([0, 0, 1], r"\[0, 0, 1\] are of 3 layers, and the model has 4"),
        ([0, 1, 2, 3], "share nothing: give at least two layers the same number"),
    ],
)
def test_groups_that_do_not_fit_are_refused(groups: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        share_layers(tiny_model(layers=4), groups)


@pytest.mark.parametrize("weights", ["first", "mean"])
@pytest.mark.parametrize("has_head", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_a_group_are_its_first_or_their_mean(family: str, has_head: bool, weights: str) -> None:
    model = tiny_model(family, layers=4)
    model = separate_position_bias(model if has_head else model.base_model)
    student = share_layers(model, [0, 1, 0, 1], weights)
    theirs, ours = list(encoder_layers(model)), list(encoder_layers(student))
    for owner, sharer in ((0, 2), (1, 3)):
        for name, parameter in ours[owner].named_parameters():
            assert ours[sharer].get_parameter(name) is parameter
            pair = theirs[owner].get_parameter(name), theirs[sharer].get_parameter(name)
            torch.testing.assert_close(parameter, pair[0] if weights == "first" else (pair[0] + pair[1]) / 2)
    expected = copy.deepcopy(model)
    for index, layer in enumerate(encoder_layers(expected)):
        layer.load_state_dict(ours[index].state_dict())

    assert_equal_outputs(student, expected, family)
    assert not torch.equal(outputs_of(student, family), outputs_of(model, family))


def test_shared_weights_are_counted_and_saved_once(tmp_path: Path) -> None:
    model = tiny_model(layers=4)
    one_layer = sum(parameter.numel() for parameter in encoder_layers(model)[0].parameters())
    student = share_layers(model, 1)

    assert count_parameters(model).total - count_parameters(student).total == 3 * one_layer
    assert count_flops(student, 1, 8) == count_flops(model, 1, 8)
    for name, saved_model in (("whole", model), ("shared", student)):
        saved_model.save_pretrained(tmp_path / name)
    saved = load_file(tmp_path / "shared" / "model.safetensors")

    assert not [name for name in saved if "layer.1." in name] and [name for name in saved if "layer.0." in name]
    weights = 4 * 3 * one_layer / 1e6
    assert model_size_mb(tmp_path / "whole") - model_size_mb(tmp_path / "shared") > weights

    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared")
    assert count_parameters(loaded).total == count_parameters(student).total


@pytest.mark.parametrize("tied", [True, False])
def test_sharing_does_not_depend_on_tied_word_embeddings(tied: bool, tmp_path: Path) -> None:
    student = share_layers(BertForMaskedLM(tiny_model(layers=3, tie_word_embeddings=tied).config).eval(), [0, 1, 1])
    student.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)

    assert torch.equal(outputs_of(loaded), outputs_of(student))
    assert (loaded.get_output_embeddings().weight is table_of(loaded).weight) == tied
    layers = encoder_layers(loaded)

    assert layers[1].output.dense.weight is layers[2].output.dense.weight
    assert layers[0].output.dense.weight is not layers[1].output.dense.weight


def test_gradients_of_a_group_add_up() -> None:
    student = share_layers(tiny_model(layers=3), [0, 1, 1])
    copies = zero_pad(student)
    labels = torch.tensor([0, 1, 2, 0])
    for model in (student, copies):
        model(**batch_of(), labels=labels).loss.backward()
    layers, theirs = encoder_layers(student), encoder_layers(copies)
    for name, parameter in layers[1].named_parameters():
        first, second = theirs[1].get_parameter(name).grad, theirs[2].get_parameter(name).grad
        torch.testing.assert_close(parameter.grad, first + second, rtol=1e-4, atol=1e-6)
    weight = "output.dense.weight"

    torch.testing.assert_close(layers[0].get_parameter(weight).grad, theirs[0].get_parameter(weight).grad)
    assert (
        theirs[1].get_parameter(weight).grad.abs().max() > 0 and theirs[2].get_parameter(weight).grad.abs().max() > 0
    )


def test_each_layer_that_shares_is_seen_by_hooks() -> None:
    student = share_layers(tiny_model(layers=2), 1)
    with attention_scores(student) as captured:
        outputs_of(student)
    assert not torch.allclose(*captured.scores)  # same weights, other inputs


def test_what_cannot_be_shared_is_refused() -> None:
    model = tiny_model(layers=4)
    with pytest.raises(ValueError, match="first, mean, not 'last'"):
        share_layers(model, 2, "last")
    with pytest.raises(ValueError, match=r"share their weights already, in the groups \[0, 0, 1, 1\]"):
        share_layers(share_layers(model, 2), 1)
    with pytest.raises(ValueError, match="share the layers first, then factorize"):
        share_layers(factorize(model, ffn_rank=4), 2, "mean")
    with pytest.raises(ValueError, match="Layers 0 and 1 cannot share .* 2 and 1 heads, 24 and 24 neurons"):
        share_layers(prune(model, [2, 1, 2, 2], [24] * 4), 2)
