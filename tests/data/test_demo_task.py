"""The built-in demo task: SST-2's format, reproducible, fair, and out of reach of a model that only counts words."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from bertkd.cli import finetune
from bertkd.data.demo import DEMO_SIZES, make_demo_task
from bertkd.efficiency import is_fast_in_bfloat16

Rows = list[tuple[str, int]]


def read_labeled(path: Path) -> Rows:
    """The (sentence, label) rows of a labeled SST-2 file."""
    lines = path.read_text(encoding="utf-8").splitlines()[1:]
    return [(sentence, int(label)) for sentence, label in (line.split("\t") for line in lines)]


def bag_of_words_accuracy(train: Rows, dev: Rows, max_ngram: int = 1) -> float:
    """The best dev accuracy of a logistic regression on word (or n-gram) counts over a range of regularizations.

    Choosing the best on dev favors the bag of words, which makes the margin of the teacher over it a safe one.
    """
    return max(
        make_pipeline(
            CountVectorizer(ngram_range=(1, max_ngram), token_pattern=r"\S+"),
            LogisticRegression(C=strength, max_iter=2000),
        )
        .fit(*zip(*train, strict=True))
        .score(*zip(*dev, strict=True))
        for strength in (0.01, 0.1, 1.0, 10.0)
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_demo_task(tmp_path_factory.mktemp("demo")) / "SST-2"


def sentences(folder: Path) -> dict[str, list[str]]:
    test = (folder / "test.tsv").read_text(encoding="utf-8").splitlines()[1:]
    labeled = {name: [sentence for sentence, _ in read_labeled(folder / f"{name}.tsv")] for name in ("train", "dev")}
    return {**labeled, "test": [line.split("\t")[1] for line in test]}


def test_files_have_the_headers_and_columns_of_sst2(folder: Path) -> None:
    for name in ("train", "dev"):
        header, *rows = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()
        assert header == "sentence\tlabel"
        assert all(re.fullmatch(r"[^\t\"]+\t[01]", row) for row in rows)
    header, *rows = (folder / "test.tsv").read_text(encoding="utf-8").splitlines()

    assert header == "index\tsentence"
    assert [row.split("\t")[0] for row in rows] == [str(index) for index in range(DEMO_SIZES["test"])]
    assert {path.name for path in folder.iterdir()} == {"train.tsv", "dev.tsv", "test.tsv"}


def test_splits_have_their_sizes_and_share_no_sentence(folder: Path) -> None:
    splits = sentences(folder)
    assert {name: len(rows) for name, rows in splits.items()} == DEMO_SIZES
    assert len(set().union(*splits.values())) == sum(DEMO_SIZES.values())


@pytest.mark.parametrize("split", ["train", "dev"])
def test_labels_are_balanced(folder: Path, split: str) -> None:
    counts = Counter(label for _, label in read_labeled(folder / f"{split}.tsv"))
    assert counts == {0: DEMO_SIZES[split] // 2, 1: DEMO_SIZES[split] // 2}


def test_sentences_are_plain_lower_case_english(folder: Path) -> None:
    for sentence in sentences(folder)["train"]:
        assert re.fullmatch(r"[a-z]+(,? [a-z]+)*", sentence), sentence
        assert not re.search(r"\ba [aeio]|\ban [^aeiou]", sentence), sentence


def test_same_seed_gives_the_same_files_and_another_seed_others(folder: Path, tmp_path: Path) -> None:
    same, other = (make_demo_task(tmp_path / name, seed=seed) / "SST-2" for name, seed in (("same", 0), ("other", 1)))
    for path in folder.iterdir():
        assert (same / path.name).read_bytes() == path.read_bytes()
        assert (other / path.name).read_bytes() != path.read_bytes()


def test_files_do_not_depend_on_the_hash_seed(folder: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bertkd.data.demo", "--output_dir", str(tmp_path)]
    result = subprocess.run(command, env={"PYTHONHASHSEED": "7"}, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert str(tmp_path / "SST-2") in result.stdout
    for path in folder.iterdir():
        assert (tmp_path / "SST-2" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("max_ngram", "bound"), [(1, 0.75), (2, 0.77)])
def test_counting_words_does_not_solve_the_task(tmp_path: Path, seed: int, max_ngram: int, bound: float) -> None:
    task = make_demo_task(tmp_path, seed=seed) / "SST-2"
    accuracy = bag_of_words_accuracy(read_labeled(task / "train.tsv"), read_labeled(task / "dev.tsv"), max_ngram)
    assert 0.5 < accuracy < bound


@pytest.mark.slow
def test_a_fine_tuned_bert_is_ten_points_above_a_bag_of_words(folder: Path, tmp_path: Path) -> None:
    minilm = ["--model_name_or_path", "minilm", "--use_cpu", "--max_seq_length", "64"]
    if is_fast_in_bfloat16("cpu"):
        minilm.append("--bf16")
    task = ["--task_name", "sst2", "--glue_dir", str(folder.parent), "--disable_tqdm", "true"]
    # One epoch suffices: it gives some 89 % where counting words gives some 70 %.
    training = ["--learning_rate", "1e-4", "--num_train_epochs", "1", "--output_dir", str(tmp_path)]
    (teacher,) = finetune.main([*minilm, *task, *training])
    bag_of_words = bag_of_words_accuracy(read_labeled(folder / "train.tsv"), read_labeled(folder / "dev.tsv"))
    assert teacher.value >= bag_of_words + 0.10
