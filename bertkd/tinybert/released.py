"""Loads checkpoints as the authors of TinyBERT released them."""

import struct
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedModel

from bertkd.atomic import read_json
from bertkd.models import family_of
from bertkd.models.unreadable import damage, reason

__all__ = ["load_released"]


def load_released(
    folder: str | Path, *, needs_head: bool = False, **settings: Any
) -> tuple[PreTrainedModel, dict[str, Tensor]]:
    """Load a checkpoint as TinyBERT's authors released it, from a local folder, and its projection.

    Their config.json names no model type, the weights are a PyTorch file (read without running anything in it), and
    beside BERT's names there are `fit_dense` (one projection) or `fit_denses.N` (one per level). The model's head is
    always new: theirs reads the ReLU of the pooled state, which no class of transformers does, and would give other
    answers here.

    Args:
        folder: a folder with config.json and model.safetensors or pytorch_model.bin.
        needs_head: whether the checkpoint is refused, because its answers are needed.
        **settings: settings of the config, such as `num_labels=2`.

    Returns:
        The model, and the projection's tensors under the names that `TinyBertKDTrainer` gives them
        ("projection.weight" or "projection.0.weight"); empty without one. Written to a safetensors file, it is an
        `args.projection_from`.

    Raises:
        ValueError: files are missing, the weights do not fit the config, or a trained head is needed.
    """
    path = Path(folder)
    weights = path / "model.safetensors"
    if not weights.is_file():
        weights = path / "pytorch_model.bin"
    if not weights.is_file() or not (path / "config.json").is_file():
        raise ValueError(f"{path} is no TinyBERT checkpoint: it needs config.json and pytorch_model.bin.")

    if needs_head:
        raise ValueError(
            f"{path} is a checkpoint as TinyBERT's authors released it: its head, if it has one, reads the ReLU of "
            "the pooled state, which no class of transformers does, so that its answers would be others here. Train "
            "it on the task first, with `bertkd tinybert` or `bertkd finetune`."
        )

    is_safe = weights.suffix == ".safetensors"
    try:
        state = load_file(weights) if is_safe else torch.load(weights, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, struct.error) as error:
        raise ValueError(damage(weights) or f"{weights} cannot be read: {reason(error)}") from error

    config = _config(read_json(path / "config.json"), settings)
    model = BertForSequenceClassification(config)
    model_state = model.state_dict()
    head = tuple(f"{part}." for part in family_of(config).head)

    projection: dict[str, Tensor] = {}
    fitting: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.startswith("fit_dense"):
            projection[_projection_name(name)] = tensor
        elif name in model_state and model_state[name].shape == tensor.shape and not name.startswith(head):
            fitting[name] = tensor
    report = model.load_state_dict(fitting, strict=False)

    encoder = f"{model.base_model_prefix}.{family_of(config).layers}."
    if unused := [name for name in state if name.startswith(encoder) and name not in model_state]:
        raise ValueError(f"{weights} has {', '.join(unused[:3])}, for which its config.json has no layer.")

    if missing := [name for name in report.missing_keys if not name.startswith(head)]:
        raise ValueError(f"{weights} lacks {', '.join(missing[:5])}: it is no BERT of the shape in its config.json.")
    return model.eval(), projection


def _config(values: dict[str, Any], settings: dict[str, Any]) -> BertConfig:
    """The config of a checkpoint whose config.json holds these values, some of which are not BERT's."""
    known = {name: value for name, value in values.items() if name not in ("model_type", "pre_trained", "training")}
    return BertConfig.from_dict({**known, **settings})


def _projection_name(name: str) -> str:
    """The trainer's name of a projection's tensor: projection.3.bias for fit_denses.3.bias."""
    return f"projection.{name.partition('.')[2]}"
