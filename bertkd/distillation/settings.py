"""Keeps a trainer true to its settings: none is ignored, and one that changes later still counts."""

import warnings
from dataclasses import MISSING, Field, fields
from typing import Any

from bertkd.distillation.config import DistillationConfig, method_settings
from bertkd.distillation.extra_modules import ExtraModulesMixin
from bertkd.distillation.origin import is_of_bertkd

__all__ = ["SettingsMixin"]

# What `transformers.Trainer` reads when it is made, and never again.
_READ_ONCE = (
    "bf16",
    "fp16",
    "label_names",
    "neftune_noise_alpha",
    "per_device_train_batch_size",
    "report_to",
    "torch_compile",
    "use_cpu",
)


def _default_of(field: Field) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


class SettingsMixin(ExtraModulesMixin):
    """Sets the method up by its settings, again where they have changed when a training begins."""

    config_class: type[DistillationConfig] = DistillationConfig
    # The settings that the method was set up by.
    _settings: dict[str, Any]
    _settings_read_once: dict[str, Any]

    def _set_up_method(self) -> None:
        """Make what the method's settings decide: layer maps, projections, masks.

        Called when the trainer is made, and again when a training begins with other settings. What has been trained
        stays where it still fits.
        """

    def _set_up_teacher(self) -> None:
        """Check that the teacher fits the student and the settings."""

    def _check_settings_have_effect(self) -> None:
        """Refuse settings of another method; warn of those that have no effect beside the others."""
        known = {field.name for field in fields(self.config_class)}
        ignored = [field.name for field in fields(self.args) if field.name not in known]
        # A user's trainer may read settings of a user's config.
        if ignored and is_of_bertkd(type(self)):
            raise ValueError(
                f"{type(self).__name__} reads a {self.config_class.__name__}, and would ignore {', '.join(ignored)} "
                f"of the {type(self.args).__name__}: take the trainer that belongs to it, or a "
                f"{self.config_class.__name__}."
            )

        defaults = {field.name: _default_of(field) for field in fields(self.args)}
        for name, reason in self.args.without_effect().items():
            value = getattr(self.args, name)
            if value != defaults[name]:
                warnings.warn(f"{name}={value!r} has no effect, because {reason}.", stacklevel=4)

    def _remember_settings(self) -> None:
        self._settings = method_settings(self.args)
        self._settings_read_once = {name: getattr(self.args, name) for name in _READ_ONCE}

    def _follow_settings(self) -> None:
        """Set the method up anew where its settings have changed since; raise ValueError for what is read once."""
        changed = []
        for name, value in self._settings_read_once.items():
            if getattr(self.args, name) != value:
                changed.append(f"{name} was {value!r} and is {getattr(self.args, name)!r}")
        if changed:
            raise ValueError(
                f"The settings were changed after the trainer had read them ({', '.join(changed)}), and would have no "
                "effect: make a new trainer with them."
            )

        if method_settings(self.args) != self._settings:
            self._set_up_anew()

    def _set_up_anew(self) -> None:
        """Check the settings as they are now, and make what they decide."""
        self.args.check_settings()
        self._set_up_teacher()
        self._set_up_method()
        self._remember_settings()

    def _after_trial_settings(self) -> None:
        # A search has its own way of changing what is read once.
        self._set_up_anew()
        self._check_model_init()
