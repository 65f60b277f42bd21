"""Evaluates models on a task, and refuses a teacher that has nothing to teach."""

import numpy as np
from transformers import PreTrainedModel, PrinterCallback, ProgressCallback
from transformers.trainer import DEFAULT_PROGRESS_CALLBACK

from bertkd.data import Task
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.distillation.trainer_hooks import forget_preparation
from bertkd.metrics import glue_metrics, main_value
from bertkd.models import label_names, label_permutation
from bertkd.pipeline.experiment import with_changes
from bertkd.pipeline.task_data import TaskData

__all__ = ["ADVICE", "check_teacher", "evaluate", "evaluate_teacher", "logit_order"]

# For labels that do not match, where the command takes no `teacher_labels`.
ADVICE = "set id2label and label2id in the model's config.json to what its logits mean"


def logit_order(model: PreTrainedModel, task: Task, advice: str = "") -> list[int] | None:
    """Positions that put a model's logits into the task's label order; None where they are in it.

    Args:
        model: a classifier.
        task: the task that it answers.
        advice: what to do where the labels do not match; by default, how to give `teacher_labels`.

    Raises:
        ValueError: the labels of model and task do not match.
    """
    if task.is_regression:
        return None
    return label_permutation(
        task.labels,
        label_names(model.config),
        wanted_by=f"the task {task.name}",
        given_by="the model",
        advice=advice,
    )


def evaluate(
    model: PreTrainedModel, data: TaskData, config: DistillationConfig, is_trained: bool = True
) -> dict[str, float]:
    """Every metric of the task on each of its validation splits, as fractions, the main one first.

    Args:
        model: a classifier; labels in another order than the task's are put right.
        data: the task.
        config: says where and in which precision to run.
        is_trained: whether it is worth a warning that all predictions are the same.

    Raises:
        ValueError: the labels of model and task do not match.
    """
    metric = glue_metrics(data.task.metric_config)
    metric.warns_of_constants = is_trained
    order = logit_order(model, data.task)
    evaluation = with_changes(
        config,
        alpha=0.0,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        # An evaluation in half precision would leave the model so.
        bf16_full_eval=False,
        fp16_full_eval=False,
        # Trackers and the hub belong to the student's training.
        report_to=[],
        push_to_hub=False,
        hub_token=None,
    )
    trainer = DistillationTrainer(
        model=model,
        args=evaluation,
        processing_class=data.tokenizer,
        compute_metrics=metric,
    )

    # They would print each result, which the pipeline does at its end.
    for callback in (ProgressCallback, PrinterCallback, DEFAULT_PROGRESS_CALLBACK):
        trainer.remove_callback(callback)
    if order is not None:
        trainer.checks_label_order = False
        trainer.preprocess_logits_for_metrics = lambda logits, labels: logits[:, order]

    # A training may have left it prepared in its own way.
    forget_preparation(trainer.accelerator, model)
    scores = []
    try:
        for rows in data.validation.values():
            metrics = trainer.evaluate(rows, metric_key_prefix="eval")
            scores.append({name.removeprefix("eval_"): value for name, value in metrics.items()})
    finally:
        # Mixed precision stays on a model, and whoever measures or trains it next would do so with that.
        forget_preparation(trainer.accelerator, model)
    return data.named_metrics(scores)


def evaluate_teacher(
    teacher: PreTrainedModel, data: TaskData, config: DistillationConfig, may_be_weak: bool = False
) -> dict[str, float]:
    """The teacher's metrics. One that knows nothing, or has its labels in another order, would waste the training.

    Args:
        teacher, data, config: see `evaluate`.
        may_be_weak: whether a teacher that is no better than a constant answer is accepted.

    Raises:
        ValueError: the teacher is too weak, or its labels are not the task's.
    """
    metrics = evaluate(teacher, data, config)
    if not may_be_weak:
        check_teacher(metrics, data)
    return metrics


def check_teacher(metrics: dict[str, float], data: TaskData) -> None:
    """Refuses a teacher that says no more than the most frequent label (regression: the mean) does.

    Raises:
        ValueError: naming the teacher's metric and that of the constant answer.
    """
    # What a model reaches that has learned nothing but how often each label occurs.
    labels = np.asarray(data.first_validation["label"])
    constant = labels.mean() if data.task.is_regression else np.bincount(labels).argmax()
    answers = np.full_like(labels, constant)

    metric = glue_metrics(data.task.metric_config)
    metric.warns_of_constants = False
    name = data.task.metric
    baseline = metric.compute(predictions=answers, references=labels)[name]
    value = main_value(metrics, name)
    if value > baseline + 1e-6:
        return

    raise ValueError(
        f"The teacher's {name} on {data.task.name} is {value:.3f}, no better than always giving the most frequent "
        f"answer ({baseline:.3f}): fine-tune it on this task first, check the order of its labels, or go on with "
        "--ignore_weak_teacher."
    )
