"""Trains TinyBERT, one stage at a time."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers.utils import ModelOutput

from bertkd import losses
from bertkd.atomic import atomic_path
from bertkd.distillation.checks import check_layers_can_be_read
from bertkd.distillation.extra_modules import EXTRA_FILE, linear_projection
from bertkd.distillation.steps import model_inside
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.layer_map import LayerMap
from bertkd.models import CapturedScores, attention_scores, layer_sizes
from bertkd.tinybert.config import TinyBertKDConfig

__all__ = ["TinyBertKDTrainer"]


@dataclass
class TinyBertTeacherOutput(ModelOutput):
    """The teacher's hidden states (B, T, H) at the map's levels, and the attention scores that were captured."""

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
        ValueError: what `DistillationTrainer` refuses, and a map that does not fit both models, different numbers of
            heads with the attention loss on, different hidden sizes without a projection, a projection of another
            shape, or an unsupported family.
    """

    args: TinyBertKDConfig
    config_class = TinyBertKDConfig
    soft_loss = staticmethod(losses.soft_cross_entropy)
    # "shared", or the levels that have a projection each; None without one.
    _projection_form: str | list[int] | None = None

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | os.PathLike | None = None,
        teacher_model: PreTrainedModel | str | os.PathLike | None = None,
        args: TinyBertKDConfig | None = None,
        **kwargs: Any,
    ) -> None:
        if args is not None and args.stage == "general":
            # Before any task there is no head.
            self.auto_model_class = AutoModel
        super().__init__(model=model, teacher_model=teacher_model, args=args, **kwargs)

    def _set_up_method(self) -> None:
        super()._set_up_method()
        # The student's scores, from the forward pass of one batch to the loss on it.
        self._captured: CapturedScores | None = None
        if not self.args.compares_states:
            self.student_forward_kwargs, self.teacher_forward_kwargs = {}, {}
            self._projection_form = None
            self._remove_extra_module("projection")
            return

        assert self.teacher_model is not None, "the base class has checked that there is a teacher"
        student, teacher = self.model.config, self.teacher_model.config
        self.layer_map = _layer_map(self.args.strategy, teacher.num_hidden_layers, student.num_hidden_layers)
        # Level 0 is the embeddings, which have no attention scores.
        self._layer_pairs = [pair for pair in self.layer_map.pairs if pair[0] > 0 and pair[1] > 0]
        self._check_map()

        self.student_forward_kwargs = {"output_hidden_states": self.layer_map.student_layers}
        self.teacher_forward_kwargs = {"output_hidden_states": self.layer_map.teacher_layers}
        if self.args.attention_weight > 0:
            check_layers_can_be_read(self.model, type(self).__name__)
            self._check_heads()
        self._add_projection(student.hidden_size, teacher.hidden_size)

    @property
    def compares_predictions(self) -> bool:
        return not self.args.compares_states

    def _check_map(self) -> None:
        """Refuse a map that leaves a part of the loss that has a weight without levels to compare."""
        student_levels = self.layer_map.student_layers
        needed = {
            "attention_weight": ("pair of layers", bool(self._layer_pairs)),
            "hidden_weight": ("layer of the student", max(student_levels) > 0),
            "embedding_weight": ("pair 0:0 of the embeddings", 0 in student_levels),
        }
        for name, (levels, has_levels) in needed.items():
            if getattr(self.args, name) > 0 and not has_levels:
                raise ValueError(
                    f"The map {self.layer_map} has no {levels}, so that {name} would count for nothing: add it, or "
                    f"set {name}=0."
                )

    def _check_heads(self) -> None:
        """Refuse matched layers whose attention scores cannot be compared head by head."""
        assert self.teacher_model is not None
        student_heads, teacher_heads = (
            layer_sizes(model_inside(self.model)).heads,
            layer_sizes(self.teacher_model).heads,
        )
        for student, teacher in self._layer_pairs:
            count, teacher_count = student_heads[student - 1], teacher_heads[teacher - 1]
            if count != teacher_count:
                raise ValueError(
                    f"Layer {student} of the student has {count} attention heads and layer {teacher} of the teacher "
                    f"{teacher_count}: scores are compared head by head. Give the student as many heads, or leave "
                    "this loss out with attention_weight=0."
                )

    # ---- the projection ----

    def _add_projection(self, student_size: int, teacher_size: int) -> None:
        if self.args.projection == "none":
            self._projection_form = None
            self._remove_extra_module("projection")
            if student_size != teacher_size:
                raise ValueError(
                    f"The student's hidden size is {student_size} and the teacher's {teacher_size}: their states need "
                    "a projection, shared or per_level."
                )
            return

        needed = "shared" if self.args.projection == "shared" else self.layer_map.student_layers
        if needed == self._projection_form:
            # The settings have changed, but not what a trained projection depends on.
            return

        std = self.model.config.initializer_range
        if self.args.projection == "shared":
            self.extra_modules["projection"] = linear_projection(student_size, teacher_size, std)
        else:
            levels = nn.ModuleDict()
            for level in self.layer_map.student_layers:
                levels[str(level)] = linear_projection(student_size, teacher_size, std)
            self.extra_modules["projection"] = levels
        self._projection_form = needed

        if self.args.projection_from is not None:
            self._load_projection(Path(self.args.projection_from))

    def _load_projection(self, path: Path) -> None:
        path = path / EXTRA_FILE if path.is_dir() else path
        if not path.is_file():
            raise ValueError(f"There is no projection in {path}: give the folder that save_projection wrote to.")

        stored = load_file(path)
        shapes, needed_shapes = _shapes(stored), _shapes(self.extra_modules.state_dict())
        if shapes != needed_shapes:
            raise ValueError(
                f"The projection in {path} does not fit: it has {shapes}, and this student and teacher need "
                f"{needed_shapes}."
            )
        self.extra_modules.load_state_dict(stored)

    def save_projection(self, folder: str | Path) -> Path | None:
        """Write the projection for the next stage and return its path; None where there is none.

        It is not part of the student.
        """
        if not len(self.extra_modules):
            return None

        path = Path(folder) / EXTRA_FILE
        state = {name: tensor.contiguous().cpu() for name, tensor in self.extra_modules.state_dict().items()}
        with atomic_path(path) as temporary:
            save_file(state, temporary)
        return path

    def _projected(self, hidden: Tensor, level: int) -> Tensor:
        """The student's states at a level, in the teacher's hidden size."""
        if "projection" not in self.extra_modules:
            return hidden

        projection = self.extra_modules["projection"]
        if isinstance(projection, nn.ModuleDict):
            projection = projection[str(level)]
        # An evaluation in half precision (bf16_full_eval) has the student in it, and the projection as it was.
        projected: Tensor = projection(hidden.to(next(projection.parameters()).dtype))
        return projected

    # ---- the loss ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
        """The teacher's outputs; in the first two stages its states and attention scores at the map's levels."""
        if not self.args.compares_states or self.args.attention_weight == 0:
            return super().teacher_forward(inputs)

        assert self.teacher_model is not None
        with attention_scores(self.teacher_model, [teacher - 1 for _, teacher in self._layer_pairs]) as captured:
            outputs = super().teacher_forward(inputs)
        return TinyBertTeacherOutput(hidden_states=outputs.hidden_states, captured=captured)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of the base class, while the student's attention scores are captured for `distillation_loss`."""
        if not self.args.compares_states or self.args.attention_weight == 0:
            return super().compute_loss(model, inputs, *args, **kwargs)

        with attention_scores(model_inside(model), [layer - 1 for layer, _ in self._layer_pairs]) as self._captured:
            try:
                return super().compute_loss(model, inputs, *args, **kwargs)
            finally:
                # It holds queries and keys, which would outlive the step.
                self._captured = None

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """attention_loss, hidden_loss and embedding_loss, unless their weight is 0; those of the base class in stage
        prediction."""
        if not self.args.compares_states:
            return super().distillation_loss(student_outputs, teacher_outputs, inputs)

        args, parts = self.args, dict[str, Tensor]()
        # How the losses average: over each row's tokens that are no padding, or over all.
        averaging: dict[str, Any] = {}
        if args.mask_padding:
            averaging = {"attention_mask": inputs.get("attention_mask"), "reduction": "rows"}

        if args.attention_weight > 0:
            student_scores, teacher_scores = self._captured, teacher_outputs.captured
            assert student_scores is not None
            _refuse_scores_without_gradient(student_scores, student_outputs)
            has_factors = not (student_scores.have_position_biases or teacher_scores.have_position_biases)
            if args.mask_padding and has_factors:
                loss = losses.attention_factor_loss(student_scores.factors, teacher_scores.factors, **averaging)
            else:
                # The released code compares the scores of masked tokens, too.
                loss = losses.attention_score_loss(student_scores.scores, teacher_scores.scores, **averaging)
            parts["attention_loss"] = args.attention_weight * loss

        def states_loss(pairs: list[tuple[int, int]]) -> Tensor:
            student_states, teacher_states = [], []
            for student_level, teacher_level in pairs:
                states = student_outputs.hidden_states[student_level]
                student_states.append(self._projected(states, student_level))
                teacher_states.append(teacher_outputs.hidden_states[teacher_level])
            if args.relative_states:
                mean = losses.relative_hidden_loss(student_states, teacher_states, averaging.get("attention_mask"))
                return len(pairs) * mean
            return losses.hidden_state_loss(student_states, teacher_states, **averaging)

        layers = [pair for pair in self.layer_map.pairs if pair[0] > 0]
        embeddings = [pair for pair in self.layer_map.pairs if pair[0] == 0]
        if layers and args.hidden_weight > 0:
            parts["hidden_loss"] = args.hidden_weight * states_loss(layers)
        if embeddings and args.embedding_weight > 0:
            parts["embedding_loss"] = args.embedding_weight * states_loss(embeddings)
        return parts

    # ---- evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Evaluate the stage's own loss in the first two stages, which do not train pooler and head."""
        if not self.args.compares_states:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        return self._evaluate_loss(model, self._on_device(inputs))


def _refuse_scores_without_gradient(captured: CapturedScores, outputs: Any) -> None:
    """Raise ValueError where the scores of a layer have no gradient although something below it is trained, or where
    none of them have although something is."""
    # Of the states, only those that are compared are there.
    trained = [level for level, state in enumerate(outputs.hidden_states) if state is not None and state.requires_grad]
    left_out = captured.layers_without_gradient
    if trained and left_out and (min(trained) <= max(left_out) or left_out == captured.layers):
        raise ValueError(
            "The attention scores have no gradient: activation checkpointing with use_reentrant=True computes them "
            'without one. Use activation_checkpointing_kwargs={"use_reentrant": False}, or attention_weight=0.'
        )


def _shapes(state: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _layer_map(strategy: str, teacher_layers: int, student_layers: int) -> LayerMap:
    """The levels that a strategy matches for two models.

    Raises:
        ValueError: a map that does not fit; both layer counts are named.
    """
    if strategy == "uniform":
        return LayerMap.uniform(teacher_layers, student_layers)

    if strategy in ("top", "bottom"):
        shift = teacher_layers - student_layers if strategy == "top" else 0
        pairs = [(0, 0)]
        for level in range(1, student_layers + 1):
            pairs.append((level, level + shift))
        layer_map = LayerMap(tuple(pairs))
    else:
        layer_map = LayerMap.parse(strategy)

    layer_map.check(teacher_layers, student_layers)
    return layer_map
