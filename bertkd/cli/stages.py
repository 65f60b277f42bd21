"""Trainings that no task measures yet: language models, and TinyBERT's first stages. Their own loss is reported."""

import inspect
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bertkd import DistillationTrainer
from bertkd.atomic import write_json
from bertkd.cli.arguments import Config, CorpusArguments, RecipeArguments, Run, parse
from bertkd.cli.experiment import check_same_settings, quiet, remove_checkpoints, save_model
from bertkd.cli.loading import load_corpus_rows
from bertkd.efficiency import count_parameters
from bertkd.records import StageResult, environment, write_stage_card

RECORD = "training.json"
# The Trainer's for such a training: the last model is kept, as there is no metric to choose by.
DEFAULTS = {"load_best_model_at_end": False, "metric_for_best_model": "loss"}


def run_stage(
    argv: Sequence[str] | None,
    config_class: type[Config],
    train_one: Callable[[Run[Config]], StageResult],
    defaults: dict[str, Any],
    recipe_class: type[RecipeArguments],
) -> list[StageResult]:
    """The main of a recipe on a corpus: one training per seed, or what an earlier start left of it."""
    quiet()
    script = inspect.getfile(train_one)
    runs = parse(config_class, argv, {**DEFAULTS, **defaults}, recipe_class, CorpusArguments, script=script)
    return [finished_stage(run) or train_one(run) for run in runs]


def check_stage(run: Run, stage: str) -> None:
    """Raises ValueError where the command line asks for another stage of the trainer than the recipe's."""
    if run.training.stage != stage:
        raise ValueError(f"--stage is set by the recipe ({stage}): leave it out. TinyBERT's others are --stages.")


def finished_stage(run: Run) -> StageResult | None:
    """The result of a training that an earlier start of the same command finished."""
    path = Path(run.training.output_dir) / RECORD
    if not path.is_file():
        return None
    check_same_settings(run, path.parent)
    return StageResult.read(path)


def train_on_text(
    run: Run,
    method: str,
    trainer_class: type[DistillationTrainer],
    student: PreTrainedModel,
    teacher: PreTrainedModel | None,
    tokenizer: Any,
    args: Config | None = None,
    **card: str,
) -> StageResult:
    """`train_stage` on the run's corpus; `args` where the trainer's are not the run's own."""
    train_rows, eval_rows = load_corpus_rows(run, tokenizer)
    trainer = trainer_class(
        model=student,
        teacher_model=teacher,
        args=args or run.training,
        train_dataset=train_rows,
        eval_dataset=eval_rows,
        processing_class=tokenizer,
    )
    return train_stage(run, method, trainer, **card)


def train_stage(run: Run, method: str, trainer: DistillationTrainer, auto_class: str, untrained: str) -> StageResult:
    """Train (or go on with) one stage and leave its folder: model, tokenizer, card and training.json.

    Args:
        run: where and how.
        method: its name in the record.
        trainer: with data sets to train and to evaluate on.
        auto_class, untrained: for the card.
    """
    folder = Path(run.training.output_dir)
    check_same_settings(run, folder)
    before = trainer.evaluate()["eval_loss"]
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=True)
    seconds = time.perf_counter() - started
    after = trainer.evaluate()["eval_loss"]
    save_model(trainer, folder)
    model = trainer.accelerator.unwrap_model(trainer.model, keep_fp32_wrapper=False, keep_torch_compile=False)
    result = StageResult(
        method=run.recipe.result_name or method,
        loss_before=before,
        loss=after,
        rows={"train": _length(trainer.train_dataset), "validation": _length(trainer.eval_dataset)},
        parameters=count_parameters(model).total,
        layers=model.config.num_hidden_layers,
        seed=run.training.seed,
        settings=run.settings(),
        command=run.command,
        **environment(),
        seconds=round(seconds, 1),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if run.training.process_index == 0:
        if hasattr(trainer, "save_projection"):
            trainer.save_projection(folder)
        teacher = run.model.teacher_model_name_or_path or run.model.model_name_or_path or ""
        write_stage_card(folder, result, teacher, auto_class, untrained)
        write_json(folder / RECORD, result)
        remove_checkpoints(run)
        print(f"{method}: loss {before:.4g} before, {after:.4g} after training. Model and {RECORD}: {folder}")
    trainer.accelerator.wait_for_everyone()
    return result


def _length(dataset: Any) -> int | None:
    return len(dataset) if hasattr(dataset, "__len__") else None
