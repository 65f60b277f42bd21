"""One process or two: the same losses, gradients, weights and predictions (gloo, on the CPU)."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPT = Path(__file__).parent / "distributed_script.py"


# Method, family, hidden size, and with two processes the steps of accumulation.
CASES = {
    # Hidden size 8 has the projection, which a module outside DDP's forward could not train.
    "patient-kd": ("patient_kd", "bert", 8, 1),
    # With accumulation the two processes also read a teacher cache.
    "patient-kd-cached": ("patient_kd", "roberta", 16, 2),
    # Only the last backward pass synchronizes.
    "dynabert-accumulated": ("dynabert", "bert", 16, 2),
    "dynabert": ("dynabert", "roberta", 16, 1),
    # Pooler and head get no gradient, and the scores are computed inside the wrapped forward.
    "tinybert": ("tinybert", "bert", 8, 1),
    # The same masks, and means over the tokens of the whole step.
    "distilbert": ("distilbert", "bert", 8, 2),
    "pruned": ("pruned", "bert", 16, 2),
    # Files of unlike lengths, which no process may have for itself.
    "streamed": ("streamed", "bert", 8, 1),
    # Means over the labeled rows of all processes, in evaluations too.
    "unlabeled": ("unlabeled", "bert", 8, 2),
    # A part of the loss that one process has, and hidden states in the loss of an evaluation.
    "uneven": ("uneven", "bert", 8, 1),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Any]]:
    """What a case left with so many processes. All cases share the processes, which take seconds to start."""
    folder, said = tmp_path_factory.mktemp("trained"), {}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    for processes in (1, 2):
        launcher = [sys.executable]
        if processes > 1:
            launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)]
        command = [*launcher, str(SCRIPT), str(processes), str(folder), json.dumps(CASES)]
        ended = subprocess.run(command, env=environment, timeout=280, capture_output=True, text=True)
        said[processes] = ended.stderr[-3000:]

    def read(name: str, processes: int) -> dict[str, Any]:
        path = folder / f"{name}-{processes}.json"
        # A case that fails ends those behind it.
        assert path.is_file(), said[processes]
        saved = {file.name for file in Path(f"{path}.student").iterdir()}
        assert saved >= {"config.json", "model.safetensors"} and ".partial" not in saved
        return json.loads(path.read_text())

    return read


@pytest.mark.parametrize("name", CASES)
def test_two_processes_change_nothing(name: str, trained: Callable[[str, int], dict[str, Any]]) -> None:
    one, two = trained(name, 1), trained(name, 2)
    assert len(one["logs"]) == len(two["logs"]) == 6
    for a, b in zip(one["logs"], two["logs"], strict=True):
        names = [key for key in a if "loss" in key or key == "grad_norm"]
        assert len(names) >= (4 if name in ("pruned", "streamed", "unlabeled") else 5)
        for key in names:
            assert a[key] == pytest.approx(b[key], rel=1e-4)
    np.testing.assert_allclose(one["weights"], two["weights"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one["predictions"], two["predictions"], atol=1e-4)
    assert one["loss"] == pytest.approx(two["loss"], rel=1e-4)
