"""Finds the settings that bertkd ships, by name."""

from importlib.resources import files
from pathlib import Path

import bertkd

__all__ = ["read_settings", "settings_path", "shipped_settings"]

FOLDER = Path(str(files(bertkd) / "configs"))


def shipped_settings() -> list[str]:
    """The names of all shipped settings, such as "patient_kd/sst2"."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml"))


def settings_path(name: str) -> Path:
    """The file behind a name: a path of the user's, or the name of shipped settings with or without `.yaml`.

    Raises:
        ValueError: there is neither.
    """
    path = Path(name)
    if path.is_file():
        return path

    # Earlier versions kept the settings beside the recipes.
    short = name.removeprefix("recipes/configs/").removesuffix(".yaml")
    if short in shipped_settings():
        return FOLDER / f"{short}.yaml"

    raise ValueError("there is no such file, nor shipped settings of that name; `bertkd configs` lists these.")


def read_settings(name: str) -> str:
    """The text of the file behind a name.

    Raises:
        ValueError: there is none. OSError: it cannot be read.
    """
    return settings_path(name).read_text(encoding="utf-8")
