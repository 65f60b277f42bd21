"""Rewires a network: the most important heads and neurons come first (DynaBERT, arXiv 2004.04037, section 2.1)."""

from typing import TypeVar

from transformers import PreTrainedModel

from bertkd.dynabert.importance import Importance
from bertkd.models import layer_sizes, refuse_factorized_or_shared
from bertkd.models.sizes import refuse_shared_position_bias
from bertkd.students.width import reorder_units

__all__ = ["rewire"]

Model = TypeVar("Model", bound=PreTrainedModel)


def rewire(model: Model, importance: Importance) -> Model:
    """Sort the heads and neurons of each layer by descending importance, in place.

    What the model computes does not change; which heads and neurons a narrower model keeps does. Equal importances
    keep their order. `importance` then describes the model as it was before: its entries are not sorted.

    Args:
        model: an ordinary model or a supernet, of a family in `bertkd.models.families`.
        importance: the result of `compute_importance` on this model.

    Returns:
        `model`.

    Raises:
        ValueError: `importance` is that of a model with other layers, heads or neurons, or layers are factorized or
            shared, or share their position biases; `model` is unchanged then.
    """
    _check_shapes(model, importance)
    by_head = [heads.argsort(descending=True, stable=True) for heads in importance.heads]
    by_neuron = [neurons.argsort(descending=True, stable=True) for neurons in importance.neurons]
    return reorder_units(model, by_head, by_neuron)


def _check_shapes(model: PreTrainedModel, importance: Importance) -> None:
    """Raise ValueError for an importance of other layers, heads or neurons than the model has."""
    refuse_factorized_or_shared(model, "rewire")
    refuse_shared_position_bias(model, "rewire")
    sizes = layer_sizes(model)
    for name, rows, counts in (
        ("heads", importance.heads, sizes.heads),
        ("neurons", importance.neurons, sizes.neurons),
    ):
        counts_of_rows = [len(row) for row in rows]
        if counts_of_rows != list(counts):
            raise ValueError(
                f"The importance is of {len(rows)} layers with {counts_of_rows} {name}, and the model has "
                f"{list(counts)}: compute it on this very model."
            )
