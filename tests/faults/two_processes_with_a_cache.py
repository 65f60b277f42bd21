"""One of two processes that train with a teacher cache, for `test_checkpoints_and_processes.py`.

torchrun --nproc_per_node 2 tests/faults/two_processes_with_a_cache.py CASE FOLDER
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from helpers import SETTINGS, Collator, dataset, tiny_model

from bertkd import DistillationConfig, DistillationTrainer
from bertkd.distillation.teacher_cache import TeacherCache

DDP_TIMEOUT = 8


def main(case: str, folder: Path) -> None:
    rank = int(os.environ["RANK"])
    build = TeacherCache.build

    def slow(*args: Any) -> TeacherCache:
        time.sleep(DDP_TIMEOUT + 4)
        return build(*args)

    if case == "slow build":
        TeacherCache.build = slow  # type: ignore[assignment,method-assign]
    # Machines without a shared folder see different files under one name.
    cache = folder / (f"cache-{rank}" if case == "no shared folder" else "cache")
    trainer = DistillationTrainer(
        model=tiny_model(layers=1, seed=1),
        teacher_model=tiny_model(layers=1, seed=2),
        args=DistillationConfig(
            output_dir=str(folder / "run"), teacher_cache_dir=str(cache), ddp_timeout=DDP_TIMEOUT, **SETTINGS
        ),
        train_dataset=dataset(32),
        data_collator=Collator(),
    )
    if trainer.args.world_size != 2:
        raise SystemExit("Start two processes.")
    trainer.train()

    weights = [parameter.detach().double().sum().item() for parameter in trainer.model.parameters()]
    (folder / f"{rank}.json").write_text(json.dumps(weights))
    # gloo's teardown often aborts a process after everything succeeded.
    torch.distributed.barrier()
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
