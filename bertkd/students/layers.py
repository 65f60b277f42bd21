"""Makes students with fewer layers: an ordinary model of the same class with some of its layers."""

import copy
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from transformers import PretrainedConfig

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import family_of, refuse_wrapper
from bertkd.models.sizes import Model, match_device_dtype_and_mode, new_model

__all__ = ["LAYER_STRATEGIES", "drop_layers", "layers_to_keep"]

LAYER_STRATEGIES = ("first", "every", "last")


def layers_to_keep(strategy: str, teacher_layers: int, student_layers: int) -> list[int]:
    """Chooses the layers of the teacher that a student starts from, counted from 0.

    Args:
        strategy: "first" (the first n layers: the Patient-KD authors' choice), "every" (the last layer of each of n
            equal groups: 1, 3, 5, ... when halving), "last" (the last n layers) or an explicit list such as "0,2,4".
        teacher_layers: N, how many layers there are.
        student_layers: n, how many to keep.

    Raises:
        ValueError: more layers than there are, an unknown strategy, or a list of another length.
    """
    if not 1 <= student_layers <= teacher_layers:
        raise ValueError(
            f"Cannot keep {student_layers} of {teacher_layers} layers: choose between 1 and {teacher_layers}."
        )

    if strategy == "first":
        return list(range(student_layers))
    if strategy == "last":
        return list(range(teacher_layers - student_layers, teacher_layers))
    if strategy == "every":
        return [(j + 1) * teacher_layers // student_layers - 1 for j in range(student_layers)]

    try:
        keep = [int(item) for item in strategy.split(",")]
    except ValueError:
        raise ValueError(
            f"Unknown layers {strategy!r}: give one of {', '.join(LAYER_STRATEGIES)}, or a list of 0-based layers "
            "such as 0,2,4."
        ) from None
    _check_layers(keep, teacher_layers)
    if len(keep) != student_layers:
        raise ValueError(
            f"The layer list {strategy} names {len(keep)} layers, but the student is to have {student_layers}."
        )
    return keep


def _check_layers(keep: Sequence[int], num_layers: int) -> None:
    in_range = all(0 <= layer < num_layers for layer in keep)
    increasing = all(a < b for a, b in pairwise(keep))
    if not keep or not in_range or not increasing:
        raise ValueError(
            f"Cannot keep layers {list(keep)} of a model with {num_layers} layers: give increasing numbers from 0 to "
            f"{num_layers - 1}."
        )


def drop_layers(model: Model, keep: Sequence[int]) -> Model:
    """Makes a new model of the same class with the layers `keep` of `model`; everything else is copied.

    The result is an ordinary checkpoint: `save_pretrained` and plain `transformers` load it again. `model` and its
    config are left as they are. The new model is on the same device, in the same dtype and mode.

    Args:
        model: any model, with or without a head, of a family in `bertkd.models.families`.
        keep: 0-based layers, increasing, e.g. `[0, 2, 4]`.

    Raises:
        ValueError: `keep` is empty, out of range or not increasing, the `model_type` is not supported, or `model` is a
            supernet (many sizes in one).
    """
    refuse_wrapper(model)
    refuse_supernet(model, "drop_layers")
    return copy_layers(model, keep)


def copy_layers(model: Model, keep: Sequence[int]) -> Model:
    """Does what `drop_layers` does, also for a supernet, whose layers are copied at full size.

    Raises:
        ValueError: `keep` is empty, out of range or not increasing, or the `model_type` is not supported.
    """
    prefix = f"{family_of(model).layers}."
    _check_layers(keep, model.config.num_hidden_layers)
    new_numbers = {old: new for new, old in enumerate(keep)}

    student: Model = new_model(type(model), _shorter(model.config, new_numbers), like=model)
    student.load_state_dict(_renumber(model.state_dict(), prefix, new_numbers))
    return match_device_dtype_and_mode(student, model)


def _shorter(config: PretrainedConfig, new_numbers: dict[int, int]) -> PretrainedConfig:
    """Copies the config for the layers in `new_numbers`; a pruned model's layers have sizes and groups there."""
    config = copy.deepcopy(config)
    # The sizes are read while the config still has all of these layers.
    sizes, groups = config.to_dict().get("per_layer_config"), getattr(config, "layer_groups", None)
    config.num_hidden_layers = len(new_numbers)

    if sizes is not None:
        kept_sizes: dict[int | str, dict[str, Any]] = {}
        for layer, size in sizes.items():
            if int(layer) in new_numbers:
                kept_sizes[new_numbers[int(layer)]] = size
        config.per_layer_config = kept_sizes
    if groups is not None:
        config.layer_groups = [groups[layer] for layer in new_numbers]
    return config


def _renumber(state: dict, prefix: str, new_numbers: dict[int, int]) -> dict:
    """Puts layer `old` of a state dict under the number `new_numbers[old]`, and leaves out layers without one."""
    renamed = {}
    for name, tensor in state.items():
        before, separator, after = name.partition(prefix)

        # The prefix must be whole parts of the name: nothing else than a layer's weight is renamed.
        is_in_a_layer = separator and (not before or before.endswith("."))
        if not is_in_a_layer:
            renamed[name] = tensor
            continue

        number, _, part = after.partition(".")
        if int(number) in new_numbers:
            renamed[f"{before}{prefix}{new_numbers[int(number)]}.{part}"] = tensor
    return renamed
