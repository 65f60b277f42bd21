"""Trains DynaBERT, one of its three stages at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from numbers import Real
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.trainer_utils import EvalLoopOutput, default_compute_objective

from bertkd import losses
from bertkd.distillation.checks import check_layers_can_be_read, check_same_shape
from bertkd.distillation.labels import logits_of
from bertkd.distillation.steps import model_inside
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.dynabert.config import DynaBertKDConfig
from bertkd.dynabert.extraction import switched_to
from bertkd.dynabert.supernet import Subnetwork, make_adaptive, set_subnetwork
from bertkd.models import family_of
from bertkd.models.adaptive import is_adaptive
from bertkd.students.layers import copy_layers

__all__ = ["DynaBertKDTrainer"]


class DynaBertKDTrainer(DistillationTrainer):
    """DynaBERT (Hou et al., arXiv 2004.04037): trains a supernet, one stage at a time.

    Each step runs every sub-network of the stage on the same rows, with a backward pass of its own; the gradients are
    summed and clipped once. `DynaBertKDConfig` has the stages and the loss. The hidden states of a sub-network are
    matched as in the authors' code: the input of a kept layer with the input of that layer of the teacher, and the
    last output with the teacher's last. In stage "depth" the teacher is as wide as the sub-network (the paper's
    algorithm 3) or of full width (the released code); it runs once for each width.

    The parts of the loss are logged for each sub-network, such as "kd_loss_w0.25_d0.5". `evaluate` gives every metric
    for each sub-network ("eval_accuracy_w0.25_d0.5") and, under its own name, the mean over them, by which the best
    checkpoint is chosen. Checkpoints and saved folders are ordinary models of full size; `extract_subnetwork` makes
    smaller ones.

    Args:
        model: the student: a supernet (`make_adaptive`), or an ordinary model, which is made one in place. Rewire it
            (`rewire`) before the first stage.
        teacher_model: an ordinary model or a supernet, as deep and with hidden states as large as the student; None
            for stage "finetune".
        args: a `DynaBertKDConfig`.

    Raises:
        ValueError: what `DistillationTrainer` refuses, and a teacher of another depth or hidden size, or a model of
            an unsupported family.
    """

    args: DynaBertKDConfig
    config_class = DynaBertKDConfig
    soft_loss = staticmethod(losses.soft_cross_entropy)

    def _set_up_method(self) -> None:
        super()._set_up_method()
        # Again, for a stage that was changed: the teacher may have to be as narrow as a sub-network.
        self._check_kind_of_models()
        if self.teacher_model is not None:
            self.teacher_model.to(self.args.device).eval().requires_grad_(False)

        # The widest and deepest one comes last: its backward pass reaches every parameter, and is the one that
        # several processes synchronize. Widths change slowest, so that the teacher runs once for each.
        self.subnetworks: dict[str, tuple[float, Subnetwork]] = {}
        depths = [1.0] if self.args.stage == "width" else sorted(set(self.args.depth_mult_list))
        for width in sorted(set(self.args.width_mult_list)):
            for depth in depths:
                label = f"w{width:g}_d{depth:g}"
                self.subnetworks[label] = (width, Subnetwork.of(self.model, width, depth))
        self._last_label = list(self.subnetworks)[-1]

        # The label of the sub-network that is running; empty at full size.
        self._label = ""
        # The teacher's outputs for the batch of this step, by the width it had; only those of the latest width.
        self._teacher_of_step: dict[float, Any] = {}
        # Whether an evaluation is one of all sub-networks, and not of the size that is set.
        self._evaluates_all = False

        self.student_forward_kwargs, self.teacher_forward_kwargs = {}, {}
        if self.needs_teacher and self.args.lambda2 > 0:
            self.student_forward_kwargs = {"output_hidden_states": True}
            self.teacher_forward_kwargs = {"output_hidden_states": True}

    def call_model_init(self, trial: Any = None) -> Any:
        """The student that `model_init` makes, as a supernet."""
        model: Any = super().call_model_init(trial)
        return model if is_adaptive(model) else make_adaptive(model)

    def _check_kind_of_models(self) -> None:
        check_layers_can_be_read(self.model, type(self).__name__)
        if model_inside(self.model) is not self.model:
            raise ValueError(
                f"DynaBertKDTrainer needs a plain model, and the student is a {type(self.model).__name__} around one: "
                "a supernet trains every weight, so that adapters have no place in it. Merge them first."
            )
        if not is_adaptive(self.model):
            make_adaptive(self.model)
        if not self.needs_teacher or self.teacher_model is None:
            return

        check_same_shape(
            self.model.config,
            self.teacher_model.config,
            reason="DynaBERT compares the hidden states of each layer, so both must be of one shape.",
        )
        if self._matches_width and not is_adaptive(self.teacher_model):
            # A copy, because the user's teacher is to stay the ordinary model that it is.
            layers = range(self.model.config.num_hidden_layers)
            self.teacher_model = make_adaptive(copy_layers(self.teacher_model, layers))

    @property
    def _matches_width(self) -> bool:
        """Whether the teacher is as wide as the sub-network that it teaches."""
        return self.args.stage == "depth" and self.args.teacher_width == "same"

    # ---- the loss of one sub-network ----

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts task_loss, kd_loss and hidden_loss of the sub-network that is running, each with its label."""
        alpha, parts = self.args.alpha, dict[str, Tensor]()
        if alpha < 1:
            parts["task_loss"] = (1 - alpha) * self.task_loss(student_outputs, inputs)
        if alpha > 0 and self.args.lambda1 > 0:
            kd_loss = self.kd_loss(logits_of(student_outputs, "student"), logits_of(teacher_outputs, "teacher"))
            parts["kd_loss"] = alpha * self.args.lambda1 * kd_loss
        if alpha > 0 and self.args.lambda2 > 0:
            hidden_loss = self.hidden_loss(student_outputs.hidden_states, teacher_outputs.hidden_states, inputs)
            parts["hidden_loss"] = alpha * self.args.lambda2 * hidden_loss

        return {f"{name}_{self._label}": part for name, part in parts.items()}

    def hidden_loss(
        self, student_hidden: tuple[Tensor, ...], teacher_hidden: tuple[Tensor, ...], inputs: dict[str, Tensor]
    ) -> Tensor:
        """The hidden states' loss, not yet weighted.

        Args:
            student_hidden: the sub-network's n + 1 levels of (B, T, H), for n kept layers.
            teacher_hidden: the teacher's L + 1 levels of (B, T, H).
            inputs: the batch, with its attention_mask (B, T) if it has one.
        """
        # Level i is the input of layer i, counted from 0; the last level is the output of the last layer.
        _, size = self.subnetworks[self._label]
        matched = [teacher_hidden[level] for level in (*size.layers, len(teacher_hidden) - 1)]
        if not self.args.mask_padding:
            return losses.hidden_state_loss(student_hidden, matched)
        return losses.hidden_state_loss(student_hidden, matched, inputs.get("attention_mask"), reduction="rows")

    # ---- one step over all sub-networks ----

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """Forward and backward of every sub-network of the stage; returns the sum of their losses."""
        inputs = self._on_device(inputs)
        self._teacher_of_step = {}
        total = torch.zeros((), device=self.args.device)
        try:
            with self._word_gradients_summed():
                for label in self.subnetworks:
                    self._run_at(label)
                    # Gradients add up in each process, which the last backward pass exchanges once.
                    is_last = label == self._last_label
                    with nullcontext() if is_last else self.accelerator.no_sync(model):
                        total = total + super().training_step(model, dict(inputs), num_items_in_batch)
        finally:
            self._teacher_of_step = {}
            self._run_at_full_size()
        return total

    @contextmanager
    def _word_gradients_summed(self) -> Iterator[None]:
        """Within, the word embeddings get one gradient for all sub-networks, in the last one's backward pass.

        Every size reads the same words, and their gradient is a table of the whole vocabulary, as large for a narrow
        network as for a wide one.
        """
        if self.args.torch_compile:
            # The compiler would trace the hook, and guard on what it keeps.
            yield
            return

        student = self._student
        shared: Tensor | None = None

        def share(_module: nn.Module, _args: Any, words: Tensor) -> Tensor:
            nonlocal shared
            if not words.requires_grad:
                return words

            if self._label != self._last_label:
                # All but the last sub-network read the same leaf: their gradients add up in it, and stop there.
                if shared is None:
                    shared = words.detach().requires_grad_()
                return shared

            leaf = shared
            if leaf is not None:
                # On its way to the table the gradient of the last one is joined by theirs.
                words.register_hook(lambda gradient: gradient + leaf.grad)
            return words

        embeddings = student.base_model.get_submodule(family_of(student).word_embeddings)
        hook = embeddings.register_forward_hook(share)
        try:
            yield
        finally:
            hook.remove()

    def _run_at(self, label: str) -> None:
        """Switch the student to one of the sub-networks."""
        self._label = label
        set_subnetwork(self._student, subnetwork=self.subnetworks[label][1])

    def _run_at_full_size(self) -> None:
        self._label = ""
        set_subnetwork(self._student)

    @property
    def _student(self) -> PreTrainedModel:
        return self.accelerator.unwrap_model(self.model, keep_torch_compile=False)

    def _teacher_outputs(self, inputs: dict[str, Tensor]) -> Any:
        width = self.subnetworks[self._label][0] if self._matches_width else 1.0
        if width not in self._teacher_of_step:
            assert self.teacher_model is not None
            teacher = self.teacher_model
            is_sized = is_adaptive(teacher)
            with switched_to(teacher, Subnetwork.of(teacher, width)) if is_sized else nullcontext():
                # The outputs for an earlier width are not needed again.
                self._teacher_of_step = {width: super()._teacher_outputs(inputs)}
        return self._teacher_of_step[width]

    # ---- evaluation ----

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate as `transformers.Trainer` does, with every metric for each sub-network and their mean.

        The student has the size afterwards that it had before.
        """
        self._evaluates_all = True
        try:
            return super().evaluate(*args, **kwargs)
        finally:
            self._evaluates_all = False

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Run all sub-networks for `evaluate`, and otherwise the size that is set; predictions are the last one's."""
        if not self._evaluates_all:
            return super().evaluation_loop(*args, **kwargs)

        values_by_name: dict[str, list[Any]] = {}
        metrics_of_each: dict[str, Any] = {}
        try:
            for label, (_, size) in self.subnetworks.items():
                self._label = label
                with switched_to(self._student, size):
                    output = super().evaluation_loop(*args, **kwargs)
                assert output.metrics is not None, "the Trainer always gives metrics"
                for name, value in output.metrics.items():
                    values_by_name.setdefault(name, []).append(value)
                    metrics_of_each[f"{name}_{label}"] = value
        finally:
            self._label = ""

        means = {name: float(np.mean(values)) for name, values in values_by_name.items() if _are_numbers(values)}
        return output._replace(metrics={**means, **metrics_of_each})

    def hyperparameter_search(
        self, hp_space: Any = None, compute_objective: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Search as `transformers.Trainer` does; by default for the mean over the sub-networks."""
        return super().hyperparameter_search(hp_space, compute_objective or self._mean_objective, *args, **kwargs)

    def _mean_objective(self, metrics: dict[str, float]) -> float:
        """The default objective of transformers, of the means alone."""
        of_sizes = tuple(f"_{label}" for label in self.subnetworks)
        means = {name: value for name, value in metrics.items() if not name.endswith(of_sizes)}
        return float(default_compute_objective(means))


def _are_numbers(values: list[Any]) -> bool:
    return all(isinstance(value, Real) for value in values)
