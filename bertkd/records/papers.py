"""What the papers themselves report: figures to compare with, each with its place, its split and its hardware.

Their teachers are BERT-base where nothing else is said, their hardware is another, and some are of GLUE's test sets.
So they are only ever shown beside the BERT-base of the same table, never on one axis with our own values. A score that
is not given, or that we could not check, is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["PAPERS", "PaperModel", "PaperTable"]


@dataclass(frozen=True)
class PaperModel:
    """A row of a paper's table.

    Attributes:
        name: of the model, with its number of layers where it has one.
        scores: the paper's metric in percent, by task.
        layers: of the encoder; None where it is not one number.
        speedup: over the reference, as published; None where no number is.
        parameters_m: in millions; None where no number is given.
        note: what sets this row apart from the others.
    """

    name: str
    scores: dict[str, float]
    layers: int | None = None
    speedup: float | None = None
    parameters_m: float | None = None
    note: str = ""


@dataclass(frozen=True)
class PaperTable:
    """Rows of one paper that were made alike.

    Attributes:
        paper: its name.
        place: where the figures stand.
        split: what they were measured on, and how.
        hardware: that of the speed-ups, with precision and batch size where they are known.
        reference: the row of BERT-base, which is the teacher unless `note` says otherwise.
        models: the other rows.
        note: what a reader should know before comparing.
    """

    paper: str
    place: str
    split: str
    hardware: str
    reference: PaperModel
    models: tuple[PaperModel, ...]
    note: str = ""


def _scores(tasks: str, row: str) -> dict[str, float]:
    """A row of a table by task; a dash is a score that is not given."""
    pairs = zip(tasks.split(), row.split(), strict=True)
    return {task: float(score) for task, score in pairs if score != "-"}


_PKD_TASKS = "sst2 mrpc qqp mnli qnli rte"


def _pkd(name: str, layers: int, row: str) -> PaperModel:
    speedup, parameters = {6: (1.94, 67.0), 3: (3.73, 45.7)}[layers]
    return PaperModel(f"{name}, {layers} layers", _scores(_PKD_TASKS, row), layers, speedup, parameters)


PATIENT_KD = PaperTable(
    paper="Patient-KD",
    place="scores: the summary files in the authors' repository; speed-ups and parameters: the paper's table 3",
    split="dev accuracy, the best run and epoch",
    hardware="one Titan RTX, fp16, batch 128, 128 tokens",
    reference=PaperModel("BERT-base", _scores(_PKD_TASKS, "93.00 87.50 91.04 83.74 91.14 72.92"), 12),
    models=(
        _pkd("Fine-tuned", 6, "90.02 82.60 90.12 80.31 87.68 66.79"),
        _pkd("KD", 6, "91.40 84.80 90.59 80.82 88.91 67.51"),
        _pkd("PKD-skip", 6, "91.06 84.56 90.83 82.31 89.66 68.23"),
        _pkd("PKD-last", 6, "90.94 83.09 90.79 81.62 89.02 68.23"),
        _pkd("Fine-tuned", 3, "88.07 75.74 88.92 75.09 84.48 59.93"),
        _pkd("KD", 3, "87.96 76.96 89.46 75.96 84.62 61.01"),
        _pkd("PKD", 3, "88.07 76.23 89.49 77.65 85.63 62.45"),
    ),
    note="The best of several runs, which flatters every row, the teacher's too.",
)

_GLUE = "cola mnli mrpc qnli qqp rte sst2 stsb"

DISTILBERT = PaperTable(
    paper="DistilBERT",
    place="scores: the authors' README (uncased), whose MNLI is not the paper's; time: the paper's inference table",
    split="dev, median of 5 seeds",
    hardware="Xeon E5-2690 v3 CPU, batch 1, all of STS-B's dev set",
    reference=PaperModel("BERT-base", _scores(_GLUE, "56.3 84.7 88.6 91.8 89.6 69.3 92.7 89.0"), 12),
    models=(
        PaperModel(
            "DistilBERT",
            _scores(_GLUE, "51.3 82.1 87.5 89.2 88.5 59.9 91.3 86.9"),
            6,
            speedup=round(668 / 410, 2),
            parameters_m=66,
        ),
    ),
    note="BERT-base takes 668 s, DistilBERT 410 s.",
)

_TEST = "mnli qqp qnli sst2 cola stsb mrpc rte"

TINYBERT = PaperTable(
    paper="TinyBERT",
    place="the table of GLUE test results; BERT4-PKD, BERT6-PKD and DistilBERT4 as that table has them",
    split="GLUE test server, its own metric per task, MNLI matched",
    hardware="one K80, batch 128",
    reference=PaperModel("BERT-base", _scores(_TEST, "83.9 71.1 90.9 93.4 52.8 85.2 87.5 67.0"), 12),
    models=(
        PaperModel("TinyBERT4", _scores(_TEST, "82.5 71.3 87.7 92.6 44.1 80.4 86.4 66.6"), 4, 9.4, 14.5),
        PaperModel("TinyBERT6", _scores(_TEST, "84.6 71.6 90.4 93.1 51.1 83.7 87.3 70.0"), 6, 2.0, 67.0),
        PaperModel("BERT4-PKD", _scores(_TEST, "79.9 70.2 85.1 89.4 24.8 79.8 82.6 62.3"), 4, 3.0, 52.2),
        PaperModel("BERT6-PKD", _scores(_TEST, "81.5 70.7 89.0 92.0 - - 85.0 65.5"), 6, 2.0, 67.0),
        PaperModel("DistilBERT4", _scores(_TEST, "78.9 68.5 85.2 91.4 32.8 76.1 82.4 54.1"), 4, 3.0, 52.2),
    ),
    note="TinyBERT trains on augmented rows.",
)

_DYNA = "cola stsb mrpc rte mnli qqp qnli sst2"


def _dynabert(width: float, depth: float, parameters_m: float, row: str) -> PaperModel:
    layers = round(12 * depth)
    return PaperModel(f"width {width:g}, depth {depth:g}", _scores(_DYNA, row), layers, None, parameters_m)


DYNABERT = PaperTable(
    paper="DynaBERT",
    place="table 1",
    split="dev; CoLA Matthews, STS-B Spearman, else accuracy, MNLI matched",
    hardware="latencies are only drawn in the paper, for a K40 and a Kirin 810",
    reference=PaperModel("BERT-base", _scores(_DYNA, "58.1 89.8 87.7 71.1 84.8 90.9 92.0 92.9"), 12),
    models=(
        _dynabert(1.0, 1.0, 109.5, "59.7 90.1 86.3 72.2 84.9 91.4 92.1 93.2"),
        _dynabert(1.0, 0.75, 88.2, "59.1 89.5 85.8 71.8 84.4 91.4 91.7 93.3"),
        _dynabert(1.0, 0.5, 67.0, "54.6 88.6 85.0 66.1 83.7 91.1 90.6 92.7"),
        _dynabert(0.75, 1.0, 88.2, "60.8 90.0 86.5 71.8 84.7 91.4 92.2 93.0"),
        _dynabert(0.75, 0.75, 72.3, "59.6 89.4 85.5 73.3 84.3 91.3 91.8 93.1"),
        _dynabert(0.75, 0.5, 56.3, "53.2 88.5 84.1 65.7 83.6 91.2 90.7 92.8"),
        _dynabert(0.5, 1.0, 67.0, "58.4 89.8 84.8 72.2 84.7 91.3 92.2 93.3"),
        _dynabert(0.5, 0.75, 56.3, "56.8 89.2 84.1 72.2 84.2 91.2 91.5 92.7"),
        _dynabert(0.5, 0.5, 45.7, "48.5 88.2 83.1 67.9 83.0 91.0 90.0 91.6"),
        _dynabert(0.25, 1.0, 45.7, "50.9 89.2 83.8 68.6 83.9 90.7 91.5 92.8"),
        _dynabert(0.25, 0.75, 40.4, "51.6 88.3 83.8 68.6 83.4 91.1 90.8 92.0"),
        _dynabert(0.25, 0.5, 35.1, "43.7 87.0 81.4 63.2 82.0 90.4 88.5 92.0"),
    ),
    note="DynaBERT trains on augmented rows. Parameters are computed from the shapes, without the classifier.",
)


def _mnli(
    name: str, score: float, speedup: float, layers: int | None = None, million: float | None = None, note: str = ""
) -> PaperModel:
    return PaperModel(name, {"mnli": score}, layers, speedup, million, note)


COFI = PaperTable(
    paper="CoFi",
    place="the comparison table: all rows measured alike",
    split="MNLI-m dev",
    hardware="one V100, batch 128, 128 tokens",
    reference=_mnli("BERT-base", 84.8, 1.0, 12, 85),
    models=(
        _mnli("DistilBERT6", 82.2, 2.0, 6, 43),
        _mnli("TinyBERT6", 84.0, 2.0, 6, 43),
        _mnli("Block pruning", 83.7, 2.7, None, 25),
        _mnli("CoFi", 84.9, 2.7, None, 26),
        _mnli("DynaBERT, smallest", 76.3, 6.3, None, 11, "without augmentation"),
        _mnli("TinyBERT4", 78.8, 11.4, 4, 4.7, "without augmentation"),
        _mnli("CoFi, small", 80.6, 12.1, None, 4.4, "on an A100 a user measured 5.23x"),
    ),
    note="Parameters without embeddings.",
)

XTREMEDISTIL = PaperTable(
    paper="XtremeDistil",
    place="the authors' table of checkpoints",
    split="MNLI dev",
    hardware="a GPU, not named in our source",
    reference=_mnli("BERT-base", 84.8, 1.0, 12),
    models=(
        _mnli("L12H384", 87.2, 2.7, 12, 33),
        _mnli("L6H384", 85.4, 5.3, 6, 22),
        _mnli("L6H256", 83.9, 8.7, 6, 13),
    ),
    note="The teacher is an ELECTRA; the reference is the BERT-base of the same table.",
)

BLOCK_PRUNING = PaperTable(
    paper="Block pruning (nn_pruning)",
    place="hybrid-filled models of the authors' repository",
    split="MNLI dev",
    hardware="one RTX 3090",
    reference=_mnli("BERT-base", 84.6, 1.0, 12),
    models=(
        _mnli("nn_pruning 2.0x", 83.71, 2.00),
        _mnli("nn_pruning 2.4x", 83.05, 2.40),
        _mnli("nn_pruning 2.9x", 82.69, 2.86),
        _mnli("nn_pruning 3.4x", 81.03, 3.44),
    ),
)

PAPERS = (PATIENT_KD, DISTILBERT, TINYBERT, DYNABERT, COFI, XTREMEDISTIL, BLOCK_PRUNING)
