"""Says where bfloat16 is worth computing in."""

import torch

__all__ = ["is_fast_in_bfloat16"]

# Names of `torch.cpu.get_capabilities`, of processors by Intel and AMD and by Arm.
_CPU_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16")


def is_fast_in_bfloat16(device: str | torch.device = "cpu") -> bool:
    """Says whether a device multiplies in bfloat16 itself.

    Where it does not, PyTorch computes in bfloat16 nevertheless, but several times as slowly as in float32. A version
    of PyTorch that does not know the CPU's instructions is taken to be fast.

    Args:
        device: where a model is to run, such as "cpu" or "cuda:0".
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        return True
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in _CPU_INSTRUCTIONS)
