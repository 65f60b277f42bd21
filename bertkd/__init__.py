"""bertkd compresses BERT: knowledge distillation as native `transformers` trainers."""

from bertkd import losses
from bertkd.distilbert import DistilBertKDConfig, DistilBertKDTrainer
from bertkd.distillation import DistillationConfig, DistillationTrainer
from bertkd.dynabert import DynaBertKDConfig, DynaBertKDTrainer
from bertkd.layer_map import LayerMap
from bertkd.patient_kd import PatientKDConfig, PatientKDTrainer
from bertkd.students import drop_layers
from bertkd.tinybert import TinyBertKDConfig, TinyBertKDTrainer

__all__ = [
    "DistilBertKDConfig",
    "DistilBertKDTrainer",
    "DistillationConfig",
    "DistillationTrainer",
    "DynaBertKDConfig",
    "DynaBertKDTrainer",
    "LayerMap",
    "PatientKDConfig",
    "PatientKDTrainer",
    "TinyBertKDConfig",
    "TinyBertKDTrainer",
    "drop_layers",
    "losses",
]
__version__ = "0.1.0"
