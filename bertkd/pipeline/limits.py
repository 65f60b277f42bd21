"""What a model may cost, as people ask for it."""

import re
from dataclasses import dataclass
from pathlib import Path

__all__ = ["COST_UNITS", "NO_BUDGET", "UNITS", "Limit"]

COST_UNITS = ("ms", "mb", "parameters", "gflops")
# Points are those that the metric may lose.
UNITS = (*COST_UNITS, "points")

NO_BUDGET = "Give a --budget: a number in --unit, or a share of what the whole model costs such as 50%."


@dataclass(frozen=True)
class Limit:
    """The most that a model may cost: a number, or a share of what the whole model costs that it is made of.

    Attributes:
        text: such as "5" or "50%".
        unit: one of `UNITS`.

    Raises:
        ValueError: the text is neither a positive number nor a share between 0 and 100 %, or the share is one of
            points.
    """

    text: str
    unit: str

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ValueError(NO_BUDGET)
        written = re.fullmatch(r"([\d.]+)\s*([a-z]+)", self.text.strip().lower())
        if written and written[2] in UNITS:
            raise ValueError(
                f"--budget {self.text}: give the number alone, and its unit with --unit: --budget {written[1]} --unit "
                f"{written[2]}."
            )
        try:
            number = float(self.text.removesuffix("%"))
        except ValueError:
            number = -1.0
        if not 0 < number < (100 if self.is_share else float("inf")) or (self.is_share and self.unit == "points"):
            raise ValueError(
                f"--budget {self.text}: give a positive number of {self.unit}"
                f"{'' if self.unit == 'points' else ', or a share of what the whole model costs such as 50%'}."
            )

    @property
    def is_share(self) -> bool:
        """Whether it is a share of what the whole model costs."""
        return self.text.endswith("%")

    @property
    def cost_unit(self) -> str:
        """The unit that networks are measured in: milliseconds where the limit is one of quality."""
        return "ms" if self.unit == "points" else self.unit

    @property
    def number(self) -> float:
        """The number, of percent for a share."""
        return float(self.text.removesuffix("%"))

    def folder_in(self, folder: Path) -> Path:
        """The folder of this limit's model, where there are several."""
        return folder / f"{self.unit}-{self.text.replace('%', 'pct')}"

    def amount(self, whole: float) -> float:
        """The number in the unit, for a whole model that costs `whole`."""
        return self.number * whole / 100 if self.is_share else self.number

    def __str__(self) -> str:
        if self.unit == "points":
            return f"at most {self.text} points lost"
        return f"{self.text} of the teacher's {self.unit}" if self.is_share else f"{self.text} {self.unit}"
