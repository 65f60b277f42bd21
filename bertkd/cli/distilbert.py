"""DistilBERT's pretraining: from a masked language model and a corpus to a general student with half of its layers.

    bertkd distilbert --config distilbert/original --teacher_model_name_or_path bert-base-uncased \
        --corpus_files wikipedia.txt --output_dir outputs/distilbert

The folder is an ordinary DistilBERT. `bertkd finetune` (--model_name_or_path) fine-tunes it on a task, and `bertkd kd`
does so with a fine-tuned teacher, which is the paper's second step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import PreTrainedModel

from bertkd import DistilBertKDConfig, DistilBertKDTrainer
from bertkd.cli import resolve
from bertkd.cli.commands import CorpusRun, train_on_corpus
from bertkd.cli.options import TrainOptions
from bertkd.distilbert.method import METHODS
from bertkd.pipeline import load_language_model, resolve_model_name, train_on_text
from bertkd.pipeline.distilbert import PAPER_LAYERS, general_student, layers_of_student
from bertkd.records import StageResult

DEFAULTS = {
    "student_layers": PAPER_LAYERS,
    "corpus_min_tokens": 12,
    "corpus_max_unknown": 0.5,
    **METHODS[0].defaults,
}


@dataclass
class DistilBertOptions(TrainOptions):
    """How the student starts."""

    fold_token_types: bool = field(
        default=True,
        metadata={
            "help": "Add the teacher's token type 0 to the positions, which the released code does not do.",
            "needs": "not model_name_or_path",
        },
    )
    random_start: bool = field(
        default=False,
        metadata={
            "help": "Start with random weights, as in the paper's ablation.",
            "needs": "not model_name_or_path",
        },
    )


Run = CorpusRun[DistilBertOptions, DistilBertKDConfig]


def train(options: Run) -> StageResult | None:
    """Trains one student."""
    models = options.models
    if models.teacher_model_name_or_path is None:
        raise ValueError("Name the masked language model to learn from with --teacher_model_name_or_path.")

    name = resolve_model_name(models.teacher_model_name_or_path)
    teacher = load_language_model(name)
    tokenizer = resolve.tokenizer_for(models)
    student = start_of_student(options, teacher)

    return train_on_text(
        options.experiment(),
        resolve.corpus_rows(options, tokenizer),
        student,
        options.config,
        DistilBertKDTrainer,
        "distilbert",
        tokenizer,
        auto_class="AutoModelForMaskedLM",
        untrained="a classification head is",
        teacher=teacher,
    )


def start_of_student(options: Run, teacher: PreTrainedModel) -> PreTrainedModel:
    """The student at its start: a checkpoint to go on with, or some of the teacher's layers, or random weights.

    Raises:
        ValueError: layers that do not fit.
    """
    models, own = options.models, options.own
    if models.model_name_or_path is not None:
        return load_language_model(resolve_model_name(models.model_name_or_path)).train()

    count = models.num_student_layers if models.student_layers == PAPER_LAYERS else resolve.layer_count(models)
    layers = layers_of_student(models.student_layers, count, teacher.config.num_hidden_layers)
    seed = options.config.seed if own.random_start else None
    return general_student(teacher, layers, own.fold_token_types, seed)


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    """Trains one student per seed."""
    return train_on_corpus("distilbert", str(__doc__), DistilBertKDConfig, train, argv, DEFAULTS, DistilBertOptions)
