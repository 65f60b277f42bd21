"""Checks what is to be exported, and where to, before any work begins."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from bertkd.atomic import check_replaceable, is_nobodys
from bertkd.efficiency.inputs import check_inputs
from bertkd.models.families import family_of
from bertkd.models.loading import check_finite
from bertkd.models.positions import max_tokens

__all__ = [
    "check_calibration",
    "check_export_tokenizer",
    "check_folder",
    "check_length",
    "check_model",
    "check_threads",
]

CLASSIFIER = "ForSequenceClassification"


def check_model(model: Any) -> None:
    """Checks that a model gives logits that an export can be compared with.

    Raises:
        ValueError: it is no model of transformers, no classifier, or has weights that are not finite.
    """
    kind = type(model).__name__
    if not isinstance(model, PreTrainedModel):
        raise ValueError(
            f"The model to export is of type {kind}: load it with AutoModelForSequenceClassification.from_pretrained "
            "first, and take a wrapper such as DataParallel or torch.compile off."
        )

    # Other families are refused with a list of those that are supported.
    family_of(model)

    if CLASSIFIER not in kind:
        raise ValueError(
            f"The model to export is a {kind}, which is no classifier: load it with "
            "AutoModelForSequenceClassification, or fine-tune one first."
        )

    for name, weight in model.named_parameters():
        if weight.is_meta:
            raise ValueError(f"The model to export has no weights yet, {name} is on the meta device: load them first.")
    check_finite(model, "The model to export")


def check_export_tokenizer(model: PreTrainedModel, tokenizer: Any) -> None:
    """Checks that a tokenizer is one, and the model's own as far as its size tells; None is no tokenizer.

    Raises:
        ValueError: it is something else, or has tokens that the model does not know.
    """
    if tokenizer is None:
        return

    if not hasattr(tokenizer, "save_pretrained") or not hasattr(tokenizer, "model_input_names"):
        raise ValueError(
            f"The tokenizer is of type {type(tokenizer).__name__}: load it with AutoTokenizer.from_pretrained first."
        )

    vocabulary = tokenizer.get_vocab()
    if set(vocabulary.values()) <= set(tokenizer.all_special_ids):
        # transformers makes such a tokenizer for a folder without tokenizer files, and says nothing.
        raise ValueError(
            "The tokenizer knows no words, only special tokens, because its folder has no vocabulary: put the model's "
            "tokenizer.json there, or name another one with --tokenizer_name."
        )

    largest = max(vocabulary.values())
    if largest >= model.config.vocab_size:
        raise ValueError(
            f"The tokenizer has the token {largest}, but the model knows {model.config.vocab_size}: give the model's "
            "own tokenizer."
        )


def check_calibration(
    model: PreTrainedModel, calibration: Sequence[Mapping[str, Tensor]] | None, is_needed: bool
) -> None:
    """Checks that there are calibration data where they are needed, and that the model can read them.

    Raises:
        ValueError: there is no batch, a batch is no dict of tensors, or the model cannot read it, because another
            tokenizer made it or for another reason of `check_inputs`.
    """
    if calibration is None:
        if is_needed:
            raise ValueError("OpenVINO's int8 needs calibration data: give some batches of the training data.")
        return

    config = model.config
    if not calibration:
        raise ValueError("The calibration data hold no batch: give some rows of the training data.")

    for index, batch in enumerate(calibration):
        if not isinstance(batch, Mapping) or not all(isinstance(value, Tensor) for value in batch.values()):
            raise ValueError(
                f"Batch {index} of the calibration data is no dict of tensors: give what a tokenizer returns with "
                'padding=True and return_tensors="pt".'
            )

        largest = int(batch["input_ids"].max()) if "input_ids" in batch and batch["input_ids"].numel() else 0
        if largest >= config.vocab_size:
            raise ValueError(
                f"The calibration data hold the token {largest}, but the model knows {config.vocab_size}: they were "
                "made by another tokenizer. Use the model's own."
            )
        try:
            check_inputs(batch, config.vocab_size, max_tokens(config), getattr(config, "type_vocab_size", None))
        except ValueError as error:
            raise ValueError(f"Batch {index} of the calibration data: {error}") from None


def check_threads(threads: int | None) -> None:
    """Checks a number of threads; None stands for torch's number.

    Raises:
        ValueError: it is no whole number of 1 or more.
    """
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise ValueError(f"threads is {threads!r}: give a whole number of 1 or more.")


def check_length(name: str, config: Any, tokens: int) -> None:
    """Checks that a model takes texts of a length that is to be measured.

    Raises:
        ValueError: it takes shorter ones.
    """
    limit = max_tokens(config)
    if limit is not None and tokens > limit:
        raise ValueError(f"--sequence_length is {tokens}, but {name} takes {limit} tokens: give at most that.")


def check_folder(folder: Path, model: PreTrainedModel) -> None:
    """Checks that an export may replace a folder, with all that it holds.

    Raises:
        ValueError: the folder is a file or the model's own, or it holds something else than an export.
    """
    if folder.is_file():
        raise ValueError(f"{folder} is a file: give a folder to export to.")
    if not folder.is_dir():
        return

    source = Path(getattr(model, "name_or_path", "") or "/nowhere")
    if source.is_dir() and source.resolve() == folder.resolve():
        raise ValueError(f"{folder} is the model's own folder, which the export would replace: choose another.")

    others = sorted(path.name for path in folder.iterdir() if path.is_dir() and not is_nobodys(path.name))
    if others:
        raise ValueError(
            f"{folder} holds the folder {others[0]}, and an export replaces all of a folder: choose another one."
        )
    check_replaceable(folder, "export.json")
