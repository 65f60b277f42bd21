"""Describes Patient-KD to the rest of bertkd."""

from typing import Any

from bertkd.distillation.method import Method
from bertkd.patient_kd.config import PatientKDConfig
from bertkd.patient_kd.trainer import PatientKDTrainer

__all__ = ["METHODS"]


def _patient_kd(strategy: str, **settings: Any) -> Method:
    return Method(
        name=f"pkd-{strategy}",
        label=f"PKD-{strategy}",
        command="patient-kd",
        arxiv="1908.09355",
        trainer_class=PatientKDTrainer,
        config_class=PatientKDConfig,
        settings={"strategy": strategy},
        compared_with="kd",
        # With a single layer there is no level to be patient with: the method leaves the last one out.
        least_layers=2,
        **settings,
    )


METHODS = (
    _patient_kd("skip"),
    _patient_kd("last", variants={"pkd-map": "PKD with a layer map of its own"}),
)
