"""One process or two: the same losses, gradients, weights and predictions (gloo, on the CPU)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "distributed_script.py"


def run(processes: int, method: str, family: str, hidden: int, accumulation: int, folder: Path) -> dict[str, Any]:
    output = folder / f"{processes}.json"
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
    command = [*launcher, str(SCRIPT), method, family, str(hidden), str(processes), str(accumulation), str(output)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, env=environment, timeout=300, capture_output=True)
    return json.loads(output.read_text())


@pytest.mark.parametrize(
    ("method", "family", "hidden", "accumulation"),
    [
        ("patient_kd", "bert", 8, 1),
        ("patient_kd", "roberta", 16, 2),
        ("dynabert", "bert", 16, 2),
        ("dynabert", "roberta", 16, 1),
        ("tinybert", "bert", 8, 1),
        ("distilbert", "bert", 8, 2),
        ("pruned", "bert", 16, 2),
        ("streamed", "bert", 8, 1),
        ("unlabeled", "bert", 8, 2),
        ("uneven", "bert", 8, 1),
    ],
)
def test_two_processes_change_nothing(
    method: str, family: str, hidden: int, accumulation: int, tmp_path: Path
) -> None:
    # Patient-KD: hidden size 8 has the projection, which a module outside DDP's forward could not train; with
    # accumulation the two processes also read a teacher cache. DynaBERT: only the last backward pass synchronizes.
    # DistilBERT: the same masks, and means over the tokens of the whole step.
    # Streams: files of unlike lengths, which no process may have for itself. Rows without a label: means over the
    # labeled rows of all processes, in evaluations too. Uneven: a part of the loss that one process has, and hidden
    # states in the loss of an evaluation.
    # TinyBERT: pooler and head get no gradient, the scores are computed inside the wrapped forward.
    one = run(1, method, family, hidden, 1, tmp_path)
    two = run(2, method, family, hidden, accumulation, tmp_path)
    assert len(one["logs"]) == len(two["logs"]) == 6
    for a, b in zip(one["logs"], two["logs"], strict=True):
        names = [name for name in a if "loss" in name or name == "grad_norm"]
        assert len(names) >= (4 if method in ("pruned", "streamed", "unlabeled") else 5)
        for name in names:
            assert a[name] == pytest.approx(b[name], rel=1e-4)
    np.testing.assert_allclose(one["weights"], two["weights"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one["predictions"], two["predictions"], atol=1e-4)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
