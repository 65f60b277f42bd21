"""Calls of the export's functions that could not do what they say."""

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification, AutoTokenizer

from bad_input.cases import ApiCase, Place
from bertkd.efficiency import TorchRunner
from bertkd.export import (
    compare_logits,
    export_model,
    open_exported,
    predict,
    quantization_schemes,
    require_engine,
    write_export,
)

BATCH = {"input_ids": torch.tensor([[7, 8, 9]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}


def model_of(place: Place) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(place.teacher)


def export(place: Place, model: Any = None, **options: Any) -> Any:
    """Exports the teacher, or something else, to PyTorch."""
    options = {"engine": "pytorch", **options}
    return export_model(model_of(place) if model is None else model, place.dir / "out", **options)


def lossy(place: Place, evaluate: Any) -> Any:
    """Exports the teacher in bfloat16, judged by an evaluation."""
    return export(place, precision="bfloat16", evaluate=evaluate)


def opened(place: Place, manifest: str | None = None, cut: str = "", **options: Any) -> Any:
    """Opens a copy of the teacher with a manifest, or with a file that is cut."""
    folder = Path(shutil.copytree(place.teacher, place.dir / "copy"))
    if manifest is not None:
        (folder / "export.json").write_text(manifest)
    if cut:
        (folder / cut).write_bytes((folder / cut).read_bytes()[:200])
    return open_exported(folder, **options)


def other_model(place: Place) -> Any:
    return AutoModelForSequenceClassification.from_pretrained(place.model, num_labels=5, ignore_mismatched_sizes=True)


def base_model_folder(place: Place) -> Path:
    AutoModel.from_pretrained(place.teacher).save_pretrained(place.dir / "base")
    return place.dir / "base"


def half_filled(place: Place) -> Any:
    model = model_of(place)
    model.bert.encoder.layer[1].output.dense.weight.data[0] = float("nan")
    return model


MODELS = [
    (
        "a path in the place of a model",
        lambda place: export(place, str(place.teacher)),
        "is of type str: load it with",
    ),
    (
        "a wrapped model",
        lambda place: export(place, torch.nn.DataParallel(model_of(place))),
        "is of type DataParallel: load it .* take a wrapper such as DataParallel or torch.compile off",
    ),
    (
        "a model without a head",
        lambda place: export(place, AutoModel.from_pretrained(place.teacher)),
        "is a BertModel, which is no classifier: load it with AutoModelForSequenceClassification",
    ),
    (
        "a language model",
        lambda place: export(place, AutoModelForMaskedLM.from_pretrained(place.teacher)),
        "is a BertForMaskedLM, which is no classifier",
    ),
    (
        "a model without weights",
        lambda place: export(place, model_of(place).to("meta")),
        "has no weights yet, .* is on the meta device: load them first",
    ),
    (
        "a layer that is not finite",
        lambda place: write_export(half_filled(place), place.dir / "out", "pytorch", "float32"),
        r"weights that are NaN or infinite: bert\.encoder\.layer\.1\.output\.dense\.weight",
    ),
    (
        "a folder whose head is missing",
        lambda place: open_exported(base_model_folder(place)),
        "base has no trained head for a task .classifier.bias, classifier.weight missing",
    ),
    (
        "weights that are torn",
        lambda place: opened(place, cut="model.safetensors"),
        "copy/model.safetensors is damaged or was cut off",
    ),
    (
        "the path of a tokenizer",
        lambda place: export(place, tokenizer=str(place.teacher)),
        "The tokenizer is of type str: load it with AutoTokenizer.from_pretrained",
    ),
]

OPTIONS = [
    ("an unknown engine", lambda place: require_engine("tensorrt"), "There is no engine 'tensorrt': choose one of"),
    (
        "the schemes of an unknown engine",
        lambda place: quantization_schemes("tensorrt", "int8"),
        "There is no engine 'tensorrt'",
    ),
    (
        "a scheme that does not exist",
        lambda place: write_export(model_of(place), place.dir / "out", "pytorch", "int4"),
        "There is no precision 'int4'",
    ),
    (
        "a scheme of another engine",
        lambda place: write_export(model_of(place), place.dir / "out", "onnxruntime", "bfloat16"),
        "ONNX Runtime computes in float32 or int8 on a CPU",
    ),
    ("a drop in words", lambda place: export(place, max_drop="1%"), "max_drop is '1%': give a number"),
    ("a drop of all and more", lambda place: export(place, max_drop=2), "max_drop is 2: give a fraction from 0 to 1"),
    (
        "a change that is no number",
        lambda place: export(place, max_logit_change=float("nan")),
        "max_logit_change is nan: give a share of the logits' range",
    ),
    ("threads in words", lambda place: export(place, threads="two"), "threads is 'two': give a whole number of 1"),
    (
        "a missing device",
        lambda place: open_exported(place.teacher, device="cuda:3"),
        "There is no device cuda:3 here",
    ),
    ("a folder that is a file", lambda place: export_model(model_of(place), __file__, "pytorch"), "is a file: give a"),
    (
        "the folder of the model",
        lambda place: export_model(model_of(place), place.teacher, "pytorch"),
        "is the model's own folder, which the export would replace",
    ),
]

DATA = [
    (
        "an evaluation that is a dict",
        lambda place: lossy(place, {"accuracy": 1}),
        "evaluate is of type dict: give a fun",
    ),
    (
        "an evaluation of nothing",
        lambda place: lossy(place, lambda runner: None),
        "evaluate gives None: return a dict",
    ),
    (
        "an evaluation without a metric",
        lambda place: lossy(place, lambda runner: {}),
        "evaluate gives no metric: return",
    ),
    (
        "a metric in words",
        lambda place: lossy(place, lambda runner: {"accuracy": "high"}),
        "evaluate gives {'accuracy': 'high'}: return a dict of numbers",
    ),
    (
        "a metric that is not finite",
        lambda place: lossy(place, lambda runner: {"f1": float("nan")}),
        "The f1 of the model in PyTorch is nan: there is nothing to compare with",
    ),
    (
        "a metric in percent",
        lambda place: lossy(place, lambda runner: {"accuracy": 93.0}),
        "The accuracy of the model is 93: return fractions, such as 0.93 and not 93",
    ),
    (
        "a metric of which less is better",
        lambda place: lossy(place, lambda runner: {"eval_loss": 0.3}),
        "The main metric is eval_loss, of which less is better: put one first of which more is better",
    ),
    (
        "no calibration data",
        lambda place: export(place, calibration=[]),
        "hold no batch: give some rows of the training",
    ),
    (
        "texts as calibration data",
        lambda place: export(place, calibration=["a fine film"]),
        "Batch 0 of the calibration data is no dict of tensors: give what a tokenizer returns",
    ),
    (
        "lists as calibration data",
        lambda place: export(place, calibration=[AutoTokenizer.from_pretrained(place.teacher)(["a film"])]),
        "Batch 0 of the calibration data is no dict of tensors",
    ),
    (
        "calibration data that are too long",
        lambda place: export(place, calibration=[BATCH, {"input_ids": torch.ones(1, 600, dtype=torch.long)}]),
        "Batch 1 of the calibration data: A row has 600 tokens, and the model takes 512: cut the texts",
    ),
    (
        "int8 of OpenVINO without calibration data",
        lambda place: export(place, engine="openvino", precision="int8"),
        "OpenVINO's int8 needs calibration data: give some batches",
    ),
    (
        "rows that are a list",
        lambda place: predict(TorchRunner(model_of(place)), [BATCH], lambda rows: rows),
        "The rows to predict are a list: give a tokenized datasets.Dataset",
    ),
    (
        "no batch to compare on",
        lambda place: compare_logits(TorchRunner(model_of(place)), model_of(place), []),
        "There are no rows to compare logits on: give at least one batch",
    ),
    (
        "an export of another model",
        lambda place: compare_logits(TorchRunner(other_model(place)), model_of(place), [BATCH]),
        r"gives logits of the shape \(1, 5\), and the model \(1, 2\): it was made of another model",
    ),
]

MANIFESTS = [
    (
        "a manifest that is no JSON",
        lambda place: opened(place, "{"),
        r"export\.json is broken JSON at line 1",
    ),
    (
        "a manifest without components",
        lambda place: opened(place, json.dumps({"export_format": "onnx"})),
        r"export\.json is no manifest of an export, it names no components: export it anew",
    ),
    (
        "a manifest of another tool's fields",
        lambda place: opened(place, json.dumps({"bertkd": ["int8"]})),
        r"export\.json is no manifest of an export, it has no fields",
    ),
]

CASES = [ApiCase("models and checkpoints", name, call, says) for name, call, says in MODELS]
CASES += [ApiCase("options and settings", name, call, says) for name, call, says in OPTIONS]
CASES += [ApiCase("exports", name, call, says) for name, call, says in [*DATA, *MANIFESTS]]
