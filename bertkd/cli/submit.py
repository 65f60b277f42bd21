"""Predict GLUE's test sets with trained models and write the files that the leaderboard takes.

    python recipes/make_submission.py --models sst2=outputs/sst2 mnli=outputs/mnli --glue_dir GLUE \
        --output_dir submission --fill_missing

The model of mnli also answers the diagnostic set (AX). The leaderboard takes complete submissions only:
--fill_missing puts the most frequent class of the training set where no model is given.
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.cli.experiment import quiet
from bertkd.data import GLUE_TASKS, Task, load_glue, tokenize, write_submission
from bertkd.models import label_names, label_permutation


def parse_models(pairs: Sequence[str]) -> dict[str, str]:
    """The folders by task, from TASK=FOLDER.

    Raises:
        ValueError: a pair of another form, or an unknown task.
    """
    models = {}
    for pair in pairs:
        task, found, folder = pair.partition("=")
        if not found or task not in GLUE_TASKS or task == "ax":
            known = ", ".join(name for name in GLUE_TASKS if name != "ax")
            raise ValueError(f"Cannot read --models {pair}: write TASK=FOLDER with a task among {known}.")
        models[task] = folder
    return models


def test_sets(task: Task, glue_dir: str | None) -> Iterator[tuple[str, Task, Dataset]]:
    """The test sets that the model of a task answers: (name in the submission, task, rows)."""
    for split, rows in load_glue(task.name, glue_dir, splits=task.test_splits).items():
        yield f"{task.name}{str(split).removeprefix('test')}", task, rows
    if task.name == "mnli":
        yield "ax", GLUE_TASKS["ax"], load_glue("ax", glue_dir, splits=["test"])["test"]


def predict(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: Task,
    rows: Dataset,
    arguments: argparse.Namespace,
) -> np.ndarray:
    """Logits (N, C) in the hub's label order."""
    config = DistillationConfig(
        output_dir=arguments.output_dir, alpha=0.0, per_device_eval_batch_size=arguments.batch_size, report_to="none"
    )
    trainer = DistillationTrainer(model=model, args=config, processing_class=tokenizer)
    tokenized = tokenize(DatasetDict(test=rows), task, tokenizer, arguments.max_seq_length)["test"]
    logits = trainer.predict(tokenized).predictions
    if task.is_regression:
        return logits
    given = label_names(model.config)
    advice = "set id2label and label2id in the model's config.json to what its logits mean"
    wanted_by = f"the task {task.name}"
    order = label_permutation(task.labels, given, wanted_by=wanted_by, given_by="the model", advice=advice)
    return logits if order is None else logits[:, order]


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", required=True, metavar="TASK=FOLDER")
    parser.add_argument("--glue_dir", help="Folder of official tsv files; default: the hub.")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("--max_seq_length", type=int, default=128)
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--fill_missing", action="store_true", help="Answer tasks without a model by a constant.")
    arguments = parser.parse_args(argv)
    quiet()
    predictions = {}
    for name, folder in parse_models(arguments.models).items():
        model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        for key, task, rows in test_sets(GLUE_TASKS[name], arguments.glue_dir):
            predictions[key] = predict(model, tokenizer, task, rows, arguments)
    path = write_submission(predictions, arguments.output_dir, fill_missing=arguments.fill_missing)
    print(f"Submission for {', '.join(predictions)}: {path}")
    return path
