"""What bertkd knows of stock `transformers` encoders, and how it makes smaller ones."""

import transformers

from bertkd.models.factorisation import factorise
from bertkd.models.families import FAMILIES, Family, encoder_layers, family_of
from bertkd.models.labels import label_names, label_permutation
from bertkd.models.layer_drop import LAYER_STRATEGIES, drop_layers, layers_to_keep
from bertkd.models.pruned import PRUNED_CLASSES
from bertkd.models.pruning import LayerSizes, layer_sizes, prune, refuse_levers, zero_pad
from bertkd.models.scores import CapturedScores, attention_scores
from bertkd.models.sharing import share_layers
from bertkd.models.vocabulary import prune_vocabulary

__all__ = [
    "FAMILIES",
    "LAYER_STRATEGIES",
    "CapturedScores",
    "Family",
    "LayerSizes",
    "attention_scores",
    "drop_layers",
    "encoder_layers",
    "factorise",
    "family_of",
    "label_names",
    "label_permutation",
    "layer_sizes",
    "layers_to_keep",
    "prune",
    "prune_vocabulary",
    "refuse_levers",
    "share_layers",
    "zero_pad",
]

# From here on `AutoConfig` and `AutoModelFor...` open pruned models.
for _pruned in PRUNED_CLASSES:
    transformers.AutoConfig.register(_pruned.config_class.model_type, _pruned.config_class, exist_ok=True)
    getattr(transformers, _pruned._auto_class).register(_pruned.config_class, _pruned, exist_ok=True)
