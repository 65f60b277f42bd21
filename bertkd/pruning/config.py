"""Settings of `PrunedKDTrainer`."""

from dataclasses import dataclass, field

from bertkd.distillation.config import DistillationConfig

__all__ = ["PrunedKDConfig"]


@dataclass
class PrunedKDConfig(DistillationConfig):
    """`DistillationConfig` for a student that was pruned out of its teacher.

    `L = (1 - alpha) · CE + alpha · T² · KL(teacher || student) + beta · H`

    H compares the hidden states of teacher and student: the mean over kept layers and rows of the squared error over
    the row's real tokens, divided by the variance of the teacher's states there, see
    `bertkd.losses.relative_hidden_loss`. Both terms are of one size then, and no projection is needed. Nothing reads
    labels by default, so that rows of the user's domain without labels can be among the training rows.

    The word embeddings stay as the teacher's, as in CoFi (arXiv 2204.00408): pruning leaves them whole, and a small
    student would spend a good part of each step on their update.

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    alpha: float = field(default=1.0, metadata={"help": "The weight of the soft term; 1 - alpha weights the labels."})
    temperature: float = field(default=1.0, metadata={"help": "The temperature of both softmaxes in the soft term."})
    beta: float = field(default=1.0, metadata={"help": "The weight of the hidden states' loss."})
    freeze_embeddings: bool = field(
        default=True, metadata={"help": "Whether the word embeddings stay as the teacher's, which saves time."}
    )

    def check_settings(self) -> None:
        super().check_settings()

        if self.beta < 0:
            raise ValueError(f"beta weights the hidden states' loss and must not be negative, not {self.beta}.")
        if self.beta > 0 and self.teacher_cache_dir is not None:
            raise ValueError(
                "teacher_cache_dir keeps no hidden states of all tokens, which a pruned student learns from: leave it "
                "out, or set beta=0."
            )
