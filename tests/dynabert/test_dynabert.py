"""DynaBERT: importance, rewiring, the supernet, and sub-networks as models of their own."""

import ast
import copy
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import PAD, VOCABULARY, tiny_model
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    AutoModelForSequenceClassification,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    PreTrainedModel,
)

from bertkd import DistillationConfig, DistillationTrainer, drop_layers
from bertkd.dynabert import (
    Importance,
    Subnetwork,
    compute_importance,
    extract_subnetwork,
    extraction,
    make_adaptive,
    rewire,
    save_subnetwork,
    set_subnetwork,
)
from bertkd.dynabert.importance import REDUCTIONS
from bertkd.dynabert.search import CostTable, cost_table, search_subnetworks
from bertkd.dynabert.supernet import current_subnetwork, kept_layers, width_sizes
from bertkd.models import FAMILIES, encoder_layers, family_of, layer_sizes
from bertkd.students import prune, separate_position_bias

WIDTHS, DEPTHS = (1.0, 0.75, 0.5, 0.25), (1.0, 0.75, 0.5)
SIZES = [(width, depth) for depth in DEPTHS for width in WIDTHS]


def model_of(family: str = "bert", **settings: Any) -> PreTrainedModel:
    """Four layers of four heads and 24 neurons."""
    heads = "n_heads" if family == "distilbert" else "num_attention_heads"
    # The heads of an MPNet's layers share position biases, until each layer has its own.
    return separate_position_bias(tiny_model(family, **{"layers": 4, heads: 4, **settings}))


def batch_of(family: str = "bert", count: int = 6, seed: int = 1, labels: int = 3) -> dict[str, Tensor]:
    """Rows of random tokens, the last one padded."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(3, VOCABULARY, (count, 9), generator=generator)
    mask = torch.ones_like(ids)
    ids[-1, 5:], mask[-1, 5:] = PAD[family], 0
    answers = torch.randint(labels, (count,), generator=generator) if labels > 1 else torch.rand(count) * 5
    return {"input_ids": ids, "attention_mask": mask, "labels": answers}


def logits_of(model: PreTrainedModel, family: str = "bert") -> Tensor:
    batch = batch_of(family)
    with torch.no_grad():
        return model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits


def loss_of(model: PreTrainedModel, batch: dict[str, Tensor]) -> Tensor:
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return (
        F.mse_loss(logits.squeeze(-1), batch["labels"])
        if logits.shape[-1] == 1
        else F.cross_entropy(logits, batch["labels"])
    )


# ---- importance ----


def by_parameters(model: PreTrainedModel, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """What the released code reads off gradients: heads (context · gradient), and the two sides of neurons."""
    family, contexts = family_of(model), []
    layers = list(encoder_layers(model))

    def keep(_module: nn.Module, args: tuple[Tensor]) -> None:
        args[0].retain_grad()
        contexts.append(args[0])

    hooks = [layer.get_submodule(family.attention_output).register_forward_pre_hook(keep) for layer in layers]
    model.zero_grad()
    loss_of(model, batch).backward()
    for hook in hooks:
        hook.remove()
    heads = torch.stack([(c * c.grad).unflatten(-1, (4, -1)).sum((0, 1, 3)) for c in contexts])
    sides: list[list[Tensor]] = [[], []]
    for layer in layers:
        first, second = layer.get_submodule(family.ffn_in), layer.get_submodule(family.ffn_out)
        sides[0].append((first.weight * first.weight.grad).sum(1) + first.bias * first.bias.grad)
        sides[1].append((second.weight * second.weight.grad).sum(0))
    return heads, torch.stack(sides[0]).detach(), torch.stack(sides[1]).detach()


def combine(gradients: list[Tensor], reduction: str) -> Tensor:
    stacked = torch.stack(gradients)
    if reduction == "sum_abs":
        return stacked.abs().sum(0)
    if reduction == "abs_sum":
        return stacked.sum(0).abs()
    return stacked.cumsum(0).abs().sum(0)


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_importance_is_that_of_the_released_code(family: str, reduction: str) -> None:
    model = model_of(family)
    batches = [batch_of(family, seed=seed) for seed in range(3)]
    found = [by_parameters(model, batch) for batch in batches]
    importance = compute_importance(model, batches, reduction)
    heads, inner, outer = (combine(list(gradients), reduction) for gradients in zip(*found, strict=True))
    torch.testing.assert_close(importance.heads, heads.detach())
    torch.testing.assert_close(importance.neurons, inner + outer)


def test_the_reductions_differ() -> None:
    batches = [batch_of(seed=seed) for seed in range(3)]
    values = [compute_importance(model_of(), batches, reduction).heads for reduction in REDUCTIONS]
    assert not torch.allclose(values[0], values[1]) and not torch.allclose(values[0], values[2])


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gates_agree_with_finite_differences(attention: str) -> None:
    model = model_of(attn_implementation=attention).double()
    assert model.config._attn_implementation == attention
    batch = batch_of()
    importance = compute_importance(model, [batch])
    layer = encoder_layers(model)[2]
    output, step = layer.attention.output.dense, 1e-4
    losses = []
    for sign in (1, -1):
        changed = copy.deepcopy(output.weight)
        with torch.no_grad():
            output.weight[:, 4:8] *= 1 + sign * step  # head 1
            losses.append(loss_of(model, batch))
            output.weight.copy_(changed)
    slope = (losses[0] - losses[1]) / (2 * step)
    assert importance.heads[2, 1].item() == pytest.approx(abs(slope.item()), rel=1e-4)


def test_attention_implementations_agree() -> None:
    found = [compute_importance(model_of(attn_implementation=name), [batch_of()]) for name in ("eager", "sdpa")]
    torch.testing.assert_close(found[0].heads, found[1].heads)
    torch.testing.assert_close(found[0].neurons, found[1].neurons)


def test_importance_leaves_the_model_as_it_was() -> None:
    model = model_of().train()
    encoder_layers(model)[0].output.dense.weight.requires_grad_(False)
    before = {name: (p.requires_grad, p.clone()) for name, p in model.named_parameters()}
    compute_importance(model, [batch_of()])
    assert model.training and all(p.grad is None for p in model.parameters())
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == before[name][0]
        assert torch.equal(parameter, before[name][1])
    assert not encoder_layers(model)[0].output.dense._forward_pre_hooks


def test_a_teacher_takes_the_place_of_labels() -> None:
    model, teacher, batch = model_of(), model_of(seed=5), batch_of()
    unlabeled = {name: value for name, value in batch.items() if name != "labels"}
    labeled = {**unlabeled, "labels": logits_of(teacher).argmax(-1)}
    for given in (unlabeled, batch):
        found = compute_importance(model, [given], teacher=teacher)
        torch.testing.assert_close(found.neurons, compute_importance(model, [labeled]).neurons)
    own = compute_importance(model, [unlabeled], teacher=model)
    assert own.heads.max() > 0


def test_a_teachers_labels_are_put_in_the_models_order() -> None:
    names = {0: "no", 1: "maybe", 2: "yes"}
    model = model_of(id2label=names, label2id={n: i for i, n in names.items()})
    other = model_of(seed=5, id2label={0: "yes", 1: "no", 2: "maybe"}, label2id={"yes": 0, "no": 1, "maybe": 2})
    same = model_of(seed=5, id2label=names, label2id={n: i for i, n in names.items()})
    with torch.no_grad():
        for name in ("weight", "bias"):
            getattr(same.classifier, name).copy_(getattr(other.classifier, name)[[1, 2, 0]])
    found = [compute_importance(model, [batch_of()], teacher=teacher).heads for teacher in (other, same)]
    torch.testing.assert_close(found[0], found[1])


def test_importance_of_a_regression_model() -> None:
    model, batch = model_of(num_labels=1), batch_of(labels=1)
    heads, *_ = by_parameters(model, batch)
    torch.testing.assert_close(compute_importance(model, [batch]).heads, heads.abs().detach())
    with pytest.raises(ValueError, match="depends on no heads.*its own teacher; give labels"):
        compute_importance(model, [batch], teacher=model)


def test_importance_of_a_model_in_half_precision() -> None:
    batch = batch_of()
    whole, half = compute_importance(model_of(), [batch]), compute_importance(model_of().bfloat16(), [batch])
    for found, expected in ((half.heads, whole.heads), (half.neurons, whole.neurons)):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected, rtol=0.2, atol=0.05 * expected.max().item())


def test_labels_may_be_a_column() -> None:
    for labels in (1, 3):
        model, batch = model_of(num_labels=labels), batch_of(labels=labels)
        column = {**batch, "labels": batch["labels"][:, None]}
        found, expected = compute_importance(model, [column]), compute_importance(model, [batch])
        torch.testing.assert_close((found.heads, found.neurons), (expected.heads, expected.neurons))


def test_importance_of_a_regression_of_several_numbers_is_that_of_their_squared_error() -> None:
    model, batch = model_of(num_labels=2, problem_type="regression"), batch_of(labels=1)
    batch["labels"] = torch.randn(len(batch["input_ids"]), 2, generator=torch.Generator().manual_seed(0))
    found = compute_importance(model, [batch]).heads[0, 0].item()

    def loss(factor: float) -> float:
        def scale(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor]:
            states = args[0].clone()
            states[..., : states.shape[-1] // model.config.num_attention_heads] *= factor
            return (states,)

        hook = encoder_layers(model)[0].attention.output.dense.register_forward_pre_hook(scale)
        with torch.no_grad():
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        hook.remove()
        return F.mse_loss(logits, batch["labels"]).item()

    step = 0.01
    assert found == pytest.approx(abs(loss(1 + step) - loss(1 - step)) / (2 * step), rel=0.02)


def test_importance_refuses_what_it_cannot_use() -> None:
    model, batch = model_of(), batch_of()
    with pytest.raises(ValueError, match="no labels .*input_ids, attention_mask.*or a teacher"):
        compute_importance(model, [{k: v for k, v in batch.items() if k != "labels"}])
    with pytest.raises(ValueError, match="no batch"):
        compute_importance(model, [])
    with pytest.raises(ValueError, match="sum_abs, abs_sum, cumulative, not 'mean'"):
        compute_importance(model, [batch], reduction="mean")
    with pytest.raises(ValueError, match=r"layers are alike.*\[1, 4, 4, 4\] heads"):
        compute_importance(prune(model, [1, 4, 4, 4], [24] * 4), [batch])
    supernet = make_adaptive(model)
    set_subnetwork(supernet, width=0.5)
    with pytest.raises(ValueError, match="compute_importance needs the full network"):
        compute_importance(supernet, [batch])


# ---- rewiring ----


def random_importance() -> Importance:
    generator = torch.Generator().manual_seed(3)
    return Importance(torch.rand(4, 4, generator=generator), torch.rand(4, 24, generator=generator))


@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_rewiring_changes_nothing_that_is_computed(family: str, adaptive: bool) -> None:
    model, batch = model_of(family), batch_of(family)
    before = model(**batch, output_hidden_states=True)
    weights = copy.deepcopy(model.state_dict())
    assert rewire(make_adaptive(model) if adaptive else model, random_importance()) is model
    after = model(**batch, output_hidden_states=True)
    torch.testing.assert_close(after.logits, before.logits, rtol=0, atol=1e-5)
    for one, other in zip(after.hidden_states, before.hidden_states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)
    assert any(not torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())


def test_rewiring_sorts_by_importance() -> None:
    model, batches = model_of(), [batch_of(seed=seed) for seed in range(3)]
    importance = compute_importance(model, batches)
    again = compute_importance(rewire(model, importance), batches)
    torch.testing.assert_close(again.heads, importance.heads.sort(descending=True).values)
    torch.testing.assert_close(again.neurons, importance.neurons.sort(descending=True).values)


def test_equal_importances_keep_their_order() -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    rewire(model, Importance(torch.ones(4, 4), torch.ones(4, 24)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_rewiring_refuses_another_models_importance() -> None:
    model = model_of()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(
        ValueError, match=r"importance is of 4 layers with \[24, 24, 24, 24\] neurons.*\[30, 30, 30, 30\]"
    ):
        rewire(model_of(intermediate_size=30), random_importance())
    with pytest.raises(ValueError, match="of 3 layers with"):
        rewire(model, Importance(torch.rand(3, 4), torch.rand(3, 24)))
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# ---- sizes ----


@pytest.mark.parametrize(
    ("layers", "depth", "kept"),
    [
        (12, 1.0, list(range(12))),
        (12, 0.75, [0, 1, 2, 4, 5, 6, 8, 9, 10]),
        (12, 0.5, [0, 2, 4, 6, 8, 10]),
        (6, 0.75, [0, 1, 2, 4]),
        (6, 0.5, [0, 2, 4]),
        (12, 0.01, [0]),
        (10, 0.3, [0, 3, 6]),
        (12, 10 / 12, [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]),
    ],
)
def test_depth_follows_the_papers_rule(layers: int, depth: float, kept: list[int]) -> None:
    assert kept_layers(layers, depth) == kept


@pytest.mark.parametrize(
    ("heads", "neurons", "width", "sizes"),
    [
        (12, 3072, 1.0, (12, 3072)),
        (12, 3072, 0.75, (9, 2304)),
        (12, 3072, 0.5, (6, 1536)),
        (12, 3072, 0.25, (3, 768)),
        (12, 3072, 0.125, (2, 512)),  # a half is rounded to even
        (12, 3072, 0.375, (4, 1024)),
        (12, 3072, 0.04, (1, 256)),  # the authors' code would keep no head
        (4, 25, 0.5, (2, 12)),
    ],
)
def test_width_follows_the_authors_rounding(heads: int, neurons: int, width: float, sizes: tuple[int, int]) -> None:
    assert width_sizes(heads, neurons, width) == sizes


@pytest.mark.parametrize("value", [0, -0.5, 1.5])
def test_multipliers_lie_between_0_and_1(value: float) -> None:
    supernet = make_adaptive(model_of())
    with pytest.raises(ValueError, match=rf"width .*\(0, 1\], not {value}"):
        set_subnetwork(supernet, width=value)
    with pytest.raises(ValueError, match=rf"depth .*\(0, 1\], not {value}"):
        set_subnetwork(supernet, depth=value)
    assert current_subnetwork(supernet) == Subnetwork.of(supernet)


# ---- the supernet ----


@pytest.mark.parametrize("family", FAMILIES)
def test_a_supernet_at_full_size_is_the_model(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    before, state = logits_of(model, family), copy.deepcopy(model.state_dict())
    parameters = {id(parameter) for parameter in model.parameters()}
    assert make_adaptive(model) is model
    assert {id(parameter) for parameter in model.parameters()} == parameters
    assert torch.equal(logits_of(model, family), before)
    set_subnetwork(model, width=0.25, depth=0.5)
    assert list(model.state_dict()) == list(state)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(logits_of(loaded, family), before)


def masked(model: PreTrainedModel, size: Subnetwork) -> PreTrainedModel:
    """A copy whose heads and neurons outside of a size are switched off by zeros, with the layers left out deleted."""
    made, family = copy.deepcopy(model), family_of(model)
    layers = encoder_layers(made)
    for index, heads, neurons in zip(size.layers, size.heads, size.neurons, strict=True):
        with torch.no_grad():
            layers[index].get_submodule(family.attention_output).weight[:, heads * 4 :] = 0
            layers[index].get_submodule(family.ffn_out).weight[:, neurons:] = 0
    for index in sorted(set(range(4)) - set(size.layers), reverse=True):
        del layers[index]
    return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_slice_equals_a_mask(family: str) -> None:
    model = model_of(family)
    sizes = [Subnetwork.of(model, width, depth) for width, depth in SIZES]
    sizes.append(Subnetwork((1, 2, 3), (1, 4, 2), (24, 3, 11)))
    wanted = [logits_of(masked(model, size), family) for size in sizes]
    make_adaptive(model)
    for size, logits in zip(sizes, wanted, strict=True):
        set_subnetwork(model, subnetwork=size)
        assert current_subnetwork(model) == size
        torch.testing.assert_close(logits_of(model, family), logits, rtol=0, atol=1e-5)


def test_the_twelve_sub_networks_differ() -> None:
    supernet = make_adaptive(model_of())
    found = []
    for width, depth in SIZES:
        set_subnetwork(supernet, width, depth)
        found.append(logits_of(supernet))
    for i, one in enumerate(found):
        assert all((one - other).abs().max() > 1e-3 for other in found[:i])


def test_hidden_states_are_those_of_the_kept_layers() -> None:
    supernet = make_adaptive(model_of())
    set_subnetwork(supernet, depth=0.5)
    outputs = supernet(**batch_of(), output_hidden_states=True)
    assert len(outputs.hidden_states) == 3 and len(encoder_layers(supernet)) == 4


def test_only_what_runs_gets_gradients() -> None:
    supernet = make_adaptive(model_of())
    set_subnetwork(supernet, width=0.5, depth=0.5)
    loss_of(supernet, batch_of()).backward()
    layers = encoder_layers(supernet)
    assert layers[1].output.dense.weight.grad is None and layers[3].output.dense.weight.grad is None
    gradient = layers[2].intermediate.dense.weight.grad
    assert gradient.shape == (24, 16) and gradient[:12].abs().max() > 0 and gradient[12:].abs().max() == 0
    assert layers[2].attention.self.query.weight.grad[8:].abs().max() == 0


def test_parts_can_be_left_out_and_come_back() -> None:
    supernet = make_adaptive(model_of())
    before = logits_of(supernet)
    set_subnetwork(supernet, subnetwork=Subnetwork((0, 1, 2, 3), (0, 4, 4, 4), (24, 24, 0, 24)))
    assert (logits_of(supernet) - before).abs().max() > 1e-3
    set_subnetwork(supernet)
    assert torch.equal(logits_of(supernet), before)


def test_an_ordinary_model_is_no_supernet_and_a_supernet_no_ordinary_model(tmp_path: Path) -> None:
    model = model_of()
    for use in (set_subnetwork, extract_subnetwork, current_subnetwork):
        with pytest.raises(ValueError, match=f"{use.__name__} needs a supernet.*call make_adaptive"):
            use(model)
    make_adaptive(model)
    with pytest.raises(ValueError, match="a supernet already"):
        make_adaptive(model)
    uses = {"drop_layers": lambda: drop_layers(model, [0]), "prune": lambda: prune(model, [1] * 4, [1] * 4)}
    for name, use in uses.items():
        with pytest.raises(ValueError, match=f"{name} needs an ordinary model.*extract_subnetwork"):
            use()
    args = DistillationConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ValueError, match="DistillationTrainer needs an ordinary model.*extract_subnetwork"):
        DistillationTrainer(model=model, teacher_model=model_of(), args=args)
    with pytest.raises(ValueError, match="DistillationTrainer needs an ordinary model"):
        DistillationTrainer(model=model_of(), teacher_model=model, args=args)


@pytest.mark.parametrize(
    "size",
    [
        Subnetwork((), (), ()),
        Subnetwork((0, 4), (4, 4), (24, 24)),
        Subnetwork((1, 0), (4, 4), (24, 24)),
        Subnetwork((0, 1), (4, 5), (24, 24)),
        Subnetwork((0, 1), (4, 4), (24, 25)),
        Subnetwork((0, 1), (4,), (24, 24)),
    ],
)
def test_sizes_that_do_not_exist_are_refused(size: Subnetwork) -> None:
    supernet = make_adaptive(model_of())
    with pytest.raises(ValueError, match="A sub-network needs|Cannot keep"):
        set_subnetwork(supernet, subnetwork=size)
    assert current_subnetwork(supernet) == Subnetwork.of(supernet)


def test_an_unknown_family_is_refused_with_those_that_are_known() -> None:
    sizes = {
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "embedding_size": 8,
        "vocab_size": 50,
    }
    model = AlbertForSequenceClassification(AlbertConfig(**sizes))
    for use in (make_adaptive, lambda model: compute_importance(model, [batch_of()])):
        with pytest.raises(ValueError, match="'albert' .*; supported types: bert, roberta"):
            use(model)


# ---- sub-networks as models of their own ----


def expected_class(family: str, width: float, format: str) -> str:
    stock = type(tiny_model(family)).__name__
    # An MPNet's layers keep their own position biases at full size, too.
    is_stock = format == "stock" or (width == 1 and family != "mpnet")
    return stock if is_stock else f"Pruned{stock}"


@pytest.mark.parametrize("format", ["auto", "stock"])
@pytest.mark.parametrize("family", FAMILIES)
def test_the_extracted_model_equals_the_sub_network_before_and_after_reload(
    family: str, format: str, tmp_path: Path
) -> None:
    supernet = make_adaptive(model_of(family))
    for width, depth in SIZES:
        set_subnetwork(supernet, width, depth)
        wanted = logits_of(supernet, family)
        set_subnetwork(supernet, 0.5, 1.0)
        folder = tmp_path / f"{width}-{depth}"
        made = save_subnetwork(supernet, folder, width, depth, format=format)
        loaded = AutoModelForSequenceClassification.from_pretrained(folder)
        assert type(made).__name__ == type(loaded).__name__ == expected_class(family, width, format)
        for model in (made, loaded):
            torch.testing.assert_close(logits_of(model, family), wanted, rtol=0, atol=1e-5)
        assert current_subnetwork(supernet) == Subnetwork.of(supernet, 0.5, 1.0)
        assert not (folder / ".partial").exists()


def test_heads_of_an_mpnet_need_position_biases_of_their_own(tmp_path: Path) -> None:
    stock, batch = tiny_model("mpnet", layers=4, num_attention_heads=4), batch_of("mpnet")
    for action in (
        lambda: rewire(stock, random_importance()),
        lambda: set_subnetwork(make_adaptive(copy.deepcopy(stock)), width=0.5),
    ):
        with pytest.raises(ValueError, match=r"one table of position biases.*separate_position_bias\(model\)"):
            action()

    separate = separate_position_bias(stock)
    assert separate_position_bias(separate) is separate
    torch.testing.assert_close(separate(**batch).logits, stock(**batch).logits, rtol=0, atol=1e-6)

    rewire(separate, random_importance())
    with pytest.raises(ValueError, match=r"different position biases.*the pruned format"):
        save_subnetwork(make_adaptive(separate), tmp_path / "stock", 0.5, format="stock")


def test_extraction_is_checked_against_the_supernet(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    supernet = make_adaptive(model_of())
    right = extraction.prune

    def wrong(*args: Any) -> PreTrainedModel:
        made = right(*args)
        with torch.no_grad():
            made.classifier.bias += 2e-5
        return made

    monkeypatch.setattr(extraction, "prune", wrong)
    with pytest.raises(RuntimeError, match="The extracted model does not compute.*differ by 2e-05"):
        extract_subnetwork(supernet, 0.5, 0.5)
    monkeypatch.undo()
    monkeypatch.setattr(extraction, "load_checkpoint", lambda *_args, **_kwargs: model_of(seed=9))
    with pytest.raises(RuntimeError, match="The model that was written .* does not compute"):
        save_subnetwork(supernet, tmp_path / "model", depth=0.5)
    assert list((tmp_path / "model").iterdir()) == []


UNEVEN = Subnetwork((0, 2, 3), (1, 0, 4), (24, 7, 0))


@pytest.mark.parametrize("family", FAMILIES)
def test_uneven_widths_and_skipped_parts_can_be_extracted(family: str, tmp_path: Path) -> None:
    supernet = make_adaptive(model_of(family))
    made = save_subnetwork(supernet, tmp_path, subnetwork=UNEVEN)
    assert layer_sizes(made) == ((1, 0, 4), (24, 7, 0))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert layer_sizes(loaded) == layer_sizes(made)
    set_subnetwork(supernet, subnetwork=UNEVEN)
    torch.testing.assert_close(logits_of(loaded, family), logits_of(supernet, family), rtol=0, atol=1e-5)
    layers = json.loads((tmp_path / "config.json").read_text())["per_layer_config"]
    assert layers["1"]["skip"] == ["attention"] and layers["2"]["skip"] == ["mlp"]
    with pytest.raises(ValueError, match="Layers 1, 2 skip .* cannot express"):
        extract_subnetwork(supernet, subnetwork=UNEVEN, format="stock")


def test_depth_or_neurons_alone_stay_a_stock_model() -> None:
    supernet = make_adaptive(model_of())
    made = extract_subnetwork(supernet, subnetwork=Subnetwork((0, 2), (4, 4), (10, 10)))
    assert type(made) is BertForSequenceClassification
    assert (made.config.num_hidden_layers, made.config.intermediate_size) == (2, 10)
    padded = extract_subnetwork(supernet, subnetwork=Subnetwork((0, 2), (4, 2), (10, 6)), format="stock")
    assert (padded.config.num_hidden_layers, padded.config.intermediate_size) == (2, 10)


def test_extraction_refuses_unknown_formats_and_classes() -> None:
    with pytest.raises(ValueError, match="auto, stock, not 'onnx'"):
        extract_subnetwork(make_adaptive(model_of()), 0.5, format="onnx")
    other = make_adaptive(BertForPreTraining(model_of().config).eval())
    with pytest.raises(
        ValueError, match="no pruned class for BertForPreTraining; there is one for BertModel, BertFor"
    ):
        extract_subnetwork(other, 0.5)
    base = make_adaptive(BertModel(model_of().config).eval())
    assert type(extract_subnetwork(base, 0.5)).__name__ == "PrunedBertModel"


def test_a_pruned_folder_is_not_loaded_with_mismatched_sizes_ignored(tmp_path: Path) -> None:
    save_subnetwork(make_adaptive(model_of()), tmp_path, 0.5)
    with pytest.raises(ValueError, match="does not load with ignore_mismatched_sizes"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path, ignore_mismatched_sizes=True)


def test_a_stock_class_does_not_open_a_pruned_folder(tmp_path: Path) -> None:
    save_subnetwork(make_adaptive(model_of()), tmp_path, 0.5)
    for settings in ({}, {"ignore_mismatched_sizes": True}):
        with pytest.raises(RuntimeError, match="'num_attention_heads' is a per-layer attribute"):
            BertForSequenceClassification.from_pretrained(tmp_path, **settings)


def test_nothing_passes_a_head_mask() -> None:
    # transformers 5 swallows it without effect.
    for path in Path(extraction.__file__).parents[1].rglob("*.py"):
        names = {node.arg for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.keyword)}
        assert "head_mask" not in names, path


def test_an_unknown_part_to_skip_is_refused(tmp_path: Path) -> None:
    save_subnetwork(make_adaptive(model_of()), tmp_path, 0.5)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    config["per_layer_config"]["0"]["skip"] = ["pooler"]
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="Layer 0 is to skip pooler: only attention, mlp"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


PLAIN = """
import sys, torch
from transformers import AutoModelForSequenceClassification
trusted = sys.argv[1] == "trusted"
for folder in sys.argv[2:]:
    kept = torch.load(f"{folder}/wanted.pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=trusted)
    with torch.no_grad():
        logits = model(**kept["inputs"]).logits
    print((logits - kept["logits"]).abs().max().item())
assert not any(name.split(".")[0] == "bertkd" for name in sys.modules), "bertkd was imported"
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("trust", "sizes"),
    [
        ("trusted", [{"width": 0.25, "depth": 0.5}, {"subnetwork": UNEVEN}]),
        ("plain", [{"width": 0.25, "depth": 0.5, "format": "stock"}, {"depth": 0.75}]),
    ],
)
def test_folders_open_in_a_process_without_bertkd(trust: str, sizes: list[dict[str, Any]], tmp_path: Path) -> None:
    batch, folders = batch_of("roberta"), []
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    supernet = make_adaptive(model_of("roberta"))
    for number, size in enumerate(sizes):
        folders.append(tmp_path / str(number))
        made = save_subnetwork(supernet, folders[-1], **size)
        with torch.no_grad():
            torch.save({"inputs": inputs, "logits": made(**inputs).logits}, folders[-1] / "wanted.pt")
    command = [sys.executable, "-I", "-c", PLAIN, trust, *map(str, folders)]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert len(differences := done.stdout.split()) == 2 and all(float(one) < 1e-5 for one in differences)


@pytest.mark.parametrize("size", [Subnetwork((0, 2), (1, 4), (5, 24)), UNEVEN])
def test_extracted_models_go_on_like_any_other(size: Subnetwork, tmp_path: Path) -> None:
    made = extract_subnetwork(make_adaptive(model_of()), subnetwork=size)
    shorter = drop_layers(made, [0, len(size.layers) - 1])
    assert layer_sizes(shorter).heads == (size.heads[0], size.heads[-1])
    again = make_adaptive(copy.deepcopy(made))
    set_subnetwork(again, width=0.5)
    made.train()
    before = copy.deepcopy(made.state_dict())
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    loss_of(made, batch_of()).backward()
    optimizer.step()
    assert all(not torch.equal(before[n], t) for n, t in made.state_dict().items() if n.endswith("dense.weight"))


@pytest.mark.parametrize("name", ["TokenClassification", "QuestionAnswering", "MaskedLM"])
@pytest.mark.parametrize("family", ["Bert", "Roberta", "XLMRoberta", "Electra", "DistilBert"])
def test_other_heads_are_extracted_too(family: str, name: str, tmp_path: Path) -> None:
    import transformers

    key = {"XLMRoberta": "xlm-roberta"}.get(family, family.lower())
    model_class = getattr(transformers, f"{family}For{name}")
    torch.manual_seed(0)
    config = model_of(key, num_labels=2).config
    supernet = make_adaptive(model_class(config).eval())
    made = save_subnetwork(supernet, tmp_path, 0.5, 0.5)
    loaded = getattr(transformers, f"AutoModelFor{name}").from_pretrained(tmp_path)
    assert type(loaded).__name__ == f"Pruned{family}For{name}"
    inputs = {n: v for n, v in batch_of(key).items() if n != "labels"}
    with torch.no_grad():
        assert torch.equal(loaded(**inputs)[0], made(**inputs)[0])


# ---- search ----


def layer_costs(heads: list[float], neurons: float, fixed: float) -> Any:
    """A measure of sizes whose costs per layer are known."""

    def measure(sizes: Sequence[Subnetwork]) -> list[float]:
        return [
            fixed + sum(heads[h] for h in size.heads) + neurons * sum(size.neurons) for size in map(_checked, sizes)
        ]

    return measure


def _checked(size: Subnetwork) -> Subnetwork:
    assert len(size.layers) == len(size.heads) == len(size.neurons)
    return size


def test_a_cost_table_recovers_additive_costs() -> None:
    supernet = make_adaptive(model_of())
    table = cost_table(supernet, layer_costs([0, 1, 2.5, 3, 7], 0.1, 5), neuron_steps=4)
    assert table.fixed == pytest.approx(5)
    assert table.heads == pytest.approx({0: 0, 1: 1, 2: 2.5, 3: 3, 4: 7})
    assert table.neurons == pytest.approx({0: 0, 6: 0.6, 12: 1.2, 18: 1.8, 24: 2.4})
    assert table.cost(Subnetwork((0, 2), (1, 4), (9, 24))) == pytest.approx(5 + 1 + 7 + 0.9 + 2.4)


def test_a_cost_table_of_parameters_is_exact() -> None:
    supernet = make_adaptive(model_of())

    def parameters(sizes: Sequence[Subnetwork]) -> list[float]:
        return [sum(p.numel() for p in extract_subnetwork(supernet, subnetwork=size).parameters()) for size in sizes]

    table = cost_table(supernet, parameters)
    for size in (Subnetwork.of(supernet, 0.5, 0.75), Subnetwork((1, 2, 3), (1, 4, 2), (2, 12, 24))):
        assert table.cost(size) == pytest.approx(parameters([size])[0])


def test_a_noisy_clock_gives_a_rising_table() -> None:
    noise = iter([0.3, -0.2, 0.5, -0.4] * 20)
    exact = layer_costs([0, 1, 1.1, 1.2, 1.3], 0.01, 2)
    table = cost_table(make_adaptive(model_of()), lambda sizes: [cost + next(noise) for cost in exact(sizes)])
    for costs in (table.heads, table.neurons):
        values = [costs[size] for size in sorted(costs)]
        assert values == sorted(values) and values[0] >= 0


def descending(seed: int = 3) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    heads, neurons = torch.rand(4, 4, generator=generator) ** 3, torch.rand(4, 24, generator=generator) ** 3
    return Importance(heads.sort(descending=True).values, neurons.sort(descending=True).values)


def brute_force(table: CostTable, importance: Importance, budget: float, layers: tuple[int, ...]) -> float:
    """The most that can be retained by any distribution of heads and neurons over these layers."""
    best = -1.0
    for heads in product(range(1, 5), repeat=len(layers)):
        for neurons in product((8, 16, 24), repeat=len(layers)):
            if table.cost(Subnetwork(layers, heads, neurons)) <= budget:
                kept = 0.0
                for layer, h, n in zip(layers, heads, neurons, strict=True):
                    kept += (importance.heads[layer, :h].sum() / importance.heads[layer].sum()).item()
                    kept += (importance.neurons[layer, :n].sum() / importance.neurons[layer].sum()).item()
                best = max(best, kept / 8)
    return best


def test_the_search_finds_the_best_distribution() -> None:
    supernet, importance = make_adaptive(model_of()), descending()
    table = cost_table(supernet, layer_costs([0, 1, 2.5, 3, 7], 0.1, 5), neuron_steps=3)
    for budget in (12.0, 20.0, 30.0):
        found = search_subnetworks(supernet, importance, table, budget, neuron_steps=3)
        assert found == sorted(found, key=lambda one: -one.score)
        assert all(one.cost <= budget and one.cost == table.cost(one.size) for one in found)
        for one in found:
            if one.kind == "per layer" and len(one.size.layers) <= 2:
                exact = brute_force(table, importance, budget, one.size.layers)
                assert one.score == pytest.approx(exact, abs=1e-3)
        for one in found:
            set_subnetwork(supernet, subnetwork=one.size)  # it exists
    everything = search_subnetworks(supernet, importance, table, 1000.0, neuron_steps=3)[0]
    assert everything.score == pytest.approx(1) and everything.size == Subnetwork.of(supernet)


def test_a_budget_that_nothing_meets_is_answered_with_the_smallest() -> None:
    supernet = make_adaptive(model_of())
    table = cost_table(supernet, layer_costs([0, 1, 2.5, 3, 7], 0.1, 5), neuron_steps=3)
    with pytest.raises(ValueError, match="meets a budget of 6: the smallest one.* 8 neurons, takes 6.8"):
        search_subnetworks(supernet, descending(), table, 6.0, neuron_steps=3)
    with pytest.raises(ValueError, match="the smallest one"):
        search_subnetworks(supernet, descending(), table, 1.0, neuron_steps=3)
    with pytest.raises(ValueError, match="search_subnetworks needs a supernet"):
        search_subnetworks(model_of(), descending(), table, 6.0)
    with pytest.raises(ValueError, match="cost_table needs a supernet whose layers are alike"):
        cost_table(make_adaptive(prune(model_of(), [1, 4, 4, 4], [24] * 4)), layer_costs([0] * 5, 0.1, 5))
