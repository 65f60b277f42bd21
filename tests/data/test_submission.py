"""Files for the GLUE leaderboard: complete, in its format, and whole or not there at all."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

from bertkd.data import write_submission

SIZES = {
    "cola": ("CoLA.tsv", 1063),
    "sst2": ("SST-2.tsv", 1821),
    "mrpc": ("MRPC.tsv", 1725),
    "stsb": ("STS-B.tsv", 1379),
    "qqp": ("QQP.tsv", 390965),
    "mnli_matched": ("MNLI-m.tsv", 9796),
    "mnli_mismatched": ("MNLI-mm.tsv", 9847),
    "qnli": ("QNLI.tsv", 5463),
    "rte": ("RTE.tsv", 3000),
    "wnli": ("WNLI.tsv", 146),
    "ax": ("AX.tsv", 1104),
}


def _predictions() -> dict[str, np.ndarray]:
    """Logits whose argmax counts up from class 0."""
    classes = dict.fromkeys(SIZES, 2) | {"mnli_matched": 3, "mnli_mismatched": 3, "ax": 3}
    made = {task: np.eye(classes[task])[np.arange(rows) % classes[task]] for task, (_, rows) in SIZES.items()}
    return made | {"stsb": np.linspace(-1, 6, SIZES["stsb"][1])[:, None]}


def _rows(path: Path) -> list[list[str]]:
    return [line.split("\t") for line in path.read_text().split("\n")[:-1]]


def test_a_submission_holds_every_file_with_every_row(tmp_path: Path) -> None:
    archive = zipfile.ZipFile(write_submission(_predictions(), tmp_path / "new" / "folder"))
    assert Path(archive.filename) == tmp_path / "new" / "folder" / "submission.zip"
    assert sorted(archive.namelist()) == sorted(name for name, _ in SIZES.values())

    for name, size in SIZES.values():
        rows = _rows(tmp_path / "new" / "folder" / name)
        assert rows[0] == ["index", "prediction"]
        assert [row[0] for row in rows[1:]] == [str(index) for index in range(size)]
        assert archive.read(name) == (tmp_path / "new" / "folder" / name).read_bytes()


def test_labels_are_written_as_the_leaderboard_wants_them(tmp_path: Path) -> None:
    write_submission(_predictions(), tmp_path)
    written = {task: [row[1] for row in _rows(tmp_path / name)[1:4]] for task, (name, _) in SIZES.items()}
    nli = ["entailment", "neutral", "contradiction"]
    for task in ("mnli_matched", "mnli_mismatched", "ax"):
        assert written[task] == nli
    for task in ("qnli", "rte"):
        assert written[task] == ["entailment", "not_entailment", "entailment"]
    for task in ("cola", "sst2", "mrpc", "qqp", "wnli"):
        assert written[task] == ["0", "1", "0"]


def test_similarity_scores_are_clipped_and_have_three_decimals(tmp_path: Path) -> None:
    write_submission(_predictions(), tmp_path)
    scores = [row[1] for row in _rows(tmp_path / "STS-B.tsv")[1:]]
    assert scores[0] == "0.000"
    assert scores[-1] == "5.000"
    assert scores[689] == "2.500"


def test_label_ids_and_logits_give_the_same_files(tmp_path: Path) -> None:
    logits = _predictions()
    ids = {task: array if task == "stsb" else array.argmax(1) for task, array in logits.items()}
    ids["stsb"] = ids["stsb"].reshape(-1)
    assert write_submission(logits, tmp_path / "a").is_file()
    assert write_submission(ids, tmp_path / "b").is_file()
    for name, _ in SIZES.values():
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_missing_tasks_are_named_or_filled(tmp_path: Path) -> None:
    some = {task: array for task, array in _predictions().items() if task not in ("qqp", "ax")}
    with pytest.raises(ValueError, match=r"missing for qqp, ax; .*fill_missing"):
        write_submission(some, tmp_path)
    assert not list(tmp_path.iterdir())

    archive = zipfile.ZipFile(write_submission(some, tmp_path, fill_missing=True))
    assert len(archive.namelist()) == len(SIZES)
    rows = _rows(tmp_path / "QQP.tsv")

    assert len(rows) == 390966
    assert {row[1] for row in rows[1:]} == {"0"}


def test_an_empty_submission_can_be_filled(tmp_path: Path) -> None:
    write_submission({}, tmp_path, fill_missing=True)
    assert {name: len(_rows(tmp_path / name)) - 1 for name, _ in SIZES.values()} == dict(SIZES.values())


BAD = {
    "too few rows": ("sst2", np.zeros((872, 2)), r"sst2 has predictions of shape \(872, 2\).* has 1821 rows"),
    "too many classes": ("rte", np.zeros((3000, 3)), r"rte has 2 classes, but its predictions have the shape"),
    "an id out of range": ("wnli", np.full(146, 2), r"wnli has the label id 2, but its ids are 0 to 1\."),
    "an unlabeled row": ("cola", np.full(1063, -1), r"cola has the label id -1, but its ids are 0 to 1\."),
    "several scores": ("stsb", np.zeros((1379, 2)), r"stsb needs one score per row"),
    "NaN": ("stsb", np.full(1379, np.nan), r"stsb has predictions that are not finite"),
    "an unknown task": ("mnli", np.zeros(9796), r"No GLUE submission for mnli; the tasks are cola, "),
}


@pytest.mark.parametrize("bad", BAD)
def test_wrong_predictions_are_refused_before_anything_is_written(bad: str, tmp_path: Path) -> None:
    task, array, message = BAD[bad]
    with pytest.raises(ValueError, match=message):
        write_submission({task: array}, tmp_path, fill_missing=True)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_submission({}, tmp_path, fill_missing=True)
    before = (tmp_path / "CoLA.tsv").read_bytes()

    def full_disk(descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)

    with pytest.raises(OSError, match="No space"):
        write_submission({"cola": np.zeros(1063, dtype=int)}, tmp_path, fill_missing=True)
    assert (tmp_path / "CoLA.tsv").read_bytes() == before
