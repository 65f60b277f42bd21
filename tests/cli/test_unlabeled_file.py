"""--unlabeled_file: texts of the user's domain beside the training rows of a task."""

from pathlib import Path
from typing import Any

import pytest

from bertkd import DistillationConfig
from bertkd.cli import dynabert, resolve, tinybert
from bertkd.cli.options import TrainOptions
from bertkd.cli.parser import parse_runs
from bertkd.pipeline import TaskData


def data_of(words: list[str], folder: Path) -> TaskData:
    shared = ["--output_dir", str(folder / "out"), "--use_cpu", "--max_eval_samples", "8"]
    runs: list[Any] = parse_runs("kd", "", DistillationConfig, [*words, *shared], {}, TrainOptions)
    return resolve.task_data(runs[0])


def test_texts_are_added_to_the_rows_of_a_task_and_no_row_keeps_its_label(
    pretrained: Path, glue_dir: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("sentence\na fine film\na dull one\n")
    words = ["--teacher_model_name_or_path", str(pretrained), "--task_name", "sst2", "--glue_dir", str(glue_dir)]
    words += ["--max_train_samples", "10", "--sample_seed", "1", "--unlabeled_file", str(texts)]
    data = data_of([*words, "--alpha", "1"], tmp_path)
    assert len(data.splits["train"]) == 12 and "label" not in data.splits["train"].column_names
    assert "label" in data.validation["validation"].column_names
    plain = data_of([*words[:-2], "--alpha", "1"], tmp_path)
    assert data.splits["train"]["input_ids"][:10] == plain.splits["train"]["input_ids"][:]

    with pytest.raises(ValueError, match="--unlabeled_file needs --alpha 1, and alpha is 0.5"):
        data_of([*words, "--alpha", "0.5"], tmp_path)
    texts.write_text("words\na fine film\na dull one\n")
    with pytest.raises(ValueError, match="sentence"):
        data_of([*words, "--alpha", "1"], tmp_path)


def test_dynabert_says_at_once_what_needs_labels(pretrained: Path, glue_dir: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("sentence\na fine film\na dull one\n")
    words = ["--teacher_model_name_or_path", str(pretrained), "--task_name", "sst2", "--glue_dir", str(glue_dir)]
    words += ["--unlabeled_file", str(texts), "--max_train_samples", "10", "--max_eval_samples", "8", "--use_cpu"]
    words += ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="stage finetune learns from nothing else.*--stages width depth"):
        dynabert.main(words)
    with pytest.raises(ValueError, match="--importance_split validation.*--no_rewire"):
        dynabert.main([*words, "--stages", "width"])


def test_tinybert_learns_from_the_texts_too(pretrained: Path, glue_dir: Path, tmp_path: Path) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text("sentence\na fine film\na dull one\n")
    words = [
        "--task_name",
        "sst2",
        "--glue_dir",
        str(glue_dir),
        "--max_train_samples",
        "10",
        "--max_eval_samples",
        "8",
    ]
    words += ["--teacher_model_name_or_path", str(pretrained), "--ignore_weak_teacher", "--use_cpu"]
    words += ["--teacher_labels", "negative", "positive", "--num_hidden_layers", "2", "--hidden_size", "8"]
    words += ["--intermediate_size", "12", "--augment", "false", "--max_steps", "1", "--unlabeled_file", str(texts)]
    result = tinybert.main([*words, "--output_dir", str(tmp_path / "out")])[0]
    assert result.rows["train"] == 12
    with pytest.raises(ValueError, match="--unlabeled_file needs --alpha 1"):
        tinybert.main([*words, "--alpha", "0.5", "--output_dir", str(tmp_path / "other")])


@pytest.mark.parametrize("label", ["0.5", "unlabeled", ""])
def test_what_a_file_of_texts_says_in_its_label_column_does_not_count(
    label: str, pretrained: Path, glue_dir: Path, tmp_path: Path
) -> None:
    texts = tmp_path / "texts.csv"
    texts.write_text(f"sentence,label\na fine film,{label}\na dull one,{label}\n")
    words = ["--teacher_model_name_or_path", str(pretrained), "--task_name", "sst2", "--glue_dir", str(glue_dir)]
    words += ["--max_train_samples", "10", "--sample_seed", "1", "--unlabeled_file", str(texts), "--alpha", "1"]
    assert len(data_of(words, tmp_path).splits["train"]) == 12


def test_a_task_of_scores_takes_texts_too(pretrained: Path, tmp_path: Path) -> None:
    rows = "sentence1,sentence2,label\n" + "".join(f"word {i},other {i},{i % 5}.5\n" for i in range(12))
    (tmp_path / "train.csv").write_text(rows)
    (tmp_path / "dev.csv").write_text(rows.replace("word", "term"))
    (tmp_path / "texts.csv").write_text("sentence1,sentence2\none,two\nthree,four\n")
    words = ["--teacher_model_name_or_path", str(pretrained), "--alpha", "1"]
    for name, file in (("train_file", "train"), ("validation_file", "dev"), ("unlabeled_file", "texts")):
        words += [f"--{name}", str(tmp_path / f"{file}.csv")]
    assert len(data_of(words, tmp_path).splits["train"]) == 14
