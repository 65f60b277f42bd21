"""A torn checkpoint is passed over, and processes that share a cache do not end each other."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import helpers
import pytest
from helpers import Collator, StopAt, assert_same_run, dataset, go_on, tiny_model

from bertkd import DistillationConfig, DistillationTrainer

SCRIPT = Path(__file__).with_name("two_processes_with_a_cache.py")


def make_trainer(folder: Path) -> DistillationTrainer:
    settings = helpers.SETTINGS | {"save_strategy": "steps", "save_steps": 1, "learning_rate": 0.05}
    return DistillationTrainer(
        model=tiny_model(layers=1, seed=1),
        teacher_model=tiny_model(layers=1, seed=2),
        args=DistillationConfig(output_dir=str(folder), **settings),
        train_dataset=dataset(32),
        data_collator=Collator(),
    )


def halve(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[content.index(b"param_groups")] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda folder: halve(folder / "trainer_state.json"), "no readable trainer_state.json"),
        (lambda folder: halve(folder / "model.safetensors"), "a damaged model.safetensors"),
        (lambda folder: halve(folder / "optimizer.pt"), "a damaged optimizer.pt"),
        (lambda folder: flip(folder / "optimizer.pt"), "a damaged optimizer.pt"),
        (lambda folder: (folder / "rng_state.pth").write_bytes(b""), "a damaged rng_state.pth"),
        (lambda folder: (folder / "optimizer.pt").unlink(), "no optimizer.pt"),
    ],
)
def test_a_torn_checkpoint_falls_back_to_the_one_before(
    damage: Callable[[Path], None], said: str, tmp_path: Path
) -> None:
    whole = make_trainer(tmp_path / "whole")
    whole.train()
    interrupted = make_trainer(tmp_path / "run")
    interrupted.add_callback(StopAt(3))
    interrupted.train()
    damage(tmp_path / "run" / "checkpoint-3")

    resumed = make_trainer(tmp_path / "run")
    with pytest.warns(UserWarning, match=f"checkpoint-3 has {said}: it is passed over"):
        go_on(resumed, steps=whole.state.global_step - 2)
    assert_same_run(resumed, whole)


@pytest.mark.slow
@pytest.mark.parametrize("case", ["slow build", "no shared folder"])
def test_a_build_does_not_end_the_other_process(case: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(
        [*command, case, str(tmp_path)], env=environment, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in (0, 1)]
    assert losses[0] == losses[1]
    assert len(list(tmp_path.glob("cache*/*/meta.json"))) == (1 if case == "slow build" else 2)
