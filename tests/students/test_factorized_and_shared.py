"""Factorized and weight-sharing models together, and with pruning, dropped layers, training and latency."""

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import SETTINGS, VOCABULARY, Collator, StopAt, assert_same_run, dataset, tiny_model, word_tokenizer
from tiny_students import COMBINATIONS, assert_equal_outputs, batch_of, maps_of, outputs_of, table_of
from transformers import (
    AutoModel,
    AutoModelForSequenceClassification,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    PretrainedConfig,
)

from bertkd import DistillationConfig, DistillationTrainer, drop_layers
from bertkd.dynabert import make_adaptive
from bertkd.efficiency import count_flops, count_parameters, measure_latency
from bertkd.models import (
    FAMILIES,
    encoder_layers,
    layer_sizes,
    refuse_factorized_or_shared,
)
from bertkd.models.pruned import PrunedBertForSequenceClassification
from bertkd.students import factorize, prune, prune_vocabulary, separate_position_bias, share_layers, zero_pad


@pytest.mark.parametrize("name", COMBINATIONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_folder_brings_back_the_model(family: str, name: str, tmp_path: Path) -> None:
    model = tiny_model(family, layers=4)
    student = COMBINATIONS[name](model)
    student.save_pretrained(tmp_path)
    loaded, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)

    assert type(loaded) is type(student) and type(loaded).__name__ == f"Pruned{type(model).__name__}"
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(outputs_of(loaded, family), outputs_of(student, family))
    assert layer_sizes(loaded) == layer_sizes(student)
    assert count_parameters(loaded) == count_parameters(student)
    assert count_parameters(student).total < count_parameters(model).total
    assert (tmp_path / "pruned.py").is_file() and (tmp_path / "families.py").is_file()

    again = copy.deepcopy(loaded)
    assert count_parameters(again) == count_parameters(loaded)

    # Without its head, as a teacher of plain text is loaded.
    base = AutoModel.from_pretrained(tmp_path).eval()
    batch = batch_of(family)
    with torch.no_grad():
        states, expected = (one(**batch).last_hidden_state for one in (base, loaded.eval().base_model))
    assert torch.equal(states, expected)
    base.save_pretrained(tmp_path / "base")
    assert count_parameters(AutoModel.from_pretrained(tmp_path / "base")) == count_parameters(base)


def test_an_mpnet_with_fewer_heads_and_shared_layers_is_saved(tmp_path: Path) -> None:
    student = share_layers(prune(tiny_model("mpnet", layers=4), [1] * 4, [24] * 4), 2)
    student.save_pretrained(tmp_path)
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(outputs_of(loaded, "mpnet"), outputs_of(student, "mpnet"))


def test_the_config_of_a_pruned_distilbert_names_its_layers_for_every_reader(tmp_path: Path) -> None:
    prune(tiny_model("distilbert", layers=4), [1, 2, 2, 2], [24] * 4).save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert values["num_hidden_layers"] == values["n_layers"] == 4
    # A client that does not know the model type reads the config of a tokenizer's folder like this.
    assert PretrainedConfig.from_dict(values).num_hidden_layers == 4


PLAIN = """
import sys, torch
from transformers import AutoModel, AutoModelForSequenceClassification
for folder in sys.argv[1:]:
    kept = torch.load(f"{folder}/wanted.pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder, trust_remote_code=True)
    with torch.no_grad():
        logits = model(**kept["inputs"]).logits
        states = AutoModel.from_pretrained(folder, trust_remote_code=True).eval()(**kept["inputs"]).last_hidden_state
        assert torch.equal(states, model.base_model(**kept["inputs"]).last_hidden_state)
    print((logits - kept["logits"]).abs().max().item(), sum(p.numel() for p in model.parameters()))
assert not any(name.split(".")[0] == "bertkd" for name in sys.modules), "bertkd was imported"
"""


@pytest.mark.slow
def test_folders_open_in_a_process_without_bertkd(tmp_path: Path) -> None:
    counts = []
    for family, name in (("roberta", "all"), ("distilbert", "pruned, then all")):
        student = COMBINATIONS[name](tiny_model(family, layers=4))
        student.save_pretrained(tmp_path / family)
        kept = {"inputs": batch_of(family), "logits": outputs_of(student, family)}
        torch.save(kept, tmp_path / family / "wanted.pt")
        counts.append(count_parameters(student).total)
    command = [sys.executable, "-I", "-c", PLAIN, str(tmp_path / "roberta"), str(tmp_path / "distilbert")]
    environment = {**os.environ, "HF_MODULES_CACHE": str(tmp_path / "modules"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path, check=False)

    assert done.returncode == 0, done.stderr
    answers = [line.split() for line in done.stdout.splitlines()]
    assert [int(count) for _, count in answers] == counts
    assert all(float(difference) < 1e-5 for difference, _ in answers)


def test_width_pruned_folders_are_written_as_before(tmp_path: Path) -> None:
    student = prune(tiny_model(layers=2), [1, 2], [9, 24])
    student.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert not {"ffn_rank", "embedding_rank", "layer_groups"} & set(config)
    assert config["auto_map"] == {
        "AutoConfig": "pruned.PrunedBertConfig",
        "AutoModel": "pruned.PrunedBertModel",
        **{
            f"AutoModelFor{task}": f"pruned.PrunedBertFor{task}"
            for task in ("SequenceClassification", "TokenClassification", "QuestionAnswering", "MaskedLM")
        },
    }
    assert torch.equal(outputs_of(AutoModelForSequenceClassification.from_pretrained(tmp_path)), outputs_of(student))


def test_a_config_whose_groups_do_not_fit_is_refused(tmp_path: Path) -> None:
    share_layers(tiny_model(layers=4), 2).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"layer_groups": [0, 0, 1]}))
    with pytest.raises(ValueError, match="layer_groups names 3 layers, and the model has 4"):
        AutoModelForSequenceClassification.from_pretrained(tmp_path)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_can_be_dropped(family: str, tmp_path: Path) -> None:
    model = COMBINATIONS["all"](tiny_model(family, layers=4))  # groups 0, 1, 0, 1
    shorter = drop_layers(model, [0, 2, 3])
    assert shorter.config.layer_groups == [0, 0, 1] and model.config.layer_groups == [0, 1, 0, 1]

    expected = zero_pad(model)
    del encoder_layers(expected)[1]
    assert_equal_outputs(shorter, expected, family)
    assert maps_of(shorter, 0)[0].up.weight is maps_of(shorter, 1)[0].up.weight

    shorter.save_pretrained(tmp_path)
    assert_equal_outputs(AutoModelForSequenceClassification.from_pretrained(tmp_path), shorter, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_heads_and_neurons_can_be_pruned(family: str) -> None:
    model = COMBINATIONS["all"](tiny_model(family, layers=4))
    student = prune(model, [1, 2, 1, 2], [9, 20, 9, 20])
    assert layer_sizes(student) == ((1, 2, 1, 2), (9, 20, 9, 20))
    assert_equal_outputs(student, prune(zero_pad(model), [1, 2, 1, 2], [9, 20, 9, 20]), family)
    with pytest.raises(ValueError, match="Layers 0 and 2 cannot share .* 2 and 1 heads, 24 and 24 neurons"):
        prune(model, [2, 2, 1, 2], [24] * 4)

    # Sizes that a stock config can express do not make it forget its ranks and groups.
    narrow = prune(model, [2] * 4, [9] * 4)
    assert narrow.config.ffn_rank == 4 and narrow.config.layer_groups == [0, 1, 0, 1]
    assert_equal_outputs(narrow, prune(zero_pad(model), [2] * 4, [9] * 4), family)


@pytest.mark.parametrize(
    "name", [name for name in COMBINATIONS if "skipped" not in name and "then pruned" not in name]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_stock_model_computes_the_same(family: str, name: str) -> None:
    model = tiny_model(family, layers=4)
    student = COMBINATIONS[name](model)
    padded = zero_pad(student)
    assert type(padded) is type(model)
    assert not {"ffn_rank", "embedding_rank", "layer_groups"} & set(padded.config.to_dict())
    assert_equal_outputs(padded, student, family)


def test_what_needs_full_layers_can_refuse() -> None:
    refuse_factorized_or_shared(tiny_model(), "rewire")
    refuse_factorized_or_shared(prune(tiny_model(), [1, 2], [24, 24]), "rewire")
    with pytest.raises(
        ValueError, match=r"rewire needs .* this one has ffn_rank=4, layer_groups=\[0, 0\]: .*zero_pad"
    ):
        refuse_factorized_or_shared(factorize(share_layers(tiny_model(), 1), ffn_rank=4), "rewire")


def test_latency_is_measured() -> None:
    student = COMBINATIONS["all"](tiny_model(layers=4))
    assert measure_latency({"student": student}, sequence_length=8, repeats=1, warmup=0)["student"].p50_ms > 0


@pytest.mark.parametrize("compress", [lambda model: prune(model, [1, 2], [9, 24]), COMBINATIONS["ffn"]])
def test_the_attention_can_be_switched_and_is_counted(compress: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # What transformers remembers of the stock class would hide what it takes the pruned one for.
    remembered = "_can_set_attn_implementation_cached_value"
    for model_class in (BertForSequenceClassification, PrunedBertForSequenceClassification):
        monkeypatch.delattr(model_class, remembered, raising=False)
    model = compress(tiny_model(attn_implementation="sdpa"))
    flops = count_flops(model, 1, 8)
    model.set_attn_implementation("eager")

    assert model.config._attn_implementation == "eager"
    assert flops == count_flops(model, 1, 8)


def test_the_vocabulary_of_factorized_embeddings_can_grow() -> None:
    student = factorize(share_layers(tiny_model(), 1), embedding_rank=3)
    student.resize_token_embeddings(VOCABULARY + 4, mean_resizing=False)
    assert table_of(student)(torch.tensor([VOCABULARY + 3])).shape == (1, 16)
    assert outputs_of(student).shape == (4, 3)
    assert maps_of(student, 0)[0].weight is maps_of(student, 1)[0].weight


def test_a_supernet_is_refused_and_a_model_without_a_head_is_not(tmp_path: Path) -> None:
    supernet, tokenizer = make_adaptive(tiny_model()), word_tokenizer(tmp_path)
    uses: dict[str, Any] = {
        "factorize": lambda model: factorize(model, ffn_rank=4),
        "share_layers": lambda model: share_layers(model, 1),
        "prune_vocabulary": lambda model: prune_vocabulary(model, tokenizer, ["w1"]),
    }
    for name, use in uses.items():
        with pytest.raises(ValueError, match=f"{name} needs an ordinary model"):
            use(supernet)
    base = BertModel(tiny_model().config)
    for name in ("factorize", "share_layers"):
        assert type(uses[name](base)).__name__ == "PrunedBertModel"
    with pytest.raises(ValueError, match="no pruned class for BertForPreTraining"):
        uses["factorize"](BertForPreTraining(tiny_model().config))
    assert type(uses["prune_vocabulary"](base)[0]) is BertModel


@pytest.mark.parametrize("family", FAMILIES)
def test_the_encoder_of_a_classifier_is_compressed_as_the_whole_is(family: str, tmp_path: Path) -> None:
    # The encoders of RoBERTa and MPNet have no pooler here, and their classes make one by default.
    model, tokenizer = tiny_model(family, layers=4), word_tokenizer(tmp_path)
    ways: dict[str, Any] = {
        **COMBINATIONS,
        "narrow": lambda model: prune(model, [2] * 4, [9] * 4),
        "uneven": lambda model: prune(model, [1, 2, 0, 2], [9, 0, 20, 24]),
        "padded": lambda model: zero_pad(prune(model, [1, 2, 1, 2], [9, 9, 20, 24])),
        "separate": separate_position_bias,
        "shorter": lambda model: drop_layers(model, [0, 2]),
        "fewer words": lambda model: prune_vocabulary(model, tokenizer, ["w1 w2"])[0],
    }
    ids = torch.tensor([[5, 6, 5, 2]])
    for name, way in ways.items():
        made, whole = way(model.base_model), way(model).base_model
        assert (getattr(made, "pooler", None) is None) == (family != "bert"), name
        with torch.no_grad():
            states, expected = (one(input_ids=ids).last_hidden_state for one in (made, whole))
        torch.testing.assert_close(states, expected, msg=name)


# ---- training ----


def test_a_factorized_shared_model_trains_resumes_and_reloads(tmp_path: Path) -> None:
    start = factorize(share_layers(tiny_model(layers=4), 2), 4, 3)

    def trainer(folder: str, **settings: Any) -> DistillationTrainer:
        args = DistillationConfig(
            output_dir=str(tmp_path / folder),
            alpha=0.5,
            max_steps=4,
            **{**SETTINGS, "learning_rate": 0.05, **settings},
        )
        return DistillationTrainer(
            model=copy.deepcopy(start),
            teacher_model=tiny_model(layers=4, seed=5),
            args=args,
            train_dataset=dataset(32),
            data_collator=Collator(),
        )

    whole = trainer("whole")
    whole.train()
    first = trainer("resumed", save_strategy="steps", save_steps=2)
    first.add_callback(StopAt(2))
    first.train()
    checkpoint = tmp_path / "resumed" / "checkpoint-2"

    assert_equal_outputs(AutoModelForSequenceClassification.from_pretrained(checkpoint), first.model)
    second = trainer("resumed", save_strategy="steps", save_steps=2)
    second.train(resume_from_checkpoint=True)

    assert_same_run(second, whole)
    student = second.model.eval()
    assert count_parameters(student) == count_parameters(start)
    assert not torch.equal(outputs_of(student), outputs_of(start))
    assert not torch.equal(maps_of(student, 2)[1].down.weight, maps_of(start, 2)[1].down.weight)
    assert maps_of(student, 2)[1].down.weight is maps_of(student, 3)[1].down.weight

    second.save_model(str(tmp_path / "saved"))
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "saved")
    assert torch.equal(outputs_of(loaded), outputs_of(student))
