"""Searches the best sub-network within a budget of milliseconds, parameters or FLOPs.

The cost of a size is read from a table that is made of a few measured sizes (`cost_table`); its value is how much
importance it retains. Nothing is trained, and only the sub-networks that are found need to be measured again.
"""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.dynabert.importance import Importance
from bertkd.dynabert.supernet import Subnetwork, kept_layers, require_supernet, width_sizes
from bertkd.efficiency import costs
from bertkd.efficiency.costs import CostTable, UniformSize, choose_within, equal_steps
from bertkd.models import layer_sizes

__all__ = ["Candidate", "CostTable", "cost_table", "search_subnetworks"]


def cost_table(
    model: PreTrainedModel, measure: Callable[[Sequence[Subnetwork]], Sequence[float]], neuron_steps: int = 12
) -> CostTable:
    """Make a table from measurements of whole networks, which a clock tells apart better than single layers.

    Measured are the full network, one of half its layers, one without attention, and, with all layers alike, each
    number of heads and `neuron_steps` numbers of neurons. Where the clock says that more is cheaper, the table takes
    the larger cost of the two.

    Args:
        model: a supernet whose layers are alike.
        measure: gives the cost of each of these sizes, in any unit.
        neuron_steps: into how many equal steps the neurons are divided.

    Raises:
        ValueError: an ordinary model, or one whose layers differ.
    """
    full = UniformSize(*_full_sizes(model, "cost_table"))

    def measure_uniform(sizes: Sequence[UniformSize]) -> Sequence[float]:
        return measure([_alike(*size) for size in sizes])

    neuron_counts = equal_steps(full.neurons, neuron_steps)
    return costs.cost_table(full, list(range(1, full.heads + 1)), neuron_counts, measure_uniform)


def _alike(layers: int, heads: int, neurons: int) -> Subnetwork:
    """The sub-network of the first layers, all of them equally wide."""
    return Subnetwork(tuple(range(layers)), (heads,) * layers, (neurons,) * layers)


def _full_sizes(model: PreTrainedModel, what: str) -> tuple[int, int, int]:
    """Layers, heads and neurons of a supernet whose layers are alike; raises ValueError for any other model."""
    require_supernet(model, what)
    sizes = layer_sizes(model)
    if not sizes.are_alike:
        raise ValueError(f"{what} needs a supernet whose layers are alike; this one has {sizes}.")
    return len(sizes.heads), sizes.heads[0], sizes.neurons[0]


@dataclass(frozen=True)
class Candidate:
    """A sub-network within the budget.

    Attributes:
        size: the sub-network.
        kind: "uniform" (all layers alike, as trained) or "per layer".
        cost: its predicted cost, in the unit of the table.
        score: the share of the importance that it retains, between 0 and 1; see `search_subnetworks`.
    """

    size: Subnetwork
    kind: str
    cost: float
    score: float


def search_subnetworks(
    model: PreTrainedModel, importance: Importance, table: CostTable, budget: float, neuron_steps: int = 12
) -> list[Candidate]:
    """Find the sub-networks within a budget that retain the most importance, best first.

    For every number of layers (the layers that the depth rule keeps) there are up to two: the widest uniform one, and
    the one whose heads and neurons are distributed over the layers so that they retain the most, an exact solution of
    the knapsack problem with costs rounded up to 1/10000 of the budget. What is retained is counted in shares: the
    importance of each layer's heads adds up to 1, as does that of its neurons, since first-order importances do not
    compare between layers; the score is the mean over all layers and both kinds.

    Args:
        model: a supernet, rewired, whose layers are alike.
        importance: the result of `compute_importance` on this model, at full size.
        table: the cost of sizes.
        budget: the largest cost, in the unit of the table.
        neuron_steps: the numbers of neurons tried, in equal steps.

    Raises:
        ValueError: an ordinary model, one whose layers differ, or a budget that no sub-network meets; the message has
            the smallest one's cost.
    """
    depth, heads, neurons = _full_sizes(model, "search_subnetworks")
    counts = {"heads": list(range(1, heads + 1)), "neurons": equal_steps(neurons, neuron_steps)}
    shares = {"heads": _retained(importance.heads), "neurons": _retained(importance.neurons)}
    candidates: list[Candidate] = []

    def add(size: Subnetwork, kind: str) -> None:
        layers = list(size.layers)
        retained_heads = sum(shares["heads"][layers, list(size.heads)])
        retained_neurons = sum(shares["neurons"][layers, list(size.neurons)])
        score = float(retained_heads + retained_neurons) / (2 * depth)
        candidates.append(Candidate(size, kind, table.cost(size), score))

    for number_of_layers in range(1, depth + 1):
        layers = tuple(kept_layers(depth, number_of_layers / depth))

        # The widest that fits.
        for count in reversed(counts["heads"]):
            head_count, neuron_count = width_sizes(heads, neurons, count / heads)
            uniform = Subnetwork(layers, (head_count,) * len(layers), (neuron_count,) * len(layers))
            if table.cost(uniform) <= budget:
                add(uniform, "uniform")
                break

        uneven = _distribute(layers, counts, shares, table, budget)
        if uneven is not None:
            add(uneven, "per layer")

    if not candidates:
        smallest = Subnetwork((0,), (1,), (counts["neurons"][0],))
        raise ValueError(
            f"No sub-network meets a budget of {budget:g}: the smallest one, a layer of one head and "
            f"{smallest.neurons[0]} neurons, takes {table.cost(smallest):.4g}."
        )
    return sorted(candidates, key=lambda candidate: -candidate.score)


def _retained(importance: Tensor) -> np.ndarray:
    """The share of each layer's importance in its first 0..n heads or neurons, (L, n + 1)."""
    values = importance.double().numpy()
    sums = np.concatenate([np.zeros((len(values), 1)), values.cumsum(axis=1)], axis=1)
    return sums / np.maximum(sums[:, -1:], np.finfo(float).tiny)


def _distribute(
    layers: Sequence[int],
    counts: dict[str, list[int]],
    shares: dict[str, np.ndarray],
    table: CostTable,
    budget: float,
) -> Subnetwork | None:
    """Heads and neurons of each of these layers that retain the most within the budget; None where none fits.

    This is the multiple-choice knapsack problem: of each group (the heads of a layer, or its neurons) one count is
    chosen.
    """
    if budget <= table.fixed:
        return None

    groups = list(itertools.product(counts, layers))
    cost_of = {"heads": table.of_heads, "neurons": table.of_neurons}
    prices = [[cost_of[kind](count) for count in counts[kind]] for kind, _ in groups]
    values = [[shares[kind][layer, count] for count in counts[kind]] for kind, layer in groups]
    places = choose_within(prices, values, budget - table.fixed)
    if places is None:
        return None

    chosen = {group: counts[group[0]][place] for group, place in zip(groups, places, strict=True)}
    return Subnetwork(
        tuple(layers),
        tuple(chosen["heads", layer] for layer in layers),
        tuple(chosen["neurons", layer] for layer in layers),
    )
