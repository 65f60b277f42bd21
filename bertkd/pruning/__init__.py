"""Prunes a model to a budget, fits what is left to the model before, and distills it."""

from bertkd.pruning.budget import Pruner, Selection, prune_to_budget, pruning_costs
from bertkd.pruning.config import PrunedKDConfig
from bertkd.pruning.reconstruction import reconstruct
from bertkd.pruning.scores import UnitScores, unit_scores
from bertkd.pruning.trainer import PrunedKDTrainer

__all__ = [
    "PrunedKDConfig",
    "PrunedKDTrainer",
    "Pruner",
    "Selection",
    "UnitScores",
    "prune_to_budget",
    "pruning_costs",
    "reconstruct",
    "unit_scores",
]
