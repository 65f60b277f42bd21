"""Distill a fine-tuned teacher into a smaller student by Patient-KD (skip, last, or an explicit layer map).

    python recipes/patient_kd.py --config recipes/configs/patient_kd/sst2.yaml --glue_dir GLUE \
        --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased --output_dir outputs/pkd
"""

from collections.abc import Sequence

from bertkd import PatientKDConfig, PatientKDTrainer
from bertkd.cli.arguments import Run
from bertkd.cli.experiment import run_seeds
from bertkd.cli.kd import distill
from bertkd.records import RunResult


def patient_kd(run: Run[PatientKDConfig]) -> RunResult:
    """Train one student; the method is named after the layer map."""
    strategy = run.training.strategy
    return distill(run, f"pkd-{strategy}" if strategy in ("skip", "last") else "pkd-map", PatientKDTrainer)


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    return run_seeds(argv, PatientKDConfig, patient_kd)
