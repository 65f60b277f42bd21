"""The command shrink, and the page of its figures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import ROOT
from helpers import tiny_model
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertForSequenceClassification,
    BertTokenizer,
)

from benchmarks import shrink_table
from bertkd.cli import kd, shrink
from bertkd.efficiency import count_parameters, model_size_mb
from bertkd.pipeline.shrink import recut_sentence
from bertkd.records import read_result


@pytest.fixture(scope="module")
def teacher(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier of the built-in task with the task's labels, and words that the task does not use."""
    folder = tmp_path_factory.mktemp("teacher")
    words = (pretrained / "vocab.txt").read_text().splitlines() + [f"other{i}" for i in range(40)]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    labels = {"id2label": {0: "negative", 1: "positive"}, "label2id": {"negative": 0, "positive": 1}}
    tiny_model(layers=4, vocab_size=len(words), num_labels=2, max_position_embeddings=160, **labels).save_pretrained(
        folder
    )
    return folder


def arguments(teacher: Path, glue_dir: Path, output: Path, *steps: str) -> list[str]:
    start = ["--model_name_or_path", str(teacher), "--task_name", "sst2", "--glue_dir", str(glue_dir)]
    few = ["--max_eval_samples", "32", "--repeats", "2", "--use_cpu"]
    return [*start, *few, "--output_dir", str(output), *steps]


def test_the_command_measures_and_writes(
    teacher: Path, glue_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, records = tmp_path / "shrunk", tmp_path / "levers.json"
    steps = ["--prune_vocabulary", "--ffn_rank", "4", "--embedding_rank", "3", "--share_layers", "0,0,1,1"]
    answer = shrink.main([*arguments(teacher, glue_dir, folder, *steps), "--record", str(records)])
    made = AutoModelForSequenceClassification.from_pretrained(folder)
    before, after = answer["before"], answer["after"]
    assert made.config.layer_groups == [0, 0, 1, 1] and made.config.vocab_size == len(
        AutoTokenizer.from_pretrained(folder)
    )
    assert after["parameters"] == count_parameters(made).total < before["parameters"]
    assert after["size_mb"] == model_size_mb(folder) < before["size_mb"] == model_size_mb(teacher)
    assert after["gflops"] < before["gflops"]
    assert after["latency"]["p50_ms"] > 0 and before["latency"]["speedup"] == 1
    assert set(before["metrics"]) == set(after["metrics"]) == {"accuracy"}
    assert json.loads((folder / "shrink.json").read_text())["levers"] == answer["levers"]
    result = json.loads((folder / "results.json").read_text())
    assert result["value"] == after["metrics"]["accuracy"] and result["parameters"] == after["parameters"]
    assert "nothing was trained" in (folder / "README.md").read_text()
    assert not (folder / ".partial").exists()
    printed = capsys.readouterr().out
    assert "before" in printed and "speed-up" in printed and str(folder) in printed
    empty = "# Page\n<!-- levers:start -->\n<!-- levers:end -->\nend\n"
    page = shrink_table.with_table(empty, json.loads(records.read_text()))
    assert "layers shared: 0,0,1,1, FFN rank 4, embedding rank 3" in page and page.endswith("-->\nend\n")


def test_a_smaller_student_keeps_its_teacher(teacher: Path, glue_dir: Path, tmp_path: Path) -> None:
    source = shutil.copytree(teacher, tmp_path / "student")
    steps = ["--share_layers", "2", "--sequence_length", "128"]
    shrink.main(arguments(source, glue_dir, tmp_path / "made", *steps))
    record = read_result(tmp_path / "made" / "results.json")
    assert record.speedup is not None

    made_of = replace(record, method="kd", teacher_metrics={"accuracy": 0.75}, speedup=4.0)
    made_of.write(source)
    shrink.main(arguments(source, glue_dir, tmp_path / "again", *steps))
    again = read_result(tmp_path / "again" / "results.json")
    ratio = json.loads((tmp_path / "again" / "shrink.json").read_text())["after"]["latency"]["speedup"]
    assert again.teacher_metrics == {"accuracy": 0.75} and again.speedup == pytest.approx(4 * ratio, abs=0.01)

    # Without a teacher, the model itself is what the smaller one is compared with.
    replace(record, method="finetuned", teacher_metrics={}, speedup=2.0).write(source)
    shrink.main(arguments(source, glue_dir, tmp_path / "alone", *steps))
    alone = read_result(tmp_path / "alone" / "results.json")
    ratio = json.loads((tmp_path / "alone" / "shrink.json").read_text())["after"]["latency"]["speedup"]
    assert alone.teacher_metrics == record.teacher_metrics and alone.speedup == pytest.approx(ratio, abs=0.01)

    # Other figures of a record are those of one row of 128 tokens.
    shrink.main(arguments(source, glue_dir, tmp_path / "short", "--share_layers", "2", "--sequence_length", "16"))
    assert read_result(tmp_path / "short" / "results.json").speedup is None


def test_the_command_prunes_the_vocabulary_without_a_change_and_its_model_is_trained_on(
    teacher: Path, glue_dir: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "vocabulary"
    answer = shrink.main(arguments(teacher, glue_dir, folder, "--prune_vocabulary"))
    assert answer["before"]["metrics"] == answer["after"]["metrics"] and answer["recut_rows"] == 0
    assert type(AutoModelForSequenceClassification.from_pretrained(folder)) is BertForSequenceClassification
    assert not [token for token in AutoTokenizer.from_pretrained(folder).get_vocab() if token.startswith("other")]
    both = tmp_path / "both"
    shrink.main(arguments(folder, glue_dir, both, "--share_layers", "2", "--share_weights", "mean", "--ffn_rank", "4"))
    command = arguments(both, glue_dir, tmp_path / "trained", "--max_train_samples", "32", "--num_train_epochs", "1")
    place = command.index("--repeats")
    command[place : place + 2] = ["--teacher_model_name_or_path", str(folder), "--ignore_weak_teacher"]
    kd.main(command)
    trained = AutoModelForSequenceClassification.from_pretrained(tmp_path / "trained")
    assert trained.config.layer_groups == [0, 0, 1, 1] and trained.config.ffn_rank == 4


def test_rows_with_other_words_than_the_training_texts_are_counted(
    teacher: Path, glue_dir: Path, tmp_path: Path
) -> None:
    (tmp_path / "SST-2").mkdir()
    lines = (glue_dir / "SST-2" / "train.tsv").read_text().splitlines()
    (tmp_path / "SST-2" / "train.tsv").write_text("\n".join(lines))
    rows = [lines[0], lines[1], "other1 " + lines[2], "other2 other3 " + lines[3], lines[4]]
    (tmp_path / "SST-2" / "dev.tsv").write_text("\n".join(rows))
    answer = shrink.main(arguments(teacher, tmp_path, tmp_path / "out", "--prune_vocabulary"))
    assert recut_sentence(answer) == "2 of 4 validation rows have words that now fall into smaller pieces."
    assert "- SST-2, vocabulary of the task: 2 of 4 validation rows" in shrink_table.render([answer])


def test_the_command_refuses_what_it_cannot_do(teacher: Path, glue_dir: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    for steps, message in (
        ([], "Nothing to do: give --prune_vocabulary"),
        (["--share_layers", "two"], "--share_layers two is neither a number"),
        (["--ffn_rank", "4", "--min_count", "2"], "--min_count 2 goes with --prune_vocabulary"),
        (["--ffn_rank", "4", "--share_weights", "mean"], "--share_weights mean goes with --share_layers"),
        (["--ffn_rank", "10"], "ffn_rank=10 saves no parameters"),
        (["--ffn_rank", "4", "--seed", "1", "2"], "Give one --seed"),
    ):
        with pytest.raises(ValueError, match=message):
            shrink.main(arguments(teacher, glue_dir, folder, *steps))
    alone = ["--model_name_or_path", str(teacher), "--train_file", str(glue_dir / "SST-2" / "train.tsv"), "--use_cpu"]
    with pytest.raises(ValueError, match="Give a labeled file .* --validation_file"):
        shrink.main([*alone, "--ffn_rank", "4", "--output_dir", str(folder)])
    with pytest.raises(ValueError, match="is also --model_name_or_path"):
        shrink.main(arguments(teacher, glue_dir, teacher, "--ffn_rank", "4"))
    with pytest.raises(ValueError, match="Name the folder of the fine-tuned model"):
        shrink.main(["--task_name", "sst2", "--output_dir", str(folder), "--ffn_rank", "4"])
    assert not folder.exists()


def test_the_page_of_smaller_models_is_that_of_its_measurements() -> None:
    entries = json.loads((ROOT / "docs" / "levers.json").read_text())
    page = (ROOT / "docs" / "levers.md").read_text()
    assert entries and page == shrink_table.with_table(page, entries)
