"""Knows where stock `transformers` encoders keep their parts, pruned models, and attention scores."""

import transformers

from bertkd.models.families import FAMILIES, Family, encoder_layers, family_of
from bertkd.models.labels import label_names, label_permutation
from bertkd.models.pruned import PRUNED_CLASSES
from bertkd.models.scores import CapturedScores, attention_scores
from bertkd.models.sizes import LayerSizes, layer_sizes, refuse_factorized_or_shared

__all__ = [
    "FAMILIES",
    "CapturedScores",
    "Family",
    "LayerSizes",
    "attention_scores",
    "encoder_layers",
    "family_of",
    "label_names",
    "label_permutation",
    "layer_sizes",
    "refuse_factorized_or_shared",
]

# From here on `AutoConfig` and `AutoModelFor...` open pruned models.
for _pruned in PRUNED_CLASSES:
    transformers.AutoConfig.register(_pruned.config_class.model_type, _pruned.config_class, exist_ok=True)
    getattr(transformers, _pruned._auto_class).register(_pruned.config_class, _pruned, exist_ok=True)
