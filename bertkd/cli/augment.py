"""Augment a task's training rows as TinyBERT does: words replaced by those that fit their place.

    python recipes/augment.py --task_name mrpc --glue_dir GLUE --augment_model bert-base-uncased \
        --augment_vectors glove.42B.300d.txt --output_dir outputs/mrpc-augmented

Leaves train.parquet: the task's columns and original_row, the number of the row that a variant was made of. Killed and
started again, it goes on. recipes/tinybert.py does the same by itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from transformers import AutoTokenizer

from bertkd import DistillationConfig
from bertkd.atomic import atomic_path
from bertkd.cli.arguments import AugmentationArguments, RecipeArguments, Run, parse
from bertkd.cli.experiment import quiet
from bertkd.cli.loading import load_language_model, read_task, resolve
from bertkd.data import Task
from bertkd.tinybert import NUM_COPIES, WordVectors, augment


@dataclass
class AugmentRecipeArguments(AugmentationArguments, RecipeArguments):
    """The augmentation's own."""


def augmented(run: Run, rows: Dataset, task: Task) -> Dataset:
    """The rows and their variants, as the run's arguments say.

    Raises:
        ValueError: no masked language model is named, or it cannot predict words.
    """
    arguments: AugmentationArguments = run.recipe
    if arguments.augment_model is None:
        raise ValueError(
            "Augmentation needs a masked language model: --augment_model, e.g. bert-base-uncased, or a folder of "
            "train_mlm.py."
        )
    name, training = resolve(arguments.augment_model), run.training
    vectors = None if arguments.augment_vectors is None else WordVectors.read(arguments.augment_vectors)
    # One process finds the words, the others read them.
    with training.main_process_first(local=False, desc="augmentation"):
        model = load_language_model(name).to(training.device)
        with torch.autocast(training.device.type, torch.bfloat16, enabled=training.bf16):
            return augment(
                rows,
                task.text_keys,
                model,
                AutoTokenizer.from_pretrained(name),
                vectors,
                probability=arguments.augment_probability,
                num_candidates=arguments.augment_candidates,
                num_copies=arguments.augment_copies or NUM_COPIES.get(task.name, 20),
                conditional=arguments.augment_conditional,
                seed=arguments.augment_seed,
                batch_size=arguments.augment_batch_size,
                folder=arguments.augment_dir or _folder(run),
                progress=training.process_index == 0 and not training.disable_tqdm,
            )


def _folder(run: Run) -> Path:
    """Several seeds, each with a folder of its own, share what is augmented."""
    folder = Path(run.training.output_dir)
    return (folder.parent if folder.name == f"seed-{run.training.seed}" else folder) / "augmented"


def main(argv: Sequence[str] | None = None) -> Path:
    quiet()
    (run,) = parse(DistillationConfig, argv, recipe_class=AugmentRecipeArguments, script=__file__)
    datasets, task = read_task(run)
    rows = augmented(run, datasets["train"], task)
    path = Path(run.training.output_dir) / "train.parquet"
    if run.training.process_index == 0:
        with atomic_path(path) as partial:
            rows.to_parquet(str(partial))
        print(f"{len(datasets['train']):,} rows became {len(rows):,}: {path}")
    return path
