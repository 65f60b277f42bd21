"""Saves tokenizers as any client should read them: without the truncation and padding of a training."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bertkd.models.positions import max_tokens

__all__ = ["ready_to_save", "save_tokenizer"]

# `from_pretrained` reads the truncation of a `tokenizer.json` into these settings, and would write them down again.
TRUNCATION_SETTINGS = ("max_length", "stride", "truncation_strategy")


@contextmanager
def ready_to_save(tokenizer: Any, config: Any = None) -> Iterator[None]:
    """Takes truncation and padding out of a fast tokenizer inside the block, so that its files have neither.

    A fast tokenizer keeps the truncation and padding of its last call, and writes both into `tokenizer.json`. There
    `transformers` overrides them, but a client that reads `tokenizer.json` alone would silently cut texts to the
    length of a training. How many tokens the model takes belongs into `tokenizer_config.json`, as `model_max_length`.

    Args:
        tokenizer: of any kind; one that is not fast is left alone, and so is None.
        config: of the model, where that is known. The tokens that the model takes are the tokenizer's limit inside
            the block unless the tokenizer has a lower one; without any, `truncation=True` would not cut.
    """
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    truncation, padding = getattr(backend, "truncation", None), getattr(backend, "padding", None)
    limit, settings = getattr(tokenizer, "model_max_length", None), getattr(tokenizer, "init_kwargs", {})
    positions = max_tokens(config)
    of_truncation = {name: settings.pop(name) for name in TRUNCATION_SETTINGS if name in settings}

    if truncation is not None:
        backend.no_truncation()
    if padding is not None:
        backend.no_padding()
    if limit is not None and positions is not None:
        tokenizer.model_max_length = min(limit, positions)

    try:
        yield
    finally:
        settings.update(of_truncation)
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
        if limit is not None:
            tokenizer.model_max_length = limit


def save_tokenizer(tokenizer: Any, folder: str | Path, config: Any = None) -> None:
    """Writes a tokenizer's files into a folder, without truncation and padding; see `ready_to_save`."""
    with ready_to_save(tokenizer, config):
        tokenizer.save_pretrained(folder)
