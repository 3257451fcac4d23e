"""Where a trial computes and in which precision; said in its log."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from data import memory
from trial.gpu import resolve_device

# How much faster than float32 a CPU's bfloat16 has to be. AMX and AMD's AVX-512 are near 2 and above; Intel's AVX-512
# without AMX has the instructions, at half of float32's speed (docs/log.md). In between, the exact one is taken.
LEAST_SPEEDUP = 1.2


@dataclass(frozen=True)
class Compute:
    """A device and the type that matrix products are computed in."""

    device: torch.device
    autocast_dtype: torch.dtype | None  # None: float32 throughout
    name: str
    why: str = ""  # the precision was chosen, where that was measured

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
    on a CPU it is bfloat16 where the processor has instructions for it and is measured to be faster with them. Raises
    TrialError for a device that is not there or not usable.
    """
    device = resolve_device(device)
    if device.startswith("cuda"):
        torch.backends.cudnn.benchmark = True
        name = torch.cuda.get_device_name(device)
    else:
        memory.keep_freed_memory()
        if threads:
            torch.set_num_threads(threads)
        name = f"CPU, {torch.get_num_threads()} threads"
    use_bf16, why = precision == "bf16", ""
    if precision == "auto":
        use_bf16, why = prefers_bf16(torch.device(device))
    return Compute(
        torch.device(device), torch.bfloat16 if use_bf16 else None, f"{name}, {'bf16' if use_bf16 else 'fp32'}", why
    )


def give_back_freed_memory() -> None:
    """Where memory is short."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    memory.give_back_freed_memory()


def prefers_bf16(device: torch.device) -> tuple[bool, str]:
    """Whether it computes faster in bfloat16 than in float32, and what that was read from where it was measured."""
    if device.type != "cpu":
        with torch.cuda.device(device):
            return torch.cuda.is_bf16_supported(including_emulation=False), ""
    if not cpu_has_bf16():
        return False, ""
    speedup = cpu_bf16_speedup()
    return speedup >= LEAST_SPEEDUP, f"bfloat16 measured {speedup:.1f} times as fast as float32 in a convolution"


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it would be slower than float32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False  # not Linux: float32 is never wrong
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


@lru_cache(maxsize=1)
def cpu_bf16_speedup(rounds: int = 5) -> float:
    """Float32's time over bfloat16's for one convolution of ResNet18's second stage, one image at 224 px; about 30 ms.

    In one thread's own processor time, the two taking turns, the best of the rounds each: what else the machine does,
    such as another trial, is not in it, so that all trials of an experiment choose alike.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        images, weight = (
            torch.ones(shape).to(memory_format=torch.channels_last) for shape in ((1, 128, 28, 28), (128, 128, 3, 3))
        )
        best = {}
        with torch.inference_mode():
            for _ in range(rounds):
                for dtype in (torch.float32, torch.bfloat16):
                    inputs = images.to(dtype), weight.to(dtype)
                    started = time.thread_time()
                    F.conv2d(*inputs, padding=1)
                    best[dtype] = min(time.thread_time() - started, best.get(dtype, float("inf")))
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]
