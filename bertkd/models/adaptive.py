"""Stock modules whose size can be switched: what a network of many sizes is made of.

A size is the leading part of the weights, so switching it copies nothing, and every size trains the same parameters.
Names and shapes of the parameters stay as they were: the checkpoint of such a model is an ordinary one, of full size.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AdaptiveLayers", "AdaptiveLinear", "is_adaptive", "refuse_supernet"]


class AdaptiveLinear(nn.Linear):
    """A linear map of which the leading `active_out` rows and `active_in` columns are used.

    Args:
        linear: the ordinary map; its parameters are shared, not copied.
    """

    def __init__(self, linear: nn.Linear) -> None:
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, linear.bias is not None)
        self.weight, self.bias = linear.weight, linear.bias
        self.active_in = linear.in_features
        self.active_out = linear.out_features
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """(..., active_in) to (..., active_out)."""
        bias = None if self.bias is None else self.bias[: self.active_out]
        return F.linear(input, self.weight[: self.active_out, : self.active_in], bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, active_in={self.active_in}, active_out={self.active_out}"


class AdaptiveLayers(nn.ModuleList):
    """The layers of an encoder, of which iterating gives the active ones: a stock encoder runs only those.

    Length, indices, `children()` and the state dict are those of all layers.

    Args:
        layers: all of them.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self.active: tuple[int, ...] = tuple(range(len(layers)))

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in self.active)


def is_adaptive(model: nn.Module) -> bool:
    """Whether the size of `model` can be switched."""
    return any(isinstance(module, AdaptiveLayers) for module in model.modules())


def refuse_supernet(model: nn.Module, what: str) -> None:
    """Raise ValueError where an ordinary model is needed and one of many sizes is given.

    Args:
        what: the name of what needs it, for the message.
    """
    if is_adaptive(model):
        raise ValueError(
            f"{what} needs an ordinary model, and this one was made adaptive (many sizes in one): take out the size "
            "you want with bertkd.dynabert.extract_subnetwork first."
        )
