"""Model cards: the README.md of a model's folder, written from its results and nothing else."""

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import EvalResult, ModelCardData

from bertkd.atomic import read_json, write_text
from bertkd.models.families import PRUNED_PREFIX
from bertkd.records.rendering import render
from bertkd.records.results import ExportResult, Record, RunResult, StageResult
from bertkd.records.secrets import text_without_secrets
from bertkd.records.tables import mean_and_std, metric_label, subnetwork_rows, task_label

__all__ = ["write_export_card", "write_model_card", "write_stage_card"]

# Rows of the official validation splits. A card names GLUE only for these: own data may be in a task's format.
GLUE_VALIDATION_ROWS = {"cola": 1043, "mnli": 9815, "mrpc": 408, "qnli": 5463, "qqp": 40430}
GLUE_VALIDATION_ROWS |= {"rte": 277, "sst2": 872, "stsb": 1500, "wnli": 71}
NOT_DISTILLED = ("teacher", "finetuned", "shrunk")
# What bertkd calls the models that need no hub.
OWN_NAMES = ("minilm", "mpnet-base")
# The validation splits of MNLI.
MATCHED, MISMATCHED = "validation_matched", "validation_mismatched"

# Characters with which a name from a file could begin a span of code, HTML or a link.
MARKUP = re.compile(r"[`\\<]|\](?=[(\[:])")

AnyRecord = TypeVar("AnyRecord", bound=Record)


def write_model_card(folder: str | Path, result: RunResult, teacher: str) -> Path:
    """Writes `README.md` into the model's folder, whole or not at all, and returns its path.

    Args:
        folder: the model's folder.
        result: the run that made the model; everything in the card comes from it.
        teacher: name or path of the teacher, empty for none. Of a path only the last part is shown, since other
            people do not have the folder.
    """
    is_glue = GLUE_VALIDATION_ROWS.get(result.task) in result.rows.values()
    data_set = {"dataset_type": result.task, "dataset_name": f"{result.task} (not all of GLUE's, or own data)"}
    if is_glue:
        data_set = {"dataset_type": "nyu-mll/glue", "dataset_name": f"GLUE {task_label(result.task)}"}
        data_set["dataset_config"] = result.task

    rows, names, evaluations = [], [], []
    for metric, value in result.metrics.items():
        name, split = _name_and_split(metric)
        is_main = name == result.metric and split != MISMATCHED and len(result.metrics) > 1
        row = {"Metric": quoted(metric_label(metric)) + (" (main)" if is_main else "")}
        row["This model"] = mean_and_std(100 * value)
        for column, others in (("Before training", result.metrics_before), ("Teacher", result.teacher_metrics)):
            if others:
                row[column] = mean_and_std(100 * others.get(metric, math.nan))
        rows.append(row)

        if name not in names:
            names.append(name)

        # The hub's format has no place for a number that is not finite.
        if math.isfinite(value):
            entry: dict[str, Any] = {"task_type": "text-classification", "dataset_split": split, **data_set}
            entry |= {"metric_type": name, "metric_name": metric_label(metric), "metric_value": round(value, 5)}
            evaluations.append(EvalResult(**entry))

    front_matter: dict[str, Any] = {"pipeline_tag": "text-classification", "metrics": names}
    if is_glue:
        front_matter["datasets"] = ["nyu-mll/glue"]
    if evaluations:
        front_matter |= {"model_name": Path(folder).resolve().name, "eval_results": evaluations}

    values = {
        "metrics": rows,
        "sizes": subnetwork_rows(result),
        # A student that learns from no teacher is compared with the model whose layers it has.
        "baseline": "the teacher" if result.teacher_metrics else "the model it is made of",
    }
    return _write_card(folder, "model_card.md.j2", result, teacher, front_matter, values)


def _name_and_split(metric: str) -> tuple[str, str]:
    """The name of a metric and the split that it was measured on: MNLI has two, and their names behind its metrics."""
    name = metric.removeprefix("eval_")
    for split in (MATCHED, MISMATCHED):
        suffix = split.removeprefix("validation")
        if name.endswith(suffix):
            return name.removesuffix(suffix), split
    return name, "validation"


def write_stage_card(folder: str | Path, result: StageResult, teacher: str, auto_class: str, untrained: str) -> Path:
    """Writes the card of a model that has no task yet; see `write_model_card`.

    Args:
        folder, result, teacher: see there.
        auto_class: the class that opens it, such as "AutoModel".
        untrained: what a task has to train first, such as "the pooler is".
    """
    values = {"auto_class": auto_class, "untrained": untrained}
    return _write_card(folder, "stage_card.md.j2", result, teacher, {}, values)


def write_export_card(folder: str | Path, result: ExportResult, trained: RunResult | None = None) -> Path:
    """Writes the card of an exported model; see `write_model_card`.

    Args:
        folder: see there.
        result: what was measured of the export.
        trained: the run that made the model, where it is known.
    """
    settings = {} if trained is None else trained.settings
    teacher = str(settings.get("teacher_model_name_or_path") or "")
    values = {
        "trained": None if trained is None else _quoted_record(trained),
        "trained_settings": _setting_rows(settings),
    }
    front_matter = {"pipeline_tag": "text-classification"}
    return _write_card(folder, "export_card.md.j2", result, teacher, front_matter, values)


def _write_card(
    folder: str | Path,
    template: str,
    result: RunResult | StageResult | ExportResult,
    teacher: str,
    front_matter: dict[str, Any],
    values: Mapping[str, Any],
) -> Path:
    is_distilled = isinstance(result, StageResult) or result.method not in NOT_DISTILLED
    is_name = re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", teacher) and teacher not in OWN_NAMES
    is_on_hub = is_name and not Path(teacher).exists()
    # The base of an export is not known for sure.
    if is_on_hub and not isinstance(result, ExportResult):
        front_matter = front_matter | {"base_model": teacher}
    tags = ["bertkd", "model-compression", result.method]
    if isinstance(result, RunResult) and is_distilled:
        tags.append("knowledge-distillation")
    if isinstance(result, ExportResult):
        tags.append(result.engine)

    data = ModelCardData(library_name="transformers", tags=tags, **front_matter)

    # Only bertkd has the class of a pruned model.
    config = Path(folder) / "config.json"
    is_pruned = config.is_file() and read_json(config).get("model_type", "").startswith(PRUNED_PREFIX)

    text = render(
        template,
        front_matter=data.to_yaml().strip(),
        title=quoted(Path(folder).resolve().name),
        result=_quoted_record(result),
        origin=_code((teacher if is_on_hub else Path(teacher).name) if is_distilled else ""),
        is_pruned=is_pruned,
        settings=_setting_rows(result.settings),
        **values,
    )
    path = Path(folder) / "README.md"
    write_text(path, text_without_secrets(text))
    return path


def quoted(text: str) -> str:
    """Escapes a text for Markdown: it shows as it is, in one line, and begins no code, HTML or link."""
    return MARKUP.sub(r"\\\g<0>", " ".join(text.split()))


def _code(text: str) -> str:
    """Takes out of a text what would end a span of code."""
    return " ".join(text.replace("`", "'").split())


def _quoted_record(record: AnyRecord) -> AnyRecord:
    """Copies a record with every text in it quoted, but for the command, which stands in a block of code."""
    quotes = {name: _quoted_value(value) for name, value in vars(record).items() if name != "settings"}
    # Only a line of its own could end the block.
    quotes["command"] = " ".join(record.command.splitlines())
    return replace(record, **quotes)


def _quoted_value(value: Any) -> Any:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, Mapping):
        return {quoted(str(key)): _quoted_value(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_quoted_value(item) for item in value]
    return value


def _setting_rows(settings: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = []
    for key, value in settings.items():
        if value is not None and value not in ("", [], {}):
            # Other people do not have the folders of this machine.
            is_folder = Path(str(value)).is_absolute()
            text = Path(str(value)).name if is_folder else str(value)
            rows.append({"Setting": f"`{_code(str(key))}`", "Value": quoted(text)})
    return rows
