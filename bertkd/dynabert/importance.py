"""Computes how much the loss depends on each head and each neuron (DynaBERT, arXiv 2004.04037, section 2.1)."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from bertkd.distillation.labels import class_labels, is_regression, number_labels
from bertkd.dynabert.supernet import require_full_size
from bertkd.models import encoder_layers, family_of, label_names, label_permutation, layer_sizes
from bertkd.models.evaluated import eval_mode, evaluated, in_own_precision

__all__ = ["REDUCTIONS", "Importance", "compute_importance"]

REDUCTIONS = ("sum_abs", "abs_sum", "cumulative")


@dataclass(frozen=True)
class Importance:
    """The importance of each head, (L, heads), and each neuron, (L, neurons): float32 on the CPU, not negative.

    Numbers compare within a layer.
    """

    heads: Tensor
    neurons: Tensor


def compute_importance(
    model: PreTrainedModel,
    batches: Iterable[Mapping[str, Tensor]],
    reduction: str = "sum_abs",
    teacher: PreTrainedModel | None = None,
    progress: bool = False,
) -> Importance:
    """Compute the first-order importance of heads and neurons: how the loss would change if one were taken away.

    Each head's output is multiplied by a factor of 1, and so is each neuron's before and after its activation; g is
    the gradient of the batch's mean loss with respect to a factor.

    - A head's importance is |g| (Michel et al., arXiv 1905.10650): the sum of its context times the context's
      gradient, over rows, positions and dimensions.
    - A neuron's is |g_in| + |g_out|. The first factor sits on `W1 x + b1`, so that g_in is the sum of that neuron's
      weights and bias times their gradients; g_out is likewise that of its column of W2. So does the authors' code.

    The batches are reduced as `reduction` says, each side of a neuron on its own:

    - "sum_abs": sum over batches of |g| (Michel et al.).
    - "abs_sum": |sum over batches of g| (the first version of the paper, algorithm 1).
    - "cumulative": sum over batches t of |g_1 + ... + g_t|: the released code, which does not clear its gradients.

    The model runs in eval mode with the attention that it has (sdpa or eager), and is left as it was; its parameters
    get no gradients.

    Args:
        model: a model with a sequence-classification head, of a family in `bertkd.models.families`.
        batches: dicts of tensors, such as a data loader's; the authors take the development set's, `bertkd dynabert`
            the training set's.
        reduction: see above.
        teacher: its answers take the place of labels: the class that it finds most likely, or its value in a
            regression task. Its probabilities would not do: a model that is its own teacher, which is the common case
            here, has no gradient towards them.
        progress: show a progress bar.

    Returns:
        An `Importance` with `.heads` (L, heads) and `.neurons` (L, neurons).

    Raises:
        ValueError: an unknown reduction or family, no batch, a batch without labels and no teacher, a model whose
            layers differ in size, a supernet that is not at full size, or a loss that depends on nothing.
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}, not {reduction!r}.")

    sizes = layer_sizes(model)
    if not sizes.are_alike or 0 in (*sizes.heads, *sizes.neurons):
        raise ValueError(
            f"Importance is computed for models whose layers are alike; this one has {list(sizes.heads)} heads and "
            f"{list(sizes.neurons)} neurons in its layers. Compute it before pruning."
        )
    require_full_size(model, "compute_importance")

    layers = len(sizes.heads)
    factors: dict[str, Tensor] = {}
    sums: dict[str, Tensor] = {}
    sums_of_abs: dict[str, Tensor] = {}
    for name, count in (("heads", sizes.heads[0]), ("ffn_in", sizes.neurons[0]), ("ffn_out", sizes.neurons[0])):
        factors[name] = torch.ones(layers, count, device=model.device, requires_grad=True)
        sums[name] = torch.zeros(layers, count, device=model.device)
        sums_of_abs[name] = torch.zeros(layers, count, device=model.device)

    answers = _labels if teacher is None else _answers_of(teacher, model)
    has_batches = False
    with evaluated(model), _multiplied(model, factors):
        for batch in tqdm(batches, desc="Importance", unit="batch", disable=not progress):
            has_batches = True
            inputs = {name: value.to(model.device) for name, value in batch.items()}
            loss = _loss(model, inputs, answers(inputs))
            gradients = torch.autograd.grad(loss, list(factors.values()))

            for name, gradient in zip(factors, gradients, strict=True):
                sums[name] += gradient
                sums_of_abs[name] += (sums[name] if reduction == "cumulative" else gradient).abs()

    if not has_batches:
        raise ValueError("There is no batch to compute importance from.")
    if reduction == "abs_sum":
        for name, total in sums.items():
            sums_of_abs[name] = total.abs()

    heads, neurons = sums_of_abs["heads"], sums_of_abs["ffn_in"] + sums_of_abs["ffn_out"]
    importance = Importance(heads.cpu(), neurons.cpu())
    _check(importance)
    return importance


def _check(importance: Importance) -> None:
    """Raise ValueError for an importance that says nothing."""
    for name in ("heads", "neurons"):
        value: Tensor = getattr(importance, name)
        if not value.isfinite().all():
            raise ValueError(f"The importance of {name} is not finite: the loss overflowed; compute it in float32.")
        if value.max() == 0:
            raise ValueError(
                f"The loss depends on no {name}: every gradient is 0. This happens in a regression task where the "
                "model is its own teacher; give labels."
            )


@contextmanager
def _multiplied(model: PreTrainedModel, factors: dict[str, Tensor]) -> Iterator[None]:
    """Within, each head and neuron is multiplied by its factor. Not by `head_mask`, which `transformers` swallows."""
    family = family_of(model)
    hooks = []

    def multiply_input(factor: Tensor) -> Callable[..., Any]:
        return lambda _module, args: (_scaled(args[0], factor),)

    def multiply_output(factor: Tensor) -> Callable[..., Any]:
        return lambda _module, _args, output: _scaled(output, factor)

    for index, layer in enumerate(encoder_layers(model).children()):
        attention_output = layer.get_submodule(family.attention_output)
        ffn_in, ffn_out = layer.get_submodule(family.ffn_in), layer.get_submodule(family.ffn_out)
        hooks.append(attention_output.register_forward_pre_hook(multiply_input(factors["heads"][index])))
        hooks.append(ffn_in.register_forward_hook(multiply_output(factors["ffn_in"][index])))
        hooks.append(ffn_out.register_forward_pre_hook(multiply_input(factors["ffn_out"][index])))

    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _scaled(states: Tensor, factor: Tensor) -> Tensor:
    """States (..., groups · d) times a factor for each group, (groups,)."""
    scaled = (states.unflatten(-1, (len(factor), -1)) * factor[:, None]).flatten(-2)
    # The factors are in float32 and make the product so, also where the model is in half precision.
    return scaled.to(states.dtype)


def _loss(model: PreTrainedModel, inputs: dict[str, Tensor], answers: Tensor) -> Tensor:
    """The mean loss of a batch against labels, or the answers that take their place: (B,), of numbers also (B, C)."""
    logits = model(**{name: value for name, value in inputs.items() if name != "labels"}).logits.float()
    if model.config.problem_type == "multi_label_classification":
        raise ValueError("Importance is computed for one class per row, or for numbers: this model has many labels.")
    if is_regression(model.config):
        numbers = logits.squeeze(-1)
        return F.mse_loss(numbers, number_labels(answers.float(), numbers))
    return F.cross_entropy(logits, class_labels(answers, logits))


def _labels(inputs: dict[str, Tensor]) -> Tensor:
    if "labels" not in inputs:
        raise ValueError(
            f"A batch has no labels (it has {', '.join(inputs)}): give labeled rows, or a teacher whose answers take "
            "their place."
        )
    return inputs["labels"]


def _answers_of(teacher: PreTrainedModel, model: PreTrainedModel) -> Callable[[dict[str, Tensor]], Tensor]:
    """A function that gives the teacher's answers for a batch, its labels in the model's order."""
    order = label_permutation(label_names(model.config), label_names(teacher.config))

    def answers(inputs: dict[str, Tensor]) -> Tensor:
        columns = {name: value.to(teacher.device) for name, value in inputs.items() if name != "labels"}
        with eval_mode(teacher), in_own_precision(teacher), torch.no_grad():
            logits = teacher(**columns).logits.to(model.device)

        if is_regression(teacher.config):
            return logits.squeeze(-1)
        return (logits if order is None else logits[:, order]).argmax(-1)

    return answers
