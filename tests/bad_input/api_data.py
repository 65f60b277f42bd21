"""Calls of the loaders, the tokenization and the metrics with data that is broken, or not what it seems."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict
from transformers import AutoTokenizer, EvalPrediction

from bad_input.cases import ApiCase, Place
from bertkd.cli.settings_file import read_options
from bertkd.data import (
    GLUE_TASKS,
    Task,
    check_rows,
    hold_out,
    load_corpus,
    load_files,
    load_glue,
    tokenize,
    tokenize_corpus,
    write_submission,
)
from bertkd.metrics import glue_metrics
from bertkd.pipeline import limit_rows

RTE = GLUE_TASKS["rte"]


def written(place: Place, name: str, text: str | bytes) -> Path:
    """A file of the case."""
    path = place.dir / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def rows(**columns: Any) -> DatasetDict:
    return DatasetDict({"train": Dataset.from_dict(columns)})


def metric(task: str, predictions: Any, labels: Any) -> Any:
    return glue_metrics(task)(EvalPrediction(predictions=np.array(predictions), label_ids=np.array(labels)))


def classes(place: Place, labels: list[Any], names: list[str] | None = None) -> Any:
    lines = [json.dumps({"text": f"text {row}", "label": label}) for row, label in enumerate(labels)]
    return load_files(written(place, "a.jsonl", "\n".join(lines)), labels=names)


def tokenizer(place: Place) -> Any:
    return AutoTokenizer.from_pretrained(place.model)


def data(name: str, call: Any, says: str, error: type[Exception] = ValueError) -> ApiCase:
    """Files and rows."""
    return ApiCase("data files", name, call, says, error)


def label(name: str, call: Any, says: str) -> ApiCase:
    """Labels and metrics."""
    return ApiCase("labels", name, call, says)


SST2 = GLUE_TASKS["sst2"]
PAIR = {"sentence1": ["a", "b"], "sentence2": ["c", "d"]}
CASES = [
    data("load_files without a file", lambda place: load_files(), "No data: give at least one of --train_file"),
    data(
        "load_files with a file that is not there",
        lambda place: load_files(place.dir / "a.csv"),
        "a.csv does not exist",
        FileNotFoundError,
    ),
    data(
        "load_files with an empty text",
        lambda place: load_files(written(place, "a.csv", "text,label\nx,1\n ,0\n")),
        "a.csv, row 2: no text in column 'text'",
    ),
    data(
        "load_files with tokens",
        lambda place: load_files(written(place, "a.jsonl", '{"text": ["a"], "label": 1}'), text_keys=["text"]),
        "column 'text' holds lists",
    ),
    data(
        "load_files with a column twice",
        lambda place: load_files(written(place, "a.csv", "a,a,label\nx,y,1\n")),
        "2 columns called 'a'",
    ),
    data("load_glue of no task", lambda place: load_glue("sst-2", place.glue), "Unknown GLUE task 'sst-2'"),
    data("load_glue of no split", lambda place: load_glue("sst2", place.glue, ["dev"]), "sst2 has no split 'dev'"),
    data(
        "load_glue from an empty folder",
        lambda place: load_glue("sst2", place.dir),
        "No file for sst2",
        FileNotFoundError,
    ),
    data("load_corpus of nothing", lambda place: load_corpus(), "Give a corpus: either text or parquet files"),
    data(
        "load_corpus of an empty folder",
        lambda place: load_corpus(place.dir),
        "does not exist, or is a folder without files",
        FileNotFoundError,
    ),
    data(
        "load_corpus of bytes",
        lambda place: load_corpus(written(place, "a.txt", b"a\0b\n")),
        "a.txt, line 1: a zero byte",
    ),
    data(
        "tokenize_corpus of no text",
        lambda place: tokenize_corpus(Dataset.from_dict({"text": ["", " "]}), tokenizer(place), 16),
        "The corpus has no usable line",
    ),
    data(
        "tokenize_corpus in a mode that there is not",
        lambda place: tokenize_corpus(Dataset.from_dict({"text": ["a"]}), tokenizer(place), 16, "words"),
        "mode must be one of sentence, block, not 'words'",
    ),
    data(
        "hold_out of all rows",
        lambda place: hold_out(Dataset.from_dict({"a": [1, 2]}), 2, 0),
        "of which 2 cannot be held out",
    ),
    data(
        "hold_out of no row",
        lambda place: hold_out(Dataset.from_dict({"a": [1, 2]}), 0, 0),
        "At least one row is held out",
    ),
    data(
        "tokenize of another task's rows",
        lambda place: tokenize(rows(sentence=["a"], label=[1]), RTE, tokenizer(place)),
        "has no column sentence1, sentence2",
    ),
    data(
        "tokenize without room",
        lambda place: tokenize(rows(**PAIR, label=[0, 1]), RTE, tokenizer(place), 3),
        "max_seq_length=3 leaves no room for text",
    ),
    data(
        "limit_rows of a sorted split",
        lambda place: limit_rows(rows(label=[0, 0, 1]), 2),
        "first 2 rows of 'train' all have one label",
    ),
    data(
        "check_rows of the training rows themselves",
        lambda place: check_rows(
            DatasetDict(
                {
                    "train": rows(sentence=["a", "b"], label=[0, 1])["train"],
                    "validation": rows(sentence=["b"], label=[1])["train"],
                }
            ),
            SST2,
        ),
        "All 1 rows of --validation_file are in --train_file",
    ),
    ApiCase(
        "names, paths and secrets",
        "a task whose name leaves its folder",
        lambda place: Task("../up", "", ("text",), ("a", "b"), "accuracy"),
        "'../up' cannot name a task",
    ),
    ApiCase(
        "names, paths and secrets",
        "a task without a name",
        lambda place: Task("", "", ("text",), ("a", "b"), "accuracy"),
        "'' cannot name a task",
    ),
    ApiCase(
        "options and settings",
        "read_options of a file that is not there",
        lambda place: read_options(str(place.dir / "a.yaml")),
        "no such file, nor shipped settings",
    ),
    ApiCase(
        "options and settings",
        "read_options of a list",
        lambda place: read_options(str(written(place, "a.yaml", "- a\n"))),
        "must hold one `option: value` per line",
    ),
    label(
        "load_files with a list of labels",
        lambda place: classes(place, [[1, 0], [0, 1]]),
        "column 'label' holds lists",
    ),
    label("load_files with a word among ids", lambda place: classes(place, [0, "x"]), "row 2: the label 'x'"),
    label(
        "load_files with an id out of range",
        lambda place: classes(place, [0, 2], ["a", "b"]),
        "row 2: unknown label 2 .*expected a, b",
    ),
    label(
        "load_files with a class named twice", lambda place: classes(place, [0, 1], ["a", "a"]), "the name 'a' twice"
    ),
    label(
        "load_files with a label for each row",
        lambda place: classes(place, [f"l{row}" for row in range(40)]),
        "40 different labels in 40 rows",
    ),
    label(
        "tokenize of rows that are labeled in part",
        lambda place: tokenize(rows(sentence=["a", "b"], label=[0, -1]), SST2, tokenizer(place)),
        "rows without a label .label -1. among labeled ones",
    ),
    label("a metric that there is not", lambda place: glue_metrics("squad"), "No GLUE metric for 'squad'"),
    label(
        "a metric of logits that are NaN",
        lambda place: metric("sst2", [[0.1, 0.2], [np.nan, 0.1]], [0, 1]),
        "the logits of example 1 are NaN",
    ),
    label(
        "a metric of a score that is infinite",
        lambda place: metric("stsb", [[0.1], [np.inf]], [0.5, 1]),
        "the prediction of example 1 is inf",
    ),
    label(
        "a metric of a label that is NaN",
        lambda place: metric("stsb", [[0.1], [1.0]], [0.5, np.nan]),
        "the label of example 1 is nan",
    ),
    label(
        "a metric of rows without labels",
        lambda place: metric("sst2", [[0.1, 0.2], [0.3, 0.1]], [0, -100]),
        "that of example 1 is -100, which stands for none",
    ),
    label(
        "a metric of more classes than logits",
        lambda place: metric("sst2", [[0.1, 0.2], [0.3, 0.1]], [0, 2]),
        "got 2 logits per example, but the label of example 1 is 2",
    ),
    label("a metric of nothing", lambda place: metric("sst2", np.zeros((0, 2)), np.zeros(0, int)), "has no examples"),
    label(
        "a metric of fewer predictions than labels",
        lambda place: metric("sst2", [[0.1, 0.2]], [0, 1]),
        "needs one row of logits per label",
    ),
    ApiCase(
        "numbers",
        "a metric of a constant answer",
        lambda place: metric("sst2", [[0.1, 0.2], [0.3, 0.4]], [0, 1]),
        "All 2 predictions are 1: .*constant answer",
        ends="named",
    ),
    ApiCase(
        "numbers",
        "a correlation with a constant answer",
        lambda place: metric("stsb", [[0.5], [0.5]], [0.0, 1.0]),
        "All 2 predictions are 0.5: .*constant answer",
        ends="named",
    ),
    label(
        "a submission of no task",
        lambda place: write_submission({"squad": np.zeros(3)}, place.dir),
        "No GLUE submission for squad",
    ),
    label(
        "a submission that is not complete",
        lambda place: write_submission({"wnli": np.zeros(146)}, place.dir),
        "predictions are missing for cola",
    ),
    label(
        "a submission of too few rows",
        lambda place: write_submission({"wnli": np.zeros(3)}, place.dir, fill_missing=True),
        "its official test set has 146 rows",
    ),
    label(
        "a submission of NaN",
        lambda place: write_submission({"wnli": np.full(146, np.nan)}, place.dir, fill_missing=True),
        "predictions that are not finite",
    ),
    ApiCase(
        "data files",
        "an id before the text",
        lambda place: load_files(written(place, "a.csv", "id,text,label\nr17,good film,pos\nr18,bad film,neg\n")),
        "text is read as the text, and id is not; choose with --text_column_names",
        ends="named",
    ),
    ApiCase(
        "data files",
        "a column that says the label in words",
        lambda place: load_files(
            written(place, "a.csv", "text,label,label_text\na b,1,pos\nc d,0,neg\ne f,1,pos\ng h,0,neg\n")
        ),
        "text is read as the text, and label_text is not; choose with --text_column_names",
        ends="named",
    ),
    ApiCase(
        "data files",
        "a second column of words that is none of the text",
        lambda place: load_files(written(place, "a.csv", "author,text,label\nann b,good film,1\nc d,bad film,0\n")),
        "author and text are read as two texts; choose with --text_column_names",
        ends="named",
    ),
    ApiCase(
        "data files",
        "labels that differ in case alone",
        lambda place: load_files(written(place, "a.csv", "text,label\na b,Pos\nc d,pos\ne f,neg\n")),
        "the labels 'Pos' and 'pos' in column 'label' are read as two classes",
        ends="named",
    ),
    ApiCase(
        "data files",
        "a tsv whose texts are quoted",
        lambda place: load_files(written(place, "a.tsv", 'text\tlabel\n"he said ""no"" to it"\tx\nwell\ty\n')),
        "a.tsv, row 1: the quotes in column 'text' are read as part of the text",
        ends="named",
    ),
    ApiCase(
        "data files",
        "more columns of texts than a model reads",
        lambda place: load_files(written(place, "a.csv", "a,b,c,label\na b,c d,e f,pos\ng h,i j,k l,neg\n")),
        "a and b are read as two texts, and c is not",
        ends="named",
    ),
    ApiCase(
        "data files",
        "some validation rows among the training rows",
        lambda place: check_rows(
            DatasetDict(
                {
                    "train": rows(sentence=["a", "b"], label=[0, 1])["train"],
                    "validation": rows(sentence=["b", "c"], label=[1, 0])["train"],
                }
            ),
            SST2,
        ),
        "1 of the 2 rows of --validation_file are in --train_file too",
        ends="named",
    ),
    ApiCase(
        "labels",
        "classes written as decimal numbers",
        lambda place: load_files(written(place, "a.csv", "text,label\na b,0.0\nc d,1.0\n")),
        "whole numbers with a decimal point, and are read as scores",
        ends="named",
    ),
    ApiCase(
        "labels",
        "more than a hundred classes",
        lambda place: classes(place, [f"l{row % 120}" for row in range(360)]),
        "column 'label' is read as 120 classes",
        ends="named",
    ),
]
