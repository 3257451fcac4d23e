"""Where a trial computes and in which precision; and a GPU's tensors copied to the host without waiting for it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from data import memory
from trial import TrialError
from trial.gpu import capability_of, resolve_device

# How many times faster than float32 a CPU's bfloat16 has to be. AMX and AMD's AVX-512 are near 2 and above; Intel's AVX-512
# without AMX has the instructions, at half of float32's speed (docs/log.md). In between, the exact one is taken.
_LEAST_SPEEDUP = 1.2
_ROUNDS = 5  # of measuring it

# What convolutions and matrix products are computed in; weights and updates are float32 throughout. On NVIDIA's Ampere and
# later torch computes float32 convolutions in TF32 (10 bits of 23) by default: here only as "tf32".
_AUTOCAST = {"fp32": None, "tf32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """A device and the precision that matrix products are computed in."""

    device: torch.device
    precision: str  # a key of _AUTOCAST
    name: str
    why: str = ""  # why this precision was chosen, where that has to be explained

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """None: float32 throughout."""
        return _AUTOCAST[self.precision]

    def autocast(self) -> AbstractContextManager:
        """Mixed precision where it pays; weights and updates stay float32."""
        return torch.autocast(
            self.device.type, dtype=self.autocast_dtype or torch.bfloat16, enabled=self.autocast_dtype is not None
        )

    def place(self, model: nn.Module) -> nn.Module:
        """On the device, channels last: the layout that its convolutions are fastest in."""
        return model.to(self.device, memory_format=torch.channels_last)


def choose_compute(device: str, precision: str, threads: int) -> Compute:
    """The device and precision to compute in.

    device: "auto", "cpu", "cuda" or "cuda:1"; precision: "auto" or a key of _AUTOCAST; threads: 0 leaves torch's choice.

    "auto" is what the device computes fastest in: see `choose_precision`. Raises TrialError for a device or a precision that
    is not there or not usable.
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
    place, why = torch.device(device), ""
    if precision == "auto":
        precision, why = choose_precision(place)
    else:
        _require_precision(place, precision)
    if place.type == "cuda":
        if place.index:
            torch.cuda.set_device(place)  # so that queries of free memory are of this one
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    return Compute(place, precision, f"{name}, {precision}", why)


def give_back_freed_memory() -> None:
    """Where memory is short."""
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    memory.give_back_freed_memory()


def choose_precision(device: torch.device) -> tuple[str, str]:
    """The fastest that trains well; and why, where that has to be explained.

    On a GPU bfloat16 where the card computes in it (Ampere and later); else float16, with loss scaling, where it has fast
    units for that (Volta, Turing: V100, T4, RTX 20). On a CPU bfloat16 where the processor has instructions for it and is
    measured to be faster with them. Else float32.
    """
    if device.type == "cuda":
        return _choose_on_gpu(device)
    if not cpu_has_bf16():
        return "fp32", ""
    speedup = cpu_bf16_speedup()
    why = f"bfloat16 measured {speedup:.1f} times as fast as float32 in a convolution"
    return "bf16" if speedup >= _LEAST_SPEEDUP else "fp32", why


def _choose_on_gpu(device: torch.device) -> tuple[str, str]:
    if _has_bf16(device):
        return "bf16", ""
    if not _has_capability(device, 7):
        return "fp32", "this card has no fast 16-bit units"
    if "GTX 16" in torch.cuda.get_device_name(device):  # ultralytics/yolov5 #7908: NaN from its float16 convolutions
        return "fp32", "cards of the GTX 16 series give NaN in float16"
    return "fp16", "this card has no bfloat16: float16 with loss scaling"


def _has_capability(device: torch.device, major: int) -> bool:
    capability = capability_of(device.index or 0)
    return capability is None or capability[0] >= major


def _has_bf16(device: torch.device) -> bool:
    with torch.cuda.device(device):
        return torch.cuda.is_bf16_supported(including_emulation=False)


def _require_precision(device: torch.device, precision: str) -> None:
    """Raises TrialError where the device does not compute in it, or only emulates it."""
    if device.type != "cuda":
        missing = "computes in fp32 and bf16" if precision in ("fp16", "tf32") else ""
    elif precision == "bf16" and not _has_bf16(device):
        missing = "has no bfloat16"
    elif precision == "tf32" and not _has_capability(device, 8):
        missing = "has no TF32"
    else:
        missing = ""
    if missing:
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "a CPU"
        raise TrialError(f"--precision {precision}: {name} {missing}; use --precision auto or fp32")


def cpu_has_bf16() -> bool:
    """Whether the processor multiplies bfloat16 natively; emulated, it would be slower than float32."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False  # not Linux: float32 is never wrong
    return bool({"avx512_bf16", "amx_bf16", "bf16"} & set(flags))


@lru_cache(maxsize=1)
def cpu_bf16_speedup() -> float:
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
            for _ in range(_ROUNDS):
                for dtype in (torch.float32, torch.bfloat16):
                    inputs = images.to(dtype), weight.to(dtype)
                    started = time.thread_time()
                    F.conv2d(*inputs, padding=1)
                    best[dtype] = min(time.thread_time() - started, best.get(dtype, float("inf")))
    finally:
        torch.set_num_threads(threads)
    return best[torch.float32] / best[torch.bfloat16]


class HostCopy:
    """A GPU's tensors in pinned host memory, so that they can be written down while the training continues."""

    def __init__(self) -> None:
        self._buffers: list[
            Tensor
        ] = []  # in the order of their use: each epoch's state has the same shapes in the same order
        self._copied: torch.cuda.Event | None = None

    def take(self, content: Any) -> Any:
        """`content` (dicts, lists, tuples) with every tensor of a GPU as it is at this point of the GPU's work.

        The copies are queued and not waited for: `wait` before they are read, and read them before they are taken again."""
        unused = iter(self._buffers[:])
        self._buffers.clear()
        copied = self._copy(content, unused)
        self._copied = torch.cuda.Event()
        self._copied.record()
        return copied

    def wait(self) -> None:
        self._copied.synchronize()

    def _copy(self, content: Any, unused: Iterator[Tensor]) -> Any:
        if isinstance(content, dict):
            return {name: self._copy(value, unused) for name, value in content.items()}
        if isinstance(content, (list, tuple)):
            return type(content)(self._copy(value, unused) for value in content)
        if not isinstance(content, Tensor) or content.device.type != "cuda":
            return content
        self._buffers.append(_pinned_like(content, next(unused, None)))
        return self._buffers[-1].copy_(content.detach(), non_blocking=True)


def _pinned_like(tensor: Tensor, buffer: Tensor | None) -> Tensor:
    """`buffer` where it fits; otherwise a new one, in pageable memory where no other can be allocated."""
    expected = (tensor.size(), tensor.stride(), tensor.dtype)
    if buffer is not None and (buffer.size(), buffer.stride(), buffer.dtype) == expected:
        return buffer
    new = torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype)
    try:
        return new.pin_memory()
    except RuntimeError:  # the system allows no more of it
        return new
