"""Writes the files that the GLUE leaderboard (https://gluebenchmark.com/submit) takes."""

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bertkd.atomic import write_bytes
from bertkd.data.glue import GLUE_TASKS

__all__ = ["write_submission"]


@dataclass(frozen=True)
class _File:
    """One file of a submission.

    Args:
        name: its name in the zip.
        rows: the number of rows of the official test set.
        filler: stands in for a task that was not run: the training part's most frequent class, or its mean score.
        values: how the classes are written, in the hub's order; empty for regression.
    """

    name: str
    rows: int
    filler: str
    values: tuple[str, ...] = ("0", "1")


# The leaderboard wants names for the tasks whose official files hold names, and digits for the others.
_NLI = GLUE_TASKS["mnli"].labels
_FILES = {
    "cola": _File("CoLA.tsv", 1063, "1"),
    "sst2": _File("SST-2.tsv", 1821, "1"),
    "mrpc": _File("MRPC.tsv", 1725, "1"),
    "stsb": _File("STS-B.tsv", 1379, "2.700", ()),
    "qqp": _File("QQP.tsv", 390965, "0"),
    "mnli_matched": _File("MNLI-m.tsv", 9796, "contradiction", _NLI),
    "mnli_mismatched": _File("MNLI-mm.tsv", 9847, "contradiction", _NLI),
    "qnli": _File("QNLI.tsv", 5463, "not_entailment", GLUE_TASKS["qnli"].labels),
    "rte": _File("RTE.tsv", 3000, "entailment", GLUE_TASKS["rte"].labels),
    "wnli": _File("WNLI.tsv", 146, "0"),
    "ax": _File("AX.tsv", 1104, "contradiction", _NLI),
}


def write_submission(
    predictions: Mapping[str, np.ndarray], output_dir: str | Path, fill_missing: bool = False
) -> Path:
    """Writes `CoLA.tsv` ... `AX.tsv` and `submission.zip`, which holds them all.

    Nothing is written unless every prediction is right, and each file appears whole or not at all.

    Args:
        predictions: the predictions by task ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli_matched",
            "mnli_mismatched", "qnli", "rte", "wnli", "ax"), in the order of the official test set: logits (N, classes)
            or label ids (N,), both in the hub's label order; for "stsb" scores (N,) or (N, 1), which are clipped to
            0..5.
        output_dir: where the files go; it is made if need be.
        fill_missing: fills a task that is not in `predictions` with a constant, because the leaderboard takes
            complete submissions only.

    Returns:
        The path of the zip.

    Raises:
        ValueError: an unknown or (without `fill_missing`) a missing task, the wrong number of rows or classes, or a
            number that is not finite.
    """
    unknown = [task for task in predictions if task not in _FILES]
    if unknown:
        raise ValueError(f"No GLUE submission for {', '.join(unknown)}; the tasks are {', '.join(_FILES)}.")

    missing = [task for task in _FILES if task not in predictions]
    if missing and not fill_missing:
        raise ValueError(
            f"The leaderboard wants every task, and predictions are missing for {', '.join(missing)}; predict on "
            f"their test sets, or fill them with a constant (fill_missing=True, --fill_missing)."
        )
    # All files are made before the first one is written.
    contents = {}
    for task, file in _FILES.items():
        rows = _rows(task, file, predictions[task]) if task in predictions else [file.filler] * file.rows
        contents[file.name] = _content(rows)
    archive = _zip(contents)

    output_dir = Path(output_dir)
    for name, content in contents.items():
        write_bytes(output_dir / name, content)
    write_bytes(output_dir / "submission.zip", archive)
    return output_dir / "submission.zip"


def _rows(task: str, file: _File, predictions: np.ndarray) -> list[str]:
    """Writes a task's predictions out, one string per row."""
    values = np.asarray(predictions)
    if values.ndim == 0 or len(values) != file.rows:
        raise ValueError(
            f"{task} has predictions of shape {values.shape}, but its official test set has {file.rows} rows; predict "
            f"on the whole of it."
        )

    if not np.isfinite(values).all():
        raise ValueError(f"{task} has predictions that are not finite; the model has diverged.")

    return _classes(task, file, values) if file.values else _scores(task, values)


def _classes(task: str, file: _File, values: np.ndarray) -> list[str]:
    count = len(file.values)
    if values.ndim > 2 or (values.ndim == 2 and values.shape[1] != count):
        raise ValueError(f"{task} has {count} classes, but its predictions have the shape {values.shape}.")

    ids = values.argmax(axis=1) if values.ndim == 2 else values
    wrong = ids[~np.isin(ids, np.arange(count))]
    if wrong.size:
        raise ValueError(f"{task} has the label id {wrong[0]}, but its ids are 0 to {count - 1}.")
    return [file.values[int(label_id)] for label_id in ids]


def _scores(task: str, values: np.ndarray) -> list[str]:
    if values.size != len(values):
        raise ValueError(f"{task} needs one score per row, but its predictions have the shape {values.shape}.")
    return [f"{score:.3f}" for score in values.reshape(-1).clip(0.0, 5.0)]


def _content(rows: list[str]) -> bytes:
    lines = ["index\tprediction\n"]
    for index, row in enumerate(rows):
        lines.append(f"{index}\t{row}\n")
    return "".join(lines).encode()


def _zip(contents: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()
