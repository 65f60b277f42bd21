"""Lines with models, teachers and tokenizers that are not there, are broken, or are not what they are taken for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from bad_input.cases import CommandCase, Place
from bertkd.students import factorize, prune

TASK = "--task_name sst2 --glue_dir {glue} --max_train_samples 16 --max_eval_samples 16 --use_cpu --output_dir out"
FINETUNE = f"finetune --model_name_or_path bad {TASK}"
KD = f"kd --teacher_model_name_or_path bad --model_name_or_path {{model}} {TASK}"
OF_TEACHER = f"kd --teacher_model_name_or_path {{teacher}} {TASK}"
CORPUS = "--corpus_files {glue}/SST-2/train.tsv --use_cpu --output_dir out"
KIND = "models and checkpoints"

Change = Callable[[Path], Any]


def without_token_types(folder: Path) -> None:
    """Makes a tokenizer one of DistilBERT, which reads no token types."""
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text()) | {"model_input_names": ["input_ids", "attention_mask"]}
    path.write_text(json.dumps(content))


def copied(change: Change, source: str = "teacher") -> Callable[[Place], None]:
    """Puts a copy of a model into the folder `bad` and changes it."""

    def prepare(place: Place) -> None:
        folder = place.dir / "bad"
        shutil.copytree(getattr(place, source), folder)
        change(folder)

    return prepare


def config(**values: Any) -> Change:
    """Changes values of config.json; None takes one out."""

    def change(folder: Path) -> None:
        path = folder / "config.json"
        content = json.loads(path.read_text()) | values
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def weights(change_tensors: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]]) -> Change:
    """Changes the tensors of model.safetensors."""

    def change(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(change_tensors(load_file(path)), path, metadata={"format": "pt"})

    return change


def renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {f"module.{name}": tensor for name, tensor in tensors.items()}


def without(part: str) -> Change:
    return weights(lambda tensors: {name: tensors[name] for name in tensors if part not in name})


def spoiled(part: str, value: float) -> Change:
    def spoil(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        for name, tensor in tensors.items():
            if part in name:
                tensor[0] = value
        return tensors

    return weights(spoil)


def file(name: str, content: str | bytes) -> Change:
    """Replaces the content of a file."""
    return lambda folder: (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def removed(*names: str) -> Change:
    def change(folder: Path) -> None:
        for name in names:
            (folder / name).unlink(missing_ok=True)

    return change


def both(*changes: Change) -> Change:
    def change(folder: Path) -> None:
        for one_change in changes:
            one_change(folder)

    return change


def with_head(model_class: Any) -> Change:
    """Replaces the model by one of the same shape with another head, or none."""

    def change(folder: Path) -> None:
        model_class.from_config(AutoConfig.from_pretrained(folder)).save_pretrained(folder)

    return change


def as_pickle(folder: Path) -> None:
    """Leaves the weights as a PyTorch file that holds more than tensors."""
    (folder / "model.safetensors").unlink()
    torch.save({"weight": Path("anything")}, folder / "pytorch_model.bin")


def pruned(folder: Path) -> None:
    """Replaces the model by one of fewer heads, whose config then says another number of neurons."""
    from bertkd.pipeline import load_model

    prune(load_model(str(folder)), [1] * 4, [12] * 4).save_pretrained(folder)
    config(per_layer_config={str(layer): {"intermediate_size": 6} for layer in range(4)})(folder)


def low_rank(folder: Path) -> None:
    from bertkd.pipeline import load_model

    factorize(load_model(str(folder)), ffn_rank=4).save_pretrained(folder)


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
REMOTE_CODE = both(
    config(model_type="foreign", auto_map={"AutoConfig": "code.Config"}), file("code.py", "raise SystemExit('it ran')")
)


THREE_LABELS = both(
    config(id2label={"0": "a", "1": "b", "2": "c"}, label2id={"a": 0, "b": 1, "c": 2}),
    with_head(AutoModelForSequenceClassification),
)


def bad_model(name: str, change: Change, says: str, line: str = FINETUNE, source: str = "teacher") -> CommandCase:
    return CommandCase(KIND, name, line, says, prepare=copied(change, source))


CASES = [
    # Weights and config that do not fit each other.
    bad_model("fewer layers in the config", config(num_hidden_layers=2), r"layer\.2.* not used.*with 2 layers"),
    bad_model("more layers in the config", config(num_hidden_layers=6), r"lack bert\.encoder\.layer\.4.*6 layers"),
    bad_model("a teacher's config with more layers", config(num_hidden_layers=6), r"teacher bad does not fit", KD),
    bad_model("a teacher whose weights are renamed", weights(renamed), r"lack bert\..*and module\.bert", KD),
    bad_model("a student whose weights are renamed", weights(renamed), r"lack bert\..*and module\.bert"),
    bad_model("weights of another family", config(model_type="roberta"), r"type roberta.*take the config\.json"),
    bad_model(
        "one lost weight", without("layer.1.output.dense.weight"), r"lack bert.*layer\.1\.output\.dense\.weight\."
    ),
    bad_model("a wider config", config(hidden_size=32), r"shape \(16,\) in the weights and \(32,\) by the config"),
    bad_model(
        "another vocabulary in the config", config(vocab_size=900), r"word_embeddings.*\(900, 16\) by the config"
    ),
    bad_model(
        "fewer tokens than the tokenizer", config(vocab_size=9), r"tokenizer .* tokens, and the model bad knows 9"
    ),
    bad_model("positions that are too few", config(max_position_embeddings=64), r"position_embeddings.*\(64, 16\)"),
    bad_model("heads that do not divide the size", config(num_attention_heads=3), r"not a multiple of the number of"),
    bad_model(
        "an adapter in the weights", weights(lambda t: t | {"bert.adapter.down": torch.zeros(1)}), r"bert\.adapter"
    ),
    bad_model(
        "a pruned model with other sizes in its config", pruned, r"bad cannot be loaded: its weights have other"
    ),
    # Weights that are not numbers.
    bad_model(
        "a teacher with NaN in its head", spoiled("classifier.bias", float("nan")), r"NaN.*classifier\.bias", KD
    ),
    bad_model("a student with infinite weights", spoiled("layer.3.output", float("inf")), r"infinite: bert.*layer\.3"),
    bad_model(
        "a supernet with NaN",
        spoiled("layer.0.output", float("nan")),
        r"NaN or infinite: bert\.encoder\.layer\.0",
        "extract --model_name_or_path bad --width 0.5 --output_dir out",
        "supernet",
    ),
    bad_model(
        "a language model with NaN",
        both(with_head(AutoModelForMaskedLM), spoiled("cls.predictions.bias", float("nan"))),
        r"NaN or infinite: cls\.predictions\.bias",
        f"augment --augment_model bad {TASK}",
    ),
    # Heads.
    bad_model(
        "a masked language model for a teacher", with_head(AutoModelForMaskedLM), r"teacher bad has no trained", KD
    ),
    bad_model(
        "an encoder without a head for a teacher", with_head(AutoModel), r"no trained head.*bertkd finetune", KD
    ),
    bad_model(
        "a tagger of tokens for a teacher", with_head(AutoModelForTokenClassification), r"no trained head.*pooler", KD
    ),
    bad_model(
        "a model without a head to export",
        with_head(AutoModel),
        r"no trained head",
        f"export --model_name_or_path bad {TASK}",
    ),
    bad_model(
        "a model without a head to shrink",
        with_head(AutoModel),
        r"no trained head",
        f"shrink --model_name_or_path bad --share_layers 2 {TASK}",
    ),
    bad_model(
        "a model without a head to submit",
        with_head(AutoModel),
        r"no trained head",
        "submit --models sst2=bad --glue_dir {glue} --output_dir out",
    ),
    bad_model(
        "a supernet without a head",
        without("classifier"),
        r"no trained head for a task \(classifier",
        f"search --model_name_or_path bad --budget 9 {TASK}",
        "supernet",
    ),
    CommandCase(
        KIND,
        "a classifier that is to predict words",
        "distilbert --teacher_model_name_or_path {teacher} " + CORPUS,
        r"has no head for masked words.*bertkd mlm",
    ),
    CommandCase(
        KIND,
        "a classifier that is to propose words",
        f"augment --augment_model {{teacher}} {TASK}",
        r"has no head for masked words.*bertkd mlm",
    ),
    CommandCase(
        KIND,
        "MiniLM, which is not fine-tuned, to compress",
        f"compress --teacher_model_name_or_path minilm --budget 1 {TASK}",
        r"The teacher minilm has no trained head",
    ),
    bad_model("a teacher of another task", THREE_LABELS, r"has 3 labels, but the task sst2 has 2", KD),
    bad_model(
        "a teacher without names of labels",
        config(id2label={"0": "LABEL_0", "1": "LABEL_1"}, label2id={"LABEL_0": 0, "LABEL_1": 1}),
        r"order of its logits.*--teacher_labels negative positive if the first logit is 'negative', and in another",
        KD,
    ),
    CommandCase(
        "labels",
        "too many names for a teacher's logits",
        f"{OF_TEACHER} --model_name_or_path {{model}} --teacher_labels a b c",
        r"names 3 labels \(a, b, c\), and the teacher .* has 2",
    ),
    CommandCase(
        "labels",
        "one name for two of a teacher's logits",
        f"{OF_TEACHER} --model_name_or_path {{model}} --teacher_labels positive positive",
        r"labels of the model \(positive, positive\) do not match",
    ),
    # Files of a checkpoint.
    bad_model(
        "weights that were cut off", file("model.safetensors", b"\0" * 90), r"model\.safetensors is damaged or was"
    ),
    bad_model("weights that are empty", file("model.safetensors", b""), r"model\.safetensors is damaged.*\(0 bytes\)"),
    bad_model(
        "weights that Git LFS did not fetch", file("model.safetensors", LFS), r"pointer of Git LFS.*git lfs pull"
    ),
    bad_model(
        "a config that Git LFS did not fetch", file("config.json", LFS), r"config\.json is a pointer of Git LFS"
    ),
    bad_model("no weights", removed("model.safetensors"), r"There are no weights in bad \(model\.safetensors\)"),
    bad_model(
        "weights of TensorFlow alone",
        both(removed("model.safetensors"), file("tf_model.h5", "x")),
        r"no weights in bad.*tf_model\.h5 is for another program",
    ),
    bad_model(
        "a part of the weights is not there",
        both(
            removed("model.safetensors"),
            file("model.safetensors.index.json", '{"weight_map": {"classifier.bias": "model-2-of-2.safetensors"}}'),
        ),
        r"index\.json lists model-2-of-2\.safetensors, which is not in the folder",
    ),
    bad_model(
        "weights that would run code", as_pickle, r"pytorch_model\.bin holds more than tensors.*no way to consent"
    ),
    bad_model(
        "a model that brings its code", REMOTE_CODE, r"needs code that comes with the checkpoint.*no way to consent"
    ),
    bad_model(
        "a config that is cut off", file("config.json", '{"model_type": '), r"config\.json is broken JSON at line 1"
    ),
    bad_model("a config that is empty", file("config.json", ""), r"config\.json is empty"),
    bad_model("a config that is a list", file("config.json", "[]"), r"config\.json has to hold a JSON object"),
    bad_model(
        "a config in another encoding", file("config.json", b"\xff\xfe{\0"), r"config\.json is no JSON file in UTF-8"
    ),
    bad_model("a config without a type", file("config.json", "{}"), r"config\.json has no model_type"),
    bad_model("a type that nobody knows", config(model_type="bret"), r"config\.json does not describe.*`bret`"),
    bad_model("a family that bertkd does not know", config(model_type="gpt2"), r"type 'gpt2'"),
    bad_model("no layers at all", config(num_hidden_layers=0), r"num_hidden_layers 0, which has to be a whole number"),
    bad_model("a negative number of heads", config(num_attention_heads=-2), r"num_attention_heads -2"),
    bad_model("a size in quotes", config(hidden_size="16"), r"hidden_size '16', which has to be a whole number"),
    bad_model("an activation that nobody knows", config(hidden_act="gellu"), r"it names 'gellu', which this version"),
    bad_model("labels in a list", config(id2label=["no", "yes"]), r"id2label .* each class by its number"),
    bad_model("labels without numbers", config(id2label={"no": "yes"}), r"id2label .* each class by its number"),
    bad_model(
        "a checkpoint of PEFT", both(removed("config.json"), file("adapter_config.json", "{}")), r"PEFT adapter"
    ),
    CommandCase(
        KIND,
        "an empty folder",
        FINETUNE,
        r"no folder with a config\.json, but an empty one",
        prepare=lambda place: (place.dir / "bad").mkdir(),
    ),
    CommandCase(
        KIND,
        "the folder above the models",
        f"finetune --model_name_or_path {{dir}}/models {TASK}",
        r"There are models in its folders first, second",
        files={"models/first/config.json": "{}", "models/second/config.json": "{}"},
    ),
    CommandCase(
        KIND,
        "a file for a model",
        f"finetune --model_name_or_path here.txt {TASK}",
        r"it is a file\. Give the folder",
        files={"here.txt": ""},
    ),
    # Tokenizers.
    bad_model("no tokenizer", removed("tokenizer.json", "vocab.txt"), r"There is no tokenizer in bad"),
    bad_model("a tokenizer that is cut off", file("tokenizer.json", "{"), r"bad/tokenizer\.json is broken JSON"),
    bad_model("a tokenizer that is none", file("tokenizer.json", "{}"), r"bad/tokenizer\.json is no tokenizer"),
    bad_model(
        "a tokenizer that Git LFS did not fetch", file("tokenizer.json", LFS), r"tokenizer\.json is a pointer of Git"
    ),
    bad_model(
        "a tokenizer's config in a list", file("tokenizer_config.json", "[]"), r"tokenizer_config\.json has to hold"
    ),
    bad_model(
        "a vocabulary without words",
        both(removed("tokenizer.json", "tokenizer_config.json"), file("vocab.txt", "")),
        r"The tokenizer in bad knows no word, only",
    ),
    CommandCase(
        KIND,
        "teacher and student with different tokenizers",
        f"{OF_TEACHER} --model_name_or_path minilm",
        r"different vocabularies.*take two that share a tokenizer",
    ),
    CommandCase(
        KIND,
        "a tokenizer that the model was not made for",
        f"finetune --model_name_or_path {{model}} --tokenizer_name minilm {TASK}",
        r"--tokenizer_name minilm have different vocabularies",
    ),
    CommandCase(
        KIND,
        "a tokenizer that the teacher on plain text was not made for",
        "tinybert-general --teacher_model_name_or_path {model} --tokenizer_name minilm --corpus_files {dir}/a.txt "
        "--output_dir {dir}/out --use_cpu",
        r"--tokenizer_name minilm have different vocabularies",
        {"a.txt": "a film"},
    ),
    CommandCase(
        KIND,
        "a tokenizer that the model to shrink was not made for",
        f"shrink --model_name_or_path {{model}} --tokenizer_name minilm --share_layers 2 {TASK}",
        r"--tokenizer_name minilm have different vocabularies",
    ),
    # Layers of the student, and models that a command does not take.
    CommandCase(
        KIND,
        "more layers than there are",
        f"{OF_TEACHER} --model_name_or_path {{model}} --num_student_layers 9",
        r"Cannot keep 9 of 4",
    ),
    CommandCase(
        KIND,
        "layers twice",
        f"{OF_TEACHER} --model_name_or_path {{model}} --student_layers 1,1",
        r"\[1, 1\] .* increasing numbers",
    ),
    CommandCase(
        KIND,
        "a way to choose layers that does not exist",
        f"{OF_TEACHER} --model_name_or_path {{model}} --student_layers midle",
        r"Unknown layers 'midle'",
    ),
    CommandCase(
        KIND,
        "a list of layers of another length",
        f"{OF_TEACHER} --model_name_or_path {{model}} --student_layers 0,1 --num_student_layers 3",
        r"names 2 layers, but the student is to have 3",
    ),
    bad_model(
        "a supernet with low-rank maps",
        low_rank,
        r"neither factorized nor shared",
        "extract --model_name_or_path bad --width 0.5 --output_dir out",
    ),
    CommandCase(
        KIND,
        "a sub-network of a model that is no supernet",
        "extract --model_name_or_path {teacher} --width 0.5 --output_dir out",
        r"was not trained at width 0\.5",
        ends="named",
    ),
    CommandCase(
        KIND,
        "a device that is not here",
        "bench {teacher} --device tpu --output_dir out",
        "There is no device tpu here .*: give one of cpu",
    ),
    CommandCase(
        KIND,
        "a released TinyBERT without weights",
        f"{OF_TEACHER} --model_name_or_path r",
        r"r is no TinyBERT checkpoint",
        files={"r/config.json": '{"hidden_size": 16}'},
    ),
    CommandCase(
        KIND,
        "a released TinyBERT whose weights are cut off",
        f"{OF_TEACHER} --model_name_or_path r",
        r"r/pytorch_model\.bin is damaged or was cut off",
        files={"r/config.json": '{"hidden_size": 16}', "r/pytorch_model.bin": "cut"},
    ),
    CommandCase(
        KIND,
        "a tokenizer that does not tell the two texts of a pair apart",
        "kd --teacher_model_name_or_path {teacher} --tokenizer_name bad --train_file p.csv --validation_file q.csv "
        "--text_column_names a b --class_names negative positive --use_cpu --output_dir out",
        r"The tokenizer of bad gives no token types, by which .* tells the two texts of a pair apart",
        files={
            "p.csv": "a,b,label\n" + "fine,dull,positive\ndull,fine,negative\n" * 8,
            "q.csv": "a,b,label\n" + "a fine film,dull,positive\na dull film,fine,negative\n" * 4,
        },
        prepare=copied(without_token_types),
    ),
]
