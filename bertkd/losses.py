"""Every distillation loss, as a pure function on tensors.

The original implementations differ most in their *reductions*, which changes a loss by factors of up to the hidden
size; each docstring therefore writes the reduction out. All losses are computed in float32 with autocast switched
off: CPU autocast would keep softmax and normalization in bfloat16, and half precision overflows on a squared error.
Gradients flow into the student's tensors only as far as the caller lets them: teacher tensors are not detached here.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "attention_factor_loss",
    "attention_score_loss",
    "cosine_loss",
    "hidden_state_loss",
    "kd_kl",
    "logits_mse",
    "patient_loss",
    "relative_hidden_loss",
    "soft_cross_entropy",
]

P = ParamSpec("P")


def _in_float32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Runs `loss` with its tensors in float32 and autocast switched off, on whatever device they are."""

    def as_float32(value: object) -> object:
        return value.float() if isinstance(value, Tensor) and value.is_floating_point() else value

    @wraps(loss)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        if not tensors:
            raise ValueError(f"{loss.__name__.strip('_')} compares tensors, and was given none: use torch.tensor.")
        with torch.autocast(tensors[0].device.type, enabled=False):
            converted = {name: as_float32(value) for name, value in kwargs.items()}
            return loss(*map(as_float32, args), **converted)  # type: ignore[arg-type]

    return wrapper


def _check_same_shape(student: Tensor, teacher: Tensor, what: str) -> None:
    for side, tensor in (("student", student), ("teacher", teacher)):
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{what}: the {side}'s side is no tensor but a {type(tensor).__name__}.")
        if not tensor.is_floating_point():
            raise ValueError(
                f"{what}: the {side}'s tensor is of type {tensor.dtype}; logits and states are floating-point numbers."
            )

    # A broadcast would silently give a plausible number.
    if student.shape != teacher.shape:
        raise ValueError(
            f"{what}: the student's tensor has shape {tuple(student.shape)} and the teacher's "
            f"{tuple(teacher.shape)}; they must be equal."
        )
    if student.dim() == 0 or student.numel() == 0:
        raise ValueError(f"{what}: tensors of shape {tuple(student.shape)} have no rows, over which there is no mean.")


def _check_mask(mask: Tensor | None, shape: torch.Size, what: str) -> None:
    # Here, too, a broadcast would give a plausible number.
    if mask is not None and mask.shape != shape:
        raise ValueError(
            f"{what}: attention_mask has shape {tuple(mask.shape)} and the tokens {tuple(shape)}; give 1 for each "
            "real token and 0 for padding."
        )


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < float("inf"):
        raise ValueError(f"temperature must be a finite number greater than 0, not {temperature}.")


def _reduce_classes(elements: Tensor, reduction: str) -> Tensor:
    """Sum over classes, then the mean over rows ("batchmean"); or the mean over both ("mean")."""
    if reduction == "batchmean":
        return elements.sum(dim=-1).mean()
    if reduction == "mean":
        # Written out instead of F.kl_div(..., reduction="mean"), whose meaning torch has announced to change.
        return elements.mean()
    raise ValueError(f'reduction must be "batchmean" or "mean", not {reduction!r}.')


@_in_float32
def soft_cross_entropy(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, reduction: str = "batchmean"
) -> Tensor:
    """Cross entropy between softened distributions: `- sum_c p_t(c) log p_s(c)`, both at `temperature`.

    No T² factor. This is Patient-KD's L_DS (arXiv 1908.09355, eq. 3) averaged instead of summed over rows, and
    TinyBERT's prediction loss (arXiv 1909.10351, eq. 10). Its gradient is that of the KL divergence.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: divides both logits; greater than 0.
        reduction: "batchmean" sums over the C classes and averages over all other dimensions; "mean" averages over
            classes as well, i.e. divides by C once more (TinyBERT's released code).

    Returns:
        A scalar.

    Raises:
        ValueError: shapes differ, there are no rows, `temperature` is not positive, or `reduction` is unknown.
    """
    _check_same_shape(student_logits, teacher_logits, "soft_cross_entropy")
    _check_temperature(temperature)
    teacher = F.softmax(teacher_logits / temperature, dim=-1)
    student = F.log_softmax(student_logits / temperature, dim=-1)
    return _reduce_classes(-teacher * student, reduction)


@_in_float32
def kd_kl(
    student_logits: Tensor, teacher_logits: Tensor, temperature: float = 1.0, reduction: str = "batchmean"
) -> Tensor:
    """Hinton's distillation loss: `T² · KL(p_t || p_s)`, both distributions at `temperature` (arXiv 1503.02531).

    T² keeps the gradient's size when T changes.

    Args:
        student_logits: (..., C).
        teacher_logits: (..., C).
        temperature: T, divides both logits; greater than 0.
        reduction: "batchmean" sums over the C classes and averages over rows (DistilBERT, and the usual recipe);
            "mean" divides by rows *and* classes (the Patient-KD authors' code): exactly `batchmean / C`.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes differ, there are no rows, `temperature` is not positive, or `reduction` is unknown.
    """
    _check_same_shape(student_logits, teacher_logits, "kd_kl")
    _check_temperature(temperature)
    teacher = F.log_softmax(teacher_logits / temperature, dim=-1)
    student = F.log_softmax(student_logits / temperature, dim=-1)
    return _reduce_classes(teacher.exp() * (teacher - student), reduction) * temperature**2


@_in_float32
def logits_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Mean squared error over all elements: how a regression task (one logit, STS-B) is distilled.

    A softmax over one logit is constant, so its KL has no gradient; neither original supports regression.

    Args:
        student_logits: any shape.
        teacher_logits: the same shape.

    Raises:
        ValueError: shapes differ.
    """
    _check_same_shape(student_logits, teacher_logits, "logits_mse")
    return F.mse_loss(student_logits, teacher_logits)


@_in_float32
def patient_loss(student_cls: Tensor, teacher_cls: Tensor, normalize: bool = True, reduction: str = "mean") -> Tensor:
    """Patient-KD's loss between [CLS] states of matched layers (arXiv 1908.09355, eq. 5).

    With `d = h_s/||h_s||₂ - h_t/||h_t||₂` (or the plain difference when `normalize` is False):

    - reduction "mean": `mean over rows, layers and dimensions of d²`, the authors' code. It is the paper's squared
      distance, averaged over layers, divided by H: their β of 100 weights a squared distance by 100 / 768.
    - reduction "batchmean": `mean over rows of the sum over layers and dimensions of d²`, the paper's formula with
      its sum over rows replaced by the mean.

    The authors also cast the result to half precision, which overflows; that is not repeated here.

    Args:
        student_cls: (B, L, H), L matched layers.
        teacher_cls: (B, L, H).
        normalize: divide each vector by its length first, as the paper; the authors' best settings on the large
            tasks do not.
        reduction: "mean" or "batchmean".

    Returns:
        A scalar.

    Raises:
        ValueError: not three dimensions, shapes differ, or `reduction` is unknown.
    """
    if student_cls.dim() != 3:
        raise ValueError(
            f"patient_loss expects (batch, layers, hidden), not a tensor of {student_cls.dim()} dimensions."
        )
    _check_same_shape(student_cls, teacher_cls, "patient_loss")
    if normalize:
        student_cls, teacher_cls = F.normalize(student_cls, dim=-1), F.normalize(teacher_cls, dim=-1)
    squared = (student_cls - teacher_cls).square()
    return _reduce_classes(squared.flatten(1), reduction)


@_in_float32
def cosine_loss(student_hidden: Tensor, teacher_hidden: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Mean over tokens of `1 - cos(h_s, h_t)`: DistilBERT's L_cos (arXiv 1910.01108, section 2).

    Args:
        student_hidden: (..., H), usually the last hidden states (B, T, H).
        teacher_hidden: the same shape.
        attention_mask: (...), 1 for real tokens; padding is then left out.

    Returns:
        A scalar.

    Raises:
        ValueError: shapes differ.
    """
    _check_same_shape(student_hidden, teacher_hidden, "cosine_loss")
    _check_mask(attention_mask, student_hidden.shape[:-1], "cosine_loss")
    distance = 1 - F.cosine_similarity(student_hidden, teacher_hidden, dim=-1)
    weights = torch.ones_like(distance) if attention_mask is None else attention_mask.to(distance.dtype)
    return (distance * weights).sum() / weights.sum()


def hidden_state_loss(
    student_hidden: Sequence[Tensor],
    teacher_hidden: Sequence[Tensor],
    attention_mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared error between the hidden states of matched levels, summed over levels.

    TinyBERT's L_hidn and L_embd (arXiv 1909.10351, eq. 8 and 9) and DynaBERT's feature loss (arXiv 2004.04037, eq. 3).
    The authors' codes count padding like any token, so that their numbers depend on how long a batch is padded.

    Args:
        student_hidden: levels of (B, T, H); where the sizes differ, project them first.
        teacher_hidden: as many levels of the same shapes.
        attention_mask: (B, T), 1 for real tokens; padding is then left out.
        reduction: "mean" averages a level over the elements of all (real) tokens. "rows" averages over each row's
            tokens first and then over rows, so that the loss of a batch is the mean of its parts' losses.

    Returns:
        A scalar.

    Raises:
        ValueError: no level, different numbers of levels or shapes, a mask of another shape, or an unknown reduction.
    """
    _check_levels(student_hidden, teacher_hidden, reduction, "hidden_state_loss")
    levels = zip(student_hidden, teacher_hidden, strict=True)
    return torch.stack([_hidden_level(*level, attention_mask, reduction) for level in levels]).sum()


def relative_hidden_loss(
    student_hidden: Sequence[Tensor], teacher_hidden: Sequence[Tensor], attention_mask: Tensor | None = None
) -> Tensor:
    """Squared error between hidden states relative to the variance of the teacher's, a mean over levels and rows.

    For each level and row, with the sums over the row's real tokens and over dimensions:

    `sum (h_s - h_t)² / sum (h_t - mean of h_t)²`

    0 for equal states, 1 for those of a student that always gives the mean. Levels of any scale weigh alike. Each row
    counts on its own, so that the loss of a batch is the mean of its parts' losses.

    Args:
        student_hidden: levels of (B, T, H).
        teacher_hidden: as many levels of the same shapes.
        attention_mask: (B, T), 1 for real tokens; padding is then left out.

    Returns:
        A scalar.

    Raises:
        ValueError: no level, different numbers of levels or shapes, or a mask of another shape.
    """
    _check_levels(student_hidden, teacher_hidden, "rows", "relative_hidden_loss")
    levels = zip(student_hidden, teacher_hidden, strict=True)
    return torch.stack([_relative_level(*level, attention_mask) for level in levels]).mean()


def attention_score_loss(
    student_scores: Sequence[Tensor],
    teacher_scores: Sequence[Tensor],
    attention_mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """Mean squared error between the attention scores of matched layers, summed over layers.

    TinyBERT's L_attn (arXiv 1909.10351, eq. 7) on scores before the softmax. As in its authors' code a score of -100
    or less, which is what a masked key has, counts as 0 on both sides; without `attention_mask` these zeros and the
    rows of padded queries are part of the average, so that the number depends on how long a batch is padded.

    Args:
        student_scores: layers of (B, heads, T, T), mask added, as `bertkd.models.attention_scores` gives them.
        teacher_scores: as many layers of the same shapes.
        attention_mask: (B, T), 1 for real tokens; only pairs of real tokens are then compared.
        reduction: "mean" averages a layer over heads and all (real) pairs of tokens. "rows" averages over each row's
            pairs first and then over rows, so that the loss of a batch is the mean of its parts' losses.

    Returns:
        A scalar.

    Raises:
        ValueError: no layer, different numbers of layers or shapes (of heads, in particular), or an unknown reduction.
    """
    _check_levels(student_scores, teacher_scores, reduction, "attention_score_loss")
    levels = zip(student_scores, teacher_scores, strict=True)
    return torch.stack([_attention_level(*level, attention_mask, reduction) for level in levels]).sum()


def attention_factor_loss(
    student_factors: Sequence[tuple[Tensor, Tensor]],
    teacher_factors: Sequence[tuple[Tensor, Tensor]],
    attention_mask: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of `attention_score_loss`, from the factors of the scores, without a (T, T) tensor where T is large.

    A head's scores are a product `Q @ K.mT`, and so is the difference of student and teacher, `A @ B.mT` with both
    queries side by side in A and both keys, the teacher's negated, in B. The sum of its squares is that of the
    products of `A.mT @ A` and `B.mT @ B`, which are as small as the heads of both models together. Rounding differs:
    the number is right to some 1e-7 of the scores' own mean square, so that models that agree better than that may
    give a loss just below 0. No score counts as 0 because it is -100 or less: `attention_mask` leaves out what is
    masked.

    Args:
        student_factors: layers of (Q, K), each (B, heads, T, d), Q divided by sqrt(d), as the `factors` of
            `bertkd.models.attention_scores`.
        teacher_factors: as many layers; d may be another.
        attention_mask: (B, T), 1 for real tokens; only pairs of real tokens are compared. Default: all are real.
        reduction: "mean" or "rows", which mean what they do in `attention_score_loss`.

    Returns:
        A scalar.

    Raises:
        ValueError: no layer, different numbers of layers or shapes (of heads, in particular), an unknown reduction, or
            a query and a key of different shapes.
    """
    _check_levels(student_factors, teacher_factors, reduction, "attention_factor_loss")
    levels = zip(student_factors, teacher_factors, strict=True)
    return torch.stack([_factor_level(*ours, *theirs, attention_mask, reduction) for ours, theirs in levels]).sum()


def _check_levels(student: Sequence[object], teacher: Sequence[object], reduction: str, what: str) -> None:
    for side, levels in (("student", student), ("teacher", teacher)):
        if isinstance(levels, Tensor):
            # Its rows would pass for levels.
            raise ValueError(f"{what}: give the {side}'s levels as a list of tensors, not as one tensor.")
    if len(student) != len(teacher) or not student:
        raise ValueError(
            f"{what}: the student has {len(student)} levels and the teacher {len(teacher)}; give as many of both, at "
            "least one."
        )
    if reduction not in ("mean", "rows"):
        raise ValueError(f'reduction must be "mean" or "rows", not {reduction!r}.')


@_in_float32
def _hidden_level(student: Tensor, teacher: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    _check_same_shape(student, teacher, "hidden_state_loss")
    _check_mask(mask, student.shape[:-1], "hidden_state_loss")
    per_token = F.mse_loss(student, teacher, reduction="none").mean(dim=-1)
    return _masked_mean(per_token, mask, reduction)


@_in_float32
def _relative_level(student: Tensor, teacher: Tensor, mask: Tensor | None) -> Tensor:
    _check_same_shape(student, teacher, "relative_hidden_loss")
    _check_mask(mask, student.shape[:-1], "relative_hidden_loss")
    real = student.new_ones(student.shape[:-1]) if mask is None else mask.to(student.dtype)
    real = real.unsqueeze(-1)

    elements = real.sum(dim=(1, 2)) * teacher.shape[-1]
    mean = (teacher * real).sum(dim=(1, 2)) / elements
    spread = ((teacher - mean[:, None, None]).square() * real).sum(dim=(1, 2))
    errors = ((student - teacher).square() * real).sum(dim=(1, 2))
    return (errors / spread.clamp(min=1e-12)).mean()


@_in_float32
def _attention_level(student: Tensor, teacher: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    _check_same_shape(student, teacher, "attention_score_loss")
    _check_mask(mask, student.shape[:1] + student.shape[-1:], "attention_score_loss")
    student, teacher = (scores.masked_fill(scores <= -100, 0.0) for scores in (student, teacher))
    per_pair = (student - teacher).square().mean(dim=1).flatten(1)
    pairs = None if mask is None else (mask[:, :, None] * mask[:, None, :]).flatten(1)
    return _masked_mean(per_pair, pairs, reduction)


@_in_float32
def _factor_level(
    query: Tensor, key: Tensor, teacher_query: Tensor, teacher_key: Tensor, mask: Tensor | None, reduction: str
) -> Tensor:
    for ours, other in ((query, key), (teacher_query, teacher_key)):
        if ours.shape != other.shape:
            raise ValueError(
                f"attention_factor_loss: a query has shape {tuple(ours.shape)} and its key {tuple(other.shape)}; they "
                "must be equal."
            )
    _check_same_shape(query[..., 0], teacher_query[..., 0], "attention_factor_loss, without the heads' size")
    _check_mask(mask, query.shape[:1] + query.shape[2:3], "attention_factor_loss")
    heads, tokens = query.shape[1:3]
    real = query.new_ones(query.shape[0], tokens) if mask is None else mask.to(query.dtype)
    # The cheaper one: of T² d multiplications and (T, T), or 2 T d² and (d, d).
    is_long = tokens > 2 * (query.shape[-1] + teacher_query.shape[-1])
    sums = (_squares_of_long_rows if is_long else _squares_of_short_rows)(query, key, teacher_query, teacher_key, real)
    counts = heads * real.sum(dim=-1).square()
    return sums.sum() / counts.sum() if reduction == "mean" else (sums / counts).mean()


def _squares_of_short_rows(
    query: Tensor, key: Tensor, teacher_query: Tensor, teacher_key: Tensor, real: Tensor
) -> Tensor:
    """Sums (B,) of squared differences of scores over heads and pairs of real tokens."""
    squares = F.mse_loss(query @ key.mT, teacher_query @ teacher_key.mT, reduction="none").sum(dim=1)
    # Padding is left out here, where heads are summed already, and not of each head's scores.
    return (real[:, None, :] @ squares @ real[:, :, None]).flatten()


def _squares_of_long_rows(
    query: Tensor, key: Tensor, teacher_query: Tensor, teacher_key: Tensor, real: Tensor
) -> Tensor:
    """Sums (B,) of squared differences of scores, from the factors' products with themselves.

    They are the sums of `_squares_of_short_rows`.
    """
    queries, keys = torch.cat([query, teacher_query], dim=-1), torch.cat([key, -teacher_key], dim=-1)
    queries, keys = (factor * real[:, None, :, None] for factor in (queries, keys))
    return ((queries.mT @ queries) * (keys.mT @ keys)).sum(dim=(1, 2, 3))


def _masked_mean(values: Tensor, mask: Tensor | None, reduction: str) -> Tensor:
    """Mean of (B, N) where `mask` is 1: over all of them ("mean"), or over each row's first ("rows")."""
    weights = torch.ones_like(values) if mask is None else mask.to(values.dtype)
    dims = None if reduction == "mean" else -1
    return ((values * weights).sum(dims) / weights.sum(dims)).mean()
