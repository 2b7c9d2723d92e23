"""Which precision `auto` means on this machine."""

from __future__ import annotations

from typing import Literal

import torch


def resolve_precision(wanted: str, accelerator: str = "auto") -> Literal["bf16-mixed", "32-true"]:
    """Fabric's name for `auto`, `bf16` or `fp32`; `auto` takes bf16 where the device multiplies it natively."""
    if wanted == "auto":
        wanted = "bf16" if _has_bf16(accelerator) else "fp32"
    return "bf16-mixed" if wanted == "bf16" else "32-true"


def _has_bf16(accelerator: str) -> bool:
    if accelerator != "cpu" and torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    # Older releases of torch do not tell what the processor can do; they get fp32.
    capabilities: dict[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
