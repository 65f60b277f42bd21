"""What loads is what the checkpoint holds: other weights, and files that are broken, end in a sentence."""

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from conftest import ROOT
from helpers import tiny_model, word_tokenizer
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForQuestionAnswering,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from bertkd.models import FAMILIES
from bertkd.models.loading import check_finite, load_checkpoint, load_config, load_tokenizer
from bertkd.students import prune

# What a checkpoint may have been saved as.
CLASSES = {
    "classifier": AutoModelForSequenceClassification,
    "masked words": AutoModelForMaskedLM,
    "tokens": AutoModelForTokenClassification,
    "questions": AutoModelForQuestionAnswering,
    "bare": AutoModel,
}
# These modules open what they have written a moment before, or what an engine has.
OWN_FOLDERS = {"export/engines.py", "export/exporting.py", "students/vocabulary.py"}


def saved(folder: Path, family: str = "bert", kind: str = "classifier", **settings: Any) -> Path:
    config = tiny_model(family, num_labels=2, **settings).config
    CLASSES[kind].from_config(config).save_pretrained(folder)
    return folder


def with_weights(folder: Path, change: Any) -> Path:
    """Changes the weights of a folder: `change` maps the dictionary of tensors to another."""
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})
    return folder


def with_config(folder: Path, **values: Any) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))
    return folder


def load(folder: Path | str, **settings: Any) -> Any:
    return load_checkpoint(AutoModelForSequenceClassification, folder, **settings)


def test_every_checkpoint_is_opened_in_one_place() -> None:
    callers = set()
    for path in (ROOT / "bertkd").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "from_pretrained":
                callers.add(str(path.relative_to(ROOT / "bertkd")))

    # A pruned class passes the call on to its stock class.
    assert callers - OWN_FOLDERS == {"models/loading.py", "models/pruned.py"}


# ---- differences that are none ----


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.parametrize("family", FAMILIES)
def test_an_encoder_loads_whatever_head_its_checkpoint_has(family: str, kind: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, family, kind)
    expected = AutoModel.from_pretrained(folder).eval()

    for loaded in (load(folder, needs_head=False), load_checkpoint(AutoModel, folder)):
        for name, weight in loaded.base_model.state_dict().items():
            # RoBERTa's bare encoder makes a pooler that nothing uses.
            if not name.startswith("pooler."):
                torch.testing.assert_close(weight, expected.state_dict()[name])

    model = load_checkpoint(AutoModelForMaskedLM, folder, needs_head=kind == "masked words")
    assert model.get_output_embeddings() is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_classifier_loads_as_it_is(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    model.save_pretrained(tmp_path)
    loaded = load(tmp_path)
    for name, weight in model.state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[name], weight)


def test_stored_positions_and_the_old_names_of_layer_norms_load(tmp_path: Path) -> None:
    def as_in_2019(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        renamed = {"bert.embeddings.position_ids": torch.arange(40)[None]}
        for name, weight in weights.items():
            is_norm = "LayerNorm" in name
            old = name.replace(".weight", ".gamma").replace(".bias", ".beta") if is_norm else name
            renamed[old] = weight
        return renamed

    folder = saved(tmp_path)
    expected = load(folder).state_dict()
    found = load(with_weights(folder, as_in_2019)).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_plain_tensors_of_a_pytorch_file_load(tmp_path: Path) -> None:
    saved(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    expected = load(tmp_path).state_dict()
    (tmp_path / "model.safetensors").unlink()
    found = load(tmp_path).state_dict()
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())


def test_a_head_for_another_number_of_labels_becomes_a_new_one(tmp_path: Path) -> None:
    folder = saved(tmp_path)
    assert load(folder, needs_head=False, num_labels=5).config.num_labels == 5
    with pytest.raises(ValueError, match=r"classifier.bias has the shape \(2,\) in the weights and \(5,\)"):
        load(folder, num_labels=5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pruned_model_gets_a_new_head_too(family: str, tmp_path: Path) -> None:
    model = prune(tiny_model(family, num_labels=2), [2, 1], [24, 12])
    model.save_pretrained(tmp_path)
    names = {0: "a", 1: "b", 2: "c"}
    loaded = load(tmp_path, needs_head=False, id2label=names, label2id={name: i for i, name in names.items()})
    assert type(loaded) is type(model) and loaded.config.id2label == names
    ids = torch.arange(3, 9)[None]
    assert loaded(input_ids=ids, labels=torch.tensor([2])).logits.shape == (1, 3)
    encoder, expected = loaded.base_model.state_dict(), model.base_model.state_dict()
    assert all(torch.equal(encoder[name], expected[name]) for name in expected)
    assert load(tmp_path, needs_head=False, num_labels=1, problem_type="regression").config.num_labels == 1
    with pytest.raises(ValueError, match="sizes"):
        load(tmp_path, num_labels=3)


# ---- differences that are some ----


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_config_with_another_number_of_layers_is_refused(family: str, layers: int, tmp_path: Path) -> None:
    name = "n_layers" if family == "distilbert" else "num_hidden_layers"
    folder = with_config(saved(tmp_path, family), **{name: layers})
    for model_class in (AutoModelForSequenceClassification, AutoModelForMaskedLM, AutoModel):
        with pytest.raises(ValueError, match=rf"does not fit its own config.json: .*layer\.\d.* with {layers} layers"):
            load_checkpoint(model_class, folder, needs_head=False)


@pytest.mark.parametrize("prefix", ["model.", "module.", "base_model.model."])
def test_renamed_weights_are_refused(prefix: str, tmp_path: Path) -> None:
    folder = with_weights(saved(tmp_path), lambda weights: {f"{prefix}{name}": weights[name] for name in weights})
    with pytest.raises(ValueError, match=rf"the weights lack bert\.embeddings.*, and {prefix}bert\.embeddings"):
        load(folder, needs_head=False)


def test_one_lost_weight_is_named(tmp_path: Path) -> None:
    lost = "bert.encoder.layer.1.output.dense.weight"
    folder = with_weights(saved(tmp_path), lambda weights: {name: weights[name] for name in weights if name != lost})
    with pytest.raises(ValueError, match=rf"the weights lack {lost}\."):
        load(folder, needs_head=False)


def test_an_adapter_inside_a_layer_is_not_left_out_silently(tmp_path: Path) -> None:
    adapter = "bert.encoder.layer.0.adapter.down.weight"
    folder = with_weights(saved(tmp_path), lambda weights: weights | {adapter: torch.zeros(2)})
    with pytest.raises(ValueError, match=rf"{adapter} is in the weights and not used"):
        load(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_an_untrained_head_is_refused_where_it_is_needed(family: str, tmp_path: Path) -> None:
    folder = saved(tmp_path, family, "masked words")
    with pytest.raises(ValueError, match=r"has no trained head for a task .*classifier.*`bertkd finetune`"):
        load(folder)
    with pytest.raises(ValueError, match=r"no head for masked words .*`bertkd mlm`"):
        load_checkpoint(AutoModelForMaskedLM, saved(tmp_path / "other", family))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_named(value: float, tmp_path: Path) -> None:
    def spoiled(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        weights["bert.encoder.layer.1.output.dense.bias"][3] = value
        return weights

    with pytest.raises(ValueError, match=r"NaN or infinite: bert\.encoder\.layer\.1\.output\.dense\.bias\. Its"):
        load(with_weights(saved(tmp_path), spoiled), needs_head=False)
    with pytest.raises(ValueError, match=r"The student has weights that are NaN"):
        check_finite(torch.nn.ParameterList([torch.full((2,), value)]), "The student")


# ---- files and names ----


class RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch code-ran",)


def test_code_in_a_checkpoint_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # A question at the terminal would be a way to consent that nobody sees in a job.
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("it asks whether code may run"))

    pickled = saved(tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({"weight": RunsCode()}, pickled / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds more than tensors.*no way to consent"):
        load(pickled)

    remote = with_config(saved(tmp_path / "remote"), model_type="foreign", auto_map={"AutoConfig": "code.Config"})
    (remote / "code.py").write_text("open('code-ran', 'w')")
    with pytest.raises(ValueError, match=r"config\.json .* needs code that comes with the checkpoint.*no way to"):
        load_config(remote)
    assert not (tmp_path / "code-ran").exists()


def test_names_of_folders_and_of_the_hub_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    for name in ("./outputs/teacher", "/nowhere/teacher", "outputs/teacher/", "a/b/c"):
        with pytest.raises(OSError, match=r"there is no such folder"):
            load_config(name)

    with pytest.raises(OSError, match=r"there is no folder of that name in outputs, .*HF_HUB_OFFLINE"):
        load_config("outputs/teacher")
    with pytest.raises(OSError, match=r"there is no folder of that name, .*HF_HUB_OFFLINE"):
        load_config("google-bert/bert-nowhere")


def test_a_folder_without_a_tokenizer_gives_none_that_knows_no_word(tmp_path: Path) -> None:
    folder = saved(tmp_path / "model")
    # transformers makes one of the five special tokens, for which every text is unknown.
    assert len(transformers.AutoTokenizer.from_pretrained(folder)) == 5
    with pytest.raises(ValueError, match=r"There is no tokenizer in .*model .*--tokenizer_name"):
        load_tokenizer(folder)

    word_tokenizer(tmp_path).save_pretrained(folder)
    assert len(load_tokenizer(folder)) == 50
    (folder / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(ValueError, match=r"tokenizer\.json is broken JSON at line 1"):
        load_tokenizer(folder)
