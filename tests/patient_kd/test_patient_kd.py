"""Patient-KD: what its loss is made of, and what it refuses."""

from pathlib import Path
from typing import Any

import helpers
import pytest
import torch
import torch.nn.functional as F
from helpers import Collator, dataset, rows, tiny_model

from bertkd import PatientKDConfig, PatientKDTrainer, losses

SETTINGS = helpers.SETTINGS | {"learning_rate": 0.05, "warmup_steps": 1}


def make_trainer(output_dir: Path, hidden: int = 16, **changes: Any) -> PatientKDTrainer:
    settings = {**SETTINGS, "beta": 1.0, "kd_reduction": "batchmean", **changes}
    return PatientKDTrainer(
        model=tiny_model(layers=3, hidden=hidden, seed=1),
        teacher_model=tiny_model(layers=6, seed=2, dropout=0.5),
        args=PatientKDConfig(output_dir=str(output_dir), **settings),
        train_dataset=dataset(44),
        data_collator=Collator(),
    )


def test_the_loss_is_the_formula(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, alpha=0.3, temperature=4.0, beta=2.5)
    batch = Collator()(rows(8))
    loss = trainer.compute_loss(trainer.model, batch)
    labels = batch.pop("labels")
    student = trainer.model(**batch, output_hidden_states=True)
    teacher = tiny_model(layers=6, seed=2)(**batch, output_hidden_states=True)
    ps, pt = (F.log_softmax(x.logits / 4, -1) for x in (student, teacher))
    soft = 16 * (pt.exp() * (pt - ps)).sum() / 8
    patience = 0.0
    for s, t in ((1, 2), (2, 4)):
        difference = F.normalize(student.hidden_states[s][:, 0]) - F.normalize(teacher.hidden_states[t][:, 0])
        patience = patience + difference.square().sum() / (8 * 2 * 16)
    expected = 0.7 * F.cross_entropy(student.logits, labels) + 0.3 * soft + 2.5 * patience
    torch.testing.assert_close(loss, expected)


def test_paper_reductions(tmp_path: Path) -> None:
    trainer = make_trainer(tmp_path, reductions="paper", alpha=1.0, beta=3.0, temperature=5.0)
    batch = Collator()(rows(8))
    loss = trainer.compute_loss(trainer.model, batch)
    batch.pop("labels")
    student = trainer.model(**batch, output_hidden_states=True)
    teacher = trainer.teacher_model(**batch, output_hidden_states=True)
    soft = losses.soft_cross_entropy(student.logits, teacher.logits, 5.0)
    pairs = [(student.hidden_states[s][:, 0], teacher.hidden_states[t][:, 0]) for s, t in ((1, 2), (2, 4))]
    distances = [(F.normalize(s) - F.normalize(t)).square().sum(-1).mean() for s, t in pairs]
    torch.testing.assert_close(loss, soft + 3.0 * sum(distances))


def test_the_authors_code_divides_the_soft_term_by_the_classes(tmp_path: Path) -> None:
    batch = Collator()(rows(8))
    values = []
    for reduction in ("batchmean", "mean"):
        trainer = make_trainer(tmp_path, alpha=1.0, beta=0.0, kd_reduction=reduction)
        values.append(trainer.compute_loss(trainer.model, dict(batch)).item())
    assert values[0] / values[1] == pytest.approx(3.0, rel=1e-5)
    assert PatientKDConfig(output_dir=str(tmp_path), use_cpu=True).kd_reduction == "mean"


def test_different_hidden_sizes_need_the_projection(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="student's hidden size is 8 and the teacher's 16.*project_hidden"):
        make_trainer(tmp_path, hidden=8)


def test_a_layer_map_that_does_not_fit_is_refused_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="student has 3 layers and the teacher 6"):
        make_trainer(tmp_path, strategy="1:2,2:7")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"beta": -1}, "beta .* must not be negative"),
        ({"reductions": "mine"}, "reductions must be one of code, paper"),
        ({"strategy": "first"}, "Cannot read the layer map 'first'"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        PatientKDConfig(output_dir=str(tmp_path), use_cpu=True, **settings)
