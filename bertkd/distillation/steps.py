"""Decides which rows an optimizer step sees, and how they are weighed."""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import datasets
import torch
from accelerate.utils import recursively_apply
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, Sampler, SequentialSampler
from transformers.trainer_pt_utils import find_batch_size

from bertkd.distillation.labels import LabelsMixin, has_label
from bertkd.distillation.sampler import StepSampler, TokenStepSampler

__all__ = [
    "StepsMixin",
    "count_rows",
    "first_rows",
    "forward_arguments",
    "has_rows",
    "inputs_of",
    "model_inside",
    "row_lengths",
]


class StepsMixin(LabelsMixin):
    """Makes a step the same however its rows are spread over micro-batches, processes and interruptions."""

    _step_sampler: StepSampler | None = None
    _evaluated_last: Any = None
    # The share of the optimizer step's rows that have a label, over all micro-batches and processes.
    _labeled_share: Tensor | None = None

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

    @property
    def _rows_of_step(self) -> int:
        """The rows of a whole optimizer step, over all micro-batches and processes."""
        return self._micro_batch_size * self.args.gradient_accumulation_steps * self.args.world_size

    def _start_epoch(self, epoch: int) -> None:
        # The data loader does not pass the epoch on to a sampler that is wrapped twice (processes, and resumed).
        if self._step_sampler is not None:
            self._step_sampler.set_epoch(epoch)
        super()._start_epoch(epoch)

    def _evaluation_sampler(self, dataset: Any) -> Sampler | None:
        """Always the data set's own order: the stock sampler lets `group_by_length` reorder predictions."""
        if not has_rows(dataset) or self.args.world_size > 1:
            return None
        return SequentialSampler(dataset)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader:
        """Make the batches to evaluate, of all rows: `dataloader_drop_last` is about the steps of a training."""
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        # Of several data sets, the Trainer gives the name, and keeps the loader of each.
        if not isinstance(rows, str) and rows is not self._evaluated_last:
            self._forget_evaluation_rows()
            self._evaluated_last = rows
        return super().get_eval_dataloader(eval_dataset)

    def _batches_of(self, dataset: Any, make: Callable[[Any], DataLoader], is_training: bool) -> DataLoader:
        """Evaluations drop no row; of a stream, each process reads every row and takes its own batches."""
        if isinstance(dataset, datasets.IterableDataset) and self.args.world_size > 1:
            dataset = OneStream(dataset)

        drop_last = self.args.dataloader_drop_last
        self.args.dataloader_drop_last = drop_last and is_training
        try:
            return make(dataset)
        finally:
            self.args.dataloader_drop_last = drop_last

    # ---- the parts of a step ----

    def _size_of_step(self, micro_batches: list[Any], device: torch.device) -> Tensor | None:
        """The rows of one optimizer step, over all its micro-batches and processes.

        Those that have a label are counted too: only here, where all micro-batches of the step are at hand, is it
        known by how many the mean of the loss on labels is to divide.
        """
        rows = torch.tensor(float(sum(map(count_rows, micro_batches))), device=device)
        labeled = rows
        if self.needs_labels and not self._is_regression:
            counts = [has_label(batch["labels"]).sum() for batch in micro_batches if "labels" in batch]
            labeled = torch.stack(counts).sum().to(rows) if counts else rows

        totals = torch.stack([rows, labeled])
        if self.args.world_size > 1:
            totals = self.accelerator.reduce(totals, reduction="sum")
        self._labeled_share = totals[1] / totals[0]
        return totals[0]

    def _rows_not_filled_up(self, inputs: Mapping[str, Any]) -> int | None:
        """How many rows of an evaluated batch are no repetitions, by which the last one of all processes is filled up.

        None where none was filled up. Of a stream, whose length nobody knows, repetitions are not told apart.
        """
        state = self.accelerator.gradient_state
        if self.args.world_size == 1 or not state.end_of_dataloader or state.remainder <= 0:
            return None
        size = count_rows(inputs)
        return min(size, max(0, state.remainder - self.args.process_index * size))

    def _share_of_step(self, inputs: dict[str, Tensor], size_of_step: Tensor | int | None) -> Tensor | float:
        """The share of the optimizer step that a micro-batch is, times the processes, over which DDP averages."""
        if size_of_step is None:
            return 1.0
        return count_rows(inputs) * self.args.world_size / size_of_step


class OneStream(IterableDataset):
    """A stream as it is read from its beginning to its end.

    accelerate would give each process some files of a stream that has several, and so other rows than a single process
    reads, and some processes more of them than others.

    Raises:
        ValueError: the stream was split among the processes already.
    """

    def __init__(self, rows: datasets.IterableDataset) -> None:
        if getattr(rows, "_distributed", None) is not None:
            raise ValueError(
                "The stream was split by split_dataset_by_node, and each process would take its own batches of what "
                "it has left: give the whole stream."
            )
        self.rows = rows

    def __iter__(self) -> Iterator[Any]:
        return iter(self.rows)

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that decides the order of the rows, where they are shuffled."""
        self.rows.set_epoch(epoch)


def count_rows(inputs: Mapping[str, Any]) -> int:
    """The rows of a batch: those of its token ids or, without any, of its first tensor."""
    # Another column may come first and be shared by all rows, such as position ids.
    return find_batch_size([inputs.get("input_ids"), inputs]) or 0


def first_rows(values: Any, size: int, count: int) -> Any:
    """The first rows of what belongs to a batch of `size` rows: of its columns, or of a model's outputs."""

    def cut(tensor: Tensor) -> Tensor:
        return tensor[:count] if tensor.dim() > 0 and len(tensor) == size else tensor

    # Hidden states are a tuple of tensors.
    return recursively_apply(cut, values)


def has_rows(dataset: Any) -> bool:
    """Whether a data set has rows with numbers; a stream has none, even one that knows its length."""
    if dataset is None or isinstance(dataset, IterableDataset):
        return False
    return hasattr(dataset, "__len__") and len(dataset) > 0


def row_lengths(dataset: Any, length_column: str) -> list[int] | None:
    """Count the tokens of each row of a data set; None where rows have no input_ids.

    Args:
        dataset: with at least one row.
        length_column: a column that has the lengths already, if there is one of that name.
    """
    # A transform makes the rows anew whenever they are read.
    if isinstance(dataset, datasets.Dataset) and dataset.format["type"] != "custom":
        if length_column in dataset.column_names:
            return list(dataset[length_column])
        if "input_ids" not in dataset.column_names:
            return None
        return [len(ids) for ids in dataset["input_ids"]]

    first = dataset[0]
    if not (isinstance(first, Mapping) and "input_ids" in first):
        return None
    return [len(dataset[row]["input_ids"]) for row in range(len(dataset))]


def model_inside(model: Any) -> Any:
    """Takes a model out of its wrappers: PEFT, `torch.compile`, DistributedDataParallel and DataParallel.

    Raises:
        ValueError: the model of PEFT has prompts, which are no part of the model inside.
    """
    while True:
        if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            model = model.module
        elif "_orig_mod" in getattr(model, "_modules", {}):
            model = model._orig_mod
        elif callable(getattr(model, "get_base_model", None)):
            if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
                raise ValueError(
                    "The model has prompts or prefixes of PEFT, without which it gives other answers, and which have "
                    "no place in its layers: give one that was tuned in another way, such as LoRA."
                )
            model = model.get_base_model()
        else:
            return model


def forward_arguments(model: nn.Module) -> set[str]:
    """Names of the inputs that a model's forward pass accepts; of a wrapper, those of the model inside.

    Raises:
        ValueError: the forward pass takes whatever it is given, so that it does not say what it needs.
    """
    inside = model_inside(model)
    names = set()
    for name, parameter in inspect.signature(inside.forward).parameters.items():
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            names.add(name)

    if not names:
        raise ValueError(
            f"The forward pass of {type(inside).__name__} is declared as (*args, **kwargs) and names no input, so "
            "that columns such as token_type_ids would be dropped: name the inputs in it, or give the model inside."
        )
    return names


def inputs_of(model: nn.Module, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The columns of a batch that a model accepts, without labels: its head would compute a loss that nobody uses."""
    accepted = forward_arguments(model) - {"labels"}
    return {name: value for name, value in inputs.items() if name in accepted}
