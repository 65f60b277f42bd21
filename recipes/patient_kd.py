"""Distil a fine-tuned teacher into a smaller student by Patient-KD (skip, last, or an explicit layer map).

    python recipes/patient_kd.py --config recipes/configs/patient_kd/sst2.yaml --glue_dir GLUE \
        --teacher_model_name_or_path outputs/teacher --model_name_or_path bert-base-uncased --output_dir outputs/pkd
"""

from collections.abc import Sequence

from experiment import run_script
from kd import distil_all

from bertkd import PatientKDConfig, PatientKDTrainer
from bertkd.report import RunResult


def method_name(config: PatientKDConfig) -> str:
    return f"pkd-{config.strategy}" if config.strategy in ("skip", "last") else "pkd-map"


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    return distil_all(argv, PatientKDConfig, PatientKDTrainer, method_name)


if __name__ == "__main__":
    run_script(main)
