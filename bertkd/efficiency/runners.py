"""Runs a model in an engine: what a runner offers, and the one for PyTorch.

The runners of exported models, for ONNX Runtime and OpenVINO, are in `bertkd.export`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from bertkd.efficiency.inputs import check_inputs
from bertkd.models.evaluated import in_own_precision
from bertkd.models.positions import max_tokens

__all__ = ["Runner", "TorchRunner", "random_inputs"]


class Runner(Protocol):
    """A classifier in the engine that runs it.

    Attributes:
        engine: the engine's name, such as "pytorch".
        precision: the data type that the engine says it computes in.
        attention: the attention's implementation, where there is a choice.
        device: the kind of device, such as "cpu".
        threads: the threads of a CPU; None where torch's number at the time of a call counts.
        vocabulary: how many token ids there are.
        positions: how many tokens a row may have; may be None.
    """

    engine: str
    precision: str
    attention: str
    device: str
    threads: int | None
    vocabulary: int
    positions: int | None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Maps token ids and masks (B, T) to logits (B, C), which are there when the call returns."""


class TorchRunner:
    """A module, run by PyTorch on the device where it is.

    It computes in the dtype of its weights, also where a Trainer has left mixed precision on it.

    Args:
        model: the module, which runs in the mode it is in; `measure_latency` puts it into eval mode meanwhile.
    """

    engine: str = "pytorch"
    threads: int | None = None

    def __init__(self, model: nn.Module) -> None:
        self.model = model

        config: Any = getattr(model, "config", None)
        weights = next(model.parameters())
        self.precision = str(weights.dtype).removeprefix("torch.")
        self.attention = str(getattr(config, "_attn_implementation", None) or "unknown")
        self._device = weights.device
        self.device = self._device.type
        self.vocabulary: int = model.get_input_embeddings().num_embeddings  # type: ignore[operator]
        self.positions = max_tokens(config)
        self._token_types: int | None = getattr(config, "type_vocab_size", None)

    def __call__(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Returns the logits (B, C), after the device has computed them.

        Raises:
            ValueError: the model cannot read the inputs, see `check_inputs`.
        """
        check_inputs(inputs, self.vocabulary, self.positions, self._token_types)
        on_device = {name: tensor.to(self._device) for name, tensor in inputs.items()}
        with in_own_precision(self.model), torch.inference_mode():
            logits: Tensor = self.model(**on_device).logits

        # A GPU computes on after the call returns, and a measurement would miss that.
        if self.device != "cpu":
            torch.accelerator.synchronize(self._device)
        return logits


def random_inputs(name: str, runner: Runner, batch_size: int, sequence_length: int) -> dict[str, Tensor]:
    """Makes random token ids without padding, always the same ones, and their mask, each (B, T).

    Args:
        name: the model's name, for the message of an error.
        runner: the model, which says how many token ids and positions there are.
        batch_size: B, rows.
        sequence_length: T, tokens per row.

    Raises:
        ValueError: a sequence longer than the model's positions.
    """
    if runner.positions is not None and sequence_length > runner.positions:
        raise ValueError(
            f"sequence_length is {sequence_length}, but {name} has {runner.positions} positions; give a shorter one"
        )

    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(runner.vocabulary, (batch_size, sequence_length), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
