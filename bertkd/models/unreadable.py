"""Says in one sentence why a checkpoint cannot be opened: its name, its folder, and each of its files."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError, RepositoryNotFoundError
from safetensors import SafetensorError, safe_open

from bertkd.atomic import LFS_POINTER, read_json
from bertkd.models.families import FAMILIES, PRUNED_PREFIX

__all__ = [
    "check_config_file",
    "check_may_be_of_hub",
    "damage",
    "reason",
    "some",
    "why_no_tokenizer",
    "why_not_on_hub",
    "why_unreadable",
]

WEIGHTS_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
# Fields of a config that are sizes, under the names of all families.
SIZES = (
    "num_hidden_layers",
    "n_layers",
    "hidden_size",
    "dim",
    "num_attention_heads",
    "n_heads",
    "intermediate_size",
    "hidden_dim",
    "vocab_size",
)
# How many names a message shows; a whole model would give hundreds.
SHOWN = 3


# ---- names ----


def check_may_be_of_hub(name: str | os.PathLike, what: str) -> None:
    """Refuses a name that can only mean a local folder, which is not there."""
    text = str(name)
    path = Path(text)
    if not text.strip():
        raise OSError(f"The name of the {what} is empty: give a folder, or a name of the hub.")
    if os.path.isfile(text):
        raise OSError(f"Cannot load the {what} {text!r}: it is a file. Give the folder that it lies in.")

    # The hub's names have one slash at most.
    is_path = text.startswith((".", "/", "~")) or text.endswith("/") or text.count("/") > 1 or "\\" in text
    if is_path:
        raise OSError(
            f"Cannot load the {what} {text!r}: there is no such folder{_nearest_folder(path)}. Give the folder that a "
            "training or `save_pretrained` wrote, or a name of the hub."
        )


def _nearest_folder(path: Path) -> str:
    """Which part of a path is there, as the end of a sentence."""
    if str(path).startswith("~"):
        return " (the shell fills in ~ only where it stands alone at the start of a word)"
    for parent in path.parents:
        if os.path.isdir(parent) and str(parent) not in (".", "..", "/"):
            return f" ({parent} is there)"
    return ""


def why_not_on_hub(name: str | os.PathLike, error: BaseException, what: str) -> str:
    """The sentence for a name that is no folder, and that the hub did not give."""
    start = f"Cannot load the {what} {str(name)!r}: there is no folder of that name"
    local = "Give a local folder, or 'minilm' for the model of the extra 'demo'"
    if "/" in str(name) and os.path.isdir(Path(name).parent):
        start += f" in {Path(name).parent}"
    causes = list(_causes(error))

    if constants.HF_HUB_OFFLINE:
        return f"{start}, and as a name of the hub it is not in the cache, and HF_HUB_OFFLINE forbids to ask. {local}."
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return f"{start}, and the hub has no such model, or only for those who log in: check the name. {local}."
    if any(isinstance(cause, LocalEntryNotFoundError | ConnectionError) for cause in causes):
        return f"{start}, and the hub cannot be reached: check the connection. {local}."
    return f"{start}, and the hub does not have it or cannot be reached. {local}."


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


# ---- files ----


def check_config_file(folder: Path, what: str) -> None:
    """Refuses a local folder whose config.json is missing, is no JSON object, or describes no model."""
    file = folder / "config.json"
    if not file.is_file():
        raise OSError(f"Cannot load the {what} {str(folder)!r}: it is no folder with a config.json{_hint(folder)}.")

    values = read_json(file)
    if not isinstance(values, dict):
        raise ValueError(f'{file} has to hold a JSON object, such as {{"model_type": "bert"}}, and is none.')
    if "model_type" not in values:
        raise ValueError(
            f"{file} has no model_type, so nobody can tell what the weights are: add it, such as "
            f'"model_type": "bert". bertkd knows {", ".join(FAMILIES)}.'
        )
    _check_values(file, values)


def _check_values(file: Path, values: dict[str, Any]) -> None:
    """Refuses values in a config.json of an encoder that bertkd knows of which no model can be made."""
    if str(values["model_type"]).removeprefix(PRUNED_PREFIX) not in FAMILIES:
        return

    for field in SIZES:
        size = values.get(field, 1)
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise ValueError(f"{file} has {field} {size!r}, which has to be a whole number above 0.")

    labels = values.get("id2label") or {}
    is_numbered = isinstance(labels, dict) and all(str(number).removeprefix("-").isdigit() for number in labels)
    if not is_numbered:
        raise ValueError(
            f'{file} has id2label {labels!r}, which has to name each class by its number, such as {{"0": "no"}}.'
        )


def _hint(folder: Path) -> str:
    """What a folder without a config.json seems to be instead, as the end of a sentence."""
    if (folder / "adapter_config.json").is_file():
        return ", but one with a PEFT adapter: merge it into its model first (`merge_and_unload`), and save that"

    inside = sorted(path.parent.name for path in folder.glob("*/config.json") if not path.parent.name.startswith("."))
    if inside:
        return f". There are models in its folders {', '.join(inside[:SHOWN])}: name one of those"
    if not any(folder.iterdir()):
        return ", but an empty one: a training that was stopped leaves its model in a checkpoint, or nowhere"
    return ": give the folder that a training or `save_pretrained` wrote"


def why_no_tokenizer(folder: Path, error: Exception) -> str:
    """The sentence for a tokenizer that cannot be loaded; it names the file that is broken, where one is."""
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        path = folder / file
        if not path.is_file():
            continue
        values = read_json(path)
        if not isinstance(values, dict):
            return f"{path} has to hold a JSON object, and is none: copy the file from the checkpoint again."
        if file == "tokenizer.json" and not {"added_tokens", "model"} <= values.keys():
            return f"{path} is no tokenizer: added_tokens or model is missing. Copy it from the checkpoint again."
    return f"The tokenizer in {folder} cannot be loaded: {reason(error)}"


def why_unreadable(name: str | os.PathLike, error: Exception, what: str) -> str:
    """The sentence for a checkpoint that `from_pretrained` does not read; it names the file that is broken."""
    folder = Path(name)
    if not os.path.isdir(folder):
        return f"The {what} {name} cannot be loaded: {reason(error)}"

    present = [folder / file for file in WEIGHTS_FILES if (folder / file).is_file()]
    if not present:
        others = sorted(path.name for path in folder.iterdir() if path.suffix in (".h5", ".msgpack", ".onnx", ".xml"))
        stands = f"; {some(others)} is for another program" if others else ""
        return f"There are no weights in {folder} (model.safetensors){stands}: copy them there."

    for index in folder.glob("*.index.json"):
        values = read_json(index)
        shards = set(values["weight_map"].values()) if isinstance(values, dict) and "weight_map" in values else set()
        missing = sorted(shard for shard in shards if not (folder / str(shard)).is_file())
        if missing:
            return f"{index} lists {some(missing)}, which is not in the folder: copy all parts of the weights there."

    for path in (*sorted(folder.glob("*.safetensors")), *sorted(folder.glob("pytorch_model*.bin"))):
        if sentence := damage(path):
            return sentence
    return f"The {what} {name} cannot be loaded: {reason(error)}"


def damage(path: Path) -> str:
    """What is wrong with a file of weights, as a sentence; empty where it can be read."""
    with path.open("rb") as file:
        start = file.read(len(LFS_POINTER))
    if start == LFS_POINTER:
        return f"{path} is a pointer of Git LFS and not the weights themselves: fetch them with `git lfs pull`."

    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt"):
                return ""
        except (SafetensorError, OSError):
            return f"{path} is damaged or was cut off ({path.stat().st_size:,} bytes): copy or train it again."

    # Such a file is a pickle, which may run anything: only plain tensors are taken out of it.
    try:
        torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # An unpickler that meets neither a tensor nor a container names the global that it will not import.
        is_pickle = start.startswith((b"PK", b"\x80"))
        if is_pickle and re.search(r"unsupported (global|class|operand)", str(error), re.IGNORECASE):
            return (
                f"{path} holds more than tensors, and reading it would run code from the file. There is no way to "
                "consent to that in bertkd: convert it to model.safetensors where you trust it."
            )
        return f"{path} is damaged or was cut off ({path.stat().st_size:,} bytes): copy or train it again."
    return ""


def reason(error: BaseException) -> str:
    """The reason of a library's error in one line; without one, what kind of error it was."""
    text = " ".join(str(error).split())
    if "trust_remote_code" in text or "custom code" in text:
        return (
            "it needs code that comes with the checkpoint. bertkd runs none, and there is no way to "
            f"consent: it knows {', '.join(FAMILIES)}, and folders that it wrote itself."
        )
    if isinstance(error, KeyError):
        return f"it names {text}, which this version of transformers does not know."
    if "Unrecognized configuration class" in text:
        return "transformers has no class for models of its type with such a head."
    if "ignore_mismatched_sizes" in text:
        return "its weights have other sizes than its config.json says; take both of one checkpoint."
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f' ({error.filename})' if error.filename else ''}."
    if isinstance(error, AttributeError | TypeError):
        return "a value in its files has the wrong type; take them from the checkpoint again."
    sentence = text.split(". ")[0].removesuffix(".").strip()
    return f"{sentence or type(error).__name__}."


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
