"""Lines whose folder is taken, is also an input, cannot be written to, or holds something else."""

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from bad_input.cases import CommandCase, Kind, Place
from bertkd import DistilBertKDConfig, DistillationConfig, TinyBertKDConfig
from bertkd.cli.commands import CORPUS_DEFAULTS
from bertkd.cli.mlm import MaskedLMOptions
from bertkd.cli.options import CorpusOptions, TrainOptions
from bertkd.cli.parser import parse_runs
from bertkd.cli.tinybert import TinyBertOptions
from bertkd.pipeline.experiment import start_in_folder
from bertkd.records import RunResult, StageResult

KIND: Kind = "folders and interrupted work"
ROWS = {
    "train.csv": "text,label\ngood,1\nbad,0\nfine,1\npoor,0\n",
    "dev.csv": "text,label\ngood,1\nbad,0\n",
}
MODELS = (
    "--model_name_or_path {dir}/student --teacher_model_name_or_path {dir}/teacher --ignore_weak_teacher --use_cpu"
)
SHARED_MODELS = "--model_name_or_path {model} --teacher_model_name_or_path {teacher} --ignore_weak_teacher --use_cpu"
FILES = "--train_file {dir}/train.csv --validation_file {dir}/dev.csv"
GLUE = "--task_name sst2 --glue_dir {glue} --max_train_samples 8 --max_eval_samples 8"
KD = f"kd {MODELS} {FILES} --output_dir {{dir}}/out"
KD_GLUE = f"kd {MODELS} --task_name sst2 --glue_dir {{dir}}/glue --output_dir {{dir}}/out"
MLM = "mlm --model_name_or_path {model} --corpus_files {dir}/corpus.txt --use_cpu --output_dir {dir}/out"
VECTORS = (
    f"tinybert {MODELS} {FILES} --augment_model {{model}} --augment_vectors {{dir}}/glove.txt --output_dir {{dir}}/out"
)
EXPORT = f"export {GLUE} --engine pytorch --precision float32"
WEAK = "--ignore_weak_teacher --use_cpu"

# Processes that hold a folder. They end when this one does, which closes their input.
HOLDERS: list[subprocess.Popen] = []
HOLDER = """
import fcntl, json, os, sys
file = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)
fcntl.lockf(file, fcntl.LOCK_EX)
holder = {"process": os.getpid(), "host": "elsewhere", "since": "today", "command": "bertkd kd --alpha 1"}
os.write(file, json.dumps(holder).encode())
print("held", flush=True)
sys.stdin.read()
"""


def finished_before(line: str, change: Callable[[Place], Any]) -> Callable[[Place], None]:
    """Lets a line look finished, and then changes something."""

    def prepare(place: Place) -> None:
        shutil.copytree(place.model, place.dir / "student")
        shutil.copytree(place.teacher, place.dir / "teacher", ignore=shutil.ignore_patterns("results.json"))
        shutil.copytree(place.glue, place.dir / "glue")

        command, *words = shlex.split(place.filled(line))
        if command == "mlm":
            defaults = {**CORPUS_DEFAULTS, "alpha_ce": 0.0, "alpha_mlm": 1.0, "alpha_cos": 0.0, "mlm_smoothing": 0.0}
            defaults["corpus_mode"] = "block"
            types: Any = (DistilBertKDConfig, words, defaults, MaskedLMOptions, CorpusOptions)
        elif command == "tinybert":
            types = (TinyBertKDConfig, words, None, TinyBertOptions)
        else:
            types = (DistillationConfig, words, None, TrainOptions)
        (run,) = parse_runs(command, "", *types)

        start_in_folder(run.experiment(), run.config)
        record = StageResult.FILE if command == "mlm" else RunResult.FILE
        (place.dir / "out" / record).write_text("{}")
        change(place)

    return prepare


def appended(name: str, text: str = "\n") -> Callable[[Place], Any]:
    """Appends to a file in the case's folder."""

    def change(place: Place) -> None:
        with (place.dir / name).open("a") as file:
            file.write(text)

    return change


def replaced(name: str, old: str, new: str) -> Callable[[Place], Any]:
    """Edits a file in the case's folder."""

    def change(place: Place) -> None:
        path = place.dir / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return change


def held(name: str = "out") -> Callable[[Place], None]:
    """Lets another process hold a folder."""

    def prepare(place: Place) -> None:
        (place.dir / name).mkdir()
        lock = str(place.dir / name / "_in_use")
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
        HOLDERS.append(holder)

    return prepare


def copied(source: str, name: str) -> Callable[[Place], Any]:
    """Copies one of the shared models into the case's folder."""
    return lambda place: shutil.copytree(getattr(place, source), place.dir / name)


def torn_checkpoints(place: Place) -> None:
    """Lets a training look as if it had been killed while it wrote its only checkpoint."""
    checkpoint = place.dir / "out" / "checkpoint-1"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer_state.json").write_text('{"global_')


def case(name: str, line: str, says: str, **more: Any) -> CommandCase:
    return CommandCase(KIND, name, line, says, **more)


def edited(name: str, says: str, change: Callable[[Place], Any], line: str = KD, **files: str) -> CommandCase:
    """A finished training, of which something was changed before the same line was typed again."""
    return case(
        name,
        line,
        says,
        files={**ROWS, **files},
        prepare=finished_before(line, change),
    )


CASES = [
    # What changes the result.
    edited(
        "the rows of a finished training were edited",
        r"train_file .*train\.csv no longer holds",
        appended("train.csv", "new,1\n"),
    ),
    edited(
        "the rows that a finished training was measured on were edited",
        r"validation_file .* no longer holds",
        appended("dev.csv", "new,1\n"),
    ),
    edited(
        "one label of a finished training was corrected",
        r"other settings \(train_file .* no longer holds what it held then\): choose another --output_dir",
        replaced("train.csv", "poor,0", "poor,1"),
    ),
    edited(
        "the teacher of a finished training was replaced",
        r"other settings \(teacher_model_name_or_path .* no longer holds",
        lambda place: shutil.copy(place.model / "model.safetensors", place.dir / "teacher" / "model.safetensors"),
    ),
    edited(
        "the labels of the teacher of a finished training were renamed",
        r"teacher_model_name_or_path .* no longer holds",
        replaced("teacher/config.json", "positive", "pos"),
    ),
    edited(
        "the tokenizer of the teacher of a finished training was edited",
        r"teacher_model_name_or_path .* no longer holds",
        appended("teacher/tokenizer.json"),
    ),
    edited(
        "the checkpoint that a finished student started from was replaced",
        r"other settings \(model_name_or_path .* no longer holds",
        lambda place: shutil.copy(place.teacher / "model.safetensors", place.dir / "student" / "model.safetensors"),
    ),
    edited(
        "a GLUE file was edited after the training",
        r"glue_dir .* no longer holds",
        appended("glue/SST-2/train.tsv", "x\t1\n"),
        KD_GLUE,
    ),
    edited(
        "GLUE's dev file was edited after the training",
        r"glue_dir .* no longer holds",
        appended("glue/SST-2/dev.tsv", "x\t1\n"),
        KD_GLUE,
    ),
    edited(
        "a corpus was edited after the training",
        r"corpus_files .* no longer holds",
        appended("corpus.txt"),
        MLM,
        **{"corpus.txt": "good\nbad\n"},
    ),
    edited(
        "word vectors were edited after the training",
        r"augment_vectors .* no longer holds",
        appended("glove.txt", "bad 0 1\n"),
        VECTORS,
        **{"glove.txt": "good 1 0\n"},
    ),
    case(
        "a finished training is asked for with another weight",
        f"{KD} --alpha 0.9",
        r"other settings \(alpha was 0\.5 and is 0\.9\): choose another --output_dir",
        files=ROWS,
        prepare=finished_before(KD, lambda place: None),
    ),
    case(
        "a finished training is asked for with another seed",
        f"{KD} --seed 7",
        r"other settings \(seed was 42 and is 7\)",
        files=ROWS,
        prepare=finished_before(KD, lambda place: None),
    ),
    # Damaged folders.
    edited(
        "settings.json was cut short",
        r"settings\.json is damaged.*choose another --output_dir",
        lambda place: (place.dir / "out" / "settings.json").write_text('{"alp'),
    ),
    edited(
        "settings.json is not a table",
        r"settings\.json is damaged",
        lambda place: (place.dir / "out" / "settings.json").write_text("[]"),
    ),
    edited(
        "settings.json was removed",
        r"no settings\.json that says which one",
        lambda place: (place.dir / "out" / "settings.json").unlink(),
    ),
    case(
        "checkpoints of another program",
        f"kd {SHARED_MODELS} {GLUE} --output_dir {{dir}}/out",
        r"holds a training, but no settings\.json that says which one: choose another --output_dir",
        files={"out/checkpoint-5/trainer_state.json": json.dumps({"global_step": 5})},
    ),
    # One writer per folder.
    case(
        "a training in a folder that another process uses",
        f"kd {SHARED_MODELS} {GLUE} --output_dir {{dir}}/out",
        r"out is in use by process \d+ on elsewhere since today, which runs `bertkd kd --alpha 1`: wait until",
        prepare=held(),
    ),
    case(
        "an export to a folder that another process uses",
        f"{EXPORT} --model_name_or_path {{teacher}} --output_dir {{dir}}/out",
        r"out is in use by process \d+ .* or choose another output folder",
        prepare=held(),
    ),
    case(
        "an extraction to a folder that another process uses",
        "extract --model_name_or_path {supernet} --output_dir {dir}/out",
        r"out is in use by process \d+",
        prepare=held(),
    ),
    case(
        "an augmentation to a folder that another process uses",
        f"augment {GLUE} --augment_model {{model}} --output_dir {{dir}}/out",
        r"out is in use by process \d+",
        prepare=held(),
    ),
    case(
        "a compression to a folder that another process uses",
        f"compress --teacher_model_name_or_path {{teacher}} {GLUE} --budget 1 --unit mb --output_dir {{dir}}/out",
        r"out is in use by process \d+",
        prepare=held(),
    ),
    # The output is an input.
    case(
        "a sub-network takes its supernet's place",
        "extract --model_name_or_path {dir}/net --output_dir {dir}/net",
        r"--output_dir .*net is also --model_name_or_path, which would be overwritten: choose another",
        prepare=copied("supernet", "net"),
    ),
    case(
        "an export takes its model's place",
        f"{EXPORT} --model_name_or_path {{dir}}/net --output_dir {{dir}}/net/../net",
        r"is also --model_name_or_path, which would be overwritten",
        prepare=copied("teacher", "net"),
    ),
    case(
        "an export would remove its model",
        f"{EXPORT} --model_name_or_path {{dir}}/all/net --output_dir {{dir}}/all",
        r"--model_name_or_path .* lies in --output_dir .*, where it would be removed",
        prepare=copied("teacher", "all/net"),
    ),
    case(
        "a student takes its teacher's place",
        f"kd --init_from teacher --teacher_model_name_or_path {{dir}}/net {WEAK} {GLUE} --output_dir {{dir}}/net",
        r"is also --teacher_model_name_or_path, which would be overwritten",
        prepare=copied("teacher", "net"),
    ),
    case(
        "a fine-tuned model takes the place of its start",
        f"finetune --model_name_or_path {{dir}}/net --use_cpu {GLUE} --output_dir {{dir}}/net",
        r"is also --model_name_or_path",
        prepare=copied("model", "net"),
    ),
    case(
        "a student starts from a checkpoint that its own training removes",
        f"finetune --model_name_or_path {{dir}}/run/checkpoint-5 --use_cpu {GLUE} --output_dir {{dir}}/run",
        r"--model_name_or_path .*checkpoint-5 lies in --output_dir .*run, where it would be removed",
        prepare=copied("model", "run/checkpoint-5"),
    ),
    case(
        "a search takes its supernet's place",
        f"search --model_name_or_path {{dir}}/net {GLUE} --budget 1 --unit mb --output_dir {{dir}}/net",
        r"is also --model_name_or_path",
        prepare=copied("supernet", "net"),
    ),
    case(
        "augmented rows take the place of the rows",
        "augment --train_file {dir}/out/train.parquet --augment_model {model} --output_dir {dir}/out",
        r"train\.parquet is also --train_file, which would be overwritten",
        files={"out/train.parquet": b"", **ROWS},
    ),
    # The output is another training.
    case(
        "a sub-network takes a training's place",
        "extract --model_name_or_path {supernet} --output_dir {dir}/out",
        r"out holds a training, whose model would be replaced: choose another --output_dir",
        files={"out/settings.json": "{}"},
    ),
    case(
        "a search takes a training's place",
        f"search --model_name_or_path {{supernet}} {GLUE} --budget 1 --unit mb --output_dir {{dir}}/out",
        r"out holds a training, whose model would be replaced",
        files={"out/settings.json": "{}"},
    ),
    case(
        "a shrunk model takes a training's place",
        f"shrink --model_name_or_path {{teacher}} {GLUE} --ffn_rank 4 --output_dir {{dir}}/out",
        r"out holds a training, whose model would be replaced",
        files={"out/checkpoint-5/trainer_state.json": json.dumps({"global_step": 5})},
    ),
    # Folders that cannot be written to.
    case(
        "the output folder is a file",
        f"kd {SHARED_MODELS} {GLUE} --output_dir {{dir}}/out",
        r"Cannot write to .*out \(File exists\): choose another",
        files={"out": ""},
    ),
    case(
        "the output folder lies in a file",
        "extract --model_name_or_path {supernet} --output_dir {dir}/file/out",
        r"Cannot write to .*out \(Not a directory\): choose another",
        files={"file": ""},
    ),
    case(
        "the output folder lies where nothing can be written",
        f"augment {GLUE} --augment_model {{model}} --output_dir /proc/out",
        r"Cannot write to /proc/out \(.*\): choose another --output_dir",
    ),
    case(
        "the name of the output folder is too long",
        f"finetune --model_name_or_path {{model}} --use_cpu {GLUE} --output_dir {{dir}}/{'x' * 300}",
        r"Cannot write to .*x \(File name too long\): choose another --output_dir",
    ),
    case(
        "an export to a folder that holds something else",
        f"{EXPORT} --model_name_or_path {{teacher}} --output_dir {{dir}}/out",
        r"out holds notes\.txt and no export\.json: all of it would be replaced. Choose another folder",
        files={"out/notes.txt": "mine"},
    ),
    case(
        "the folder of the teacher's cache is a file",
        f"kd {SHARED_MODELS} {GLUE} --max_steps 1 --teacher_cache_dir {{dir}}/cache --output_dir {{dir}}/out",
        r"Cannot write to .*cache \(File exists\): choose another teacher_cache_dir",
        files={"cache": ""},
    ),
    # Interrupted work.
    case(
        "the only checkpoint was torn by a kill",
        f"kd {SHARED_MODELS} {GLUE} --max_steps 1 --output_dir {{dir}}/out",
        r"checkpoint-1 has no readable trainer_state\.json: it is passed over",
        prepare=torn_checkpoints,
        ends="named",
    ),
    case(
        "a stage whose earlier one is not done",
        f"dynabert --teacher_model_name_or_path {{teacher}} {WEAK} {GLUE} --stages depth --output_dir {{dir}}/out",
        r"Stage width is not done in .*out: run it first, with --stages width or without",
    ),
]
