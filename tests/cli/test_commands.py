"""The recipes end to end on tiny models and files, as a user starts them."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import PartialState
from conftest import ROOT
from datasets import Dataset, DatasetDict
from helpers import tiny_model
from parsing import parse
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from benchmarks import benchmark_training
from bertkd import (
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    PatientKDConfig,
    TinyBertKDConfig,
)
from bertkd.atomic import write_json
from bertkd.cli import (
    demo,
    dynabert,
    extract,
    finetune,
    kd,
    patient_kd,
    resolve,
    search,
    submit,
    tinybert,
)
from bertkd.cli.options import TrainOptions
from bertkd.data import GLUE_TASKS
from bertkd.dynabert import CostTable, Importance, Subnetwork, make_adaptive
from bertkd.efficiency import measure_latency
from bertkd.export import open_exported
from bertkd.models import label_names
from bertkd.pipeline import (
    TaskData,
    check_teacher,
    deployment,
    evaluate,
    evaluation,
    experiment,
    limit_rows,
    load_model,
    subnetwork_search,
    training,
)
from bertkd.pipeline import demo as demo_pipeline
from bertkd.pipeline.deployment import Deployment
from bertkd.pipeline.export import AccuracyCheck
from bertkd.records import environment, read_result, read_results

RECIPES = ROOT / "recipes"
CONFIGS = {
    "kd": (DistillationConfig, TrainOptions),
    "patient_kd": (PatientKDConfig, TrainOptions),
    "dynabert": (DynaBertKDConfig, dynabert.DynaBertOptions),
    "tinybert": (TinyBertKDConfig, tinybert.TinyBertOptions),
}
QUICK = [
    "--use_cpu",
    "--disable_tqdm",
    "true",
    "--max_train_samples",
    "64",
    "--max_eval_samples",
    "48",
    "--num_train_epochs",
    "1",
]


@pytest.fixture(scope="module")
def teacher(glue_dir: Path, pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("teacher") / "run"
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir)]
    finetune.main(["--model_name_or_path", str(pretrained), *data, *QUICK, "--output_dir", str(folder)])
    return folder


@pytest.fixture
def student(glue_dir: Path, pretrained: Path, teacher: Path) -> list[str]:
    """Arguments of a distillation."""
    models = ["--model_name_or_path", str(pretrained), "--teacher_model_name_or_path", str(teacher)]
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--ignore_weak_teacher"]
    return [*models, *data, "--num_student_layers", "2"]


def test_a_recipe_leaves_an_ordinary_folder(student: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (result,) = patient_kd.main([*student, "--output_dir", str(tmp_path)])
    assert {"config.json", "model.safetensors", "tokenizer.json", "README.md", "results.json"} <= {
        file.name for file in tmp_path.iterdir()
    }
    assert not list(tmp_path.glob("checkpoint-*")) and not list(tmp_path.glob(".*"))
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert model.config.num_hidden_layers == 2 and model.config.id2label == {0: "negative", 1: "positive"}
    AutoTokenizer.from_pretrained(tmp_path)
    written = json.loads((tmp_path / "results.json").read_text())
    assert written["method"] == "pkd-skip" and written["metrics"] == result.metrics
    for key in (
        "metrics_before",
        "teacher_metrics",
        "parameters",
        "seed",
        "settings",
        "versions",
        "commit",
        "hardware",
    ):
        assert written[key]
    assert written["settings"]["beta"] == 100 and written["seconds"] > 0 and written["speedup"] > 0
    out = capsys.readouterr().out
    assert str(tmp_path) in out and "pkd-skip" in out


def test_the_reported_metric_is_that_of_the_folder(student: list[str], glue_dir: Path, tmp_path: Path) -> None:
    (result,) = kd.main([*student, "--output_dir", str(tmp_path), "--num_train_epochs", "2"])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    lines = (glue_dir / "SST-2" / "dev.tsv").read_text().splitlines()[1:49]
    texts, labels = zip(*(line.split("\t") for line in lines), strict=True)
    with torch.no_grad():
        logits = model(**tokenizer(list(texts), padding=True, return_tensors="pt")).logits
    assert result.value == pytest.approx(np.mean(logits.argmax(-1).numpy() == np.array(labels, dtype=int)))


def test_several_seeds(student: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    results = kd.main([*student, "--output_dir", str(tmp_path), "--seed", "1", "2"])
    assert [result.seed for result in results] == [1, 2]
    weights = [load_file(tmp_path / f"seed-{seed}" / "model.safetensors")["classifier.weight"] for seed in (1, 2)]
    assert not torch.equal(*weights)
    assert "over 2 seeds" in capsys.readouterr().out


def test_a_finished_run_is_not_run_again_and_other_settings_are_refused(student: list[str], tmp_path: Path) -> None:
    arguments = [*student, "--output_dir", str(tmp_path)]
    (first,) = kd.main(arguments)
    (second,) = kd.main(arguments)
    assert first.finished == second.finished
    with pytest.raises(ValueError, match=r"other settings \(alpha was 0.5 and is 0.9\): choose another --output_dir"):
        kd.main([*arguments, "--alpha", "0.9"])


def test_a_folder_of_an_earlier_version_lacks_an_option_that_is_left_as_it_was(
    student: list[str], tmp_path: Path
) -> None:
    arguments = [*student, "--output_dir", str(tmp_path)]
    (first,) = kd.main(arguments)
    written = json.loads((tmp_path / "settings.json").read_text())
    assert written["commits"] == [environment()["commit"]] == [first.commit]
    for name in ("sample_seed", "kd_reduction"):
        del written[name]
    write_json(tmp_path / "settings.json", written)
    (second,) = kd.main(arguments)
    assert first.finished == second.finished
    write_json(tmp_path / "settings.json", {**written, "kd_reduction": "mean"})
    with pytest.raises(ValueError, match=r"other settings \(kd_reduction was 'mean' and is 'batchmean'\)"):
        kd.main(arguments)


def test_what_drops_rows_is_a_setting_and_what_only_loads_them_is_none(student: list[str], tmp_path: Path) -> None:
    arguments = [*student, "--output_dir", str(tmp_path)]
    kd.main(arguments)
    kd.main([*arguments, "--dataloader_num_workers", "1"])
    with pytest.raises(ValueError, match=r"dataloader_drop_last was False and is True"):
        kd.main([*arguments, "--dataloader_drop_last", "true"])


def test_a_record_has_every_commit_that_trained_its_model(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(commit: str) -> None:
        monkeypatch.setattr(experiment, "environment", lambda: {**environment(), "commit": commit})

    arguments = [*student, "--output_dir", str(tmp_path)]
    at("first")
    with monkeypatch.context() as patch:
        patch.setattr(training, "save_model", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kd.main(arguments)
    at("second")
    monkeypatch.setattr(training, "_measured_speedup", lambda *_: (at("after the training"), None))
    (result,) = kd.main(arguments)
    assert result.commit == "first, second"
    # What only reads a finished folder has not trained.
    kd.main(arguments)
    assert json.loads((tmp_path / "settings.json").read_text())["commits"] == ["first", "second"]


def test_a_head_is_put_into_the_tasks_order_whatever_the_case_of_its_labels(teacher: Path, tmp_path: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    labels = GLUE_TASKS["sst2"].labels
    model.config.id2label = dict(enumerate(label.upper() for label in reversed(labels)))
    model.config.label2id = {label: index for index, label in model.config.id2label.items()}
    model.save_pretrained(tmp_path)
    loaded = load_model(str(tmp_path), GLUE_TASKS["sst2"])
    assert torch.equal(loaded.classifier.weight, model.classifier.weight.flip(0))
    assert list(loaded.config.id2label.values()) == list(labels)


@pytest.mark.parametrize(
    "start", [["--init_from", "teacher"], ["--student_layers", "1,3"], ["--student_layers", "last"]]
)
def test_students_may_start_from_other_layers(start: list[str], student: list[str], tmp_path: Path) -> None:
    # A student that starts from the teacher does not start from a pretrained checkpoint, which comes first.
    models = student[2:] if "teacher" in start else student
    (result,) = kd.main([*models, *start, "--output_dir", str(tmp_path)])
    assert result.layers == 2


# ---- killed and started again ----


def recipe(name: str, arguments: list[str]) -> list[str]:
    return [sys.executable, str(RECIPES / name), *arguments]


def test_a_killed_recipe_goes_on_from_its_last_checkpoint(student: list[str], tmp_path: Path) -> None:
    settings = [*student, "--num_train_epochs", "6", "--per_device_train_batch_size", "8"]
    command = recipe("patient_kd.py", [*settings, "--output_dir", str(tmp_path / "run")])
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run").glob("checkpoint-*/trainer_state.json")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "results.json").exists(), "the run was over before it was killed"
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    patient_kd.main([*settings, "--output_dir", str(tmp_path / "whole")])
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("run", "whole"))
    for name in one:
        torch.testing.assert_close(one[name], other[name], rtol=1e-4, atol=1e-5)


def test_a_run_killed_after_its_last_step_trains_no_further(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = [*student, "--num_train_epochs", "3", "--output_dir", str(tmp_path)]
    with monkeypatch.context() as patch:
        patch.setattr(training, "write_model_card", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            kd.main(arguments)
    steps = []
    monkeypatch.setattr(DistillationTrainer, "training_step", lambda *args, **kwargs: steps.append(1))
    (result,) = kd.main(arguments)
    assert not steps and result.value == result.metrics["accuracy"]


def test_settings_can_be_mended_as_long_as_nothing_was_trained(student: list[str], tmp_path: Path) -> None:
    arguments = [*student, "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match="layer map"):
        patient_kd.main([*arguments, "--strategy", "1:2,2:9"])
    patient_kd.main(arguments)


def test_describing_a_run_does_not_reset_the_devices(student: list[str], tmp_path: Path) -> None:
    (run,) = parse(DistillationConfig, [*student, "--output_dir", str(tmp_path)])
    PartialState._shared_state["marker"] = "kept"
    run.experiment().settings(run.config)
    assert PartialState._shared_state.pop("marker") == "kept"


def test_the_speed_up_compares_both_models_in_float32(
    student: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def measure(models: dict[str, Any], **settings: Any) -> Any:
        for name, model in models.items():
            layer = model.bert.encoder.layer[0].intermediate.dense
            hook = layer.register_forward_hook(lambda _module, _args, out, name=name: seen.update({name: out.dtype}))
            model(input_ids=torch.tensor([[2, 5, 3]]))
            hook.remove()
        return measure_latency(models, **settings)

    monkeypatch.setattr(training, "measure_latency", measure)
    kd.main([*student, "--bf16", "--output_dir", str(tmp_path)])
    assert seen == {"whole": torch.float32, "student": torch.float32}


# ---- DynaBERT ----


@pytest.fixture
def adaptive(glue_dir: Path, teacher: Path) -> list[str]:
    """Arguments of DynaBERT with few sizes."""
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--ignore_weak_teacher"]
    sizes = ["--width_mult_list", "0.5", "1", "--depth_mult_list", "0.5", "1", "--importance_rows", "40"]
    return ["--teacher_model_name_or_path", str(teacher), *data, *sizes]


def test_dynabert_runs_its_stages_and_prints_every_size(
    adaptive: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (result,) = dynabert.main([*adaptive, "--output_dir", str(tmp_path)])
    out = capsys.readouterr().out
    assert [line.split()[:3] for line in out.splitlines() if line.split()[2:3] in (["4"], ["2"])] == [
        ["1", "1", "4"],
        ["0.5", "1", "4"],
        ["1", "0.5", "2"],
        ["0.5", "0.5", "2"],
    ]
    assert (tmp_path / "finetune.png").is_file() and str(tmp_path / "finetune") in out
    written = {stage: read_result(tmp_path / stage / "results.json") for stage in ("width", "depth", "finetune")}
    assert written["finetune"] == result and result.method == "dynabert-finetune"
    assert [(one.width, one.depth) for one in written["width"].subnetworks] == [(1.0, 1.0), (0.5, 1.0)]
    assert written["width"].settings["rewire"] and written["depth"].settings["alpha"] == 1
    assert written["finetune"].settings["alpha"] == 0 and not written["finetune"].teacher_metrics
    sizes = result.subnetworks
    assert sizes[0].value == result.value and sizes[0].parameters == result.parameters and sizes[0].speedup == 1
    assert sizes[0].flops > sizes[1].flops > sizes[3].flops and sizes[0].parameters > sizes[2].parameters
    for stage in written:
        model = AutoModelForSequenceClassification.from_pretrained(tmp_path / stage)
        assert type(model).__name__ == "BertForSequenceClassification" and model.config.num_hidden_layers == 4
        AutoTokenizer.from_pretrained(tmp_path / stage)


def test_stages_run_alone_and_are_not_repeated(adaptive: list[str], tmp_path: Path) -> None:
    arguments = [*adaptive, "--output_dir", str(tmp_path)]
    with pytest.raises(ValueError, match=r"Stage width is not done in .*--stages width"):
        dynabert.main([*arguments, "--stages", "depth"])
    (width,) = dynabert.main([*arguments, "--stages", "width"])
    (depth,) = dynabert.main([*arguments, "--stages", "width", "depth"])
    assert read_result(tmp_path / "width" / "results.json").finished == width.finished
    assert depth.method == "dynabert-depth" and not (tmp_path / "finetune").exists()
    with pytest.raises(ValueError, match="in this order, not depth width"):
        dynabert.main([*arguments, "--stages", "depth", "width"])
    with pytest.raises(ValueError, match="other settings"):
        dynabert.main([*arguments, "--stages", "width", "--no_rewire"])


def test_rewiring_decides_what_a_narrow_network_keeps(adaptive: list[str], tmp_path: Path) -> None:
    still = ["--learning_rate", "0", "--stages", "width"]
    (with_it,) = dynabert.main([*adaptive, *still, "--output_dir", str(tmp_path / "a")])
    (without,) = dynabert.main([*adaptive, *still, "--output_dir", str(tmp_path / "b"), "--no_rewire"])
    assert with_it.metrics == without.metrics  # the full network is the same
    kept = [load_file(tmp_path / name / "width" / "model.safetensors") for name in "ab"]
    assert any(not torch.equal(kept[0][name], kept[1][name]) for name in kept[0])


@pytest.mark.parametrize(("format", "name"), [("auto", "PrunedBert"), ("stock", "Bert")])
def test_a_sub_network_is_taken_out_by_its_multipliers(
    format: str, name: str, adaptive: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (parent,) = dynabert.main([*adaptive, "--stages", "width", "--output_dir", str(tmp_path)])
    folder = tmp_path / "small"
    arguments = ["--model_name_or_path", str(tmp_path / "width"), "--format", format, "--output_dir", str(folder)]
    extract.main([*arguments, "--width", "0.5"])
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert type(model).__name__ == f"{name}ForSequenceClassification"
    assert AutoTokenizer.from_pretrained(folder).model_max_length and str(folder) in capsys.readouterr().out
    result, card = read_result(folder / "results.json"), (folder / "README.md").read_text()
    assert result.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert ("trust_remote_code" in card) == (format == "auto") and "sub-network" in card
    assert result.value == parent.subnetworks[1].value
    assert result.speedup == (parent.subnetworks[1].speedup if format == "auto" else None)
    # It was timed beside the whole supernet, whatever that one was timed beside.
    assert result.speedup_over == parent.parameters


def test_sizes_of_equally_many_parameters_keep_their_own_figures(adaptive: list[str], tmp_path: Path) -> None:
    dynabert.main([*adaptive, "--stages", "width", "--output_dir", str(tmp_path)])
    path = tmp_path / "width" / "results.json"
    written = json.loads(path.read_text())
    narrow = written["subnetworks"][1]
    shallow = {**narrow, "width": 1.0, "depth": 0.5, "value": 0.123, "metrics": {"accuracy": 0.123}}
    written["subnetworks"].append(shallow)
    path.write_text(json.dumps(written))
    for depth, value in (("0.5", 0.123), ("0.25", None)):
        folder = tmp_path / depth
        arguments = ["--model_name_or_path", str(tmp_path / "width"), "--depth", depth, "--output_dir", str(folder)]
        extract.main(arguments)
        found = read_result(folder / "results.json").value
        assert found == value if value is not None else np.isnan(found)


def test_a_pruned_model_is_trained_on_by_the_recipes(adaptive: list[str], student: list[str], tmp_path: Path) -> None:
    dynabert.main([*adaptive, "--stages", "width", "--output_dir", str(tmp_path)])
    small = tmp_path / "small"
    arguments = ["--model_name_or_path", str(tmp_path / "width"), "--width", "0.5", "--output_dir", str(small)]
    extract.main(arguments)
    start = [word for word in student if word != "--num_student_layers"][:-1]
    start[start.index("--model_name_or_path") + 1] = str(small)
    kd.main([*start, "--output_dir", str(tmp_path / "kd")])
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "kd")
    assert type(model).__name__ == "PrunedBertForSequenceClassification"
    assert (tmp_path / "kd" / "pruned.py").is_file() and "trust_remote_code" in (tmp_path / "kd/README.md").read_text()
    before, after = (load_file(folder / "model.safetensors") for folder in (small, tmp_path / "kd"))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("unit", ["ms", "parameters", "gflops"])
def test_the_search_answers_a_budget_with_a_folder(
    unit: str, adaptive: list[str], glue_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    dynabert.main([*adaptive, "--stages", "width", "--output_dir", str(tmp_path)])
    data = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--importance_rows", "40", "--repeats", "3"]
    arguments = ["--model_name_or_path", str(tmp_path / "width"), *data, "--unit", unit]
    with pytest.raises(ValueError, match=r"No sub-network .* 1e-12.*(takes|took) [0-9.]+"):
        search.main([*arguments, "--budget", "1e-12", "--output_dir", str(tmp_path / "none")])
    budget = {"ms": 1e6, "parameters": 21_000, "gflops": 0.003}[unit]
    folder = tmp_path / "found"
    answer = search.main([*arguments, "--budget", str(budget), "--output_dir", str(folder)])
    assert answer["predicted"] <= budget and json.loads((folder / "search.json").read_text())["unit"] == unit
    if unit != "ms":
        assert answer["measured"] == pytest.approx(answer["predicted"], rel=1e-6)
        assert answer["measured"] > 0.7 * budget
        share = search.main([*arguments, "--budget", "90%", "--output_dir", str(tmp_path / "share")])
        assert share["budget"] == pytest.approx(0.9 * share["whole"]) and share["measured"] <= share["budget"]
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    assert sum(parameter.numel() for parameter in model.parameters()) == answer["parameters"]
    AutoTokenizer.from_pretrained(folder)
    result = read_result(folder / "results.json")
    assert result.metrics == answer["metrics"] and (result.speedup is None) == (unit != "ms")
    assert "sub-network" in (folder / "README.md").read_text()
    out = capsys.readouterr().out
    assert "predicted" in out and "measured" in out and str(folder) in out
    with pytest.raises(ValueError, match="Give a --budget"):
        search.main([*arguments, "--output_dir", str(folder)])


def test_the_search_computes_importance_on_the_tasks_labels(
    teacher: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supernet may have its labels in another order than the task."""
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    names = label_names(model.config)[::-1]
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: label for label, name in enumerate(names)}
    with torch.no_grad():
        for tensor in (model.classifier.weight, model.classifier.bias):
            tensor.copy_(tensor.flip(0))
    supernet = shutil.copytree(teacher, tmp_path / "supernet")
    model.save_pretrained(supernet)

    given: list[Any] = []

    def importance(model: Any, *_: Any, **__: Any) -> Any:
        given.append(copy.deepcopy(model))
        raise KeyboardInterrupt

    monkeypatch.setattr(subnetwork_search, "compute_importance", importance)
    words = ["--task_name", "sst2", "--glue_dir", str(glue_dir), *QUICK, "--budget", "50%", "--unit", "parameters"]
    with pytest.raises(KeyboardInterrupt):
        search.main(["--model_name_or_path", str(supernet), *words, "--output_dir", str(tmp_path / "found")])
    assert label_names(given[0].config) == names[::-1]
    original = AutoModelForSequenceClassification.from_pretrained(teacher)
    assert torch.equal(given[0].classifier.weight, original.classifier.weight)


def test_what_sizes_cost_is_that_of_a_machine_as_fast_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    supernet = make_adaptive(tiny_model(layers=2))
    full, half = Subnetwork.of(supernet), Subnetwork.of(supernet, 0.5)

    # The machine takes twice as long by now.
    def slower(runners: dict[str, Any], *_rest: Any, **_options: Any) -> Any:
        assert list(runners) == ["first", "0", "1"]
        taken = {"first": 20.0, "0": 9.0, "1": 20.0}
        return {name: Namespace(p50_ms=ms, speedup=20.0 / ms) for name, ms in taken.items()}

    monkeypatch.setattr(deployment, "measure_latency", slower)
    whole = Deployment().runner(supernet)
    assert subnetwork_search._milliseconds_beside(supernet, Deployment(), whole, 10.0, [half, full]) == [4.5, 10.0]
    assert Deployment().milliseconds_of([], whole, 10.0) == []


def test_a_table_that_promises_too_much_is_corrected_by_measuring() -> None:
    table = CostTable(1.0, {0: 0.0, 1: 1.0, 2: 2.0}, {0: 0.0, 24: 1.0})
    supernet = make_adaptive(tiny_model(layers=2))
    importance = Importance(torch.tensor([[2.0, 1.0]] * 2), torch.ones(2, 24))

    def slower(factor: float) -> Any:
        return lambda sizes: [factor * table.cost(size) for size in sizes]

    found, costs = subnetwork_search._within_budget(supernet, importance, table, slower(1.5), 7.0, "ms", 3)
    assert found and all(cost <= 7 for cost in costs) and costs == slower(1.5)([one.size for one in found])
    whole, _ = subnetwork_search._within_budget(supernet, importance, table, slower(1.0), 7.0, "ms", 3)
    assert whole[0].score > found[0].score
    with pytest.raises(ValueError, match="measured within 7 ms; the closest took [0-9.]+.*larger --budget"):
        subnetwork_search._within_budget(supernet, importance, table, slower(10.0), 7.0, "ms", 3)


# ---- configs and the command line ----


@pytest.mark.parametrize(
    "path",
    [path for method in CONFIGS for path in sorted(RECIPES.glob(f"configs/{method}/*.yaml"))],
    ids=lambda path: f"{path.parent.name}/{path.stem}",
)
def test_every_config_parses(path: Path) -> None:
    config_class, recipe_class = CONFIGS[path.parent.name]
    (run,) = parse(config_class, ["--config", str(path), "--use_cpu"], {}, recipe_class)
    assert run.data.task_name in GLUE_TASKS
    assert run.data.task_name == path.stem.split("-")[0]


def test_a_list_of_layers_says_how_many_there_are(pretrained: Path) -> None:
    def depth(*options: str) -> int:
        (run,) = parse(DistillationConfig, ["--model_name_or_path", str(pretrained), "--use_cpu", *options])
        return resolve.student(run.models, GLUE_TASKS["sst2"], run.config.seed).config.num_hidden_layers

    assert depth() == depth("--student_layers", "last") == 4
    assert depth("--student_layers", "0,2,3") == 3
    with pytest.raises(ValueError, match="names 2 layers, but the student is to have 3"):
        depth("--student_layers", "0,2", "--num_student_layers", "3")


def test_rows_of_a_file_that_is_sorted_by_label_are_drawn_at_random(tmp_path: Path, pretrained: Path) -> None:
    lines = [f"text number {i},{'bad' if i < 60 else 'good'}" for i in range(100)]
    file = tmp_path / "sorted.csv"
    file.write_text("\n".join(["text,label", *lines]) + "\n")
    (tmp_path / "dev.csv").write_text("text,label\nother words,bad\nmore of them,good\n")
    files = ["--train_file", str(file), "--validation_file", str(tmp_path / "dev.csv")]
    own = [*files, "--model_name_or_path", str(pretrained)]

    def labels(*options: str) -> list[int]:
        (run,) = parse(DistillationConfig, [*own, "--use_cpu", *options])
        return list(resolve.task_data(run).splits["train"]["label"])

    limit = ["--max_train_samples", "50"]
    with pytest.raises(ValueError, match=r"first 50 rows of 'train' all have one label.*--sample_seed"):
        labels(*limit)
    assert labels("--max_train_samples", "70") == [0] * 60 + [1] * 10
    drawn = labels(*limit, "--sample_seed", "7")
    assert len(drawn) == 50 and set(drawn) == {0, 1}
    assert labels(*limit, "--sample_seed", "7") == drawn != labels(*limit, "--sample_seed", "8")


def test_the_authors_settings() -> None:
    (run,) = parse(PatientKDConfig, ["--config", str(RECIPES / "configs/patient_kd/rte.yaml"), "--use_cpu"])
    config = run.config
    assert (config.learning_rate, config.temperature, config.alpha, config.beta) == (1e-5, 10, 0.7, 500)
    assert config.normalize_patience and config.strategy == "skip" and run.models.num_student_layers == 6
    (run,) = parse(PatientKDConfig, ["--config", str(RECIPES / "configs/patient_kd/mnli-3layer.yaml"), "--use_cpu"])
    config = run.config
    assert (config.learning_rate, config.temperature, config.alpha, config.beta) == (5e-5, 5, 0.7, 1000)
    assert not config.normalize_patience and config.strategy == "last" and run.models.num_student_layers == 3


def write_config(folder: Path, text: str) -> str:
    path = folder / "config.yaml"
    path.write_text(text)
    return str(path)


def test_the_command_line_wins_over_the_file(tmp_path: Path) -> None:
    path = write_config(tmp_path, "alpha: 0.3\nlearning_rate: 5e-5\nseed: [1, 2]\nbf16: true\n")
    runs = parse(DistillationConfig, ["--config", path, "--alpha", "0.6", "--use_cpu"])
    assert [run.config.seed for run in runs] == [1, 2]
    assert runs[0].config.alpha == 0.6 and runs[0].config.learning_rate == 5e-5 and runs[0].config.bf16
    (run,) = parse(DistillationConfig, ["--config", path, "--seed", "7", "--use_cpu"])
    assert run.config.seed == 7


def test_settings_of_a_task_serve_files_too(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = write_config(tmp_path, "task_name: sst2\nalpha: 0.3\n")
    (run,) = parse(DistillationConfig, ["--config", path, "--train_file", "train.csv", "--use_cpu"])
    assert run.data.task_name is None and run.data.train_file == "train.csv" and run.config.alpha == 0.3
    assert "its --task_name is not used beside --train_file" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(DistillationConfig, ["--task_name", "sst2", "--train_file", "train.csv", "--use_cpu"])
    assert "give either --task_name or --train_file, not both" in capsys.readouterr().err


def test_no_text_is_longer_than_the_model_reads(pretrained: Path, tmp_path: Path) -> None:
    # As of a vocabulary alone.
    tokenizer = AutoTokenizer.from_pretrained(pretrained)
    tokenizer.model_max_length = int(1e30)
    tokenizer.save_pretrained(tmp_path)
    words = ["--model_name_or_path", str(pretrained), "--tokenizer_name", str(tmp_path), "--use_cpu"]
    (run,) = parse(DistillationConfig, words)
    positions = AutoConfig.from_pretrained(pretrained).max_position_embeddings
    assert resolve.tokenizer_for(run.models).model_max_length == positions


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temperatur: 3", "unknown option 'temperatur', did you mean temperature?"),
        ("- alpha", "must hold one `option: value` per line"),
        ("alpha: [", "cannot read the config file"),
        ("alpha: much", "invalid float value: 'much'"),
        ("alpha:", "gives alpha no value"),
        ("init_from: techer", "invalid choice: 'techer'"),
    ],
)
def test_a_wrong_config_is_refused(text: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit):
        parse(DistillationConfig, ["--config", write_config(tmp_path, text), "--use_cpu"])
    assert message in capsys.readouterr().err


def test_an_unknown_or_shortened_option_is_refused(capsys: pytest.CaptureFixture) -> None:
    for words in (["--alpa", "0.5"], ["--alph", "0.5"], ["--alpa=0.5"]):
        with pytest.raises(SystemExit):
            parse(DistillationConfig, [*words, "--use_cpu"])
        assert f"there is no option {words[0][:6]}" in (message := capsys.readouterr().err)
        assert "did you mean --alpha?" in message
    with pytest.raises(SystemExit):
        parse(DistillationConfig, ["--use_cpu", "true", "stray"])
    assert "'stray' belongs to no option" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task_name", "sst2", "--train_file", "x.csv"], "either --task_name or --train_file"),
        (["--task_name", "sst2", "--validation_file", "x.csv"], "go with --train_file"),
        (["--resume_from_checkpoint", "x"], "goes on by itself"),
        (["--seed", "one"], "'one' is not a whole number"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture
) -> None:
    with pytest.raises(SystemExit):
        parse(DistillationConfig, ["--use_cpu", *options])
    assert message in capsys.readouterr().err


def test_the_users_own_metric_chooses_the_best_epoch(tmp_path: Path) -> None:
    (run,) = parse(DistillationConfig, ["--metric_for_best_model", "eval_loss", "--use_cpu"])
    assert run.config.metric_for_best_model == "eval_loss" and run.config.greater_is_better is False


# ---- teachers ----


def test_a_teacher_no_better_than_the_majority_is_refused(
    student: list[str], pretrained: Path, tmp_path: Path
) -> None:
    # The head of the pretrained checkpoint is random; its labels are given, so that only its weakness counts.
    weak = [w for w in student if w != "--ignore_weak_teacher"]
    weak[weak.index("--teacher_model_name_or_path") + 1] = str(pretrained)
    weak += ["--teacher_labels", "negative", "positive"]
    model = AutoModelForSequenceClassification.from_pretrained(pretrained)
    with torch.no_grad():
        model.classifier.bias[0] += 100  # always the first class
    model.save_pretrained(tmp_path / "weak")
    AutoTokenizer.from_pretrained(pretrained).save_pretrained(tmp_path / "weak")
    weak[weak.index("--teacher_model_name_or_path") + 1] = str(tmp_path / "weak")
    with pytest.raises(ValueError, match=r"accuracy on sst2 is 0\.\d+, no better than .*--ignore_weak_teacher"):
        kd.main([*weak, "--output_dir", str(tmp_path / "run")])
    kd.main([*weak, "--ignore_weak_teacher", "--output_dir", str(tmp_path / "run2")])


def test_the_teacher_check_knows_regression_and_classes(student: list[str], tmp_path: Path) -> None:
    (run,) = parse(DistillationConfig, [*student, "--output_dir", str(tmp_path)])
    data = resolve.task_data(run)
    share = np.mean(data.splits["validation"]["label"])
    majority = max(share, 1 - share)
    check_teacher({"accuracy": majority + 0.01}, data)
    with pytest.raises(ValueError, match="no better"):
        check_teacher({"accuracy": majority}, data)
    scores = Dataset.from_dict({"label": [0.0, 2.5, 5.0]})
    data = TaskData(GLUE_TASKS["stsb"], DatasetDict(validation=scores), None)
    check_teacher({"combined_score": 0.1}, data)
    with pytest.raises(ValueError, match=r"combined_score on stsb is 0\.000, no better .* \(0\.000\)"):
        check_teacher({"combined_score": 0.0}, data)


def test_a_teacher_of_another_task_is_refused(student: list[str], tmp_path: Path) -> None:
    wrong = ["--task_name", "stsb", *(w for w in student if w not in ("--task_name", "sst2"))]
    (run,) = parse(DistillationConfig, [*wrong, "--output_dir", str(tmp_path)])
    with pytest.raises(ValueError, match="has 2 labels, but the task stsb has 1"):
        resolve.teacher(run, GLUE_TASKS["stsb"])


MNLI_HEADER = "index\tpromptID\tpairID\tgenre\tsentence1_binary_parse\tsentence2_binary_parse\tsentence1_parse\t"
MNLI_HEADER += "sentence2_parse\tsentence1\tsentence2\tlabel1\tgold_label"


@pytest.fixture
def mnli_dir(glue_dir: Path, tmp_path: Path) -> Path:
    """A made-up MNLI in the official format, whose label follows from the second sentence."""
    folder = tmp_path / "glue" / "MNLI"
    folder.mkdir(parents=True)
    words = ("good", "bad", "not")
    labels = ("entailment", "contradiction", "neutral")
    for name, count in (("train", 192), ("dev_matched", 48), ("dev_mismatched", 48)):
        lines = [
            f"{i}\t1\t1\tg\tx\tx\tx\tx\tthe film is here\tthe film is {words[i % 3]}\t{labels[i % 3]}\t{labels[i % 3]}"
            for i in range(count)
        ]
        (folder / f"{name}.tsv").write_text("\n".join([MNLI_HEADER, *lines]) + "\n")
    return folder.parent


def test_mnli_with_a_teacher_in_the_other_order(pretrained: Path, mnli_dir: Path, tmp_path: Path) -> None:
    data = ["--task_name", "mnli", "--glue_dir", str(mnli_dir), "--use_cpu", "--disable_tqdm", "true"]
    data += ["--learning_rate", "5e-3", "--num_train_epochs", "20", "--per_device_train_batch_size", "16"]
    data += ["--eval_strategy", "no", "--save_strategy", "no", "--load_best_model_at_end", "false"]
    (result,) = finetune.main(
        ["--model_name_or_path", str(pretrained), *data, "--output_dir", str(tmp_path / "teacher")]
    )
    assert set(result.metrics) == {"accuracy_matched", "accuracy_mismatched"} and result.value > 0.9
    # The same teacher as its authors might publish it: contradiction, entailment, neutral.
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "teacher")
    order = [2, 0, 1]
    model.classifier.weight.data, model.classifier.bias.data = (
        model.classifier.weight[order],
        model.classifier.bias[order],
    )
    names = ["contradiction", "entailment", "neutral"]
    model.config.id2label, model.config.label2id = dict(enumerate(names)), {name: i for i, name in enumerate(names)}
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(tmp_path / "teacher").save_pretrained(tmp_path / "other")
    arguments = [*data, "--teacher_model_name_or_path", str(tmp_path / "other"), "--alpha", "1"]
    (run,) = parse(DistillationConfig, [*arguments, "--output_dir", str(tmp_path / "x")])
    assert evaluate(model, resolve.task_data(run), run.config) == result.metrics
    for start in (["--model_name_or_path", str(pretrained)], ["--init_from", "teacher", "--student_layers", "first"]):
        folder = tmp_path / start[0].strip("-")
        (distilled,) = kd.main([*arguments, *start, "--num_student_layers", "2", "--output_dir", str(folder)])
        assert distilled.teacher_metrics == result.metrics
        assert distilled.value > 0.9


def test_an_evaluation_in_mixed_precision_leaves_the_model_as_it_was(
    student: list[str], teacher: Path, tmp_path: Path
) -> None:
    (run,) = parse(DistillationConfig, [*student[2:], "--bf16", "--output_dir", str(tmp_path)])
    model, ids = load_model(str(teacher)).eval(), torch.arange(5, 25).view(2, 10)
    with torch.no_grad():
        before = model(ids).logits
        evaluate(model, resolve.task_data(run), run.config)
        assert torch.equal(model.eval()(ids).logits, before)
    # Nor is it taken for one that is prepared for a training.
    assert not hasattr(model, "_is_accelerate_prepared")


# ---- other data ----


def test_own_files_and_rows_without_labels(student: list[str], glue_dir: Path, teacher: Path, tmp_path: Path) -> None:
    lines = (glue_dir / "SST-2" / "dev.tsv").read_text().splitlines()[1:]
    pairs = [line.split("\t") for line in lines]
    names = ("negative", "positive")
    labeled = "\n".join(f'"{text}",{names[int(label)]}' for text, label in pairs[:60])
    (tmp_path / "dev.csv").write_text(f"text,label\n{labeled}\n")
    texts = "\n".join(f'"{text}"' for text, _ in pairs[60:160])
    (tmp_path / "train.csv").write_text(f"text\n{texts}\n")
    models = student[:4]
    files = ["--train_file", str(tmp_path / "train.csv"), "--validation_file", str(tmp_path / "dev.csv")]
    files += ["--class_names", *names]
    arguments = [*models, *files, *QUICK, "--num_student_layers", "2", "--ignore_weak_teacher"]
    arguments += ["--test_file", str(tmp_path / "train.csv")]
    (result,) = kd.main([*arguments, "--alpha", "1", "--output_dir", str(tmp_path / "run")])
    assert result.task == "files" and result.method == "kd" and result.metric == "accuracy"
    named = [*arguments, "--alpha", "1", "--files_name", "reviews", "--result_name", "mine"]
    (again,) = kd.main([*named, "--output_dir", str(tmp_path / "named")])
    assert (again.task, again.method, again.value) == ("reviews", "mine", result.value)
    with pytest.raises(ValueError, match="--files_name sst2 is a GLUE task's"):
        kd.main([*arguments, "--files_name", "sst2", "--output_dir", str(tmp_path / "glue")])
    answers = (tmp_path / "run" / "predict_results_test.txt").read_text().splitlines()
    assert answers[0] == "index\tprediction" and answers[1].split("\t")[1] in names
    assert len(answers) == 101  # whatever --max_eval_samples is
    with pytest.raises(ValueError, match=r"no label column .*alpha=1"):
        kd.main([*arguments, "--alpha", "0.5", "--output_dir", str(tmp_path / "run2")])


def test_a_users_mistake_is_one_sentence(student: list[str], tmp_path: Path) -> None:
    arguments = [w for w in student if w != "sst2"]
    arguments.insert(arguments.index("--task_name") + 1, "cola")
    done = subprocess.run(recipe("kd.py", [*arguments, "--output_dir", str(tmp_path)]), capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    message, hint = done.stderr.strip().splitlines()[-2:]
    assert "CoLA" in message and "BERTKD_TRACEBACK" in hint


def test_models_and_tasks_that_are_not_named(glue_dir: Path, pretrained: Path, tmp_path: Path) -> None:
    rest = ["--use_cpu", "--output_dir", str(tmp_path)]
    task = ["--task_name", "sst2", "--glue_dir", str(glue_dir)]
    with pytest.raises(ValueError, match="Name the model with --model_name_or_path"):
        finetune.main([*task, *rest])
    with pytest.raises(ValueError, match="--task_name .*--train_file"):
        finetune.main(["--model_name_or_path", str(pretrained), *rest])
    with pytest.raises(ValueError, match="--validation_file"):
        finetune.main(["--model_name_or_path", str(pretrained), "--train_file", "x.csv", *rest])
    with pytest.raises(
        OSError, match=r"Cannot load the model 'bert-base-nowhere': .* Give a local folder, or 'minilm'"
    ):
        finetune.main(["--model_name_or_path", "bert-base-nowhere", *task, *rest])
    with pytest.raises(ValueError, match="--teacher_model_name_or_path"):
        kd.main(["--model_name_or_path", str(pretrained), *task, *rest])


# ---- submission ----


def test_a_submission_of_one_task(shared_data: Path, teacher: Path, tmp_path: Path) -> None:
    arguments = ["--glue_dir", str(shared_data / "glue"), "--output_dir", str(tmp_path), "--fill_missing"]
    path = submit.main(["--models", f"sst2={teacher}", *arguments])
    assert path.is_file()
    lines = (tmp_path / "SST-2.tsv").read_text().splitlines()
    assert lines[0] == "index\tprediction" and len(lines) == 1822
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(teacher),
        AutoTokenizer.from_pretrained(teacher),
    )
    sentences = (shared_data / "glue" / "SST-2" / "test.tsv").read_text().splitlines()[1:]
    for i in (0, 700, 1820):
        text = sentences[i].split("\t")[1]
        answer = model(**tokenizer(text, return_tensors="pt")).logits.argmax().item()
        assert lines[i + 1] == f"{i}\t{answer}"


def test_submission_arguments(tmp_path: Path) -> None:
    for pair in ("sst2", "sst3=x", "ax=x"):
        with pytest.raises(ValueError, match="write TASK=FOLDER"):
            submit.models_by_task([pair])


def test_settings_hold_what_decides_the_outcome(tmp_path: Path) -> None:
    arguments: list[Any] = ["--alpha", "0.4", "--weight_decay", "0.5", "--output_dir", str(tmp_path), "--use_cpu"]
    (run,) = parse(PatientKDConfig, [*arguments, "--model_name_or_path", "m", "--task_name", "rte"])
    settings = run.experiment().settings(run.config)
    assert settings["alpha"] == 0.4 and settings["weight_decay"] == 0.5 and settings["beta"] == 100
    assert settings["model_name_or_path"] == "m" and settings["task_name"] == "rte"
    assert "output_dir" not in settings and "seed" not in settings
    json.dumps(settings)


# ---- the demo ----


def test_the_demo_leaves_table_chart_results_and_student(
    pretrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    real_rows = demo_pipeline.load_glue
    monkeypatch.setattr(demo_pipeline, "MODEL", str(pretrained))
    monkeypatch.setattr(evaluation, "check_teacher", lambda *_: None)  # it learns too little from so few rows
    monkeypatch.setattr(demo_pipeline, "AccuracyCheck", lambda: AccuracyCheck(max_drop=1.0))  # one row is 1.6 points
    monkeypatch.setattr(demo_pipeline, "load_glue", lambda *a, **k: limit_rows(real_rows(*a, **k), 256, 64))
    results = demo.main(["--output_dir", str(tmp_path), "--epochs", "1"])
    assert [result.method for result in results] == ["teacher", "pruned-50", "pruned-25-rungs"]
    assert (tmp_path / "chart.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert len(json.loads((tmp_path / "table.json").read_text())) == 6
    assert len(read_results(tmp_path)) == 3 and all("load_best_model_at_end" in result.settings for result in results)
    parameters = [result.parameters for result in results]
    assert parameters == sorted(parameters, reverse=True) and len(set(parameters)) == 3

    student = tmp_path / "students" / "gflops-25pct"
    AutoModelForSequenceClassification.from_pretrained(student)
    open_exported(student / "int8")
    table = capsys.readouterr().out.splitlines()[-12:]
    for name in ("Teacher", "Teacher, int8", "Pruned, 50% of the FLOPs", "Pruned, 25% of the FLOPs, in rungs, int8"):
        assert any(name in line for line in table), name
    # What is done is not done again.
    assert demo.main(["--output_dir", str(tmp_path), "--epochs", "1"])[2].finished == results[2].finished


# ---- the cost of training ----


def test_the_training_benchmark_writes_ratios_and_a_page(
    pretrained: Path, glue_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The paper's shapes take most of the time, and go through the code of the small ones. Each memory is measured in
    # a process of its own: one pair of them shows that it works.
    monkeypatch.setitem(benchmark_training.STEPS, "paper_intermediate", benchmark_training.intermediate_step)
    # Nor is a figure needed that holds from run to run.
    monkeypatch.setattr(
        benchmark_training, "in_turns", lambda variants, _: {name: [run()] for name, run in variants.items()}
    )
    measure = benchmark_training.memory
    pair = {"step": [2.0], "parts": [1.0]}
    monkeypatch.setattr(
        benchmark_training,
        "memory",
        lambda options, which: pair if which == "pretraining" else measure(options, which),
    )
    output = tmp_path / "performance.json"
    options = ["--model", str(pretrained), "--glue_dir", str(glue_dir), "--rows", "64", "--repeats", "1"]
    benchmark_training.main([*options, "--output", str(output)])
    report = json.loads(output.read_text())
    assert set(report["measurements"]) == set(benchmark_training.TITLES)
    page = output.with_suffix(".md").read_text()
    for entry in report["measurements"].values():
        first, second = entry["medians"].values()
        assert entry["ratio"] == pytest.approx(first / second, rel=0.1)
        assert f"{entry['ratio']:.2f} |" in page
