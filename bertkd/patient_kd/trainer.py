"""Patient-KD as a trainer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.utils import ModelOutput

from bertkd import losses
from bertkd.distillation.extra_modules import linear_projection
from bertkd.distillation.labels import check_logits, logits_of
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.layer_map import LayerMap
from bertkd.models import family_of
from bertkd.patient_kd.config import PatientKDConfig

__all__ = ["PatientKDTrainer"]


@dataclass
class PatientTeacherOutput(ModelOutput):
    """The teacher's logits (B, C) and the [CLS] states of the map's teacher layers, (B, L, H)."""

    logits: Tensor | None = None
    cls_states: Tensor | None = None


class PatientKDTrainer(DistillationTrainer):
    """Patient-KD (Sun et al., arXiv 1908.09355): vanilla KD plus a loss between [CLS] states of matched layers.

    `L = (1 - alpha) · CE + alpha · KD(T) + beta · PT`; `PatientKDConfig` has the equations with their reductions.
    The layer map (`self.layer_map`) follows `args.strategy`: "skip", "last", or an explicit one. The student's last
    layer is left out by "skip" and "last", as in the paper. States of different hidden size are compared through a
    learned linear map when `args.project_hidden` is set (not in the paper); it is trained and saved in checkpoints,
    and is not part of the student that leaves.

    Args:
        model: the student; see `DistillationTrainer` for all arguments.
        teacher_model: the teacher.
        args: a `PatientKDConfig`.

    Raises:
        ValueError: what `DistillationTrainer` refuses, and a layer map that does not fit both models, different
            hidden sizes without `project_hidden`, or a model of an unsupported family.
    """

    args: PatientKDConfig
    config_class = PatientKDConfig

    def _set_up_method(self) -> None:
        super()._set_up_method()
        if self.args.beta == 0:
            # Without the patient loss it is vanilla KD, for models of any family.
            self.student_forward_kwargs, self.teacher_forward_kwargs = {}, {}
            self._remove_extra_module("projection")
            return

        assert self.teacher_model is not None, "the base class has checked that there is a teacher"
        # Raises for a family whose layers bertkd does not know.
        family_of(self.model)
        family_of(self.teacher_model)

        student, teacher = self.model.config, self.teacher_model.config
        self.layer_map = LayerMap.resolve(self.args.strategy, teacher.num_hidden_layers, student.num_hidden_layers)
        # Only the states that are compared are kept.
        self.student_forward_kwargs = {"output_hidden_states": self.layer_map.student_layers}
        self.teacher_forward_kwargs = {"output_hidden_states": self.layer_map.teacher_layers}

        if student.hidden_size == teacher.hidden_size:
            return
        if not self.args.project_hidden:
            raise ValueError(
                f"The student's hidden size is {student.hidden_size} and the teacher's {teacher.hidden_size}: "
                "Patient-KD compares their states one to one. Set project_hidden=True to learn a linear map between "
                "them, or use a student of the teacher's hidden size."
            )
        if "projection" not in self.extra_modules:
            self.extra_modules["projection"] = linear_projection(
                student.hidden_size, teacher.hidden_size, student.initializer_range
            )

    @property
    def needs_teacher(self) -> bool:
        return super().needs_teacher or self.args.beta > 0

    def teacher_forward(self, inputs: dict[str, Tensor]) -> PatientTeacherOutput:
        """The teacher's logits (B, C) and, unless beta is 0, the [CLS] states (B, L, H) of the map's layers."""
        outputs = super().teacher_forward(inputs)
        states = _cls_states(outputs, self.layer_map.teacher_layers) if self.args.beta > 0 else None
        return PatientTeacherOutput(logits=logits_of(outputs, "teacher"), cls_states=states)

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """The parts of the base class and "patience_loss", beta times the patient loss."""
        parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
        if self.args.beta == 0:
            return parts

        student_cls = _cls_states(student_outputs, self.layer_map.student_layers)
        if "projection" in self.extra_modules:
            student_cls = self.extra_modules["projection"](student_cls)

        patience = losses.patient_loss(
            student_cls,
            teacher_outputs.cls_states,
            normalize=self.args.normalize_patience,
            reduction="mean" if self.args.reductions == "code" else "batchmean",
        )
        parts["patience_loss"] = self.args.beta * patience
        return parts

    def kd_loss(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The soft term: the paper's cross entropy under `reductions="paper"`, otherwise that of the base class."""
        if self.args.reductions == "paper" and not self._is_regression:
            check_logits(student_logits, self.model.config)
            return losses.soft_cross_entropy(student_logits, teacher_logits, self.args.temperature)
        return super().kd_loss(student_logits, teacher_logits)


def _cls_states(outputs: Any, layers: list[int]) -> Tensor:
    """States of the first token after these layers, (B, L, H)."""
    return torch.stack([outputs.hidden_states[layer][:, 0] for layer in layers], dim=1)
