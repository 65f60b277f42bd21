"""Runners refuse what a model cannot read, before an engine answers for it."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import tiny_model
from torch import Tensor

from bertkd.efficiency import Runner, TorchRunner
from bertkd.export import open_exported, write_export

GRAPHS = ("onnxruntime", "openvino")


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Runner]:
    """Opens a tiny model of 40 positions in an engine, with one thread."""
    folders: dict[str, Path] = {}

    def open_engine(engine: str) -> Runner:
        if engine not in folders:
            folders[engine] = write_export(tiny_model(), tmp_path_factory.mktemp(engine), engine, "float32")
        return open_exported(folders[engine], threads=1)

    return open_engine


def batch(rows: int = 1, tokens: int = 5, **changes: Tensor) -> dict[str, Tensor]:
    ids = torch.full((rows, tokens), 7)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), **changes}


UNREADABLE = {
    "a row beyond the positions": (batch(tokens=41), "A row has 41 tokens, and the model takes 40: cut the texts"),
    "a row without a token": (batch(tokens=0), r"have the shape \(1, 0\): give at least one row of at least one"),
    "no row": (batch(rows=0), r"have the shape \(0, 5\)"),
    "no second dimension": ({"input_ids": torch.tensor([7, 7])}, r"have the shape \(2,\).*as \(B, T\)"),
    "a row of padding": (batch(attention_mask=torch.zeros(1, 5, dtype=torch.long)), "Row 0 has no token"),
    "an id that does not exist": (batch(input_ids=torch.full((1, 5), 50)), "no token id 50, the model knows 0 to 49"),
    "a negative id": (batch(input_ids=torch.full((1, 5), -100)), "no token id -100"),
    "a token type that does not exist": (batch(token_type_ids=torch.full((1, 5), 2)), "no token type 2.* 0 to 1"),
    "a mask of another shape": (
        batch(attention_mask=torch.ones(1, 3).long()),
        r"attention_mask has the shape \(1, 3\)",
    ),
    "no ids": ({"attention_mask": torch.ones(1, 5)}, "have no input_ids, only attention_mask"),
    "ids that are no whole numbers": (batch(input_ids=torch.ones(1, 5)), "are of type torch.float32"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("engine", ["pytorch", *GRAPHS])
def test_what_a_model_cannot_read_is_a_sentence_in_every_engine(
    name: str, engine: str, opened: Callable[[str], Runner]
) -> None:
    inputs, message = UNREADABLE[name]
    runner = opened(engine)
    # OpenVINO would answer with these logits.
    runner(batch())
    with pytest.raises(ValueError, match=message):
        runner(inputs)


@pytest.mark.parametrize("engine", GRAPHS)
def test_inputs_of_other_types_and_missing_ones_mean_the_same_in_every_engine(
    engine: str, opened: Callable[[str], Runner]
) -> None:
    ids = torch.randint(3, 50, (2, 40), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[1, 20:] = 0
    runner, reference = opened(engine), TorchRunner(tiny_model())

    for inputs in (
        {"input_ids": ids},
        {"input_ids": ids.int(), "attention_mask": mask.bool()},
        {"input_ids": ids, "attention_mask": mask.float()},
        {"input_ids": ids, "attention_mask": mask, "token_type_ids": (ids > 20).long()},
    ):
        torch.testing.assert_close(runner(inputs), reference(inputs), rtol=1e-3, atol=1e-4)


def test_a_row_of_roberta_is_two_tokens_shorter_than_its_positions() -> None:
    runner = TorchRunner(tiny_model("roberta"))
    assert runner(batch(tokens=38)).shape == (1, 3)
    with pytest.raises(ValueError, match="A row has 39 tokens, and the model takes 38"):
        runner(batch(tokens=39))
