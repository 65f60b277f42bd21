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
from bertkd.models import layer_sizes

__all__ = ["Candidate", "CostTable", "cost_table", "search_subnetworks"]

# Costs are rounded up to this share of the budget, so that a sum never seems cheaper than it is.
BINS = 2000


@dataclass(frozen=True)
class CostTable:
    """The cost of sub-networks: `fixed`, and for each layer that of its heads and that of its neurons.

    Attributes:
        fixed: the cost of embeddings, head, and everything else that no size changes.
        heads: cost of one layer's attention by its number of heads.
        neurons: cost of one layer's feed-forward part by its number of neurons.
    """

    fixed: float
    heads: dict[int, float]
    neurons: dict[int, float]

    def cost(self, size: Subnetwork) -> float:
        """The predicted cost of a size; numbers between those in the table are interpolated."""
        return self.fixed + _interpolated(self.heads, size.heads) + _interpolated(self.neurons, size.neurons)


def _interpolated(costs: dict[int, float], sizes: Sequence[int]) -> float:
    """The sum of the costs of these numbers of heads or neurons, one for each layer."""
    known = sorted(costs)
    return float(np.interp(sizes, known, [costs[size] for size in known]).sum())


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
    depth, heads, neurons = _full_sizes(model, "cost_table")
    head_counts = list(range(1, heads + 1))
    neuron_counts = neuron_grid(neurons, neuron_steps)
    shallow_depth = max(1, depth // 2)

    def alike(layers: int, head_count: int, neuron_count: int) -> Subnetwork:
        return Subnetwork(tuple(range(layers)), (head_count,) * layers, (neuron_count,) * layers)

    # In one call, so that all sizes can be measured in turns on the same machine in the same state.
    sizes = [alike(shallow_depth, heads, neurons), alike(depth, 0, neurons)]
    for count in head_counts:
        sizes.append(alike(depth, count, neurons))
    for count in neuron_counts:
        sizes.append(alike(depth, heads, count))
    shallow_cost, cost_without_attention, *costs = measure(sizes)
    costs_by_heads, costs_by_neurons = costs[: len(head_counts)], costs[len(head_counts) :]
    full_cost = costs_by_heads[-1]

    # The part that remains when the cost of a layer is taken away as often as there are layers.
    fixed = 0.0
    if depth > shallow_depth:
        layer_cost = (full_cost - shallow_cost) / max(1, depth - shallow_depth)
        fixed = max(0.0, full_cost - layer_cost * depth)
    all_neurons = max(0.0, (cost_without_attention - fixed) / depth)
    all_heads = max(0.0, (full_cost - fixed) / depth - all_neurons)

    # What one layer costs without its other part.
    head_costs = (np.array(costs_by_heads) - fixed) / depth - all_neurons
    neuron_costs = (np.array(costs_by_neurons) - fixed) / depth - all_heads
    return CostTable(fixed, _rising(head_counts, head_costs), _rising(neuron_counts, neuron_costs))


def neuron_grid(neurons: int, steps: int) -> list[int]:
    """Numbers of neurons in equal steps, up to all of them."""
    counts = {max(1, neurons * step // steps) for step in range(1, steps + 1)}
    return sorted(counts)


def _rising(sizes: Sequence[int], costs: np.ndarray) -> dict[int, float]:
    """Costs by size, from 0 for size 0, each raised to those of smaller sizes where it is below."""
    rising = np.maximum.accumulate([0.0, *costs])
    return dict(zip([0, *sizes], rising.tolist(), strict=True))


def _full_sizes(model: PreTrainedModel, what: str) -> tuple[int, int, int]:
    """Layers, heads and neurons of a supernet whose layers are alike; raises ValueError for any other model."""
    require_supernet(model, what)
    sizes = layer_sizes(model)
    if len(set(sizes.heads)) > 1 or len(set(sizes.neurons)) > 1:
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
    the knapsack problem with costs rounded up to 1/2000 of the budget. What is retained is counted in shares: the
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
    counts = {"heads": list(range(1, heads + 1)), "neurons": neuron_grid(neurons, neuron_steps)}
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
    chosen. Costs are whole numbers of bins, of which the budget has `BINS`.
    """
    room = budget - table.fixed
    if room <= 0:
        return None

    costs = {"heads": table.heads, "neurons": table.neurons}
    bins: dict[str, list[int]] = {}
    for kind in counts:
        bins[kind] = []
        for count in counts[kind]:
            # Rounded up, but not by a float's last digit.
            bins[kind].append(int(np.ceil(_interpolated(costs[kind], [count]) / room * BINS - 1e-9)))

    # best[c] is the most that the groups so far can retain at a cost of at most c.
    best = np.zeros(BINS + 1)
    choices: list[np.ndarray] = []
    groups = list(itertools.product(counts, layers))
    for kind, layer in groups:
        options = np.full((len(counts[kind]), BINS + 1), -np.inf)
        for row, (count, cost) in enumerate(zip(counts[kind], bins[kind], strict=True)):
            if cost <= BINS:
                options[row, cost:] = best[: BINS + 1 - cost] + shares[kind][layer, count]
        choices.append(options.argmax(axis=0))
        best = options.max(axis=0)
    if not np.isfinite(best[BINS]):
        return None

    # Back through the groups, from the whole budget: which choice led to the best value?
    remaining = BINS
    chosen: dict[tuple[str, int], int] = {}
    for (kind, layer), choice in zip(reversed(groups), reversed(choices), strict=True):
        row = int(choice[remaining])
        chosen[kind, layer] = counts[kind][row]
        remaining -= bins[kind][row]

    return Subnetwork(
        tuple(layers),
        tuple(chosen["heads", layer] for layer in layers),
        tuple(chosen["neurons", layer] for layer in layers),
    )
