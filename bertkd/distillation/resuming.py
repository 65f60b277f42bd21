"""Goes on with an interrupted training, or tells why a checkpoint does not belong to it."""

import json
import warnings
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput

from bertkd.atomic import plain_json
from bertkd.distillation.checkpoints import damage_of, last_checkpoint
from bertkd.distillation.config import DistillationConfig, method_settings
from bertkd.distillation.trainer_hooks import TrainerHooks

__all__ = ["ResumingMixin"]

SETTINGS_FILE = "distillation_settings.json"
# Settings that may change between interruption and resume: the checkpoint has the projection by then, and a cache only
# saves time.
UNIMPORTANT = ("projection_from", "teacher_cache_dir")


class ResumingMixin(TrainerHooks):
    """Keeps the method's settings in each checkpoint, and compares them when the training goes on from it."""

    def _save_student(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        super()._save_student(folder, weights)
        if self.args.should_save and folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-"):
            settings = _compared_settings(self.args)
            (folder / SETTINGS_FILE).write_text(json.dumps(settings, indent=2), encoding="utf-8")

    def _checkpoint_to_resume(self, resume: str | bool | None) -> str | None:
        """The checkpoint that a training goes on from; None where it begins anew.

        Args:
            resume: a checkpoint, or True for the newest whole one in the output folder.

        Raises:
            ValueError: the checkpoint is not whole, or was written with other settings.
        """
        if not resume:
            return None

        needs_optimizer = not self.args.save_only_model
        if resume is True:
            checkpoint = last_checkpoint(str(self.args.output_dir), tells=True)
            # A run that had finished is only loaded.
            if checkpoint is not None and not self._has_finished(checkpoint):
                checkpoint = last_checkpoint(
                    str(self.args.output_dir), needs_optimizer, tells=True, processes=self.args.world_size
                )
            if checkpoint is None:
                return None
        else:
            checkpoint = str(resume)
            damage = damage_of(Path(checkpoint), with_optimizer=False)
            if not damage and not self._has_finished(checkpoint):
                damage = damage_of(Path(checkpoint), needs_optimizer, self.args.world_size)
            if damage:
                raise ValueError(
                    f"The checkpoint {checkpoint} {damage}, so that the training cannot go on as it was: resume from "
                    "another one, or start anew."
                )

        self._check_same_settings(Path(checkpoint))
        if not self._has_finished(checkpoint) and damage_of(Path(checkpoint), with_optimizer=True):
            warnings.warn(
                f"The checkpoint {checkpoint} has the weights alone (save_only_model): optimizer and learning rate "
                "begin anew, so that the training is not the one that was interrupted.",
                stacklevel=3,
            )
        return checkpoint

    def _check_same_settings(self, folder: Path) -> None:
        """Raise ValueError for a checkpoint of other settings."""
        path = folder / SETTINGS_FILE
        if not path.is_file():
            # It was written by an earlier version.
            return

        settings = json.loads(path.read_text(encoding="utf-8"))
        now = _compared_settings(self.args)
        changed = []
        for name in sorted(settings.keys() & now.keys()):
            if settings[name] != now[name]:
                changed.append(f"{name} was {settings[name]!r} and is {now[name]!r}")
        if changed:
            raise ValueError(
                f"The checkpoint {folder} was written with other settings ({', '.join(changed)}), and a training "
                "cannot change them on its way: resume with the same, or start a new training from its weights."
            )

    def _steps_of(self, checkpoint: str) -> int:
        """The number of optimizer steps that a checkpoint was written after."""
        return _state_of(checkpoint).global_step

    def _has_finished(self, checkpoint: str) -> bool:
        """Whether a checkpoint is the last of its run: resuming from it would take one more optimizer step."""
        state = _state_of(checkpoint)
        found = state.train_batch_size if self.args.auto_find_batch_size else None
        return state.global_step >= self._number_of_steps(found)

    def _load_finished(self, checkpoint: str) -> TrainOutput:
        """Load the last checkpoint of a finished run, with the state and the result that its training ended with."""
        self._load_weights(checkpoint)
        self.state = _state_of(checkpoint)

        if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
            # The folder may have been moved since the state was written.
            best = Path(checkpoint).parent / Path(self.state.best_model_checkpoint).name
            if not best.is_dir():
                raise ValueError(
                    f"The training in {Path(checkpoint).parent} has finished, and the checkpoint of its best step, "
                    f"{best.name}, is missing: put it back, or start anew in another output_dir."
                )
            self.state.best_model_checkpoint = str(best)
            self._load_best_weights()

        return TrainOutput(self.state.global_step, 0.0, {})


def _state_of(checkpoint: str) -> TrainerState:
    return TrainerState.load_from_json(str(Path(checkpoint) / TRAINER_STATE_NAME))


def _compared_settings(config: DistillationConfig) -> dict[str, Any]:
    """The method's settings that decide how a training goes on."""
    compared = {}
    # Those of a user's own config may be of any type.
    for name, value in plain_json(method_settings(config)).items():
        # What is shown by its address looks different in each run.
        if name not in UNIMPORTANT and " at 0x" not in str(value):
            compared[name] = value
    return compared
