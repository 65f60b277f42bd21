"""Loads data to fine-tune and distill on: GLUE from the hub or from its tsv files, the user's files, plain text."""

from bertkd.data.corpus import hold_out, load_corpus, tokenize_corpus
from bertkd.data.files import check_rows, load_files, load_texts
from bertkd.data.glue import GLUE_TASKS, Task, load_glue
from bertkd.data.submission import write_submission
from bertkd.data.tokenization import tokenize

__all__ = [
    "GLUE_TASKS",
    "Task",
    "check_rows",
    "hold_out",
    "load_corpus",
    "load_files",
    "load_glue",
    "load_texts",
    "tokenize",
    "tokenize_corpus",
    "write_submission",
]
