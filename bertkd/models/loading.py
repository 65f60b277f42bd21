"""Loads models, configs and tokenizers by name: what comes out is what the checkpoint holds, or there is an error.

`transformers` fills weights that a checkpoint lacks with random numbers, leaves out those that it has no place for,
and tells both in a log only. Everything in bertkd that opens a checkpoint does it here, where the two are compared.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel

from bertkd.models.families import PRUNED_PREFIX, family_of
from bertkd.models.finite import infinite_weights
from bertkd.models.unreadable import (
    check_config_file,
    check_may_be_of_hub,
    reason,
    some,
    why_no_tokenizer,
    why_not_on_hub,
    why_unreadable,
)

__all__ = ["TOKENIZER_FILES", "check_finite", "load_checkpoint", "load_config", "load_tokenizer"]

Name = str | os.PathLike
# The settings of a config that say what the labels are; the number comes first, because it names them anew.
LABEL_SETTINGS = ("num_labels", "id2label", "label2id", "problem_type")

# Any of these makes a folder one with a tokenizer.
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
)


# ---- models ----


def load_checkpoint(
    model_class: Any, name: Name, *, needs_head: bool = True, what: str = "model", called: str = "", **settings: Any
) -> PreTrainedModel:
    """Loads a model, in float32 unless `dtype` is given, and compares its weights with the checkpoint's.

    A head may be drawn at random where `needs_head` is False; the encoder never is. What other tasks' heads leave in a
    checkpoint is no difference, nor is a pooler that the model does not use.

    Args:
        model_class: a class of `transformers` with `from_pretrained`, such as `AutoModelForSequenceClassification`.
        name: a folder, or a name of the hub.
        needs_head: whether the checkpoint has to hold the head too, the pooler included where the head reads it.
        what: how an error calls the model, such as "teacher".
        called: the name in an error, where it is another one.
        **settings: more for `from_pretrained`, such as `num_labels`.

    Raises:
        OSError: there is no such model.
        ValueError: a file is damaged, weights are missing, left over or of another size than the config says, or are
            not finite; the message names them.
    """
    config = load_config(name, what)
    # A pruned model refuses to ignore mismatched sizes; of the others they are compared below.
    is_pruned = config.model_type.startswith(PRUNED_PREFIX)
    if is_pruned and not needs_head and _label_count(settings) not in (None, config.num_labels):
        own = {name: value for name, value in settings.items() if name not in LABEL_SETTINGS}
        model = load_checkpoint(model_class, name, needs_head=False, what=what, called=called, **own)
        return _with_new_head(model, {name: settings[name] for name in LABEL_SETTINGS if name in settings})
    try:
        model, report = model_class.from_pretrained(
            name,
            output_loading_info=True,
            ignore_mismatched_sizes=not is_pruned,
            trust_remote_code=False,
            **{"dtype": torch.float32, **settings},
        )
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise ValueError(why_unreadable(name, error, what)) from error

    forget_old_names(model)
    called = called or str(name)
    _compare(model, report, called, needs_head, what)
    check_finite(model, f"The {what} {called}")
    return model


def forget_old_names(model: Any) -> None:
    """Lets a model be saved under the names that its weights have now.

    One that was read from a file with older names (`LayerNorm.gamma`, as in bert-base-uncased) is saved under these
    again by transformers, and a checkpoint under them cannot be loaded into the model.
    """
    vars(model).pop("_weight_conversions", None)


def _label_count(settings: Mapping[str, Any]) -> int | None:
    """The number of labels that settings ask for; None where they leave it."""
    names = settings.get("id2label")
    return len(names) if names is not None else settings.get("num_labels")


def _with_new_head(model: PreTrainedModel, labels: Mapping[str, Any]) -> PreTrainedModel:
    """The model with other labels, and a new last map for them."""
    for name, value in labels.items():
        setattr(model.config, name, value)

    path, count = family_of(model).head[-1], int(model.config.num_labels or 0)
    old: Any = model.get_submodule(path)
    new = torch.nn.Linear(old.in_features, count, device=old.weight.device, dtype=old.weight.dtype)
    model._init_weights(new)
    model.set_submodule(path, new.train(model.training))
    model.num_labels = count  # type: ignore[assignment]
    return model


def _compare(model: PreTrainedModel, report: dict[str, Any], name: str, needs_head: bool, what: str) -> None:
    """Refuses a model whose weights are not those of its checkpoint; `report` is that of `from_pretrained`."""
    # Positions are computed now, while earlier versions stored them.
    buffers = dict(model.named_buffers())
    missing = [key for key in sorted(report["missing_keys"]) if key not in buffers]
    left_over = [key for key in sorted(report["unexpected_keys"]) if not key.endswith("position_ids")]
    encoder_missing = [key for key in missing if _is_of_encoder(model, key)]
    encoder_left_over = [key for key in left_over if _is_of_encoder(model, key)]

    if encoder_missing or encoder_left_over:
        differences = []
        if encoder_missing:
            differences.append(f"the weights lack {some(encoder_missing)}")
        # Where the names of all weights were changed, those that are there tell how.
        unused = encoder_left_over or left_over
        if unused:
            differences.append(f"{some(unused)} {'is' if len(unused) == 1 else 'are'} in the weights and not used")
        raise ValueError(
            f"The {what} {name} does not fit its own config.json: {', and '.join(differences)}. The config describes "
            f"a model of type {model.config.model_type} with {getattr(model.config, 'num_hidden_layers', 0)} layers: "
            "take the config.json and the weights of one checkpoint; nothing is filled in at random."
        )

    # A new head has the task's number of labels, and the checkpoint's may have another.
    resized = sorted(report["mismatched_keys"])
    if not needs_head:
        resized = [difference for difference in resized if _is_of_encoder(model, difference[0])]
    if resized:
        key, stored, wanted = resized[0]
        more = f" (and {len(resized) - 1} more differ)" if len(resized) > 1 else ""
        raise ValueError(
            f"The {what} {name} does not fit its own config.json: {key} has the shape {tuple(stored)} in the weights "
            f"and {tuple(wanted)} by the config{more}. Take the config.json and the weights of one checkpoint."
        )

    new = [key for key in missing if not _is_of_unused_pooler(model, key)]
    if needs_head and new:
        raise ValueError(_no_head(model, new, left_over, name, what))


def _no_head(model: PreTrainedModel, missing: list[str], left_over: list[str], name: str, what: str) -> str:
    """The sentence for a checkpoint without the head that its use needs."""
    other = f"; what it has instead is {some(left_over)}" if left_over else ""
    if type(model).__name__.endswith("ForMaskedLM"):
        return (
            f"{name} has no head for masked words ({some(missing)} missing{other}), and an untrained one would give "
            "random words: train one with `bertkd mlm`."
        )
    return (
        f"The {what} {name} has no trained head for a task ({some(missing)} missing{other}), and an untrained one "
        "would answer at random: fine-tune it on the task first, with `bertkd finetune`."
    )


def _is_of_encoder(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight is one of the encoder's, and not of a head or of the pooler that belongs to a head."""
    prefix = f"{model.base_model_prefix}."
    part = key.removeprefix(prefix).partition(".")[0]
    if part == "pooler":
        return False

    # In the checkpoint of a bare encoder names have no prefix, and its parts alone tell them from a head's.
    return key.startswith(prefix) or part in dict(model.base_model.named_children())


def _is_of_unused_pooler(model: PreTrainedModel, key: str) -> bool:
    """Whether a weight is the pooler's of a bare encoder, whose hidden states do not need it."""
    return model.base_model is model and key.startswith("pooler.")


def check_finite(model: torch.nn.Module, what: str) -> None:
    """Refuses weights that are not finite, from which nothing but NaN can come.

    Args:
        model: with the weights.
        what: begins the message, such as "The teacher outputs/teacher".

    Raises:
        ValueError: naming the weights.
    """
    wrong = infinite_weights(model)
    if wrong:
        raise ValueError(
            f"{what} has weights that are NaN or infinite: {some(wrong)}. Its training went wrong or its file is "
            "damaged: take an earlier checkpoint."
        )


# ---- configs ----


def load_config(name: Name, what: str = "model") -> PretrainedConfig:
    """Loads the config of a checkpoint.

    Args:
        name: a folder, or a name of the hub.
        what: how an error calls the model, such as "teacher".

    Raises:
        OSError: there is neither such a folder nor such a name.
        ValueError: the config is broken, or of a model that only code from the checkpoint could build.
    """
    path = Path(name)
    if os.path.isdir(name):
        check_config_file(path, what)
    else:
        check_may_be_of_hub(name, what)

    try:
        return AutoConfig.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise OSError(why_not_on_hub(name, error, what)) from None
    except Exception as error:
        where = path / "config.json" if os.path.isdir(path) else f"the config of {name}"
        raise ValueError(f"{where} does not describe a model that can be built: {reason(error)}") from error


# ---- tokenizers ----


def load_tokenizer(name: Name) -> Any:
    """Loads the tokenizer of a checkpoint.

    Args:
        name: a folder, or a name of the hub.

    Raises:
        OSError: there is neither such a folder nor such a name.
        ValueError: a folder without a tokenizer, for which `transformers` would make one that knows no word, or a
            broken file.
    """
    path = Path(name)
    if not os.path.isdir(path):
        check_may_be_of_hub(name, "model")
    elif not any((path / file).is_file() for file in TOKENIZER_FILES):
        raise ValueError(
            f"There is no tokenizer in {path} ({', '.join(TOKENIZER_FILES[:3])}): copy the files of the tokenizer "
            "that the model was trained with into it, or name its folder with --tokenizer_name."
        )

    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
    except OSError as error:
        raise OSError(why_not_on_hub(name, error, "model")) from None
    except Exception as error:
        raise ValueError(why_no_tokenizer(path, error)) from error

    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        raise ValueError(f"The tokenizer in {name} knows no word, only {', '.join(tokenizer.all_special_tokens)}.")
    return tokenizer
