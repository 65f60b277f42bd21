"""Describes DynaBERT to the rest of bertkd."""

from bertkd.distillation.method import Method, combined
from bertkd.dynabert.config import STAGES, DynaBertKDConfig
from bertkd.dynabert.trainer import DynaBertKDTrainer

__all__ = ["METHODS"]

STAGE_LABELS = {"width": "stage width", "depth": "stage depth", "finetune": "fine-tuned"}
# What a training may do otherwise than by default: ends of names, in their order, and of labels.
CHANGES = (
    {"-unwired": ", not rewired"},
    {"-nokd": ", without distillation"},
    {"-augmented": ", augmented rows"},
)


def _variants() -> dict[str, str]:
    """The names of each stage, as it is, without parts of the method, and on augmented rows."""
    labels = {}

    for end, changes in combined(CHANGES).items():
        for stage in STAGES:
            labels[f"dynabert-{stage}{end}"] = f"DynaBERT, {STAGE_LABELS[stage]}{changes}"

    return {**labels, "dynabert-subnetwork": "DynaBERT, a sub-network"}


METHODS = (
    Method(
        name="dynabert",
        label="DynaBERT",
        command="dynabert",
        arxiv="2004.04037",
        trainer_class=DynaBertKDTrainer,
        config_class=DynaBertKDConfig,
        defaults={"learning_rate": 2e-5, "num_train_epochs": 3, "warmup_steps": 0.0, "weight_decay": 0.0},
        student="supernet",
        variants=_variants(),
    ),
)
