"""Finds the best sub-network of a trained supernet within a budget. Nothing is trained."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bertkd.atomic import write_json
from bertkd.distillation import DistillationConfig
from bertkd.dynabert import (
    Candidate,
    CostTable,
    Importance,
    Subnetwork,
    compute_importance,
    cost_table,
    extract_subnetwork,
    make_adaptive,
    save_subnetwork,
    search_subnetworks,
)
from bertkd.efficiency import Runner, count_parameters, model_size_mb
from bertkd.export import exported_size_mb, require_engine
from bertkd.metrics import main_value
from bertkd.pipeline.deployment import Deployment
from bertkd.pipeline.dynabert import ImportanceSettings, describe_subnetwork
from bertkd.pipeline.evaluation import ADVICE, evaluate, logit_order
from bertkd.pipeline.experiment import Experiment, check_no_training, output_folder, writes_output_folder
from bertkd.pipeline.hub import upload
from bertkd.pipeline.limits import COST_UNITS, Limit
from bertkd.pipeline.models import copy_for_task, load_model
from bertkd.pipeline.task_data import TaskData
from bertkd.records import environment, terminal_table

__all__ = ["find_subnetwork"]

FILE = "search.json"
# Searches with a smaller budget, when the clock finds none of the candidates within the one that was asked for.
ATTEMPTS = 4

# Tells what sizes cost, in the unit of a budget.
Measure = Callable[[Sequence[Subnetwork]], list[float]]


@writes_output_folder
def find_subnetwork(
    experiment: Experiment,
    data: TaskData,
    supernet: str,
    limit: Limit,
    max_candidates: int,
    deployment: Deployment,
    importance: ImportanceSettings,
    config: DistillationConfig,
) -> dict[str, Any]:
    """Searches, and leaves the folder of the best sub-network with search.json, its record and its card.

    Args:
        experiment: where the search came from.
        data: the task.
        supernet: the folder of the trained supernet.
        limit: what the sub-network may cost; a share is one of what the whole supernet costs.
        max_candidates: how many sub-networks are evaluated on the validation rows at most.
        deployment: where it is to serve, and so where milliseconds are measured.
        importance: how the importance of heads and neurons is computed.
        config: its `output_dir` is the folder, and its seed draws the rows for the importance.

    Returns:
        The content of search.json.

    Raises:
        ValueError: no sub-network is within the budget, it is one of points, or the folder holds a training.
    """
    unit = limit.unit
    if unit not in COST_UNITS:
        raise ValueError(f"--unit {unit}: a search needs a budget in {', '.join(COST_UNITS)}.")

    require_engine(deployment.engine, deployment.precision)
    folder = output_folder(config)
    check_no_training(folder)
    whole_model = load_model(supernet)
    # Before minutes of measurements.
    logit_order(whole_model, data.task, ADVICE)
    # The importance compares its answers with the task's labels.
    model = make_adaptive(copy_for_task(whole_model, data.task))
    batches = data.sampled_batches(importance.rows, config.seed, importance.split)
    scores = compute_importance(model, batches, importance.reduction, progress=not config.disable_tqdm)

    measure = _measure_of(model, unit, deployment)
    table = cost_table(model, measure)
    whole = table.cost(Subnetwork.of(model))
    amount = limit.amount(whole)
    if unit == "ms":
        full_network = deployment.runner(_extracted(model, Subnetwork.of(model)))
        measure = functools.partial(_milliseconds_beside, model, deployment, full_network, whole)
    candidates, costs = _within_budget(model, scores, table, measure, amount, unit, max_candidates)

    metrics = []
    for candidate in candidates:
        metrics.append(evaluate(extract_subnetwork(model, subnetwork=candidate.size), data, config))
    values = [main_value(scored, data.task.metric) for scored in metrics]
    best = int(np.argmax(values))

    size = candidates[best].size
    subnetwork = save_subnetwork(model, folder, subnetwork=size, tokenizer=data.tokenizer)
    # Once more: the candidate was chosen among several measurements, and the luckiest of them may have won.
    measured, full = measure([size, Subnetwork.of(model)])
    print(f"\n{terminal_table(_rows(candidates, costs, values, best, data.task.metric, unit))}")

    described = []
    for candidate, cost, scored in zip(candidates, costs, metrics, strict=True):
        described.append(asdict(candidate) | {"measured": cost, "metrics": scored})
    answer = {
        "budget": amount,
        "unit": unit,
        "whole": whole,
        "predicted": candidates[best].cost,
        "measured": measured,
        "metrics": metrics[best],
        "size": asdict(size),
        "parameters": count_parameters(subnetwork).total,
        "size_mb": model_size_mb(folder),
        "candidates": described,
        "cost_table": asdict(table),
        "settings": experiment.settings(config),
        "command": experiment.command,
        **environment(),
    }
    write_json(folder / FILE, answer)

    # The speed-up in a record is that of the model itself; another engine's gain is measured when it is exported.
    timing = deployment.timing
    is_plain = (unit, deployment.engine, deployment.precision) == ("ms", "pytorch", "float32")
    is_plain = is_plain and (timing.batch_size, timing.sequence_length, deployment.device) == (1, 128, "cpu")
    speedup = round(full / measured, 2) if is_plain else None
    describe_subnetwork(supernet, folder, subnetwork, experiment.command, values[best], metrics[best], speedup)
    upload(folder, config)
    print(
        f"Budget {amount:g} {unit}: predicted {candidates[best].cost:.4g}, measured once more "
        f"{measured:.4g}.\nModel ({type(subnetwork).__name__}), tokenizer, card and {FILE}: {folder}"
    )
    return answer


def _milliseconds_beside(
    model: PreTrainedModel, deployment: Deployment, full: Runner, whole: float, sizes: Sequence[Subnetwork]
) -> list[float]:
    """What sizes of a supernet take when the whole of it, which is `full` in the engine, takes `whole` ms."""
    return deployment.milliseconds_of([_extracted(model, size) for size in sizes], full, whole)


def _within_budget(
    model: PreTrainedModel,
    importance: Importance,
    table: CostTable,
    measure: Measure,
    amount: float,
    unit: str,
    max_candidates: int,
) -> tuple[list[Candidate], list[float]]:
    """The candidates whose cost, measured, is within the budget, and that cost.

    The table's errors favor sizes that it takes for cheaper than they are; where these are all that was found, the
    search is repeated for a smaller budget.

    Args:
        model: the supernet.
        importance, table: of its heads and neurons, and what they cost.
        measure: tells what sizes cost.
        amount, unit: the budget.
        max_candidates: how many are measured at once.

    Raises:
        ValueError: no sub-network is within the budget.
    """
    target, closest = amount, float("inf")
    candidates = search_subnetworks(model, importance, table, target)

    for _ in range(ATTEMPTS):
        candidates = candidates[:max_candidates]
        costs = measure([candidate.size for candidate in candidates])
        within = [index for index, cost in enumerate(costs) if cost <= amount]
        if within:
            return [candidates[index] for index in within], [costs[index] for index in within]

        closest = min(closest, *costs)
        target *= amount / min(costs)
        try:
            candidates = search_subnetworks(model, importance, table, target)
        except ValueError:  # nothing is as small as that
            break

    raise ValueError(
        f"No sub-network was measured within {amount:g} {unit}; the closest took {closest:.4g}. The "
        "machine may be busy: try again, or give a larger --budget."
    )


def _rows(
    candidates: Sequence[Candidate], costs: Sequence[float], values: Sequence[float], best: int, metric: str, unit: str
) -> list[dict[str, str]]:
    """The candidates for a terminal."""
    rows = []
    for index, (candidate, cost, value) in enumerate(zip(candidates, costs, values, strict=True)):
        rows.append(
            {
                "": "→" if index == best else "",
                "kind": candidate.kind,
                "layers": str(len(candidate.size.layers)),
                "heads": _per_layer(candidate.size.heads),
                "neurons": _per_layer(candidate.size.neurons),
                "retained": f"{100 * candidate.score:.1f}%",
                f"predicted {unit}": f"{candidate.cost:.4g}",
                f"measured {unit}": f"{cost:.4g}",
                metric: f"{100 * value:.1f}",
            }
        )
    return rows


def _per_layer(counts: Sequence[int]) -> str:
    """The number of each layer; one number where all are equal."""
    return str(counts[0]) if len(set(counts)) == 1 else " ".join(map(str, counts))


def _measure_of(model: PreTrainedModel, unit: str, deployment: Deployment) -> Measure:
    """The function that tells what sizes cost, in the unit that is asked for."""

    def costs(sizes: Sequence[Subnetwork]) -> list[float]:
        if unit == "ms":
            return deployment.costs([_extracted(model, size) for size in sizes], unit)
        # One after the other: there may be dozens.
        return [deployment.cost(_extracted(model, size), unit) for size in sizes]

    def facts(sizes: Sequence[Subnetwork]) -> np.ndarray:
        return np.array([[1, len(size.layers), count_parameters(_extracted(model, size)).total] for size in sizes])

    @functools.cache
    def megabytes_per_fact() -> np.ndarray:
        # A file grows with layers (their operators) and parameters alone: three of them tell the size of all.
        whole, narrow = Subnetwork.of(model), Subnetwork.of(model, width=0.5)
        known = [whole, narrow, Subnetwork(whole.layers[:1], whole.heads[:1], whole.neurons[:1])]

        sizes_mb = []
        with tempfile.TemporaryDirectory() as work:
            for index, size in enumerate(known):
                sizes_mb.append(exported_size_mb(deployment.write(_extracted(model, size), Path(work) / str(index))))
        factors: np.ndarray = np.linalg.lstsq(facts(known), np.array(sizes_mb), rcond=None)[0]
        return factors

    def megabytes(sizes: Sequence[Subnetwork]) -> list[float]:
        found: list[float] = (facts(sizes) @ megabytes_per_fact()).tolist()
        return found

    return megabytes if unit == "mb" else costs


def _extracted(model: PreTrainedModel, size: Subnetwork) -> PreTrainedModel:
    return extract_subnetwork(model, subnetwork=size).eval()
