"""The README.md of a student's folder, written from its results and nothing else."""

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
from bertkd.records.results import ExportResult, RunResult, StageResult
from bertkd.records.tables import markdown_table, method_label, metric_label, subnetwork_rows, task_label

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
    "alpha",
    "beta",
    "temperature",
    "strategy",
    "layer_map",
    "normalize_patience",
    "keep",
    "keep_layers",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "max_seq_length",
)
TRAINING = """## Training

{reference}{trained} Finished: {finished}.

{settings}
The command:

```bash
{command}
```

Versions: {versions}. Commit of bertkd: `{commit}`.
"""
CARD = """---
{front_matter}
---

# {title}

{summary}

## Evaluation

On the validation split of {task}, in percent. {rows}

{metrics}
| Parameters | of which embeddings | Layers | Weights | Speed-up over the teacher |
| ---------: | ------------------: | -----: | ------: | ------------------------: |
| {parameters:,} | {embeddings:,} | {layers} | {size:.1f} MB | {speedup} |
{sizes}
## Use

{loading} `path` is this folder, or its name on the hub.

```python
{imports}from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path).eval()
logits = model(**tokenizer("a sentence", return_tensors="pt")).logits  # sentence pairs: tokenizer(first, second, ...)
```

"""

STAGE_CARD = """---
{front_matter}
---

# {title}

A {layers}-layer encoder with {parameters:,} parameters, made with bertkd{origin}; method: {method}. It is to be
trained on a task: {untrained} not trained yet.

The loss on held-out rows went from {before:.4g} to {after:.4g}. Rows: {rows}.

## Use

```python
from transformers import {auto_class}, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = {auto_class}.from_pretrained(path)
```

`path` is this folder, or its name on the hub.

"""

EXPORT_CARD = """---
{front_matter}
---

# {title}

{summary} This is how {engine} runs it, in {precision}.

| Measured on the validation split | {metric}, percent |
| -------------------------------- | ----: |
| in PyTorch, float32 | {before:.1f} |
| this model | {after:.1f} |

{latency}

## Use

{use}

`path` is this folder, or its name on the hub.

## How it was made

Tried: {attempts}. The engine computes in {runtime_precision}; measured on {hardware}, finished {finished}.

```bash
{command}
```

Versions: {versions}. Commit of bertkd: `{commit}`.
"""
GRAPH_USE = """```python
from transformers import AutoTokenizer
from transformers.exporters import ExportedModel

tokenizer = AutoTokenizer.from_pretrained(path)
model = ExportedModel.from_pretrained(path, device="cpu"{options})
logits = model(**tokenizer(["a sentence"], padding=True, return_tensors="pt")).logits
```"""
TORCH_USE = """```python
{imports}from transformers import AutoModelForSequenceClassification, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path)
model = AutoModelForSequenceClassification.from_pretrained(path).eval()
logits = model(**tokenizer(["a sentence"], padding=True, return_tensors="pt")).logits
```"""
# Without it OpenVINO computes in bfloat16 where the CPU can.
OPENVINO_FLOAT32 = ', config={"INFERENCE_PRECISION_HINT": "f32"}'


PRUNED_IMPORT = "import bertkd  # makes the class known\n"
STOCK_LOADING = "An ordinary `transformers` checkpoint that needs no other package."
PRUNED_LOADING = (
    "An encoder that no stock class describes: it opens with `import bertkd`, or without bertkd by "
    "`trust_remote_code=True`, for which this folder carries the code."
)


def write_model_card(folder: str | Path, result: RunResult, teacher: str, repository_url: str = "") -> Path:
    """Writes `README.md` into the model's folder, whole or not at all, and returns its path.

    Args:
        folder: the model's folder.
        result: the run that made the model; everything in the card comes from it.
        teacher: name or path of the teacher, empty for none. Of a path only the last part is shown, since other
            people do not have the folder.
        repository_url: address of the code, linked when given.
    """
    path = Path(folder) / "README.md"
    name = Path(folder).resolve().name
    is_pruned = _is_pruned(Path(folder))
    write_text(
        path,
        CARD.format(
            front_matter=_front_matter(result, name, teacher),
            title=name,
            summary=_summary(result, teacher, repository_url),
            task=task_label(result.task),
            rows=f"Rows: {', '.join(f'{split} {count:,}' for split, count in result.rows.items())}."
            if result.rows
            else "",
            metrics=_metrics(result),
            parameters=result.parameters,
            embeddings=result.embedding_parameters,
            layers=result.layers,
            size=result.size_mb,
            speedup="not measured" if result.speedup is None else f"{result.speedup:.1f}x",
            sizes=_sizes(result),
            loading=PRUNED_LOADING if is_pruned else STOCK_LOADING,
            imports=PRUNED_IMPORT if is_pruned else "",
        )
        + _training(result),
    )
    return path


def write_stage_card(folder: str | Path, result: StageResult, teacher: str, auto_class: str, untrained: str) -> Path:
    """As `write_model_card`, of a model that has no task yet.

    Args:
        folder, result, teacher: as there.
        auto_class: what opens it, such as "AutoModel".
        untrained: what a task has to train first, such as "the pooler is".
    """
    path, name = Path(folder) / "README.md", Path(folder).resolve().name
    data = ModelCardData(
        library_name="transformers",
        tags=["bertkd", "model-compression", result.method],
        base_model=teacher if _on_hub(teacher) else None,
        model_name=name,
    )
    shown = teacher if _on_hub(teacher) else Path(teacher).name
    write_text(
        path,
        STAGE_CARD.format(
            front_matter=data.to_yaml().strip(),
            title=name,
            layers=result.layers,
            parameters=result.parameters,
            origin=f" from `{shown}`" if shown else "",
            method=method_label(result.method),
            untrained=untrained,
            before=result.loss_before,
            after=result.loss,
            rows=", ".join(f"{split} {count or 'streamed'}" for split, count in result.rows.items()),
            auto_class=auto_class,
        )
        + _training(result),
    )
    return path


def write_export_card(folder: str | Path, result: ExportResult, trained: RunResult | None = None) -> Path:
    """As `write_model_card`, of an exported model.

    Args:
        folder: as there.
        result: what was measured of the export.
        trained: the run that made the model, where it is known.
    """
    path, name = Path(folder) / "README.md", Path(folder).resolve().name
    tags = ["bertkd", "model-compression", result.method, result.engine]
    data = ModelCardData(library_name="transformers", pipeline_tag="text-classification", tags=tags, model_name=name)
    conditions = result.conditions
    if trained is None:
        summary = f"A {result.layers}-layer classifier for {task_label(result.task)}, made with bertkd."
    else:
        summary = _summary(trained, str(trained.settings.get("teacher_model_name_or_path") or ""), "")
    speed = "" if result.speedup is None else f", {result.speedup:.1f} times as fast as the teacher in eager PyTorch"
    write_text(
        path,
        EXPORT_CARD.format(
            front_matter=data.to_yaml().strip(),
            title=name,
            summary=summary,
            engine=result.engine,
            precision=result.precision,
            metric=metric_label(result.metric),
            before=100 * result.value_before,
            after=100 * result.value,
            latency=f"{result.size_mb:.1f} MB. Median latency {result.latency_ms:.1f} ms{speed} (batch "
            f"{conditions['batch_size']}, {conditions['sequence_length']} tokens, {conditions['threads']} threads).",
            use=TORCH_USE.format(imports=PRUNED_IMPORT if _is_pruned(Path(folder)) else "")
            if result.engine == "pytorch"
            else GRAPH_USE.format(
                options=OPENVINO_FLOAT32 if (result.engine, result.precision) == ("openvino", "float32") else ""
            ),
            attempts="; ".join(f"{one['way']} ({100 * one['value']:.1f})" for one in result.attempts),
            runtime_precision=result.runtime_precision,
            hardware=_machine(result.hardware, conditions.get("device", "cpu") != "cpu"),
            finished=result.finished,
            command=result.command,
            versions=", ".join(f"{package} {version}" for package, version in result.versions.items()),
            commit=result.commit,
        )
        + ("" if trained is None else "\n" + _training(trained)),
    )
    return path


def _training(result: RunResult | StageResult) -> str:
    """The section on how the model was made."""
    hardware, paper = result.hardware, getattr(result, "paper", "")
    machine = _machine(hardware, bool(hardware.get("gpu")))
    return TRAINING.format(
        reference=f"Method: {paper}\n\n" if paper else "",
        trained=f"Training took {result.seconds / 60:.1f} minutes with seed {result.seed} on {machine}."
        if result.seconds
        else f"Nothing was trained; measured on {machine}.",
        finished=result.finished,
        settings=_settings(result.settings),
        command=result.command,
        versions=", ".join(f"{package} {version}" for package, version in result.versions.items()),
        commit=result.commit,
    )


def _machine(hardware: dict[str, Any], on_gpu: bool) -> str:
    """What a figure was measured on: the GPUs, or the CPU."""
    if on_gpu:
        return ", ".join(hardware.get("gpu") or [])
    return f"{hardware.get('cpu')} ({hardware.get('threads')} threads)"


def _is_pruned(folder: Path) -> bool:
    config = folder / "config.json"
    if not config.is_file():
        return False
    return str(json.loads(config.read_text(encoding="utf-8")).get("model_type")).startswith(PRUNED_PREFIX)


def _sizes(result: RunResult) -> str:
    if not result.subnetworks:
        return ""
    return f"""
## Sizes

The figures above are of the full network; it holds smaller ones, shares of its heads, neurons and layers.

{markdown_table(subnetwork_rows(result))}
```python
from bertkd.dynabert import extract_subnetwork, make_adaptive

small = extract_subnetwork(make_adaptive(model), width=0.5, depth=0.75)  # a model of its own, which saves and loads
```
"""


def _front_matter(result: RunResult, name: str, teacher: str) -> str:
    glue = _is_glue(result)
    results = [
        EvalResult(
            task_type="text-classification",
            dataset_type="nyu-mll/glue" if glue else result.task,
            dataset_name=f"GLUE {task_label(result.task)}"
            if glue
            else f"{result.task} (not all of GLUE's, or own data)",
            dataset_config=result.task if glue else None,
            dataset_split="validation",
            metric_type=metric.removeprefix("eval_"),
            metric_name=metric_label(metric),
            metric_value=round(value, 5),
        )
        for metric, value in result.metrics.items()
        if math.isfinite(value)
    ]
    data = ModelCardData(
        library_name="transformers",
        pipeline_tag="text-classification",
        tags=[
            "bertkd",
            *(["knowledge-distillation"] if _is_distilled(result) else []),
            "model-compression",
            result.method,
        ],
        datasets=["nyu-mll/glue"] if glue else None,
        metrics=[metric.removeprefix("eval_") for metric in result.metrics],
        base_model=teacher if _on_hub(teacher) else None,
        model_name=name if results else None,
        eval_results=results or None,
    )
    return data.to_yaml().strip()


def _is_glue(result: RunResult) -> bool:
    return GLUE_VALIDATION_ROWS.get(result.task) in result.rows.values()


def _is_distilled(result: RunResult) -> bool:
    return result.method not in ("teacher", "finetuned", "shrunk")


def _on_hub(teacher: str) -> bool:
    """Whether `teacher` can be a name on the hub, and is no folder here."""
    return bool(re.fullmatch(r"[\w.-]+(/[\w.-]+)?", teacher)) and teacher[0] != "." and not Path(teacher).exists()


def _summary(result: RunResult, teacher: str, repository_url: str) -> str:
    shown = teacher if _on_hub(teacher) else Path(teacher).name
    origin = f"distilled from `{shown}` " if shown and _is_distilled(result) else ""
    tool = f"[bertkd]({repository_url})" if repository_url else "bertkd"
    method, layers = method_label(result.method), result.layers
    return f"A {layers}-layer encoder for {task_label(result.task)}, {origin}with {tool}; method: {method}."


def _metrics(result: RunResult) -> str:
    columns: dict[str, Mapping[str, float]] = {
        "This model": result.metrics,
        "Before training": result.metrics_before,
        "Teacher": result.teacher_metrics,
    }
    rows = []
    for metric in result.metrics:
        main = " (main)" if metric == result.metric and len(result.metrics) > 1 else ""
        row = {"Metric": metric_label(metric) + main}
        row |= {name: _percent(values.get(metric)) for name, values in columns.items() if values}
        rows.append(row)
    return markdown_table(rows)


def _percent(value: float | None) -> str:
    return "n/a" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _settings(settings: Mapping[str, Any]) -> str:
    given = {key: _shown(value) for key, value in settings.items() if value is not None and value not in ("", [], {})}
    main = {key: given[key] for key in MAIN_SETTINGS if key in given} or given
    other = {key: value for key, value in given.items() if key not in main}
    text = _table(main)
    if other:
        text += f"\n<details><summary>All other settings</summary>\n\n{_table(other)}\n</details>\n"
    return text


def _table(settings: Mapping[str, str]) -> str:
    return markdown_table([{"Setting": f"`{key}`", "Value": value} for key, value in settings.items()])


def _shown(value: object) -> str:
    """The value as text; an absolute path by its last part, since other people do not have that folder."""
    text = str(value)
    return Path(text).name if Path(text).is_absolute() else text
