"""A smaller vocabulary: only the tokens that a domain's texts use."""

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from bertkd.models.adaptive import refuse_supernet
from bertkd.models.sizes import like

__all__ = ["prune_vocabulary"]

Model = TypeVar("Model", bound=PreTrainedModel)

# Some models have a few more embeddings than tokens, because their number is rounded up.
MOST_UNUSED = 128
TOKENIZED_TOGETHER = 1000


def prune_vocabulary(
    model: Model, tokenizer: PreTrainedTokenizerBase, texts: Iterable[str], min_count: int = 1
) -> tuple[Model, PreTrainedTokenizerBase]:
    """A new model of the same class and its tokenizer, with the tokens that `texts` use.

    Kept are tokens that occur at least `min_count` times in the tokenization of the texts, special and added tokens,
    and all pieces of a single character, with and without the prefix of a continued word, from which any other word is
    made. A text of kept tokens is cut into the same pieces as before, and the model computes what it did; other words
    fall into smaller pieces. Rows of the word embeddings go, and those of a masked language model's output layer and
    bias. Kept tokens keep their order, and the ids of the config follow.

    `model` and `tokenizer` stay as they are. The new model is on the same device, in the same dtype and mode.

    Args:
        model: any model, with or without a head, factorized and shared ones included.
        tokenizer: the model's, a WordPiece one (BERT, DistilBERT, ELECTRA).
        texts: those of the domain, such as the training set's.
        min_count: 1 keeps every token of the texts.

    Raises:
        ValueError: another kind of tokenizer, one of another vocabulary than the model, no text, a single string
            in the place of several, `min_count` below 1, or a supernet.
    """
    refuse_supernet(model, "prune_vocabulary")
    if min_count < 1:
        raise ValueError(f"min_count must be at least 1, not {min_count}.")
    if isinstance(texts, str):
        raise ValueError("prune_vocabulary needs several texts, and this is a single string: give a list.")
    content = _wordpiece(tokenizer)
    _check_same_vocabulary(model.config, tokenizer)
    counts = _count(tokenizer, texts)
    if not counts:
        raise ValueError("There is no token in the texts to choose the vocabulary by.")
    frequent = {token for token, count in counts.items() if count >= min_count}
    kept = sorted(frequent | _always_kept(content, tokenizer, model.config))
    numbers = {old: new for new, old in enumerate(kept)}
    return _with_rows(model, kept, numbers), _renumbered(tokenizer, content, numbers)


def _wordpiece(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """The content of the tokenizer's tokenizer.json."""
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


def _count(tokenizer: PreTrainedTokenizerBase, texts: Iterable[str]) -> Counter[int]:
    counts: Counter[int] = Counter()
    for some in _batches(texts):
        for ids in tokenizer(some, add_special_tokens=False, verbose=False)["input_ids"]:
            counts.update(ids)
    return counts


def _always_kept(content: dict[str, Any], tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> set[int]:
    """Ids of special and added tokens, of those that the config names, and of pieces of one character."""
    vocabulary, prefix = content["model"]["vocab"], content["model"]["continuing_subword_prefix"]
    single = {number for token, number in vocabulary.items() if len(token.removeprefix(prefix)) == 1}
    added = {token["id"] for token in content["added_tokens"]} | {vocabulary[content["model"]["unk_token"]]}
    known = set(tokenizer.get_vocab().values())
    return single | added | set(tokenizer.all_special_ids) | (set(_ids_of(config)) & known)


def _ids_of(config: PretrainedConfig) -> list[int]:
    """Token ids that a config names."""
    ids = []
    for name, value in config.to_dict().items():
        if name.endswith("_token_id"):
            ids += value if isinstance(value, list) else [] if value is None else [value]
    return ids


def _with_rows(model: Model, kept: Sequence[int], numbers: Mapping[int, int]) -> Model:
    """The model with the rows `kept` of everything that has one for each token."""
    config = copy.deepcopy(model.config)
    config.vocab_size = len(kept)
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id"):
            new = [numbers[one] for one in value if one in numbers] if isinstance(value, list) else numbers.get(value)
            setattr(config, name, new)
    made, state = type(model)(config), model.state_dict()
    # Nothing but the number of tokens has changed, so what has another shape has a row for each of them.
    made.load_state_dict(
        {
            name: state[name] if state[name].shape == tensor.shape else state[name][list(kept)]
            for name, tensor in made.state_dict().items()
        }
    )
    return like(made, model)


def _renumbered(
    tokenizer: PreTrainedTokenizerBase, content: dict[str, Any], numbers: Mapping[int, int]
) -> PreTrainedTokenizerBase:
    """The tokenizer with the tokens in `numbers` under their new ids, as it loads from a folder."""
    wanted = {token: numbers[old] for token, old in tokenizer.get_vocab().items() if old in numbers}
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        path = Path(folder) / "tokenizer.json"
        path.write_text(json.dumps(_renumber(content, numbers), ensure_ascii=False), encoding="utf-8")
        made: PreTrainedTokenizerBase = type(tokenizer).from_pretrained(folder)
    made.name_or_path = tokenizer.name_or_path
    if made.get_vocab() != wanted:
        raise RuntimeError("The pruned tokenizer did not come back from its folder with the vocabulary it was given.")
    return made


def _renumber(content: dict[str, Any], numbers: Mapping[int, int]) -> dict[str, Any]:
    """The content of tokenizer.json with new ids: vocabulary, added tokens, padding and post-processor."""
    content = copy.deepcopy(content)
    vocabulary = content["model"]["vocab"]
    content["model"]["vocab"] = {
        token: numbers[old] for token, old in sorted(vocabulary.items(), key=lambda item: item[1]) if old in numbers
    }
    for token in content["added_tokens"]:
        token["id"] = numbers[token["id"]]
    if content.get("padding"):
        content["padding"]["pad_id"] = numbers[content["padding"]["pad_id"]]
    _renumber_processor(content.get("post_processor"), numbers)
    return content


def _renumber_processor(processor: dict[str, Any] | None, numbers: Mapping[int, int]) -> None:
    """In place: a template has the ids of its special tokens, BERT's own processor those of two of them."""
    if processor is None:
        return
    for one in processor.get("processors", ()):
        _renumber_processor(one, numbers)
    if processor["type"] == "TemplateProcessing":
        for token in processor["special_tokens"].values():
            token["ids"] = [numbers[old] for old in token["ids"]]
    for name in ("sep", "cls"):
        if name in processor:
            token, old = processor[name]
            processor[name] = [token, numbers[old]]


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(texts)
    while some := list(islice(rest, TOKENIZED_TOGETHER)):
        yield some
