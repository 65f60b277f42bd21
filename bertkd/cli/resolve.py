"""Turns options into objects, once: a task with its data, models, and a corpus. Nothing below sees options."""

import dataclasses
from typing import Any

from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import PreTrainedModel, set_seed

from bertkd.cli.options import (
    MISSING_MODEL,
    AugmentationOptions,
    CorpusOptions,
    ModelOptions,
    ShapeOptions,
    TaskOptions,
)
from bertkd.cli.parser import Options, note
from bertkd.data import (
    GLUE_TASKS,
    Task,
    check_rows,
    hold_out,
    load_corpus,
    load_files,
    load_glue,
    load_texts,
    tokenize_corpus,
)
from bertkd.distillation import DistillationConfig
from bertkd.models import family_of
from bertkd.models.loading import load_config, load_tokenizer
from bertkd.models.positions import max_tokens
from bertkd.pipeline import TaskData, limit_rows, load_model, load_teacher, resolve_model_name
from bertkd.pipeline.augmentation import augmented, number_of_copies, repeated
from bertkd.pipeline.models import (
    check_same_vocabulary,
    copy_for_task,
    has_tokenizer,
    installed_folder,
    is_released_tinybert,
    random_student,
    shape_of,
    shortened,
)
from bertkd.students import LAYER_STRATEGIES, Shape

__all__ = [
    "augmented_data",
    "check_augmentation_model",
    "corpus_rows",
    "layer_count",
    "new_student",
    "required_teacher",
    "rows_to_train_on",
    "student",
    "task_data",
    "task_rows",
    "teacher",
    "tokenized",
    "tokenizer_for",
]

WITHOUT_AUGMENTATION = "To train on the rows as they are, add --augment false."

# The rows of a stream that are in memory, to be drawn from.
STREAM_BUFFER = 10_000


# ---- data ----


def task_rows(options: TaskOptions, with_test: bool = False) -> tuple[DatasetDict, Task]:
    """The rows of the task that is asked for, not tokenized.

    Args:
        options: name a task of GLUE, or files.
        with_test: whether a GLUE task's test rows are read too; a test file is whenever it is given.

    Raises:
        ValueError: neither a task nor a file is named, or the data is malformed.
    """
    if options.train_file is not None:
        rows, task = load_files(
            options.train_file,
            options.validation_file,
            options.test_file,
            text_keys=options.text_column_names,
            label_key=options.label_column_name,
            labels=options.class_names,
        )
        if options.files_name in GLUE_TASKS:
            raise ValueError(f"--files_name {options.files_name} is a GLUE task's: give your files another name.")
        check_rows(rows, task)
        task = dataclasses.replace(task, name=options.files_name)
    elif options.task_name in GLUE_TASKS:
        task = GLUE_TASKS[options.task_name]
        wanted = ["train", *task.validation_splits, *(task.test_splits if with_test else ())]
        rows = load_glue(task.name, options.glue_dir, splits=wanted)
    else:
        tasks = ", ".join(task.name for task in GLUE_TASKS.values() if "train" in task.splits)
        raise ValueError(f"Name a task with --task_name (one of {tasks}) or a file with --train_file.")

    return limit_rows(rows, options.max_train_samples, options.max_eval_samples, options.sample_seed), task


def task_data(options: Options[TaskOptions, Any, DistillationConfig]) -> TaskData:
    """The task that is asked for, tokenized for the models that take part.

    Raises:
        ValueError: the data cannot be read, there is nothing to evaluate on, or teacher and student were made for
            different tokenizers.
    """
    return tokenized(options, *rows_to_train_on(options))


def tokenized(options: Options[TaskOptions, Any, DistillationConfig], rows: DatasetDict, task: Task) -> TaskData:
    """Rows of a task, tokenized for the models that take part.

    Raises:
        ValueError: see `tokenizer_for` and `check_token_types`.
    """
    tokenizer = tokenizer_for(options.models)
    if len(task.text_keys) > 1:
        check_token_types(tokenizer, options.models)
    return TaskData.tokenized(rows, task, tokenizer, options.data.max_seq_length)


def augmented_data(options: Options[TaskOptions, Any, DistillationConfig], rows: DatasetDict, task: Task) -> TaskData:
    """A task with variants of its training rows among them; for a dry run, with as many rows.

    Raises:
        ValueError: the rows cannot be augmented; the message says how to do without.
    """
    own = options.own
    if own.dry_run:
        # Each text of a pair varies on its own.
        more = repeated(rows["train"], len(task.text_keys) * number_of_copies(own.augment_copies, task))
    else:
        try:
            more = augmented(rows["train"], task, own.augmentation(options.config), options.config)
        except (OSError, ValueError) as error:
            raise ValueError(f"The training rows cannot be augmented. {error} {WITHOUT_AUGMENTATION}") from None
    return tokenized(options, DatasetDict({**rows, "train": more}), task)


def check_augmentation_model(options: AugmentationOptions) -> None:
    """Checks that there is a model to augment with, before a teacher is loaded and evaluated.

    Raises:
        ValueError: none is named, or it cannot be found; the message says how to do without.
    """
    if options.augment_model is None:
        raise ValueError(f"{MISSING_MODEL}. {WITHOUT_AUGMENTATION}")
    try:
        resolve_model_name(options.augment_model)
    except OSError as error:
        raise ValueError(f"--augment_model: {error} {WITHOUT_AUGMENTATION}") from None


def rows_to_train_on(options: Options[TaskOptions, Any, DistillationConfig]) -> tuple[DatasetDict, Task]:
    """The rows of the task that is asked for, the texts of `--unlabeled_file` among those to train on.

    Raises:
        ValueError: the data cannot be read, there is nothing to evaluate on, or texts without labels beside a loss on
            labels.
    """
    check_evaluation_rows(options.data)
    rows, task = task_rows(options.data, with_test=options.config.do_predict)
    if options.data.unlabeled_file is not None:
        if options.config.alpha < 1:
            raise ValueError(
                f"--unlabeled_file needs --alpha 1, and alpha is {options.config.alpha:g}: rows without labels are "
                "taught by the teacher alone."
            )
        rows["train"] = with_unlabeled(rows["train"], task, options.data.unlabeled_file)
    return rows, task


def with_unlabeled(rows: Dataset, task: Task, file: str) -> Dataset:
    """The texts of training rows and of a file, without any labels.

    Raises:
        ValueError: the file cannot be read, or lacks a text column of the task.
    """
    columns = list(task.text_keys)
    return concatenate_datasets([rows.select_columns(columns), load_texts(file, task)])


def check_evaluation_rows(options: TaskOptions) -> None:
    """Checks that files to train on come with one to evaluate on.

    Raises:
        ValueError: they do not.
    """
    if options.train_file is not None and options.validation_file is None:
        raise ValueError("Give a labeled file to choose the best epoch by, and to evaluate on: --validation_file.")


def tokenizer_for(models: ModelOptions) -> Any:
    """The tokenizer of a command: the one that is named, or the teacher's, or the model's.

    Raises:
        ValueError: no model is named, or teacher, student and tokenizer do not belong together.
    """
    named = [name for name in (models.teacher_model_name_or_path, models.model_name_or_path) if name is not None]
    readable = [name for name in named if not is_released_tinybert(name)]
    for name in readable:
        # A folder that holds no model is told so, and not that its tokenizer is missing.
        resolve_model_name(name)

    check_same_vocabulary(models.teacher_model_name_or_path, models.model_name_or_path)
    check_same_vocabulary(
        models.teacher_model_name_or_path or models.model_name_or_path, models.tokenizer_name, "--tokenizer_name"
    )
    if not named:
        raise ValueError("Name the model with --model_name_or_path.")

    name = models.tokenizer_name or named[0]
    tokenizer = load_tokenizer(installed_folder(name))
    for model in readable:
        fit_to_model(tokenizer, name, model)
    return tokenizer


def fit_to_model(tokenizer: Any, tokenizer_name: str, model: str) -> None:
    """Checks that a model has an embedding for every token of a tokenizer, and lets no text be too long for it.

    Raises:
        ValueError: it has fewer, and the last tokens would end the training in an error of the index.
    """
    config = load_config(resolve_model_name(model))
    if len(tokenizer) > config.vocab_size:
        raise ValueError(
            f"The tokenizer of {tokenizer_name} has {len(tokenizer):,} tokens, and the model {model} knows "
            f"{config.vocab_size:,}: take the tokenizer that the model was trained with."
        )
    # One that was made of a vocabulary alone knows no limit.
    positions = max_tokens(config)
    if positions is not None and positions < tokenizer.model_max_length:
        tokenizer.model_max_length = positions


def check_token_types(tokenizer: Any, models: ModelOptions) -> None:
    """Checks that a tokenizer tells apart the two texts of a pair for every model that was trained so.

    Raises:
        ValueError: a model would read each pair as one text.
    """
    if "token_type_ids" in tokenizer.model_input_names:
        return
    for name in (models.teacher_model_name_or_path, models.model_name_or_path):
        if name is None or is_released_tinybert(name) or not has_tokenizer(name):
            continue
        config = load_config(resolve_model_name(name))
        if family_of(config).token_type_embeddings is None or config.type_vocab_size < 2:
            continue
        if "token_type_ids" in load_tokenizer(installed_folder(name)).model_input_names:
            raise ValueError(
                f"The tokenizer of {models.tokenizer_name or models.teacher_model_name_or_path} gives no token types, "
                f"by which {name} tells the two texts of a pair apart: give --tokenizer_name {name}."
            )


def corpus_rows(options: Options[CorpusOptions, Any, DistillationConfig], tokenizer: Any) -> tuple[Any, Any]:
    """The tokenized corpus that is asked for: rows to train on, and rows that are held out.

    Raises:
        ValueError: no corpus is named, it has no text, or it is streamed without a number of steps.
    """
    corpus, config = options.data, options.config
    if corpus.corpus_files is None and corpus.corpus_name is None:
        raise ValueError("Give a corpus with --corpus_files (text or parquet), or --corpus_name for one of the hub.")
    if corpus.corpus_streaming and config.max_steps <= 0:
        raise ValueError("A streamed corpus has no known length: say how long to train with --max_steps.")
    if corpus.corpus_streaming and options.own.dry_run:
        raise ValueError("--dry_run counts rows, and a streamed corpus has no known number: leave one of the two out.")

    # One process reads and tokenizes, the others find what it has cached.
    with config.main_process_first(local=True, desc="corpus"):
        texts = load_corpus(
            corpus.corpus_files,
            hub_name=corpus.corpus_name,
            hub_config=corpus.corpus_config,
            split=corpus.corpus_split,
            text_key=corpus.corpus_text_column,
            max_rows=corpus.max_corpus_rows,
            streaming=corpus.corpus_streaming,
        )
        rows = tokenize_corpus(
            texts,
            tokenizer,
            corpus.max_seq_length,
            corpus.corpus_mode,
            corpus.corpus_min_tokens,
            corpus.corpus_max_unknown,
        )

    train, held_out = hold_out(rows, corpus.eval_rows, config.seed)
    if corpus.corpus_streaming:
        train = train.shuffle(seed=config.seed, buffer_size=STREAM_BUFFER)
    return train, held_out


# ---- models ----


def required_teacher(models: ModelOptions) -> str:
    """The name of the fine-tuned teacher.

    Raises:
        ValueError: none is given.
    """
    if models.teacher_model_name_or_path is None:
        raise ValueError("Name the fine-tuned teacher with --teacher_model_name_or_path; `bertkd finetune` makes one.")
    return models.teacher_model_name_or_path


def teacher(options: Options[Any, Any, DistillationConfig], task: Task) -> PreTrainedModel:
    """The fine-tuned teacher that is asked for.

    Raises:
        ValueError: none is named, or it has another number of labels than the task.
    """
    return load_teacher(required_teacher(options.models), task, options.config.teacher_labels)


def student(
    models: ModelOptions, task: Task, seed: int, teacher_model: PreTrainedModel | None = None
) -> PreTrainedModel:
    """The student at its start: layers of the pretrained checkpoint or of the teacher, or a checkpoint as it is.

    Args:
        models: say which.
        task: whose labels the head is to have.
        seed: of the weights of a new head.
        teacher_model: the teacher, where there is one.

    Raises:
        ValueError: nothing to start from is named, or the layers do not fit it.
    """
    count = layer_count(models)
    if count is None and models.student_layers != "first":
        note(f"--student_layers {models.student_layers} has no effect without --num_student_layers: all are kept.")
    # The weights of a new head are drawn.
    set_seed(seed)

    if models.init_from == "teacher":
        if teacher_model is None:
            raise ValueError("--init_from teacher needs --teacher_model_name_or_path.")
        start = copy_for_task(teacher_model, task)
    elif models.model_name_or_path is not None:
        start = load_model(models.model_name_or_path, task)
    else:
        raise ValueError(
            "Name the checkpoint that the student starts from with --model_name_or_path, or start from the teacher's "
            "layers with --init_from teacher."
        )
    return shortened(start, models.student_layers, count)


def layer_count(models: ModelOptions) -> int | None:
    """How many layers the student keeps: the number that is given, or as many as a list names; None for all."""
    if models.num_student_layers is not None or models.student_layers in LAYER_STRATEGIES:
        return models.num_student_layers
    return len(models.student_layers.split(","))


def new_student(
    models: ModelOptions, shape: ShapeOptions, seed: int, teacher_model: PreTrainedModel, task: Task | None = None
) -> PreTrainedModel:
    """A student with random weights, in the shape that is asked for.

    Raises:
        ValueError: no shape is given, or the layers of a student that starts otherwise.
    """
    if models.num_student_layers is not None:
        raise ValueError("--num_student_layers goes with --init_from teacher; a new student has --num_hidden_layers.")
    if models.student_layers != ModelOptions().student_layers:
        raise ValueError(
            "--student_layers goes with --init_from teacher; a new student has no layers of another model."
        )

    sizes = {field.name: getattr(shape, field.name) for field in dataclasses.fields(Shape)}
    if shape.student_shape is None and not any(sizes.values()):
        raise ValueError(
            "Name the student to start from with --model_name_or_path, or give a new one's shape: --student_shape "
            "TinyBERT4, or --num_hidden_layers, --hidden_size and --intermediate_size."
        )
    new_shape = shape_of(teacher_model, shape.student_shape, **sizes)
    return random_student(teacher_model, new_shape, seed, task)
