"""Low-rank factorization: the best approximation, what it saves, and what is refused."""

import copy
from pathlib import Path

import pytest
import torch
from helpers import VOCABULARY, tiny_model
from tiny_students import assert_equal_outputs, maps_of, outputs_of, table_of
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    BertForMaskedLM,
)

from bertkd.efficiency import count_flops, count_parameters
from bertkd.models import (
    FAMILIES,
)
from bertkd.students import factorize, separate_position_bias, share_layers
from bertkd.students.low_rank import low_rank_factors


def best_of_rank(matrix: Tensor, rank: int) -> Tensor:
    left, values, right = torch.linalg.svd(matrix.double())
    return (left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]).float()


def test_factors_of_a_diagonal_matrix_keep_its_largest_entries() -> None:
    left, right = low_rank_factors(torch.diag(torch.tensor([1.0, 9.0, 4.0])), 2)
    assert left.shape == (3, 2) and right.shape == (2, 3)
    torch.testing.assert_close(left @ right, torch.diag(torch.tensor([0.0, 9.0, 4.0])))
    # Both factors carry half of each singular value: columns of length 3 and 2.
    torch.testing.assert_close(left.norm(dim=0), torch.tensor([3.0, 2.0]))
    torch.testing.assert_close(right.norm(dim=1), torch.tensor([3.0, 2.0]))


def test_the_error_of_the_factors_is_that_of_the_dropped_singular_values() -> None:
    matrix = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))
    left, right = low_rank_factors(matrix, 5)
    dropped = torch.linalg.svdvals(matrix)[5:]
    torch.testing.assert_close((matrix - left @ right).norm(), dropped.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_each_map_becomes_its_best_approximation(family: str) -> None:
    model = separate_position_bias(tiny_model(family))
    before = copy.deepcopy(model.state_dict())
    student = factorize(model, ffn_rank=4, embedding_rank=3)
    for layer in range(2):
        for ours, theirs in zip(maps_of(student, layer), maps_of(model, layer), strict=True):
            torch.testing.assert_close(ours.up.weight @ ours.down.weight, best_of_rank(theirs.weight, 4))
            assert torch.equal(ours.up.bias, theirs.bias) and ours.down.bias is None
            assert (ours.in_features, ours.out_features) == (theirs.in_features, theirs.out_features)
    table = table_of(student)

    assert table.weight.shape == (VOCABULARY, 3) and table.projection.bias is None
    rows = table(torch.arange(VOCABULARY))
    torch.testing.assert_close(rows, best_of_rank(table_of(model).weight, 3), rtol=0, atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())

    same = [name for name in before if name in student.state_dict() and "word_embeddings" not in name]
    assert len(same) == len(before) - 2 * 4 - 1  # two weights and two biases of each layer, and the table
    assert all(torch.equal(before[name], student.state_dict()[name]) for name in same)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_low_rank_computes_what_it_did(family: str) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        for module in (table_of(model), *maps_of(model, 0), *maps_of(model, 1)):
            module.weight.copy_(best_of_rank(module.weight, 4))
    assert_equal_outputs(factorize(model, ffn_rank=4, embedding_rank=4), model, family)
    assert (outputs_of(factorize(model, ffn_rank=3), family) - outputs_of(model, family)).abs().max() > 1e-3


def test_ranks_save_the_parameters_that_the_formula_says() -> None:
    model = tiny_model()  # 2 layers of 24 x 16 and 16 x 24, a table of 50 x 16
    before = count_parameters(model)
    ffn = count_parameters(factorize(model, ffn_rank=9))
    table = count_parameters(factorize(model, embedding_rank=12))

    assert before.total - ffn.total == 2 * 2 * (24 * 16 - 9 * (24 + 16))
    assert before.embeddings - ffn.embeddings == 0
    assert before.total - table.total == before.embeddings - table.embeddings == 50 * 16 - 12 * (50 + 16)

    # A multiplication and an addition of each weight that is gone, for each of the 8 tokens.
    saved = count_flops(model, 1, 8) - count_flops(factorize(model, ffn_rank=9), 1, 8)
    assert saved == 2 * 8 * 2 * 2 * (24 * 16 - 9 * (24 + 16))


def test_mode_and_dtype_stay() -> None:
    model = tiny_model().to(torch.bfloat16).train()
    for student in (factorize(model, ffn_rank=4, embedding_rank=3), share_layers(model, 1, "mean")):
        assert student.training and student.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in student.parameters()} == {torch.bfloat16}
    assert not factorize(tiny_model(), ffn_rank=4).training


@pytest.mark.parametrize(
    ("ranks", "message"),
    [
        ({}, "needs a rank: give ffn_rank, embedding_rank or both"),
        ({"ffn_rank": 0}, "ffn_rank must be at least 1, not 0"),
        ({"ffn_rank": 10}, r"ffn_rank=10 saves no .* layer 0, of 24 x 16: .* even at rank 9.6; give at most 9"),
        ({"ffn_rank": 500}, "ffn_rank=500 saves no parameters"),
        ({"embedding_rank": 13}, r"embedding_rank=13 saves no .* 50 x 16: .* even at rank 12.1; give at most 12"),
    ],
)
def test_ranks_that_save_nothing_are_refused(ranks: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        factorize(tiny_model(), **ranks)


def test_a_rank_at_break_even_saves_nothing() -> None:
    model = tiny_model(intermediate_size=48)  # 48 x 16 / (48 + 16) = 12
    with pytest.raises(ValueError, match="break even at rank 12.0; give at most 11"):
        factorize(model, ffn_rank=12)
    assert count_parameters(factorize(model, ffn_rank=11)).total < count_parameters(model).total


def test_one_lever_can_follow_the_other_but_not_itself() -> None:
    student = factorize(factorize(tiny_model(), ffn_rank=4), embedding_rank=3)
    assert_equal_outputs(student, factorize(tiny_model(), ffn_rank=4, embedding_rank=3))
    with pytest.raises(ValueError, match="feed-forward maps are factorized already, to rank 4"):
        factorize(student, ffn_rank=2)
    with pytest.raises(ValueError, match="word embeddings are factorized already, to rank 3"):
        factorize(student, embedding_rank=2)


def test_a_language_models_embeddings_stay_whole_and_its_layers_do_not(tmp_path: Path) -> None:
    model = BertForMaskedLM(tiny_model().config).eval()
    with pytest.raises(ValueError, match="BertForMaskedLM are also its output layer.*give ffn_rank alone"):
        factorize(model, embedding_rank=3)

    student = share_layers(factorize(model, ffn_rank=4), 1)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)

    assert loaded.get_output_embeddings().weight is table_of(loaded).weight
    assert maps_of(loaded, 0)[0].up.weight is maps_of(loaded, 1)[0].up.weight
    assert torch.equal(outputs_of(loaded), outputs_of(student))
