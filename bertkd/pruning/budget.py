"""Prunes a model to a budget: which units go is measured, and what is left is fitted to the model before."""

import copy
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.efficiency import count_flops, count_parameters, measure_latency
from bertkd.efficiency.costs import CostTable, UniformSize, choose_within, cost_table
from bertkd.models import LayerSizes, layer_sizes
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.evaluated import evaluated, float32_copy
from bertkd.models.families import family_of
from bertkd.models.sizes import full_size, match_device_dtype_and_mode, refuse_factorized_or_shared
from bertkd.pruning.harms import UNIT_ORDERS, Harms, levels_of, measure_harms, with_levels_between
from bertkd.pruning.network import Rows, as_batches, divergence, sub_layers
from bertkd.pruning.reconstruction import check_made_of, divided, reconstruct
from bertkd.pruning.scores import UnitScores, unit_scores
from bertkd.students import prune, separate_position_bias
from bertkd.students.width import reorder_units

__all__ = ["UNITS", "Measure", "Pruner", "Selection", "plain_copy", "prune_to_budget", "pruning_costs"]

UNITS = ("ms", "mb", "parameters", "flops")
# Of all rows, those whose predictions are compared for each level of each sub-layer, and those of the fits that are
# tried there.
COMPARED_SHARE, HARM_FIT_SHARE = 1 / 8, 1 / 2
# Searches with a smaller budget, where what was found costs more than the table says.
ATTEMPTS = 5
# A network that costs at least this share of the budget uses it well enough.
NEAR = 0.95
# Shares of the units that a cost table is measured at; those between are interpolated. A part of a single unit costs
# most of what a part costs at all, and each network that is measured in an engine has to be exported first.
MEASURED_SHARES = {"heads": (0, 1 / 2, 1), "neurons": (1 / 48, 1 / 4, 1 / 2, 1)}

# Gives the cost of each of these models, in the unit of a budget. Their weights do not matter.
Measure = Callable[[Sequence[PreTrainedModel]], Sequence[float]]


@dataclass(frozen=True)
class Selection:
    """A network within a budget, before it is fitted.

    Attributes:
        sizes: heads and neurons of each layer; 0 for a part that goes.
        predicted: its cost by the table.
        measured: its cost as measured.
        harm: the sum of its sub-layers' harms, in nats.
    """

    sizes: LayerSizes
    predicted: float
    measured: float
    harm: float


def prune_to_budget(
    teacher: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    budget: float,
    unit: str = "ms",
    measure: Measure | None = None,
    batch_size: int = 1,
    sequence_length: int = 128,
    progress: bool = False,
) -> PreTrainedModel:
    """Make a model within a budget out of a fine-tuned one, without training and without labels.

    The harm of every size of every sub-layer is measured by the model's own predictions (`measure_harms`), the sizes
    of least harm within the budget are chosen (a knapsack problem, as in ZipLM, arXiv 2302.04089), and what is left is
    fitted to the teacher (`reconstruct`). The size is measured before that, and a smaller one taken until it is within
    the budget. To prune for several budgets, use a `Pruner`, which measures the harms once.

    Args:
        teacher: a sequence classifier of a family in `bertkd.models.families`, which stays as it is.
        batches: dicts of tensors, such as a data loader's, with some 2,000 rows of the task; labels are ignored.
        budget: the most that the model may cost.
        unit: "ms", one pass of PyTorch on the teacher's device; "mb" of its weights, "parameters", or "flops" of one
            pass (additions and multiplications both count).
        measure: measures costs in place of what `unit` says, such as milliseconds in another engine.
        batch_size: rows of the pass.
        sequence_length: tokens of the pass.
        progress: whether progress bars are shown.

    Returns:
        A pruned model of the classes that `prune` makes, on the same device, in the same dtype and mode.

    Raises:
        ValueError: no network is within the budget (the message has the smallest one's cost), a budget that is not
            positive, an unknown unit, a measure of other costs than one for each model, or a model that cannot be
            pruned.
    """
    if not isinstance(budget, numbers.Real) or not 0 < budget < float("inf"):
        raise ValueError(f"budget must be a positive number, not {budget!r}.")
    measure = checked(measure or measure_of(unit, batch_size, sequence_length))
    pruner = Pruner.prepared(teacher, batches, progress=progress)
    costs = pruning_costs(teacher, measure)
    selection = pruner.select(budget, costs, measure, unit)
    return pruner.pruned(selection.sizes, progress=progress)


def measure_of(unit: str, batch_size: int, sequence_length: int) -> Measure:
    """The function that tells what models cost, in a unit of `UNITS`.

    Raises:
        ValueError: an unknown unit, or a pass of nothing.
    """

    def milliseconds(models: Sequence[PreTrainedModel]) -> list[float]:
        named = {str(index): model for index, model in enumerate(models)}
        return [latency.p50_ms for latency in measure_latency(named, batch_size, sequence_length).values()]

    def megabytes(models: Sequence[PreTrainedModel]) -> list[float]:
        return [count_parameters(model).total * model.dtype.itemsize / 1e6 for model in models]

    def parameters(models: Sequence[PreTrainedModel]) -> list[float]:
        return [float(count_parameters(model).total) for model in models]

    def flops(models: Sequence[PreTrainedModel]) -> list[float]:
        return [float(count_flops(model, batch_size, sequence_length)) for model in models]

    if batch_size < 1 or sequence_length < 1:
        raise ValueError(f"A pass needs at least one row and one token, not {batch_size} and {sequence_length}.")
    known = {"ms": milliseconds, "mb": megabytes, "parameters": parameters, "flops": flops}
    if unit not in known:
        raise ValueError(f"unit must be one of {', '.join(UNITS)}, not {unit!r}.")
    return known[unit]


def checked(measure: Measure) -> Measure:
    """A measure that refuses other costs than one for each model, finite and not negative."""

    def costs(models: Sequence[PreTrainedModel]) -> list[float]:
        found = [float(cost) for cost in measure(models)]
        if len(found) != len(models):
            raise ValueError(f"measure has to give one cost for each model, and gave {len(found)} for {len(models)}.")
        for cost in found:
            if not 0 <= cost < float("inf"):
                raise ValueError(f"measure gave the cost {cost:g}: a cost is a finite number, and not negative.")
        return found

    return costs


def pruning_costs(teacher: PreTrainedModel, measure: Measure) -> CostTable:
    """Measure the costs of a model's parts by whole networks, see `cost_table`.

    Args:
        teacher: an ordinary model whose layers are alike.
        measure: gives the cost of models.

    Raises:
        ValueError: its layers differ: a model that was pruned has no table, that of the model before serves it. Or
            `measure` gives other costs than one for each model.
    """
    sizes = layer_sizes(teacher)
    if not sizes.are_alike or 0 in (*sizes.heads, *sizes.neurons):
        raise ValueError(
            f"The costs of parts are measured on a model whose layers are alike; this one has {list(sizes.heads)} "
            f"heads and {list(sizes.neurons)} neurons in its layers, so that it was pruned already. Name the model "
            "that it was made of."
        )
    full = UniformSize(len(sizes.heads), sizes.heads[0], sizes.neurons[0])
    separate = separate_position_bias(teacher)

    def measure_uniform(uniform: Sequence[UniformSize]) -> Sequence[float]:
        models = []
        for layers, heads, neurons in uniform:
            gone = [0] * (full.layers - layers)
            models.append(prune(separate, [heads] * layers + gone, [neurons] * layers + gone).eval())
        return checked(measure)(models)

    heads = sorted({max(1, round(full.heads * share)) for share in MEASURED_SHARES["heads"]})
    neurons = sorted({max(1, round(full.neurons * share)) for share in MEASURED_SHARES["neurons"]})
    return cost_table(full, heads, neurons, measure_uniform)


@dataclass
class Pruner:
    """A model whose harms are measured, to be pruned to one budget after another.

    Attributes:
        model: the model that is pruned: a float32 copy in eval mode, on its device (on the CPU for an Apple GPU).
        teacher: the model that it was made of, to which the fits go, likewise.
        like: the model as it was given, whose device, dtype and mode the pruned ones get.
        scores: of its units.
        harms: of the levels of its sub-layers.
        fitting: batches that maps are fitted on.
        choosing: batches that choose among the fits.
    """

    model: PreTrainedModel
    teacher: PreTrainedModel
    like: PreTrainedModel
    scores: UnitScores
    harms: Harms
    fitting: list[dict[str, Tensor]]
    choosing: list[dict[str, Tensor]]

    @classmethod
    def prepared(
        cls,
        model: PreTrainedModel,
        batches: Iterable[Mapping[str, Tensor]],
        teacher: PreTrainedModel | None = None,
        progress: bool = False,
        unit_order: str = "measured",
    ) -> "Pruner":
        """Scores the units of a model, and measures the harm of every size of its sub-layers.

        Args:
            model: the model to prune; it stays as it is. It may have been pruned before.
            batches: see `prune_to_budget`.
            teacher: the model that a pruned one was made of; by default `model` itself.
            progress: whether progress bars are shown.
            unit_order: which units of a sub-layer stay: those of the highest "score" or of the least "error", or, as
                "measured" at each sub-layer, those that harm less of the two.

        Raises:
            ValueError: see `prune_to_budget`; an unknown order; or a teacher that the model was not made of.
        """
        if unit_order not in UNIT_ORDERS:
            raise ValueError(f"unit_order must be one of {', '.join(UNIT_ORDERS)}, not {unit_order!r}.")
        refuse_supernet(model, "prune_to_budget")
        refuse_factorized_or_shared(model, "prune_to_budget")
        whole = target = plain_copy(model)
        if teacher is not None:
            target = nn.Module.to(plain_copy(teacher), whole.device)
            # Before minutes are spent on the harms.
            check_made_of(whole, target, "Pruner.prepared")
        fitting, choosing = divided(as_batches(batches, whole))

        scores = unit_scores(whole, [*choosing, *fitting], progress)
        parts = sub_layers(whole)
        family = family_of(whole)
        full = {
            "attention": full_size(whole.config, family.heads_field),
            "ffn": full_size(whole.config, family.neurons_field),
        }
        levels = [levels_of(part, full[part.part]) for part in parts]
        rows = sum(len(batch["input_ids"]) for batch in (*choosing, *fitting))
        compared = _first_rows(choosing, max(1, round(COMPARED_SHARE * rows)))
        fitted = _first_rows(fitting, max(1, round(HARM_FIT_SHARE * rows)))
        measured = measure_harms(whole, scores, compared, fitted, levels, progress, unit_order)
        return cls(whole, target, model, scores, list(map(with_levels_between, measured)), fitting, choosing)

    def select(
        self,
        budget: float,
        costs: CostTable,
        measure: Measure | None = None,
        unit: str = "",
        target: float | None = None,
    ) -> Selection:
        """Choose the sizes of least harm within a budget.

        Args:
            budget: the most that the network may cost.
            costs: of its parts.
            measure: measures the chosen network; where that is over the budget, a smaller one is taken, and where
                it is far below, a larger one. By default the table is believed.
            unit: the unit's name, for the message of an error.
            target: what a network within the budget costs by the table, where that is known from other networks; by
                default the budget.

        Raises:
            ValueError: no network is within the budget, or a measured one; the message has the smallest one's cost.
        """
        target, closest = budget if target is None else target, float("inf")
        best: Selection | None = None
        for _ in range(ATTEMPTS):
            sizes = self._least_harm(target, costs)
            if sizes is None or (best is not None and sizes == best.sizes):
                break
            predicted = costs.cost(sizes)
            measured = predicted if measure is None else measure([self._as_given(self._cut(sizes))])[0]
            harm = self._harm(sizes)
            if measured <= budget and (best is None or harm < best.harm):
                best = Selection(sizes, predicted, measured, harm)
            is_whole = sizes == layer_sizes(self.model)
            if measure is None or (measured <= budget and (is_whole or measured >= NEAR * budget)):
                break

            # The sum of parts is not the whole: the table is corrected by what this network was measured to cost.
            closest = min(closest, measured)
            target *= budget / measured
            if measured > budget:
                # A clock's noise alone would otherwise stop the search where it stands.
                target *= 0.99
        if best is not None:
            return best

        in_unit = f" {unit}" if unit else ""
        found = "" if closest == float("inf") else f" The closest that was measured took {closest:.4g}."
        raise ValueError(
            f"No network of this model is within {budget:g}{in_unit}: one with a single head takes "
            f"{costs.of_one_head:.4g}{in_unit}.{found}"
        )

    def pruned(self, sizes: LayerSizes, rows: int | None = None, progress: bool = False) -> PreTrainedModel:
        """Make the model of these sizes, with the units whose loss harms least, and fit it to the teacher.

        Args:
            sizes: heads and neurons of each layer.
            rows: on how many rows it is fitted; None for all, 0 to leave it as it is.
            progress: whether a progress bar is shown.
        """
        cut = self._cut(sizes)
        if rows is None:
            reconstruct(cut, self.teacher, [*self.choosing, *self.fitting], progress=progress)
        elif rows > 0:
            batches = [*_first_rows(self.choosing, rows // 3), *_first_rows(self.fitting, rows)]
            reconstruct(cut, self.teacher, batches, progress=progress)
        return self._as_given(cut)

    def divergence(self, model: PreTrainedModel) -> float:
        """How far a model's predictions are from the teacher's, on the rows that choose among the fits."""
        device = self.teacher.device
        if model.device != device:
            model = nn.Module.to(copy.deepcopy(model), device)
        with evaluated(model, self.teacher), torch.no_grad():
            return divergence(Rows(self.teacher, self.choosing).outputs(), Rows(model, self.choosing).outputs())

    def _least_harm(self, budget: float, costs: CostTable) -> LayerSizes | None:
        """The sizes of least harm within a budget that keep a head; None where there are none."""
        whole = layer_sizes(self.model)
        if costs.cost(whole) <= budget:
            return whole

        levels = [list(found) for found in self.harms]
        chosen = self._choice(levels, budget, costs)
        if chosen is None or any(chosen.heads):
            return chosen

        # Without a head the first token, which alone is classified, reads no other one. So each attention in turn has
        # to keep one.
        choices = []
        for index in range(0, len(levels), 2):
            with_heads = [units for units in levels[index] if units > 0]
            if with_heads:
                choices.append(self._choice([*levels[:index], with_heads, *levels[index + 1 :]], budget, costs))
        return min(filter(None, choices), key=self._harm, default=None)

    def _choice(self, levels: Sequence[Sequence[int]], budget: float, costs: CostTable) -> LayerSizes | None:
        """The sizes of least harm within a budget, of these numbers of units by sub-layer; None where none fit."""
        prices, values = [], []
        for part, harms, tried in zip(sub_layers(self.model), self.harms, levels, strict=True):
            price = costs.of_heads if part.part == "attention" else costs.of_neurons
            prices.append([price(units) for units in tried])
            values.append([-harms[units].harm for units in tried])

        places = choose_within(prices, values, budget - costs.fixed)
        if places is None:
            return None
        chosen = [tried[place] for tried, place in zip(levels, places, strict=True)]
        return LayerSizes(tuple(chosen[0::2]), tuple(chosen[1::2]))

    def _harm(self, sizes: LayerSizes) -> float:
        chosen = [count for pair in zip(*sizes, strict=True) for count in pair]
        return sum(levels[count].harm for levels, count in zip(self.harms, chosen, strict=True))

    def _as_given(self, pruned: PreTrainedModel) -> PreTrainedModel:
        """A pruned model on the device, and in the dtype, mode and attention, of the model that was given."""
        match_device_dtype_and_mode(pruned, self.like)
        pruned.set_attn_implementation(self.like.config._attn_implementation)
        return pruned

    def _cut(self, sizes: LayerSizes) -> PreTrainedModel:
        """The model of these sizes, not fitted."""
        orders: dict[str, list[Tensor]] = {"attention": [], "ffn": []}
        counts = {"attention": sizes.heads, "ffn": sizes.neurons}
        for part, levels in zip(sub_layers(self.model), self.harms, strict=True):
            kept = counts[part.part][part.layer]
            nearest = min(levels, key=lambda units: (abs(units - kept), units))
            order = levels[nearest].order
            # Kept units stand in the order that they had.
            orders[part.part].append(torch.cat([order[:kept].sort().values, order[kept:]]))

        ordered = reorder_units(copy.deepcopy(self.model), orders["attention"], orders["ffn"])
        return prune(ordered, sizes.heads, sizes.neurons)


def plain_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A float32 copy in eval mode, on the model's device, or on the CPU where that lacks double precision."""
    plain = float32_copy(separate_position_bias(model)).eval()
    return plain.cpu() if plain.device.type == "mps" else plain


def _first_rows(batches: Sequence[dict[str, Tensor]], rows: int) -> list[dict[str, Tensor]]:
    """The first batches, with at least this many rows where there are as many."""
    taken, count = [], 0
    for batch in batches:
        if count >= rows:
            break
        taken.append(batch)
        count += len(batch["input_ids"])
    return taken
