"""Settings of `DistillationTrainer`."""

import inspect
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import Any, ClassVar

from transformers import TrainingArguments

from bertkd.efficiency import is_fast_in_bfloat16

__all__ = ["MINIMA", "DistillationConfig", "method_settings"]

# The smallest values of numbers that `TrainingArguments` does not check itself.
MINIMA = {
    "eval_accumulation_steps": 1,
    "gradient_accumulation_steps": 1,
    "learning_rate": 0,
    "max_grad_norm": 0,
    "num_train_epochs": 0,
    "per_device_eval_batch_size": 1,
    "per_device_train_batch_size": 1,
    "warmup_steps": 0,
    "weight_decay": 0,
}


def _is_number(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _is_list_of(is_item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list | tuple) and all(map(is_item, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


# For the type of a field: its description for messages, and whether a value is of it.
_TYPES: dict[Any, tuple[str, Callable[[Any], bool]]] = {
    float: ("a number", _is_number),
    int: ("a whole number", _is_whole),
    bool: ("True or False", lambda value: isinstance(value, bool)),
    str: ("a text", _is_text),
    list[float]: ("a list of numbers", _is_list_of(_is_number)),
    float | None: ("a number or None", lambda value: value is None or _is_number(value)),
    int | None: ("a whole number or None", lambda value: value is None or _is_whole(value)),
    str | None: ("a text or None", lambda value: value is None or _is_text(value)),
    list[str] | None: ("a list of texts or None", lambda value: value is None or _is_list_of(_is_text)(value)),
}
_NUMBERS = (float, int, float | None, int | None)


@dataclass
class DistillationConfig(TrainingArguments):
    """`transformers.TrainingArguments` with the settings of vanilla knowledge distillation.

    `L = (1 - alpha) · CE(student, labels) + alpha · T² · KL(teacher || student)`, both softmaxes of the second term at
    temperature T (Hinton et al., arXiv 1503.02531). For a regression task both terms are mean squared errors and T is
    not used.

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    # Batches of similar length: on real GLUE tasks the largest saving there is, and seeded, so that a resumed run
    # sees the same batches.
    train_sampling_strategy: str = field(
        default="group_by_length",
        metadata={"help": "The order of the training rows: group_by_length, random, sequential or batch_rebalance."},
    )
    max_tokens_per_batch: int | None = field(
        default=None,
        metadata={
            "help": "The most tokens of a micro-batch, padding included. It replaces per_device_train_batch_size."
        },
    )
    alpha: float = field(default=0.5, metadata={"help": "The weight of the soft term; 1 - alpha weights the labels."})
    temperature: float = field(default=2.0, metadata={"help": "The temperature of both softmaxes in the soft term."})
    kd_reduction: str = field(
        default="batchmean",
        metadata={"help": "How the soft term is averaged: over rows (batchmean), or over rows and classes (mean)."},
    )
    teacher_labels: list[str] | None = field(
        default=None,
        metadata={
            "help": "The names of the teacher's labels, in the order of its logits. By default its config says them."
        },
    )
    teacher_cache_dir: str | None = field(
        default=None,
        metadata={"help": "Compute the teacher's outputs for the training rows once and keep them in this folder."},
    )
    teacher_cache_dtype: str = field(
        default="float32", metadata={"help": "How the teacher's outputs are stored: float32 or float16."}
    )

    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "It would hide losses that are not finite, with which the trainers stop. Leave it off."},
    )

    # Whether other stages are trained with the same settings, of which each reads its own.
    is_one_of_several_stages: ClassVar[bool] = False

    def __post_init__(self) -> None:
        # Before transformers compares values with numbers.
        self._check_types()
        super().__post_init__()
        self.check_settings()
        if self.bf16 and not is_fast_in_bfloat16(self.device):
            processor = "CPU" if self.device.type == "cpu" else "GPU"
            warnings.warn(
                f"bf16 is slower than float32 here, because this {processor} has no instructions for bfloat16: leave "
                "it out.",
                stacklevel=3,
            )

    def check_settings(self) -> None:
        """Checks the values as they are now; called when the config is made, and again where a value has changed.

        Raises:
            ValueError: a value is of a wrong type, not finite or out of its range, or a choice is unknown.
        """
        self._check_types()
        self._check_numbers()

        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha weights the soft term and must lie between 0 and 1, not {self.alpha}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, not {self.temperature}.")
        if self.label_smoothing_factor:
            raise ValueError("label_smoothing_factor is not applied by the distillation trainers: leave it at 0.")
        if self.logging_nan_inf_filter:
            raise ValueError(
                "logging_nan_inf_filter would hide losses that are not finite, with which the distillation trainers "
                "stop: leave it off."
            )

        self._check_choice("kd_reduction", ("batchmean", "mean"))
        self._check_choice("teacher_cache_dtype", ("float32", "float16"))
        self._check_choice("train_sampling_strategy", ("group_by_length", "random", "sequential", "batch_rebalance"))

        if self.teacher_cache_dtype != "float32" and self.teacher_cache_dir is None:
            raise ValueError("teacher_cache_dtype has no effect without a cache: give teacher_cache_dir, too.")
        self._check_batches()

    def without_effect(self) -> dict[str, str]:
        """Names the settings that have no effect beside the others, each with the reason.

        Where several stages share their settings, those of other stages are not among them.
        """
        if self.alpha > 0:
            return {}
        reason = "alpha is 0, so that there is no soft term"
        return {"temperature": reason, "kd_reduction": reason}

    def _check_batches(self) -> None:
        """Refuse batches by tokens beside what they cannot keep."""
        if self.max_tokens_per_batch is None:
            return
        if self.auto_find_batch_size:
            raise ValueError(
                "auto_find_batch_size has no effect on batches of max_tokens_per_batch tokens: leave one of them out."
            )
        if self.max_tokens_per_batch < 1:
            raise ValueError(f"max_tokens_per_batch must be at least 1, not {self.max_tokens_per_batch}.")
        if self.train_sampling_strategy != "group_by_length":
            raise ValueError("max_tokens_per_batch groups rows by length: leave train_sampling_strategy as it is.")
        if self.dataloader_drop_last:
            raise ValueError("max_tokens_per_batch uses every row: leave dataloader_drop_last off.")

    def _check_types(self) -> None:
        """Refuse values of another type than their field; of the shared fields, numbers alone are looked at."""
        shared = {member.name for member in fields(TrainingArguments)}
        # Not `member.type`, which HfArgumentParser changes.
        types: dict[str, Any] = {}
        for base in reversed(type(self).__mro__):
            types.update(inspect.get_annotations(base))

        for member in fields(self):
            kind = types[member.name]
            is_looked_at = member.name not in shared or kind in _NUMBERS
            if not is_looked_at or kind not in _TYPES:
                continue

            description, is_right = _TYPES[kind]
            value = getattr(self, member.name)
            # Some of the shared fields say that they are numbers, and have None for a default.
            is_default = value is None and member.default is None
            if not (is_default or is_right(value)):
                raise ValueError(f"{member.name} must be {description}, not {value!r}.")

    def _check_numbers(self) -> None:
        """Refuse numbers that are NaN or infinite, and those of `TrainingArguments` that are too small."""
        for member in fields(self):
            value = getattr(self, member.name)
            for number in value if isinstance(value, list | tuple) else [value]:
                if isinstance(number, float) and not math.isfinite(number):
                    raise ValueError(f"{member.name} must be a finite number, not {number}.")

        for name, minimum in MINIMA.items():
            value = getattr(self, name)
            if isinstance(value, Real) and value < minimum:
                raise ValueError(f"{name} must be at least {minimum}, not {value}.")
        if self.max_steps == 0 or self.max_steps < -1:
            raise ValueError(f"max_steps must be at least 1, or -1 for whole epochs, not {self.max_steps}.")

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")


def method_settings(config: TrainingArguments) -> dict[str, Any]:
    """Returns the settings that a method adds to `TrainingArguments`, by name."""
    shared = {member.name for member in fields(TrainingArguments)}
    settings = {}
    for member in fields(config):
        if member.name not in shared:
            value = getattr(config, member.name)
            settings[member.name] = list(value) if isinstance(value, list | tuple) else value
    return settings
