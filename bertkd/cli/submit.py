"""Predict GLUE's test sets with trained models, and write the files that the leaderboard takes.

    bertkd submit --models sst2=outputs/sst2 mnli=outputs/mnli --glue_dir GLUE --output_dir submission --fill_missing

The model of mnli also answers the diagnostic set (AX). The leaderboard takes complete submissions only:
--fill_missing puts the most frequent class of the training set where no model is given.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bertkd.cli.commands import quiet
from bertkd.cli.parser import PlainParser
from bertkd.cli.rules import COUNT
from bertkd.data import GLUE_TASKS, write_submission
from bertkd.pipeline.folders import check_output
from bertkd.pipeline.submission import predict_test_sets


def models_by_task(pairs: Sequence[str]) -> dict[str, str]:
    """The folders by task, from TASK=FOLDER.

    Raises:
        ValueError: a pair of another form, or an unknown task.
    """
    models: dict[str, str] = {}
    for pair in pairs:
        task, equals, folder = pair.partition("=")
        if not equals or task not in GLUE_TASKS or task == "ax":
            known = ", ".join(name for name in GLUE_TASKS if name != "ax")
            raise ValueError(f"Cannot read --models {pair}: write TASK=FOLDER with a task among {known}.")
        if task in models:
            raise ValueError(f"--models names two models for {task}, {models[task]} and {folder}: give one.")
        models[task] = folder
    return models


def parser() -> PlainParser:
    """The parser of the command."""
    made = PlainParser("submit", str(__doc__))
    made.add_argument("--models", nargs="+", required=True, metavar="TASK=FOLDER", help="A trained model per task.")
    made.add_argument("--glue_dir", help="The folder of GLUE's official tsv files. By default the hub is asked.")
    made.add_argument("--output_dir", required=True, help="The folder of the submission.")
    made.add_argument(
        "--max_seq_length", type=int, range=COUNT, default=128, help="Longer inputs are cut to this many tokens."
    )
    made.add_argument("--batch_size", type=int, range=COUNT, default=64, help="The rows that are predicted at once.")
    made.add_argument("--fill_missing", action="store_true", help="Answer tasks without a model by a constant.")
    return made


def main(argv: Sequence[str] | None = None) -> Path:
    """Writes a submission; returns its file."""
    options = parser().parse(argv)
    quiet()
    models = models_by_task(options.models)
    check_output(options.output_dir)

    predictions: dict[str, np.ndarray] = {}
    for task, folder in models.items():
        predictions |= predict_test_sets(
            task, folder, options.glue_dir, options.output_dir, options.max_seq_length, options.batch_size
        )

    path = write_submission(predictions, options.output_dir, fill_missing=options.fill_missing)
    print(f"Submission for {', '.join(predictions)}: {path}")
    return path
