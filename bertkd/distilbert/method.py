"""Describes DistilBERT to the rest of bertkd."""

from bertkd.distilbert.config import DistilBertKDConfig
from bertkd.distilbert.trainer import DistilBertKDTrainer
from bertkd.distillation.method import Method

__all__ = ["METHODS"]

METHODS = (
    Method(
        name="distilbert",
        label="DistilBERT",
        command="distilbert",
        arxiv="1910.01108",
        trainer_class=DistilBertKDTrainer,
        config_class=DistilBertKDConfig,
        # Those of the released code, but for the batch, which its README makes 4,000 and more by accumulation.
        defaults={
            "learning_rate": 5e-4,
            "num_train_epochs": 3,
            "adam_beta2": 0.98,
            "adam_epsilon": 1e-6,
            "max_grad_norm": 5.0,
            "warmup_steps": 0.05,
            "weight_decay": 0.0,
        },
        compared_with="distilbert-mlm",
        student="pretrained",
        variants={
            "distilbert-kd": "DistilBERT, second step",
            "distilbert-mlm": "DistilBERT without distillation",
            "distilbert-noce": "DistilBERT w/o soft targets",
            "distilbert-nocos": "DistilBERT w/o cosine",
            "distilbert-nomlm": "DistilBERT w/o masked words",
            "distilbert-random": "DistilBERT from a random start",
            "mlm": "Masked language modeling",
        },
        variants_compared_with={"distilbert-kd": "distilbert"},
    ),
)
