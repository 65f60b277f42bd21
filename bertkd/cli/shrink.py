"""Make a fine-tuned model smaller without training: vocabulary of the task, low-rank maps, shared layers.

    python recipes/shrink.py --model_name_or_path outputs/teacher --task_name sst2 --glue_dir GLUE --prune_vocabulary \
        --ffn_rank 96 --embedding_rank 128 --share_layers 3 --output_dir outputs/shrunk

Any of the levers alone, or several, in this order: vocabulary, shared layers, factorization. The folder is written,
and what loads from there is compared with the model that was given: metric on the validation split, parameters, size
on disk, FLOPs and latency, measured here. Every recipe trains such a folder on.
"""

import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import AutoTokenizer, PreTrainedModel

from bertkd import DistillationConfig
from bertkd.atomic import write_json, write_text
from bertkd.cli.arguments import RecipeArguments, Run, parse
from bertkd.cli.experiment import evaluate, quiet
from bertkd.cli.loading import Data, load_model, read_task, resolve
from bertkd.data import Task, tokenize
from bertkd.efficiency import count_flops, count_parameters, measure_latency, model_size_mb
from bertkd.records import (
    RunResult,
    environment,
    markdown_table,
    metric_label,
    task_label,
    terminal_table,
    write_model_card,
)
from bertkd.students import factorize, prune_vocabulary, share_layers
from bertkd.students.shared_layers import SHARED_WEIGHTS

# Neither the outcome nor its description depends on these.
UNIMPORTANT = {"keep_checkpoints", "paper", "record", "result_name"}
MARKERS = ("<!-- levers:start -->", "<!-- levers:end -->")


@dataclass
class ShrinkArguments(RecipeArguments):
    """The levers, and how the outcome is measured."""

    prune_vocabulary: bool = field(default=False, metadata={"help": "Keep the tokens of the task's training texts."})
    min_count: int = field(default=1, metadata={"help": "Of the vocabulary: how often a token has to occur."})
    share_layers: str | None = field(
        default=None, metadata={"help": "How many different layers, or a group for each layer: 0,0,1,1,2,2."}
    )
    share_weights: str = field(
        default="first", metadata={"choices": SHARED_WEIGHTS, "help": "Of a group's layers: the first's, or the mean."}
    )
    ffn_rank: int | None = field(default=None, metadata={"help": "Rank of both feed-forward maps of each layer."})
    embedding_rank: int | None = field(default=None, metadata={"help": "Rank of the word embeddings."})
    batch_size: int = field(default=1, metadata={"help": "Rows of a measured forward pass."})
    sequence_length: int = field(default=128, metadata={"help": "Tokens of a measured forward pass."})
    threads: int | None = field(default=None, metadata={"help": "CPU threads of a measured forward pass."})
    repeats: int = field(default=20, metadata={"help": "Measured passes of each model."})
    record: str | None = field(
        default=None, metadata={"help": "JSON file that gets these figures too, and the page beside it their table."}
    )


def shrink(run: Run[DistillationConfig]) -> dict[str, Any]:
    """Apply the levers, and leave the folder with shrink.json."""
    options, folder, name = run.recipe, Path(run.training.output_dir), run.model.model_name_or_path
    if name is None:
        raise ValueError("Name the folder of the fine-tuned model with --model_name_or_path.")
    check_levers(options)
    source = Path(resolve(name))
    if not source.is_dir() or folder.resolve() == source.resolve():
        raise ValueError(f"{name} must be a local folder, and another than --output_dir.")
    datasets, task = read_task(run)
    model, tokenizer = load_model(name).eval(), AutoTokenizer.from_pretrained(run.model.tokenizer_name or source)
    made, made_tokenizer = apply_levers(model, tokenizer, options, datasets, task)
    write_folder(made, made_tokenizer, folder)
    made = load_model(str(folder)).eval()
    data, made_data = (data_of(datasets, task, one, run) for one in (tokenizer, made_tokenizer))
    before, after = figures(model, source, run, data), figures(made, folder, run, made_data)
    models = {"before": model, "after": made}
    latency = measure_latency(
        models, options.batch_size, options.sequence_length, options.repeats, threads=options.threads
    )
    answer = {
        "levers": levers_of(options),
        "task": task.name,
        "metric": task.metric,
        "before": before | {"latency": asdict(latency["before"])},
        "after": after | {"latency": asdict(latency["after"])},
        "rows": {split: len(datasets[split]) for split in datasets},
        **({"recut_rows": recut_rows(data, made_data)} if options.prune_vocabulary else {}),
        "settings": settings_of(run),
        "command": run.command,
        **environment(),
    }
    write_json(folder / "shrink.json", answer)
    describe(run, folder, made, answer)
    if options.record is not None:
        record(Path(options.record), answer)
    print(f"\n{terminal_table(rows(answer))}")
    if options.prune_vocabulary:
        print(recut(answer))
    print(f"Model, tokenizer, card, results.json and shrink.json: {folder}")
    return answer


def check_levers(options: ShrinkArguments) -> None:
    """Raises ValueError where there is nothing to do, or an option belongs to a lever that is not used."""
    if not levers_of(options):
        raise ValueError("Nothing to do: give --prune_vocabulary, --share_layers, --ffn_rank or --embedding_rank.")
    if options.min_count != 1 and not options.prune_vocabulary:
        raise ValueError(f"--min_count {options.min_count} goes with --prune_vocabulary.")
    if options.share_weights != "first" and options.share_layers is None:
        raise ValueError(f"--share_weights {options.share_weights} goes with --share_layers.")


def levers_of(options: ShrinkArguments) -> list[str]:
    """What is done, in its order, in words."""
    often = f" (at least {options.min_count} times)" if options.min_count > 1 else ""
    how = " (mean)" if options.share_weights == "mean" else ""
    levers = {
        f"vocabulary of the task{often}": options.prune_vocabulary,
        f"layers shared: {options.share_layers}{how}": options.share_layers,
        f"FFN rank {options.ffn_rank}": options.ffn_rank,
        f"embedding rank {options.embedding_rank}": options.embedding_rank,
    }
    return [lever for lever, value in levers.items() if value is not None and value is not False]


def apply_levers(
    model: PreTrainedModel, tokenizer: Any, options: ShrinkArguments, datasets: DatasetDict, task: Task
) -> tuple[PreTrainedModel, Any]:
    """The smaller model and its tokenizer; layers are shared first, because the mean of factors means nothing."""
    if options.prune_vocabulary:
        texts = (text for key in task.text_keys for text in datasets["train"][key])
        model, tokenizer = prune_vocabulary(model, tokenizer, texts, options.min_count)
    if options.share_layers is not None:
        model = share_layers(model, groups_of(options.share_layers), options.share_weights)
    if options.ffn_rank is not None or options.embedding_rank is not None:
        model = factorize(model, options.ffn_rank, options.embedding_rank)
    return model, tokenizer


def groups_of(text: str) -> int | list[int]:
    """The groups of `--share_layers`.

    Raises:
        ValueError: neither a number nor a list of numbers.
    """
    try:
        numbers = [int(item) for item in text.split(",")]
    except ValueError:
        raise ValueError(
            f"--share_layers {text} is neither a number of layers nor a group for each layer such as 0,0,1,1,2,2."
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers


def settings_of(run: Run) -> dict[str, Any]:
    """The options that count here: none of a training."""
    given = asdict(run.data) | asdict(run.recipe) | {"model_name_or_path": run.model.model_name_or_path}
    return {name: value for name, value in given.items() if name not in UNIMPORTANT}


def write_folder(model: PreTrainedModel, tokenizer: Any, folder: Path) -> None:
    """Model and tokenizer; each file appears whole or not at all."""
    partial = folder / ".partial"
    shutil.rmtree(partial, ignore_errors=True)  # of a run that was killed
    model.save_pretrained(partial)
    tokenizer.save_pretrained(partial)
    for file in partial.iterdir():
        os.replace(file, folder / file.name)
    partial.rmdir()


def data_of(datasets: DatasetDict, task: Task, tokenizer: Any, run: Run) -> Data:
    """The validation rows, as a tokenizer cuts them."""
    validation = DatasetDict({split: datasets[split] for split in task.validation_splits})
    return Data(task, tokenize(validation, task, tokenizer, run.data.max_seq_length), tokenizer)


def recut_rows(before: Data, after: Data) -> int:
    """Validation rows that the two tokenizers cut into different pieces."""

    def pieces(data: Data, split: str) -> list[list[str]]:
        return [data.tokenizer.convert_ids_to_tokens(ids) for ids in data.validation[split]["input_ids"]]

    return sum(
        one != other
        for split in before.validation
        for one, other in zip(pieces(before, split), pieces(after, split), strict=True)
    )


def recut(answer: dict[str, Any]) -> str:
    """How much of the validation split the smaller vocabulary changes."""
    count = sum(number for split, number in answer["rows"].items() if split.startswith("validation"))
    return f"{answer['recut_rows']} of {count:,} validation rows have words that now fall into smaller pieces."


def figures(model: PreTrainedModel, folder: Path, run: Run, data: Data) -> dict[str, Any]:
    """What a model is worth and what it costs, but for the latency."""
    parameters, options = count_parameters(model), run.recipe
    return {
        "metrics": evaluate(model, run, data),
        "parameters": parameters.total,
        "embedding_parameters": parameters.embeddings,
        "size_mb": model_size_mb(folder),
        "gflops": count_flops(model, options.batch_size, options.sequence_length) / 1e9,
    }


def rows(answer: dict[str, Any]) -> list[dict[str, str]]:
    """Before and after, for a terminal."""
    return [
        {
            "": name,
            answer["metric"]: f"{100 * _main(answer, name):.1f}",
            "parameters": f"{answer[name]['parameters'] / 1e6:.2f}M",
            "without embeddings": f"{_encoder(answer, name) / 1e6:.2f}M",
            "size": f"{answer[name]['size_mb']:.1f} MB",
            "GFLOPs": f"{answer[name]['gflops']:.2f}",
            "ms": f"{answer[name]['latency']['p50_ms']:.1f}",
            "speed-up": f"{answer[name]['latency']['speedup']:.2f}x",
        }
        for name in ("before", "after")
    ]


def _main(answer: dict[str, Any], name: str) -> float:
    """The figure that models are ranked by; with two validation sets, that of the first."""
    metrics: dict[str, float] = answer[name]["metrics"]
    return next(value for metric, value in metrics.items() if metric.startswith(answer["metric"]))


def _encoder(answer: dict[str, Any], name: str) -> int:
    return int(answer[name]["parameters"] - answer[name]["embedding_parameters"])


def describe(run: Run, folder: Path, made: PreTrainedModel, answer: dict[str, Any]) -> RunResult:
    """results.json and card of the folder."""
    after, source = answer["after"], Path(run.model.model_name_or_path).name
    result = RunResult(
        method=run.recipe.result_name or "shrunk",
        task=answer["task"],
        metric=answer["metric"],
        value=_main(answer, "after"),
        metrics=after["metrics"],
        metrics_before={},
        teacher_metrics=answer["before"]["metrics"],
        parameters=after["parameters"],
        embedding_parameters=after["embedding_parameters"],
        size_mb=after["size_mb"],
        layers=made.config.num_hidden_layers,
        seed=run.training.seed,
        **{name: answer[name] for name in ("settings", "command", "versions", "commit", "hardware", "rows")},
        seconds=0.0,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        paper=run.recipe.paper or f"{', '.join(answer['levers'])}; made of {source}, nothing was trained.",
        speedup=round(after["latency"]["speedup"], 2),
    )
    write_model_card(folder, result, teacher="")
    write_json(folder / "results.json", result.to_json())
    return result


def record(path: Path, answer: dict[str, Any]) -> None:
    """Put a run's figures into a JSON file, in the place of an earlier run of the same command, and into the page."""
    entries = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    write_json(path, [one for one in entries if one["command"] != answer["command"]] + [answer])
    page = path.with_suffix(".md")
    if page.is_file():
        write_text(page, with_table(page.read_text(encoding="utf-8"), json.loads(path.read_text(encoding="utf-8"))))


def with_table(page: str, entries: Sequence[dict[str, Any]]) -> str:
    """A page with the table of these runs between its markers.

    Raises:
        ValueError: it has no markers.
    """
    start, end = (page.find(marker) for marker in MARKERS)
    if start == -1 or end < start:
        raise ValueError(f"The page has no place for the table: it needs {MARKERS[0]} and {MARKERS[1]}.")
    return f"{page[: start + len(MARKERS[0])]}\n{render(entries)}{page[end:]}"


def render(entries: Sequence[dict[str, Any]]) -> str:
    """The table of several runs, and what they were measured with: each model once as it was, and once per lever."""
    entries = sorted(entries, key=lambda entry: (entry["task"], -entry["after"]["parameters"]))
    lines: dict[str, dict[str, str]] = {}
    for entry in entries:
        task = task_label(entry["task"])
        lines.setdefault(f"{task} none", _line(entry, "before", task, "none"))
        levers = ", ".join(entry["levers"])
        lines[f"{task} {levers}"] = _line(entry, "after", task, levers)
    conditions = sorted({_conditions(entry) for entry in entries})
    for entry in entries:
        if entry.get("recut_rows"):
            conditions.append(f"- {task_label(entry['task'])}, {', '.join(entry['levers'])}: {recut(entry)}")
    commands = "\n".join(entry["command"] for entry in entries)
    return f"""{markdown_table(list(lines.values()))}
{chr(10).join(conditions)}

<details><summary>The commands</summary>

```text
{commands}
```

</details>
"""


def _line(entry: dict[str, Any], name: str, task: str, levers: str) -> dict[str, str]:
    one = entry[name]
    return {
        "Levers": levers,
        "Task": task,
        "Metric": f"{100 * _main(entry, name):.1f} {metric_label(entry['metric'])}",
        "Parameters": f"{one['parameters'] / 1e6:.2f}M",
        "Without embeddings": f"{_encoder(entry, name) / 1e6:.2f}M",
        "Size": f"{one['size_mb']:.1f} MB",
        "GFLOPs": f"{one['gflops']:.2f}",
        "Speed-up": f"{one['latency']['speedup']:.2f}x",
    }


def _conditions(entry: dict[str, Any]) -> str:
    latency, hardware = entry["after"]["latency"], entry["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return (
        f"- Latency and FLOPs: batch {latency['batch_size']}, {latency['sequence_length']} tokens, "
        f"{latency['threads']} threads, {latency['precision']}, {latency['device']} ({hardware['cpu']}), "
        f"{latency['repeats']} passes. Versions: {versions}; commit `{entry['commit']}`."
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    quiet()
    runs = parse(DistillationConfig, argv, {"alpha": 0.0}, ShrinkArguments, script=__file__)
    if len(runs) > 1:
        raise ValueError("Nothing is drawn here: give one --seed.")
    return shrink(runs[0])
