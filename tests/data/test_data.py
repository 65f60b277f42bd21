"""Data: the official GLUE files, the hub, one's own files, tokenization; and what is said when they are wrong."""

import json
import logging
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from transformers import AutoTokenizer, BertTokenizer, PreTrainedTokenizerBase

from bertkd.data import GLUE_TASKS, Task, load_files, load_glue, tokenize

Write = Callable[[str, str | bytes], Path]


@pytest.fixture(autouse=True)
def datasets_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "datasets_cache"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", cache)
    return cache


@pytest.fixture
def glue_dir(tmp_path: Path) -> Path:
    return tmp_path / "glue"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file under tmp_path."""

    def _write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return _write


@pytest.fixture
def tokenizer() -> PreTrainedTokenizerBase:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdef"]
    return BertTokenizer(vocab={word: i for i, word in enumerate(words)})


# The real files


ROWS = {
    "cola": {"train": 8551, "validation": 1043, "test": 1063},
    "mrpc": {"train": 3667, "validation": 408, "test": 1725},
    "rte": {"train": 2490, "validation": 277, "test": 3000},
    "sst2": {"train": 67349, "validation": 872, "test": 1821},
    "stsb": {"train": 5749, "validation": 1500, "test": 1379},
    "wnli": {"train": 635, "validation": 71, "test": 146},
    "qnli": {"validation": 5463, "test": 5463},
    "ax": {"test": 1104},
}


@pytest.mark.shared_data
@pytest.mark.parametrize("task", ROWS)
def test_every_row_of_the_real_files_is_read(task: str, shared_data: Path) -> None:
    loaded = load_glue(task, shared_data / "glue")
    assert {split: len(rows) for split, rows in loaded.items()} == ROWS[task]
    for split, rows in loaded.items():
        assert rows.column_names == [*GLUE_TASKS[task].text_keys, "label", "idx"]
        assert rows["idx"][:] == list(range(len(rows)))
        labels = set(rows.unique("label"))
        assert labels == {-1} if split == "test" else -1 not in labels


@pytest.mark.shared_data
def test_real_rows_are_as_on_the_hub(shared_data: Path) -> None:
    def first(task: str) -> dict:
        return load_glue(task, shared_data / "glue", ["validation"])["validation"][0]

    assert first("cola") == {"sentence": "The sailors rode the breeze clear of the rocks.", "label": 1, "idx": 0}
    assert first("sst2") == {"sentence": "it 's a charming and often affecting journey . ", "label": 1, "idx": 0}
    assert first("mrpc")["sentence2"].startswith('" The foodservice pie business')
    assert first("mrpc")["label"] == 1
    assert first("stsb")["label"] == 5.0
    assert first("rte")["label"] == 1
    assert first("qnli")["label"] == 0
    assert first("wnli")["label"] == 0


@pytest.mark.shared_data
def test_a_requested_split_that_is_not_there_is_named(shared_data: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file for qnli: \S+QNLI/train\.tsv \(split train\); --glue_dir"):
        load_glue("qnli", shared_data / "glue", ["train", "validation"])


# The official formats


MNLI_TRAIN = "index\tpromptID\tpairID\tgenre\ts1_bp\ts2_bp\ts1_p\ts2_p\tsentence1\tsentence2\tlabel1\tgold_label\n"
MNLI_TRAIN_ROW = "{0}\t1\t1n\tfiction\t( a )\t( b )\t(A)\t(B)\tp{0}\th{0}\tneutral\t{1}\n"
MNLI_DEV = (
    "index\tpromptID\tpairID\tgenre\ts1_bp\ts2_bp\ts1_p\ts2_p\tsentence1\tsentence2\tlabel1\tlabel2\tgold_label\n"
)
MNLI_DEV_ROW = "{0}\t1\t1n\tfiction\t( a )\t( b )\t(A)\t(B)\tp{0}\th{0}\tneutral\tentailment\t{1}\n"
MNLI_TEST = "index\tpromptID\tpairID\tgenre\ts1_bp\ts2_bp\ts1_p\ts2_p\tsentence1\tsentence2\n"
MNLI_TEST_ROW = "{0}\t1\t1n\tfiction\t( a )\t( b )\t(A)\t(B)\tp{0}\th{0}\n"


def test_mnli_has_two_validation_and_two_test_splits(write: Write, glue_dir: Path) -> None:
    names = ["contradiction", "entailment", "neutral"]
    write("glue/MNLI/train.tsv", MNLI_TRAIN + "".join(MNLI_TRAIN_ROW.format(i, name) for i, name in enumerate(names)))
    write("glue/MNLI/dev_matched.tsv", MNLI_DEV + MNLI_DEV_ROW.format(0, "entailment"))
    write("glue/MNLI/dev_mismatched.tsv", MNLI_DEV + MNLI_DEV_ROW.format(7, "neutral") * 2)
    write("glue/MNLI/test_matched.tsv", MNLI_TEST + MNLI_TEST_ROW.format(0))
    write("glue/MNLI/test_mismatched.tsv", MNLI_TEST + MNLI_TEST_ROW.format(0) * 3)
    loaded = load_glue("mnli", glue_dir)

    assert tuple(loaded) == GLUE_TASKS["mnli"].splits
    assert loaded["train"]["label"][:] == [2, 0, 1]
    assert loaded["train"][1] == {"premise": "p1", "hypothesis": "h1", "label": 0, "idx": 1}
    assert loaded["train"].features["label"] == ClassLabel(names=["entailment", "neutral", "contradiction"])
    assert loaded["validation_matched"]["label"][:] == [0]
    assert loaded["validation_mismatched"]["label"][:] == [1, 1]
    assert loaded["test_matched"]["label"][:] == [-1]
    assert len(loaded["test_mismatched"]) == 3


QQP = "id\tqid1\tqid2\tquestion1\tquestion2\tis_duplicate\n"


def test_qqp_rows_without_a_question_or_label_are_skipped_and_counted(
    write: Write, glue_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ragged = '3\t4\t5\t"a question\n that goes on"\tb?\t1\n'
    write("glue/QQP/train.tsv", QQP + "0\t1\t2\ta?\tb?\t0\n" + ragged + "6\t7\t8\tc?\t\t1\n")
    write("glue/QQP/test.tsv", "id\tquestion1\tquestion2\n0\tx?\ty?\n")
    with caplog.at_level(logging.WARNING):
        loaded = load_glue("qqp", glue_dir)

    assert loaded["train"]["question1"][:] == ["a?", "c?"]
    assert loaded["train"]["question2"][:] == ["b?", ""]
    assert loaded["train"]["label"][:] == [0, 1]
    assert loaded["train"]["idx"][:] == [0, 3]  # the row's number in the file, as on the hub
    assert "skipped 2 of 4 rows" in caplog.text
    assert loaded["test"][0] == {"question1": "x?", "question2": "y?", "label": -1, "idx": 0}


def test_a_ragged_test_row_is_an_error_because_skipping_it_would_shift_the_submission(
    write: Write, glue_dir: Path
) -> None:
    write("glue/QQP/test.tsv", "id\tquestion1\tquestion2\n0\tx?\n")
    with pytest.raises(ValueError, match=r"test\.tsv, line 2: expected 3 tab-separated columns .*, found 2\."):
        load_glue("qqp", glue_dir)


def test_qnli_training_rows_are_read(write: Write, glue_dir: Path) -> None:
    write("glue/QNLI/train.tsv", 'index\tquestion\tsentence\tlabel\n0\tq "x\ts\tnot_entailment\n1\tq\ts\tentailment\n')
    train = load_glue("qnli", glue_dir)["train"]
    assert train[0] == {"question": 'q "x', "sentence": "s", "label": 1, "idx": 0}
    assert train.features["label"].names == ["entailment", "not_entailment"]


def test_only_a_newline_ends_a_row(write: Write, glue_dir: Path) -> None:
    write("glue/SST-2/dev.tsv", "sentence\tlabel\r\none\u2028two\x0cthree\x85\t1\r\nlast\t0")
    rows = load_glue("sst2", glue_dir)["validation"]
    assert rows["sentence"][:] == ["one\u2028two\x0cthree\x85", "last"]
    assert rows["label"][:] == [1, 0]


def test_columns_are_found_by_name(write: Write, glue_dir: Path) -> None:
    write("glue/RTE/dev.tsv", "label\textra\tsentence2\tsentence1\nentailment\tx\ttwo\tone\n")
    row = load_glue("rte", glue_dir)["validation"][0]
    assert row == {"sentence1": "one", "sentence2": "two", "label": 0, "idx": 0}


def test_files_of_other_splits_are_not_opened(write: Write, glue_dir: Path) -> None:
    write("glue/SST-2/train.tsv", "broken")
    write("glue/SST-2/dev.tsv", "sentence\tlabel\na\t1\n")
    assert list(load_glue("sst2", glue_dir, ["validation"])) == ["validation"]


def test_equal_files_can_be_two_splits(write: Write, glue_dir: Path) -> None:
    for name in ("train", "dev"):
        write(f"glue/SST-2/{name}.tsv", "sentence\tlabel\na\t1\n")
    assert list(load_glue("sst2", glue_dir)) == ["train", "validation"]


def test_a_changed_file_is_read_again(write: Write, glue_dir: Path) -> None:
    for label in (1, 0):
        write("glue/SST-2/dev.tsv", f"sentence\tlabel\na\t{label}\n")
        assert load_glue("sst2", glue_dir)["validation"]["label"][:] == [label]


BAD_TSV = {
    "a row that is too short": (
        "sst2",
        "SST-2/dev.tsv",
        "sentence\tlabel\na\t1\nb\n",
        r"SST-2/dev\.tsv, line 3: expected 2 tab-separated columns \(sentence, label\), found 1\.",
    ),
    "a row that is too long": (
        "qqp",
        "QQP/dev.tsv",
        QQP + "0\t1\t2\ta\tb\t0\tx\n",
        r"QQP/dev\.tsv, line 2: expected 6 tab-separated columns .*, found 7\.",
    ),
    "a row of CoLA": (
        "cola",
        "CoLA/train.tsv",
        "gj04\t1\t\ta\ngj04\t1\ta\n",
        r"train\.tsv, line 2: expected 4 tab-separated columns \(source, label, mark, sentence\), found 3\.",
    ),
    "an unknown label": (
        "rte",
        "RTE/dev.tsv",
        "index\tsentence1\tsentence2\tlabel\n0\ta\tb\tmaybe\n",
        r"RTE/dev\.tsv, line 2: unknown label 'maybe'; expected one of entailment, not_entailment\.",
    ),
    "an unknown number": (
        "sst2",
        "SST-2/dev.tsv",
        "sentence\tlabel\na\t2\n",
        r"SST-2/dev\.tsv, line 2: unknown label '2'; expected one of 0, 1\.",
    ),
    "no agreed label": (
        "mnli",
        "MNLI/dev_matched.tsv",
        MNLI_DEV + MNLI_DEV_ROW.format(0, "-"),
        r"dev_matched\.tsv, line 2: unknown label '-'; expected one of entailment, neutral, contradiction\.",
    ),
    "a score that is no number": (
        "stsb",
        "STS-B/dev.tsv",
        "sentence1\tsentence2\tscore\na\tb\t5.0\na\tb\tfive\n",
        r"STS-B/dev\.tsv, line 3: expected a number as score, found 'five'\.",
    ),
    "a score that is not finite": (
        "stsb",
        "STS-B/dev.tsv",
        "sentence1\tsentence2\tscore\na\tb\tnan\n",
        r"line 2: expected a number as score, found 'nan'\.",
    ),
    "a text column is missing": (
        "mrpc",
        "MRPC/dev.tsv",
        "\ufeffQuality\t#1 ID\t#2 ID\t#1 String\n1\t2\t3\ta\n",
        r"dev\.tsv \(split validation\) has no column '#2 String'; its header has: Quality, #1 ID, #2 ID, #1 String\.",
    ),
    "the label column is missing": (
        "wnli",
        "WNLI/train.tsv",
        "index\tsentence1\tsentence2\n0\ta\tb\n",
        r"train\.tsv \(split train\) has no column 'label'; its header has: index, sentence1, sentence2\.",
    ),
    "an empty file": ("sst2", "SST-2/dev.tsv", "", r"dev\.tsv .*has no column 'sentence'; its header has: nothing\."),
    "a header and no rows": (
        "sst2",
        "SST-2/dev.tsv",
        "sentence\tlabel\n",
        r"dev\.tsv \(split validation\) has no rows",
    ),
    "not UTF-8": (
        "sst2",
        "SST-2/dev.tsv",
        "sentence\tlabel\na\t1\ncafé\t1\n".encode("latin-1"),
        r"SST-2/dev\.tsv, line 3: not UTF-8 \(.* at byte 3\); convert the file\.",
    ),
}


@pytest.mark.parametrize("bad", BAD_TSV)
def test_a_bad_tsv_is_refused_with_its_place(bad: str, write: Write, glue_dir: Path) -> None:
    task, name, content, message = BAD_TSV[bad]
    write(f"glue/{name}", content)
    with pytest.raises(ValueError, match=message) as caught:
        load_glue(task, glue_dir)
    assert type(caught.value) is ValueError


def test_a_folder_without_the_task_is_refused_with_the_files_it_should_hold(glue_dir: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No file for sst2: \S+SST-2/train\.tsv .*folder that holds SST-2/"):
        load_glue("sst2", glue_dir)


def test_unknown_tasks_and_splits_are_refused_with_the_known_ones(glue_dir: Path) -> None:
    with pytest.raises(ValueError, match=r"Unknown GLUE task 'sst-2'; it is one of cola, sst2, "):
        load_glue("sst-2", glue_dir)
    with pytest.raises(
        ValueError, match=r"mnli has no split 'validation'; its splits are train, validation_matched, "
    ):
        load_glue("mnli", glue_dir, ["validation"])


# The hub


def test_without_a_glue_dir_the_hub_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fake(*arguments: str) -> DatasetDict:
        asked.append(arguments)
        row = Dataset.from_dict({"sentence": ["a"], "label": [1], "idx": [0]})
        return DatasetDict({"train": row, "validation": row, "test": row})

    monkeypatch.setattr(datasets, "load_dataset", fake)

    assert list(load_glue("sst2")) == ["train", "validation", "test"]
    assert list(load_glue("sst2", splits=["validation"])) == ["validation"]
    assert asked == [("nyu-mll/glue", "sst2")] * 2


def test_without_a_network_one_sentence_names_the_local_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConnectionError, match=r"hub .*: give a folder .* --glue_dir .* or .* --train_file\.$"
    ) as caught:
        load_glue("sst2")
    assert caught.value.__suppress_context__
    assert "\n" not in str(caught.value)
    assert str(caught.value).count(". ") == 0


# One's own files


CSV = 'sentence,label\ngood film,pos\n"bad, really",neg\nNA,pos\n'


def test_strings_are_classes_in_sorted_order(write: Write) -> None:
    loaded, task = load_files(write("train.csv", CSV), write("dev.csv", CSV))
    assert task == Task("files", "", ("sentence",), ("neg", "pos"), "accuracy")
    assert task.metric_config == "classification"
    assert loaded["train"].features == Features(
        {"sentence": Value("string"), "label": ClassLabel(names=["neg", "pos"])}
    )
    assert loaded["validation"][:] == {"sentence": ["good film", "bad, really", "NA"], "label": [1, 0, 1]}


def test_floats_mean_regression(write: Write) -> None:
    loaded, task = load_files(
        write("train.csv", "sentence1,sentence2,label\na,b,0.5\nc,d,1\n"),
        write("dev.csv", "sentence1,sentence2,label\na,b,3\n"),
    )

    assert (task.is_regression, task.num_labels, task.metric, task.metric_config) == (
        True,
        1,
        "combined_score",
        "regression",
    )
    assert task.text_keys == ("sentence1", "sentence2")
    assert loaded["train"].features["label"] == Value("float32")
    assert loaded["validation"]["label"][:] == [3.0]


def test_integers_are_classes_with_their_numbers_as_names(write: Write) -> None:
    loaded, task = load_files(write("train.csv", "text,label\na,2\nb,1\nc,10\n"))
    assert task.labels == ("1", "2", "10")
    assert loaded["train"]["label"][:] == [1, 0, 2]


def test_integers_are_ids_when_the_names_are_given(write: Write) -> None:
    loaded, task = load_files(write("train.csv", "text,label\na,1\nb,0\n"), labels=["negative", "positive"])
    assert task.labels == ("negative", "positive")
    assert loaded["train"]["label"][:] == [1, 0]


def test_the_given_order_of_names_holds(write: Write) -> None:
    loaded, _ = load_files(write("train.csv", CSV), labels=["pos", "neg"])
    assert loaded["train"]["label"][:] == [0, 1, 0]


def test_a_parquet_class_label_keeps_its_names_and_an_unlabeled_test_its_minus_one(tmp_path: Path) -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["z", "a"])})
    for name, labels in (("train", [1, 0]), ("test", [-1, -1])):
        Dataset.from_dict({"text": ["x", "y"], "label": labels}, features=features).to_parquet(
            tmp_path / f"{name}.parquet"
        )
    loaded, task = load_files(tmp_path / "train.parquet", test_file=tmp_path / "test.parquet")

    assert task.labels == ("z", "a")
    assert loaded["train"]["label"][:] == [1, 0]
    assert loaded["test"]["label"][:] == [-1, -1]


def test_json_and_tsv_files_can_be_mixed(write: Write) -> None:
    rows = [
        {"query": "a", "answer": "b", "id": 7, "target": "yes"},
        {"query": "c", "answer": "d", "id": 8, "target": "no"},
    ]
    loaded, task = load_files(
        write("train.jsonl", "\n".join(map(json.dumps, rows))),
        write("dev.json", json.dumps(rows)),
        write("test.tsv", 'answer\tquery\nb "x\ta\n'),
        label_key="target",
    )

    assert task.text_keys == ("query", "answer")  # the number is not a text
    assert loaded["train"][0] == {"query": "a", "answer": "b", "label": 1} == loaded["validation"][0]
    assert loaded["test"][0] == {"query": "a", "answer": 'b "x', "label": -1}


@pytest.mark.parametrize(
    "table",
    [
        "text,label,notes\na b,1,\nc d,0,\n",
        "text,label,\na b,1,\nc d,0,\n",
        "rating,text,label\n3,a b,1\n,c d,0\n",
        "text,label,word\na b,1,yes\nc d,0,no\ne f,1,yes\ng h,0,no\n",
    ],
    ids=["blank notes", "a comma at the end", "a number that is missing", "the label in words"],
)
def test_a_column_that_is_no_text_is_not_taken_for_one(table: str, write: Write) -> None:
    loaded, task = load_files(write("train.csv", table))
    assert task.text_keys == ("text",) and loaded["train"]["text"][:2] == ["a b", "c d"]


def test_the_index_that_pandas_writes_into_a_parquet_file_is_no_text(tmp_path: Path) -> None:
    columns = {"text": ["a b", "c d"], "label": ["x", "y"], "__index_level_0__": ["first", "second"]}
    Dataset.from_dict(columns).to_parquet(tmp_path / "train.parquet")
    assert load_files(tmp_path / "train.parquet")[1].text_keys == ("text",)


def test_a_text_that_comes_twice_with_its_score_is_still_the_text(write: Write) -> None:
    rows = [f"w{row},text of {row},{row}.5" for row in range(60)]
    loaded, task = load_files(write("train.csv", "\n".join(["sku,text,label", *rows, rows[0]])))
    assert "text" in task.text_keys and len(loaded["train"]) == 61


def test_a_column_called_label_is_no_text_where_another_has_the_labels(write: Write) -> None:
    table = write("train.csv", "text,label,stars\na film,pos,4\nbad,neg,1\nso so,pos,3\n")
    loaded, task = load_files(table, label_key="stars")
    assert task.text_keys == ("text",) and loaded["train"]["text"][:] == ["a film", "bad", "so so"]
    with pytest.raises(ValueError, match="cannot be called 'label'"):
        load_files(table, text_keys=("text", "label"), label_key="stars")


def test_names_with_underscores_are_no_numbers(write: Write) -> None:
    _, task = load_files(write("train.csv", "text,label\na,1_1\nb,1_2\nc,2_1\nd,1_1\n"))
    assert task.labels == ("1_1", "1_2", "2_1")


def test_a_known_pair_among_other_texts_is_told(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    table = "body,question,sentence,label\na b,c d,e f,1\ng h,i j,k l,0\n"
    _, task = load_files(write("train.csv", table))
    assert task.text_keys == ("question", "sentence")
    assert "question and sentence are read as two texts, and body is not" in caplog.text


def test_columns_of_a_known_pair_are_taken_without_a_word(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    _, task = load_files(write("train.csv", "label,hypothesis,premise\n1,a b,c d\n0,e f,g h\n"))
    assert task.text_keys == ("premise", "hypothesis") and not caplog.text


def test_a_file_that_was_replaced_by_one_of_the_same_time_is_read_anew(write: Write) -> None:
    for text in ("one", "two"):
        path = write("train.csv", f"text,label\n{text},x\nother,y\n")
        os.utime(path, (1e9, 1e9))
        assert load_files(path)[0]["train"]["text"][0] == text


def test_a_long_text_may_stand_in_the_first_row(write: Write) -> None:
    long = "word " * 30_000
    loaded, _ = load_files(write("train.csv", f"text,label\n{long},x\nother,y\n"))
    assert loaded["train"]["text"][0] == long


def test_text_columns_can_be_named(write: Write) -> None:
    loaded, task = load_files(write("train.csv", "source,number,label\nx,12,0\n"), text_keys=["number", "source"])
    assert task.text_keys == ("number", "source")
    assert loaded["train"][0] == {"number": "12", "source": "x", "label": 0}


def test_a_path_with_wildcards_is_a_path(write: Write) -> None:
    loaded, _ = load_files(write("runs [1]/train*.csv", CSV))
    assert len(loaded["train"]) == 3


def test_unlabeled_text_can_be_distilled_on_when_the_classes_are_named(write: Write) -> None:
    loaded, task = load_files(
        write("train.csv", "text\na\nb\n"), write("dev.csv", "text,label\na,pos\n"), labels=["neg", "pos"]
    )
    assert task.labels == ("neg", "pos")
    assert loaded["train"]["label"][:] == [-1, -1]
    assert loaded["validation"]["label"][:] == [1]


BAD_FILES = {
    "a missing label column": (
        {"train.csv": "text,target\na,1\n"},
        r"train\.csv has no column 'label', only text, target; name .* --label_column_name, or learn from the teacher",
    ),
    "a missing text column": (
        {"train.csv": CSV, "dev.csv": "text,label\na,pos\n"},
        r"dev\.csv has no column 'sentence', only text, label; name the columns with",
    ),
    "no text column": ({"train.csv": "x,label\n1,2\n"}, r"train\.csv has no text column besides the label 'label'"),
    "an unseen label": (
        {"train.csv": CSV, "dev.csv": "sentence,label\na,pos\nb,neutral\n"},
        r"dev\.csv, row 2: unknown label 'neutral' in column 'label', expected neg, pos; .* --class_names\.",
    ),
    "an unseen number": (
        {"train.csv": "text,label\na,1\nb,2\n", "dev.csv": "text,label\na,0\n"},
        r"dev\.csv, row 1: unknown label 0 in column 'label', expected 1, 2;",
    ),
    "numbers where the other file has names": (
        {"train.csv": CSV, "dev.csv": "sentence,label\na,1\n"},
        r"dev\.csv, row 1: unknown label 1 in column 'label', expected neg, pos;",
    ),
    "names where the other file has scores": (
        {"train.csv": "text,label\na,0.5\n", "dev.csv": "text,label\na,b\n"},
        r"dev\.csv, row 1: unknown label 'b' in column 'label', expected a number;",
    ),
    "a missing label": (
        {"train.csv": "text,label\na,pos\nb,\nc,neg\n"},
        r"train\.csv, row 2: no label in column 'label', expected neg, pos;",
    ),
    "a missing score": (
        {"train.json": '{"text": "a", "label": 0.5}\n{"text": "b", "label": null}\n'},
        r"train\.json, row 2: no label in column 'label', expected a number;",
    ),
    "no labels at all": (
        {"train.csv": "text,label\na,\n"},
        r"train\.csv has no labels in column 'label'; .* --class_names",
    ),
    "a missing text": (
        {"train.json": '{"text": "a", "label": 0}\n{"text": null, "label": 1}\n'},
        r"train\.json, row 2: no text in column 'text'; fill it in, or choose the texts with --text_column_names\.",
    ),
    "semicolons and a comma in the first row": (
        {"train.csv": "text;label\ngood, long film;pos\n"},
        r"more columns than its header names\. Its header is separated by semicolons and not by commas\.",
    ),
    "semicolons and a comma in a later row": (
        {"train.csv": "text;label\ngood film;pos\nbad, long film;neg\n"},
        r"saw 2.* Its header is separated by semicolons and not by commas\.",
    ),
    "an empty file": ({"train.csv": ""}, r"train\.csv is empty; it needs a text and a label column\."),
    "a header and no rows": ({"train.csv": "text,label\n"}, r"train\.csv has no rows or cannot be read as csv: "),
    "an unsupported extension": (
        {"train.xlsx": "x"},
        r"train\.xlsx: \.xlsx is not supported; use \.csv, \.tsv, \.json, \.jsonl, \.parquet\.",
    ),
    "a csv row that is too long": (
        {"train.csv": "text,label\na,1\nb,c,2\n"},
        r"train\.csv has no rows or cannot be read as csv: .*Expected 2 fields in line 3, saw 3",
    ),
    "a header that is too short": (
        {"train.csv": "text,label\na,b,1\nc,d,2\n"},
        r"train\.csv: its rows have more columns than its header names",
    ),
    "not UTF-8": (
        {"train.csv": "text,label\ncafé,1\n".encode("latin-1")},
        r"train\.csv has no rows or cannot be read as csv: .*can't decode byte 0xe9",
    ),
    "broken json": ({"train.json": '{"text": "a", \n'}, r"train\.json has no rows or cannot be read as json: "),
    "broken parquet": ({"train.parquet": "x"}, r"train\.parquet has no rows or cannot be read as parquet: "),
}


@pytest.mark.parametrize("bad", BAD_FILES)
def test_a_bad_file_is_refused_with_its_place_and_the_way_out(bad: str, write: Write) -> None:
    files, message = BAD_FILES[bad]
    with pytest.raises(ValueError, match=message) as caught:
        load_files(*(write(name, content) for name, content in files.items()))
    assert "\n" not in str(caught.value)


def test_no_file_and_a_file_that_is_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"No data: give at least one of --train_file, "):
        load_files()
    with pytest.raises(FileNotFoundError, match=r"train\.csv does not exist\."):
        load_files(tmp_path / "train.csv")


def test_names_for_the_classes_of_a_regression_are_refused(write: Write) -> None:
    with pytest.raises(
        ValueError, match=r"column 'label' holds floats, which means regression; leave out --class_names\."
    ):
        load_files(write("train.csv", "text,label\na,0.5\n"), labels=["a", "b"])


# Tokenization


@pytest.fixture
def pairs(write: Write, glue_dir: Path) -> DatasetDict:
    header = "index\tsentence1\tsentence2\tlabel\n"
    write("glue/RTE/train.tsv", header + "0\ta b c d e f\ta\tentailment\n1\ta\tb\tnot_entailment\n")
    write("glue/RTE/test.tsv", "index\tsentence1\tsentence2\n0\ta\tb\n")
    return load_glue("rte", glue_dir)


def test_tokens_are_neither_padded_nor_longer_than_asked(
    pairs: DatasetDict, tokenizer: PreTrainedTokenizerBase
) -> None:
    tokens = tokenize(pairs, GLUE_TASKS["rte"], tokenizer, max_seq_length=7)
    assert tokens["train"].column_names == ["label", "input_ids", "token_type_ids", "attention_mask"]
    # [CLS] a b c [SEP] a [SEP]: the longer text is cut.
    assert tokens["train"]["input_ids"][:] == [[2, 5, 6, 7, 3, 5, 3], [2, 5, 3, 6, 3]]
    assert tokens["train"]["token_type_ids"][:] == [[0, 0, 0, 0, 0, 1, 1], [0, 0, 0, 1, 1]]
    assert tokens["train"]["label"][:] == [0, 1]


def test_unlabeled_splits_have_no_label_column(pairs: DatasetDict, tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = tokenize(pairs, GLUE_TASKS["rte"], tokenizer)
    assert "label" not in tokens["test"].column_names
    assert "label" in tokens["train"].column_names


def test_what_a_tokenizer_cannot_do_is_said(
    pairs: DatasetDict, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(ValueError, match=r"max_seq_length=3 leaves no room for text beside 3 special tokens\."):
        tokenize(pairs, GLUE_TASKS["rte"], tokenizer, max_seq_length=3)
    with pytest.raises(
        ValueError, match=r"Split train has no column premise, hypothesis, only sentence1, sentence2, "
    ):
        tokenize(pairs, GLUE_TASKS["mnli"], tokenizer)

    tokenizer.model_max_length = 6
    tokens = tokenize(pairs, GLUE_TASKS["rte"], tokenizer)
    assert max(map(len, tokens["train"]["input_ids"])) == 6
    assert "max_seq_length=128 is more than the tokenizer's 6" in caplog.text


def test_texts_that_are_cut_are_named(
    pairs: DatasetDict, tokenizer: PreTrainedTokenizerBase, caplog: pytest.LogCaptureFixture
) -> None:
    limit = tokenizer.model_max_length
    tokenize(DatasetDict(train=pairs["train"].select([])), GLUE_TASKS["rte"], tokenizer)
    tokenize(pairs, GLUE_TASKS["rte"], tokenizer, max_seq_length=12)
    assert not caplog.text
    tokenize(pairs, GLUE_TASKS["rte"], tokenizer, max_seq_length=7)
    assert "Split train: 1 of 2 rows fill all 7 tokens, and what goes beyond is cut: max_seq" in caplog.text
    assert f"max_seq_length may be up to {limit}." in caplog.text and "Split test" not in caplog.text
    tokenizer.model_max_length = 7
    tokenize(pairs, GLUE_TASKS["rte"], tokenizer, max_seq_length=7)
    assert "fill all 7 tokens, and what goes beyond is cut." in caplog.text


def test_a_split_that_is_labeled_in_part_is_refused(tokenizer: PreTrainedTokenizerBase) -> None:
    rows = Dataset.from_dict({"sentence": ["a", "b"], "label": [1, -1]})
    with pytest.raises(ValueError, match=r"Split train has rows without a label \(label -1\) among labeled ones"):
        tokenize(DatasetDict({"train": rows}), GLUE_TASKS["sst2"], tokenizer)


def _cached_files(cache: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.arrow")}


def test_a_second_process_reads_tokens_from_the_cache(
    write: Write,
    glue_dir: Path,
    tmp_path: Path,
    datasets_cache: Path,
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    for name in ("train", "dev"):
        write(f"glue/SST-2/{name}.tsv", f"sentence\tlabel\na {name} b\t1\nc d\t0\n")
    own = write("own.csv", CSV)
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    # This process reads the files, and then another one reads what it left.
    folder_tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tokenizer")
    glue = tokenize(load_glue("sst2", glue_dir), GLUE_TASKS["sst2"], folder_tokenizer)
    rows = tokenize(*load_files(own), folder_tokenizer)
    fingerprints = [split._fingerprint for split in (*glue.values(), *rows.values())]
    files = _cached_files(datasets_cache)
    # There are 3 tokenized splits, and the csv's labels.
    assert sum(path.name.startswith("cache-") for path in files) >= 4

    code = textwrap.dedent(f"""
        from transformers import AutoTokenizer
        from bertkd.data import GLUE_TASKS, load_files, load_glue, tokenize
        tokenizer = AutoTokenizer.from_pretrained({str(tmp_path / "tokenizer")!r})
        glue = tokenize(load_glue("sst2", {str(glue_dir)!r}), GLUE_TASKS["sst2"], tokenizer)
        rows = tokenize(*load_files({str(own)!r}), tokenizer)
        print("FINGERPRINTS", *(split._fingerprint for split in (*glue.values(), *rows.values())))
    """)
    environment = {**os.environ, "HF_DATASETS_CACHE": str(datasets_cache)}
    command, root = [sys.executable, "-c", code], Path(__file__).parents[2]
    process = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=True)
    assert f"FINGERPRINTS {' '.join(fingerprints)}" in process.stdout.splitlines()
    assert _cached_files(datasets_cache) == files
