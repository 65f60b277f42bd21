"""Train a masked language model on text: a head for an encoder that has none, or an adaptation to text of your own.

    bertkd mlm --model_name_or_path minilm --corpus_files wiki.txt reviews.parquet --output_dir outputs/mlm

TinyBERT's augmentation (bertkd augment, bertkd tinybert) takes words from such a model, and DistilBERT learns from
one. With --freeze_encoder only the head learns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import set_seed

from bertkd import DistilBertKDConfig, DistilBertKDTrainer
from bertkd.cli import resolve
from bertkd.cli.commands import CorpusRun, train_on_corpus
from bertkd.cli.options import TrainOptions
from bertkd.pipeline import load_language_model, resolve_model_name, train_on_text
from bertkd.records import StageResult


@dataclass
class MaskedLMOptions(TrainOptions):
    """What learns."""

    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head alone."})


def train(options: CorpusRun[MaskedLMOptions, DistilBertKDConfig]) -> StageResult | None:
    """Trains one model, by DistilBERT's trainer without a teacher."""
    config = options.config
    if options.models.model_name_or_path is None:
        raise ValueError("Name the model with --model_name_or_path.")
    if config.compares_logits or config.alpha_cos > 0:
        raise ValueError("There is no teacher to learn from: leave alpha_ce, alpha_mse and alpha_cos at 0.")

    name = resolve_model_name(options.models.model_name_or_path)
    set_seed(config.seed)  # the weights of a new head
    # An encoder without a head for masked words gets one, which may learn alone.
    model = load_language_model(name, needs_head=False)
    if options.own.freeze_encoder:
        model.base_model.requires_grad_(False)

    tokenizer = resolve.tokenizer_for(options.models)
    return train_on_text(
        options.experiment(),
        resolve.corpus_rows(options, tokenizer),
        model,
        config,
        DistilBertKDTrainer,
        "mlm",
        tokenizer,
        auto_class="AutoModelForMaskedLM",
        untrained="a classification head is",
    )


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    """Trains one model per seed."""
    losses = {"alpha_ce": 0.0, "alpha_mlm": 1.0, "alpha_cos": 0.0}
    # All tokens are masked alike, as BERT was trained.
    defaults = {**losses, "mlm_smoothing": 0.0, "corpus_mode": "block"}
    return train_on_corpus("mlm", str(__doc__), DistilBertKDConfig, train, argv, defaults, MaskedLMOptions)
