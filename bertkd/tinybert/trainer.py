"""TinyBERT's stages as a trainer."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from bertkd import losses
from bertkd.distillation.extra_modules import linear_projection
from bertkd.distillation.trainer import EXTRA_FILE, DistillationTrainer
from bertkd.layer_map import LayerMap
from bertkd.models import CapturedScores, attention_scores, layer_sizes
from bertkd.tinybert.config import TinyBertKDConfig

__all__ = ["TinyBertKDTrainer"]


@dataclass
class TinyBertTeacherOutput(ModelOutput):
    """Of the teacher, at the map's levels: hidden states (B, T, H), and the attention scores that were captured."""

    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    captured: CapturedScores | None = None


class TinyBertKDTrainer(DistillationTrainer):
    """TinyBERT (Jiao et al., arXiv 1909.10351): attention scores, hidden states and embeddings, then predictions.

    `TinyBertKDConfig` has the stages and their losses. The levels are matched by `self.layer_map`: "uniform" (the
    default, g(m) = m·N/M), "top" (g(m) = m + N - M), "bottom" (g(m) = m), each with the embeddings 0:0, or an explicit
    one. The student's states pass through a learned linear map, `self.extra_modules["projection"]`, which is trained
    and saved in checkpoints and is not part of the student that leaves; `save_projection` keeps it for the next stage
    (`args.projection_from`). In the first two stages pooler and head get no gradient, so that a task's metric is at
    chance: `evaluate` gives the stage's own loss on the evaluation rows.

    Args:
        model: the student, of any depth and hidden size.
        teacher_model: the teacher; in eval mode, unlike in the released code.
        args: a `TinyBertKDConfig`.

    Raises:
        ValueError: as `DistillationTrainer`; also a map that does not fit both models, different numbers of heads with
            the attention loss on, different hidden sizes without a projection, a projection of another shape, or an
            unsupported family.
    """

    args: TinyBertKDConfig
    config_class = TinyBertKDConfig
    soft_loss = staticmethod(losses.soft_cross_entropy)

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | os.PathLike | None = None,
        teacher_model: PreTrainedModel | str | os.PathLike | None = None,
        args: TinyBertKDConfig | None = None,
        **kwargs: Any,
    ) -> None:
        if args is not None and args.stage == "general":
            self.auto_model_class = AutoModel  # before any task there is no head
        super().__init__(model=model, teacher_model=teacher_model, args=args, **kwargs)
        if not self.args.compares_states:
            return
        assert self.teacher_model is not None  # the base has checked it
        student, teacher = self.model.config, self.teacher_model.config
        self.layer_map = _layer_map(self.args.strategy, teacher.num_hidden_layers, student.num_hidden_layers)
        self._pairs = [pair for pair in self.layer_map.pairs if pair[0] > 0 and pair[1] > 0]
        self._check_map()
        self.student_forward_kwargs = {"output_hidden_states": self.layer_map.student_layers}
        self.teacher_forward_kwargs = {"output_hidden_states": self.layer_map.teacher_layers}
        self._captured: CapturedScores | None = None
        if self.args.attention_weight > 0:
            self._check_heads()
        self._add_projection(student.hidden_size, teacher.hidden_size)

    @property
    def compares_predictions(self) -> bool:
        return not self.args.compares_states

    def _check_map(self) -> None:
        """Each part of the loss that has a weight needs levels to compare."""
        has_embeddings = any(level == 0 for level, _ in self.layer_map.pairs)
        has_layers = any(level > 0 for level, _ in self.layer_map.pairs)
        for name, levels, there_are in (
            ("attention_weight", "pair of layers", bool(self._pairs)),
            ("hidden_weight", "layer of the student", has_layers),
            ("embedding_weight", "pair 0:0 of the embeddings", has_embeddings),
        ):
            if getattr(self.args, name) > 0 and not there_are:
                raise ValueError(
                    f"The map {self.layer_map} has no {levels}, so that {name} would count for nothing: add it, or "
                    f"set {name}=0."
                )

    def _check_heads(self) -> None:
        assert self.teacher_model is not None
        ours, theirs = layer_sizes(self.model).heads, layer_sizes(self.teacher_model).heads
        for student, teacher in self._pairs:
            if ours[student - 1] != theirs[teacher - 1]:
                raise ValueError(
                    f"Layer {student} of the student has {ours[student - 1]} attention heads and layer {teacher} of "
                    f"the teacher {theirs[teacher - 1]}: scores are compared head by head. Give the student as many "
                    "heads, or leave this loss out with attention_weight=0."
                )

    # ---- the projection ----

    def _add_projection(self, student_size: int, teacher_size: int) -> None:
        if self.args.projection == "none":
            if student_size != teacher_size:
                raise ValueError(
                    f"The student's hidden size is {student_size} and the teacher's {teacher_size}: their states need "
                    "a projection, shared or per_level."
                )
            return

        def linear() -> nn.Linear:
            return linear_projection(student_size, teacher_size, self.model.config.initializer_range)

        if self.args.projection == "shared":
            self.extra_modules["projection"] = linear()
        else:
            levels = {str(level): linear() for level in self.layer_map.student_layers}
            self.extra_modules["projection"] = nn.ModuleDict(levels)
        if self.args.projection_from is not None:
            self._load_projection(Path(self.args.projection_from))

    def _load_projection(self, path: Path) -> None:
        path = path / EXTRA_FILE if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"There is no projection in {path}: give the folder that save_projection wrote to.")
        given, wanted = load_file(path), self.extra_modules.state_dict()
        shapes = {name: tuple(tensor.shape) for name, tensor in given.items()}
        if shapes != (own := {name: tuple(tensor.shape) for name, tensor in wanted.items()}):
            raise ValueError(
                f"The projection in {path} does not fit: it has {shapes}, and this student and teacher need {own}."
            )
        self.extra_modules.load_state_dict(given)

    def save_projection(self, folder: str | Path) -> Path | None:
        """Write the projection for the next stage; None where there is none. It is not part of the student."""
        if not len(self.extra_modules):
            return None
        path = Path(folder) / EXTRA_FILE
        path.parent.mkdir(parents=True, exist_ok=True)
        state = self.extra_modules.state_dict()
        save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, path)
        return path

    def _projected(self, hidden: Tensor, level: int) -> Tensor:
        if "projection" not in self.extra_modules:
            return hidden
        projection = self.extra_modules["projection"]
        projected: Tensor = (projection[str(level)] if isinstance(projection, nn.ModuleDict) else projection)(hidden)
        return projected

    # ---- the loss ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
        """In stage prediction the teacher's outputs, else at the map's levels its states and what gives its scores."""
        if not self.args.compares_states:
            return super().teacher_forward(inputs)
        assert self.teacher_model is not None
        if self.args.attention_weight == 0:
            return super().teacher_forward(inputs)
        with attention_scores(self.teacher_model, [teacher - 1 for _, teacher in self._pairs]) as captured:
            outputs = super().teacher_forward(inputs)
        return TinyBertTeacherOutput(hidden_states=outputs.hidden_states, captured=captured)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the base, with the student's scores at hand."""
        if not self.args.compares_states or self.args.attention_weight == 0:
            return super().compute_loss(model, inputs, *args, **kwargs)
        student = self.accelerator.unwrap_model(model, keep_torch_compile=False)
        with attention_scores(student, [layer - 1 for layer, _ in self._pairs]) as self._captured:
            try:
                return super().compute_loss(model, inputs, *args, **kwargs)
            finally:
                self._captured = None  # it holds queries and keys, which would outlive the step

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """attention_loss, hidden_loss and embedding_loss, unless their weight is 0; in stage prediction the base's."""
        if not self.args.compares_states:
            return super().distillation_loss(student_outputs, teacher_outputs, inputs)
        args, parts = self.args, dict[str, Tensor]()
        counted: dict[str, Any] = {}
        if args.mask_padding:
            counted = {"attention_mask": inputs.get("attention_mask"), "reduction": "rows"}
        if args.attention_weight > 0:
            parts["attention_loss"] = args.attention_weight * self._attention_loss(teacher_outputs.captured, counted)
        layers = [pair for pair in self.layer_map.pairs if pair[0] > 0]
        embeddings = [pair for pair in self.layer_map.pairs if pair[0] == 0]
        for name, pairs, weight in (
            ("hidden_loss", layers, args.hidden_weight),
            ("embedding_loss", embeddings, args.embedding_weight),
        ):
            if pairs and weight > 0:
                ours = [self._projected(student_outputs.hidden_states[level], level) for level, _ in pairs]
                theirs = [teacher_outputs.hidden_states[level] for _, level in pairs]
                parts[name] = weight * losses.hidden_state_loss(ours, theirs, **counted)
        return parts

    def _attention_loss(self, teacher: CapturedScores, counted: dict[str, Any]) -> Tensor:
        assert self._captured is not None
        if not counted:  # as the released code, which compares masked scores too
            return losses.attention_score_loss(self._captured.scores, teacher.scores)
        return losses.attention_factor_loss(self._captured.factors, teacher.factors, **counted)

    # ---- evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """In the first two stages the loss is the stage's own: pooler and head are not trained, and say nothing."""
        if not self.args.compares_states:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return self._evaluate_loss(model, self._on_device(inputs))


def _layer_map(strategy: str, teacher_layers: int, student_layers: int) -> LayerMap:
    """The levels that a strategy matches for two models.

    Raises:
        ValueError: a map that does not fit; both layer counts are named.
    """
    if strategy == "uniform":
        return LayerMap.uniform(teacher_layers, student_layers)
    if strategy in ("top", "bottom"):
        start = teacher_layers - student_layers if strategy == "top" else 0
        pairs = ((level, level + start) for level in range(1, student_layers + 1))
        layer_map = LayerMap(((0, 0), *pairs))
    else:
        layer_map = LayerMap.parse(strategy)
    layer_map.check(teacher_layers, student_layers)
    return layer_map
