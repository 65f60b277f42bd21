"""Results files, tables, charts, model cards, and the page made from them."""

from __future__ import annotations

import json
import math
import re
import struct
import subprocess
import sys
from importlib import util
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
import torch
import yaml

from bertkd import TinyBertKDConfig
from bertkd.atomic import atomic_path, write_json, write_text
from bertkd.cli import report, tinybert
from bertkd.cli.options import ModelOptions
from bertkd.methods import method_key, method_label
from bertkd.pipeline import compress, pruning, shrink, subnetwork_search
from bertkd.pipeline.experiment import SETTINGS
from bertkd.records import (
    ChartPoint,
    ExportResult,
    RunResult,
    StageResult,
    SubnetworkResult,
    accuracy_chart,
    charts,
    curves_chart,
    environment,
    markdown_table,
    read_result,
    read_results,
    result_rows,
    summarize,
    terminal_table,
    write_export_card,
    write_model_card,
    write_stage_card,
)
from bertkd.records.charts import bars_chart, is_chart_of
from bertkd.records.environment import _commit
from bertkd.records.pages import markdown_report
from bertkd.records.result_sets import _set_name, read_sets
from bertkd.records.results import OTHER_FILES, result_files
from bertkd.records.sections import caveats, facts, search_rows, timed_elsewhere, unlike_seeds, verdict
from bertkd.records.tables import fill_markers, machine_label, row_dicts

RECIPE = Path(__file__).parents[2] / "benchmarks" / "collect_results.py"


def make_result(
    method: str = "kd", task: str = "sst2", value: float = 0.9, seed: int = 1, **changes: Any
) -> RunResult:
    fields: dict[str, Any] = {
        "metric": "accuracy",
        "metrics": {"accuracy": value},
        "metrics_before": {"accuracy": 0.5},
        "teacher_metrics": {"accuracy": 0.93},
        "parameters": 22_714_754 if method == "teacher" else 17_391_362,
        "embedding_parameters": 11_917_056,
        "size_mb": 90.86 if method == "teacher" else 69.57,
        "layers": 6 if method == "teacher" else 3,
        "settings": {"alpha": 0.7, "temperature": 5.0, "beta": 100.0, "learning_rate": 1e-4},
        "command": f"python recipes/{method}.py --task_name {task} --seed {seed}",
        "versions": {"python": "3.12.1", "torch": "2.13.0"},
        "commit": "0123abc",
        "hardware": {"cpu": "A CPU", "cores": 2, "threads": 2, "memory_gib": 8.0, "gpu": None},
        "seconds": 120.0,
        "finished": f"2026-01-0{seed}T00:00:00+00:00",
        "rows": {"train": 67349, "validation": 872},
        "speedup": None if method == "teacher" else 1.9,
    }
    return RunResult(method=method, task=task, value=value, seed=seed, **(fields | changes))


def make_models(values: dict[str, list[float]], task: str = "sst2") -> pd.DataFrame:
    runs = [
        make_result(method, task, value, seed) for method in values for seed, value in enumerate(values[method], 1)
    ]
    return summarize(runs)


def png_size(path: Path) -> tuple[int, int]:
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", head[16:24])


# Results files


def test_a_result_is_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    result = make_result(speedup=None, paper="A paper, 2019")
    write_json(tmp_path / "deep" / "results.json", result.to_json())
    assert read_result(tmp_path / "deep" / "results.json") == result


def test_unknown_missing_and_mistyped_keys_are_refused() -> None:
    data = make_result().to_json()
    with pytest.raises(ValueError, match=r"unknown keys: color; known are: budget, command"):
        RunResult.from_json(data | {"color": "red"})
    with pytest.raises(ValueError, match="missing keys: seed, value"):
        RunResult.from_json({key: value for key, value in data.items() if key not in ("seed", "value")})
    with pytest.raises(ValueError, match="layers should be a int, it is '3'"):
        RunResult.from_json(data | {"layers": "3"})
    with pytest.raises(ValueError, match=r"metrics\.accuracy should be a float, it is 'high'"):
        RunResult.from_json(data | {"metrics": {"accuracy": "high"}})


@pytest.mark.parametrize("schema", [0, 2, "1", None])
def test_another_schema_is_refused(schema: object) -> None:
    with pytest.raises(ValueError, match="this version of bertkd reads schema 1"):
        RunResult.from_json(make_result().to_json() | {"schema": schema})


@pytest.mark.parametrize("text", ["{", "3", '{"model_type": "bert"}', "\ud800"])
def test_a_broken_file_is_named_in_the_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "broken.json"
    path.write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(ValueError, match=r"broken\.json is no results file: "):
        read_results(tmp_path)


def test_no_results_is_an_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no results file"):
        read_results(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere does not exist"):
        read_results(tmp_path / "nowhere")


def test_numbers_that_are_not_finite_survive_as_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, make_result(value=math.nan, settings={"limit": math.inf, "device": torch.device("cpu")}))
    text = path.read_text()
    assert json.loads(text, parse_constant=pytest.fail)["value"] is None
    result = read_result(path)
    assert math.isnan(result.value)
    assert math.isnan(result.metrics["accuracy"])
    assert result.settings == {"limit": None, "device": "cpu"}


def test_tensors_paths_and_sets_can_be_written(tmp_path: Path) -> None:
    value = {"tensor": torch.tensor([1.0, 2.0]), "path": Path("a/b"), "set": {2, 1}, "number": torch.tensor(3).numpy()}
    write_json(tmp_path / "any.json", value)
    assert json.loads((tmp_path / "any.json").read_text()) == {
        "tensor": [1, 2],
        "path": "a/b",
        "set": [1, 2],
        "number": 3,
    }


def test_files_of_models_and_trainers_are_no_results(tmp_path: Path) -> None:
    run = tmp_path / "run"
    for name in (
        "results.json",
        "config.json",
        "tokenizer.json",
        "checkpoint-5/config.json",
        "checkpoint-5/state.json",
    ):
        write_json(run / name, make_result() if name == "results.json" else {})
    write_json(tmp_path / "kd" / "seed2.json", make_result(seed=2))
    assert result_files(tmp_path) == [tmp_path / "kd" / "seed2.json", run / "results.json"]
    assert [one.seed for one in read_results([run / "results.json", tmp_path / "kd"])] == [1, 2]


def test_results_come_in_the_order_of_the_methods(tmp_path: Path) -> None:
    methods = ["pkd-last", "zeta", "kd", "alpha", "teacher", "pkd-skip", "finetuned"]
    for method in methods:
        write_json(tmp_path / f"{method}.json", make_result(method))
    expected = ["teacher", "finetuned", "kd", "pkd-skip", "pkd-last", "alpha", "zeta"]
    assert [one.method for one in read_results(tmp_path)] == expected


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_path(path) as temporary:
            temporary.write_text("half")
            raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_write_replaces_the_old_file_and_leaves_no_temporary_one(tmp_path: Path) -> None:
    path = tmp_path / "file.json"
    write_json(path, [1])
    write_json(path, [2])
    assert json.loads(path.read_text()) == [2]
    assert list(tmp_path.iterdir()) == [path]


# Means over seeds


def test_mean_and_standard_deviation_are_those_computed_by_hand() -> None:
    # 90, 92, 94: mean 92, deviations -2, 0, 2, variance 8 / 2, standard deviation 2
    (model,) = row_dicts(make_models({"kd": [0.94, 0.90, 0.92]}))
    assert (model["value"], model["std"]) == (pytest.approx(92), pytest.approx(2))
    assert model["quality"] == "92.0 ± 2.0"
    assert (model["seeds"], model["speedup"]) == ((1, 2, 3), pytest.approx(1.9))


def test_one_seed_has_no_standard_deviation() -> None:
    (model,) = row_dicts(make_models({"kd": [0.9]}))
    assert math.isnan(model["std"]) and model["quality"] == "90.0"


def test_a_seed_without_a_finite_metric_leaves_no_mean() -> None:
    (model,) = row_dicts(make_models({"kd": [0.9, math.nan]}))
    assert math.isnan(model["value"]) and model["quality"] == "n/a"


def test_depths_and_tasks_are_not_mixed() -> None:
    models = summarize([make_result(), make_result(layers=6), make_result(task="rte")])
    assert [(model["task"], model["layers"]) for model in row_dicts(models)] == [("sst2", 6), ("rte", 3), ("sst2", 3)]


def test_runs_that_are_no_repetitions_are_refused() -> None:
    with pytest.raises(ValueError, match=r"KD on sst2 with 3 layers: a seed occurs twice among \[1, 1\]"):
        summarize([make_result(), make_result(value=0.8)])
    with pytest.raises(ValueError, match=r"the runs differ in parameters: \[5, 17391362\]"):
        summarize([make_result(), make_result(seed=2, parameters=5)])


def test_no_results_are_a_table_without_rows() -> None:
    assert len(summarize([])) == 0


# Secrets


SECRETS = {"hub_token": "hf_abc", "trackio": {"api_key": "hf_abc"}, "tokenizer_name": "t", "max_tokens_per_batch": 9}


def test_a_secret_enters_no_record_and_no_card(tmp_path: Path) -> None:
    others = "--tokenizer_name t --max_tokens_per_batch 9"
    command = f"bertkd kd --hub_token hf_abc --hub_token=hf_abc {others}"
    result = make_result(settings=SECRETS, command=command)
    assert result.settings == {"trackio": {}, "tokenizer_name": "t", "max_tokens_per_batch": 9}
    assert result.command == f"bertkd kd --hub_token HIDDEN --hub_token=HIDDEN {others}"
    for file in (result.write(tmp_path), write_model_card(tmp_path, result, "")):
        assert "hf_abc" not in file.read_text()


def test_a_record_is_written_under_its_own_name_and_named_when_it_is_broken(tmp_path: Path) -> None:
    path = make_result().write(tmp_path / "run")
    assert path == tmp_path / "run" / "results.json" and RunResult.read(path) == make_result()
    assert RunResult.of(tmp_path / "run") == make_result() and RunResult.of(tmp_path) is None
    for record_class, name in ((StageResult, "training.json"), (ExportResult, "export_result.json")):
        assert name == record_class.FILE
        with pytest.raises(ValueError, match=r"results\.json is no result of an? \w+: unknown keys: "):
            record_class.read(path)


@pytest.mark.parametrize("record_class", [RunResult, StageResult, ExportResult])
def test_every_committed_record_is_the_same_after_reading_and_writing(record_class: Any) -> None:
    root = RECIPE.parents[1] / "docs" / "results"
    paths = result_files(root) if record_class is RunResult else list(root.rglob(f"*{record_class.FILE}"))
    assert paths
    # What older files lack.
    added: dict[Any, dict[str, Any]] = {
        RunResult: {"subnetworks": [], "is_start": False, "budget": "", "speedup_over": None},
        ExportResult: {"budget": ""},
    }
    for path in paths:
        data, written = json.loads(path.read_text()), record_class.read(path).to_json()
        assert written == added.get(record_class, {}) | data


# The environment


def test_the_environment_names_versions_commit_and_hardware() -> None:
    found = environment()
    assert set(found) == {"versions", "commit", "hardware"}
    assert found["versions"]["torch"].startswith("2.")
    assert set(found["versions"]) >= {"bertkd", "python", "transformers", "datasets", "evaluate", "accelerate"}
    assert set(found["hardware"]) == {"cpu", "cores", "threads", "memory_gib", "instructions", "gpu"}
    assert machine_label({**found["hardware"], "cpu": "A CPU", "instructions": ["avx2"]}).startswith("A CPU (avx2), ")
    assert found["hardware"]["threads"] == torch.get_num_threads()
    RunResult.from_json(make_result(**found).to_json())


def test_the_commit_tells_whether_code_was_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True)

    file = tmp_path / "bertkd" / "report.py"
    write_text(file, "a = 1\n")
    git("init", "-q")
    assert _commit(file) == "unknown"  # not tracked: somebody else's repository
    git("add", "-A")
    git("commit", "-q", "-m", "first")
    clean = _commit(file)
    assert len(clean) == 40
    write_text(tmp_path / "docs" / "results" / "kd.json", "{}")
    write_text(tmp_path / "outputs" / "log.txt", "")
    assert _commit(file) == clean
    write_text(file, "a = 2\n")
    assert _commit(file) == f"{clean}+changes"


# Tables

SEEDS = {
    "teacher": [0.93, 0.93],
    "finetuned": [0.890, 0.894],
    "kd": [0.900, 0.904],
    "pkd-skip": [0.910, 0.914],
    "pkd-last": [0.903, 0.903],
}


def test_a_speedup_is_the_mean_over_the_models_of_the_shape() -> None:
    runs = [
        make_result(method="teacher", speedup=None, parameters=9),
        make_result(method="kd", speedup=1.8),
        make_result(method="pkd-skip", speedup=2.0),
        make_result(method="finetuned", speedup=None),
        make_result(method="tinybert", speedup=None, parameters=5),
        make_result(method="finetuned", task="rte", speedup=None),
    ]
    speedups = {(model["task"], model["method"]): model["speedup"] for model in row_dicts(summarize(runs))}
    task = runs[0].task
    assert speedups[task, "teacher"] == 1
    assert [speedups[task, name] for name in ("finetuned", "kd", "pkd-skip")] == [pytest.approx(1.9)] * 3
    assert all(math.isnan(speedups[key]) for key in ((task, "tinybert"), ("rte", "finetuned")))


def test_rows_show_percent_parameters_size_and_speedup() -> None:
    rows = result_rows(make_models(SEEDS))
    assert [row["Method"] for row in rows] == ["Teacher", "Fine-tuned", "KD", "PKD-skip", "PKD-last"]
    assert rows[0] == {
        "Method": "Teacher",
        "Layers": "6",
        "SST-2 accuracy": "93.0 ± 0.0",
        "Share of teacher": "100.0%",
        "Seeds": "2",
        "Parameters": "22.7M",
        "Size": "90.9 MB",
        "Speed-up": "1.0x",
    }
    assert rows[3]["SST-2 accuracy"] == "91.2 ± 0.3"
    assert rows[3]["Speed-up"] == "1.9x"


def test_the_best_student_is_marked_and_never_the_teacher() -> None:
    rows = result_rows(make_models(SEEDS), mark_best=True)
    assert [row["SST-2 accuracy"] for row in rows if "**" in row["SST-2 accuracy"]] == ["**91.2 ± 0.3**"]


def untaught(*values: Any, **named: Any) -> RunResult:
    """A student whose record does not say what its teacher reached."""
    return make_result(*values, **named, teacher_metrics={})


def test_shares_of_the_teacher_are_those_of_means_over_the_tasks_that_most_rows_have() -> None:
    runs = [make_result("teacher", task, value) for task, value in (("sst2", 0.9), ("cola", 0.5), ("rte", 0.6))]
    runs += [untaught("kd", task, value) for task, value in (("sst2", 0.88), ("cola", 0.4), ("rte", 0.62))]
    shares = {row["Method"]: row["Share of teacher"] for row in result_rows(summarize(runs))}
    assert shares == {"Teacher": "100.0%", "KD": "95.0%"}  # (88 + 40 + 62) / (90 + 50 + 60)

    runs += [untaught("pkd-skip", task, 0.63, seed) for task in ("sst2", "cola") for seed in (1, 2)]
    runs += [untaught("pkd-last", task, math.nan if task == "cola" else 0.9) for task in ("sst2", "cola")]
    shares = {row["Method"]: row["Share of teacher, 2 tasks"] for row in result_rows(summarize(runs))}
    assert shares == {
        "Teacher": "100.0%",
        "KD": "91.4%",  # (88 + 40) / (90 + 50)
        "PKD-skip": "90.0%",  # (63 + 63) / (90 + 50)
        "PKD-last": "",
    }

    # IMDb has no teacher, and its student no other task: it has no share, and takes none away.
    runs.append(make_result("finetuned", "imdb", 0.1))
    assert {row["Method"]: row["Share of teacher, 2 tasks"] for row in result_rows(summarize(runs))} == shares | {
        "Fine-tuned": ""
    }

    # A task that half of the rows have is not one that most of them have.
    few = [untaught(method, "sst2", 0.9) for method in ("teacher", "kd")] + [make_result("teacher", "cola", 0.5)]
    assert all("Share of teacher, 1 task" in row for row in result_rows(summarize(few)))


def test_there_is_no_share_of_no_teacher_or_of_a_correlation_of_zero() -> None:
    assert all("Share of teacher" not in row for row in result_rows(summarize([make_result()])))
    rows = result_rows(summarize([untaught("teacher", value=0.0), untaught(value=0.1)]))
    assert all("Share of teacher" not in row for row in rows)


def test_shares_are_those_of_the_teachers_that_the_students_learned_from() -> None:
    # Two teachers of one task.
    runs = [make_result("teacher", value=0.6), make_result("teacher", value=0.3, layers=3, parameters=10)]
    runs += [make_result("kd", value=0.27, teacher_metrics={"accuracy": 0.3}), untaught("finetuned", value=0.36)]
    shares = [(row["Method"], row["Layers"], row["Share of teacher"]) for row in result_rows(summarize(runs))]
    assert shares == [
        ("Teacher, 6 layers", "6", "100.0%"),
        ("Teacher, 3 layers", "3", "100.0%"),
        ("Fine-tuned", "3", "80.0%"),  # of the teachers' mean, 45
        ("KD", "3", "90.0%"),
    ]
    # A student whose size is the deepest teacher's has its speed, and not that of another one.
    same = make_result("finetuned", layers=6, parameters=22_714_754, speedup=None)
    rows = result_rows(summarize([*runs, same]))
    assert next(row["Speed-up"] for row in rows if row["Layers"] == "6" and "Fine" in row["Method"]) == "1.0x"


def test_two_numbers_are_shown_where_a_task_has_two() -> None:
    mrpc = {"combined_score": 0.85, "accuracy": 0.82, "f1": 0.88}
    stsb = {"combined_score": 0.87, "pearson": 0.871, "spearmanr": 0.869}
    mnli = {"accuracy_matched": 0.80, "accuracy_mismatched": 0.81}
    runs = [
        make_result(task="mrpc", metric="combined_score", value=0.85, metrics=mrpc),
        make_result(task="stsb", metric="combined_score", value=0.87, metrics=stsb),
        make_result(task="mnli", value=0.80, metrics=mnli),
        make_result("finetuned"),
    ]
    finetuned, kd = result_rows(summarize(runs))
    assert kd["MRPC F1 / accuracy"] == "88.0 / 82.0"
    assert kd["STS-B Pearson / Spearman"] == "87.1 / 86.9"
    assert kd["MNLI accuracy matched / accuracy mismatched"] == "80.0 / 81.0"
    assert kd["SST-2 accuracy"] == finetuned["MRPC F1 / accuracy"] == ""


def test_markdown_tables_are_aligned_and_escaped() -> None:
    text = markdown_table(
        [{"Name": "a|b", "Value": "92.1 ± 0.3"}, {"Name": "longer name", "Value": "9"}, {"Name": "c"}]
    )
    assert text.splitlines() == [
        "| Name        |      Value |",
        "| ----------- | ---------: |",
        "| a\\|b        | 92.1 ± 0.3 |",
        "| longer name |          9 |",
        "| c           |            |",
    ]
    assert markdown_table([]) == ""


def test_a_text_is_filled_between_its_markers_alone() -> None:
    page = "a\n<!-- one:start -->\nold\n<!-- one:end -->\nb\n<!-- two:start --><!-- two:end -->\n"
    filled = fill_markers(fill_markers(page, "one", "new\n"), "two", "more")
    assert filled == ("a\n<!-- one:start -->\nnew\n<!-- one:end -->\nb\n<!-- two:start -->\nmore\n<!-- two:end -->\n")
    assert fill_markers(filled, "two", "more") == filled


@pytest.mark.parametrize("page", ["plain", "<!-- one:start -->", "<!-- one:end --><!-- one:start -->"])
def test_a_page_without_both_markers_in_order_is_refused(page: str) -> None:
    message = "no place for the table: it needs <!-- one:start --> and, after it, <!-- one:end -->"
    with pytest.raises(ValueError, match=message):
        fill_markers(page, "one", "text")


def test_terminal_tables_are_aligned() -> None:
    lines = terminal_table(result_rows(make_models(SEEDS))).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert set(lines[1]) == {" ", "─"}
    ends = {line.index(value) + len(value) for line, value in zip(lines[2:4], ("22.7M", "17.4M"), strict=True)}
    assert ends == {lines[0].index("Parameters") + len("Parameters")}
    assert terminal_table([]) == ""


@pytest.mark.parametrize(
    ("ours", "baseline", "expected"),
    [
        (
            [0.92, 0.922],
            [0.90, 0.902],
            "PKD-skip beats KD: 2.0 points higher (92.1 ± 0.1 against 90.1 ± 0.1), which exceeds",
        ),
        (
            [0.91, 0.93],
            [0.90, 0.93],
            "PKD-skip does not clearly beat KD: 0.5 points higher (92.0 ± 1.4 against 91.5 ± 2.1), within",
        ),
        (
            [0.90, 0.902],
            [0.92, 0.922],
            "PKD-skip does not beat KD: 2.0 points lower (90.1 ± 0.1 against 92.1 ± 0.1), wh",
        ),
        ([0.90, 0.93], [0.91, 0.93], "PKD-skip does not clearly trail KD: 0.5 points lower (91.5 ± 2.1 against 92.0"),
        (
            [0.92],
            [0.90, 0.90],
            "2.0 points higher (92.0 against 90.0 ± 0.0); with so few seeds (PKD-skip 1, KD 2) the spread",
        ),
        ([0.9, 0.9], [0.9, 0.9], "PKD-skip equals KD (90.0 ± 0.0 against 90.0 ± 0.0)."),
        ([math.nan], [0.9], "PKD-skip and KD cannot be compared: n/a against 90.0."),
    ],
)
def test_the_verdict_is_honest(ours: list[float], baseline: list[float], expected: str) -> None:
    models = {model["method"]: model for model in row_dicts(make_models({"pkd-skip": ours, "kd": baseline}))}
    assert expected in verdict(models["pkd-skip"], models["kd"])


# Charts

POINTS = [
    ChartPoint("Teacher", 22.7, 92.4),
    ChartPoint("Fine-tuned", 17.4, 88.6, 0.4),
    ChartPoint("KD", 17.4, 88.9, 0.3),
    ChartPoint("PKD-skip", 17.4, 89.2, 0.5),
    ChartPoint("PKD-last", 17.4, 89.1, 0.2),
]


def test_the_accuracy_chart_is_a_png_of_the_expected_size(tmp_path: Path) -> None:
    path = accuracy_chart(POINTS, tmp_path / "deep" / "chart.png", "Title", "Parameters (M)", "Accuracy (%)")
    assert png_size(path) == (800, 500)
    assert list(path.parent.iterdir()) == [path]


def test_the_bars_chart_leaves_models_of_few_tasks_out_and_tells_all_others_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(charts, "_save", lambda figure, path, models: drawn.append(figure) or Path(path))
    methods = [f"method{number}" for number in range(len(charts.COLORS) + 3)]
    runs = [make_result(method, task, 0.5) for task in ("sst2", "rte", "cola") for method in ("teacher", *methods)]
    bars_chart(summarize([*runs, make_result("few", "rte", 0.9)]), tmp_path / "bars.png", "Title", "%")

    (legend,) = drawn[0].legends
    looks = {
        text.get_text(): (patch.get_facecolor(), patch.get_hatch())
        for text, patch in zip(legend.get_texts(), legend.get_patches(), strict=True)
    }
    assert set(looks) == {"Teacher", *methods} and len(set(looks.values())) == len(looks)


def test_the_bars_chart_shows_models_of_few_tasks_where_there_are_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr(charts, "_save", lambda figure, path, models: drawn.append(figure) or Path(path))
    runs = [make_result(method, task) for method, task in (("kd", "sst2"), ("pkd-skip", "rte"), ("pkd-last", "cola"))]
    bars_chart(summarize(runs), tmp_path / "bars.png", "Title", "%")
    assert len(drawn[0].legends[0].get_texts()) == 3


def test_a_report_of_nothing_but_an_unmeasured_size_has_no_overview(tmp_path: Path) -> None:
    folder = tmp_path / "small"
    folder.mkdir()
    result = make_result("dynabert-subnetwork", value=math.nan, metrics={"accuracy": math.nan})
    write_json(folder / "results.json", result.to_json())
    report = markdown_report(read_sets(tmp_path), tmp_path / "index.md", "outputs")
    assert "overview.png" not in report.pages[tmp_path / "index.md"] and "small" not in str(report.charts)
    report.write()


def test_the_bars_chart_is_a_png_of_the_expected_size(tmp_path: Path) -> None:
    assert png_size(bars_chart(make_models(SEEDS), tmp_path / "bars.png", "Title", "%")) == (1100, 500)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The figures that would have been saved."""
    saved: list[Any] = []
    monkeypatch.setattr(charts, "_save", lambda figure, path, data: saved.append(figure) or path)
    return saved


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("tinybert-nogd-noda", "TinyBERT w/o general distillation, w/o augmentation"),
        ("tinybert-fromteacher-noda-top", "TinyBERT, from the teacher's layers, w/o augmentation, top layers"),
        ("tinybert-noda-relative", "TinyBERT w/o augmentation, relative states"),
        (
            "dynabert-depth-unwired-nokd-augmented",
            "DynaBERT, stage depth, not rewired, without distillation, augmented rows",
        ),
        ("pkd-map", "PKD with a layer map of its own"),
    ],
)
def test_a_training_with_several_changes_has_a_label(name: str, label: str) -> None:
    assert method_label(name) == label
    assert method_key(name) < method_key("unknown") and method_key(name) > method_key("kd")


def test_every_name_that_tinybert_gives_a_training_has_a_label() -> None:
    start = [ModelOptions(), ModelOptions(init_from="teacher"), ModelOptions(model_name_or_path="general")]
    weights: list[dict[str, Any]] = [{"attention_weight": 0.0}, {"hidden_weight": 0.0, "embedding_weight": 0.0}, {}]
    names = set()
    for models, augment, off, relative, strategy in product(
        start, (True, False), weights, (True, False), ("uniform", "top", "bottom", "1:2")
    ):
        config = TinyBertKDConfig(use_cpu=True, relative_states=relative, strategy=strategy, **off)
        names.add(tinybert.method_name(models, tinybert.TinyBertOptions(augment=augment), config))
    assert len(names) == 3 * 2 * 3 * 2 * 4
    assert len({method_label(name) for name in names} - names) == len(names)


@pytest.mark.parametrize("methods", [["kd", "pkd-skip"], ["teacher", "kd"]])
def test_a_legend_names_the_teacher_only_where_it_is_drawn(methods: list[str], figures: list[Any]) -> None:
    models = summarize([make_result(method, value=0.8, speedup=2.0) for method in methods])
    charts.frontier_chart(models, "frontier.png", "Title", "%")
    names = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert ("Teacher" in names) == ("teacher" in methods) and len(names) == len(methods) + 1


def test_every_point_is_named_and_has_its_error_bar_beside_the_others(figures: list[Any]) -> None:
    close = [ChartPoint(f"Method {i}", 17.4, 88.0 + 0.01 * i, 0.3) for i in range(6)]
    accuracy_chart([*close, ChartPoint("teacher", 22.7, 92.4)], "a.png", "Title", "x", "y")
    axes = figures[0].axes[0]
    names = [text.get_text() for text in axes.get_legend().get_texts()]
    assert names == [*(point.label for point in close), "teacher"]
    bars = [container for container in axes.containers if container.has_yerr]
    assert len(bars) == 6 and len({bar.lines[0].get_xdata()[0] for bar in bars}) == 6


def test_bars_show_their_values_and_error_bars_and_start_at_zero(figures: list[Any]) -> None:
    bars_chart(pd.concat([make_models(SEEDS), make_models({"kd": [0.5]}, "rte")]), "bars.png", "Title", "%")
    axes = figures[0].axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["RTE", "SST-2"]
    assert axes.get_ylim()[0] == 0
    assert {text.get_text() for text in axes.texts} == {"", "50.0", "93.0", "89.2", "90.2", "91.2", "90.3"}


@pytest.mark.parametrize("points", [POINTS[:1], [ChartPoint("a", 1.0, -0.5), ChartPoint("b", 1.0, math.nan)]])
def test_a_chart_of_a_single_point_can_be_drawn(tmp_path: Path, points: list[ChartPoint]) -> None:
    assert png_size(accuracy_chart(points, tmp_path / "chart.png", "Title", "x", "y")) == (800, 500)


def test_a_chart_without_data_is_refused_and_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "chart.png"
    path.write_bytes(b"old")
    with pytest.raises(ValueError, match="no point to draw"):
        accuracy_chart([], path, "Title", "x", "y")
    assert path.read_bytes() == b"old"


def test_a_chart_knows_its_data(tmp_path: Path) -> None:
    models = make_models(SEEDS)
    path = bars_chart(models, tmp_path / "bars.png", "Title", "%")
    assert is_chart_of(path, models)
    assert not is_chart_of(path, models[1:])
    assert not is_chart_of(tmp_path / "none.png", models)


def test_a_missing_matplotlib_is_an_error_that_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ImportError, match=r'pip install "bertkd\[report\]"'):
        accuracy_chart(POINTS, tmp_path / "chart.png", "Title", "x", "y")


# Model cards


def card(folder: Path, teacher: str = "org/teacher", **changes: Any) -> tuple[dict[str, Any], str]:
    text = write_model_card(folder / "student", make_result(**changes), teacher).read_text()
    _, front, body = text.split("---\n", 2)
    return yaml.safe_load(front), body


def test_the_front_matter_of_a_card_is_yaml_with_the_metrics(tmp_path: Path) -> None:
    front, _ = card(tmp_path, value=0.9128)
    assert front["library_name"] == "transformers"
    assert front["base_model"] == "org/teacher"
    assert "base_model" not in card(tmp_path, "minilm")[0]  # a name that bertkd alone knows
    assert front["datasets"] == ["nyu-mll/glue"]
    assert {"bertkd", "kd"} <= set(front["tags"])
    (model,) = front["model-index"]
    (entry,) = model["results"]
    assert model["name"] == "student"
    assert entry["dataset"] == {"name": "GLUE SST-2", "type": "nyu-mll/glue", "config": "sst2", "split": "validation"}
    assert entry["metrics"] == [{"type": "accuracy", "value": 0.9128, "name": "accuracy"}]


def test_a_card_tells_how_the_model_was_made_and_is_loaded(tmp_path: Path) -> None:
    _, body = card(tmp_path, paper="Sun et al. 2019", settings={"alpha": 0.7, "dataloader_num_workers": 3, "x": None})
    for expected in (
        "Sun et al. 2019",
        "`org/teacher`",
        "| `alpha`",
        "`dataloader_num_workers`",
        "python recipes/kd.py --task_name sst2 --seed 1",
        "AutoModelForSequenceClassification.from_pretrained(path)",
        "| accuracy |       90.0 |            50.0 |    93.0 |",
        "69.6 MB",
        "1.9x",
        "torch 2.13.0",
        "`0123abc`",
    ):
        assert expected in body
    assert "`x`" not in body
    assert not list((tmp_path / "student").glob(".*"))


def test_a_card_names_no_folder_of_this_machine(tmp_path: Path) -> None:
    front, body = card(tmp_path, str(tmp_path / "my-teacher"), settings={"output_dir": str(tmp_path / "student")})
    assert "base_model" not in front
    assert "`my-teacher`" in body
    assert str(tmp_path) not in body


def test_a_card_claims_glue_only_for_its_own_validation_rows(tmp_path: Path) -> None:
    front, _ = card(tmp_path, rows={"train": 3000, "validation": 500})
    assert "datasets" not in front
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "sst2"


def test_a_card_of_a_run_without_a_finite_metric_is_written(tmp_path: Path) -> None:
    front, body = card(tmp_path, value=math.nan, rows={}, speedup=None)
    assert "model-index" not in front
    assert "n/a" in body


def python_blocks(body: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", body, re.DOTALL)


@pytest.mark.parametrize("engine", ["pytorch", "onnxruntime", "openvino"])
def test_the_card_of_an_export_says_how_its_engine_runs_it(tmp_path: Path, engine: str) -> None:
    export = make_export(engine=engine, precision="float32", runtime_precision="float32", speedup=None)
    body = write_export_card(tmp_path / "deployed", export, make_result()).read_text()
    assert f"This is how {engine} runs it, in float32." in body and "## Training" in body
    assert ("INFERENCE_PRECISION_HINT" in body) == (engine == "openvino")
    (block,) = python_blocks(body)
    compile(block, "card", "exec")
    assert ("ExportedModel" in block) == (engine != "pytorch")
    assert "## Training" not in write_export_card(tmp_path / "alone", export).read_text()


def test_the_card_of_a_stage_says_what_is_not_trained_yet(tmp_path: Path) -> None:
    shared = {
        name: getattr(make_result(), name) for name in ("layers", "parameters", "settings", "command", "versions")
    }
    result = StageResult(
        method="mlm", loss_before=9.0, loss=3.25, rows={"train": None, "validation": 500}, seed=1, commit="0123abc",
        hardware={"cpu": "A CPU", "threads": 2}, seconds=60.0, finished="2026-01-01", **shared,
    )  # fmt: skip
    body = write_stage_card(tmp_path / "general", result, "org/teacher", "AutoModel", "the pooler is").read_text()
    for expected in ("from `org/teacher`", "the pooler is not trained yet", "from 9 to 3.25", "train streamed"):
        assert expected in body
    (block,) = python_blocks(body)
    compile(block, "card", "exec")


def test_the_code_of_a_card_runs(tmp_path: Path, pretrained: Path) -> None:
    (block,) = python_blocks(card(tmp_path)[1])
    names: dict[str, Any] = {"path": str(pretrained)}
    exec(compile(block, "card", "exec"), names)
    assert names["logits"].shape == (1, 2)


def test_names_from_files_cannot_break_a_card(tmp_path: Path) -> None:
    front, body = card(tmp_path, task="a: [b|c", method="x: 'y", settings={"alpha": "a|b"})
    assert front["model-index"][0]["results"][0]["dataset"]["type"] == "a: [b|c" and "x: 'y" in front["tags"]
    assert "a\\|b" in body


@pytest.mark.parametrize("secret", ["hf_" + "aB3" * 10, "ghp_" + "x1" * 15, "sk-proj-" + "Zz9" * 8])
def test_a_token_never_enters_a_card(secret: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "command": f"bertkd kd --corpus_name https://me:{secret}@example.org/data --run_name {secret}",
        "settings": {"hub_token": secret, "wandb_api_key": secret, "run_name": f"run {secret}"},
        "paper": f"see {secret}",
    }
    for path in (
        write_model_card(tmp_path / "model", make_result(**changes), "org/teacher"),
        write_export_card(tmp_path / "export", make_export(), make_result(**changes)),
    ):
        assert secret not in path.read_text() and "HIDDEN" in path.read_text()


def test_what_a_card_quotes_shows_as_it_is(tmp_path: Path) -> None:
    evil = "a`b` <img src=x> [click](http://example.org)\n\n# Title"
    changes = {"task": evil, "paper": evil, "settings": {"note": evil, "a`b": 1}, "command": "bertkd kd\n```\n# No"}
    _, body = card(tmp_path, "org/`teacher", **changes)
    for bare in ("<img", "](http://example.org)", "\n# Title", "\n```\n# No", "`org/`teacher`"):
        assert bare not in body.replace("\\<", "").replace("\\]", "")
    assert r"a\`b\` \<img src=x> [click\](http://example.org) # Title" in body

    export = make_export(task=evil, attempts=[{"way": evil, "value": 0.8}])
    assert "](http" not in write_export_card(tmp_path / "export", export).read_text().replace("\\]", "")


def test_the_card_of_an_export_says_what_its_engine_does_without_a_word(tmp_path: Path) -> None:
    def body(**changes: Any) -> str:
        return write_export_card(tmp_path / "deployed", make_export(**changes)).read_text()

    for engine in ("pytorch", "onnxruntime", "openvino"):
        assert "truncation=True" in python_blocks(body(engine=engine))[0]
    assert "INFERENCE_NUM_THREADS=1" in body(engine="openvino") and '5.23" openvino`' in body(engine="openvino")

    onnx = body(engine="onnxruntime")
    assert "onnxruntime onnxscript`" in onnx and "depend a little on the rows beside it" in onnx
    assert "rows beside it" not in body(engine="onnxruntime", runtime_precision="float32")


def sizes(value: float) -> list[SubnetworkResult]:
    """Two widths and two depths, each step half a point worse."""
    return [
        SubnetworkResult(
            width=width,
            depth=depth,
            layers=round(6 * depth),
            value=value - 0.005 * step,
            metrics={"accuracy": value - 0.005 * step},
            parameters=22_000_000 - 3_000_000 * step,
            embedding_parameters=11_917_056,
            flops=3_000_000_000 - 500_000_000 * step,
            latency_ms=20.0 - 4 * step,
            speedup=20.0 / (20.0 - 4 * step),
        )
        for step, (width, depth) in enumerate([(1.0, 1.0), (0.5, 1.0), (1.0, 0.5), (0.5, 0.5)])
    ]


def test_results_of_many_sizes_are_the_same_after_writing_and_reading(tmp_path: Path) -> None:
    result = make_result("dynabert-depth", subnetworks=sizes(0.9))
    write_json(tmp_path / "results.json", result.to_json())
    assert read_result(tmp_path / "results.json") == result
    data = result.to_json()
    data["subnetworks"][1]["width"] = "half"
    with pytest.raises(ValueError, match="width should be a float, it is 'half'"):
        RunResult.from_json(data)


def test_a_card_of_many_sizes_lists_them(tmp_path: Path) -> None:
    _, body = card(tmp_path, subnetworks=sizes(0.9))
    assert re.search(r"\|\s+0\.5 \|\s+0\.5 \|\s+3 \|\s+88\.5 \|\s+13\.0M \|\s+1\.50 \|\s+8\.0 ms \|\s+2\.50x", body)
    assert "extract_subnetwork" in body
    assert "## Sizes" not in card(tmp_path)[1]


def test_the_curves_chart_is_a_png_of_the_expected_size(tmp_path: Path) -> None:
    curves = {"6 layers": [ChartPoint("1", 20, 90), ChartPoint("0.5", 12, 89)], "3 layers": [ChartPoint("1", 11, 88)]}
    path = curves_chart(curves, tmp_path / "deep" / "curves.png", "T", "x", "y", ChartPoint("Teacher", 20, 91))
    assert png_size(path) == (800, 500)
    with pytest.raises(ValueError, match="no point to draw"):
        curves_chart({}, path, "T", "x", "y")


# The results page


@pytest.fixture(scope="module")
def collect() -> ModuleType:
    spec = util.spec_from_file_location("collect_results", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("docs/results/minilm")
    for task in ("sst2", "rte"):
        for method, values in SEEDS.items():
            for seed, value in enumerate(values, 1):
                write_json(folder / task / f"{method}-seed{seed}.json", make_result(method, task, value, seed))
    for alpha, value in ((0.2, 0.985), (0.5, 0.99)):
        write_json(folder / "grid" / f"a{alpha}.json", make_result("pkd-skip", value=value, settings={"alpha": alpha}))
    Path("README.md").write_text("# bertkd\n<!-- results:start -->\nan old table\n<!-- results:end -->\nend\n")
    return folder


def task_page(name: str) -> str:
    return Path(f"docs/results/{name}.md").read_text()


def section(page: str, title: str) -> str:
    return page.split(f"\n## {title}\n")[1].split("\n## ")[0]


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_results_pages_show_tables_verdicts_search_and_commands(docs: Path, collect: ModuleType) -> None:
    assert collect.main([]) == 0
    index, page, other = (task_page(name) for name in ("index", "minilm/sst2", "minilm/rte"))
    assert index.startswith("<!-- Generated by bertkd from the results files in docs/results;")
    assert index.index("RTE accuracy") < index.index("SST-2 accuracy")
    assert "**91.2 ± 0.3**" in index and "![Validation, mean over seeds](minilm/overview.png)" in index
    assert (
        "[RTE](minilm/rte.md) · [SST-2](minilm/sst2.md)" in index
        and "[All results, hardware and versions](../index.md)" in page
    )
    assert "![Quality against speed and size](sst2.png)" in page
    assert "- PKD-skip beats KD: 1.0 points higher (91.2 ± 0.3 against 90.2 ± 0.3), which exceeds" in page
    assert "- PKD-last does not clearly beat KD: 0.1 points higher (90.3 ± 0.0 against 90.2 ± 0.3), within" in page
    search = section(page, "Search")
    assert "**99.0**" in search
    assert "99.0" not in page.replace(search, "") + index and "## Search" not in other
    for expected in ("A CPU, 2 cores", "torch 2.13.0", "0123abc"):
        assert index.count(expected) == 1
    assert "python recipes/kd.py --task_name rte --seed 2" in other
    assert png_size(Path("docs/results/minilm/overview.png")) == (1100, 500)
    assert png_size(Path("docs/results/minilm/sst2.png")) == (1200, 600)


def test_the_sizes_inside_supernets_have_a_table_of_their_own(docs: Path, collect: ModuleType) -> None:
    for method in ("dynabert-depth", "dynabert-finetune"):
        for seed, value in enumerate((0.9, 0.91), 1):
            result = make_result(method, "sst2", value, seed, subnetworks=sizes(value))
            write_json(docs / "sst2" / f"{method}-seed{seed}.json", result)
    assert collect.main([]) == 0
    table = section(task_page("minilm/sst2"), "Sizes inside supernets")
    assert cells(table.splitlines()[1])[4:] == ["DynaBERT, stage depth", "DynaBERT, fine-tuned"]
    smallest = cells(table.splitlines()[6])
    # The full network has not the teacher's shape here, so that its speed-ups are not over the teacher.
    assert smallest == ["0.5", "0.5", "3", "13.0M", "89.0 ± 0.7", "89.0 ± 0.7"]
    # A mean over sizes is no student.
    assert "DynaBERT" not in task_page("index") + Path("README.md").read_text()


def test_stages_and_their_ablations_stand_side_by_side_at_each_size(docs: Path, collect: ModuleType) -> None:
    for method, value in (("dynabert-width", 0.9), ("dynabert-width-unwired", 0.8)):
        changes = {"teacher_metrics": {"accuracy": 0.95}, "settings": {"max_train_samples": 67}, "rows": {"train": 67}}
        result = make_result(method, "sst2", value, subnetworks=sizes(value), **changes)
        write_json(docs / "sst2" / f"{method}-seed1.json", result)
    assert collect.main([]) == 0
    section_text = section(task_page("minilm/sst2"), "Sizes inside supernets")
    assert cells(section_text.splitlines()[1])[-2:] == ["DynaBERT, stage width", "DynaBERT, stage width, not rewired"]
    assert [cells(line)[-2:] for line in section_text.splitlines() if " 0.5 |   0.5 |" in line] == [["88.5", "78.5"]]
    names = "DynaBERT, stage width ({0}); DynaBERT, stage width, not rewired ({0})."
    assert f"- Trained on the task's first rows only: {names.format(67)}" in section_text
    teacher = f"- The task's teacher reaches 93.0; taught by another one: {names.format('95.0')}"
    assert teacher in section_text


def test_an_ablation_stands_beside_the_full_method_with_its_seeds(docs: Path, collect: ModuleType) -> None:
    for task, seed, value in (("sst2", 1, 0.913), ("sst2", 2, 0.5), ("rte", 1, 0.722)):
        result = make_result("tinybert", task, value, seed, settings={"max_train_samples": 1000})
        write_json(docs / task / f"tinybert-seed{seed}.json", result)
    write_json(docs / "ablation" / "sst2" / "tinybert-noda-seed1.json", make_result("tinybert-noda", "sst2", 0.907, 1))
    assert collect.main([]) == 0
    page = task_page("minilm/sst2")
    table = section(page, "Ablation")
    rows = [cells(line)[:4] for line in table.splitlines() if line.startswith("| Tiny")]
    assert rows == [["TinyBERT", "3", "91.3", "1"], ["TinyBERT w/o augmentation", "3", "90.7", "1"]]
    assert "augmentation" not in page.split("## Ablation")[0] + task_page("minilm/rte")
    assert "- Trained on the task's first rows only: TinyBERT (1,000)." in section(page, "Methods")
    assert "--seed 1" in page.split("Settings and commands")[1]
    assert "SST-2: Trained on the task's first rows only: TinyBERT (1,000)." in Path("README.md").read_text()
    # Another method's ablation is shown also without a run of the full method.
    for method in ("distilbert-noce", "tinybert-nogd"):
        write_json(docs / "ablation" / "sst2" / f"{method}-seed1.json", make_result(method, "sst2", 0.6, 1))
    assert collect.main([]) == 0
    table = section(task_page("minilm/sst2"), "Ablation")
    names = [cells(line)[0] for line in table.splitlines() if "BERT" in line and line.startswith("|")]
    tinybert = ["TinyBERT", "TinyBERT w/o general distillation", "TinyBERT w/o augmentation"]
    assert sorted(names) == sorted(["DistilBERT w/o soft targets", *tinybert])
    assert [name for name in names if "Tiny" in name] == tinybert


def test_an_ablation_says_where_teachers_differ(docs: Path, collect: ModuleType) -> None:
    for folder, method, taught in (("", "tinybert", 0.93), ("ablation", "tinybert-noda", 0.901)):
        result = make_result(method, "sst2", 0.9, 1, teacher_metrics={"accuracy": taught})
        write_json(docs / folder / "sst2" / f"{method}-seed1.json", result)
    assert collect.main([]) == 0
    note = "- The task's teacher reaches 93.0; taught by another one: TinyBERT w/o augmentation (90.1)."
    assert note in section(task_page("minilm/sst2"), "Ablation")


def test_a_student_of_another_teacher_than_the_tables_is_named(docs: Path, collect: ModuleType) -> None:
    for seed, taught in ((1, 0.93), (2, 0.801)):
        result = make_result("tinybert", "sst2", 0.9, seed, teacher_metrics={"accuracy": taught})
        write_json(docs / "sst2" / f"tinybert-seed{seed}.json", result)
    collect.main([])
    note = "- The task's teacher reaches 93.0; taught by another one: TinyBERT (80.1)."
    assert note in section(task_page("minilm/sst2"), "Methods")


def test_the_readme_table_is_filled_between_its_markers(docs: Path, collect: ModuleType) -> None:
    collect.main([])
    text = Path("README.md").read_text()
    assert text.startswith("# bertkd\n<!-- results:start -->\n")
    assert text.endswith("<!-- results:end -->\nend\n")
    assert "| PKD-skip" in text
    assert "(docs/results/index.md)" in text
    assert "an old table" not in text


def test_a_readme_without_markers_is_left_alone_and_half_of_them_refused(
    docs: Path, collect: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("README.md").write_text("plain\n")
    assert collect.main([]) == 0
    assert Path("README.md").read_text() == "plain\n"
    Path("README.md").write_text("<!-- results:start -->\n")
    assert collect.main([]) == 1
    assert (
        "README.md: The page has no place for the table: it needs <!-- results:start --> and"
        in capsys.readouterr().err
    )


GENERATED = [
    "docs/results/index.md",
    "docs/results/minilm/sst2.md",
    "docs/results/minilm/overview.png",
    "docs/results/minilm/sst2.png",
    "README.md",
]


def test_the_same_results_always_give_the_same_pages(docs: Path, collect: ModuleType) -> None:
    collect.main([])
    first = [Path(name).read_bytes() for name in GENERATED]
    collect.main([])
    assert first == [Path(name).read_bytes() for name in GENERATED]
    assert collect.main(["--check"]) == 0


@pytest.mark.parametrize("name", GENERATED)
def test_check_names_the_stale_file_and_writes_nothing(
    docs: Path, collect: ModuleType, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    collect.main([])
    stale = Path(name)
    stale.write_bytes(stale.read_bytes().replace(b"bertkd-data", b"").replace(b"91.2", b"99.9"))
    before = stale.read_bytes()
    assert collect.main(["--check"]) == 1
    assert f"{name} is stale" in capsys.readouterr().err
    assert stale.read_bytes() == before


def test_new_results_make_every_generated_file_stale(
    docs: Path, collect: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    collect.main([])
    write_json(docs / "sst2" / "kd-seed3.json", make_result("kd", "sst2", 0.7, 3))
    assert collect.main(["--check"]) == 1
    errors = capsys.readouterr().err
    assert all(f"{name} is stale" in errors for name in GENERATED)
    assert "rte" not in errors


def test_sets_of_runs_have_tables_and_charts_of_their_own(docs: Path, collect: ModuleType) -> None:
    write_json(Path("docs/results/bert-base/sst2/kd.json"), make_result("kd", value=0.5))
    assert collect.main([]) == 0
    index = task_page("index")
    assert index.index("## bert-base") < index.index("## minilm")
    assert "Whether KD beats Fine-tuned is open: there is no run of Fine-tuned here." in task_page("bert-base/sst2")
    assert Path("docs/results/bert-base/overview.png").exists()


def test_results_without_a_set_have_pages_beside_the_index(docs: Path, collect: ModuleType) -> None:
    write_json(Path("docs/results/sst2/kd.json"), make_result("kd", value=0.5))
    assert collect.main([]) == 0
    assert "## Main runs" in task_page("index") and "[SST-2](sst2.md)" in task_page("index")
    assert (
        "[All results, hardware and versions](index.md)" in task_page("sst2")
        and Path("docs/results/overview.png").exists()
    )


def test_a_broken_results_file_stops_the_pages_and_is_named(
    docs: Path, collect: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(docs / "sst2" / "bad.json", make_result().to_json() | {"schema": 9})
    assert collect.main([]) == 1
    assert "bad.json is no results file: schema is 9" in capsys.readouterr().err
    assert not Path("docs/results/index.md").exists()


def make_export(method: str = "kd", **changes: Any) -> ExportResult:
    fields: dict[str, Any] = {
        "task": "sst2", "metric": "accuracy", "value": 0.851, "value_before": 0.86, "engine": "openvino",
        "precision": "int8", "runtime_precision": "int8", "attempt": "int8", "logit_difference": 0.1,
        "agreement": 0.985, "parameters": 1, "embedding_parameters": 1, "size_mb": 17.86, "latency_ms": 1.0,
        "p95_ms": 2.0, "speedup": 9.05, "speedup_best": None, "layers": 3, "seed": 1, "command": "x", "commit": "y",
        "finished": "z", "hardware": {}, "attempts": [{"way": "int8", "value": 0.851}], "settings": {}, "versions": {},
        "metrics": {}, "metrics_before": {}, "conditions": {"batch_size": 1, "sequence_length": 128, "threads": 2},
    }  # fmt: skip
    return ExportResult(method=method, **(fields | changes))


def test_exports_have_a_table_in_the_order_of_the_methods(docs: Path, collect: ModuleType) -> None:
    for method, value in (("kd", 0.851), ("teacher", 0.9)):
        write_json(docs / "sst2" / f"{method}-seed1.export_result.json", make_export(method, value=value))
    assert collect.main([]) == 0
    table = section(task_page("minilm/sst2"), "Exported models")
    assert "| Same answers |" in table
    rows = [cells(line) for line in table.splitlines() if "int8" in line]
    costs = ["1", "0.0K", "17.9 MB", "9.1x", "86.0", "98.5%"]
    assert rows == [
        ["Teacher, openvino int8", "3", "90.0", *costs],
        ["KD, openvino int8", "3", "85.1", *costs],
    ]


# What a mean over seeds, and a search, must not hide


def caveats_of(runs: list[RunResult]) -> list[str]:
    return caveats(runs, runs)


def test_runs_that_differ_in_more_than_their_seed_are_named_beside_their_mean() -> None:
    one = make_result(seed=1)
    assert caveats_of([one, make_result(seed=2)]) == []
    other = make_result(
        seed=2, settings=one.settings | {"alpha": 0.9, "younger": 1}, rows=one.rows | {"validation": 50}
    )
    assert caveats_of([one, other]) == ["The runs of KD differ in more than their seed: in alpha, rows of validation."]
    # Another method, or depth, is no repetition; nor are budgets of one command.
    assert caveats_of([one, make_result("pkd-skip", seed=2, settings={"alpha": 0.9})]) == []
    few = make_result("pruned-50", settings={"budget": ["50%"]}), make_result("pruned-50", settings={"budget": ["1"]})
    assert caveats_of(list(few)) == []


def test_rows_that_were_left_out_are_named_as_they_were_chosen() -> None:
    def noted(**settings: Any) -> list[str]:
        return caveats_of([make_result(settings=settings, rows={"train": 1000, "validation": 50})])

    assert noted(max_train_samples=1000) == ["Trained on the task's first rows only: KD (1,000)."]
    drawn = noted(max_train_samples=1000, sample_seed=42)
    assert drawn == ["Trained on rows that were drawn from the task's: KD (1,000)."]
    assert noted(max_eval_samples=50) == ["Evaluated on a part of the validation split only: KD (50)."]


def test_a_search_tells_all_settings_apart_that_were_varied() -> None:
    runs = [make_result(settings={"warmup_steps": steps}, value=0.1 * steps) for steps in (1, 5, 9)]
    rows = search_rows(runs)
    assert [(row["warmup_steps"], row["Seeds"]) for row in rows] == [("1", "1"), ("5", "1"), ("9", "1")]
    assert [row["accuracy"] for row in rows] == ["10.0", "50.0", "**90.0**"]
    again = make_result(settings={"warmup_steps": 5}, value=0.7, seed=2)
    assert [row["Seeds"] for row in search_rows([*runs, again])] == ["1", "2", "1"]
    with pytest.raises(ValueError, match="A search has two runs of KD with the same settings and seed"):
        search_rows([*runs, make_result(settings={"warmup_steps": 5})])


def test_models_that_differ_in_their_size_alone_have_rows_of_their_own() -> None:
    runs = [
        make_result("teacher"),
        make_result("shrunk", layers=3, parameters=17_000_000),
        make_result("shrunk", layers=3, parameters=9_000_000),
        make_result("kd"),
    ]
    labels = summarize(runs).query("kind == 'student'")["label"].tolist()
    assert len(labels) == 3 and sum("9.0M" in label for label in labels) == 1
    assert sum("17.0M" in label for label in labels) == 1

    # A student with a budget has another size with each seed, and is one model all the same.
    seeds = [make_result("pruned-50", seed=seed, parameters=17_000_000 + seed) for seed in (1, 2)]
    assert [row.seeds for row in summarize(seeds).itertuples()] == [(1, 2)]


def test_models_that_are_told_apart_on_one_task_are_so_on_the_others() -> None:
    runs = [
        make_result("shrunk", task, parameters=parameters)
        for task, parameters in (("mrpc", 9_000_000), ("mrpc", 5_000_000), ("rte", 9_000_000))
    ]
    assert summarize(runs)["label"].nunique() == 2


def test_a_speedup_is_that_of_the_machine_of_most_runs() -> None:
    here, there = ({"cpu": name, "cores": 2, "threads": 2, "memory_gib": 8.0, "gpu": None} for name in "ab")
    runs = [
        make_result("teacher", hardware=here),
        make_result("pruned-50", seed=1, speedup=2.0, hardware=here),
        make_result("pruned-50", seed=2, speedup=1.2, parameters=17_000_000, hardware=there),
        make_result("kd", speedup=3.0, hardware=here),
        # There is no other figure for it.
        make_result("pkd-last", layers=4, parameters=9, speedup=1.5, hardware=there),
    ]
    speedups = summarize(runs).set_index("method")["speedup"]
    assert speedups[["pruned-50", "pkd-last"]].tolist() == [pytest.approx(2.5), 1.5]  # kd has the shape of the first

    # A supernet on the other machine is one run, however many sizes it has.
    runs.append(make_result("dynabert-depth", subnetworks=sizes(0.9), hardware=there))
    assert summarize(runs).set_index("method")["speedup"]["pruned-50"] == pytest.approx(2.5)


def test_a_mean_over_two_precisions_is_named() -> None:
    one = make_result(seed=1, settings={"bf16": True})
    assert unlike_seeds([one, make_result(seed=2, settings={})]) == [
        "The runs of KD differ in more than their seed: in bf16."
    ]
    assert not unlike_seeds([one, make_result(seed=2, settings={"bf16": True})])


def test_a_mean_over_two_teachers_and_a_student_that_is_as_before_are_named() -> None:
    one = make_result(seed=1, teacher_metrics={"accuracy": 0.93})
    other = make_result(seed=2, teacher_metrics={"accuracy": 0.91}, is_start=True)
    notes = caveats([one, other], [make_result("teacher", value=0.93)])
    assert "The runs of KD differ in more than their seed: in their teacher or its evaluation." in notes
    assert "As before their training, which made them no better: KD (seed 2)." in notes


def test_speedups_of_another_machine_are_named_unless_the_shape_was_timed_on_the_usual_one() -> None:
    other = {"cpu": "Another", "cores": 4, "threads": 4, "memory_gib": 8.0, "gpu": None}
    usual = [make_result("teacher"), make_result(seed=1), make_result(seed=2), make_result("finetuned")]
    same_shape = make_result("pkd-skip", hardware=other)
    assert timed_elsewhere(summarize([*usual, same_shape]), ["student"]) == []
    alone = make_result("tinybert", hardware=other, parameters=5_000_000)
    models = summarize([*usual, same_shape, alone])
    (note,) = timed_elsewhere(models, ["student"])
    assert note.startswith("Timed on another machine than most students (Another,") and note.endswith(
        "others: TinyBERT."
    )
    assert timed_elsewhere(models, ["exported"]) == []


def test_the_facts_say_which_epoch_counts() -> None:
    best = make_result(settings={"load_best_model_at_end": True, "num_train_epochs": 3})
    assert facts([best])["Epoch that counts"] == "the best one on the rows that are reported"
    last = make_result(settings={"num_train_epochs": 3})
    assert facts([best, last])["Epoch that counts"].endswith("; the last one")
    # One that does not say how it was trained, and one that was not.
    assert "Epoch that counts" not in facts([make_result(), make_result("shrunk", seconds=0.0)])


def test_models_of_one_name_and_several_depths_are_told_apart(tmp_path: Path) -> None:
    shallow = make_result("teacher", layers=3, parameters=12_000_000, value=0.8)
    pruned = [
        make_result("pruned-50", layers=layers, parameters=parameters) for layers, parameters in ((3, 9), (6, 16))
    ]
    models = summarize([make_result("teacher"), shallow, *pruned])
    assert not models.duplicated(["task", "label"]).any()
    assert {"Teacher, 6 layers", "Teacher, 3 layers"} <= set(models["label"])
    bars_chart(models, tmp_path / "bars.png", "Title", "Accuracy (%)")


def test_a_speedup_over_another_model_than_the_teacher_is_none() -> None:
    teacher = make_result("teacher")
    of_small = make_result("finetuned", speedup=1.9, speedup_over=22_000)
    of_teacher = make_result("kd", speedup=8.1, speedup_over=teacher.parameters)
    models = summarize([teacher, of_small, of_teacher]).set_index("method")
    # Both have one shape: what was measured over the teacher counts for both.
    assert models["speedup"].loc[["finetuned", "kd"]].tolist() == [8.1, 8.1]


@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("rungs/gflops-50pct/results.json", ""),
        ("rungs/ms-4.5/results.json", ""),
        ("sizes/finetune/results.json", ""),
        ("mine/rungs/gflops-50pct/results.json", "mine"),
        ("mine/rungs/seed-2/gflops-50pct/results.json", "mine"),
        ("mine/kd/results.json", "mine"),
        ("mine/parameters-1e8/results.json", ""),
    ],
)
def test_students_of_several_budgets_stand_beside_their_teacher(place: str, named: str) -> None:
    method = "dynabert-finetune" if "finetune" in place else "pruned-50"
    assert _set_name(Path(place), make_result(method)) == named
    # A folder that is only called like a stage is the run's own.
    assert _set_name(Path("mine/finetune/results.json"), make_result("teacher")) == "mine"


def test_a_card_of_mnli_names_both_of_its_splits(tmp_path: Path) -> None:
    metrics = {"accuracy_matched": 0.84, "accuracy_mismatched": 0.85}
    front, body = card(tmp_path, task="mnli", metrics=metrics, metrics_before={}, teacher_metrics={})
    results = front["model-index"][0]["results"]
    assert [result["dataset"]["split"] for result in results] == ["validation_matched", "validation_mismatched"]
    assert {metric["type"] for result in results for metric in result["metrics"]} == {"accuracy"}
    assert front["metrics"] == ["accuracy"] and body.count("(main)") == 1
    assert "Speed-up over the model it is made of" in body


def test_what_is_no_record_is_passed_over_and_what_is_not_finished_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    make_result().write(tmp_path / "kd")
    (tmp_path / "kd" / "settings.json").write_text("{}")
    for place in ("running/settings.json", "small/compress.json", "small/size.json", "bench/bench.json"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_text("{}")
    (tmp_path / "levers.json").write_text("[]")
    assert result_files(tmp_path) == [tmp_path / "kd" / "results.json"]
    report.main(["--results_dir", str(tmp_path), "--output_dir", str(tmp_path / "report")])
    assert f"Left out, because they are not finished: {tmp_path / 'running'}\n" in capsys.readouterr().out
    # The names that the commands give.
    assert {SETTINGS, compress.FILE, pruning.FILE, shrink.FILE, subnetwork_search.FILE} <= OTHER_FILES
