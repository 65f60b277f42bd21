"""Fits an output projection by weighted least squares, from sums over calibration tokens."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

__all__ = ["Moments", "fit_channels", "token_weights"]


def token_weights(sums: Tensor, counted: Tensor) -> Tensor:
    """What each token weighs in a fit: 1 / the variance of its sum over dimensions; 0 for tokens that do not count.

    A residual normalization divides by that spread, and so an error counts relative to it. Without weights the special
    tokens, whose sums are many times larger, would own the fit.

    Args:
        sums: what goes into the norm, (B, T, H).
        counted: which tokens count, (B, T).

    Returns:
        float64 (B, T).
    """
    return counted / sums.double().var(-1, correction=0).clamp(min=1e-12)


class Moments:
    """Weighted sums over tokens of inputs (n,) and goals (d,) of a linear map, in float64.

    Sums do not depend on how tokens are divided into batches. float32 would not do: the Gram matrix of a feed-forward
    part has a condition of up to 1e8.
    """

    def __init__(self, columns: int, dimensions: int, device: torch.device) -> None:
        factory = {"dtype": torch.float64, "device": device}
        self.weight = torch.zeros((), **factory)  # type: ignore[call-overload]
        self.inputs = torch.zeros(columns, **factory)  # type: ignore[call-overload]
        self.goals = torch.zeros(dimensions, **factory)  # type: ignore[call-overload]
        self.gram = torch.zeros(columns, columns, **factory)  # type: ignore[call-overload]
        self.cross = torch.zeros(columns, dimensions, **factory)  # type: ignore[call-overload]

    def add(self, inputs: Tensor, weights: Tensor, goals: Tensor | None = None) -> None:
        """Adds tokens.

        Args:
            inputs: (B, T, n).
            weights: (B, T); a token of weight 0 is left out.
            goals: (B, T, d); None where only the inputs' sums are needed.
        """
        counted = weights > 0
        rows, weight = inputs[counted].double(), weights[counted][:, None]
        weighted = rows * weight

        self.weight += weight.sum()
        self.inputs += weighted.sum(0)
        self.gram += weighted.T @ rows
        if goals is not None:
            wanted = goals[counted].double()
            self.goals += (wanted * weight).sum(0)
            self.cross += weighted.T @ wanted

    def with_goals_of(self, projection: nn.Linear) -> "Moments":
        """These sums with the outputs of a linear map on the inputs as goals."""
        weight = projection.weight.double()
        bias = torch.zeros_like(self.goals) if projection.bias is None else projection.bias.double()
        self.goals = weight @ self.inputs + self.weight * bias
        self.cross = self.gram @ weight.T + self.inputs[:, None] * bias
        return self

    def fit(self, columns: Tensor, start: Tensor, ridge: float) -> tuple[Tensor, Tensor]:
        """The map from some of the inputs that comes closest to the goals.

        Minimised over W and b is `sum over tokens of w ||W a + b - goal||² + ridge · g · ||W - start||²`, with g the
        mean over columns of the weighted sum of squares of a. The bias is free.

        Args:
            columns: which inputs are there, (k,).
            start: what the ridge pulls towards, (d, k).
            ridge: 0 for none.

        Returns:
            W (d, k) and b (d,), float64.
        """
        mean, goal = self.inputs[columns] / self.weight, self.goals / self.weight
        gram = self.gram[columns][:, columns] - self.weight * torch.outer(mean, mean)
        cross = self.cross[columns] - self.weight * torch.outer(mean, goal)

        scale = ridge * self.gram.diagonal()[columns].mean()
        # A column that is another's twin, or always the same, leaves the Gram matrix singular.
        scale = scale + 1e-12 * gram.diagonal().mean().clamp(min=1e-30)
        gram.diagonal().add_(scale)
        cross = cross + scale * start.double().T
        weight = torch.linalg.solve(gram, cross).T
        return weight, goal - weight @ mean


def fit_channels(pairs: Iterable[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Fits gain and shift of each channel by least squares: `gain · given + shift` comes closest to what is wanted.

    Args:
        pairs: tokens (n, H) that are given, and that are wanted, in parts.

    Returns:
        Gain and shift (H,), in the dtype of the tokens. A channel that is always the same keeps the gain 1.
    """
    sums: Tensor | None = None
    dtype = torch.float32
    for given, wanted in pairs:
        dtype = given.dtype
        given, wanted = given.double(), wanted.double()
        terms = (torch.ones_like(given), given, wanted, given * given, given * wanted)
        added = torch.stack([term.sum(0) for term in terms])
        sums = added if sums is None else sums + added
    assert sums is not None, "there is a batch"

    count, given_sum, wanted_sum, squares, products = sums
    variance = squares - given_sum.square() / count
    covariance = products - given_sum * wanted_sum / count
    gain = torch.where(variance > 1e-9 * count, covariance / variance.clamp(min=1e-30), torch.ones_like(variance))
    shift = (wanted_sum - gain * given_sum) / count
    return gain.to(dtype), shift.to(dtype)
