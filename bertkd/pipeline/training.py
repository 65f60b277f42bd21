"""Trains on a task: checks the teacher, trains or goes on, measures, and leaves a folder that opens anywhere."""

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from bertkd.atomic import write_text
from bertkd.data import Task
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.dynabert import extract_subnetwork
from bertkd.efficiency import count_parameters, measure_latency, model_size_mb
from bertkd.metrics import glue_metrics, main_value
from bertkd.models.adaptive import is_adaptive
from bertkd.pipeline.evaluation import evaluate, evaluate_teacher
from bertkd.pipeline.experiment import (
    Experiment,
    output_folder,
    remove_checkpoints,
    start_in_folder,
    trainer_config,
    training_environment,
    with_changes,
    writes_output_folder,
)
from bertkd.pipeline.hub import upload
from bertkd.pipeline.models import load_model
from bertkd.pipeline.plan import print_plan
from bertkd.pipeline.task_data import TaskData, metric_names
from bertkd.records import RunResult, SubnetworkResult, now, write_model_card

__all__ = ["TRAINING_DEFAULTS", "MeasureSubnetworks", "distill", "save_model", "train_on_task"]

# Stands for the task's own main metric in `metric_for_best_model`.
TASK_METRIC = "task"
# What a training on a task wants of the trainer where nobody says otherwise: the best epoch by the task's metric is
# kept, as the Patient-KD authors do, and a killed run loses at most one epoch.
TRAINING_DEFAULTS: dict[str, Any] = {
    "output_dir": "outputs",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    # With one, the Trainer deletes the last checkpoint of a finished training for the sake of the best.
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "metric_for_best_model": TASK_METRIC,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 5e-5,
    "num_train_epochs": 4,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "logging_steps": 50,
    # The commands keep the messages of transformers off, which the Trainer takes for a wish to see no progress either.
    "disable_tqdm": False,
}

MeasureSubnetworks = Callable[[PreTrainedModel], list[SubnetworkResult]]


@writes_output_folder
def distill(
    experiment: Experiment,
    data: TaskData,
    teacher: PreTrainedModel,
    student: PreTrainedModel,
    config: DistillationConfig,
    trainer_class: type[DistillationTrainer],
    method_name: str,
    ignore_weak_teacher: bool = False,
) -> RunResult | None:
    """Checks the teacher on the task, and distills it into one student.

    Returns:
        The record of the training; None for a dry run.

    Raises:
        ValueError: the teacher is no better than a constant answer, and that is not to be ignored.
    """
    teacher_metrics = evaluate_teacher(teacher, data, config, ignore_weak_teacher)
    return train_on_task(experiment, data, student, config, trainer_class, method_name, teacher, teacher_metrics)


@writes_output_folder
def train_on_task(
    experiment: Experiment,
    data: TaskData,
    student: PreTrainedModel,
    config: DistillationConfig,
    trainer_class: type[DistillationTrainer],
    method_name: str,
    teacher: PreTrainedModel | None = None,
    teacher_metrics: dict[str, float] | None = None,
    measure_subnetworks: MeasureSubnetworks | None = None,
    keeps_better_start: bool = False,
    budget: str = "",
) -> RunResult | None:
    """Trains a student on a task, or goes on with an earlier start, and leaves model, tokenizer, card and record.

    A supernet is evaluated at full size, and by `measure_subnetworks` at its other sizes.

    Args:
        experiment: what the training is called and where it came from.
        data: the task.
        student: the model at its start.
        config: of the trainer; its `output_dir` is the folder.
        trainer_class: the method's trainer.
        method_name: the method's name in the record.
        teacher: what it learns from, if anything.
        teacher_metrics: the teacher's metrics on the task.
        measure_subnetworks: gives the records of a supernet's sizes.
        keeps_better_start: whether the student as it was before the training is one of the models among which
            `load_best_model_at_end` chooses by the task's metric.
        budget: the most that the student may cost, for the record, where the method's name does not say it.

    Returns:
        The record of the training; None for a dry run.
    """
    folder = output_folder(config)
    start_in_folder(experiment, config)
    settings = experiment.settings(config)
    described = training_environment(config)
    if config.metric_for_best_model == TASK_METRIC:
        config = with_changes(config, metric_for_best_model=_best_metric(data.task), greater_is_better=True)
    elif config.load_best_model_at_end:
        _check_best_metric(config, data)

    # Before the trainer is made, which draws the starts of its projections: an evaluation sets the seed anew.
    metrics_before = {} if experiment.is_dry_run else evaluate(student, data, config, is_trained=False)
    start = _copy_of_weights(student) if keeps_better_start and _chooses_by_task(config, data.task) else None

    trainer = trainer_class(
        model=student,
        teacher_model=teacher,
        args=trainer_config(experiment, config),
        train_dataset=data.splits["train"],
        eval_dataset=data.validation if len(data.validation) > 1 else data.first_validation,
        processing_class=data.tokenizer,
        compute_metrics=glue_metrics(data.task.metric_config),
    )
    if experiment.is_dry_run:
        print_plan(experiment, trainer, method_name)
        return None

    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=True)
    seconds = time.perf_counter() - started

    # Without what mixed precision and compilation wrapped around it, the model leaves as it came.
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    metrics = evaluate(extract_subnetwork(model) if is_adaptive(model) else model, data, config)

    is_main = config.process_index == 0
    is_start = start is not None and _put_back(start, model, data.task, metrics_before, metrics, is_main)
    if is_start:
        metrics = metrics_before

    subnetworks = [] if measure_subnetworks is None else measure_subnetworks(model)
    save_model(trainer, folder)
    _write_predictions(trainer, data, folder)

    # A supernet's sizes have speed-ups of their own.
    speedup, speedup_over = None, None
    if is_main and not subnetworks:
        speedup, speedup_over = _measured_speedup(experiment, folder, data.task)

    result = _record(
        experiment,
        data,
        model,
        config,
        method_name,
        **described,
        settings=settings,
        value=main_value(metrics, data.task.metric),
        metrics=metrics,
        metrics_before=metrics_before,
        teacher_metrics=teacher_metrics or {},
        is_start=is_start,
        budget=budget,
        seconds=round(seconds, 1),
        speedup=speedup,
        speedup_over=speedup_over,
        subnetworks=subnetworks,
    )

    if is_main:
        write_model_card(folder, result, teacher=experiment.teacher_name)
        # The record comes last: a folder that has one is finished, and is not trained again.
        result.write(folder)
        remove_checkpoints(experiment, folder)
        upload(folder, config)
    trainer.accelerator.wait_for_everyone()
    return result


def _record(
    experiment: Experiment,
    data: TaskData,
    model: PreTrainedModel,
    config: DistillationConfig,
    method_name: str,
    **measured: Any,
) -> RunResult:
    """The record of a training: what the model and the task say, and `measured`, the fields that they do not."""
    parameters, folder = count_parameters(model), output_folder(config)
    return RunResult(
        method=experiment.result_name or method_name,
        task=data.task.name,
        metric=data.task.metric,
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        # The main process alone writes the folder, and keeps the record.
        size_mb=model_size_mb(folder) if config.process_index == 0 else 0.0,
        layers=model.config.num_hidden_layers,
        seed=config.seed,
        command=experiment.command,
        finished=now(),
        rows={str(name): len(rows) for name, rows in data.splits.items()},
        paper=experiment.note,
        **measured,
    )


def _check_best_metric(config: DistillationConfig, data: TaskData) -> None:
    """Checks that an evaluation has the figure that is to choose the best model, before the first epoch is over.

    Raises:
        ValueError: it has not; the message names those that it has.
    """
    known = _figures(data.task, ["loss", *metric_names(data.task)])
    if str(config.metric_for_best_model).removeprefix("eval_") not in known:
        raise ValueError(
            f"--metric_for_best_model {config.metric_for_best_model}: an evaluation on {data.task.name} has no such "
            f"figure, only {', '.join(known)}."
        )


def _chooses_by_task(config: DistillationConfig, task: Task) -> bool:
    """Whether the best model is kept by the task's metric."""
    return config.load_best_model_at_end and config.metric_for_best_model == _best_metric(task)


def _copy_of_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """The weights as they are now, on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in model.state_dict().items()}


def _put_back(
    start: dict[str, Tensor],
    model: PreTrainedModel,
    task: Task,
    metrics_before: dict[str, float],
    metrics: dict[str, float],
    is_main: bool,
) -> bool:
    """Gives a model the weights of its start again where the training lowered the metric; returns whether it did."""
    before, after = (100 * main_value(found, task.metric) for found in (metrics_before, metrics))
    is_lowered = before > after or (math.isnan(after) and not math.isnan(before))

    if is_lowered:
        model.load_state_dict(start)
        if is_main:
            print(f"\nThe training lowered {task.metric} from {before:.1f} to {after:.1f}: the start is kept.")
    return is_lowered


def _best_metric(task: Task) -> str:
    """The name that the trainer gives the task's main metric; of several validation splits, that of the first."""
    return f"eval_{_figures(task, [task.metric])[0]}"


def _figures(task: Task, names: Sequence[str]) -> list[str]:
    """The names under which an evaluation has these figures; of several validation splits, the first one's first."""
    splits = task.validation_splits
    prefixes = [f"{split}_" for split in splits] if len(splits) > 1 else [""]
    return [f"{prefix}{name}" for prefix in prefixes for name in names]


def _measured_speedup(experiment: Experiment, folder: Path, task: Task) -> tuple[float | None, int | None]:
    """How many times faster the student answers than the model it replaces: batch 1, 128 tokens, float32, here.

    Both are loaded anew: models that were trained or evaluated in mixed precision still run in it.

    Returns:
        The speed-up, and the number of the other model's parameters; None where nothing is measured.
    """
    if experiment.replaces is None or not experiment.measures_speed:
        return None, None

    models = {"whole": load_model(experiment.replaces, task).eval(), "student": load_model(str(folder)).eval()}
    latency = measure_latency(models, batch_size=1, sequence_length=128)
    speedup = round(latency["whole"].p50_ms / latency["student"].p50_ms, 2)
    return speedup, count_parameters(models["whole"]).total


def _write_predictions(trainer: DistillationTrainer, data: TaskData, folder: Path) -> None:
    """Writes `predict_results_SPLIT.txt` for each test split, in the form of `run_glue.py`."""
    for name, rows in data.splits.items():
        if not str(name).startswith("test"):
            continue

        unlabeled = rows.remove_columns("label") if "label" in rows.column_names else rows
        logits: Any = trainer.predict(unlabeled).predictions

        if data.task.is_regression:
            answers = [f"{value:.3f}" for value in logits.squeeze(-1)]
        else:
            answers = [data.task.labels[i] for i in logits.argmax(-1)]

        lines = "".join(f"{i}\t{answer}\n" for i, answer in enumerate(answers))
        if trainer.is_world_process_zero():
            write_text(folder / f"predict_results_{name}.txt", f"index\tprediction\n{lines}")


def save_model(trainer: DistillationTrainer, folder: Path) -> None:
    """Writes the student and its tokenizer to a folder; each file appears whole or not at all."""
    if trainer.is_world_process_zero():
        trainer.save_model(str(folder))

    trainer.accelerator.wait_for_everyone()
