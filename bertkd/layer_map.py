"""Maps student layers to the teacher layers that they learn from.

Layers are counted as in the papers and in `hidden_states`: p = 0 is the embedding output, p = 1..N the output of
layer p. (The Patient-KD authors' code counts layer outputs from 0: its index c is p - 1.)
"""

import re
from dataclasses import dataclass
from itertools import pairwise

__all__ = ["LayerMap"]


@dataclass(frozen=True)
class LayerMap:
    """Pairs (student p, teacher p), in increasing order on both sides.

    `LayerMap.skip(12, 6)`, `LayerMap.last(12, 6)`, `LayerMap.uniform(12, 4)` and `LayerMap.parse("1:2,2:4")` make
    layer maps; printing a map shows it, one pair per line.
    """

    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("A layer map needs at least one pair student:teacher, e.g. 1:2,2:4.")
        for pair in self.pairs:
            if len(pair) != 2 or not all(isinstance(p, int) and not isinstance(p, bool) for p in pair):
                raise ValueError(f"The pairs of a layer map are two whole numbers (student, teacher), not {pair!r}.")
        if any(p < 0 for pair in self.pairs for p in pair):
            raise ValueError(f"A layer map cannot hold negative layers: {self.spec}.")
        for side, layers in (("student", self.student_layers), ("teacher", self.teacher_layers)):
            if any(b <= a for a, b in pairwise(layers)):
                raise ValueError(f"The {side} layers of a layer map must increase from pair to pair: {self.spec}.")

    @property
    def student_layers(self) -> list[int]:
        """The student's side of the pairs, as indices of `hidden_states`."""
        return [student for student, _ in self.pairs]

    @property
    def teacher_layers(self) -> list[int]:
        """The teacher's side of the pairs, as indices of `hidden_states`."""
        return [teacher for _, teacher in self.pairs]

    @property
    def spec(self) -> str:
        """The map as a string that `parse` reads: "1:2,2:4"."""
        return ",".join(f"{student}:{teacher}" for student, teacher in self.pairs)

    def __str__(self) -> str:
        lines = [f"  student layer {s} <- teacher layer {t}" for s, t in self.pairs]
        return "\n".join(["LayerMap (0 = embeddings, p = output of layer p)", *lines])

    @classmethod
    def skip(cls, teacher_layers: int, student_layers: int) -> "LayerMap":
        """Patient-KD's PKD-Skip: student j learns from teacher `j·N/n`, j = 1..n-1 (rounded down where n does not
        divide N). 12 -> 6: 2,4,6,8,10; 12 -> 3: 4,8; 24 -> 6: 4,8,12,16,20.

        The last student layer is left out: it feeds the classifier, which the soft targets already drive.

        Raises:
            ValueError: fewer than 2 student layers, or more student than teacher layers.
        """
        n = _check_counts(teacher_layers, student_layers)
        return cls(tuple((j, j * teacher_layers // n) for j in range(1, n)))

    @classmethod
    def last(cls, teacher_layers: int, student_layers: int) -> "LayerMap":
        """Patient-KD's PKD-Last: student j learns from teacher `N-n+j`, j = 1..n-1.
        12 -> 6: 7..11; 12 -> 3: 10,11.

        Raises:
            ValueError: fewer than 2 student layers, or more student than teacher layers.
        """
        n = _check_counts(teacher_layers, student_layers)
        return cls(tuple((j, teacher_layers - n + j) for j in range(1, n)))

    @classmethod
    def uniform(cls, teacher_layers: int, student_layers: int) -> "LayerMap":
        """TinyBERT's uniform map g(m) = m·N/n for m = 0..n, embeddings and last layer included.
        12 -> 4: 0:0, 1:3, 2:6, 3:9, 4:12.

        Raises:
            ValueError: n does not divide N (the authors' code asserts the same).
        """
        if student_layers < 1 or teacher_layers % student_layers:
            raise ValueError(
                f"A uniform layer map needs a teacher whose number of layers ({teacher_layers}) is a multiple of the "
                f"student's ({student_layers}); give an explicit map such as 0:0,1:3."
            )
        step = teacher_layers // student_layers
        return cls(tuple((m, m * step) for m in range(student_layers + 1)))

    @classmethod
    def parse(cls, text: str) -> "LayerMap":
        """Reads "1:2,2:4" (student:teacher pairs) or "2,4" (teacher layers for student layers 1, 2, ...).

        Raises:
            ValueError: `text` has another form, or its layers do not increase.
        """
        if not isinstance(text, str):
            raise ValueError(f"A layer map is read from a text such as 1:2,2:4, not from {text!r}.")
        items = [item.strip() for item in text.split(",")]
        if all(re.fullmatch(r"\d+:\d+", item) for item in items):
            return cls(tuple((int(s), int(t)) for s, t in (item.split(":") for item in items)))
        if all(re.fullmatch(r"\d+", item) for item in items):
            return cls(tuple((j, int(item)) for j, item in enumerate(items, start=1)))
        raise ValueError(
            f"Cannot read the layer map {text!r}: name a strategy (skip, last), or write pairs student:teacher as "
            '"1:2,2:4" or teacher layers as "2,4".'
        )

    @classmethod
    def resolve(cls, strategy: "str | LayerMap", teacher_layers: int, student_layers: int) -> "LayerMap":
        """Makes the map that a strategy means for two models: "skip", "last", or an explicit map.

        Raises:
            ValueError: an unknown strategy, or a map that does not fit: a layer out of range, or a list of teacher
                layers whose length is not the student's number of layers less one. Both layer counts are named.
        """
        if strategy in ("skip", "last"):
            return getattr(cls, str(strategy))(teacher_layers, student_layers)
        layer_map = strategy if isinstance(strategy, LayerMap) else cls.parse(strategy)
        is_list = isinstance(strategy, str) and ":" not in strategy
        if is_list and len(layer_map.pairs) != student_layers - 1:
            raise ValueError(
                f"The layer list {strategy} names {len(layer_map.pairs)} teacher layers, but a student of "
                f"{student_layers} layers and a teacher of {teacher_layers} need {student_layers - 1} (one for each "
                "student layer but the last); write pairs such as 1:2,2:4 to match fewer."
            )
        layer_map.check(teacher_layers, student_layers)
        return layer_map

    def check(self, teacher_layers: int, student_layers: int) -> None:
        """Refuses a map that names a layer which one of two models does not have.

        Raises:
            ValueError: a layer is out of range; the message names both layer counts.
        """
        out_of_range = max(self.student_layers) > student_layers or max(self.teacher_layers) > teacher_layers
        if out_of_range:
            raise ValueError(
                f"The layer map {self.spec} is out of range: the student has {student_layers} layers and the teacher "
                f"{teacher_layers} (student:teacher, 0 = embeddings)."
            )


def _check_counts(teacher_layers: int, student_layers: int) -> int:
    if not 2 <= student_layers <= teacher_layers:
        raise ValueError(
            f"A skip or last layer map needs a student of at least 2 layers and a teacher of at least as many: the "
            f"student has {student_layers} and the teacher {teacher_layers}."
        )
    return student_layers
