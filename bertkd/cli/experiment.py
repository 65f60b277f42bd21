"""What every recipe does with what it has loaded: check the teacher, train, measure, write."""

import dataclasses
import gc
import inspect
import json
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    PreTrainedModel,
    PrinterCallback,
    ProgressCallback,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from bertkd import DistillationTrainer
from bertkd.atomic import write_json, write_text
from bertkd.cli.arguments import TASK_METRIC, Config, RecipeArguments, Run, parse, with_changes
from bertkd.cli.loading import Data, load_model, load_teacher, number_of_layers
from bertkd.data import Task
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.dynabert import extract_subnetwork
from bertkd.efficiency import count_parameters, measure_latency, model_size_mb
from bertkd.metrics import glue_metrics
from bertkd.models import label_names, label_permutation
from bertkd.models.adaptive import is_adaptive
from bertkd.records import RunResult, SubnetworkResult, environment, read_result, terminal_table, write_model_card

# What a finished run leaves: the first with a task's metric, the second without.
RECORDS = ("results.json", "training.json")


def quiet() -> None:
    """Leave progress bars and the recipes' own lines; `transformers` reports each weight that it loads."""
    logging.set_verbosity_error()
    logging.disable_progress_bar()


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
    measure_sizes: Callable[[PreTrainedModel], list[SubnetworkResult]] | None = None,
) -> RunResult:
    """Train (or go on with) one run and leave its folder: model, tokenizer, card and results.json.

    A network of many sizes is evaluated at full size, and by `measure_sizes` at the others.
    """
    folder = Path(run.training.output_dir)
    check_same_settings(run, folder)
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
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    metrics = evaluate(extract_subnetwork(model) if is_adaptive(model) else model, run, data)
    sizes = [] if measure_sizes is None else measure_sizes(model)
    result = _write_run(run, data, method, trainer, metrics, before, teacher_metrics or {}, seconds, sizes)
    trainer.accelerator.wait_for_everyone()
    return result


def _best_metric(task: Task) -> str:
    if len(task.validation_splits) > 1:
        return f"eval_{task.validation_splits[0]}_{task.metric}"
    return f"eval_{task.metric}"


def check_same_settings(run: Run, folder: Path) -> None:
    """A folder belongs to one set of settings: going on with others would mix two runs."""
    settings = {**run.settings(), "seed": run.training.seed, "world_size": run.training.world_size}
    path = folder / "settings.json"
    has_work = last_checkpoint(folder) is not None or any((folder / name).is_file() for name in RECORDS)
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


def check_writable(folder: Path) -> None:
    """Raises OSError unless files can be written to `folder`, which is made where it is not there."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"Cannot write to {folder} ({error.strerror}): choose another --output_dir.") from None


def finished_result(run: Run) -> RunResult | None:
    """The result of a run that an earlier start of the same command finished."""
    path = Path(run.training.output_dir) / "results.json"
    if not path.is_file():
        return None
    check_same_settings(run, path.parent)
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
    sizes: list[SubnetworkResult],
) -> RunResult:
    folder = Path(run.training.output_dir)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    save_model(trainer, folder)
    write_predictions(trainer, data, folder)
    is_main = run.training.process_index == 0
    parameters = count_parameters(model)
    result = RunResult(
        method=run.recipe.result_name or method,
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
        speedup=_measured_speedup(run, data.task) if is_main and not sizes else None,
        subnetworks=sizes,
    )
    if is_main:
        write_model_card(folder, result, teacher=run.model.teacher_model_name_or_path or "")
        write_json(folder / "results.json", result.to_json())
        remove_checkpoints(run)
    return result


def remove_checkpoints(run: Run) -> None:
    """Delete a finished run's checkpoints, unless they are wanted."""
    if not run.recipe.keep_checkpoints:
        for checkpoint in Path(run.training.output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            shutil.rmtree(checkpoint)


def _measured_speedup(run: Run, task: Task) -> float | None:
    """How many times faster the student answers than the model it replaces: batch 1, 128 tokens, float32, here.

    That model is the teacher, or without one the checkpoint whose layers were dropped. Both are loaded anew: models
    that were trained or evaluated in mixed precision still run in it.
    """
    if run.model.teacher_model_name_or_path is not None:
        whole = load_teacher(run, task)
    elif number_of_layers(run.model) is not None and run.model.model_name_or_path is not None:
        whole = load_model(run.model.model_name_or_path, task)
    else:
        return None
    models = {"whole": whole.eval(), "student": load_model(run.training.output_dir).eval()}
    latency = measure_latency(models, batch_size=1, sequence_length=128)
    return round(latency["whole"].p50_ms / latency["student"].p50_ms, 2)


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


def describe_subnetwork(
    supernet: str, folder: Path, made: PreTrainedModel, command: str, **measured: Any
) -> RunResult | None:
    """results.json and card of a model that was taken out of a stage's folder; None where that has no results.json.

    `measured` are fields of the result: value, metrics, speedup. What is not among them stays unknown.
    """
    path = Path(supernet) / "results.json"
    if not path.is_file():
        return None
    parent, parameters = read_result(path), count_parameters(made)
    result = dataclasses.replace(
        parent,
        **{"value": math.nan, "metrics": {}, "speedup": None, **measured},
        method="dynabert-subnetwork",
        metrics_before={},
        subnetworks=[],
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        size_mb=model_size_mb(folder),
        layers=made.config.num_hidden_layers,
        command=command,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    write_model_card(folder, result, teacher=str(parent.settings.get("teacher_model_name_or_path") or ""))
    write_json(folder / "results.json", result.to_json())
    return result


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
    train_one: Callable[[Run[Config]], RunResult | None],
    defaults: dict[str, Any] | None = None,
    recipe_class: type[RecipeArguments] = RecipeArguments,
    summarize: Callable[[Run, Sequence[RunResult]], None] | None = print_summary,
) -> list[RunResult]:
    """The main of every recipe on a task: one training per seed, or the result that an earlier start left.

    `train_one` may end without a result, where only a part of a training was asked for.
    """
    quiet()
    runs = parse(config_class, argv, defaults, recipe_class, script=inspect.getfile(train_one))
    results = []
    for run in runs:
        result = finished_result(run) or train_one(run)
        results += [] if result is None else [result]
        gc.collect()  # a finished run's models, before the next one loads its own
    if summarize is not None and results:
        summarize(runs[-1], results)
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
