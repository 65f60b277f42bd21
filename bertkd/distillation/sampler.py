"""Batches of similar length that are the same for a seed and epoch, however many processes draw them."""

from collections.abc import Iterator, Sequence

import torch
from torch.utils.data import Sampler
from transformers.trainer_pt_utils import get_length_grouped_indices

__all__ = ["LengthGroupedSampler"]


class LengthGroupedSampler(Sampler[int]):
    """Shuffled indices in which each run of `batch_size` has rows of similar length.

    The stock sampler draws from the global generator of each process, so that processes which drift apart skip or
    repeat rows, and it goes from long to short batches. This one depends on seed and epoch alone (`set_epoch` is
    called by the data loader) and shuffles the batches too.

    Args:
        lengths: one per row, in tokens.
        batch_size: rows of one optimizer step over all processes and accumulation steps, so that the rows of a step
            do not depend on how they are spread.
        seed: of the shuffling.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = list(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + self.epoch)
        indices = get_length_grouped_indices(self.lengths, self.batch_size, generator=generator)
        full = len(indices) // self.batch_size
        for batch in torch.randperm(full, generator=generator).tolist():
            yield from indices[batch * self.batch_size : (batch + 1) * self.batch_size]
        yield from indices[full * self.batch_size :]
