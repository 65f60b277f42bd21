"""The learned map that makes states of different size comparable."""

from torch import nn

__all__ = ["linear_projection"]


def linear_projection(student_size: int, teacher_size: int, std: float) -> nn.Linear:
    """A linear map (..., student_size) to (..., teacher_size), weights from N(0, std²), bias 0."""
    projection = nn.Linear(student_size, teacher_size)
    nn.init.normal_(projection.weight, std=std)
    nn.init.zeros_(projection.bias)
    return projection
