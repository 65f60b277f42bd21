"""The recipes' arguments: `run_glue.py`'s names, a YAML file, and the command line, which wins over the file."""

import argparse
import copy
import dataclasses
import difflib
import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import yaml
from transformers import HfArgumentParser, TrainingArguments

from bertkd import DistillationConfig
from bertkd.dynabert.importance import REDUCTIONS
from bertkd.students import SHAPES

Config = TypeVar("Config", bound=DistillationConfig)

# What a recipe wants of the Trainer where nobody says otherwise: the best epoch by the task's metric is kept, as the
# Patient-KD authors do, and a killed run loses at most one epoch.
RECIPE_DEFAULTS: dict[str, Any] = {
    "output_dir": "outputs",
    "eval_strategy": "epoch",
    "save_strategy": "epoch",
    # With one, the Trainer deletes the last checkpoint of a finished training for the sake of the best.
    "save_total_limit": 2,
    "load_best_model_at_end": True,
    "per_device_train_batch_size": 32,
    "per_device_eval_batch_size": 64,
    "learning_rate": 5e-5,
    "num_train_epochs": 4,
    "weight_decay": 0.01,
    "warmup_steps": 0.1,
    "logging_steps": 50,
}


# Neither the outcome nor its description depends on these.
UNIMPORTANT = {
    "augment_batch_size",
    "augment_dir",
    "disable_tqdm",
    "output_dir",
    "per_device_eval_batch_size",
    "run_name",
    "save_total_limit",
    "seed",
    "stages",
    "teacher_cache_dir",
    "use_cpu",
}
# The recipe puts the task's own metric in its place.
TASK_METRIC = "task"


@dataclass
class ModelArguments:
    """Which models take part, and how the student starts."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "The pretrained checkpoint that is trained, or whose layers the student starts from; 'minilm' is "
            "the one of the extra 'demo'."
        },
    )
    teacher_model_name_or_path: str | None = field(default=None, metadata={"help": "The fine-tuned teacher."})
    tokenizer_name: str | None = field(default=None, metadata={"help": "Default: the teacher's, or the model's."})
    num_student_layers: int | None = field(
        default=None, metadata={"help": "Keep this many layers; default: the checkpoint as it is."}
    )
    student_layers: str = field(
        default="first", metadata={"help": "Which layers: first, every, last, or 0-based ones such as 0,2,4."}
    )
    init_from: str = field(
        default="pretrained",
        metadata={
            "choices": ["pretrained", "teacher"],
            "help": "Start the student from model_name_or_path (the authors' way), or from the teacher's layers.",
        },
    )
    ignore_weak_teacher: bool = field(
        default=False, metadata={"help": "Go on although the teacher is no better than the majority class."}
    )


@dataclass
class DataArguments:
    """The task: one of GLUE, from the hub or a folder, or own files."""

    task_name: str | None = field(default=None, metadata={"help": "cola sst2 mrpc stsb qqp mnli qnli rte wnli."})
    glue_dir: str | None = field(default=None, metadata={"help": "Folder of official tsv files; default: the hub."})
    train_file: str | None = field(default=None, metadata={"help": "Own csv, tsv, json or parquet file."})
    validation_file: str | None = field(default=None, metadata={"help": "Own file to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "Own file to predict."})
    text_column_names: list[str] | None = field(
        default=None, metadata={"help": "Of own files: the one or two text columns; default: inferred."}
    )
    files_name: str = field(default="files", metadata={"help": "Of own files: the task's name in results."})
    label_column_name: str = field(default="label", metadata={"help": "Of own files."})
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "Of own files: the classes, in the order of their ids; needed where training rows have none."
        },
    )
    max_seq_length: int = field(default=128, metadata={"help": "Longer inputs are cut, in tokens."})
    max_train_samples: int | None = field(default=None, metadata={"help": "Use only the first rows."})
    max_eval_samples: int | None = field(default=None, metadata={"help": "Use only the first rows."})
    sample_seed: int | None = field(
        default=None, metadata={"help": "Draw these rows at random instead, as files sorted by label need."}
    )


@dataclass
class CorpusArguments:
    """The text to train on without a task."""

    corpus_files: list[str] | None = field(
        default=None,
        metadata={"help": "Text files (a text per line), or parquet, csv, json; folders stand for their files."},
    )
    corpus_name: str | None = field(default=None, metadata={"help": "A data set of the hub instead."})
    corpus_config: str | None = field(default=None, metadata={"help": "Which of its configurations."})
    corpus_split: str = field(default="train", metadata={"help": "Of a hub data set."})
    corpus_text_column: str = field(default="text", metadata={"help": "In files that have columns."})
    corpus_mode: str = field(
        default="sentence",
        metadata={"choices": ["sentence", "block"], "help": "Each text by itself, or all in blocks of equal length."},
    )
    corpus_streaming: bool = field(default=False, metadata={"help": "Read it while training; give --max_steps."})
    max_corpus_rows: int | None = field(default=None, metadata={"help": "Use only the first texts."})
    corpus_min_tokens: int = field(default=0, metadata={"help": "Drop shorter rows."})
    corpus_max_unknown: float = field(default=1.0, metadata={"help": "Drop rows with this share of unknown tokens."})
    eval_rows: int = field(default=500, metadata={"help": "Rows that are held out, and evaluated on."})
    max_seq_length: int = field(default=128, metadata={"help": "Of a row, in tokens; longer texts make several."})


@dataclass
class RecipeArguments:
    """What a recipe does around the training."""

    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep the checkpoints of a finished run."})
    paper: str = field(default="", metadata={"help": "A note for the results file, e.g. what the paper reports."})
    result_name: str = field(default="", metadata={"help": "The method's name in results; default: the recipe's."})


@dataclass
class ImportanceArguments(RecipeArguments):
    """What a recipe computes the importance of heads and neurons from."""

    importance_reduction: str = field(default="sum_abs", metadata={"choices": REDUCTIONS})
    importance_split: str = field(
        default="train",
        metadata={"choices": ["train", "validation"], "help": "The authors use the validation rows."},
    )
    importance_rows: int = field(default=2048, metadata={"help": "At most this many, drawn by the seed."})


@dataclass
class StudentArguments(RecipeArguments):
    """The shape of a student that starts at random: a named one, or the teacher's, with the numbers that are given."""

    student_shape: str | None = field(
        default=None,
        metadata={"choices": [*SHAPES], "help": "A shape of the paper; numbers given beside it win."},
    )
    num_hidden_layers: int | None = field(default=None, metadata={"help": "Layers."})
    hidden_size: int | None = field(default=None, metadata={"help": "A multiple of the number of heads."})
    intermediate_size: int | None = field(default=None, metadata={"help": "Feed-forward neurons of a layer."})
    num_attention_heads: int | None = field(
        default=None, metadata={"help": "Another number than the teacher's goes with --attention_weight 0."}
    )


@dataclass
class AugmentationArguments:
    """How the training rows are augmented."""

    augment_model: str | None = field(
        default=None, metadata={"help": "A masked language model, e.g. bert-base-uncased or one of train_mlm.py."}
    )
    augment_copies: int | None = field(
        default=None, metadata={"help": "N, variants per text; default: the released code's for the task, else 20."}
    )
    augment_probability: float = field(default=0.4, metadata={"help": "p, of replacing a word."})
    augment_candidates: int = field(default=15, metadata={"help": "K, words to choose from."})
    augment_conditional: bool = field(
        default=True, metadata={"help": "Show the model the whole sentence too, as the released code; no: the paper."}
    )
    augment_vectors: str | None = field(
        default=None, metadata={"help": "GloVe text file, for words of several pieces; default: the model's own."}
    )
    augment_seed: int = field(default=42, metadata={"help": "All seeds of a training share one augmented set."})
    augment_batch_size: int | None = field(default=None, metadata={"help": "Masked sentences per forward pass."})
    augment_dir: str | None = field(
        default=None, metadata={"help": "Where finished parts are kept; default: in the output folder."}
    )


@dataclass
class Run(Generic[Config]):
    """All arguments of one training: one seed, one folder."""

    model: ModelArguments
    data: Any
    recipe: RecipeArguments
    training: Config
    command: str

    defaults: dict[str, Any]

    def settings(self) -> dict[str, Any]:
        """What decides the outcome, as JSON: all model and data options, the trainer's own and the changed ones of
        the Trainer. Seed and output folder are not among it."""
        shown = {"learning_rate", "num_train_epochs", "per_device_train_batch_size"}
        shown |= {f.name for f in dataclasses.fields(self.training)} - {
            f.name for f in dataclasses.fields(TrainingArguments)
        }
        training = {
            name: value
            for name, value in self.training.to_dict().items()
            if name not in UNIMPORTANT
            and not name.startswith(("logging", "hub", "push", "report", "dataloader"))
            and (name in shown or value != self.defaults[name])
        }
        shared = {f.name for f in dataclasses.fields(RecipeArguments)}
        own = dataclasses.asdict(self.recipe).items()
        recipe = {name: value for name, value in own if name not in shared | UNIMPORTANT}
        return {**dataclasses.asdict(self.model), **dataclasses.asdict(self.data), **recipe, **training}


def parse(
    config_class: type[Config],
    argv: Sequence[str] | None = None,
    defaults: dict[str, Any] | None = None,
    recipe_class: type[RecipeArguments] = RecipeArguments,
    data_class: type = DataArguments,
    script: str | None = None,
) -> list[Run[Config]]:
    """The runs that a command line asks for: one per seed.

    Args:
        config_class: the trainer's config, whose fields become options.
        argv: the command line; default: that of this process.
        defaults: a recipe's own defaults, on top of `RECIPE_DEFAULTS`.
        recipe_class: with a recipe's own options.
        data_class: what it reads: `DataArguments`, a task, or `CorpusArguments`.
        script: the recipe's file, which another one may run; default: the one that was started.

    Raises:
        SystemExit: an option or a key of the file is unknown, or a value has the wrong type.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = HfArgumentParser(
        [ModelArguments, data_class, recipe_class, config_class],  # type: ignore[arg-type]
        allow_abbrev=False,
        # The options are some 150: an error would be lost behind them.
        usage="%(prog)s [--config FILE] [--OPTION VALUE ...]; --help lists the options",
    )
    parser.add_argument("--config", help="YAML file with any of these options; the command line wins over it.")
    parser.set_defaults(**{**RECIPE_DEFAULTS, "metric_for_best_model": TASK_METRIC, **(defaults or {})})
    config_path, seeds, rest = _split_off(argv)
    if config_path is not None:
        from_file, file_seeds = _read_yaml(parser, config_path)
        seeds, rest = seeds or file_seeds, [*from_file, *rest]
    seeds = seeds or ["42"]
    command = command_line(argv, script)
    # Made before the real ones: a config that is made resets the state of accelerate.
    plain = config_class(output_dir="unused", use_cpu="--use_cpu" in rest).to_dict()
    return [_run(parser, rest, seed, len(seeds) > 1, command, plain) for seed in seeds]


def _run(
    parser: HfArgumentParser, argv: list[str], seed: str, several: bool, command: str, defaults: dict[str, Any]
) -> Run:
    model, data, recipe, training, _ = parser.parse_args_into_dataclasses([*argv, "--seed", seed])
    if training.resume_from_checkpoint is not None:
        parser.error("--resume_from_checkpoint is not used: a recipe that is started again goes on by itself.")
    if isinstance(data, DataArguments):
        _check_files(parser, data)
    if several:
        training.output_dir = str(Path(training.output_dir) / f"seed-{seed}")
    return Run(model, data, recipe, training, command, defaults)


def _check_files(parser: HfArgumentParser, data: DataArguments) -> None:
    if data.train_file is None and (data.validation_file is not None or data.test_file is not None):
        parser.error("--validation_file and --test_file go with --train_file.")
    if data.train_file is not None and data.task_name is not None:
        parser.error("give either --task_name or --train_file, not both.")


def _split_off(argv: list[str]) -> tuple[str | None, list[str], list[str]]:
    """Takes `--config` and `--seed`, which may name several, from a command line."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config")
    parser.add_argument("--seed", nargs="+", default=[])
    known, rest = parser.parse_known_args(argv)
    for seed in known.seed:
        if not seed.isdigit():
            parser.error(f"argument --seed: {seed!r} is not a whole number.")
    return known.config, known.seed, rest


def _read_yaml(parser: HfArgumentParser, path: str) -> tuple[list[str], list[str]]:
    """A file's options as words of a command line, which argparse then checks like any other, and its seeds."""
    known = {action.dest for action in parser._actions}
    try:
        values = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (OSError, yaml.YAMLError) as error:
        parser.error(f"cannot read the config file {path}: {error}")
    if not isinstance(values, dict):
        parser.error(f"the config file {path} must hold one `option: value` per line.")
    words: list[str] = []
    for key, value in values.items():
        if key not in known or key in ("config", "help"):
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            parser.error(f"the config file {path} has the unknown option {key!r}{hint}")
        if value is None:
            parser.error(f"the config file {path} gives {key} no value: leave the line out for the default.")
        if key != "seed":
            words += [f"--{key}", *(_word(one) for one in _as_list(value))]
    return words, [str(seed) for seed in _as_list(values.get("seed", []))]


def _word(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | bool) else str(value)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def command_line(argv: Sequence[str] | None, script: str | None = None) -> str:
    """What was typed, with a recipe's path inside the repository; or what stands for it."""
    started = Path(sys.argv[0])
    if started.parent.name == "recipes" and argv is None:
        words = ["python", f"recipes/{started.name}"]
    else:
        words = ["bertkd", Path(script or started).stem.replace("_", "-")]
    return shlex.join([*words, *(sys.argv[1:] if argv is None else argv)])


def check_stages(given: Sequence[str], stages: Sequence[str]) -> None:
    """Raises ValueError unless some of the stages are given, in their order."""
    if not given or [stage for stage in stages if stage in given] != list(given):
        raise ValueError(f"--stages are some of {', '.join(stages)}, in this order, not {' '.join(given)}.")


def with_changes(config: Config, **changes: Any) -> Config:
    """A copy of a config with other values, without running its `__post_init__`, which resets accelerate's state."""
    changed = copy.copy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed
