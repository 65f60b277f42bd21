"""Measures what a model costs: parameters, floating-point operations, size on disk and latency."""

from bertkd.efficiency.instructions import cpu_instructions, is_fast_in_bfloat16, is_fast_in_int8
from bertkd.efficiency.latency import Latency, check_device, measure_latency
from bertkd.efficiency.runners import Runner, TorchRunner
from bertkd.efficiency.shapes import PRESETS, Preset
from bertkd.efficiency.size import Parameters, count_flops, count_parameters, model_size_mb

__all__ = [
    "PRESETS",
    "Latency",
    "Parameters",
    "Preset",
    "Runner",
    "TorchRunner",
    "check_device",
    "count_flops",
    "count_parameters",
    "cpu_instructions",
    "is_fast_in_bfloat16",
    "is_fast_in_int8",
    "measure_latency",
    "model_size_mb",
]
