"""Whole trainings: the trial's against a plainly written one, and what its speed costs in accuracy.

The plain way is the report's, and most tutorials': ImageFolder over JPEG files, a DataLoader with workers, Resize /
RandomHorizontalFlip / ToTensor / Normalize, float32, contiguous tensors, the accuracy read from the device at every
batch, the best weights deep-copied in memory. Both train the same network from the same first weights for the same
epochs, and validate after each. Their batches and augmentation differ (a crop of random size here, the whole square
there), so accuracies agree within noise, not bits.
"""

from __future__ import annotations

import contextlib
import copy
import io
import math
import multiprocessing
import os
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

from analysis.stats.paired import paired
from benchmarks.epoch import resident
from benchmarks.measure import ratios, scratch
from benchmarks.table import Report
from data.cache import Cache
from trial.batches import MEAN, STD, store_px
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.run import Settings, run_trial
from trial.state import TrainState, start_training
from trial.train import fit

EPOCHS = {96: 12, 224: 2}  # side: epochs; at the smallest beyond the learning rate's fall: accuracies hardly move there
GOALS = {"cpu": {96: ">= 2", 224: ">= 2.5"}, "cuda": {96: ">= 15", 224: ">= 15"}}
GOAL_WITHOUT_BF16 = ">= 1"  # on a CPU
WORKERS = (0, min(8, len(os.sched_getaffinity(0))))  # processes that load the plain way's photos

ACCURACY_SEEDS = 5
ACCURACY_PX, ACCURACY_EPOCHS = 64, 12  # the learning rate falls after 7


class Trained(NamedTuple):
    """One training, each epoch validated."""

    seconds: list[float]  # of each epoch; the first warms up
    val_accuracy: float  # of its best epoch


@dataclass(frozen=True)
class Setup:
    """What both ways train on."""

    photos: Path
    cache: Cache
    compute: Compute

    def plain(self, h: Hyperparameters, workers: int) -> Trained:
        """In a process of its own: this one's memory allocator is set up as a trial's."""
        arguments = (self.photos, len(self.cache.classes), h, self.compute.device, workers)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            return pool.submit(_plain_network, *arguments).result()

    def ours(self, h: Hyperparameters) -> Trained:
        """A whole trial, its checkpoints and files among what is timed."""
        marks = [time.perf_counter()]
        with tempfile.TemporaryDirectory(dir=scratch()) as folder, contextlib.redirect_stdout(io.StringIO()):
            settings = Settings(Path(folder), str(self.compute.device), self.compute.precision, 0)
            final = run_trial(h, self.cache, settings, lambda _: marks.append(time.perf_counter()))
        return Trained([b - a for a, b in zip(marks, marks[1:])], final["default"])

    def both(self, h: Hyperparameters, workers: int) -> tuple[Trained, Trained]:
        """(plain, ours); which begins alternates with the seed."""
        if h.seed % 2:
            ours = self.ours(h)
            return self.plain(h, workers), ours
        return self.plain(h, workers), self.ours(h)


def against_plain(
    report: Report, photos: Path, cache: Cache, compute: Compute, rounds: int, weights: str = "none"
) -> None:
    """rounds: seeds; at least 3. weights: both ways' first, as the trial's."""
    setup, seeds = Setup(photos, cache, compute), range(max(3, rounds // 2 + 1))
    for image_px, epochs in EPOCHS.items():
        h = Hyperparameters(lr=0.01, epochs=epochs, patience=0, image_px=image_px, weights=weights)
        workers = _faster_workers(report, setup, replace(h, epochs=2))
        plain, ours = zip(*(setup.both(replace(h, seed=seed), workers) for seed in seeds))
        seconds = [[statistics.mean(training.seconds[1:]) for training in way] for way in (plain, ours)]
        is_slow = compute.device.type == "cpu" and not compute.autocast_dtype
        goal = GOAL_WITHOUT_BF16 if is_slow else GOALS[compute.device.type][image_px]
        report.add(f"plain epoch / ours, {image_px} px, batch {h.batch_size}", ratios(*seconds), "times", goal)
        report.add(f"plain epoch, {image_px} px", seconds[0], "s", note=f"{workers} workers")
        report.add(f"our epoch, {image_px} px", seconds[1], "s")
        if image_px == min(EPOCHS):
            plain_values, our_values = ([100 * training.val_accuracy for training in way] for way in (plain, ours))
            report.add("accuracy of the plain way", plain_values, "%", note=f"{epochs} epochs")
            report.add("accuracy of ours", our_values, "%", note=f"{epochs} epochs")
            _add_difference(report, "accuracy, ours - plain", our_values, plain_values)


def _add_difference(report: Report, name: str, values: list[float], base: list[float], note: str = "") -> None:
    """The paired differences in points, a value per seed, with the 95 % t interval of their mean."""
    differences = [a - b for a, b in zip(values, base, strict=True)]
    mean = paired(differences)
    interval = (
        f"95 % interval {mean.low:+.1f} to {mean.high:+.1f}" if mean.low is not None else "no spread: no interval"
    )
    report.add(name, differences, "points", note=f"mean {mean.mean:+.1f}, {interval}{note}")


def _faster_workers(report: Report, setup: Setup, h: Hyperparameters) -> int:
    """The one of WORKERS that is faster here in the last of h.epochs epochs."""
    seconds = {workers: setup.plain(h, workers).seconds[-1] for workers in WORKERS}
    for workers, value in seconds.items():
        report.add(f"plain epoch with {workers} workers, {h.image_px} px", [value], "s", note="the faster one is taken")
    return min(seconds, key=seconds.get)


def _plain_network(photos: Path, classes: int, h: Hyperparameters, device: torch.device, workers: int) -> Trained:
    return train_plainly(build_model(h.arch, h.weights, classes, h.seed).to(device), photos, h, device, workers)


def train_plainly(model: nn.Module, photos: Path, h: Hyperparameters, device: torch.device, workers: int) -> Trained:
    """h.epochs epochs of SGD with StepLR; `model` ends with the weights of the best epoch."""
    torch.manual_seed(h.seed)
    train, val = _loaders(photos, h, workers)
    optimizer = torch.optim.SGD(model.parameters(), h.lr, h.momentum)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, h.step_size, h.gamma)
    best, best_weights, seconds = -math.inf, copy.deepcopy(model.state_dict()), []
    for _ in range(h.epochs):
        started = time.perf_counter()
        model.train()
        _one_pass(model, train, device, optimizer)
        schedule.step()
        model.eval()
        with torch.no_grad():
            accuracy = _one_pass(model, val, device)
        if accuracy > best:
            best, best_weights = accuracy, copy.deepcopy(model.state_dict())
        seconds.append(time.perf_counter() - started)
    model.load_state_dict(best_weights)
    return Trained(seconds, best)


def _loaders(photos: Path, h: Hyperparameters, workers: int) -> tuple[DataLoader, DataLoader]:
    """Training (the skewed split where there is one, as `data prepare` takes it) and validation."""
    training = "skewed_training" if (photos / "skewed_training").is_dir() else "training"
    resize, flip = transforms.Resize((h.image_px, h.image_px)), transforms.RandomHorizontalFlip()
    to_input = [transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    ways = {training: [resize, flip, *to_input], "validation": [resize, *to_input]}
    loading = {"num_workers": workers, "persistent_workers": workers > 0}
    train, val = (datasets.ImageFolder(str(photos / name), transforms.Compose(way)) for name, way in ways.items())
    return DataLoader(train, h.batch_size, shuffle=True, **loading), DataLoader(val, h.batch_size, **loading)


def _one_pass(model: nn.Module, loader: DataLoader, device: torch.device, optimizer=None) -> float:
    """One epoch; with an optimizer it trains. Returns the accuracy."""
    right = total = 0
    for images, labels in loader:
        images, labels = images.to(device), labels.to(device)
        logits = model(images)
        loss = F.cross_entropy(logits, labels)
        if optimizer:
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        right += (logits.argmax(1) == labels).sum().item()
        total += len(labels)
    return right / total


def accuracy(report: Report, cache: Cache, compute: Compute) -> None:
    """Best validation accuracies of the same seeds, weights, batches and crops, trained the fast way and the slow one.

    The fast way is the trial's: the precision that it chooses here, channels last, one fused update. The slow one is
    float32, contiguous, with torch's SGD one weight at a time. Both go through the trial's own `fit`."""
    h = Hyperparameters(lr=0.01, epochs=ACCURACY_EPOCHS, patience=0, image_px=ACCURACY_PX, weights="none")
    exact = replace(compute, precision="fp32")
    fast, slow = [], []
    for seed in range(ACCURACY_SEEDS):
        seeded = replace(h, seed=seed)
        fast.append(best_accuracy(start_fast(cache, compute, seeded), cache, seeded, compute))
        slow.append(best_accuracy(start_slowly(cache, exact, seeded), cache, seeded, exact))
    n = len(cache.split("validation", store_px(ACCURACY_PX)).labels)
    report.add(f"accuracy of the fast way, {ACCURACY_PX} px", fast, "%", note=compute.name)
    report.add(f"accuracy of the slow way, {ACCURACY_PX} px", slow, "%", note="fp32, contiguous")
    note = f"; {n} validation images, {ACCURACY_EPOCHS} epochs"
    _add_difference(report, "accuracy, fast - slow way", fast, slow, note)


def start_fast(cache: Cache, compute: Compute, h: Hyperparameters) -> TrainState:
    model = build_model(h.arch, h.weights, len(cache.classes), h.seed)
    return start_training(compute.place(model), h, None, compute.precision)


def start_slowly(cache: Cache, compute: Compute, h: Hyperparameters) -> TrainState:
    """A training whose network is contiguous, as are the images it gets, and whose update is torch's plainest."""
    model = build_model(h.arch, h.weights, len(cache.classes), h.seed).to(compute.device)
    model.register_forward_pre_hook(lambda _, images: (images[0].contiguous(),))
    state = start_training(model, h)
    options = {"weight_decay": h.weight_decay, "foreach": False, "fused": False}
    state.optimizer = torch.optim.SGD(model.parameters(), h.lr, h.momentum, **options)
    state.schedule = torch.optim.lr_scheduler.StepLR(state.optimizer, h.step_size, h.gamma)
    return state


def best_accuracy(state: TrainState, cache: Cache, h: Hyperparameters, compute: Compute) -> float:
    """Of its epochs on the validation split, in per cent."""
    splits = (cache.split(name, store_px(h.image_px)) for name in ("training", "validation"))
    train, val = (resident(split, compute) for split in splits)
    result = fit(state, train, val, h, compute, lambda _: None)
    return 100 * max(epoch.val_accuracy for epoch in result.history)
