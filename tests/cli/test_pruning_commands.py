"""The command prune, and compress without a method, on tiny models."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from conftest import ROOT
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel

from bertkd.cli import compress, finetune, prune
from bertkd.data import GLUE_TASKS
from bertkd.efficiency import count_flops, count_parameters
from bertkd.export import open_exported
from bertkd.models import LayerSizes, layer_sizes
from bertkd.pipeline import evaluation, load_model, pruning
from bertkd.pipeline.deployment import Deployment, Timing
from bertkd.pruning import PrunedKDTrainer
from bertkd.records import RunResult, read_result, result_rows, summarize

pytestmark = pytest.mark.usefixtures("teacher_in_pytorch_alone")

QUICK = ["--use_cpu", "--disable_tqdm", "true", "--max_train_samples", "64", "--max_eval_samples", "48"]
ONE_EPOCH = ["--num_train_epochs", "1"]
IN_PARAMETERS = ["--unit", "parameters"]
# A pass so small that its FLOPs and its time are the layers', and not the fixed parts'.
SHORT = ["--sequence_length", "16", "--repeats", "3"]


@pytest.fixture(scope="module")
def teacher(glue_dir: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir)]
    settings = ["--num_train_epochs", "4", "--learning_rate", "5e-3", "--output_dir", str(folder)]
    finetune.main(["--model_name_or_path", str(pretrained), *data, *QUICK, *settings])
    return folder


@pytest.fixture
def words(glue_dir: Path, teacher: Path) -> list[str]:
    """Arguments that the commands share: teacher, data, and a short training."""
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--ignore_weak_teacher"]
    return ["--teacher_model_name_or_path", str(teacher), *data, *SHORT]


def pruned(words: Sequence[str], folder: Path, *options: str) -> list[RunResult]:
    """Runs `bertkd prune`."""
    return prune.main([*words, "--output_dir", str(folder), *options])


def facts_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "start" / "pruning.json").read_text())


def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def no_training(patch: pytest.MonkeyPatch) -> None:
    """Lets whatever scores, prunes or trains fail."""
    patch.setattr(pruning.Pruner, "prepared", lambda *_, **__: 1 / 0)
    patch.setattr(PrunedKDTrainer, "training_step", lambda *_, **__: 1 / 0)


# ---- one budget ----


def test_a_student_within_its_budget_is_an_ordinary_folder(
    words: list[str], teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH]
    (result,) = pruned(words, tmp_path, *options)
    out = capsys.readouterr().out
    assert "50% of the teacher's gflops: the student takes" in out and "Neurons by layer: [" in out
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "results.json"} <= {
        file.name for file in tmp_path.iterdir()
    }

    whole, student = load_model(str(teacher)), AutoModelForSequenceClassification.from_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tmp_path)
    assert count_flops(student, 1, 16) <= 0.5 * count_flops(whole, 1, 16)
    assert student.config.num_hidden_layers == 4 and student.config.id2label == {0: "negative", 1: "positive"}

    facts, start = facts_of(tmp_path), load_model(str(tmp_path / "start"))
    assert layer_sizes(start) == layer_sizes(student) == LayerSizes(*map(tuple, facts["sizes"].values()))
    assert facts["measured"] * 1e9 == count_flops(student, 1, 16) and facts["budget"] == facts["whole"] / 2
    assert facts["rows"] == 64 and facts["divergence"] >= 0 and facts["curve"] == []
    trained = load_file(tmp_path / "model.safetensors")
    assert any(not torch.equal(value, trained[name]) for name, value in start.state_dict().items() if name in trained)

    assert (result.method, result.task, result.layers) == ("pruned-50", "sst2", 4)
    assert result.settings["budget"] == ["50%"] and result.settings["alpha"] == result.settings["beta"] == 1
    assert result.parameters == count_parameters(student).total and result.teacher_metrics
    card = (tmp_path / "README.md").read_text()
    assert "bertkd prune" in card and "trust_remote_code" in card

    # A second start finds all of it.
    no_training(monkeypatch)
    (again,) = pruned(words, tmp_path, *options)
    assert again.finished == result.finished
    with pytest.raises(ValueError, match=r"other settings \(budget was \['50%'\] and is \['40%'\]\)"):
        pruned(words, tmp_path, *options, "--budget", "40%")


@pytest.mark.parametrize(("budget", "unit"), [("80%", "parameters"), ("20000", "parameters"), ("1e6", "ms")])
def test_budgets_are_shares_or_numbers_of_any_unit(budget: str, unit: str, words: list[str], tmp_path: Path) -> None:
    (result,) = pruned(words, tmp_path, "--budget", budget, "--unit", unit, *ONE_EPOCH)
    facts = facts_of(tmp_path)
    assert result.method == "pruned" and facts["unit"] == unit
    assert facts["measured"] <= facts["budget"]
    if unit == "parameters":
        wanted = 0.8 * facts["whole"] if "%" in budget else 20_000
        assert facts["budget"] == pytest.approx(wanted) and facts["measured"] == result.parameters


def test_a_teacher_within_the_budget_keeps_its_size_and_that_is_said(
    words: list[str], teacher: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (result,) = pruned(words, tmp_path, "--budget", "1e9", *IN_PARAMETERS, *ONE_EPOCH)
    assert "the teacher meets the budget already: nothing is pruned" in capsys.readouterr().out
    assert result.parameters == count_parameters(load_model(str(teacher))).total
    assert facts_of(tmp_path)["sizes"] == {"heads": [2] * 4, "neurons": [24] * 4}


def time_by_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gives a clock that counts parameters: the times of tiny models are those of the framework around them."""

    real = Timing.measure

    def measure(timing: Timing, models: dict[str, Any]) -> dict[str, Any]:
        if not all(isinstance(model, PreTrainedModel) for model in models.values()):
            return dict(real(timing, models))
        costs = {name: count_parameters(model).total / 1e3 for name, model in models.items()}
        usual = next(iter(costs.values()))
        return {name: SimpleNamespace(p50_ms=cost, speedup=usual / cost) for name, cost in costs.items()}

    monkeypatch.setattr(Deployment, "runner", lambda _self, model: model)
    monkeypatch.setattr(Timing, "measure", measure)


def test_a_budget_in_milliseconds_holds_as_measured(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    time_by_parameters(monkeypatch)
    pruned(words, tmp_path, "--budget", "80%", "--unit", "ms", *ONE_EPOCH)
    facts = facts_of(tmp_path)
    assert facts["unit"] == "ms" and facts["measured"] <= facts["budget"] == pytest.approx(0.8 * facts["whole"])
    assert facts["measured"] == pytest.approx(count_parameters(load_model(str(tmp_path))).total / 1e3)


def test_progress_bars_say_how_much_time_is_left(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    time_by_parameters(monkeypatch)
    place = words.index("--disable_tqdm")
    as_usual = words[:place] + words[place + 2 :]
    pruned(as_usual, tmp_path, "--budget", "80%", "--unit", "ms", "--max_steps", "2")
    shown = capsys.readouterr().err
    for step in ("Measuring", "Scores", "Harms", "Reconstruction"):
        assert re.search(rf"{step}: +\d+%.*<\d\d:\d\d", shown), step
    # The training's bar has no name.
    assert re.search(r"2/2 \[\d\d:\d\d<00:00", shown)


def test_what_is_left_can_stay_as_it_was(words: list[str], tmp_path: Path) -> None:
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH]
    (fitted,) = pruned(words, tmp_path / "fitted", *options)
    (as_it_was,) = pruned(words, tmp_path / "as_it_was", *options, "--reconstruct", "false")
    assert (fitted.method, as_it_was.method) == ("pruned-50", "pruned-50-unfitted")
    facts = [facts_of(tmp_path / name) for name in ("fitted", "as_it_was")]
    assert facts[0]["sizes"] == facts[1]["sizes"] and facts[0]["divergence"] < facts[1]["divergence"]


def test_units_can_stay_by_score_or_by_error_alone(words: list[str], tmp_path: Path) -> None:
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH]
    (by_score,) = pruned(words, tmp_path / "score", *options, "--unit_order", "score")
    (by_error,) = pruned(words, tmp_path / "error", *options, "--unit_order", "error", "--result_name", "mine")
    assert (by_score.method, by_score.budget) == ("pruned-50-score", "")
    assert (by_error.method, by_error.budget) == ("mine", "50% of the teacher's gflops")
    ours, theirs = (load_file(tmp_path / name / "start" / "model.safetensors") for name in ("score", "error"))
    assert ours.keys() != theirs.keys() or any(not torch.equal(ours[name], theirs[name]) for name in ours)


def test_without_hidden_states_the_teacher_can_be_cached(words: list[str], tmp_path: Path) -> None:
    # Steps that change something.
    large = ["--optim", "sgd", "--learning_rate", "0.05", "--warmup_steps", "0", "--load_best_model_at_end", "false"]
    options = ["--budget", "50%", "--unit", "gflops", "--beta", "0", *ONE_EPOCH, *large]
    (live,) = pruned(words, tmp_path / "live", *options)
    (cached,) = pruned(words, tmp_path / "cached", *options, "--teacher_cache_dir", str(tmp_path / "cache"))
    assert live.method == cached.method == "pruned-50-nohidden" and list((tmp_path / "cache").glob("*/meta.json"))
    ours, theirs = (load_file(tmp_path / name / "model.safetensors") for name in ("live", "cached"))
    start = load_file(tmp_path / "live" / "start" / "model.safetensors")
    assert max((ours[name] - start[name]).abs().max() for name in start) > 1e-3
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6)


def test_a_dry_run_says_what_would_be_trained_and_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--unit", "gflops", *ONE_EPOCH, "--dry_run"]
    assert pruned(words, tmp_path / "run", "--budget", "50%", *options) == []
    out = capsys.readouterr().out
    assert out.count("Dry run") == 1 and "pruned-50" in out and "the student takes" in out
    assert pruned(words, tmp_path / "run", "--budget", "70%", "50%", *options) == []
    assert capsys.readouterr().out.count("Dry run") == 2
    assert not files_in(tmp_path / "run")


def test_each_seed_has_a_folder_with_a_start_of_its_own(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH, "--pruning_rows", "40", "--seed", "1", "2"]
    results = pruned(words, tmp_path, *options)
    assert [result.seed for result in results] == [1, 2]
    assert "over 2 seeds" in capsys.readouterr().out
    starts = [facts_of(tmp_path / f"seed-{seed}") for seed in (1, 2)]
    assert starts[0]["harm"] != starts[1]["harm"], "both seeds drew the same rows"


def test_the_number_of_epochs_follows_the_rows(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--budget", "50%", "--unit", "gflops", "--max_train_samples", "40"]
    (result,) = pruned(words, tmp_path, *options)
    assert result.settings["num_train_epochs"] == 10  # the most
    monkeypatch.setattr(pruning, "ROWS_SEEN", 120)
    (result,) = pruned(words, tmp_path / "few", *options)
    assert result.settings["num_train_epochs"] == 3
    # Of many rows not all are seen.
    monkeypatch.setattr(pruning, "ROWS_SEEN", 20)
    (result,) = pruned(words, tmp_path / "part", *options, "--per_device_train_batch_size", "10")
    assert result.settings["num_train_epochs"] == 0.5 and (tmp_path / "part" / "model.safetensors").is_file()


def test_a_search_begins_where_the_curve_says_that_the_budget_lies() -> None:
    curve = [{"measured": 8.0, "predicted": 8.0}, {"measured": 4.0, "predicted": 3.0}]
    assert pruning._table_cost_of(6.0, curve) == 5.5
    assert pruning._table_cost_of(1.0, curve) == 3.0 and pruning._table_cost_of(9.0, curve) == 8.0
    assert pruning._table_cost_of(6.0, []) == 6.0


def test_rows_without_labels_are_pruned_and_trained_on(words: list[str], glue_dir: Path, tmp_path: Path) -> None:
    lines = (glue_dir / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    pairs = [line.split("\t") for line in lines]
    names = ("negative", "positive")
    labeled = "\n".join(f'"{text}",{names[int(label)]}' for text, label in pairs[:60])
    (tmp_path / "dev.csv").write_text(f"text,label\n{labeled}\n")
    texts = "\n".join(f'"{text}"' for text, _ in pairs[60:160])
    (tmp_path / "train.csv").write_text(f"text\n{texts}\n")

    files = ["--train_file", str(tmp_path / "train.csv"), "--validation_file", str(tmp_path / "dev.csv")]
    own = [word for word in words if word not in ("--task_name", "sst2", "--glue_dir", str(glue_dir))]
    options = [*files, "--class_names", *names, "--budget", "50%", "--unit", "gflops", *ONE_EPOCH]
    (result,) = pruned(own, tmp_path / "run", *options)
    assert result.task == "files" and result.metric == "accuracy"
    with pytest.raises(ValueError, match=r"no label column .*alpha=1"):
        pruned(own, tmp_path / "labels", *options, "--alpha", "0.5")


def test_a_teacher_with_its_labels_in_another_order_gives_the_same_student(
    words: list[str], teacher: Path, tmp_path: Path
) -> None:
    model = load_model(str(teacher))
    model.classifier.weight.data, model.classifier.bias.data = (
        model.classifier.weight[[1, 0]],
        model.classifier.bias[[1, 0]],
    )
    model.config.id2label, model.config.label2id = {0: "positive", 1: "negative"}, {"positive": 0, "negative": 1}
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "other")

    options = ["--budget", "80%", "50%", "--unit", "gflops", *ONE_EPOCH, "--alpha", "0.5"]
    pruned(words, tmp_path / "a", *options)
    pruned(words, tmp_path / "b", *options, "--teacher_model_name_or_path", str(tmp_path / "other"))
    for rung in ("gflops-80pct", "gflops-50pct"):
        ours, theirs = (read_result(tmp_path / name / rung / "results.json") for name in "ab")
        assert ours.metrics == theirs.metrics and ours.metrics_before == theirs.metrics_before
        assert load_model(str(tmp_path / "b" / rung)).config.id2label == {0: "negative", 1: "positive"}


def test_few_rows_are_pruned_by_in_smaller_batches(words: list[str], tmp_path: Path) -> None:
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH]
    pruned(words, tmp_path / "drawn", *options, "--pruning_rows", "20")
    pruned(words, tmp_path / "all", *options, "--max_train_samples", "12")
    assert [facts_of(tmp_path / name)["rows"] for name in ("drawn", "all")] == [20, 12]


def test_a_student_is_no_worse_than_before_its_training_unless_the_last_epoch_is_asked_for(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    # So high a rate that the student answers like a coin.
    options = ["--budget", "50%", "--unit", "gflops", *ONE_EPOCH, "--learning_rate", "5", "--warmup_steps", "0"]
    (kept,) = pruned(words, tmp_path / "kept", *options)
    assert "The training lowered accuracy from" in capsys.readouterr().out
    assert kept.is_start and kept.metrics == kept.metrics_before and kept.value == kept.metrics["accuracy"]
    assert "It lowered accuracy: this is the student as it was" in (tmp_path / "kept" / "README.md").read_text()
    start, student = (load_file(tmp_path / "kept" / name / "model.safetensors") for name in ("start", "."))
    assert start.keys() == student.keys() and all(torch.equal(start[name], student[name]) for name in start)

    (last,) = pruned(words, tmp_path / "last", *options, "--load_best_model_at_end", "false")
    assert last.metrics_before == kept.metrics_before and last.value < kept.value and not last.is_start
    assert "The training lowered" not in capsys.readouterr().out

    (better,) = pruned(words, tmp_path / "better", *options[:4], "--num_train_epochs", "2")
    assert better.value >= kept.value


# ---- rungs ----


def test_rungs_leave_a_finished_folder_each_and_every_one_lies_within_the_one_before(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--budget", "75%", "50%", "25%", "--unit", "gflops", *ONE_EPOCH]
    results = pruned(words, tmp_path, *options)
    out = capsys.readouterr().out
    assert [result.method for result in results] == ["pruned", "pruned-50-rungs", "pruned-25-rungs"]
    # What a name does not say stands beside it.
    assert [result.budget for result in results] == ["75% of the teacher's gflops", "", ""]
    # The three students are of different sizes, and no mean of them says anything.
    assert "seeds" not in out

    folders = [tmp_path / f"gflops-{share}pct" for share in (75, 50, 25)]
    before = LayerSizes((2,) * 4, (24,) * 4)
    for folder, result, share in zip(folders, results, (0.75, 0.5, 0.25), strict=True):
        assert str(folder) in out and read_result(folder / "results.json") == result
        facts, sizes = facts_of(folder), layer_sizes(load_model(str(folder)))
        assert facts["measured"] <= facts["budget"] == pytest.approx(share * facts["whole"])
        for part, part_before in zip(sizes, before, strict=True):
            assert all(ours <= theirs for ours, theirs in zip(part, part_before, strict=True))
        before = sizes
    assert results[0].parameters > results[1].parameters > results[2].parameters

    no_training(monkeypatch)
    assert [again.finished for again in pruned(words, tmp_path, *options)] == [one.finished for one in results]


def test_without_rungs_each_student_is_what_its_budget_alone_makes_of_the_teacher(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared, measured = pruning.Pruner.prepared, []

    def counted(*arguments: Any, **options: Any) -> pruning.Pruner:
        measured.append(prepared(*arguments, **options))
        return measured[-1]

    monkeypatch.setattr(pruning.Pruner, "prepared", counted)
    options = ["--unit", "gflops", *ONE_EPOCH]
    results = pruned(words, tmp_path / "sizes", "--budget", "75%", "40%", "--rungs", "false", *options)
    assert [result.method for result in results] == ["pruned"] * 2 and len(measured) == 1
    # One method and one seed, and still two rows.
    first, second = result_rows(summarize(results))
    assert (first["Method"], second["Method"]) == (
        "Pruned, 75% of the teacher's gflops",
        "Pruned, 40% of the teacher's gflops",
    )

    alone = pruned(words, tmp_path / "alone", "--budget", "40%", *options)
    assert alone[0].metrics == results[1].metrics and len(measured) == 2
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("sizes/gflops-40pct", "alone"))
    assert one.keys() == other.keys()
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_seeds_and_rungs_have_their_means_by_rung(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--budget", "75%", "50%", "--unit", "gflops", *ONE_EPOCH, "--seed", "1", "2"]
    assert len(pruned(words, tmp_path, *options)) == 4
    assert capsys.readouterr().out.count("over 2 seeds") == 2
    assert (tmp_path / "seed-2" / "gflops-50pct" / "results.json").is_file()


def test_a_run_killed_between_rungs_goes_on(words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ["--budget", "75%", "50%", "--unit", "gflops", *ONE_EPOCH]
    command = [sys.executable, "-m", "bertkd", "prune", *words, *options, "--output_dir", str(tmp_path / "run")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, cwd=ROOT)
    deadline = time.monotonic() + 120
    first, second = (tmp_path / "run" / f"gflops-{share}pct" for share in (75, 50))
    while not (first / "results.json").is_file():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (second / "results.json").exists(), "the run was over before it was killed"

    of_first = read_result(first / "results.json")
    results = pruned(words, tmp_path / "run", *options)
    assert results[0].finished == of_first.finished
    pruned(words, tmp_path / "whole", *options)
    one, other = (load_file(tmp_path / name / "gflops-50pct" / "model.safetensors") for name in ("run", "whole"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_the_start_of_a_run_that_was_killed_is_used_for_the_same_budget_alone(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*options: str) -> dict[str, Any]:
        """Stops after pruning, before anything is trained; returns what pruning has left."""
        with monkeypatch.context() as patch:
            patch.setattr(pruning, "train_on_task", lambda *_, **__: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                pruned(words, tmp_path, "--unit", "gflops", *ONE_EPOCH, *options)
        return facts_of(tmp_path)

    half = killed("--budget", "50%")
    with monkeypatch.context() as patch:
        patch.setattr(pruning.Pruner, "prepared", lambda *_, **__: 1 / 0)
        assert killed("--budget", "50%") == half
    quarter = killed("--budget", "25%")
    assert quarter["measured"] <= quarter["budget"] == half["budget"] / 2
    assert killed("--budget", "25%", "--seed", "3")["harm"] != quarter["harm"]
    pruned(words, tmp_path, "--unit", "gflops", *ONE_EPOCH, "--budget", "40%")
    assert facts_of(tmp_path)["budget"] == pytest.approx(0.4 * half["whole"])
    assert layer_sizes(load_model(str(tmp_path))) == layer_sizes(load_model(str(tmp_path / "start")))


def test_a_last_rung_that_nothing_meets_is_refused_before_the_first_is_trained(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_training(monkeypatch)
    with pytest.raises(ValueError, match=r"--budget 10 parameters: no network .* a single head takes [0-9.e+]+ param"):
        pruned(words, tmp_path, "--budget", "20000", "10", *IN_PARAMETERS)


# The command `bertkd`, which leaves a file named after the process wherever a model is scored.
COUNTED = """
import os
import time
from pathlib import Path

from bertkd.cli import main
from bertkd.pipeline import pruning

prepared = pruning.Pruner.prepared

def counted(*args, **options):
    Path(os.environ["COUNTED"], f"{os.environ['RANK']}-{time.time_ns()}").touch()
    return prepared(*args, **options)

pruning.Pruner.prepared = counted
main()
"""


@pytest.mark.slow
def test_two_processes_prune_once(words: list[str], tmp_path: Path) -> None:
    script, counted, folder = (tmp_path / name for name in ("bertkd.counted.py", "counted", "run"))
    script.write_text(COUNTED)
    counted.mkdir()
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", str(script)]
    options = ["--budget", "75%", "50%", "--unit", "gflops", "--max_steps", "2", "--output_dir", str(folder)]
    environment = {**os.environ, "COUNTED": str(counted), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launcher, "prune", *words, *options], capture_output=True, text=True, env=environment, timeout=280
    )
    assert done.returncode == 0, done.stderr[-2000:]
    for name, method in (("gflops-75pct", "pruned"), ("gflops-50pct", "pruned-50-rungs")):
        assert json.loads((folder / name / "settings.json").read_text())["world_size"] == 2
        assert read_result(folder / name / "results.json").method == method
    assert done.stdout.count("50% of the teacher's gflops: the student takes") == 1
    # Once for each budget, by the first process.
    assert [path.name[0] for path in counted.iterdir()] == ["0", "0"]


# ---- compress ----


def compressed(words: Sequence[str], folder: Path, *options: str) -> dict[str, Any]:
    """Runs `bertkd compress` for PyTorch in float32."""
    engine = ["--engine", "pytorch", "--precision", "float32", "--max_drop", "1"]
    return compress.main([*words, *engine, "--output_dir", str(folder), *options])


def test_compress_shows_the_sizes_prunes_trains_and_exports(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--budget", "80%", *IN_PARAMETERS, *ONE_EPOCH]
    answer = compressed(words, tmp_path, *options)
    out = capsys.readouterr().out
    facts = facts_of(tmp_path / "student")

    # From the teacher down, each smaller, with what it reaches before it is trained.
    curve = facts["curve"]
    assert len(curve) >= 2 and curve[0]["share"] == 1 and curve[0]["measured"] == facts["whole"]
    assert [point["measured"] for point in curve] == sorted((p["measured"] for p in curve), reverse=True)
    for point in curve[1:]:
        assert point["measured"] <= 1.05 * point["share"] * facts["whole"] and 0 <= point["value"] <= 1
    assert "before training" in out and str(tmp_path / "student" / "curve.png") in out
    assert (tmp_path / "student" / "curve.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"

    assert {"student", "deployed", "compress.json", "report.html"} <= {file.name for file in tmp_path.iterdir()}
    assert json.loads((tmp_path / "compress.json").read_text())["measured"] == answer["measured"]
    assert answer["method"] == "pruned" and answer["is_within_budget"] and answer["unit"] == "parameters"
    assert answer["predicted"] == answer["measured"] == facts["measured"] <= answer["budget"] == facts["budget"]
    assert answer["student"] == "student" and answer["exported"]["method"] == "pruned"
    assert answer["exported"]["budget"] == "80% of the teacher's parameters"
    card = (tmp_path / "deployed" / "README.md").read_text()
    assert "method: Pruned, 80% of the teacher's parameters." in card
    assert open_exported(tmp_path / "deployed").engine == "pytorch" and "within the budget" in out
    trained = read_result(tmp_path / "student" / "results.json")
    assert trained.command.startswith("bertkd compress") and trained.parameters == answer["measured"]

    # What only the export reads may be another one.
    no_training(monkeypatch)
    again = compressed(words, tmp_path, *options, "--max_drop", "0.9")
    assert again["measured"] == answer["measured"]
    assert read_result(tmp_path / "student" / "results.json").finished == trained.finished


def test_what_was_pruned_is_exported_in_int8(words: list[str], tmp_path: Path) -> None:
    engine = ["--engine", "openvino", "--precision", "int8", "--max_drop", "1", "--quantization_aware_rows", "0"]
    answer = compress.main(
        [*words, *engine, "--budget", "80%", *IN_PARAMETERS, *ONE_EPOCH, "--output_dir", str(tmp_path)]
    )
    assert answer["is_within_budget"] and answer["exported"]["precision"] == "int8"
    assert open_exported(tmp_path / "deployed").engine == "openvino"


def test_the_verdict_has_the_clock_of_now_too_and_names_another_machine() -> None:
    def said(now: float) -> str:
        return str(compress.Outcome(5.0, "ms", 4.0, teacher=8.0, teacher_now=now))

    asked = "5 ms asked for: measured 4 where the teacher takes 8, as when the size was chosen: within the budget."
    assert said(6.0) == f"{asked} Now the teacher takes 6, and this model 3."
    assert said(16.0).startswith(f"{asked} Now the teacher takes 16, and this model 8. That is another machine, or")
    assert said(4.0).endswith("start with another --output_dir.")
    # 1.0000000000000009 points
    assert compress.Outcome(1.0, "points", 100 * (0.905 - 0.895)).is_within
    assert str(compress.Outcome(5.0, "mb", 6.0)) == "5 mb asked for: measured 6, OVER the budget."


def test_compress_to_points_takes_the_fastest_size_that_keeps_the_quality(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each size costs its parameters, and is as good as its share of them.
    time_by_parameters(monkeypatch)
    real, whole = pruning.evaluate, count_parameters(load_model(words[1])).total

    def evaluate(model: Any, *rest: Any, **more: Any) -> dict[str, float]:
        return {name: count_parameters(model).total / whole for name in real(model, *rest, **more)}

    for module in (pruning, evaluation):  # of the sizes, and of the teacher
        monkeypatch.setattr(module, "evaluate", evaluate)
    options = ["--unit", "points", *ONE_EPOCH]
    with pytest.raises(ValueError, match=r"No size of the curve keeps 99.0 of 100.0 before it is trained: the best"):
        compressed(words, tmp_path / "none", "--budget", "1", *options)

    answer = compressed(words, tmp_path / "run", "--budget", "30", *options)
    facts = facts_of(tmp_path / "run" / "student")
    within = [point for point in facts["curve"][1:] if point["value"] >= 0.7]
    assert within and facts["measured"] == min(point["measured"] for point in within) and facts["unit"] == "ms"
    assert facts["sizes"] == next(point["sizes"] for point in within if point["measured"] == facts["measured"])
    assert answer["unit"] == "points" and answer["budget"] == 30
    # Of the exported model's true accuracy, and not of what the patched one says.
    assert answer["measured"] == pytest.approx(100 * (1 - answer["exported"]["value"]))


def test_a_dry_run_of_compress_shows_the_curve_and_leaves_nothing(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--budget", "80%", *IN_PARAMETERS, *ONE_EPOCH, "--dry_run"]
    assert compressed(words, tmp_path / "run", *options)["method"] == "pruned"
    out = capsys.readouterr().out
    assert "before training" in out and "Dry run" in out and not files_in(tmp_path / "run")


def test_what_pruning_left_in_a_folder_is_no_budget_of_another_method(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = tmp_path / "student" / "start"
    start.mkdir(parents=True)
    (start / "pruning.json").write_text('{"budget": 2.5, "unit": "mb", "whole": 5.0, "measured": 2.4}')

    exported = dataclasses.make_dataclass("Exported", ["size_mb"])(3.0)
    monkeypatch.setattr(compress, "train", lambda *_: tmp_path / "student")
    monkeypatch.setattr(compress.export, "export", lambda _: exported)
    monkeypatch.setattr(compress, "write_report", lambda *_: tmp_path / "report.html")
    answer = compressed(words, tmp_path, "--method", "kd", "--budget", "40", "--unit", "mb")
    assert answer["budget"] == 40 and answer["measured"] == 3.0 and answer["is_within_budget"]


def test_without_matplotlib_the_sizes_to_choose_from_have_no_chart(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As Python says it where a package is missing.
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    point = {"measured": 2.0, "value": 0.9, "divergence": 0.1, "sizes": {"heads": [2], "neurons": [8]}}
    facts = {"curve": [{**point, "measured": 4.0}, point], "whole": 4.0, "unit": "ms"}
    pruning._show_curve(facts, SimpleNamespace(task=GLUE_TASKS["sst2"]), tmp_path / "curve.png")
    out = capsys.readouterr().out
    assert "accuracy before training" in out
    assert 'There is no chart. Charts need matplotlib: pip install "bertkd[report]".' in out
    assert not (tmp_path / "curve.png").exists()


def test_a_curve_of_the_model_alone_is_not_drawn(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    # Most of a model may lie in its embeddings, so that no size of the curve is small enough.
    point = {"measured": 4.0, "value": 0.9, "divergence": 0.0, "sizes": {"heads": [2], "neurons": [8]}}
    facts = {"curve": [point], "whole": 4.0, "unit": "mb"}
    pruning._show_curve(facts, SimpleNamespace(task=GLUE_TASKS["sst2"]), tmp_path / "curve.png")
    assert "100%" in capsys.readouterr().out and not (tmp_path / "curve.png").exists()


def test_a_papers_method_has_no_curve_to_choose_points_from(words: list[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--unit points: --method pkd-skip needs a budget in ms, mb, .*gflops"):
        compressed(words, tmp_path, "--method", "pkd-skip", "--budget", "1", "--unit", "points")
