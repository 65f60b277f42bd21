"""Settings of `TinyBertKDTrainer`."""

from dataclasses import dataclass, field

from bertkd.distillation.config import DistillationConfig
from bertkd.layer_map import LayerMap

__all__ = ["TinyBertKDConfig"]

STAGES = ("general", "intermediate", "prediction")
MAPS = ("uniform", "top", "bottom")
# The settings that one kind of stage reads, and the other does not.
OF_PREDICTIONS = ("temperature", "kd_reduction", "teacher_labels")
OF_STATES = (
    "attention_weight",
    "embedding_weight",
    "hidden_weight",
    "mask_padding",
    "projection",
    "projection_from",
    "relative_states",
    "strategy",
)


@dataclass
class TinyBertKDConfig(DistillationConfig):
    """`DistillationConfig` with the settings of TinyBERT (Jiao et al., arXiv 1909.10351).

    Stages "general" (on text, before any task) and "intermediate" (on the task's rows):

    `L = attention_weight · ATT + hidden_weight · HID + embedding_weight · EMB`

    ATT is the mean squared error between attention scores before the softmax, HID that between hidden states and EMB
    that between embedding outputs, the student's states through a learned projection; ATT and HID are sums over the
    matched layers. No labels and no predictions enter. Stage "prediction":

    `L = (1 - alpha) · CE + alpha · SCE(T)`

    with SCE the cross entropy between the softened predictions, T = 1 and alpha = 1: no labels by default. A
    regression task fits the teacher's logits.

    | | released code | here |
    |---|---|---|
    | SCE | divided by the classes as well | sum over classes, as in the paper; `kd_reduction="mean"` for the code |
    | padding in ATT, HID, EMB | counted, a score <= -100 as 0 | left out; `mask_padding=False` for the code |
    | projection | one for all levels | the same; `projection="per_level"` for their later checkpoints |
    | weights | 1, as in the paper | 1 |
    | scale of HID, EMB | that of the states | the same; `relative_states=True` for shares of the teacher's variance |

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    stage: str = field(
        default="intermediate", metadata={"help": "The stage that is trained: general, intermediate or prediction."}
    )
    strategy: str = field(
        default="uniform",
        metadata={"help": "Which levels are matched: uniform, top, bottom, or pairs student:teacher as 0:0,1:3,2:6."},
    )
    attention_weight: float = field(default=1.0, metadata={"help": "The weight of the attention scores' loss."})
    hidden_weight: float = field(default=1.0, metadata={"help": "The weight of the hidden states' loss."})
    embedding_weight: float = field(default=1.0, metadata={"help": "The weight of the embeddings' loss."})
    projection: str = field(
        default="shared",
        metadata={
            "help": "Linear maps to the teacher's size: one for all levels (shared), one each (per_level), or none."
        },
    )
    projection_from: str | None = field(
        default=None,
        metadata={"help": "Start the projection from that of an earlier stage: a folder or a safetensors file."},
    )
    mask_padding: bool = field(
        default=True,
        metadata={
            "help": "Leave padding out of the losses, each row counting alike; False counts it like any token, as in "
            "the authors' code, so that the losses depend on how batches are padded."
        },
    )
    relative_states: bool = field(
        default=False,
        metadata={
            "help": "Divide the losses of hidden states and embeddings by the variance of the teacher's, so that they "
            "count beside that of attention scores where the teacher's states are small."
        },
    )
    alpha: float = field(
        default=1.0,
        metadata={"help": "In stage prediction, the weight of the soft term; 1 - alpha weights the labels."},
    )
    temperature: float = field(
        default=1.0, metadata={"help": "In stage prediction, the temperature of both softmaxes."}
    )

    def check_settings(self) -> None:
        super().check_settings()

        self._check_choice("stage", STAGES)
        if self.compares_states and self.alpha != 1:
            raise ValueError(
                f"alpha={self.alpha} has no effect in stage {self.stage}, whose loss has neither labels nor "
                "predictions: leave it out, or give it to stage prediction."
            )

        self._check_choice("projection", ("shared", "per_level", "none"))
        if self.projection == "none" and self.projection_from is not None:
            raise ValueError(
                'projection_from has no effect with projection="none": leave it out, or choose shared or per_level.'
            )

        weights = (self.attention_weight, self.hidden_weight, self.embedding_weight)
        if min(weights) < 0 or max(weights) == 0:
            raise ValueError(
                f"attention_weight, hidden_weight and embedding_weight must not be negative, nor all be 0: {weights}."
            )

        if self.compares_states and self.teacher_cache_dir is not None:
            raise ValueError(
                f"teacher_cache_dir cannot be used by stage {self.stage}: states and scores of all tokens do not fit "
                "a cache of one fixed shape per row. It works for stage prediction."
            )

        if self.strategy not in MAPS:
            LayerMap.parse(self.strategy)

    def without_effect(self) -> dict[str, str]:
        settings = super().without_effect()
        if self.is_one_of_several_stages:
            return settings

        reason = f"stage {self.stage} compares no {'predictions' if self.compares_states else 'states'}"
        names = OF_PREDICTIONS if self.compares_states else OF_STATES
        settings |= dict.fromkeys(names, reason)
        if self.compares_states and self.hidden_weight == self.embedding_weight == 0:
            reason = (
                "hidden_weight and embedding_weight are 0, so that no states are compared but for attention scores"
            )
            settings |= dict.fromkeys(("projection", "relative_states"), reason)
        return settings

    @property
    def compares_states(self) -> bool:
        """Whether the stage compares attention scores and hidden states, and not predictions."""
        return self.stage != "prediction"
