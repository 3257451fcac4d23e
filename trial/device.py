"""Where a trial computes and in which precision; said in its log."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager
from dataclasses import dataclass

import torch
from torch import nn

from data import memory
from trial.errors import TrialError


@dataclass(frozen=True)
class Compute:
    """A device and the type that matrix products are computed in."""

    device: torch.device
    autocast_dtype: torch.dtype | None  # None: float32 throughout
    name: str

    def autocast(self) -> AbstractContextManager:
        """Mixed precision where it pays; weights and updates stay float32."""
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        )

    def place(self, model: nn.Module) -> nn.Module:
        """On the device, channels last: the layout that its convolutions are fastest in."""
        return model.to(self.device, memory_format=torch.channels_last)


def choose_compute(device: str, precision: str, threads: int) -> Compute:
    """device: "auto", "cpu", "cuda" or "cuda:1"; precision: "auto", "fp32" or "bf16"; threads: 0 leaves torch's choice.

    On a GPU "auto" is bfloat16 where the card computes in it (else float16 would need loss scaling: float32 is used);
    on a CPU it is bfloat16 where the processor has instructions for it. Raises TrialError for a device not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device.startswith("cuda"):
        if not torch.cuda.is_available():
            raise TrialError(
                f"device = {device!r}, but torch {torch.__version__} sees no GPU (CUDA_VISIBLE_DEVICES = "
                f"{os.environ.get('CUDA_VISIBLE_DEVICES', 'unset')!r}); use --device cpu or mend the driver"
            )
        torch.backends.cudnn.benchmark = True
        name = torch.cuda.get_device_name(device)
    else:
        memory.keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        name = f"CPU, {torch.get_num_threads()} threads"
    use_bf16 = precision == "bf16" or (precision == "auto" and has_bf16(torch.device(device)))
    return Compute(
        torch.device(device), torch.bfloat16 if use_bf16 else None, f"{name}, {'bf16' if use_bf16 else 'fp32'}"
    )


def give_back_freed_memory() -> None:
    """Where memory is short."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    memory.give_back_freed_memory()


def has_bf16(device: torch.device) -> bool:
    """Whether it multiplies bfloat16 natively."""
    if device.type == "cpu":
        return cpu_has_bf16()
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it would be slower than float32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False  # not Linux: float32 is never wrong
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))
