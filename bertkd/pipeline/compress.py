"""Chooses the largest student within a budget by measuring, and tells whether the deployed model keeps it."""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bertkd.atomic import read_json, write_json
from bertkd.distilbert import distilbert_layers, distilbert_student
from bertkd.efficiency import count_parameters
from bertkd.models import layer_sizes
from bertkd.pipeline.deployment import Deployment
from bertkd.pipeline.limits import Limit
from bertkd.students import Shape, drop_layers, layers_to_keep, small_student

__all__ = ["Choice", "Goal", "Size", "choose_size", "depth_sizes", "general_sizes", "shape_sizes"]

FILE = "size.json"
# Shares of the teacher's layers and hidden size that a new student may have.
SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)


@dataclass(frozen=True)
class Goal:
    """The most that the deployed model may cost, and where it is to serve."""

    limit: Limit
    deployment: Deployment

    def cost(self, model: PreTrainedModel) -> float:
        """What a model costs when it is deployed, in the unit of the budget."""
        return self.deployment.cost(model, self.limit.cost_unit)


@dataclass(frozen=True)
class Choice:
    """What the size of a student was chosen by.

    Attributes:
        budget: a number in the unit; for a share that was asked for, the number that it stands for.
        predicted: what the student costs, before it is trained.
        whole: what the teacher costs, where that was measured.
        teacher_value: the teacher's metric, where points of it are the budget.
    """

    budget: float
    predicted: float
    whole: float | None = None
    teacher_value: float | None = None


@dataclass(frozen=True)
class Size:
    """A student that might be trained.

    Attributes:
        name: for people, such as "3 layers".
        make: gives a model of this size, whose weights do not matter.
        layers: the teacher's layers that it has, 0-based, where it is made of layers.
        shape: its shape, where it starts with random weights.
    """

    name: str
    make: Callable[[], PreTrainedModel]
    layers: tuple[int, ...] = ()
    shape: Shape | None = None


def depth_sizes(teacher: PreTrainedModel, least: int = 1) -> list[Size]:
    """Students of the teacher's first layers, from all of them down to `least`."""
    depth = teacher.config.num_hidden_layers
    sizes = []

    for count in range(depth, least - 1, -1):
        layers = tuple(layers_to_keep("first", depth, count))
        sizes.append(Size(_layers(count), lambda layers=layers: drop_layers(teacher, layers), layers))  # type: ignore[misc]
    return sizes


def general_sizes(language_model: PreTrainedModel, num_labels: int) -> list[Size]:
    """Students that DistilBERT's two steps make of layers of a masked language model, from all layers down to one.

    Args:
        language_model: whose layers they start from.
        num_labels: of the task.
    """
    depth = language_model.config.num_hidden_layers
    papers = distilbert_layers(depth)
    sizes = []

    for count in range(depth, 0, -1):
        layers = tuple(papers if len(papers) == count else layers_to_keep("every", depth, count))

        def make(layers: tuple[int, ...] = layers) -> PreTrainedModel:
            config = distilbert_student(language_model, layers).config
            config.num_labels = num_labels
            return AutoModelForSequenceClassification.from_config(config)

        sizes.append(Size(_layers(count), make, layers))
    return sizes


def shape_sizes(teacher: PreTrainedModel, unit: str) -> list[Size]:
    """Students of shares of the teacher's depth and hidden size, the largest first.

    For a budget in milliseconds or FLOPs they are ordered by the weights of their layers, else by all parameters, most
    of which may lie in the embeddings.
    """
    config, sizes = teacher.config, layer_sizes(teacher)
    neurons, heads = max(sizes.neurons), max(sizes.heads)

    shapes = set()
    for depth in SHARES:
        for width in SHARES:
            hidden = max(1, round(width * config.hidden_size / heads)) * heads
            inner = max(1, round(neurons * hidden / config.hidden_size))
            shapes.add(Shape(max(1, math.floor(depth * config.num_hidden_layers)), hidden, inner))

    def weights(shape: Shape) -> int:
        with torch.device("meta"):  # nothing is allocated
            parameters = count_parameters(small_student(teacher, shape))
        return parameters.encoder if unit in ("ms", "gflops") else parameters.total

    ordered = sorted(shapes, key=weights, reverse=True)
    return [
        Size(
            f"{shape.num_hidden_layers} layers x {shape.hidden_size}",
            lambda shape=shape: small_student(teacher, shape),  # type: ignore[misc]
            shape=shape,
        )
        for shape in ordered
    ]


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def choose_size(
    sizes: Sequence[Size],
    goal: Goal,
    teacher: Callable[[], PreTrainedModel],
    folder: Path | None,
    asked: dict[str, Any],
    method_name: str,
) -> tuple[Size, Choice]:
    """The largest size within the budget, or what an earlier start of the same command chose.

    Another measurement may end otherwise, and would throw away a training that has begun.

    Args:
        sizes: from large to small.
        goal: the budget.
        teacher: loads the model of which the budget may be a share.
        folder: where the choice is kept; None for nowhere.
        asked: everything that the choice depends on.
        method_name: for the message.

    Raises:
        ValueError: the smallest size costs more than the budget.
    """
    path = None if folder is None else folder / FILE
    by_name = {size.name: size for size in sizes}

    if path is not None and path.is_file():
        known = read_json(path)
        if not isinstance(known, dict) or not {"asked", "size", "predicted"} <= known.keys():
            raise ValueError(f"{path} does not hold the choice of a size: remove it, and the size is measured again.")
        # Earlier versions did not note what the teacher holds.
        known["asked"].setdefault("contents", asked.get("contents"))
        # Earlier versions noted more than the choice depends on.
        earlier = {name: value for name, value in known["asked"].items() if name in asked}
        # A folder may hold the choice for another teacher, which has other sizes.
        if earlier == json.loads(json.dumps(asked)) and known["size"] in by_name:
            # Earlier versions knew no shares of the teacher's cost.
            whole = known.get("whole")
            return by_name[known["size"]], Choice(goal.limit.amount(whole or 0.0), float(known["predicted"]), whole)

    whole = goal.cost(teacher().eval()) if goal.limit.is_share else None
    budget = goal.limit.amount(whole or 0.0)
    size, predicted = _largest_within(sizes, goal, budget, method_name)
    if path is not None:
        write_json(path, {"asked": asked, "size": size.name, "predicted": predicted, "whole": whole})
    return size, Choice(budget, predicted, whole)


def _largest_within(sizes: Sequence[Size], goal: Goal, budget: float, method_name: str) -> tuple[Size, float]:
    """The first size within the budget, a number in its unit, by bisection; and its cost."""
    unit = goal.limit.unit
    if not sizes:
        raise ValueError(f"The model has too few layers for {method_name}.")

    @cache
    def cost(index: int) -> float:
        measured = goal.cost(sizes[index].make().eval())
        print(f"{sizes[index].name}: {measured:.4g} {unit}", flush=True)
        return measured

    low, high = 0, len(sizes) - 1
    if cost(high) > budget:
        share = f"{goal.limit}, which is " if goal.limit.is_share else ""
        deployment = goal.deployment
        raise ValueError(
            f"No student of {method_name} is within {share}{budget:g} {unit} with {deployment.engine} in "
            f"{deployment.precision}: the smallest, {sizes[high].name}, takes {cost(high):.4g}."
        )

    # Sizes go from large to small, and so do their costs: halving finds the largest one with few measurements.
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= budget else (middle + 1, high)
    return sizes[high], cost(high)
