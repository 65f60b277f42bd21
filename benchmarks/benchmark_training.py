"""What distillation costs in training, as ratios measured in one run on one machine.

    python benchmarks/benchmark_training.py --glue_dir ../shared/data/glue

Writes docs/performance.json and, from it, docs/performance.md. Without --glue_dir it measures on the built-in task.
Variants take turns, and the ratio is that of their medians: other work on the machine then slows all of them.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import psutil
import torch
from torch import nn
from transformers import (
    AutoModelForMaskedLM,
    AutoTokenizer,
    DataCollatorWithPadding,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from bertkd import (
    DistilBertKDConfig,
    DistilBertKDTrainer,
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    DynaBertKDTrainer,
    TinyBertKDConfig,
    TinyBertKDTrainer,
    drop_layers,
)
from bertkd.atomic import write_json, write_text
from bertkd.cli.commands import quiet, run_safely
from bertkd.data import GLUE_TASKS, load_glue, tokenize
from bertkd.data.demo import make_demo_task
from bertkd.distilbert import distilbert_student
from bertkd.dynabert import Subnetwork, extract_subnetwork
from bertkd.efficiency import PRESETS, count_flops
from bertkd.pipeline import load_model, resolve_model_name
from bertkd.records import environment, markdown_table
from bertkd.students import SHAPES, Shape, small_student
from bertkd.tinybert import WordVectors
from bertkd.tinybert.candidates import CandidateFinder, default_batch_size

TASK = GLUE_TASKS["sst2"]
DOCS = Path(__file__).parents[1] / "docs"
TARGETS = {
    "kd_step": "at most 1.10",
    "cached_epoch": "at most 1.10",
    "dynamic_padding": "at least 2.5",
    "two_processes": "",
    "width_step": "at most 1.25",
    "depth_step": "at most 1.25",
    "intermediate_step": "at most 1.10",
    "paper_intermediate_step": "at most 1.10",
    "intermediate_memory": "",
    "pretraining_step": "at most 1.15",
    "pretraining_memory": "",
    "augmentation": "at least 8",
    "augmentation_bf16": "at least 8",
}
TITLES = {
    "kd_step": "KD step / (teacher forward + plain student step)",
    "cached_epoch": "epoch with cached teacher / plain fine-tuning of the same student",
    "dynamic_padding": "padding to 128 / batches of similar length, padded to their longest row",
    "two_processes": "rows per second of 2 processes / 1 process (one thread each)",
    "width_step": "DynaBERT width step / (full forward and backward, times its sub-networks' FLOPs, + teacher)",
    "depth_step": "DynaBERT depth step / (full forward and backward, times its sub-networks' FLOPs, + teacher)",
    "intermediate_step": "TinyBERT intermediate step / (teacher forward + plain student step), with eager attention",
    "paper_intermediate_step": "the same in the paper's shapes: BERT-base and TinyBERT4, random weights",
    "intermediate_memory": "TinyBERT intermediate step's memory, above the models' own / that of these parts",
    "pretraining_step": "DistilBERT step / (teacher forward + the student's step on masked words)",
    "pretraining_memory": "DistilBERT step's memory, above the models' own / that of these parts",
    "augmentation": "augmented rows per second, in batches / one word at a time",
    "augmentation_bf16": "the same, in batches with bf16 / one word at a time in float32",
}


class Setting:
    """Models and rows shared by all measurements."""

    def __init__(self, model: str, glue_dir: str | None, rows: int, folder: Path) -> None:
        self.model_folder = resolve_model_name(model)
        self.tokenizer = AutoTokenizer.from_pretrained(self.model_folder)
        glue_dir = glue_dir or str(make_demo_task(folder))
        train = load_glue(TASK.name, glue_dir, splits=["train"])
        train["train"] = train["train"].shuffle(seed=0).select(range(rows))
        self.texts: list[str] = train["train"][TASK.text_keys[0]]
        self.rows = tokenize(train, TASK, self.tokenizer, 128)["train"]
        self.teacher = load_model(model, TASK)
        self.folder = folder

    def student(self) -> PreTrainedModel:
        return drop_layers(self.teacher, range(3)).train().requires_grad_(True)

    def config(self, **changes: Any) -> dict[str, Any]:
        return {
            "output_dir": str(self.folder),
            "per_device_train_batch_size": 32,
            "num_train_epochs": 1,
            "save_strategy": "no",
            "logging_strategy": "no",
            "disable_tqdm": True,
            "use_cpu": not torch.cuda.is_available(),
            **changes,
        }

    def trainer(self, **changes: Any) -> DistillationTrainer:
        args = DistillationConfig(**self.config(**changes))
        teacher = self.teacher if args.alpha > 0 else None
        return DistillationTrainer(
            model=self.student(),
            teacher_model=teacher,
            args=args,
            train_dataset=self.rows,
            processing_class=self.tokenizer,
        )


def in_turns(variants: dict[str, Callable[[], float]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each variant, each run once per round after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for round_number in range(repeats + 1):
        for name, run in variants.items():
            took = run()
            if round_number:
                seconds[name].append(took)
    return seconds


def timed(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def model_of(trainer: Trainer) -> nn.Module:
    """The model that a trainer trains; its own annotation says that there may be none."""
    return cast(nn.Module, trainer.model)


def kd_step(setting: Setting, repeats: int) -> dict[str, list[float]]:
    """One optimizer step with a live teacher, against its parts: the teacher's forward and stock `Trainer`'s step."""
    batch = DataCollatorWithPadding(setting.tokenizer)([setting.rows[i] for i in range(32)])
    kd = setting.trainer(alpha=0.5)
    plain = Trainer(model=setting.student(), args=TrainingArguments(**setting.config()), train_dataset=setting.rows)
    inputs = {name: value.to(kd.args.device) for name, value in batch.items()}
    teacher_inputs = {name: value for name, value in inputs.items() if name != "labels"}

    def step(trainer: Trainer) -> float:
        optimizer = trainer.optimizer or trainer.create_optimizer()

        def run() -> None:
            trainer.training_step(model_of(trainer), dict(inputs))
            nn.utils.clip_grad_norm_(model_of(trainer).parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()

        return timed(run)

    def teacher_forward() -> None:
        with torch.no_grad():
            kd.teacher_model(**teacher_inputs)

    for trainer in (kd, plain):
        trainer.current_gradient_accumulation_steps = 1
    return in_turns({"kd": lambda: step(kd), "parts": lambda: timed(teacher_forward) + step(plain)}, repeats)


def dynabert_step(setting: Setting, stage: str, repeats: int) -> dict[str, list[float]]:
    """Forward and backward of all sub-networks, against what their FLOPs make of the full network's, and the teacher.

    The teacher of stage depth runs at every width.
    """
    batch = DataCollatorWithPadding(setting.tokenizer)([setting.rows[i] for i in range(32)])
    layers = range(setting.teacher.config.num_hidden_layers)
    args = DynaBertKDConfig(**setting.config(stage=stage))
    student = drop_layers(setting.teacher, layers).requires_grad_(True)
    dynabert = DynaBertKDTrainer(model=student, teacher_model=setting.teacher, args=args, train_dataset=setting.rows)
    whole = drop_layers(setting.teacher, layers).requires_grad_(True)
    plain = Trainer(model=whole, args=TrainingArguments(**setting.config()), train_dataset=setting.rows)
    inputs = {name: value.to(args.device) for name, value in batch.items()}
    flops = {label: _flops(student, size) for label, (_, size) in dynabert.subnetworks.items()}
    shares = {label: count / flops["w1_d1"] for label, count in flops.items()}
    teacher_share = sum(shares[f"w{width:g}_d1"] for width in args.width_mult_list) if stage == "depth" else 1.0

    def step(trainer: Trainer) -> float:
        seconds = timed(lambda: trainer.training_step(model_of(trainer), dict(inputs)))
        model_of(trainer).zero_grad()
        return seconds

    def teacher_forward() -> None:
        with torch.no_grad():
            setting.teacher(**{name: value for name, value in inputs.items() if name != "labels"})

    for trainer in (dynabert, plain):
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()

    def parts() -> float:
        return sum(shares.values()) * step(plain) + teacher_share * timed(teacher_forward)

    return in_turns({"dynabert": lambda: step(dynabert), "parts": parts}, repeats)


def _flops(supernet: PreTrainedModel, size: Subnetwork) -> int:
    return count_flops(extract_subnetwork(supernet, subnetwork=size))


def intermediate_step(setting: Setting) -> tuple[Callable[[], float], Callable[[], float]]:
    """TinyBERT's intermediate step for a student of half of the teacher's depth and width."""
    config = setting.teacher.config
    sizes = (config.num_hidden_layers, config.hidden_size, config.intermediate_size)
    return _intermediate_step(setting, setting.teacher, Shape(*(size // 2 for size in sizes)))


def paper_intermediate_step(setting: Setting) -> tuple[Callable[[], float], Callable[[], float]]:
    """The same in the paper's shapes."""
    return _intermediate_step(setting, PRESETS["bert-base"].make(), SHAPES["TinyBERT4"])


def _intermediate_step(
    setting: Setting, original: PreTrainedModel, shape: Shape
) -> tuple[Callable[[], float], Callable[[], float]]:
    """Timed runs of the step, and of its parts; all attention is eager, so that only the method's own work differs."""
    batch = DataCollatorWithPadding(setting.tokenizer)([setting.rows[i] for i in range(32)])
    args = TinyBertKDConfig(**setting.config(stage="intermediate"))
    teacher = drop_layers(original, range(original.config.num_hidden_layers)).eval()
    students = [small_student(original, shape) for _ in range(2)]
    for model in (teacher, *students):
        model.set_attn_implementation("eager")
    tinybert = TinyBertKDTrainer(model=students[0], teacher_model=teacher, args=args, train_dataset=setting.rows)
    plain = Trainer(model=students[1], args=TrainingArguments(**setting.config()), train_dataset=setting.rows)
    inputs = {name: value.to(args.device) for name, value in batch.items()}
    for trainer in (tinybert, plain):
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()
    # Outside train() the projection is not part of the student yet.
    tinybert.extra_modules.to(args.device)

    def step(trainer: Trainer) -> None:
        trainer.training_step(model_of(trainer), dict(inputs))
        model_of(trainer).zero_grad()

    def parts() -> None:
        with torch.no_grad():
            teacher(**{name: value for name, value in inputs.items() if name != "labels"})
        step(plain)

    return lambda: timed(lambda: step(tinybert)), lambda: timed(parts)


def pretraining_step(setting: Setting) -> tuple[Callable[[], float], Callable[[], float]]:
    """Timed runs of DistilBERT's step, and of its parts, which compute the whole logits of both models."""
    teacher = AutoModelForMaskedLM.from_pretrained(setting.model_folder, dtype=torch.float32).eval()
    distilbert = DistilBertKDTrainer(
        model=distilbert_student(teacher).train(),
        teacher_model=teacher,
        args=DistilBertKDConfig(**setting.config()),
        train_dataset=setting.rows,
        processing_class=setting.tokenizer,
    )
    plain = Trainer(
        model=distilbert_student(teacher).train(),
        args=TrainingArguments(**setting.config()),
        train_dataset=setting.rows,
    )
    device = distilbert.args.device
    padded: Any = DataCollatorWithPadding(setting.tokenizer)([setting.rows[i] for i in range(32)])
    batch = dict(padded.to(device))
    tokens = distilbert._get_num_items_in_batch([batch], device)  # masks the batch
    for trainer in (distilbert, plain):
        trainer.current_gradient_accumulation_steps = 1
        trainer.create_optimizer()

    def step(trainer: Trainer, count: Any) -> None:
        trainer.training_step(model_of(trainer), dict(batch), count)
        model_of(trainer).zero_grad()

    def parts() -> None:
        with torch.no_grad():
            teacher(**{name: value for name, value in batch.items() if name != "labels"})
        step(plain, None)

    return lambda: timed(lambda: step(distilbert, tokens)), lambda: timed(parts)


STEPS = {
    "intermediate": intermediate_step,
    "paper_intermediate": paper_intermediate_step,
    "pretraining": pretraining_step,
}


def memory(arguments: argparse.Namespace, which: str) -> dict[str, list[float]]:
    """MB by which memory rises in the first step, each variant in a process of its own."""
    variants = ("step", "parts")
    return {name: [_worker(arguments, ["--memory_of", which, name], "mb")] for name in variants}


def memory_worker(arguments: argparse.Namespace) -> None:
    """One process of `memory`."""
    which, variant = arguments.memory_of
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments.model, arguments.glue_dir, arguments.rows, Path(folder))
        run = STEPS[which](setting)[0 if variant == "step" else 1]
        print(f"mb {_peak_mb(run)}", flush=True)


def _peak_mb(run: Callable[[], object]) -> float:
    """How far memory rises above where it was; less than 0.1 MB cannot be told apart."""
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        return max((torch.cuda.max_memory_allocated() - before) / 1e6, 0.1)
    process, done = psutil.Process(), threading.Event()
    seen = [process.memory_info().rss]

    def watch() -> None:
        while not done.wait(0.001):
            seen.append(process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        run()
    finally:
        done.set()
        watcher.join()
    return max((max(seen) - seen[0]) / 1e6, 0.1)


class OneWordAtATime(CandidateFinder):
    """As the released code: each masked sentence by itself, and the head at all of its places."""

    @torch.no_grad()
    def _most_probable(self, inputs: Sequence[list[int]], positions: Sequence[int]) -> list[list[int]]:
        best = []
        for ids, place in zip(inputs, positions, strict=True):
            row = torch.tensor([ids], device=self._model.device)
            row[0, place] = self._tokenizer.mask_token_id
            segments = self._segments(row, torch.ones_like(row))
            logits = self._model(input_ids=row, token_type_ids=segments).logits[0, place]
            best.append(logits.masked_fill(self._no_word, -torch.inf).topk(self._count).indices.tolist())
        return best


def augmentation(setting: Setting, repeats: int) -> dict[str, list[float]]:
    """Candidates for all words of some rows; the draws are the same for all and next to nothing."""
    texts = list(dict.fromkeys(setting.texts[:64]))
    model = AutoModelForMaskedLM.from_pretrained(setting.model_folder, dtype=torch.float32).eval()
    model.to("cuda" if torch.cuda.is_available() else "cpu")
    vectors = WordVectors.of_model(model, setting.tokenizer)
    size = default_batch_size(model.device)

    def find(finder: type[CandidateFinder], bf16: bool = False) -> float:
        made = finder(model, setting.tokenizer, vectors, 15, conditional=True, batch_size=size)
        with torch.autocast(model.device.type, torch.bfloat16, enabled=bf16):
            return timed(lambda: made(texts))

    variants = {
        "one at a time": lambda: find(OneWordAtATime),
        "batches": lambda: find(CandidateFinder),
        "batches in bf16": lambda: find(CandidateFinder, bf16=True),
    }
    return in_turns(variants, repeats)


def cached_epoch(setting: Setting, repeats: int) -> dict[str, list[float]]:
    """One epoch from a teacher cache that is there, against one epoch on labels."""
    cache = str(setting.folder / "cache")

    def epoch(**changes: Any) -> float:
        trainer = setting.trainer(**changes)
        return timed(trainer.train)

    # The round that does not count fills the cache. Looking it up (hashing teacher and rows) is part of the time.
    return in_turns(
        {"cached": lambda: epoch(alpha=0.5, teacher_cache_dir=cache), "plain": lambda: epoch(alpha=0.0)}, repeats
    )


def dynamic_padding(setting: Setting, repeats: int) -> dict[str, list[float]]:
    """One epoch of fine-tuning with every row padded to 128, and with batches of similar length."""

    def epoch(to_128: bool) -> float:
        trainer = setting.trainer(alpha=0.0, train_sampling_strategy="random" if to_128 else "group_by_length")
        if to_128:
            trainer.data_collator = DataCollatorWithPadding(setting.tokenizer, padding="max_length", max_length=128)
        return timed(trainer.train)

    return in_turns({"to 128": lambda: epoch(True), "dynamic": lambda: epoch(False)}, repeats)


def two_processes(arguments: argparse.Namespace, repeats: int) -> dict[str, list[float]]:
    """Seconds per row of KD with one and with two processes, each of one thread."""

    def run(processes: int) -> float:
        launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        return _worker(arguments, ["--worker", str(processes)], "seconds", launcher, OMP_NUM_THREADS="1")

    return in_turns({"one": lambda: run(1), "two": lambda: run(2)}, repeats)


def _worker(
    arguments: argparse.Namespace, options: list[str], what: str, launcher: Sequence[str] = (), **environment_: str
) -> float:
    """What this script, started once more with `options`, says of `what`."""
    command = [sys.executable, *launcher, __file__, *options, "--model", arguments.model]
    command += ["--rows", str(arguments.rows), *(["--glue_dir", arguments.glue_dir] if arguments.glue_dir else [])]
    done = subprocess.run(command, check=True, env=os.environ | environment_, capture_output=True, text=True)
    return float(next(line for line in done.stdout.splitlines() if line.startswith(f"{what} ")).split()[1])


def worker(arguments: argparse.Namespace) -> None:
    """One process of `two_processes`: an epoch of KD, same rows per optimizer step."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments.model, arguments.glue_dir, arguments.rows, Path(folder))
        trainer = setting.trainer(alpha=0.5, per_device_train_batch_size=32 // arguments.worker)
        if trainer.args.world_size != arguments.worker:
            raise ValueError(f"{trainer.args.world_size} processes were started, not {arguments.worker}.")
        seconds = timed(trainer.train)
        if trainer.is_world_process_zero():
            print(f"seconds {seconds}", flush=True)
        trainer.accelerator.wait_for_everyone()
    sys.stdout.flush()
    os._exit(0)  # gloo's teardown often aborts a rank after everything succeeded


def ratio(seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The ratio of the two variants' medians, first over second."""
    (first, a), (second, b) = seconds.items()
    return {
        "ratio": round(statistics.median(a) / statistics.median(b), 3),
        "medians": {first: round(statistics.median(a), 4), second: round(statistics.median(b), 4)},
        "repeats": len(a),
    }


def is_missed(target: str, ratio: float) -> bool:
    """Whether a ratio is beyond its target, which is empty, "at most 1.10" or "at least 8"."""
    if not target:
        return False
    number = float(target.split()[-1])
    return ratio > number if target.startswith("at most") else ratio < number


def render(report: dict[str, Any]) -> str:
    """docs/performance.md."""
    rows = [
        {
            "Measured": TITLES[name],
            "Ratio": f"{entry['ratio']:.2f}",
            "Target": f"{TARGETS[name] or '-'}{', missed' if is_missed(TARGETS[name], entry['ratio']) else ''}",
            "Medians": ", ".join(f"{name} {value:.3g}" for name, value in entry["medians"].items()),
        }
        for name, entry in report["measurements"].items()
    ]
    hardware, versions = report["hardware"], report["versions"]
    return f"""<!-- Generated by recipes/benchmark_training.py from docs/performance.json; do not edit. -->
# What distillation costs in training

{report["rows"]} rows of {report["data"]}, batch 32, teacher MiniLM (6 layers, hidden size 384), student its first 3
layers (for TinyBERT 3 layers of hidden size 192), float32. Ratios of medians within one run, in seconds, or in MB of
memory; the variants take turns.

{markdown_table(rows)}

- Command: `{report["command"]}`
- Hardware: {hardware["cpu"]}, {hardware["threads"]} threads, GPU: {hardware["gpu"] or "none"}
- Versions: {", ".join(f"{name} {version}" for name, version in versions.items())}; commit `{report["commit"]}`
"""


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue_dir", help="Folder of official tsv files; default: the built-in task.")
    parser.add_argument("--model", default="minilm")
    parser.add_argument("--rows", type=int, default=960)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", default=str(DOCS / "performance.json"))
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--memory_of", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    quiet()
    if arguments.worker:
        return worker(arguments)
    if arguments.memory_of:
        return memory_worker(arguments)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments.model, arguments.glue_dir, arguments.rows, Path(folder))
        measurements = {
            "kd_step": ratio(kd_step(setting, 5 * arguments.repeats)),
            "cached_epoch": ratio(cached_epoch(setting, arguments.repeats)),
            "dynamic_padding": ratio(dynamic_padding(setting, arguments.repeats)),
        }
        for stage in ("width", "depth"):
            seconds = dynabert_step(setting, stage, 3 * arguments.repeats)
            measurements[f"{stage}_step"] = ratio(seconds)
        for which, make in STEPS.items():
            whole, parts = make(setting)
            seconds = in_turns({"step": whole, "parts": parts}, 5 * arguments.repeats)
            measurements[f"{which}_step"] = ratio(seconds)
        seconds = augmentation(setting, arguments.repeats)
        slow = {"one at a time": seconds["one at a time"]}
        measurements["augmentation"] = ratio(slow | {"batches": seconds["batches"]})
        measurements["augmentation_bf16"] = ratio(slow | {"bf16": seconds["batches in bf16"]})
    for which in ("intermediate", "pretraining"):
        measurements[f"{which}_memory"] = ratio(memory(arguments, which))
    seconds = two_processes(arguments, arguments.repeats)
    measurements["two_processes"] = ratio(seconds)
    report = {
        **environment(),
        "command": f"python recipes/benchmark_training.py {' '.join(sys.argv[1:])}".strip(),
        "data": "SST-2" if arguments.glue_dir else "the built-in task",
        "rows": arguments.rows,
        "measurements": measurements,
    }
    output = Path(arguments.output)
    write_json(output, report)
    write_text(output.with_suffix(".md"), render(report))
    print(output.with_suffix(".md").read_text())


if __name__ == "__main__":
    run_safely(main, "benchmark_training.py")
