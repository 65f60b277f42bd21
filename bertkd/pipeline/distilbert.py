"""Makes the general student that DistilBERT's pretraining starts from."""

from collections.abc import Sequence

from transformers import PreTrainedModel, set_seed

from bertkd.distilbert import distilbert_layers, distilbert_student
from bertkd.students import layers_to_keep

__all__ = ["PAPER_LAYERS", "general_student", "layers_of_student"]

# The name of the paper's choice of layers, see `distilbert_layers`.
PAPER_LAYERS = "distilbert"


def layers_of_student(layers: str, count: int | None, depth: int) -> list[int]:
    """The layers of a teacher of `depth` that the student starts from, 0-based.

    Args:
        layers: `PAPER_LAYERS`, or as in `layers_to_keep`.
        count: how many; None for as many as the paper's.
        depth: the teacher's number of layers.

    Raises:
        ValueError: another number than the paper's without saying which layers, or layers that do not fit.
    """
    papers = distilbert_layers(depth)
    if layers != PAPER_LAYERS:
        return layers_to_keep(layers, depth, count or len(papers))

    if count not in (None, len(papers)):
        raise ValueError(
            f"The paper's layers of {depth} are {', '.join(map(str, papers))}: for another number name them too, "
            "e.g. --student_layers 0,3, or first, every, last."
        )
    return papers


def general_student(
    teacher: PreTrainedModel, layers: Sequence[int], fold_token_types: bool = True, random_seed: int | None = None
) -> PreTrainedModel:
    """A DistilBERT of some of the layers of a masked language model.

    Args:
        teacher: the masked language model.
        layers: which of its layers, 0-based.
        fold_token_types: whether the teacher's token type 0 is added to the positions; the released code does not.
        random_seed: draws random weights instead of the teacher's; None for the teacher's.
    """
    student = distilbert_student(teacher, layers, fold_token_types)
    if random_seed is None:
        return student

    set_seed(random_seed)
    return type(student)(student.config)
