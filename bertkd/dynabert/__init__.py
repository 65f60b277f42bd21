"""DynaBERT (Hou et al., arXiv 2004.04037): a supernet whose width and depth can be chosen after training."""

from bertkd.dynabert.config import DynaBertKDConfig
from bertkd.dynabert.extraction import extract_subnetwork, save_subnetwork
from bertkd.dynabert.importance import Importance, compute_importance
from bertkd.dynabert.rewiring import rewire
from bertkd.dynabert.search import Candidate, CostTable, cost_table, search_subnetworks
from bertkd.dynabert.supernet import Subnetwork, make_adaptive, set_subnetwork
from bertkd.dynabert.trainer import DynaBertKDTrainer

__all__ = [
    "Candidate",
    "CostTable",
    "DynaBertKDConfig",
    "DynaBertKDTrainer",
    "Importance",
    "Subnetwork",
    "compute_importance",
    "cost_table",
    "extract_subnetwork",
    "make_adaptive",
    "rewire",
    "save_subnetwork",
    "search_subnetworks",
    "set_subnetwork",
]
