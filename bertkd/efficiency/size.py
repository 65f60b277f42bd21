"""Counts parameters and floating-point operations, and measures the size on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from bertkd.efficiency.runners import TorchRunner, random_inputs
from bertkd.models.evaluated import eval_mode

__all__ = ["Parameters", "count_flops", "count_parameters", "model_size_mb"]


@dataclass(frozen=True)
class Parameters:
    """The number of parameters: all of them, and the part that lies in embeddings."""

    total: int
    embeddings: int

    @property
    def encoder(self) -> int:
        """The number of all parameters that are no embeddings, pooler and head included.

        This is what the papers on BERT compression count.
        """
        return self.total - self.embeddings


def count_parameters(model: nn.Module) -> Parameters:
    """Counts the parameters of `model`, tied weights once.

    Embeddings are the parameters of every `nn.Embedding` (token, position, type).
    """
    # A table may be in two places of the model, and is counted once.
    embeddings = {}
    for module in model.modules():
        if isinstance(module, nn.Embedding):
            for weight in module.parameters():
                embeddings[id(weight)] = weight.numel()

    total = sum(weight.numel() for weight in model.parameters())
    return Parameters(total, sum(embeddings.values()))


@torch.inference_mode()
def count_flops(model: PreTrainedModel, batch_size: int = 1, sequence_length: int = 128) -> int:
    """Counts the floating-point operations of one forward pass.

    Multiplications and additions both count, which is twice the "MACs" of some papers. BERT-base needs 22.35e9 at
    batch 1 and 128 tokens.

    Args:
        model: the model, whose mode and attention are afterwards what they were.
        batch_size: rows of the pass.
        sequence_length: tokens per row.

    Raises:
        ValueError: a sequence longer than the model's positions.
    """
    device = next(model.parameters()).device
    inputs = random_inputs("the model", TorchRunner(model), batch_size, sequence_length)
    on_device = {name: tensor.to(device) for name, tensor in inputs.items()}

    # The counter does not see the operations of sdpa on a CPU.
    attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        with eval_mode(model), FlopCounterMode(display=False) as counter:
            model(**on_device)
    finally:
        model.set_attn_implementation(attention)
    return int(counter.get_total_flops())


def model_size_mb(folder: str | Path) -> float:
    """Measures the size of the weights in `folder`, in MB (1e6 bytes): safetensors or, in an old one, PyTorch's files.

    Raises:
        FileNotFoundError: there is none.
    """
    for pattern in ("*.safetensors", "pytorch_model*.bin"):
        if files := list(Path(folder).glob(pattern)):
            return sum(file.stat().st_size for file in files) / 1e6
    raise FileNotFoundError(f"no *.safetensors in {folder}; save the model with save_pretrained first")
