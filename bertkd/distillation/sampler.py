"""Draws the rows of each optimizer step: the same for a seed and epoch, however they are spread."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, get_length_grouped_indices

__all__ = ["StepSampler", "TokenStepSampler"]


class StepSampler(BatchRebalanceSampler):
    """Draws the micro-batches of one process from optimizer steps that all processes agree on.

    The rows of a step depend on seed and epoch alone, not on the number of processes or accumulation steps over which
    they are spread. The last step of an epoch is spread evenly instead of being filled up with rows that were seen
    before (as accelerate does), so that processes do not change the loss. Stock samplers use each process's global
    generator, which may drift apart and then skips and repeats rows.

    It is a `BatchRebalanceSampler` because the Trainer takes one as a batch sampler that knows its rank.

    Args:
        num_rows: the number of rows in the data set.
        lengths: tokens per row, to have rows of similar length in a step; None to leave them as they come.
        batch_size: rows of a micro-batch.
        grad_accum: micro-batches of a step in one process.
        processes: how many processes there are.
        rank: the number of this process.
        seed: decides the shuffling, together with the epoch.
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
        self.grad_accum = grad_accum
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
        return sum(self.micro_steps())

    def __iter__(self) -> Iterator[list[int]]:
        for rows, micro_steps in zip(self.steps(), self.micro_steps(), strict=True):
            if len(rows) < self.processes:
                # Each process needs a row, so some are seen twice.
                rows = rows * ceil(self.processes / len(rows))

            pieces = np.array_split(rows, micro_steps * self.processes)
            for piece in pieces[self.rank :: self.processes]:
                yield piece.tolist()

    def micro_steps(self) -> list[int]:
        """The number of micro-batches of each optimizer step in one process."""
        full_steps, remaining_rows = divmod(self.num_rows, self.step_size)
        counts = [self.grad_accum] * full_steps
        if remaining_rows and not self.drop_last:
            counts.append(self._last_micro_steps(remaining_rows, self.micro_size))
        return counts

    def _last_micro_steps(self, rows: int, micro_size: int) -> int:
        """The micro-batches in each process of a step that is not full: none of them is without a row.

        So one of them may be larger than others ever are, where these have a single row in each process.
        """
        return min(ceil(rows / micro_size), max(1, rows // self.processes))

    def steps(self) -> Iterator[list[int]]:
        """The rows of each optimizer step of this epoch, over all processes."""
        indices = self._order()
        end_of_full = self.num_rows // self.step_size * self.step_size

        for start in range(0, end_of_full, self.step_size):
            yield indices[start : start + self.step_size]
        if len(indices) > end_of_full and not self.drop_last:
            yield indices[end_of_full:]

    def _order(self) -> list[int]:
        """All rows in the order of this epoch's steps."""
        if not self.shuffle:
            return list(range(self.num_rows))

        generator = self._generator()
        if self.row_lengths is None:
            return torch.randperm(self.num_rows, generator=generator).tolist()

        # Grouped indices go from long to short; the steps are shuffled, and a last one that is not full stays last.
        grouped = get_length_grouped_indices(self.row_lengths, self.step_size, generator=generator)
        full_steps = self.num_rows // self.step_size
        order: list[int] = []
        for step in torch.randperm(full_steps, generator=generator).tolist():
            order += grouped[step * self.step_size : (step + 1) * self.step_size]
        return order + grouped[full_steps * self.step_size :]

    def _generator(self) -> torch.Generator:
        # Not seed + epoch: then seed 1 would see in its first epoch what seed 0 sees in its second.
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(state))


class TokenStepSampler(StepSampler):
    """Draws micro-batches of as many rows as fit into a number of padded tokens: many short rows, or few long ones.

    Rows are sorted by length, which is rounded up to a multiple of 8, and cut where a step is full. The cuts are the
    same in every epoch (the Trainer counts its steps once); rows of the same rounded length change places, and the
    steps come in a new order. A last step that is not full, of the shortest rows, stays last. Two processes or
    micro-batches of half the tokens make nearly the same steps, not exactly: no row spans two of them.

    Args:
        lengths: tokens per row.
        max_tokens: the most tokens of a micro-batch, padding included.
        grad_accum, processes, rank, seed: the same as for `StepSampler`.

    Raises:
        ValueError: a row alone is longer than `max_tokens`.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        max_tokens: int,
        grad_accum: int = 1,
        processes: int = 1,
        rank: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(len(lengths), lengths, 1, grad_accum, processes, rank, seed)
        if max(lengths) > max_tokens:
            raise ValueError(
                f"A row has {max(lengths)} tokens, more than max_tokens_per_batch={max_tokens}: raise it, or cut the "
                "rows shorter."
            )
        rounded = [min(8 * ceil(length / 8), max_tokens) for length in lengths]
        self._rounded = np.array(rounded)
        self._step_sizes: list[int] = []
        self._micro_steps: list[int] = []
        self._cut(sorted(rounded, reverse=True), max_tokens)

    def _cut(self, lengths: Sequence[int], max_tokens: int) -> None:
        """Decide how many rows and micro-batches each step has, longest rows first."""
        start = 0
        while start < len(lengths):
            # The first row is the longest of its step, to which the others are padded.
            micro_size = max_tokens // lengths[start] * self.processes
            rows = min(micro_size * self.grad_accum, len(lengths) - start)
            is_full = rows == micro_size * self.grad_accum

            self._step_sizes.append(rows)
            self._micro_steps.append(self.grad_accum if is_full else self._last_micro_steps(rows, micro_size))
            start += rows

    def micro_steps(self) -> list[int]:
        return self._micro_steps

    def steps(self) -> Iterator[list[int]]:
        generator = self._generator()
        # Shuffled before a stable sort: rows of the same rounded length change places from epoch to epoch.
        shuffled = torch.randperm(self.num_rows, generator=generator).numpy()
        rows = shuffled[np.argsort(-self._rounded[shuffled], kind="stable")]
        steps = np.split(rows, np.cumsum(self._step_sizes)[:-1])

        for step in torch.randperm(len(steps) - 1, generator=generator).tolist():
            yield steps[step].tolist()
        yield steps[-1].tolist()
