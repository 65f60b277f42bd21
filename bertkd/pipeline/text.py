"""Trains without a task's metric: language models on a corpus, and TinyBERT's first stages. Their loss is reported."""

import time
from typing import Any

from transformers import PreTrainedModel

from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.efficiency import count_parameters
from bertkd.pipeline.experiment import (
    Experiment,
    output_folder,
    remove_checkpoints,
    start_in_folder,
    trainer_config,
    training_environment,
    with_changes,
    writes_output_folder,
)
from bertkd.pipeline.hub import upload
from bertkd.pipeline.plan import print_plan
from bertkd.pipeline.training import save_model
from bertkd.records import StageResult, now, write_stage_card

__all__ = ["train_on_text", "train_stage"]


def train_on_text(
    experiment: Experiment,
    rows: tuple[Any, Any],
    student: PreTrainedModel,
    config: DistillationConfig,
    trainer_class: type[DistillationTrainer],
    method_name: str,
    tokenizer: Any,
    auto_class: str,
    untrained: str,
    teacher: PreTrainedModel | None = None,
    projection_from: str | None = None,
) -> StageResult | None:
    """Trains a model on a corpus, as `train_stage` does.

    Args:
        rows: the tokenized corpus: rows to train on, and rows that are held out.
        tokenizer: which made them.
        projection_from: the folder of a projection that comes with the student, for a trainer that has one.

    Returns:
        The record of the training; None for a dry run.
    """
    train_rows, held_out = rows
    args = trainer_config(experiment, config)
    if projection_from is not None:
        args = with_changes(args, projection_from=projection_from)

    trainer = trainer_class(
        model=student,
        teacher_model=teacher,
        args=args,
        train_dataset=train_rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
    )
    return train_stage(experiment, config, trainer, method_name, auto_class, untrained)


@writes_output_folder
def train_stage(
    experiment: Experiment,
    config: DistillationConfig,
    trainer: DistillationTrainer,
    method_name: str,
    auto_class: str,
    untrained: str,
) -> StageResult | None:
    """Trains one stage, or goes on with an earlier start, and leaves model, tokenizer, card and record.

    Args:
        experiment: what the training is called and where it came from.
        config: of the trainer; its `output_dir` is the folder.
        trainer: with rows to train and to evaluate on.
        method_name: the stage's name in the record.
        auto_class: the class of `transformers` that opens the model, for the card.
        untrained: the parts of the model that have learned nothing, for the card.

    Returns:
        The record of the training; None for a dry run.
    """
    folder = output_folder(config)
    start_in_folder(experiment, config)
    if experiment.is_dry_run:
        print_plan(experiment, trainer, method_name)
        return None

    described = training_environment(config)
    # There is no metric to compare: the stage's own loss on held-out rows tells whether anything was learned.
    loss_before = trainer.evaluate()["eval_loss"]
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=True)
    seconds = time.perf_counter() - started
    loss = trainer.evaluate()["eval_loss"]

    save_model(trainer, folder)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    result = StageResult(
        method=experiment.result_name or method_name,
        loss_before=loss_before,
        loss=loss,
        rows={"train": _length(trainer.train_dataset), "validation": _length(trainer.eval_dataset)},
        parameters=count_parameters(model).total,
        layers=model.config.num_hidden_layers,
        seed=config.seed,
        settings=experiment.settings(config),
        command=experiment.command,
        **described,
        seconds=round(seconds, 1),
        finished=now(),
    )

    if config.process_index == 0:
        # A projection between hidden sizes goes on in the next stage.
        if hasattr(trainer, "save_projection"):
            trainer.save_projection(folder)
        write_stage_card(folder, result, experiment.teacher_name, auto_class, untrained)
        result.write(folder)
        remove_checkpoints(experiment, folder)
        upload(folder, config)
        print(
            f"{method_name}: loss {loss_before:.4g} before, {loss:.4g} after training. "
            f"Model and {StageResult.FILE}: {folder}"
        )
    trainer.accelerator.wait_for_everyone()
    return result


def _length(rows: Any) -> int | None:
    """The number of rows; None where they are streamed."""
    return len(rows) if hasattr(rows, "__len__") else None
