"""Vanilla knowledge distillation as a `transformers.Trainer`, and the base of every trainer in bertkd.

This file has the loss. The teacher is in `teacher.py`, the steps and their samplers in `steps.py`, what labels may be
in `labels.py`, modules that are trained with the student in `extra_modules.py`, settings that change in `settings.py`,
checkpoints in `resuming.py`, numbers that must be finite in `finite.py`, and everything private of
`transformers.Trainer` in `trainer_hooks.py`.
"""

import os
import warnings
from collections.abc import Collection
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput, SaveStrategy, TrainOutput

from bertkd import losses
from bertkd.distillation.checks import (
    check_arguments,
    check_label_order,
    check_labels_present,
    check_own_compute_loss,
    check_parts,
    check_precision,
    check_single_label,
    check_student,
    warn_of_nameless,
)
from bertkd.distillation.config import DistillationConfig
from bertkd.distillation.finite import FiniteMixin
from bertkd.distillation.labels import (
    NO_LABEL,
    EvaluatedLabels,
    check_logits,
    class_labels,
    has_label,
    logits_of,
    number_labels,
)
from bertkd.distillation.origin import is_of_bertkd
from bertkd.distillation.resuming import ResumingMixin
from bertkd.distillation.settings import SettingsMixin
from bertkd.distillation.steps import StepsMixin, count_rows, first_rows, has_rows, inputs_of, model_inside
from bertkd.distillation.teacher import TeacherMixin
from bertkd.distillation.tokens import check_tokens
from bertkd.folder_lock import folder_in_use
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.loading import check_finite

__all__ = ["DistillationTrainer"]


class DistillationTrainer(TeacherMixin, StepsMixin, SettingsMixin, ResumingMixin, FiniteMixin):
    """Trains a student on labels and on a teacher's softened predictions.

    `L = (1 - alpha) · CE + alpha · T² · KL(teacher || student)`; see `DistillationConfig` for the settings and
    `bertkd.losses` for the reductions. With `teacher_model=None` and `alpha=0` it is plain fine-tuning, and should be
    used for it: stock `Trainer` multiplies the loss of BERT by the accumulation steps and by the processes. With
    `alpha=1` the rows need no labels. A regression task (`num_labels=1`) is distilled by the mean squared error
    between logits.

    To extend it, override `teacher_forward(inputs)` and
    `distillation_loss(student_outputs, teacher_outputs, inputs)`; the latter returns named, weighted parts, each a
    mean over the rows of the batch. Their sum is the loss, and each is logged under its name. Modules that are
    trained with the student but do not belong to it (a projection) go into `self.extra_modules`: they are
    trained, saved in checkpoints and restored, and absent from the student that leaves. They may be used in
    `distillation_loss`, which runs inside the wrapped model's forward for that reason. `student_forward_kwargs` and
    `teacher_forward_kwargs` are passed to the two models besides the batch.

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

    # The share of labeled rows by which the loss of the current micro-batch divides; None outside a step.
    _labeled_share_in_use: Tensor | None = None
    # Whether `evaluate` and `predict` refuse rows with another order of labels. Set it to False where
    # `preprocess_logits_for_metrics` or the metric rearranges them.
    checks_label_order = True
    _is_training = False
    # A function of student logits, teacher logits, temperature and reduction.
    soft_loss = staticmethod(losses.kd_kl)

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
        check_own_compute_loss(type(self))
        if args.n_gpu > 1:
            raise ValueError(
                f"{args.n_gpu} GPUs are visible to one process: start one process per GPU with `accelerate launch` "
                "or `torchrun --nproc_per_node`, or choose one with CUDA_VISIBLE_DEVICES."
            )

        if args.ddp_find_unused_parameters is None and not _checkpoints_with_reentry(args):
            # Some losses leave a part of the student without a gradient, such as the head. The Trainer does not expect
            # that beside checkpointing.
            args.ddp_find_unused_parameters = True

        check_arguments(kwargs)
        student = self._load(model)
        if kwargs.get("model_init") is None:
            check_student(student)
        try:
            super().__init__(model=student, args=args, **kwargs)
        except RuntimeError as error:
            # A tracker that is not installed.
            if "requires" in str(error) and args.report_to:
                raise ValueError(f"report_to={args.report_to} cannot be followed: {error}") from None
            raise
        self._check_launcher()
        check_finite(self.model, "The model")
        # What a compiled or otherwise wrapped teacher hides is read from the model inside.
        self.teacher_model = model_inside(self._load(teacher_model, is_teacher=True))
        self.student_forward_kwargs: dict[str, Any] = {}
        self.teacher_forward_kwargs = {}
        self._evaluated_labels = EvaluatedLabels()

        self._check_kind_of_models()
        evaluated = self.eval_dataset.values() if isinstance(self.eval_dataset, dict) else [self.eval_dataset]
        if self._reads_classes:
            check_single_label(self.model.config)
        for dataset in (self.train_dataset, *evaluated):
            self._check_label_order(dataset)
        self._set_up_teacher()
        uses_teacher = self.compares_predictions and self.needs_teacher and self.teacher_model is not None
        if uses_teacher and self.args.teacher_labels is None:
            warn_of_nameless(self.train_dataset, self.model.config, self.teacher_model.config)
        self._set_up_method()
        self._remember_settings()

    def _check_new_model(self, model: Any) -> None:
        check_student(model)

    def _check_launcher(self) -> None:
        """Refuse ways to spread a model or its batches over processes that go wrong later."""
        plugin = self.accelerator.state.deepspeed_plugin if self.is_deepspeed_enabled else None
        if self.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3):
            raise ValueError(
                "FSDP and DeepSpeed's ZeRO-3 split a model over GPUs, where its layers cannot be compared with the "
                "teacher's. An encoder fits into one GPU many times: launch with DistributedDataParallel, which is "
                "what accelerate takes for several GPUs."
            )

        spread = self.accelerator.dataloader_config
        if spread.split_batches or (spread.dispatch_batches and has_rows(self.train_dataset)):
            raise ValueError(
                "accelerator_config: split_batches and dispatch_batches spread the rows of a step in their own way; "
                "the trainer spreads them itself, so that every row is seen once. Leave both out."
            )

    def _check_kind_of_models(self) -> None:
        """Refuse models that this trainer cannot train or learn from."""
        for model in (self.model, self.teacher_model):
            if model is not None:
                refuse_supernet(model, type(self).__name__)

    @property
    def _reads_classes(self) -> bool:
        """Whether a column of classes is read; a method on plain text or on states alone never does."""
        return self.needs_labels or self.compares_predictions

    def _check_label_order(self, dataset: Any, of_as_many: bool = False) -> None:
        """Refuse rows whose classes stand in another order than the student's.

        Args:
            dataset: the rows.
            of_as_many: whether rows of more or fewer classes are left to the metric, which may join classes.
        """
        if self._reads_classes:
            check_label_order(dataset, self.model.config, of_as_many)

    # ---- what users override, besides `teacher_forward` ----

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The named parts of the loss: weighted scalars, each a mean over the rows of the batch.

        Args:
            student_outputs: the student's `ModelOutput`, logits (B, C).
            teacher_outputs: what `teacher_forward` returned; None without a teacher.
            inputs: the batch; `inputs["labels"]` is (B,), or absent for rows without labels.

        Returns:
            "task_loss", (1 - alpha) times the loss on labels, and "kd_loss", alpha times the soft term; a part with
            weight 0 is left out.

        Raises:
            ValueError: the batch has no labels although alpha is below 1.
        """
        parts = {}
        alpha = self.args.alpha
        if alpha < 1:
            parts["task_loss"] = (1 - alpha) * self.task_loss(student_outputs, inputs)
        if alpha > 0:
            parts["kd_loss"] = alpha * self.kd_loss(
                logits_of(student_outputs, "student"), logits_of(teacher_outputs, "teacher")
            )
        return parts

    def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Mean over labeled rows of the cross entropy with the labels (regression: the squared error), in float32.

        A row whose class is -100 has no label. Instead of a class, (B,), labels may give the probability of each
        class, (B, C).

        Raises:
            ValueError: the batch has no labels or labels of a wrong shape, or the logits are not (B, C).
        """
        labels = inputs.get("labels")
        if labels is None:
            raise ValueError(
                "The training rows have no labels: give a data set with a label column, or set alpha=1 to learn from "
                "the teacher alone."
            )

        logits = logits_of(student_outputs, "student").float()
        check_logits(logits, self.model.config)
        if self._is_regression:
            predictions = logits.squeeze(-1)
            return F.mse_loss(predictions, number_labels(labels.float(), predictions))

        labels = class_labels(labels, logits)
        if labels.is_floating_point():
            return F.cross_entropy(logits, labels)

        # Rows without a label are in neither the sum nor the count. A micro-batch is weighed by all its rows: divided
        # by the share of labeled rows of the whole step, the micro-batches add up to the mean over the labeled ones.
        total = F.cross_entropy(logits, labels, ignore_index=NO_LABEL, reduction="sum")
        share = self._labeled_share_in_use
        count = has_label(labels).sum() if share is None else len(labels) * share
        return total / count.clamp(min=1e-9)

    def kd_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The soft term, not yet weighted: `soft_loss`, or `losses.logits_mse` for a regression task.

        It counts all rows, those without a label as well.

        Raises:
            ValueError: the logits are not (B, C).
        """
        check_logits(student_logits, self.model.config)
        if self._is_regression:
            return losses.logits_mse(student_logits, teacher_logits)
        return self.soft_loss(student_logits, teacher_logits, self.args.temperature, self.args.kd_reduction)

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

        is_inside = False

        def add_loss(_module: nn.Module, _args: Any, outputs: Any) -> dict[str, Any] | None:
            nonlocal is_inside
            if is_inside:
                # A loss may run the student once more, which has no loss of its own.
                return None
            is_inside = True
            parts = self.distillation_loss(outputs, teacher_outputs, inputs)
            check_parts(parts)
            total = torch.stack(list(parts.values())).sum()
            # Text models without a head have no logits.
            logits = getattr(outputs, "logits", None)
            return {"loss": total, "parts": parts, "logits": None if logits is None else logits.detach()}

        # The loss is computed inside the wrapped model's forward: there DDP sees every module that takes part and
        # every output that gets a gradient, whichever parts of the student a loss uses.
        hook = student.register_forward_hook(add_loss)
        self._labeled_share_in_use = None if num_items_in_batch is None else self._labeled_share
        try:
            outputs = model(**inputs_of(student, inputs), **self.student_forward_kwargs)
        finally:
            hook.remove()
            self._labeled_share_in_use = None

        share = self._share_of_step(inputs, num_items_in_batch)
        if student.training:
            # An evaluation by this loss is not part of the training's log.
            self._window.add(outputs["parts"], share, self._current_step)

        loss = outputs["loss"] * share
        return (loss, {"loss": loss, "logits": outputs["logits"]}) if return_outputs else loss

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluate the student alone: `eval_loss` is the loss on labels, and the teacher costs nothing."""
        inputs = self._on_device(inputs)
        labels = inputs.get("labels")
        more: dict[str, Any] = {}
        if not is_of_bertkd(type(self).task_loss):
            # A loss of the user's may read what it reads in a training.
            more = self.student_forward_kwargs
            self.extra_modules.to(self.args.device)

        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**inputs_of(self.model, inputs), **more)
            count = self._rows_not_filled_up(inputs)
            # A model whose labels have other names computes its own loss.
            loss = getattr(outputs, "loss", None) if labels is None else self._loss_of_rows(outputs, inputs, count)
            if labels is None and loss is not None and count is not None:
                # By every process, as shards of a model need; that of a process without a row is left out.
                rows = first_rows(inputs, count_rows(inputs), max(count, 1))
                loss = model(**inputs_of(self.model, rows), **more).loss

        if loss is not None and labels is not None:
            self._evaluated_labels.add(loss, labels[:count])
        if prediction_loss_only:
            return loss, None, None
        return loss, _predictions(outputs, ignore_keys or ()), self._labels_for_metrics(inputs)

    def _labels_for_metrics(self, inputs: dict[str, Any]) -> Any:
        """The labels of a batch by `label_names`, a tuple where it has several; None where one of them is missing."""
        names = self.label_names or ["labels"]
        if any(inputs.get(name) is None for name in names):
            return None

        found = []
        for labels in (inputs[name] for name in names):
            # Of (B, 1), metrics would compare each row with all others.
            found.append(labels[:, 0] if labels.dim() == 2 and labels.shape[1] == 1 else labels)
        return found[0] if len(found) == 1 else tuple(found)

    def _loss_of_rows(self, outputs: Any, inputs: dict[str, Any], count: int | None) -> Tensor:
        """The loss on labels of the first rows of a batch; of all where `count` is None."""
        if count == 0:
            return torch.zeros((), device=self.args.device)
        if count is not None:
            size = count_rows(inputs)
            outputs, inputs = first_rows(outputs, size, count), first_rows(inputs, size, count)
        return self.task_loss(outputs, inputs)

    def evaluation_loop(self, dataloader: DataLoader, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as `transformers.Trainer`; `eval_loss` is a mean over the rows that have a label.

        Raises:
            ValueError: a label is bad or means another class, the model cannot read a row, a prediction is not finite,
                or no row has a label.
        """
        if not self._is_training:
            check_tokens(dataloader.dataset, self.model.config, "the evaluation set")
            if self.checks_label_order:
                self._check_label_order(dataloader.dataset, of_as_many=True)
        self._check_labels_of(dataloader.dataset, "the evaluation set", is_used=self.compares_predictions)
        self._evaluated_labels = EvaluatedLabels()
        output = super().evaluation_loop(dataloader, *args, **kwargs)

        mean = self._evaluated_labels.mean_if_some_are_missing(self.accelerator)
        if mean is not None and output.metrics is not None:
            output.metrics[f"{kwargs.get('metric_key_prefix', 'eval')}_loss"] = mean
        return output

    def _evaluate_loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[Tensor, None, None]:
        """The result of `prediction_step` where the method's own loss is all that there is to evaluate."""
        self.extra_modules.to(self.args.device)
        count = self._rows_not_filled_up(inputs)
        if count == 0:
            return torch.zeros((), device=self.args.device), None, None
        if count is not None:
            inputs = first_rows(inputs, count_rows(inputs), count)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, self._to_evaluate(inputs)).detach(), None, None

    def _to_evaluate(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """What a method makes of a batch before its loss is evaluated, such as masks."""
        return inputs

    # ---- a training ----

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
        if self.model is None and self.model_init is not None:
            # A search takes the model of its last trial away.
            self.model = self.call_model_init(trial)
        self._take_settings_of(trial)
        self._follow_settings()
        self._check_training()
        if self.args.max_tokens_per_batch is not None and not has_rows(self.train_dataset):
            raise ValueError("max_tokens_per_batch cannot cut a stream into batches: set per_device_train_batch_size.")

        self._start_watching()
        try:
            with (
                self._folder_of_checkpoints(),
                self._teacher_cached(),
                self._extra_modules_attached(),
                self._labels_checked(),
            ):
                checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
                if checkpoint is not None and self._has_finished(checkpoint):
                    return self._load_finished(checkpoint)

                self._forget_used_optimizer()
                self._prepare_anew()
                steps_before = 0 if checkpoint is None else self._steps_of(checkpoint)
                self._is_training = True
                output = super().train(checkpoint, trial, ignore_keys_for_eval)
                self._check_finished(output, steps_before)
                return output
        finally:
            self._is_training = False
            self._remember_used_optimizer()
            # What was seen belongs to this training.
            self._start_watching()

    def _folder_of_checkpoints(self) -> AbstractContextManager[None]:
        """Keeps other processes out of the output folder while checkpoints are written to it."""
        writes = self.args.process_index == 0 and self.args.save_strategy != SaveStrategy.NO
        return folder_in_use(str(self.args.output_dir)) if writes else nullcontext()

    def _check_training(self) -> None:
        """Refuse rows, labels and settings with which a training could not begin, or would do nothing."""
        self._check_settings_have_effect()
        if self.teacher_model is not None and not self.needs_teacher:
            warnings.warn(
                "The teacher is not used: no part of the loss that comes from it has a weight.", stacklevel=3
            )

        if self.args.num_train_epochs == 0 and self.args.max_steps < 1:
            raise ValueError("num_train_epochs is 0, so that nothing would be trained: give at least one epoch.")
        if hasattr(self.train_dataset, "__len__") and len(self.train_dataset) == 0:
            raise ValueError("The training set has no rows: give it at least one.")

        step_size = self._rows_of_step
        if self.args.dataloader_drop_last and has_rows(self.train_dataset) and len(self.train_dataset) < step_size:
            raise ValueError(
                f"The training set has {len(self.train_dataset)} rows, fewer than the {step_size} of one step, which "
                "dataloader_drop_last would leave out: leave it off, or take smaller batches."
            )

        check_precision(self.model)
        if self.model_init is None and not any(parameter.requires_grad for parameter in self.model.parameters()):
            raise ValueError(
                "All weights of the student are frozen (requires_grad is False), so that nothing would be trained: "
                "call model.requires_grad_(True), or do so for the layers to train."
            )

        check_tokens(self.train_dataset, self.model.config)
        # A forward pass of the user's may cut the rows first.
        if self.teacher_model is not None and self.needs_teacher and is_of_bertkd(type(self).teacher_forward):
            check_tokens(self.train_dataset, self.teacher_model.config, whose="teacher")
        self._check_label_order(self.train_dataset)
        if self.needs_labels:
            check_labels_present(self.train_dataset, self.args.alpha)
        self._check_labels_of(self.train_dataset, "the training set", is_used=self.needs_labels, needs_one=True)
        if self.args.eval_strategy != "no":
            sets = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"": self.eval_dataset}
            for name, dataset in sets.items():
                which = f"the evaluation set {name}".rstrip()
                check_tokens(dataset, self.model.config, which)
                self._check_label_order(dataset)
                self._check_labels_of(dataset, which, self.compares_predictions)


def _predictions(outputs: Any, left_out: Collection[str]) -> Any:
    """The logits among a model's outputs; of a model without any, all its tensors but the loss."""
    logits: Tensor | None = getattr(outputs, "logits", None)
    if logits is not None:
        return logits.detach()
    return tuple(
        value.detach()
        for name, value in outputs.items()
        if isinstance(value, Tensor) and name != "loss" and name not in left_out
    )


def _checkpoints_with_reentry(args: DistillationConfig) -> bool:
    """Whether activations are computed anew in a way that does not bear a search for parameters without a gradient."""
    settings = args.activation_checkpointing_kwargs or args.gradient_checkpointing_kwargs or {}
    return bool(isinstance(settings, dict) and settings.get("use_reentrant"))
