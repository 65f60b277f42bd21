"""Describes TinyBERT to the rest of bertkd."""

from bertkd.distillation.method import Method, combined
from bertkd.tinybert.config import TinyBertKDConfig
from bertkd.tinybert.trainer import TinyBertKDTrainer

__all__ = ["METHODS"]

# What a training may do otherwise than by default: ends of names, in their order, and of labels.
CHANGES = (
    {"-fromteacher": ", from the teacher's layers", "-nogd": ", w/o general distillation"},
    {"-noda": ", w/o augmentation"},
    {"-noattn": ", w/o attention"},
    {"-nohidn": ", w/o hidden states"},
    {"-noembd": ", w/o embeddings"},
    {"-relative": ", relative states"},
    {"-top": ", top layers", "-bottom": ", bottom layers", "-map": ", a layer map of its own"},
)


def _variants() -> dict[str, str]:
    """The labels of its stages, and of all names with changes but the method's own."""
    labels = {
        "tinybert-general": "TinyBERT, general distillation",
        "tinybert-intermediate": "TinyBERT, intermediate layers",
    }
    for end, changes in combined(CHANGES).items():
        # As the paper has it: "TinyBERT w/o augmentation".
        labels[f"tinybert{end}"] = f"TinyBERT{changes}".replace("TinyBERT, w/o", "TinyBERT w/o")

    del labels["tinybert"]
    return labels


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
        variants=_variants(),
    ),
)
