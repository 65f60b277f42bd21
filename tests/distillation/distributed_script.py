"""The trainings of `test_distributed.py`, started once plainly and once by `torchrun` with two processes.

python tests/distillation/distributed_script.py WORLD_SIZE FOLDER CASES.json
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from datasets import IterableDataset
from helpers import PAD, SETTINGS, Collator, dataset, tiny_model, word_tokenizer
from torch import Tensor
from transformers import AutoModelForMaskedLM

from bertkd import (
    DistilBertKDConfig,
    DistilBertKDTrainer,
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    DynaBertKDTrainer,
    PatientKDConfig,
    PatientKDTrainer,
    TinyBertKDConfig,
    TinyBertKDTrainer,
)
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer
from bertkd.students import prune


def patient_kd(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    args = PatientKDConfig(**shared, learning_rate=0.05, beta=1.0, project_hidden=True)
    student = tiny_model(family, layers=3, hidden=hidden, seed=1)
    return PatientKDTrainer(model=student, teacher_model=tiny_model(family, layers=6, seed=2), args=args, **data)


def dynabert(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"]
    # No depth of 1: a layer that no sub-network has gets no gradient in any backward pass.
    sizes = {"width_mult_list": [0.5, 1.0], "depth_mult_list": [0.5, 0.75]}
    args = DynaBertKDConfig(**shared, **sizes, learning_rate=0.02, stage="depth")
    models = [tiny_model(family, layers=4, hidden=hidden, seed=seed) for seed in (1, 2)]
    return DynaBertKDTrainer(model=models[0], teacher_model=models[1], args=args, **data)


def tinybert(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"]
    args = TinyBertKDConfig(**shared, learning_rate=0.02, projection="per_level")
    student = tiny_model(family, layers=2, hidden=hidden, seed=1)
    return TinyBertKDTrainer(model=student, teacher_model=tiny_model(family, layers=4, seed=2), args=args, **data)


def distilbert(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"]
    args = DistilBertKDConfig(**shared, learning_rate=0.02, mlm_probability=0.3, project_hidden=True)
    models = []
    for layers, size in ((2, hidden), (4, 16)):
        config = tiny_model(family, layers=layers, hidden=size).config
        torch.manual_seed(layers)
        models.append(AutoModelForMaskedLM.from_config(config))
    tokenizer = word_tokenizer(Path(shared["output_dir"]))
    return DistilBertKDTrainer(model=models[0], teacher_model=models[1], args=args, processing_class=tokenizer, **data)


def pruned(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"]
    args = PrunedKDConfig(**shared, learning_rate=0.02)
    student = prune(tiny_model(family, layers=3, hidden=hidden, seed=1), [1, 0, 2], [12, 24, 0])
    teacher = tiny_model(family, layers=3, hidden=hidden, seed=2)
    return PrunedKDTrainer(model=student, teacher_model=teacher, args=args, **data)


def rows_of(parts: list[list[dict[str, Any]]]) -> Any:
    for part in parts:
        yield from part


def unlabeled(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"]
    args = DistillationConfig(**shared, learning_rate=0.02, alpha=0.5)
    for name in ("train_dataset", "eval_dataset"):
        labels = [-100 if row % 3 == 0 else label for row, label in enumerate(data[name]["labels"])]
        data[name] = data[name].remove_columns("labels").add_column("labels", labels)
    models = [tiny_model(family, layers=2, hidden=hidden, seed=seed) for seed in (1, 2)]
    return DistillationTrainer(model=models[0], teacher_model=models[1], args=args, **data)


def streamed(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    del shared["teacher_cache_dir"], shared["num_train_epochs"]
    args = DistillationConfig(**shared, learning_rate=0.02, max_steps=6)
    rows = list(dataset(48))
    # Files of unlike lengths, of which accelerate would give each process some.
    parts = [rows[:20], rows[20:24], rows[24:]]
    data["train_dataset"] = IterableDataset.from_generator(rows_of, gen_kwargs={"parts": parts})
    models = [tiny_model(family, layers=2, hidden=hidden, seed=seed) for seed in (1, 2)]
    return DistillationTrainer(model=models[0], teacher_model=models[1], args=args, **data)


class UnevenTrainer(DistillationTrainer):
    """Has a part of the loss in the first process alone, and a loss on labels that reads hidden states."""

    def _set_up_method(self) -> None:
        super()._set_up_method()
        self.student_forward_kwargs = {"output_hidden_states": True}

    def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, Tensor]:
        parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
        if self.is_world_process_zero():
            parts["first_loss"] = torch.tensor(0.0)
        return parts

    def task_loss(self, student_outputs: Any, inputs: dict[str, Tensor]) -> Tensor:
        states = student_outputs.hidden_states[-1][:, 0, 0]
        return super().task_loss(student_outputs, inputs) + (states - inputs["labels"]).square().mean()


def uneven(family: str, hidden: int, shared: dict[str, Any], data: dict[str, Any]) -> DistillationTrainer:
    args = DistillationConfig(**shared, learning_rate=0.02)
    models = [tiny_model(family, layers=2, hidden=hidden, seed=seed) for seed in (1, 2)]
    return UnevenTrainer(model=models[0], teacher_model=models[1], args=args, **data)


def train(method: str, family: str, hidden: int, world_size: int, accumulation: int, output: Path) -> None:
    """Trains once, and writes logs, norms of weights, predictions and loss."""
    shared = {
        **SETTINGS,
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": 16 // world_size // accumulation,
        "gradient_accumulation_steps": accumulation,
        "teacher_cache_dir": f"{output}.cache" if accumulation > 1 else None,
    }
    data = {
        "train_dataset": dataset(44),  # not a multiple of the 16 rows of a step
        "eval_dataset": dataset(21, seed=4),
        "data_collator": Collator(PAD[family]),
    }
    torch.manual_seed(7)
    methods = (patient_kd, dynabert, tinybert, distilbert, pruned, streamed, unlabeled, uneven)
    make = {one.__name__: one for one in methods}[method]
    trainer = make(family, hidden, shared, data)
    if trainer.args.world_size != world_size:
        raise SystemExit(f"{trainer.args.world_size} processes were started, not {world_size}.")
    # As the commands do before they train.
    trainer.evaluate()
    trainer.train()
    if accumulation > 1 and trainer.args.teacher_cache_dir is not None:
        assert list(Path(trainer.args.teacher_cache_dir).glob("*/meta.json")), "there is no cache"
    # Every process calls it, and one writes.
    trainer.save_model(f"{output}.student")
    predictions = trainer.predict(trainer.eval_dataset).predictions
    # The last batches of two processes are filled up with rows that do not count.
    eval_loss = trainer.evaluate()["eval_loss"] if trainer.compares_predictions else 0.0
    if trainer.is_world_process_zero():
        weights = [parameter.detach().double().norm().item() for parameter in trainer.model.parameters()]
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        # TinyBERT's first stages predict nothing, nor does a language model here.
        answers = [] if predictions is None else predictions.tolist()
        output.write_text(json.dumps({"logs": logs, "weights": weights, "predictions": answers, "loss": eval_loss}))


def main(world_size: int, folder: Path, cases: dict[str, tuple[str, str, int, int]]) -> None:
    for name, (method, family, hidden, accumulation) in cases.items():
        steps = accumulation if world_size > 1 else 1
        train(method, family, hidden, world_size, steps, folder / f"{name}-{world_size}.json")
    if world_size > 1:
        # gloo's teardown often aborts a rank after everything succeeded.
        torch.distributed.barrier()
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
