"""What every recipe does: read the task, check the teacher, start the student, train, measure, write."""

import gc
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import TASK_METRIC, Config, Run, parse, with_changes
from datasets import Dataset, DatasetDict
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
    set_seed,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from bertkd import DistillationTrainer, drop_layers
from bertkd.data import GLUE_TASKS, Task, load_files, load_glue, tokenize
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.metrics import glue_metrics
from bertkd.models import family_of, label_names, label_permutation, layers_to_keep
from bertkd.models.minilm import minilm_path
from bertkd.report import (
    RunResult,
    count_parameters,
    environment,
    measure_latency,
    model_size_mb,
    read_result,
    terminal_table,
    write_json,
    write_model_card,
    write_text,
)


@dataclass
class Data:
    """A task, its tokenised splits, and the tokenizer that made them."""

    task: Task
    splits: DatasetDict
    tokenizer: Any

    @property
    def validation(self) -> dict[str, Dataset]:
        return {name: self.splits[name] for name in self.task.validation_splits}


def quiet() -> None:
    """Leave progress bars and the recipes' own lines; `transformers` reports each weight that it loads."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_data(run: Run) -> Data:
    """The task of a run, tokenised.

    Raises:
        ValueError: neither a task nor a file is named, or the data is malformed.
    """
    arguments, tokenizer = run.data, AutoTokenizer.from_pretrained(resolve(_tokenizer_name(run)))
    if arguments.train_file is not None:
        datasets, task = load_files(
            arguments.train_file,
            arguments.validation_file,
            arguments.test_file,
            text_keys=arguments.text_column_names,
            label_key=arguments.label_column_name,
            labels=arguments.class_names,
        )
    elif arguments.task_name in GLUE_TASKS:
        task = GLUE_TASKS[arguments.task_name]
        wanted = ["train", *task.validation_splits, *(task.test_splits if run.training.do_predict else ())]
        datasets = load_glue(task.name, arguments.glue_dir, splits=wanted)
    else:
        raise ValueError(f"Name a task with --task_name (one of {', '.join(GLUE_TASKS)}) or a file with --train_file.")
    if arguments.train_file is not None and arguments.validation_file is None:
        raise ValueError("Give a labelled file to choose the best epoch by, and to evaluate on: --validation_file.")
    limits = {"train": arguments.max_train_samples}
    for name in datasets:
        limit = limits.get(name, arguments.max_eval_samples)
        if limit is not None:
            datasets[name] = datasets[name].select(range(min(limit, len(datasets[name]))))
    return Data(task, tokenize(datasets, task, tokenizer, arguments.max_seq_length), tokenizer)


def _tokenizer_name(run: Run) -> str:
    names = (run.model.tokenizer_name, run.model.teacher_model_name_or_path, run.model.model_name_or_path)
    name = next((name for name in names if name is not None), None)
    if name is None:
        raise ValueError("Name the model with --model_name_or_path.")
    return name


def resolve(name: str) -> str:
    """The folder behind the name 'minilm'; any other name as it is."""
    return str(minilm_path()) if name == "minilm" else name


def load_model(name: str, task: Task | None = None) -> PreTrainedModel:
    """A classification model in float32; with a task, its head has the task's labels and is new where it had others.

    Raises:
        ValueError: weights other than the head's do not fit the checkpoint's own config.
    """
    labels = {} if task is None else _label_config(task)
    given = label_names(AutoConfig.from_pretrained(resolve(name)))
    model, report = AutoModelForSequenceClassification.from_pretrained(
        resolve(name),
        dtype=torch.float32,
        ignore_mismatched_sizes=task is not None,
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


def _label_config(task: Task) -> dict[str, Any]:
    if task.is_regression:
        return {"num_labels": 1, "problem_type": "regression"}
    names = dict(enumerate(task.labels))
    return {
        "id2label": names,
        "label2id": {name: i for i, name in names.items()},
        "problem_type": "single_label_classification",
    }


def load_teacher(run: Run, task: Task) -> PreTrainedModel:
    """The fine-tuned teacher.

    Raises:
        ValueError: none is named, or it has another number of labels than the task.
    """
    name = run.model.teacher_model_name_or_path
    if name is None:
        raise ValueError("Name the fine-tuned teacher with --teacher_model_name_or_path.")
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
    depth = start.config.num_hidden_layers
    count = arguments.num_student_layers
    if count is None:
        return start
    return drop_layers(start, layers_to_keep(arguments.student_layers, depth, count))


def _with_labels(teacher: PreTrainedModel, task: Task) -> PreTrainedModel:
    """A copy of the teacher, to be trained, whose logits stand in the task's order."""
    student = drop_layers(teacher, range(teacher.config.num_hidden_layers)).requires_grad_(True)
    _reorder_head(student, label_names(teacher.config), task)
    for name, value in _label_config(task).items():
        setattr(student.config, name, value)
    return student


def evaluate(model: PreTrainedModel, run: Run, data: Data) -> dict[str, float]:
    """Every metric of the task on each of its validation sets; a model with labels in another order is put right."""
    order = None
    if not data.task.is_regression:
        given = label_names(model.config)
        order = label_permutation(data.task.labels, given, wanted_by="the task", given_by="the model")
    arguments = with_changes(
        run.training,
        alpha=0.0,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        # A half-precision evaluation would leave the model so, and trackers belong to the student's training.
        bf16_full_eval=False,
        fp16_full_eval=False,
        report_to=[],
    )
    trainer = DistillationTrainer(
        model=model,
        args=arguments,
        processing_class=data.tokenizer,
        compute_metrics=glue_metrics(data.task.metric_config),
    )
    for callback in (ProgressCallback, PrinterCallback):  # they would print each result; the recipe does at its end
        trainer.remove_callback(callback)
    if order is not None:
        trainer.preprocess_logits_for_metrics = lambda logits, labels: logits[:, order]
    metrics: dict[str, float] = {}
    for split, dataset in data.validation.items():
        found = trainer.evaluate(dataset, metric_key_prefix="eval")
        suffix = "" if len(data.validation) == 1 else f"_{split.removeprefix('validation_')}"
        metrics.update({f"{key}{suffix}": found[f"eval_{key}"] for key in metric_names(data.task)})
    return metrics


def metric_names(task: Task) -> list[str]:
    """The metrics of a task, the main one first."""
    by_metric = {
        "accuracy": ["accuracy"],
        "matthews_correlation": ["matthews_correlation"],
        "combined_score": ["combined_score", "pearson", "spearmanr"]
        if task.is_regression
        else ["combined_score", "accuracy", "f1"],
    }
    return by_metric[task.metric]


def check_teacher(metrics: dict[str, float], data: Data, ignore: bool) -> None:
    """Stop when the teacher says no more than the most frequent label (regression: the mean) does.

    Raises:
        ValueError: naming both figures.
    """
    if ignore:
        return
    split = data.task.validation_splits[0]
    labels = np.asarray(data.splits[split]["label"])
    constant = labels.mean() if data.task.is_regression else np.bincount(labels).argmax()
    baseline = glue_metrics(data.task.metric_config).compute(
        predictions=np.full_like(labels, constant), references=labels
    )[data.task.metric]
    value = main_value(metrics, data.task)
    if value <= baseline + 1e-6:
        raise ValueError(
            f"The teacher's {data.task.metric} on {data.task.name} is {value:.3f}, no better than always giving the "
            f"most frequent answer ({baseline:.3f}): fine-tune it on this task first, check the order of its labels, "
            "or go on with --ignore_weak_teacher."
        )


def main_value(metrics: dict[str, float], task: Task) -> float:
    """The figure a model is ranked by; with two validation sets, that of the first."""
    return next(value for name, value in metrics.items() if name.startswith(task.metric))


def train_and_report(
    run: Run,
    data: Data,
    method: str,
    trainer_class: type[DistillationTrainer],
    student: PreTrainedModel,
    teacher: PreTrainedModel | None = None,
    teacher_metrics: dict[str, float] | None = None,
) -> RunResult:
    """Train (or go on with) one run and leave its folder: model, tokenizer, card and results.json."""
    folder = Path(run.training.output_dir)
    _check_same_settings(run, folder)
    before = evaluate(student, run, data)
    training = run.training
    if training.metric_for_best_model == TASK_METRIC:
        training = with_changes(training, metric_for_best_model=_best_metric(data.task), greater_is_better=True)
    trainer = trainer_class(
        model=student,
        teacher_model=teacher,
        args=training,
        train_dataset=data.splits["train"],
        eval_dataset=data.validation if len(data.validation) > 1 else data.splits[data.task.validation_splits[0]],
        processing_class=data.tokenizer,
        compute_metrics=glue_metrics(data.task.metric_config),
    )
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=True)
    seconds = time.perf_counter() - started
    metrics = evaluate(trainer.model, run, data)
    result = _write_run(run, data, method, trainer, metrics, before, teacher_metrics or {}, seconds)
    trainer.accelerator.wait_for_everyone()
    return result


def _best_metric(task: Task) -> str:
    if len(task.validation_splits) > 1:
        return f"eval_{task.validation_splits[0]}_{task.metric}"
    return f"eval_{task.metric}"


def _check_same_settings(run: Run, folder: Path) -> None:
    """A folder belongs to one set of settings: going on with others would mix two runs."""
    settings = {**run.settings(), "seed": run.training.seed, "world_size": run.training.world_size}
    path = folder / "settings.json"
    has_work = last_checkpoint(folder) is not None or (folder / "results.json").is_file()
    if path.is_file() and has_work:
        earlier = json.loads(path.read_text())
        changed = sorted(key for key in settings.keys() | earlier.keys() if settings.get(key) != earlier.get(key))
        if changed:
            what = ", ".join(f"{key} was {earlier.get(key)!r} and is {settings.get(key)!r}" for key in changed)
            raise ValueError(f"{folder} holds a run with other settings ({what}): choose another --output_dir.")
    elif has_work:
        raise ValueError(f"{folder} holds checkpoints of something else: choose another --output_dir.")
    if run.training.process_index == 0:
        write_json(path, settings)


def finished_result(run: Run) -> RunResult | None:
    """The result of a run that an earlier start of the same command finished."""
    path = Path(run.training.output_dir) / "results.json"
    if not path.is_file():
        return None
    _check_same_settings(run, path.parent)
    return read_result(path)


def _write_run(
    run: Run,
    data: Data,
    method: str,
    trainer: DistillationTrainer,
    metrics: dict[str, float],
    before: dict[str, float],
    teacher_metrics: dict[str, float],
    seconds: float,
) -> RunResult:
    folder = Path(run.training.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    save_model(trainer, folder)
    write_predictions(trainer, data, folder)
    is_main = run.training.process_index == 0
    parameters = count_parameters(model)
    result = RunResult(
        method=method,
        task=data.task.name,
        metric=data.task.metric,
        value=main_value(metrics, data.task),
        metrics=metrics,
        metrics_before=before,
        teacher_metrics=teacher_metrics,
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        size_mb=model_size_mb(folder) if is_main else 0.0,
        layers=model.config.num_hidden_layers,
        seed=run.training.seed,
        settings=run.settings(),
        command=run.command,
        **environment(),
        seconds=round(seconds, 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        rows={name: len(dataset) for name, dataset in data.splits.items()},
        paper=run.recipe.paper,
        speedup=_measured_speedup(run, data.task) if is_main and teacher_metrics else None,
    )
    if is_main:
        write_model_card(folder, result, teacher=run.model.teacher_model_name_or_path or "")
        write_json(folder / "results.json", result.to_json())
        if not run.recipe.keep_checkpoints:
            for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
                shutil.rmtree(checkpoint)
    return result


def _measured_speedup(run: Run, task: Task) -> float:
    """How many times faster the student answers than the teacher: batch 1, 128 tokens, this machine, float32.

    Both are loaded anew: models that were trained or evaluated in mixed precision still run in it.
    """
    models = {"teacher": load_teacher(run, task), "student": load_model(run.training.output_dir)}
    latency = measure_latency(
        {name: model.eval() for name, model in models.items()}, batch_size=1, sequence_length=128
    )
    return round(latency["teacher"].p50_ms / latency["student"].p50_ms, 2)


def write_predictions(trainer: DistillationTrainer, data: Data, folder: Path) -> None:
    """`predict_results_SPLIT.txt` for each test set that was asked for, as `run_glue.py` writes it."""
    for name in data.splits:
        if not str(name).startswith("test"):
            continue
        rows = data.splits[name]
        logits = trainer.predict(rows.remove_columns("label") if "label" in rows.column_names else rows).predictions
        if data.task.is_regression:
            answers = [f"{value:.3f}" for value in logits.squeeze(-1)]
        else:
            answers = [data.task.labels[i] for i in logits.argmax(-1)]
        lines = "".join(f"{i}\t{answer}\n" for i, answer in enumerate(answers))
        if trainer.is_world_process_zero():
            write_text(folder / f"predict_results_{name}.txt", f"index\tprediction\n{lines}")


def save_model(trainer: DistillationTrainer, folder: Path) -> None:
    """Write the student's folder; each file appears whole or not at all."""
    partial = folder / ".partial"
    trainer.save_model(str(partial))
    trainer.accelerator.wait_for_everyone()
    if trainer.is_world_process_zero():
        for file in partial.iterdir():
            os.replace(file, folder / file.name)
        partial.rmdir()


def print_summary(run: Run, results: Sequence[RunResult]) -> None:
    """What was made, and where."""
    if run.training.process_index != 0:
        return
    rows = []
    for result in results:
        shown = {"seed": str(result.seed), "method": result.method, "task": result.task, "metric": result.metric}
        if result.teacher_metrics:
            shown["teacher"] = f"{_main(result.teacher_metrics, result.metric):.4f}"
        shown["before"] = f"{_main(result.metrics_before, result.metric):.4f}"
        shown["after"] = f"{result.value:.4f}"
        shown |= {"parameters": f"{result.parameters / 1e6:.1f}M", "size": f"{result.size_mb:.0f} MB"}
        if result.speedup is not None:
            shown["speed-up"] = f"{result.speedup:.2f}x"
        rows.append(shown)
    print(f"\n{terminal_table(rows)}")
    folder = Path(run.training.output_dir)
    folder = folder if len(results) == 1 else folder.parent
    print(f"\nModel, tokenizer, card and results.json: {folder}" + ("" if len(results) == 1 else "/seed-*"))
    if len(results) > 1:
        values = [result.value for result in results]
        print(f"{results[0].metric}: {np.mean(values):.4f} ± {np.std(values, ddof=1):.4f} over {len(values)} seeds")


def _main(metrics: dict[str, float], metric: str) -> float:
    return next((value for name, value in metrics.items() if name.startswith(metric)), float("nan"))


def run_seeds(
    argv: Sequence[str] | None,
    config_class: type[Config],
    train_one: Callable[[Run[Config]], RunResult],
    defaults: dict[str, Any] | None = None,
) -> list[RunResult]:
    """The main of every recipe: one training per seed, or the result that an earlier start left."""
    quiet()
    runs = parse(config_class, argv, defaults)
    results = []
    for run in runs:
        results.append(finished_result(run) or train_one(run))
        gc.collect()  # a finished run's models, before the next one loads its own
    print_summary(runs[-1], results)
    return results


def run_script(main: Any) -> None:
    """Run a recipe as a script: a user's mistake is one sentence, and a process group ends cleanly."""
    try:
        main()
    except (ValueError, OSError, ImportError) as error:
        if os.environ.get("BERTKD_TRACEBACK"):
            raise
        sys.exit(f"{Path(sys.argv[0]).name}: {error}\n(BERTKD_TRACEBACK=1 shows where)")
    if torch.distributed.is_initialized():
        # gloo's teardown on CPU often aborts a rank after everything succeeded.
        torch.distributed.barrier()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
