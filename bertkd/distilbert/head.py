"""The head of a masked language model, which a loss runs by itself: at the tokens it needs, some at a time."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers import PreTrainedModel

__all__ = ["head_left_out", "head_parameters"]


@contextmanager
def head_left_out(model: PreTrainedModel) -> Iterator[None]:
    """Run a masked language model without its head: its output has the last hidden states and no predictions.

    The head would compute predictions over the vocabulary for all tokens at once, which may not fit into memory.
    A stock model cannot be asked to leave it out. But the head reads `last_hidden_state` of the encoder's output, and
    the model passes `hidden_states` on as they are. So within the block the states (B, T, H) move from the one to the
    other, and the head is called with no token, (B, 0, H), and costs nothing.

    What the model returns then has the last hidden states under `hidden_states[-1]`.
    """

    def move_states(_module: nn.Module, _args: Any, outputs: Any) -> Any:
        states = outputs["last_hidden_state"]
        outputs["hidden_states"] = (states,)
        outputs["last_hidden_state"] = states[:, :0]
        return outputs

    hook = model.base_model.register_forward_hook(move_states)
    try:
        yield
    finally:
        hook.remove()


def head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The parameters that the head uses: its own, and the output embeddings, which may be the encoder's as well."""
    # By identity: tensors that are compared with == give tensors.
    parameters = {id(parameter): parameter for parameter in model.parameters()}
    for parameter in model.base_model.parameters():
        parameters.pop(id(parameter), None)
    for parameter in model.get_output_embeddings().parameters():
        parameters[id(parameter)] = parameter
    return list(parameters.values())
