"""Tokenizers leave without the truncation and padding of a training, whoever saves them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import SETTINGS, dataset, tiny_model, word_tokenizer
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.dynabert import make_adaptive
from bertkd.dynabert.extraction import save_subnetwork
from bertkd.export import write_export
from bertkd.models.positions import max_tokens
from bertkd.models.tokenizer_files import save_tokenizer
from bertkd.pipeline.training import save_model
from bertkd.students import prune_vocabulary

LONG_TEXT = "w1 w2 w3 w4 w5 w6 w7 w8"


def tokenizer_of_a_training(folder: Path) -> Any:
    """A tokenizer that has cut and padded texts, as it does while a task is tokenized."""
    tokenizer = word_tokenizer(folder)
    tokenizer(["w1 w2 w3 w4"], truncation=True, max_length=4, padding="max_length")
    return tokenizer


def trained(tokenizer: Any, folder: Path) -> None:
    config = DistillationConfig(output_dir=str(folder), alpha=0.0, max_steps=1, **SETTINGS)
    trainer = DistillationTrainer(tiny_model(), args=config, train_dataset=dataset(8), processing_class=tokenizer)
    save_model(trainer, folder)


def pruned_vocabulary(tokenizer: Any, folder: Path) -> None:
    _, smaller = prune_vocabulary(tiny_model(), tokenizer, [LONG_TEXT])
    save_tokenizer(smaller, folder, tiny_model().config)


SAVERS: dict[str, Callable[[Any, Path], Any]] = {
    "a trainer": trained,
    "an export": lambda tokenizer, folder: write_export(tiny_model(), folder, "pytorch", "float32", tokenizer),
    "a sub-network": lambda tokenizer, folder: save_subnetwork(
        make_adaptive(tiny_model()), folder, 0.5, tokenizer=tokenizer
    ),
    "a smaller vocabulary": pruned_vocabulary,
}


@pytest.mark.parametrize("saver", SAVERS)
def test_a_plain_client_reads_whole_texts(saver: str, tmp_path: Path) -> None:
    tokenizer = tokenizer_of_a_training(tmp_path)
    SAVERS[saver](tokenizer, tmp_path / "out")

    # A client that knows nothing of transformers.
    plain = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    assert len(plain.encode(LONG_TEXT).ids) == 10 and len(plain.encode("w1").ids) == 3
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert "max_length" not in settings and settings["model_max_length"] == 40

    # With transformers, `truncation=True` cuts to what the model takes.
    ids = AutoTokenizer.from_pretrained(tmp_path / "out")("w1 " * 100, truncation=True)["input_ids"]
    assert len(ids) == 40


def test_the_saved_tokenizer_goes_on_as_it_was(tmp_path: Path) -> None:
    tokenizer = tokenizer_of_a_training(tmp_path)
    before = tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length
    save_tokenizer(tokenizer, tmp_path / "out", tiny_model().config)
    assert (tokenizer.backend_tokenizer.to_str(), tokenizer.model_max_length) == before

    # What an older version saved with a truncation loses it as soon as it is saved again.
    tokenizer.save_pretrained(tmp_path / "old")
    save_tokenizer(AutoTokenizer.from_pretrained(tmp_path / "old"), tmp_path / "new")
    assert json.loads((tmp_path / "new" / "tokenizer.json").read_text())["truncation"] is None
    assert "max_length" not in json.loads((tmp_path / "new" / "tokenizer_config.json").read_text())


def test_a_tokenizers_own_limit_stays_where_it_is_lower(tmp_path: Path) -> None:
    tokenizer = word_tokenizer(tmp_path)
    tokenizer.model_max_length = 16
    save_tokenizer(tokenizer, tmp_path / "out", tiny_model().config)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 16


def test_the_positions_of_roberta_begin_after_the_padding() -> None:
    assert max_tokens(tiny_model("roberta").config) == 38 and max_tokens(tiny_model().config) == 40
