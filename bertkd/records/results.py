"""What a run leaves behind: one JSON file per run and seed, and the means over seeds that the tables show."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, ClassVar, TypeVar, get_origin, get_type_hints

from bertkd.atomic import plain_json, write_json

__all__ = [
    "METHOD_ORDER",
    "ExportResult",
    "RunResult",
    "Spread",
    "StageResult",
    "SubnetworkResult",
    "Summary",
    "method_key",
    "read_result",
    "read_results",
    "result_files",
    "summarize",
]

Made = TypeVar("Made")

SCHEMA = 1
METHOD_ORDER = (
    "teacher",
    "finetuned",
    "kd",
    "pkd-skip",
    "pkd-last",
    "dynabert-width",
    "dynabert-depth",
    "dynabert-finetune",
    "tinybert",
)


@dataclass
class SubnetworkResult:
    """One size of a network of many sizes.

    Attributes:
        width, depth: shares of the full network's heads and neurons, and of its layers.
        layers: how many there are.
        value, metrics, parameters, embedding_parameters: as in `RunResult`.
        flops: of one forward pass, under the conditions of the latency.
        latency_ms: median time of one forward pass, measured beside all other sizes.
        speedup: the full network's latency over this one's.
    """

    width: float
    depth: float
    layers: int
    value: float
    metrics: dict[str, float]
    parameters: int
    embedding_parameters: int
    flops: int
    latency_ms: float
    speedup: float


@dataclass
class StageResult:
    """A training without a task's metric, as it lies in `training.json`: a language model, or an early stage.

    Attributes:
        method: such as "tinybert-general" or "mlm".
        loss_before, loss: of the stage itself, on the evaluation rows.
        rows: number of rows to train and to evaluate on; None where they are streamed.
        parameters, layers, seed, settings, command, versions, commit, hardware, seconds, finished: as in `RunResult`.
    """

    method: str
    loss_before: float
    loss: float
    rows: dict[str, int | None]
    parameters: int
    layers: int
    seed: int
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    commit: str
    hardware: dict[str, Any]
    seconds: float
    finished: str
    FILE: ClassVar[str] = "training.json"

    def write(self, folder: str | Path) -> Path:
        write_json(Path(folder) / self.FILE, self)
        return Path(folder) / self.FILE

    @classmethod
    def read(cls, path: str | Path) -> StageResult:
        """The file's result.

        Raises:
            ValueError: it is none.
        """
        return _from_json(cls, json.loads(Path(path).read_text(encoding="utf-8")))


@dataclass
class ExportResult:
    """A model as it is deployed, as it lies in `export_result.json`: what an engine runs, and what that costs.

    Attributes:
        method, task, metric, layers, seed, parameters, embedding_parameters: of the run that made the model.
        value, metrics: of the exported model, measured through its engine, on the validation split.
        value_before, metrics_before: of the model itself, in PyTorch and float32.
        engine: "pytorch", "onnxruntime" or "openvino".
        precision: what was asked for: "float32", "bfloat16" or "int8".
        runtime_precision: what the engine says that it computes in.
        attempt: which of the ways to quantize was kept; `attempts` has the figures of each that was tried.
        logit_difference: the largest one to PyTorch's logits on the compared rows; `agreement` the share of rows with
            the same answer (None for a regression task).
        size_mb: of the files that the engine needs, in MB (1e6 bytes).
        latency_ms, p95_ms: median and 95th percentile of one forward pass under `conditions`.
        speedup: the teacher's latency in eager float32 PyTorch over this one; None where no teacher was named.
        speedup_best: the teacher's in the engine that runs it fastest, in the precision asked for, over this one.
        conditions: device, batch size, tokens, threads, repeats and padding of the latencies.
        settings, command, versions, commit, hardware, finished: as in `RunResult`.
    """

    method: str
    task: str
    metric: str
    value: float
    metrics: dict[str, float]
    value_before: float
    metrics_before: dict[str, float]
    engine: str
    precision: str
    runtime_precision: str
    attempt: str
    attempts: list[dict[str, Any]]
    logit_difference: float
    agreement: float | None
    parameters: int
    embedding_parameters: int
    size_mb: float
    latency_ms: float
    p95_ms: float
    speedup: float | None
    speedup_best: float | None
    conditions: dict[str, Any]
    layers: int
    seed: int
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    commit: str
    hardware: dict[str, Any]
    finished: str
    FILE: ClassVar[str] = "export_result.json"

    def write(self, folder: str | Path) -> Path:
        write_json(Path(folder) / self.FILE, self)
        return Path(folder) / self.FILE

    @classmethod
    def read(cls, path: str | Path) -> ExportResult:
        """The file's result.

        Raises:
            ValueError: it is none.
        """
        return _from_json(cls, json.loads(Path(path).read_text(encoding="utf-8")))


@dataclass
class RunResult:
    """One run with one seed, as it lies in `results.json`.

    Attributes:
        method: "teacher", "finetuned", "kd", "pkd-skip", "pkd-last", or any other name.
        task: the task's name, such as "sst2".
        metric: name of the main metric, a key of `metrics`.
        value: the main metric, as a fraction (0.92, not 92).
        metrics: every metric of the validation split or splits, as fractions.
        metrics_before: the student's, before training; may be empty.
        teacher_metrics: the teacher's; may be empty.
        parameters: all parameters, tied ones once; `embedding_parameters` is the part that lies in embeddings.
        size_mb: the weights' files in MB (1e6 bytes).
        layers: encoder layers.
        settings: the recipe's resolved arguments.
        command: what was typed.
        versions, commit, hardware: see `environment`.
        seconds: wall time of the training, since its last start where it was interrupted.
        finished: UTC, in ISO 8601.
        rows: number of rows per split.
        paper: reference of the method.
        speedup: teacher's median latency over the student's, None where it was not measured.
        subnetworks: the sizes of a network of many sizes, which is itself described by the other fields; else empty.
        schema: version of this format.
    """

    method: str
    task: str
    metric: str
    value: float
    metrics: dict[str, float]
    metrics_before: dict[str, float]
    teacher_metrics: dict[str, float]
    parameters: int
    embedding_parameters: int
    size_mb: float
    layers: int
    seed: int
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    commit: str
    hardware: dict[str, Any]
    seconds: float
    finished: str
    rows: dict[str, int]
    paper: str = ""
    speedup: float | None = None
    subnetworks: list[SubnetworkResult] = field(default_factory=list)
    schema: int = SCHEMA
    FILE: ClassVar[str] = "results.json"

    def write(self, folder: str | Path) -> Path:
        write_json(Path(folder) / self.FILE, self.to_json())
        return Path(folder) / self.FILE

    @classmethod
    def read(cls, path: str | Path) -> RunResult:
        return read_result(path)

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        plain: dict[str, Any] = plain_json(asdict(self))
        return plain

    @classmethod
    def from_json(cls, data: object) -> RunResult:
        """The result of `to_json`, back.

        Raises:
            ValueError: `data` is no object, is of another schema, or has unknown, missing or mistyped keys.
        """
        if not isinstance(data, dict):
            raise ValueError(f"a result is a JSON object, this is a {type(data).__name__}")
        if data.get("schema") != SCHEMA:
            raise ValueError(f"schema is {data.get('schema')!r}, this version of bertkd reads schema {SCHEMA}")
        sizes: list[Any] = data.get("subnetworks", [])
        return _from_json(cls, data | {"subnetworks": [_from_json(SubnetworkResult, size) for size in sizes]})


def _from_json(made_class: type[Made], data: dict[str, Any]) -> Made:
    _check_keys(made_class, set(data))
    hints = get_type_hints(made_class)
    return made_class(**{key: _typed(key, value, hints[key]) for key, value in data.items()})


def _check_keys(made_class: Any, keys: set[str]) -> None:
    known = {one.name for one in fields(made_class)}
    required = {one.name for one in fields(made_class) if one.default is MISSING and one.default_factory is MISSING}
    if unknown := sorted(keys - known):
        raise ValueError(f"unknown keys: {', '.join(unknown)}; known are: {', '.join(sorted(known))}")
    if missing := sorted(required - keys):
        raise ValueError(f"missing keys: {', '.join(missing)}")


def _typed(key: str, value: Any, hint: Any) -> Any:
    """`value` where it has the field's type; a null where a number belongs is NaN, as `write_json` wrote it."""
    if hint == float | None:
        return None if value is None else _typed(key, value, float)
    if hint is float and value is None:
        return math.nan
    if hint == dict[str, float] and isinstance(value, dict):
        return {name: _typed(f"{key}.{name}", number, float) for name, number in value.items()}
    kind = get_origin(hint) or hint
    accepted = (int, float) if kind is float else kind
    if not isinstance(value, accepted) or isinstance(value, bool):
        raise ValueError(f"{key} should be a {kind.__name__}, it is {value!r}")
    return float(value) if kind is float else value


def method_key(method: str) -> tuple[int, str]:
    """Sorting key of methods: those of `METHOD_ORDER` first, the others alphabetically."""
    return (METHOD_ORDER.index(method) if method in METHOD_ORDER else len(METHOD_ORDER), method)


def read_result(path: str | Path) -> RunResult:
    """The result in one file.

    Raises:
        ValueError: the file holds no result of this schema; the message names the file and what is wrong.
    """
    try:
        return RunResult.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
    except ValueError as error:  # includes broken JSON and broken UTF-8
        raise ValueError(f"{path} is no results file: {error}") from error


def result_files(sources: str | Path | Iterable[str | Path]) -> list[Path]:
    """Paths of the results files: those given, and for a folder every `results.json` and `*.json` below it, sorted.

    A folder that holds a `results.json` or a model's `config.json` gives its `results.json` only: the other JSON files
    there belong to the model, the tokenizer or the trainer.

    Raises:
        FileNotFoundError: a source does not exist, or there is no results file at all.
    """
    paths = [Path(sources)] if isinstance(sources, str | Path) else [Path(source) for source in sources]
    found: set[Path] = set()
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a results file or a folder with results files")
        found.update(filter(_is_result_file, path.rglob("*.json")) if path.is_dir() else [path])
    if not found:
        raise FileNotFoundError(f"no results file (*.json) below {', '.join(map(str, paths)) or 'nothing'}")
    return sorted(found)


def _is_result_file(path: Path) -> bool:
    # Of a training without a task, or of an exported model.
    if path.name.startswith(".") or path.name.endswith(("training.json", "export_result.json")):
        return False
    of_a_run = (path.parent / "results.json").exists() or (path.parent / "config.json").exists()
    return path.name == "results.json" or not of_a_run


def read_results(sources: str | Path | Iterable[str | Path]) -> list[RunResult]:
    """The results in the files of `result_files`, by task, method (`METHOD_ORDER`), layers and seed.

    Raises:
        FileNotFoundError: there is none. ValueError: a file is broken; the message names it.
    """
    results = [read_result(path) for path in result_files(sources)]
    return sorted(results, key=lambda one: (one.task, method_key(one.method), one.layers, one.seed))


@dataclass(frozen=True)
class Spread:
    """Mean over `count` seeds and sample standard deviation (divisor n - 1), which is None for a single seed."""

    mean: float
    std: float | None
    count: int

    @classmethod
    def of(cls, values: Iterable[float]) -> Spread:
        """The spread of at least one value."""
        numbers = list(values)
        return cls(statistics.fmean(numbers), statistics.stdev(numbers) if len(numbers) > 1 else None, len(numbers))


@dataclass(frozen=True)
class Summary:
    """One method with one depth on one task, over its seeds. Metrics are fractions, `size_mb` is in MB."""

    task: str
    method: str
    layers: int
    metric: str
    seeds: tuple[int, ...]
    value: Spread
    metrics: dict[str, Spread] = field(default_factory=dict)
    parameters: int = 0
    embedding_parameters: int = 0
    size_mb: float = math.nan
    speedup: float | None = None


def summarize(results: Iterable[RunResult]) -> list[Summary]:
    """Means and sample standard deviations over seeds, one summary per task, method and number of layers.

    Where a student's speed-up was not measured, it is the mean of those measured for its shape on its task.

    Raises:
        ValueError: a seed occurs twice in a group, or a group mixes metrics or sizes: such runs are not repetitions
            of one experiment and have no common mean.
    """
    groups: dict[tuple[str, str, int], list[RunResult]] = {}
    for result in results:
        groups.setdefault((result.task, result.method, result.layers), []).append(result)
    ordered = sorted(groups.items(), key=lambda item: (item[0][0], method_key(item[0][1]), item[0][2]))
    runs = [one for group in groups.values() for one in group]
    return [_with_speed(_summary(sorted(group, key=lambda one: one.seed)), runs) for _, group in ordered]


def speedups_of_shape(summary: Summary, runs: Iterable[RunResult]) -> list[float]:
    """The speed-ups measured for students with this task, number of layers and number of parameters."""
    shape = (summary.task, summary.layers, summary.parameters)
    alike = [one for one in runs if one.method != "teacher" and (one.task, one.layers, one.parameters) == shape]
    return [one.speedup for one in alike if one.speedup is not None]


def _with_speed(summary: Summary, runs: Sequence[RunResult]) -> Summary:
    if summary.speedup is not None or summary.method == "teacher":
        return summary
    measured = speedups_of_shape(summary, runs)
    return replace(summary, speedup=statistics.fmean(measured)) if measured else summary


def _summary(group: list[RunResult]) -> Summary:
    first, seeds = group[0], tuple(one.seed for one in group)
    name = f"{first.method} on {first.task} with {first.layers} layers"
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"{name}: a seed occurs twice among {seeds}; keep runs with other settings in another folder")
    for key in ("metric", "parameters"):
        if len(values := {getattr(one, key) for one in group}) > 1:
            raise ValueError(f"{name}: the runs differ in {key}: {sorted(values)}")
    shared = set.intersection(*(set(one.metrics) for one in group))
    speedups = [one.speedup for one in group if one.speedup is not None]
    return Summary(
        task=first.task,
        method=first.method,
        layers=first.layers,
        metric=first.metric,
        seeds=seeds,
        value=Spread.of(one.value for one in group),
        metrics={key: Spread.of(one.metrics[key] for one in group) for key in first.metrics if key in shared},
        parameters=first.parameters,
        embedding_parameters=first.embedding_parameters,
        size_mb=statistics.fmean(one.size_mb for one in group),
        speedup=statistics.fmean(speedups) if speedups else None,
    )
