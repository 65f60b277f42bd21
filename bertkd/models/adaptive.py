"""Modules whose size can be switched, of which a supernet (one model that contains many smaller ones) is made.

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
        # The parameters that `nn.Linear` makes are replaced at once, so they need no memory.
        with torch.device("meta"):
            super().__init__(linear.in_features, linear.out_features, linear.bias is not None)

        self.weight, self.bias = linear.weight, linear.bias
        self.active_in = linear.in_features
        self.active_out = linear.out_features
        self.train(linear.training)

    def forward(self, input: Tensor) -> Tensor:
        """Maps (..., active_in) to (..., active_out)."""
        bias = None if self.bias is None else self.bias[: self.active_out]
        return F.linear(input, self.weight[: self.active_out, : self.active_in], bias)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, active_in={self.active_in}, active_out={self.active_out}"


class AdaptiveLayers(nn.ModuleList):
    """The layers of an encoder; iterating gives only the active ones, so that a stock encoder runs only those.

    Length, indices, `children()` and the state dict are those of all layers.

    Args:
        layers: all layers of the encoder, in their order.
    """

    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__(layers)
        self.active: tuple[int, ...] = tuple(range(len(layers)))

    def __iter__(self) -> Iterator[nn.Module]:
        return (self[index] for index in self.active)


def is_adaptive(model: nn.Module) -> bool:
    """Says whether the size of `model` can be switched."""
    return any(isinstance(module, AdaptiveLayers) for module in model.modules())


def refuse_supernet(model: nn.Module, caller: str) -> None:
    """Refuses a supernet where an ordinary model is needed.

    Args:
        model: the model to check.
        caller: the name of the function or class that needs an ordinary model, for the message.

    Raises:
        ValueError: the size of `model` can be switched.
    """
    if is_adaptive(model):
        raise ValueError(
            f"{caller} needs an ordinary model, and this one was made adaptive (a supernet): take out the size "
            "you want with bertkd.dynabert.extract_subnetwork first."
        )
