"""Results files: what a run, an early stage or an export leaves behind, one JSON file each."""

import math
import re
from collections.abc import Iterable
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar, Self, TypeVar, get_args, get_origin, get_type_hints

from bertkd.atomic import plain_json, read_json, write_json
from bertkd.methods import method_key, method_label, sizes_follow_task
from bertkd.records.secrets import command_without_secrets, settings_without_secrets

__all__ = ["ExportResult", "Record", "RunResult", "StageResult", "SubnetworkResult", "TaskRecord"]
__all__ += ["read_result", "read_results", "result_files"]

Parsed = TypeVar("Parsed")

SCHEMA = 1
# A task names files of a report, which must not leave its folder.
TASK_NAME = re.compile(r"\w[\w .+=,()-]{0,99}")
# What commands leave besides their records, in folders that need not have one.
OTHER_FILES = {
    "bench.json",
    "compress.json",
    "meta.json",
    "pruning.json",
    "search.json",
    "settings.json",
    "shrink.json",
    "size.json",
}


@dataclass(kw_only=True)
class Record:
    """What every results file holds. Secrets are dropped when it is made, so that none reaches a file or a card.

    Attributes:
        method: such as "teacher", "kd" or "tinybert-general".
        layers: number of encoder layers.
        parameters: number of all parameters, tied ones counted once.
        settings: the resolved settings of the command.
        command: what was typed.
        versions, commit, hardware: see `environment`.
        finished: UTC time in ISO 8601.
    """

    FILE: ClassVar[str]  # name of the file in the run's folder
    KIND: ClassVar[str]  # how error messages call it

    method: str
    layers: int
    seed: int
    parameters: int
    settings: dict[str, Any]
    command: str
    versions: dict[str, str]
    commit: str
    hardware: dict[str, Any]
    finished: str

    def __post_init__(self) -> None:
        self.settings = settings_without_secrets(self.settings)
        # A single line cannot end the block of code that a card or a report shows it in.
        self.command = command_without_secrets(" ".join(self.command.splitlines()))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        plain: dict[str, Any] = plain_json(asdict(self))
        return plain

    @classmethod
    def from_json(cls, data: object) -> Self:
        """Restores what `to_json` gave.

        Raises:
            ValueError: `data` is no object, is of another schema, or has unknown, missing or mistyped keys.
        """
        if cls is RunResult and isinstance(data, dict) and data.get("schema") != SCHEMA:
            raise ValueError(f"schema is {data.get('schema')!r}, this version of bertkd reads schema {SCHEMA}")
        record = _parse(cls, data)
        if isinstance(record, TaskRecord) and not TASK_NAME.fullmatch(record.task):
            raise ValueError(
                f"task is {record.task!r}, but reports name files by it: it may have letters, digits, spaces, . - + ="
            )
        return record

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Reads the record in a file.

        Raises:
            ValueError: the file holds no such record; the message names the file and what is wrong.
        """
        try:
            return cls.from_json(read_json(path))
        except ValueError as error:
            raise ValueError(f"{path} is no {cls.KIND}: {error}") from error

    @classmethod
    def of(cls, folder: str | Path) -> Self | None:
        """The record in a folder; None where there is none.

        Raises:
            ValueError: see `read`.
        """
        path = Path(folder) / cls.FILE
        return cls.read(path) if path.is_file() else None

    def write(self, folder: str | Path) -> Path:
        """Writes the record into a run's folder, whole or not at all, and returns its path."""
        path = Path(folder) / self.FILE
        write_json(path, self.to_json())
        return path


@dataclass(kw_only=True)
class TaskRecord(Record):
    """What every results file of a model on a task holds.

    Attributes:
        task: name of the task, such as "sst2".
        metric: name of the main metric, a key of `metrics`.
        value: the main metric, as a fraction (0.92, not 92).
        metrics: every metric of the validation split or splits, as fractions.
        embedding_parameters: number of the parameters that lie in embeddings.
        size_mb: size of the weights' files, or of those that the engine needs, in MB (1e6 bytes).
        speedup: the teacher's median latency in float32 PyTorch over the model's, None where it was not measured; an
            export is compared with eager attention.
        budget: the most that the model may cost, such as "5 ms", where the name of its method does not say it.
    """

    task: str
    metric: str
    value: float
    metrics: dict[str, float]
    embedding_parameters: int
    size_mb: float
    speedup: float | None = None
    budget: str = ""

    @property
    def label(self) -> str:
        """The name of the method for people, with the budget."""
        return ", ".join(filter(None, (method_label(self.method), self.budget)))

    @property
    def has_budget(self) -> bool:
        """Whether the size of the model follows a budget, so that it differs from task to task and seed to seed."""
        return bool(self.budget) or sizes_follow_task(self.method)


@dataclass(kw_only=True)
class SubnetworkResult:
    """One size inside a supernet.

    Attributes:
        width, depth: shares of the full network's heads and neurons, and of its layers.
        flops: of one forward pass, under the conditions of the latency.
        latency_ms: median time of one forward pass, measured beside all other sizes; None where it was not.
        speedup: the full network's latency over this one's; None where it was not measured.
        layers, value, metrics, parameters, embedding_parameters: see `TaskRecord`.
    """

    width: float
    depth: float
    layers: int
    value: float
    metrics: dict[str, float]
    parameters: int
    embedding_parameters: int
    flops: int
    latency_ms: float | None = None
    speedup: float | None = None


@dataclass(kw_only=True)
class StageResult(Record):
    """A training without a task's metric: a language model, or an early stage.

    Attributes:
        loss_before, loss: of the stage itself, on the evaluation rows.
        rows: number of rows to train and to evaluate on; None where they are streamed.
        seconds: see `RunResult`.
    """

    FILE = "training.json"
    KIND = "result of a training"

    loss_before: float
    loss: float
    rows: dict[str, int | None]
    seconds: float


@dataclass(kw_only=True)
class ExportResult(TaskRecord):
    """A model as it is deployed, measured through its engine: what that runs, and what it costs.

    Attributes:
        value_before, metrics_before: of the model itself, in PyTorch and float32.
        engine: "pytorch", "onnxruntime" or "openvino".
        precision: what was asked for: "float32", "bfloat16" or "int8".
        runtime_precision: what the engine says that it computes in.
        attempt: the quantization scheme that was kept; `attempts` has the figures of each that was tried.
        logit_difference: the largest difference to PyTorch's logits on the compared rows.
        agreement: share of rows with the same answer; None for a regression task.
        latency_ms, p95_ms: median and 95th percentile of one forward pass under `conditions`.
        speedup_best: the latency of the teacher in its fastest engine, in the same precision, over this one.
        conditions: device, batch size, tokens, threads, repeats and padding of the latencies.
    """

    FILE = "export_result.json"
    KIND = "result of an export"

    value_before: float
    metrics_before: dict[str, float]
    engine: str
    precision: str
    runtime_precision: str
    attempt: str
    attempts: list[dict[str, Any]]
    logit_difference: float
    agreement: float | None
    latency_ms: float
    p95_ms: float
    speedup_best: float | None
    conditions: dict[str, Any]


@dataclass(kw_only=True)
class RunResult(TaskRecord):
    """A model trained for a task, with one seed.

    Attributes:
        metrics_before: the student's metrics before training; may be empty.
        teacher_metrics: the teacher's metrics; may be empty.
        speedup_over: the parameters of the model that `speedup` is over, where they were noted.
        seconds: wall time of the training, since its last start where it was interrupted.
        rows: number of rows per split.
        paper: a note of the user, such as what the paper reports.
        is_start: whether the training lowered the metric, so that the student is kept as it was before.
        subnetworks: the sizes inside a supernet, which is itself described by the other fields; else empty.
        schema: version of this format.
    """

    FILE = "results.json"
    KIND = "results file"

    metrics_before: dict[str, float]
    teacher_metrics: dict[str, float]
    seconds: float
    rows: dict[str, int]
    paper: str = ""
    speedup_over: int | None = None
    is_start: bool = False
    subnetworks: list[SubnetworkResult] = field(default_factory=list)
    schema: int = SCHEMA


def _parse(parsed_class: type[Parsed], data: object) -> Parsed:
    """Makes a dataclass of a JSON object, after a check of its keys and types."""
    if not isinstance(data, dict):
        raise ValueError(f"a JSON object is expected, this is a {type(data).__name__}")

    hints, required = get_type_hints(parsed_class), set()
    known = {item.name: hints[item.name] for item in fields(parsed_class)}  # type: ignore[arg-type]
    for item in fields(parsed_class):  # type: ignore[arg-type]
        if item.default is MISSING and item.default_factory is MISSING:
            required.add(item.name)

    if unknown := sorted(set(data) - set(known)):
        raise ValueError(f"unknown keys: {', '.join(unknown)}; known are: {', '.join(sorted(known))}")
    if missing := sorted(required - set(data)):
        raise ValueError(f"missing keys: {', '.join(missing)}")
    return parsed_class(**{key: _typed(key, value, known[key]) for key, value in data.items()})


def _typed(key: str, value: Any, hint: Any) -> Any:
    """Checks that `value` has the field's type. A null where a number belongs is NaN, as `write_json` wrote it."""
    if hint in (float | None, int | None):
        return None if value is None else _typed(key, value, get_args(hint)[0])
    if hint is float and value is None:
        return math.nan
    if hint == dict[str, float] and isinstance(value, dict):
        return {name: _typed(f"{key}.{name}", number, float) for name, number in value.items()}
    if hint == list[SubnetworkResult] and isinstance(value, list):
        return [_parse(SubnetworkResult, item) for item in value]

    kind = get_origin(hint) or hint
    accepted = (int, float) if kind is float else kind
    # A truth value is a whole number too.
    if not isinstance(value, accepted) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{key} should be a {kind.__name__}, it is {value!r}")
    return float(value) if kind is float else value


def read_result(path: str | Path) -> RunResult:
    """Reads the result of a run; see `Record.read`."""
    return RunResult.read(path)


def result_files(sources: str | Path | Iterable[str | Path]) -> list[Path]:
    """Finds results files: those given, and for a folder every `results.json` and `*.json` below it, sorted.

    A folder that holds a `results.json` or a model's `config.json` gives its `results.json` only: the other JSON files
    there belong to the model, the tokenizer or the trainer. Elsewhere, the files by other names that commands leave
    are passed over, such as the settings of a run that is not finished, and so are lists.

    Raises:
        FileNotFoundError: a source does not exist, or there is no results file at all.
    """
    files: set[Path] = set()
    for source in [sources] if isinstance(sources, str | Path) else sources:
        path = Path(source)
        if not path.exists():
            raise FileNotFoundError(f"{path} does not exist; give a results file or a folder with results files.")
        files.update(filter(_is_result_file, path.rglob("*.json")) if path.is_dir() else [path])

    if not files:
        raise FileNotFoundError(f"There is no results file (*.json) below {sources}.")
    return sorted(files)


def _is_result_file(path: Path) -> bool:
    # Trainings without a task, and exports, have files of their own beside those of runs.
    if path.name.startswith(".") or path.name.endswith((StageResult.FILE, ExportResult.FILE)):
        return False
    if path.name in OTHER_FILES:
        return False

    # Figures of several runs in a list, as `bertkd shrink --record` collects them, are no record.
    if path.name != RunResult.FILE and _begins_a_list(path):
        return False
    in_folder_of_run = (path.parent / RunResult.FILE).exists() or (path.parent / "config.json").exists()
    return path.name == RunResult.FILE or not in_folder_of_run


def _begins_a_list(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(64).lstrip().startswith(b"[")


def read_results(sources: str | Path | Iterable[str | Path]) -> list[RunResult]:
    """Reads the files of `result_files`; results come by task, method (`method_key`), layers and seed.

    Raises:
        FileNotFoundError: there is none. ValueError: a file is broken; the message names it.
    """
    results = list(map(read_result, result_files(sources)))
    return sorted(results, key=lambda result: (result.task, method_key(result.method), result.layers, result.seed))
