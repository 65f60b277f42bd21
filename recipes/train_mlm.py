"""Train a masked language model on text: a head for an encoder that has none, or an adaptation to own text.

    python recipes/train_mlm.py --model_name_or_path minilm --corpus_files wiki.txt reviews.parquet \
        --output_dir outputs/mlm

TinyBERT's augmentation (recipes/augment.py, recipes/tinybert.py) takes words from such a model. With --freeze_encoder
only the head learns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from arguments import RecipeArguments, Run
from experiment import run_script
from loading import load_corpus_rows, resolve
from stages import run_stage, train_stage
from torch import Tensor
from transformers import AutoModelForMaskedLM, AutoTokenizer, DataCollatorForLanguageModeling, set_seed

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.report import StageResult


@dataclass
class MaskedLMArguments(RecipeArguments):
    """What is masked, and what learns."""

    mlm_probability: float = field(default=0.15, metadata={"help": "Share of the tokens to predict."})
    freeze_encoder: bool = field(default=False, metadata={"help": "Train the head alone."})


class MaskedLMTrainer(DistillationTrainer):
    """The base trainer without a teacher, on labels that the collator makes."""

    auto_model_class = AutoModelForMaskedLM

    @property
    def needs_labels(self) -> bool:
        return False

    def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
        """Cross entropy, mean over the masked tokens of the batch."""
        return F.cross_entropy(student_outputs.logits.float().flatten(0, 1), inputs["labels"].flatten())


def train_mlm(run: Run[DistillationConfig]) -> StageResult:
    """Train one model."""
    if run.model.model_name_or_path is None:
        raise ValueError("Name the model with --model_name_or_path.")
    name = resolve(run.model.model_name_or_path)
    set_seed(run.training.seed)  # a new head's weights
    model = AutoModelForMaskedLM.from_pretrained(name, dtype=torch.float32)
    if run.recipe.freeze_encoder:
        model.base_model.requires_grad_(False)
    tokenizer = AutoTokenizer.from_pretrained(name)
    train_rows, eval_rows = load_corpus_rows(run, tokenizer)

    def make_trainer(config: DistillationConfig) -> MaskedLMTrainer:
        return MaskedLMTrainer(
            model=model,
            args=config,
            train_dataset=train_rows,
            eval_dataset=eval_rows,
            processing_class=tokenizer,
            data_collator=DataCollatorForLanguageModeling(tokenizer, mlm_probability=run.recipe.mlm_probability),
        )

    return train_stage(run, "mlm", make_trainer, "AutoModelForMaskedLM", "a classification head is")


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    defaults = {"alpha": 0.0, "corpus_mode": "block", "prediction_loss_only": True}
    return run_stage(argv, DistillationConfig, train_mlm, defaults, MaskedLMArguments)


if __name__ == "__main__":
    run_script(main)
