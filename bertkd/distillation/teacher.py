"""Loads and checks the teacher of a training, and gives its outputs for a batch, live or from a cache."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import ModelOutput

from bertkd.distillation.checks import check_not_shared, check_vocabularies
from bertkd.distillation.finite import check_weights
from bertkd.distillation.steps import forward_arguments, has_rows, inputs_of, row_lengths
from bertkd.distillation.teacher_cache import ROW_COLUMN, TeacherCache, fingerprint, method_sources, with_rows
from bertkd.distillation.trainer_hooks import TrainerHooks
from bertkd.models import label_names, label_permutation

__all__ = ["TeacherMixin"]


class TeacherMixin(TrainerHooks):
    """Keeps a frozen teacher beside the student and runs it, once per batch or once per training set."""

    # The class that loads a model given by name.
    auto_model_class: Any = AutoModelForSequenceClassification
    teacher_model: Any
    teacher_forward_kwargs: dict[str, Any]
    _label_permutation: list[int] | None = None
    _teacher_cache: TeacherCache | None = None

    # ---- what users override ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
        """Run the teacher on one batch and return what the loss needs of it. Called without gradients.

        Args:
            inputs: the batch, with every column that student or teacher accepts.

        Returns:
            The teacher's `ModelOutput`, its logits (B, C) in the student's label order. With a teacher cache, each
            entry must be a tensor with one item of fixed shape per row, and is stored.
        """
        assert self.teacher_model is not None
        outputs = self.teacher_model(**inputs_of(self.teacher_model, inputs), **self.teacher_forward_kwargs)
        if self._label_permutation is not None:
            outputs["logits"] = outputs.logits[:, self._label_permutation]
        return outputs

    @property
    def needs_teacher(self) -> bool:
        """Whether any part of the loss uses the teacher. Where it is False the teacher is not run, and
        `distillation_loss` gets None for its outputs; override it for parts whose weight is not alpha."""
        return self.args.alpha > 0

    @property
    def compares_predictions(self) -> bool:
        """Whether the loss compares the logits of both models, which then must have the same labels."""
        return True

    # ---- before the first step ----

    def _load(self, model: PreTrainedModel | str | os.PathLike | Any) -> Any:
        """The model itself, or the one of this name or path."""
        if not isinstance(model, str | os.PathLike):
            return model
        if not Path(model).exists() and (Path(model).is_absolute() or str(model).startswith(".")):
            # What transformers says of it is about names on the hub.
            raise OSError(f"There is no model in {model}: the folder does not exist.")
        # A checkpoint's own dtype may be half: students and teachers start in float32.
        return self.auto_model_class.from_pretrained(model, dtype=torch.float32)

    def _set_up_teacher(self) -> None:
        """Check that the teacher fits the student, and freeze it."""
        if self.teacher_model is None:
            if self.needs_teacher:
                raise ValueError(
                    f"{type(self).__name__} needs a teacher_model: the loss has a part that comes from the teacher "
                    f"(alpha={self.args.alpha}). For plain fine-tuning use DistillationTrainer with alpha=0."
                )
            return

        student, teacher = self.model.config, self.teacher_model.config
        check_vocabularies(student, teacher)
        check_not_shared(self.model, self.teacher_model)
        check_weights(self.teacher_model, "teacher")
        if self.compares_predictions:
            names = self.args.teacher_labels or label_names(teacher)
            self._label_permutation = label_permutation(label_names(student), names)

        # Replicated on every process: an encoder is small, and DDP or FSDP must not touch a frozen model.
        self.teacher_model.to(self.args.device)
        self.teacher_model.eval().requires_grad_(False)

    def _extra_columns(self) -> list[str]:
        # A DistilBERT student does not know the token types that its BERT teacher needs.
        columns = forward_arguments(self.model)
        if self.teacher_model is not None:
            columns |= forward_arguments(self.teacher_model)
        return [*sorted(columns), ROW_COLUMN]

    # ---- one batch ----

    def _teacher_outputs(self, inputs: dict[str, Tensor]) -> Any:
        """The result of `teacher_forward` for a batch, from the cache if there is one."""
        if self._teacher_cache is not None:
            if ROW_COLUMN not in inputs:
                raise ValueError(
                    f"The data collator dropped the column {ROW_COLUMN}, which joins the teacher cache to the rows; "
                    "let it through, or leave teacher_cache_dir out."
                )
            return ModelOutput(self._teacher_cache[inputs[ROW_COLUMN]])

        # Not `inference_mode`, whose tensors cannot take part in the student's backward pass. The Trainer's autocast
        # lives in the student's forward, so the teacher needs its own.
        with torch.no_grad(), self.accelerator.autocast():
            return self.teacher_forward(inputs)

    # ---- the cache ----

    @contextmanager
    def _teacher_cached(self) -> Iterator[None]:
        """While training, the cache answers for the teacher, and each training row carries its number."""
        if self.args.teacher_cache_dir is None or not self.needs_teacher:
            yield
            return

        if not has_rows(self.train_dataset):
            raise ValueError("teacher_cache_dir needs a training set with a length: rows are joined to it by number.")

        cache = self._open_teacher_cache(Path(self.args.teacher_cache_dir))
        dataset = self.train_dataset
        self._teacher_cache, self.train_dataset = cache, with_rows(dataset)
        try:
            yield
        finally:
            self._teacher_cache, self.train_dataset = None, dataset

    def _open_teacher_cache(self, parent: Path) -> TeacherCache:
        """The cache that fits teacher and rows; the main process makes it where there is none."""
        assert self.teacher_model is not None
        settings = {
            "trainer": f"{type(self).__module__}.{type(self).__qualname__}",
            "code": method_sources(type(self), "teacher_forward"),
            "forward": self.teacher_forward_kwargs,
            "labels": self._label_permutation,
            "precision": str(self.accelerator.mixed_precision),
            "dtype": self.args.teacher_cache_dtype,
        }
        columns = sorted(forward_arguments(self.teacher_model) - {"labels"})
        folder = parent / fingerprint(self.teacher_model, self.train_dataset, columns, settings)
        rows = len(self.train_dataset)

        with self.args.main_process_first(local=False, desc="teacher cache"):
            cache = TeacherCache.open(folder, rows)
            if cache is not None:
                # No lock is taken for it: it may lie where nothing can be written.
                return cache

            with TeacherCache.lock(folder):
                # Another run may have made it while this one waited for the lock.
                cache = TeacherCache.open(folder, rows)
                if cache is not None:
                    return cache
                return TeacherCache.build(
                    folder, rows, self._teacher_batches(), self._cacheable_outputs, self.args.teacher_cache_dtype
                )

    def _cacheable_outputs(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The teacher's outputs for one batch, which a cache can hold if they are tensors."""
        outputs = dict(self._teacher_outputs(self._on_device(inputs)))
        others = [name for name, value in outputs.items() if not isinstance(value, Tensor)]
        if others:
            raise ValueError(
                f"The teacher's outputs {', '.join(others)} cannot be cached: return tensors with one entry per row "
                "from teacher_forward, or leave teacher_cache_dir out."
            )
        return outputs

    def _teacher_batches(self) -> Iterator[tuple[Sequence[int], Any]]:
        """Batches of all training rows, sorted by length, with the numbers of their rows."""
        is_table = isinstance(self.train_dataset, datasets.Dataset)
        dataset, collate = self._without_unused_columns(self.train_dataset, is_table)

        lengths = row_lengths(dataset, self.args.length_column_name)
        rows = list(range(len(dataset)))
        if lengths:
            rows.sort(key=lengths.__getitem__)

        size = self.args.eval_batch_size
        starts = range(0, len(rows), size)
        for start in tqdm(starts, desc="Teacher cache", unit="batch", disable=self.args.disable_tqdm):
            batch = rows[start : start + size]
            yield batch, collate([dataset[row] for row in batch])
