"""Says which precisions a processor computes in itself."""

import torch

__all__ = ["cpu_instructions", "is_fast_in_bfloat16", "is_fast_in_int8"]

# Names of `torch.cpu.get_capabilities`, of processors by Intel and AMD, and after them by Arm.
_FLOAT32 = ("avx2", "avx512_f", "neon", "sve")
_BFLOAT16 = ("avx512_bf16", "amx_bf16", "bf16")
_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8", "avx10_1", "dot", "i8mm")


def cpu_instructions() -> list[str]:
    """The CPU's instruction sets that a transformer's speed depends on, by torch's names; empty where it has none."""
    if not hasattr(torch.cpu, "get_capabilities"):
        return []
    capabilities = torch.cpu.get_capabilities()
    return [name for name in (*_FLOAT32, *_BFLOAT16, *_INT8) if capabilities.get(name, False)]


def is_fast_in_bfloat16(device: str | torch.device = "cpu") -> bool:
    """Says whether a device multiplies in bfloat16 itself.

    Where it does not, PyTorch computes in bfloat16 nevertheless, but more slowly than in float32. A version of PyTorch
    that does not know the CPU's instructions is taken to be on a fast one.

    Args:
        device: where a model is to run, such as "cpu" or "cuda:0".
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return kind != "cpu" or _has_any_of(_BFLOAT16)


def is_fast_in_int8() -> bool:
    """Says whether the CPU adds up products of int8 itself.

    Where it does not, an engine's int8 saves memory, and may take longer than its float32.
    """
    return _has_any_of(_INT8)


def _has_any_of(instructions: tuple[str, ...]) -> bool:
    return not hasattr(torch.cpu, "get_capabilities") or not set(instructions).isdisjoint(cpu_instructions())
