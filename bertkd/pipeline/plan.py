"""Tells what a training would do, and how long it would take, from a few timed steps."""

import tempfile
import time
from datetime import timedelta
from typing import Any

from transformers import PreTrainedModel, TrainerCallback
from transformers.trainer_utils import IntervalStrategy, SaveStrategy

from bertkd.distillation import DistillationTrainer
from bertkd.efficiency import count_parameters
from bertkd.pipeline.experiment import Experiment, with_changes

__all__ = ["print_plan"]

# The first step of a training is slow, and does not count.
WARMUP_STEPS, TIMED_STEPS = 1, 4
TIMED_EVALUATION_ROWS = 64


class StepTimer(TrainerCallback):
    """Measures the seconds of every optimizer step."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._started = 0.0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.seconds.append(time.perf_counter() - self._started)


def print_plan(experiment: Experiment, trainer: DistillationTrainer, method_name: str) -> None:
    """Prints what would be trained, and an estimate of the time. The trainer is of no use afterwards.

    Args:
        experiment: what the training is called.
        trainer: ready to train; it takes a few steps that nobody keeps.
        method_name: the method's name in the record.
    """
    config = trainer.args
    epochs, _, rows, _, rows_per_step, _, steps = trainer.set_initial_training_values(
        config, trainer.get_train_dataloader()
    )
    evaluations = _evaluations(trainer, epochs, steps)
    cache = "none: the teacher runs in every step"
    if config.teacher_cache_dir is not None:
        cache = f"{config.teacher_cache_dir}: the teacher runs once over all rows, which the estimate leaves out"

    lines = {
        "Method": experiment.result_name or method_name,
        "Student": _describe(trainer.model),
        "Teacher": "none" if trainer.teacher_model is None else f"{_describe(trainer.teacher_model)}",
        "Teacher cache": cache if trainer.teacher_model is not None else "none",
        "Rows": f"{rows:,} to train on, {_evaluation_rows(trainer):,} to evaluate on",
        "Steps": f"{steps:,} of {rows_per_step} rows ({epochs} epochs)",
        "Output folder": str(config.output_dir),
        "Seed": str(config.seed),
    }
    if trainer.teacher_model is not None and experiment.teacher_name:
        lines["Teacher"] = f"{experiment.teacher_name} ({lines['Teacher']})"

    seconds_per_step, seconds_per_row = _measure(trainer)
    training = steps * seconds_per_step
    evaluating = evaluations * seconds_per_row * _evaluation_rows(trainer)
    lines["Estimated time"] = (
        f"{_duration(training + evaluating)} on this machine: {seconds_per_step:.2f} s per step, and {evaluations} "
        f"evaluations of {_duration(evaluating / max(1, evaluations))}"
    )

    if config.process_index == 0:
        print("\nDry run: nothing is written.")
        for name, text in lines.items():
            print(f"  {name + ':':<16}{text}")


def _describe(model: PreTrainedModel) -> str:
    parameters = count_parameters(model)
    layers = model.config.num_hidden_layers
    return f"{type(model).__name__}, {layers} layers, {parameters.total / 1e6:.1f}M parameters"


def _evaluation_splits(trainer: DistillationTrainer) -> list[Any]:
    dataset: Any = trainer.eval_dataset
    return list(dataset.values()) if isinstance(dataset, dict) else [dataset]


def _evaluation_rows(trainer: DistillationTrainer) -> int:
    return sum(len(split) for split in _evaluation_splits(trainer))


def _evaluations(trainer: DistillationTrainer, epochs: float, steps: int) -> int:
    """How often the student is evaluated: as the config says, and once before and once after the training."""
    config = trainer.args
    during = 0
    if config.eval_strategy == IntervalStrategy.EPOCH:
        during = int(epochs)
    elif config.eval_strategy == IntervalStrategy.STEPS:
        during = int(steps // (config.eval_steps or steps))
    return during + 2


def _measure(trainer: DistillationTrainer) -> tuple[float, float]:
    """Seconds of an optimizer step, and of an evaluated row."""
    timer = StepTimer()
    trainer.add_callback(timer)

    with tempfile.TemporaryDirectory() as folder:
        trainer.args = with_changes(
            trainer.args,
            output_dir=folder,
            max_steps=WARMUP_STEPS + TIMED_STEPS,
            eval_strategy=IntervalStrategy.NO,
            save_strategy=SaveStrategy.NO,
            load_best_model_at_end=False,
            teacher_cache_dir=None,
            # Without a cache another type would be refused.
            teacher_cache_dtype="float32",
        )
        trainer.train()

        split = _evaluation_splits(trainer)[0]
        rows = split.select(range(min(TIMED_EVALUATION_ROWS, len(split))))
        started = time.perf_counter()
        trainer.evaluate(rows)
        evaluated = time.perf_counter() - started

    # A training with fewer steps than are timed has only its first ones.
    steps = timer.seconds[WARMUP_STEPS:] or timer.seconds
    return sum(steps) / len(steps), evaluated / len(rows)


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, for people."""
    return str(timedelta(seconds=max(1, round(seconds))))
