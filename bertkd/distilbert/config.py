"""Settings of `DistilBertKDTrainer`."""

from dataclasses import dataclass, field

from bertkd.distillation.config import DistillationConfig

__all__ = ["DistilBertKDConfig"]


@dataclass
class DistilBertKDConfig(DistillationConfig):
    """`DistillationConfig` with the triple loss of DistilBERT (Sanh et al., arXiv 1910.01108).

    `L = alpha_ce · T² KL(teacher || student) + alpha_mlm · MLM + alpha_cos · COS + alpha_mse · MSE`

    KL and MSE compare the predictions at all tokens but padding, or at the masked ones with `restrict_ce_to_mask`;
    MLM is the cross entropy at the masked ones; COS is 1 - cos between the last hidden states of all tokens. Each is a
    mean over its tokens of the whole optimizer step, however that is split. A part with weight 0 is not computed. The
    default weights are those of the released models; the paper names none.

    `alpha`, `kd_reduction` and `teacher_labels` of the base class are not used.

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    alpha: float = field(
        default=1.0, metadata={"help": "Not used: the weights are alpha_ce, alpha_mlm, alpha_cos and alpha_mse."}
    )
    temperature: float = field(default=2.0, metadata={"help": "The temperature of both softmaxes in the soft term."})
    alpha_ce: float = field(default=5.0, metadata={"help": "The weight of the soft targets."})
    alpha_mlm: float = field(default=2.0, metadata={"help": "The weight of masked language modeling."})
    alpha_cos: float = field(default=1.0, metadata={"help": "The weight of the cosine loss between hidden states."})
    alpha_mse: float = field(default=0.0, metadata={"help": "The weight of the squared error of the logits."})
    restrict_ce_to_mask: bool = field(default=False, metadata={"help": "Compare predictions at masked tokens only."})
    mlm_probability: float = field(default=0.15, metadata={"help": "The share of the tokens to predict."})
    mlm_smoothing: float = field(
        default=0.7,
        metadata={
            "help": "Rarer tokens are masked more often: in proportion to their count in the corpus to the power of "
            "minus this number. 0 masks all tokens alike."
        },
    )
    mlm_unit: str = field(
        default="row",
        metadata={
            "help": "Where the share of tokens is kept: in each row (row), so that masks do not depend on batches and "
            "processes, or in each micro-batch as a whole, rounded up, as in the released code (batch)."
        },
    )
    project_hidden: bool = field(
        default=False, metadata={"help": "Compare states of different size through a learned linear map."}
    )
    logits_chunk_size: int = field(
        default=1024, metadata={"help": "Tokens whose predictions are in memory at the same time."}
    )

    def check_settings(self) -> None:
        super().check_settings()

        if self.alpha != 1:
            raise ValueError(
                f"alpha={self.alpha} has no effect: there are no labels of a task, and the parts of DistilBERT's loss "
                "are weighted by alpha_ce, alpha_mlm, alpha_cos and alpha_mse. Leave alpha out."
            )
        weights = (self.alpha_ce, self.alpha_mlm, self.alpha_cos, self.alpha_mse)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(
                f"alpha_ce, alpha_mlm, alpha_cos and alpha_mse must not be negative, nor all be 0: {weights}."
            )

        if not 0 < self.mlm_probability < 1:
            raise ValueError(f"mlm_probability must lie between 0 and 1, not {self.mlm_probability}.")
        if self.mlm_smoothing < 0:
            raise ValueError(f"mlm_smoothing must not be negative, not {self.mlm_smoothing}.")
        if self.logits_chunk_size < 1:
            raise ValueError(f"logits_chunk_size must be at least 1, not {self.logits_chunk_size}.")
        self._check_choice("mlm_unit", ("row", "batch"))

        if self.teacher_cache_dir is not None:
            raise ValueError(
                "teacher_cache_dir cannot be used here: new tokens are masked in each epoch, and the teacher reads "
                "what is masked."
            )

    def without_effect(self) -> dict[str, str]:
        settings = super().without_effect()
        settings["kd_reduction"] = "the soft targets are summed over the vocabulary"
        settings["teacher_labels"] = "predictions of words are compared, not of a task's labels"
        if self.alpha_ce == 0:
            settings["temperature"] = "alpha_ce is 0, so that there are no soft targets"
        if self.alpha_cos == 0:
            settings["project_hidden"] = "alpha_cos is 0, so that no hidden states are compared"
        if not self.compares_logits:
            settings["restrict_ce_to_mask"] = "alpha_ce and alpha_mse are 0, so that no predictions are compared"
        return settings

    @property
    def compares_logits(self) -> bool:
        """Whether predictions of the teacher enter the loss."""
        return self.alpha_ce > 0 or self.alpha_mse > 0
