"""The commands export, bench and compress, and the engines of search, on tiny models."""

import json
import re
import shutil
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import ROOT
from helpers import tiny_model
from transformers import AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from bertkd.cli import bench, commands, compress, export
from bertkd.cli.options import MeasuringOptions
from bertkd.dynabert import Subnetwork, extract_subnetwork, make_adaptive
from bertkd.efficiency import PRESETS, TorchRunner, count_flops, count_parameters, measure_latency
from bertkd.export import engines, exported_size_mb, open_exported, random_batches, write_export
from bertkd.methods import method_named
from bertkd.pipeline import compress as sizes_module
from bertkd.pipeline import deployment, subnetwork_search
from bertkd.pipeline.bench import page
from bertkd.pipeline.compress import Size
from bertkd.pipeline.deployment import Deployment, Timing
from bertkd.pipeline.experiment import output_folder
from bertkd.pipeline.peak_memory import MeasuredModel
from bertkd.records import ExportResult, read_result
from bertkd.students import prune_vocabulary

# The fixture `exported`, which is made before, measures its teacher in every engine.
pytestmark = pytest.mark.usefixtures("teacher_in_pytorch_alone")

QUICK = ["--repeats", "2", "--sequence_length", "16"]


@pytest.fixture(scope="module")
def task(glue_dir: Path) -> list[str]:
    limits = ["--max_train_samples", "32", "--max_eval_samples", "48"]
    return ["--task_name", "sst2", "--glue_dir", str(glue_dir), "--use_cpu", *limits]


@pytest.fixture(scope="module")
def tuned(pretrained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with the task's labels."""
    folder = tmp_path_factory.mktemp("tuned")
    model = AutoModelForSequenceClassification.from_pretrained(pretrained)
    model.config.id2label = {0: "negative", 1: "positive"}
    model.config.label2id = {"negative": 0, "positive": 1}
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(pretrained).save_pretrained(folder)
    return folder


@dataclass
class Made:
    """What an export left, and with which attention its teacher was exported."""

    result: ExportResult
    folder: Path
    attention: list[str]


@pytest.fixture(scope="module")
def exported(tuned: Path, task: list[str], tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder, attention = tmp_path_factory.mktemp("made") / "int8", []
    names = ["--model_name_or_path", str(tuned), "--teacher_model_name_or_path", str(tuned)]
    options = ["--engine", "onnxruntime", "--precision", "int8", "--max_drop", "0.5"]

    def seen(model: Any, *rest: Any, **more: Any) -> Path:
        attention.append(model.config._attn_implementation)
        return write_export(model, *rest, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deployment, "write_export", seen)  # of the teacher
        result = export.main([*names, *task, *options, *QUICK, "--output_dir", str(folder)])
    return Made(result, folder, attention)


def test_an_export_is_measured_and_described(exported: Made, tuned: Path) -> None:
    result, folder = exported.result, exported.folder
    assert ExportResult.read(folder / "export_result.json") == result
    assert (result.engine, result.precision, result.runtime_precision) == ("onnxruntime", "int8", "int8")
    assert result.attempts[-1]["way"] == result.attempt and result.layers == 4
    assert 0 <= result.value <= 1 and result.speedup > 0 and result.speedup_best > 0
    assert result.size_mb == pytest.approx(sum(f.stat().st_size for f in folder.glob("model.onnx*")) / 1e6)
    assert "onnxruntime" in result.versions and result.conditions["sequence_length"] == 16
    card = (folder / "README.md").read_text()
    assert "ExportedModel.from_pretrained(path" in card and f"{100 * result.value:.1f}" in card
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == AutoTokenizer.from_pretrained(tuned).get_vocab()
    assert open_exported(folder).engine == "onnxruntime"


def test_the_teacher_is_exported_before_its_attention_is_written_out(exported: Made) -> None:
    assert exported.attention == ["sdpa", "sdpa"]  # in ONNX Runtime and OpenVINO
    assert exported.result.conditions["repeats"] == 2


def test_int8_on_a_cpu_without_it_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def noted(precision: str = "int8", device: str = "cpu", **instructions: bool) -> str:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, **instructions}, raising=False)
        commands.note_slow_int8(MeasuringOptions(precision=precision, device=device))
        return capsys.readouterr().err

    assert noted().startswith(
        "note: this CPU has no instructions for int8, which saves memory here and may take longer"
    )
    assert (
        not noted(avx512_vnni=True) + noted(avx_vnni=True) + noted(i8mm=True) + noted("float32") + noted(device="cuda")
    )


def test_an_export_for_a_device_is_measured_there_in_pytorch_alone(
    tuned: Path, task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--model_name_or_path", str(tuned), "--teacher_model_name_or_path", str(tuned)]
    options = ["--engine", "pytorch", "--precision", "bfloat16", "--max_drop", "0.5", *QUICK]
    place = ["--device", "cpu:0", "--output_dir", str(tmp_path / "made")]  # by its number, as a GPU is
    result = export.main([*names, *task, *options, *place])
    assert result.runtime_precision == "bfloat16" and result.conditions["device"] == "cpu"
    assert result.speedup > 0 and result.speedup_best > 0
    table = capsys.readouterr().out
    assert "teacher, pytorch bfloat16" in table and "onnxruntime" not in table and "openvino" not in table


def test_an_export_reads_the_models_own_tokens_and_not_the_teachers(
    tuned: Path, task: list[str], tmp_path: Path
) -> None:
    model, tokenizer = AutoModelForSequenceClassification.from_pretrained(tuned), AutoTokenizer.from_pretrained(tuned)
    small, own = prune_vocabulary(model, tokenizer, ["a film", "the plot"])
    for one in (small, own):
        one.save_pretrained(tmp_path / "small")
    names = ["--model_name_or_path", str(tmp_path / "small"), "--teacher_model_name_or_path", str(tuned)]
    options = ["--engine", "pytorch", "--precision", "float32", *QUICK]
    result = export.main([*names, *task, *options, "--output_dir", str(tmp_path / "made")])
    assert result.value == result.value_before
    assert AutoTokenizer.from_pretrained(tmp_path / "made").get_vocab() == own.get_vocab() != tokenizer.get_vocab()


def test_users_mistakes_are_one_sentence(
    tuned: Path, task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, out = ["--model_name_or_path", str(tuned)], ["--output_dir", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="Name the model to export"):
        export.main([*task, *out])
    with pytest.raises(OSError, match="Cannot load the model .*no folder with a config"):
        export.main([*task, *out, "--model_name_or_path", str(tmp_path)])
    three = tmp_path / "three"
    tiny_model(vocab_size=1000).save_pretrained(three)
    AutoTokenizer.from_pretrained(tuned).save_pretrained(three)
    with pytest.raises(ValueError, match="three has 3 labels, but the task sst2 has 2"):
        export.main([*task, *out, "--model_name_or_path", str(three)])
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Cannot write to .*choose another --output_dir"):
        export.main([*task, *model, "--output_dir", str(tmp_path / "file" / "out")])
    with pytest.raises(ValueError, match="openvino runs on the CPU here: leave --device out"):
        export.main([*task, *model, *out, "--device", "cuda"])
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install .bertkd\[export\]"):
        export.main([*task, *model, *out])


def test_a_budget_in_time_is_that_of_the_model_alone(tuned: Path, tmp_path: Path, monkeypatch: Any) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    folder = write_export(model, tmp_path / "made", "pytorch", "float32")
    measured: list[set[str]] = []

    def seen(runners: dict[str, Any], *rest: Any, **options: Any) -> Any:
        measured.append(set(runners))
        return measure_latency(runners, *rest, **options)

    monkeypatch.setattr(deployment, "measure_latency", seen)
    timing = Timing(batch_size=2, sequence_length=16, repeats=2, threads=1)
    assert 0 < Deployment(timing=timing).milliseconds(folder) < 1000 and measured == [{"model"}]

    # Beside another model, what it takes is its share of that one's time, whatever the clock says.
    def half_of_the_first(runners: dict[str, Any], *_rest: Any, **_options: Any) -> Any:
        assert list(runners) == ["beside", "exported"]
        return {"beside": Namespace(speedup=1.0, p50_ms=12.0), "exported": Namespace(speedup=2.0, p50_ms=6.0)}

    monkeypatch.setattr(deployment, "measure_latency", half_of_the_first)
    assert Deployment(timing=timing).milliseconds_beside(model, 8.0, folder) == (4.0, 12.0)


def test_the_committed_benchmarks_are_the_pages_of_their_figures() -> None:
    folder = ROOT / "docs" / "benchmark"
    found = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/bench.json")}
    assert set(found) == {"cpu", "h200-batch1", "h200-batch128", "pruned", "minilm-pruned", "avx2"}
    for name, figures in found.items():
        assert (folder / name / "bench.md").read_text() == page(figures)
        assert figures["command"].endswith(f"/{name}") or f"docs/benchmark/{name} " in f"{figures['command']} "


@pytest.mark.parametrize(
    ("name", "gflops", "millions"),
    [
        ("bert-base", 22.35, 109.48),
        ("bert6", 11.17, 66.96),
        ("bert3", 5.59, 45.69),
        ("distilbert", 11.17, 66.96),
        ("tinybert4", 1.25, 14.35),
    ],
)
def test_flops_and_parameters_of_known_shapes(name: str, gflops: float, millions: float) -> None:
    model = PRESETS[name].make()
    assert count_flops(model) / 1e9 == pytest.approx(gflops, abs=0.01)
    assert count_parameters(model).total / 1e6 == pytest.approx(millions, abs=0.01)


def test_a_benchmark_measures_folders_and_compares(
    exported: Made,
    tuned: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Each memory is measured in a process of its own, which takes seconds to start: the next test has two of them.
    monkeypatch.setattr(MeasuredModel, "peak_memory_mb", lambda model: 1.0)
    command = [str(tuned), str(exported.folder), "--engines", "pytorch", "onnxruntime", *QUICK]
    command += ["--precisions", "float32", "--threads", "1", "--output_dir"]
    found = bench.main([*command, str(tmp_path / "a")])
    ways = [one["way"] for one in found["rows"]]
    assert ways == ["pytorch float32 (eager)", "pytorch float32", "onnxruntime float32", "as exported"]
    first, last = found["rows"][0], found["rows"][-1]
    assert first["attention"] == "eager" and first["speedup"] == 1.0 and last["precision"] == "int8"
    assert all(one["peak_memory_mb"] > 0 and one["p95_ms"] >= one["p50_ms"] > 0 for one in found["rows"])
    assert all(one["threads"] == 1 and one["padding"] == "none" for one in found["rows"])
    assert json.loads((tmp_path / "a" / "bench.json").read_text())["rows"] == found["rows"]
    assert all(one["warmup"] == 3 for one in found["rows"])
    text = (tmp_path / "a" / "bench.md").read_text()
    assert text.count("onnxruntime float32") == 1 and found["command"] in text and "Speed-ups are over" in text
    again = [*command, str(tmp_path / "b"), "--engines", "pytorch", "--compare", str(tmp_path / "a" / "bench.json")]
    bench.main(again)
    out = capsys.readouterr().out
    assert "p50 then" in out and "the same" in out
    assert "not measured: pytorch int8" not in out
    elsewhere = json.loads((tmp_path / "a" / "bench.json").read_text())
    elsewhere["hardware"]["cpu"], elsewhere["rows"][1]["threads"] = "another", 9
    compared = bench.compared_rows(found, elsewhere)
    assert [row["conditions"] for row in compared][:2] == ["other hardware", "other threads, hardware"]
    # Whatever the engines are, the first model is also measured as the papers do.
    other = shutil.copytree(tuned, tmp_path / "other" / tuned.name)
    engines = ["--engines", "pytorch", *QUICK, "--precisions", "bfloat16", "--output_dir", str(tmp_path / "d")]
    rows = bench.main([str(tuned), str(other), *engines])["rows"]
    assert [one["way"] for one in rows] == ["pytorch float32 (eager)", *["pytorch bfloat16"] * 2]
    assert [one["model"] for one in rows] == [str(tuned), str(tuned), str(other)]
    with pytest.raises(ValueError, match="is there twice: name each model once"):
        bench.main([str(tuned), str(tuned), *engines])
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(ValueError, match=r"wrong\.json is no bench\.json of this command"):
        bench.main([*command, str(tmp_path / "c"), "--compare", str(tmp_path / "wrong.json")])
    with pytest.raises(ValueError, match="is no model's folder, nor one of the shapes bert-base"):
        bench.main([str(tmp_path), *QUICK])
    monkeypatch.chdir(shutil.copytree(tuned, tmp_path / "here" / "distilbert").parent)
    with pytest.raises(ValueError, match=r"distilbert is a shape, and a folder here: write \./distilbert"):
        bench.main(["distilbert", *QUICK])
    # What a model costs does not depend on its words.
    for file in Path("distilbert").glob("tokenizer*"):
        file.unlink()
    words = ["./distilbert", "--engines", "pytorch", "--precisions", "float32", "int8", *QUICK, "--output_dir", "out"]
    assert len(bench.main(words)["rows"]) == 2
    assert "not measured: pytorch int8 (PyTorch's int8 is measured on a GPU" in capsys.readouterr().out


@pytest.mark.parametrize("is_eager", [True, False])
def test_the_memory_of_a_model_is_not_that_of_the_process_that_asks(
    is_eager: bool, exported: Made, tuned: Path
) -> None:
    folder = str(tuned if is_eager else exported.folder)
    model = MeasuredModel(folder, is_eager, "cpu", threads=1, batch_size=1, sequence_length=16)
    ballast = torch.ones(300_000_000)  # 1.2 GB
    assert len(ballast) and 0 < model.peak_memory_mb() < 600


def test_the_largest_student_within_a_budget_is_trained_and_exported(
    tuned: Path, task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = [size.make() for size in sizes_of(command(tuned, "1e9"))]
    counts = [count_parameters(one).total for one in sizes]
    assert counts == sorted(counts, reverse=True) and len(counts) == 3  # Patient-KD needs two layers
    budget = str((counts[1] + counts[2]) // 2)
    options = [
        *command(tuned, budget),
        *task,
        "--num_train_epochs",
        "1",
        *QUICK,
        "--max_drop",
        "1",
        "--ignore_weak_teacher",
    ]
    answer = compress.main([*options, "--output_dir", str(tmp_path / "out")])
    assert answer["predicted"] == answer["measured"] == counts[2] and answer["is_within_budget"]
    assert answer["exported"]["layers"] == 2 and answer["exported"]["method"] == "pkd-skip"
    assert {"student", "deployed", "compress.json", "report.html"} <= {p.name for p in (tmp_path / "out").iterdir()}
    assert open_exported(tmp_path / "out" / "deployed").engine == "onnxruntime"
    assert "within the budget" in capsys.readouterr().out
    trained = read_result(tmp_path / "out" / "student" / "results.json")
    assert trained.command.startswith("bertkd compress")  # what was typed
    card = (tmp_path / "out" / "deployed" / "README.md").read_text()
    assert "## Training" in card and trained.command in card and f"distilled from `{tuned.name}`" in card
    # Started again, it goes on with the size that it has chosen, whatever a new measurement would say.
    monkeypatch.setattr(sizes_module, "_largest_within", lambda *_: 1 / 0)
    monkeypatch.setattr(compress.export, "export", lambda run: ExportResult.of(output_folder(run.config)))
    again = compress.main([*options, "--output_dir", str(tmp_path / "out")])
    assert again["predicted"] == answer["predicted"] and again["student"] == answer["student"]
    monkeypatch.undo()
    with pytest.raises(ValueError, match="Give one --seed"):
        compress.main([*options, "--seed", "1", "2", "--output_dir", str(tmp_path / "out")])
    count = re.escape(f"{counts[2]:.4g}")
    with pytest.raises(ValueError, match=rf"is within 10 parameters .*the smallest, 2 layers, takes {count}"):
        compress.main([*command(tuned, "10"), *task, "--output_dir", str(tmp_path / "none")])
    with pytest.raises(ValueError, match="--budget 0: give a positive number of parameters"):
        compress.main([*command(tuned, "0"), "--output_dir", str(tmp_path / "none")])
    with pytest.raises(ValueError, match="plain text before the task"):
        compress.main([*command(tuned, "10"), "--method", "distilbert"])


@pytest.mark.parametrize("unit", ["ms", "gflops"])
def test_a_papers_student_may_cost_a_share_of_what_the_teacher_does(
    unit: str, tuned: Path, task: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = iter([8.0, 2.0, 3.9, 7.0])  # the teacher, then the smallest student, the middle one and the largest
    monkeypatch.setattr(Deployment, "cost", lambda *_: next(costs, 3.9))
    # Each model takes half of the time that it took when the size was chosen.
    monkeypatch.setattr(Deployment, "milliseconds_beside", lambda _self, _model, usual, _folder: (3.9, usual / 2))
    words = [*command(tuned, "50%"), *task, *QUICK, "--max_steps", "1", "--max_drop", "1", "--ignore_weak_teacher"]
    words += ["--unit", unit, "--engine", "pytorch", "--output_dir", str(tmp_path / "out")]
    first = compress.main(words)
    assert first["budget"] == 4.0 and first["measured"] == first["predicted"] == 3.9 and first["is_within_budget"]
    assert first["exported"]["layers"] == 3
    assert (first["teacher_ms"], first["teacher_ms_now"]) == ((8.0, 4.0) if unit == "ms" else (None, None))
    # Started again, the share is still one of what the teacher took then.
    assert compress.main(words)["budget"] == 4.0


def test_a_share_that_no_papers_student_meets_is_refused_with_the_number(tuned: Path, task: list[str]) -> None:
    words = [*command(tuned, "1%"), *task, *QUICK, "--unit", "gflops", "--dry_run"]
    said = r"is within 1% of the teacher's gflops, which is [0-9.e-]+ gflops .*: the smallest, 2 layers, takes [0-9.]+"
    with pytest.raises(ValueError, match=said):
        compress.main(words)


def test_distilbert_learns_from_text_and_then_the_task_within_a_budget(
    tuned: Path, task: list[str], glue_dir: Path, tmp_path: Path
) -> None:
    language_model, corpus, settings = (tmp_path / name for name in ("mlm", "lines.txt", "settings.yaml"))
    model = AutoModelForSequenceClassification.from_pretrained(tuned)
    config = type(model.config)(**(model.config.to_dict() | {"num_hidden_layers": 5, "hidden_size": 20}))
    AutoModelForMaskedLM.from_config(config).save_pretrained(language_model)  # of another shape than the teacher
    AutoTokenizer.from_pretrained(tuned).save_pretrained(language_model)
    lines = (glue_dir / "SST-2" / "train.tsv").read_text().splitlines()[1:100]
    corpus.write_text("\n".join(line.split("\t")[0] for line in lines))
    settings.write_text("max_steps: 2\neval_rows: 20\nmax_seq_length: 24\ncorpus_min_tokens: 3\nuse_cpu: true\n")
    text = ["--method", "distilbert", "--corpus_files", str(corpus), "--pretrain_config", str(settings)]
    text += ["--language_model", str(language_model)]
    with pytest.raises(ValueError, match="no head for masked words"):
        sizes_of([*command(tuned, "1"), *text[:-1], str(tuned)])
    counts = [count_parameters(size.make()).total for size in sizes_of([*command(tuned, "1"), *text])]
    options = [*command(tuned, str(counts[1])), *text, *task, *QUICK, "--max_steps", "2", "--max_drop", "1"]
    options += ["--engine", "pytorch", "--ignore_weak_teacher", "--seed", "7"]
    answer = compress.main([*options, "--output_dir", str(tmp_path / "out")])
    first_step = json.loads((tmp_path / "out" / "pretrained" / "settings.json").read_text())
    assert first_step["seed"] == 7 and first_step["max_steps"] == 2
    assert answer["predicted"] == answer["measured"] == counts[1] and answer["is_within_budget"]
    assert answer["exported"]["method"] == "distilbert-kd" and answer["exported"]["layers"] == 4
    assert (tmp_path / "out" / "pretrained" / "model.safetensors").is_file()
    assert (tmp_path / "out" / "deployed").is_dir()


def test_dynabert_trains_its_network_first_and_a_size_within_the_budget_is_taken_out(
    tuned: Path, task: list[str], tmp_path: Path
) -> None:
    whole = count_parameters(AutoModelForSequenceClassification.from_pretrained(tuned)).total
    options = [*command(tuned, str(whole - 1)), *task, *QUICK, "--method", "dynabert", "--max_steps", "2"]
    options += ["--max_drop", "1", "--ignore_weak_teacher", "--width_mult_list", "0.5", "1"]
    options += ["--depth_mult_list", "0.5", "1"]
    answer = compress.main([*options, "--output_dir", str(tmp_path / "out")])
    assert answer["predicted"] == answer["measured"] < whole and answer["is_within_budget"]
    assert answer["exported"]["method"] == "dynabert-subnetwork"
    assert (tmp_path / "out" / "supernet" / "finetune").is_dir()
    assert open_exported(tmp_path / "out" / "deployed").engine == "onnxruntime"


def command(teacher: Path, budget: str) -> list[str]:
    """Of a paper's method: Patient-KD, unless another one is named behind these words."""
    engine = ["--engine", "onnxruntime", "--precision", "float32", "--output_dir", "unused"]
    asked = ["--method", "pkd-skip", "--budget", budget, "--unit", "parameters"]
    return ["--teacher_model_name_or_path", str(teacher), *asked, *engine]


def sizes_of(words: list[str]) -> list[Size]:
    """The students that a command line may train."""
    options = compress.parse([*words, "--use_cpu"])
    return compress.sizes_of(method_named(options.own.method), options)


def test_an_option_that_the_method_sets_itself_is_refused(
    tuned: Path, task: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    words = [*command(tuned, "1"), *task, "--method", "pkd-last"]
    assert compress.parse([*words, "--strategy", "last"]).config.strategy == "last"
    with pytest.raises(ValueError, match="--method pkd-last sets --strategy to last: leave --strategy out"):
        compress.parse([*words, "--strategy", "skip"])

    # A settings file may be another method's.
    settings = tmp_path / "settings.yaml"
    settings.write_text("strategy: skip\n")
    assert compress.parse([*words, "--config", str(settings)]).config.strategy == "last"
    assert "--method pkd-last sets --strategy to last, not what the settings file has" in capsys.readouterr().err


def test_what_only_the_export_reads_changes_no_choice_of_a_size(tuned: Path, task: list[str]) -> None:
    words = [*command(tuned, "1"), *task, "--method", "kd", "--precision", "int8", "--engine", "openvino"]
    again = ["--max_drop", "0.03", "--calibration_rows", "64", "--quantization_aware_rows", "9"]
    assert compress.asked(compress.parse(words)) == compress.asked(compress.parse([*words, *again]))
    assert compress.asked(compress.parse(words)) != compress.asked(compress.parse([*words, "--budget", "2"]))


@pytest.mark.parametrize("method", ["finetuned", "kd", "pkd-last", "tinybert"])
@pytest.mark.parametrize("start", ["teacher", "pretrained", "pretrained=", "yaml"])
def test_every_method_starts_its_student_from_what_is_asked_for(
    tuned: Path, task: list[str], tmp_path: Path, method: str, start: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "settings.yaml").write_text(f"model_name_or_path: {tuned}\n")
    more = {
        "teacher": [],
        "pretrained": ["--model_name_or_path", str(tuned)],
        "pretrained=": [f"--model_name_or_path={tuned}"],
        "yaml": ["--config", str(tmp_path / "settings.yaml")],
    }[start]
    options = compress.parse([*command(tuned, "1"), *task, "--method", method, *more])
    trained: list[Any] = []
    monkeypatch.setattr(compress, "run_or_resume", lambda run, train: trained.append(run))
    size = compress.sizes_of(method_named(method), options)[0]
    compress.train(method_named(method), options, size, Path("out"))

    (run,) = trained
    assert run.config.output_dir == "out/student"
    if method == "tinybert":
        assert run.models.model_name_or_path == (None if start == "teacher" else str(tuned))
        assert (run.own.num_hidden_layers is None) == (start != "teacher")
    elif method == "finetuned":
        assert run.models.model_name_or_path == str(tuned) and run.models.num_student_layers == 4
    else:
        assert run.models.init_from == ("teacher" if start == "teacher" else "pretrained")
        assert run.models.num_student_layers == 4


def test_what_is_deployed_is_uploaded_under_the_name_of_the_whole_folder(tuned: Path, task: list[str]) -> None:
    words = [*command(tuned, "1"), *task]
    options = compress.parse(words)
    folder = output_folder(options.config)
    deployed = compress.deployed_options(options, folder / "student", folder / "deployed")
    assert deployed.config.hub_model_id == folder.name != "deployed"
    named = compress.parse([*words, "--push_to_hub", "--hub_model_id", "mine"])
    assert compress.deployed_options(named, folder, folder / "deployed").config.hub_model_id == "mine"


def test_a_small_students_shapes_go_from_large_to_small(tuned: Path) -> None:
    options = [*command(tuned, "1"), "--method", "tinybert"]
    counts = [count_parameters(size.make()).total for size in sizes_of(options)]
    # The first that is within a budget is then the largest.
    assert len(counts) > 5 and counts[0] > 2 * counts[-1] and counts == sorted(counts, reverse=True)
    flops = [count_flops(size.make(), 1, 16) for size in sizes_of([*options, "--unit", "ms"])]
    assert flops[0] > 2 * flops[-1]


@pytest.mark.parametrize(("engine", "precision"), [("pytorch", "float32"), ("onnxruntime", "int8")])
def test_a_size_in_megabytes_is_that_of_the_file(engine: str, precision: str, tmp_path: Path) -> None:
    model = make_adaptive(tiny_model(hidden=32, num_attention_heads=4, intermediate_size=64))
    target = Deployment(engine, precision)
    half = Subnetwork.of(model, width=0.5, depth=0.5)
    (size_mb,) = subnetwork_search._measure_of(model, "mb", target)([half])
    written = target.write(extract_subnetwork(model, subnetwork=half), tmp_path / "made")
    assert size_mb == pytest.approx(exported_size_mb(written), rel=0.02)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_what_is_opened_no_longer_needs_its_files(engine: str) -> None:
    model = tiny_model()
    runner = Deployment(engine, "float32").runner(model)
    (batch,) = random_batches(model, ((2, 8),))
    with torch.no_grad():
        expected = model(**batch).logits
    torch.testing.assert_close(runner(batch), expected, rtol=1e-3, atol=1e-4)


def test_a_search_measures_in_the_engine_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[Any, ...]] = []
    monkeypatch.setattr(deployment, "write_export", lambda model, *rest, **_: written.append((model, *rest)) or model)
    monkeypatch.setattr(deployment, "open_exported", lambda model, *_: TorchRunner(model))
    target = Deployment("openvino", "int8", Timing(repeats=1, sequence_length=8))
    costs = target.costs([tiny_model(), tiny_model(layers=1)], "ms")
    assert len(costs) == 2 and min(costs) > 0
    assert [(engine, way) for _, _, engine, way in written] == [("openvino", "int8")] * 2
