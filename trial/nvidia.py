"""NVIDIA's cards and driver, as far as they answer without torch: libcuda, NVML and the kernel module."""

from __future__ import annotations

import ctypes
import re
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc/driver/nvidia")
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE of cuInit

Capability = tuple[int, int]


class Card(NamedTuple):
    """A GPU, by torch's or NVML's count; capability None where it cannot be read."""

    index: int
    name: str
    capability: Capability | None


class Driver(NamedTuple):
    """NVIDIA's, as far as it answers. version: of the kernel module, such as "535.104"; cuda: the newest that it runs."""

    version: str | None
    cuda: Capability | None
    cards: tuple[Card, ...]


def find_driver() -> Driver | None:
    """NVIDIA's driver, where there is a card that it serves; None where there is none. Nothing is started on a card."""
    cuda, code = _ask_libcuda()
    version, cards = _ask_nvml()
    folders = list((PROC / "gpus").glob("*")) if PROC.is_dir() else []
    if not cards and not folders and code != 0:
        return None
    cards = cards or tuple(Card(index, "NVIDIA card", None) for index in range(len(folders)))
    return Driver(version or _kernel_module(), cuda, cards)


def _ask_libcuda() -> tuple[Capability | None, int]:
    """The newest CUDA that the driver runs, and cuInit's code: 0 where there is a card."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)) or not number.value:
            return None, NO_DEVICE
        return (number.value // 1000, number.value % 1000 // 10), library.cuInit(0)
    except (OSError, AttributeError):
        return None, NO_DEVICE


def _ask_nvml() -> tuple[str | None, tuple[Card, ...]]:
    try:
        import pynvml
    except ImportError:
        return None, ()
    try:
        pynvml.nvmlInit()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = [_text(pynvml.nvmlDeviceGetName(handle)) for handle in handles]
        cards = (Card(*numbered, _capability(pynvml, h)) for numbered, h in zip(enumerate(names), handles, strict=True))
        return _text(pynvml.nvmlSystemGetDriverVersion()), tuple(cards)
    except pynvml.NVMLError:
        return None, ()


def _capability(pynvml: Any, handle: Any) -> Capability | None:
    try:
        return tuple(pynvml.nvmlDeviceGetCudaComputeCapability(handle))
    except Exception:  # noqa: BLE001 an old library lacks the function, an old driver the answer
        return None


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _kernel_module() -> str | None:
    try:
        found = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", (PROC / "version").read_text("utf-8", errors="replace"))
    except OSError:
        return None
    return found and found[1]
