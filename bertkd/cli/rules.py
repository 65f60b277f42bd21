"""Says which options have no effect beside others, and which numbers make no sense; the parser refuses or names them.

A field of an options' dataclass declares its rules in its metadata, beside its help:

- `needs`: the condition under which the option has an effect, or a list of conditions that must all hold.
  "augment" wants that option to be on, "init_from=teacher" and "engine=openvino|onnxruntime" want one of its values,
  "not model_name_or_path" wants it left out, and "max_train_samples or max_eval_samples" wants one of several.
- `range`: the numbers that it may have, a `Range`.

The fields of `TrainingArguments` and of the trainers' configs, which other programs read too, have theirs here.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bertkd.distillation.config import MINIMA

__all__ = [
    "COMMAND_NEEDS",
    "CONFIG_NEEDS",
    "CONFIG_RANGES",
    "COUNT",
    "NOT_NEGATIVE",
    "ONLY_NAMED",
    "POSITIVE",
    "SHARE",
    "Range",
    "is_on",
    "unmet_need",
    "unused_options",
    "unused_settings",
]


@dataclass(frozen=True)
class Range:
    """The numbers that an option may have.

    Attributes:
        least: the smallest; None where there is none.
        most: the largest; None where there is none.
        is_open: whether `least` itself is left out.
        unless: a number outside that means something of its own.
    """

    least: float | None = None
    most: float | None = None
    is_open: bool = False
    unless: float | None = None

    def contains(self, number: float) -> bool:
        """Whether the number is one of them. NaN and infinity never are."""
        if number == self.unless:
            return True
        if not math.isfinite(number):
            return False

        is_large = self.least is None or number > self.least or (number == self.least and not self.is_open)
        return is_large and (self.most is None or number <= self.most)

    def __str__(self) -> str:
        parts = []
        if self.least is not None:
            parts.append(f"greater than {self.least:g}" if self.is_open else f"at least {self.least:g}")
        if self.most is not None:
            parts.append(f"at most {self.most:g}")

        text = " and ".join(parts) or "a finite number"
        return text if self.unless is None else f"{text}, or {self.unless:g} for none"


COUNT = Range(least=1)
POSITIVE = Range(least=0, is_open=True)
NOT_NEGATIVE = Range(least=0)
SHARE = Range(least=0, most=1)

# Where these numbers are out of range, transformers goes on with a default, divides by zero or trains on noise.
CONFIG_RANGES: dict[str, Range] = {
    **{name: Range(least=minimum) for name, minimum in MINIMA.items()},
    "adam_beta1": SHARE,
    "adam_beta2": SHARE,
    "adam_epsilon": POSITIVE,
    "dataloader_num_workers": NOT_NEGATIVE,
    "eval_delay": NOT_NEGATIVE,
    "eval_steps": POSITIVE,
    "logging_steps": POSITIVE,
    "max_steps": Range(least=1, unless=-1),
    "max_tokens_per_batch": COUNT,
    "save_steps": POSITIVE,
    "save_total_limit": COUNT,
}

# Two names of one setting, of which the second is the older one.
CHECKPOINTING = "activation_checkpointing or gradient_checkpointing"

CONFIG_NEEDS: dict[str, str | list[str]] = {
    "dataloader_persistent_workers": "dataloader_num_workers",
    "dataloader_prefetch_factor": "dataloader_num_workers",
    "do_predict": "task_name or test_file",
    "eval_steps": "eval_strategy=steps",
    "fsdp_config": "fsdp",
    "activation_checkpointing_kwargs": CHECKPOINTING,
    "gradient_checkpointing_kwargs": CHECKPOINTING,
    "greater_is_better": "load_best_model_at_end",
    "hub_always_push": "push_to_hub",
    "hub_model_id": "push_to_hub",
    "hub_private_repo": "push_to_hub",
    "hub_revision": "push_to_hub",
    "hub_token": "push_to_hub",
    "logging_steps": "logging_strategy=steps",
    "metric_for_best_model": "load_best_model_at_end",
    # The steps win in transformers.
    "num_train_epochs": "not max_steps",
    "projection_from": "projection=shared|per_level",
    "run_name": "report_to",
    "save_steps": "save_strategy=steps",
    "teacher_cache_dtype": "teacher_cache_dir",
    "torch_compile_backend": "torch_compile",
    "torch_compile_mode": "torch_compile",
}

# What options need in one command alone: the papers of these go on with a checkpoint as it is.
_WHOLE_CHECKPOINT: dict[str, str | tuple[()]] = {
    "num_student_layers": "not model_name_or_path",
    "student_layers": "not model_name_or_path",
}
_CLOCK, _PASS, _FILE = "unit=ms", "unit=ms|gflops", "unit=ms|mb"
# Only some costs depend on how the model is run.
_RUN: dict[str, str | tuple[()]] = {
    "batch_size": _PASS,
    "device": _CLOCK,
    "engine": _FILE,
    "precision": _FILE,
    "repeats": _CLOCK,
    "sequence_length": _PASS,
    "threads": _CLOCK,
}
COMMAND_NEEDS: dict[str, dict[str, str | tuple[()]]] = {
    # Its search computes the importance again.
    "compress": dict.fromkeys(("importance_reduction", "importance_rows", "importance_split"), ()),
    "distilbert": _WHOLE_CHECKPOINT,
    "tinybert-general": _WHOLE_CHECKPOINT,
    "prune": _RUN,
    "search": _RUN,
}

# Where one of these has no effect, the command prints a note and goes on, as it does for options that several commands
# share: scripts pass the same words to all of them.
ONLY_NAMED = {
    "augment_prediction",
    "ignore_weak_teacher",
    "max_seq_length",
    "measure_speedup",
    "model_name_or_path",
    "num_train_epochs",
}

# What a command does not look at, of the options that its dataclasses bring along.
_WITHOUT_TEACHER = {
    "ignore_weak_teacher",
    "init_from",
    "kd_reduction",
    "teacher_cache_dir",
    "teacher_cache_dtype",
    "teacher_labels",
    "temperature",
}
_ON_TEXT = {"alpha", "ignore_weak_teacher", "kd_reduction", "measure_speedup", "paper", "teacher_labels"}
_WITHOUT_STUDENT = {"num_student_layers", "student_layers"}
_UNUSED = {
    "augment": {
        "max_seq_length",
        "model_name_or_path",
        "paper",
        "push_to_hub",
        "result_name",
        "teacher_labels",
        "teacher_model_name_or_path",
        "tokenizer_name",
    },
    "compress": {
        "hidden_size",
        "intermediate_size",
        "num_attention_heads",
        "num_hidden_layers",
        "num_student_layers",
        "stages",
        "student_shape",
    },
    "distilbert": {*_ON_TEXT, "init_from"},
    "dynabert": {"stage"},
    "export": {"paper"},
    "finetune": {*_WITHOUT_TEACHER, "alpha", "unlabeled_file"},
    "mlm": {
        *_ON_TEXT,
        *_WITHOUT_TEACHER,
        *_WITHOUT_STUDENT,
        "project_hidden",
        "restrict_ce_to_mask",
        "teacher_model_name_or_path",
        "tokenizer_name",
    },
    "prune": {*_WITHOUT_STUDENT, "init_from", "model_name_or_path"},
    "search": {"paper", "result_name", "teacher_labels"},
    "shrink": {"teacher_labels", "teacher_model_name_or_path"},
    "tinybert-general": {*_ON_TEXT, "temperature"},
}

# The commands that train nothing, and what of a trainer's config they look at nevertheless.
_WITHOUT_TRAINING = ("augment", "export", "search", "shrink")
_USED_WITHOUT_TRAINING = (
    "bf16",
    "dataloader",
    "ddp",
    "disable_tqdm",
    "fp16",
    "full_determinism",
    "hub",
    "local_rank",
    "log_level",
    "output_dir",
    "per_device_eval_batch_size",
    "push_to_hub",
    "seed",
    "teacher_labels",
    "tf32",
    "use_cpu",
)


def unused_options(command: str) -> set[str]:
    """The options that a command does not look at, whatever else is given."""
    unused = set(_UNUSED.get(command, ()))
    if command in _WITHOUT_TRAINING:
        unused |= {*_WITHOUT_STUDENT, "ignore_weak_teacher", "init_from", "test_file", "unlabeled_file"}
    return unused


def unused_settings(command: str, config_fields: Collection[str]) -> set[str]:
    """The settings of a trainer that a command which trains nothing does not look at.

    They are named and not refused, because the commands of a script often share them.

    Args:
        command: its name.
        config_fields: the names of the trainer's settings.
    """
    if command not in _WITHOUT_TRAINING:
        return set()
    return {name for name in config_fields if not name.startswith(_USED_WITHOUT_TRAINING)}


def is_on(value: Any) -> bool:
    """Whether an option is given and not switched off. Numbers below 1 stand for none, as in `--max_steps -1`."""
    if isinstance(value, list):
        return any(is_on(item) for item in value)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value > 0
    return value not in (None, False, "", "none", "no")


def unmet_need(needs: str | Sequence[str], values: Mapping[str, Any]) -> str | None:
    """What keeps an option from having an effect, as the end of a sentence; None where nothing does.

    Args:
        needs: the option's conditions.
        values: of all options. A condition on an option that the command does not have holds.
    """
    for need in [needs] if isinstance(needs, str) else needs:
        choices = need.split(" or ")
        if not any(_holds(choice, values) for choice in choices):
            return _reason(choices, values)
    return None


def _holds(need: str, values: Mapping[str, Any]) -> bool:
    option, _, wanted = need.removeprefix("not ").partition("=")
    if option not in values:
        return True
    if need.startswith("not "):
        return not is_on(values[option])
    if not wanted:
        return is_on(values[option])

    value = values[option]
    # transformers has some of its choices as an Enum.
    items = [str(getattr(item, "value", item)) for item in (value if isinstance(value, list) else [value])]
    return any(item in wanted.split("|") for item in items)


def _reason(choices: Sequence[str], values: Mapping[str, Any]) -> str:
    """Why none of the conditions holds."""
    option, _, wanted = choices[0].partition("=")
    if option.startswith("not "):
        return f"beside --{option.removeprefix('not ')}"
    if len(choices) > 1:
        return f"without {' or '.join(f'--{choice}' for choice in choices)}"

    value = values[option]
    if not wanted:
        return f"unless --{option} is {'true' if isinstance(value, bool) else 'given'}"
    shown = " ".join(map(str, value)) if isinstance(value, list) else str(getattr(value, "value", value))
    return f"where --{option} is {shown} (it needs {' or '.join(wanted.split('|'))})"
