"""The private parts of `transformers.Trainer` that bertkd relies on, all in one class.

A release of transformers may change a private method without notice. So that such a change is noticed and mended in
one place, no other file of bertkd overrides, calls or sets anything private of `Trainer`: they use the methods of
`TrainerHooks`, which are bertkd's own. `tests/distillation/test_trainer_hooks.py` compares this file with the
transformers that is installed.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bertkd.atomic import atomic_folder
from bertkd.distillation.config import DistillationConfig
from bertkd.models.loading import forget_old_names
from bertkd.models.tokenizer_files import ready_to_save
from bertkd.models.unreadable import some

__all__ = ["TrainerHooks", "forget_preparation"]


def forget_preparation(accelerator: Accelerator, model: nn.Module) -> None:
    """Take off a model what accelerate has wrapped around it, and the mark that it has done so.

    From version 1.15 on accelerate prepares no model twice, not even one that it has prepared for an evaluation
    alone. A training would then run without DistributedDataParallel, mixed precision and compilation.
    """
    inside = accelerator.unwrap_model(model, keep_fp32_wrapper=False, keep_torch_compile=False)
    vars(inside).pop("_is_accelerate_prepared", None)


class TrainerHooks(Trainer):
    """A `transformers.Trainer` with names of bertkd's own for what is private in it.

    The first half are points where a subclass steps in; by default they do what `Trainer` does. The second half are
    services that a subclass calls.
    """

    args: DistillationConfig
    model: Any
    train_dataset: Any
    _signature_columns: Any
    # `compute_loss` weighs each micro-batch by its share of the step's rows. The Trainer's own scaling is wrong for
    # BERT: its head accepts the count of items, but ignores it (transformers#47688).
    loss_is_scaled_for_ga = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # Else the Trainer would hand the count of items to the model.
        self.model_accepts_loss_kwargs = False

    def create_accelerator_and_postprocess(self) -> None:
        """Make the accelerator, when the trainer is made and for each trial of a search."""
        super().create_accelerator_and_postprocess()
        if self.accelerator.dataloader_config.dispatch_batches is None:
            # Else one process would read a stream for all, and fail where its batches differ in length.
            self.accelerator.dataloader_config.dispatch_batches = False

    # ---- points where a subclass steps in ----

    def _extra_columns(self) -> list[str]:
        """The columns of the data that are kept for the batches although the student does not read them."""
        return []

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            columns: list[str] = list(self._signature_columns or ())
            self._signature_columns = [*dict.fromkeys([*columns, *self._extra_columns()])]

    def _training_sampler(self, dataset: Any) -> Sampler | None:
        """The sampler of the training rows; None leaves the choice to the Trainer."""
        return None

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        sampler = self._training_sampler(dataset)
        return sampler if sampler is not None else super()._get_train_sampler(train_dataset)

    def _evaluation_sampler(self, dataset: Any) -> Sampler | None:
        """The sampler of the rows to evaluate."""
        return super()._get_eval_sampler(dataset)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        return self._evaluation_sampler(eval_dataset)

    def _batches_of(self, dataset: Any, make: Callable[[Any], DataLoader], is_training: bool) -> DataLoader:
        """The batches that `make` makes of a data set, to train on or to evaluate."""
        return make(dataset)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> DataLoader:
        make = super()._get_dataloader
        return self._batches_of(
            dataset, lambda rows: make(rows, *args, **kwargs), is_training=kwargs.get("is_training", False)
        )

    def _after_trial_settings(self) -> None:
        """Called when a hyper-parameter search has put the values of a trial into the settings."""

    def _hp_search_setup(self, trial: Any) -> None:
        super()._hp_search_setup(trial)
        if self.hp_search_backend is not None and trial is not None:
            self._after_trial_settings()

    def _check_new_model(self, model: Any) -> None:
        """Called with each student that `model_init` has made."""

    def call_model_init(self, trial: Any = None) -> nn.Module:
        """Make a student as `transformers.Trainer` does."""
        model = super().call_model_init(trial)
        self._check_new_model(model)
        return model

    def _start_epoch(self, epoch: int) -> None:
        """Called before the first batch of an epoch is drawn."""

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **kwargs: Any) -> None:
        self._start_epoch(epoch)
        super()._run_epoch(model, epoch, *args, **kwargs)

    def _size_of_step(self, micro_batches: list[Any], device: torch.device) -> Tensor | int | None:
        """The size of one optimizer step, by which `compute_loss` weighs its micro-batches.

        Called before the forward pass of the first one, with all of them.
        """
        return super()._get_num_items_in_batch(micro_batches, device)

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | int | None:
        return self._size_of_step(batch_samples, device) if batch_samples else None

    def _after_gradients(self, norm: Any) -> None:
        """Called with the norm of a step's gradients, before they are clipped and used."""

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm)
        self._after_gradients(norm)
        return norm

    def _before_saving(self) -> None:
        """Called before a checkpoint or a model is written; an exception leaves no file behind."""

    def _save_student(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write config, weights and tokenizer to a folder; without `weights`, those of the model."""
        forget_old_names(self.model)
        # Without one of its own, the Trainer saves the collator's.
        tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
        with ready_to_save(tokenizer, getattr(self.model, "config", None)):
            super()._save(str(folder), state_dict=weights)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        folder = output_dir if output_dir is not None else self.args.output_dir
        self._before_saving()
        path = Path(str(folder))
        is_checkpoint = path.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")
        if is_checkpoint or not self.args.should_save:
            # A checkpoint that was cut off is found by the file that the Trainer writes last.
            self._save_student(path, state_dict)
            return
        with atomic_folder(path) as partial:
            self._save_student(partial, state_dict)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        # The code of a pruned model, without which nobody else could open it. The Trainer knows no such files.
        if self.is_world_process_zero():
            for file in Path(checkpoint_folder).glob("*.py"):
                shutil.copy(file, str(self.args.output_dir))
        with ready_to_save(self.processing_class, getattr(self.model, "config", None)):
            super()._push_from_checkpoint(checkpoint_folder)

    def _after_loading(self, checkpoint: str) -> None:
        """Called when the student has got the weights of a checkpoint."""

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._after_loading(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._after_loading(str(self.state.best_model_checkpoint))

    def _is_stored_apart(self, name: str) -> bool:
        """Whether a parameter is not missed in a checkpoint's weights, because it has a file of its own."""
        return False

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint whose weights are not the student's, instead of a warning."""
        state = self.model.state_dict()
        missing, unexpected = set(load_result.missing_keys), list(load_result.unexpected_keys)
        left_out = getattr(self.model, "_keys_to_ignore_on_save", None) or ()
        # A tensor that has two names is stored under one of them.
        loaded = {tensor.data_ptr() for name, tensor in state.items() if name not in missing}
        lacking = []
        for name in sorted(missing):
            is_elsewhere = self._is_stored_apart(name) or name in left_out or state[name].data_ptr() in loaded
            if not is_elsewhere:
                lacking.append(name)

        if lacking or unexpected:
            problems = [f"lacks {some(lacking)}"] if lacking else []
            problems += [f"has {some(unexpected)}, for which there is no place"] if unexpected else []
            raise ValueError(
                f"The checkpoint is one of another model than the student: it {' and '.join(problems)}. Resume with "
                "the student that it was written with, or start anew in another output_dir."
            )

    # ---- services that a subclass calls ----

    def _on_device(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """A batch on the device of the training."""
        return self._prepare_inputs(inputs)

    @property
    def _micro_batch_size(self) -> int:
        """The rows of a micro-batch in one process."""
        return self._train_batch_size

    def _without_unused_columns(self, dataset: Any, is_table: bool) -> tuple[Any, Callable[[list[Any]], Any]]:
        """A training set and the collator for its rows, the columns that no model reads left out.

        Args:
            dataset: the training set.
            is_table: whether it is a `datasets.Dataset`, whose columns are dropped at once; else the collator drops
                them from each row.
        """
        if is_table:
            return self._remove_unused_columns(dataset, description="training"), self.data_collator
        return dataset, self._get_collator_with_removed_columns(self.data_collator, description="training")

    def _forget_evaluation_rows(self) -> None:
        """Make the next batches to evaluate anew.

        With persistent workers, the Trainer would go on with those of the data set that it evaluated first.
        """
        getattr(self, "_eval_dataloaders", {}).pop("eval", None)

    def _number_of_steps(self, batch_size: int | None = None) -> int:
        """The optimizer steps that a whole training takes.

        Args:
            batch_size: the rows of a micro-batch in one process, where a smaller one was found than the given one.
        """
        usual = self._train_batch_size
        self._train_batch_size = batch_size or usual
        try:
            *_, max_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())
        finally:
            self._train_batch_size = usual
        return max_steps

    def _take_settings_of(self, trial: Any) -> None:
        """Put the values of a trial into the settings; the Trainer does so once more, after the data are prepared."""
        self._hp_search_setup(trial)

    def _prepare_anew(self) -> None:
        """Let the training that follows wrap the student, whatever an evaluation or a training did with it before."""
        if not self.is_deepspeed_enabled:
            forget_preparation(self.accelerator, self.model)
            self.model_wrapped = self.model

    def _load_weights(self, checkpoint: str) -> None:
        """Give the student the weights of a checkpoint."""
        self._load_from_checkpoint(checkpoint)

    def _load_best_weights(self) -> None:
        """Give the student the weights of `self.state.best_model_checkpoint`."""
        self._load_best_model()
