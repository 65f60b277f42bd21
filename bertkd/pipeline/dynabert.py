"""Trains DynaBERT: importance and rewiring, then the stages of one network that runs at many widths and depths.

A single size of such a network leaves it as a model in a folder of its own.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel

from bertkd.dynabert import (
    DynaBertKDConfig,
    DynaBertKDTrainer,
    compute_importance,
    extract_subnetwork,
    make_adaptive,
    rewire,
    save_subnetwork,
)
from bertkd.dynabert.config import STAGES
from bertkd.efficiency import count_flops, count_parameters, measure_latency, model_size_mb
from bertkd.metrics import main_value
from bertkd.models.loading import load_tokenizer
from bertkd.pipeline.curves import draw_curves
from bertkd.pipeline.evaluation import evaluate, evaluate_teacher
from bertkd.pipeline.experiment import Experiment, finished, output_folder, with_changes
from bertkd.pipeline.models import load_model, resolve_model_name
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.training import train_on_task
from bertkd.records import (
    ChartPoint,
    RunResult,
    SubnetworkResult,
    metric_label,
    now,
    subnetwork_rows,
    task_label,
    terminal_table,
    write_model_card,
)
from bertkd.students import separate_position_bias

__all__ = [
    "ImportanceSettings",
    "describe_subnetwork",
    "extract_to_folder",
    "measure_sizes",
    "stage_config",
    "train_dynabert",
]

MakeModel = Callable[[], PreTrainedModel]


@dataclass(frozen=True)
class ImportanceSettings:
    """How the importance of heads and neurons is computed.

    Attributes:
        reduction: how gradients are added up over rows, see `compute_importance`.
        split: "train", or "validation" as the authors do.
        rows: how many rows at most, drawn by the training's seed.
    """

    reduction: str = "sum_abs"
    split: str = "train"
    rows: int = 2048


def train_dynabert(
    experiment: Experiment,
    data: TaskData,
    make_teacher: MakeModel,
    make_student: Callable[[PreTrainedModel], PreTrainedModel],
    config: DynaBertKDConfig,
    stages: Sequence[str] = STAGES,
    importance: ImportanceSettings | None = None,
    ignore_weak_teacher: bool = False,
    make_rows: Callable[[], TaskData] | None = None,
) -> RunResult | None:
    """Runs the stages that an earlier start has not done, each in a folder of its own.

    Args:
        experiment: what the training is called and where it came from.
        data: the task.
        make_teacher: gives the fine-tuned teacher; stage "width" alone needs it.
        make_student: gives the student that stage "width" starts from, of the teacher.
        config: of every stage; `stage` and `output_dir` are put in their place.
        stages: which of `STAGES` run, in their order.
        importance: how heads and neurons are put in order before stage "width"; None leaves them as they are.
        ignore_weak_teacher: whether a teacher that is no better than a constant answer is accepted.
        make_rows: gives the task with augmented rows, which stages "width" and "depth" then learn from; importance and
            stage "finetune" have the original ones.

    Returns:
        The record of the last stage; None for a dry run.

    Raises:
        ValueError: the stage before the first one is not done, or the teacher is too weak.
    """
    folder = output_folder(config)
    is_main = config.process_index == 0
    result = None
    more_data: TaskData | None = None

    for stage in stages:
        own_config = stage_config(config, stage)
        if config.push_to_hub:
            # One repository holds one model: that of the last stage.
            name = config.hub_model_id or folder.resolve().name
            own_config = with_changes(own_config, push_to_hub=stage == stages[-1], hub_model_id=name)
        result = finished(RunResult, experiment, own_config)
        if result is not None:
            continue

        if is_main:
            print(f"\n=== stage {stage} ===", flush=True)
        # A dry run has no folder of the stage before: the first models have the same shapes.
        is_first = stage == "width" or experiment.is_dry_run
        teacher, metrics = None, {}
        if stage != "finetune" or experiment.is_dry_run:
            teacher = make_teacher() if is_first else _finished_model(folder, "width")
        if teacher is not None and not experiment.is_dry_run:
            metrics = evaluate_teacher(teacher, data, own_config, ignore_weak_teacher)

        if is_first:
            assert teacher is not None
            student = _first_student(make_student(teacher), data, own_config, importance)
        else:
            student = _finished_model(folder, STAGES[STAGES.index(stage) - 1])

        # After the teacher was checked: augmenting a large task takes hours.
        if stage != "finetune" and make_rows is not None and more_data is None:
            more_data = make_rows()
        result = train_on_task(
            # A name that the user gives is that of the last stage.
            experiment if stage == stages[-1] else replace(experiment, result_name=""),
            data if stage == "finetune" or more_data is None else more_data,
            student,
            own_config,
            DynaBertKDTrainer,
            _method_name(stage, importance is not None, config.alpha > 0, make_rows is not None),
            teacher if stage != "finetune" else None,
            metrics,
            partial(measure_sizes, data=data, config=own_config, is_timed=experiment.measures_speed),
        )

    if result is not None and is_main:
        show_sizes(result, folder / stages[-1])
    return result


def stage_config(config: DynaBertKDConfig, stage: str) -> DynaBertKDConfig:
    """The config of one stage, in a folder of its own."""
    folder = str(output_folder(config) / stage)
    own = with_changes(config, stage=stage, output_dir=folder, is_one_of_several_stages=True)
    if stage != "width":
        # They say what the logits of the first teacher mean. That of stage depth has the task's labels.
        own = with_changes(own, teacher_labels=None)
    # Stage finetune has no teacher, whatever alpha says for the others.
    return with_changes(own, alpha=0.0) if stage == "finetune" else own


def _first_student(
    student: PreTrainedModel, data: TaskData, config: DynaBertKDConfig, importance: ImportanceSettings | None
) -> PreTrainedModel:
    """The student of stage width, with its most important heads and neurons first."""
    student = separate_position_bias(student)
    if importance is not None:
        batches = data.sampled_batches(importance.rows, config.seed, importance.split)
        progress = config.process_index == 0 and not config.disable_tqdm
        rewire(student, compute_importance(student, batches, importance.reduction, progress=progress))
    return student


def _finished_model(folder: Path, stage: str) -> PreTrainedModel:
    if not (folder / stage / RunResult.FILE).is_file():
        raise ValueError(f"Stage {stage} is not done in {folder}: run it first, with --stages {stage} or without.")
    return load_model(str(folder / stage))


def _method_name(stage: str, is_rewired: bool, is_distilled: bool, is_augmented: bool) -> str:
    """The name of a stage, with the parts of the method that are left out, and whether rows are augmented."""
    changes = {"unwired": not is_rewired, "nokd": not is_distilled, "augmented": is_augmented}
    return "-".join(["dynabert", stage, *(name for name, applies in changes.items() if applies)])


def measure_sizes(
    model: PreTrainedModel, data: TaskData, config: DynaBertKDConfig, is_timed: bool = True
) -> list[SubnetworkResult]:
    """Every sub-network of a supernet's stage: metrics, parameters, FLOPs and latency (batch 1, 128 tokens, CPU)."""
    depths = [1.0] if config.stage == "width" else sorted({*config.depth_mult_list, 1.0}, reverse=True)
    widths = sorted({*config.width_mult_list, 1.0}, reverse=True)

    subnetworks = {}
    for depth in depths:
        for width in widths:
            # A trained supernet may lie on a GPU. Speed-ups are those of a CPU in every record.
            subnetworks[width, depth] = extract_subnetwork(model, width, depth).cpu()

    # One process has the clock to itself, while the others wait in the evaluation.
    named = {str(size): subnetwork for size, subnetwork in subnetworks.items()}
    latency = measure_latency(named) if is_timed and config.process_index == 0 else {}
    flops = {size: count_flops(subnetwork) for size, subnetwork in subnetworks.items()}

    results = []
    for (width, depth), subnetwork in subnetworks.items():
        metrics = evaluate(subnetwork, data, config)
        parameters, timing = count_parameters(subnetwork), latency.get(str((width, depth)))
        results.append(
            SubnetworkResult(
                width=width,
                depth=depth,
                layers=subnetwork.config.num_hidden_layers,
                value=main_value(metrics, data.task.metric),
                metrics=metrics,
                parameters=parameters.total,
                embedding_parameters=parameters.embeddings,
                flops=flops[width, depth],
                latency_ms=None if timing is None else round(timing.p50_ms, 2),
                speedup=None if timing is None else round(timing.speedup, 2),
            )
        )
    return results


def show_sizes(result: RunResult, folder: Path) -> None:
    """Prints the table of sizes, and draws accuracy against latency beside the stage's folder."""
    print(f"\n{terminal_table(subnetwork_rows(result))}")
    if all(size.latency_ms is not None for size in result.subnetworks):
        _draw_sizes(result, folder.with_suffix(".png"))
    print(f"Supernet (a model of full size), its card and {RunResult.FILE}: {folder}")


def _draw_sizes(result: RunResult, path: Path) -> None:
    """Draws the accuracy of each size against its latency, which all of them have."""
    curves: dict[str, list[ChartPoint]] = {}
    for size in result.subnetworks:
        curve = curves.setdefault(f"{size.layers} layers (depth {size.depth:g})", [])
        assert size.latency_ms is not None
        curve.append(ChartPoint(f"{size.width:g}", size.latency_ms, 100 * size.value))

    reference = None
    if result.teacher_metrics:
        slowest = max(size.latency_ms or 0.0 for size in result.subnetworks)
        reference = ChartPoint("Teacher", slowest, 100 * main_value(result.teacher_metrics, result.metric))

    draw_curves(
        curves,
        path,
        f"{task_label(result.task)}: sub-networks, labeled with their width",
        "Latency (ms, batch 1, 128 tokens)",
        f"{metric_label(result.metric)} (%)",
        reference=reference,
    )


# ---- sub-networks in folders of their own ----


def extract_to_folder(
    supernet: str, folder: Path, width: float, depth: float, format: str, command: str
) -> PreTrainedModel:
    """Takes one sub-network out of a supernet, and leaves its folder with tokenizer, record and card.

    Args:
        supernet: the folder of the supernet.
        folder: the sub-network's.
        width, depth, format: see `extract_subnetwork`.
        command: what was typed, for the record.
    """
    model = make_adaptive(load_model(supernet).eval())
    tokenizer = load_tokenizer(resolve_model_name(supernet))

    # A record that is broken must not come to light after the model was written.
    known = _known_size(supernet, width, depth)
    subnetwork = save_subnetwork(model, folder, width=width, depth=depth, format=format, tokenizer=tokenizer)

    value, metrics, speedup = math.nan, {}, None
    if known is not None:
        value, metrics = known.value, known.metrics
        # The zeros of a padded model take time too.
        speedup = None if format == "stock" else known.speedup
    describe_subnetwork(supernet, folder, subnetwork, command, value, metrics, speedup)

    if known is None and (width, depth) != (1.0, 1.0):
        print(
            f"{supernet} was not trained at width {width:g} and depth {depth:g}, as far as its {RunResult.FILE} "
            "tells: measure the sub-network, or train a supernet (`bertkd dynabert`)."
        )
    kept, whole = count_parameters(subnetwork).total, count_parameters(model).total
    name = type(subnetwork).__name__
    print(f"{name}, {kept:,} of {whole:,} parameters, {model_size_mb(folder):.1f} MB: {folder}")
    return subnetwork


def _known_size(supernet: str, width: float, depth: float) -> SubnetworkResult | None:
    """What the supernet's record says of a size; None where it says nothing."""
    trained = RunResult.of(supernet)
    if trained is None:
        return None

    for size in trained.subnetworks:
        if (size.width, size.depth) == (width, depth):
            return size
    return None


def describe_subnetwork(
    supernet: str,
    folder: Path,
    model: PreTrainedModel,
    command: str,
    value: float,
    metrics: dict[str, float],
    speedup: float | None,
) -> None:
    """Writes the record and the card of a model that was taken out of a supernet, where the supernet has a record.

    Args:
        supernet: the folder of the supernet, whose record tells how it was trained.
        folder: the model's.
        model: the sub-network.
        command: what was typed.
        value, metrics, speedup: what is known of it: NaN, nothing and None where nothing is.
    """
    parent = RunResult.of(supernet)
    if parent is None:
        return

    parameters = count_parameters(model)
    result = replace(
        parent,
        method="dynabert-subnetwork",
        value=value,
        metrics=metrics,
        metrics_before={},
        speedup=speedup,
        # What is known of it was measured beside the whole supernet.
        speedup_over=parent.parameters,
        subnetworks=[],
        parameters=parameters.total,
        embedding_parameters=parameters.embeddings,
        size_mb=model_size_mb(folder),
        layers=model.config.num_hidden_layers,
        command=command,
        finished=now(),
    )

    write_model_card(folder, result, teacher=str(parent.settings.get("teacher_model_name_or_path") or ""))
    result.write(folder)
