"""Makes students of another shape than the teacher's, with random weights."""

from dataclasses import dataclass
from typing import TypeVar

from transformers import PreTrainedModel

from bertkd.models import family_of
from bertkd.students.width import config_for, stock_class_of

__all__ = ["SHAPES", "Shape", "small_student"]

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Shape:
    """Layers, hidden size, feed-forward neurons and attention heads of a student; None takes the teacher's number."""

    num_hidden_layers: int
    hidden_size: int
    intermediate_size: int
    num_attention_heads: int | None = None


# These shapes are the TinyBERT paper's (arXiv 1909.10351, table 1). Both have the 12 heads of BERT-base, because
# attention scores are compared head by head.
SHAPES = {"TinyBERT4": Shape(4, 312, 1200), "TinyBERT6": Shape(6, 768, 3072)}


def small_student(teacher: Model, shape: Shape | str) -> Model:
    """Makes a randomly initialized model of the teacher's stock class, vocabulary and labels, in another shape.

    Args:
        teacher: a model of a family in `bertkd.models.families`.
        shape: a `Shape`, or the name of one of the paper's: "TinyBERT4", "TinyBERT6".

    Raises:
        ValueError: an unknown name, a hidden size that the heads do not divide, or an unsupported `model_type`.
    """
    if isinstance(shape, str):
        if shape not in SHAPES:
            raise ValueError(f"Unknown shape {shape!r}: give one of {', '.join(SHAPES)}, or a Shape.")
        shape = SHAPES[shape]

    # What was pruned, factorized or shared in the teacher has no meaning in another shape.
    family, student_class = family_of(teacher), stock_class_of(type(teacher))
    config = config_for(student_class, teacher.config, {})
    config.num_hidden_layers = shape.num_hidden_layers
    config.hidden_size = shape.hidden_size
    setattr(config, family.neurons_field, shape.intermediate_size)
    if shape.num_attention_heads is not None:
        setattr(config, family.heads_field, shape.num_attention_heads)

    heads = getattr(config, family.heads_field)
    if shape.hidden_size % heads:
        raise ValueError(
            f"A hidden size of {shape.hidden_size} cannot be divided into {heads} heads; give a multiple of {heads}, "
            "or another number of heads (then leave the attention loss out)."
        )
    student: Model = student_class(config)
    return student
