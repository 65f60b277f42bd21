"""Augment a task's training rows as TinyBERT does: words are replaced by others that fit their place.

    bertkd augment --task_name mrpc --augment_model bert-base-uncased --augment_vectors glove.42B.300d.txt \
        --output_dir outputs/mrpc-augmented

Writes train.parquet: the task's columns and original_row, the number of the row that a variant was made of. A command
that was killed goes on when it is started again. `bertkd tinybert` augments by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bertkd import DistillationConfig
from bertkd.atomic import atomic_path
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, check_outputs, quiet
from bertkd.cli.options import AugmentationOptions, RunOptions
from bertkd.cli.parser import one_run, parse_runs
from bertkd.folder_lock import folder_in_use
from bertkd.pipeline.augmentation import augmented
from bertkd.pipeline.experiment import output_folder
from bertkd.pipeline.folders import check_separate


@dataclass
class AugmentOptions(AugmentationOptions, RunOptions):
    """The options of the augmentation alone."""


def main(argv: Sequence[str] | None = None) -> Path:
    """Writes the augmented rows; returns their file."""
    quiet()
    runs: list[TaskRun[AugmentOptions, DistillationConfig]] = parse_runs(
        "augment", str(__doc__), DistillationConfig, argv, own_class=AugmentOptions
    )
    options = one_run(runs, "An augmented set has a seed of its own, --augment_seed.")

    check_outputs([options])
    path = output_folder(options.config) / "train.parquet"
    check_separate(path, {"--train_file": options.data.train_file, "--validation_file": options.data.validation_file})

    if options.config.process_index != 0:
        return augment(options, path)
    with folder_in_use(output_folder(options.config), options.command):
        return augment(options, path)


def augment(options: TaskRun[AugmentOptions, DistillationConfig], path: Path) -> Path:
    """Writes the augmented rows to a file, and returns it."""
    rows, task = resolve.task_rows(options.data)
    more = augmented(rows["train"], task, options.own.augmentation(options.config), options.config)

    if options.config.process_index == 0:
        with atomic_path(path) as partial:
            more.to_parquet(str(partial))
        print(f"{len(rows['train']):,} rows became {len(more):,}: {path}")
    return path
