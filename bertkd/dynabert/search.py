"""The best sub-network within a budget: of milliseconds, parameters or FLOPs.

What a size costs is read from a table that is made of a few measured sizes (`cost_table`); what it is worth is how
much importance it retains. Nothing is trained, and only the answers need to be measured again.
"""

from collections.abc import Callable, Iterable, Sequence
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
    """What a sub-network costs: `fixed`, and per layer the cost of its heads and that of its neurons.

    Attributes:
        fixed: embeddings, head, and everything else that no size changes.
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
    known = sorted(costs)
    return float(np.interp(sizes, known, [costs[size] for size in known]).sum())


def cost_table(
    model: PreTrainedModel, measure: Callable[[Sequence[Subnetwork]], Sequence[float]], neuron_steps: int = 12
) -> CostTable:
    """A table from measurements of whole networks, which a clock tells apart better than single layers.

    Measured are the full network, one of half its layers, one without attention, and, with all layers alike, each
    number of heads and `neuron_steps` numbers of neurons. Where the clock says that more is cheaper, the table takes
    the larger cost of the two.

    Args:
        model: a supernet whose layers are alike.
        measure: the cost of each of these sizes, in any unit.
        neuron_steps: into how many equal steps the neurons are divided.

    Raises:
        ValueError: an ordinary model, or one whose layers differ.
    """
    depth, heads, neurons = _full_sizes(model, "cost_table")
    head_counts = list(range(1, heads + 1))
    neuron_counts = neuron_grid(neurons, neuron_steps)

    def alike(layers: int, head_count: int, neuron_count: int) -> Subnetwork:
        return Subnetwork(tuple(range(layers)), (head_count,) * layers, (neuron_count,) * layers)

    shallow = max(1, depth // 2)
    sizes = [alike(shallow, heads, neurons), alike(depth, 0, neurons)]
    sizes += [alike(depth, count, neurons) for count in head_counts]
    sizes += [alike(depth, heads, count) for count in neuron_counts]
    of_shallow, without_attention, *rest = measure(sizes)
    of_heads, of_neurons = rest[: len(head_counts)], rest[len(head_counts) :]
    full = of_heads[-1]
    fixed = max(0.0, full - (full - of_shallow) / max(1, depth - shallow) * depth) if depth > shallow else 0.0
    all_neurons = max(0.0, (without_attention - fixed) / depth)
    all_heads = max(0.0, (full - fixed) / depth - all_neurons)
    return CostTable(
        fixed,
        _rising([0, *head_counts], [0.0, *((cost - fixed) / depth - all_neurons for cost in of_heads)]),
        _rising([0, *neuron_counts], [0.0, *((cost - fixed) / depth - all_heads for cost in of_neurons)]),
    )


def neuron_grid(neurons: int, steps: int) -> list[int]:
    """Numbers of neurons in equal steps, up to all of them."""
    return sorted({max(1, neurons * step // steps) for step in range(1, steps + 1)})


def _rising(sizes: Sequence[int], costs: Sequence[float]) -> dict[int, float]:
    rising = np.maximum.accumulate(np.maximum(costs, 0.0))
    return dict(zip(sizes, rising.tolist(), strict=True))


def _full_sizes(model: PreTrainedModel, what: str) -> tuple[int, int, int]:
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
        cost: predicted, in the unit of the table.
        score: the share of the importance that it retains, between 0 and 1; see `search_subnetworks`.
    """

    size: Subnetwork
    kind: str
    cost: float
    score: float


def search_subnetworks(
    model: PreTrainedModel, importance: Importance, table: CostTable, budget: float, neuron_steps: int = 12
) -> list[Candidate]:
    """The sub-networks within a budget that retain the most importance, best first.

    For every number of layers (the layers that the depth rule keeps) there are up to two: the widest uniform one, and
    the one whose heads and neurons are distributed over the layers so that they retain the most, an exact solution of
    the knapsack problem with costs rounded up to 1/2000 of the budget. What is retained is counted in shares: the
    importance of each layer's heads adds up to 1, as does that of its neurons, since first-order importances do not
    compare between layers; the score is the mean over all layers and both kinds.

    Args:
        model: a supernet, rewired, whose layers are alike.
        importance: of `compute_importance` on this model, at full size.
        table: what sizes cost.
        budget: in the unit of the table.
        neuron_steps: the numbers of neurons tried, in equal steps.

    Raises:
        ValueError: an ordinary model, one whose layers differ, or a budget that no sub-network meets; the message has
            the smallest one's cost.
    """
    depth, heads, neurons = _full_sizes(model, "search_subnetworks")
    counts = {"heads": list(range(1, heads + 1)), "neurons": neuron_grid(neurons, neuron_steps)}
    shares = {"heads": _retained(importance.heads), "neurons": _retained(importance.neurons)}
    found: list[Candidate] = []

    def add(size: Subnetwork, kind: str) -> None:
        kept = sum(shares["heads"][layer, count] for layer, count in zip(size.layers, size.heads, strict=True))
        kept += sum(shares["neurons"][layer, count] for layer, count in zip(size.layers, size.neurons, strict=True))
        found.append(Candidate(size, kind, table.cost(size), float(kept) / (2 * depth)))

    for layers in (tuple(kept_layers(depth, count / depth)) for count in range(1, depth + 1)):
        widths = (width_sizes(heads, neurons, count / heads) for count in reversed(counts["heads"]))
        uniform = (Subnetwork(layers, (h,) * len(layers), (n,) * len(layers)) for h, n in widths)
        within = next((size for size in uniform if table.cost(size) <= budget), None)
        if within is not None:
            add(within, "uniform")
        uneven = _distribute(layers, counts, shares, table, budget)
        if uneven is not None:
            add(uneven, "per layer")
    if not found:
        smallest = Subnetwork((0,), (1,), (counts["neurons"][0],))
        raise ValueError(
            f"No sub-network meets a budget of {budget:g}: the smallest one, a layer of one head and "
            f"{smallest.neurons[0]} neurons, takes {table.cost(smallest):.4g}."
        )
    return sorted(found, key=lambda one: -one.score)


def _retained(importance: Tensor) -> np.ndarray:
    """(L, n + 1): the share of a layer's importance in its first 0..n heads or neurons."""
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
    """Heads and neurons of each of these layers that retain the most within the budget; None where none fits."""
    room = budget - table.fixed
    if room <= 0:
        return None
    costs = {"heads": table.heads, "neurons": table.neurons}
    bins = {
        kind: [int(np.ceil(_interpolated(costs[kind], [count]) / room * BINS - 1e-9)) for count in counts[kind]]
        for kind in counts
    }
    # The multiple-choice knapsack: best[c] is the most that can be retained at a cost of at most c.
    best = np.zeros(BINS + 1)
    chosen: list[np.ndarray] = []
    groups = [(kind, layer) for kind in counts for layer in layers]
    for kind, layer in groups:
        options = np.full((len(counts[kind]), BINS + 1), -np.inf)
        for row, (count, cost) in enumerate(zip(counts[kind], bins[kind], strict=True)):
            if cost <= BINS:
                options[row, cost:] = best[: BINS + 1 - cost] + shares[kind][layer, count]
        chosen.append(options.argmax(axis=0))
        best = options.max(axis=0)
    if not np.isfinite(best[BINS]):
        return None
    picked = _walk_back(groups, chosen, bins, counts)
    return Subnetwork(
        tuple(layers),
        tuple(picked["heads", layer] for layer in layers),
        tuple(picked["neurons", layer] for layer in layers),
    )


def _walk_back(
    groups: Sequence[tuple[str, int]],
    chosen: Iterable[np.ndarray],
    bins: dict[str, list[int]],
    counts: dict[str, list[int]],
) -> dict[tuple[str, int], int]:
    """The counts that led to the best value of a knapsack."""
    left, picked = BINS, {}
    for (kind, layer), choice in reversed(list(zip(groups, chosen, strict=True))):
        row = int(choice[left])
        picked[kind, layer] = counts[kind][row]
        left -= bins[kind][row]
    return picked
