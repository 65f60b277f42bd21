"""Patient-KD (Sun et al., arXiv 1908.09355): a student learns the [CLS] states of intermediate teacher layers."""

from bertkd.patient_kd.config import PatientKDConfig
from bertkd.patient_kd.trainer import PatientKDTrainer

__all__ = ["PatientKDConfig", "PatientKDTrainer"]
