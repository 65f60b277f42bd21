"""TinyBERT (Jiao et al., arXiv 1909.10351): a thinner student learns attention, states, embeddings and predictions."""

from bertkd.tinybert.augmentation import NUM_COPIES, augment
from bertkd.tinybert.config import TinyBertKDConfig
from bertkd.tinybert.released import load_released
from bertkd.tinybert.trainer import TinyBertKDTrainer
from bertkd.tinybert.word_vectors import WordVectors

__all__ = [
    "NUM_COPIES",
    "TinyBertKDConfig",
    "TinyBertKDTrainer",
    "WordVectors",
    "augment",
    "load_released",
]
