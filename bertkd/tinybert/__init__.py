"""TinyBERT (Jiao et al., arXiv 1909.10351): a thinner student learns attention, states, embeddings and predictions."""

from bertkd.tinybert.config import TinyBertKDConfig
from bertkd.tinybert.student import SHAPES, Shape, load_released, small_student
from bertkd.tinybert.trainer import TinyBertKDTrainer

__all__ = ["SHAPES", "Shape", "TinyBertKDConfig", "TinyBertKDTrainer", "load_released", "small_student"]
