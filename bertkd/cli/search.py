"""Find the best sub-network within a budget, in a network of many sizes that recipes/dynabert.py has trained.

    python recipes/search.py --model_name_or_path outputs/dynabert/finetune --task_name mrpc --glue_dir GLUE \
        --budget 10 --unit ms --output_dir outputs/mrpc-10ms

Costs are measured here: milliseconds in this engine, precision, threads, rows and tokens, or parameters, or GFLOPs.
The candidates that retain the most importance are measured and, where they are within the budget, evaluated on the
validation split; the best of them is written and measured once more. Nothing is trained.
"""

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedModel

from bertkd import DistillationConfig
from bertkd.atomic import write_json
from bertkd.cli.arguments import ImportanceArguments, Run, parse
from bertkd.cli.dynabert import importance_batches
from bertkd.cli.experiment import describe_subnetwork, evaluate, main_value, quiet
from bertkd.cli.loading import Data, load_data, load_model
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
from bertkd.efficiency import Runner, TorchRunner, count_flops, count_parameters, measure_latency, model_size_mb
from bertkd.export import (
    ENGINES,
    PRECISIONS,
    exported_size_mb,
    open_exported,
    quantization_schemes,
    random_batches,
    require_engine,
    write_export,
)
from bertkd.records import environment, terminal_table

UNITS = ("ms", "mb", "parameters", "gflops")
# Models measured side by side: a large network's sizes do not all fit into memory.
TOGETHER = 6
# Where the cost that is searched for gives the speed-up of a results file.
SPEEDS = ("ms", "pytorch", "float32")
# Searches with a smaller budget, when the clock finds none of the candidates within the one that was asked for.
ATTEMPTS = 4

Measure = Callable[[Sequence[Subnetwork]], list[float]]


@dataclass
class SearchArguments(ImportanceArguments):
    """What to look for, and under which conditions a size is measured."""

    budget: float = field(default=0.0, metadata={"help": "The most that the sub-network may cost, in --unit."})
    unit: str = field(
        default="ms", metadata={"choices": UNITS, "help": "ms (measured here), mb (of the file), parameters, gflops."}
    )
    candidates: int = field(default=6, metadata={"help": "How many are evaluated on the validation split."})
    batch_size: int = field(default=1, metadata={"help": "Rows of a measured forward pass."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of a measured forward pass."})
    threads: int | None = field(default=None, metadata={"help": "CPU threads of a measured forward pass."})
    repeats: int = field(default=20, metadata={"help": "Measured passes of each size."})
    engine: str = field(default="pytorch", metadata={"choices": ENGINES, "help": "What is to run the model."})
    precision: str = field(default="float32", metadata={"choices": PRECISIONS, "help": "What it computes in."})


def find(run: Run[DistillationConfig]) -> dict[str, Any]:
    """Search, and leave the best sub-network's folder with search.json."""
    options, folder = run.recipe, Path(run.training.output_dir)
    if not options.budget > 0:
        raise ValueError(f"Give a positive --budget, in --unit {options.unit}.")
    require_engine(options.engine, options.precision)
    if run.model.model_name_or_path is None:
        raise ValueError("Name the folder of the trained supernet with --model_name_or_path.")
    data = load_data(run)
    model = make_adaptive(load_model(run.model.model_name_or_path))
    importance = compute_importance(model, importance_batches(run, data), options.importance_reduction, progress=True)
    measure = measure_of(model, options)
    table = cost_table(model, measure)
    found, costs = within_budget(model, importance, table, measure, options)
    values = [evaluate(extract_subnetwork(model, subnetwork=one.size), run, data) for one in found]
    best = max(range(len(found)), key=lambda index: main_value(values[index], data.task))
    made = save_subnetwork(model, folder, subnetwork=found[best].size, tokenizer=data.tokenizer)
    real, full = measure([found[best].size, Subnetwork.of(model)])
    print(f"\n{terminal_table(rows(found, costs, values, best, data, options.unit))}")
    candidates = [
        asdict(one) | {"measured": cost, "metrics": metrics}
        for one, cost, metrics in zip(found, costs, values, strict=True)
    ]
    answer = {
        "budget": options.budget,
        "unit": options.unit,
        "predicted": found[best].cost,
        "measured": real,
        "metrics": values[best],
        "size": asdict(found[best].size),
        "parameters": count_parameters(made).total,
        "size_mb": model_size_mb(folder),
        "candidates": candidates,
        "cost_table": asdict(table),
        "settings": run.settings(),
        "command": run.command,
        **environment(),
    }
    write_json(folder / "search.json", answer)
    describe_subnetwork(
        run.model.model_name_or_path,
        folder,
        made,
        run.command,
        value=main_value(values[best], data.task),
        metrics=values[best],
        # That of the model itself; what another engine gains is measured when it is exported.
        speedup=round(full / real, 2) if (options.unit, options.engine, options.precision) == SPEEDS else None,
    )
    print(
        f"Budget {options.budget:g} {options.unit}: predicted {found[best].cost:.4g}, measured once more {real:.4g}.\n"
        f"Model ({type(made).__name__}), tokenizer, card and search.json: {folder}"
    )
    return answer


def within_budget(
    model: PreTrainedModel, importance: Importance, table: CostTable, measure: Measure, options: SearchArguments
) -> tuple[list[Candidate], list[float]]:
    """The candidates whose cost, measured, is within the budget, and that cost.

    The table's errors favor sizes that it takes for cheaper than they are; where these are all that was found, the
    search is repeated for a smaller budget.

    Raises:
        ValueError: no sub-network is within the budget.
    """
    target, closest = options.budget, float("inf")
    found = search_subnetworks(model, importance, table, target)
    for _ in range(ATTEMPTS):
        found = found[: options.candidates]
        costs = measure([one.size for one in found])
        within = [index for index, cost in enumerate(costs) if cost <= options.budget]
        if within:
            return [found[index] for index in within], [costs[index] for index in within]
        closest = min(closest, *costs)
        target *= options.budget / min(costs)
        try:
            found = search_subnetworks(model, importance, table, target)
        except ValueError:  # nothing is as small as that
            break
    raise ValueError(
        f"No sub-network was measured within {options.budget:g} {options.unit}; the closest took {closest:.4g}. The "
        "machine may be busy: try again, or give a larger --budget."
    )


def rows(
    found: Sequence[Candidate],
    costs: Sequence[float],
    values: Sequence[dict[str, float]],
    best: int,
    data: Data,
    unit: str,
) -> list[dict[str, str]]:
    """The candidates for a terminal."""
    return [
        {
            "": "→" if index == best else "",
            "kind": one.kind,
            "layers": str(len(one.size.layers)),
            "heads": _spread(one.size.heads),
            "neurons": _spread(one.size.neurons),
            "retained": f"{100 * one.score:.1f}%",
            f"predicted {unit}": f"{one.cost:.4g}",
            f"measured {unit}": f"{cost:.4g}",
            data.task.metric: f"{100 * main_value(metrics, data.task):.1f}",
        }
        for index, (one, cost, metrics) in enumerate(zip(found, costs, values, strict=True))
    ]


def _spread(counts: Sequence[int]) -> str:
    return str(counts[0]) if len(set(counts)) == 1 else " ".join(map(str, counts))


def measure_of(model: PreTrainedModel, options: SearchArguments) -> Measure:
    """The function that tells what sizes cost, in the unit that is asked for."""

    def extract(size: Subnetwork) -> PreTrainedModel:
        return extract_subnetwork(model, subnetwork=size).eval()

    def milliseconds(sizes: Sequence[Subnetwork]) -> list[float]:
        costs, baselines = [], []
        for start in range(0, len(sizes), TOGETHER):
            some = [Subnetwork.of(model), *sizes[start : start + TOGETHER]]
            with opened([extract(size) for size in some], options) as runners:
                models = dict(zip(["full", *map(str, range(len(some) - 1))], runners, strict=True))
                settings = (options.batch_size, options.sequence_length, options.repeats)
                latency = measure_latency(models, *settings, threads=options.threads)
            baselines.append(latency["full"].p50_ms)
            costs += [1 / latency[str(index)].speedup for index in range(len(some) - 1)]
        # Each group stands beside the full network, so that a machine that slows down meanwhile changes no ratio.
        usual = sorted(baselines)[len(baselines) // 2]
        return [cost * usual for cost in costs]

    def gflops(sizes: Sequence[Subnetwork]) -> list[float]:
        return [count_flops(extract(size), options.batch_size, options.sequence_length) / 1e9 for size in sizes]

    def parameters(sizes: Sequence[Subnetwork]) -> list[float]:
        return [float(count_parameters(extract(size)).total) for size in sizes]

    def facts(sizes: Sequence[Subnetwork]) -> np.ndarray:
        return np.array([[1, len(one.layers), count] for one, count in zip(sizes, parameters(sizes), strict=True)])

    @functools.cache
    def factors() -> np.ndarray:
        # A file grows with layers (their operators) and parameters alone: three of them tell the size of all.
        whole, narrow = Subnetwork.of(model), Subnetwork.of(model, width=0.5)
        known = [whole, narrow, Subnetwork(whole.layers[:1], whole.heads[:1], whole.neurons[:1])]
        with tempfile.TemporaryDirectory() as work:
            files = [write(extract(size), Path(work) / str(index), options) for index, size in enumerate(known)]
            found = np.linalg.lstsq(facts(known), np.array(list(map(exported_size_mb, files))), rcond=None)[0]
        return found

    def megabytes(sizes: Sequence[Subnetwork]) -> list[float]:
        found: list[float] = (facts(sizes) @ factors()).tolist()
        return found

    return {"ms": milliseconds, "mb": megabytes, "gflops": gflops, "parameters": parameters}[options.unit]


def write(model: PreTrainedModel, folder: Path, options: SearchArguments) -> Path:
    """The model as the engine that is asked for reads it."""
    way = quantization_schemes(options.engine, options.precision)[0]
    return write_export(model, folder, options.engine, way, calibration=random_batches(model))


@contextlib.contextmanager
def opened(models: Sequence[PreTrainedModel], options: SearchArguments) -> Iterator[list[Runner]]:
    """The models in the engine that is asked for."""
    if (options.engine, options.precision) == ("pytorch", "float32"):
        yield [TorchRunner(model) for model in models]
        return
    with tempfile.TemporaryDirectory() as work:
        folders = [write(model, Path(work) / str(index), options) for index, model in enumerate(models)]
        yield [open_exported(folder, options.threads) for folder in folders]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    quiet()
    runs = parse(DistillationConfig, argv, {"alpha": 0.0}, SearchArguments, script=__file__)
    if len(runs) > 1:
        raise ValueError("A search has one --seed: it only draws the rows for the importance.")
    return find(runs[0])
