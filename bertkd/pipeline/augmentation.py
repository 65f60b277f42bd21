"""Augments a task's training rows with variants that a masked language model proposes, as TinyBERT does."""

from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset
from torch import nn

from bertkd.data import Task
from bertkd.distillation import DistillationConfig
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline.models import load_language_model, resolve_model_name
from bertkd.tinybert import NUM_COPIES, WordVectors, augment

__all__ = ["Augmentation", "augmented", "number_of_copies", "repeated"]

DEFAULT_COPIES = 20


@dataclass(frozen=True)
class Augmentation:
    """How rows are augmented; symbols are the paper's (algorithm 1).

    Attributes:
        language_model: name or path of the model that proposes words.
        copies: N, variants of each text; None takes those of the released code for the task.
        probability: p, of replacing a word.
        candidates: K, words to choose from.
        conditional: whether the model sees the whole sentence too, as in the released code.
        vectors: a GloVe text file, for words of several pieces; None takes the model's own embeddings.
        seed: of the choices.
        batch_size: masked sentences in a forward pass; None lets the memory decide.
        folder: where finished parts are kept.
    """

    language_model: str
    folder: Path
    copies: int | None = None
    probability: float = 0.4
    candidates: int = 15
    conditional: bool = True
    vectors: str | None = None
    seed: int = 42
    batch_size: int | None = None


def number_of_copies(copies: int | None, task: Task) -> int:
    """The variants of each text: those that are asked for, or those of the released code for the task."""
    return copies or NUM_COPIES.get(task.name, DEFAULT_COPIES)


def augmented(rows: Dataset, task: Task, augmentation: Augmentation, config: DistillationConfig) -> Dataset:
    """The rows and their variants.

    Args:
        rows: the training rows of the task, not tokenized.
        task: which columns hold texts.
        augmentation: how.
        config: says where to run the language model, and in which precision.

    Raises:
        ValueError: the model cannot predict words, or the file of vectors is malformed.
    """
    name = resolve_model_name(augmentation.language_model)
    vectors = None if augmentation.vectors is None else WordVectors.read(augmentation.vectors)

    # Of several processes, whichever comes first to a part of the rows makes it while the others wait for its lock.
    # A lock has no time limit, unlike a barrier (`ddp_timeout`).
    model = nn.Module.to(load_language_model(name), device=config.device)
    with torch.autocast(config.device.type, torch.bfloat16, enabled=config.bf16):
        return augment(
            rows,
            task.text_keys,
            model,
            load_tokenizer(name),
            vectors,
            probability=augmentation.probability,
            num_candidates=augmentation.candidates,
            num_copies=number_of_copies(augmentation.copies, task),
            conditional=augmentation.conditional,
            seed=augmentation.seed,
            batch_size=augmentation.batch_size,
            folder=augmentation.folder,
            progress=config.process_index == 0 and not config.disable_tqdm,
        )


def repeated(rows: Dataset, copies: int) -> Dataset:
    """The rows and as many copies of each, in the place of an augmented set whose size alone matters."""
    return rows.select([index for index in range(len(rows)) for _ in range(copies + 1)])
