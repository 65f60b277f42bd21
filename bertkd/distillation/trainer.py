"""Vanilla knowledge distillation as a `transformers.Trainer`, and the base of every trainer in bertkd."""

import contextlib
import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import Sampler, SequentialSampler
from tqdm.auto import tqdm
from transformers import AutoModelForSequenceClassification, PreTrainedModel, Trainer, TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_pt_utils import find_batch_size
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput
from transformers.utils import ModelOutput

from bertkd import losses
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.distillation.checks import check_label_order, check_labels_present, check_single_label, check_vocabularies
from bertkd.distillation.config import DistillationConfig
from bertkd.distillation.loss_window import LossWindow
from bertkd.distillation.sampler import StepSampler, TokenStepSampler
from bertkd.distillation.teacher_cache import ROW_COLUMN, TeacherCache, fingerprint, method_sources, with_rows
from bertkd.models import label_names, label_permutation
from bertkd.models.adaptive import refuse_supernet

__all__ = ["EXTRA_FILE", "DistillationTrainer"]

_EXTRA_MODULES = "distillation_modules"
EXTRA_FILE = "distillation_modules.safetensors"


class DistillationTrainer(Trainer):
    """Trains a student on labels and on a teacher's softened predictions.

    `L = (1 - alpha) · CE + alpha · T² · KL(teacher || student)`; see `DistillationConfig` for the settings and
    `bertkd.losses` for the reductions. With `teacher_model=None` and `alpha=0` it is plain fine-tuning, and should be
    used for it: stock `Trainer` multiplies the loss of BERT by the accumulation steps and by the processes. With
    `alpha=1` the rows need no labels. A regression task (`num_labels=1`) is distilled by the mean squared error
    between logits.

    To extend it, override `teacher_forward(inputs)` and
    `distillation_loss(student_outputs, teacher_outputs, inputs)`; the latter returns named, weighted parts, each a
    mean over the rows of the batch. Their sum is the loss, and each is logged under its name. Modules that are
    trained along with the student but do not belong to it (a projection) go into `self.extra_modules`: they are
    trained, saved in checkpoints and restored, and absent from the student that leaves. They may be used in
    `distillation_loss`, which runs inside the wrapped model's forward for that reason.

    Args:
        model: the student, a model or a name or path.
        teacher_model: the teacher, a model or a name or path, or None. It is put into eval mode and frozen, keeps
            its weights, and is never saved. Its logits are put into the student's label order by name.
        args: a `DistillationConfig`.
        **kwargs: all other arguments of `transformers.Trainer`.

    Raises:
        ValueError: what cannot work, before the first step: a teacher is needed and missing; labels, vocabularies or
            the number of labels differ; the data's labels stand in another order than the student's.
    """

    args: DistillationConfig
    model: Any
    train_dataset: Any
    _signature_columns: Any
    config_class: type[DistillationConfig] = DistillationConfig
    # How a model given by name is loaded.
    auto_model_class: Any = AutoModelForSequenceClassification
    # Of student logits, teacher logits, temperature and reduction.
    soft_loss = staticmethod(losses.kd_kl)
    # `compute_loss` weighs each micro-batch by its share of the step's rows. The Trainer's own scaling is wrong for
    # BERT: its head accepts the count of items, but ignores it (transformers#47688).
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | os.PathLike | None = None,
        teacher_model: PreTrainedModel | str | os.PathLike | None = None,
        args: DistillationConfig | None = None,
        **kwargs: Any,
    ) -> None:
        args = args if args is not None else self.config_class(output_dir="trainer_output")
        if not isinstance(args, self.config_class):
            raise ValueError(
                f"{type(self).__name__} needs args of type {self.config_class.__name__}, not {type(args).__name__}."
            )
        if kwargs.get("compute_loss_func") is not None:
            raise ValueError("compute_loss_func would not be called: override distillation_loss or task_loss instead.")
        super().__init__(model=self._load(model), args=args, **kwargs)
        self.model_accepts_loss_kwargs = False
        if self.accelerator.dataloader_config.dispatch_batches is None:
            # Else one process would read a stream for all, and fail where its batches differ in length.
            self.accelerator.dataloader_config.dispatch_batches = False
        self.teacher_model = self._load(teacher_model)
        self._check_kind_of_models()
        self.extra_modules = nn.ModuleDict()
        self.student_forward_kwargs: dict[str, Any] = {}
        self.teacher_forward_kwargs: dict[str, Any] = {}
        self._label_permutation: list[int] | None = None
        self._teacher_cache: TeacherCache | None = None
        self._window = LossWindow()
        self._accepted: dict[int, set[str]] = {}
        self._step_sampler: StepSampler | None = None
        self._check_processes()
        check_single_label(self.model.config)
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        for dataset in (self.train_dataset, *evaluated):
            check_label_order(dataset, self.model.config)
        self._set_up_teacher()

    # ---- what users override ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
        """What the loss needs of the teacher, for one batch. Called without gradients.

        Args:
            inputs: the batch, with every column that student or teacher accepts.

        Returns:
            The teacher's `ModelOutput`, its logits (B, C) in the student's label order. With a teacher cache, each
            entry must be a tensor with one item of fixed shape per row, and is stored.
        """
        assert self.teacher_model is not None
        outputs = self.teacher_model(**self._inputs_of(self.teacher_model, inputs), **self.teacher_forward_kwargs)
        if self._label_permutation is not None:
            outputs["logits"] = outputs.logits[:, self._label_permutation]
        return outputs

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The named parts of the loss: weighted scalars, each a mean over the rows of the batch.

        Args:
            student_outputs: the student's `ModelOutput`, logits (B, C).
            teacher_outputs: what `teacher_forward` returned; None without a teacher.
            inputs: the batch; `inputs["labels"]` is (B,), or absent for rows without labels.

        Returns:
            "task_loss" (1 - alpha) times the loss on labels, and "kd_loss", alpha times the soft term; a part with
            weight 0 is left out.

        Raises:
            ValueError: the batch has no labels although alpha is below 1.
        """
        parts = {}
        alpha = self.args.alpha
        if alpha < 1:
            parts["task_loss"] = (1 - alpha) * self.task_loss(student_outputs, inputs)
        if alpha > 0:
            parts["kd_loss"] = alpha * self.kd_loss(student_outputs.logits, teacher_outputs.logits)
        return parts

    def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Mean over rows of the cross entropy with the labels (regression: the squared error), in float32.

        Raises:
            ValueError: the batch has no labels.
        """
        labels = inputs.get("labels")
        if labels is None:
            raise ValueError(
                "The training rows have no labels: give a data set with a label column, or set alpha=1 to learn from "
                "the teacher alone."
            )
        logits = student_outputs.logits.float()
        if self._is_regression:
            return F.mse_loss(logits.squeeze(-1), labels.float())
        return F.cross_entropy(logits, labels)

    def kd_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The soft term, not yet weighted: `soft_loss`, or `losses.logits_mse` for a regression task."""
        if self._is_regression:
            return losses.logits_mse(student_logits, teacher_logits)
        return self.soft_loss(student_logits, teacher_logits, self.args.temperature, self.args.kd_reduction)

    @property
    def needs_teacher(self) -> bool:
        """Whether any part of the loss uses the teacher. Where it is False the teacher is not run, and
        `distillation_loss` gets None for its outputs; override it for parts whose weight is not alpha."""
        return self.args.alpha > 0

    @property
    def needs_labels(self) -> bool:
        """Whether the training rows must have labels; override it where the collator makes them."""
        return self.args.alpha < 1

    @property
    def compares_predictions(self) -> bool:
        """Whether the loss compares the logits of both models, which then must have the same labels."""
        return True

    # ---- one step ----

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The distillation loss of one micro-batch, weighted by its share of the optimizer step's rows."""
        teacher_outputs = self._teacher_outputs(inputs) if self.needs_teacher else None
        student = self.accelerator.unwrap_model(model, keep_torch_compile=False)

        def add_loss(_module: nn.Module, _args: Any, outputs: Any) -> dict[str, Any]:
            parts = self.distillation_loss(outputs, teacher_outputs, inputs)
            # Text models without a head have no logits.
            total, logits = torch.stack(list(parts.values())).sum(), getattr(outputs, "logits", None)
            return {"loss": total, "parts": parts, "logits": None if logits is None else logits.detach()}

        # The loss is computed inside the wrapped model's forward: there DDP sees every module that takes part and
        # every output that gets a gradient, whichever parts of the student a loss uses.
        hook = student.register_forward_hook(add_loss)
        try:
            outputs = model(**self._inputs_of(student, inputs), **self.student_forward_kwargs)
        finally:
            hook.remove()
        share = self._share_of_step(inputs, num_items_in_batch)
        if student.training:  # not an evaluation by this loss
            self._window.add(outputs["parts"], share)
        loss = outputs["loss"] * share
        return (loss, {"loss": loss, "logits": outputs["logits"]}) if return_outputs else loss

    def _teacher_outputs(self, inputs: dict[str, Tensor]) -> Any:
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

    def _share_of_step(self, inputs: dict[str, Tensor], num_rows: Tensor | int | None) -> Tensor | float:
        """How much of the optimizer step this micro-batch is; DDP averages over processes, hence their number."""
        if num_rows is None:
            return 1.0
        return find_batch_size(inputs) * self.args.world_size / num_rows

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> Tensor | None:
        """The rows of one optimizer step, over all its micro-batches and processes."""
        if not batch_samples:
            return None
        rows = torch.tensor(float(sum(find_batch_size(batch) for batch in batch_samples)), device=device)
        return self.accelerator.reduce(rows, reduction="sum") if self.args.world_size > 1 else rows

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluates the student alone: `eval_loss` is the loss on labels, and the teacher costs nothing."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**self._inputs_of(self.model, inputs))
            loss = None if labels is None else self.task_loss(outputs, inputs)
        return (loss, None, None) if prediction_loss_only else (loss, outputs.logits.detach(), labels)

    def _loss_alone(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, None, None]:
        """What `prediction_step` gives where the method's own loss is all that there is to evaluate."""
        self.extra_modules.to(self.args.device)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    # ---- logs ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the parts of the loss, averaged over the logging window and over processes."""
        if "loss" in logs:
            parts = self._window.averages(self.accelerator)
            if taken := sorted(parts.keys() & logs.keys()):
                raise ValueError(f"distillation_loss names a part {', '.join(taken)}, which the log has: rename it.")
            logs.update(parts)
        super().log(logs, start_time)

    # ---- data ----

    def _set_signature_columns_if_needed(self) -> None:
        if self._signature_columns is None:
            super()._set_signature_columns_if_needed()
            # A DistilBERT student does not know the token types that its BERT teacher needs.
            teacher = self._forward_arguments(self.teacher_model) if self.teacher_model is not None else set()
            columns: list[str] = list(self._signature_columns or ())
            self._signature_columns = [*dict.fromkeys([*columns, *sorted(teacher), ROW_COLUMN])]

    def _forward_arguments(self, model: nn.Module) -> set[str]:
        if id(model) not in self._accepted:
            self._accepted[id(model)] = set(inspect.signature(model.forward).parameters) - {"kwargs"}
        return self._accepted[id(model)]

    def _inputs_of(self, model: nn.Module, inputs: dict[str, Any]) -> dict[str, Any]:
        """The columns that a model accepts. Not the labels: its head would compute a loss that nobody uses."""
        accepted = self._forward_arguments(model)
        return {name: value for name, value in inputs.items() if name in accepted and name != "labels"}

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler | None:
        dataset = train_dataset if train_dataset is not None else self.train_dataset
        strategy = self.args.train_sampling_strategy
        if strategy == "batch_rebalance" or not _has_rows(dataset):
            return super()._get_train_sampler(train_dataset)
        args = self.args
        lengths = self._row_lengths(dataset) if strategy == "group_by_length" else None
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
                self._train_batch_size,
                *spread,
                shuffle=strategy != "sequential",
                drop_last=args.dataloader_drop_last,
            )
        return self._step_sampler

    def _run_epoch(self, model: Any, epoch: int, *args: Any, **kwargs: Any) -> None:
        # The data loader does not pass the epoch on to a sampler that is wrapped twice (processes, and resumed).
        if self._step_sampler is not None:
            self._step_sampler.set_epoch(epoch)
        super()._run_epoch(model, epoch, *args, **kwargs)

    def _row_lengths(self, dataset: Any) -> list[int] | None:
        """Tokens of each row; None where rows have no input_ids."""
        if isinstance(dataset, datasets.Dataset):
            if self.args.length_column_name in dataset.column_names:
                return list(dataset[self.args.length_column_name])
            has_ids = "input_ids" in dataset.column_names
            return [len(ids) for ids in dataset["input_ids"]] if has_ids else None
        first = dataset[0]
        if not (isinstance(first, Mapping) and "input_ids" in first):
            return None
        return [len(dataset[row]["input_ids"]) for row in range(len(dataset))]

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler | None:
        """Always the data set's own order: the stock sampler lets `group_by_length` reorder predictions."""
        if not _has_rows(eval_dataset) or self.args.world_size > 1:
            return None
        return SequentialSampler(eval_dataset)

    # ---- checkpoints ----

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Train the student, as `transformers.Trainer.train`.

        `resume_from_checkpoint=True` goes on from the newest whole checkpoint (a killed run may leave a torn one),
        or from the start when there is none. A run that had finished is loaded and not trained further.
        """
        if self.needs_labels:
            check_labels_present(self.train_dataset, self.args.alpha)
        if self.args.max_tokens_per_batch is not None and not _has_rows(self.train_dataset):
            raise ValueError("max_tokens_per_batch cannot cut a stream into batches: set per_device_train_batch_size.")
        self._window = LossWindow()
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_checkpoint(str(self.args.output_dir))
        with self._teacher_cached(), self._extra_modules_attached():
            if isinstance(resume_from_checkpoint, str) and self._has_finished(resume_from_checkpoint):
                return self._load_finished(resume_from_checkpoint)
            return super().train(resume_from_checkpoint, trial, ignore_keys_for_eval)

    def _has_finished(self, checkpoint: str) -> bool:
        # Resuming a finished run would take one more optimizer step.
        state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        *_, max_steps = self.set_initial_training_values(self.args, self.get_train_dataloader())
        return state.global_step >= max_steps

    def _load_finished(self, checkpoint: str) -> TrainOutput:
        self._load_from_checkpoint(checkpoint)
        self.state = TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))
        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            # The folder may have been moved since the state was written.
            best = Path(checkpoint).parent / Path(self.state.best_model_checkpoint).name
            self.state.best_model_checkpoint = str(best)
            self._load_best_model()
        return TrainOutput(self.state.global_step, 0.0, {})

    @contextlib.contextmanager
    def _extra_modules_attached(self) -> Iterator[None]:
        """While training, the extra modules are part of the student: optimizer, DDP and checkpoints see them."""
        if not len(self.extra_modules):
            yield
            return
        if self.model_init is not None:
            raise ValueError(
                f"model_init makes a new student in train(), to which {', '.join(self.extra_modules)} could not be "
                "attached: give the student as model."
            )
        self.extra_modules.to(self.args.device)
        self.model.add_module(_EXTRA_MODULES, self.extra_modules)
        try:
            yield
        finally:
            delattr(self.accelerator.unwrap_model(self.model, keep_torch_compile=False), _EXTRA_MODULES)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Tensor] | None = None) -> None:
        """Writes the student alone; a checkpoint also gets the extra modules, in a file of their own."""
        folder = Path(str(output_dir if output_dir is not None else self.args.output_dir))
        is_checkpoint = folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-")
        state = state_dict if state_dict is not None else self.model.state_dict()
        prefix = f"{_EXTRA_MODULES}."
        extra = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
        if extra:
            state_dict = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
        super()._save(str(folder), state_dict=state_dict)
        if not self.args.should_save:
            return
        if extra and is_checkpoint:
            save_file({name: tensor.contiguous() for name, tensor in extra.items()}, folder / EXTRA_FILE)
        if not is_checkpoint:
            # A model that leaves is config, weights and tokenizer; pickled training arguments are for resuming.
            (folder / "training_args.bin").unlink(missing_ok=True)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_extra_modules(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._load_extra_modules(str(self.state.best_model_checkpoint))

    def _load_extra_modules(self, checkpoint: str) -> None:
        if not len(self.extra_modules):
            return
        path = Path(checkpoint) / EXTRA_FILE
        if not path.is_file():
            raise ValueError(
                f"The checkpoint {checkpoint} has no {EXTRA_FILE}, but this run trains "
                f"{', '.join(self.extra_modules)} along with the student; resume with the settings it was "
                "written with, or start anew."
            )
        self.extra_modules.load_state_dict(load_file(path))

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        # The extra modules have a file of their own and are not missing.
        missing = [name for name in load_result.missing_keys if not name.startswith(_EXTRA_MODULES)]
        super()._issue_warnings_after_load(type(load_result)(missing, load_result.unexpected_keys))

    # ---- teacher ----

    def _load(self, model: Any) -> Any:
        # A checkpoint's own dtype may be half: students and teachers start in float32.
        is_name = isinstance(model, str | os.PathLike)
        return self.auto_model_class.from_pretrained(model, dtype=torch.float32) if is_name else model

    def _set_up_teacher(self) -> None:
        if self.teacher_model is None:
            if self.needs_teacher:
                raise ValueError(
                    f"{type(self).__name__} needs a teacher_model: the loss has a part that comes from the teacher "
                    f"(alpha={self.args.alpha}). For plain fine-tuning use DistillationTrainer with alpha=0."
                )
            return
        student, teacher = self.model.config, self.teacher_model.config
        check_vocabularies(student, teacher)
        if self.compares_predictions:
            given = self.args.teacher_labels or label_names(teacher)
            self._label_permutation = label_permutation(label_names(student), given)
        # Replicated on every process: an encoder is small, and DDP or FSDP must not touch a frozen model.
        self.teacher_model.to(self.args.device)
        self.teacher_model.eval().requires_grad_(False)

    @contextlib.contextmanager
    def _teacher_cached(self) -> Iterator[None]:
        """While training, the cache answers for the teacher, and each training row carries its number."""
        if self.args.teacher_cache_dir is None or not self.needs_teacher:
            yield
            return
        if not _has_rows(self.train_dataset):
            raise ValueError("teacher_cache_dir needs a training set with a length: rows are joined to it by number.")
        cache, dataset = self._open_teacher_cache(Path(self.args.teacher_cache_dir)), self.train_dataset
        self._teacher_cache, self.train_dataset = cache, with_rows(dataset)
        try:
            yield
        finally:
            self._teacher_cache, self.train_dataset = None, dataset

    def _open_teacher_cache(self, folder: Path) -> TeacherCache:
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
        columns = sorted(self._forward_arguments(self.teacher_model) - {"labels"})
        folder /= fingerprint(self.teacher_model, self.train_dataset, columns, settings)
        rows = len(self.train_dataset)
        with self.args.main_process_first(local=False, desc="teacher cache"):
            cache = TeacherCache.open(folder, rows)
            if cache is not None:  # which may lie where nothing can be written
                return cache
            with TeacherCache.lock(folder):
                cache = TeacherCache.open(folder, rows)  # of another run, meanwhile
                return cache or TeacherCache.build(
                    folder, rows, self._teacher_batches(), self._cacheable, self.args.teacher_cache_dtype
                )

    def _cacheable(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        outputs = dict(self._teacher_outputs(self._prepare_inputs(inputs)))
        other = [name for name, value in outputs.items() if not isinstance(value, Tensor)]
        if other:
            raise ValueError(
                f"The teacher's outputs {', '.join(other)} cannot be cached: return tensors with one entry per row "
                "from teacher_forward, or leave teacher_cache_dir out."
            )
        return outputs

    def _teacher_batches(self) -> Iterator[tuple[Sequence[int], Any]]:
        """Batches of all training rows, sorted by length, with the numbers of their rows."""
        dataset, collate = self.train_dataset, self.data_collator
        if isinstance(dataset, datasets.Dataset):
            dataset = self._remove_unused_columns(dataset, description="training")
        else:
            collate = self._get_collator_with_removed_columns(collate, description="training")
        lengths = self._row_lengths(dataset)
        rows = sorted(range(len(dataset)), key=lengths.__getitem__) if lengths else list(range(len(dataset)))
        size = self.args.eval_batch_size
        starts = range(0, len(rows), size)
        for start in tqdm(starts, desc="Teacher cache", unit="batch", disable=self.args.disable_tqdm):
            batch = rows[start : start + size]
            yield batch, collate([dataset[row] for row in batch])

    # ---- checks ----

    @property
    def _is_regression(self) -> bool:
        config = self.model.config
        return bool(config.num_labels == 1 or config.problem_type == "regression")

    def _check_kind_of_models(self) -> None:
        for model in (self.model, self.teacher_model):
            if model is not None:
                refuse_supernet(model, type(self).__name__)

    def _check_processes(self) -> None:
        if self.args.n_gpu > 1:
            raise ValueError(
                f"{self.args.n_gpu} GPUs are visible to one process: start one process per GPU with `accelerate "
                "launch` or `torchrun --nproc_per_node`, or choose one with CUDA_VISIBLE_DEVICES."
            )


def _has_rows(dataset: Any) -> bool:
    """Whether a data set has a length and is not empty (an iterable one has none)."""
    return dataset is not None and hasattr(dataset, "__len__") and len(dataset) > 0
