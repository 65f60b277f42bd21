"""Settings of `PatientKDTrainer`."""

from dataclasses import dataclass, field

from bertkd.distillation.config import DistillationConfig
from bertkd.layer_map import LayerMap

__all__ = ["PatientKDConfig"]


@dataclass
class PatientKDConfig(DistillationConfig):
    """`DistillationConfig` with the settings of Patient-KD (Sun et al., arXiv 1908.09355).

    `L = (1 - alpha) · CE + alpha · KD(T) + beta · PT`. The reductions follow the authors' code by default, because
    their published settings were tuned with them; `reductions="paper"` follows the paper's formulas. C classes, L
    matched layers, hidden size H; every term is a mean over rows:

    | term | "code" | "paper" |
    |---|---|---|
    | KD | `T²/C · sum_c p_t (log p_t - log p_s)` | `- sum_c p_t log p_s`, no T² |
    | PT | `1/(L·H) · sum_layers ‖h_s - h_t‖²` | `sum_layers ‖h_s - h_t‖²` |

    The paper sums over the rows of the training set where this takes the mean. "code" has `kd_reduction="mean"`;
    set it to "batchmean" for the usual factor without 1/C. Defaults of alpha, temperature and beta are the
    authors' best on SST-2 with six layers; `bertkd configs` lists the settings for each task (`patient_kd/sst2`).

    Raises:
        ValueError: a value is out of its range, or a choice is unknown.
    """

    temperature: float = field(default=10.0, metadata={"help": "The temperature of both softmaxes in the soft term."})
    kd_reduction: str = field(
        default="mean",
        metadata={
            "help": "How the soft term is averaged: over rows and classes as the authors (mean), or rows (batchmean)."
        },
    )
    beta: float = field(default=100.0, metadata={"help": "The weight of the patient loss on [CLS] states."})
    strategy: str = field(
        default="skip",
        metadata={
            "help": "Which layers are matched: skip, last, pairs student:teacher as 1:2,2:4, or teacher layers 2,4."
        },
    )
    normalize_patience: bool = field(
        default=True, metadata={"help": "Divide each [CLS] state by its length before they are compared."}
    )
    reductions: str = field(
        default="code",
        metadata={"help": "Whether the loss has the reductions of the authors' code or of the paper: code or paper."},
    )
    project_hidden: bool = field(
        default=False,
        metadata={"help": "Learn a linear map from the student's to the teacher's hidden size if they differ."},
    )

    def check_settings(self) -> None:
        super().check_settings()

        if self.beta < 0:
            raise ValueError(f"beta weights the patient loss and must not be negative, not {self.beta}.")
        self._check_choice("reductions", ("code", "paper"))
        if self.strategy not in ("skip", "last"):
            LayerMap.parse(self.strategy)

    def without_effect(self) -> dict[str, str]:
        settings = super().without_effect()
        if self.beta == 0:
            reason = "beta is 0, so that there is no patient loss"
            settings |= {"strategy": reason, "normalize_patience": reason, "project_hidden": reason}
        if self.reductions == "paper":
            settings["kd_reduction"] = 'reductions="paper" sums over the classes'
        return settings
