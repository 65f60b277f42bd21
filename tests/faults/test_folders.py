"""One writer per folder, folders that belong to contents, and files that appear whole, one piece at a time."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bertkd.atomic import atomic_folder, atomic_path, atomic_replacement, storage_problem, write_text
from bertkd.cli import kd, main
from bertkd.folder_lock import LOCK_FILE, folder_in_use, has_dead_holder
from bertkd.pipeline.contents import content_digests
from bertkd.pipeline.folders import check_not_input

PACKAGE = Path(__file__).parents[2] / "bertkd"
# Without the package itself, which takes long to import.
IMPORTED = "import sys; sys.path.insert(0, sys.argv[2]); from folder_lock import folder_in_use"
HOLDER = f"""
{IMPORTED}
with folder_in_use(sys.argv[1], "bertkd kd --alpha 1"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Any:
    """Another process that has taken the folder `out`."""
    command = [sys.executable, "-c", HOLDER, str(tmp_path / "out"), str(PACKAGE)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline() == b"held\n"
    yield process
    process.kill()
    process.wait()


# ---- one writer per folder ----


def test_a_second_process_is_told_which_one_holds_a_folder(holder: Any, tmp_path: Path) -> None:
    said = f"out is in use by process {holder.pid} on .* since .*, which runs `bertkd kd --alpha 1`: wait until"
    with pytest.raises(OSError, match=said), folder_in_use(tmp_path / "out"):
        pass
    # The refused process leaves the lock to the one that has it.
    assert not has_dead_holder(tmp_path / "out") and (tmp_path / "out" / LOCK_FILE).is_file()


def test_the_lock_of_a_dead_process_does_not_block(holder: Any, tmp_path: Path) -> None:
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / "out" / LOCK_FILE).is_file() and has_dead_holder(tmp_path / "out")
    with folder_in_use(tmp_path / "out"):
        assert json.loads((tmp_path / "out" / LOCK_FILE).read_text())["process"] == os.getpid()
    assert not (tmp_path / "out" / LOCK_FILE).exists()


def test_a_process_may_take_its_folder_again(tmp_path: Path) -> None:
    with folder_in_use(tmp_path / "out"):
        with folder_in_use(tmp_path / "out" / ".." / "out"):
            (tmp_path / "out" / "file").touch()
        assert (tmp_path / "out" / LOCK_FILE).exists(), "the inner one gave it back"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["file"]


def test_a_refused_command_leaves_no_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="refused"), folder_in_use(tmp_path / "out"):
        raise ValueError("refused")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_is_replaced_stays_held(tmp_path: Path) -> None:
    with folder_in_use(tmp_path / "out"):
        with atomic_replacement(tmp_path / "out", "mark") as partial:
            partial.mkdir()
            (partial / "mark").touch()
        code = f"{IMPORTED}\nwith folder_in_use(sys.argv[1]): pass"
        command = [sys.executable, "-c", code, str(tmp_path / "out"), str(PACKAGE)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert f"in use by process {os.getpid()}" in done.stderr
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mark"]


def test_only_what_would_be_removed_may_not_lie_in_the_output_folder(tmp_path: Path) -> None:
    model = tmp_path / "out" / "student"
    model.mkdir(parents=True)
    check_not_input(tmp_path / "out", {"model_name_or_path": str(model)})
    check_not_input(model / "int8", {"model_name_or_path": str(model)})
    check_not_input(tmp_path / "out", {"model_name_or_path": "bert-base-uncased"})
    with pytest.raises(ValueError, match="lies in --output_dir .*, where it would be removed"):
        check_not_input(tmp_path / "out", {"model_name_or_path": str(model)}, is_replaced=True)


# ---- contents ----


def test_a_digest_is_that_of_the_contents_and_not_of_the_path(tmp_path: Path) -> None:
    for name in ("a.csv", "moved/b.csv"):
        write_text(tmp_path / name, "text,label\ngood,1\n")
    first = content_digests({"train_file": str(tmp_path / "a.csv")})
    assert first == content_digests({"train_file": str(tmp_path / "moved" / "b.csv")})
    write_text(tmp_path / "a.csv", "text,label\ngood,0\n")
    assert first != content_digests({"train_file": str(tmp_path / "a.csv")})
    assert content_digests({"train_file": str(tmp_path / "missing.csv"), "model_name_or_path": "minilm"}) == {}


def test_the_digest_of_a_model_is_that_of_weights_config_and_tokenizer(pretrained: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(pretrained, tmp_path / "model"))

    def digest() -> str:
        return content_digests({"model_name_or_path": str(model)})["model_name_or_path"]

    seen = [digest()]
    (model / "README.md").write_text("A card.")
    assert digest() == seen[0]
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (model / name).open("ab") as file:
            file.write(b" ")
        seen.append(digest())
    assert len(set(seen)) == 4


QUICK = "--use_cpu --disable_tqdm true --max_steps 1 --ignore_weak_teacher --num_student_layers 2 --teacher_labels 0 1"


@pytest.fixture
def line(pretrained: Path, tmp_path: Path) -> list[str]:
    """A distillation on files of the test's own."""
    for name, words in (("train.csv", ("good", "bad")), ("dev.csv", ("great", "awful"))):
        rows = "".join(f"{word},{label}\n" for word, label in zip(words * 4, (1, 0) * 4, strict=True))
        write_text(tmp_path / name, f"text,label\n{rows}")
    teacher = shutil.copytree(pretrained, tmp_path / "teacher")
    models = ["--model_name_or_path", str(pretrained), "--teacher_model_name_or_path", str(teacher)]
    files = ["--train_file", str(tmp_path / "train.csv"), "--validation_file", str(tmp_path / "dev.csv")]
    return [*models, *files, *QUICK.split(), "--output_dir", str(tmp_path / "out")]


def test_moved_files_and_folders_of_earlier_versions_are_accepted(
    line: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (first,) = kd.main(line)
    (tmp_path / "train.csv").rename(tmp_path / "rows.csv")
    moved = [str(tmp_path / "rows.csv") if word.endswith("train.csv") else word for word in line]
    assert kd.main(moved)[0].finished == first.finished
    assert "earlier version" not in capsys.readouterr().out

    settings = json.loads((tmp_path / "out" / "settings.json").read_text())
    del settings["contents"]
    write_text(tmp_path / "out" / "settings.json", json.dumps(settings))
    assert kd.main(moved)[0].finished == first.finished
    assert "written by an earlier version of bertkd" in capsys.readouterr().out
    with (tmp_path / "rows.csv").open("a") as file:
        file.write("new,1\n")
    with pytest.raises(ValueError, match=r"train_file .*rows\.csv no longer holds what it held then"):
        kd.main(moved)


# ---- files that appear whole ----


def test_temporary_files_of_killed_processes_are_removed(tmp_path: Path) -> None:
    killed = subprocess.Popen(["true"])
    killed.wait()
    with atomic_path(tmp_path / "file") as temporary:
        temporary.write_text("whole")
        of_the_killed = temporary.with_name(temporary.name.replace(f"-{os.getpid()}.", f"-{killed.pid}."))
        of_the_killed.touch()
        of_another_machine = temporary.with_name(f".file.elsewhere-{killed.pid}.tmp")
        of_another_machine.touch()

    write_text(tmp_path / "file", "whole too")
    assert not of_the_killed.exists() and of_another_machine.exists()
    assert (tmp_path / "file").read_text() == "whole too"


def test_an_interrupted_replacement_gives_the_old_folder_back(tmp_path: Path) -> None:
    (tmp_path / ".out.old").mkdir()
    (tmp_path / ".out.old" / "mark").touch()
    with pytest.raises(ValueError, match="later"), atomic_replacement(tmp_path / "out", "mark"):
        raise ValueError("later")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mark"]


def test_new_weights_never_lie_beside_an_old_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text("old")
    (tmp_path / "model.safetensors").write_text("old")
    real, moved = os.replace, list[str]()

    def replace(source: Any, target: Any) -> None:
        assert not (tmp_path / "config.json").exists(), "an old config beside new weights"
        moved.append(Path(target).name)
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with atomic_folder(tmp_path) as partial:
        for name in ("config.json", "model.safetensors"):
            (partial / name).write_text("new")
    assert moved == ["model.safetensors", "config.json"]


def test_a_full_disk_is_one_sentence_whoever_writes(line: list[str], tmp_path: Path) -> None:
    """The limit of a file's size makes every writer fail as a full disk would, and not only Python's."""
    # What the data library keeps of the rows is written here, and only read below.
    main(["kd", *line[:-1], str(tmp_path / "undisturbed")])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    sentences = []
    for limit in (200, 3000, 20_000):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            with pytest.raises(SystemExit) as ended:
                main(["kd", *line])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        sentences.append(str(ended.value.code))
        assert "start the same command again" in sentences[-1] and "Errno" not in sentences[-1]
        assert not (tmp_path / "out" / "config.json").exists()

    main(["kd", *line])
    weights = load_file(tmp_path / "out" / "model.safetensors")
    for name, tensor in load_file(tmp_path / "undisturbed" / "model.safetensors").items():
        assert torch.equal(weights[name], tensor)


def test_errors_of_the_disk_are_known_through_others() -> None:
    def wrapped() -> None:
        try:
            raise OSError(28, "No space left on device", "rows.arrow")
        except OSError as error:
            raise RuntimeError("An error occurred while generating the dataset") from error

    with pytest.raises(RuntimeError) as caught:
        wrapped()
    assert str(storage_problem(caught.value)).startswith(
        "Cannot write rows.arrow (No space left on device). Make room"
    )
    assert storage_problem(ValueError("alpha must lie between 0 and 1")) is None
    assert storage_problem(OSError("Cannot write to out: choose another --output_dir.")) is None
