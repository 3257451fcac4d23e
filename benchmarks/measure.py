"""How figures are measured: ways that take turns, in one run, as ratios; and the photos they are measured on.

On a shared machine single times drift by a factor of two within a minute. Two ways that take turns every few seconds
drift together, so each round's ratio is kept and the median of the rounds reported.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch

from data.cache import Cache, open_cache
from data.prepare import Settings, prepare
from data.sample import write_sample
from trial.device import Compute

ROOT = Path(__file__).resolve().parent.parent
PHOTO_PX = 512  # the median side of Food-11's photos
COUNTS = {"training": (36,) * 11, "validation": (8,) * 11, "evaluation": (4,) * 11}


def alternate(ways: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """The values by name: each way once per round, the order reversed every time. One round before is not counted."""
    values: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name in ways if number % 2 else reversed(ways):
            value = ways[name]()
            if number:
                values[name].append(value)
    return values


def ratios(above: list[float], below: list[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def wait_for(compute: Compute) -> None:
    """Until a GPU has finished what was launched on it; a CPU has."""
    if compute.device.type == "cuda":
        torch.cuda.synchronize(compute.device)


def seconds_of(work: Callable[[], object], compute: Compute, calls: int = 1) -> float:
    """Wall clock per call."""
    wait_for(compute)
    started = time.perf_counter()
    for _ in range(calls):
        work()
    wait_for(compute)
    return (time.perf_counter() - started) / calls


class Finished(NamedTuple):
    seconds: float  # wall clock, the start of Python included
    output: str


def run_python(*words: object) -> Finished:
    """`python WORDS` in the repository's root, outside of any NNI trial. Raises RuntimeError where it fails."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NNI_")}
    command, started = [sys.executable, *map(str, words)], time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - started
    if done.returncode:
        raise RuntimeError(f"the measured process {' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return Finished(seconds, done.stdout)


def sample_photos() -> Path:
    """Drawn photos of Food-11's size, made once: about a minute."""
    folder = ROOT / "data" / "bench_photos"
    write_sample(folder, seed=0, image_px=PHOTO_PX, counts=COUNTS)
    return folder


def cache_of(source: Path) -> Cache:
    """Its cache, made where there is none that fits."""
    folder = ROOT / "data" / "bench_cache"
    prepare(source, folder, Settings(image_px=256))
    return open_cache(folder)


def scratch() -> Path:
    """For folders that last as long as a measurement: on the disk that trials write to, not tracked."""
    folder = ROOT / "runs"
    folder.mkdir(exist_ok=True)
    return folder
