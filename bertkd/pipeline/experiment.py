"""Describes a training for its records, and tells whether an earlier start of it left something to go on with."""

import copy
import functools
import inspect
import json
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from transformers import TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bertkd.atomic import plain_json, write_json
from bertkd.distillation import DistillationConfig
from bertkd.distillation.checkpoints import last_checkpoint
from bertkd.folder_lock import folder_in_use, has_dead_holder
from bertkd.pipeline.contents import content_digests
from bertkd.pipeline.folders import check_not_input
from bertkd.pipeline.hub import upload
from bertkd.records import RunResult, StageResult, environment

__all__ = [
    "Experiment",
    "check_no_training",
    "finished",
    "output_folder",
    "remove_checkpoints",
    "start_in_folder",
    "trainer_config",
    "training_environment",
    "with_changes",
    "writes_output_folder",
]

Arguments = ParamSpec("Arguments")
Answer = TypeVar("Answer")
Config = TypeVar("Config", bound=DistillationConfig)
Finished = TypeVar("Finished", RunResult, StageResult)

SETTINGS = "settings.json"
# The keys of that file under which the hashes of data and models stand, and the commits of bertkd that trained.
CONTENTS, COMMITS = "contents", "commits"
# Options that may differ between two starts of one run: they change speed, place, names or which stages run, and not
# the result. Only the seed does, and is compared on its own.
UNIMPORTANT = {
    "augment_batch_size",
    "augment_dir",
    "dataloader_in_order",
    "dataloader_multiprocessing_context",
    "dataloader_num_workers",
    "dataloader_persistent_workers",
    "dataloader_pin_memory",
    "dataloader_prefetch_factor",
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
UNIMPORTANT_PREFIXES = ("logging", "hub", "push", "report")
# What a finished training leaves: the first with a task's metric, the second without.
RECORDS = (RunResult.FILE, StageResult.FILE)


@dataclass(frozen=True)
class Experiment:
    """Names a training and says where it came from: what its record needs beside the objects that take part.

    Attributes:
        command: what was typed.
        options: everything beside the trainer's config that decides the outcome, as JSON values.
        default_config: the values of a config that nobody changed.
        default_options: those of options.
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
    default_options: Mapping[str, Any] = field(default_factory=dict)
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
        always |= {"learning_rate", "load_best_model_at_end", "num_train_epochs", "per_device_train_batch_size"}

        training = {}
        for name, value in config.to_dict().items():
            if name in UNIMPORTANT or name.startswith(UNIMPORTANT_PREFIXES):
                continue
            if name in always or value != self.default_config.get(name, value):
                training[name] = value

        options = {name: value for name, value in self.options.items() if name not in UNIMPORTANT}
        return {**options, **training}

    def inputs(self, config: DistillationConfig) -> dict[str, Any]:
        """The options that name what a training reads, and the others that say which part of it."""
        options = {**self.options, "projection_from": getattr(config, "projection_from", None)}
        options["do_predict"] = config.do_predict
        # A pipeline that has no options still names its teacher.
        options.setdefault("teacher_model_name_or_path", self.teacher_name or None)
        return options


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


def trainer_config(experiment: Experiment, config: Config) -> Config:
    """What a trainer gets of a training's config: the folder is uploaded as a whole at the end, with its card.

    The trainer would upload checkpoints. The folder's settings are those of `config` itself.
    """
    own = with_changes(config, push_to_hub=False, hub_token=None)
    # A plan writes nothing and shows no bar; the Trainer reads both once, when it is made.
    return with_changes(own, report_to=[], disable_tqdm=True) if experiment.is_dry_run else own


def writes_output_folder(function: Callable[Arguments, Answer]) -> Callable[Arguments, Answer]:
    """Keeps other processes out of the output folder while a pipeline runs, which takes an experiment and a config.

    Raises:
        OSError: another process writes to the folder, or nothing can be written to it.
        ValueError: the folder is what the pipeline reads.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def alone(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Answer:
        arguments = signature.bind(*args, **kwargs).arguments
        experiment, config = arguments["experiment"], arguments["config"]
        folder = output_folder(config)
        if experiment.is_dry_run:
            return function(*args, **kwargs)

        check_not_input(folder, experiment.inputs(config))
        if config.process_index != 0:
            return function(*args, **kwargs)
        with folder_in_use(folder, experiment.command):
            return function(*args, **kwargs)

    return alone


def start_in_folder(experiment: Experiment, config: DistillationConfig) -> None:
    """Checks that the output folder is free or holds an earlier start of the same training, and claims it.

    Raises:
        ValueError: the folder holds a training with other settings or of other data or models, whose checkpoints would
            be mixed in, or it is what the training reads, or another machine's process does not see it.
    """
    folder = output_folder(config)
    check_not_input(folder, experiment.inputs(config))
    settings = {**experiment.settings(config), "seed": config.seed, "world_size": config.world_size}
    contents = content_digests(experiment.inputs(config))
    has_work = last_checkpoint(folder) is not None or any((folder / name).is_file() for name in RECORDS)

    # Checkpoints without settings were written by something that is not ours, or the file was removed.
    if has_work and not (folder / SETTINGS).is_file():
        raise ValueError(
            f"{folder} holds a training, but no {SETTINGS} that says which one: choose another --output_dir."
        )
    commits: list[str] = []
    if has_work:
        commits = _commits_in(folder)
        defaults = plain_json({**experiment.default_config, **experiment.default_options})
        _check_same_training(folder, settings, contents, defaults, is_main=config.process_index == 0)

    if experiment.is_dry_run:
        return
    with config.main_process_first(local=False, desc="settings"):
        if config.process_index == 0:
            now = environment()["commit"]
            if now not in commits and not any((folder / name).is_file() for name in RECORDS):
                commits.append(now)
            write_json(folder / SETTINGS, {**settings, CONTENTS: contents, COMMITS: commits})
        elif not (folder / SETTINGS).is_file():
            raise ValueError(
                f"Process {config.process_index} does not find what process 0 writes to {folder}: give an "
                "--output_dir that all machines share, or process 0 says above what is wrong."
            )


def check_no_training(folder: Path) -> None:
    """Checks that a folder which a model is to be written to holds no training.

    Raises:
        ValueError: it does: its weights and record would be replaced, and its command, started again, would take the
            new ones for its own.
    """
    if (folder / SETTINGS).is_file() or last_checkpoint(folder) is not None:
        raise ValueError(f"{folder} holds a training, whose model would be replaced: choose another --output_dir.")


def training_environment(config: DistillationConfig) -> dict[str, Any]:
    """What a training depends on besides its settings, asked when it starts: the code may change until it ends.

    Of a training that went on with another commit, the record has all of them.
    """
    described = environment()
    commits = _commits_in(output_folder(config)) if config.process_index == 0 else []
    return {**described, "commit": ", ".join(commits) or described["commit"]}


def _commits_in(folder: Path) -> list[str]:
    """The commits of bertkd that have trained in a folder, where it says so."""
    path = folder / SETTINGS
    if not path.is_file():
        return []
    with suppress(ValueError, AttributeError):
        return list(json.loads(path.read_text(encoding="utf-8")).get(COMMITS, []))
    return []


def _check_same_training(
    folder: Path, settings: dict[str, Any], contents: dict[str, str], defaults: Mapping[str, Any], is_main: bool
) -> None:
    """Compares a training with the one that an earlier start left in its folder.

    A setting that one of them does not name has its default there: an earlier version may not have had it.

    Raises:
        ValueError: they differ, or nobody can tell.
    """
    path = folder / SETTINGS
    try:
        earlier = json.loads(path.read_text(encoding="utf-8"))
        earlier_contents = earlier.pop(CONTENTS, None)
        earlier.pop(COMMITS, None)
    except (ValueError, AttributeError, TypeError):
        raise ValueError(
            f"{path} is damaged, and nobody can tell which training {folder} holds: choose another --output_dir."
        ) from None

    if earlier_contents is None and contents and is_main:
        print(
            f"{folder} was written by an earlier version of bertkd, which did not note what data and models hold: "
            "they are taken to be unchanged."
        )

    # Earlier versions noted the projection that lies beside the start, which nobody had named.
    named = earlier.get("projection_from")
    if settings.get("projection_from") is None and named == earlier.get("model_name_or_path"):
        earlier.pop("projection_from", None)

    changed = []
    for name in sorted(settings.keys() | earlier.keys()):
        value, earlier_value = (given.get(name, defaults.get(name)) for given in (settings, earlier))
        content, earlier_content = contents.get(name), (earlier_contents or {}).get(name)

        # What is known on both sides is compared by content: a file that was moved is the same file.
        if content is not None and earlier_content is not None:
            if content != earlier_content:
                changed.append(f"{name} {value} no longer holds what it held then")
        elif value != earlier_value:
            changed.append(f"{name} was {earlier_value!r} and is {value!r}")

    # A teacher that is no option is known by its content alone.
    for name in sorted(contents.keys() & (earlier_contents or {}).keys() - settings.keys()):
        if contents[name] != (earlier_contents or {})[name]:
            changed.append(f"{name} no longer holds what it held then")

    if changed:
        raise ValueError(
            f"{folder} holds a run with other settings ({', '.join(changed)}): choose another --output_dir."
        )


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
    folder = output_folder(config)
    if config.process_index == 0 and not experiment.is_dry_run:
        if has_dead_holder(folder):
            # It was killed after it had written its record, and before it was through.
            with folder_in_use(folder, experiment.command):
                remove_checkpoints(experiment, folder)
        # The upload may have failed, or was not asked for then.
        upload(folder, config)
    return record_class.read(path)


def remove_checkpoints(experiment: Experiment, folder: Path) -> None:
    """Deletes the checkpoints of a finished training, unless they are wanted."""
    if experiment.keep_checkpoints:
        return

    for checkpoint in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        shutil.rmtree(checkpoint)
