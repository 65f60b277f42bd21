"""What a number depends on besides the settings: versions, commit and hardware."""

import os
import platform
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
import torch

from bertkd.efficiency import cpu_instructions

__all__ = ["PACKAGES", "environment", "now"]

PACKAGES = ("bertkd", "torch", "transformers", "datasets", "evaluate", "accelerate")


def now() -> str:
    """The time, as records have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def environment(more_packages: Sequence[str] = ()) -> dict[str, Any]:
    """Describes what a number depends on besides the settings.

    Args:
        more_packages: packages whose versions matter too, where they are installed.

    Returns:
        `versions` of Python and the packages; `commit` of the repository that bertkd lies in, with "+changes" when
        code there is not committed, "unknown" without git; `hardware`: CPU, cores, torch's threads, memory in GiB,
        the CPU's instruction sets (`cpu_instructions`), and the GPUs or None.
    """
    versions = {"python": platform.python_version()}
    for package in (*PACKAGES, *more_packages):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            if package in PACKAGES:
                versions[package] = "not installed"

    hardware = {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "instructions": cpu_instructions(),
        "gpu": [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())] or None,
    }
    return {"versions": versions, "commit": _commit(Path(__file__).resolve()), "hardware": hardware}


def _commit(file: Path) -> str:
    """The commit of the repository that tracks `file`; only changes of Python files outside the results count."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(file.parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout

    try:
        # An installed package may lie in somebody else's repository, whose commit would say nothing.
        git("ls-files", "--error-unmatch", file.name)
        commit = git("rev-parse", "HEAD").strip()
        status = git("status", "--porcelain", "--untracked-files=all", "--", ":/", ":(top,exclude)docs/results*")
    except (OSError, subprocess.SubprocessError):
        return "unknown"

    changes = [line for line in status.splitlines() if not line.startswith("??") or line.endswith(".py")]
    return f"{commit}+changes" if changes else commit


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:  # not Linux
        pass
    return platform.processor() or platform.machine()
