"""The sub-layers of an encoder, and calibration rows that go through it layer by layer.

A sub-layer is the attention part or the feed-forward part of a layer. It computes `norm(x + W a + b)`: x is its
residual input, a are the activations that go into its output projection W with the bias b. What goes into the norm,
x + W a + b, is called its sum. Its units, heads or neurons, are columns of W.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from bertkd.distillation.labels import is_regression
from bertkd.models import encoder_layers, family_of, layer_sizes
from bertkd.models.adaptive import AdaptiveLayers
from bertkd.models.families import refuse_wrapper
from bertkd.models.pruned import skip_attention, skip_feed_forward
from bertkd.models.sizes import head_size

__all__ = [
    "Rows",
    "SubLayer",
    "as_batches",
    "counted_tokens",
    "divergence",
    "refuse_other_heads",
    "sub_layers",
    "without",
]


@dataclass(frozen=True)
class SubLayer:
    """The attention or feed-forward part of a layer.

    Attributes:
        layer: the layer's number, from 0.
        part: "attention" or "ffn".
        module: the layer.
        projection: the output projection; None where the layer lacks the part.
        norm: the residual normalization; None where the layer lacks the part.
        units: heads or neurons.
        unit_size: columns of the projection for each unit.
    """

    layer: int
    part: str
    module: nn.Module
    projection: nn.Linear | None
    norm: nn.LayerNorm | None
    units: int
    unit_size: int

    def columns(self, units: Tensor) -> Tensor:
        """The columns of the projection that belong to these units, in their order."""
        return (units[:, None] * self.unit_size + torch.arange(self.unit_size, device=units.device)).flatten()


def sub_layers(model: PreTrainedModel) -> list[SubLayer]:
    """The sub-layers of a model in the order in which they run: 0 attention, 0 ffn, 1 attention, ..."""
    family, sizes = family_of(model), layer_sizes(model)
    found = []

    for index, layer in enumerate(encoder_layers(model).children()):
        for part, units, unit_size, projection, norm in (
            ("attention", sizes.heads[index], head_size(model.config), family.attention_output, family.attention_norm),
            ("ffn", sizes.neurons[index], 1, family.ffn_out, family.ffn_norm),
        ):
            modules: list[Any] = [None, None]
            if units > 0:
                modules = [layer.get_submodule(projection), layer.get_submodule(norm)]
            found.append(SubLayer(index, part, layer, modules[0], modules[1], units, unit_size))
    return found


def refuse_other_heads(model: PreTrainedModel, caller: str) -> None:
    """Refuses what does not classify sequences, is of an unsupported family, or lies where float64 is missing.

    Args:
        model: the model to check.
        caller: the name of the function that needs a classifier, for the message.

    Raises:
        ValueError: it is another model.
    """
    refuse_wrapper(model)
    family_of(model)
    if not type(model).__name__.endswith("ForSequenceClassification"):
        raise ValueError(f"{caller} needs a sequence classifier, not a {type(model).__name__}.")
    config = model.config
    if config.problem_type == "multi_label_classification" or (is_regression(config) and config.num_labels != 1):
        raise ValueError(
            f"{caller} compares the probabilities of classes, or one number: this model has problem_type "
            f"{config.problem_type} with {config.num_labels} labels."
        )
    if model.device.type == "mps":
        raise ValueError(f"{caller} computes in double precision, which this device lacks: use model.cpu().")


def embeddings_norm(model: PreTrainedModel) -> nn.LayerNorm | None:
    """The norm whose output goes into the first layer; None where a projection lies between them."""
    family = family_of(model)
    if family.embeddings_projection is not None:
        try:
            model.base_model.get_submodule(family.embeddings_projection)
            return None
        except AttributeError:
            pass
    return model.base_model.get_submodule(family.embeddings_norm)  # type: ignore[return-value]


@contextmanager
def without(sub_layer: SubLayer, model: PreTrainedModel) -> Iterator[None]:
    """Within, a model runs as if it lacked this sub-layer."""
    family, layer = family_of(model), sub_layer.module
    if sub_layer.part == "attention":
        paths, skip = (family.attention_output, family.attention_norm, family.attention), skip_attention
    else:
        paths, skip = (family.ffn_in, family.ffn_out, family.ffn_norm), skip_feed_forward

    modules = {path: layer.get_submodule(path) for path in paths}
    skip(layer, model.config)
    try:
        yield
    finally:
        # The attention comes last: in DistilBERT it brings its output projection along.
        for path in paths:
            if path != family.attention_output or not path.startswith(f"{family.attention}."):
                layer.set_submodule(path, modules[path])


def as_batches(batches: Iterable[Mapping[str, Tensor]], model: PreTrainedModel) -> list[dict[str, Tensor]]:
    """Batches on the model's device, without labels.

    Raises:
        ValueError: there is no batch, or one has no token ids or no row, or is no dict of tensors.
    """
    kept = []
    for batch in batches:
        if not isinstance(batch, Mapping):
            raise ValueError(
                "A batch of calibration rows has to be a dict of tensors, such as a data loader's, not a "
                f"{type(batch).__name__}: give a list of batches."
            )
        if "input_ids" not in batch:
            raise ValueError(f"A batch of calibration rows has no input_ids; it has {', '.join(batch)}.")

        inputs = {name: value for name, value in batch.items() if name not in ("labels", "label")}
        for name, value in inputs.items():
            if not isinstance(value, Tensor):
                raise ValueError(
                    f"{name} of a batch of calibration rows has to be a tensor, not a {type(value).__name__}."
                )
        if batch["input_ids"].numel() == 0:
            shape = tuple(batch["input_ids"].shape)
            raise ValueError(f"A batch of calibration rows has no row: its input_ids have the shape {shape}.")
        kept.append({name: value.to(model.device) for name, value in inputs.items()})
    if not kept:
        raise ValueError("There is no batch of calibration rows: give some hundred rows at least.")
    return kept


def counted_tokens(model: PreTrainedModel, layer: int, batch: Mapping[str, Tensor]) -> Tensor:
    """Which tokens of a batch count in what is fitted in a layer, (B, T).

    Padding does not count. After the last attention no token reads another one, so that in the last layer of a
    sequence classifier, and no other model is pruned, the first token alone reaches the logits.
    """
    ids = batch["input_ids"]
    mask = batch.get("attention_mask")
    counted = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask.bool()

    if layer == model.config.num_hidden_layers - 1:
        counted = counted & (torch.arange(ids.shape[1], device=ids.device) == 0)
    return counted


class Rows:
    """Calibration rows before one of the layers of a model: the hidden states that go into it.

    Args:
        model: the model, in eval mode.
        batches: dicts of tensors on its device.

    Attributes:
        layer: the number of the layer that they stand before.
        states: (B, T, H) for each batch.
    """

    def __init__(self, model: PreTrainedModel, batches: Sequence[Mapping[str, Tensor]]) -> None:
        self.model, self.batches, self.layer = model, batches, 0
        self.states: list[Tensor] = []
        first = next(encoder_layers(model).children())
        hook = first.register_forward_pre_hook(lambda _module, args: self.states.append(args[0]))
        try:
            with torch.no_grad(), _running(model, range(1)):
                for batch in batches:
                    model(**batch)
        finally:
            hook.remove()

    @torch.no_grad()
    def outputs(self) -> Tensor:
        """The logits of all rows, (N, C), in float32: the layers from `layer` on run, as they are now."""
        depth = self.model.config.num_hidden_layers
        with _running(self.model, range(self.layer, depth)):
            return torch.cat([self._run(index).logits.float() for index in range(len(self.batches))])

    @torch.no_grad()
    def run_layer(self, *modules: nn.Module) -> Iterator[tuple[int, list[Tensor]]]:
        """Runs the layer alone, and gives the input of each of these modules, batch by batch."""
        seen: dict[int, Tensor] = {}

        def keep(place: int) -> Any:
            def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
                seen[place] = args[0]

            return hook

        hooks = [module.register_forward_pre_hook(keep(place)) for place, module in enumerate(modules)]
        try:
            with _running(self.model, range(self.layer, self.layer + 1)):
                for index in range(len(self.batches)):
                    seen.clear()
                    self._run(index)
                    yield index, [seen[place] for place in range(len(modules))]
        finally:
            for hook in hooks:
                hook.remove()

    @torch.no_grad()
    def layer_outputs(self) -> list[Tensor]:
        """What comes out of the layer, (B, T, H) for each batch."""
        outputs: list[Tensor] = []

        def keep(_module: nn.Module, _args: Any, output: Any) -> None:
            outputs.append(output if isinstance(output, Tensor) else output[0])

        hook = encoder_layers(self.model)[self.layer].register_forward_hook(keep)
        try:
            with _running(self.model, range(self.layer, self.layer + 1)):
                for index in range(len(self.batches)):
                    self._run(index)
        finally:
            hook.remove()
        return outputs

    def advance(self) -> None:
        """Goes behind the layer."""
        self.states = self.layer_outputs()
        self.layer += 1

    def _run(self, index: int) -> Any:
        """Runs the model on a batch, whose states take the place of what the embeddings give."""
        states = self.states[index]
        layer = encoder_layers(self.model)[self.layer]
        hook = layer.register_forward_pre_hook(lambda _module, args: (states, *args[1:]))
        try:
            return self.model(**self.batches[index])
        finally:
            hook.remove()


@contextmanager
def _running(model: PreTrainedModel, layers: range) -> Iterator[None]:
    """Within, only these layers of a model run."""
    family, all_layers = family_of(model), encoder_layers(model)
    active = AdaptiveLayers(list(all_layers.children()))
    active.active = tuple(layers)

    model.base_model.set_submodule(family.layers, active)
    try:
        yield
    finally:
        model.base_model.set_submodule(family.layers, all_layers)


def divergence(expected: Tensor, logits: Tensor) -> float:
    """How far predictions are from the expected ones, the mean over rows.

    Args:
        expected: logits (N, C).
        logits: logits (N, C).

    Returns:
        `KL(expected || logits)` in nats; with a single output, half of the squared difference.
    """
    if expected.shape[-1] == 1:
        return float((expected - logits).square().mean() / 2)
    return float(
        nn.functional.kl_div(logits.log_softmax(-1), expected.log_softmax(-1), reduction="batchmean", log_target=True)
    )
