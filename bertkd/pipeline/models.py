"""Loads the models of a training, and makes its student."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, PreTrainedModel, set_seed

from bertkd.atomic import read_json
from bertkd.data import Task
from bertkd.distillation.extra_modules import EXTRA_FILE
from bertkd.models import family_of, label_names, label_permutation, layer_sizes
from bertkd.models.loading import TOKENIZER_FILES, check_finite, load_checkpoint, load_config, load_tokenizer
from bertkd.models.minilm import minilm_path
from bertkd.models.mpnet import mpnet_path
from bertkd.students import SHAPES, Shape, drop_layers, layers_to_keep, small_student
from bertkd.tinybert import load_released

__all__ = [
    "check_same_vocabulary",
    "copy_for_task",
    "has_tokenizer",
    "installed_folder",
    "is_released_tinybert",
    "label_settings",
    "load_language_model",
    "load_model",
    "load_teacher",
    "projection_folder",
    "random_student",
    "resolve_model_name",
    "shape_of",
    "shortened",
]


# ---- names and folders ----


def resolve_model_name(name: str) -> str:
    """The folder behind the names "minilm" and "mpnet-base"; any other name or path as it is.

    Raises:
        OSError: there is no such folder, and the hub does not have the name or cannot be reached.
        ValueError: its config.json is broken.
    """
    folder = installed_folder(name)
    if folder == name:
        load_config(name)
    return folder


def installed_folder(name: str) -> str:
    """As `resolve_model_name`, for a folder that may hold a tokenizer alone: nothing is checked."""
    if name == "minilm":
        return str(minilm_path())
    if name == "mpnet-base":
        return str(mpnet_path())
    return name


def is_released_tinybert(name: str) -> bool:
    """Whether a folder is a checkpoint in the form that TinyBERT's authors released, which names no model type."""
    path = Path(name) / "config.json"
    if not path.is_file():
        return False
    config = read_json(path)
    return isinstance(config, dict) and "model_type" not in config and "hidden_size" in config


def projection_folder(name: str | None) -> str | None:
    """The folder `name` itself where it also holds a projection that was trained with its model; else None."""
    return name if name is not None and (Path(name) / EXTRA_FILE).is_file() else None


def check_same_vocabulary(
    teacher_name: str | None, student_name: str | None, whose: str = "the student's checkpoint"
) -> None:
    """Checks that two checkpoints, which are to read the same token ids, were made for the same tokenizer.

    Args:
        teacher_name, student_name: the two; None is passed over.
        whose: how an error calls the second.

    Raises:
        ValueError: a token has a number in one, and another or none in the other.
    """
    teacher, student = _vocabulary(teacher_name), _vocabulary(student_name)
    if teacher is None or student is None or teacher == student:
        return

    different = teacher.items() - student.items() or student.items() - teacher.items()
    token, number = min(different, key=lambda item: item[1])
    raise ValueError(
        f"{teacher_name} and {whose} {student_name} have different vocabularies: one "
        f"knows {token!r} as the token {number}, the other does not. Both read the same token ids: take two that "
        "share a tokenizer."
    )


def has_tokenizer(name: str) -> bool:
    """Whether a model comes with its tokenizer: every one of the hub, and a folder that holds its files."""
    folder = Path(name)
    return not folder.is_dir() or any((folder / file).is_file() for file in TOKENIZER_FILES)


def _vocabulary(name: str | None) -> dict[str, int] | None:
    """The tokens of a checkpoint; None for a folder without a tokenizer."""
    if name is None or is_released_tinybert(name) or not has_tokenizer(name):
        return None

    vocabulary: dict[str, int] = load_tokenizer(installed_folder(name)).get_vocab()
    return vocabulary


# ---- loading ----


def load_model(
    name: str, task: Task | None = None, needs_head: bool | None = None, what: str = "model"
) -> PreTrainedModel:
    """A classification model in float32.

    Args:
        name: a folder, a name of the hub, or "minilm".
        task: whose labels the head is to have. A head that has them in another order is put into the task's, one with
            another number of labels is replaced by a new one.
        needs_head: whether a checkpoint without a trained head is refused; None for where no task is given, since
            training a task gives a new head what it needs.
        what: how an error calls the model, such as "teacher".

    Raises:
        OSError: there is no such model.
        ValueError: weights other than a new head's are not the checkpoint's, or are not finite.
    """
    labels = {} if task is None else label_settings(task)
    needs_head = task is None if needs_head is None else needs_head
    if is_released_tinybert(name):
        model, _ = load_released(name, needs_head=needs_head, **labels)
        check_finite(model, f"The {what} {name}")
        return model

    path = resolve_model_name(name)
    config = load_config(path, what)
    # A model that bertkd cannot change is refused for that, and not for what its labels are called.
    family_of(config)
    given_labels = label_names(config)
    model = load_checkpoint(
        AutoModelForSequenceClassification, path, needs_head=needs_head, what=what, called=name, **labels
    )

    if task is not None:
        # Where the labels are not the task's, a new head learns them.
        with suppress(ValueError):
            _reorder_head(model, given_labels, task)
    return model


def load_teacher(name: str, task: Task, labels: Sequence[str] | None = None) -> PreTrainedModel:
    """A fine-tuned teacher, in float32.

    Args:
        name: a folder, a name of the hub, or "minilm".
        task: what it has to answer.
        labels: what its logits mean, in their order; default: what its config says.

    Raises:
        OSError: there is no such model.
        ValueError: it has no trained head, or another number of labels than the task.
    """
    teacher = load_model(name, what="teacher")
    if teacher.config.num_labels != task.num_labels:
        raise ValueError(
            f"The teacher {name} has {teacher.config.num_labels} labels, but the task {task.name} has "
            f"{task.num_labels}: give a teacher that was fine-tuned on this task."
        )
    if labels is not None and len(labels) != teacher.config.num_labels:
        raise ValueError(
            f"--teacher_labels names {len(labels)} labels ({', '.join(labels)}), and the teacher {name} has "
            f"{teacher.config.num_labels}: name each of its labels once, in the order of its logits."
        )

    if labels is not None:
        teacher.config.id2label = dict(enumerate(labels))
        teacher.config.label2id = {label: i for i, label in enumerate(labels)}
    return teacher


def load_language_model(name: str, needs_head: bool = True) -> PreTrainedModel:
    """A model that predicts masked words, in float32 and eval mode.

    Args:
        name: a folder, or a name of the hub.
        needs_head: whether a checkpoint without a head for masked words is refused; otherwise it gets a new one.

    Raises:
        ValueError: the checkpoint has no such head, or its weights are not those that the model needs.
    """
    return load_checkpoint(AutoModelForMaskedLM, name, needs_head=needs_head).eval()


# ---- labels ----


def label_settings(task: Task) -> dict[str, Any]:
    """The settings of a model's config that say what a task's labels are."""
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}

    return {
        "id2label": dict(enumerate(task.labels)),
        "label2id": {name: i for i, name in enumerate(task.labels)},
        "problem_type": "single_label_classification",
    }


def _reorder_head(model: PreTrainedModel, given_labels: list[str], task: Task) -> None:
    """Puts the rows of a head, which answer for `given_labels`, into the task's order."""
    order = None if task.is_regression else label_permutation(task.labels, given_labels)
    if order is None:
        return

    head = model.get_submodule(family_of(model).head[-1])
    head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]  # type: ignore[index]


# ---- students ----


def copy_for_task(teacher: PreTrainedModel, task: Task) -> PreTrainedModel:
    """A copy of the teacher that can be trained, with its logits in the task's order."""
    student = drop_layers(teacher, range(teacher.config.num_hidden_layers)).requires_grad_(True)
    _reorder_head(student, label_names(teacher.config), task)

    for name, value in label_settings(task).items():
        setattr(student.config, name, value)
    return student


def shortened(model: PreTrainedModel, layers: str, count: int | None) -> PreTrainedModel:
    """The model with `count` of its layers, chosen by `layers` ("first", "every", "last" or a list); None keeps all.

    Raises:
        ValueError: the layers do not fit the model or their number.
    """
    if count is None:
        return model
    return drop_layers(model, layers_to_keep(layers, model.config.num_hidden_layers, count))


def shape_of(teacher: PreTrainedModel, named: str | None, **sizes: int | None) -> Shape:
    """The shape of a student: a named one or the teacher's, with the sizes that are given.

    Args:
        teacher: whose sizes are taken where nothing else is said.
        named: a shape of the paper, such as "TinyBERT4"; None for the teacher's.
        **sizes: fields of `Shape` that win over both; None leaves them.
    """
    if named is not None:
        shape = SHAPES[named]
    else:
        shape = Shape(teacher.config.num_hidden_layers, teacher.config.hidden_size, max(layer_sizes(teacher).neurons))

    given = {name: size for name, size in sizes.items() if size is not None}
    return Shape(**{**vars(shape), **given})


def random_student(teacher: PreTrainedModel, shape: Shape, seed: int, task: Task | None = None) -> PreTrainedModel:
    """A student of a shape that starts with random weights, drawn by the seed; with a task, it has its labels."""
    set_seed(seed)
    student = small_student(teacher, shape)

    for name, value in ({} if task is None else label_settings(task)).items():
        setattr(student.config, name, value)
    return student
