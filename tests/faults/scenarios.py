"""What the harness kills: commands on tiny models, and what they leave.

Everything that a scenario needs is made once, by `prepare`, and is the same for all its runs.
"""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import datasets
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification, BertTokenizer

from bertkd.cli import main
from bertkd.data.demo import make_demo_task

__all__ = ["SCENARIOS", "Scenario", "prepare"]

TASK = (
    "--task_name sst2 --glue_dir {made}/glue --max_train_samples 24 --max_eval_samples 8 --use_cpu --disable_tqdm true"
)
STUDENT = "--model_name_or_path {made}/narrow --teacher_model_name_or_path {made}/teacher --ignore_weak_teacher"
QUICK = "--num_train_epochs 2 --per_device_train_batch_size 12 --logging_steps 1"


@dataclass(frozen=True)
class Scenario:
    """A command that is killed at each of its boundaries and started again.

    Attributes:
        line: the words after `bertkd`; {made} is the folder that `prepare` fills, {dir} the run's own.
        answer: reads what the finished command left in the run's own folder.
        counts: where boundaries count, within the run's own folder.
        earlier: a command that leaves an earlier result in the same place.
        processes: how many carry it out.
    """

    line: str
    answer: Callable[[Path], object]
    counts: str = "."
    earlier: str | None = None
    processes: int = 1


def weights(name: str = "out") -> Callable[[Path], object]:
    """Reads the weights of a folder; None where there is no model."""

    def read(folder: Path) -> object:
        if not (folder / name / "config.json").is_file():
            return None
        tensors = {}
        for key, tensor in load_file(next((folder / name).glob("*.safetensors"))).items():
            tensors[key] = tensor.double().numpy().tobytes()
        return tensors

    return read


def augmented_rows(folder: Path) -> object:
    path = folder / "out" / "train.parquet"
    return (
        datasets.Dataset.from_parquet(str(path), cache_dir=str(folder / "read")).to_list() if path.is_file() else None
    )


def cached_outputs(folder: Path) -> object:
    """Reads the contents of the only cache in a folder; None where there is none."""
    metas = list((folder / "cache").glob("*/meta.json"))
    return {file.name: file.read_bytes() for file in metas[0].parent.iterdir()} if metas else None


TRAINING = (
    f"patient-kd {STUDENT} {TASK} {QUICK} --project_hidden --beta 1 --strategy last --teacher_cache_dir {{dir}}/cache "
    "--output_dir {dir}/out"
)
EXPORT = f"export {TASK} --engine pytorch --precision float32 --repeats 2 --sequence_length 8 --output_dir {{dir}}/out"
PRUNING = (
    f"prune --teacher_model_name_or_path {{made}}/teacher --ignore_weak_teacher {TASK} {QUICK} --budget 60% "
    "--unit gflops --sequence_length 8 --output_dir {dir}/out"
)
EXTRACT = "extract --model_name_or_path {made}/supernet --output_dir {dir}/out"

SCENARIOS = {
    "training": Scenario(TRAINING, weights()),
    "cache": Scenario(
        f"{TRAINING} --max_steps 1 --save_strategy no --eval_strategy no --load_best_model_at_end false",
        cached_outputs,
        counts="cache",
    ),
    "augmentation": Scenario(
        f"augment {TASK} --augment_model {{made}}/mlm --augment_copies 2 --output_dir {{dir}}/out",
        augmented_rows,
    ),
    "export": Scenario(
        f"{EXPORT} --model_name_or_path {{made}}/teacher",
        weights(),
        earlier=f"{EXPORT} --model_name_or_path {{made}}/narrow",
    ),
    "extraction": Scenario(f"{EXTRACT} --width 0.5", weights(), earlier=f"{EXTRACT} --depth 0.5"),
    "pruning": Scenario(PRUNING, weights()),
    "two processes": Scenario(TRAINING, weights(), processes=2),
}


def prepare(folder: Path) -> None:
    """Makes the data and the models that the scenarios read."""
    glue = make_demo_task(folder / "glue")
    words: set[str] = set()
    for line in (glue / "SST-2" / "train.tsv").read_text().splitlines():
        words.update(line.split())
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(words)]
    (folder / "vocab.txt").write_text("\n".join(vocabulary))

    sizes = {"num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 24, "vocab_size": len(vocabulary)}
    config = BertConfig(hidden_size=16, **sizes)
    narrow = BertConfig(hidden_size=8, **{**sizes, "num_hidden_layers": 2})
    for name, model_class, model_config in (
        ("teacher", BertForSequenceClassification, config),
        ("narrow", BertForSequenceClassification, narrow),
        ("mlm", BertForMaskedLM, config),
    ):
        torch.manual_seed(0)
        model_config.id2label = {0: "negative", 1: "positive"}
        model_class(model_config).save_pretrained(folder / name)
        BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder / name)

    teacher = f"--teacher_model_name_or_path {folder}/teacher --ignore_weak_teacher"
    line = f"dynabert {teacher} --stages width {TASK} --max_steps 1"
    main([*line.format(made=folder).split(), "--output_dir", str(folder / "trained")])
    shutil.copytree(folder / "trained" / "width", folder / "supernet")
