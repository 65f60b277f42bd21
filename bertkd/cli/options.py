"""Options that several commands share, in the groups that their help shows; commands add their own."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

from bertkd.cli.rules import COUNT, NOT_NEGATIVE, SHARE, Range
from bertkd.distillation import DistillationConfig
from bertkd.dynabert.importance import REDUCTIONS
from bertkd.export import ENGINES, PRECISIONS
from bertkd.pipeline.augmentation import Augmentation
from bertkd.pipeline.deployment import Deployment, Timing
from bertkd.pipeline.dynabert import ImportanceSettings
from bertkd.pipeline.experiment import output_folder
from bertkd.students import SHAPES

__all__ = [
    "MISSING_MODEL",
    "SHARED",
    "AugmentationOptions",
    "CorpusOptions",
    "ImportanceOptions",
    "MeasuringOptions",
    "ModelOptions",
    "RunOptions",
    "ShapeOptions",
    "TaskOptions",
    "TimingOptions",
    "TrainOptions",
    "check_stages",
]

MISSING_MODEL = (
    "Augmentation needs a masked language model: name one with --augment_model, such as bert-base-uncased or a folder "
    "of `bertkd mlm`"
)

# A student with random weights, in a shape of its own, is only made where it does not start from another model.
NEW_STUDENT = ["not model_name_or_path", "init_from=pretrained"]
# DynaBERT computes it once, for the student of its first stage.
IMPORTANCE = ["rewire", "stages=width"]


@dataclass
class ModelOptions:
    """Which models take part, and how the student starts."""

    model_name_or_path: str | None = field(
        default=None,
        metadata={
            "help": "The pretrained checkpoint that is trained, or whose layers the student starts from. The name "
            "'minilm' stands for the checkpoint of the extra 'demo', 'mpnet-base' for that of the extra 'base'.",
            "needs": "init_from=pretrained",
        },
    )
    teacher_model_name_or_path: str | None = field(
        default=None, metadata={"help": "The fine-tuned teacher, a folder or a name of the hub."}
    )
    tokenizer_name: str | None = field(
        default=None, metadata={"help": "The tokenizer, where it is not the one of the teacher or the model."}
    )
    num_student_layers: int | None = field(
        default=None, metadata={"help": "How many layers the student keeps. By default it keeps all.", "range": COUNT}
    )
    student_layers: str = field(
        default="first",
        metadata={"help": "Which layers the student keeps: first, every, last, or 0-based numbers such as 0,2,4."},
    )
    init_from: str = field(
        default="pretrained",
        metadata={
            "choices": ["pretrained", "teacher"],
            "help": "Whether the student starts from model_name_or_path, as the papers do, or from the teacher.",
        },
    )
    ignore_weak_teacher: bool = field(
        default=False, metadata={"help": "Go on although the teacher is no better than a constant answer."}
    )


@dataclass
class TaskOptions:
    """The task: one of GLUE, from the hub or a folder, or the user's own files."""

    task_name: str | None = field(
        default=None, metadata={"help": "A task of GLUE: cola, sst2, mrpc, stsb, qqp, mnli, qnli, rte or wnli."}
    )
    glue_dir: str | None = field(
        default=None,
        metadata={
            "help": "The folder of GLUE's official tsv files. By default the hub is asked.",
            "needs": "task_name",
        },
    )
    train_file: str | None = field(
        default=None, metadata={"help": "A csv, tsv, json or parquet file of your own to train on."}
    )
    validation_file: str | None = field(default=None, metadata={"help": "A file of your own to evaluate on."})
    test_file: str | None = field(default=None, metadata={"help": "A file of your own to predict."})
    unlabeled_file: str | None = field(
        default=None,
        metadata={
            "help": "A file of texts without labels, in the task's text columns, that the student learns from besides "
            "the training rows. It needs --alpha 1: the teacher answers for all of them."
        },
    )
    text_column_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "The one or two text columns of your files. By default they are inferred.",
            "needs": "train_file",
        },
    )
    files_name: str = field(
        default="files", metadata={"help": "The name of your files' task in results.", "needs": "train_file"}
    )
    label_column_name: str = field(
        default="label", metadata={"help": "The label column of your files.", "needs": "train_file"}
    )
    class_names: list[str] | None = field(
        default=None,
        metadata={
            "help": "The classes of your files, in the order of their ids. They are needed where the training rows "
            "have no labels.",
            "needs": "train_file",
        },
    )
    max_seq_length: int = field(
        default=128, metadata={"help": "Longer inputs are cut to this many tokens.", "range": COUNT}
    )
    max_train_samples: int | None = field(
        default=None,
        metadata={"help": "Train on the first rows only; an unlabeled file is read whole.", "range": COUNT},
    )
    max_eval_samples: int | None = field(
        default=None,
        metadata={"help": "Evaluate on the first rows only; test rows are predicted all.", "range": COUNT},
    )
    sample_seed: int | None = field(
        default=None,
        metadata={
            "help": "Draw these rows at random instead of taking the first; sorted files need it.",
            "needs": "max_train_samples or max_eval_samples",
            "range": NOT_NEGATIVE,
        },
    )


@dataclass
class CorpusOptions:
    """The plain text to train on without a task."""

    corpus_files: list[str] | None = field(
        default=None,
        metadata={"help": "Text files with a text per line, or parquet, csv and json. A folder stands for its files."},
    )
    corpus_name: str | None = field(default=None, metadata={"help": "A data set of the hub instead of files."})
    corpus_config: str | None = field(
        default=None, metadata={"help": "The configuration of the hub's data set.", "needs": "corpus_name"}
    )
    corpus_split: str = field(
        default="train", metadata={"help": "The split of the hub's data set.", "needs": "corpus_name"}
    )
    corpus_text_column: str = field(default="text", metadata={"help": "The text column, in files that have columns."})
    corpus_mode: str = field(
        default="sentence",
        metadata={
            "choices": ["sentence", "block"],
            "help": "Whether each text makes a row, or all texts are cut into blocks of equal length.",
        },
    )
    corpus_streaming: bool = field(
        default=False, metadata={"help": "Read the corpus while training. It needs --max_steps."}
    )
    max_corpus_rows: int | None = field(default=None, metadata={"help": "Use the first texts only.", "range": COUNT})
    corpus_min_tokens: int = field(default=0, metadata={"help": "Drop rows with fewer tokens.", "range": NOT_NEGATIVE})
    corpus_max_unknown: float = field(
        default=1.0,
        metadata={
            "help": "Drop rows with this share of unknown tokens or more.",
            "range": Range(least=0, most=1, is_open=True),
        },
    )
    eval_rows: int = field(
        default=500, metadata={"help": "How many rows are held out to evaluate on.", "range": COUNT}
    )
    max_seq_length: int = field(
        default=128, metadata={"help": "The tokens of a row at most; longer texts make several.", "range": COUNT}
    )


@dataclass
class RunOptions:
    """What a command writes into its record."""

    paper: str = field(default="", metadata={"help": "A note for the results file, such as what the paper reports."})
    result_name: str = field(default="", metadata={"help": "The method's name in results files."})


@dataclass
class TrainOptions(RunOptions):
    """What a command that trains does around the training."""

    dry_run: bool = field(
        default=False,
        metadata={"help": "Only say what would be trained, and estimate the time from a few steps."},
    )
    keep_checkpoints: bool = field(default=False, metadata={"help": "Keep the checkpoints of a finished run."})
    measure_speedup: bool = field(
        default=True,
        metadata={"help": "Time the student at the end, beside the model that it replaces."},
    )


@dataclass
class ImportanceOptions(RunOptions):
    """How the importance of heads and neurons is computed."""

    importance_reduction: str = field(
        default="sum_abs",
        metadata={
            "choices": REDUCTIONS,
            "help": "How gradients are added up over rows to an importance.",
            "needs": IMPORTANCE,
        },
    )
    importance_split: str = field(
        default="train",
        metadata={
            "choices": ["train", "validation"],
            "help": "Which rows the importance is computed from. The authors use the validation rows.",
            "needs": IMPORTANCE,
        },
    )
    importance_rows: int = field(
        default=2048,
        metadata={
            "help": "At most this many rows, drawn by the seed, give the importance.",
            "needs": IMPORTANCE,
            "range": COUNT,
        },
    )

    def importance_settings(self) -> ImportanceSettings:
        """The importance that is asked for."""
        return ImportanceSettings(self.importance_reduction, self.importance_split, self.importance_rows)


@dataclass
class ShapeOptions(TrainOptions):
    """The shape of a student that starts with random weights."""

    student_shape: str | None = field(
        default=None,
        metadata={
            "choices": [*SHAPES],
            "help": "A shape of the paper. Numbers that are given beside it win.",
            "needs": NEW_STUDENT,
        },
    )
    num_hidden_layers: int | None = field(
        default=None, metadata={"help": "The student's number of layers.", "needs": NEW_STUDENT, "range": COUNT}
    )
    hidden_size: int | None = field(
        default=None,
        metadata={
            "help": "The student's hidden size, a multiple of the number of heads.",
            "needs": NEW_STUDENT,
            "range": COUNT,
        },
    )
    intermediate_size: int | None = field(
        default=None,
        metadata={
            "help": "The feed-forward neurons of each of the student's layers.",
            "needs": NEW_STUDENT,
            "range": COUNT,
        },
    )
    num_attention_heads: int | None = field(
        default=None,
        metadata={
            "help": "The student's heads. Another number than the teacher's needs --attention_weight 0.",
            "needs": NEW_STUDENT,
            "range": COUNT,
        },
    )


@dataclass
class AugmentationOptions:
    """How the training rows are augmented."""

    augment_model: str | None = field(
        default=None,
        metadata={
            "help": "A masked language model, such as bert-base-uncased or one of `bertkd mlm`.",
            "needs": "augment",
        },
    )
    augment_copies: int | None = field(
        default=None,
        metadata={
            "help": "The variants of each text (N). By default those of the released code for the task, or 20.",
            "needs": "augment",
            "range": COUNT,
        },
    )
    augment_probability: float = field(
        default=0.4, metadata={"help": "The probability of replacing a word (p).", "needs": "augment", "range": SHARE}
    )
    augment_candidates: int = field(
        default=15, metadata={"help": "The number of words to choose from (K).", "needs": "augment", "range": COUNT}
    )
    augment_conditional: bool = field(
        default=True,
        metadata={
            "help": "Show the model the whole sentence too, as the released code does and the paper does not.",
            "needs": "augment",
        },
    )
    augment_vectors: str | None = field(
        default=None,
        metadata={
            "help": "A GloVe text file, for words of several pieces. By default the model's own embeddings.",
            "needs": "augment",
        },
    )
    augment_seed: int = field(
        default=42,
        metadata={
            "help": "The seed of the augmented set, which all seeds share.",
            "needs": "augment",
            "range": NOT_NEGATIVE,
        },
    )
    augment_batch_size: int | None = field(
        default=None,
        metadata={
            "help": "How many masked sentences go through the model at once.",
            "needs": "augment",
            "range": COUNT,
        },
    )
    augment_dir: str | None = field(
        default=None,
        metadata={
            "help": "The folder where finished parts are kept. By default it lies in the output folder.",
            "needs": "augment",
        },
    )

    def augmentation(self, config: DistillationConfig) -> Augmentation:
        """The augmentation that is asked for.

        Raises:
            ValueError: no masked language model is named.
        """
        if self.augment_model is None:
            raise ValueError(f"{MISSING_MODEL}.")

        # Several seeds, each with a folder of its own, share what is augmented.
        output = output_folder(config)
        folder = (output.parent if output.name == f"seed-{config.seed}" else output) / "augmented"
        return Augmentation(
            language_model=self.augment_model,
            folder=Path(self.augment_dir) if self.augment_dir else folder,
            copies=self.augment_copies,
            probability=self.augment_probability,
            candidates=self.augment_candidates,
            conditional=self.augment_conditional,
            vectors=self.augment_vectors,
            seed=self.augment_seed,
            batch_size=self.augment_batch_size,
        )


@dataclass
class TimingOptions(RunOptions):
    """How forward passes are timed."""

    batch_size: int = field(default=1, metadata={"help": "The rows of a measured forward pass.", "range": COUNT})
    sequence_length: int = field(
        default=128, metadata={"help": "The tokens of a measured forward pass.", "range": COUNT}
    )
    threads: int | None = field(
        default=None, metadata={"help": "The CPU threads of a measured forward pass.", "range": COUNT}
    )
    repeats: int = field(default=20, metadata={"help": "How many passes of each model are measured.", "range": COUNT})

    def timing(self) -> Timing:
        """The timing that is asked for."""
        return Timing(self.batch_size, self.sequence_length, self.repeats, self.threads)


@dataclass
class MeasuringOptions(TimingOptions):
    """How a model is run and timed."""

    engine: str = field(default="pytorch", metadata={"choices": ENGINES, "help": "The engine that runs the model."})
    precision: str = field(default="float32", metadata={"choices": PRECISIONS, "help": "What it computes in."})
    device: str = field(
        default="cpu",
        metadata={"help": "Where --engine pytorch runs, and eager PyTorch beside it, such as cuda."},
    )

    def deployment(self) -> Deployment:
        """The engine, precision and timing that are asked for.

        Raises:
            ValueError: the engine does not run on the device, or the device is not here.
        """
        return Deployment(self.engine, self.precision, self.timing(), self.device)


def check_stages(given: Sequence[str], stages: Sequence[str]) -> None:
    """Checks that some of the stages are given, in their order.

    Raises:
        ValueError: they are not.
    """
    if not given or [stage for stage in stages if stage in given] != list(given):
        raise ValueError(f"--stages are some of {', '.join(stages)}, in this order, not {' '.join(given)}.")


def _names(options: type) -> set[str]:
    return {field.name for field in fields(options)}


# Options that several commands share: scripts pass the same words to all of them, such as --augment_model beside
# --augment false.
SHARED = _names(AugmentationOptions) | _names(ImportanceOptions) | _names(MeasuringOptions) | _names(ShapeOptions)
SHARED -= _names(TrainOptions)
