"""Run everything behind docs/results: MiniLM as teacher, three-layer students of every method, DynaBERT.

    python benchmarks/reproduce.py --glue_dir ../shared/data/glue --tasks stsb rte --methods kd pkd-skip --grid stsb

Each step is a command that stands alone, so that anybody can repeat a single result, and is printed before it runs.
What is done is not done again, so a killed run goes on when it is started once more; results are copied to
docs/results/ as they come. A GPU has room for several steps at a time: --precision=--bf16 --jobs 8.
"""

import argparse
import dataclasses
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
WORK = Path("outputs/results")
RESULTS = Path("docs/results/minilm")
TEXT = "text"  # in the place of a task
MINILM = ["--model_name_or_path", "minilm"]
IMDB = "imdb"  # from files beside the GLUE folder, which are sorted by label
SEEDS = ("42", "43", "44")
# MiniLM wants a higher learning rate than BERT-base. The students' rate was chosen on the fine-tuned one (STS-B, one
# seed, against 1e-4), so that the baseline is strong; every student has the same budget.
TEACHER = {
    "sst2": {"learning_rate": "1e-4", "num_train_epochs": "2"},
    "stsb": {"learning_rate": "1e-4", "num_train_epochs": "5"},
    "mrpc": {"learning_rate": "1e-4", "num_train_epochs": "5"},
    "cola": {"learning_rate": "1e-4", "num_train_epochs": "5"},
    "rte": {"learning_rate": "1e-4", "num_train_epochs": "5", "per_device_train_batch_size": "16"},
    IMDB: {"learning_rate": "1e-4", "num_train_epochs": "2", "max_seq_length": "256"},
}
STUDENT = {
    "sst2": {"learning_rate": "2e-4", "num_train_epochs": "2"},
    "rte": {"learning_rate": "2e-4", "num_train_epochs": "5", "per_device_train_batch_size": "16"},
    IMDB: {"learning_rate": "2e-4", "num_train_epochs": "2", "max_seq_length": "256"},
}
STUDENT_DEFAULT = {"learning_rate": "2e-4", "num_train_epochs": "5"}
# One seed of DynaBERT, which runs four to twelve networks on each batch: short stages, and of SST-2 the first 20,000
# rows. The ablation is of the stage that makes the widths, as in the paper.
DYNABERT = {"learning_rate": "1e-4"}
DYNABERT_EPOCHS = {("width",): "2", ("depth", "finetune"): "1"}
DYNABERT_LIMITS = {"sst2": {"max_train_samples": "20000", "num_train_epochs": "1"}}
DYNABERTS = {"dynabert": [], "dynabert-unwired": ["--no_rewire"], "dynabert-nokd": ["--alpha", "0"]}
# The text: all of WikiText-2's here, then reviews.
MLM = {
    "max_seq_length": "256",
    "learning_rate": "5e-4",
    "num_train_epochs": "3",
    "per_device_train_batch_size": "64",
}
GENERAL = {
    "max_corpus_rows": "12000",
    "learning_rate": "1e-3",
    "num_train_epochs": "1",
    "per_device_train_batch_size": "32",
}
# TinyBERT: a student of half the width and depth. One copy and few epochs where the paper has 20 to 30 of each, hence
# higher learning rates; of SST-2 the first 10,000 rows.
TINYBERT_SHAPE = {"num_hidden_layers": "3", "hidden_size": "192", "intermediate_size": "768"}
TINYBERT = {
    "intermediate_num_train_epochs": "3",
    "intermediate_learning_rate": "5e-4",
    "num_train_epochs": "3",
    "learning_rate": "2e-4",
    "augment_copies": "1",
}
TINYBERT_LIMITS = {"sst2": {"max_train_samples": "10000"}}
GENERAL_START = ["--model_name_or_path", str(WORK / TEXT / "general")]
TINYBERTS = {
    "tinybert": GENERAL_START,
    "tinybert-nogd": [],
    "tinybert-noda": [*GENERAL_START, "--no_augment"],
    "tinybert-noattn": [*GENERAL_START, "--attention_weight", "0"],
    "tinybert-nohidn": [*GENERAL_START, "--hidden_weight", "0"],
}
# What the Patient-KD paper searches.
GRID = {"alpha": ("0.2", "0.5", "0.7"), "temperature": ("5", "10", "20"), "beta": ("10", "100", "500", "1000")}
# DistilBERT: three layers pretrained on half of the text, one seed; then fine-tuned, alone or with the second step.
# The ablations leave out parts of pretraining's loss.
DISTILBERT = {"max_corpus_rows": "33000", "max_seq_length": "256", "num_train_epochs": "1", "learning_rate": "5e-4"}
DISTILBERTS = {
    "distilbert": [],
    "distilbert-mlm": ["--alpha_ce", "0", "--alpha_cos", "0"],
    "distilbert-noce": ["--alpha_ce", "0"],
    "distilbert-nocos": ["--alpha_cos", "0"],
    "distilbert-nomlm": ["--alpha_mlm", "0"],
    "distilbert-random": ["--random_start"],
}
SECOND_STEP = "distilbert-kd"
# Of the released code, which has one for SQuAD.
SECOND_STEP_LOSS = {"alpha": "0.5", "temperature": "2"}
LAYER_DROPPED = ("finetuned", "kd", "pkd-skip", "pkd-last")
EXPORTED = (*LAYER_DROPPED, "tinybert", "distilbert", SECOND_STEP)
METHODS = (*LAYER_DROPPED, *DYNABERTS, *TINYBERTS, *DISTILBERTS, SECOND_STEP)
# What leaves a part of its method out: one seed, in tables of their own.
ABLATIONS = {*TINYBERTS, *DISTILBERTS} - {"tinybert", "distilbert", "distilbert-mlm"}
# RTE's teacher is too weak for twelve sizes to tell anything; the ablations run where a student is above chance.
SKIPPED = {("rte", method) for method in DYNABERTS}
SKIPPED |= {(task, f"dynabert-{what}") for task in ("mrpc", "sst2") for what in ("unwired", "nokd")}
SKIPPED |= {(task, method) for task in ("mrpc", "rte") for method in ABLATIONS}
SKIPPED |= {("cola", method) for method in ABLATIONS & {*DISTILBERTS}}
SKIPPED |= {(IMDB, method) for method in {*METHODS} - {"distilbert", "distilbert-mlm", SECOND_STEP}}


@dataclass
class Step:
    """One command, and where its results go: `method` names its folder and its files."""

    task: str
    method: str
    seeds: tuple[str, ...]
    command: list[str]
    results: Path = RESULTS
    stages: tuple[str, ...] = ()
    is_export: bool = False

    @property
    def folder(self) -> Path:
        return WORK / self.task / self.method

    def files(self) -> Iterator[tuple[Path, Path]]:
        """Pairs (what the recipe writes, what is committed)."""
        for seed in self.seeds:
            source = self.folder if len(self.seeds) == 1 else self.folder / f"seed-{seed}"
            if self.task == TEXT:
                yield source / "training.json", self.results / self.task / f"{self.method}.training.json"
                continue
            if self.is_export:
                target = self.results / self.task / f"{self.method}-seed{seed}.export_result.json"
                yield source / "export_result.json", target
                continue
            if not self.stages:
                yield source / "results.json", self.results / self.task / f"{self.method}-seed{seed}.json"
            for stage in self.stages:
                target = f"{self.method.replace('dynabert', f'dynabert-{stage}')}-seed{seed}.json"
                yield source / stage / "results.json", self.results / self.task / target

    def builds_on(self, other: "Step") -> bool:
        """Whether the command reads the other's folder, or goes on in it."""
        return any(Path(word).is_relative_to(other.folder) for word in self.command if "/" in word)

    @property
    def is_done(self) -> bool:
        is_start = self.method == "teacher" or self.task == TEXT
        has_model = not is_start or (self.folder / "model.safetensors").is_file()
        return has_model and all((ROOT / target).is_file() for _, target in self.files())


def steps(tasks: Sequence[str], methods: Sequence[str], glue_dir: str, precision: str) -> Iterator[Step]:
    """What is learned from text first; then each task's teacher and its students."""
    used = [method for method in methods if any((task, method) not in SKIPPED for task in tasks)]
    yield from text_steps(used, glue_dir, precision)
    for task in tasks:
        data = [*_data(task, glue_dir), *shlex.split(precision)]
        teacher = ["recipes/finetune_teacher.py", *data, *MINILM, *_options(TEACHER[task])]
        yield _step(task, "teacher", _seeds(task, "teacher"), teacher)
        for method in methods:
            if (task, method) in SKIPPED:
                continue
            if method in DYNABERTS:
                yield from _dynabert_steps(task, method, data)
                continue
            results = RESULTS / "ablation" if method in ABLATIONS else RESULTS
            yield _step(task, method, _seeds(task, method), _student_command(task, method, data), results)


def text_steps(methods: Sequence[str], glue_dir: str, precision: str) -> Iterator[Step]:
    """What the methods need of the text beside the GLUE files: a head for masked words on MiniLM, general students."""
    data = Path(glue_dir).parent
    files = [str(data / "wikitext-2"), str(data / "imdb" / "unsupervised.parquet")]
    common = ["--corpus_files", *files, *shlex.split(precision)]
    pretrained = [name for name in DISTILBERTS if name in methods or (name == "distilbert" and SECOND_STEP in methods)]
    if pretrained or set(methods) & set(TINYBERTS):
        yield _step(TEXT, "mlm", ("42",), ["recipes/train_mlm.py", *MINILM, *common, *_options(MLM)])
    if set(methods) & set(TINYBERTS):
        teacher = ["--teacher_model_name_or_path", "minilm", *_options(TINYBERT_SHAPE)]
        general = ["recipes/tinybert_general.py", *teacher, *common, *_options(GENERAL)]
        yield _step(TEXT, "general", ("42",), general)
    for name in pretrained:
        config = ["recipes/distilbert_pretrain.py", "--config", "recipes/configs/distilbert/small.yaml", *common]
        teacher = ["--teacher_model_name_or_path", str(WORK / TEXT / "mlm"), *_options(DISTILBERT)]
        yield _step(TEXT, name, ("42",), [*config, *teacher, *DISTILBERTS[name]])


def grid_steps(task: str, glue_dir: str, precision: str) -> Iterator[Step]:
    """PKD-skip with one seed, alpha, T and beta varied one at a time around the task's setting."""
    data = [*_data(task, glue_dir), *shlex.split(precision)]
    settings = yaml.safe_load((ROOT / f"recipes/configs/patient_kd/{task}.yaml").read_text())
    tried = set()
    for name, values in GRID.items():
        if name == "temperature" and task == "stsb":
            continue  # a score has no softmax
        for value in values:
            point = {key: float(settings[key]) for key in GRID} | {name: float(value)}
            if tuple(point.values()) not in tried:  # the task's own setting is a point of every line
                tried.add(tuple(point.values()))
                command = [*_student_command(task, "pkd-skip", data), f"--{name}", value]
                yield _step(task, f"pkd-skip-{name}{value}", ("42",), command, RESULTS / "grid")


def export_steps(task: str, methods: Sequence[str], glue_dir: str) -> Iterator[Step]:
    """Teacher and students, seed 42, as OpenVINO runs them in int8: the accuracy that is lost, the speed gained."""
    for method in ("teacher", *(one for one in methods if one in EXPORTED and (task, one) not in SKIPPED)):
        made = WORK / task / method
        made = made / "seed-42" if len(_seeds(task, method)) > 1 else made
        data = [*_data(task, glue_dir), "--use_cpu"]
        command = ["recipes/export.py", *data, *_teacher(task), "--model_name_or_path", str(made)]
        step = _step(
            task, f"{method}-openvino-int8", ("42",), [*command, "--engine", "openvino", "--precision", "int8"]
        )
        yield dataclasses.replace(step, is_export=True)


def _dynabert_steps(task: str, method: str, data: list[str]) -> Iterator[Step]:
    config = [
        "recipes/dynabert.py",
        "--config",
        f"recipes/configs/dynabert/{task}.yaml",
        *_teacher(task),
        *data,
        *MINILM,
    ]
    for stages, epochs in DYNABERT_EPOCHS.items():
        if method == "dynabert" or stages == ("width",):
            options = DYNABERT | {"num_train_epochs": epochs} | DYNABERT_LIMITS.get(task, {})
            step = _step(task, method, ("42",), [*config, *_options(options), *DYNABERTS[method], "--stages", *stages])
            yield dataclasses.replace(step, stages=stages)


def _seeds(task: str, method: str) -> tuple[str, ...]:
    """Several where a run is short enough."""
    return SEEDS[:1] if method == "teacher" or (task == "sst2" and method in TINYBERTS) else SEEDS


def _data(task: str, glue_dir: str) -> list[str]:
    """Where a task's rows are, and which of them."""
    if task != IMDB:
        return ["--task_name", task, "--glue_dir", glue_dir]
    folder = Path(glue_dir).parent / IMDB
    files = ["--train_file", str(folder / "train.parquet"), "--validation_file", str(folder / "test.parquet")]
    return [*files, "--files_name", IMDB]


def _teacher(task: str) -> list[str]:
    return ["--teacher_model_name_or_path", str(WORK / task / "teacher")]


def _student_command(task: str, method: str, data: list[str]) -> list[str]:
    teacher = _teacher(task)
    if method in TINYBERTS:
        config = ["recipes/tinybert.py", *teacher, *data, *_options(TINYBERT_SHAPE)]
        shared = ["--augment_model", str(WORK / TEXT / "mlm"), "--augment_dir", str(WORK / task / "augmented")]
        shared += ["--teacher_cache_dir", str(WORK / task / "cache")]
        return [*config, *shared, *_options(TINYBERT | TINYBERT_LIMITS.get(task, {})), *TINYBERTS[method]]
    budget = STUDENT.get(task, STUDENT_DEFAULT)
    if method in DISTILBERTS or method == SECOND_STEP:
        name = "distilbert" if method == SECOND_STEP else method
        start = ["--model_name_or_path", str(WORK / TEXT / name), "--result_name", method, *data, *_options(budget)]
        if method in DISTILBERTS:
            return ["recipes/finetune_teacher.py", *start]
        return ["recipes/kd.py", *teacher, *start, *_options(SECOND_STEP_LOSS)]
    options = [*data, *MINILM, "--num_student_layers", "3", *_options(budget)]
    if method == "finetuned":
        return ["recipes/finetune_teacher.py", *options]
    teacher += ["--teacher_cache_dir", str(WORK / task / "cache")]
    if method == "kd":
        return ["recipes/kd.py", "--config", f"recipes/configs/kd/{task}.yaml", *teacher, *options]
    strategy = ["--strategy", method.removeprefix("pkd-")]
    return [
        "recipes/patient_kd.py",
        "--config",
        f"recipes/configs/patient_kd/{task}.yaml",
        *teacher,
        *options,
        *strategy,
    ]


def _options(values: dict[str, str]) -> list[str]:
    return [word for name, value in values.items() for word in (f"--{name}", value)]


def _step(task: str, method: str, seeds: tuple[str, ...], command: list[str], results: Path = RESULTS) -> Step:
    step = Step(task, method, seeds, [], results)
    step.command = [*command, "--seed", *seeds, "--output_dir", str(step.folder)]
    return step


def run_all(wanted: Sequence[Step], jobs: int) -> None:
    """Run the steps that are not done, up to `jobs` at a time, each after the earlier ones that it builds on.

    Where a step fails, those that build on it are left out, and the others go on.

    Raises:
        RuntimeError: at the end, naming the steps that failed.
    """
    waiting, running, failed = list(wanted), dict[Future[None], Step](), list[Step]()
    with ThreadPoolExecutor(jobs) as pool:
        while waiting or running:
            for step in next_steps(waiting, [*running.values()], jobs):
                waiting.remove(step)
                running[pool.submit(run_step, step)] = step
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step = running.pop(future)
                if (error := future.exception()) is not None:
                    print(f"{step.folder} failed: {error}", file=sys.stderr, flush=True)
                    failed.append(step)
                    waiting = without(waiting, step)
    if failed:
        names = ", ".join(str(step.folder) for step in failed)
        raise RuntimeError(f"These steps failed, and what builds on them was not run: {names}.")


def without(waiting: Sequence[Step], lost: Step) -> list[Step]:
    """The steps that do not build on a lost one, nor on what does."""
    gone, kept = [lost], list[Step]()
    for step in waiting:
        (gone if any(step.builds_on(one) for one in gone) else kept).append(step)
    return kept


def next_steps(waiting: Sequence[Step], running: Sequence[Step], jobs: int) -> list[Step]:
    """The first waiting steps that build on nothing that runs or waits before them, as many as there is room for."""
    found: list[Step] = []
    for place, step in enumerate(waiting):
        if len(running) + len(found) < jobs and not any(
            step.builds_on(earlier) for earlier in (*running, *waiting[:place])
        ):
            found.append(step)
    return found


def run_step(step: Step) -> None:
    """Run a step that is not done, and keep its results."""
    print(f"\n$ python {shlex.join(step.command)}{'  # done' if step.is_done else ''}", flush=True)
    if step.is_done:
        return
    subprocess.run([sys.executable, *step.command], cwd=ROOT, check=True)
    for source, target in step.files():
        (ROOT / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, ROOT / target)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--glue_dir", required=True)
    parser.add_argument("--tasks", nargs="+", default=list(TEACHER), choices=list(TEACHER))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--grid", nargs="*", default=[], choices=list(TEACHER), help="Also search settings on these.")
    parser.add_argument("--exports", nargs="*", default=[], choices=list(TEACHER), help="Also export these to int8.")
    parser.add_argument("--precision", default="--bf16 --use_cpu", help="Options of the Trainer, '' for float32.")
    parser.add_argument("--jobs", type=int, default=1, help="Steps at a time, on one device.")
    parser.add_argument("--dry_run", action="store_true", help="Only print the commands.")
    arguments = parser.parse_args()
    wanted = [*steps(arguments.tasks, arguments.methods, arguments.glue_dir, arguments.precision)]
    for task in arguments.grid:
        wanted += grid_steps(task, arguments.glue_dir, arguments.precision)
    for task in arguments.exports:
        wanted += export_steps(task, arguments.methods, arguments.glue_dir)
    if not arguments.dry_run:
        try:
            run_all(wanted, arguments.jobs)
        except RuntimeError as error:
            sys.exit(f"reproduce.py: {error}")
        return
    for step in wanted:
        print(f"\n$ python {shlex.join(step.command)}{'  # done' if step.is_done else ''}")


if __name__ == "__main__":
    main()
