"""Describes a training for its records, and tells whether an earlier start of it left something to go on with."""

import copy
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bertkd.atomic import write_json
from bertkd.distillation import DistillationConfig
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.records import RunResult, StageResult

__all__ = [
    "Experiment",
    "check_writable",
    "finished",
    "output_folder",
    "remove_checkpoints",
    "start_in_folder",
    "with_changes",
]

Config = TypeVar("Config", bound=DistillationConfig)
Finished = TypeVar("Finished", RunResult, StageResult)

SETTINGS = "settings.json"
# Neither the outcome nor its description depends on these.
UNIMPORTANT = {
    "augment_batch_size",
    "augment_dir",
    "disable_tqdm",
    "output_dir",
    "per_device_eval_batch_size",
    "run_name",
    "save_total_limit",
    "seed",
    "stages",
    "teacher_cache_dir",
    "use_cpu",
}
UNIMPORTANT_PREFIXES = ("logging", "hub", "push", "report", "dataloader")
# What a finished training leaves: the first with a task's metric, the second without.
RECORDS = (RunResult.FILE, StageResult.FILE)


@dataclass(frozen=True)
class Experiment:
    """Names a training and says where it came from: what its record needs beside the objects that take part.

    Attributes:
        command: what was typed.
        options: everything beside the trainer's config that decides the outcome, as JSON values.
        default_config: the values of a config that nobody changed.
        result_name: the method's name in the record, where it is another than the pipeline's own.
        note: for the record, such as what a paper reports.
        teacher_name: the name or path of the teacher, for the card.
        replaces: the name or path of the model that the student replaces, whose latency is compared with the
            student's; None where there is none.
        measures_speed: whether what was trained is timed at the end.
        keep_checkpoints: whether the checkpoints of a finished training stay.
        is_dry_run: whether only a plan is printed.
    """

    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    default_config: Mapping[str, Any] = field(default_factory=dict)
    result_name: str = ""
    note: str = ""
    teacher_name: str = ""
    replaces: str | None = None
    measures_speed: bool = True
    keep_checkpoints: bool = False
    is_dry_run: bool = False

    def settings(self, config: DistillationConfig) -> dict[str, Any]:
        """Everything that decides the outcome of a training, as JSON values; a folder belongs to one set of them.

        These are the options, the fields that the method's config adds to `TrainingArguments`, and of the latter the
        ones that were changed. Seed and output folder are not among them.
        """
        shared = {member.name for member in fields(TrainingArguments)}
        always = {member.name for member in fields(config)} - shared
        always |= {"learning_rate", "num_train_epochs", "per_device_train_batch_size"}

        training = {}
        for name, value in config.to_dict().items():
            if name in UNIMPORTANT or name.startswith(UNIMPORTANT_PREFIXES):
                continue
            if name in always or value != self.default_config.get(name, value):
                training[name] = value

        options = {name: value for name, value in self.options.items() if name not in UNIMPORTANT}
        return {**options, **training}


def output_folder(config: DistillationConfig) -> Path:
    """The folder that a training writes to."""
    return Path(str(config.output_dir))


def with_changes(config: Config, **changes: Any) -> Config:
    """Copies a config and changes some values.

    `dataclasses.replace` would run its `__post_init__`, which resets the state of accelerate.
    """
    changed = copy.copy(config)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def start_in_folder(experiment: Experiment, config: DistillationConfig) -> None:
    """Checks that the output folder is free or holds an earlier start of the same training, and claims it.

    Raises:
        ValueError: the folder holds a training with other settings, whose checkpoints would be mixed in.
    """
    folder = output_folder(config)
    settings = {**experiment.settings(config), "seed": config.seed, "world_size": config.world_size}
    has_work = last_checkpoint(folder) is not None or any((folder / name).is_file() for name in RECORDS)

    # Checkpoints without settings were written by something that is not ours.
    if has_work and not (folder / SETTINGS).is_file():
        raise ValueError(f"{folder} holds checkpoints of something else: choose another --output_dir.")

    if has_work:
        earlier = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
        names = sorted(settings.keys() | earlier.keys())
        changed = [name for name in names if settings.get(name) != earlier.get(name)]
        if changed:
            what = ", ".join(f"{name} was {earlier.get(name)!r} and is {settings.get(name)!r}" for name in changed)
            raise ValueError(f"{folder} holds a run with other settings ({what}): choose another --output_dir.")

    if config.process_index == 0 and not experiment.is_dry_run:
        write_json(folder / SETTINGS, settings)


def finished(record_class: type[Finished], experiment: Experiment, config: DistillationConfig) -> Finished | None:
    """The record of a training that an earlier start finished; None where there is none.

    Args:
        record_class: `RunResult` for a training on a task, `StageResult` for one without a task's metric.
        experiment, config: the training.

    Raises:
        ValueError: the folder's training had other settings.
    """
    path = output_folder(config) / record_class.FILE
    if not path.is_file():
        return None

    start_in_folder(experiment, config)
    return record_class.read(path)


def remove_checkpoints(experiment: Experiment, folder: Path) -> None:
    """Deletes the checkpoints of a finished training, unless they are wanted."""
    if experiment.keep_checkpoints:
        return

    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)


def check_writable(folder: Path) -> None:
    """Makes a folder where it is not there, and checks that files can be written to it.

    Raises:
        OSError: they cannot; the message names the folder and the reason.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"Cannot write to {folder} ({error.strerror}): choose another --output_dir.") from None
