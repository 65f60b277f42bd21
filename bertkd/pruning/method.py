"""Describes pruning to a budget to the rest of bertkd."""

from itertools import product

from bertkd.distillation.method import Method
from bertkd.pruning.config import PrunedKDConfig
from bertkd.pruning.trainer import PrunedKDTrainer

__all__ = ["METHODS", "variant_name"]

# Shares of the teacher's FLOPs that names say; of other budgets the records say what they are.
SHARES = ("50%", "25%", "12.5%")
# What a training may do otherwise than by default: ends of names, in their order, and of labels.
CHANGES = (
    {"-rungs": ", in rungs"},
    {"-unfitted": ", not reconstructed"},
    {"-score": ", units by score", "-error": ", units by error"},
    {"-nohidden": ", without hidden states"},
)


def variant_name(
    share: str = "", has_rungs: bool = False, is_fitted: bool = True, beta: float = 1.0, unit_order: str = "measured"
) -> str:
    """The name of a training in results files.

    Args:
        share: of the teacher's FLOPs that the student may have, one of `SHARES`; empty where its budget is another.
        has_rungs: whether it was pruned from a larger student that was distilled first.
        is_fitted: whether it was reconstructed.
        beta: the weight of the hidden states' loss.
        unit_order: see `Pruner.prepared`.
    """
    name = f"pruned-{share.removesuffix('%')}" if share else "pruned"
    name += "-rungs" if has_rungs else ""
    name += "" if is_fitted else "-unfitted"
    name += "" if unit_order == "measured" else f"-{unit_order}"
    return name + ("" if beta > 0 else "-nohidden")


def _variants() -> dict[str, str]:
    """The labels of all names but the method's own."""
    choices = [{"": "", **change} for change in CHANGES]
    labels = {}
    for share in ("", *SHARES):
        of_share = f", {share} of the FLOPs" if share else ""
        for suffixes in product(*choices):
            changes = "".join(choice[suffix] for choice, suffix in zip(choices, suffixes, strict=True))
            labels[variant_name(share) + "".join(suffixes)] = f"Pruned{of_share}{changes}"
    del labels["pruned"]
    return labels


METHODS = (
    Method(
        name="pruned",
        label="Pruned",
        command="prune",
        # Of the papers that it is made of, the first one.
        arxiv="2204.09656",
        trainer_class=PrunedKDTrainer,
        config_class=PrunedKDConfig,
        # The number of epochs follows that of the rows.
        defaults={"num_train_epochs": 0.0},
        student="pruned",
        variants=_variants(),
    ),
)
