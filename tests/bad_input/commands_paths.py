"""Lines whose names and paths mean nothing, mean something else, or would be overwritten or left."""

import json
from collections.abc import Callable
from typing import Any

from bad_input.cases import CommandCase, Place

KIND = "names, paths and secrets"
FOLDERS = "folders and interrupted work"
DATA = "--task_name sst2 --glue_dir {glue} --max_train_samples 16 --max_eval_samples 16 --use_cpu"
TASK = f"{DATA} --output_dir out"
FINETUNE = f"finetune {TASK} --model_name_or_path"
OF_TEACHER = f"--teacher_model_name_or_path {{teacher}} --model_name_or_path {{model}} {DATA} --output_dir"


def link(name: str, target: str) -> Callable[[Place], None]:
    return lambda place: (place.dir / name).symlink_to(getattr(place, target))


def task_named(task: str) -> Callable[[Place], None]:
    """Puts the teacher's record into the folder `runs`, under another task."""

    def prepare(place: Place) -> None:
        content: dict[str, Any] = json.loads((place.teacher / "results.json").read_text())
        (place.dir / "runs").mkdir()
        (place.dir / "runs" / "results.json").write_text(json.dumps(content | {"task": task}))

    return prepare


def bad_task(name: str, task: str) -> CommandCase:
    line, says = (
        "report --results_dir runs --output_dir out",
        r"results\.json is no results file: task is .*name files",
    )
    return CommandCase(KIND, name, line, says, prepare=task_named(task))


def same_folder(name: str, line: str, option: str, prepare: Callable[[Place], None] | None = None) -> CommandCase:
    return CommandCase(
        FOLDERS, name, line, rf"--output_dir .* is also {option}.*another --output_dir", prepare=prepare
    )


def not_writable(command: str, line: str) -> CommandCase:
    """A command whose output folder is a file."""
    name = f"the output folder of {command} is a file"
    return CommandCase(FOLDERS, name, line, r"Cannot write to taken.*choose another --output_dir", {"taken": ""})


CASES = [
    # Names of models.
    CommandCase(
        KIND, "a path that is not there", f"{FINETUNE} ./models/bert", r"there is no such folder\. Give the folder"
    ),
    CommandCase(KIND, "the end of a path is not there", f"{FINETUNE} {{dir}}/bert", r"no such folder \(.* is there\)"),
    CommandCase(KIND, "a path with three parts", f"{FINETUNE} outputs/kd/seed-1", r"there is no such folder"),
    CommandCase(KIND, "a folder with a slash at its end", f"{FINETUNE} teacher/", r"there is no such folder"),
    CommandCase(KIND, "a home that no shell filled in", f"{FINETUNE} '~/bert'", r"the shell fills in ~ only"),
    CommandCase(KIND, "a path of Windows", rf"{FINETUNE} 'C:\\models\\bert'", r"there is no such folder"),
    CommandCase(
        KIND,
        "a name of the hub without a network",
        f"{FINETUNE} bert-base-uncased",
        r"not in the cache, and HF_HUB_OFFLINE",
    ),
    CommandCase(
        KIND,
        "a user's model without a network",
        f"{FINETUNE} textattack/bert",
        r"no folder of that name, and as a name of",
    ),
    CommandCase(
        KIND,
        "a folder that is not there, where its parent is",
        f"{FINETUNE} runs/teacher",
        r"no folder of that name in runs, and as a name of",
        {"runs/notes.txt": ""},
    ),
    CommandCase(KIND, "a name with spaces", f"{FINETUNE} 'my model'", r"there is no folder of that name"),
    CommandCase(KIND, "no name at all", f"finetune {TASK}", r"Name the model with --model_name_or_path"),
    CommandCase(
        KIND,
        "a teacher that is not there",
        f"kd --model_name_or_path {{model}} --teacher_model_name_or_path ./t {TASK}",
        r"Cannot load the model './t': there is no such folder",
    ),
    CommandCase(
        KIND,
        "a tokenizer that is not there",
        f"{FINETUNE} {{model}} --tokenizer_name ./t",
        r"'\./t': there is no such folder",
    ),
    CommandCase(
        KIND,
        "a supernet that is not there",
        "extract --model_name_or_path ./s --output_dir out",
        r"'\./s': there is no such",
    ),
    CommandCase(
        KIND,
        "a model to shrink that is of the hub",
        f"shrink --model_name_or_path bert --share_layers 2 {TASK}",
        r"no folder of that name",
    ),
    CommandCase(
        KIND,
        "a model to submit that is not there",
        "submit --models sst2=./s --glue_dir {glue} --output_dir out",
        r"'\./s': there is no such",
    ),
    CommandCase(
        KIND,
        "word vectors that are not there",
        f"augment --augment_model {{model}} --augment_vectors v.txt {TASK}",
        r"no file of word vectors v\.txt",
    ),
    CommandCase(
        KIND, "a command that does not exist", "distil", r"there is no command distil.*did you mean distilbert"
    ),
    CommandCase(
        KIND,
        "settings that do not exist",
        "configs patient_kd/sst3",
        r"no such file, nor shipped settings.*bertkd configs",
    ),
    # Names that would become files elsewhere.
    bad_task("a task above the report", "../evil"),
    bad_task("a task with an absolute path", "/tmp/evil"),
    bad_task("a task that is a hidden file", ".ssh"),
    bad_task("a task over several lines", "sst2\n# evil"),
    bad_task("a task with markup", "<script>"),
    # Outputs that are inputs.
    same_folder(
        "a model is trained over itself",
        f"finetune --model_name_or_path {{model}} {DATA} --output_dir {{model}}",
        "--model_name_or_path",
    ),
    same_folder(
        "a student is written over its teacher", f"kd {OF_TEACHER} {{teacher}}", "--teacher_model_name_or_path"
    ),
    same_folder(
        "a link leads to the teacher", f"kd {OF_TEACHER} link", "--teacher_model_name_or_path", link("link", "teacher")
    ),
    same_folder(
        "another spelling of the teacher's folder", f"patient-kd {OF_TEACHER} {{teacher}}/../teacher", "--teacher"
    ),
    same_folder(
        "a sub-network is written over its supernet",
        "extract --model_name_or_path {supernet} --width 0.5 --output_dir {supernet}",
        "--model",
    ),
    same_folder(
        "the best size is written over its supernet",
        f"search --budget 9 --model_name_or_path {{supernet}} {DATA} --output_dir {{supernet}}",
        "--model",
    ),
    same_folder(
        "an export is written over its model",
        f"export --model_name_or_path {{teacher}} {DATA} --output_dir {{teacher}}",
        "--model",
    ),
    same_folder(
        "a model is shrunk over itself",
        f"shrink --share_layers 2 --model_name_or_path {{teacher}} {DATA} --output_dir {{teacher}}",
        "--model",
    ),
    same_folder(
        "a teacher is compressed over itself",
        f"compress --budget 9 --teacher_model_name_or_path {{teacher}} {DATA} --output_dir {{teacher}}",
        "--teacher",
    ),
    same_folder("a dry run over the model", f"kd {OF_TEACHER} {{model}} --dry_run", "--model_name_or_path"),
    CommandCase(
        FOLDERS,
        "augmented rows are written over the rows",
        "augment --augment_model {model} --train_file out/train.parquet --output_dir out",
        r"out/train\.parquet is also --train_file",
        {"out/train.parquet": "PAR1"},
    ),
    # Outputs that cannot be written.
    not_writable("finetune", f"finetune --model_name_or_path {{model}} {DATA} --output_dir taken"),
    not_writable("kd", f"kd {OF_TEACHER} taken/deeper"),
    not_writable("mlm", "mlm --model_name_or_path {model} --corpus_files taken --use_cpu --output_dir taken"),
    not_writable("extract", "extract --model_name_or_path {supernet} --output_dir taken"),
    not_writable("search", f"search --budget 9 --model_name_or_path {{supernet}} {DATA} --output_dir taken"),
    not_writable("shrink", f"shrink --share_layers 2 --model_name_or_path {{teacher}} {DATA} --output_dir taken"),
    not_writable("export", f"export --model_name_or_path {{teacher}} {DATA} --output_dir taken"),
    not_writable(
        "compress", f"compress --budget 9 --teacher_model_name_or_path {{teacher}} {DATA} --output_dir taken"
    ),
    not_writable("augment", f"augment --augment_model {{model}} {DATA} --output_dir taken"),
    not_writable("report", "report --results_dir {teacher} --output_dir taken"),
    not_writable("bench", "bench {teacher} --output_dir taken"),
    not_writable("submit", "submit --models sst2={teacher} --glue_dir {glue} --output_dir taken"),
    not_writable("demo", "demo --output_dir taken"),
    # Work that an earlier start left.
    CommandCase(
        FOLDERS,
        "a stage whose supernet is not trained",
        f"dynabert --teacher_model_name_or_path {{teacher}} --stages finetune {TASK}",
        r"Stage depth is not done in out: run it first",
    ),
    CommandCase(
        FOLDERS,
        "a prediction without its intermediate stage",
        f"tinybert --teacher_model_name_or_path {{teacher}} --ignore_weak_teacher --augment false --stages prediction "
        f"--init_from teacher {TASK}",
        r"Stage intermediate is not done in",
    ),
]
