"""Makes a fine-tuned model smaller without training: vocabulary of the task, shared layers, low-rank maps."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from datasets import DatasetDict
from transformers import PreTrainedModel

from bertkd.atomic import atomic_folder, write_json
from bertkd.data import Task
from bertkd.distillation import DistillationConfig
from bertkd.efficiency import count_flops, count_parameters, model_size_mb
from bertkd.metrics import main_value
from bertkd.models.tokenizer_files import save_tokenizer
from bertkd.pipeline.deployment import Timing
from bertkd.pipeline.evaluation import ADVICE, evaluate, logit_order
from bertkd.pipeline.experiment import Experiment, check_no_training, output_folder, writes_output_folder
from bertkd.pipeline.hub import upload
from bertkd.pipeline.models import load_model, resolve_model_name
from bertkd.pipeline.task_data import TaskData
from bertkd.records import RunResult, environment, terminal_table, write_model_card
from bertkd.students import factorize, prune_vocabulary, share_layers

__all__ = ["Shrinkage", "shrink_model"]

FILE = "shrink.json"


@dataclass(frozen=True)
class Shrinkage:
    """How a model is made smaller; the steps are taken in the order of the fields.

    Attributes:
        prune_vocabulary: keep the tokens of the task's training texts.
        min_count: how often a token has to occur to be kept.
        share_layers: how many different layers, or a group for each layer; None shares nothing.
        share_weights: which weights a group has: "first" or "mean".
        ffn_rank: rank of both feed-forward maps of each layer; None leaves them.
        embedding_rank: rank of the word embeddings; None leaves them.

    Raises:
        ValueError: there is nothing to do, or an option belongs to a step that is not taken.
    """

    prune_vocabulary: bool = False
    min_count: int = 1
    share_layers: int | Sequence[int] | None = None
    share_weights: str = "first"
    ffn_rank: int | None = None
    embedding_rank: int | None = None

    def __post_init__(self) -> None:
        if not self.steps():
            raise ValueError("Nothing to do: give --prune_vocabulary, --share_layers, --ffn_rank or --embedding_rank.")
        if self.min_count != 1 and not self.prune_vocabulary:
            raise ValueError(f"--min_count {self.min_count} goes with --prune_vocabulary.")
        if self.share_weights != "first" and self.share_layers is None:
            raise ValueError(f"--share_weights {self.share_weights} goes with --share_layers.")

    def steps(self) -> list[str]:
        """The steps in words, in their order."""
        steps = []
        if self.prune_vocabulary:
            often = f" (at least {self.min_count} times)" if self.min_count > 1 else ""
            steps.append(f"vocabulary of the task{often}")
        if self.share_layers is not None:
            groups = self.share_layers if isinstance(self.share_layers, int) else ",".join(map(str, self.share_layers))
            steps.append(f"layers shared: {groups}{' (mean)' if self.share_weights == 'mean' else ''}")
        if self.ffn_rank is not None:
            steps.append(f"FFN rank {self.ffn_rank}")
        if self.embedding_rank is not None:
            steps.append(f"embedding rank {self.embedding_rank}")
        return steps

    def apply(
        self, model: PreTrainedModel, tokenizer: Any, rows: DatasetDict, task: Task
    ) -> tuple[PreTrainedModel, Any]:
        """The smaller model and its tokenizer."""
        if self.prune_vocabulary:
            texts = (text for key in task.text_keys for text in rows["train"][key])
            model, tokenizer = prune_vocabulary(model, tokenizer, texts, self.min_count)
        # Before the maps are factorized, because the mean of factors means nothing.
        if self.share_layers is not None:
            model = share_layers(model, self.share_layers, self.share_weights)
        if self.ffn_rank is not None or self.embedding_rank is not None:
            model = factorize(model, self.ffn_rank, self.embedding_rank)
        return model, tokenizer


@writes_output_folder
def shrink_model(
    experiment: Experiment,
    name: str,
    tokenizer: Any,
    rows: DatasetDict,
    task: Task,
    shrinkage: Shrinkage,
    config: DistillationConfig,
    timing: Timing,
    settings: dict[str, Any],
    max_seq_length: int = 128,
) -> dict[str, Any]:
    """Makes a model smaller, and leaves its folder with shrink.json, record and card.

    What loads from the folder is compared with the model before: metric on the validation rows, parameters, size on
    disk, FLOPs and latency.

    Args:
        experiment: where the model came from.
        name: the folder of the fine-tuned model.
        tokenizer: what it reads.
        rows, task: the task's rows, not tokenized.
        shrinkage: what is done.
        config: its `output_dir` is the folder.
        timing: how passes are measured.
        settings: for the record.
        max_seq_length: longer inputs are cut.

    Returns:
        The content of shrink.json.

    Raises:
        ValueError: the model is no local folder, or is the output folder, or that holds a training.
    """
    folder, source = output_folder(config), Path(resolve_model_name(name))
    if not source.is_dir() or folder.resolve() == source.resolve():
        raise ValueError(f"{name} must be a local folder, and another than --output_dir.")
    check_no_training(folder)

    model = load_model(name).eval()
    logit_order(model, task, ADVICE)
    small, small_tokenizer = shrinkage.apply(model, tokenizer, rows, task)
    with atomic_folder(folder) as partial:
        small.save_pretrained(partial)
        save_tokenizer(small_tokenizer, partial, small.config)
    small = load_model(str(folder)).eval()

    validation = DatasetDict({split: rows[split] for split in task.validation_splits})
    data = TaskData.tokenized(validation, task, tokenizer, max_seq_length)
    small_data = TaskData.tokenized(validation, task, small_tokenizer, max_seq_length)
    # On the CPU, where they were loaded: an evaluation moves them.
    latency = timing.measure({"before": model, "after": small})
    before = _figures(model, source, data, config, timing)
    after = _figures(small, folder, small_data, config, timing)

    answer = {
        "levers": shrinkage.steps(),
        "task": task.name,
        "metric": task.metric,
        "before": before | {"latency": asdict(latency["before"])},
        "after": after | {"latency": asdict(latency["after"])},
        "rows": {str(split): len(rows[split]) for split in rows},
        "settings": settings,
        "command": experiment.command,
        **environment(),
    }
    if shrinkage.prune_vocabulary:
        answer["recut_rows"] = _rows_cut_otherwise(data, small_data)

    write_json(folder / FILE, answer)
    _write_record(experiment, source, folder, small, config, answer)
    upload(folder, config)
    print(f"\n{terminal_table(_table(answer))}")
    if shrinkage.prune_vocabulary:
        print(recut_sentence(answer))
    print(f"Model, tokenizer, card, {RunResult.FILE} and {FILE}: {folder}")
    return answer


def _figures(
    model: PreTrainedModel, folder: Path, data: TaskData, config: DistillationConfig, timing: Timing
) -> dict[str, Any]:
    """What a model is worth and what it costs, but for the latency."""
    parameters = count_parameters(model)
    return {
        "metrics": evaluate(model, data, config),
        "parameters": parameters.total,
        "embedding_parameters": parameters.embeddings,
        "size_mb": model_size_mb(folder),
        "gflops": count_flops(model, timing.batch_size, timing.sequence_length) / 1e9,
    }


def _rows_cut_otherwise(before: TaskData, after: TaskData) -> int:
    """The number of validation rows that the two tokenizers cut into different pieces."""
    different = 0
    for split in before.validation:
        for old, new in zip(before.splits[split]["input_ids"], after.splits[split]["input_ids"], strict=True):
            old_pieces = before.tokenizer.convert_ids_to_tokens(old)
            different += old_pieces != after.tokenizer.convert_ids_to_tokens(new)
    return different


def recut_sentence(answer: dict[str, Any]) -> str:
    """How much of the validation rows the smaller vocabulary changes, as a sentence."""
    rows = sum(count for split, count in answer["rows"].items() if split.startswith("validation"))
    return f"{answer['recut_rows']} of {rows:,} validation rows have words that now fall into smaller pieces."


def _table(answer: dict[str, Any]) -> list[dict[str, str]]:
    """Before and after, for a terminal."""
    rows = []
    for name in ("before", "after"):
        figures = answer[name]
        encoder = figures["parameters"] - figures["embedding_parameters"]
        rows.append(
            {
                "": name,
                answer["metric"]: f"{100 * main_value(figures['metrics'], answer['metric']):.1f}",
                "parameters": f"{figures['parameters'] / 1e6:.2f}M",
                "without embeddings": f"{encoder / 1e6:.2f}M",
                "size": f"{figures['size_mb']:.1f} MB",
                "GFLOPs": f"{figures['gflops']:.2f}",
                "ms": f"{figures['latency']['p50_ms']:.1f}",
                "speed-up": f"{figures['latency']['speedup']:.2f}x",
            }
        )
    return rows


def _write_record(
    experiment: Experiment,
    source: Path,
    folder: Path,
    model: PreTrainedModel,
    config: DistillationConfig,
    answer: dict[str, Any],
) -> None:
    """Writes results.json and the card of the folder.

    Of a student that was made smaller, the teacher is still the student's own, and speed-ups are over that.
    """
    after, timing = answer["after"], answer["after"]["latency"]
    teacher_metrics, speedup = answer["before"]["metrics"], float(timing["speedup"])
    speedup_over: int | None = answer["before"]["parameters"]
    made_of = RunResult.of(source)
    if made_of is not None and made_of.teacher_metrics:
        teacher_metrics, speedup = made_of.teacher_metrics, speedup * (made_of.speedup or math.nan)
        speedup_over = made_of.speedup_over
    # Records have the speed-ups of one row of 128 tokens.
    is_usual = (timing["batch_size"], timing["sequence_length"]) == (1, 128)
    result = RunResult(
        method=experiment.result_name or "shrunk",
        task=answer["task"],
        metric=answer["metric"],
        value=main_value(after["metrics"], answer["metric"]),
        metrics=after["metrics"],
        metrics_before={},
        teacher_metrics=teacher_metrics,
        parameters=after["parameters"],
        embedding_parameters=after["embedding_parameters"],
        size_mb=after["size_mb"],
        layers=model.config.num_hidden_layers,
        seed=config.seed,
        settings=answer["settings"],
        command=answer["command"],
        versions=answer["versions"],
        commit=answer["commit"],
        hardware=answer["hardware"],
        rows=answer["rows"],
        seconds=0.0,
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        paper=experiment.note or f"{', '.join(answer['levers'])}; made of {source.name}, nothing was trained.",
        speedup=round(speedup, 2) if is_usual and math.isfinite(speedup) else None,
        speedup_over=speedup_over,
    )
    write_model_card(folder, result, teacher="")
    result.write(folder)
