"""Data to fine-tune and distil on: GLUE from the hub or from its tsv files, and the user's own files."""

from bertkd.data.files import load_files
from bertkd.data.glue import GLUE_TASKS, Task, load_glue
from bertkd.data.submission import write_submission
from bertkd.data.tokenization import tokenize

__all__ = ["GLUE_TASKS", "Task", "load_files", "load_glue", "tokenize", "write_submission"]
