"""What sizes of a network cost, read from a table of a few measured ones; and the best choice within a budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

__all__ = ["CostTable", "UniformSize", "choose_within", "cost_table", "equal_steps"]

# Costs are rounded up to this share of the budget, so that a sum never seems cheaper than it is.
BINS = 10_000


class UniformSize(NamedTuple):
    """A network whose layers are alike: how many there are, and the heads and neurons of each; 0 for no such part."""

    layers: int
    heads: int
    neurons: int


class Sizes(Protocol):
    """The heads and neurons of each layer; 0 for a layer that lacks the part."""

    @property
    def heads(self) -> Sequence[int]:
        """By layer."""

    @property
    def neurons(self) -> Sequence[int]:
        """By layer."""


@dataclass(frozen=True)
class CostTable:
    """The cost of networks: `fixed`, and for each layer that of its heads and that of its neurons.

    Attributes:
        fixed: the cost of embeddings, head, and everything else that no size changes.
        heads: cost of one layer's attention by its number of heads.
        neurons: cost of one layer's feed-forward part by its number of neurons.
    """

    fixed: float
    heads: dict[int, float]
    neurons: dict[int, float]

    @property
    def of_one_head(self) -> float:
        """The cost of the cheapest network that reads more than its first token: one head in a single layer."""
        return self.fixed + self.of_heads(1)

    def cost(self, size: Sizes) -> float:
        """The predicted cost of a size; numbers between those in the table are interpolated."""
        heads = sum(self.of_heads(count) for count in size.heads)
        return self.fixed + heads + sum(self.of_neurons(count) for count in size.neurons)

    def of_heads(self, count: int) -> float:
        """The cost of this many heads in one layer."""
        return _interpolated(self.heads, count)

    def of_neurons(self, count: int) -> float:
        """The cost of this many neurons in one layer."""
        return _interpolated(self.neurons, count)


def _interpolated(costs: dict[int, float], count: int) -> float:
    known = sorted(costs)
    return float(np.interp(count, known, [costs[size] for size in known]))


def cost_table(
    full: UniformSize,
    head_counts: Sequence[int],
    neuron_counts: Sequence[int],
    measure: Callable[[Sequence[UniformSize]], Sequence[float]],
) -> CostTable:
    """Makes a table from measurements of whole networks, which a clock tells apart better than single layers.

    Measured are the full network, one of half its layers, one without attention, and, with all layers alike, each
    number of heads and of neurons. Where the clock says that more is cheaper, the table takes the larger cost of the
    two.

    Args:
        full: the whole network.
        head_counts: numbers of heads, rising up to all of them.
        neuron_counts: numbers of neurons, rising up to all of them.
        measure: gives the cost of each of these sizes, in any unit.
    """
    depth, heads, neurons = full
    # Of a single layer, what is left without it.
    shallow_depth = depth // 2

    # In one call, so that all sizes can be measured in turns on the same machine in the same state, and each once.
    whole, shallow, unattentive = full, UniformSize(shallow_depth, heads, neurons), UniformSize(depth, 0, neurons)
    by_heads = [UniformSize(depth, count, neurons) for count in head_counts]
    by_neurons = [UniformSize(depth, heads, count) for count in neuron_counts]
    sizes = list(dict.fromkeys([whole, shallow, unattentive, *by_heads, *by_neurons]))
    costs = dict(zip(sizes, measure(sizes), strict=True))

    # The part that remains when the cost of a layer is taken away as often as there are layers.
    layer_cost = (costs[whole] - costs[shallow]) / (depth - shallow_depth)
    fixed = max(0.0, costs[whole] - layer_cost * depth)
    all_neurons = max(0.0, (costs[unattentive] - fixed) / depth)
    all_heads = max(0.0, (costs[whole] - fixed) / depth - all_neurons)

    # What one layer costs without its other part.
    head_costs = (np.array([costs[size] for size in by_heads]) - fixed) / depth - all_neurons
    neuron_costs = (np.array([costs[size] for size in by_neurons]) - fixed) / depth - all_heads
    return CostTable(fixed, _rising(head_counts, head_costs), _rising(neuron_counts, neuron_costs))


def equal_steps(count: int, steps: int) -> list[int]:
    """Numbers in equal steps, up to `count`."""
    return sorted({max(1, count * step // steps) for step in range(1, steps + 1)})


def _rising(sizes: Sequence[int], costs: np.ndarray) -> dict[int, float]:
    """Costs by size, from 0 for size 0, each raised to those of smaller sizes where it is below."""
    rising = np.maximum.accumulate([0.0, *costs])
    return dict(zip([0, *sizes], rising.tolist(), strict=True))


def choose_within(
    costs: Sequence[Sequence[float]], values: Sequence[Sequence[float]], budget: float
) -> list[int] | None:
    """Solves the multiple-choice knapsack problem: of each group one option is chosen, for the largest sum of values.

    The solution is exact for costs that are rounded up to 1/10000 of the budget, so that a sum never exceeds it.

    Args:
        costs: of the options of each group, not negative.
        values: of the options of each group.
        budget: the most that the chosen options may cost together.

    Returns:
        The place of the chosen option in each group; None where nothing fits.
    """
    if budget < 0:
        return None

    # best[c] is the most that the groups so far are worth at a cost of at most c bins.
    best = np.zeros(BINS + 1)
    bins: list[list[int]] = []
    choices: list[np.ndarray] = []
    for group_costs, group_values in zip(costs, values, strict=True):
        options = np.full((len(group_costs), BINS + 1), -np.inf)
        group_bins = [_bins(cost, budget) for cost in group_costs]
        for row, (cost, value) in enumerate(zip(group_bins, group_values, strict=True)):
            if cost <= BINS:
                options[row, cost:] = best[: BINS + 1 - cost] + value
        bins.append(group_bins)
        choices.append(options.argmax(axis=0))
        best = options.max(axis=0)
    if not np.isfinite(best[BINS]):
        return None

    # Back through the groups, from the whole budget: which choice led to the best value?
    remaining = BINS
    chosen: list[int] = []
    for group_bins, choice in zip(reversed(bins), reversed(choices), strict=True):
        chosen.append(int(choice[remaining]))
        remaining -= group_bins[chosen[-1]]
    return chosen[::-1]


def _bins(cost: float, budget: float) -> int:
    """A cost in bins of a budget, rounded up; one more than there are for a cost over the budget."""
    if cost <= 0:
        return 0
    # Not by a float's last digit.
    return int(np.ceil(cost / budget * BINS - 1e-9)) if cost <= budget else BINS + 1
