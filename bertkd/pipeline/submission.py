"""Predicts the test sets of GLUE, for the leaderboard."""

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from bertkd.data import GLUE_TASKS, Task, load_glue, tokenize
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline.evaluation import ADVICE, logit_order
from bertkd.pipeline.models import load_model

__all__ = ["predict_test_sets"]


def predict_test_sets(
    task_name: str,
    folder: str,
    glue_dir: str | None,
    output_dir: str,
    max_seq_length: int = 128,
    batch_size: int = 64,
) -> dict[str, np.ndarray]:
    """The logits (N, C) of a model on the test sets that it answers, by their name in the submission.

    Args:
        task_name: a task of GLUE; the model of "mnli" also answers the diagnostic set "ax".
        folder: the model's.
        glue_dir: GLUE's official tsv files; None for the hub.
        output_dir: a folder that the trainer may use.
        max_seq_length: longer inputs are cut.
        batch_size: rows that are predicted at once.

    Raises:
        ValueError: the labels of model and task do not match.
    """
    model = load_model(folder)
    tokenizer = load_tokenizer(folder)
    config = DistillationConfig(
        output_dir=output_dir, alpha=0.0, per_device_eval_batch_size=batch_size, report_to="none"
    )
    trainer = DistillationTrainer(model=model, args=config, processing_class=tokenizer)

    predictions = {}
    # All are read before the first is predicted: a file may be missing.
    for name, task, rows in list(_test_sets(GLUE_TASKS[task_name], glue_dir)):
        tokenized = tokenize(DatasetDict(test=rows), task, tokenizer, max_seq_length)["test"]
        logits: Any = trainer.predict(tokenized).predictions
        order = logit_order(model, task, ADVICE)
        predictions[name] = logits if order is None else logits[:, order]
    return predictions


def _test_sets(task: Task, glue_dir: str | None) -> Iterator[tuple[str, Task, Dataset]]:
    """The test sets that the model of a task answers: name in the submission, task, rows."""
    for split, rows in load_glue(task.name, glue_dir, splits=task.test_splits).items():
        yield f"{task.name}{str(split).removeprefix('test')}", task, rows
    if task.name == "mnli":
        # A submission without it says so, or answers it by a constant.
        with suppress(FileNotFoundError):
            yield "ax", GLUE_TASKS["ax"], load_glue("ax", glue_dir, splits=["test"])["test"]
