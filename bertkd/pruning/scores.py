"""How much a model's own predictions depend on each head and each neuron."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.evaluated import evaluated
from bertkd.models.sizes import refuse_factorized_or_shared
from bertkd.pruning.network import SubLayer, as_batches, refuse_other_heads, sub_layers

__all__ = ["UnitScores", "unit_scores"]


@dataclass(frozen=True)
class UnitScores:
    """The score of each head, (L, H), and each neuron, (L, F): float32 on the CPU, not negative.

    Scores are in nats, and so they compare between layers, and between heads and neurons. Where layers differ in
    size, H and F are those of the largest one, and units that a layer does not have score 0.
    """

    heads: Tensor
    neurons: Tensor

    def of(self, sub_layer: SubLayer) -> Tensor:
        """The scores of the units of a sub-layer, (units,)."""
        table = self.heads if sub_layer.part == "attention" else self.neurons
        return table[sub_layer.layer, : sub_layer.units]


def unit_scores(model: PreTrainedModel, batches: Iterable[Mapping[str, Tensor]], progress: bool = False) -> UnitScores:
    """Score heads and neurons by the Fisher information of a gate on each: labels are not needed.

    A gate is a factor of 1 on a head's context where it goes into the attention's output projection, or on a neuron's
    activation where it goes into the second feed-forward projection. With the model's own prediction p,

    `F = mean over rows of sum over classes c of p_c · (d log p_c / d gate)²`

    which is the second derivative of `KL(p || p at this gate)` at 1: a gate of 1 - e costs `e² F / 2` nats. A model
    with a single output z has `F = mean over rows of (d z / d gate)²`. Kwon et al. (arXiv 2204.09656, section 3)
    score by labels and by batches; each row counts on its own here, so that the batch size changes nothing.

    The model runs in eval mode and is left as it was; its parameters get no gradients. It takes one pass forward and,
    for C classes, C passes backward (one for two classes).

    Args:
        model: a sequence classifier of a family in `bertkd.models.families`; its layers may differ in size.
        batches: dicts of tensors, such as a data loader's. Labels are ignored.
        progress: whether a progress bar is shown.

    Returns:
        A `UnitScores` with `.heads` (L, H) and `.neurons` (L, F).

    Raises:
        ValueError: no batch, a supernet, a model that is factorized or shares layers, an unsupported family, or a
            score that is not finite.
    """
    refuse_supernet(model, "unit_scores")
    refuse_other_heads(model, "unit_scores")
    refuse_factorized_or_shared(model, "unit_scores")
    parts = sub_layers(model)
    present = [part for part in parts if part.units > 0]
    totals = [torch.zeros(part.units, dtype=torch.float64, device=model.device) for part in present]

    rows = 0
    with evaluated(model):
        for batch in tqdm(as_batches(batches, model), desc="Scores", unit="batch", disable=not progress):
            _add_scores(totals, model, batch, present)
            rows += len(batch["input_ids"])

    scores = {part: [torch.zeros(0)] * model.config.num_hidden_layers for part in ("attention", "ffn")}
    for sub_layer, total in zip(present, totals, strict=True):
        scores[sub_layer.part][sub_layer.layer] = (total / rows).float().cpu()

    result = UnitScores(*(nn.utils.rnn.pad_sequence(scores[part], batch_first=True) for part in ("attention", "ffn")))
    if not (result.heads.isfinite().all() and result.neurons.isfinite().all()):
        raise ValueError("The scores are not finite: the model's predictions overflow. Compute them in float32.")
    return result


def _add_scores(
    totals: Sequence[Tensor], model: PreTrainedModel, batch: Mapping[str, Tensor], parts: list[SubLayer]
) -> None:
    """Adds the scores of a batch's rows to the totals, (units,) for each part. Its graph goes with this function."""
    gates = [torch.ones(len(batch["input_ids"]), part.units, device=model.device) for part in parts]
    for gate in gates:
        gate.requires_grad_()

    with _gated(parts, gates):
        logits = model(**batch).logits.float()
    for value, weight in _log_likelihoods(logits):
        gradients = torch.autograd.grad(value.sum(), gates, retain_graph=True, allow_unused=True)
        for total, gradient in zip(totals, gradients, strict=True):
            if gradient is not None:
                total += (gradient.double().square() * weight[:, None]).sum(0)


def _log_likelihoods(logits: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Values (B,) to be differentiated, each with the weight (B,) of its squared derivative."""
    if logits.shape[-1] == 1:
        yield logits[:, 0], torch.ones_like(logits[:, 0]).detach()
        return

    probabilities = logits.detach().softmax(-1).double()
    if logits.shape[-1] == 2:
        # Both derivatives are those of the logits' difference, times the other class's probability.
        yield logits[:, 1] - logits[:, 0], probabilities[:, 0] * probabilities[:, 1]
        return

    log_probabilities = logits.log_softmax(-1)
    for index in range(logits.shape[-1]):
        yield log_probabilities[:, index], probabilities[:, index]


@contextmanager
def _gated(parts: list[SubLayer], gates: list[Tensor]) -> Iterator[None]:
    """Within, each unit of these sub-layers is multiplied by its gate, (B, units): one for each row."""

    def multiplied(gate: Tensor) -> Any:
        def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            by_unit = args[0].unflatten(-1, (gate.shape[1], -1))
            return ((by_unit * gate[:, None, :, None].to(by_unit.dtype)).flatten(-2),)

        return hook

    hooks = []
    for part, gate in zip(parts, gates, strict=True):
        assert part.projection is not None
        hooks.append(part.projection.register_forward_pre_hook(multiplied(gate)))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
