"""Pruning to a budget: scores, harms, fits and the choice of sizes."""

import copy
import itertools
import math
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import PAD, VOCABULARY, tiny_model
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Trainer, TrainingArguments

from bertkd.dynabert import make_adaptive
from bertkd.efficiency import TorchRunner, count_parameters
from bertkd.efficiency.costs import CostTable, choose_within
from bertkd.models import FAMILIES, LayerSizes, encoder_layers, family_of, layer_sizes
from bertkd.pruning import Pruner, prune_to_budget, pruning_costs, reconstruct, unit_scores
from bertkd.pruning.budget import measure_of
from bertkd.pruning.fitting import Moments, token_weights
from bertkd.pruning.harms import RIDGE, levels_of, measure_harms, own_moments
from bertkd.pruning.network import Rows, SubLayer, counted_tokens, divergence, sub_layers, without
from bertkd.pruning.orders import by_error
from bertkd.students import factorize, prune, separate_position_bias, zero_pad
from bertkd.students.width import reorder_units


def model_of(family: str = "bert", **settings: Any) -> PreTrainedModel:
    """Three layers of four heads and 24 neurons, whose predictions are not all alike."""
    heads = "n_heads" if family == "distilbert" else "num_attention_heads"
    settings = {"layers": 3, heads: 4, "num_labels": 3, **settings}
    model = separate_position_bias(tiny_model(family, **settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name.lower():
                parameter.mul_(2)
    return model.eval()


def batches_of(family: str = "bert", batches: int = 4, rows: int = 8, seed: int = 1) -> list[dict[str, Tensor]]:
    """Batches of random tokens, two rows of each padded."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(batches):
        ids = torch.randint(3, VOCABULARY, (rows, 9), generator=generator)
        mask = torch.ones_like(ids)
        ids[-2:, 5:], mask[-2:, 5:] = PAD[family], 0
        made.append({"input_ids": ids, "attention_mask": mask})
    return made


def logits_of(model: PreTrainedModel, batches: list[dict[str, Tensor]]) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(**batch).logits for batch in batches])


# ---- scores ----


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("labels", [1, 2, 3])
def test_scores_are_the_second_derivative_of_the_divergence(family: str, labels: int) -> None:
    model, batches = model_of(family, num_labels=labels).double(), batches_of(family)
    scores, expected, step = unit_scores(model, batches), logits_of(model, batches), 1e-3
    for sub_layer in (sub_layers(model)[0], sub_layers(model)[3], sub_layers(model)[-1]):
        unit = int(scores.of(sub_layer).argmax())
        columns = sub_layer.columns(torch.tensor([unit]))
        assert sub_layer.projection is not None
        weight = sub_layer.projection.weight.data
        around = []
        for factor in (1 - step, 1 + step):
            sub_layer.projection.weight.data = weight.clone()
            sub_layer.projection.weight.data[:, columns] *= factor
            logits = logits_of(model, batches)
            if labels == 1:
                around.append(float((expected - logits).square().mean() / 2))
            else:
                p, q = expected.log_softmax(-1), logits.log_softmax(-1)
                around.append(float((p.exp() * (p - q)).sum(-1).mean()))
        sub_layer.projection.weight.data = weight
        assert float(scores.of(sub_layer)[unit]) == pytest.approx(sum(around) / step**2, rel=2e-3)


def test_the_score_of_one_gate_is_the_one_computed_by_hand() -> None:
    # z_1 - z_0 = g ln 3: p = (1/4, 3/4), F = 3/16 (ln 3)², and taking the gate away costs ln 2 - H(p).
    logits = torch.tensor([[0.0, math.log(3)]])
    assert divergence(logits, torch.zeros(1, 2)) == pytest.approx(0.13081, abs=1e-5)

    from bertkd.pruning.scores import _log_likelihoods

    gate = torch.ones(1, requires_grad=True)
    fisher = 0.0
    for value, weight in _log_likelihoods(torch.stack([torch.zeros(1), gate * math.log(3)], dim=-1)):
        (gradient,) = torch.autograd.grad(value.sum(), gate, retain_graph=True)
        fisher += float(gradient.square() * weight)
    assert fisher == pytest.approx(0.22630, abs=1e-5)


def test_scores_depend_on_nothing_but_rows(tmp_path: Path) -> None:
    model, batches = model_of(), batches_of(batches=2)
    model.train()
    frozen = next(model.parameters()).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    scores = unit_scores(model, batches)
    assert scores.heads.shape == (3, 4) and scores.neurons.shape == (3, 24)
    assert model.training and not frozen.requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())

    # Other batches, other padding, another order, and labels.
    rows = [{name: value[[index]] for name, value in batch.items()} for batch in batches for index in range(8)]
    for row in rows:
        row["input_ids"] = torch.nn.functional.pad(row["input_ids"], (0, 3), value=PAD["bert"])
        row["attention_mask"] = torch.nn.functional.pad(row["attention_mask"], (0, 3))
        row["labels"] = torch.tensor([1])
    others = unit_scores(model, rows[::-1])
    torch.testing.assert_close(others.heads, scores.heads, rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(others.neurons, scores.neurons, rtol=1e-4, atol=1e-7)

    # Units in another order have the same scores, in that order.
    generator = torch.Generator().manual_seed(3)
    heads = [torch.randperm(4, generator=generator) for _ in range(3)]
    neurons = [torch.randperm(24, generator=generator) for _ in range(3)]
    permuted = unit_scores(reorder_units(copy.deepcopy(model), heads, neurons), batches)
    for index in range(3):
        torch.testing.assert_close(permuted.heads[index], scores.heads[index][heads[index]], rtol=1e-4, atol=1e-7)
        torch.testing.assert_close(
            permuted.neurons[index], scores.neurons[index][neurons[index]], rtol=1e-4, atol=1e-7
        )


def test_one_batch_at_a_time_is_in_memory_while_units_are_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = model_of(), list[Any]()

    def watch(_module: nn.Module, _inputs: Any, output: Any) -> None:
        assert not [logits for logits in before if logits() is not None]
        before.append(weakref.ref(output.logits))

    model.register_forward_hook(watch)
    unit_scores(model, batches_of())
    assert len(before) == 4


def test_scores_of_a_pruned_model_are_those_of_its_units() -> None:
    pruned = prune(model_of(), [4, 0, 2], [8, 24, 0])
    scores = unit_scores(pruned, batches_of())
    assert scores.heads.shape == (3, 4) and scores.neurons.shape == (3, 24)
    assert (scores.heads[1] == 0).all() and (scores.heads[2, 2:] == 0).all() and (scores.heads[2, :2] > 0).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_adaptive(model_of()), "needs an ordinary model"),
        (lambda: factorize(model_of(), ffn_rank=4), "neither factorized nor shared"),
        (lambda: model_of().bert, "sequence classifier"),
    ],
)
def test_what_cannot_be_scored_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unit_scores(make(), batches_of())


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no batch of calibration rows"):
        unit_scores(model_of(), [])


# ---- rows on their way through a network ----


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_give_the_logits_of_the_whole_model_from_every_layer(family: str) -> None:
    model, batches = model_of(family), batches_of(family)
    expected = logits_of(model, batches)
    rows = Rows(model, batches)
    for layer in range(3):
        torch.testing.assert_close(rows.outputs(), expected, rtol=1e-5, atol=1e-5)
        if layer < 2:
            rows.advance()
    torch.testing.assert_close(logits_of(model, batches), expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_sub_layer_left_out_is_what_prune_makes_of_it(family: str) -> None:
    model, batches = model_of(family), batches_of(family)
    expected = logits_of(model, batches)
    for sub_layer in sub_layers(model):
        heads, neurons = [4, 4, 4], [24, 24, 24]
        (heads if sub_layer.part == "attention" else neurons)[sub_layer.layer] = 0
        with without(sub_layer, model):
            left_out = logits_of(model, batches)
        torch.testing.assert_close(
            left_out, logits_of(prune(model, heads, neurons).eval(), batches), atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(logits_of(model, batches), expected)


def test_the_last_layer_of_a_classifier_counts_its_first_token_alone() -> None:
    model, batch = model_of(), batches_of(batches=1)[0]
    assert counted_tokens(model, 1, batch).sum() == batch["attention_mask"].sum()
    assert counted_tokens(model, 2, batch).nonzero().tolist() == [[row, 0] for row in range(8)]


# ---- fits ----


def moments_of(inputs: Tensor, goals: Tensor, weights: Tensor | None = None) -> Moments:
    moments = Moments(inputs.shape[-1], goals.shape[-1], torch.device("cpu"))
    weights = torch.ones(1, len(inputs)) if weights is None else weights[None]
    moments.add(inputs[None], weights, goals[None])
    return moments


def error_of(moments: Moments, columns: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The weighted sum of squares that a map leaves, but for the goals' own, which no map changes."""
    weight, bias = weight.double(), bias.double()
    outputs = (weight @ moments.gram[columns][:, columns] * weight).sum()
    outputs = outputs + 2 * bias @ (weight @ moments.inputs[columns]) + moments.weight * bias.square().sum()
    return outputs - 2 * ((weight.T * moments.cross[columns]).sum() + bias @ moments.goals)


def test_a_fit_without_a_ridge_is_the_least_squares_fit() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, goals = torch.randn(50, 5, generator=generator).double(), torch.randn(50, 3, generator=generator).double()
    weights = torch.rand(50, generator=generator).double() + 0.1
    kept = torch.tensor([0, 2, 3])
    weight, bias = moments_of(inputs, goals, weights).fit(kept, torch.zeros(3, 3), 0.0)

    design = torch.cat([inputs[:, kept], torch.ones(50, 1)], dim=1) * weights.sqrt()[:, None]
    expected = torch.linalg.lstsq(design, goals * weights.sqrt()[:, None]).solution
    torch.testing.assert_close(weight, expected[:3].T, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(bias, expected[3], rtol=1e-8, atol=1e-8)


def test_fits_computed_by_hand() -> None:
    # Centred columns with the Gram matrix [[1, .6], [.6, 1]] and W = (2, 1): the fit on the first has W' = 2.6, and
    # leaves 1 - .36 = .64.
    first, second = torch.tensor([1.0, -1.0, 0.0, 0.0]), torch.tensor([0.6, -0.6, 0.8, -0.8])
    inputs = torch.stack([first, second], dim=-1).double() / math.sqrt(2)
    goals = inputs @ torch.tensor([[2.0], [1.0]]).double()
    moments = moments_of(inputs, goals)
    weight, bias = moments.fit(torch.tensor([0]), torch.zeros(1, 1), 0.0)
    assert weight.item() == pytest.approx(2.6) and bias.item() == pytest.approx(0)
    left = goals.square().sum() + error_of(moments, torch.tensor([0]), weight, bias)
    assert left.item() == pytest.approx(0.64)

    # Twin columns: one of them takes over what both did.
    twins = torch.stack([first, first], dim=-1)
    weight, _ = moments_of(twins, (twins @ torch.tensor([[2.0], [1.0]]))).fit(
        torch.tensor([0]), torch.zeros(1, 1), 0.0
    )
    assert weight.item() == pytest.approx(3)

    # Weights 1 and 3, a constant input, goals 0 and 2: what the bias gives is 1.5.
    constant = moments_of(torch.ones(2, 1), torch.tensor([[0.0], [2.0]]), torch.tensor([1.0, 3.0]))
    weight, bias = constant.fit(torch.tensor([0]), torch.zeros(1, 1), 0.0)
    assert weight.item() + bias.item() == pytest.approx(1.5)


def test_a_ridge_pulls_towards_the_weights_before_and_rows_that_are_doubled_change_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, goals = torch.randn(20, 4, generator=generator), torch.randn(20, 2, generator=generator)
    start, columns = torch.randn(2, 4, generator=generator), torch.arange(4)
    weight, _ = moments_of(inputs, goals).fit(columns, start, 1e9)
    torch.testing.assert_close(weight.float(), start, rtol=1e-4, atol=1e-4)

    once = moments_of(inputs, goals).fit(columns, start, 0.1)
    twice = moments_of(torch.cat([inputs, inputs]), torch.cat([goals, goals])).fit(columns, start, 0.1)
    torch.testing.assert_close(once[0], twice[0])


def test_a_fit_never_raises_the_error_on_its_own_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(20):
        inputs = torch.randn(12, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
        map_before = nn.Linear(8, 3)
        goals = map_before(inputs).detach()
        moments = moments_of(inputs, goals, torch.rand(12, generator=generator) + 0.1)
        kept = torch.randperm(8, generator=generator)[: 1 + trial % 8]
        start, bias = map_before.weight.data[:, kept], map_before.bias.data
        before = error_of(moments, kept, start, bias)
        for ridge in (0.0, 1e-3, 1e-1):
            assert error_of(moments, kept, *moments.fit(kept, start, ridge)) <= before + 1e-6 * before.abs()


def test_weights_of_tokens_leave_padding_out() -> None:
    sums = torch.tensor([[[1.0, 3.0], [10.0, 30.0], [0.0, 2.0]]])
    weights = token_weights(sums, torch.tensor([[True, True, False]]))
    assert weights.tolist() == [[1.0, pytest.approx(0.01), 0.0]]


# ---- the order in which units go ----


@pytest.mark.parametrize("unit_size", [1, 3])
def test_units_go_by_the_error_that_a_fit_leaves(unit_size: int) -> None:
    """Against brute force: each unit is left out in turn, and the rest is fitted anew."""
    generator = torch.Generator().manual_seed(unit_size)
    projection = nn.Linear(7 * unit_size, 4)
    inputs = torch.randn(60, 7 * unit_size, generator=generator)
    inputs = inputs @ torch.randn(7 * unit_size, 7 * unit_size, generator=generator)
    part = SubLayer(0, "ffn", nn.Module(), projection, None, 7, unit_size)
    moments = moments_of(inputs, torch.zeros(60, 4)).with_goals_of(projection)

    kept, gone = list(range(7)), list[int]()
    while kept:
        errors = []
        for unit in kept:
            columns = part.columns(torch.tensor([other for other in kept if other != unit], dtype=torch.long))
            fit = moments.fit(columns, projection.weight[:, columns], 0.0)
            errors.append(float(error_of(moments, columns, *fit)))
        gone.append(kept.pop(errors.index(min(errors))))
    assert by_error(part, moments, 0.0).tolist() == gone[::-1]


def test_of_two_units_that_do_the_same_one_stays() -> None:
    # Two twins matter most as long as both count on their own; the third unit is not replaced by anything.
    projection = nn.Linear(3, 2, bias=False)
    projection.weight.data = torch.tensor([[2.0, 2.0, 1.0], [0.0, 0.0, 0.5]])
    inputs = torch.randn(40, 2, generator=torch.Generator().manual_seed(0))[:, [0, 0, 1]]
    part = SubLayer(0, "ffn", nn.Module(), projection, None, 3, 1)
    moments = moments_of(inputs, inputs @ projection.weight.data.T)
    assert by_error(part, moments, 1e-6).tolist()[1] == 2


# ---- harms ----


def test_harms_are_zero_for_all_units_and_those_of_a_pruned_model_for_none() -> None:
    model, batches = model_of(), batches_of()
    scores, parts = unit_scores(model, batches), sub_layers(model)
    levels = [levels_of(part, 4 if part.part == "attention" else 24) for part in parts]
    assert levels[0] == [0, 1, 2, 3, 4] and levels[1] == [0, 1, 2, 6, 12, 20, 24]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    harms = measure_harms(model, scores, batches[:2], batches[2:], levels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    expected = logits_of(model, batches[:2])
    for part, harm in zip(parts, harms, strict=True):
        assert list(harm) == levels[2 * part.layer + (part.part == "ffn")]
        assert harm[part.units].harm == 0 and all(level.harm >= 0 for level in harm.values())
        assert all(level.order.sort().values.tolist() == list(range(part.units)) for level in harm.values())
        with without(part, model):
            # The norm before may make up for a part of it.
            assert 0 < harm[0].harm <= divergence(expected, logits_of(model, batches[:2])) * (1 + 1e-4)


def test_units_stay_by_score_by_error_or_by_what_harms_less() -> None:
    model, batches = model_of(), batches_of()
    scores, parts = unit_scores(model, batches), sub_layers(model)
    levels = [levels_of(part, 4 if part.part == "attention" else 24) for part in parts]
    by_score, by_error_alone, measured = (
        measure_harms(model, scores, batches[:2], batches[2:], levels, unit_order=order)
        for order in ("score", "error", "measured")
    )

    probed, rows = {"attention": (1, 2), "ffn": (6, 12)}, Rows(model, batches[2:])
    for part, *found in zip(parts, by_score, by_error_alone, measured, strict=True):
        with torch.no_grad():
            error_order = by_error(part, own_moments(part, rows), RIDGE)
            if part.part == "ffn":
                rows.advance()
        for units in probed[part.part]:
            ours, theirs, best = (levels[units] for levels in found)
            assert ours.order.tolist() == scores.of(part).argsort(descending=True, stable=True).tolist()
            assert theirs.order.tolist() == error_order.tolist()
            assert best.harm == min(ours.harm, theirs.harm)
            assert best.order.tolist() == (ours if ours.harm <= theirs.harm else theirs).order.tolist()


# ---- the choice of sizes ----


def test_the_choice_is_that_of_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    for trial in range(30):
        counts = [1 + int(torch.randint(4, (1,), generator=generator)) for _ in range(4)]
        # Whole numbers of bins, ties and zero costs among them.
        costs = [torch.randint(5, (count,), generator=generator).tolist() for count in counts]
        values = [torch.randint(4, (count,), generator=generator).tolist() for count in counts]
        for budget in (0, 1, 2, 5, 10, 20):
            best = None
            for places in itertools.product(*(range(count) for count in counts)):
                cost = sum(costs[group][place] for group, place in enumerate(places))
                value = sum(values[group][place] for group, place in enumerate(places))
                if cost <= budget and (best is None or value > best):
                    best = value
            chosen = choose_within(costs, values, budget)
            assert (chosen is None) == (best is None), (trial, budget)
            if chosen is not None:
                assert sum(costs[group][place] for group, place in enumerate(chosen)) <= budget
                assert sum(values[group][place] for group, place in enumerate(chosen)) == best


@pytest.mark.parametrize("unit", ["parameters", "flops"])
def test_every_budget_is_met_and_a_larger_one_harms_no_more(unit: str) -> None:
    model = model_of()
    measure = measure_of(unit, 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    assert costs.cost(layer_sizes(model)) == pytest.approx(measure([model])[0])
    smallest, full, harm_before = costs.of_one_head, costs.cost(layer_sizes(model)), math.inf
    assert any(pruner.select(smallest, costs, measure).sizes.heads)
    for step in range(1, 21):
        budget = smallest + (full - smallest) * step / 20
        selection = pruner.select(budget, costs, measure)
        assert selection.measured <= budget
        assert selection.harm <= harm_before + 1e-9
        harm_before = selection.harm
    assert selection.sizes == layer_sizes(model) and selection.harm == 0


def test_a_size_that_is_measured_over_the_budget_gives_way_to_a_smaller_one() -> None:
    model = model_of()
    measure = measure_of("parameters", 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    budget = 0.95 * measure([model])[0]
    # A clock that finds everything a tenth dearer than the table.
    selection = pruner.select(budget, costs, lambda models: [1.1 * cost for cost in measure(models)])
    assert selection.measured <= budget < 1.1 * pruner.select(budget, costs).predicted


def test_a_size_that_is_measured_far_below_the_budget_gives_way_to_a_larger_one() -> None:
    model = model_of()
    measure = measure_of("parameters", 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    budget = 0.7 * measure([model])[0]
    # A clock that finds everything a fifth cheaper than the table.
    selection = pruner.select(budget, costs, lambda models: [0.8 * cost for cost in measure(models)])
    assert 0.95 * budget <= selection.measured <= budget < selection.predicted


def test_a_whole_model_that_is_measured_just_over_the_budget_gives_way_to_a_smaller_one() -> None:
    model = model_of()
    measure = measure_of("parameters", 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    budget = measure([model])[0]
    # The table says that the whole model is within, and the clock that it is not.
    selection = pruner.select(budget, costs, lambda models: [1.01 * cost for cost in measure(models)])
    assert 0.9 * budget < selection.measured <= budget and selection.sizes != layer_sizes(model)


def test_where_dropping_everything_harms_least_one_part_keeps_its_best_units() -> None:
    model = model_of(layers=2)
    measure = measure_of("parameters", 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    for levels in pruner.harms:
        for units in levels:
            levels[units] = replace(levels[units], harm=0.0 if units == 0 else 1.0)
    pruner.harms[2][3] = replace(pruner.harms[2][3], harm=0.5)
    budget = 0.95 * measure([model])[0]
    assert pruner.select(budget, costs).sizes == LayerSizes((0, 3), (0, 0))
    with pytest.raises(ValueError, match=r"this model is within [\d.e+]+: one with a single head takes [\d.e+]+$"):
        pruner.select(costs.fixed, costs)


def test_the_choice_among_networks_with_a_head_is_that_of_brute_force() -> None:
    # Budgets and costs are whole numbers of bins, so that nothing is lost by rounding.
    pruner = Pruner.prepared(model_of(layers=2), batches_of())
    parts = [{units: float(cost) for cost, units in enumerate(levels)} for levels in pruner.harms]
    costs = CostTable(1.0, parts[0], parts[1])
    networks = [LayerSizes((h0, h1), (n0, n1)) for h0, n0, h1, n1 in itertools.product(*parts)]
    generator, without_heads = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        for levels in pruner.harms[0::2]:
            for units in levels:
                # Leaving an attention out harms least as often as not.
                harm = float(torch.rand((), generator=generator)) * (1 if units else 0.1)
                levels[units] = replace(levels[units], harm=harm)
        for budget in (1.0, 2.0, 3.0, 5.0, 9.0):
            within = [sizes for sizes in networks if costs.cost(sizes) <= budget]
            without_heads += not any(min(within, key=pruner._harm).heads)
            expected = min((sizes for sizes in within if any(sizes.heads)), key=pruner._harm, default=None)
            chosen = pruner._least_harm(budget, costs)
            assert (chosen and pruner._harm(chosen)) == (expected and pytest.approx(pruner._harm(expected)))
    assert without_heads > 20


def test_a_search_that_knows_the_clock_measures_one_network() -> None:
    model = model_of()
    measure = measure_of("parameters", 1, 9)
    pruner, costs = Pruner.prepared(model, batches_of()), pruning_costs(model, measure)
    budget, measured = 0.8 * measure([model])[0], []

    def clock(models: Any) -> list[float]:
        measured.extend(models)
        return [0.8 * cost for cost in measure(models)]

    assert pruner.select(budget, costs, clock, target=budget / 0.8).measured <= budget
    assert len(measured) == 1


def test_networks_of_the_cost_table_are_measured_once_and_costs_between_them_lie_on_lines() -> None:
    model, measured = tiny_model(layers=2, num_attention_heads=4, intermediate_size=96), []

    def price(sizes: LayerSizes) -> float:
        # A part costs 2 at all; besides 3 a head, and 0.1 a neuron.
        heads = sum(2 + 3 * count for count in sizes.heads if count)
        return 1 + heads + sum(2 + 0.1 * count for count in sizes.neurons if count)

    def measure(models: Any) -> list[float]:
        measured.extend(layer_sizes(model) for model in models)
        return list(map(price, measured[-len(models) :]))

    costs = pruning_costs(model, measure)
    assert len(measured) == len(set(measured)) == 8
    assert costs.fixed == pytest.approx(1.0)
    for heads in range(1, 5):
        assert costs.of_heads(heads) == pytest.approx(2 + 3 * heads)
    for neurons in (2, 10, 50, 96):
        assert costs.of_neurons(neurons) == pytest.approx(2 + 0.1 * neurons)
    assert costs.of_heads(0) == costs.of_neurons(0) == 0


@pytest.mark.parametrize("unit", ["parameters", "flops", "mb"])
def test_the_table_of_a_single_layer_tells_its_parts_from_the_rest(unit: str) -> None:
    model = model_of(layers=1)
    measure = measure_of(unit, 1, 9)
    costs = pruning_costs(model, measure)
    for sizes in (([1], [0]), ([0], [6]), ([2], [24]), ([4], [24])):
        assert costs.cost(LayerSizes(*map(tuple, sizes))) == pytest.approx(measure([prune(model, *sizes)])[0])
    assert costs.fixed == pytest.approx(measure([prune(model, [0], [0])])[0])


def test_a_budget_that_nothing_meets_is_refused_with_the_smallest_cost() -> None:
    with pytest.raises(
        ValueError, match=r"No network of this model is within 10 parameters: one with a single head takes \d"
    ):
        prune_to_budget(model_of(), batches_of(), 10, "parameters")
    with pytest.raises(ValueError, match="unit must be one of ms, mb, parameters, flops, not 'hours'"):
        prune_to_budget(model_of(), batches_of(), 10, "hours")


def test_a_pruned_model_has_no_table_of_costs() -> None:
    with pytest.raises(ValueError, match="was pruned already"):
        prune_to_budget(prune(model_of(), [4, 0, 2], [8, 24, 0]), batches_of(), 10, "parameters")


# ---- the pruned model ----


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_budget_changes_no_logit(family: str) -> None:
    model, batches = model_of(family), batches_of(family)
    pruned = prune_to_budget(model, batches, 1e12, "parameters")
    torch.testing.assert_close(logits_of(pruned.eval(), batches), logits_of(model, batches), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_reloads_in_every_form_with_the_same_logits(family: str, tmp_path: Path) -> None:
    model, batches = model_of(family).train(), batches_of(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    budget = 0.6 * count_parameters(model).total
    pruned = prune_to_budget(model, batches, budget, "parameters")
    assert count_parameters(pruned).total <= budget and pruned.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())

    expected = logits_of(pruned.eval(), batches)
    pruned.save_pretrained(tmp_path)
    reloaded = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(logits_of(reloaded, batches), expected, rtol=1e-5, atol=1e-5)
    if family != "mpnet" and 0 not in (*layer_sizes(pruned).heads, *layer_sizes(pruned).neurons):
        torch.testing.assert_close(logits_of(zero_pad(pruned).eval(), batches), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pruned_model_computes_what_the_whole_one_does_with_these_units_alone(family: str) -> None:
    model, batches = model_of(family), batches_of(family)
    pruner = Pruner.prepared(model, batches)
    sizes = LayerSizes((2, 0, 3), (12, 24, 0))
    cut = pruner.pruned(sizes, rows=0)
    whole = copy.deepcopy(model)
    with torch.no_grad():
        for part in sub_layers(whole):
            kept = sizes[part.part == "ffn"][part.layer]
            if kept:
                gone = pruner.harms[2 * part.layer + (part.part == "ffn")][kept].order[kept:]
                assert part.projection is not None
                part.projection.weight[:, part.columns(gone)] = 0
    with without(sub_layers(whole)[2], whole), without(sub_layers(whole)[5], whole):
        torch.testing.assert_close(logits_of(cut.eval(), batches), logits_of(whole, batches), rtol=1e-5, atol=1e-5)


# ---- reconstruction ----


@pytest.mark.parametrize("family", FAMILIES)
def test_reconstruction_is_never_worse_on_the_rows_that_choose_and_keeps_the_teacher(family: str) -> None:
    model, batches = model_of(family), batches_of(family, batches=8)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    pruner = Pruner.prepared(model, batches)
    for sizes in (
        LayerSizes((2, 3, 2), (8, 12, 6)),
        LayerSizes((0, 2, 4), (12, 0, 24)),
        LayerSizes((2, 0, 2), (8, 0, 4)),
    ):
        cut = pruner.pruned(sizes, rows=0)
        harm = pruner.divergence(cut)
        frozen = next(cut.parameters()).requires_grad_(False)
        assert reconstruct(cut, model, batches) is cut
        assert not frozen.requires_grad
        assert pruner.divergence(cut) <= harm * (1 + 1e-4) + 1e-7
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_a_layer_was_fitted_to_is_freed_before_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model, goals = model_of(), list[Any]()
    run_layer, advance = Rows.run_layer, Rows.advance

    def noted(self: Rows, *modules: nn.Module) -> Any:
        for index, values in run_layer(self, *modules):
            goals.extend(map(weakref.ref, values if self.model is model else ()))
            yield index, values

    def checked(self: Rows) -> None:
        assert goals and not [goal for goal in goals if goal() is not None]
        advance(self)

    monkeypatch.setattr(Rows, "run_layer", noted)
    monkeypatch.setattr(Rows, "advance", checked)
    reconstruct(prune(model, [2, 0, 2], [8, 12, 0]).eval(), model, batches_of())


def test_a_missing_sub_layer_that_added_nothing_is_made_up_for_by_the_norm_before() -> None:
    model, batches = model_of(), batches_of(batches=8)
    layer = encoder_layers(model)[1]
    family = family_of(model)
    with torch.no_grad():
        for path in (family.ffn_out, family.attention_output):
            layer.get_submodule(path).weight.zero_()
            layer.get_submodule(path).bias.zero_()
        # The norms behind are plain, so that they undo what the one before did to its channels.
        generator = torch.Generator().manual_seed(0)
        norm = encoder_layers(model)[0].get_submodule(family.ffn_norm)
        norm.weight.copy_(1 + torch.rand(norm.weight.shape, generator=generator))
    cut = prune(model, [4, 0, 4], [24, 0, 24]).eval()
    harm = divergence(logits_of(model, batches), logits_of(cut, batches))
    reconstruct(cut, model, batches)
    assert divergence(logits_of(model, batches), logits_of(cut, batches)) < 0.2 * harm


def test_what_cannot_be_reconstructed_is_refused() -> None:
    model, batches = model_of(), batches_of()
    with pytest.raises(ValueError, match="num_hidden_layers is 2 and the teacher's 3"):
        reconstruct(model_of(layers=2), model, batches)
    with pytest.raises(ValueError, match="give two batches at least"):
        reconstruct(model_of(), model, batches[:1])


def test_half_precision_comes_back_as_it_went_in() -> None:
    model = model_of().to(torch.bfloat16)
    pruned = prune_to_budget(model, batches_of(), 0.7 * count_parameters(model).total, "parameters")
    assert pruned.dtype == torch.bfloat16 and model.dtype == torch.bfloat16


def test_flash_attention_gives_way_while_a_model_is_measured_and_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    # It is not installed here, and nothing but its name is there.
    flash, set_attention = "flash_attention_2", PreTrainedModel.set_attn_implementation

    def pretended(model: PreTrainedModel, name: str) -> None:
        if name == flash:
            model.config._attn_implementation_internal = flash
        else:
            set_attention(model, name)

    monkeypatch.setattr(PreTrainedModel, "set_attn_implementation", pretended)
    model = model_of().to(torch.bfloat16)
    pretended(model, flash)
    pruner = Pruner.prepared(model, batches_of())
    pruned = pruner.pruned(LayerSizes((2, 2, 2), (12, 12, 12)))
    assert pruned.config._attn_implementation == model.config._attn_implementation == flash
    assert pruner.model.config._attn_implementation == pruner.teacher.config._attn_implementation == "sdpa"


@pytest.mark.skipif(not torch.accelerator.is_available(), reason="needs a second device")
def test_a_student_on_another_device_than_the_teacher_diverges_as_much_and_stays_there() -> None:
    model, device = model_of(), torch.accelerator.current_accelerator()
    pruner = Pruner.prepared(model, batches_of())
    student = pruner.pruned(LayerSizes((2, 2, 2), (12, 12, 12)))
    expected = pruner.divergence(student)
    nn.Module.to(student, device)
    assert pruner.divergence(student) == pytest.approx(expected, rel=1e-3)
    assert student.device.type != "cpu"


def test_a_model_in_half_precision_costs_what_it_weighs() -> None:
    model, batches = model_of().half(), batches_of()
    whole = measure_of("mb", 1, 9)([model])[0]
    assert whole == pytest.approx(2 * count_parameters(model).total / 1e6)
    for share in (0.75, 1.0):
        pruned = prune_to_budget(model, batches, share * whole, "mb")
        assert 0.9 * share * whole <= measure_of("mb", 1, 9)([pruned])[0] <= share * whole
    # Of a full budget, nothing is left out.
    torch.testing.assert_close(logits_of(pruned, batches), logits_of(model, batches), atol=5e-3, rtol=0)


def test_mixed_precision_that_a_trainer_has_left_on_a_model_changes_nothing(tmp_path: Path) -> None:
    model, batches = model_of(), batches_of()
    plain, expected = copy.deepcopy(model), logits_of(model, batches)
    arguments = TrainingArguments(str(tmp_path), bf16=True, use_cpu=True, report_to=[], disable_tqdm=True)
    rows = [{name: values[0] for name, values in batch.items()} for batch in batches]
    Trainer(model=model, args=arguments).predict(rows)
    assert not torch.equal(logits_of(model, batches), expected)

    scores, wanted = unit_scores(model, batches), unit_scores(plain, batches)
    assert torch.equal(scores.heads, wanted.heads) and torch.equal(scores.neurons, wanted.neurons)
    assert torch.equal(TorchRunner(model)(batches[0]), TorchRunner(plain)(batches[0]))
    budget = 0.7 * count_parameters(model).total
    made, right = (prune_to_budget(each, batches, budget, "parameters") for each in (model, plain))
    assert torch.equal(logits_of(made, batches), logits_of(right, batches))
    # It is still what the trainer made of it.
    assert not torch.equal(logits_of(model, batches), expected)


def test_a_teacher_that_a_model_was_not_made_of_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bertkd.pruning.budget.measure_harms", lambda *_, **__: 1 / 0)
    with pytest.raises(ValueError, match="num_hidden_layers is 3 and the teacher's 2: Pruner.prepared compares"):
        Pruner.prepared(model_of(), batches_of(), teacher=model_of(layers=2))


def test_a_model_is_pruned_again_and_its_sizes_nest() -> None:
    model, batches = model_of(), batches_of()
    measure = measure_of("parameters", 1, 9)
    costs, full = pruning_costs(model, measure), measure([model])[0]
    first = Pruner.prepared(model, batches)
    larger = first.pruned(first.select(0.8 * full, costs, measure).sizes)
    second = Pruner.prepared(larger, batches, teacher=model)
    smaller = second.pruned(second.select(0.6 * full, costs, measure).sizes)
    assert measure([smaller])[0] <= 0.6 * full
    for kind in range(2):
        pairs = zip(layer_sizes(smaller)[kind], layer_sizes(larger)[kind], strict=True)
        assert all(small <= large for small, large in pairs)
