"""Train a masked language model on text: a head for an encoder that has none, or an adaptation to own text.

    python recipes/train_mlm.py --model_name_or_path minilm --corpus_files wiki.txt reviews.parquet \
        --output_dir outputs/mlm

TinyBERT's augmentation (recipes/augment.py, recipes/tinybert.py) takes words from such a model. With --freeze_encoder
only the head learns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer, set_seed

from bertkd import DistilBertKDConfig, DistilBertKDTrainer
from bertkd.cli.arguments import RecipeArguments, Run
from bertkd.cli.loading import resolve
from bertkd.cli.stages import run_stage, train_on_text
from bertkd.records import StageResult


@dataclass
class MaskedLMArguments(RecipeArguments):
    """What learns."""

    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head alone."})


def train_mlm(run: Run[DistilBertKDConfig]) -> StageResult:
    """Train one model: DistilBERT's trainer without a teacher."""
    if run.model.model_name_or_path is None:
        raise ValueError("Name the model with --model_name_or_path.")
    if run.training.compares_logits or run.training.alpha_cos > 0:
        raise ValueError("There is no teacher to learn from: leave alpha_ce, alpha_mse and alpha_cos at 0.")
    name = resolve(run.model.model_name_or_path)
    set_seed(run.training.seed)  # a new head's weights
    model = AutoModelForMaskedLM.from_pretrained(name, dtype=torch.float32)
    if run.recipe.freeze_encoder:
        model.base_model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(name)
    card = {"auto_class": "AutoModelForMaskedLM", "untrained": "a classification head is"}
    return train_on_text(run, "mlm", DistilBertKDTrainer, model, None, tokenizer, **card)


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    losses = {"alpha_ce": 0.0, "alpha_mlm": 1.0, "alpha_cos": 0.0}
    # All tokens alike, as BERT was trained.
    defaults = {**losses, "mlm_smoothing": 0.0, "corpus_mode": "block"}
    return run_stage(argv, DistilBertKDConfig, train_mlm, defaults, MaskedLMArguments)
