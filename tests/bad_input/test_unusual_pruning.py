"""Unusual models that pruning takes as they are."""

import pytest
import torch
from helpers import tiny_model

from bad_input.api_pruning import cut, pruned, rows
from bertkd.efficiency import count_parameters
from bertkd.pruning import reconstruct, unit_scores


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_is_pruned_and_stays_so(dtype: torch.dtype) -> None:
    model = tiny_model().to(dtype)
    scores, expected = unit_scores(model, rows()), unit_scores(tiny_model(), rows())
    for ours, theirs in ((scores.heads, expected.heads), (scores.neurons, expected.neurons)):
        torch.testing.assert_close(ours, theirs, rtol=0.05, atol=0.02 * float(theirs.max()))

    student = cut(model)
    assert student.dtype == model.dtype == dtype
    assert count_parameters(student).total <= 5_000 < count_parameters(model).total
    fitted = reconstruct(pruned().to(dtype), tiny_model(), rows())
    assert fitted.dtype == dtype and all(value.isfinite().all() for value in fitted.state_dict().values())
