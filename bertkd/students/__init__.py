"""Makes students: fewer layers, another shape, less width, a smaller vocabulary, low rank, shared layers."""

from bertkd.students.layers import LAYER_STRATEGIES, drop_layers, layers_to_keep
from bertkd.students.low_rank import factorize
from bertkd.students.shape import SHAPES, Shape, small_student
from bertkd.students.shared_layers import share_layers
from bertkd.students.vocabulary import prune_vocabulary
from bertkd.students.width import prune, separate_position_bias, zero_pad

__all__ = [
    "LAYER_STRATEGIES",
    "SHAPES",
    "Shape",
    "drop_layers",
    "factorize",
    "layers_to_keep",
    "prune",
    "prune_vocabulary",
    "separate_position_bias",
    "share_layers",
    "small_student",
    "zero_pad",
]
