"""Folders that appear whole or not at all."""

from pathlib import Path

import pytest

from bertkd.atomic import atomic_replacement


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


def test_what_a_killed_run_has_left_does_not_enter_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / ".first.partial").mkdir()
    (tmp_path / ".first.partial" / "half").touch()
    with atomic_replacement(tmp_path / "first", "mark") as partial:
        partial.mkdir(parents=True)
        (partial / "whole").touch()
    assert [file.name for file in tmp_path.rglob("*")] == ["first", "whole"]
