"""Stops a training whose numbers are no longer finite, before anything is saved from it."""

import math
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.trainer_utils import EvalLoopOutput, TrainOutput

from bertkd.distillation.loss_window import FirstStep, LossWindow
from bertkd.distillation.trainer_hooks import TrainerHooks
from bertkd.models.finite import plain_tensors
from bertkd.models.loading import check_finite

__all__ = ["FiniteMixin"]

_ADVICE = (
    "nothing is saved from here on. Lower the learning rate, train in float32 or bfloat16, or look for rows that are "
    "not as the others"
)


class FiniteMixin(TrainerHooks):
    """Watches losses, gradients and weights for NaN and infinity.

    Losses and gradients are watched on the device, so that no step waits for a value. What was seen is read where a
    value is read anyway: at each log, before an evaluation, before anything is saved, and at the end.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._window = LossWindow()
        self._gradients = FirstStep()
        # The sums of the bits of the weights before the first step.
        self._weights_before: list[Tensor] | None = None

    def _start_watching(self) -> None:
        self._window = LossWindow()
        self._gradients = FirstStep()
        self._weights_before = None

    # ---- what is watched ----

    @property
    def _current_step(self) -> int:
        """The number of the optimizer step that runs, counted from 1 as in the log."""
        return self.state.global_step + 1

    def _start_epoch(self, epoch: int) -> None:
        # Here `model_init` has made its model, and a checkpoint is loaded.
        if self._weights_before is None:
            self._weights_before = _sums_of_bits(self.model)
        super()._start_epoch(epoch)

    def _after_gradients(self, norm: Any) -> None:
        # With a GradScaler, gradients that overflow are expected: their step is left out.
        if type(norm) is Tensor and self.accelerator.scaler is None:
            self._gradients.watch(norm, self._current_step)

    # ---- where it is read ----

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the parts of the loss, averaged over the logging window and over processes, and log as the Trainer.

        Raises:
            ValueError: a part of the loss, or a gradient, was not finite in a step since the last log.
        """
        if "loss" in logs:
            window, self._window = self._window, LossWindow()
            parts = window.averages(self.accelerator)
            self._refuse_parts(window, parts)
            self._refuse_gradients()

            if taken := sorted(parts.keys() & logs.keys()):
                raise ValueError(f"distillation_loss names a part {', '.join(taken)}, which the log has: rename it.")
            logs.update(parts)
        super().log(logs, start_time)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> EvalLoopOutput:
        """Evaluate as `transformers.Trainer`; predictions and losses that are not finite have no metric.

        Raises:
            ValueError: a prediction or the loss is NaN or infinite.
        """
        self._check_numbers()
        check_finite(self.model, "The model")

        output = super().evaluation_loop(*args, **kwargs)
        # A function of the user's may mask logits with -inf.
        if self.preprocess_logits_for_metrics is None:
            _check_predictions(output)
        _check_losses(output)
        return output

    def _before_saving(self) -> None:
        self._check_numbers()
        check_finite(self.model, "The model")
        super()._before_saving()

    def _check_numbers(self) -> None:
        """Raise ValueError where a loss or a gradient of the running training was not finite since the last log."""
        if not self.is_in_train:
            return
        self._refuse_parts(self._window, self._window.totals())
        self._refuse_gradients()

    def _refuse_parts(self, window: LossWindow, parts: dict[str, float]) -> None:
        """Raise ValueError where one of the parts that a window had is not finite."""
        names = [name for name, value in parts.items() if not math.isfinite(value)]
        if not names:
            return

        step, first_names = window.first_bad()
        # Another process may have been the first: then this one knows the end of the window alone.
        wrong = [f"{name} is {parts[name]}" for name in first_names or names]
        raise ValueError(
            f"The loss is not finite in step {step or self.state.global_step} ({', '.join(wrong)}): {_ADVICE}."
        )

    def _refuse_gradients(self) -> None:
        step = self._gradients.read()
        if step is not None:
            raise ValueError(f"The gradients are not finite in step {step}, although the loss was: {_ADVICE}.")

    # ---- the end of a training ----

    def _check_finished(self, output: TrainOutput, steps_before: int) -> None:
        """Raise ValueError for a training that took no step or ended in numbers that are not finite.

        One that changed no weight gives a warning.
        """
        steps = output.global_step - steps_before
        if steps <= 0:
            raise ValueError(
                "The training took no step: there are too few rows for one batch (look at dataloader_drop_last), the "
                "stream has no row, or a callback stopped it at once."
            )

        self._refuse_parts(self._window, self._window.totals())
        self._refuse_gradients()
        check_finite(self.model, "The model")

        weights = _sums_of_bits(self.model)
        before = self._weights_before or []
        is_unchanged = len(weights) == len(before) and all(map(torch.equal, weights, before))
        if weights and is_unchanged:
            warnings.warn(
                f"The training changed no weight in its {steps} steps: the model is the one that it started from "
                f"(learning_rate={self.args.learning_rate}, warmup_steps={self.args.warmup_steps}).",
                stacklevel=3,
            )


def _sums_of_bits(model: nn.Module) -> list[Tensor]:
    """A number for each weight that is trained, which changes with any of its bits; on the device."""
    integers = {2: torch.int16, 4: torch.int32, 8: torch.int64}
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}

    sums = []
    for _, tensor in plain_tensors(model):
        if id(tensor) in trained and tensor.itemsize in integers:
            sums.append(tensor.detach().contiguous().view(integers[tensor.itemsize]).sum(dtype=torch.int64))
    return sums


def _check_predictions(output: EvalLoopOutput) -> None:
    predictions: Any = output.predictions
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind == "f" and len(predictions):
        is_finite = np.isfinite(predictions).reshape(len(predictions), -1).all(axis=1)
        if not is_finite.all():
            row = int(is_finite.argmin())
            raise ValueError(
                f"The student's logits are NaN or infinite (row {row} of the evaluation is the first), so that no "
                "metric says anything: evaluate in float32, and look at how the training ended."
            )


def _check_losses(output: EvalLoopOutput) -> None:
    for name, value in (output.metrics or {}).items():
        if name.endswith("_loss") and not math.isfinite(value):
            raise ValueError(
                f"{name} is {value}: the student's logits overflow, or the labels of the evaluation rows are not "
                "finite. Evaluate in float32, and look at both."
            )
