"""Exports a model for the engine that will run it, and measures what that costs and gains."""

import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedModel

from bertkd.distillation import DistillationConfig
from bertkd.efficiency import Latency, Runner, count_parameters, is_fast_in_int8
from bertkd.export import (
    ENGINE_PACKAGES,
    Exported,
    available_engines,
    export_model,
    open_exported,
    predict,
    require_engine,
    runs_in,
)
from bertkd.export.checks import check_folder, check_length
from bertkd.export.engines import MANIFEST
from bertkd.metrics import glue_metrics, main_value
from bertkd.pipeline.deployment import Deployment, eager
from bertkd.pipeline.evaluation import ADVICE, logit_order
from bertkd.pipeline.experiment import Experiment, output_folder, writes_output_folder
from bertkd.pipeline.folders import check_not_input
from bertkd.pipeline.hub import upload
from bertkd.pipeline.models import load_model, load_teacher
from bertkd.pipeline.quantization import distilled_for_int8
from bertkd.pipeline.task_data import TaskData
from bertkd.records import ExportResult, RunResult, environment, terminal_table, write_export_card

__all__ = ["AccuracyCheck", "export_for_task"]

# Names of the models that are timed together.
TEACHER = "teacher, eager float32"
THIS_MODEL = "this model"
# Rows of a batch that ranges of int8 are read from.
CALIBRATION_BATCH = 4


@dataclass(frozen=True)
class AccuracyCheck:
    """How much the metric may lose, and what is done against it.

    Attributes:
        max_drop: as a fraction.
        calibration_rows: how many training rows int8's ranges are read from.
        training_rows: how many rows a model is distilled into itself on, where int8 loses more than 0.3 points; 0 for
            never.
    """

    max_drop: float = 0.01
    calibration_rows: int = 256
    training_rows: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop <= 1:
            raise ValueError(
                f"--max_drop is {self.max_drop}: give a fraction from 0 to 1, such as 0.01 for one percent."
            )


@writes_output_folder
def export_for_task(
    experiment: Experiment,
    data: TaskData,
    name: str,
    config: DistillationConfig,
    deployment: Deployment,
    check: AccuracyCheck,
    teacher_name: str | None = None,
) -> ExportResult:
    """Exports a model, measures metric and latency, and leaves a folder with card and record.

    Args:
        experiment: where the export came from.
        data: the task, tokenized for this model.
        name: the folder of the model.
        config: its `output_dir` is the folder, and its seed draws the rows for the calibration.
        deployment: the engine, precision, timing and device.
        check: how much the metric may lose.
        teacher_name: the model whose latency is compared with; None for none.

    Returns:
        The record of the export.

    Raises:
        ValueError: the model does not fit the task.
        AccuracyDropError: every quantization loses more than the check allows; nothing is written.
    """
    # Everything that can be wrong is found before the first step.
    require_engine(deployment.engine, deployment.precision)
    if (Path(name) / MANIFEST).is_file() and not list(Path(name).glob("*.safetensors")):
        raise ValueError(f"{name} is an export already: give the folder of the model that it was made of.")

    folder = output_folder(config)
    check_not_input(folder, {"model_name_or_path": name, "teacher_model_name_or_path": teacher_name}, is_replaced=True)
    model = load_model(name)
    check_folder(folder, model)
    if model.config.num_labels != data.task.num_labels:
        raise ValueError(
            f"The model {name} has {model.config.num_labels} labels, but the task {data.task.name} has "
            f"{data.task.num_labels}: name the task that it was trained on."
        )
    check_length(name, model.config, deployment.timing.sequence_length)

    teacher = None
    if teacher_name is not None:
        teacher = load_teacher(teacher_name, data.task, config.teacher_labels)
        check_length(teacher_name, teacher.config, deployment.timing.sequence_length)

    # The record of the model's own training, if bertkd trained it, tells method and seed.
    trained = RunResult.of(name)

    # PyTorch's int8 has the whole range on every CPU.
    has_half_range = deployment.engine != "pytorch" and not is_fast_in_int8()
    retrain = partial(
        distilled_for_int8, data=data, config=config, rows=check.training_rows, has_half_range=has_half_range
    )
    exported = export_model(
        model,
        folder,
        deployment.engine,
        deployment.precision,
        data.tokenizer,
        _calibration_batches(data, check.calibration_rows, config.seed),
        _metrics_of(model, data),
        check.max_drop,
        deployment.timing.threads,
        deployment.device,
        retrain=retrain if check.training_rows else None,
    )
    latency = _measure(model, exported, teacher, deployment)
    result = _describe(experiment, model, exported, latency, data, config, deployment, trained)
    write_export_card(folder, result, trained)
    result.write(folder)
    upload(folder, config)

    _show(result, latency)
    print(f"\nModel, tokenizer, card and {ExportResult.FILE}: {folder}")
    return result


def _calibration_batches(data: TaskData, rows: int, seed: int) -> list[dict[str, Any]]:
    """Batches of training rows without their labels, drawn by the seed."""
    batches = []
    for batch in data.sampled_batches(rows, seed, batch_size=CALIBRATION_BATCH):
        batches.append({name: tensor for name, tensor in batch.items() if name in data.tokenizer.model_input_names})
    return batches


def _metrics_of(model: PreTrainedModel, data: TaskData) -> Callable[[Runner], dict[str, float]]:
    """The function that tells the task's metrics of whatever runs this model; the main metric comes first."""
    order = logit_order(model, data.task, ADVICE)
    collator = DataCollatorWithPadding(data.tokenizer)
    score = glue_metrics(data.task.metric_config)

    def metrics_of_runner(runner: Runner) -> dict[str, float]:
        scores = []
        for rows in data.validation.values():
            logits = predict(runner, rows, collator)
            logits = logits if order is None else logits[:, order]
            scores.append(score(EvalPrediction(logits, np.asarray(rows["label"]))))
        return data.named_metrics(scores)

    return metrics_of_runner


def _measure(
    model: PreTrainedModel, exported: Exported, teacher: PreTrainedModel | None, deployment: Deployment
) -> dict[str, Latency]:
    """Latencies of the exported model, of the model in eager PyTorch, and of the teacher there and in every engine.

    On a GPU, PyTorch is the only engine.
    """
    device, on_gpu = deployment.device, deployment.device != "cpu"
    runners: dict[str, Runner] = {}

    with tempfile.TemporaryDirectory() as work:
        if teacher is not None:
            in_engines: dict[str, Runner] = {}
            for engine in available_engines():
                if (engine == "pytorch") != on_gpu or not runs_in(engine, deployment.precision, device):
                    continue
                folder = replace(deployment, engine=engine).write(teacher, Path(work) / engine)
                runner = open_exported(folder, deployment.timing.threads, device)
                in_engines[f"teacher, {engine} {deployment.precision}"] = runner
            # Last of all: a model that was exported with its attention written out is slower in its engine.
            runners = {TEACHER: eager(nn.Module.to(teacher, device=device)), **in_engines}

        runners["this model, eager float32"] = eager(nn.Module.to(model, device=device))
        runners[THIS_MODEL] = exported.runner
        return deployment.timing.measure(runners)


def _describe(
    experiment: Experiment,
    model: PreTrainedModel,
    exported: Exported,
    latency: dict[str, Latency],
    data: TaskData,
    config: DistillationConfig,
    deployment: Deployment,
    trained: RunResult | None,
) -> ExportResult:
    """The record of one export; `trained` is that of the model, where it is known."""
    this_model, teacher = latency[THIS_MODEL], latency.get(TEACHER)
    in_engines = [timing.p50_ms for name, timing in latency.items() if name.startswith("teacher, ")]
    parameters, kept = count_parameters(model), exported.kept
    conditions = ("device", "batch_size", "sequence_length", "repeats", "threads", "padding")

    return ExportResult(
        method=experiment.result_name or (trained.method if trained else "model"),
        task=data.task.name,
        metric=data.task.metric,
        value=main_value(exported.metrics, data.task.metric),
        metrics=exported.metrics,
        value_before=main_value(exported.metrics_before, data.task.metric),
        metrics_before=exported.metrics_before,
        engine=deployment.engine,
        precision=deployment.precision,
        runtime_precision=exported.runner.precision,
        attempt=kept.way,
        attempts=[asdict(attempt) for attempt in exported.attempts],
        logit_difference=kept.logit_difference,
        agreement=kept.agreement,
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        size_mb=kept.size_mb,
        latency_ms=this_model.p50_ms,
        p95_ms=this_model.p95_ms,
        speedup=teacher.p50_ms / this_model.p50_ms if teacher else None,
        speedup_best=min(in_engines) / this_model.p50_ms if in_engines else None,
        conditions={name: getattr(this_model, name) for name in conditions},
        layers=model.config.num_hidden_layers,
        seed=trained.seed if trained else config.seed,
        budget=trained.budget if trained else "",
        settings=experiment.settings(config),
        command=experiment.command,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(ENGINE_PACKAGES),
    )


def _show(result: ExportResult, latency: dict[str, Latency]) -> None:
    """Prints the quantizations that were tried, and all latencies that were measured together."""
    attempts = []
    for attempt in result.attempts:
        agreement = attempt["agreement"]
        attempts.append(
            {
                "": "→" if attempt["way"] == result.attempt else "",
                "quantization": attempt["way"],
                result.metric: f"{100 * attempt['value']:.1f}",
                "in PyTorch": f"{100 * result.value_before:.1f}",
                "logits differ by": f"{attempt['logit_difference']:.2g}",
                "same answer": "" if agreement is None else f"{100 * agreement:.1f}%",
                "size": f"{attempt['size_mb']:.1f} MB",
            }
        )

    times = []
    for name, timing in latency.items():
        times.append(
            {
                "model": name,
                "computes in": timing.precision,
                "p50": f"{timing.p50_ms:.2f} ms",
                "p95": f"{timing.p95_ms:.2f} ms",
                "rows per second": f"{timing.throughput:.0f}",
                "speed-up": f"{timing.speedup:.2f}x",
            }
        )
    print(f"\n{terminal_table(attempts)}\n\n{terminal_table(times)}")
