"""Folders that appear whole or not at all."""

import os
from pathlib import Path

import pytest

from bertkd.atomic import atomic_replacement, check_replaceable
from bertkd.folder_lock import LOCK_FILE


def test_a_new_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "caches" / "first"
    for name in ("old", "new"):
        with atomic_replacement(folder, "mark") as partial:
            partial.mkdir(parents=True)
            (partial / "mark").touch()
            (partial / name).write_text(name)
            assert not (folder / name).exists()
    assert sorted(file.name for file in folder.iterdir()) == ["mark", "new"]
    assert [path.name for path in folder.parent.iterdir()] == ["first"]


def test_a_new_folder_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "mark").touch()

    def write_half() -> None:
        with atomic_replacement(folder, "mark") as partial:
            partial.mkdir(parents=True)
            (partial / "new").touch()
            raise ValueError("killed")

    with pytest.raises(ValueError, match="killed"):
        write_half()
    assert [file.name for file in tmp_path.rglob("*")] == ["first", "mark"]


@pytest.mark.parametrize("name", [".cache", "lost+found", "bertkd-error.log", "bertkd-error-1.log", LOCK_FILE])
def test_what_may_be_in_any_folder_does_not_make_it_somebodys(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    check_replaceable(tmp_path, "mark")
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(ValueError, match=r"holds thesis\.txt and no mark"):
        check_replaceable(tmp_path, "mark")


def test_what_a_killed_run_has_left_does_not_enter_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / ".first.partial").mkdir()
    (tmp_path / ".first.partial" / "half").touch()
    with atomic_replacement(tmp_path / "first", "mark") as partial:
        partial.mkdir(parents=True)
        (partial / "whole").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["first", "whole"]


def replaced(folder: str | Path, name: str) -> None:
    with atomic_replacement(folder, "mark") as partial:
        partial.mkdir(parents=True)
        (partial / "mark").touch()
        (partial / name).write_text(name)


def test_a_link_stays_a_link_and_what_it_points_to_is_replaced(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real", tmp_path / "link"
    real.mkdir(parents=True)
    link.symlink_to(real)
    for name in ("old", "new"):
        replaced(link, name)
    assert link.is_symlink() and sorted(file.name for file in real.iterdir()) == ["mark", "new"]


@pytest.mark.parametrize("where", ["a disk of its own", "where we work"])
def test_a_folder_that_cannot_be_renamed_is_replaced_file_by_file(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "first"
    folder.mkdir()
    (folder / "lost+found").mkdir()
    (folder / "_in_use").touch()
    node = folder.stat().st_ino
    if where == "where we work":
        monkeypatch.chdir(folder)
    else:
        monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == folder)

    for name in ("old", "new"):
        replaced("." if where == "where we work" else folder, name)
        assert sorted(file.name for file in folder.iterdir()) == ["_in_use", "lost+found", "mark", name]
    assert folder.stat().st_ino == node and [path.name for path in tmp_path.iterdir()] == ["first"]

    # A run that was killed while it moved files is started again.
    (folder / ".partial").mkdir()
    os.replace(folder / "mark", folder / ".partial" / "mark")
    replaced(folder, "again")
    assert (folder / "again").is_file() and not (folder / "new").exists()

    (folder / "mark").unlink()
    with pytest.raises(ValueError, match="holds again and no mark"):
        replaced(folder, "other")
