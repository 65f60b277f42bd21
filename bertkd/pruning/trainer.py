"""Distillation of a pruned student, as a trainer."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.trainer_utils import TrainOutput

from bertkd import losses
from bertkd.distillation.checks import check_layers_can_be_read, check_same_shape
from bertkd.distillation.steps import model_inside
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.models import layer_sizes
from bertkd.pruning.config import PrunedKDConfig

__all__ = ["PrunedKDTrainer"]


class PrunedKDTrainer(DistillationTrainer):
    """Distills the model that a student was pruned out of: by its predictions and its hidden states.

    `PrunedKDConfig` has the loss. What goes into a layer of the student is compared with what goes into that layer of
    the teacher, and the last output with the teacher's last, as ZipLM (arXiv 2302.04089) does. A layer that the
    student skips as a whole is not compared.

    Args:
        model: the student, as deep as the teacher: `prune_to_budget` gives one.
        teacher_model: the model before pruning.
        args: a `PrunedKDConfig`.

    Raises:
        ValueError: what `DistillationTrainer` refuses, and, unless beta is 0, a teacher of another depth or hidden
            size, or a model of an unsupported family.
    """

    args: PrunedKDConfig
    config_class = PrunedKDConfig

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Parameters that are frozen while this trainer trains.
        self._frozen: list[nn.Parameter] = []
        super().__init__(*args, **kwargs)

    def _set_up_method(self) -> None:
        super()._set_up_method()
        self.student_forward_kwargs, self.teacher_forward_kwargs = {}, {}
        if self.args.beta == 0:
            return

        assert self.teacher_model is not None, "the base class has checked that there is a teacher"
        for model in (self.model, self.teacher_model):
            check_layers_can_be_read(model, type(self).__name__)
        student = model_inside(self.model)
        check_same_shape(
            student.config,
            self.teacher_model.config,
            reason="PrunedKDTrainer compares the hidden states of each layer with those that the student was pruned "
            "out of. Use a pruned student, or set beta=0.",
        )

        sizes = layer_sizes(student)
        kept = [layer for layer, pair in enumerate(zip(*sizes, strict=True)) if any(pair)]
        # Level i is the input of layer i, counted from 0; the last level is the output of the last layer.
        self.levels = [*kept, student.config.num_hidden_layers]
        self.student_forward_kwargs = {"output_hidden_states": self.levels}
        self.teacher_forward_kwargs = {"output_hidden_states": self.levels}

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer as the base class; the student's word embeddings are frozen with `freeze_embeddings`."""
        # Here `model_init` has made its model.
        self._freeze_embeddings()
        return super().create_optimizer(model)

    def _freeze_embeddings(self) -> None:
        if not self.args.freeze_embeddings:
            return
        embeddings: nn.Module = model_inside(self.model).get_input_embeddings()
        for parameter in embeddings.parameters():
            if parameter.requires_grad:
                parameter.requires_grad_(False)
                self._frozen.append(parameter)

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Train as the base class. What was frozen meanwhile can be trained afterwards, by whatever comes next."""
        try:
            if self.model_init is None:
                # A subclass may make its optimizer alone.
                self._freeze_embeddings()
            return super().train(*args, **kwargs)
        finally:
            while self._frozen:
                self._frozen.pop().requires_grad_(True)

    @property
    def needs_teacher(self) -> bool:
        return super().needs_teacher or self.args.beta > 0

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts of the base class and "hidden_loss", beta times the hidden states' loss."""
        parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
        if self.args.beta == 0:
            return parts

        hidden = losses.relative_hidden_loss(
            [student_outputs.hidden_states[level] for level in self.levels],
            [teacher_outputs.hidden_states[level] for level in self.levels],
            inputs.get("attention_mask"),
        )
        parts["hidden_loss"] = self.args.beta * hidden
        return parts
