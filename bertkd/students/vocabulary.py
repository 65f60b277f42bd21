"""Reduces a vocabulary to the tokens that the texts of a domain use."""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import PRUNED_PREFIX
from bertkd.models.positions import AFTER_PADDING
from bertkd.models.sizes import Model, match_device_dtype_and_mode, new_model

__all__ = ["prune_vocabulary"]

# Some models have a few more embeddings than tokens, because their number is rounded up.
MOST_UNUSED = 128
TEXTS_TOKENIZED_TOGETHER = 1000


def prune_vocabulary(
    model: Model, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], min_count: int = 1
) -> tuple[Model, PreTrainedTokenizerBase]:
    """Makes a new model of the same class and its tokenizer, with the tokens that `texts` use.

    Kept are tokens that occur at least `min_count` times in the tokenization of the texts, special and added tokens,
    and all pieces of a single character, with and without the prefix of a continued word, from which any other word is
    made. A text of kept tokens is cut into the same pieces as before, and the model computes what it did; other words
    fall into smaller pieces. Rows of the word embeddings go, and those of a masked language model's output layer and
    bias. Kept tokens keep their order, and the ids of the config follow.

    `model` and `tokenizer` stay as they are. The new model is on the same device, in the same dtype and mode.

    Args:
        model: any model, with or without a head; factorized and weight-sharing ones are welcome.
        tokenizer: the model's tokenizer, a WordPiece one (BERT, DistilBERT, ELECTRA).
        texts: the texts of the domain, such as the training set's.
        min_count: how often a token must occur to be kept; 1 keeps every token of the texts.

    Raises:
        ValueError: another kind of tokenizer, one of another vocabulary than the model, no text, a single string
            in the place of several, `min_count` below 1, or a supernet.
    """
    refuse_supernet(model, "prune_vocabulary")
    if min_count < 1:
        raise ValueError(f"min_count must be at least 1, not {min_count}.")
    if isinstance(texts, str):
        raise ValueError("prune_vocabulary needs several texts, and this is a single string: give a list.")

    content = _wordpiece_content(tokenizer)
    _check_same_vocabulary(model.config, tokenizer)
    counts = _count_tokens(tokenizer, texts)
    if not counts:
        raise ValueError("There is no token in the texts to choose the vocabulary by.")

    frequent = {token for token, count in counts.items() if count >= min_count}
    kept = sorted(frequent | _always_kept(content, tokenizer, model.config))
    new_ids = {old: new for new, old in enumerate(kept)}
    return _model_with_tokens(model, kept, new_ids), _tokenizer_with_tokens(tokenizer, content, new_ids)


def _wordpiece_content(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Returns the content of the tokenizer's tokenizer.json."""
    backend: Any = getattr(tokenizer, "backend_tokenizer", None)
    content: dict[str, Any] = {} if backend is None else json.loads(backend.to_str())

    kind = content["model"]["type"] if content else "no fast tokenizer"
    if kind != "WordPiece":
        raise ValueError(
            f"prune_vocabulary knows the vocabularies of WordPiece tokenizers, and this {type(tokenizer).__name__} is "
            f"{kind}: merges and scores of other kinds do not survive the loss of tokens."
        )
    return content


def _check_same_vocabulary(config: PretrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    tokens = max(tokenizer.get_vocab().values()) + 1
    if not 0 <= config.vocab_size - tokens < MOST_UNUSED:
        raise ValueError(
            f"The tokenizer has {tokens} tokens and the model {config.vocab_size} word embeddings: give the tokenizer "
            "that the model was trained with."
        )


def _count_tokens(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    remaining = iter(texts)
    while batch := list(islice(remaining, TEXTS_TOKENIZED_TOGETHER)):
        for ids in tokenizer(batch, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    return counts


def _always_kept(content: dict[str, Any], tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> set[int]:
    """Collects the ids of special and added tokens, of those that the config names, and of one-character pieces."""
    vocabulary, prefix = content["model"]["vocab"], content["model"]["continuing_subword_prefix"]
    kept = set(tokenizer.all_special_ids)
    kept.add(vocabulary[content["model"]["unk_token"]])

    for token in content["added_tokens"]:
        kept.add(token["id"])

    for piece, number in vocabulary.items():
        if len(piece.removeprefix(prefix)) == 1:
            kept.add(number)

    # These families count positions from the number of the padding token on, so that it must not change.
    if config.model_type.removeprefix(PRUNED_PREFIX) in AFTER_PADDING and config.pad_token_id is not None:
        kept |= set(range(config.pad_token_id))

    # A config may name ids that no token has.
    known = set(tokenizer.get_vocab().values())
    for ids in _token_ids_of(config).values():
        kept |= set(ids if isinstance(ids, list) else [ids]) & known

    return kept


def _token_ids_of(config: PretrainedConfig) -> dict[str, int | list[int]]:
    """Returns the fields of a config that name tokens, such as `pad_token_id`, with their ids."""
    fields = {}
    for name, value in config.to_dict().items():
        if name.endswith("_token_id") and value is not None:
            fields[name] = value
    return fields


def _model_with_tokens(model: Model, kept: Sequence[int], new_ids: Mapping[int, int]) -> Model:
    """Makes the model with the rows `kept` of everything that has one for each token."""
    config = copy.deepcopy(model.config)
    config.vocab_size = len(kept)
    for name, value in _token_ids_of(model.config).items():
        if isinstance(value, list):
            setattr(config, name, [new_ids[old] for old in value if old in new_ids])
        else:
            setattr(config, name, new_ids.get(value))

    student: Model = new_model(type(model), config, like=model)
    old_state, new_state = model.state_dict(), {}
    for name, tensor in student.state_dict().items():
        # Nothing but the number of tokens has changed, so a tensor of another shape has a row for each of them.
        has_same_shape = old_state[name].shape == tensor.shape
        new_state[name] = old_state[name] if has_same_shape else old_state[name][list(kept)]
    student.load_state_dict(new_state)
    return match_device_dtype_and_mode(student, model)


def _tokenizer_with_tokens(
    tokenizer: PreTrainedTokenizerBase, content: dict[str, Any], new_ids: Mapping[int, int]
) -> PreTrainedTokenizerBase:
    """Makes the tokenizer with the tokens in `new_ids` under their new ids, as it loads from a folder."""
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(_renumber(content, new_ids), ensure_ascii=False), encoding="utf-8")
        smaller: PreTrainedTokenizerBase = type(tokenizer).from_pretrained(folder)
    smaller.name_or_path = tokenizer.name_or_path

    # Some tokenizer class may write or read more than tokenizer.json.
    wanted = {token: new_ids[old] for token, old in tokenizer.get_vocab().items() if old in new_ids}
    if smaller.get_vocab() != wanted:
        raise RuntimeError("The pruned tokenizer did not come back from its folder with the vocabulary it was given.")
    return smaller


def _renumber(content: dict[str, Any], new_ids: Mapping[int, int]) -> dict[str, Any]:
    """Copies the content of tokenizer.json with new ids: vocabulary, added tokens, padding and post-processor."""
    content = copy.deepcopy(content)

    vocabulary = {}
    for token, old in sorted(content["model"]["vocab"].items(), key=lambda item: item[1]):
        if old in new_ids:
            vocabulary[token] = new_ids[old]
    content["model"]["vocab"] = vocabulary

    for token in content["added_tokens"]:
        token["id"] = new_ids[token["id"]]
    if content.get("padding"):
        content["padding"]["pad_id"] = new_ids[content["padding"]["pad_id"]]
    _renumber_processor(content.get("post_processor"), new_ids)
    return content


def _renumber_processor(processor: dict[str, Any] | None, new_ids: Mapping[int, int]) -> None:
    """Changes a post-processor in place: a template has the ids of its special tokens, BERT's own has those of two."""
    if processor is None:
        return

    # A sequence of processors holds others.
    for part in processor.get("processors", ()):
        _renumber_processor(part, new_ids)

    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [new_ids[old] for old in token["ids"]]

    for name in ("sep", "cls"):
        if name in processor:
            token, old = processor[name]
            processor[name] = [token, new_ids[old]]
