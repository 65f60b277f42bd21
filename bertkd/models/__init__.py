"""What bertkd knows of stock `transformers` encoders, and how it makes smaller ones."""

from bertkd.models.families import FAMILIES, Family, encoder_layers, family_of
from bertkd.models.labels import label_names, label_permutation
from bertkd.models.layer_drop import LAYER_STRATEGIES, drop_layers, layers_to_keep

__all__ = [
    "FAMILIES",
    "LAYER_STRATEGIES",
    "Family",
    "drop_layers",
    "encoder_layers",
    "family_of",
    "label_names",
    "label_permutation",
    "layers_to_keep",
]
