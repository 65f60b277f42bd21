"""A run's data, teacher and student."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, DatasetDict
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    set_seed,
)

from bertkd import drop_layers
from bertkd.cli.arguments import CorpusArguments, DataArguments, ModelArguments, Run, StudentArguments
from bertkd.data import GLUE_TASKS, Task, hold_out, load_corpus, load_files, load_glue, tokenize, tokenize_corpus
from bertkd.distillation.trainer import EXTRA_FILE
from bertkd.models import family_of, label_names, label_permutation, layer_sizes
from bertkd.models.families import PRUNED_PREFIX
from bertkd.models.minilm import minilm_path
from bertkd.students import LAYER_STRATEGIES, SHAPES, Shape, layers_to_keep, small_student
from bertkd.tinybert import load_released

SHUFFLED = 10_000  # rows of a stream that are in memory, to be drawn from


@dataclass
class Data:
    """A task, its tokenized splits, and the tokenizer that made them."""

    task: Task
    splits: DatasetDict
    tokenizer: Any

    @property
    def validation(self) -> dict[str, Dataset]:
        return {name: self.splits[name] for name in self.task.validation_splits}


def read_task(run: Run) -> tuple[DatasetDict, Task]:
    """The rows of a run's task, as they are.

    Raises:
        ValueError: neither a task nor a file is named, or the data is malformed.
    """
    arguments: DataArguments = run.data
    if arguments.train_file is not None:
        datasets, task = load_files(
            arguments.train_file,
            arguments.validation_file,
            arguments.test_file,
            text_keys=arguments.text_column_names,
            label_key=arguments.label_column_name,
            labels=arguments.class_names,
        )
        if arguments.files_name in GLUE_TASKS:
            raise ValueError(f"--files_name {arguments.files_name} is a GLUE task's: give your files another name.")
        task = dataclasses.replace(task, name=arguments.files_name)
    elif arguments.task_name in GLUE_TASKS:
        task = GLUE_TASKS[arguments.task_name]
        wanted = ["train", *task.validation_splits, *(task.test_splits if run.training.do_predict else ())]
        datasets = load_glue(task.name, arguments.glue_dir, splits=wanted)
    else:
        raise ValueError(f"Name a task with --task_name (one of {', '.join(GLUE_TASKS)}) or a file with --train_file.")
    limits = {"train": arguments.max_train_samples}
    for name in datasets:
        limit = limits.get(name, arguments.max_eval_samples)
        if limit is not None and limit < len(datasets[name]):
            datasets[name] = _some_rows(datasets[name], limit, arguments.sample_seed, str(name))
    return datasets, task


def _some_rows(dataset: Dataset, limit: int, sample_seed: int | None, name: str) -> Dataset:
    """The first rows, or with a seed some drawn at random.

    Raises:
        ValueError: they have one label where the whole set has several.
    """
    chosen = (dataset if sample_seed is None else dataset.shuffle(seed=sample_seed)).select(range(limit))
    if "label" in dataset.column_names and len(set(chosen["label"])) == 1 < len(set(dataset["label"])):
        raise ValueError(
            f"The first {limit} rows of {name!r} all have one label, as in a file that is sorted by label: draw them "
            "at random with --sample_seed 42, or take more of them."
        )
    return chosen


def load_data(run: Run, more_rows: Callable[[Dataset, Task], Dataset] | None = None) -> Data:
    """The task of a run, tokenized; its training rows first pass through `more_rows`, where that is given.

    Raises:
        ValueError: as `read_task`; also a file to train on without one to evaluate on.
    """
    if run.data.train_file is not None and run.data.validation_file is None:
        raise ValueError("Give a labeled file to choose the best epoch by, and to evaluate on: --validation_file.")
    check_tokenizers(run)
    datasets, task = read_task(run)
    tokenizer = AutoTokenizer.from_pretrained(resolve(_tokenizer_name(run)))
    if more_rows is not None:
        datasets["train"] = more_rows(datasets["train"], task)
    return Data(task, tokenize(datasets, task, tokenizer, run.data.max_seq_length), tokenizer)


def _tokenizer_name(run: Run) -> str:
    names = (run.model.tokenizer_name, run.model.teacher_model_name_or_path, run.model.model_name_or_path)
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise ValueError("Name the model with --model_name_or_path.")
    return name


def check_tokenizers(run: Run) -> None:
    """Raises ValueError where teacher and student, which read the same token ids, were made for different ones."""
    names = (run.model.teacher_model_name_or_path, run.model.model_name_or_path)
    theirs, ours = (None if name is None else _vocabulary(name) for name in names)
    if theirs is None or ours is None or theirs == ours:
        return
    token, number = min(theirs.items() - ours.items() or ours.items() - theirs.items(), key=lambda item: item[1])
    raise ValueError(
        f"The teacher {names[0]} and the student's checkpoint {names[1]} have different vocabularies: one knows "
        f"{token!r} as the token {number}, the other does not. Both read the same token ids: take two that share a "
        "tokenizer."
    )


def _vocabulary(name: str) -> dict[str, int] | None:
    """A checkpoint's tokens; None for a folder without a tokenizer."""
    folder, files = Path(name), ("tokenizer.json", "vocab.txt", "vocab.json")
    if folder.is_dir() and (is_released(name) or not any((folder / file).is_file() for file in files)):
        return None
    vocabulary: dict[str, int] = AutoTokenizer.from_pretrained(resolve(name)).get_vocab()
    return vocabulary


def resolve(name: str) -> str:
    """The folder behind the name 'minilm'; any other name as it is.

    Raises:
        OSError: there is no such folder, and the hub does not have the name or cannot be reached.
    """
    if name == "minilm":
        return str(minilm_path())
    try:
        if Path(name).is_dir() and not (Path(name) / "config.json").is_file():
            raise OSError  # what transformers says of such a folder is misleading
        AutoConfig.from_pretrained(name)
    except OSError:
        raise OSError(
            f"Cannot load the model {name!r}: it is no folder with a config.json, and the hub does not have it or "
            "cannot be reached. Give a local folder, or 'minilm' for the one of the extra 'demo'."
        ) from None
    return name


def is_released(name: str) -> bool:
    """Whether a folder is a checkpoint as TinyBERT's authors released it, without a model type."""
    path = Path(name) / "config.json"
    return path.is_file() and "model_type" not in json.loads(path.read_text(encoding="utf-8"))


def projection_beside(name: str | None) -> str | None:
    """The folder itself where it also holds a projection that was trained with its model."""
    return name if name is not None and (Path(name) / EXTRA_FILE).is_file() else None


def load_model(name: str, task: Task | None = None) -> PreTrainedModel:
    """A classification model in float32; with a task, its head has the task's labels and is new where it had others.

    Raises:
        ValueError: weights other than the head's do not fit the checkpoint's own config.
    """
    labels = {} if task is None else label_config(task)
    if is_released(name):
        return load_released(name, **labels)[0]
    config = AutoConfig.from_pretrained(resolve(name))
    given = label_names(config)
    # A pruned model refuses mismatched sizes to be ignored, for which only another number of labels is a reason.
    is_fixed = config.model_type.startswith(PRUNED_PREFIX) and task is not None and len(given) == task.num_labels
    model, report = AutoModelForSequenceClassification.from_pretrained(
        resolve(name),
        dtype=torch.float32,
        ignore_mismatched_sizes=task is not None and not is_fixed,
        output_loading_info=True,
        **labels,
    )
    heads = tuple(f"{path}." for path in family_of(model).head)
    wrong = [key for key, *_ in report["mismatched_keys"] if not key.startswith(heads)]
    if wrong:
        raise ValueError(f"The checkpoint {name} does not fit its own config: {', '.join(sorted(wrong))}.")
    if task is not None and sorted(given) == sorted(task.labels):
        _reorder_head(model, given, task)
    return model


def _reorder_head(model: PreTrainedModel, given: list[str], task: Task) -> None:
    """Puts the head's rows, which answer for the labels `given`, in the task's order."""
    order = None if task.is_regression else label_permutation(task.labels, given)
    if order is not None:
        head = model.get_submodule(family_of(model).head[-1])
        head.weight.data, head.bias.data = head.weight.data[order], head.bias.data[order]


def label_config(task: Task) -> dict[str, Any]:
    """A config's settings for a task's labels."""
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(task.labels))
    return {
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "problem_type": "single_label_classification",
    }


def require_teacher(run: Run) -> str:
    """Raises ValueError unless the run names its teacher, whose name is returned."""
    name = run.model.teacher_model_name_or_path
    if name is None:
        raise ValueError(
            "Name the fine-tuned teacher with --teacher_model_name_or_path; recipes/finetune_teacher.py makes one."
        )
    return name


def load_teacher(run: Run, task: Task) -> PreTrainedModel:
    """The fine-tuned teacher.

    Raises:
        ValueError: none is named, or it has another number of labels than the task.
    """
    name = require_teacher(run)
    config = AutoConfig.from_pretrained(resolve(name))
    if config.num_labels != task.num_labels:
        raise ValueError(
            f"The teacher {name} has {config.num_labels} labels, but the task {task.name} has {task.num_labels}: give "
            "a teacher that was fine-tuned on this task."
        )
    teacher = load_model(name)
    if run.training.teacher_labels is not None:
        names = dict(enumerate(run.training.teacher_labels))
        teacher.config.id2label, teacher.config.label2id = names, {label: i for i, label in names.items()}
    return teacher


def make_student(run: Run, task: Task, teacher: PreTrainedModel | None = None) -> PreTrainedModel:
    """The student at its start: layers of the pretrained checkpoint or of the teacher, or a checkpoint as it is."""
    set_seed(run.training.seed)  # the new head's weights
    arguments = run.model
    if arguments.init_from == "teacher":
        if teacher is None:
            raise ValueError("--init_from teacher needs --teacher_model_name_or_path.")
        start = _with_labels(teacher, task)
    elif arguments.model_name_or_path is not None:
        start = load_model(arguments.model_name_or_path, task)
    else:
        raise ValueError(
            "Name the checkpoint that the student starts from with --model_name_or_path, or start from the teacher's "
            "layers with --init_from teacher."
        )
    count = number_of_layers(arguments)
    if count is None:
        return start
    return drop_layers(start, layers_to_keep(arguments.student_layers, start.config.num_hidden_layers, count))


def number_of_layers(arguments: ModelArguments) -> int | None:
    """How many layers the student keeps: the number that is given, or of a list as many as it names; None for all."""
    if arguments.num_student_layers is not None or arguments.student_layers in LAYER_STRATEGIES:
        return arguments.num_student_layers
    return len(arguments.student_layers.split(","))


def shape_of(arguments: StudentArguments, teacher: PreTrainedModel) -> Shape:
    """The shape that the arguments ask for: a named one or the teacher's, with the numbers that are given."""
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Shape)}
    numbers = {name: number for name, number in given.items() if number is not None}
    if arguments.student_shape is not None:
        return dataclasses.replace(SHAPES[arguments.student_shape], **numbers)
    sizes, config = layer_sizes(teacher), teacher.config
    own = Shape(config.num_hidden_layers, config.hidden_size, max(sizes.neurons))
    return dataclasses.replace(own, **numbers)


def make_small_student(run: Run, teacher: PreTrainedModel, task: Task | None = None) -> PreTrainedModel:
    """A student of the run's shape that starts at random.

    Raises:
        ValueError: no shape is given, or the layers of a student that starts otherwise.
    """
    recipe: StudentArguments = run.recipe
    if run.model.num_student_layers is not None:
        raise ValueError("--num_student_layers goes with --init_from teacher; a new student has --num_hidden_layers.")
    sizes = [getattr(recipe, field.name) for field in dataclasses.fields(Shape)]
    if recipe.student_shape is None and not any(sizes):
        raise ValueError(
            "Name the student to start from with --model_name_or_path, or give a new one's shape: --student_shape "
            "TinyBERT4, or --num_hidden_layers, --hidden_size and --intermediate_size."
        )
    set_seed(run.training.seed)
    student = small_student(teacher, shape_of(run.recipe, teacher))
    for name, value in ({} if task is None else label_config(task)).items():
        setattr(student.config, name, value)
    return student


def load_language_model(name: str) -> PreTrainedModel:
    """A model that predicts masked words, in float32.

    Raises:
        ValueError: the checkpoint has no head for them.
    """
    model, report = AutoModelForMaskedLM.from_pretrained(name, dtype=torch.float32, output_loading_info=True)
    if report["missing_keys"]:
        raise ValueError(
            f"{name} has no head for masked words ({', '.join(sorted(report['missing_keys'])[:3])} are missing), and "
            "an untrained one would give random words: train one with recipes/train_mlm.py."
        )
    return model.eval()


def load_corpus_rows(run: Run, tokenizer: Any) -> tuple[Any, Any]:
    """The tokenized corpus of a run: rows to train on, and those held out.

    Raises:
        ValueError: no corpus is named, it has no text, or it is streamed without a number of steps.
    """
    arguments: CorpusArguments = run.data
    if arguments.corpus_files is None and arguments.corpus_name is None:
        raise ValueError("Give a corpus with --corpus_files (text or parquet), or --corpus_name for one of the hub.")
    check_tokenizers(run)
    if arguments.corpus_streaming and run.training.max_steps <= 0:
        raise ValueError("A streamed corpus has no known length: say how long to train with --max_steps.")
    # One process reads and tokenizes, the others find what it has cached.
    with run.training.main_process_first(local=True, desc="corpus"):
        corpus = load_corpus(
            arguments.corpus_files,
            hub_name=arguments.corpus_name,
            hub_config=arguments.corpus_config,
            split=arguments.corpus_split,
            text_key=arguments.corpus_text_column,
            max_rows=arguments.max_corpus_rows,
            streaming=arguments.corpus_streaming,
        )
        rows = tokenize_corpus(
            corpus,
            tokenizer,
            arguments.max_seq_length,
            arguments.corpus_mode,
            arguments.corpus_min_tokens,
            arguments.corpus_max_unknown,
        )
    train, held_out = hold_out(rows, arguments.eval_rows, run.training.seed)
    if arguments.corpus_streaming:
        train = train.shuffle(seed=run.training.seed, buffer_size=SHUFFLED)
    return train, held_out


def _with_labels(teacher: PreTrainedModel, task: Task) -> PreTrainedModel:
    """A copy of the teacher, to be trained, whose logits stand in the task's order."""
    student = drop_layers(teacher, range(teacher.config.num_hidden_layers)).requires_grad_(True)
    _reorder_head(student, label_names(teacher.config), task)
    for name, value in label_config(task).items():
        setattr(student.config, name, value)
    return student
