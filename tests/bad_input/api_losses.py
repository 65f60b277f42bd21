"""Calls of the losses and of layer maps that would give a plausible number or map, or a puzzle."""

import torch

from bad_input.cases import ApiCase
from bertkd import LayerMap, losses

LOGITS = torch.zeros(4, 3)
HIDDEN = torch.zeros(4, 5, 8)
SCORES = torch.zeros(4, 2, 5, 5)
STATES = torch.zeros(4, 2, 8)


CASES = [
    ApiCase(
        "numbers",
        "an infinite temperature in a loss",
        lambda _: losses.kd_kl(LOGITS, LOGITS, float("inf")),
        "temperature must be a finite number greater than 0, not inf",
    ),
    ApiCase(
        "numbers",
        "a temperature that is no number in a loss",
        lambda _: losses.soft_cross_entropy(LOGITS, LOGITS, float("nan")),
        "temperature must be a finite number .* not nan",
    ),
    ApiCase(
        "numbers",
        "logits of class numbers",
        lambda _: losses.kd_kl(LOGITS, LOGITS.long()),
        "the teacher's tensor is of type torch.int64; logits and states are floating-point",
    ),
    ApiCase(
        "numbers",
        "no rows to average over",
        lambda _: losses.kd_kl(LOGITS[:0], LOGITS[:0]),
        r"shape \(0, 3\) have no rows",
    ),
    ApiCase(
        "numbers",
        "one number instead of logits",
        lambda _: losses.logits_mse(torch.tensor(1.0), torch.tensor(2.0)),
        "have no rows, over which there is no mean",
    ),
    ApiCase(
        "numbers",
        "lists instead of tensors",
        lambda _: losses.kd_kl([[1.0, 2.0]], [[2.0, 1.0]]),
        "kd_kl compares tensors, and was given none",
    ),
    ApiCase(
        "numbers",
        "a tensor against a list",
        lambda _: losses.logits_mse(LOGITS, [[0.0]]),
        "the teacher's side is no tensor but a list",
    ),
    ApiCase(
        "numbers",
        "regression targets that would broadcast",
        lambda _: losses.logits_mse(torch.zeros(4, 1), torch.zeros(4)),
        r"shape \(4, 1\) and the teacher's \(4,\)",
    ),
    ApiCase(
        "numbers",
        "teacher logits of one row for all",
        lambda _: losses.soft_cross_entropy(LOGITS, LOGITS[:1]),
        r"\(4, 3\) and the teacher's \(1, 3\)",
    ),
    ApiCase(
        "numbers",
        "an unknown reduction of a loss",
        lambda _: losses.kd_kl(LOGITS, LOGITS, reduction="sum"),
        'reduction must be "batchmean" or "mean"',
    ),
    ApiCase(
        "numbers",
        "hidden states as one tensor, whose rows would pass for levels",
        lambda _: losses.hidden_state_loss(HIDDEN, HIDDEN),
        "give the student's levels as a list of tensors",
    ),
    ApiCase(
        "numbers",
        "the teacher's levels as one tensor",
        lambda _: losses.hidden_state_loss([HIDDEN], HIDDEN[None]),
        "give the teacher's levels as a list of tensors",
    ),
    ApiCase(
        "numbers",
        "a mask of one row for all rows",
        lambda _: losses.hidden_state_loss([HIDDEN], [HIDDEN], torch.ones(1, 5)),
        r"attention_mask has shape \(1, 5\) and the tokens \(4, 5\)",
    ),
    ApiCase(
        "numbers",
        "a mask made for attention instead of for tokens",
        lambda _: losses.hidden_state_loss([HIDDEN], [HIDDEN], torch.zeros(4, 1, 1, 5)),
        r"attention_mask has shape \(4, 1, 1, 5\)",
    ),
    ApiCase(
        "numbers",
        "a mask of other tokens in the cosine loss",
        lambda _: losses.cosine_loss(HIDDEN, HIDDEN, torch.ones(4, 1)),
        r"cosine_loss: attention_mask has shape \(4, 1\)",
    ),
    ApiCase(
        "numbers",
        "a mask of one token in the attention loss",
        lambda _: losses.attention_score_loss([SCORES], [SCORES], torch.ones(4, 1)),
        r"attention_mask has shape \(4, 1\) and the tokens \(4, 5\)",
    ),
    ApiCase(
        "numbers",
        "attention scores of another number of heads",
        lambda _: losses.attention_score_loss([SCORES], [SCORES[:, :1]]),
        r"\(4, 2, 5, 5\) and the teacher's \(4, 1, 5, 5\)",
    ),
    ApiCase(
        "numbers",
        "no level to compare",
        lambda _: losses.hidden_state_loss([], []),
        "the student has 0 levels and the teacher 0",
    ),
    ApiCase(
        "numbers",
        "states of one layer without the layer dimension",
        lambda _: losses.patient_loss(STATES[:, 0], STATES[:, 0]),
        r"expects \(batch, layers, hidden\), not a tensor of 2 dimensions",
    ),
    ApiCase(
        "numbers",
        "a query and a key of different shapes",
        lambda _: losses.attention_factor_loss([(SCORES, SCORES[:, :, :4])], [(SCORES, SCORES)]),
        "a query has shape .* and its key",
    ),
    ApiCase(
        "options and settings",
        "a layer map from a list",
        lambda _: LayerMap.parse([(1, 2)]),
        r"A layer map is read from a text such as 1:2,2:4",
    ),
    ApiCase(
        "options and settings", "a layer map with a half layer", lambda _: LayerMap(((1, 2.5),)), "two whole numbers"
    ),
    ApiCase(
        "options and settings",
        "a layer map of single layers",
        lambda _: LayerMap(((2,), (4,))),
        r"two whole numbers \(student, teacher\), not \(2,\)",
    ),
    ApiCase(
        "options and settings",
        "a layer map whose layers cross",
        lambda _: LayerMap.parse("1:4,2:2"),
        "The teacher layers of a layer map must increase",
    ),
    ApiCase(
        "options and settings",
        "a layer map with a negative layer",
        lambda _: LayerMap(((-1, 2),)),
        "cannot hold negative layers",
    ),
    ApiCase(
        "options and settings",
        "more student than teacher layers",
        lambda _: LayerMap.skip(4, 6),
        "the student has 6 and the teacher 4",
    ),
]
