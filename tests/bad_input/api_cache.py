"""Trainings whose teacher's outputs cannot be cached, and caches whose contents are not what was written."""

import math
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from helpers import SETTINGS, Collator, dataset, tiny_model
from torch import Tensor

import bertkd
from bad_input.cases import ApiCase, Kind, Place
from bertkd.atomic import atomic_replacement
from bertkd.export import export_model

KIND: Kind = "teacher cache"
TURNS = (
    "changes from call to call or with the other rows of a batch, and cannot be cached.*Leave teacher_cache_dir out"
)


def train(
    place: Place,
    trainer_class: Any = bertkd.DistillationTrainer,
    collator: Any = None,
    data: Any = None,
    teacher: Any = None,
    **settings: Any,
) -> Any:
    """Trains two epochs with a cache in the case's folder."""
    names = {"output_dir": str(place.dir / "run"), "teacher_cache_dir": str(place.dir / "cache")}
    trainer = trainer_class(
        model=tiny_model(layers=1, seed=1),
        teacher_model=teacher if teacher is not None else tiny_model(layers=1, seed=2),
        args=bertkd.DistillationConfig(**{**SETTINGS, "warmup_steps": 0, "alpha": 1.0, **names, **settings}),
        train_dataset=data if data is not None else dataset(12),
        data_collator=collator or Collator(),
    )
    trainer.train()
    return trainer


# ---- collators ----


def drawing(features: list[dict[str, Any]]) -> dict[str, Tensor]:
    batch = Collator()(features)
    batch["input_ids"] = torch.where(torch.rand(batch["input_ids"].shape) < 0.3, 3, batch["input_ids"])
    return batch


class Counting(Collator):
    """Gives other tokens in each call."""

    calls = 0

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Tensor]:
        self.calls += 1
        batch = super().__call__(features)
        batch["input_ids"] = (batch["input_ids"] + self.calls) % 40 + 3
        return batch


class LateCounting(Counting):
    """Gives other tokens after the calls that come before a training."""

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Tensor]:
        batch = super().__call__(features)
        return batch if self.calls > 6 else Collator()(features)


def mixing(features: list[dict[str, Any]]) -> dict[str, Tensor]:
    batch = Collator()(features)
    batch["input_ids"] = batch["input_ids"].roll(1, 0)
    return batch


def cutting(features: list[dict[str, Any]]) -> dict[str, Tensor]:
    shortest = min(len(feature["input_ids"]) for feature in features)
    batch = Collator()(features)
    for name in ("input_ids", "attention_mask"):
        batch[name] = batch[name][:, :shortest]
    return batch


def doubling(features: list[dict[str, Any]]) -> dict[str, Tensor]:
    return Collator()([feature for feature in features for _ in range(2)])


def dropping(features: list[dict[str, Any]]) -> dict[str, Tensor]:
    batch = Collator()(features)
    batch.pop("teacher_row", None)
    return batch


# ---- teachers ----


def answering(change: Callable[[Any, Any, Any], Any]) -> type:
    """A trainer whose `teacher_forward` changes the outputs of the ordinary one."""

    class Trainer(bertkd.DistillationTrainer):
        calls = 0

        def teacher_forward(self, inputs: dict[str, Tensor]) -> Any:
            self.calls += 1
            return change(self, super().teacher_forward(inputs), inputs)

    return Trainer


def weighted(value: float) -> Any:
    """A teacher with one weight of this value."""
    teacher = tiny_model(layers=1, seed=2)
    with torch.no_grad():
        teacher.classifier.bias[0] = value
    return teacher


def drawn_rows() -> Dataset:
    """Rows that a transform makes anew whenever they are read."""

    def transform(batch: dict[str, list]) -> dict[str, list]:
        ids = [[random.randint(3, 40) for _ in range(8)] for _ in batch["number"]]
        return {"input_ids": ids, "attention_mask": [[1] * 8] * len(ids), "labels": [0] * len(ids)}

    return Dataset.from_dict({"number": list(range(12))}).with_transform(transform)


# ---- damage ----


def damaged(damage: Callable[[Path], Any]) -> Callable[[Place], Any]:
    """Makes a cache, changes it, and trains once more; the second training must be like the first."""

    def call(place: Place) -> None:
        first = train(place)
        damage(next((place.dir / "cache").glob("*/meta.json")).parent)
        second = train(place)
        assert first.state.log_history[0]["loss"] == second.state.log_history[0]["loss"]

    return call


def edit(folder: Path, value: float) -> None:
    array = np.load(folder / "logits.npy", mmap_mode="r+")
    array[3, 0] = value
    array.flush()


def cut(folder: Path) -> None:
    content = (folder / "logits.npy").read_bytes()
    (folder / "logits.npy").write_bytes(content[:-8])


def put_under_another_name(place: Place) -> None:
    """Lets the cache of one teacher stand in the place of another's."""
    train(place)
    first = next((place.dir / "cache").glob("*/meta.json")).parent
    shutil.copytree(first, place.dir / "first")
    train(place, teacher=tiny_model(layers=1, seed=5))
    (second,) = (meta.parent for meta in (place.dir / "cache").glob("*/meta.json") if meta.parent != first)
    shutil.rmtree(second)
    shutil.move(place.dir / "first", second)
    train(place, teacher=tiny_model(layers=1, seed=5))


SCALE = [1.0]


def with_an_edited_helper(place: Place) -> None:
    """Trains, edits what `teacher_forward` calls, and trains again."""
    scaled = answering(lambda trainer, outputs, inputs: {"logits": outputs.logits * SCALE[0]})
    try:
        train(place, scaled)
        SCALE[0] = 2.0
        train(place, scaled)
    finally:
        SCALE[0] = 1.0


def into_a_folder_of_notes(place: Place) -> None:
    (place.dir / "out").mkdir()
    (place.dir / "out" / "notes.txt").write_text("mine")
    export_model(tiny_model(), place.dir / "out", "pytorch", "float32")


def over_notes(place: Place) -> None:
    (place.dir / "notes").mkdir()
    (place.dir / "notes" / "a.txt").touch()
    with atomic_replacement(place.dir / "notes", "meta.json") as partial:
        partial.mkdir()


def refused(name: str, call: Callable[[Place], Any], says: str = TURNS, **more: Any) -> ApiCase:
    return ApiCase(KIND, name, call, says, **more)


def named(name: str, damage: Callable[[Path], Any]) -> ApiCase:
    return ApiCase(
        KIND,
        name,
        damaged(damage),
        "teacher cache .* is damaged or of an earlier version: it is computed anew",
        ends="named",
    )


CASES = [
    refused("a collator that draws", lambda place: train(place, collator=drawing)),
    refused("a collator that counts its calls", lambda place: train(place, collator=Counting())),
    refused("a collator that changes later", lambda place: train(place, collator=LateCounting())),
    refused("a collator that mixes rows", lambda place: train(place, collator=mixing)),
    refused("a collator that cuts rows to the shortest", lambda place: train(place, collator=cutting)),
    refused(
        "a collator that makes rows",
        lambda place: train(place, collator=doubling),
        r"collator makes 24 rows of 12.*Leave teacher_cache_dir out",
    ),
    refused(
        "a collator that drops the rows' numbers",
        lambda place: train(place, collator=dropping),
        "collator dropped the column teacher_row",
    ),
    refused(
        "a data set that draws its rows", lambda place: train(place, data=drawn_rows(), remove_unused_columns=False)
    ),
    refused(
        "a stream of rows",
        lambda place: train(place, data=dataset(12).to_iterable_dataset(), max_steps=1),
        "needs a training set with a length",
    ),
    refused(
        "a teacher_forward that draws",
        lambda place: train(
            place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits + torch.randn(())})
        ),
    ),
    refused(
        "a teacher_forward that counts its calls",
        lambda place: train(
            place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits * trainer.calls})
        ),
    ),
    refused(
        "a teacher_forward that anneals by the epoch",
        lambda place: train(
            place,
            answering(lambda trainer, outputs, inputs: {"logits": outputs.logits * (1 + (trainer.state.epoch or 0))}),
        ),
    ),
    refused(
        "a teacher_forward that centers over the batch",
        lambda place: train(
            place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits - outputs.logits.mean(0)})
        ),
    ),
    refused(
        "a teacher_forward that answers for all tokens",
        lambda place: train(
            place,
            answering(
                lambda trainer, outputs, inputs: {"logits": outputs.logits, "tokens": inputs["input_ids"].float()}
            ),
        ),
        "'tokens' has shape .* only outputs of one fixed shape per row can be cached",
    ),
    refused(
        "a teacher_forward with one answer for the batch",
        lambda place: train(
            place,
            answering(
                lambda trainer, outputs, inputs: {"logits": outputs.logits, "norm": outputs.logits.norm().view(1)}
            ),
        ),
        "'norm' has shape .* only outputs of one fixed shape per row can be cached",
    ),
    refused(
        "a teacher_forward that returns no tensor",
        lambda place: train(
            place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits, "names": ["a"]})
        ),
        "outputs names cannot be cached: return tensors with one entry per row",
    ),
    refused(
        "a teacher whose answers are no numbers",
        lambda place: train(place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits * math.nan})),
        "'logits' is not a finite number in row",
    ),
    refused(
        "a teacher whose answers are infinite",
        lambda place: train(place, answering(lambda trainer, outputs, inputs: {"logits": outputs.logits + math.inf})),
        "'logits' is not a finite number in row",
    ),
    refused(
        "answers that half precision cannot hold",
        lambda place: train(place, teacher=weighted(1e5), teacher_cache_dtype="float16"),
        r"'logits' reaches 1e\+05 in row \d+, which float16 cannot hold: set teacher_cache_dtype to float32",
    ),
    refused(
        "a cache in a precision that does not exist",
        lambda place: train(place, teacher_cache_dtype="float8"),
        "teacher_cache_dtype must be one of float32, float16",
    ),
    refused(
        "a cache folder that is a file",
        lambda place: ((place.dir / "cache").touch(), train(place)),
        r"Cannot write to .*cache \(File exists\): choose another teacher_cache_dir",
        error=OSError,
    ),
    named("a number of a cache was edited", lambda folder: edit(folder, 100.0)),
    named("a number of a cache is none", lambda folder: edit(folder, float("nan"))),
    named("a cache was cut short", cut),
    named(
        "the description of a cache was cut short",
        lambda folder: (folder / "meta.json").write_text('{"version": 2, "che'),
    ),
    named("a file of a cache was removed", lambda folder: (folder / "logits.npy").unlink()),
    ApiCase(
        KIND,
        "a cache in the place of another teacher's",
        put_under_another_name,
        "is damaged or of an earlier version: it is computed anew",
        ends="named",
    ),
    ApiCase(
        KIND,
        "a value that teacher_forward reads was edited",
        with_an_edited_helper,
        r"does not hold what the teacher says now \(logits differs\): it is computed anew",
        ends="named",
    ),
    ApiCase(
        "folders and interrupted work",
        "an export into a folder of somebody else",
        into_a_folder_of_notes,
        r"holds notes\.txt and no export\.json",
    ),
    ApiCase(
        "folders and interrupted work",
        "a folder of somebody else is replaced",
        over_notes,
        r"holds a\.txt and no meta\.json: all of it would be replaced",
    ),
]
