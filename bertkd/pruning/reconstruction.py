"""Fits the output projections of a pruned model, so that it computes what the whole model does."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bertkd.distillation.checks import check_same_shape
from bertkd.models import family_of, label_names, label_permutation
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.evaluated import evaluated
from bertkd.models.labels import unnamed
from bertkd.models.sizes import refuse_factorized_or_shared
from bertkd.pruning.fitting import Moments, fit_channels, token_weights
from bertkd.pruning.network import (
    Rows,
    SubLayer,
    as_batches,
    counted_tokens,
    divergence,
    embeddings_norm,
    refuse_other_heads,
    sub_layers,
)

__all__ = ["RIDGES", "check_made_of", "divided", "reconstruct"]

RIDGES = (1e-3, 1e-1)
# Of all rows, those that choose among the fits; a fit is never judged by its own rows.
CHOOSING_SHARE, MOST_CHOOSING_ROWS = 1 / 4, 512


def divided(batches: Sequence[dict[str, Tensor]]) -> tuple[list[dict[str, Tensor]], list[dict[str, Tensor]]]:
    """Divides batches into those that maps are fitted on, and those that choose among the fits.

    Raises:
        ValueError: there are too few rows for both.
    """
    total = sum(len(batch["input_ids"]) for batch in batches)
    choosing: list[dict[str, Tensor]] = []
    chosen = 0
    for batch in batches:
        if chosen >= min(MOST_CHOOSING_ROWS, CHOOSING_SHARE * total):
            break
        choosing.append(batch)
        chosen += len(batch["input_ids"])

    fitting = list(batches[len(choosing) :])
    if not fitting:
        counted = f"{total} calibration row{'s' if total != 1 else ''}"
        raise ValueError(
            f"There are too few calibration rows, {counted} in a single batch: give two batches at least, since a fit "
            "is not judged by its own rows."
        )
    return fitting, choosing


def reconstruct(
    pruned: PreTrainedModel,
    teacher: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    ridges: Sequence[float] = RIDGES,
    progress: bool = False,
) -> PreTrainedModel:
    """Fit the output projection of each sub-layer of a pruned model to the teacher's, in place, from front to back.

    In the model as it is by then, with the activations a of a sub-layer and its residual input x, and with the sum s
    that goes into the same norm of the teacher for the same tokens, the new projection minimises

    `sum over tokens t of w_t ||W a_t + b - (s_t - x_t)||² + ridge · g · ||W - W_before||²`, w_t = 1 / variance of s_t

    (see `Moments.fit`). The goal holds the teacher's residual, so that a fit also makes up for what went before.
    Where a sub-layer is missing, gain and bias of the norm before it are fitted to the output of the teacher's norm.
    The fits of all `ridges`, and the weights as they were, are compared by the predictions on rows that no fit has
    seen, and the best stays. The idea is that of K-prune (arXiv 2308.03449) and Kwon et al. (arXiv 2204.09656).

    Args:
        pruned: a model as deep as the teacher, with at most its units in each layer.
        teacher: the model before pruning.
        batches: dicts of tensors; labels are ignored. The first quarter, at most 512 rows, chooses among the fits.
        ridges: strengths to be tried, each above 0.
        progress: whether a progress bar is shown.

    Returns:
        `pruned`.

    Raises:
        ValueError: a ridge that is not above 0, models of different family, labels, depth or hidden size, another
            model than a sequence classifier, a supernet, factorized or shared layers, predictions that are not finite,
            or fewer batches than two.
    """
    if any(not 0 < ridge < float("inf") for ridge in ridges):
        raise ValueError(
            f"ridges must be above 0, not {', '.join(map(str, ridges))}: without one, a fit learns its rows by heart."
        )
    check_made_of(pruned, teacher)
    fitting, choosing = divided(as_batches(batches, pruned))
    with evaluated(pruned, teacher), torch.no_grad():
        _Reconstruction(pruned, teacher, fitting, choosing, ridges).run(progress)
    return pruned


def check_made_of(pruned: PreTrainedModel, teacher: PreTrainedModel, caller: str = "reconstruct") -> None:
    """Refuses a model that cannot have been pruned out of another one.

    Args:
        pruned: the model that was pruned.
        teacher: the model that it was made of.
        caller: the name of the function that compares them, for the message.

    Raises:
        ValueError: see `reconstruct`.
    """
    for model in (pruned, teacher):
        refuse_supernet(model, caller)
        refuse_other_heads(model, caller)
        refuse_factorized_or_shared(model, caller)
    ours, theirs = pruned.config.num_labels, teacher.config.num_labels
    if family_of(pruned) != family_of(teacher) or ours != theirs:
        raise ValueError(
            f"The pruned model is of type {pruned.config.model_type} with {ours} labels, and the teacher of type "
            f"{teacher.config.model_type} with {theirs}: {caller} needs the model that was pruned."
        )
    names, names_of_teacher = label_names(pruned.config), label_names(teacher.config)
    are_named = not (unnamed(names) or unnamed(names_of_teacher))
    advice = "set config.id2label of both to what their logits mean"
    if are_named and label_permutation(names, names_of_teacher, wanted_by="the pruned model", advice=advice):
        raise ValueError(
            f"The labels of the pruned model are {', '.join(names)}, and those of the teacher "
            f"{', '.join(names_of_teacher)}: {caller} compares their predictions one by one. Give the teacher with "
            "the student's order."
        )
    check_same_shape(
        pruned.config,
        teacher.config,
        reason=f"{caller} compares them layer by layer, so that a layer that is left out has to be skipped, not "
        "removed.",
        student_called="pruned model",
    )
    if pruned.device != teacher.device:
        raise ValueError(
            f"The pruned model is on {pruned.device} and the teacher on {teacher.device}: put both on one device."
        )


class _Reconstruction:
    """One walk through both models."""

    def __init__(
        self,
        pruned: PreTrainedModel,
        teacher: PreTrainedModel,
        fitting: Sequence[Mapping[str, Tensor]],
        choosing: Sequence[Mapping[str, Tensor]],
        ridges: Sequence[float],
    ) -> None:
        self.pruned, self.teacher, self.ridges = pruned, teacher, ridges
        self.of_teacher, self.of_pruned = Rows(teacher, fitting), Rows(pruned, fitting)
        self.chosen_by = Rows(pruned, choosing)
        self.expected = Rows(teacher, choosing).outputs()
        for logits, whose in ((self.expected, "teacher"), (self.chosen_by.outputs(), "pruned model")):
            if not logits.isfinite().all():
                raise ValueError(
                    f"The {whose}'s predictions on the calibration rows are not finite: its weights are damaged, or "
                    "they overflow. Compute in float32."
                )
        self.norm_before: nn.LayerNorm | None = embeddings_norm(pruned)

    def run(self, progress: bool) -> None:
        parts, parts_of_teacher = sub_layers(self.pruned), sub_layers(self.teacher)
        for first in tqdm(range(0, len(parts), 2), desc="Reconstruction", unit="layer", disable=not progress):
            wholes = parts_of_teacher[first : first + 2]
            is_first_in_layer = True
            for sub_layer, whole, goals in zip(parts[first : first + 2], wholes, self._sums(wholes), strict=True):
                if sub_layer.projection is not None:
                    if goals:
                        self._fit_projection(sub_layer, goals)
                    self.norm_before = sub_layer.norm
                    is_first_in_layer = False
                elif whole.norm is not None and self.norm_before is not None:
                    self._fit_norm(whole.norm, goals, sub_layer.layer, goes_in=is_first_in_layer)
                # They take as much memory as the states of all rows.
                goals.clear()

            for rows in (self.of_teacher, self.of_pruned, self.chosen_by):
                rows.advance()

    def _sums(self, wholes: Sequence[SubLayer]) -> list[list[Tensor]]:
        """What goes into the norm of each of the teacher's sub-layers, (B, T, H) by batch; none where it lacks one."""
        sums: list[list[Tensor]] = [[] for _ in wholes]
        of_norms = [found for found, whole in zip(sums, wholes, strict=True) if whole.norm is not None]
        norms = [whole.norm for whole in wholes if whole.norm is not None]
        for _, values in self.of_teacher.run_layer(*norms):
            for found, value in zip(of_norms, values, strict=True):
                found.append(value)
        return sums

    def _divergence(self) -> float:
        return divergence(self.expected, self.chosen_by.outputs())

    # ---- a sub-layer that is there ----

    def _fit_projection(self, sub_layer: SubLayer, goals: list[Tensor]) -> None:
        """Fits the output projection of a sub-layer, or leaves it where no fit predicts better."""
        projection, norm = sub_layer.projection, sub_layer.norm
        assert projection is not None and norm is not None
        moments = Moments(projection.in_features, projection.out_features, projection.weight.device)

        for index, (inputs, sums) in self.of_pruned.run_layer(projection, norm):
            counted = counted_tokens(self.pruned, sub_layer.layer, self.of_pruned.batches[index])
            weights = token_weights(goals[index], counted)
            moments.add(inputs, weights, goals[index] - (sums - projection(inputs)))

        columns = torch.arange(projection.in_features, device=projection.weight.device)
        before = projection.weight.data.clone(), projection.bias.data.clone()
        fits = [before]
        for ridge in self.ridges:
            weight, bias = moments.fit(columns, before[0], ridge)
            fits.append((weight.to(before[0].dtype), bias.to(before[1].dtype)))
        _keep_best(projection, fits, self._divergence)

    # ---- a sub-layer that is missing ----

    def _fit_norm(self, whole_norm: nn.LayerNorm, goals: list[Tensor], layer: int, goes_in: bool) -> None:
        """Fits gain and bias of the norm before a missing sub-layer, so that it gives what that one's norm gave.

        Args:
            whole_norm: the teacher's norm after the sub-layer.
            goals: what goes into it, by batch.
            layer: the layer of the sub-layer.
            goes_in: whether the norm lies before the layer, so that its output is what goes into it.
        """
        norm = self.norm_before
        assert norm is not None
        outputs = self.of_pruned.states if goes_in else self.of_pruned.layer_outputs()
        counted = [counted_tokens(self.pruned, layer, batch) for batch in self.of_pruned.batches]
        pairs = zip(outputs, goals, counted, strict=True)
        gain, shift = fit_channels((output[real], whole_norm(goal)[real]) for output, goal, real in pairs)

        before = norm.weight.data.clone(), norm.bias.data.clone()
        states_before = list(self.chosen_by.states)
        best = self._divergence()
        norm.weight.data, norm.bias.data = before[0] * gain, before[1] * gain + shift
        if goes_in:
            self.chosen_by.states = [states * gain + shift for states in states_before]

        if self._divergence() < best:
            if goes_in:
                self.of_pruned.states = [states * gain + shift for states in self.of_pruned.states]
        else:
            norm.weight.data, norm.bias.data = before
            self.chosen_by.states = states_before


def _keep_best(projection: nn.Linear, fits, measure) -> None:  # type: ignore[no-untyped-def]
    """Leaves the weight and bias of a projection for which a measure is least; of equals, the first."""
    measured = []
    for weight, bias in fits:
        projection.weight.data, projection.bias.data = weight, bias
        value = measure()
        measured.append(value if value == value else float("inf"))
    projection.weight.data, projection.bias.data = fits[measured.index(min(measured))]
