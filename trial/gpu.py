"""Is there a GPU that torch can compute on? The one answer, for trials, `check`, `doctor` and `launch`."""

from __future__ import annotations

import ctypes
import os
import re
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from trial import TrialError

PROC = Path("/proc/driver/nvidia")
NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE of cuInit

Capability = tuple[int, int]


class Card(NamedTuple):
    """A GPU, indexed as torch or NVML does; capability None where it cannot be read."""

    index: int
    name: str
    capability: Capability | None


class Driver(NamedTuple):
    """NVIDIA's driver, as far as it answers. version: of the kernel module, such as "535.104"; cuda: the newest that it runs."""

    version: str | None
    cuda: Capability | None
    cards: tuple[Card, ...]


ON_CPU = "or train on the CPU: --device cpu (in an experiment --set device=cpu)"

# https://docs.nvidia.com/deploy/cuda-compatibility: the oldest driver for any CUDA of a major version.
_OLDEST_DRIVER = {11: "450", 12: "525", 13: "580"}


class _Build(NamedTuple):
    """A wheel of PyTorch; CUDA's major version and the capabilities that it carries code for."""

    tag: str
    cuda: int
    torch: str
    torchvision: str
    first: Capability
    last: Capability


# From the wheels' TORCH_CUDA_ARCH_LIST (pytorch's .ci/manywheel/build_cuda.sh); the one to prefer first.
_BUILDS = (
    _Build("cu130", 13, "2.14.1", "0.29.1", (7, 5), (12, 9)),
    _Build("cu126", 12, "2.14.1", "0.29.1", (5, 0), (9, 9)),
    _Build("cu128", 12, "2.9.1", "0.24.1", (7, 0), (12, 9)),
    _Build("cu118", 11, "2.7.1", "0.22.1", (3, 7), (9, 9)),
)


@dataclass(frozen=True)
class _Gpus:
    """state: "none", "usable" or "unusable", with why; names: of those usable, by torch's index."""

    state: str
    why: str
    names: dict[int, str]


def resolve_device(device: str) -> str:
    """The device to compute on: "auto" is the first usable GPU, and the CPU only where there is none at all.

    device: "auto", "cpu", "cuda" or "cuda:N". Raises TrialError for any other, and for a GPU that is not there or not
    usable.
    """
    if device == "cpu":
        _is_available()
        return device
    number = re.fullmatch(r"auto|cuda(?::(\d+))?", device)
    if not number:
        raise TrialError(f"device = {device!r}; expected auto, cpu, cuda or cuda:N, N from 0")
    gpus = find_gpus()
    if gpus.state == "unusable":
        raise TrialError(f"device = {device!r}: {gpus.why}")
    if device == "auto":
        first = min(gpus.names, default=None)
        return "cpu" if first is None else f"cuda:{first}" if first else "cuda"
    if not gpus.names:
        raise TrialError(
            f"device = {device!r}, but torch {torch.__version__} sees no GPU ({gpus.why}); use --device cpu"
        )
    if int(number[1] or 0) not in gpus.names:
        there = ", ".join(f"cuda:{index} ({name})" for index, name in gpus.names.items())
        raise TrialError(f"device = {device!r}: torch can use {len(gpus.names)} GPU(s) here: {there}")
    return device


def describe_gpus(device: str) -> dict[str, Any]:
    """The answer for JSON: {state, why, names, device: resolved or None, problem: or None}."""
    gpus, resolved, problem = find_gpus(), None, None
    try:
        resolved = resolve_device(device)
    except TrialError as error:
        problem = str(error)
    names = [*gpus.names.values()]
    return {"state": gpus.state, "why": gpus.why, "names": names, "device": resolved, "problem": problem}


def find_gpus() -> _Gpus:
    """The GPUs that torch can use; or why there are none, in one line that includes torch's own warnings."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if _is_available():
            # Where NVML counts for torch (PYTORCH_NVML_BASED_CUDA_CHECK), the driver may be too old all the same.
            with suppress(RuntimeError):
                return _usable_of(
                    [Card(i, torch.cuda.get_device_name(i), capability_of(i)) for i in range(torch.cuda.device_count())]
                )
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        if torch.version.hip or (visible is not None and _hides_all(visible)):
            return _Gpus(
                "none", f"CUDA_VISIBLE_DEVICES = {visible!r}" if visible is not None else "ROCm finds none", {}
            )
        driver = find_driver()
        if driver is None:
            return _Gpus("none", "no NVIDIA card with a driver is here", {})
        return _Gpus("unusable", _why_unusable(driver, visible), {})


def _is_available() -> bool:
    """torch warns of a driver only at the first call, and makes that itself in a backward pass on the CPU."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.cuda.is_available()


def _hides_all(visible: str) -> bool:
    """Whether CUDA_VISIBLE_DEVICES is set to what people, NNI and Slurm write for none at all."""
    first = visible.split(",")[0].strip().lower()
    return first in ("", "none", "void", "nodevfiles") or first.startswith("-")


def capability_of(index: int) -> Capability | None:
    """The compute capability of the card with torch's index; None where it is unknown."""
    try:
        return torch.cuda.get_device_capability(index)
    except (AssertionError, NameError):  # torch's own, while CUDA is not initialised
        return None


def _usable_of(cards: list[Card]) -> _Gpus:
    names = {card.index: card.name for card in cards if carries(card.capability)}
    if names:
        return _Gpus("usable", "", names)
    driver = find_driver()
    newest = driver.cuda if driver and driver.cuda else _numbers(torch.version.cuda)
    return _Gpus("unusable", _foreign_cards(cards, newest), {})


def carries(capability: Capability | None) -> bool:
    """Whether this torch has code for a card: compiled for the same major version and a minor one not above it, or as
    PTX for any older one, which the driver compiles. https://docs.nvidia.com/cuda/blackwell-compatibility-guide"""
    architectures = [
        match for name in torch.cuda.get_arch_list() if (match := re.match(r"(sm|compute)_(\d+)(\d)", name))
    ]
    if capability is None or torch.version.hip or not architectures:
        return True
    return any(
        (int(major), int(minor)) <= tuple(capability) and (kind == "compute" or int(major) == capability[0])
        for kind, major, minor in (match.groups() for match in architectures)
    )


def _why_unusable(driver: Driver, visible: str | None) -> str:
    """Why torch finds no GPU where there is one."""
    here, ours = _are_here(driver.cards), f"torch {torch.__version__} (CUDA {torch.version.cuda})"
    named = " ".join(filter(None, ["driver", driver.version, driver.cuda and f"(CUDA {_dotted(driver.cuda)})"]))
    if not torch.version.cuda:
        ours = f"torch {torch.__version__} is built without CUDA"
        return f"{here}, but {ours}. {_remedies('', driver.cuda, driver.cards)}"
    if driver.cuda is None:
        remedy = "start the container with --gpus all, or install the driver again"
        return f"{here} with {named}, but its library libcuda.so.1 is not: {remedy}; {ON_CPU}"
    if driver.cuda[0] < _numbers(torch.version.cuda)[0]:
        return f"{here}, but its {named} is too old for {ours}{_newer_driver(driver)}"
    reason = _reason_of_torch()
    if visible is not None and "No CUDA GPUs" in reason:
        count = f"the {len(driver.cards)} GPU(s) here" if driver.cards else "the GPUs here"
        return f"CUDA_VISIBLE_DEVICES = {visible!r} names none of {count}: correct or unset it; {ON_CPU}"
    remedy = "look at nvidia-smi, restart after a change of the driver, or install it again"
    return f"{here} with {named}, but {ours} cannot use it ({reason}): {remedy}; {ON_CPU}"


def _newer_driver(driver: Driver) -> str:
    """Which driver is needed instead. A newer one does not suffice for a card that this torch has no code for."""
    major = _numbers(torch.version.cuda)[0]
    needed = f"driver {_OLDEST_DRIVER[major]} or newer" if major in _OLDEST_DRIVER else f"a driver for CUDA {major}"
    foreign = [card for card in driver.cards if not carries(card.capability)]
    if foreign:
        problem = f", which needs {needed} and has no code for {_names(foreign, with_capability=True)}"
        return f"{problem}. {_remedies('', driver.cuda, driver.cards)}"
    return f", which needs {needed}. {_remedies('Install that driver', driver.cuda, driver.cards)}"


def _foreign_cards(cards: Sequence[Card], newest: Capability | None) -> str:
    architectures = ", ".join(torch.cuda.get_arch_list())
    ours = f"torch {torch.__version__} (CUDA {torch.version.cuda})"
    problem = f"{_are_here(cards, with_capability=True)}, but {ours} has code for {architectures} only"
    return f"{problem}, and no driver changes that. {_remedies('', newest, cards)}"


def _remedies(other: str, cuda: Capability | None, cards: Sequence[Card]) -> str:
    """The remedies: the other one, the newest build of torch that the driver and all cards can run, and the CPU.

    cuda: the driver's."""
    capabilities = [card.capability for card in cards if card.capability]
    build = next(
        (
            build
            for build in _BUILDS
            if (cuda is None or cuda[0] >= build.cuda) and all(build.first <= c <= build.last for c in capabilities)
        ),
        None,
    )
    versions = build and " ".join(f"{name}=={getattr(build, name)}+{build.tag}" for name in ("torch", "torchvision"))
    pip = build and f"python -m pip install {versions} --index-url https://download.pytorch.org/whl/{build.tag}"
    if not pip:
        return f"{f'{other}; no' if other else 'No'} build of torch from 2.6 on runs with what is here; {ON_CPU}"
    return f"{f'{other}, or the' if other else 'Install the'} build of torch for what is here: {pip}; {ON_CPU}"


def _names(cards: Sequence[Card], with_capability: bool = False) -> str:
    names = [
        f"{card.name} (compute capability {_dotted(card.capability)})"
        if with_capability and card.capability
        else card.name
        for card in cards
    ]
    return ", ".join(dict.fromkeys(names)) or "an NVIDIA GPU"


def _are_here(cards: Sequence[Card], with_capability: bool = False) -> str:
    return f"{_names(cards, with_capability)} {'are' if len({card.name for card in cards}) > 1 else 'is'} here"


def _reason_of_torch() -> str:
    """torch's error when it has to use a GPU, without its questions."""
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        code = re.search(r"Error \d+: .*", line)
        return (code[0] if code else line.split(". ")[0]).rstrip(".")
    return "it finds none"


def _numbers(version: str) -> Capability:
    major, minor = version.split(".")[:2]
    return int(major), int(minor)


def _dotted(version: Capability) -> str:
    return ".".join(map(str, version))


# -- NVIDIA's cards and driver, as far as they can be read without torch: libcuda, NVML and the kernel module ------------


def find_driver() -> Driver | None:
    """NVIDIA's driver, where it has a card; None otherwise. Nothing is started on a card."""
    cuda, code = _read_libcuda()
    version, cards = _read_nvml()
    folders = list((PROC / "gpus").glob("*")) if PROC.is_dir() else []
    if not cards and not folders and code != 0:
        return None
    cards = cards or tuple(Card(index, "NVIDIA card", None) for index in range(len(folders)))
    return Driver(version or _kernel_module(), cuda, cards)


def _read_libcuda() -> tuple[Capability | None, int]:
    """The newest CUDA that the driver runs, and cuInit's code: 0 where there is a card."""
    try:
        library = ctypes.CDLL("libcuda.so.1")
        number = ctypes.c_int()
        if library.cuDriverGetVersion(ctypes.byref(number)) or not number.value:
            return None, NO_DEVICE
        return (number.value // 1000, number.value % 1000 // 10), library.cuInit(0)
    except (OSError, AttributeError):
        return None, NO_DEVICE


def _read_nvml() -> tuple[str | None, tuple[Card, ...]]:
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
        match = re.search(r"Kernel Module.*?\s(\d+\.[\d.]+)", (PROC / "version").read_text("utf-8", errors="replace"))
    except OSError:
        return None
    return match and match[1]
