"""Readers give back what was written, and whatever else they find, they either read it or name the file.

The examples are drawn by hypothesis, the same ones in every run.
"""

import csv
import io
import json
import re
import uuid
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from bertkd import LayerMap
from bertkd.cli.settings_file import read_options
from bertkd.data import load_corpus, load_files, load_glue

# Few examples, because `datasets` takes a tenth of a second for each, and always the same, so that no run is unlucky.
repeatable = settings(
    derandomize=True,
    max_examples=12,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
many = settings(repeatable, max_examples=60)

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ON_ONE_LINE = st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])


def texts(characters: Any = CHARACTERS) -> Any:
    """Texts that are not blank, nor read as numbers."""
    return st.text(characters, max_size=20).map(lambda text: f"x{text}")


def table_rows(characters: Any = CHARACTERS) -> Any:
    """Rows of a text and one of two classes, of which each occurs."""
    some = st.lists(st.tuples(texts(characters), st.sampled_from(["bad", "NaN"])), max_size=6)
    return some.map(lambda rows: [("first", "bad"), ("second", "NaN"), *rows])


@pytest.fixture(autouse=True)
def quick_datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def refusal(read: Callable[[], Any]) -> str | None:
    """The sentence that something is refused with; None where it is not."""
    try:
        read()
    except ValueError as error:
        return str(error)
    return None


def read_or_named(read: Callable[[], Any], path: Path) -> None:
    """Checks that a file is read, or refused by a sentence that names it."""
    sentence = refusal(read)
    if sentence is not None:
        assert path.name in sentence and "NoneType" not in sentence, sentence


def new_file(folder: Path, extension: str, content: str | bytes) -> Path:
    path = folder / f"{uuid.uuid4().hex}{extension}"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---- one's own files ----


@repeatable
@given(rows=table_rows())
def test_a_csv_gives_back_its_texts_and_labels(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    buffer = io.StringIO()
    csv.writer(buffer).writerows([("text", "label"), *rows])
    loaded, task = load_files(new_file(tmp_path, ".csv", buffer.getvalue()))
    assert task.labels == ("NaN", "bad")
    assert loaded["train"]["text"][:] == [text for text, _ in rows]
    assert [task.labels[label] for label in loaded["train"]["label"]] == [label for _, label in rows]


@repeatable
@given(rows=table_rows(ON_ONE_LINE))
def test_a_tsv_gives_back_its_texts_quotes_and_all(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    lines = ["text\tlabel", *("\t".join(row) for row in rows)]
    loaded, _ = load_files(new_file(tmp_path, ".tsv", "\n".join(lines)))
    assert loaded["train"]["text"][:] == [text for text, _ in rows]


@repeatable
@given(rows=table_rows())
def test_a_json_file_gives_back_its_texts_and_labels(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"text": text, "label": label}) for text, label in rows)
    loaded, task = load_files(new_file(tmp_path, ".jsonl", content), text_keys=["text"])
    assert loaded["train"]["text"][:] == [text for text, _ in rows]
    assert [task.labels[label] for label in loaded["train"]["label"]] == [label for _, label in rows]


@repeatable
@given(
    labels=st.lists(st.sampled_from(["0", "1", "2.5", "nan", "None", "", " a", "a", "true"]), min_size=2, max_size=6)
)
def test_any_labels_are_classes_or_scores_or_refused_by_row(labels: list[str], tmp_path: Path) -> None:
    rows = "".join(f"text {row},{label}\n" for row, label in enumerate(labels))
    path = new_file(tmp_path, ".csv", f"text,label\n{rows}")
    read_or_named(lambda: load_files(path), path)


@settings(repeatable, max_examples=25)
@given(content=st.binary(max_size=40), extension=st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"]))
@example(content=b"text,label\n\xff,1\n", extension=".csv")
@example(content=b'{"text": "a", "label": [1, "x", null]}', extension=".json")
@example(content=b'[{"text": {"a": 1}}]', extension=".json")
def test_any_bytes_are_read_or_the_file_is_named(content: bytes, extension: str, tmp_path: Path) -> None:
    path = new_file(tmp_path, extension, content)
    read_or_named(lambda: load_files(path), path)


# ---- GLUE ----


@repeatable
@given(rows=st.lists(st.tuples(st.text(ON_ONE_LINE, max_size=20), st.sampled_from("01")), min_size=1, max_size=8))
def test_a_task_of_glue_gives_back_its_rows(rows: list[tuple[str, str]], tmp_path: Path) -> None:
    folder = tmp_path / uuid.uuid4().hex
    (folder / "SST-2").mkdir(parents=True)
    (folder / "SST-2" / "dev.tsv").write_bytes("\n".join(["sentence\tlabel", *map("\t".join, rows)]).encode())
    loaded = load_glue("sst2", folder, ["validation"])["validation"]
    assert loaded["sentence"][:] == [sentence for sentence, _ in rows]
    assert loaded["label"][:] == [int(label) for _, label in rows]


@repeatable
@given(content=st.binary(max_size=60).map(lambda content: b"sentence\tlabel\n" + content))
def test_any_bytes_below_a_header_of_glue_are_read_or_the_line_is_named(content: bytes, tmp_path: Path) -> None:
    folder = tmp_path / uuid.uuid4().hex
    (folder / "SST-2").mkdir(parents=True)
    path = folder / "SST-2" / "dev.tsv"
    path.write_bytes(content)
    read_or_named(lambda: load_glue("sst2", folder, ["validation"]), path)


# ---- corpora ----


@repeatable
@given(lines=st.lists(texts(ON_ONE_LINE), min_size=1, max_size=8))
def test_a_corpus_gives_back_its_lines(lines: list[str], tmp_path: Path) -> None:
    corpus = load_corpus(new_file(tmp_path, ".txt", "\n".join(lines)))
    assert corpus["text"][:] == lines


@repeatable
@given(content=st.binary(max_size=40), extension=st.sampled_from([".txt", ".csv", ".json", ".parquet", ".txt.gz"]))
def test_any_bytes_of_a_corpus_are_read_or_the_file_is_named(content: bytes, extension: str, tmp_path: Path) -> None:
    path = new_file(tmp_path, extension, content)
    read_or_named(lambda: load_corpus(path), path)


# ---- layer maps ----


@many
@given(layers=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), min_size=1, max_size=12))
def test_a_layer_map_that_increases_is_read_back_and_another_is_refused(layers: list[tuple[int, int]]) -> None:
    spec = ",".join(f"{student}:{teacher}" for student, teacher in layers)
    increases = all(a < c and b < d for (a, b), (c, d) in pairwise(layers))
    if increases:
        assert LayerMap.parse(spec).pairs == tuple(layers) and LayerMap.parse(spec).spec == spec
    else:
        with pytest.raises(ValueError, match="must increase"):
            LayerMap.parse(spec)


@many
@given(text=st.text(max_size=12) | st.from_regex(r"[0-9:, ]{1,12}", fullmatch=True))
def test_any_text_is_a_layer_map_that_increases_or_refused(text: str) -> None:
    sentence = refusal(lambda: LayerMap.parse(text))
    if sentence is None:
        pairs = LayerMap.parse(text).pairs
        assert list(pairs) == sorted(set(pairs))
    else:
        assert "layer map" in sentence


# ---- settings files ----


def options_of(folder: Path, text: str) -> dict[str, str | list[str]]:
    path = folder / "mine.yaml"
    path.write_bytes(text.encode())
    return read_options(str(path))


@many
@given(values=st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), texts(), max_size=4))
def test_options_are_read_back_as_they_were_written(values: dict[str, str], tmp_path: Path) -> None:
    dumped = yaml.safe_dump(values, default_style='"', allow_unicode=True)
    assume("\r" not in dumped)
    assert options_of(tmp_path, dumped) == values


@many
@given(value=st.from_regex(r"[A-Za-z0-9.][A-Za-z0-9:.+_-]{0,8}[A-Za-z0-9]", fullmatch=True))
@example(value="1:2")
@example(value="no")
@example(value="010")
@example(value="2026-01-01")
@example(value="1_000")
@example(value="0x1F")
@example(value="NaN")
def test_a_plain_word_stays_the_text_that_it_is(value: str, tmp_path: Path) -> None:
    assume(value.lower() != "null")
    assert options_of(tmp_path, f"name: {value}\nnames: [{value}, {value}]\n") == {
        "name": value,
        "names": [value, value],
    }


@many
@given(text=st.text(st.sampled_from("ab:-[]{}&*!#|>'\"%@, \n\t0~"), max_size=25))
def test_any_text_is_options_or_refused_in_one_line(text: str, tmp_path: Path) -> None:
    sentence = refusal(lambda: options_of(tmp_path, text))
    if sentence is None:
        for value in options_of(tmp_path, text).values():
            assert isinstance(value, str) or all(isinstance(item, str) for item in value)
    else:
        assert "\n" not in sentence and re.search(r"line \d+|YAML|per line", sentence)
