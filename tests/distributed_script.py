"""One training for `test_distributed.py`, started once plainly and once by `torchrun` with two processes.

python tests/distributed_script.py FAMILY HIDDEN WORLD_SIZE ACCUMULATION OUTPUT.json
"""

import json
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
from helpers import PAD, Collator, dataset, tiny_model

from bertkd import PatientKDConfig, PatientKDTrainer


def main(family: str, hidden: int, world_size: int, accumulation: int, output: str) -> None:
    args = PatientKDConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=16 // world_size // accumulation,
        gradient_accumulation_steps=accumulation,
        teacher_cache_dir=f"{output}.cache" if accumulation > 1 else None,
        num_train_epochs=2,
        logging_steps=1,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        optim="sgd",
        learning_rate=0.05,
        beta=1.0,
        project_hidden=True,
    )
    if args.world_size != world_size:
        raise SystemExit(f"{args.world_size} processes were started, not {world_size}.")
    torch.manual_seed(7)
    trainer = PatientKDTrainer(
        model=tiny_model(family, layers=3, hidden=hidden, seed=1),
        teacher_model=tiny_model(family, layers=6, seed=2),
        args=args,
        train_dataset=dataset(44),  # not a multiple of the 16 rows of a step
        eval_dataset=dataset(21, seed=4),
        data_collator=Collator(PAD[family]),
    )
    trainer.train()
    predictions = trainer.predict(trainer.eval_dataset).predictions
    if trainer.is_world_process_zero():
        weights = [parameter.detach().double().norm().item() for parameter in trainer.model.parameters()]
        logs = [entry for entry in trainer.state.log_history if "loss" in entry]
        Path(output).write_text(json.dumps({"logs": logs, "weights": weights, "predictions": predictions.tolist()}))
    if world_size > 1:
        # gloo's teardown often aborts a rank after everything succeeded.
        torch.distributed.barrier()
        os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), sys.argv[5])
