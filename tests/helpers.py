"""Makes tiny random models and rows of tokens, and compares trainings."""

from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    MPNetConfig,
    MPNetForSequenceClassification,
    PreTrainedModel,
    RobertaConfig,
    RobertaForSequenceClassification,
    Trainer,
    TrainerCallback,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
)

VOCABULARY = 50

# The settings of a training whose losses and weights are compared. The optimizer is plain SGD because Adam turns float
# noise in a gradient that is zero into a whole step.
SETTINGS: dict[str, Any] = {
    "per_device_train_batch_size": 16,
    "num_train_epochs": 2,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
    "optim": "sgd",
}
PAD = {"bert": 0, "roberta": 1, "xlm-roberta": 1, "electra": 0, "distilbert": 0, "mpnet": 1}
_CLASSES: dict[str, tuple[Any, Any]] = {
    "bert": (BertConfig, BertForSequenceClassification),
    "roberta": (RobertaConfig, RobertaForSequenceClassification),
    "xlm-roberta": (XLMRobertaConfig, XLMRobertaForSequenceClassification),
    "electra": (ElectraConfig, ElectraForSequenceClassification),
    "distilbert": (DistilBertConfig, DistilBertForSequenceClassification),
    "mpnet": (MPNetConfig, MPNetForSequenceClassification),
}


def tiny_model(
    family: str = "bert", layers: int = 2, hidden: int = 16, seed: int = 0, dropout: float = 0.0, **settings: Any
) -> PreTrainedModel:
    """Makes a random classifier whose outputs differ visibly from row to row."""
    config_class, model_class = _CLASSES[family]
    names = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "intermediate_size": 24}
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout, "classifier_dropout": dropout}
    if family == "distilbert":
        names = {"dim": hidden, "n_layers": layers, "n_heads": 2, "hidden_dim": 24}
        rates = {"dropout": dropout, "attention_dropout": dropout, "seq_classif_dropout": dropout}
    if family == "electra":
        names["embedding_size"] = 12

    torch.manual_seed(seed)
    settings = {"num_labels": 3, "initializer_range": 0.3, **settings}
    shared = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, "pad_token_id": PAD[family]}
    return model_class(config_class(**(shared | names | rates | settings))).eval()


def rows(count: int = 32, labels: int = 3, seed: int = 0, pairs: bool = False) -> list[dict[str, Any]]:
    """Makes rows of random tokens of different lengths; with `pairs`, the second half of each is segment 1."""
    generator = torch.Generator().manual_seed(seed)
    made_rows = []
    for i in range(count):
        length = int(torch.randint(4, 20, (1,), generator=generator))
        row: dict[str, Any] = {
            "input_ids": torch.randint(3, VOCABULARY, (length,), generator=generator).tolist(),
            "attention_mask": [1] * length,
            "labels": i % labels if labels > 1 else float(i % 5),
        }
        if pairs:
            row["token_type_ids"] = [0] * (length // 2) + [1] * (length - length // 2)
        made_rows.append(row)
    return made_rows


def dataset(count: int = 32, **settings: Any) -> Dataset:
    return Dataset.from_list(rows(count, **settings))


class Collator:
    """Pads to the longest row of a batch."""

    def __init__(self, pad: int = 0) -> None:
        self.padding = {"input_ids": pad, "attention_mask": 0, "token_type_ids": 0}

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(feature["input_ids"]) for feature in features)
        batch = {}
        for name in features[0]:
            values = [feature[name] for feature in features]
            if name in self.padding:
                values = [value + [self.padding[name]] * (longest - len(value)) for value in values]
            batch[name] = torch.tensor(values)
        return batch


def word_tokenizer(folder: Path, size: int = VOCABULARY) -> BertTokenizer:
    """Makes a tokenizer of `size` tokens: BERT's special ones, and the words w0, w1, ..."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(size - 5))]
    (folder / "vocab.txt").write_text("\n".join(names))
    return BertTokenizer(str(folder / "vocab.txt"))


class StopAt(TrainerCallback):
    """Interrupts a training after a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.step


class CountSteps(TrainerCallback):
    """Counts the steps of a training that are taken, and not those that a checkpoint had behind it."""

    steps = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.steps += 1


def go_on(trainer: Trainer, steps: int, checkpoint: bool | str = True) -> None:
    """Trains on from a checkpoint, from which so many steps are left: one that begins anew takes more."""
    counted = CountSteps()
    trainer.add_callback(counted)
    trainer.train(resume_from_checkpoint=checkpoint)
    assert counted.steps == steps


def training_log(trainer: Trainer) -> list[dict[str, float]]:
    """Returns the loss, its parts and the gradient's norm of each logged step."""
    steps = []
    for entry in trainer.state.log_history:
        if "loss" in entry:
            steps.append({name: value for name, value in entry.items() if "loss" in name or name == "grad_norm"})
    return steps


def assert_same_run(trainer: Any, expected: Any) -> None:
    """Checks that two trainings gave the same losses, gradients and weights."""
    log, expected_log = training_log(trainer), training_log(expected)
    assert len(log) == len(expected_log) > 0
    for step, expected_step in zip(log, expected_log, strict=True):
        assert step == pytest.approx(expected_step, rel=2e-4, abs=1e-6)

    pairs = ((trainer.model, expected.model), (trainer.extra_modules, expected.extra_modules))
    for module, expected_module in pairs:
        for weight, expected_weight in zip(module.parameters(), expected_module.parameters(), strict=True):
            torch.testing.assert_close(weight, expected_weight, rtol=1e-4, atol=2e-6)
