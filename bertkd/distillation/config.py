"""Settings of `DistillationTrainer`."""

from dataclasses import dataclass, field

from transformers import TrainingArguments

__all__ = ["DistillationConfig"]


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

    def __post_init__(self) -> None:
        super().__post_init__()

        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha weights the soft term and must lie between 0 and 1, not {self.alpha}.")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be greater than 0, not {self.temperature}.")
        if self.label_smoothing_factor:
            raise ValueError("label_smoothing_factor is not applied by the distillation trainers: leave it at 0.")
        if self.max_tokens_per_batch is not None and self.train_sampling_strategy != "group_by_length":
            raise ValueError("max_tokens_per_batch groups rows by length: leave train_sampling_strategy as it is.")

        self._check_choice("kd_reduction", ("batchmean", "mean"))
        self._check_choice("teacher_cache_dtype", ("float32", "float16"))
        self._check_choice("train_sampling_strategy", ("group_by_length", "random", "sequential", "batch_rebalance"))

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in choices:
            raise ValueError(f"{name} must be one of {', '.join(choices)}, not {value!r}.")
