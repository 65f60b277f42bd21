"""What bertkd relies on in `transformers.Trainer` beyond its public promises is there, with the signature it expects.

A release of transformers that changes it fails here, with a sentence that names the method and the file to adapt.
"""

import ast
import inspect
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import transformers
from helpers import Collator, dataset, tiny_model
from transformers import Trainer, TrainingArguments

import bertkd
from bertkd import DistilBertKDTrainer, DistillationTrainer, DynaBertKDTrainer, PatientKDTrainer, TinyBertKDTrainer
from bertkd.distillation.trainer_hooks import TrainerHooks
from bertkd.pruning import PrunedKDTrainer

TRAINERS = (
    DistillationTrainer,
    PatientKDTrainer,
    DistilBertKDTrainer,
    TinyBertKDTrainer,
    DynaBertKDTrainer,
    PrunedKDTrainer,
)
# What `TrainerHooks` overrides or calls, and the arguments that it relies on.
RELIED_ON: dict[str, tuple[str, ...]] = {
    "_get_collator_with_removed_columns": ("data_collator", "description"),
    "_get_dataloader": ("dataset", "description", "batch_size", "sampler_fn", "is_training", "dataloader_key"),
    "_get_eval_sampler": ("eval_dataset",),
    "_get_grad_norm": ("model", "grad_norm"),
    "_get_num_items_in_batch": ("batch_samples", "device"),
    "_get_train_sampler": ("train_dataset",),
    "_hp_search_setup": ("trial",),
    "_issue_warnings_after_load": ("load_result",),
    "_load_best_model": (),
    "_load_from_checkpoint": ("resume_from_checkpoint", "model"),
    "_prepare_inputs": ("inputs",),
    "_push_from_checkpoint": ("checkpoint_folder",),
    "_remove_unused_columns": ("dataset", "description"),
    "_run_epoch": ("model", "epoch"),
    "_save": ("output_dir", "state_dict"),
    "_set_signature_columns_if_needed": (),
    "compute_loss_context_manager": (),
    "get_train_dataloader": (),
    "set_initial_training_values": ("args", "dataloader"),
}
# All but the first arguments of these are passed on as they come.
PASSED_ON = ("_run_epoch",)
# What is read or set of an instance.
ATTRIBUTES = ("_signature_columns", "_train_batch_size", "loss_is_scaled_for_ga", "model_accepts_loss_kwargs")


def sentence(name: str, problem: str, file: str = "bertkd/distillation/trainer_hooks.py") -> str:
    return f"transformers {transformers.__version__} has changed Trainer.{name}: {problem}. Adapt {file} to it."


def argument_names(method: Callable[..., Any]) -> list[str]:
    """The names of a method's arguments, without self, *args and **kwargs."""
    names = []
    for parameter in inspect.signature(method).parameters.values():
        variadic = parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        if not variadic and parameter.name != "self":
            names.append(parameter.name)
    return names


def change_of(name: str, trainer: type = Trainer) -> str:
    """One sentence on how a method of `trainer` differs from what bertkd relies on; empty if it does not."""
    expected = list(RELIED_ON[name])
    method = getattr(trainer, name, None)
    if method is None:
        return sentence(name, "it is gone")

    names = argument_names(method)
    if name in PASSED_ON:
        names = names[: len(expected)]
    if names != expected:
        return sentence(name, f"it takes ({', '.join(names)}) and not ({', '.join(expected)})")
    return ""


def overrides() -> Iterator[tuple[type, str]]:
    """The classes of bertkd's trainers, each with the methods of `Trainer` that it overrides."""
    classes = dict.fromkeys(base for trainer in TRAINERS for base in trainer.__mro__)
    for owner in classes:
        if not owner.__module__.startswith("bertkd."):
            continue
        for name, value in vars(owner).items():
            if inspect.isfunction(value) and not name.startswith("__") and hasattr(Trainer, name):
                yield owner, name


@pytest.mark.parametrize("name", RELIED_ON)
def test_private_methods_are_as_bertkd_expects_them(name: str) -> None:
    problem = change_of(name)
    assert not problem, problem


def test_a_change_in_transformers_is_told_in_one_sentence() -> None:
    class Changed:
        def _save(self, folder: str) -> None: ...

    version, file = transformers.__version__, "bertkd/distillation/trainer_hooks.py"
    assert change_of("_save", Changed) == (
        f"transformers {version} has changed Trainer._save: it takes (folder) and not (output_dir, state_dict). "
        f"Adapt {file} to it."
    )
    assert change_of("_run_epoch", Changed) == (
        f"transformers {version} has changed Trainer._run_epoch: it is gone. Adapt {file} to it."
    )


def test_overrides_take_the_arguments_of_what_they_override() -> None:
    found = {name for _, name in overrides()}
    assert {"compute_loss", "prediction_step", "training_step", "train", "log", "_save"} <= found

    for owner, name in overrides():
        override = getattr(owner, name)
        names, expected = argument_names(override), argument_names(getattr(Trainer, name))
        if len(inspect.signature(override).parameters) > len(names) + 1:
            # It has *args and passes on what it does not name.
            expected = expected[: len(names)]
        problem = f"it takes ({', '.join(expected)}), and {owner.__name__}.{name} takes ({', '.join(names)})"
        assert names == expected, sentence(name, problem, f"{owner.__module__.replace('.', '/')}.py")


def test_only_the_hooks_override_private_methods() -> None:
    # A method of bertkd's own fails here, too, once transformers has a private one of the same name.
    for owner, name in overrides():
        if name.startswith("_"):
            assert owner is TrainerHooks and name in RELIED_ON, (
                f"{owner.__name__}.{name} overrides a private method of transformers.Trainer: do it in "
                f"{TrainerHooks.__module__}, or choose another name."
            )


@pytest.fixture(scope="module")
def trainer(tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("stock")
    settings: dict[str, Any] = {"output_dir": str(folder), "use_cpu": True, "per_device_train_batch_size": 4}
    args = TrainingArguments(**settings, num_train_epochs=3)
    return Trainer(model=tiny_model(), args=args, train_dataset=dataset(10), data_collator=Collator())


def test_private_attributes_are_there(trainer: Trainer) -> None:
    for name in ATTRIBUTES:
        assert hasattr(trainer, name), sentence(name, "it is gone")
    assert hasattr(trainer.accelerator.dataloader_config, "dispatch_batches")


def test_the_number_of_steps_comes_last(trainer: Trainer) -> None:
    *_, steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    assert steps == 9, sentence("set_initial_training_values", "the last value is not the number of steps")


def test_no_other_file_touches_what_is_private(trainer: Trainer) -> None:
    private = {name for name in (*dir(Trainer), *vars(trainer)) if name.startswith("_") and not name.startswith("__")}
    package = Path(bertkd.__file__).parent
    folders = sorted({file.parent for file in package.glob("*/trainer.py")})
    assert len(folders) == len(TRAINERS)

    for folder in folders:
        for path in sorted(folder.glob("*.py")):
            if path.name == "trainer_hooks.py":
                continue
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                used = node.attr if isinstance(node, ast.Attribute) else ""
                assert used not in private, (
                    f"{path.relative_to(package.parent)}, line {node.lineno}, uses {used}, which is private in "
                    "transformers.Trainer: go through bertkd/distillation/trainer_hooks.py."
                )
