"""Decides which rows an optimizer step sees, how they are weighed, and where an interrupted run resumes."""

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import TrainOutput

from bertkd.distillation.sampler import StepSampler, TokenStepSampler
from bertkd.distillation.trainer_hooks import TrainerHooks

__all__ = ["StepsMixin", "forward_arguments", "has_rows", "inputs_of", "row_lengths"]


class StepsMixin(TrainerHooks):
    """Makes a step the same however its rows are spread over micro-batches, processes and interruptions."""

    _step_sampler: StepSampler | None = None

    # ---- the rows of a step ----

    def _training_sampler(self, dataset: Any) -> Sampler | None:
        args = self.args
        strategy = args.train_sampling_strategy
        if strategy == "batch_rebalance" or not has_rows(dataset):
            return None

        lengths = row_lengths(dataset, args.length_column_name) if strategy == "group_by_length" else None
        seed = args.data_seed if args.data_seed is not None else args.seed
        spread = (args.gradient_accumulation_steps, args.world_size, args.process_index, seed)

        if args.max_tokens_per_batch is not None:
            if lengths is None:
                raise ValueError("max_tokens_per_batch needs rows with input_ids, whose tokens can be counted.")
            self._step_sampler = TokenStepSampler(lengths, args.max_tokens_per_batch, *spread)
        else:
            self._step_sampler = StepSampler(
                len(dataset),
                lengths,
                self._micro_batch_size,
                *spread,
                shuffle=strategy != "sequential",
                drop_last=args.dataloader_drop_last,
            )
        return self._step_sampler

    def _start_epoch(self, epoch: int) -> None:
        # The data loader does not pass the epoch on to a sampler that is wrapped twice (processes, and resumed).
        if self._step_sampler is not None:
            self._step_sampler.set_epoch(epoch)

    def _evaluation_sampler(self, dataset: Any) -> Sampler | None:
        """Always the data set's own order: the stock sampler lets `group_by_length` reorder predictions."""
        if not has_rows(dataset) or self.args.world_size > 1:
            return None
        return SequentialSampler(dataset)

    # ---- the parts of a step ----

    def _size_of_step(self, micro_batches: list[Any], device: torch.device) -> Tensor | None:
        """The rows of one optimizer step, over all its micro-batches and processes."""
        count = sum(find_batch_size(batch) for batch in micro_batches)
        rows = torch.tensor(float(count), device=device)
        return self.accelerator.reduce(rows, reduction="sum") if self.args.world_size > 1 else rows

    def _share_of_step(self, inputs: dict[str, Tensor], size_of_step: Tensor | int | None) -> Tensor | float:
        """The share of the optimizer step that a micro-batch is, times the processes, over which DDP averages."""
        if size_of_step is None:
            return 1.0
        return find_batch_size(inputs) * self.args.world_size / size_of_step

    # ---- resuming ----

    def _has_finished(self, checkpoint: str) -> bool:
        """Whether a checkpoint is the last of its run: resuming from it would take one more optimizer step."""
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        return state.global_step >= self._number_of_steps()

    def _load_finished(self, checkpoint: str) -> TrainOutput:
        """Load the last checkpoint of a finished run, with the state and the result that its training ended with."""
        self._load_weights(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))

        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            # The folder may have been moved since the state was written.
            best = Path(checkpoint).parent / Path(self.state.best_model_checkpoint).name
            self.state.best_model_checkpoint = str(best)
            self._load_best_weights()

        return TrainOutput(self.state.global_step, 0.0, {})


def has_rows(dataset: Any) -> bool:
    """Whether a data set has a length and is not empty (an iterable one has none)."""
    return dataset is not None and hasattr(dataset, "__len__") and len(dataset) > 0


def row_lengths(dataset: Any, length_column: str) -> list[int] | None:
    """Count the tokens of each row of a data set; None where rows have no input_ids.

    Args:
        dataset: with at least one row.
        length_column: a column that has the lengths already, if there is one of that name.
    """
    if isinstance(dataset, datasets.Dataset):
        if length_column in dataset.column_names:
            return list(dataset[length_column])
        if "input_ids" not in dataset.column_names:
            return None
        return [len(ids) for ids in dataset["input_ids"]]

    first = dataset[0]
    if not (isinstance(first, Mapping) and "input_ids" in first):
        return None
    return [len(dataset[row]["input_ids"]) for row in range(len(dataset))]


def forward_arguments(model: nn.Module) -> set[str]:
    """Names of the inputs that a model's forward pass accepts."""
    return set(inspect.signature(model.forward).parameters) - {"kwargs"}


def inputs_of(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a batch that a model accepts, without labels: its head would compute a loss that nobody uses."""
    accepted = forward_arguments(model) - {"labels"}
    return {name: value for name, value in inputs.items() if name in accepted}
