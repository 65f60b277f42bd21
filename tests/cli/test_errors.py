"""Whatever goes wrong ends in one sentence; what nobody foresaw also leaves a log, which the sentence names."""

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tqdm import tqdm

from bertkd.cli import commands
from bertkd.cli.commands import LOG, run_safely


def fails_with(error: BaseException) -> Callable[[], None]:
    def command() -> None:
        raise error

    return command


def ending(error: BaseException, *words: str) -> str:
    with pytest.raises(SystemExit) as caught:
        run_safely(fails_with(error), "bertkd kd", words)
    return str(caught.value.code)


@pytest.fixture(autouse=True)
def own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything happens in an empty folder, and nobody asked for a traceback."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("BERTKD_TRACEBACK", raising=False)
    monkeypatch.setattr(commands.tempfile, "gettempdir", lambda: str(tmp_path))


@pytest.mark.parametrize("error", [KeyError("layers"), IndexError("3"), AttributeError("no x"), RuntimeError("mat1")])
def test_an_error_that_nobody_foresaw_leaves_a_log_in_the_output_folder(error: Exception, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    said = ending(error, "--alpha", "0.5", "--output_dir", "out", "--hub_token", "hf_secret")
    assert re.fullmatch(
        rf"bertkd kd: an error stopped it that bertkd did not foresee, .*{type(error).__name__}.*\nThe log: .*", said
    )

    log = tmp_path / "out" / LOG
    assert said.endswith(f"The log: {log}")
    assert "Traceback" in log.read_text() and "--alpha 0.5" in log.read_text() and "hf_secret" not in log.read_text()


def test_without_an_output_folder_the_log_is_among_temporary_files(tmp_path: Path) -> None:
    assert ending(KeyError("x"), "--output_dir", "never-made").endswith(f"The log: {tmp_path / LOG}")
    assert not (tmp_path / "never-made").exists()


def test_an_error_of_a_library_has_a_log_and_one_of_ours_has_a_hint(tmp_path: Path) -> None:
    assert ending(ValueError("unsupported operand")).endswith(f"unsupported operand.\nThe log: {tmp_path / LOG}")
    with pytest.raises(SystemExit) as caught:
        run_safely(lambda: commands.check_separate(".", {"--model": "."}), "bertkd kd")
    assert str(caught.value.code).endswith("(BERTKD_TRACEBACK=1 shows where)")


def test_an_error_of_the_system_names_the_file_and_no_number() -> None:
    said = ending(OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/data/model.safetensors"))
    assert "Cannot write /data/model.safetensors (No space left on device)" in said and "Errno" not in said


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ],
)
def test_full_memory_has_a_sentence_with_the_way_out(error: Exception) -> None:
    said = ending(error)
    assert "memory of" in said and "--per_device_train_batch_size" in said and "started again" in said


def test_control_c_is_no_error(capsys: pytest.CaptureFixture) -> None:
    assert ending(KeyboardInterrupt()) == "130"
    assert "stopped by Ctrl-C. A training goes on from its last checkpoint" in capsys.readouterr().err


def test_a_reader_that_has_enough_is_no_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    closed: list[int] = []
    monkeypatch.setattr(commands.os, "dup2", lambda new, old: closed.append(old))
    assert ending(BrokenPipeError()) == "141"
    assert closed and capsys.readouterr().err == ""


def test_whoever_wants_the_traceback_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BERTKD_TRACEBACK", "1")
    with pytest.raises(KeyError):
        run_safely(fails_with(KeyError("x")), "bertkd kd")


def test_a_sentence_does_not_end_the_line_of_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    def command() -> None:
        bar = tqdm(total=3, desc="Training")
        bar.update()
        raise ValueError("The rows have no labels.")

    with pytest.raises(SystemExit, match="The rows have no labels"):
        run_safely(command, "bertkd kd", [])
    assert "Training" in (shown := capsys.readouterr().err) and shown.endswith("\n")
