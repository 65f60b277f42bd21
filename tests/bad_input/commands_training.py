"""Lines that start a training which could not do what they say."""

import json
from collections.abc import Callable
from typing import Any

from safetensors.torch import load_file, save_file

from bad_input.cases import CommandCase, Kind, Place

DATA = "--task_name sst2 --glue_dir {glue} --max_train_samples 16 --max_eval_samples 8 --use_cpu --output_dir out"
STUDENT = "--teacher_model_name_or_path {teacher} --ignore_weak_teacher --init_from teacher --num_student_layers 2"
CORPUS = "--corpus_files corpus.txt --use_cpu --output_dir out"
COMMANDS = {
    "finetune": f"finetune --model_name_or_path {{model}} {DATA}",
    "kd": f"kd {STUDENT} {DATA}",
    "patient-kd": f"patient-kd {STUDENT} {DATA}",
    "dynabert": f"dynabert --teacher_model_name_or_path {{teacher}} --ignore_weak_teacher {DATA}",
    "tinybert": f"tinybert --teacher_model_name_or_path {{teacher}} --ignore_weak_teacher --augment false {DATA}",
    "tinybert-general": f"tinybert-general --teacher_model_name_or_path {{model}} {CORPUS}",
    "distilbert": f"distilbert --teacher_model_name_or_path {{model}} {CORPUS}",
    "mlm": f"mlm --model_name_or_path {{model}} {CORPUS}",
}


def case(kind: Kind, name: str, command: str, options: str, says: str, **more: Any) -> CommandCase:
    """One of the commands with further options."""
    return CommandCase(kind, name, f"{COMMANDS[command]} {options}", says, **more)


def with_bad_weights(source: str, value: float) -> Callable[[Place], None]:
    """Writes {dir}/bad, a copy of a model one of whose weights is not finite."""

    def prepare(place: Place) -> None:
        folder = place.dir / "bad"
        folder.mkdir()
        for path in getattr(place, source).iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        weights = load_file(folder / "model.safetensors")
        weights["bert.encoder.layer.1.output.dense.bias"][0] = value
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})

    return prepare


def with_labels(names: list[str]) -> Callable[[Place], None]:
    """Writes {dir}/named, a copy of the teacher whose labels have other names."""

    def prepare(place: Place) -> None:
        folder = place.dir / "named"
        folder.mkdir()
        for path in place.teacher.iterdir():
            if path.is_file():
                (folder / path.name).write_bytes(path.read_bytes())
        config = json.loads((folder / "config.json").read_text())
        config["id2label"] = {str(i): name for i, name in enumerate(names)}
        config["label2id"] = {name: i for i, name in enumerate(names)}
        (folder / "config.json").write_text(json.dumps(config))

    return prepare


NAN = float("nan")

CASES = [
    case("numbers", "alpha that is no number", "kd", "--alpha nan", "alpha must be a finite number, not nan"),
    case(
        "numbers", "an endless temperature", "kd", "--temperature inf", "temperature must be a finite number, not inf"
    ),
    case("numbers", "beta that is no number", "patient-kd", "--beta nan", "beta must be a finite number, not nan"),
    case(
        "numbers",
        "a learning rate that is no number",
        "finetune",
        "--learning_rate nan",
        "--learning_rate must be at least 0, not nan",
    ),
    case(
        "numbers",
        "an endless weight decay",
        "finetune",
        "--weight_decay inf",
        "--weight_decay must be at least 0, not inf",
    ),
    case(
        "numbers",
        "gradients clipped at no number",
        "kd",
        "--max_grad_norm nan",
        "--max_grad_norm must be at least 0, not nan",
    ),
    case(
        "numbers",
        "an endless weight of hidden states",
        "tinybert",
        "--hidden_weight inf",
        "hidden_weight must be a finite number",
    ),
    case(
        "numbers",
        "a width that is no number",
        "dynabert",
        "--width_mult_list nan 1.0",
        "width_mult_list must be a finite number",
    ),
    case(
        "numbers",
        "masked words weighted by no number",
        "distilbert",
        "--alpha_mlm nan",
        "alpha_mlm must be a finite number",
    ),
    case(
        "numbers",
        "a model whose weights are not numbers",
        "finetune",
        "--model_name_or_path {dir}/bad",
        "weights that are NaN or infinite",
        prepare=with_bad_weights("model", NAN),
    ),
    case(
        "numbers",
        "a teacher whose weights are not numbers",
        "kd",
        "--teacher_model_name_or_path {dir}/bad",
        "weights that are NaN or infinite",
        prepare=with_bad_weights("teacher", NAN),
    ),
    case(
        "numbers",
        "a teacher with an endless weight",
        "patient-kd",
        "--teacher_model_name_or_path {dir}/bad",
        "weights that are NaN or infinite",
        prepare=with_bad_weights("teacher", float("inf")),
    ),
    case(
        "numbers",
        "a learning rate that makes the loss explode",
        "finetune",
        "--learning_rate 1e30 --optim sgd --max_steps 4 --max_grad_norm 0 --per_device_train_batch_size 4",
        "The (loss is|gradients are) not finite in step",
    ),
    case(
        "training",
        "a learning rate of zero",
        "finetune",
        "--learning_rate 0 --max_steps 1",
        "changed no weight in its 1 steps",
        ends="named",
    ),
    case("training", "no steps", "kd", "--max_steps 0", "--max_steps must be at least 1, or -1 for none, not 0"),
    case(
        "training",
        "fewer than no steps",
        "kd",
        "--max_steps -5",
        "--max_steps must be at least 1, or -1 for none, not -5",
    ),
    case(
        "training",
        "no epochs",
        "finetune",
        "--num_train_epochs 0",
        "num_train_epochs is 0, so that nothing would be trained",
    ),
    case(
        "training",
        "negative epochs",
        "finetune",
        "--num_train_epochs -1",
        "num_train_epochs must be at least 0, not -1",
    ),
    case(
        "training",
        "a negative warm-up",
        "kd",
        "--warmup_steps -3",
        "--warmup_steps must be at least 0, not -3",
    ),
    case(
        "training",
        "batches of no row",
        "kd",
        "--per_device_train_batch_size 0",
        "per_device_train_batch_size must be at least 1",
    ),
    case(
        "training",
        "evaluation batches of no row",
        "kd",
        "--per_device_eval_batch_size 0",
        "per_device_eval_batch_size must be at least 1",
    ),
    case(
        "training",
        "no accumulation",
        "kd",
        "--gradient_accumulation_steps 0",
        "gradient_accumulation_steps must be at least 1",
    ),
    case(
        "training", "batches of no token", "kd", "--max_tokens_per_batch 0", "max_tokens_per_batch must be at least 1"
    ),
    case(
        "training",
        "batches of fewer tokens than a row",
        "kd",
        "--max_tokens_per_batch 3",
        "A row has .* tokens, more than max_tokens_per_batch=3",
    ),
    case(
        "training",
        "batches by tokens in random order",
        "kd",
        "--max_tokens_per_batch 64 --train_sampling_strategy random",
        "max_tokens_per_batch groups rows by length",
    ),
    case(
        "training",
        "fewer rows than a dropped batch",
        "kd",
        "--per_device_train_batch_size 32 --dataloader_drop_last",
        "has 16 rows, fewer than the 32 of one step",
    ),
    case(
        "options and settings",
        "alpha above one",
        "kd",
        "--alpha 1.5",
        "alpha weights the soft term and must lie between 0 and 1",
    ),
    case(
        "options and settings",
        "an unknown order of rows",
        "kd",
        "--train_sampling_strategy shortest",
        "train_sampling_strategy must be one of|invalid choice",
    ),
    case(
        "options and settings",
        "an unknown layer map",
        "patient-kd",
        "--strategy every",
        "Cannot read the layer map 'every'",
    ),
    case(
        "options and settings",
        "a layer map that does not fit",
        "patient-kd",
        "--strategy 1:9",
        "The layer map 1:9 is out of range: the student has 2 layers",
    ),
    case(
        "options and settings",
        "a layer map with too many layers",
        "patient-kd",
        "--strategy 1,2,3",
        "names 3 teacher layers, but a student of 2 layers",
    ),
    case(
        "options and settings",
        "alpha for DistilBERT",
        "distilbert",
        "--alpha 0.3",
        "`bertkd distilbert` does not use --alpha",
        files={"corpus.txt": "a b c\n"},
    ),
    case(
        "options and settings",
        "alpha for TinyBERT before a task",
        "tinybert-general",
        "--alpha 0.3",
        "`bertkd tinybert-general` does not use --alpha",
        files={"corpus.txt": "a b c\n"},
    ),
    case(
        "options and settings",
        "smoothed labels",
        "kd",
        "--label_smoothing_factor 0.1",
        "label_smoothing_factor is not applied",
    ),
    case(
        "options and settings",
        "a filter that hides losses",
        "kd",
        "--logging_nan_inf_filter true",
        "logging_nan_inf_filter would hide losses",
    ),
    case(
        "options and settings",
        "all of DistilBERT's loss left out",
        "distilbert",
        "--alpha_ce 0 --alpha_mlm 0 --alpha_cos 0",
        "nor all be 0",
    ),
    case(
        "options and settings",
        "soft targets without a teacher",
        "mlm",
        "--alpha_ce 1",
        "There is no teacher to learn from",
        files={"corpus.txt": "a b c\n"},
    ),
    case(
        "options and settings", "a width of zero", "dynabert", "--width_mult_list 0 1", "must lie in \\(0, 1\\], not 0"
    ),
    case(
        "options and settings",
        "no part of TinyBERT's loss",
        "tinybert",
        "--attention_weight 0 --hidden_weight 0 --embedding_weight 0",
        "nor all be 0",
    ),
    case(
        "options and settings",
        "a cache for DynaBERT",
        "dynabert",
        "--teacher_cache_dir cache",
        "teacher_cache_dir cannot be used by DynaBERT",
    ),
    case(
        "labels",
        "a teacher whose labels differ by a sign",
        "kd",
        "--teacher_model_name_or_path {dir}/named",
        "do not match",
        prepare=with_labels(["-1", "1"]),
    ),
    case(
        "labels",
        "a teacher with other labels",
        "kd",
        "--teacher_model_name_or_path {dir}/named",
        "do not match",
        prepare=with_labels(["red", "blue"]),
    ),
    case(
        "labels",
        "too few names for the teacher's labels",
        "kd",
        "--teacher_labels negative",
        "names 1 labels .negative., and the teacher .* has 2",
    ),
    case(
        "options and settings",
        "a temperature without soft targets",
        "kd",
        "--alpha 0 --temperature 7 --max_steps 1",
        "temperature=7.0 has no effect, because alpha is 0",
        ends="named",
    ),
]
