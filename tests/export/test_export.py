"""Exported models: the same logits in every engine, accuracy that is measured, and what cannot work."""

import json
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Collator, dataset, tiny_model, word_tokenizer
from transformers import AutoTokenizer, BertTokenizer, PreTrainedModel

from bertkd.dynabert import make_adaptive
from bertkd.efficiency import Runner, TorchRunner, measure_latency
from bertkd.efficiency.inputs import with_all_inputs
from bertkd.export import (
    AccuracyDropError,
    Exported,
    available_engines,
    compare_logits,
    engines,
    export_model,
    exporting,
    open_exported,
    predict,
    quantization_schemes,
    require_engine,
    write_export,
)
from bertkd.students import prune

WRITE_EXPORT = "bertkd.export.accuracy_check.write_export"
GRAPHS = ("onnxruntime", "openvino")
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: tiny_model(max_position_embeddings=140),
    "pruned": lambda: prune(tiny_model(max_position_embeddings=140), heads=(1, 2), neurons=(8, 5)),
    "distilbert": lambda: tiny_model("distilbert", max_position_embeddings=140),
    "roberta": lambda: tiny_model("roberta", max_position_embeddings=142),
}


def calibration(count: int = 12, vocabulary: int = 50) -> list[dict[str, torch.Tensor]]:
    collate, rows = Collator(), dataset(count)
    batches = []
    for i in range(0, count, 2):
        batch = collate([rows[i], rows[i + 1]])
        batches.append({name: batch[name] % vocabulary for name in ("input_ids", "attention_mask")})
    return batches


@dataclass
class Export:
    """A float32 export, with the model and the tokenizer it was made from."""

    model: PreTrainedModel
    tokenizer: BertTokenizer
    exported: Exported


@pytest.fixture(scope="module")
def float32_export(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Export]:
    """Exports a model of `MODELS` for an engine, once: tracing a model takes seconds."""
    exports: dict[tuple[str, str], Export] = {}

    def export(name: str, engine: str) -> Export:
        if (name, engine) not in exports:
            folder, model = tmp_path_factory.mktemp("float32"), MODELS[name]().train()
            tokenizer = word_tokenizer(tmp_path_factory.mktemp("tokenizer"))
            given = tokenizer if name == "pruned" else None
            exported = export_model(model, folder / "out", engine, tokenizer=given, threads=1)
            exports[name, engine] = Export(model, tokenizer, exported)
        return exports[name, engine]

    return export


def wide_model() -> PreTrainedModel:
    """A model with matrices that are large enough to get smaller by quantization."""
    return tiny_model(hidden=64, num_attention_heads=4, intermediate_size=128, max_position_embeddings=140)


@pytest.fixture(scope="module")
def write_wide_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """A `write_export` of the wide model, which writes each engine and scheme once and then copies it."""
    folders: dict[tuple[str, str], Path] = {}

    def write(model: PreTrainedModel, folder: Path, engine: str, scheme: str, *rest: Any) -> None:
        if (engine, scheme) not in folders:
            folders[engine, scheme] = tmp_path_factory.mktemp("wide") / "out"
            exporting.write_export(wide_model(), folders[engine, scheme], engine, scheme, calibration=calibration())
        shutil.copytree(folders[engine, scheme], folder)

    return write


@pytest.mark.parametrize("engine", GRAPHS)
@pytest.mark.parametrize("name", list(MODELS))
def test_a_graph_gives_pytorchs_logits_at_every_shape(
    name: str, engine: str, float32_export: Callable[[str, str], Export]
) -> None:
    export = float32_export(name, engine)
    model, exported = export.model, export.exported
    assert [attempt.way for attempt in exported.attempts] == ["float32"]
    assert exported.attempts[0].logit_difference < 1e-4
    assert model.training, "the model stays as it is"
    assert exported.runner.engine == engine and exported.runner.precision == "float32"

    reference, opened = TorchRunner(MODELS[name]()), open_exported(exported.folder)
    for rows, tokens in ((1, 1), (2, 9), (5, 128)):
        ids = torch.randint(3, 50, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
        mask = torch.ones_like(ids)
        # Padding, but for one token.
        mask[0, tokens // 2 + 1 :] = 0
        batch = {"input_ids": ids, "attention_mask": mask}
        torch.testing.assert_close(opened(batch), reference(batch), rtol=1e-3, atol=1e-4)

        # Segments count.
        if name == "bert":
            batch["token_type_ids"] = (torch.arange(tokens) % 2).expand(rows, tokens)
            torch.testing.assert_close(exported.runner(batch), reference(batch), rtol=1e-3, atol=1e-4)

    assert not list(exported.folder.parent.glob(".*")), "nothing is left of the work"


@pytest.mark.parametrize("engine", GRAPHS)
def test_int8_computes_in_int8_and_is_smaller(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wide_model: Callable[..., None]
) -> None:
    monkeypatch.setattr(WRITE_EXPORT, write_wide_model)
    full = export_model(wide_model(), tmp_path / "full", engine, threads=1)
    small = export_model(wide_model(), tmp_path / "int8", engine, "int8", calibration=calibration(), threads=1)

    assert small.runner.precision == "int8" and full.runner.precision == "float32"
    assert small.attempts[0].size_mb < 0.6 * full.attempts[0].size_mb
    # By how much logits differ depends on the CPU: where it has bfloat16, OpenVINO computes the rest in that.
    assert small.attempts[0].logit_difference > 0 and small.attempts[0].agreement > 0.85

    latency = measure_latency({"full": full.runner, "int8": small.runner}, sequence_length=16, repeats=3)
    assert latency["int8"].engine == engine and latency["int8"].precision == "int8" and latency["int8"].threads == 1


@pytest.mark.parametrize("engine", GRAPHS)
def test_what_loses_too_much_falls_back_step_by_step(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_wide_model: Callable[..., None]
) -> None:
    monkeypatch.setattr(WRITE_EXPORT, write_wide_model)
    evaluated: list[str] = []
    values = iter([0.9, 0.88, 0.87, 0.895])

    def evaluate(runner: Runner) -> dict[str, float]:
        evaluated.append(runner.engine)
        return {"accuracy": next(values), "f1": 0.0}

    options: dict[str, Any] = {"precision": "int8", "calibration": calibration(), "threads": 1}
    exported = export_model(wide_model(), tmp_path / "a", engine, evaluate=evaluate, **options)

    assert evaluated == ["pytorch", engine, engine, engine]
    assert [attempt.way for attempt in exported.attempts] == quantization_schemes(engine, "int8")
    assert exported.metrics["accuracy"] == 0.895 and exported.metrics_before["accuracy"] == 0.9
    assert json.loads((tmp_path / "a" / "export.json").read_text())["bertkd"]["way"] == "int8 weights"

    # Fewer products in int8, a smaller difference.
    differences = [attempt.logit_difference for attempt in exported.attempts]
    assert differences[2] < differences[0]


def test_what_no_scheme_saves_is_refused_and_what_may_be_lost_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float32_export: Callable[[str, str], Export]
) -> None:
    export = float32_export("bert", "onnxruntime")
    source = export.exported.folder
    monkeypatch.setattr(WRITE_EXPORT, lambda _, folder, *rest: shutil.copytree(source, folder))
    values = iter([0.9, 0.8, 0.75, 0.7, 0.9, 0.8])
    options: dict[str, Any] = {"precision": "int8", "evaluate": lambda runner: {"accuracy": next(values)}}

    message = r"loses more than 0\.01 of accuracy .0\.9000 in PyTorch; int8: 0\.8000;.*int8 weights: 0\.7000"
    with pytest.raises(AccuracyDropError, match=message) as caught:
        export_model(export.model, tmp_path / "out", "onnxruntime", **options)
    assert len(caught.value.attempts) == 3
    assert not list(tmp_path.iterdir())

    # What is allowed to lose more is kept, and takes the place of the old folder with all that it held.
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    (tmp_path / "out" / "export.json").write_text("{}")
    kept = export_model(export.model, tmp_path / "out", "onnxruntime", max_drop=0.11, **options)
    assert [attempt.way for attempt in kept.attempts] == ["int8"] and kept.metrics == {"accuracy": 0.8}
    assert not (tmp_path / "out" / "old").exists() and (tmp_path / "out" / "export.json").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_broken_artifact_never_appears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, float32_export: Callable[[str, str], Export]
) -> None:
    other = float32_export("pruned", "onnxruntime").exported.folder
    monkeypatch.setattr(WRITE_EXPORT, lambda _, folder, *rest: shutil.copytree(other, folder))
    with pytest.raises(ValueError, match="gives other logits than PyTorch .by up to"):
        export_model(MODELS["bert"](), tmp_path / "out", "onnxruntime")
    assert not list(tmp_path.iterdir())


def test_calibration_without_a_mask_reads_every_token() -> None:
    ids = torch.arange(3, 11)[None]
    filled = with_all_inputs({"input_ids": ids}, ["input_ids", "attention_mask", "token_type_ids"])
    assert filled["attention_mask"].all() and not filled["token_type_ids"].any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_flash_attention_gives_way_to_pytorchs_in_float32(dtype: torch.dtype) -> None:
    # It is not installed here, and nothing but its name is there.
    model = tiny_model().to(dtype)
    model.config._attn_implementation_internal = "flash_attention_2"
    copied = exporting.in_float32(model)
    assert copied.dtype == torch.float32 and copied.config._attn_implementation == "sdpa"
    assert model.dtype == dtype and model.config._attn_implementation == "flash_attention_2"


def test_int8_weights_alone_do_not_make_products_in_int8(tmp_path: Path) -> None:
    model = tiny_model().eval()
    # OpenVINO computes what is not int8 in bfloat16 where the CPU can.
    for scheme, precisions in (("int8", {"int8"}), ("int8 weights", {"float32", "bfloat16"})):
        folder = write_export(model, tmp_path / scheme, "openvino", scheme, calibration=calibration())
        assert open_exported(folder).precision in precisions


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_int8_for_a_cpu_without_it_has_half_of_the_range(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exported(has_int8: bool) -> Path:
        for module in (exporting, engines):
            monkeypatch.setattr(module, "is_fast_in_int8", lambda: has_int8)
        return write_export(tiny_model(seed=1), tmp_path / str(has_int8), engine, "int8", calibration=calibration())

    def quantizer() -> Any:
        return exporting._openvino_quantizer("int8", calibration(), False).config.advanced_parameters.overflow_fix

    whole = exported(has_int8=True)
    assert quantizer() is None and exporting._onnx_quantizer("int8").config.reduce_range is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        there = predict(open_exported(whole), dataset(16), Collator())

    half = exported(has_int8=False)
    assert str(quantizer()) == "enable" and exporting._onnx_quantizer("int8").config.reduce_range is True
    with pytest.warns(UserWarning, match="was quantized on a CPU that has instructions for int8. This one has none"):
        open_exported(whole)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        here = predict(open_exported(half), dataset(16), Collator())
    assert not np.array_equal(here, there)


def test_the_accuracy_check_fires_on_a_broken_quantization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model(seed=1), dataset(64)
    answers = predict(TorchRunner(model), rows, Collator()).argmax(-1)

    def evaluate(runner: Runner) -> dict[str, float]:
        return {"accuracy": float((predict(runner, rows, Collator()).argmax(-1) == answers).mean())}

    assert evaluate(TorchRunner(model)) == {"accuracy": 1.0}
    options: dict[str, Any] = {"precision": "int8", "calibration": calibration(), "evaluate": evaluate}
    good = export_model(model, tmp_path / "good", "openvino", max_drop=0.1, **options)
    assert good.metrics["accuracy"] >= 0.9

    broken = tiny_model(seed=1)
    for parameter in broken.classifier.parameters():
        # What was most likely is least likely.
        parameter.data.neg_()
    source = write_export(broken, tmp_path / "broken", "openvino", "int8", calibration=calibration())
    monkeypatch.setattr(WRITE_EXPORT, lambda _, folder, *rest: shutil.copytree(source, folder))
    with pytest.raises(AccuracyDropError, match="openvino in int8 loses more than 0.1 of accuracy"):
        export_model(model, tmp_path / "bad", "openvino", max_drop=0.1, **options)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("scheme", ["float32", "bfloat16", "int8", "int8 weights"])
def test_pytorchs_own_folder_opens_with_plain_transformers(scheme: str, tmp_path: Path) -> None:
    # torchao makes every import of transformers slower and noisier: it is not in our environment.
    if scheme.startswith("int8"):
        pytest.importorskip("torchao")
    model = tiny_model(hidden=32)
    write_export(model, tmp_path / "out", "pytorch", scheme)

    runner = open_exported(tmp_path / "out")
    assert runner.engine == "pytorch" and runner.precision == scheme.replace("int8 weights", "float32")
    difference, agreement = compare_logits(runner, model, calibration())
    assert difference < {"float32": 1e-6, "bfloat16": 0.2}.get(scheme, 0.3) and agreement is not None
    assert next(model.parameters()).dtype == torch.float32, "the model stays as it is"


CLEAN_PROCESS = """
import sys
from transformers import AutoTokenizer
from transformers.exporters import ExportedModel
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
model = ExportedModel.from_pretrained(sys.argv[1], device="cpu")
print(model(**tokenizer(["w3 w5", "w1"], padding=True, return_tensors="pt")).logits.tolist())
assert "bertkd" not in sys.modules
"""


def test_a_folder_runs_in_a_clean_process_with_a_few_lines(float32_export: Callable[[str, str], Export]) -> None:
    export = float32_export("pruned", "onnxruntime")
    folder, tokenizer = export.exported.folder, export.tokenizer
    process = subprocess.run(
        [sys.executable, "-c", CLEAN_PROCESS, str(folder)], capture_output=True, text=True, check=True
    )

    logits = torch.tensor(json.loads(process.stdout.splitlines()[-1]))
    batch = tokenizer(["w3 w5", "w1"], padding=True, return_tensors="pt")
    torch.testing.assert_close(logits, TorchRunner(MODELS["pruned"]())(batch), rtol=1e-3, atol=1e-4)
    assert AutoTokenizer.from_pretrained(folder).get_vocab() == tokenizer.get_vocab()


def test_predictions_come_in_the_rows_order_whatever_the_batch() -> None:
    runner, rows, collate = TorchRunner(tiny_model()), dataset(17), Collator()
    row_by_row = []
    for row in rows:
        batch = collate([row])
        del batch["labels"]
        row_by_row.append(runner(batch)[0])

    logits = predict(runner, rows, collate, batch_size=4)
    np.testing.assert_allclose(logits, np.stack(row_by_row), rtol=1e-4, atol=1e-5)


def test_users_mistakes_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match="There is no engine 'tensorrt': choose one of pytorch, "):
        export_model(model, tmp_path / "out", "tensorrt")
    with pytest.raises(ValueError, match="There is no precision 'int4'"):
        export_model(model, tmp_path / "out", "openvino", "int4")
    with pytest.raises(ValueError, match="computes in float32 or int8 on a CPU"):
        export_model(model, tmp_path / "out", "onnxruntime", "bfloat16")
    with pytest.raises(ValueError, match="needs calibration data"):
        export_model(model, tmp_path / "out", "openvino", "int8")

    foreign = [{"input_ids": torch.tensor([[3, 77]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}]
    with pytest.raises(ValueError, match="hold the token 77, but the model knows 50: they were made by another token"):
        export_model(model, tmp_path / "out", "openvino", "int8", calibration=foreign)
    with pytest.raises(ValueError, match="made adaptive"):
        write_export(make_adaptive(tiny_model()), tmp_path / "out", "onnxruntime", "float32")

    with pytest.raises(FileNotFoundError, match=r"holds no model: neither export\.json nor config\.json"):
        open_exported(tmp_path)
    (tmp_path / "export.json").write_text('{"export_format": "executorch"}')
    with pytest.raises(ValueError, match="format 'executorch', which bertkd does not run"):
        open_exported(tmp_path)


def test_engines_that_are_not_installed_are_named_with_their_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert available_engines() == ["pytorch"]
    with pytest.raises(ImportError, match=r'openvino needs openvino, nncf, .* pip install "bertkd\[export\]"'):
        require_engine("openvino")
    with pytest.raises(ImportError, match=r"bertkd\[torchao\]"):
        require_engine("pytorch", "int8")
