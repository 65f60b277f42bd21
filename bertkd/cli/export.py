"""Export a model for the engine that will run it, quantize it, and measure what that costs and gains.

    python recipes/export.py --model_name_or_path outputs/pkd --teacher_model_name_or_path outputs/teacher \
        --task_name sst2 --engine openvino --precision int8 --output_dir outputs/pkd-int8

The metric is measured before and after, on the validation split through the engine itself. Where int8 loses more than
--max_drop, gentler ways to quantize are tried; if none keeps the metric, nothing is written and the figures are told.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from transformers import DataCollatorWithPadding, EvalPrediction, PreTrainedModel

from bertkd import DistillationConfig
from bertkd.atomic import write_json
from bertkd.cli.arguments import RecipeArguments, Run, parse
from bertkd.cli.experiment import check_writable, main_value, metric_names, quiet
from bertkd.cli.loading import Data, load_data, load_model, load_teacher
from bertkd.efficiency import Latency, Runner, TorchRunner, count_parameters, measure_latency
from bertkd.export import (
    ENGINE_PACKAGES,
    ENGINES,
    PRECISIONS,
    Exported,
    available_engines,
    export_model,
    open_exported,
    predict,
    quantization_schemes,
    random_batches,
    require_engine,
    runs_in,
    write_export,
)
from bertkd.metrics import glue_metrics
from bertkd.models import label_names, label_permutation
from bertkd.records import ExportResult, RunResult, environment, read_result, terminal_table, write_export_card

RESULT = "export_result.json"
EAGER = "teacher, eager float32"
OURS = "this model"


@dataclass
class ExportArguments(RecipeArguments):
    """For which engine, how precise, and how it is measured."""

    engine: str = field(default="openvino", metadata={"choices": ENGINES, "help": "What is to run the model."})
    precision: str = field(default="int8", metadata={"choices": PRECISIONS, "help": "What it computes in."})
    max_drop: float = field(default=0.01, metadata={"help": "The most that the metric may lose, as a fraction."})
    calibration_rows: int = field(default=256, metadata={"help": "Training rows that ranges are read from."})
    batch_size: int = field(default=1, metadata={"help": "Rows of a measured forward pass."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of a measured forward pass."})
    threads: int | None = field(default=None, metadata={"help": "CPU threads of a measured forward pass."})
    repeats: int = field(default=20, metadata={"help": "Measured passes of each model."})
    device: str = field(
        default="cpu", metadata={"help": "Where --engine pytorch runs, and eager PyTorch beside it, e.g. cuda."}
    )


def export(run: Run[DistillationConfig]) -> ExportResult:
    """Export, measure, and leave the folder with card and export_result.json."""
    options, folder = run.recipe, Path(run.training.output_dir)
    require_engine(options.engine, options.precision)
    if options.device != "cpu" and options.engine != "pytorch":
        raise ValueError(f"{options.engine} runs on the CPU here: leave --device out, or take --engine pytorch.")
    if run.model.model_name_or_path is None:
        raise ValueError("Name the model to export with --model_name_or_path.")
    check_writable(folder)
    # Of the model alone: the teacher, which is only timed, may read another tokenizer's ids.
    data = load_data(dataclasses.replace(run, model=dataclasses.replace(run.model, teacher_model_name_or_path=None)))
    model = load_model(run.model.model_name_or_path)
    if model.config.num_labels != data.task.num_labels:
        raise ValueError(
            f"The model {run.model.model_name_or_path} has {model.config.num_labels} labels, but the task "
            f"{data.task.name} has {data.task.num_labels}: name the task that it was trained on."
        )
    made = export_checked(model, folder, run, data)
    latency = measure(model, made, run, data)
    source = Path(run.model.model_name_or_path) / "results.json"
    trained = read_result(source) if source.is_file() else None
    result = describe(model, made, latency, run, data, trained)
    write_json(folder / RESULT, asdict(result))
    write_export_card(folder, result, trained)
    show(result, latency)
    print(f"\nModel, tokenizer, card and {RESULT}: {folder}")
    return result


def export_checked(model: PreTrainedModel, folder: Path, run: Run, data: Data) -> Exported:
    """The export that keeps the task's metric."""
    options = run.recipe
    return export_model(
        model,
        folder,
        options.engine,
        options.precision,
        data.tokenizer,
        calibration_batches(data, options.calibration_rows, run.training.seed),
        metrics_of(model, data),
        options.max_drop,
        options.threads,
        options.device,
    )


def calibration_batches(data: Data, count: int, seed: int) -> list[dict[str, Any]]:
    """Batches of training rows, drawn by the seed."""
    rows = data.splits["train"].shuffle(seed=seed)
    rows = rows.select(range(min(count, len(rows))))
    rows = rows.select_columns([name for name in data.tokenizer.model_input_names if name in rows.column_names])
    collate = DataCollatorWithPadding(data.tokenizer)
    return [
        dict(collate([rows[i] for i in range(start, min(start + 4, len(rows)))])) for start in range(0, len(rows), 4)
    ]


def metrics_of(model: PreTrainedModel, data: Data) -> Callable[[Runner], dict[str, float]]:
    """What tells the task's metrics of a runner of this model, or of what was made from it; the main one first."""
    order = None
    if not data.task.is_regression:
        order = label_permutation(
            data.task.labels, label_names(model.config), wanted_by="the task", given_by="the model"
        )
    collate = DataCollatorWithPadding(data.tokenizer)

    def evaluate(runner: Runner) -> dict[str, float]:
        metrics = {}
        for split, rows in data.validation.items():
            logits = predict(runner, rows, collate)
            logits = logits if order is None else logits[:, order]
            found = glue_metrics(data.task.metric_config)(EvalPrediction(logits, np.asarray(rows["label"])))
            suffix = "" if len(data.validation) == 1 else f"_{split.removeprefix('validation_')}"
            metrics |= {f"{name}{suffix}": float(found[name]) for name in metric_names(data.task)}
        return metrics

    return evaluate


def measure(model: PreTrainedModel, made: Exported, run: Run, data: Data) -> dict[str, Latency]:
    """Latencies of the exported model, of the model in eager PyTorch, and of the teacher there and in every engine.

    On a GPU, PyTorch is the only engine.
    """
    options = run.recipe
    on_gpu = options.device != "cpu"
    runners: dict[str, Runner] = {}
    with tempfile.TemporaryDirectory() as work:
        if run.model.teacher_model_name_or_path is not None:
            teacher = load_teacher(run, data.task)
            in_engines: dict[str, Runner] = {}
            for engine in available_engines():
                if (engine == "pytorch") != on_gpu or not runs_in(engine, options.precision, options.device):
                    continue
                way = quantization_schemes(engine, options.precision)[0]
                written = write_export(teacher, Path(work) / engine, engine, way, calibration=random_batches(teacher))
                in_engines[f"teacher, {engine} {options.precision}"] = open_exported(
                    written, options.threads, options.device
                )
            # The last of all: a model that was exported with its attention written out is slower in its engine.
            runners = {EAGER: eager(teacher.to(options.device)), **in_engines}
        runners["this model, eager float32"] = eager(model.to(options.device))
        runners[OURS] = made.runner
        return measure_latency(
            runners, options.batch_size, options.sequence_length, options.repeats, threads=options.threads
        )


def eager(model: PreTrainedModel) -> TorchRunner:
    """The model as the papers measure: PyTorch, float32, attention written out."""
    model.set_attn_implementation("eager")
    return TorchRunner(model.float())


def describe(
    model: PreTrainedModel,
    made: Exported,
    latency: dict[str, Latency],
    run: Run,
    data: Data,
    trained: RunResult | None,
) -> ExportResult:
    """The record of one export; `trained` is that of the model, where it is known."""
    ours, eager_teacher = latency[OURS], latency.get(EAGER)
    in_engines = [one.p50_ms for name, one in latency.items() if name.startswith("teacher, ")]
    parameters, kept = count_parameters(model), made.attempts[-1]
    conditions = ("device", "batch_size", "sequence_length", "repeats", "threads", "padding")
    return ExportResult(
        method=run.recipe.result_name or (trained.method if trained else "model"),
        task=data.task.name,
        metric=data.task.metric,
        value=main_value(made.metrics, data.task),
        metrics=made.metrics,
        value_before=main_value(made.metrics_before, data.task),
        metrics_before=made.metrics_before,
        engine=run.recipe.engine,
        precision=run.recipe.precision,
        runtime_precision=made.runner.precision,
        attempt=kept.way,
        attempts=[asdict(one) for one in made.attempts],
        logit_difference=kept.logit_difference,
        agreement=kept.agreement,
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        size_mb=kept.size_mb,
        latency_ms=ours.p50_ms,
        p95_ms=ours.p95_ms,
        speedup=eager_teacher and eager_teacher.p50_ms / ours.p50_ms,
        speedup_best=min(in_engines) / ours.p50_ms if in_engines else None,
        conditions={name: getattr(ours, name) for name in conditions},
        layers=model.config.num_hidden_layers,
        seed=trained.seed if trained else run.training.seed,
        settings=run.settings(),
        command=run.command,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        **environment(ENGINE_PACKAGES),
    )


def show(result: ExportResult, latency: dict[str, Latency]) -> None:
    """The attempts, and all latencies that were measured together."""
    attempts = [
        {
            "": "→" if one["way"] == result.attempt else "",
            "way": one["way"],
            result.metric: f"{100 * one['value']:.1f}",
            "in PyTorch": f"{100 * result.value_before:.1f}",
            "logits differ by": f"{one['logit_difference']:.2g}",
            "same answer": "" if one["agreement"] is None else f"{100 * one['agreement']:.1f}%",
            "size": f"{one['size_mb']:.1f} MB",
        }
        for one in result.attempts
    ]
    times = [
        {
            "model": name,
            "computes in": one.precision,
            "p50": f"{one.p50_ms:.2f} ms",
            "p95": f"{one.p95_ms:.2f} ms",
            "rows per second": f"{one.throughput:.0f}",
            "speed-up": f"{one.speedup:.2f}x",
        }
        for name, one in latency.items()
    ]
    print(f"\n{terminal_table(attempts)}\n\n{terminal_table(times)}")


def main(argv: Sequence[str] | None = None) -> ExportResult:
    quiet()
    runs = parse(DistillationConfig, argv, {"alpha": 0.0}, ExportArguments, script=__file__)
    if len(runs) > 1:
        raise ValueError("An export has one --seed: it only draws the rows for the calibration.")
    return export(runs[0])
