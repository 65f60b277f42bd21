"""Weights and activations that are rounded to int8's steps while a model is trained."""

import pytest
import torch
from helpers import tiny_model
from torch import nn

from bertkd.models.fake_quantized import FakeQuantizedLinear, fake_quantized, rounded_activations, rounded_weight


def test_a_weight_is_rounded_to_steps_of_its_own_row() -> None:
    # The first row has steps of 0.01, the second one of 1; a row of zeros stays as it is.
    weight = torch.tensor([[1.27, 0.314, -0.008], [127.0, 0.4, -63.7], [0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.27, 0.31, -0.01], [127.0, 0.0, -64.0], [0.0, 0.0, 0.0]])
    torch.testing.assert_close(rounded_weight(weight), expected)


def test_weights_may_have_half_of_the_range() -> None:
    weight = torch.tensor([[0.63, 0.314, -0.008]])
    torch.testing.assert_close(rounded_weight(weight, 63), torch.tensor([[0.63, 0.31, -0.01]]))
    linear = nn.Linear(4, 3)
    with fake_quantized(linear, has_half_range=True):
        steps = rounded_weight(linear.weight, linear.weight_steps) / linear.weight.abs().amax(1, keepdim=True) * 63
    assert torch.allclose(steps, steps.round(), atol=1e-4) and steps.abs().max().item() == pytest.approx(63)
    assert type(linear) is nn.Linear and not hasattr(linear, "weight_steps")


def test_activations_are_rounded_to_steps_of_all_of_them() -> None:
    # From -1 to 1.55 in 255 steps of 0.01.
    values = torch.tensor([[-1.0, 0.0], [0.104, 1.55]])
    torch.testing.assert_close(rounded_activations(values), torch.tensor([[-1.0, 0.0], [0.10, 1.55]]))
    # 0 is among the steps, though no value is below 0.51: the steps are 2.55 / 255.
    positive = torch.tensor([0.512, 2.55])
    torch.testing.assert_close(rounded_activations(positive), torch.tensor([0.51, 2.55]))
    assert not rounded_activations(torch.zeros(3)).any()


def test_gradients_pass_as_if_nothing_was_rounded() -> None:
    linear = nn.Linear(4, 3)
    inputs = torch.randn(5, 4, requires_grad=True)
    grads = torch.autograd.grad(linear(inputs).sum(), [inputs, linear.weight, linear.bias])
    with fake_quantized(linear):
        rounded = torch.autograd.grad(linear(inputs).sum(), [inputs, linear.weight, linear.bias])
    torch.testing.assert_close(rounded[0], rounded_weight(linear.weight).sum(0).expand(5, 4))
    torch.testing.assert_close(rounded[1], rounded_activations(inputs).sum(0).expand(3, 4))
    torch.testing.assert_close(rounded[2], grads[2])


@pytest.mark.parametrize("family", ["bert", "distilbert", "electra", "mpnet"])
def test_only_within_the_block_a_model_is_rounded(family: str) -> None:
    model = tiny_model(family).eval()
    names, ids = list(model.state_dict()), torch.arange(3, 11)[None]
    before = model(input_ids=ids).logits

    def rounded_run() -> None:
        with fake_quantized(model):
            assert list(model.state_dict()) == names
            assert any(type(module) is FakeQuantizedLinear for module in model.modules())
            assert not any(type(module) is nn.Linear for module in model.modules())
            rounded = model(input_ids=ids).logits
            assert 0 < (rounded - before).abs().max() < 0.5
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        rounded_run()
    assert torch.equal(model(input_ids=ids).logits, before)


def test_the_roundings_are_in_float32_under_autocast() -> None:
    linear, inputs = nn.Linear(8, 8, bias=False), torch.randn(4, 8)
    with fake_quantized(linear), torch.autocast("cpu", torch.bfloat16):
        outputs = linear(inputs)
    expected = rounded_activations(inputs) @ rounded_weight(linear.weight).T
    assert outputs.dtype == torch.bfloat16
    torch.testing.assert_close(outputs.float(), expected, rtol=2e-2, atol=2e-2)
