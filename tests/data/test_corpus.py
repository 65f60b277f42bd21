"""Plain text: what is read, how it is cut into rows, and what is refused."""

import gzip
import itertools
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, IterableDataset
from transformers import AutoTokenizer, BertJapaneseTokenizer, PreTrainedTokenizerBase

from bertkd.data import hold_out, load_corpus, tokenize_corpus

LINES = ["a great film", "", "   ", "the plot is dull and the acting is worse than that", "fine"]


@pytest.fixture(scope="module")
def tokenizer(pretrained: Path) -> PreTrainedTokenizerBase:
    return AutoTokenizer.from_pretrained(pretrained)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.tokens"
    path.write_text("\n".join(LINES) + "\n")
    return path


def words(rows: Dataset, tokenizer: PreTrainedTokenizerBase) -> list[list[str]]:
    return [tokenizer.convert_ids_to_tokens(row["input_ids"])[1:-1] for row in rows]


@pytest.mark.parametrize("streaming", [False, True])
def test_sentence_mode_has_a_row_for_each_text_and_cuts_nothing_off(
    streaming: bool, text_file: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    corpus = load_corpus(text_file, streaming=streaming)
    assert isinstance(corpus, IterableDataset if streaming else Dataset)
    rows = list(tokenize_corpus(corpus, tokenizer, 7, "sentence"))
    lengths = [len(row["input_ids"]) for row in rows]

    assert lengths == [5, 7, 7, 3, 3]  # 3 words; 11 in pieces of 5, 5 and 1; 1; each with its two special tokens
    assert all(row["input_ids"][0] == tokenizer.cls_token_id for row in rows)
    assert all(row["input_ids"][-1] == tokenizer.sep_token_id for row in rows)

    given = [tokenizer.tokenize(line) for line in LINES if line.strip()]
    made = words(rows, tokenizer)
    assert [made[0], [*made[1], *made[2], *made[3]], made[4]] == given


def test_block_mode_fills_every_row_but_the_last(text_file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = tokenize_corpus(load_corpus(text_file), tokenizer, 6, "block")
    assert [len(ids) for ids in rows["input_ids"]] == [6, 6, 6, 5]
    assert list(itertools.chain(*words(rows, tokenizer))) == tokenizer.tokenize(" ".join(LINES))


def test_short_and_unknown_rows_are_dropped(tmp_path: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    (tmp_path / "a.txt").write_text("a great film\nqqq zzz the xxx\nfine\n")
    corpus = load_corpus(tmp_path / "a.txt")
    assert len(tokenize_corpus(corpus, tokenizer)) == 3
    kept = tokenize_corpus(corpus, tokenizer, min_tokens=5, max_unknown=0.45)
    assert words(kept, tokenizer) == [tokenizer.tokenize("a great film")]
    with pytest.raises(ValueError, match="no usable line"):
        tokenize_corpus(corpus, tokenizer, min_tokens=50)


def test_files_of_several_formats_and_folders_are_one_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    Dataset.from_dict({"review": ["three", "four"], "label": [0, 1]}).to_parquet(str(tmp_path / "b.parquet"))
    with pytest.raises(ValueError, match=r"b.parquet has no column 'text', only review, label: name the text's"):
        load_corpus(tmp_path)

    corpus = load_corpus([tmp_path], text_key="review")
    assert corpus.column_names == ["text"] and corpus["text"] == ["one", "two", "three", "four"]
    assert load_corpus(tmp_path, text_key="review", max_rows=3)["text"] == ["one", "two", "three"]

    streamed = load_corpus(tmp_path, text_key="review", max_rows=3, streaming=True)
    assert [row["text"] for row in streamed] == ["one", "two", "three"]


def test_a_corpus_is_tokenized_once(
    text_file: Path, tokenizer: PreTrainedTokenizerBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tokenize_corpus(load_corpus(text_file), tokenizer, 8)
    call = type(tokenizer).__call__

    def once(self: Any, text: Any, **options: Any) -> Any:
        assert not isinstance(text, list), "tokenized again"
        return call(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", once)
    again = tokenize_corpus(load_corpus(text_file), tokenizer, 8)
    assert again["input_ids"] == first["input_ids"] and again._fingerprint == first._fingerprint


def test_rows_are_held_out(text_file: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    rows = tokenize_corpus(load_corpus(text_file), tokenizer, 6)
    train, held = hold_out(rows, 2, seed=0)
    assert len(held) == 2 and len(train) == len(rows) - 2
    assert sorted(train["input_ids"][:] + held["input_ids"][:]) == sorted(rows["input_ids"])
    with pytest.raises(ValueError, match="has 5 rows, of which 5 cannot be held out"):
        hold_out(rows, 5, seed=0)

    stream = tokenize_corpus(load_corpus(text_file, streaming=True), tokenizer, 6)
    with pytest.raises(ValueError, match="no more than the 5 rows"):
        hold_out(stream, 5, seed=0)
    with pytest.raises(ValueError, match="At least one row"):
        hold_out(stream, 0, seed=0)

    train, held = hold_out(stream, 2, seed=0)
    assert len(list(train)) == 3 and len(list(held)) == 2


@pytest.mark.parametrize("streaming", [False, True])
def test_a_corpus_without_a_usable_line_is_refused(
    streaming: bool, tmp_path: Path, tokenizer: PreTrainedTokenizerBase
) -> None:
    (tmp_path / "blank.txt").write_text("\n   \n\n")
    with pytest.raises(ValueError, match="no usable line"):
        tokenize_corpus(load_corpus(tmp_path / "blank.txt", streaming=streaming), tokenizer)


def test_compressed_tabular_and_hidden_files(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write('{"text": "one"}\n')
    (tmp_path / "b.tsv").write_text('text\tlabel\n"two\t1\n')
    (tmp_path / ".hidden").write_text("three\n")
    Dataset.from_dict({"text": [4, 5]}).to_parquet(str(tmp_path / "c.parquet"))
    assert load_corpus(tmp_path)["text"] == ["one", '"two', "4", "5"]


def test_unreadable_files_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("fine\ncaf\xe9\n".encode("latin-1"))
    for streaming in (False, True):
        with pytest.raises(ValueError, match=r"latin.txt, line 2: not UTF-8"):
            load_corpus(tmp_path / "latin.txt", streaming=streaming)
    wrong = {"latin.csv": "text\ncaf\xe9\n", "latin.jsonl": '{"text": "a"}\n{"text": "caf\xe9"}\n'}
    for name, content in wrong.items():
        (tmp_path / name).write_bytes(content.encode("latin-1"))
    with gzip.open(tmp_path / "latin.txt.gz", "wb") as file:
        file.write("fine\ncaf\xe9\n".encode("latin-1"))
    for name in (*wrong, "latin.txt.gz"):
        for streaming in (False, True):
            with pytest.raises(ValueError, match=rf"{name}, line 2: not UTF-8"):
                load_corpus(tmp_path / name, streaming=streaming)
    (tmp_path / "empty.txt").write_text("")

    with pytest.raises(ValueError, match=r"empty.txt is empty"):
        load_corpus(tmp_path / "empty.txt")


def test_the_header_of_every_csv_is_checked(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,source\nalpha text,s1\n")
    (tmp_path / "b.csv").write_text("text,source\nbeta text,s2,\n")
    with pytest.raises(ValueError, match=r"b\.csv: its rows have more columns than its header names"):
        load_corpus(tmp_path)


def test_what_is_missing_is_named(tmp_path: Path, tokenizer: PreTrainedTokenizerBase, text_file: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.txt does not exist"):
        load_corpus(tmp_path / "nowhere.txt")
    (tmp_path / "empty").mkdir()

    with pytest.raises(FileNotFoundError, match="a folder without files"):
        load_corpus(tmp_path / "empty")
    with pytest.raises(ValueError, match="Give a corpus: either"):
        load_corpus()
    with pytest.raises(ValueError, match="mode must be one of sentence, block, not 'page'"):
        tokenize_corpus(load_corpus(text_file), tokenizer, mode="page")
    with pytest.raises(ValueError, match="max_seq_length=2 leaves no room"):
        tokenize_corpus(load_corpus(text_file), tokenizer, 2)


def test_the_hub_is_asked_and_its_absence_told(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def faked(name: str, config: str | None, **options: object) -> Dataset:
        asked.append((name, config, options))
        return Dataset.from_dict({"text": ["a"], "title": ["b"]})

    monkeypatch.setattr(datasets, "load_dataset", faked)
    corpus = load_corpus(hub_name="wikitext", hub_config="wikitext-2-raw-v1", split="validation")

    assert corpus.column_names == ["text"]
    assert asked == [("wikitext", "wikitext-2-raw-v1", {"split": "validation", "streaming": False})]

    def offline(*_: object, **__: object) -> Dataset:
        raise ConnectionError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)

    with pytest.raises(ConnectionError, match="The corpus wikitext cannot be loaded .* give text or parquet files"):
        load_corpus(hub_name="wikitext")


def test_a_data_set_that_is_a_script_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def script(*_: object, **__: object) -> Dataset:
        raise RuntimeError("Dataset scripts are no longer supported, but found books.py")

    monkeypatch.setattr(datasets, "load_dataset", script)
    with pytest.raises(
        ValueError, match=r"The corpus books cannot be loaded \(Dataset scripts .* give text or parquet"
    ):
        load_corpus(hub_name="books")


def test_a_tokenizer_that_loses_the_rest_of_a_long_text_is_refused(text_file: Path, tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    slow = BertJapaneseTokenizer(
        str(tmp_path / "vocab.txt"), do_word_tokenize=False, subword_tokenizer_type="wordpiece"
    )
    with pytest.raises(ValueError, match="a corpus needs a model with a fast tokenizer"):
        tokenize_corpus(load_corpus(text_file), slow)


def test_the_real_corpora_are_read(shared_data: Path) -> None:
    corpus = load_corpus([shared_data / "wikitext-2", shared_data / "imdb" / "unsupervised.parquet"], streaming=True)
    assert "Robert" in next(iter(corpus.skip(1)))["text"]
    assert len(load_corpus(shared_data / "imdb" / "test.parquet", max_rows=100)) == 100


def test_a_tokenizer_that_loses_the_ends_of_texts_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    class Losing:
        """As tokenizers 0.23.2 does: the second piece is the last."""

        model_max_length = tokenizer.model_max_length
        num_special_tokens_to_add = tokenizer.num_special_tokens_to_add
        is_fast = True

        def __call__(self, text: str, **options: Any) -> dict[str, Any]:
            encoded = tokenizer(text, **options)
            return {"input_ids": encoded["input_ids"][: 2 if "truncation" in options else None]}

    with pytest.raises(ImportError, match=r"tokenizers \S+ cuts a long text into 2 pieces and loses the rest"):
        tokenize_corpus(Dataset.from_dict({"text": ["a film"]}), Losing(), 8)
