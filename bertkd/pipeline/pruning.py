"""Prunes a teacher to one budget or several in turn, and distills it into each of the students."""

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel

from bertkd.atomic import atomic_folder, plain_json, read_json, write_json
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.efficiency import Runner
from bertkd.efficiency.costs import CostTable
from bertkd.metrics import main_value
from bertkd.models import LayerSizes, layer_sizes
from bertkd.models.tokenizer_files import save_tokenizer
from bertkd.pipeline.contents import content_digests
from bertkd.pipeline.curves import draw_curves
from bertkd.pipeline.deployment import Deployment
from bertkd.pipeline.evaluation import evaluate, evaluate_teacher
from bertkd.pipeline.experiment import (
    Experiment,
    finished,
    output_folder,
    start_in_folder,
    with_changes,
    writes_output_folder,
)
from bertkd.pipeline.limits import NO_BUDGET, Limit
from bertkd.pipeline.models import copy_for_task, load_model
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.training import train_on_task
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer, Pruner, Selection, pruning_costs, reconstruct
from bertkd.pruning.budget import plain_copy
from bertkd.pruning.method import SHARES, variant_name
from bertkd.records import ChartPoint, RunResult, metric_label, task_label, terminal_table
from bertkd.students import prune

__all__ = ["Pruning", "train_pruned"]

# What a budget made of the teacher, before it is trained, and the curve from which it can be chosen.
START, FILE, CHART = "start", "pruning.json", "curve.png"
# Shares of the teacher's cost that the curve shows, and the rows that its students are fitted on.
CURVE_SHARES, CURVE_ROWS = (0.75, 0.5, 0.35, 0.25, 0.125), 512
# Rows of a batch that scores, harms and fits are made from.
CALIBRATION_BATCH = 32
# Default length of a training: about so many rows in all, but at most ten epochs.
ROWS_SEEN, MOST_EPOCHS = 40_000, 10


@dataclass(frozen=True)
class Pruning:
    """How students are made of the teacher.

    Attributes:
        limits: the budgets.
        deployment: where a student is to serve, and so where milliseconds are measured.
        rows: how many training rows scores, harms and fits are made from.
        is_fitted: whether what is left is fitted to the teacher.
        has_curve: whether students of several sizes are made and evaluated first, so that one can be chosen.
        has_rungs: whether several students start from each other, the smaller from the larger one; else each of them
            is pruned out of the teacher, whose harms are measured once.
        unit_order: which units of a sub-layer stay, see `Pruner.prepared`.

    Raises:
        ValueError: no budget, budgets that do not fall, or a single one without rungs.
    """

    limits: Sequence[Limit]
    deployment: Deployment
    rows: int = 2048
    is_fitted: bool = True
    has_curve: bool = False
    has_rungs: bool = True
    unit_order: str = "measured"

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError(NO_BUDGET)
        if len(self.limits) == 1 and not self.has_rungs:
            raise ValueError("--rungs false has no effect with a single --budget: give several, or leave it out.")
        amounts = [limit.number for limit in self.limits]
        is_mixed = len({limit.is_share for limit in self.limits}) > 1
        if is_mixed or any(later >= earlier for earlier, later in pairwise(amounts)):
            raise ValueError(
                f"--budget {' '.join(limit.text for limit in self.limits)}: several budgets go from the largest to "
                "the smallest student, all numbers or all shares."
            )
        if self.limits[0].unit == "points" and (len(self.limits) > 1 or not self.has_curve):
            raise ValueError(
                "--unit points chooses one size from the curve that `bertkd compress` makes: give one --budget there."
            )

    def folder_of(self, limit: Limit, config: PrunedKDConfig) -> Path:
        """The folder of the student of a limit: the output folder, or one in it where there are several limits."""
        folder = output_folder(config)
        return folder if len(self.limits) == 1 else limit.folder_in(folder)


def train_pruned(
    experiment: Experiment,
    data: TaskData,
    teacher: PreTrainedModel,
    pruning: Pruning,
    config: PrunedKDConfig,
    ignore_weak_teacher: bool = False,
) -> list[RunResult]:
    """Prunes and distills; what an earlier start has done is not done again.

    With one budget, the output folder is the student's. With several, each student has a folder in it.

    Args:
        experiment: what the training is called and where it came from.
        data: the task.
        teacher: the fine-tuned model.
        pruning: the budgets.
        config: of the training of each student.
        ignore_weak_teacher: whether a teacher that is no better than a constant answer is accepted.

    Returns:
        The records of the students; none for a dry run.

    Raises:
        ValueError: no network is within a budget, the teacher is too weak, or several students are to be uploaded.
    """
    if config.push_to_hub and len(pruning.limits) > 1:
        raise ValueError("--push_to_hub uploads one model: give one --budget, or upload a folder yourself afterwards.")
    return _Training(experiment, data, teacher, pruning, config, ignore_weak_teacher).run()


class _Training:
    """One start of `train_pruned`."""

    def __init__(
        self,
        experiment: Experiment,
        data: TaskData,
        teacher: PreTrainedModel,
        pruning: Pruning,
        config: PrunedKDConfig,
        ignore_weak_teacher: bool,
    ) -> None:
        self.experiment, self.data, self.teacher, self.pruning = experiment, data, teacher, pruning
        self.config = _with_epochs(config, len(data.splits["train"]))
        self.ignore_weak_teacher = ignore_weak_teacher
        self.has_progress = config.process_index == 0 and not config.disable_tqdm

    def run(self) -> list[RunResult]:
        """Makes the students that an earlier start has not made; returns all records."""
        results: list[RunResult] = []
        before: PreTrainedModel | None = None
        before_folder: Path | None = None
        limits, has_rungs = self.pruning.limits, self.pruning.has_rungs

        for number, limit in enumerate(limits):
            config = with_changes(self.config, output_dir=str(self.pruning.folder_of(limit, self.config)))
            result = finished(RunResult, self.experiment, config)
            if result is None:
                start = _start(self.experiment, config, self, limit, before, before_folder)
                share = _named_share(limit)
                name = variant_name(
                    share,
                    has_rungs and number > 0,
                    self.pruning.is_fitted,
                    config.beta,
                    self.pruning.unit_order,
                )
                # As the pruner, it needs memory, which a training needs more.
                self.__dict__.pop("teacher_in_engine", None)
                result = train_on_task(
                    self.experiment,
                    self.data,
                    start,
                    config,
                    PrunedKDTrainer,
                    name,
                    self.teacher,
                    self.teacher_metrics,
                    keeps_better_start=True,
                    # A name that the user gave says nothing about it.
                    budget="" if share and not self.experiment.result_name else str(limit),
                )
                before = start if has_rungs else None
            if result is not None:
                results.append(result)
                if has_rungs and number + 1 < len(limits):
                    before_folder = output_folder(config)
                    before = load_model(str(before_folder))
        return results

    # ---- what is computed when it is needed first ----

    @cached_property
    def teacher_metrics(self) -> dict[str, float]:
        """The teacher's metrics on the task.

        Raises:
            ValueError: it is too weak.
        """
        return evaluate_teacher(self.teacher, self.data, self.config, self.ignore_weak_teacher)

    @cached_property
    def costs(self) -> CostTable:
        """The costs of the teacher's parts."""
        return pruning_costs(self.teacher, self.measure)

    @cached_property
    def whole(self) -> float:
        """What the teacher costs."""
        return self.costs.cost(layer_sizes(self.teacher))

    @cached_property
    def teacher_in_engine(self) -> Runner:
        """The teacher where it is to serve; an export of it takes as long as one of a student."""
        return self.pruning.deployment.runner(self.teacher)

    @property
    def unit(self) -> str:
        """The unit that networks are measured in."""
        return self.pruning.limits[0].cost_unit

    def measure(self, models: Sequence[PreTrainedModel]) -> list[float]:
        """What models cost where they are to serve."""
        return self.pruning.deployment.costs(models, self.unit, self.has_progress)

    def measure_beside_teacher(self, models: Sequence[PreTrainedModel]) -> list[float]:
        """What models cost when the teacher costs what the table says, so that a machine may slow down meanwhile."""
        if self.unit != "ms":
            return self.measure(models)
        return self.pruning.deployment.milliseconds_of(models, self.teacher_in_engine, self.whole, self.has_progress)

    # ---- pruning ----

    def pruned(self, limit: Limit, before: PreTrainedModel | None) -> tuple[PreTrainedModel, dict[str, Any]]:
        """Prunes the teacher, or a student of it; returns the student and what goes into `pruning.json`."""
        seconds: dict[str, float] = {}
        with _timed(seconds, "costs"):
            whole = self.whole
            self.check_limits()

        with _timed(seconds, "harms"):
            # Kept only where it serves several students: a training needs its memory.
            pruner = self.pruner_out_of(before) if self.pruning.has_rungs else self.shared_pruner

        with _timed(seconds, "curve"):
            curve = self.curve(pruner) if self.pruning.has_curve else []
        with _timed(seconds, "choice"):
            if limit.unit == "points":
                selection = _fastest_within(curve, limit.number)
            else:
                budget = limit.amount(whole)
                target = _table_cost_of(budget, curve)
                selection = pruner.select(budget, self.costs, self.measure_beside_teacher, self.unit, target)

        with _timed(seconds, "reconstruction"):
            fitted_rows = None if self.pruning.is_fitted else 0
            student = pruner.pruned(selection.sizes, fitted_rows, self.has_progress)

        return student, {
            "budget": limit.number if limit.unit == "points" else limit.amount(whole),
            "unit": self.unit,
            "whole": whole,
            "predicted": selection.predicted,
            "measured": selection.measured,
            "sizes": selection.sizes._asdict(),
            "is_whole": selection.sizes == layer_sizes(self.teacher),
            "harm": selection.harm,
            "divergence": pruner.divergence(student),
            "rows": min(self.pruning.rows, len(self.data.splits["train"])),
            "seconds": seconds,
            "cost_table": asdict(self.costs),
            "curve": curve,
        }

    @cached_property
    def shared_pruner(self) -> Pruner:
        """What all students are pruned by that are pruned out of the teacher."""
        return self.pruner_out_of(None)

    def pruner_out_of(self, before: PreTrainedModel | None) -> Pruner:
        """Measures the harms of pruning the teacher, or a student of it."""
        for model in (self.teacher, before):
            if model is not None:
                nn.Module.to(model, self.config.device)
        batches = self.batches(self.pruning.rows)
        # The student answers in the task's order of labels.
        teacher = copy_for_task(self.teacher, self.data.task)
        # Harms only say which size is better than which: they bear mixed precision. Fits are in float32.
        with torch.autocast(self.config.device.type, torch.bfloat16, enabled=self.config.bf16):
            model, target = (teacher, None) if before is None else (before, teacher)
            return Pruner.prepared(model, batches, target, self.has_progress, self.pruning.unit_order)

    def check_limits(self) -> None:
        """Refuses a budget that nothing meets, of a later rung too, before harms are measured and rungs are trained.

        Raises:
            ValueError: the message has the cost of the smallest network, and what it reaches before it is trained.
        """
        smallest = self.costs.of_one_head
        for limit in self.pruning.limits:
            amount = limit.amount(self.whole)
            if limit.unit != "points" and amount < smallest:
                is_what = f", which is {amount:.4g} {self.unit}" if limit.is_share else f" {self.unit}"
                reached = ""
                if self.config.world_size == 1:
                    value = 100 * self.value_of_smallest()
                    reached = f" and reaches {value:.1f} {self.data.task.metric} before it is trained"
                raise ValueError(
                    f"--budget {limit.text}{is_what}: no network of this teacher is as small. One with a single "
                    f"head takes {smallest:.4g} {self.unit}{reached}; the teacher takes {self.whole:.4g}."
                )

    def value_of_smallest(self) -> float:
        """The metric of the network of a single head, fitted to the teacher."""
        teacher = plain_copy(copy_for_task(self.teacher, self.data.task))
        depth = len(layer_sizes(teacher).heads)
        student = prune(teacher, [1] + [0] * (depth - 1), [0] * depth)
        reconstruct(student, teacher, self.batches(CURVE_ROWS))
        return main_value(evaluate(student, self.data, self.config, is_trained=False), self.data.task.metric)

    def batches(self, rows: int) -> DataLoader:
        """At most this many training rows, to measure and to fit on, drawn by the seed."""
        rows = min(rows, len(self.data.splits["train"]))
        # Few rows still make some batches: those that are fitted on are not those that choose among the fits.
        size = min(CALIBRATION_BATCH, max(1, rows // 4))
        return self.data.sampled_batches(rows, self.config.seed, batch_size=size, by_length=True)

    def curve(self, pruner: Pruner) -> list[dict[str, Any]]:
        """The teacher, and students of several sizes before they are trained, from large to small."""
        metric = self.data.task.metric
        whole = Selection(layer_sizes(self.teacher), self.whole, self.whole, 0.0)
        points = [_point(1.0, whole, main_value(self.teacher_metrics, metric), 0.0)]

        # The table chooses the sizes, and one measurement of all of them side by side says what they cost.
        selections, students = [], []
        for share in CURVE_SHARES:
            try:
                selections.append(pruner.select(share * self.whole, self.costs))
            except ValueError:  # nothing is as small as that
                break
            students.append(pruner.pruned(selections[-1].sizes, CURVE_ROWS))
        costs = self.measure_beside_teacher(students)

        for share, selection, student, cost in zip(CURVE_SHARES, selections, students, costs, strict=False):
            metrics = evaluate(student, self.data, self.config, is_trained=False)
            measured = replace(selection, measured=cost)
            points.append(_point(share, measured, main_value(metrics, metric), pruner.divergence(student)))
        return points


@writes_output_folder
def _start(
    experiment: Experiment,
    config: PrunedKDConfig,
    training: _Training,
    limit: Limit,
    before: PreTrainedModel | None,
    before_folder: Path | None,
) -> PreTrainedModel:
    """The student of a limit before it is trained: the one that an earlier start has left, or a new one.

    Args:
        experiment: what the training is called and where it came from.
        config: of the student's training.
        training: makes a new one.
        limit: what it may cost.
        before: the student that it is pruned out of; None for the teacher.
        before_folder: where that one lies.
    """
    # A weak teacher is found before minutes are spent on it.
    assert training.teacher_metrics
    if experiment.is_dry_run:
        student, facts = training.pruned(limit, before)
        if config.process_index == 0:
            _show(plain_json(facts), limit, training.data, None)
        return student

    folder = output_folder(config) / START
    start_in_folder(experiment, config)
    asked = _asked(experiment, limit, config, before_folder)
    with config.main_process_first(local=False, desc="pruning"):
        if config.process_index == 0 and not _is_left(folder, asked):
            student, facts = training.pruned(limit, before)
            with atomic_folder(folder) as partial:
                student.save_pretrained(partial)
                save_tokenizer(training.data.tokenizer, partial, student.config)
                write_json(partial / FILE, {**facts, "asked": asked})
        if config.process_index == 0:
            # A run that was killed right after the last file may have left it.
            shutil.rmtree(folder / ".partial", ignore_errors=True)
        elif not _is_left(folder, asked):
            raise ValueError(
                f"Process {config.process_index} finds no pruned student in {folder}: process 0 says why, or this "
                "machine does not see its folder."
            )
        facts = read_json(folder / FILE)

    if config.process_index == 0:
        _show(facts, limit, training.data, output_folder(config) / CHART)
    return load_model(str(folder))


def _asked(experiment: Experiment, limit: Limit, config: PrunedKDConfig, before_folder: Path | None) -> dict[str, Any]:
    """Everything that a pruned student depends on, as JSON values."""
    contents = content_digests(experiment.inputs(config))
    # A teacher that was moved is the same teacher.
    options = {name: value for name, value in experiment.options.items() if name not in contents}
    before = content_digests({"model_name_or_path": str(before_folder)}) if before_folder is not None else {}
    asked = {
        "limit": str(limit),
        "seed": config.seed,
        "bf16": config.bf16,
        "options": options,
        "contents": contents,
        "before": before,
    }
    return dict(plain_json(asked))


def _is_left(folder: Path, asked: dict[str, Any]) -> bool:
    """Whether an earlier start has left the whole student that is asked for."""
    # The config is the last of the files that are put there.
    if not ((folder / FILE).is_file() and (folder / "config.json").is_file()):
        return False
    # Before anything was trained, a folder may be started with other settings. A training goes on with its own start.
    return last_checkpoint(folder.parent) is not None or read_json(folder / FILE).get("asked") == asked


def _show(facts: dict[str, Any], limit: Limit, data: TaskData, chart: Path | None) -> None:
    """Prints what a budget made of the teacher, after the sizes to choose from.

    Args:
        facts: the content of `pruning.json`.
        limit: the budget.
        data: the task.
        chart: where the sizes are drawn; None for nowhere.
    """
    if facts["curve"]:
        _show_curve(facts, data, chart)
    if facts["is_whole"]:
        print(f"\n{limit}: the teacher meets the budget already: nothing is pruned.")
    print(
        f"\n{limit}: the student takes {facts['measured']:.4g} of {facts['whole']:.4g} {facts['unit']}."
        f"\nHeads by layer: {facts['sizes']['heads']}\nNeurons by layer: {facts['sizes']['neurons']}",
        flush=True,
    )


def _named_share(limit: Limit) -> str:
    """The share where the names of methods in results files say it; else empty."""
    share = f"{limit.number:g}%" if limit.is_share and limit.unit == "gflops" else ""
    return share if share in SHARES else ""


def _with_epochs(config: PrunedKDConfig, rows: int) -> PrunedKDConfig:
    """The config with a number of epochs, where 0 left it open."""
    if config.num_train_epochs > 0 or config.max_steps > 0:
        return config
    epochs = min(MOST_EPOCHS, ROWS_SEEN / max(1, rows))
    return with_changes(config, num_train_epochs=epochs if epochs < 1 else float(round(epochs)))


def _point(share: float, selection: Selection, value: float, divergence: float) -> dict[str, Any]:
    """A point of the curve: the share asked for, a network, its metric and its divergence from the teacher."""
    facts: dict[str, Any] = {**asdict(selection), "sizes": selection.sizes._asdict()}
    return {"share": share, **facts, "value": value, "divergence": divergence}


def _table_cost_of(cost: float, curve: Sequence[dict[str, Any]]) -> float:
    """What networks of a measured cost cost by the table, between the points of a curve."""
    if not curve:
        return cost
    pairs = sorted((point["measured"], point["predicted"]) for point in curve)
    measured, predicted = zip(*pairs, strict=True)
    return float(np.interp(cost, measured, predicted))


def _fastest_within(curve: Sequence[dict[str, Any]], points: float) -> Selection:
    """The fastest network of a curve whose metric is at most some points below the teacher's.

    Raises:
        ValueError: there is none.
    """
    teacher, *students = curve
    least = teacher["value"] - points / 100
    within = [student for student in students if student["value"] >= least]
    if not within:
        best = max((student["value"] for student in students), default=0.0)
        raise ValueError(
            f"No size of the curve keeps {100 * least:.1f} of {100 * teacher['value']:.1f} before it is trained: the "
            f"best has {100 * best:.1f}. Give a budget in ms, mb or gflops, or allow more points."
        )
    fastest = min(within, key=lambda student: float(student["measured"]))
    sizes = LayerSizes(*(tuple(fastest["sizes"][name]) for name in LayerSizes._fields))
    return Selection(sizes, fastest["predicted"], fastest["measured"], fastest["harm"])


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Notes how long the block takes."""
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 1)


def _show_curve(facts: dict[str, Any], data: TaskData, path: Path | None) -> None:
    """Prints the table of sizes before training, and draws it where there is a path."""
    unit, metric = facts["unit"], data.task.metric
    rows, points = [], []
    for point in facts["curve"]:
        rows.append(
            {
                "of the teacher": f"{100 * point['measured'] / facts['whole']:.0f}%",
                unit: f"{point['measured']:.4g}",
                f"{metric} before training": f"{100 * point['value']:.1f}",
                "KL to the teacher": f"{point['divergence']:.4f}",
                "heads": " ".join(map(str, point["sizes"]["heads"])),
                "neurons": " ".join(map(str, point["sizes"]["neurons"])),
            }
        )
        points.append(ChartPoint("", point["measured"], 100 * point["value"]))

    print(f"\n{terminal_table(rows)}")
    # Where the smallest size of the curve costs too much, the model itself is all there is.
    if path is None or not points[1:]:
        return

    draw_curves(
        {"Pruned and fitted, not trained": points[1:]},
        path,
        f"{task_label(data.task.name)}: sizes to choose from",
        unit,
        f"{metric_label(metric)} (%)",
        reference=ChartPoint("Teacher", points[0].x, points[0].y),
    )
