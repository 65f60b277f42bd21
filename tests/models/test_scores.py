"""Attention scores of stock models, and the loss between them."""

import math
import threading
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import PAD, VOCABULARY, tiny_model
from torch import Tensor
from transformers import PreTrainedModel

from bertkd import losses
from bertkd.dynabert import make_adaptive, set_subnetwork
from bertkd.models import FAMILIES, attention_scores, encoder_layers
from bertkd.students import prune


def inputs_of(family: str = "bert", seed: int = 0, padded: bool = True) -> dict[str, Tensor]:
    ids = torch.randint(3, VOCABULARY, (3, 7), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    if padded:
        ids[1, 4:], mask[1, 4:] = PAD[family], 0
    return {"input_ids": ids, "attention_mask": mask}


def hooks_of(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", FAMILIES)
def test_scores_give_the_probabilities_of_eager_attention(family: str, attention: str, padded: bool) -> None:
    if family == "mpnet" and attention == "sdpa":
        pytest.skip("transformers has only eager attention for MPNet")
    model = tiny_model(family, layers=3, attn_implementation=attention)
    assert model.config._attn_implementation == attention
    inputs, before = inputs_of(family, padded=padded), hooks_of(model)
    plain = model(**inputs, output_hidden_states=True)
    hooked = hooks_of(model)  # transformers installs its own for hidden states
    with attention_scores(model) as captured:
        outputs = model(**inputs, output_hidden_states=True)

    assert torch.equal(outputs.logits, plain.logits) and before <= hooks_of(model) == hooked
    for one, other in zip(outputs.hidden_states, plain.hidden_states, strict=True):
        assert torch.equal(one, other)
    eager = tiny_model(family, layers=3, attn_implementation="eager")
    probabilities = eager(**inputs, output_attentions=True).attentions

    assert len(captured.scores) == 3
    for scores, wanted in zip(captured.scores, probabilities, strict=True):
        assert scores.shape == (3, 2, 7, 7)
        torch.testing.assert_close(scores.softmax(-1), wanted, rtol=0, atol=1e-6)
        if padded:
            assert (scores[1, :, :, 4:] < -1e30).all() and (scores[1, :, :, :4].abs() < 1e3).all()


def test_scores_are_those_of_the_formula() -> None:
    model = tiny_model()
    inputs = inputs_of(padded=False)
    with attention_scores(model, layers=[1]) as captured:
        hidden = model(**inputs, output_hidden_states=True).hidden_states
    (scores,) = captured.scores
    attention = encoder_layers(model)[1].attention.self
    query, key = attention.query(hidden[1]), attention.key(hidden[1])
    wanted = query[0, 2, 8:] @ key[0, 5, 8:] / math.sqrt(8)  # row 0, head 1, from token 2 to token 5
    assert scores[0, 1, 2, 5].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_chosen_layers_come_in_the_order_asked_for() -> None:
    model, inputs = tiny_model(layers=4), inputs_of()
    with attention_scores(model) as every, attention_scores(model, layers=[3, 0]) as some:
        model(**inputs)
    assert torch.equal(some.scores[0], every.scores[3]) and torch.equal(some.scores[1], every.scores[0])


@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_flow_into_the_model(checkpointing: bool) -> None:
    model = tiny_model().train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    with attention_scores(model) as captured:
        model(**inputs_of(padded=False))
    torch.stack([scores.square().mean() for scores in captured.scores]).sum().backward()
    for layer in encoder_layers(model):
        assert layer.attention.self.query.weight.grad.abs().max() > 0
        assert layer.attention.self.key.weight.grad.abs().max() > 0
    assert model.classifier.weight.grad is None


def test_another_thread_is_not_seen() -> None:
    model, ours, theirs = tiny_model(), inputs_of(), inputs_of(seed=1)
    with attention_scores(model) as alone:
        model(**ours)
    wanted = alone.scores
    with attention_scores(model) as captured:
        model(**ours)
        other = threading.Thread(target=lambda: model(**theirs))
        other.start()
        other.join()
    assert all(torch.equal(one, two) for one, two in zip(captured.scores, wanted, strict=True))


def test_nothing_stays_behind_after_an_error() -> None:
    model = tiny_model()
    before = hooks_of(model)
    with pytest.raises(KeyError), attention_scores(model):
        raise KeyError
    assert hooks_of(model) == before


def test_a_model_that_did_not_run_has_no_scores() -> None:
    model = tiny_model()
    with attention_scores(model) as captured:
        pass
    model(**inputs_of())
    with pytest.raises(RuntimeError, match="Layers 0, 1 did not run: call the model inside"):
        captured.scores  # noqa: B018


def test_layers_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ValueError, match="layers 0 to 1, not 2, 7"), attention_scores(tiny_model(), [2, 0, 7]):
        pass
    pruned = prune(tiny_model(), [0, 2], [24, 24])
    with pytest.raises(ValueError, match="Layer 0 has no attention"), attention_scores(pruned):
        pass


def test_pruned_and_adaptive_models_have_scores_of_their_heads() -> None:
    model, inputs = tiny_model(), inputs_of()
    small = prune(model, [1, 2], [24, 24])
    with attention_scores(small) as captured:
        small(**inputs)

    assert [scores.shape[1] for scores in captured.scores] == [1, 2]
    supernet = make_adaptive(model)
    set_subnetwork(supernet, width=0.5)
    with attention_scores(supernet) as adaptive:
        supernet(**inputs)
    assert torch.equal(adaptive.scores[0], captured.scores[0])


# ---- the loss ----


def test_attention_score_loss_by_hand() -> None:
    low = torch.finfo(torch.float32).min
    student = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]], [[[1.0, low], [2.0, low]]]])  # row 1: key 1 is padding
    teacher = torch.tensor([[[[0.0, 0.0], [1.0, 1.0]]], [[[3.0, low], [-150.0, low]]]])
    mask = torch.tensor([[1, 1], [1, 0]])

    # Squared: row 0: 1, 4, 4, 9; row 1: 4, 0 (both masked), 4 (-150 counts as 0), 0.
    assert losses.attention_score_loss([student], [teacher]).item() == pytest.approx(26 / 8)
    assert losses.attention_score_loss([student] * 2, [teacher] * 2).item() == pytest.approx(2 * 26 / 8)
    assert losses.attention_score_loss([student], [teacher], mask).item() == pytest.approx(22 / 5)

    by_rows = losses.attention_score_loss([student], [teacher], mask, reduction="rows")
    assert by_rows.item() == pytest.approx((18 / 4 + 4) / 2)


def test_padding_does_not_count_with_a_mask() -> None:
    student, teacher = tiny_model(seed=1), tiny_model(seed=2)

    def loss(length: int, mask_padding: bool) -> float:
        ids = torch.arange(3, 9)[None]
        padded = {
            "input_ids": F.pad(ids, (0, length - 6)),
            "attention_mask": F.pad(torch.ones_like(ids), (0, length - 6)),
        }
        found: list[Any] = []
        for model in (student, teacher):
            with attention_scores(model) as captured:
                model(**padded)
            found.append(captured.scores)
        return losses.attention_score_loss(*found, padded["attention_mask"] if mask_padding else None).item()

    assert loss(6, True) == pytest.approx(loss(11, True), rel=1e-4)
    assert loss(6, False) != pytest.approx(loss(11, False), rel=1e-2)


def test_masked_scores_send_no_gradient() -> None:
    student = torch.tensor([[[[1.0, -200.0]]]], requires_grad=True)
    losses.attention_score_loss([student], [torch.tensor([[[[0.0, 5.0]]]])]).backward()
    assert student.grad.flatten().tolist() == [1.0, 0.0]


def test_attention_factor_loss_by_hand() -> None:
    # One head: scores [[1, 2], [2, 4]] against [[3, 0], [0, 0]]; the second row's other token is padding.
    query, key = torch.tensor([[[[1.0], [2.0]]]] * 2), torch.tensor([[[[1.0], [2.0]]]] * 2)
    teacher = torch.tensor([[[[3.0], [0.0]]]] * 2), torch.tensor([[[[1.0], [0.0]]]] * 2)
    mask = torch.tensor([[1, 1], [1, 0]])
    loss = losses.attention_factor_loss

    assert loss([(query, key)], [teacher]).item() == pytest.approx((4 + 4 + 4 + 16) / 4)
    assert loss([(query, key)] * 3, [teacher] * 3).item() == pytest.approx(3 * 7)
    assert loss([(query, key)], [teacher], mask).item() == pytest.approx((28 + 4) / 5)
    assert loss([(query, key)], [teacher], mask, reduction="rows").item() == pytest.approx((28 / 4 + 4) / 2)


@pytest.mark.parametrize("tokens", [5, 13])  # each of the two ways is the cheaper one
@pytest.mark.parametrize("reduction", ["mean", "rows"])
@pytest.mark.parametrize("is_masked", [False, True])
def test_the_loss_on_factors_is_that_on_their_scores(tokens: int, reduction: str, is_masked: bool) -> None:
    torch.manual_seed(0)
    sizes = (2, 2, 3, 3)  # query and key of the student, of the teacher
    factors = [torch.randn(3, 2, tokens, size, requires_grad=True) for size in sizes]
    mask = torch.ones(3, tokens)
    if is_masked:
        mask[1, 2:], mask[2, 4:] = 0, 0
    student, teacher = factors[0] @ factors[1].mT, factors[2] @ factors[3].mT
    wanted = losses.attention_score_loss([student], [teacher], mask, reduction)
    given = ([tuple(factors[:2])], [tuple(factors[2:])])
    found = losses.attention_factor_loss(*given, mask if is_masked else None, reduction)

    torch.testing.assert_close(found, wanted)
    gradients = (torch.autograd.grad(loss, factors) for loss in (found, wanted))
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_loss_of_equal_factors_is_nothing_beside_their_scores() -> None:
    torch.manual_seed(0)
    factors = [(10 * torch.randn(2, 2, 40, 4), torch.randn(2, 2, 40, 4))]
    scores = factors[0][0] @ factors[0][1].mT
    assert abs(losses.attention_factor_loss(factors, factors).item()) < 1e-5 * scores.square().mean().item()


def test_the_factors_are_those_of_the_scores() -> None:
    model = tiny_model()
    ids = torch.arange(3, 9)[None]
    with attention_scores(model, [1]) as captured:
        with pytest.raises(RuntimeError, match="Layers 1 did not run"):
            captured.factors  # noqa: B018
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    ((query, key),) = captured.factors

    torch.testing.assert_close(query @ key.mT, captured.scores[0])
    assert query.shape == key.shape == (1, 2, 6, 8)


def test_attention_score_loss_refuses_what_does_not_fit() -> None:
    factors = (torch.zeros(1, 2, 3, 5), torch.zeros(1, 2, 3, 5))
    with pytest.raises(ValueError, match="attention_factor_loss: the student has 1 levels and the teacher 0"):
        losses.attention_factor_loss([factors], [])
    with pytest.raises(ValueError, match=r"\(1, 2, 3\) and the teacher's \(1, 4, 3\)"):
        losses.attention_factor_loss([factors], [(torch.zeros(1, 4, 3, 2), torch.zeros(1, 4, 3, 2))])
    with pytest.raises(ValueError, match=r"a query has shape \(1, 2, 3, 4\) and its key \(1, 2, 3, 6\)"):
        losses.attention_factor_loss([(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 6))], [factors])

    scores = torch.zeros(1, 2, 3, 3)
    with pytest.raises(ValueError, match="attention_score_loss: the student has 1 levels and the teacher 2"):
        losses.attention_score_loss([scores], [scores, scores])
    with pytest.raises(ValueError, match=r"\(1, 2, 3, 3\) and the teacher's \(1, 4, 3, 3\)"):
        losses.attention_score_loss([scores], [torch.zeros(1, 4, 3, 3)])
    with pytest.raises(ValueError, match='"mean" or "rows"'):
        losses.attention_score_loss([scores], [scores], reduction="sum")
