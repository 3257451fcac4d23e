"""What the benchmarks work on: drawn photos of Food-11's size, their cache, and the machine's description."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch

from data.cache import Cache, open_cache
from data.prepare import Settings, prepare
from data.sample import write_sample
from trial.device import Compute

ROOT = Path(__file__).resolve().parent.parent
PHOTO_PX = 512  # the median side of Food-11's photos
COUNTS = {"training": (36,) * 11, "validation": (8,) * 11, "evaluation": (4,) * 11}


def photos(given: Path | None) -> Path:
    """The user's folder, or drawn photos, made once: about a minute."""
    if given:
        return given
    folder = ROOT / "data" / "bench_photos"
    write_sample(folder, seed=0, image_px=PHOTO_PX, counts=COUNTS)
    return folder


def cache_of(source: Path, image_px: int = 256) -> Cache:
    """Its cache, made where there is none that fits."""
    folder = ROOT / "data" / "bench_cache"
    prepare(source, folder, Settings(image_px=image_px))
    return open_cache(folder)


def scratch() -> Path:
    """For folders that last as long as a measurement: on the disk that trials write to, not tracked."""
    folder = ROOT / "runs"
    folder.mkdir(exist_ok=True)
    return folder


def machine(compute: Compute) -> dict[str, str]:
    return {
        "device": compute.name,
        "processor": processor(),
        "cores": str(len(os.sched_getaffinity(0))),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("torchvision", "nni", "numpy", "pillow")},
        "load": f"{os.getloadavg()[0]:.1f}",
    }


def processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next((line.split(":", 1)[1].strip() for line in file if line.startswith("model name")), "unknown")
    except OSError:
        return platform.processor() or "unknown"
