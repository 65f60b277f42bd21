"""Which rows each optimizer step sees: the same for a seed and epoch, however they are spread."""

from collections.abc import Iterator, Sequence
from math import ceil

import numpy as np
import torch
from transformers.trainer_pt_utils import BatchRebalanceSampler, get_length_grouped_indices

__all__ = ["StepSampler", "TokenStepSampler"]


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
            # Fewer rows than processes: each needs one, so some are seen twice.
            rows = rows * ceil(self.processes / len(rows)) if len(rows) < self.processes else rows
            pieces = np.array_split(rows, micro_steps * self.processes)
            yield from (piece.tolist() for piece in pieces[self.rank :: self.processes])

    def micro_steps(self) -> list[int]:
        """How many micro-batches each optimizer step has in one process."""
        full, rest = divmod(self.num_rows, self.step_size)
        last = [ceil(rest / self.micro_size)] if rest and not self.drop_last else []
        return [self.grad_accum] * full + last

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
        generator = self._generator()
        if self.row_lengths is None:
            return torch.randperm(self.num_rows, generator=generator).tolist()
        indices = get_length_grouped_indices(self.row_lengths, self.step_size, generator=generator)
        # Grouped indices go from long to short; the steps are shuffled, and a last one that is not full stays last.
        full = self.num_rows // self.step_size
        shuffled = torch.randperm(full, generator=generator).tolist()
        steps = [indices[step * self.step_size : (step + 1) * self.step_size] for step in shuffled]
        return [row for step in steps for row in step] + indices[full * self.step_size :]

    def _generator(self) -> torch.Generator:
        # Not seed + epoch: then seed 1 would see in its first epoch what seed 0 sees in its second.
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)[0]
        return torch.Generator().manual_seed(int(state))


class TokenStepSampler(StepSampler):
    """Micro-batches of as many rows as fit into a number of padded tokens: many short rows, or few long ones.

    Rows are sorted by length, which is rounded up to a multiple of 8, and cut where a step is full. The cuts are the
    same in every epoch (the Trainer counts its steps once); rows of the same rounded length change places, and the
    steps come in a new order. A last step that is not full, of the shortest rows, stays last. Two processes or
    micro-batches of half the tokens make nearly the same steps, not exactly: no row spans two of them.

    Args:
        lengths: tokens per row.
        max_tokens: of a micro-batch at most, padding included.
        grad_accum, processes, rank, seed: as `StepSampler`.

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
        self._sizes, self._micro_steps = self._cut(sorted(rounded, reverse=True), max_tokens)

    def _cut(self, lengths: Sequence[int], max_tokens: int) -> tuple[list[int], list[int]]:
        """Rows and micro-batches of each step, longest rows first."""
        sizes, micro_steps, start = [], [], 0
        while start < len(lengths):
            micro_size = max_tokens // lengths[start] * self.processes
            rows = min(micro_size * self.grad_accum, len(lengths) - start)
            sizes.append(rows)
            is_full = rows == micro_size * self.grad_accum
            micro_steps.append(self.grad_accum if is_full else ceil(rows / micro_size))
            start += rows
        return sizes, micro_steps

    def micro_steps(self) -> list[int]:
        return self._micro_steps

    def steps(self) -> Iterator[list[int]]:
        generator = self._generator()
        shuffled = torch.randperm(self.num_rows, generator=generator).numpy()
        rows = shuffled[np.argsort(-self._rounded[shuffled], kind="stable")]
        steps = [step.tolist() for step in np.split(rows, np.cumsum(self._sizes)[:-1])]
        order = torch.randperm(len(steps) - 1, generator=generator).tolist()
        yield from (steps[step] for step in (*order, len(steps) - 1))
