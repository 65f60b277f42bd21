"""Calls that load, change, measure or record models, and cannot do what they say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from helpers import tiny_model, word_tokenizer
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM

import bertkd
from bad_input.cases import ApiCase, Place
from bertkd import DistillationConfig, DistillationTrainer, drop_layers
from bertkd.dynabert import extract_subnetwork, make_adaptive, set_subnetwork
from bertkd.efficiency import count_flops, measure_latency
from bertkd.export import open_exported
from bertkd.models import encoder_layers, family_of, label_permutation
from bertkd.records import RunResult, read_results
from bertkd.students import Shape, factorize, prune, prune_vocabulary, share_layers, small_student
from bertkd.tinybert import load_released

KIND = "models and checkpoints"
RECORDS = "records and reports"


def trainer(place: Place, **models: Any) -> DistillationTrainer:
    """A trainer of the tiny models, some of which are given by name."""
    config = DistillationConfig(output_dir=str(place.dir / "out"), use_cpu=True, report_to="none")
    return DistillationTrainer(**{"model": tiny_model(num_labels=2), **models}, args=config)


def copied(place: Place, change: Callable[[Path], Any]) -> str:
    """Copies the teacher, changes the copy, and returns its folder."""
    folder = place.dir / "bad"
    shutil.copytree(place.teacher, folder)
    change(folder)
    return str(folder)


def with_config(**values: Any) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def with_weights(change_tensors: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], Any]:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        save_file(change_tensors(tensors) or tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def with_head(model_class: Any) -> Callable[[Path], Any]:
    return lambda folder: model_class.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)


def bad_teacher(name: str, change: Callable[[Path], Any], says: str) -> ApiCase:
    """A trainer whose teacher is given by the name of a changed folder."""
    return ApiCase(KIND, name, lambda place: trainer(place, teacher_model=copied(place, change)), says)


def bad_student(name: str, change: Callable[[Path], Any], says: str) -> ApiCase:
    return ApiCase(KIND, name, lambda place: trainer(place, model=copied(place, change)), says)


def spoil(tensors: dict[str, torch.Tensor]) -> None:
    tensors["bert.encoder.layer.0.output.dense.weight"].fill_(float("nan"))


def record(**values: Any) -> Callable[[Place], Any]:
    """Reads the teacher's record with other values."""

    def call(place: Place) -> Any:
        content = json.loads((place.teacher / "results.json").read_text()) | values
        (place.dir / "results.json").write_text(json.dumps(content))
        return read_results(place.dir)

    return call


def tokenizer(place: Place) -> Any:
    return word_tokenizer(place.dir)


CASES = [
    # Models by name.
    bad_teacher(
        "a teacher's weights under other names", with_weights(lambda t: {f"x.{n}": t[n] for n in t}), r"x\.bert"
    ),
    bad_teacher("a teacher with fewer layers than its weights", with_config(num_hidden_layers=1), r"with 1 layers"),
    bad_teacher("a teacher without a head", with_head(AutoModel), r"The teacher .* has no trained head"),
    bad_teacher(
        "a teacher that predicts words", with_head(AutoModelForMaskedLM), r"no trained head.*cls\.predictions"
    ),
    bad_teacher("a teacher of NaN", with_weights(spoil), r"NaN or infinite: bert\.encoder\.layer\.0"),
    bad_student("a student with more layers than its weights", with_config(num_hidden_layers=9), r"student .* lack"),
    bad_student("a student of NaN", with_weights(spoil), r"The student .* NaN or infinite"),
    bad_student("a student of another size", with_config(intermediate_size=99), r"student .*has the shape .* \(99,\)"),
    bad_student(
        "a student whose weights are cut off", lambda f: (f / "model.safetensors").write_bytes(b"x"), r"damaged"
    ),
    ApiCase(
        KIND,
        "a teacher that is not there",
        lambda place: trainer(place, teacher_model=str(place.dir / "nowhere")),
        r"Cannot load the teacher .* there is no such folder",
        OSError,
    ),
    ApiCase(
        KIND,
        "a teacher of the hub without a network",
        lambda place: trainer(place, teacher_model="textattack/bert-base-uncased-SST-2"),
        r"no folder of that name, and as a name of the hub",
        OSError,
    ),
    ApiCase(
        KIND,
        "a path object for a student that is not there",
        lambda place: trainer(place, model=place.dir / "nowhere"),
        r"Cannot load the student",
        OSError,
    ),
    ApiCase(
        KIND,
        "a language model for DistilBERT without its head",
        lambda place: bertkd.DistilBertKDTrainer(
            model=tiny_model("distilbert"),
            teacher_model=str(place.teacher),
            args=bertkd.DistilBertKDConfig(output_dir=str(place.dir), use_cpu=True),
        ),
        r"has no head for masked words",
    ),
    ApiCase(
        KIND,
        "a released TinyBERT that is not there",
        lambda place: load_released(place.dir),
        r"no TinyBERT checkpoint",
    ),
    # Parts of a model.
    ApiCase(
        KIND, "no layer is kept", lambda place: drop_layers(tiny_model(), []), r"layers \[\] of a model with 2 layers"
    ),
    ApiCase(
        KIND,
        "a layer that is not there is kept",
        lambda place: drop_layers(tiny_model(), [0, 7]),
        r"numbers from 0 to 1",
    ),
    ApiCase(KIND, "layers are turned around", lambda place: drop_layers(tiny_model(), [1, 0]), r"increasing numbers"),
    ApiCase(
        KIND,
        "layers of a family that is not known",
        lambda place: encoder_layers(
            AutoModel.from_config(AutoConfig.for_model("gpt2", n_embd=8, n_layer=1, n_head=1, vocab_size=9))
        ),
        r"type 'gpt2' keeps its layers; supported types: bert",
    ),
    ApiCase(
        KIND,
        "parts of a family that is not known",
        lambda place: family_of(AutoConfig.for_model("t5")),
        r"type 't5' keeps its layers",
    ),
    ApiCase(KIND, "a supernet of a supernet", lambda place: make_adaptive(make_adaptive(tiny_model())), r"already"),
    ApiCase(KIND, "a size of an ordinary model", lambda place: set_subnetwork(tiny_model(), 0.5), r"needs a supernet"),
    ApiCase(
        KIND,
        "a width above one",
        lambda place: set_subnetwork(make_adaptive(tiny_model()), 1.5),
        r"in \(0, 1\], not 1\.5",
    ),
    ApiCase(
        KIND,
        "a form that a sub-network cannot take",
        lambda place: extract_subnetwork(make_adaptive(tiny_model()), 0.5, format="onnx"),
        r"format must be one of auto, stock",
    ),
    ApiCase(
        KIND, "a rank that saves nothing", lambda place: factorize(tiny_model(), ffn_rank=16), r"saves no parameters"
    ),
    ApiCase(KIND, "a rank of zero", lambda place: factorize(tiny_model(), ffn_rank=0), r"must be at least 1, not 0"),
    ApiCase(
        KIND, "more groups than layers", lambda place: share_layers(tiny_model(), 3), r"Cannot share 3 layers among 2"
    ),
    ApiCase(
        KIND,
        "groups for other layers",
        lambda place: share_layers(tiny_model(), [0]),
        r"of 1 layers, and the model has 2",
    ),
    ApiCase(
        KIND,
        "more heads than there are",
        lambda place: prune(tiny_model(), [3, 2], [24, 24]),
        r"\[3, 2\] heads of layers that have \[2, 2\]",
    ),
    ApiCase(
        KIND,
        "a hidden size that heads do not divide",
        lambda place: small_student(tiny_model(), Shape(1, 15, 24)),
        r"15 cannot be divided into 2 heads",
    ),
    ApiCase(
        KIND,
        "a vocabulary of no text",
        lambda place: prune_vocabulary(tiny_model(), tokenizer(place), []),
        r"no token in the texts",
    ),
    ApiCase(
        "labels",
        "labels that only their author can match",
        lambda place: label_permutation(["no", "yes"], ["LABEL_0", "LABEL_1"]),
        r"these names in the order of its logits, which whoever trained it knows",
    ),
    ApiCase("labels", "labels of another number", lambda place: label_permutation(["a"], ["a", "b"]), r"same ones"),
    # Measuring.
    ApiCase(KIND, "no model to time", lambda place: measure_latency({}), r"needs at least one model"),
    ApiCase(
        KIND,
        "no pass to time",
        lambda place: measure_latency({"a": tiny_model()}, repeats=0),
        r"one repeat, got 1 and 0",
    ),
    ApiCase(
        KIND,
        "more tokens than positions to time",
        lambda place: measure_latency({"a": tiny_model()}, sequence_length=99, repeats=1),
        r"99.* 40 positions",
    ),
    ApiCase(
        KIND,
        "more tokens than positions to count",
        lambda place: count_flops(tiny_model(), sequence_length=99),
        r"99.* 40",
    ),
    ApiCase(KIND, "an export that is none", lambda place: open_exported(place.dir), r"holds no model", OSError),
    # Records.
    ApiCase(RECORDS, "a record with a task outside its folder", record(task="../../x"), r"reports name files by it"),
    ApiCase(RECORDS, "a record whose settings are a text", record(settings="none"), r"settings should be a dict"),
    ApiCase(RECORDS, "a record of sizes that are numbers", record(subnetworks=[1]), r"a JSON object is expected"),
    ApiCase(
        RECORDS, "records that are not there", lambda place: read_results(place.dir / "x"), r"does not exist", OSError
    ),
    ApiCase(
        RECORDS,
        "a record that is a model's config",
        lambda place: RunResult.read(place.teacher / "config.json"),
        r"config\.json is no results file",
    ),
]
