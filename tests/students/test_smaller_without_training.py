"""Students made without training: low-rank maps, layers that share weights, a vocabulary of the domain."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PAD, SETTINGS, VOCABULARY, Collator, StopAt, assert_same_run, dataset, tiny_model, word_tokenizer
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertModel,
    BertTokenizer,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaForMaskedLM,
)

from bertkd import DistillationConfig, DistillationTrainer, drop_layers
from bertkd.dynabert import make_adaptive
from bertkd.efficiency import count_flops, count_parameters, measure_latency, model_size_mb
from bertkd.models import (
    FAMILIES,
    attention_scores,
    encoder_layers,
    family_of,
    layer_sizes,
    refuse_factorized_or_shared,
)
from bertkd.models.pruned import PrunedBertForSequenceClassification
from bertkd.students import factorize, prune, prune_vocabulary, share_layers, zero_pad
from bertkd.students.low_rank import low_rank_factors
from bertkd.students.shared_layers import layer_groups


def batch_of(family: str = "bert") -> dict[str, Tensor]:
    """Rows of random tokens, the last one padded."""
    ids = torch.randint(3, VOCABULARY, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[-1, 5:], mask[-1, 5:] = PAD[family], 0
    return {"input_ids": ids, "attention_mask": mask}


def outputs_of(model: PreTrainedModel, family: str = "bert") -> Tensor:
    with torch.no_grad():
        return model(**batch_of(family))[0]


def assert_equal_outputs(one: PreTrainedModel, other: PreTrainedModel, family: str = "bert") -> None:
    torch.testing.assert_close(outputs_of(one, family), outputs_of(other, family), rtol=0, atol=1e-5)


def maps_of(model: PreTrainedModel, layer: int) -> tuple[Any, Any]:
    """The two feed-forward maps of a layer."""
    family, module = family_of(model), encoder_layers(model)[layer]
    return module.get_submodule(family.ffn_in), module.get_submodule(family.ffn_out)


def table_of(model: PreTrainedModel) -> Any:
    return model.base_model.get_submodule(family_of(model).word_embeddings)


def best_of_rank(matrix: Tensor, rank: int) -> Tensor:
    left, values, right = torch.linalg.svd(matrix.double())
    return (left[:, :rank] @ torch.diag(values[:rank]) @ right[:rank]).float()


# ---- factorization ----


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
    model = tiny_model(family)
    before = copy.deepcopy(model.state_dict())
    made = factorize(model, ffn_rank=4, embedding_rank=3)
    for layer in range(2):
        for ours, theirs in zip(maps_of(made, layer), maps_of(model, layer), strict=True):
            torch.testing.assert_close(ours.up.weight @ ours.down.weight, best_of_rank(theirs.weight, 4))
            assert torch.equal(ours.up.bias, theirs.bias) and ours.down.bias is None
            assert (ours.in_features, ours.out_features) == (theirs.in_features, theirs.out_features)
    table = table_of(made)
    assert table.weight.shape == (VOCABULARY, 3) and table.projection.bias is None
    rows = table(torch.arange(VOCABULARY))
    torch.testing.assert_close(rows, best_of_rank(table_of(model).weight, 3), rtol=0, atol=1e-4)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    same = [name for name in before if name in made.state_dict() and "word_embeddings" not in name]
    assert len(same) == len(before) - 2 * 4 - 1  # two weights and two biases of each layer, and the table
    assert all(torch.equal(before[name], made.state_dict()[name]) for name in same)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_of_low_rank_computes_what_it_did(family: str) -> None:
    model = tiny_model(family)
    with torch.no_grad():
        for matrix in [table_of(model).weight, *(one.weight for layer in (0, 1) for one in maps_of(model, layer))]:
            matrix.copy_(best_of_rank(matrix, 4))
    assert_equal_outputs(factorize(model, ffn_rank=4, embedding_rank=4), model, family)
    assert (outputs_of(factorize(model, ffn_rank=3), family) - outputs_of(model, family)).abs().max() > 1e-3


def test_ranks_save_the_parameters_that_the_formula_says() -> None:
    model = tiny_model()  # 2 layers of 24 x 16 and 16 x 24, a table of 50 x 16
    before, ffn, table = (
        count_parameters(one) for one in (model, factorize(model, ffn_rank=9), factorize(model, embedding_rank=12))
    )
    assert before.total - ffn.total == 2 * 2 * (24 * 16 - 9 * (24 + 16))
    assert before.embeddings - ffn.embeddings == 0
    assert before.total - table.total == before.embeddings - table.embeddings == 50 * 16 - 12 * (50 + 16)
    # A multiplication and an addition of each weight that is gone, for each of the 8 tokens.
    saved = count_flops(model, 1, 8) - count_flops(factorize(model, ffn_rank=9), 1, 8)
    assert saved == 2 * 8 * 2 * 2 * (24 * 16 - 9 * (24 + 16))


def test_mode_and_dtype_stay() -> None:
    model = tiny_model().to(torch.bfloat16).train()
    for made in (factorize(model, ffn_rank=4, embedding_rank=3), share_layers(model, 1, "mean")):
        assert made.training and made.dtype == torch.bfloat16
        assert {parameter.dtype for parameter in made.parameters()} == {torch.bfloat16}
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
    made = factorize(factorize(tiny_model(), ffn_rank=4), embedding_rank=3)
    assert_equal_outputs(made, factorize(tiny_model(), ffn_rank=4, embedding_rank=3))
    with pytest.raises(ValueError, match="feed-forward maps are factorized already, to rank 4"):
        factorize(made, ffn_rank=2)
    with pytest.raises(ValueError, match="word embeddings are factorized already, to rank 3"):
        factorize(made, embedding_rank=2)


def test_a_language_models_embeddings_stay_whole_and_its_layers_do_not(tmp_path: Path) -> None:
    model = BertForMaskedLM(tiny_model().config).eval()
    with pytest.raises(ValueError, match="BertForMaskedLM are also its output layer.*give ffn_rank alone"):
        factorize(model, embedding_rank=3)
    made = share_layers(factorize(model, ffn_rank=4), 1)
    made.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert loaded.get_output_embeddings().weight is table_of(loaded).weight
    assert maps_of(loaded, 0)[0].up.weight is maps_of(loaded, 1)[0].up.weight
    assert torch.equal(outputs_of(loaded), outputs_of(made))


# ---- layers that share weights ----


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
@pytest.mark.parametrize("family", FAMILIES)
def test_the_layers_of_a_group_are_its_first_or_their_mean(family: str, weights: str) -> None:
    model = tiny_model(family, layers=4)
    made = share_layers(model, [0, 1, 0, 1], weights)
    theirs, ours = list(encoder_layers(model)), list(encoder_layers(made))
    for one, other in ((0, 2), (1, 3)):
        for name, parameter in ours[one].named_parameters():
            assert ours[other].get_parameter(name) is parameter
            pair = theirs[one].get_parameter(name), theirs[other].get_parameter(name)
            torch.testing.assert_close(parameter, pair[0] if weights == "first" else (pair[0] + pair[1]) / 2)
    expected = copy.deepcopy(model)
    for index, layer in enumerate(encoder_layers(expected)):
        layer.load_state_dict(ours[index].state_dict())
    assert_equal_outputs(made, expected, family)
    assert not torch.equal(outputs_of(made, family), outputs_of(model, family))


def test_shared_weights_are_counted_and_saved_once(tmp_path: Path) -> None:
    model = tiny_model(layers=4)
    one_layer = sum(parameter.numel() for parameter in encoder_layers(model)[0].parameters())
    made = share_layers(model, 1)
    assert count_parameters(model).total - count_parameters(made).total == 3 * one_layer
    assert count_flops(made, 1, 8) == count_flops(model, 1, 8)
    for name, one in (("whole", model), ("shared", made)):
        one.save_pretrained(tmp_path / name)
    saved = load_file(tmp_path / "shared" / "model.safetensors")
    assert not [name for name in saved if "layer.1." in name] and [name for name in saved if "layer.0." in name]
    weights = 4 * 3 * one_layer / 1e6
    assert model_size_mb(tmp_path / "whole") - model_size_mb(tmp_path / "shared") > weights
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared")
    assert count_parameters(loaded).total == count_parameters(made).total


@pytest.mark.parametrize("tied", [True, False])
def test_sharing_does_not_depend_on_tied_word_embeddings(tied: bool, tmp_path: Path) -> None:
    made = share_layers(BertForMaskedLM(tiny_model(layers=3, tie_word_embeddings=tied).config).eval(), [0, 1, 1])
    made.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(outputs_of(loaded), outputs_of(made))
    assert (loaded.get_output_embeddings().weight is table_of(loaded).weight) == tied
    layers = encoder_layers(loaded)
    assert layers[1].output.dense.weight is layers[2].output.dense.weight
    assert layers[0].output.dense.weight is not layers[1].output.dense.weight


def test_gradients_of_a_group_add_up() -> None:
    made = share_layers(tiny_model(layers=3), [0, 1, 1])
    copies = zero_pad(made)
    labels = torch.tensor([0, 1, 2, 0])
    for model in (made, copies):
        model(**batch_of(), labels=labels).loss.backward()
    layers, theirs = encoder_layers(made), encoder_layers(copies)
    for name, parameter in layers[1].named_parameters():
        one, other = (theirs[index].get_parameter(name).grad for index in (1, 2))
        torch.testing.assert_close(parameter.grad, one + other, rtol=1e-4, atol=1e-6)
    weight = "output.dense.weight"
    torch.testing.assert_close(layers[0].get_parameter(weight).grad, theirs[0].get_parameter(weight).grad)
    assert (
        theirs[1].get_parameter(weight).grad.abs().max() > 0 and theirs[2].get_parameter(weight).grad.abs().max() > 0
    )


def test_each_layer_that_shares_is_seen_by_hooks() -> None:
    made = share_layers(tiny_model(layers=2), 1)
    with attention_scores(made) as captured:
        outputs_of(made)
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


# ---- together, and with what was there before ----

COMBINATIONS: dict[str, Any] = {
    "ffn": lambda model: factorize(model, ffn_rank=4),
    "embeddings": lambda model: factorize(model, embedding_rank=3),
    "shared": lambda model: share_layers(model, 2, "mean"),
    "all": lambda model: factorize(share_layers(model, [0, 1, 0, 1]), 4, 3),
    "the other way": lambda model: share_layers(factorize(model, 4, 3), 2),
    "pruned, then all": lambda model: share_layers(
        factorize(prune(model, [1, 1, 2, 2], [9, 9, 20, 20]), ffn_rank=3, embedding_rank=3), 2
    ),
    "all, then pruned": lambda model: prune(share_layers(factorize(model, 4, 3), 2), [1, 1, 0, 0], [9, 9, 20, 20]),
    "skipped, then factorized": lambda model: factorize(prune(model, [1, 2, 0, 2], [9, 0, 20, 24]), ffn_rank=3),
}


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_brings_back_the_model(family: str, name: str, tmp_path: Path) -> None:
    model = tiny_model(family, layers=4)
    made = COMBINATIONS[name](model)
    made.save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert type(loaded) is type(made) and type(loaded).__name__ == f"Pruned{type(model).__name__}"
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(outputs_of(loaded, family), outputs_of(made, family))
    assert layer_sizes(loaded) == layer_sizes(made)
    assert count_parameters(loaded) == count_parameters(made)
    assert count_parameters(made).total < count_parameters(model).total
    assert (tmp_path / "pruned.py").is_file() and (tmp_path / "families.py").is_file()
    again = copy.deepcopy(loaded)
    assert count_parameters(again) == count_parameters(loaded)


PLAIN = """
import sys, torch
from transformers import AutoModelForSequenceClassification
for folder in sys.argv[1:]:
    kept = torch.load(f"{folder}/wanted.pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        logits = model(**kept["inputs"]).logits
    print((logits - kept["logits"]).abs().max().item(), sum(p.numel() for p in model.parameters()))
assert not any(name.split(".")[0] == "bertkd" for name in sys.modules), "bertkd was imported"
"""


@pytest.mark.slow
def test_folders_open_in_a_process_without_bertkd(tmp_path: Path) -> None:
    counts = []
    for family, name in (("roberta", "all"), ("distilbert", "pruned, then all")):
        made = COMBINATIONS[name](tiny_model(family, layers=4))
        made.save_pretrained(tmp_path / family)
        kept = {"inputs": batch_of(family), "logits": outputs_of(made, family)}
        torch.save(kept, tmp_path / family / "wanted.pt")
        counts.append(count_parameters(made).total)
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "roberta"), str(tmp_path / "distilbert")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [int(count) for _, count in answers] == counts
    assert all(float(difference) < 1e-5 for difference, _ in answers)


def test_width_pruned_folders_are_written_as_before(tmp_path: Path) -> None:
    made = prune(tiny_model(layers=2), [1, 2], [9, 24])
    made.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not {"ffn_rank", "embedding_rank", "layer_groups"} & set(config)
    assert torch.equal(outputs_of(AutoModelForSequenceClassification.from_pretrained(tmp_path)), outputs_of(made))


def test_a_config_whose_groups_do_not_fit_is_refused(tmp_path: Path) -> None:
    share_layers(tiny_model(layers=4), 2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_groups": [0, 0, 1]}))
    with pytest.raises(ValueError, match="layer_groups names 3 layers, and the model has 4"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_can_be_dropped(family: str, tmp_path: Path) -> None:
    model = COMBINATIONS["all"](tiny_model(family, layers=4))  # groups 0, 1, 0, 1
    shorter = drop_layers(model, [0, 2, 3])
    assert shorter.config.layer_groups == [0, 0, 1] and model.config.layer_groups == [0, 1, 0, 1]
    expected = zero_pad(model)
    del encoder_layers(expected)[1]
    assert_equal_outputs(shorter, expected, family)
    assert maps_of(shorter, 0)[0].up.weight is maps_of(shorter, 1)[0].up.weight
    shorter.save_pretrained(tmp_path)
    assert_equal_outputs(AutoModelForSequenceClassification.from_pretrained(tmp_path), shorter, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_neurons_can_be_pruned(family: str) -> None:
    model = COMBINATIONS["all"](tiny_model(family, layers=4))
    made = prune(model, [1, 2, 1, 2], [9, 20, 9, 20])
    assert layer_sizes(made) == ((1, 2, 1, 2), (9, 20, 9, 20))
    assert_equal_outputs(made, prune(zero_pad(model), [1, 2, 1, 2], [9, 20, 9, 20]), family)
    with pytest.raises(ValueError, match="Layers 0 and 2 cannot share .* 2 and 1 heads, 24 and 24 neurons"):
        prune(model, [2, 2, 1, 2], [24] * 4)
    # Sizes that a stock config can express do not make it forget its ranks and groups.
    narrow = prune(model, [2] * 4, [9] * 4)
    assert narrow.config.ffn_rank == 4 and narrow.config.layer_groups == [0, 1, 0, 1]
    assert_equal_outputs(narrow, prune(zero_pad(model), [2] * 4, [9] * 4), family)


@pytest.mark.parametrize(
    "name", [name for name in COMBINATIONS if "skipped" not in name and "then pruned" not in name]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_model_computes_the_same(family: str, name: str) -> None:
    model = tiny_model(family, layers=4)
    made = COMBINATIONS[name](model)
    padded = zero_pad(made)
    assert type(padded) is type(model)
    assert not {"ffn_rank", "embedding_rank", "layer_groups"} & set(padded.config.to_dict())
    assert_equal_outputs(padded, made, family)


def test_what_needs_full_layers_can_refuse() -> None:
    refuse_factorized_or_shared(tiny_model(), "rewire")
    refuse_factorized_or_shared(prune(tiny_model(), [1, 2], [24, 24]), "rewire")
    with pytest.raises(
        ValueError, match=r"rewire needs .* this one has ffn_rank=4, layer_groups=\[0, 0\]: .*zero_pad"
    ):
        refuse_factorized_or_shared(factorize(share_layers(tiny_model(), 1), ffn_rank=4), "rewire")


def test_latency_is_measured() -> None:
    made = COMBINATIONS["all"](tiny_model(layers=4))
    assert measure_latency({"made": made}, sequence_length=8, repeats=1, warmup=0)["made"].p50_ms > 0


@pytest.mark.parametrize("made", [lambda model: prune(model, [1, 2], [9, 24]), COMBINATIONS["ffn"]])
def test_the_attention_can_be_switched_and_is_counted(made: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # What transformers remembers of the stock class would hide what it takes the pruned one for.
    remembered = "_can_set_attn_implementation_cached_value"
    for one in (BertForSequenceClassification, PrunedBertForSequenceClassification):
        monkeypatch.delattr(one, remembered, raising=False)
    model = made(tiny_model(attn_implementation="sdpa"))
    flops = count_flops(model, 1, 8)
    model.set_attn_implementation("eager")
    assert model.config._attn_implementation == "eager"
    assert flops == count_flops(model, 1, 8)


def test_the_vocabulary_of_factorized_embeddings_can_grow() -> None:
    made = factorize(share_layers(tiny_model(), 1), embedding_rank=3)
    made.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    assert table_of(made)(torch.tensor([VOCABULARY + 3])).shape == (1, 16)
    assert outputs_of(made).shape == (4, 3)
    assert maps_of(made, 0)[0].weight is maps_of(made, 1)[0].weight


def test_a_supernet_and_a_model_without_a_head_are_refused(tmp_path: Path) -> None:
    supernet, tokenizer = make_adaptive(tiny_model()), word_tokenizer(tmp_path)
    uses: dict[str, Any] = {
        "factorize": lambda model: factorize(model, ffn_rank=4),
        "share_layers": lambda model: share_layers(model, 1),
        "prune_vocabulary": lambda model: prune_vocabulary(model, tokenizer, ["w1"]),
    }
    for name, use in uses.items():
        with pytest.raises(ValueError, match=f"{name} needs an ordinary model"):
            use(supernet)
    base = BertModel(tiny_model().config)
    for name in ("factorize", "share_layers"):
        with pytest.raises(ValueError, match="no pruned class for BertModel"):
            uses[name](base)
    assert type(uses["prune_vocabulary"](base)[0]) is BertModel


# ---- training ----


def test_a_factorized_shared_model_trains_resumes_and_reloads(tmp_path: Path) -> None:
    start = factorize(share_layers(tiny_model(layers=4), 2), 4, 3)

    def trainer(folder: str, **settings: Any) -> DistillationTrainer:
        args = DistillationConfig(
            output_dir=str(tmp_path / folder),
            alpha=0.5,
            max_steps=4,
            **{**SETTINGS, "learning_rate": 0.05, **settings},
        )
        return DistillationTrainer(
            model=copy.deepcopy(start),
            teacher_model=tiny_model(layers=4, seed=5),
            args=args,
            train_dataset=dataset(32),
            data_collator=Collator(),
        )

    whole = trainer("whole")
    whole.train()
    first = trainer("resumed", save_strategy="steps", save_steps=2)
    first.add_callback(StopAt(2))
    first.train()
    checkpoint = tmp_path / "resumed" / "checkpoint-2"
    assert_equal_outputs(AutoModelForSequenceClassification.from_pretrained(checkpoint), first.model)
    second = trainer("resumed", save_strategy="steps", save_steps=2)
    second.train(resume_from_checkpoint=True)
    assert_same_run(second, whole)
    made = second.model.eval()
    assert count_parameters(made) == count_parameters(start)
    assert not torch.equal(outputs_of(made), outputs_of(start))
    assert not torch.equal(maps_of(made, 2)[1].down.weight, maps_of(start, 2)[1].down.weight)
    assert maps_of(made, 2)[1].down.weight is maps_of(made, 3)[1].down.weight
    second.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(outputs_of(loaded), outputs_of(made))


# ---- vocabulary ----

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "good", "##ness", "bad", "film", "#"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    return BertTokenizer(str(tmp_path / "vocab.txt"))


def ids_and_logits(model: PreTrainedModel, tokenizer: Any, *texts: Any) -> tuple[list[list[str]], Tensor]:
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return [tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"]], model(**batch)[0]


def test_the_vocabulary_is_that_of_the_texts(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(PIECES))
    before = copy.deepcopy(model.state_dict())
    made, smaller = prune_vocabulary(model, tokenizer, iter(["good film", "Goodness"]))
    kept = [token for token in PIECES if token != "bad"]
    assert smaller.get_vocab() == {token: index for index, token in enumerate(kept)}
    assert type(made) is BertForSequenceClassification and made.config.vocab_size == len(kept)
    assert torch.equal(table_of(made).weight, table_of(model).weight[[PIECES.index(token) for token in kept]])
    texts = (["Goodness film", "film"], ["good", "a film"])
    for inputs in (texts[:1], texts):
        (pieces, logits), (wanted, expected) = (
            ids_and_logits(one, two, *inputs) for one, two in ((made, smaller), (model, tokenizer))
        )
        assert pieces == wanted and pieces[0][:4] == ["[CLS]", "good", "##ness", "film"]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)
    assert len(tokenizer) == len(PIECES) and model.config.vocab_size == len(PIECES)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    made.save_pretrained(tmp_path / "made")
    smaller.save_pretrained(tmp_path / "made")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "made")
    assert loaded.get_vocab() == smaller.get_vocab()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "made")
    assert torch.equal(ids_and_logits(again, loaded, *texts)[1], logits)


def test_words_that_went_fall_into_single_characters(tokenizer: BertTokenizer) -> None:
    _, smaller = prune_vocabulary(tiny_model(vocab_size=len(PIECES)), tokenizer, ["film film", "good"], min_count=2)
    assert "good" not in smaller.get_vocab() and "##ness" not in smaller.get_vocab()
    assert smaller.tokenize("film abba good") == ["film", "a", "##b", "##b", "##a", "[UNK]"]


def test_special_tokens_are_found_under_their_new_ids(tmp_path: Path) -> None:
    names = ["unused", "[PAD]", "x", "more", "[UNK]", "[CLS]", "last", "[SEP]", "[MASK]", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.add_tokens(["<name>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    model = tiny_model(vocab_size=12, pad_token_id=1, bos_token_id=5, eos_token_id=[7, 6])
    made, smaller = prune_vocabulary(model, tokenizer, ["film"])
    # What the config names is kept as well ("last").
    kept = ["[PAD]", "x", "[UNK]", "[CLS]", "last", "[SEP]", "[MASK]", "film", "<name>", "<end>"]
    assert smaller.get_vocab() == {token: index for index, token in enumerate(kept)}
    assert (smaller.pad_token_id, smaller.unk_token_id, smaller.cls_token_id) == (0, 2, 3)
    assert (made.config.pad_token_id, made.config.bos_token_id, made.config.eos_token_id) == (0, 3, [5, 4])
    assert table_of(made).padding_idx == 0
    assert smaller(["film <name> x", "film <end>"], padding=True)["input_ids"] == [[3, 7, 8, 1, 5], [3, 7, 9, 5, 0]]
    pairs = (["film <name>", "x"], ["x", "film <end> x"])
    (pieces, logits), (wanted, expected) = (
        ids_and_logits(one, two, *pairs) for one, two in ((made, smaller), (model, tokenizer))
    )
    assert pieces == wanted
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_berts_own_post_processor_and_padding_are_renumbered() -> None:
    vocabulary = {token: index for index, token in enumerate(["more", *PIECES])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.Sequence([processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))])
    backend.enable_padding(pad_id=1, pad_token="[PAD]")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    _, smaller = prune_vocabulary(tiny_model(vocab_size=15, pad_token_id=1), tokenizer, ["good film"])
    content = json.loads(smaller.backend_tokenizer.to_str())
    assert content["padding"]["pad_id"] == 0
    assert smaller("good")["input_ids"] == [2, smaller.get_vocab()["good"], 3]
    assert "more" not in smaller.get_vocab()


@pytest.mark.parametrize(
    ("family", "model_class"),
    [
        ("bert", BertForMaskedLM),
        ("distilbert", DistilBertForMaskedLM),
        ("electra", ElectraForMaskedLM),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_language_models_output_layer_is_pruned_too(
    family: str, model_class: Any, tied: bool, tokenizer: BertTokenizer
) -> None:
    model = model_class(tiny_model(family, vocab_size=len(PIECES) + 2, tie_word_embeddings=tied).config).eval()
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.bias.copy_(torch.arange(len(PIECES) + 2))
    made, smaller = prune_vocabulary(model, tokenizer, ["good film"])  # two embeddings belong to no token
    kept = [PIECES.index(token) for token in smaller.convert_ids_to_tokens(range(len(smaller)))]
    assert len(kept) == len(PIECES) - 2
    output = made.get_output_embeddings()
    assert torch.equal(output.bias, torch.tensor(kept).float())
    assert (output.weight is table_of(made).weight) == tied
    logits = ids_and_logits(made, smaller, ["good [MASK] film"])[1]
    expected = ids_and_logits(model, tokenizer, ["good [MASK] film"])[1]
    torch.testing.assert_close(logits, expected[..., kept], rtol=0, atol=1e-5)


def test_the_vocabulary_of_a_factorized_shared_model_is_pruned_too(tokenizer: BertTokenizer) -> None:
    model = factorize(share_layers(tiny_model(vocab_size=len(PIECES)), 1), 4, 3)
    made, smaller = prune_vocabulary(model, tokenizer, ["film"])
    assert made.config.layer_groups == [0, 0] and table_of(made).weight.shape == (len(smaller), 3)
    logits, expected = (ids_and_logits(one, two, ["film a"])[1] for one, two in ((made, smaller), (model, tokenizer)))
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_other_tokenizers_are_refused(kind: str) -> None:
    backend = Tokenizer(
        models.BPE({"a": 0, "b": 1}, []) if kind == "BPE" else models.Unigram([("a", 0.0), ("b", -1.0)])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")
    with pytest.raises(ValueError, match=f"WordPiece tokenizers, and this .* is {kind}: merges and scores"):
        prune_vocabulary(RobertaForMaskedLM(tiny_model("roberta", vocab_size=2).config), tokenizer, ["a"])


def test_what_a_vocabulary_cannot_be_chosen_by_is_refused(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(PIECES))
    with pytest.raises(ValueError, match="There is no token in the texts"):
        prune_vocabulary(model, tokenizer, ["", " "])
    with pytest.raises(ValueError, match="a single string: give a list"):
        prune_vocabulary(model, tokenizer, "good film")
    with pytest.raises(ValueError, match="min_count must be at least 1, not 0"):
        prune_vocabulary(model, tokenizer, ["good"], min_count=0)
    for size in (len(PIECES) - 1, len(PIECES) + 128):
        with pytest.raises(ValueError, match=f"has 14 tokens and the model {size} word embeddings"):
            prune_vocabulary(tiny_model(vocab_size=size), tokenizer, ["good"])
