"""Tells what the files and models of a training hold, so that a folder belongs to contents and not to paths."""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache

from bertkd.data import GLUE_TASKS
from bertkd.data.reading import file_digest

__all__ = ["MODEL_OPTIONS", "PATH_OPTIONS", "content_digests", "paths_of"]

# Options that name a model or a tokenizer: a folder, or a name of the hub.
MODEL_OPTIONS = (
    "model_name_or_path",
    "teacher_model_name_or_path",
    "tokenizer_name",
    "augment_model",
    "language_model",
    "projection_from",
)
# Options that name files or folders, or several of them.
FILE_OPTIONS = (
    "train_file",
    "unlabeled_file",
    "validation_file",
    "test_file",
    "corpus_files",
    "augment_vectors",
    "glue_dir",
)
PATH_OPTIONS = (*MODEL_OPTIONS, *FILE_OPTIONS)
# What decides the answers of a model's folder; a card or a record in it does not.
MODEL_FILES = (
    "config.json",
    "*.safetensors",
    "*.safetensors.index.json",
    "pytorch_model*.bin",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
)


def content_digests(options: Mapping[str, Any]) -> dict[str, str]:
    """Hashes what the options of a training name.

    Args:
        options: by name, as in a record.

    Returns:
        A digest for each option of `PATH_OPTIONS` whose content is known here: that of the files, or the commit of a
        model of the hub that is in the local cache.
    """
    digests = {}
    for name in PATH_OPTIONS:
        value = options.get(name)
        if not value:
            continue

        paths = paths_of(options, name)
        if paths:
            digests[name] = _digest(_files_of(name, paths, options))
        elif isinstance(value, str) and name in MODEL_OPTIONS and (commit := _commit_of(value)) is not None:
            digests[name] = commit
    return digests


def paths_of(options: Mapping[str, Any], name: str) -> list[Path]:
    """The local files or folders that an option names; none where any of them is not there."""
    value = options.get(name)
    values = value if isinstance(value, list | tuple) else [value]
    paths = [Path(str(item)) for item in values if item]
    return paths if all(path.exists() for path in paths) else []


def _files_of(name: str, paths: Iterable[Path], options: Mapping[str, Any]) -> list[tuple[str, Path]]:
    """The files behind an option in a fixed order, each with the name that it counts by."""
    files = []
    for number, path in enumerate(paths):
        if path.is_file():
            # Not by its own name: a file that was moved is the same file.
            files.append((str(number), path))
            continue

        for file in sorted(_files_in(name, path, options)):
            files.append((f"{number}/{file.relative_to(path).as_posix()}", file))
    return files


def _files_in(name: str, folder: Path, options: Mapping[str, Any]) -> set[Path]:
    if name in MODEL_OPTIONS:
        return {file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()}

    if name == "glue_dir":
        # A folder of GLUE may hold tasks that this training does not read.
        task = GLUE_TASKS.get(str(options.get("task_name")))
        patterns = ["train.tsv", "dev*.tsv", *(["test*.tsv"] if options.get("do_predict") else [])]
        if task is None:
            return set()
        return {file for pattern in patterns for file in (folder / task.folder).glob(pattern)}

    return {file for file in folder.rglob("*") if file.is_file() and not file.name.startswith(".")}


def _digest(files: Iterable[tuple[str, Path]]) -> str:
    total = hashlib.sha256()
    for name, path in files:
        total.update(f"{name} {file_digest(path)}\n".encode())
    return total.hexdigest()[:32]


def _commit_of(name: str) -> str | None:
    """The commit of a hub's model in the local cache; None where it is not there."""
    try:
        path = try_to_load_from_cache(name, "config.json")
    except ValueError:
        # No name of the hub has this form.
        return None
    return Path(path).parent.name if isinstance(path, str) else None
