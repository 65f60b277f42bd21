"""Prunes a teacher to one budget or several in turn, and distills it into each of the students."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from torch import nn
from transformers import PreTrainedModel

from bertkd.atomic import atomic_folder, read_json, write_json
from bertkd.data.tokenizer_files import save_tokenizer
from bertkd.models import layer_sizes
from bertkd.models.positions import max_tokens
from bertkd.pipeline.deployment import Deployment
from bertkd.pipeline.evaluation import check_teacher, evaluate
from bertkd.pipeline.experiment import Experiment, finished, output_folder, with_changes
from bertkd.pipeline.models import load_model
from bertkd.pipeline.task_data import TaskData
from bertkd.pipeline.training import train_on_task
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer, Pruner, pruning_costs
from bertkd.pruning.method import variant_name
from bertkd.records import RunResult

__all__ = ["UNITS", "Limit", "Pruning", "train_pruned"]

UNITS = ("ms", "mb", "parameters", "gflops")
# What a budget made of the teacher, before it is trained.
START, FILE = "start", "pruning.json"


@dataclass(frozen=True)
class Limit:
    """The most that a student may cost: a number, or a share of what the teacher costs.

    Attributes:
        text: such as "5" or "50%".
        unit: one of `UNITS`.

    Raises:
        ValueError: the text is neither a positive number nor a share between 0 and 100 %.
    """

    text: str
    unit: str

    def __post_init__(self) -> None:
        try:
            number = float(self.text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 < number < (100 if self.is_share else float("inf")):
            raise ValueError(
                f"--budget {self.text}: give a positive number of {self.unit}, or a share of what the teacher costs "
                "such as 50%."
            )

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what the teacher costs."""
        return self.text.endswith("%")

    def amount(self, whole: float) -> float:
        """The number, in the unit, for a teacher that costs `whole`."""
        number = float(self.text.removesuffix("%"))
        return number * whole / 100 if self.is_share else number

    def __str__(self) -> str:
        return f"{self.text} of the teacher's {self.unit}" if self.is_share else f"{self.text} {self.unit}"


@dataclass(frozen=True)
class Pruning:
    """How students are made of the teacher.

    Attributes:
        limits: the budgets; several are rungs, each of which starts from the student before.
        deployment: where a student is to serve, and so where milliseconds are measured.
        rows: how many training rows scores, harms and fits are made from.
        is_fitted: whether what is left is fitted to the teacher.

    Raises:
        ValueError: no budget, or budgets that do not fall.
    """

    limits: Sequence[Limit]
    deployment: Deployment
    rows: int = 2048
    is_fitted: bool = True

    def __post_init__(self) -> None:
        if not self.limits:
            raise ValueError("Give a --budget: a number in --unit, or a share of what the teacher costs such as 50%.")
        amounts = [limit.amount(1.0) for limit in self.limits]
        is_mixed = len({limit.is_share for limit in self.limits}) > 1
        if is_mixed or any(later >= earlier for earlier, later in pairwise(amounts)):
            raise ValueError(
                f"--budget {' '.join(limit.text for limit in self.limits)}: several budgets are rungs from the "
                "largest to the smallest student, all numbers or all shares."
            )


def train_pruned(
    experiment: Experiment,
    data: TaskData,
    teacher: PreTrainedModel,
    pruning: Pruning,
    config: PrunedKDConfig,
    ignore_weak_teacher: bool = False,
) -> list[RunResult]:
    """Prunes and distills; what an earlier start has done is not done again.

    With one budget, the output folder is the student's. With several, each student has a folder in it, and starts from
    the one before.

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
        ValueError: no network is within a budget, or the teacher is too weak.
    """
    metrics = evaluate(teacher, data, config)
    if not ignore_weak_teacher:
        check_teacher(metrics, data)

    results: list[RunResult] = []
    before: PreTrainedModel | None = None
    for number, limit in enumerate(pruning.limits):
        own = config
        if len(pruning.limits) > 1:
            own = with_changes(config, output_dir=str(output_folder(config) / _folder_name(limit)))
        folder = output_folder(own)

        result = finished(RunResult, experiment, own)
        if result is None:
            start = _start(experiment, data, teacher, before, limit, pruning, own)
            share = limit.text if limit.is_share and limit.unit == "gflops" else ""
            name = variant_name(share, number > 0, pruning.is_fitted, config.beta)
            result = train_on_task(experiment, data, start, own, PrunedKDTrainer, name, teacher, metrics)
            before = start
        if result is not None:
            results.append(result)
            before = load_model(str(folder))
    return results


def _folder_name(limit: Limit) -> str:
    return f"{limit.unit}-{limit.text.replace('%', 'pct')}"


def _start(
    experiment: Experiment,
    data: TaskData,
    teacher: PreTrainedModel,
    before: PreTrainedModel | None,
    limit: Limit,
    pruning: Pruning,
    config: PrunedKDConfig,
) -> PreTrainedModel:
    """The student of a budget before it is trained: the one that an earlier start has left, or a new one."""
    folder = output_folder(config) / START
    if experiment.is_dry_run:
        student, _ = _pruned(data, teacher, before, limit, pruning, config)
        return student

    with config.main_process_first(local=False, desc="pruning"):
        if config.process_index == 0 and not (folder / FILE).is_file():
            student, facts = _pruned(data, teacher, before, limit, pruning, config)
            with atomic_folder(folder) as partial:
                student.save_pretrained(partial)
                save_tokenizer(data.tokenizer, partial, max_tokens(student.config))
                write_json(partial / FILE, facts)
        facts = read_json(folder / FILE)
    if config.process_index == 0:
        print(
            f"\n{limit}: {facts['measured']:.4g} of {facts['whole']:.4g} {limit.unit}, "
            f"heads {facts['sizes']['heads']}, neurons {facts['sizes']['neurons']}.",
            flush=True,
        )
    return load_model(str(folder))


def _pruned(
    data: TaskData,
    teacher: PreTrainedModel,
    before: PreTrainedModel | None,
    limit: Limit,
    pruning: Pruning,
    config: PrunedKDConfig,
) -> tuple[PreTrainedModel, dict[str, Any]]:
    """Prunes the teacher, or a student of it, to a budget; with what is known of the result."""
    deployment, started = pruning.deployment, time.perf_counter()

    def measure(models: Sequence[PreTrainedModel]) -> list[float]:
        return deployment.costs(models, limit.unit)

    costs = pruning_costs(teacher, measure)
    whole = costs.cost(layer_sizes(teacher))
    seconds = {"costs": time.perf_counter() - started}

    for moved in (teacher, before):
        if moved is not None:
            nn.Module.to(moved, config.device)
    batches = data.sampled_batches(pruning.rows, config.seed)
    has_progress = not config.disable_tqdm
    if before is None:
        pruner = Pruner.prepared(teacher, batches, progress=has_progress)
    else:
        pruner = Pruner.prepared(before, batches, teacher, progress=has_progress)
    seconds["harms"] = time.perf_counter() - started - seconds["costs"]

    selection = pruner.select(limit.amount(whole), costs, measure, limit.unit)
    reconstruction_started = time.perf_counter()
    student = pruner.pruned(selection.sizes, progress=has_progress, fits=pruning.is_fitted)
    seconds["reconstruction"] = time.perf_counter() - reconstruction_started

    facts = {
        "budget": limit.amount(whole),
        "unit": limit.unit,
        "whole": whole,
        "predicted": selection.predicted,
        "measured": selection.measured,
        "sizes": selection.sizes._asdict(),
        "harm": selection.harm,
        "divergence": pruner.divergence(student),
        "rows": pruning.rows,
        "seconds": {name: round(value, 1) for name, value in seconds.items()},
        "cost_table": asdict(costs),
    }
    return student, facts
