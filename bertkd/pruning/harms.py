"""Measures what each size of each sub-layer costs in accuracy, one sub-layer at a time."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bertkd.models import family_of
from bertkd.models.evaluated import evaluated
from bertkd.pruning.fitting import Moments, fit_channels, token_weights
from bertkd.pruning.network import Rows, SubLayer, counted_tokens, divergence, embeddings_norm, sub_layers, without
from bertkd.pruning.orders import by_error
from bertkd.pruning.scores import UnitScores

__all__ = ["UNIT_ORDERS", "Level", "levels_of", "measure_harms", "with_levels_between"]

# Which units of a sub-layer stay: those of the highest scores, those of the least error, or what harms less.
UNIT_ORDERS = ("measured", "score", "error")

# Pulls a fit towards the weights that are there.
RIDGE = 1e-3
# Shares of a part's units that are tried, besides none and all: the fewer are left, the more each of them matters.
SHARES = {"attention": (1 / 12, 3 / 12, 6 / 12, 10 / 12), "ffn": (1 / 48, 1 / 12, 3 / 12, 6 / 12, 10 / 12)}
# At the levels next to these shares it is measured which units should stay, and whether they are better fitted.
PROBED = (1 / 4, 1 / 2)
# Harms below are as good as none, and have a logarithm still.
LEAST_HARM = 1e-12


@dataclass(frozen=True)
class Level:
    """What it takes that a sub-layer keeps a number of its units.

    Attributes:
        harm: how far the predictions move, in nats (see `divergence`).
        order: all units of the sub-layer, of which the first ones stay; (units,) on the CPU.
    """

    harm: float
    order: Tensor


# For each sub-layer, its levels by their number of units.
Harms = list[dict[int, Level]]


def levels_of(sub_layer: SubLayer, full_units: int) -> list[int]:
    """The numbers of units that are tried, from 0 to all that are there.

    Args:
        sub_layer: a sub-layer.
        full_units: what the sub-layer of a network of full size has, of which the shares are taken.
    """
    shares = {max(1, round(share * full_units)) for share in SHARES[sub_layer.part]}
    return sorted({0, sub_layer.units, *(level for level in shares if level < sub_layer.units)})


def with_levels_between(levels: dict[int, Level]) -> dict[int, Level]:
    """Adds a level half-way between two that were measured, with the geometric mean of their harms.

    Harms fall by about the same factor from each unit to the next. It does not hold on the way to none and to all of
    the units, whose neighbours stay as they are.
    """
    whole = max(levels)
    found = dict(levels)
    for lower, upper in pairwise(sorted(units for units in levels if 0 < units < whole)):
        harms = (max(levels[units].harm, LEAST_HARM) for units in (lower, upper))
        found.setdefault((lower + upper) // 2, Level(math.sqrt(math.prod(harms)), levels[upper].order))
    return dict(sorted(found.items()))


def measure_harms(
    model: PreTrainedModel,
    scores: UnitScores,
    rows: Sequence[Mapping[str, Tensor]],
    fit_rows: Sequence[Mapping[str, Tensor]],
    levels: Sequence[Sequence[int]],
    progress: bool = False,
    unit_order: str = "measured",
) -> Harms:
    """Measure how far the predictions move when one sub-layer alone keeps fewer units.

    The units of the highest scores stay, or those of the least error (see `by_error`). Their columns are fitted to the
    sub-layer's own output, or left as they are: a fit lowers the error of the output, and not always that of the
    predictions. What harms least is measured at two levels, for those next to them too. Level 0 leaves the sub-layer
    out with its norm, as it is saved.

    Args:
        model: an ordinary model, in float32.
        scores: of its units.
        rows: batches on the model's device whose predictions are compared.
        fit_rows: batches on the model's device that the fits are made of.
        levels: numbers of units to try, for each sub-layer.
        progress: whether a progress bar is shown.
        unit_order: one of `UNIT_ORDERS`: whether units stay by score or by error alone.

    Returns:
        For each sub-layer its levels, where keeping all of its units does no harm.
    """
    parts = sub_layers(model)
    harms: Harms = []
    total = sum(len(tried) for tried in levels)

    with evaluated(model), torch.no_grad(), tqdm(total=total, desc="Harms", disable=not progress) as bar:
        compared, fitted = Rows(model, rows), Rows(model, fit_rows)
        expected = compared.outputs()

        for index in range(0, len(parts), 2):
            for sub_layer, tried in zip(parts[index : index + 2], levels[index : index + 2], strict=True):
                found = _harms_of(sub_layer, tried, scores.of(sub_layer), unit_order, compared, fitted, expected, bar)
                harms.append(found)
            compared.advance()
            fitted.advance()
    return harms


def _harms_of(
    sub_layer: SubLayer,
    levels: Sequence[int],
    scores: Tensor,
    unit_order: str,
    compared: Rows,
    fitted: Rows,
    expected: Tensor,
    bar: tqdm,
) -> dict[int, Level]:
    """The levels of a sub-layer, with their harms."""
    by_score = scores.argsort(descending=True, stable=True).cpu()
    if sub_layer.units == 0:
        return {0: Level(0.0, by_score)}

    projection = sub_layer.projection
    assert projection is not None
    moments = own_moments(sub_layer, fitted)

    def harm_of(units: int, order: Tensor, is_fitted: bool) -> float:
        columns = sub_layer.columns(order[:units].sort().values).to(projection.weight.device)
        kept = projection.weight[:, columns]
        weight, bias = moments.fit(columns, kept, RIDGE) if is_fitted else (kept, projection.bias)
        with _projecting(projection, columns, weight, bias):
            return divergence(expected, compared.outputs())

    ways = []
    if unit_order != "error":
        ways += [(by_score, True), (by_score, False)]
    if unit_order != "score":
        ways.append((by_error(sub_layer, moments, RIDGE).cpu(), True))
    best_ways: dict[int, tuple[Tensor, bool]] = {}
    found: dict[int, Level] = {}
    for units in _probed(levels, sub_layer.units):
        harms = [harm_of(units, *way) for way in ways]
        best_ways[units] = ways[harms.index(min(harms))]
        found[units] = Level(min(harms), best_ways[units][0])

    for units in levels:
        if units == 0:
            found[units] = Level(_harm_of_leaving_out(sub_layer, compared, fitted, expected), by_score)
        elif units == sub_layer.units:
            found[units] = Level(0.0, by_score)
        elif units not in found:
            order, is_fitted = best_ways[min(best_ways, key=lambda probed: (abs(probed - units), probed))]
            found[units] = Level(harm_of(units, order, is_fitted), order)
        bar.update()
    return dict(sorted(found.items()))


def _probed(levels: Sequence[int], units: int) -> set[int]:
    """The levels at which it is measured what harms least, for those next to them too."""
    partial = [level for level in levels if 0 < level < units]
    return {min(partial, key=lambda level: abs(level - share * units)) for share in PROBED} if partial else set()


def _harm_of_leaving_out(sub_layer: SubLayer, compared: Rows, fitted: Rows, expected: Tensor) -> float:
    """The divergence without a sub-layer; gain and bias of the norm before it are fitted where that harms less."""
    norm, model = sub_layer.norm, compared.model
    assert norm is not None
    with without(sub_layer, model):
        as_it_was = divergence(expected, compared.outputs())

    # What goes into the sub-layer comes from the norm before, unless something else lies between them.
    is_first_part = sub_layer.part == "attention"
    norm_before: Any = sub_layer.module.get_submodule(family_of(model).attention_norm)
    if is_first_part and sub_layer.layer == 0 and embeddings_norm(model) is None:
        return as_it_was
    if not is_first_part and not isinstance(norm_before, nn.LayerNorm):
        return as_it_was

    goals = [norm(sums) for _, (sums,) in fitted.run_layer(norm)]
    with without(sub_layer, model):
        given = fitted.states if is_first_part else fitted.layer_outputs()
    counted = [counted_tokens(model, sub_layer.layer, batch) for batch in fitted.batches]
    gain, shift = fit_channels((h[real], goal[real]) for h, goal, real in zip(given, goals, counted, strict=True))

    states = compared.states
    weight, bias = norm_before.weight.data, norm_before.bias.data
    try:
        if is_first_part:
            compared.states = [state * gain + shift for state in states]
        else:
            norm_before.weight.data, norm_before.bias.data = weight * gain, bias * gain + shift
        with without(sub_layer, model):
            return min(as_it_was, divergence(expected, compared.outputs()))
    finally:
        compared.states = states
        norm_before.weight.data, norm_before.bias.data = weight, bias


def own_moments(sub_layer: SubLayer, rows: Rows) -> Moments:
    """The sums over calibration tokens from which a sub-layer is fitted to its own output."""
    projection, norm = sub_layer.projection, sub_layer.norm
    assert projection is not None and norm is not None

    moments = Moments(projection.in_features, projection.out_features, projection.weight.device)
    for index, (inputs, sums) in rows.run_layer(projection, norm):
        counted = counted_tokens(rows.model, sub_layer.layer, rows.batches[index])
        moments.add(inputs, token_weights(sums, counted))
    return moments.with_goals_of(projection)


@contextmanager
def _projecting(projection: nn.Linear, columns: Tensor, weight: Tensor, bias: Tensor) -> Iterator[None]:
    """Within, a projection reads only these columns, with this weight (d, k) and bias (d,)."""
    weight_before, bias_before = projection.weight.data, projection.bias.data
    projection.weight.data = torch.zeros_like(weight_before).index_copy_(1, columns, weight.to(weight_before.dtype))
    projection.bias.data = bias.to(bias_before.dtype)
    try:
        yield
    finally:
        projection.weight.data, projection.bias.data = weight_before, bias_before
