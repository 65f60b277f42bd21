"""The vocabulary of a domain: what is kept, renumbered and refused."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import tiny_model
from tiny_students import table_of
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForMaskedLM,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertForMaskedLM,
    ElectraForMaskedLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaForMaskedLM,
)

from bertkd.students import factorize, prune_vocabulary, share_layers

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "##a", "##b", "good", "##ness", "bad", "film", "#"]


@pytest.fixture
def tokenizer(tmp_path: Path) -> BertTokenizer:
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES))
    return BertTokenizer(str(tmp_path / "vocab.txt"))


def pieces_and_logits(model: PreTrainedModel, tokenizer: Any, *texts: Any) -> tuple[list[list[str]], Tensor]:
    batch = tokenizer(*texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        return [tokenizer.convert_ids_to_tokens(ids) for ids in batch["input_ids"]], model(**batch)[0]


def test_the_vocabulary_is_that_of_the_texts(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(PIECES))
    before = copy.deepcopy(model.state_dict())
    student, smaller = prune_vocabulary(model, tokenizer, iter(["good film", "Goodness"]))
    kept = [token for token in PIECES if token != "bad"]

    assert smaller.get_vocab() == {token: index for index, token in enumerate(kept)}
    assert type(student) is BertForSequenceClassification and student.config.vocab_size == len(kept)
    assert torch.equal(table_of(student).weight, table_of(model).weight[[PIECES.index(token) for token in kept]])

    texts = (["Goodness film", "film"], ["good", "a film"])
    for inputs in (texts[:1], texts):
        pieces, logits = pieces_and_logits(student, smaller, *inputs)
        wanted, expected = pieces_and_logits(model, tokenizer, *inputs)
        assert pieces == wanted and pieces[0][:4] == ["[CLS]", "good", "##ness", "film"]
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)

    assert len(tokenizer) == len(PIECES) and model.config.vocab_size == len(PIECES)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    student.save_pretrained(tmp_path / "student")
    smaller.save_pretrained(tmp_path / "student")
    loaded = AutoTokenizer.from_pretrained(tmp_path / "student")

    assert loaded.get_vocab() == smaller.get_vocab()
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "student")
    assert torch.equal(pieces_and_logits(again, loaded, *texts)[1], logits)


def test_words_that_went_fall_into_single_characters(tokenizer: BertTokenizer) -> None:
    _, smaller = prune_vocabulary(tiny_model(vocab_size=len(PIECES)), tokenizer, ["film film", "good"], min_count=2)
    assert "good" not in smaller.get_vocab() and "##ness" not in smaller.get_vocab()
    assert smaller.tokenize("film abba good") == ["film", "a", "##b", "##b", "##a", "[UNK]"]


def test_special_tokens_are_found_under_their_new_ids(tmp_path: Path) -> None:
    names = ["unused", "[PAD]", "x", "more", "[UNK]", "[CLS]", "last", "[SEP]", "[MASK]", "film"]
    (tmp_path / "vocab.txt").write_text("\n".join(names))
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    tokenizer.add_tokens(["<name>"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<end>"]})
    model = tiny_model(vocab_size=12, pad_token_id=1, bos_token_id=5, eos_token_id=[7, 6])
    student, smaller = prune_vocabulary(model, tokenizer, ["film"])
    # What the config names is kept as well ("last").
    kept = ["[PAD]", "x", "[UNK]", "[CLS]", "last", "[SEP]", "[MASK]", "film", "<name>", "<end>"]

    assert smaller.get_vocab() == {token: index for index, token in enumerate(kept)}
    assert (smaller.pad_token_id, smaller.unk_token_id, smaller.cls_token_id) == (0, 2, 3)
    assert (student.config.pad_token_id, student.config.bos_token_id, student.config.eos_token_id) == (0, 3, [5, 4])
    assert table_of(student).padding_idx == 0
    assert smaller(["film <name> x", "film <end>"], padding=True)["input_ids"] == [[3, 7, 8, 1, 5], [3, 7, 9, 5, 0]]

    pairs = (["film <name>", "x"], ["x", "film <end> x"])
    pieces, logits = pieces_and_logits(student, smaller, *pairs)
    wanted, expected = pieces_and_logits(model, tokenizer, *pairs)

    assert pieces == wanted
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


def test_berts_own_post_processor_and_padding_are_renumbered() -> None:
    vocabulary = {token: index for index, token in enumerate(["more", *PIECES])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.post_processor = processors.Sequence([processors.BertProcessing(("[SEP]", 4), ("[CLS]", 3))])
    backend.enable_padding(pad_id=1, pad_token="[PAD]")
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **names)
    _, smaller = prune_vocabulary(tiny_model(vocab_size=15, pad_token_id=1), tokenizer, ["good film"])
    content = json.loads(smaller.backend_tokenizer.to_str())

    assert content["padding"]["pad_id"] == 0
    assert smaller("good")["input_ids"] == [2, smaller.get_vocab()["good"], 3]
    assert "more" not in smaller.get_vocab()


def test_positions_that_begin_behind_the_padding_stay() -> None:
    vocabulary = {token: index for index, token in enumerate(["more", "words", *PIECES])}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    model = tiny_model("roberta", vocab_size=16, pad_token_id=2)
    smaller, small_tokenizer = prune_vocabulary(model, tokenizer, ["good film"])
    assert smaller.config.pad_token_id == 2 and smaller.config.vocab_size < 16
    before, after = (
        pieces_and_logits(*one, ["good film", "good"]) for one in ((model, tokenizer), (smaller, small_tokenizer))
    )
    assert before[0] == after[0]
    torch.testing.assert_close(after[1], before[1])


@pytest.mark.parametrize(
    ("family", "model_class"),
    [
        ("bert", BertForMaskedLM),
        ("distilbert", DistilBertForMaskedLM),
        ("electra", ElectraForMaskedLM),
    ],
)
@pytest.mark.parametrize("tied", [True, False])
def test_a_language_models_output_layer_is_pruned_too(
    family: str, model_class: Any, tied: bool, tokenizer: BertTokenizer
) -> None:
    model = model_class(tiny_model(family, vocab_size=len(PIECES) + 2, tie_word_embeddings=tied).config).eval()
    head = model.get_output_embeddings()
    with torch.no_grad():
        head.bias.copy_(torch.arange(len(PIECES) + 2))
    student, smaller = prune_vocabulary(model, tokenizer, ["good film"])  # two embeddings belong to no token
    kept = [PIECES.index(token) for token in smaller.convert_ids_to_tokens(range(len(smaller)))]

    assert len(kept) == len(PIECES) - 2
    output = student.get_output_embeddings()
    assert torch.equal(output.bias, torch.tensor(kept).float())
    assert (output.weight is table_of(student).weight) == tied

    logits = pieces_and_logits(student, smaller, ["good [MASK] film"])[1]
    expected = pieces_and_logits(model, tokenizer, ["good [MASK] film"])[1]
    torch.testing.assert_close(logits, expected[..., kept], rtol=0, atol=1e-5)


def test_the_vocabulary_of_a_factorized_shared_model_is_pruned_too(tokenizer: BertTokenizer) -> None:
    model = factorize(share_layers(tiny_model(vocab_size=len(PIECES)), 1), 4, 3)
    student, smaller = prune_vocabulary(model, tokenizer, ["film"])
    assert student.config.layer_groups == [0, 0] and table_of(student).weight.shape == (len(smaller), 3)
    _, logits = pieces_and_logits(student, smaller, ["film a"])
    _, expected = pieces_and_logits(model, tokenizer, ["film a"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["BPE", "Unigram"])
def test_other_tokenizers_are_refused(kind: str) -> None:
    backend = Tokenizer(
        models.BPE({"a": 0, "b": 1}, []) if kind == "BPE" else models.Unigram([("a", 0.0), ("b", -1.0)])
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="a")
    with pytest.raises(ValueError, match=f"WordPiece tokenizers, and this .* is {kind}: merges and scores"):
        prune_vocabulary(RobertaForMaskedLM(tiny_model("roberta", vocab_size=2).config), tokenizer, ["a"])


def test_what_a_vocabulary_cannot_be_chosen_by_is_refused(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(PIECES))
    with pytest.raises(ValueError, match="There is no token in the texts"):
        prune_vocabulary(model, tokenizer, ["", " "])
    with pytest.raises(ValueError, match="a single string: give a list"):
        prune_vocabulary(model, tokenizer, "good film")
    with pytest.raises(ValueError, match="min_count must be at least 1, not 0"):
        prune_vocabulary(model, tokenizer, ["good"], min_count=0)

    for size in (len(PIECES) - 1, len(PIECES) + 128):
        with pytest.raises(ValueError, match=f"has 14 tokens and the model {size} word embeddings"):
            prune_vocabulary(tiny_model(vocab_size=size), tokenizer, ["good"])
