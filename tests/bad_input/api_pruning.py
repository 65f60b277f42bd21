"""Calls that score, prune, fit or distill a pruned student, and cannot do what they say."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from helpers import tiny_model
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from bad_input.cases import ApiCase, Kind, Place
from bertkd.dynabert import make_adaptive
from bertkd.pruning import (
    PrunedKDConfig,
    PrunedKDTrainer,
    Pruner,
    prune_to_budget,
    pruning_costs,
    reconstruct,
    unit_scores,
)
from bertkd.students import drop_layers, factorize, prune, share_layers

MODELS: Kind = "models and checkpoints"
NUMBERS: Kind = "numbers"
DATA: Kind = "data files"

Rows = list[dict[str, Tensor]]


def rows(batches: int = 4, size: int = 8) -> Rows:
    generator = torch.Generator().manual_seed(0)
    made = []
    for _ in range(batches):
        ids = torch.randint(3, 40, (size, 8), generator=generator)
        made.append({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    return made


def used_up() -> Iterator[dict[str, Tensor]]:
    """A generator that somebody has read to its end."""
    batches = iter(rows())
    list(batches)
    return batches


def overflowing() -> Any:
    """A model whose logits are not finite."""
    model = tiny_model()
    model.classifier.weight.data.fill_(3e38)
    return model


def broken() -> Any:
    model = tiny_model()
    model.bert.encoder.layer[0].output.dense.weight.data[0, 0] = float("nan")
    return model


def language_model() -> Any:
    return AutoModelForMaskedLM.from_config(tiny_model().config)


def unknown_family() -> Any:
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 50, "pad_token_id": 0}
    return AutoModelForSequenceClassification.from_config(AutoConfig.for_model("gpt2", **sizes))


def without_ids() -> Rows:
    return [{"attention_mask": batch["attention_mask"]} for batch in rows()]


def pruned() -> Any:
    return prune(tiny_model(), [1, 2], [12, 24])


def cut(teacher: Any = None, batches: Any = None, budget: float = 5_000, unit: str = "parameters", **more: Any) -> Any:
    """Prunes to a budget; the tiny teacher has some 6,000 parameters."""
    teacher = tiny_model() if teacher is None else teacher
    return prune_to_budget(teacher, rows() if batches is None else batches, budget, unit, **more)


def trainer(place: Place, **changes: Any) -> PrunedKDTrainer:
    models = {"model": pruned(), "teacher_model": tiny_model(), **changes}
    return PrunedKDTrainer(**models, args=PrunedKDConfig(output_dir=str(place.dir), use_cpu=True, report_to="none"))


def everywhere(kind: Kind, what: str, says: str, call: Callable[[Callable[..., Any]], Any]) -> list[ApiCase]:
    """The same wrong thing given to each of the three functions.

    Args:
        kind: see `ApiCase`.
        what: is wrong, with a verb's place in front.
        says: see `ApiCase`.
        call: calls a function of a model and batches with what is wrong.
    """
    functions: dict[str, Callable[..., Any]] = {
        "scoring": lambda model, batches: unit_scores(model, batches),
        "pruning": lambda model, batches: cut(model, batches),
        "fitting": lambda model, batches: reconstruct(model, tiny_model(), batches),
    }
    cases = []
    for verb, function in functions.items():
        cases.append(ApiCase(kind, f"{verb} {what}", lambda _place, of=function: call(of), says))
    return cases


def compiled() -> Any:
    return torch.compile(tiny_model())


CASES = [
    # Models.
    *everywhere(
        "models and checkpoints",
        "a compiled model",
        "A OptimizedModule is no model of transformers: give the model inside",
        lambda function: function(compiled(), rows()),
    ),
    *everywhere(
        "labels",
        "a model of many labels",
        "compares the probabilities of classes, or one number: .*multi_label_classification with 3 labels",
        lambda function: function(tiny_model(problem_type="multi_label_classification"), rows()),
    ),
    *everywhere(
        "labels",
        "a regression to three numbers",
        "compares the probabilities of classes, or one number: .*regression with 3 labels",
        lambda function: function(tiny_model(problem_type="regression"), rows()),
    ),
    *everywhere(
        MODELS,
        "a supernet",
        r"needs an ordinary model, and this one was made adaptive",
        lambda of: of(make_adaptive(tiny_model()), rows()),
    ),
    *everywhere(
        MODELS,
        "a factorized model",
        r"neither factorized nor shared.* ffn_rank=4",
        lambda of: of(factorize(tiny_model(), ffn_rank=4), rows()),
    ),
    *everywhere(
        MODELS,
        "a model that shares layers",
        r"neither factorized nor shared",
        lambda of: of(share_layers(tiny_model(), 1), rows()),
    ),
    *everywhere(
        MODELS,
        "a language model",
        r"needs a sequence classifier, not a BertForMaskedLM",
        lambda of: of(language_model(), rows()),
    ),
    *everywhere(
        MODELS,
        "a model without a head",
        r"needs a sequence classifier, not a BertModel",
        lambda of: of(AutoModel.from_config(tiny_model().config), rows()),
    ),
    *everywhere(MODELS, "a family that is not known", r"type 'gpt2'", lambda of: of(unknown_family(), rows())),
    *everywhere(MODELS, "weights of NaN", r"NaN|not finite", lambda of: of(broken(), rows())),
    *everywhere(MODELS, "predictions that overflow", r"not finite", lambda of: of(overflowing(), rows())),
    ApiCase(
        MODELS, "pruning a model that is pruned", lambda place: cut(pruned()), r"was pruned already\. Name the model"
    ),
    ApiCase(
        NUMBERS,
        "units by an unknown order",
        lambda place: Pruner.prepared(tiny_model(), rows(), unit_order="scores"),
        r"unit_order must be one of measured, score, error, not 'scores'",
    ),
    ApiCase(
        MODELS,
        "costs of a pruned model",
        lambda place: pruning_costs(pruned(), lambda models: [1.0] * len(models)),
        r"was pruned already",
    ),
    ApiCase(
        MODELS,
        "fitting to a teacher of another depth",
        lambda place: reconstruct(drop_layers(tiny_model(), [0]), tiny_model(), rows()),
        r"num_hidden_layers is 1 and the teacher's 2",
    ),
    ApiCase(
        MODELS,
        "fitting to a teacher of another size",
        lambda place: reconstruct(pruned(), tiny_model(hidden=32), rows()),
        r"hidden_size is 16 and the teacher's 32",
    ),
    ApiCase(
        MODELS,
        "fitting to a supernet",
        lambda place: reconstruct(pruned(), make_adaptive(tiny_model()), rows()),
        r"reconstruct needs an ordinary model",
    ),
    ApiCase(
        MODELS,
        "fitting to a teacher of other labels",
        lambda place: reconstruct(pruned(), tiny_model(num_labels=2), rows()),
        r"type pruned_bert with 3 labels, and the teacher of type bert with 2",
    ),
    ApiCase(
        MODELS,
        "fitting to a teacher of another family",
        lambda place: reconstruct(pruned(), tiny_model("electra"), rows()),
        r"type pruned_bert with 3 labels, and the teacher of type electra with 3",
    ),
    ApiCase(
        MODELS,
        "fitting to a teacher whose predictions overflow",
        lambda place: reconstruct(pruned(), overflowing(), rows()),
        r"not finite",
    ),
    # Rows.
    *everywhere(DATA, "by no batch", r"There is no batch of calibration rows", lambda of: of(tiny_model(), [])),
    *everywhere(
        DATA,
        "by a generator that is used up",
        r"There is no batch of calibration rows",
        lambda of: of(tiny_model(), used_up()),
    ),
    *everywhere(
        DATA,
        "by batches without token ids",
        r"has no input_ids; it has attention_mask",
        lambda of: of(tiny_model(), without_ids()),
    ),
    *everywhere(
        DATA,
        "by a batch of no row",
        r"has no row: its input_ids have the shape \(0, 8\)",
        lambda of: of(tiny_model(), rows(4, 0)),
    ),
    *everywhere(
        DATA,
        "by lists of numbers",
        r"input_ids of a batch .* has to be a tensor, not a list",
        lambda of: of(tiny_model(), [{"input_ids": [[2, 5, 3]]}] * 4),
    ),
    *everywhere(
        DATA,
        "by texts",
        r"has to be a dict of tensors, such as a data loader's, not a str",
        lambda of: of(tiny_model(), ["a good film"]),
    ),
    ApiCase(
        DATA,
        "pruning by one batch",
        lambda place: cut(batches=rows(1)),
        r"too few calibration rows, 8 calibration rows in a single batch",
    ),
    ApiCase(DATA, "fitting by one batch", lambda place: reconstruct(pruned(), tiny_model(), rows(1)), r"two batches"),
    # Budgets.
    ApiCase(
        NUMBERS,
        "a budget of NaN",
        lambda place: cut(budget=float("nan")),
        r"budget must be a positive number, not nan",
    ),
    ApiCase(
        NUMBERS,
        "an infinite budget",
        lambda place: cut(budget=float("inf")),
        r"budget must be a positive number, not inf",
    ),
    ApiCase(NUMBERS, "a negative budget", lambda place: cut(budget=-3), r"budget must be a positive number, not -3"),
    ApiCase(NUMBERS, "a budget of nothing", lambda place: cut(budget=0), r"budget must be a positive number, not 0"),
    ApiCase(
        NUMBERS, "a budget in words", lambda place: cut(budget="50%"), r"budget must be a positive number, not '50%'"
    ),
    ApiCase(
        NUMBERS,
        "a budget that is too small",
        lambda place: cut(budget=10),
        r"within 10 parameters.* single head takes",
    ),
    ApiCase(
        NUMBERS,
        "a unit that there is not",
        lambda place: cut(unit="gflops"),
        r"one of ms, mb, parameters, flops, not 'gflops'",
    ),
    ApiCase(
        NUMBERS,
        "a pass of no token",
        lambda place: cut(unit="flops", sequence_length=0),
        r"at least one row and one token, not 1 and 0",
    ),
    ApiCase(
        NUMBERS,
        "a measure of too few costs",
        lambda place: cut(measure=lambda models: [1.0]),
        r"one cost for each model, and gave 1 for \d+",
    ),
    ApiCase(
        NUMBERS,
        "a measure of too many costs",
        lambda place: cut(measure=lambda models: [1.0] * (len(models) + 1)),
        r"one cost for each model, and gave \d+ for \d+",
    ),
    ApiCase(
        NUMBERS,
        "a measure of NaN",
        lambda place: cut(measure=lambda models: [float("nan")] * len(models)),
        r"measure gave the cost nan",
    ),
    ApiCase(
        NUMBERS,
        "a measure below zero",
        lambda place: cut(measure=lambda models: [-1.0] * len(models)),
        r"measure gave the cost -1",
    ),
    # Training.
    ApiCase(
        MODELS,
        "a pruned student that is less deep",
        lambda place: trainer(place, model=drop_layers(tiny_model(), [0])),
        r"num_hidden_layers is 1 and the teacher's 2",
    ),
    ApiCase(
        MODELS,
        "a pruned student of another size",
        lambda place: trainer(place, model=tiny_model(hidden=32)),
        r"hidden_size is 32 and the teacher's 16",
    ),
    ApiCase(
        MODELS,
        "a pruned student without a teacher",
        lambda place: trainer(place, teacher_model=None),
        r"teacher_model",
    ),
    ApiCase(
        MODELS,
        "a supernet for a pruned student",
        lambda place: trainer(place, model=make_adaptive(tiny_model())),
        r"supernet|adaptive",
    ),
    ApiCase(
        NUMBERS,
        "a negative weight of hidden states",
        lambda place: PrunedKDConfig(output_dir=str(place.dir), beta=-1),
        r"must not be negative, not -1",
    ),
    ApiCase(
        NUMBERS,
        "a weight of hidden states that is NaN",
        lambda place: PrunedKDConfig(output_dir=str(place.dir), beta=float("nan")),
        r"beta .* nan",
    ),
    ApiCase(
        "teacher cache",
        "a cache of hidden states",
        lambda place: PrunedKDConfig(output_dir=str(place.dir), teacher_cache_dir=str(place.dir)),
        r"keeps no hidden states",
    ),
]
