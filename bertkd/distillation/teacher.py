"""Loads and checks the teacher of a training, and gives its outputs for a batch, live or from a cache."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedModel
from transformers.utils import ModelOutput

from bertkd.distillation.checks import check_not_shared, check_single_label, check_vocabularies
from bertkd.distillation.origin import is_of_bertkd
from bertkd.distillation.steps import count_rows, forward_arguments, has_rows, inputs_of, row_lengths
from bertkd.distillation.teacher_cache import (
    ROW_COLUMN,
    TeacherCache,
    batch_digest,
    check_numbers,
    check_one_per_row,
    fingerprint,
    largest_difference,
    method_sources,
    with_rows,
)
from bertkd.distillation.trainer_hooks import TrainerHooks
from bertkd.models import label_names, label_permutation
from bertkd.models.evaluated import in_own_precision
from bertkd.models.loading import check_finite, load_checkpoint

__all__ = ["TeacherMixin"]

logger = logging.getLogger(__name__)

# Rows by which a cache is compared with the live teacher before it is used.
PROBED_ROWS = 32

Collating = Callable[[Sequence[int]], Any]


class TeacherMixin(TrainerHooks):
    """Keeps a frozen teacher beside the student and runs it, once per batch or once per training set."""

    # The class that loads a model given by name.
    auto_model_class: Any = AutoModelForSequenceClassification
    teacher_model: Any
    teacher_forward_kwargs: dict[str, Any]
    _label_permutation: list[int] | None = None
    _teacher_cache: TeacherCache | None = None
    _compares_next_batch = False

    # ---- what users override ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
        """Run the teacher on one batch and return what the loss needs of it. Called without gradients.

        Args:
            inputs: the batch, with every column that student or teacher accepts.

        Returns:
            The teacher's `ModelOutput`, its logits (B, C) in the student's label order. A plain dict reaches
            `distillation_loss` as a `ModelOutput`, which refuses `pop`, `update` and `del`. With a teacher cache, each
            entry must be a tensor with one item of fixed shape per row, and is stored.
        """
        assert self.teacher_model is not None
        outputs = self.teacher_model(**inputs_of(self.teacher_model, inputs), **self.teacher_forward_kwargs)
        if self._label_permutation is not None:
            outputs["logits"] = outputs.logits[..., self._label_permutation]
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

    def _load(self, model: PreTrainedModel | str | os.PathLike | Any, is_teacher: bool = False) -> Any:
        """The model itself, or the one of this name or path; a teacher needs a trained head where it is compared."""
        if not isinstance(model, str | os.PathLike):
            return model

        is_classifier = self.auto_model_class is AutoModelForSequenceClassification
        needs_head = is_teacher and (self.compares_predictions or not is_classifier)
        what = "teacher" if is_teacher else "student"
        # A checkpoint's own dtype may be half: students and teachers start in float32.
        return load_checkpoint(self.auto_model_class, model, needs_head=needs_head, what=what, dtype=torch.float32)

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
        check_finite(self.teacher_model, "The teacher")
        if self.compares_predictions:
            check_single_label(teacher, "teacher")
            names = self.args.teacher_labels or label_names(teacher)
            self._label_permutation = label_permutation(label_names(student), names)

        # Replicated on every process: an encoder is small, and DDP must not touch a frozen model.
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
            cached = self._teacher_cache[inputs[ROW_COLUMN]]
            if self._compares_next_batch:
                self._compares_next_batch = False
                self._check_cached(cached, self._live_outputs(inputs))
            return ModelOutput(cached)
        return self._live_outputs(inputs)

    def _live_outputs(self, inputs: dict[str, Tensor]) -> Any:
        """The result of `teacher_forward` for a batch."""
        # Not `inference_mode`, whose tensors cannot take part in the student's backward pass. The Trainer's autocast
        # lives in the student's forward, so the teacher needs its own, and not the one of its own training.
        assert self.teacher_model is not None
        with torch.no_grad(), in_own_precision(self.teacher_model), self.accelerator.autocast():
            outputs = self.teacher_forward(inputs)
        is_plain = type(outputs) is dict and all(isinstance(name, str) for name in outputs)
        return ModelOutput(outputs) if is_plain else outputs

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

    def _start_epoch(self, epoch: int) -> None:
        # What changes from epoch to epoch, in the collator or in `teacher_forward`, is noticed at its first batch.
        self._compares_next_batch = self._teacher_cache is not None
        super()._start_epoch(epoch)

    def _open_teacher_cache(self, parent: Path) -> TeacherCache:
        """The cache that fits teacher and rows; the first process that finds none makes it, and the others wait.

        They wait for a lock and not for each other: a build may take longer than processes wait for one another
        (`ddp_timeout`), and on machines that share no folder each makes its own.

        Raises:
            ValueError: the teacher's outputs cannot be cached.
        """
        assert self.teacher_model is not None
        collated = self._collating()
        probe = self._probe()
        live = self._checked_outputs(probe, collated)

        columns = sorted(forward_arguments(self.teacher_model) - {"labels"})
        if not is_of_bertkd(type(self).teacher_forward) or not self.args.remove_unused_columns:
            # It, or the collator, may read whatever a row has, labels too.
            columns = sorted({*columns, *self._row_columns()})
        settings = {
            "trainer": f"{type(self).__module__}.{type(self).__qualname__}",
            "code": method_sources(type(self), "teacher_forward"),
            "forward": self.teacher_forward_kwargs,
            "labels": self._label_permutation,
            "precision": str(self.accelerator.mixed_precision),
            "dtype": self.args.teacher_cache_dtype,
            # What a collator makes of the rows.
            "probe": batch_digest(collated(probe), columns),
        }
        folder = parent / fingerprint(self.teacher_model, self.train_dataset, columns, settings)

        # No lock is taken for a cache that is there: it may lie where nothing can be written.
        cache = self._fitting_cache(folder, probe, live)
        if cache is not None:
            return cache
        with TeacherCache.lock(folder):
            # Another process may have made it while this one waited for the lock.
            cache = self._fitting_cache(folder, probe, live)
            if cache is not None:
                return cache
            rows, dtype = len(self.train_dataset), self.args.teacher_cache_dtype
            return TeacherCache.build(folder, rows, self._teacher_batches(), self._cacheable_outputs, dtype)

    def _row_columns(self) -> list[str]:
        """The columns of the training rows."""
        first = self.train_dataset[0]
        return list(first) if isinstance(first, Mapping) else []

    def _fitting_cache(self, folder: Path, probe: Sequence[int], live: dict[str, Tensor]) -> TeacherCache | None:
        """The cache in a folder, if it gives what the live teacher says of some rows.

        A function that `teacher_forward` calls may have been edited, which no fingerprint tells.
        """
        cache = TeacherCache.open(folder, len(self.train_dataset))
        if cache is None:
            return None

        name, difference = largest_difference(cache[torch.tensor(probe)], live)
        if difference > self._cache_tolerance:
            logger.warning(
                "The teacher cache %s does not hold what the teacher says now (%s differs): it is computed anew.",
                folder,
                name,
            )
            return None
        return cache

    def _probe(self) -> list[int]:
        """Numbers of a few rows that stand for all: the shortest, the longest, and some between."""
        rows = self._rows_by_length()
        if len(rows) <= PROBED_ROWS:
            return rows
        step = (len(rows) - 1) / (PROBED_ROWS - 1)
        return [rows[round(number * step)] for number in range(PROBED_ROWS)]

    def _checked_outputs(self, probe: Sequence[int], collated: Collating) -> dict[str, Tensor]:
        """The teacher's outputs for some rows, which must not depend on when and in whose company they are asked for.

        Raises:
            ValueError: they do, or are not one per row.
        """
        together = self._outputs_for(probe, collated)
        apart: dict[str, Tensor] = {name: torch.empty_like(tensor) for name, tensor in together.items()}

        for start in (0, 1):
            part = list(range(start, len(probe), 2))
            if not part:
                continue
            for name, tensor in self._outputs_for([probe[number] for number in part], collated).items():
                if name in apart:
                    check_one_per_row(name, tuple(tensor.shape), (len(part), *apart[name].shape[1:]))
                    apart[name][part] = tensor

        self._check_cached(apart, together)
        return together

    def _outputs_for(self, rows: Sequence[int], collated: Collating) -> dict[str, Tensor]:
        """The teacher's outputs for rows with these numbers.

        Raises:
            ValueError: they cannot be cached.
        """
        batch = collated(rows)
        size = count_rows(batch)
        if size and size != len(rows):
            raise ValueError(
                f"The data collator makes {size} rows of {len(rows)}: what it makes has no number by which a cache "
                "could join it to the teacher's outputs. Leave teacher_cache_dir out."
            )

        outputs = self._cacheable_outputs(batch)
        for name, tensor in outputs.items():
            check_one_per_row(name, tuple(tensor.shape), (len(rows), *tensor.shape[1:]))
            check_numbers(name, tensor.float().cpu().numpy(), rows, self.args.teacher_cache_dtype)
        return outputs

    def _check_cached(self, cached: dict[str, Tensor], live: Any) -> None:
        """Compares what is, or would be, cached with what the teacher says of the same rows now.

        Raises:
            ValueError: they differ by more than the precision explains.
        """
        name, difference = largest_difference(dict(cached), dict(live))
        if difference > self._cache_tolerance:
            raise ValueError(
                f"The teacher's output {name!r} for the same rows changes from call to call or with the other rows of "
                "a batch, and cannot be cached: the data collator, the data set or teacher_forward draws at random, "
                "counts its calls, or mixes rows. Leave teacher_cache_dir out."
            )

    @property
    def _cache_tolerance(self) -> float:
        """How far cached outputs may be from live ones, as a share of the largest; padding and rounding move them."""
        assert self.teacher_model is not None
        is_half = any(weight.dtype in (torch.bfloat16, torch.float16) for weight in self.teacher_model.parameters())
        return 0.05 if is_half or self.accelerator.mixed_precision in ("bf16", "fp16") else 0.005

    def _cacheable_outputs(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """The teacher's outputs for one batch, which a cache can hold if they are tensors."""
        outputs = dict(self._live_outputs(self._on_device(inputs)))
        others = [name for name, value in outputs.items() if not isinstance(value, Tensor)]
        if others:
            raise ValueError(
                f"The teacher's outputs {', '.join(others)} cannot be cached: return tensors with one entry per row "
                "from teacher_forward, or leave teacher_cache_dir out."
            )
        return outputs

    def _teacher_batches(self) -> Iterator[tuple[Sequence[int], Any]]:
        """Batches of all training rows, sorted by length, with the numbers of their rows."""
        rows, size, collated = self._rows_by_length(), self.args.eval_batch_size, self._collating()
        starts = range(0, len(rows), size)
        for start in tqdm(starts, desc="Teacher cache", unit="batch", disable=self.args.disable_tqdm):
            batch = rows[start : start + size]
            yield batch, collated(batch)

    def _rows_by_length(self) -> list[int]:
        """The numbers of all training rows, the shortest first."""
        lengths = row_lengths(self.train_dataset, self.args.length_column_name)
        rows = list(range(len(self.train_dataset)))
        if lengths:
            rows.sort(key=lengths.__getitem__)
        return rows

    def _collating(self) -> Collating:
        """A function that gives the batch which the collator makes of training rows with some numbers."""
        is_table = isinstance(self.train_dataset, datasets.Dataset)
        dataset, collate = self._without_unused_columns(self.train_dataset, is_table)
        return lambda rows: collate([dataset[row] for row in rows])
