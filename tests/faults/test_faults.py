"""Commands that are killed wherever they write, or whose disk fails, come to the same end when they are started again.

`harness.py` does it, in a process of its own that may fork; `make faults` kills at every boundary.
"""

import subprocess
import sys
from pathlib import Path

import pytest

HARNESS = Path(__file__).with_name("harness.py")


def disturbed(folder: Path, *options: str) -> str:
    """Runs the harness, and returns what it printed."""
    command = [sys.executable, str(HARNESS), str(folder / "work"), *options]
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"[-6000:]
    return done.stdout


def test_killed_commands_come_to_the_same_end(tmp_path: Path) -> None:
    assert "6 runs were disturbed and started again, 0 of them failed" in disturbed(
        tmp_path, "--actions", "kill", "--kills", "2", "--scenarios", "training", "augmentation", "extraction"
    )


def test_commands_whose_disk_fails_end_in_a_sentence(tmp_path: Path) -> None:
    faults = ["disk full", "quota", "input/output error", "read-only", "vanished"]
    assert "10 runs were disturbed and started again, 0 of them failed" in disturbed(
        tmp_path, "--actions", *faults, "--faults", "2", "--scenarios", "export"
    )


@pytest.mark.slow
@pytest.mark.faults
@pytest.mark.timeout(4 * 3600)
@pytest.mark.parametrize(
    "scenario", ["training", "cache", "augmentation", "export", "extraction", "pruning", "two processes"]
)
def test_commands_may_be_killed_anywhere(scenario: str, tmp_path: Path) -> None:
    disturbed(tmp_path, "--scenarios", scenario)
