"""Make a fine-tuned model smaller without training: vocabulary of the task, low-rank maps, shared layers.

    bertkd shrink --model_name_or_path outputs/teacher --task_name sst2 --prune_vocabulary --ffn_rank 96 \
        --embedding_rank 128 --share_layers 3 --output_dir outputs/shrunk

Any of these steps alone, or several, in this order: vocabulary, shared layers, low rank. The folder is written, and
the model that loads from it is compared with the model before: metric on the validation rows, parameters, size on
disk, FLOPs and latency, measured here. Every command trains such a folder on.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bertkd import DistillationConfig
from bertkd.atomic import read_json, write_json
from bertkd.cli import resolve
from bertkd.cli.commands import TaskRun, check_outputs, quiet
from bertkd.cli.options import TimingOptions
from bertkd.cli.parser import one_run, parse_runs
from bertkd.cli.rules import COUNT
from bertkd.pipeline.shrink import Shrinkage, shrink_model
from bertkd.students.shared_layers import SHARED_WEIGHTS

# Options that are no setting of the result: a note, a file, a name.
UNIMPORTANT = {"paper", "record", "result_name"}


@dataclass
class ShrinkOptions(TimingOptions):
    """How the model is made smaller, and how the outcome is measured."""

    prune_vocabulary: bool = field(
        default=False, metadata={"help": "Keep only the tokens of the task's training texts."}
    )
    min_count: int = field(
        default=1,
        metadata={
            "help": "How often a token has to occur to be kept in the vocabulary.",
            "range": COUNT,
        },
    )
    share_layers: str | None = field(
        default=None, metadata={"help": "How many different layers stay, or a group for each layer: 0,0,1,1,2,2."}
    )
    share_weights: str = field(
        default="first",
        metadata={
            "choices": SHARED_WEIGHTS,
            "help": "Which weights a group of layers has: those of its first layer, or the mean.",
        },
    )
    ffn_rank: int | None = field(
        default=None, metadata={"help": "The rank of both feed-forward maps of each layer.", "range": COUNT}
    )
    embedding_rank: int | None = field(
        default=None, metadata={"help": "The rank of the word embeddings.", "range": COUNT}
    )
    record: str | None = field(
        default=None, metadata={"help": "A JSON file that collects the figures of several runs."}
    )


def shrink(options: TaskRun[ShrinkOptions, DistillationConfig]) -> dict[str, Any]:
    """Makes one model smaller."""
    own, models = options.own, options.models
    if models.model_name_or_path is None:
        raise ValueError("Name the folder of the fine-tuned model with --model_name_or_path.")

    shrinkage = Shrinkage(
        own.prune_vocabulary,
        own.min_count,
        None if own.share_layers is None else layer_groups(own.share_layers),
        own.share_weights,
        own.ffn_rank,
        own.embedding_rank,
    )
    # A file of figures that cannot be read must not come to light after the measurement.
    if own.record is not None:
        read_figures(Path(own.record))

    given = {**asdict(options.data), **asdict(own), "model_name_or_path": models.model_name_or_path}
    resolve.check_evaluation_rows(options.data)
    rows, task = resolve.task_rows(options.data)

    answer = shrink_model(
        options.experiment(),
        models.model_name_or_path,
        resolve.tokenizer_for(models),
        rows,
        task,
        shrinkage,
        options.config,
        own.timing(),
        {name: value for name, value in given.items() if name not in UNIMPORTANT},
        options.data.max_seq_length,
    )
    if own.record is not None:
        add_to_record(Path(own.record), answer)
    return answer


def layer_groups(text: str) -> int | list[int]:
    """The groups of `--share_layers`: a number of different layers, or the group of each layer.

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


def read_figures(path: Path) -> list[dict[str, Any]]:
    """The figures in a JSON file that collects those of several runs; none where it is not there yet.

    Raises:
        ValueError: the file holds something else.
    """
    entries: Any = read_json(path) if path.is_file() else []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) and "command" in entry for entry in entries):
        raise ValueError(f"{path} holds something else than figures of `bertkd shrink`: give another --record.")
    return list(entries)


def add_to_record(path: Path, answer: dict[str, Any]) -> None:
    """Puts a run's figures into a JSON file, in the place of an earlier run of the same command."""
    entries = read_figures(path)
    others = [entry for entry in entries if entry["command"] != answer["command"]]
    write_json(path, [*others, answer])


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Makes one model smaller."""
    quiet()
    runs: list[TaskRun[ShrinkOptions, DistillationConfig]] = parse_runs(
        "shrink", str(__doc__), DistillationConfig, argv, {"alpha": 0.0}, ShrinkOptions
    )
    options = one_run(runs, "Nothing is drawn here.")
    check_outputs([options])
    return shrink(options)
