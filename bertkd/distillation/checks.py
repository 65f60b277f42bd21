"""Refuses what cannot work before the first step; each message names both sides and the way out."""

import inspect
import logging
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel, Trainer

from bertkd.distillation.labels import label_column
from bertkd.distillation.origin import is_of_bertkd
from bertkd.distillation.steps import forward_arguments, model_inside
from bertkd.models import label_names, label_permutation
from bertkd.models.labels import unnamed

__all__ = [
    "check_arguments",
    "check_label_order",
    "check_labels_present",
    "check_layers_can_be_read",
    "check_not_shared",
    "check_own_compute_loss",
    "check_parts",
    "check_precision",
    "check_same_shape",
    "check_single_label",
    "check_student",
    "check_tokenizer",
    "check_vocabularies",
    "warn_of_nameless",
]

logger = logging.getLogger(__name__)


def check_single_label(config: PretrainedConfig, whose: str = "student") -> None:
    """Raise ValueError for a multi-label model."""
    if config.problem_type == "multi_label_classification":
        raise ValueError(
            f"bertkd distills single-label classification and regression, not multi-label models: the {whose} is one "
            "(problem_type)."
        )


def check_own_compute_loss(trainer: type) -> None:
    """Raise ValueError for a trainer with a `compute_loss` of its own that does not say what its loss is a mean over.

    Whether the Trainer divides by the accumulation steps was decided for the one of bertkd.
    """
    owner = next(cls for cls in trainer.__mro__ if "compute_loss" in vars(cls))
    told_by = next(cls for cls in trainer.__mro__ if "loss_is_scaled_for_ga" in vars(cls))
    if not is_of_bertkd(owner) and is_of_bertkd(told_by):
        raise ValueError(
            f"{owner.__name__} overrides compute_loss: override distillation_loss or task_loss, whose mean over the "
            "rows of a batch the trainer weighs. Or set loss_is_scaled_for_ga in the class: to False where "
            "compute_loss gives a mean over the micro-batch, to True where it has weighed that by its share of the "
            "step, as the loss of bertkd's own compute_loss is."
        )


def check_parts(parts: Any) -> None:
    """Raise ValueError for an answer of `distillation_loss` other than named means over the rows."""
    if not isinstance(parts, dict) or not parts:
        raise ValueError(
            f"distillation_loss gave a {type(parts).__name__} and not the parts of the loss by name: return a dict "
            'such as {"kd_loss": loss}, with one part at least.'
        )
    for name, part in parts.items():
        if not isinstance(part, Tensor) or part.dim() > 0:
            found = f"of the shape {tuple(part.shape)}" if isinstance(part, Tensor) else f"a {type(part).__name__}"
            raise ValueError(
                f"distillation_loss gave {name!r}, which is {found}: each part is one tensor without dimensions, the "
                "mean over the rows of the batch."
            )


def check_precision(student: nn.Module) -> None:
    """Raise ValueError for trainable weights in half precision, in which small steps are lost."""
    for parameter in student.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.float16, torch.bfloat16):
            raise ValueError(
                f"The student's weights are in {str(parameter.dtype).removeprefix('torch.')}, in which small steps of "
                "a training are lost: call model.float(), and set bf16=True to compute in half precision."
            )


def check_arguments(arguments: dict[str, Any]) -> None:
    """Raise TypeError for an argument that `transformers.Trainer` does not have."""
    known = inspect.signature(Trainer.__init__).parameters
    for name in arguments:
        if name not in known:
            hint = " It is called processing_class." if name == "tokenizer" else ""
            raise TypeError(f"A trainer has no argument {name}.{hint}")


def check_student(model: Any) -> None:
    """Raise ValueError for a student that is missing, or wrapped in a way in which it cannot be trained and saved."""
    if model is None:
        raise ValueError("There is no student: give it as model, or a function that makes it as model_init.")
    if isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
        raise ValueError(
            f"The student is wrapped in {type(model).__name__}: give the model itself, which the trainer wraps."
        )
    if "_orig_mod" in getattr(model, "_modules", {}):
        raise ValueError(
            "The student is a compiled model, whose checkpoints would not open: give the model itself, and "
            "torch_compile=True to compile it for the training."
        )
    if getattr(model, "config", None) is None:
        raise ValueError(
            f"The student is a {type(model).__name__} without a config: give a model of transformers, whose config "
            "says what its labels and layers are."
        )
    # Raises for a forward pass that does not say what it needs.
    forward_arguments(model)


def check_layers_can_be_read(model: Any, trainer: str) -> None:
    """Raise ValueError for a model of another kind than those of transformers, whose parts nobody knows."""
    inside = model_inside(model)
    if not isinstance(inside, PreTrainedModel):
        raise ValueError(
            f"{trainer} reads the layers of a model of transformers, and the student is a {type(inside).__name__}: "
            "give the model inside of it."
        )


def check_label_order(dataset: Any, student: PretrainedConfig, of_as_many: bool = False) -> None:
    """Raise ValueError when a `datasets` data set names its labels in another order than the student, or others.

    Args:
        dataset: the rows.
        student: the model's config.
        of_as_many: whether another number of labels is accepted.
    """
    feature = _label_feature(dataset)
    if not isinstance(feature, datasets.ClassLabel):
        return

    names = label_names(student)
    if of_as_many and len(names) != len(feature.names):
        return
    if len(names) == len(feature.names) and (unnamed(names) or unnamed(feature.names)):
        # LABEL_0, LABEL_1 and the like say nothing of an order.
        return

    advice = "set the student's config.id2label and label2id to the data set's labels"
    if label_permutation(names, feature.names, given_by="the data set", advice=advice) is not None:
        raise ValueError(
            f"The data set lists its labels as {', '.join(feature.names)} and the student as {', '.join(names)}: use "
            "`dataset.align_labels_with_mapping(student.config.label2id, ...)`, or make the student with the data "
            "set's order."
        )


def warn_of_nameless(dataset: Any, student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Warn where rows have classes with names, and neither model says which of its logits is which."""
    feature = _label_feature(dataset)
    if not isinstance(feature, datasets.ClassLabel) or unnamed(feature.names):
        return
    if unnamed(label_names(student)) and unnamed(label_names(teacher)):
        logger.warning(
            "Neither student nor teacher says what its logits mean: both are taken to have the order of the data set, "
            "%s. If the teacher was trained with another one, say so with teacher_labels.",
            ", ".join(feature.names),
        )


def check_labels_present(dataset: Any, alpha: float) -> None:
    """Raise ValueError for a `datasets` data set without labels; `alpha` is what makes the loss use them."""
    if isinstance(dataset, datasets.Dataset) and _label_feature(dataset) is None:
        raise ValueError(
            f"The training set has no label column (it has {', '.join(dataset.column_names)}) but alpha is {alpha}; "
            "give labeled rows, or set alpha=1 to learn from the teacher alone."
        )


def check_not_shared(student: nn.Module, teacher: nn.Module) -> None:
    """Raise ValueError when two models share weights: freezing the teacher would freeze them in the student, too."""
    addresses = {parameter.untyped_storage().data_ptr() for parameter in teacher.parameters()} - {0}
    shared = []
    for name, parameter in student.named_parameters():
        if parameter.untyped_storage().data_ptr() in addresses:
            shared.append(name)

    if shared:
        more = f" and {len(shared) - 3} more" if len(shared) > 3 else ""
        raise ValueError(
            f"The student shares weights with the teacher ({', '.join(shared[:3])}{more}), which is frozen, so that "
            "the student would not learn them: give it a copy (copy.deepcopy). To keep some of its weights as they "
            "are, set requires_grad to False for the copy's."
        )


def check_same_shape(
    student: PretrainedConfig, teacher: PretrainedConfig, reason: str, student_called: str = "student"
) -> None:
    """Raise ValueError when two models, whose hidden states are compared, differ in depth or hidden size.

    Args:
        student: config of the model that has to be like the teacher.
        teacher: config of the teacher.
        reason: who compares them and what to do instead, the end of the message.
        student_called: how the message calls the first model.
    """
    for what in ("num_hidden_layers", "hidden_size"):
        ours, theirs = getattr(student, what), getattr(teacher, what)
        if ours != theirs:
            raise ValueError(f"The {student_called}'s {what} is {ours} and the teacher's {theirs}: {reason}")


def check_vocabularies(student: PretrainedConfig, teacher: PretrainedConfig) -> None:
    """Raise ValueError when two models cannot read the same token ids."""
    if student.vocab_size != teacher.vocab_size:
        raise ValueError(
            f"The student's vocabulary has {student.vocab_size} entries and the teacher's {teacher.vocab_size}; both "
            "read the same token ids, so they must share one tokenizer."
        )


def check_tokenizer(tokenizer: Any, vocab_size: int) -> None:
    """Raise ValueError when a tokenizer has tokens that a model does not know."""
    last = max(tokenizer.get_vocab().values())
    if last >= vocab_size:
        raise ValueError(
            f"The tokenizer has token ids up to {last} and the model knows only {vocab_size} tokens: they do not "
            "belong together; load both from the same model."
        )


def _label_feature(dataset: Any) -> Any:
    """The feature of a `datasets` label column; None when there is none, or a stream does not know its columns."""
    if not isinstance(dataset, datasets.Dataset | datasets.IterableDataset) or dataset.features is None:
        return None
    name = label_column(dataset.features)
    return None if name is None else dataset.features[name]
