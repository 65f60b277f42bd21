"""Exported models: the same logits in every engine, accuracy that is measured, and what cannot work."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import Collator, dataset, tiny_model, word_tokenizer
from transformers import AutoTokenizer, PreTrainedModel

from bertkd.dynabert import make_adaptive
from bertkd.efficiency import Runner, TorchRunner, measure_latency
from bertkd.export import (
    AccuracyDropError,
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

GRAPHS = ("onnxruntime", "openvino")
MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "bert": lambda: tiny_model(max_position_embeddings=140),
    "pruned": lambda: prune(tiny_model(max_position_embeddings=140), heads=(1, 2), neurons=(8, 5)),
    "distilbert": lambda: tiny_model("distilbert", max_position_embeddings=140),
    "roberta": lambda: tiny_model("roberta", max_position_embeddings=142),
}


def calibration(count: int = 12, vocabulary: int = 50) -> list[dict[str, torch.Tensor]]:
    collate, rows = Collator(), dataset(count)
    batches = [collate([rows[i], rows[i + 1]]) for i in range(0, count, 2)]
    return [{name: batch[name] % vocabulary for name in ("input_ids", "attention_mask")} for batch in batches]


@pytest.mark.parametrize("engine", GRAPHS)
@pytest.mark.parametrize("name", list(MODELS))
def test_a_graph_gives_pytorchs_logits_at_every_shape(name: str, engine: str, tmp_path: Path) -> None:
    model = MODELS[name]().train()
    made = export_model(model, tmp_path / "out", engine, threads=1)
    assert [one.way for one in made.attempts] == ["float32"] and made.attempts[0].logit_difference < 1e-4
    assert model.training, "the model stays as it is"
    assert made.runner.engine == engine and made.runner.precision == "float32"
    reference = TorchRunner(model.eval())
    for rows, tokens in ((1, 1), (2, 9), (5, 128)):
        ids = torch.randint(3, 50, (rows, tokens), generator=torch.Generator().manual_seed(tokens))
        mask = torch.ones_like(ids)
        mask[0, tokens // 2 + 1 :] = 0  # padding, but for one token
        batch = {"input_ids": ids, "attention_mask": mask}
        torch.testing.assert_close(open_exported(tmp_path / "out")(batch), reference(batch), rtol=1e-3, atol=1e-4)
        if name == "bert":  # segments count
            types = {"token_type_ids": (torch.arange(tokens) % 2).expand(rows, tokens)}
            torch.testing.assert_close(made.runner(batch | types), reference(batch | types), rtol=1e-3, atol=1e-4)
    assert not list(tmp_path.glob(".*")), "nothing is left of the work"


@pytest.mark.parametrize("engine", GRAPHS)
def test_int8_computes_in_int8_and_is_smaller(engine: str, tmp_path: Path) -> None:
    model = tiny_model(hidden=64, num_attention_heads=4, intermediate_size=128, max_position_embeddings=140)
    full = export_model(model, tmp_path / "full", engine, threads=1)
    small = export_model(model, tmp_path / "int8", engine, "int8", calibration=calibration(), threads=1)
    assert small.runner.precision == "int8" and full.runner.precision == "float32"
    assert small.attempts[0].size_mb < 0.6 * full.attempts[0].size_mb
    # By how much logits differ depends on the CPU: where it has bfloat16, OpenVINO computes the rest in that.
    assert small.attempts[0].logit_difference > 0 and small.attempts[0].agreement > 0.85
    latency = measure_latency({"full": full.runner, "int8": small.runner}, sequence_length=16, repeats=3)
    assert latency["int8"].engine == engine and latency["int8"].precision == "int8" and latency["int8"].threads == 1


@pytest.mark.parametrize("engine", GRAPHS)
def test_what_loses_too_much_falls_back_step_by_step_or_is_refused(engine: str, tmp_path: Path) -> None:
    model = tiny_model()
    seen: list[str] = []

    def falling(values: list[float]) -> Callable[[Runner], dict[str, float]]:
        left = iter(values)

        def evaluate(runner: Runner) -> dict[str, float]:
            seen.append(runner.engine)
            return {"accuracy": next(left), "f1": 0.0}

        return evaluate

    options: dict[str, Any] = {"precision": "int8", "calibration": calibration(), "threads": 1}
    made = export_model(model, tmp_path / "a", engine, evaluate=falling([0.9, 0.88, 0.87, 0.895]), **options)
    assert seen == ["pytorch", engine, engine, engine]
    assert [one.way for one in made.attempts] == quantization_schemes(engine, "int8")
    assert made.metrics["accuracy"] == 0.895 and made.metrics_before["accuracy"] == 0.9
    assert json.loads((tmp_path / "a" / "export.json").read_text())["bertkd"]["way"] == "int8 weights"
    # Fewer products in int8, a smaller difference.
    differences = [one.logit_difference for one in made.attempts]
    assert differences[2] < differences[0]


def test_what_no_way_saves_is_refused_and_what_may_be_lost_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, made = tiny_model(), tmp_path / "made"
    write_export(model, made, "onnxruntime", "float32")
    monkeypatch.setattr(
        "bertkd.export.accuracy_check.write_export", lambda _, folder, *rest: shutil.copytree(made, folder)
    )
    values = iter([0.9, 0.8, 0.75, 0.7, 0.9, 0.8])
    options: dict[str, Any] = {"precision": "int8", "evaluate": lambda runner: {"accuracy": next(values)}}
    told = r"loses more than 0\.01 of accuracy .0\.9000 in PyTorch; int8: 0\.8000;.*int8 weights: 0\.7000"
    with pytest.raises(AccuracyDropError, match=told) as caught:
        export_model(model, tmp_path / "out", "onnxruntime", **options)
    assert len(caught.value.attempts) == 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    kept = export_model(model, tmp_path / "out", "onnxruntime", max_drop=0.11, **options)
    assert [one.way for one in kept.attempts] == ["int8"] and kept.metrics == {"accuracy": 0.8}
    assert not (tmp_path / "out" / "old").exists() and (tmp_path / "out" / "export.json").is_file()


def test_a_broken_artifact_never_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, other = tiny_model(), tiny_model(seed=7)
    write = exporting.write_export
    monkeypatch.setattr("bertkd.export.accuracy_check.write_export", lambda _, *rest: write(other, *rest))
    with pytest.raises(ValueError, match="gives other logits than PyTorch .by up to"):
        export_model(model, tmp_path / "out", "onnxruntime")
    assert not list(tmp_path.iterdir())


def test_the_accuracy_gate_fires_on_a_broken_quantization(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model(seed=1), dataset(64)
    answers = predict(TorchRunner(model), rows, Collator()).argmax(-1)

    def evaluate(runner: Runner) -> dict[str, float]:
        return {"accuracy": float((predict(runner, rows, Collator()).argmax(-1) == answers).mean())}

    assert evaluate(TorchRunner(model)) == {"accuracy": 1.0}
    options: dict[str, Any] = {"precision": "int8", "calibration": calibration(), "evaluate": evaluate}
    made = export_model(model, tmp_path / "good", "openvino", max_drop=0.1, **options)
    assert made.metrics["accuracy"] >= 0.9
    write, broken = exporting.write_export, tiny_model(seed=1)
    for parameter in broken.classifier.parameters():
        parameter.data.neg_()  # what was most likely is least likely
    monkeypatch.setattr("bertkd.export.accuracy_check.write_export", lambda _, *rest: write(broken, *rest))
    with pytest.raises(AccuracyDropError, match="openvino in int8 loses more than 0.1 of accuracy"):
        export_model(model, tmp_path / "bad", "openvino", max_drop=0.1, **options)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize("way", ["float32", "bfloat16", "int8", "int8 weights"])
def test_pytorchs_own_folder_opens_with_plain_transformers(way: str, tmp_path: Path) -> None:
    if way.startswith("int8"):  # torchao makes every import of transformers slower and noisier: not in our environment
        pytest.importorskip("torchao")
    model = tiny_model(hidden=32)
    write_export(model, tmp_path / "out", "pytorch", way)
    runner = open_exported(tmp_path / "out")
    assert runner.engine == "pytorch" and runner.precision == way.replace("int8 weights", "float32")
    difference, agreement = compare_logits(runner, model, calibration())
    assert difference < {"float32": 1e-6, "bfloat16": 0.2}.get(way, 0.3) and agreement is not None
    assert next(model.parameters()).dtype == torch.float32, "the model stays as it is"


def test_a_folder_runs_in_a_clean_process_with_a_few_lines(tmp_path: Path) -> None:
    model = prune(tiny_model(max_position_embeddings=140), heads=(1, 2), neurons=(8, 5))
    tokenizer = word_tokenizer(tmp_path)
    export_model(model, tmp_path / "out", "onnxruntime", tokenizer=tokenizer)
    code = (
        "import sys; from transformers import AutoTokenizer; from transformers.exporters import ExportedModel\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "model = ExportedModel.from_pretrained(sys.argv[1], device='cpu')\n"
        "print(model(**tokenizer(['w3 w5', 'w1'], padding=True, return_tensors='pt')).logits.tolist())\n"
        "assert 'bertkd' not in sys.modules\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "out")], capture_output=True, text=True, check=True
    )
    batch = tokenizer(["w3 w5", "w1"], padding=True, return_tensors="pt")
    logits = TorchRunner(model.eval())(batch)
    torch.testing.assert_close(torch.tensor(json.loads(ran.stdout.splitlines()[-1])), logits, rtol=1e-3, atol=1e-4)
    assert AutoTokenizer.from_pretrained(tmp_path / "out").get_vocab() == tokenizer.get_vocab()


def test_predictions_come_in_the_rows_order_whatever_the_batch() -> None:
    model, rows = tiny_model(), dataset(17)
    collate = Collator()
    one_by_one = [TorchRunner(model)({n: t for n, t in collate([row]).items() if n != "labels"})[0] for row in rows]
    np.testing.assert_allclose(
        predict(TorchRunner(model), rows, collate, 4), np.stack(one_by_one), rtol=1e-4, atol=1e-5
    )


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
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    assert available_engines() == ["pytorch"]
    with pytest.raises(ImportError, match=r'openvino needs openvino, nncf, .* pip install "bertkd\[openvino\]"'):
        require_engine("openvino")
    with pytest.raises(ImportError, match=r"bertkd\[torchao\]"):
        require_engine("pytorch", "int8")
