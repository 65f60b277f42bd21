"""TinyBERT's data augmentation: which words are replaced, by what, and how rows are emitted."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    BertTokenizer,
    DistilBertConfig,
    ElectraConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from bertkd.tinybert import NUM_COPIES, WordVectors, augment
from bertkd.tinybert import augmentation as module
from bertkd.tinybert.augmentation import ROW
from bertkd.tinybert.candidates import CandidateFinder
from bertkd.tinybert.stop_words import STOP_WORDS
from bertkd.tinybert.word_vectors import whole_words

WORDS = ["film", "movie", "plot", "actor", "great", "dull", "bad", "good", "was", "the", "and", "saw", "he", "scene"]
PIECES = ["sub", "##plot", "##s", "2", ".", "'", '"', ","]
SIZES: dict[str, Any] = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> PreTrainedTokenizerBase:
    path = tmp_path_factory.mktemp("vocabulary") / "vocab.txt"
    path.write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *PIECES]))
    return BertTokenizer(str(path))


@pytest.fixture(scope="module")
def model(tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    torch.manual_seed(0)
    return BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), initializer_range=0.5, **SIZES)).eval()


@pytest.fixture
def vectors() -> WordVectors:
    return WordVectors(["subplots", "story", "tale"], torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.5, 0.5]]))


def rows(texts: list[str], **more: list[Any]) -> Dataset:
    return Dataset.from_dict({"sentence": texts, "label": list(range(len(texts))), **more})


def candidates(text: str, model: PreTrainedModel, tokenizer: Any, vectors: WordVectors, **changes: Any) -> list[Any]:
    settings = {"count": 3, "conditional": True, "batch_size": 4, **changes}
    return CandidateFinder(model, tokenizer, vectors, **settings)([text])[text]


# ---- which words, by what ----


def by_hand(masked: str, model: PreTrainedModel, tokenizer: Any, second: str | None, count: int) -> list[str]:
    """The most probable whole words at the mask, from the model as anyone would run it."""
    inputs = tokenizer(masked, second, return_tensors="pt")
    position = inputs["input_ids"][0].tolist().index(tokenizer.mask_token_id)
    with torch.no_grad():
        logits = model(**inputs).logits[0, position]
    ranked = tokenizer.convert_ids_to_tokens(logits.argsort(descending=True).tolist())
    return [token for token in ranked if token in (*WORDS, "sub")][:count]


@pytest.mark.parametrize("conditional", [True, False])
def test_a_word_of_one_piece_gets_the_most_probable_words(
    conditional: bool, model: PreTrainedModel, tokenizer: Any, vectors: WordVectors
) -> None:
    text = "He saw the great film."
    slots = candidates(text, model, tokenizer, vectors, conditional=conditional)
    assert [text[slot.start : slot.end] for slot in slots] == ["saw", "great", "film"]  # no stop words, no stop
    second = text if conditional else None
    for slot, masked in zip(
        slots, ("He [MASK] the great film.", "He saw the [MASK] film.", "He saw the great [MASK]."), strict=True
    ):
        assert list(slot.candidates) == by_hand(masked, model, tokenizer, second, 3)


def test_a_word_of_several_pieces_gets_its_neighbors(
    model: PreTrainedModel, tokenizer: Any, vectors: WordVectors
) -> None:
    (slot,) = candidates("the subplots", model, tokenizer, vectors, count=2)
    assert slot.candidates == ("story", "tale")


def test_titled_words_get_titled_candidates(model: PreTrainedModel, tokenizer: Any, vectors: WordVectors) -> None:
    first, second = candidates("Great Subplots", model, tokenizer, vectors, count=2)
    assert all(word.istitle() for word in first.candidates) and second.candidates == ("Story", "Tale")


def test_numbers_and_unknown_words_stay(model: PreTrainedModel, tokenizer: Any, vectors: WordVectors) -> None:
    for known in (vectors, WordVectors.of_model(model, tokenizer)):
        slots = candidates("2 zyx was film2 and film", model, tokenizer, known)
        assert [(slot.start, slot.end) for slot in slots] == [(20, 24)]


def test_without_a_file_the_models_own_embeddings_give_neighbors(model: PreTrainedModel, tokenizer: Any) -> None:
    own = WordVectors.of_model(model, tokenizer)
    assert set(own.words) == {*WORDS, "sub"}
    table = model.get_input_embeddings().weight.detach()
    wanted = table[tokenizer.convert_tokens_to_ids(["sub", "##plot", "##s"])].mean(0)
    ids = tokenizer.convert_tokens_to_ids(own.words)
    similar = torch.cosine_similarity(wanted[None], table[ids])
    best = [own.words[row] for row in similar.argsort(descending=True)[:4].tolist()]
    assert own.neighbors(["subplots"], 4)["subplots"] == best
    assert "film" not in own.neighbors(["film"], 5)["film"]


@pytest.mark.parametrize("config", [DistilBertConfig, ElectraConfig])
def test_the_head_at_the_mask_alone_gives_what_the_whole_does(config: type, tokenizer: Any) -> None:
    sizes = {"dim": 16, "hidden_dim": 24, "n_layers": 2, "n_heads": 2} if config is DistilBertConfig else SIZES
    torch.manual_seed(1)
    model = AutoModelForMaskedLM.from_config(config(vocab_size=len(tokenizer), initializer_range=0.5, **sizes)).eval()
    (slot,) = candidates("the film was", model, tokenizer, WordVectors.of_model(model, tokenizer), count=5)
    inputs = tokenizer("the [MASK] was", "the film was", return_tensors="pt")
    if config is DistilBertConfig:
        inputs.pop("token_type_ids")
    with torch.no_grad():
        ranked = tokenizer.convert_ids_to_tokens(model(**inputs).logits[0, 2].argsort(descending=True).tolist())
    assert list(slot.candidates) == [token for token in ranked if token in (*WORDS, "sub")][:5]
    assert not any(module._forward_hooks for module in model.modules())


def test_a_byte_level_vocabulary_marks_where_words_begin() -> None:
    vocabulary = {token: i for i, token in enumerate(["<s>", "<pad>", "</s>", "<mask>", "Ġfilm", "Ġgood", "s", "Ġ2"])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    made.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made,
        mask_token="<mask>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        cls_token="<s>",
        model_input_names=["input_ids", "attention_mask"],
    )
    assert whole_words(tokenizer) == {4: "film", 5: "good"}
    torch.manual_seed(0)
    config = RobertaConfig(vocab_size=8, max_position_embeddings=40, pad_token_id=1, **SIZES)
    model = RobertaForMaskedLM(config).eval()
    slots = candidates("the good film", model, tokenizer, WordVectors.of_model(model, tokenizer))
    assert [(slot.start, slot.end) for slot in slots] == [(4, 8), (9, 13)]
    assert all(set(slot.candidates) == {"film", "good"} for slot in slots)


def test_another_vocabularys_mark_as_a_word_changes_nothing() -> None:
    made = Tokenizer(models.WordLevel({"##": 0, "Ġfilm": 1, "Ġmovie": 2, "ing": 3, "<unk>": 4}, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert whole_words(tokenizer) == {1: "film", 2: "movie"}


def test_words_beyond_the_models_length_stay(tokenizer: Any, vectors: WordVectors) -> None:
    torch.manual_seed(0)
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), max_position_embeddings=13, **SIZES)).eval()
    for known in (vectors, WordVectors.of_model(model, tokenizer)):
        slots = candidates(" ".join(["film"] * 20), model, tokenizer, known)
        assert [slot.start for slot in slots] == [5 * i for i in range(11)]  # [CLS] 11 words [SEP], no second reading
    slots = candidates(" ".join(["film"] * 9), model, tokenizer, vectors)
    assert len(slots) == 9  # [CLS] 9 words [SEP] 1 word [SEP]


# ---- rows ----


def augmented(dataset: Dataset, model: PreTrainedModel, tokenizer: Any, **changes: Any) -> Dataset:
    keys = [name for name in dataset.column_names if name.startswith("sentence")]
    return augment(dataset, keys, model, tokenizer, **{"num_copies": 5, "num_candidates": 3, **changes})


def test_originals_come_first_and_variants_keep_the_rest_of_the_row(model: PreTrainedModel, tokenizer: Any) -> None:
    given = Dataset.from_dict(
        {"sentence": ['He saw "the great film".', "the good plot"], "label": [1, 0], "idx": [7, 9]},
        features=Features(sentence=Value("string"), label=ClassLabel(names=["no", "yes"]), idx=Value("int32")),
    )
    made = augmented(given, model, tokenizer)
    assert made.features == Features({**given.features, ROW: Value("int64")})
    assert len(given) < len(made) <= len(given) * 6
    for number, row in enumerate(given):
        own = [one for one in made if one[ROW] == number]
        assert own[0] == {**row, ROW: number}
        assert all((one["label"], one["idx"]) == (row["label"], row["idx"]) for one in own)
        assert len({one["sentence"] for one in own}) == len(own)
    assert all(text.count('"') == 2 and text.endswith('".') for text in made["sentence"] if text.startswith("He"))


def test_a_word_is_replaced_with_the_given_probability(model: PreTrainedModel, tokenizer: Any) -> None:
    given = rows(["film plot actor great dull scene"] * 200)
    made = augmented(given, model, tokenizer, num_copies=1, probability=0.3, num_candidates=8)
    original, changed = given[0]["sentence"].split(), 0
    draws = [row["sentence"].split() for row in made]
    changed = sum(a != b for words in draws for a, b in zip(words, original, strict=True))
    # The original is among its candidates, and one that is drawn unchanged is no new row.
    slots = candidates(given[0]["sentence"], model, tokenizer, WordVectors.of_model(model, tokenizer), count=8)
    other = sum(word not in slot.candidates for slot, word in zip(slots, original, strict=True))
    expected = 200 * 0.3 * (other + (6 - other) * 7 / 8)
    assert changed == pytest.approx(expected, rel=0.15)


def test_certain_replacement_never_keeps_the_original_draw(model: PreTrainedModel, tokenizer: Any) -> None:
    made = augmented(rows(["film plot"]), model, tokenizer, probability=1.0, num_copies=200, num_candidates=3)
    slots = candidates("film plot", model, tokenizer, WordVectors.of_model(model, tokenizer))
    possible = {f"{a} {b}" for a in slots[0].candidates for b in slots[1].candidates}
    assert set(made["sentence"][1:]) == possible - {"film plot"}


def test_of_a_pair_one_text_is_varied_against_the_others_original(model: PreTrainedModel, tokenizer: Any) -> None:
    given = Dataset.from_dict({"sentence1": ["the great film"], "sentence2": ["the dull plot"], "label": [1]})
    made = augmented(given, model, tokenizer, num_copies=20)
    pairs = [(row["sentence1"], row["sentence2"]) for row in made]
    a, b = pairs[0]
    assert (a, b) == ("the great film", "the dull plot") and len(set(pairs)) == len(pairs)
    assert all((first == a) != (second == b) for first, second in pairs[1:])
    assert {first == a for first, _ in pairs[1:]} == {True, False}


def test_a_text_without_candidates_stays_alone(model: PreTrainedModel, tokenizer: Any) -> None:
    assert augmented(rows(["he and the"]), model, tokenizer)["sentence"] == ["he and the"]


def test_the_same_seed_gives_the_same_rows_whatever_the_batches(
    model: PreTrainedModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = rows([f"{a} {b} was the {c}" for a in WORDS[:6] for b in WORDS[2:5] for c in ("subplots", "film")])
    one = augmented(given, model, tokenizer, batch_size=1)
    assert augmented(given, model, tokenizer, batch_size=64).to_list() == one.to_list()
    monkeypatch.setattr(module, "SHARD", 5)
    assert augmented(given, model, tokenizer).to_list() == one.to_list()
    assert augmented(given, model, tokenizer, seed=1).to_list() != one.to_list()


def test_an_interrupted_augmentation_goes_on(
    model: PreTrainedModel, tokenizer: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "SHARD", 3)
    given = rows([f"{word} was the film" for word in WORDS[:8]])
    # In a folder with characters of a pattern.
    folder = tmp_path / "rows [v2]"
    whole = augmented(given, model, tokenizer)
    find, calls = CandidateFinder.__call__, []

    def killed(self: Any, texts: Any) -> Any:
        calls.append(texts)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return find(self, texts)

    monkeypatch.setattr(CandidateFinder, "__call__", killed)
    with pytest.raises(KeyboardInterrupt):
        augmented(given, model, tokenizer, folder=folder)
    resumed = augmented(given, model, tokenizer, folder=folder)
    assert len(calls) == 4  # one part before, the one that was cut short again, and the last
    assert resumed.to_list() == whole.to_list() and resumed.features == whole.features
    assert augmented(given, model, tokenizer, folder=folder).to_list() == whole.to_list() and len(calls) == 4
    for changes in (
        {"seed": 3},
        {"vectors": WordVectors(["film", "plot"], torch.eye(2))},
        {"vectors": WordVectors(["film", "plot"], torch.ones(2, 2))},
    ):
        before = len(calls)
        augmented(given, model, tokenizer, folder=folder, **changes)
        assert len(calls) == before + 3
    tokenizer.model_max_length = 30  # another reading of the texts
    augmented(given, model, tokenizer, folder=folder)
    tokenizer.model_max_length = 10**6
    assert len(calls) == 16 and not list(folder.rglob("*.tmp"))


def test_a_training_model_stays_one(model: PreTrainedModel, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model.train()
    first = augmented(rows(["the great film"]), model, tokenizer).to_list()
    assert model.training and augmented(rows(["the great film"]), model, tokenizer).to_list() == first

    # Also where it fails.
    monkeypatch.setattr(CandidateFinder, "_most_probable", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        augmented(rows(["the great film"]), model, tokenizer)
    assert model.training
    model.eval()


# ---- what is refused ----


def test_bad_input_is_named(model: PreTrainedModel, tokenizer: Any) -> None:
    given = rows(["the film"])
    with pytest.raises(ValueError, match="names no text column"):
        augment(given, [], model, tokenizer)
    with pytest.raises(ValueError, match="no text column question, only sentence, label"):
        augment(given, ["question"], model, tokenizer)
    with pytest.raises(ValueError, match="has no rows"):
        augment(given.select([]), ["sentence"], model, tokenizer)
    with pytest.raises(ValueError, match="Row 1 has no text in column 'sentence'"):
        augment(rows(["the film", None]), ["sentence"], model, tokenizer)
    small = BertForMaskedLM(BertConfig(vocab_size=10, **SIZES))
    with pytest.raises(ValueError, match="they do not belong together"):
        augment(given, ["sentence"], small, tokenizer)
    for wrong in ({"probability": 0.0}, {"num_candidates": 0}, {"num_copies": 0}):
        with pytest.raises(ValueError, match="probability must be above 0"):
            augment(given, ["sentence"], model, tokenizer, **wrong)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["film 1 2 3", "plot 1 2"], r"line 2: expected a word and 3 numbers, found 3 fields"),
        (["film 1 2 3", "plot 1 x 3"], r"line 2: expected 3 numbers after the word 'plot'"),
        (["film 1 2 3", "plot 1 nan 3"], r"line 2: expected 3 numbers after the word 'plot'"),
        (["film 1 2 3", "plot 1 2 3 4"], r"line 2: expected 3 numbers, as many as in the first row, found 4"),
        (["the 1", "film 1 2 3"], r"line 2: expected 1 numbers, as many as in the first row, found 3"),
        (["film"], r"line 1: expected a word and 1 numbers, found 1 fields"),
        (["2 3", ", 1 2 3"], r"has no vector of a word"),
    ],
)
def test_malformed_word_vectors_are_named_by_line(lines: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "glove.txt").write_text("\n".join(lines) + "\n")
    with pytest.raises(ValueError, match=message):
        WordVectors.read(tmp_path / "glove.txt")


def test_word_vectors_are_read(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "w2v.txt").write_text("4 2\nfilm 1 0\nmovie 0.9 0.1\n. 0 1\nplot 0 1\nlate 1 1\n")
    read = WordVectors.read(tmp_path / "w2v.txt", limit=5)
    assert read.words == ["film", "movie", "plot"]
    (tmp_path / "840B.txt").write_text("film 1 0\n. . . 0 1\nat name@domain.com 1 1\n")
    assert WordVectors.read(tmp_path / "840B.txt").words == ["film"]
    assert read.neighbors(["film", "nowhere"], 1) == {"film": ["movie"], "nowhere": []}
    with pytest.raises(FileNotFoundError, match="no file of word vectors"):
        WordVectors.read(tmp_path / "none.txt")
    glove = WordVectors.read(shared_data / "glove" / "glove.6B.50d.head.txt")
    assert len(glove.words) > 2000 and "thursday" in glove.neighbors(["friday"], 3)["friday"]


def test_the_released_numbers_of_copies() -> None:
    assert NUM_COPIES == {
        "cola": 30, "mnli": 10, "mrpc": 30, "sst2": 20, "stsb": 30, "qqp": 10, "qnli": 20, "rte": 30,
    }  # fmt: skip
    assert {"the", "not", "was", "s"} <= STOP_WORDS and STOP_WORDS.isdisjoint({"film", "good", "never"})
    assert all(word.isalpha() and word.islower() for word in STOP_WORDS)


def test_it_works_with_a_saved_model(model: PreTrainedModel, tokenizer: Any, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path), AutoTokenizer.from_pretrained(tmp_path)
    given = rows(["the great film"])
    assert augmented(given, *loaded).to_list() == augmented(given, model, tokenizer).to_list()
