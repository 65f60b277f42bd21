"""Settings of `DynaBertKDTrainer`."""

from dataclasses import dataclass, field

from bertkd.distillation.config import DistillationConfig
from bertkd.dynabert.supernet import check_multiplier

__all__ = ["DynaBertKDConfig"]

STAGES = ("width", "depth", "finetune")
# The settings that not every stage reads.
READ_BY_STAGE = {
    "width": ("mask_padding", "teacher_labels", "width_lambda1", "width_lambda2"),
    "depth": ("depth_lambda1", "depth_lambda2", "depth_mult_list", "mask_padding", "teacher_labels", "teacher_width"),
    "finetune": ("depth_mult_list",),
}


@dataclass
class DynaBertKDConfig(DistillationConfig):
    """`DistillationConfig` with the settings of DynaBERT (Hou et al., arXiv 2004.04037).

    The loss is the sum over sub-networks, each with

    `L = (1 - alpha) · CE + alpha · (lambda1 · SCE + lambda2 · sum over levels of MSE)`

    SCE is the cross entropy between the softened predictions of teacher and sub-network (sum over classes, mean over
    rows; for a regression task the squared error of the logits), MSE the mean squared error between their hidden
    states: of the embeddings and of every layer, matched as `DynaBertKDTrainer` says.

    | stage | sub-networks | teacher | alpha |
    |---|---|---|---|
    | "width" | each width, all layers | the fine-tuned model | 1: no labels |
    | "depth" | each width and depth | the model of stage "width" | 1: no labels |
    | "finetune" | each width and depth | none | always 0 |

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    stage: str = field(default="width", metadata={"help": "The stage that is trained: width, depth or finetune."})
    width_mult_list: list[float] = field(
        default_factory=lambda: [0.25, 0.5, 0.75, 1.0],
        metadata={"help": "The widths that are trained: shares of heads and neurons, each in (0, 1]."},
    )
    depth_mult_list: list[float] = field(
        default_factory=lambda: [0.5, 0.75, 1.0],
        metadata={
            "help": "The depths that are trained: shares of layers, each in (0, 1]. Stage width does not use them."
        },
    )
    width_lambda1: float = field(
        default=1.0, metadata={"help": "In stage width, the weight of the predictions' loss."}
    )
    width_lambda2: float = field(
        default=0.1, metadata={"help": "In stage width, the weight of the hidden states' loss."}
    )
    depth_lambda1: float = field(
        default=1.0, metadata={"help": "In stage depth, the weight of the predictions' loss."}
    )
    depth_lambda2: float = field(
        default=1.0, metadata={"help": "In stage depth, the weight of the hidden states' loss."}
    )
    teacher_width: str = field(
        default="same",
        metadata={
            "help": "The teacher's width in stage depth: the sub-network's, as the paper (same), or full, as the code."
        },
    )
    mask_padding: bool = field(
        default=True,
        metadata={
            "help": "Leave padding out of the hidden states' loss, each row counting alike; False counts it like any "
            "token, as in the authors' code, so that the loss depends on how batches are padded."
        },
    )
    alpha: float = field(
        default=1.0,
        metadata={
            "help": "The weight of distillation; 1 - alpha weights the labels. In stage finetune it is always 0."
        },
    )
    temperature: float = field(
        default=1.0, metadata={"help": "The temperature of both softmaxes in the predictions' loss."}
    )

    def __post_init__(self) -> None:
        if self.stage == "finetune" and self.alpha == 1:
            # There is no teacher, and nobody asked for another weight than the default.
            self.alpha = 0.0
        if self.greater_is_better is None and "loss_w" in (self.metric_for_best_model or ""):
            # The loss of one sub-network: transformers knows a loss by the end of its name.
            self.greater_is_better = False
        super().__post_init__()

    def check_settings(self) -> None:
        super().check_settings()

        self._check_choice("stage", STAGES)
        if self.stage == "finetune" and self.alpha != 0:
            raise ValueError(
                f"alpha={self.alpha} has no effect in stage finetune, which has no teacher: leave it out, or give it "
                "to the stages width and depth."
            )
        self._check_choice("teacher_width", ("same", "full"))
        for name, values in (("width_mult_list", self.width_mult_list), ("depth_mult_list", self.depth_mult_list)):
            if not values:
                raise ValueError(f"{name} is empty: give at least one share of the full network.")
            for value in values:
                check_multiplier(name, value)

        if self.teacher_cache_dir is not None:
            raise ValueError(
                "teacher_cache_dir cannot be used by DynaBERT: the hidden states of all layers and tokens, at each "
                "width, do not fit a cache of one fixed shape per row."
            )

        if min(self.lambda1, self.lambda2) < 0 or (self.alpha > 0 and self.lambda1 == self.lambda2 == 0):
            raise ValueError(
                f"The weights of stage {self.stage} must not be negative, nor both be 0: they are {self.lambda1} "
                f"(predictions) and {self.lambda2} (hidden states)."
            )

    def without_effect(self) -> dict[str, str]:
        settings = super().without_effect()
        if self.is_one_of_several_stages:
            return settings

        if self.lambda1 == 0:
            settings["temperature"] = "the stage's lambda1 is 0, so that no predictions are compared"
        read = READ_BY_STAGE[self.stage]
        others = {name for names in READ_BY_STAGE.values() for name in names if name not in read}
        return {**settings, **dict.fromkeys(sorted(others), f"stage {self.stage} does not read it")}

    @property
    def lambda1(self) -> float:
        """Weight of the predictions' loss in this stage."""
        return self.depth_lambda1 if self.stage == "depth" else self.width_lambda1

    @property
    def lambda2(self) -> float:
        """Weight of the hidden states' loss in this stage."""
        return self.depth_lambda2 if self.stage == "depth" else self.width_lambda2
