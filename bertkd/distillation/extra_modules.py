"""Modules that are trained with the student but do not belong to it, such as a projection between hidden sizes."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from bertkd.distillation.trainer_hooks import TrainerHooks

__all__ = ["EXTRA_FILE", "ExtraModulesMixin", "linear_projection"]

EXTRA_FILE = "distillation_modules.safetensors"
# The student's attribute for the extra modules while it is trained.
_ATTRIBUTE = "distillation_modules"


class ExtraModulesMixin(TrainerHooks):
    """Trains `self.extra_modules` with the student, and keeps them out of the student that is saved.

    Checkpoints hold them in a file of their own, `EXTRA_FILE`, from which they are restored.
    """

    extra_modules: nn.ModuleDict
    # The optimizer that was made here and not given, and that of the last training.
    _own_optimizer: Any = None
    _used_optimizer: Any = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.extra_modules = nn.ModuleDict()

    @contextmanager
    def _extra_modules_attached(self) -> Iterator[None]:
        """While training, the extra modules are part of the student: optimizer, DDP and checkpoints see them."""
        is_attached = hasattr(self.accelerator.unwrap_model(self.model, keep_torch_compile=False), _ATTRIBUTE)
        if not len(self.extra_modules) or is_attached:
            yield
            return

        self._check_model_init()
        self.extra_modules.to(self.args.device)
        self.model.add_module(_ATTRIBUTE, self.extra_modules)
        try:
            yield
        finally:
            delattr(self.accelerator.unwrap_model(self.model, keep_torch_compile=False), _ATTRIBUTE)

    def _remove_extra_module(self, name: str) -> None:
        """Leave a module out, where the settings have changed so that nothing uses it."""
        if name in self.extra_modules:
            del self.extra_modules[name]

    def _check_model_init(self) -> None:
        """Raise ValueError where a student that is made anew would lack the extra modules."""
        if self.model_init is not None and len(self.extra_modules):
            raise ValueError(
                f"model_init makes a new student in train(), to which {', '.join(self.extra_modules)} could not be "
                "attached: give the student as model."
            )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Make the optimizer as `transformers.Trainer`, the extra modules included; one that was given stays.

        Raises:
            ValueError: the optimizer that was given does not train the extra modules, or none of the student's
                weights.
        """
        is_new = self.optimizer is None
        with self._extra_modules_attached():
            optimizer = super().create_optimizer(model)
            self._check_optimizer(optimizer)
        if is_new:
            self._own_optimizer = _inside(optimizer)
        return optimizer

    def _forget_used_optimizer(self) -> None:
        """Leave the optimizer of an earlier training behind: its learning rate, groups and moments are that one's."""
        optimizer = _inside(self.optimizer)
        if optimizer is not None and optimizer is self._own_optimizer and optimizer is self._used_optimizer:
            self.optimizer = self.lr_scheduler = None

    def _remember_used_optimizer(self) -> None:
        if self.state.global_step > 0:
            self._used_optimizer = _inside(self.optimizer)

    def _start_epoch(self, epoch: int) -> None:
        # A subclass may make the optimizer in its own way.
        assert self.optimizer is not None
        self._check_optimizer(self.optimizer)
        super()._start_epoch(epoch)

    def _check_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            # These put other tensors in the place of the parameters.
            return

        # A layer-wise optimizer of transformers stands for one optimizer of each parameter.
        layerwise = getattr(_inside(optimizer), "optimizer_dict", None)
        trained: set[int] = set()
        for each in [optimizer] if layerwise is None else layerwise.values():
            for group in each.param_groups:
                trained.update(map(id, group["params"]))

        left_out = [name for name, module in self.extra_modules.items() if not _has_all(trained, module)]
        if left_out:
            raise ValueError(
                f"The optimizer does not train {', '.join(left_out)}: where a create_optimizer of your own makes it, "
                "add self.extra_modules.parameters() there; where it was given, call trainer.optimizer."
                "add_param_group({'params': list(trainer.extra_modules.parameters())}) before train()."
            )
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        if parameters and not any(id(parameter) in trained for parameter in parameters):
            raise ValueError(
                "The optimizer that was given trains none of the student's weights: make it with the parameters of "
                "trainer.model."
            )

    def _save_student(self, folder: Path, weights: dict[str, Tensor] | None) -> None:
        """Write the student alone; a checkpoint also gets the extra modules, in a file of their own."""
        all_weights = weights if weights is not None else self.model.state_dict()
        prefix = f"{_ATTRIBUTE}."
        extra: dict[str, Tensor] = {}
        student: dict[str, Tensor] = {}

        for name, tensor in all_weights.items():
            if name.startswith(prefix):
                extra[name.removeprefix(prefix)] = tensor.contiguous()
            else:
                student[name] = tensor

        super()._save_student(folder, student if extra else weights)
        if not self.args.should_save:
            return

        if not folder.name.startswith(f"{PREFIX_CHECKPOINT_DIR}-"):
            # A model that leaves is config, weights and tokenizer; pickled training arguments are for resuming.
            (folder / "training_args.bin").unlink(missing_ok=True)
        elif extra:
            save_file(extra, folder / EXTRA_FILE)

    def _after_loading(self, checkpoint: str) -> None:
        if not len(self.extra_modules):
            return

        path = Path(checkpoint) / EXTRA_FILE
        if not path.is_file():
            raise ValueError(
                f"The checkpoint {checkpoint} has no {EXTRA_FILE}, but this run also trains "
                f"{', '.join(self.extra_modules)} besides the student: resume with the settings that the checkpoint "
                "was written with, or start anew."
            )
        self.extra_modules.load_state_dict(load_file(path))

    def _is_stored_apart(self, name: str) -> bool:
        return name.startswith(_ATTRIBUTE)


def _inside(optimizer: Any) -> Any:
    """The optimizer that accelerate has wrapped."""
    return getattr(optimizer, "optimizer", optimizer)


def _has_all(trained: set[int], module: nn.Module) -> bool:
    return all(id(parameter) in trained for parameter in module.parameters())


def linear_projection(student_size: int, teacher_size: int, std: float) -> nn.Linear:
    """A learned map that makes states of different size comparable: (..., student_size) to (..., teacher_size).

    Its weights start from N(0, std²), its bias from 0.
    """
    projection = nn.Linear(student_size, teacher_size)
    nn.init.normal_(projection.weight, std=std)
    nn.init.zeros_(projection.bias)
    return projection
