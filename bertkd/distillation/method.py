"""Describes a compression method, and the ones that need no folder of their own: teacher, fine-tuning, vanilla KD."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any

from bertkd.distillation.config import DistillationConfig
from bertkd.distillation.trainer import DistillationTrainer

__all__ = ["METHODS", "Method", "combined"]


@dataclass(frozen=True)
class Method:
    """Describes a method to the rest of bertkd, besides its trainer.

    Attributes:
        name: how results files call it, such as "pkd-skip".
        label: its name in tables and charts, in the spelling of its paper.
        command: the `bertkd` command that trains it.
        arxiv: the paper's number. Tables list methods in the order of their papers.
        trainer_class, config_class: the trainer and its settings.
        defaults: settings that the command uses where the user gives none.
        settings: settings that make the method what it is; a user cannot change them.
        compared_with: name of the method that it adds to; results pages compare the two. Empty for none.
        student: the way a student of some size is made: of some of the teacher's "layers", in a new "shape", from a
            "pretrained" general student, taken out of a "supernet", or "pruned" out of the teacher.
        least_layers: a student of the teacher's layers needs as many.
        variants: other names in results files that belong to this method (its stages, and what an ablation leaves
            out), with their labels.
        variants_compared_with: as `compared_with`, for variants.
    """

    name: str
    label: str
    command: str
    arxiv: str
    trainer_class: type[DistillationTrainer] = DistillationTrainer
    config_class: type[DistillationConfig] = DistillationConfig
    defaults: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    compared_with: str = ""
    student: str = "layers"
    least_layers: int = 1
    variants: Mapping[str, str] = field(default_factory=dict)
    variants_compared_with: Mapping[str, str] = field(default_factory=dict)


def combined(changes: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """The ends of a method's names and labels for all changes that a training may have, those with fewer ones first.

    Args:
        changes: what may be changed, in the order of the names. Each has the ends of names and of labels, such as
            {"-noda": ", w/o augmentation"}; of those in one mapping a training has one at most.

    Returns:
        The ends of labels by those of names. The first one is that of a training without changes, which is empty.
    """
    choices = list(product(*([("", ""), *ends.items()] for ends in changes)))
    changed = [[place for place, (end, _) in enumerate(choice) if end] for choice in choices]
    order = sorted(range(len(choices)), key=lambda number: (len(changed[number]), changed[number]))

    labels = {}
    for number in order:
        ends, texts = zip(*choices[number], strict=True)
        labels["".join(ends)] = "".join(texts)
    return labels


# Without a teacher the loss is that of the labels alone.
METHODS = (
    Method("teacher", "Teacher", "finetune", "", defaults={"alpha": 0.0}),
    Method("finetuned", "Fine-tuned", "finetune", "", defaults={"alpha": 0.0}),
    Method(
        "kd",
        "KD",
        "kd",
        "1503.02531",
        compared_with="finetuned",
        variants={"kd-teacher-layers": "KD from layers of the teacher"},
        variants_compared_with={"kd-teacher-layers": "kd"},
    ),
)
