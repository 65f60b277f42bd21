"""Make a fine-tuned model a network of many sizes (DynaBERT): importance, rewiring, and three stages of training.

    python recipes/dynabert.py --config recipes/configs/dynabert/mrpc.yaml --glue_dir GLUE \
        --teacher_model_name_or_path outputs/teacher --output_dir outputs/dynabert

Each stage leaves a folder of its own in the output folder, goes on where it was killed, and is not repeated once it is
done; `--stages depth finetune` runs some of them. The sizes of the last one are printed and charted.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from torch.utils.data import DataLoader
from transformers import DataCollatorWithPadding, PreTrainedModel

from bertkd import DynaBertKDConfig, DynaBertKDTrainer
from bertkd.cli.arguments import ImportanceArguments, Run, check_stages, with_changes
from bertkd.cli.experiment import (
    check_teacher,
    evaluate,
    finished_result,
    main_value,
    run_seeds,
    train_and_report,
)
from bertkd.cli.loading import Data, load_data, load_model, load_teacher, make_student
from bertkd.dynabert import compute_importance, extract_subnetwork, rewire
from bertkd.dynabert.config import STAGES
from bertkd.efficiency import count_flops, count_parameters, measure_latency
from bertkd.records import (
    ChartPoint,
    RunResult,
    SubnetworkResult,
    curves_chart,
    metric_label,
    subnetwork_rows,
    task_label,
    terminal_table,
)


@dataclass
class DynaBertArguments(ImportanceArguments):
    """What the recipe does around the three stages."""

    stages: list[str] = field(
        default_factory=lambda: list(STAGES), metadata={"help": f"Which to run, of {', '.join(STAGES)}."}
    )
    rewire: bool = field(default=True, metadata={"help": "Put the most important heads and neurons first."})

    def __post_init__(self) -> None:
        check_stages(self.stages, STAGES)


def dynabert(run: Run[DynaBertKDConfig]) -> RunResult:
    """Run the stages that are not done yet; returns the last one's result."""
    data = load_data(run)
    folder = Path(run.training.output_dir)
    for stage in run.recipe.stages:
        result = finished_result(_of_stage(run, stage)) or _train_stage(run, stage, data)
    if run.training.process_index == 0:
        show(result, folder / stage)
    return result


def _of_stage(run: Run[DynaBertKDConfig], stage: str) -> Run[DynaBertKDConfig]:
    # Stage finetune has no teacher, whatever alpha says for the others.
    changes = {"alpha": 0.0} if stage == "finetune" else {}
    output_dir = str(Path(run.training.output_dir) / stage)
    return dataclasses.replace(run, training=with_changes(run.training, stage=stage, output_dir=output_dir, **changes))


def _train_stage(run: Run[DynaBertKDConfig], stage: str, data: Data) -> RunResult:
    folder, own = Path(run.training.output_dir), _of_stage(run, stage)
    if run.training.process_index == 0:
        print(f"\n=== stage {stage} ===", flush=True)
    teacher, metrics = None, {}
    if stage != "finetune":
        teacher = load_teacher(run, data.task) if stage == "width" else _model_of(folder, "width")
        metrics = evaluate(teacher, own, data)
        check_teacher(metrics, data, run.model.ignore_weak_teacher)
    if stage == "width":
        student = make_student(run, data.task, teacher)
        if run.recipe.rewire:
            batches, reduction = importance_batches(run, data), run.recipe.importance_reduction
            rewire(student, compute_importance(student, batches, reduction, progress=True))
    else:
        student = _model_of(folder, STAGES[STAGES.index(stage) - 1])

    def measure(model: PreTrainedModel) -> list[SubnetworkResult]:
        return measure_sizes(model, own, data)

    ablated = ("" if run.recipe.rewire else "-unwired") + ("" if run.training.alpha > 0 else "-nokd")
    method = f"dynabert-{stage}{ablated}"
    return train_and_report(own, data, method, DynaBertKDTrainer, student, teacher, metrics, measure)


def _model_of(folder: Path, stage: str) -> PreTrainedModel:
    if not (folder / stage / "results.json").is_file():
        raise ValueError(f"Stage {stage} is not done in {folder}: run it first, with --stages {stage} or without.")
    return load_model(str(folder / stage))


def importance_batches(run: Run, data: Data) -> DataLoader:
    """The rows that importance is computed from."""
    split = data.task.validation_splits[0] if run.recipe.importance_split == "validation" else "train"
    rows = data.splits[split].shuffle(seed=run.training.seed)
    rows = rows.select(range(min(run.recipe.importance_rows, len(rows))))
    wanted = {*data.tokenizer.model_input_names, "label"}
    rows = rows.remove_columns([name for name in rows.column_names if name not in wanted])
    return DataLoader(rows, batch_size=32, collate_fn=DataCollatorWithPadding(data.tokenizer))


def measure_sizes(model: PreTrainedModel, run: Run[DynaBertKDConfig], data: Data) -> list[SubnetworkResult]:
    """Every sub-network of a supernet's stage: metrics, parameters, FLOPs and latency (batch 1, 128 tokens)."""
    depths = [1.0] if run.training.stage == "width" else sorted({*run.training.depth_mult_list, 1.0}, reverse=True)
    widths = sorted({*run.training.width_mult_list, 1.0}, reverse=True)
    models = {(width, depth): extract_subnetwork(model, width, depth) for depth in depths for width in widths}
    # Before they are evaluated, because mixed precision sticks to a model.
    latency = measure_latency({str(size): one for size, one in models.items()})
    flops = {size: count_flops(one) for size, one in models.items()}
    rows = []
    for (width, depth), one in models.items():
        metrics, parameters, time = evaluate(one, run, data), count_parameters(one), latency[str((width, depth))]
        rows.append(
            SubnetworkResult(
                width=width,
                depth=depth,
                layers=one.config.num_hidden_layers,
                value=main_value(metrics, data.task),
                metrics=metrics,
                parameters=parameters.total,
                embedding_parameters=parameters.embeddings,
                flops=flops[width, depth],
                latency_ms=round(time.p50_ms, 2),
                speedup=round(time.speedup, 2),
            )
        )
    return rows


def show(result: RunResult, folder: Path) -> None:
    """Print the table of sizes, and draw accuracy against latency beside the stage's folder."""
    print(f"\n{terminal_table(subnetwork_rows(result))}")
    curves: dict[str, list[ChartPoint]] = {}
    for one in result.subnetworks:
        name = f"{one.layers} layers (depth {one.depth:g})"
        curves.setdefault(name, []).append(ChartPoint(f"{one.width:g}", one.latency_ms, 100 * one.value))
    teacher = [100 * value for name, value in result.teacher_metrics.items() if name.startswith(result.metric)]
    full = max(one.latency_ms for one in result.subnetworks)
    chart = curves_chart(
        curves,
        folder.with_suffix(".png"),
        f"{task_label(result.task)}: sub-networks, labeled with their width",
        "Latency (ms, batch 1, 128 tokens)",
        f"{metric_label(result.metric)} (%)",
        reference=ChartPoint("Teacher", full, teacher[0]) if teacher else None,
    )
    print(f"Chart: {chart}\nSupernet (a model of full size), its card and results.json: {folder}")


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    defaults = {"init_from": "teacher", "learning_rate": 2e-5, "num_train_epochs": 3, "warmup_steps": 0.0}
    return run_seeds(argv, DynaBertKDConfig, dynabert, {**defaults, "weight_decay": 0.0}, DynaBertArguments, None)
