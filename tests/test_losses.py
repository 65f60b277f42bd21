"""Losses against numbers worked out by hand, and their gradients."""

import math

import pytest
import torch

from bertkd.losses import kd_kl, logits_mse, patient_loss, soft_cross_entropy

LN2, LN3 = math.log(2), math.log(3)


def logits_of(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_kl_of_two_known_distributions() -> None:
    # KL((3/4, 1/4) || (1/2, 1/2)) = 3/4 ln(3/2) + 1/4 ln(1/2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd_kl(logits_of(0.5, 0.5), logits_of(0.75, 0.25), 1.0).item() == pytest.approx(expected, rel=1e-6)


def test_mean_divides_by_the_classes_too() -> None:
    student, teacher = logits_of(0.2, 0.3, 0.5), logits_of(0.6, 0.3, 0.1)
    ratio = kd_kl(student, teacher, 4.0, "batchmean") / kd_kl(student, teacher, 4.0, "mean")
    assert ratio.item() == pytest.approx(3.0, rel=1e-6)


def test_kl_is_averaged_over_rows() -> None:
    one = kd_kl(logits_of(0.5, 0.5), logits_of(0.75, 0.25), 1.0)
    rows = kd_kl(torch.zeros(4, 2), logits_of(0.75, 0.25).repeat(4, 1), 1.0)
    assert rows.item() == pytest.approx(one.item(), rel=1e-6)


def test_temperature_divides_logits_and_its_square_multiplies_the_loss() -> None:
    # Teacher logits 2 ln 3 and 0 at T = 2 are the distribution (3/4, 1/4).
    teacher = torch.tensor([[2 * LN3, 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_kl(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(expected, rel=1e-6)


def test_kl_gradient_is_the_difference_of_softmaxes_times_the_temperature() -> None:
    # d(T² KL)/dz_s = T (p_s - p_t); for one row "batchmean" leaves it so.
    student = torch.tensor([[1.0, -0.5, 0.3]], requires_grad=True)
    teacher = torch.tensor([[0.2, 1.4, -1.0]])
    kd_kl(student, teacher, 3.0).backward()
    expected = 3.0 * ((student.detach() / 3).softmax(-1) - (teacher / 3).softmax(-1))
    torch.testing.assert_close(student.grad, expected)


def test_soft_cross_entropy_has_no_squared_temperature() -> None:
    # Teacher (3/4, 1/4) at T = 2, student uniform: the cross entropy is ln 2.
    teacher = torch.tensor([[2 * LN3, 0.0]])
    assert soft_cross_entropy(torch.zeros(1, 2), teacher, 2.0).item() == pytest.approx(LN2, rel=1e-6)
    assert soft_cross_entropy(torch.zeros(1, 2), teacher, 2.0, "mean").item() == pytest.approx(LN2 / 2, rel=1e-6)


def test_soft_cross_entropy_gradient_is_that_of_kl_without_its_factor() -> None:
    teacher = torch.tensor([[0.2, 1.4, -1.0]])
    gradients = []
    for loss in (soft_cross_entropy, kd_kl):
        student = torch.tensor([[1.0, -0.5, 0.3]], requires_grad=True)
        loss(student, teacher, 5.0).backward()
        gradients.append(student.grad)
    torch.testing.assert_close(gradients[0] * 25, gradients[1])


# Two rows, two layers, hidden size 2. Unit vectors, so that normalizing changes only the second row's student.
STUDENT = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[2.0, 0.0], [0.0, 3.0]]])
TEACHER = torch.tensor([[[0.0, 1.0], [0.0, 1.0]], [[1.0, 0.0], [0.0, -1.0]]])


def test_patient_loss_of_normalized_states() -> None:
    # Squared distances by row and layer: 2, 0, 0, 4.
    assert patient_loss(STUDENT, TEACHER).item() == pytest.approx(6 / 8)
    assert patient_loss(STUDENT, TEACHER, reduction="batchmean").item() == pytest.approx(6 / 2)


def test_patient_loss_of_states_as_they_are() -> None:
    # 2, 0, 1, 16.
    assert patient_loss(STUDENT, TEACHER, normalize=False).item() == pytest.approx(19 / 8)


def test_paper_and_code_differ_by_layers_times_hidden_size() -> None:
    student, teacher = torch.randn(5, 3, 7), torch.randn(5, 3, 7)
    paper = patient_loss(student, teacher, reduction="batchmean")
    assert (paper / patient_loss(student, teacher)).item() == pytest.approx(3 * 7, rel=1e-5)


def test_patient_gradient_by_hand() -> None:
    student = STUDENT.clone().requires_grad_()
    patient_loss(student, TEACHER, normalize=False).backward()
    torch.testing.assert_close(student.grad, 2 * (STUDENT - TEACHER) / 8)


def test_normalized_gradient_is_orthogonal_to_the_state() -> None:
    student = torch.randn(4, 2, 6, requires_grad=True)
    patient_loss(student, torch.randn(4, 2, 6)).backward()
    torch.testing.assert_close((student.grad * student.detach()).sum(-1), torch.zeros(4, 2), atol=1e-7, rtol=0)


def test_logits_mse_by_hand() -> None:
    assert logits_mse(torch.tensor([[1.0], [4.0]]), torch.tensor([[0.0], [1.0]])).item() == pytest.approx(5.0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_float32_under_autocast_and_do_not_overflow(dtype: torch.dtype) -> None:
    states = torch.full((2, 1, 4), 300.0).to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        patient = patient_loss(states, -states, normalize=False)
        soft = kd_kl(logits_of(0.5, 0.5).to(dtype), logits_of(0.75, 0.25).to(dtype), 1.0)
    assert patient.dtype == soft.dtype == torch.float32
    assert patient.item() == 600.0**2  # the authors' half precision stops at 65,504


@pytest.mark.parametrize("loss", [soft_cross_entropy, kd_kl, logits_mse])
def test_logits_of_other_shapes_are_refused(loss) -> None:
    with pytest.raises(ValueError, match=r"\(4, 2\).*\(4, 3\)"):
        loss(torch.zeros(4, 2), torch.zeros(4, 3))


def test_states_that_would_broadcast_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(4, 3, 8\).*\(4, 1, 8\)"):
        patient_loss(torch.zeros(4, 3, 8), torch.zeros(4, 1, 8))
    with pytest.raises(ValueError, match="batch, layers, hidden"):
        patient_loss(torch.zeros(4, 8), torch.zeros(4, 8))


def test_unknown_reductions_and_temperatures_are_refused() -> None:
    with pytest.raises(ValueError, match='"batchmean" or "mean", not \'sum\''):
        kd_kl(torch.zeros(1, 2), torch.zeros(1, 2), 1.0, "sum")
    with pytest.raises(ValueError, match="greater than 0, not 0"):
        soft_cross_entropy(torch.zeros(1, 2), torch.zeros(1, 2), 0.0)
