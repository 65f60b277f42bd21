"""Makes models in the shapes of well-known ones, with random weights, to be measured without a download."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    PreTrainedModel,
)

from bertkd.students import prune

__all__ = ["PRESETS", "Preset"]


@dataclass(frozen=True)
class Preset:
    """A named shape, and how much faster than BERT-base it was published to be.

    Attributes:
        make: makes the model, in eval mode.
        speedup: the published speed-up over BERT-base; None where none was published.
        source: where it was published, and on which hardware.
    """

    make: Callable[[], PreTrainedModel]
    speedup: float | None = None
    source: str = ""


def _bert(layers: int = 12, hidden: int = 768, neurons: int = 3072) -> PreTrainedModel:
    torch.manual_seed(0)
    config = BertConfig(num_hidden_layers=layers, hidden_size=hidden, intermediate_size=neurons)
    return BertForSequenceClassification(config).eval()


def _distilbert() -> PreTrainedModel:
    torch.manual_seed(0)
    return DistilBertForSequenceClassification(DistilBertConfig()).eval()


def _dynabert(layers: int, heads: int, neurons: int) -> PreTrainedModel:
    return prune(_bert(layers), [heads] * layers, [neurons] * layers).eval()


# Committed benchmarks hold these sources word for word.
PATIENT_KD = "Patient-KD, table 3: one Titan RTX, fp16, batch 128"

PRESETS = {
    "bert-base": Preset(_bert, 1.0, "the reference"),
    "bert6": Preset(lambda: _bert(6), 1.94, PATIENT_KD),
    "bert3": Preset(lambda: _bert(3), 3.73, PATIENT_KD),
    "distilbert": Preset(_distilbert, 1.63, "DistilBERT, table 3: Xeon E5-2690 v3, batch 1, with tokenising"),
    "tinybert4": Preset(lambda: _bert(4, 312, 1200), 9.4, "TinyBERT, table 1: one K80, batch 128"),
    "tinybert6": Preset(lambda: _bert(6), 2.0, "TinyBERT, table 1: one K80, batch 128"),
    "dynabert-w0.5-d0.5": Preset(lambda: _dynabert(6, 6, 1536)),
    "dynabert-w0.25-d0.5": Preset(lambda: _dynabert(6, 3, 768), 6.3, "CoFi's comparison: one V100, batch 128"),
    "minilm-l6-h384": Preset(lambda: _bert(6, 384, 1536), 5.3, "MiniLM: GPU"),
}
