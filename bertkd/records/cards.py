"""Model cards: the README.md of a model's folder, written from its results and nothing else."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from bertkd.atomic import write_text
from bertkd.models.families import PRUNED_PREFIX
from bertkd.records.rendering import render
from bertkd.records.results import ExportResult, RunResult, StageResult
from bertkd.records.tables import metric_label, subnetwork_rows, task_label

__all__ = ["write_export_card", "write_model_card", "write_stage_card"]

# Rows of the official validation splits. A card names GLUE only for these: own data may be in a task's format.
GLUE_VALIDATION_ROWS = {
    "cola": 1043,
    "mnli": 9815,
    "mrpc": 408,
    "qnli": 5463,
    "qqp": 40430,
    "rte": 277,
    "sst2": 872,
    "stsb": 1500,
    "wnli": 71,
}
# Settings that make the model what it is; the others are folded away.
MAIN_SETTINGS = (
    *("alpha", "beta", "temperature", "strategy", "layer_map", "normalize_patience", "keep", "keep_layers"),
    *("learning_rate", "lr_scheduler_type", "warmup_steps", "weight_decay", "num_train_epochs", "max_steps"),
    *("per_device_train_batch_size", "gradient_accumulation_steps", "max_seq_length"),
)
NOT_DISTILLED = ("teacher", "finetuned", "shrunk")


def write_model_card(folder: str | Path, result: RunResult, teacher: str, repository_url: str = "") -> Path:
    """Writes `README.md` into the model's folder, whole or not at all, and returns its path.

    Args:
        folder: the model's folder.
        result: the run that made the model; everything in the card comes from it.
        teacher: name or path of the teacher, empty for none. Of a path only the last part is shown, since other
            people do not have the folder.
        repository_url: address of the code, linked when given.
    """
    is_glue = GLUE_VALIDATION_ROWS.get(result.task) in result.rows.values()
    evaluations = []
    for metric, value in result.metrics.items():
        # The hub's format has no place for a number that is not finite.
        if math.isfinite(value):
            evaluations.append(
                EvalResult(
                    task_type="text-classification",
                    dataset_type="nyu-mll/glue" if is_glue else result.task,
                    dataset_name=f"GLUE {task_label(result.task)}"
                    if is_glue
                    else f"{result.task} (not all of GLUE's, or own data)",
                    dataset_config=result.task if is_glue else None,
                    dataset_split="validation",
                    metric_type=metric.removeprefix("eval_"),
                    metric_name=metric_label(metric),
                    metric_value=round(value, 5),
                )
            )

    front_matter: dict[str, Any] = {
        "pipeline_tag": "text-classification",
        "tags": ["knowledge-distillation"] if result.method not in NOT_DISTILLED else [],
        "datasets": ["nyu-mll/glue"] if is_glue else None,
        "metrics": [metric.removeprefix("eval_") for metric in result.metrics],
        "base_model": teacher if _is_on_hub(teacher) else None,
    }
    if evaluations:
        front_matter |= {"model_name": Path(folder).resolve().name, "eval_results": evaluations}

    values = {
        "origin": _origin(result, teacher),
        "repository_url": repository_url,
        "metrics": _metric_rows(result),
        "sizes": subnetwork_rows(result),
    }
    return _write_card(folder, "model_card.md.j2", result, front_matter, values)


def write_stage_card(folder: str | Path, result: StageResult, teacher: str, auto_class: str, untrained: str) -> Path:
    """Writes the card of a model that has no task yet; see `write_model_card`.

    Args:
        folder, result, teacher: see there.
        auto_class: the class that opens it, such as "AutoModel".
        untrained: what a task has to train first, such as "the pooler is".
    """
    front_matter = {"base_model": teacher if _is_on_hub(teacher) else None, "model_name": Path(folder).resolve().name}
    values = {"origin": _public_name(teacher), "auto_class": auto_class, "untrained": untrained}
    return _write_card(folder, "stage_card.md.j2", result, front_matter, values)


def write_export_card(folder: str | Path, result: ExportResult, trained: RunResult | None = None) -> Path:
    """Writes the card of an exported model; see `write_model_card`.

    Args:
        folder: see there.
        result: what was measured of the export.
        trained: the run that made the model, where it is known.
    """
    front_matter = {"pipeline_tag": "text-classification", "model_name": Path(folder).resolve().name}
    values: dict[str, Any] = {"trained": trained, "repository_url": "", "origin": ""}
    if trained is not None:
        values["origin"] = _origin(trained, str(trained.settings.get("teacher_model_name_or_path") or ""))
        values["trained_settings"] = _setting_rows(trained.settings)
    return _write_card(folder, "export_card.md.j2", result, front_matter, values)


def _write_card(
    folder: str | Path,
    template: str,
    result: RunResult | StageResult | ExportResult,
    front_matter: dict[str, Any],
    values: Mapping[str, Any],
) -> Path:
    tags = ["bertkd", *front_matter.pop("tags", []), "model-compression", result.method]
    if isinstance(result, ExportResult):
        tags.append(result.engine)
    data = ModelCardData(library_name="transformers", tags=tags, **front_matter)

    text = render(
        template,
        front_matter=data.to_yaml().strip(),
        title=Path(folder).resolve().name,
        result=result,
        is_pruned=_is_pruned(Path(folder)),
        settings=_setting_rows(result.settings),
        **values,
    )
    path = Path(folder) / "README.md"
    write_text(path, text)
    return path


def _is_pruned(folder: Path) -> bool:
    """Whether the folder's model is of a class that only bertkd has."""
    config = folder / "config.json"
    return config.is_file() and str(json.loads(config.read_text()).get("model_type")).startswith(PRUNED_PREFIX)


def _is_on_hub(teacher: str) -> bool:
    """Whether `teacher` can be a name on the hub, and is no folder here."""
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", teacher)) and teacher[0] != "." and not Path(teacher).exists()


def _public_name(teacher: str) -> str:
    return teacher if _is_on_hub(teacher) else Path(teacher).name


def _origin(result: RunResult, teacher: str) -> str:
    """The teacher's name; empty for a model that was not distilled."""
    return "" if result.method in NOT_DISTILLED else _public_name(teacher)


def _metric_rows(result: RunResult) -> list[dict[str, str]]:
    columns = {
        "This model": result.metrics,
        "Before training": result.metrics_before,
        "Teacher": result.teacher_metrics,
    }
    rows = []
    for metric in result.metrics:
        is_main = metric == result.metric and len(result.metrics) > 1
        row = {"Metric": metric_label(metric) + (" (main)" if is_main else "")}
        for name, values in columns.items():
            if values:
                value = values.get(metric, math.nan)
                row[name] = "n/a" if math.isnan(value) else f"{100 * value:.1f}"
        rows.append(row)
    return rows


def _setting_rows(settings: Mapping[str, Any]) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """The main settings and the others, as rows of tables."""
    main: list[dict[str, str]] = []
    others: list[dict[str, str]] = []
    for key, value in settings.items():
        if value is not None and value not in ("", [], {}):
            text = str(value)
            # Other people do not have the folders of this machine.
            shown = Path(text).name if Path(text).is_absolute() else text
            (main if key in MAIN_SETTINGS else others).append({"Setting": f"`{key}`", "Value": shown})

    main.sort(key=lambda row: MAIN_SETTINGS.index(row["Setting"].strip("`")))
    return (main, others) if main else (others, [])
