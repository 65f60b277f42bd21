"""Vanilla knowledge distillation, and the base of every trainer."""

from bertkd.distillation.config import DistillationConfig
from bertkd.distillation.trainer import DistillationTrainer

__all__ = ["DistillationConfig", "DistillationTrainer"]
