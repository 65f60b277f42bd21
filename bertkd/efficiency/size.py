"""What a model weighs: parameters, floating-point operations and size on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import PreTrainedModel

from bertkd.efficiency.latency import TorchRunner, random_inputs

__all__ = [
    "Parameters",
    "count_flops",
    "count_parameters",
    "model_size_mb",
]


@dataclass(frozen=True)
class Parameters:
    """Number of parameters: all of them, and the part that lies in embeddings."""

    total: int
    embeddings: int

    @property
    def encoder(self) -> int:
        """Everything that is no embedding: what the papers on BERT compression count, with pooler and head."""
        return self.total - self.embeddings


def count_parameters(model: nn.Module) -> Parameters:
    """Parameters of `model`, tied weights once; embeddings are every `nn.Embedding` (token, position, type)."""
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    embeddings = {id(weight): weight.numel() for table in tables for weight in table.parameters()}
    return Parameters(sum(weight.numel() for weight in model.parameters()), sum(embeddings.values()))


@torch.inference_mode()
def count_flops(model: PreTrainedModel, batch_size: int = 1, sequence_length: int = 128) -> int:
    """Floating-point operations of one forward pass: multiplications and additions, twice the "MACs" of some papers.

    Counted under eager attention, because the counter does not see that of sdpa on a CPU. BERT-base needs 22.35e9 at
    batch 1 and 128 tokens.

    Raises:
        ValueError: a sequence longer than the model's positions.
    """
    device = next(model.parameters()).device
    inputs = random_inputs("the model", TorchRunner(model), batch_size, sequence_length)
    attention, training = model.config._attn_implementation, model.training
    model.set_attn_implementation("eager")
    try:
        with FlopCounterMode(display=False) as counter:
            model.eval()(**{name: tensor.to(device) for name, tensor in inputs.items()})
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
    return int(counter.get_total_flops())


def model_size_mb(folder: str | Path) -> float:
    """Size of the safetensors file or files in `folder`, in MB (1e6 bytes).

    Raises:
        FileNotFoundError: there is none.
    """
    files = list(Path(folder).glob("*.safetensors"))
    if not files:
        raise FileNotFoundError(f"no *.safetensors in {folder}; save the model with save_pretrained first")
    return sum(file.stat().st_size for file in files) / 1e6
