"""2. Against the report's way of training: seconds an epoch, and the accuracy reached, on the same photos.

Both ways train the same network from the same first weights for the same epochs, and validate after each. Their batches
and augmentation differ (a crop of random size here, the whole square there), so accuracies agree within noise, not bits.
"""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import torch

from analysis.stats.paired import paired
from benchmarks.measure import Report, ratios
from benchmarks.plain import PlainEpoch, train_plainly
from benchmarks.setting import scratch
from data.cache import Cache
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.run import Settings, run_trial

EPOCHS = {96: 12, 224: 2}  # side: epochs; at the smallest beyond the learning rate's fall: accuracies hardly move there
GOALS = {"cpu": {96: ">= 2", 224: ">= 2.5"}, "cuda": {96: ">= 15", 224: ">= 15"}}
GOAL_WITHOUT_BF16 = ">= 1"  # on a CPU


def run(report: Report, photos: Path, cache: Cache, compute: Compute, rounds: int, weights: str = "none") -> None:
    """rounds: seeds; at least 3. weights: both ways' first, as the trial's. The first epoch of each training is not
    timed: it warms up."""
    seeds = range(max(3, rounds // 2 + 1))
    for image_px, epochs in EPOCHS.items():
        h = Hyperparameters(lr=0.01, epochs=epochs, patience=0, image_px=image_px, weights=weights)
        workers = faster_workers(report, photos, cache, compute, replace(h, epochs=2))
        plain, ours = zip(*(one_seed(photos, cache, compute, replace(h, seed=seed), workers) for seed in seeds))
        seconds = [[statistics.mean(epoch for epoch in way[0][1:]) for way in side] for side in (plain, ours)]
        is_slow = compute.device.type == "cpu" and not compute.autocast_dtype
        goal = GOAL_WITHOUT_BF16 if is_slow else GOALS[compute.device.type][image_px]
        report.add(f"plain epoch / ours, {image_px} px, batch {h.batch_size}", ratios(*seconds), "times", goal)
        report.add(f"plain epoch, {image_px} px", seconds[0], "s", note=f"{workers} workers")
        report.add(f"our epoch, {image_px} px", seconds[1], "s")
        if image_px == min(EPOCHS):
            tell_accuracies(report, [100 * way[1] for way in plain], [100 * way[1] for way in ours], epochs)


def tell_accuracies(report: Report, plain: list[float], ours: list[float], epochs: int) -> None:
    """Of both ways, the best epoch's on the validation split in per cent, a value a seed; and the paired difference."""
    report.add("accuracy of the plain way", plain, "%", note=f"{epochs} epochs")
    report.add("accuracy of ours", ours, "%", note=f"{epochs} epochs")
    differences = [b - a for a, b in zip(plain, ours, strict=True)]
    report.add("accuracy, ours - plain", differences, "points", note=interval_note(differences))


def one_seed(photos: Path, cache: Cache, compute: Compute, h: Hyperparameters, workers: int) -> tuple:
    """(seconds of each epoch, best validation accuracy) of the plain way and of ours; who begins alternates."""

    def plainly() -> tuple[list[float], float]:
        epochs = plain_epochs(photos, cache, compute, h, workers)
        return [epoch.seconds for epoch in epochs], max(epoch.val_accuracy for epoch in epochs)

    if h.seed % 2:
        ours, plain = our_training(cache, compute, h), plainly()
        return plain, ours
    return plainly(), our_training(cache, compute, h)


def our_training(cache: Cache, compute: Compute, h: Hyperparameters) -> tuple[list[float], float]:
    """(seconds of each epoch, best validation accuracy) of a whole trial, its checkpoints and files among them."""
    marks = [time.perf_counter()]
    with tempfile.TemporaryDirectory(dir=scratch()) as folder, contextlib.redirect_stdout(io.StringIO()):
        settings = Settings(Path(folder), str(compute.device), compute.precision, 0)
        final = run_trial(h, cache, settings, lambda _: marks.append(time.perf_counter()))
    return [b - a for a, b in zip(marks, marks[1:])], final["default"]


def faster_workers(report: Report, photos: Path, cache: Cache, compute: Compute, h: Hyperparameters) -> int:
    """How many processes load the plain way's photos: none, or one a core and at most 8, whichever is faster here in the
    last of h.epochs epochs."""
    seconds = {
        workers: plain_epochs(photos, cache, compute, h, workers)[-1].seconds
        for workers in (0, min(8, len(os.sched_getaffinity(0))))
    }
    for workers, value in seconds.items():
        report.add(f"plain epoch with {workers} workers, {h.image_px} px", [value], "s", note="the faster one is taken")
    return min(seconds, key=seconds.get)


def plain_epochs(photos: Path, cache: Cache, compute: Compute, h: Hyperparameters, workers: int) -> list[PlainEpoch]:
    """In a process of its own: this one's memory allocator is set up as a trial's."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(plain_training, photos, len(cache.classes), h, compute.device, workers).result()


def plain_training(
    photos: Path, classes: int, h: Hyperparameters, device: torch.device, workers: int
) -> list[PlainEpoch]:
    return train_plainly(build_model(h.arch, h.weights, classes, h.seed).to(device), photos, h, device, workers)


def interval_note(differences: list[float]) -> str:
    """The 95 % t interval of the paired mean difference, in points."""
    found = paired(differences)
    if found.low is None:
        return f"mean {found.mean:+.1f}, no spread: no interval"
    return f"mean {found.mean:+.1f}, 95 % interval {found.low:+.1f} to {found.high:+.1f}"
