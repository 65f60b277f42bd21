"""Lines typed to `bertkd export` and `bertkd bench` that could not do what they say."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    BertTokenizer,
    GPT2Config,
    GPT2ForSequenceClassification,
)

from bad_input.cases import CommandCase, Place

EXPORT = "export --model_name_or_path {teacher} --task_name sst2 --glue_dir {glue} --use_cpu --max_train_samples 32 "
EXPORT += "--max_eval_samples 16 --output_dir out "
COPY = EXPORT.replace("{teacher}", "{dir}/copy")
TORCH = "--engine pytorch --precision float32 "
BENCH = "bench {teacher} --output_dir out --engines pytorch --precisions float32 "


def copied(change: Callable[[Path], Any]) -> Callable[[Place], Any]:
    """Copies the teacher to {dir}/copy and changes it there."""

    def prepare(place: Place) -> None:
        change(Path(shutil.copytree(place.teacher, place.dir / "copy")))

    return prepare


def written(name: str, text: str) -> Callable[[Place], Any]:
    """Copies the teacher, with other content in one of its files."""
    return copied(lambda folder: (folder / name).write_text(text))


def changed_weights(change: Callable[[Any], Any]) -> Callable[[Place], Any]:
    """Copies the teacher, with other weights."""

    def save(folder: Path) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        with torch.no_grad():
            change(model)
        model.save_pretrained(folder)

    return copied(save)


def without(*names: str) -> Callable[[Place], Any]:
    """Copies the teacher without some of its files."""
    return copied(lambda folder: [(folder / name).unlink() for name in names])


def another_tokenizer(folder: Path) -> None:
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{i}" for i in range(3000))]
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)


def another_family(folder: Path) -> None:
    config = GPT2Config(vocab_size=500, n_embd=16, n_layer=2, n_head=2, pad_token_id=0)
    GPT2ForSequenceClassification(config).save_pretrained(folder)


def other_head(folder: Path) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=3, ignore_mismatched_sizes=True)
    model.save_pretrained(folder)


def fewer_positions(folder: Path) -> None:
    config = AutoConfig.from_pretrained(folder, max_position_embeddings=64)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)


# A row of bench.json without its time.
TORN_ROW = json.dumps({"schema": 1, "rows": [{"model": "bert6", "way": "pytorch float32"}]})


EXPORTS = [
    CommandCase(
        "options and settings", "an engine that does not exist", f"{EXPORT} --engine tensorrt", "--engine: inv"
    ),
    CommandCase(
        "options and settings", "a precision that does not exist", f"{EXPORT} --precision int4", "--precision: inv"
    ),
    CommandCase(
        "exports",
        "a precision that the engine does not have",
        f"{EXPORT} --engine onnxruntime --precision bfloat16",
        "float32 or int8 on a CPU: choose openvino or pytorch for bfloat16",
    ),
    CommandCase(
        "exports",
        "int8 of PyTorch without torchao",
        f"{EXPORT} --engine pytorch --precision int8",
        r'needs torchao, which is not installed: pip install "bertkd\[torchao\]"',
    ),
    CommandCase(
        "exports",
        "an engine of the CPU on a GPU",
        f"{EXPORT} --engine openvino --device cuda",
        "openvino runs on the CPU here: leave --device out, or take --engine pytorch",
    ),
    CommandCase(
        "exports", "a device that this machine lacks", f"{EXPORT} {TORCH} --device cuda:7", "no device cuda:7"
    ),
    CommandCase("exports", "a device that no machine has", f"{EXPORT} {TORCH} --device gpu0", "no device gpu0 here"),
    CommandCase("exports", "a device without numbers", f"{EXPORT} {TORCH} --device meta", "no device meta here"),
    CommandCase(
        "numbers", "a drop below zero", f"{EXPORT} --max_drop -0.1", "--max_drop must be at least 0, not -0.1"
    ),
    CommandCase(
        "numbers", "a drop in percent", f"{EXPORT} --max_drop 5", "--max_drop is 5.0: give a fraction from 0 to"
    ),
    CommandCase(
        "numbers", "a drop that is no number", f"{EXPORT} --max_drop nan", "--max_drop must be at least 0, not nan"
    ),
    CommandCase(
        "numbers",
        "no rows for the ranges",
        f"{EXPORT} --calibration_rows 0",
        "--calibration_rows must be at least 1, not 0",
    ),
    CommandCase(
        "numbers",
        "a batch to measure without rows",
        f"{EXPORT} --batch_size 0",
        "--batch_size must be at least 1, not 0",
    ),
    CommandCase(
        "numbers",
        "rows without tokens",
        f"{EXPORT} --sequence_length -5",
        "--sequence_length must be at least 1, not -5",
    ),
    CommandCase(
        "numbers",
        "rows beyond the positions",
        f"{EXPORT} --sequence_length 513",
        "--sequence_length is 513, but .* takes 512 tokens: give at most that",
    ),
    CommandCase("numbers", "no thread", f"{EXPORT} --threads 0", "--threads must be at least 1, not 0"),
    CommandCase("numbers", "passes that are none", f"{EXPORT} --repeats 0", "--repeats must be at least 1, not 0"),
    CommandCase(
        "options and settings",
        "options of a training for an export",
        f"{EXPORT} {TORCH} --repeats 1 --sequence_length 8 --learning_rate=1e-4",
        "`bertkd export` does not use --learning_rate",
        ends="named",
    ),
    CommandCase(
        "options and settings",
        "two seeds for one export",
        f"{EXPORT} --seed 1 2",
        "seed of an export only draws the rows for the calibration. Give one --seed",
    ),
    CommandCase(
        "exports",
        "no model to export",
        "export --task_name sst2 --glue_dir {glue} --output_dir out",
        "Name the model to export with --model_name_or_path",
    ),
    CommandCase(
        "folders and interrupted work",
        "the model's own folder",
        EXPORT.replace("--output_dir out", "--output_dir {teacher}"),
        "is also --model_name_or_path, which would be overwritten: choose another",
    ),
    CommandCase(
        "folders and interrupted work",
        "a folder with other work",
        EXPORT,
        "out holds the folder runs, and an export replaces all of a folder: choose another one",
        files={"out/runs/notes.txt": "Months of work."},
    ),
    CommandCase(
        "folders and interrupted work",
        "a folder below a file",
        EXPORT.replace("--output_dir out", "--output_dir file/out"),
        "Cannot write to file/out .*choose another --output_dir",
        files={"file": ""},
    ),
    CommandCase(
        "folders and interrupted work",
        "a file in the place of the folder",
        EXPORT.replace("--output_dir out", "--output_dir file"),
        "Cannot write to file \\(File exists\\): choose another --output_dir",
        files={"file": ""},
    ),
    CommandCase(
        "models and checkpoints",
        "a model of an unknown family",
        f"{COPY} {TORCH}",
        "does not know where a model of type 'gpt2' keeps its layers; supported types: bert",
        prepare=copied(another_family),
    ),
    CommandCase(
        "models and checkpoints",
        "weights that are not finite",
        f"{COPY} {TORCH}",
        "weights that are NaN or infinite: classifier.weight",
        prepare=changed_weights(lambda model: model.classifier.weight[0].fill_(float("inf"))),
    ),
    CommandCase(
        "models and checkpoints",
        "weights that overflow",
        f"{COPY} {TORCH}",
        "gives NaN or infinite logits in PyTorch: there is nothing to compare with",
        prepare=changed_weights(lambda model: model.classifier.weight.fill_(3e38)),
    ),
    CommandCase(
        "models and checkpoints",
        "a folder without a tokenizer",
        f"{COPY} {TORCH}",
        "There is no tokenizer in .*copy the files of the tokenizer",
        prepare=without("tokenizer.json", "tokenizer_config.json"),
    ),
    CommandCase(
        "models and checkpoints",
        "a tokenizer of another model",
        f"{COPY} {TORCH}",
        "has 3,005 tokens, and the model .* knows 444: take the tokenizer that the model was trained with",
        prepare=copied(another_tokenizer),
    ),
    CommandCase(
        "labels",
        "a model with more labels than the task",
        f"{COPY} {TORCH}",
        "copy has 3 labels, but the task sst2 has 2: name the task that it was trained on",
        prepare=copied(other_head),
    ),
    CommandCase(
        "exports",
        "an export in the place of a model",
        COPY,
        "copy is an export already: give the folder of the model that it was made of",
        prepare=copied(lambda folder: (folder / "model.safetensors").rename(folder / "export.json")),
    ),
    CommandCase(
        "records and reports",
        "a broken record of the model's training",
        f"{COPY} {TORCH}",
        r"copy/results\.json is no results file",
        prepare=written("results.json", "{"),
    ),
    CommandCase(
        "models and checkpoints",
        "a teacher to compare with that is not there",
        f"{EXPORT} {TORCH} --teacher_model_name_or_path nowhere",
        "nowhere",
    ),
    CommandCase(
        "numbers",
        "a teacher that takes shorter texts",
        f"{EXPORT} {TORCH} --sequence_length 100 --teacher_model_name_or_path {{dir}}/copy",
        "--sequence_length is 100, but .*copy takes 64 tokens",
        prepare=copied(fewer_positions),
    ),
]

BENCHES = [
    CommandCase(
        "numbers", "a benchmark without rows", f"{BENCH} --batch_size 0", "--batch_size must be at least 1, not 0"
    ),
    CommandCase(
        "numbers", "a benchmark without passes", f"{BENCH} --repeats -1", "--repeats must be at least 1, not -1"
    ),
    CommandCase(
        "numbers", "a benchmark without threads", f"{BENCH} --threads 0", "--threads must be at least 1, not 0"
    ),
    CommandCase(
        "numbers",
        "a measurement's warm-up below zero",
        f"{BENCH} --warmup -1",
        "--warmup must be at least 0, not -1",
    ),
    CommandCase(
        "numbers",
        "a benchmark beyond the positions",
        f"{BENCH} --sequence_length 600",
        "--sequence_length is 600, but .* takes 512 tokens",
    ),
    CommandCase(
        "exports",
        "a second model that is not there",
        BENCH.replace("{teacher}", "{teacher} nowhere"),
        "nowhere is no model's folder, nor one of the shapes bert-base",
    ),
    CommandCase(
        "exports",
        "a model twice",
        BENCH.replace("{teacher}", "{teacher} {teacher}"),
        "is there twice: name each model once",
    ),
    CommandCase(
        "exports",
        "no engine with the precision",
        "bench {teacher} --engines onnxruntime --precisions bfloat16 --output_dir out",
        r"onnxruntime on cpu is not measured in bfloat16 \(.*ONNX Runtime has no bfloat16 here\): name another one",
    ),
    CommandCase(
        "exports", "a benchmark on a missing device", f"{BENCH} --device cuda", "There is no device cuda here"
    ),
    CommandCase(
        "records and reports",
        "an earlier benchmark that is not there",
        f"{BENCH} --compare nowhere.json",
        r"Cannot read nowhere\.json: No such file",
    ),
    CommandCase(
        "records and reports",
        "an earlier benchmark that is something else",
        f"{BENCH} --compare other.json",
        r"other\.json is no bench\.json of this command: it has no rows",
        files={"other.json": "[1, 2]"},
    ),
    CommandCase(
        "records and reports",
        "an earlier benchmark that lacks its times",
        f"{BENCH} --compare torn.json",
        r"torn\.json is no bench\.json of this command: a row has no p50_ms, speedup",
        files={"torn.json": TORN_ROW},
    ),
    CommandCase(
        "folders and interrupted work",
        "a benchmark into a file",
        BENCH.replace("--output_dir out", "--output_dir file/out"),
        "Cannot write to file/out",
        files={"file": ""},
    ),
    CommandCase(
        "exports",
        "an export whose manifest is torn",
        "bench copy --output_dir out",
        r"copy/export\.json is broken JSON at line 1",
        prepare=written("export.json", '{"bertkd": '),
    ),
    CommandCase(
        "exports",
        "an export whose manifest is a list",
        "bench copy --output_dir out",
        r"copy/export\.json is no manifest of an export, it has no fields",
        prepare=written("export.json", "[]"),
    ),
    CommandCase(
        "exports",
        "an export whose graph is gone",
        "bench copy --output_dir out",
        r"copy holds no \*\.xml, which export\.json speaks of: export it anew",
        prepare=written("export.json", '{"export_format": "openvino", "components": {"model": {}}}'),
    ),
    CommandCase(
        "exports",
        "an export of an unknown format",
        "bench copy --output_dir out",
        "format 'executorch', which bertkd does not run",
        prepare=written("export.json", '{"export_format": "executorch"}'),
    ),
]

CASES = [*EXPORTS, *BENCHES]
