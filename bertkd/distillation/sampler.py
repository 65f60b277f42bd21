"""Which rows each optimizer step sees: the same for a seed and epoch, however they are spread."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, get_length_grouped_indices

__all__ = ["StepSampler"]


class StepSampler(BatchRebalanceSampler):
    """Micro-batches of one process, drawn from optimizer steps that all processes agree on.

    The rows of a step depend on seed and epoch alone, not on the number of processes or accumulation steps over which
    they are spread. The last step of an epoch is spread evenly instead of being filled up with rows that were seen
    before (as accelerate does), so that processes do not change the loss. Stock samplers use each process's global
    generator, which may drift apart and then skips and repeats rows.

    It is a `BatchRebalanceSampler` because the Trainer hands such a one on as batch sampler that knows its rank.

    Args:
        num_rows: of the data set.
        lengths: tokens per row, to have rows of similar length in a step; None to leave them as they come.
        batch_size: rows of a micro-batch.
        grad_accum: micro-batches of a step in one process.
        processes: how many there are.
        rank: which of them this is.
        seed: of the shuffling.
        shuffle: False for the data set's own order.
        drop_last: leave out a last step that is not full.
    """

    def __init__(
        self,
        num_rows: int,
        lengths: Sequence[int] | None,
        batch_size: int,
        grad_accum: int = 1,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = False,
    ) -> None:
        self.num_rows = num_rows
        self.row_lengths = None if lengths is None else list(lengths)
        self.micro_size = batch_size * processes
        self.step_size = batch_size * processes * grad_accum
        self.processes = processes
        self.rank = rank
        self.seed = seed
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next iteration draws."""
        self.epoch = epoch

    def __len__(self) -> int:
        full, rest = divmod(self.num_rows, self.step_size)
        last = 0 if self.drop_last else ceil(rest / self.micro_size)
        return full * (self.step_size // self.micro_size) + last

    def __iter__(self) -> Iterator[list[int]]:
        for rows in self.steps():
            micro_steps = ceil(len(rows) / self.micro_size)
            pieces = micro_steps * self.processes
            # Fewer rows than processes: each needs one, so some are seen twice.
            rows = rows * ceil(self.processes / len(rows)) if len(rows) < self.processes else rows
            yield from (piece.tolist() for piece in np.array_split(rows, pieces)[self.rank :: self.processes])

    def steps(self) -> Iterator[list[int]]:
        """The rows of each optimizer step of this epoch, over all processes."""
        indices, full = self._order(), self.num_rows // self.step_size
        for start in range(0, full * self.step_size, self.step_size):
            yield indices[start : start + self.step_size]
        if len(indices) > full * self.step_size and not self.drop_last:
            yield indices[full * self.step_size :]

    def _order(self) -> list[int]:
        if not self.shuffle:
            return list(range(self.num_rows))
        # Not seed + epoch: then seed 1 would see in its first epoch what seed 0 sees in its second.
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]
        generator = torch.Generator().manual_seed(int(state))
        if self.row_lengths is None:
            return torch.randperm(self.num_rows, generator=generator).tolist()
        indices = get_length_grouped_indices(self.row_lengths, self.step_size, generator=generator)
        # Grouped indices go from long to short; the steps are shuffled, and a last one that is not full stays last.
        full = self.num_rows // self.step_size
        shuffled = torch.randperm(full, generator=generator).tolist()
        steps = [indices[step * self.step_size : (step + 1) * self.step_size] for step in shuffled]
        return [row for step in steps for row in step] + indices[full * self.step_size :]
