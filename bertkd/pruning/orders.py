"""The order in which the units of a sub-layer can go, by the error of its output."""

import torch
from torch import Tensor

from bertkd.pruning.fitting import Moments
from bertkd.pruning.network import SubLayer

__all__ = ["by_error"]

# Neurons go in groups of this share of those that are left, and the errors are computed anew after each group.
AT_A_TIME = 1 / 24


def by_error(sub_layer: SubLayer, moments: Moments, ridge: float) -> Tensor:
    """Order units by what their loss costs when the others make up for it: the structured OBS order.

    With A = G + ridge · g, where G is the centred Gram matrix of the activations and g the mean diagonal before it was
    centred, the loss of the columns S of the output projection W costs

    `tr(W_S ((A⁻¹)_SS)⁻¹ W_Sᵀ)`, after which `W ← W - W_S ((A⁻¹)_SS)⁻¹ (A⁻¹)_S` and A⁻¹ likewise

    (ZipLM, arXiv 2302.04089). The cheapest head goes, or the cheapest neurons, each by its own cost; the costs of the
    others are computed anew, and so on. So two heads that do the same are not lost together, as they may be by scores,
    and neither are two neurons, unless both are among the cheapest at the same time.

    Args:
        sub_layer: a sub-layer that is there.
        moments: sums over its activations.
        ridge: keeps A well conditioned.

    Returns:
        All units, (units,): the last to go comes first.
    """
    projection, size = sub_layer.projection, sub_layer.unit_size
    assert projection is not None
    mean = moments.inputs / moments.weight
    gram = moments.gram - moments.weight * torch.outer(mean, mean)
    gram.diagonal().add_(ridge * moments.gram.diagonal().mean() + 1e-12 * gram.diagonal().mean().clamp(min=1e-30))

    # What has gone is taken out of all three: columns stand in the order of `left`.
    inverse, weight = torch.linalg.inv(gram), projection.weight.double()
    left = torch.arange(sub_layer.units, device=weight.device)
    gone: list[Tensor] = []
    while len(left) > 1:
        blocks = inverse.unflatten(0, (-1, size)).unflatten(2, (-1, size)).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
        by_unit = weight.unflatten(1, (-1, size)).transpose(0, 1)
        costs = (by_unit @ torch.linalg.inv(blocks) * by_unit).sum((1, 2))
        count = 1 if size > 1 else max(1, int(AT_A_TIME * len(left)))
        places = costs.argsort(stable=True)

        columns = sub_layer.columns(places[:count].sort().values)
        others = sub_layer.columns(places[count:].sort().values)
        rows = inverse[columns]
        change = torch.linalg.solve(rows[:, columns], rows[:, others])
        weight = weight[:, others] - weight[:, columns] @ change
        inverse = inverse[others][:, others] - rows[:, others].T @ change

        # The cheapest goes first.
        gone.append(left[places[:count]])
        left = left[places[count:].sort().values]
    return torch.cat([left, *(group.flip(0) for group in reversed(gone))])
