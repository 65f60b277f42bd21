"""DistilBERT (Sanh et al., arXiv 1910.01108): a general student learns soft targets, masked words and states."""

from bertkd.distilbert.config import DistilBertKDConfig
from bertkd.distilbert.student import distilbert_layers, distilbert_student
from bertkd.distilbert.trainer import DistilBertKDTrainer

__all__ = ["DistilBertKDConfig", "DistilBertKDTrainer", "distilbert_layers", "distilbert_student"]
