"""Describes TinyBERT to the rest of bertkd."""

from bertkd.distillation.method import Method
from bertkd.tinybert.config import TinyBertKDConfig
from bertkd.tinybert.trainer import TinyBertKDTrainer

__all__ = ["METHODS"]

METHODS = (
    Method(
        name="tinybert",
        label="TinyBERT",
        command="tinybert",
        arxiv="1909.10351",
        trainer_class=TinyBertKDTrainer,
        config_class=TinyBertKDConfig,
        # The stage "prediction", with the settings of an example in the released code.
        defaults={"stage": "prediction", "alpha": 1.0, "learning_rate": 3e-5, "num_train_epochs": 3},
        student="shape",
        variants={
            "tinybert-general": "TinyBERT, general distillation",
            "tinybert-intermediate": "TinyBERT, intermediate layers",
            "tinybert-nogd": "TinyBERT w/o general distillation",
            "tinybert-noda": "TinyBERT w/o augmentation",
            "tinybert-noattn": "TinyBERT w/o attention",
            "tinybert-nohidn": "TinyBERT w/o hidden states",
            "tinybert-relative": "TinyBERT, relative states",
            "tinybert-noda-relative": "TinyBERT w/o augmentation, relative states",
        },
    ),
)
