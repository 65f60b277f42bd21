"""Distill a fine-tuned teacher into a smaller student by Patient-KD (skip, last, or an explicit layer map).

    bertkd patient-kd --config patient_kd/sst2 --teacher_model_name_or_path outputs/teacher \
        --model_name_or_path bert-base-uncased --output_dir outputs/pkd
"""

from collections.abc import Sequence
from typing import Any

from bertkd import PatientKDConfig, PatientKDTrainer
from bertkd.cli.commands import TaskRun, train_seeds
from bertkd.cli.kd import distill_run
from bertkd.records import RunResult


def train(options: TaskRun[Any, PatientKDConfig]) -> RunResult | None:
    """Trains one student; the method is named after the layer map."""
    strategy = options.config.strategy
    name = f"pkd-{strategy}" if strategy in ("skip", "last") else "pkd-map"
    return distill_run(options, name, PatientKDTrainer)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Trains one student per seed."""
    return train_seeds("patient-kd", str(__doc__), PatientKDConfig, train, argv)
