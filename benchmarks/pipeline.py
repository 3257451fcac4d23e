"""1. Pipeline efficiency: how much of an epoch the model itself takes.

    efficiency = (N / training rate + M / validation rate) / seconds of the epoch

The rates are the model's alone: forward, loss, backward, update (or forward and loss) on one resident batch, in images/s.
The epoch is the trial's own: N training images read, augmented, moved, trained on and counted, M validated at once.
A shared machine's speed changes by tenths within seconds: on a CPU each step of the epoch is therefore followed by one of
the model alone, timed apart. A GPU does not wait after each step, so that there whole rounds take turns. What a step does
beside its model is timed by itself too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Report, alternate, ratios, wait_for
from data.cache import Cache, Split
from trial.batches import evaluation_batch, place_images, plan_epoch, store_px, to_device, training_batch
from trial.device import Compute
from trial.evaluate import EVALUATION_BATCH, Counter, evaluate
from trial.hyperparameters import Hyperparameters
from trial.micro_batch import Buffers, MicroBatch
from trial.model import build_model
from trial.state import TrainState, start_training
from trial.train import train_epoch

SIZES = (64, 96, 224)
BATCHES = (8, 32, 128)
LEAST_STEPS = 4  # a round
GPU_STEPS, GPU_IMAGES = 400, 12_800  # at most, a round

Seconds = dict[str, float]  # of a round: "training" and "validation" of the model alone, the "epoch"


def run(report: Report, cache: Cache, compute: Compute, rounds: int) -> None:
    for image_px in SIZES:
        for batch_size in BATCHES:
            found = measure(cache, compute, image_px, batch_size, rounds)
            report.add(f"pipeline efficiency, {image_px} px, batch {batch_size}", found.efficiency, "", ">= 0.97")
            report.add(f"a step beside its model, {image_px} px, batch {batch_size}", found.beside, "%")
            report.add(f"the model alone, {image_px} px, batch {batch_size}", found.rate, "images/s")


class Measured(NamedTuple):
    """A value a round each."""

    efficiency: list[float]
    beside: list[float]  # the time of a step beside its model in per cent of the model's
    rate: list[float]  # of the model alone in training, images/s


@dataclass(frozen=True)
class Bench:
    """A training whose epochs are measured. Nothing is learned: a network that fits one batch would slow down in
    denormals."""

    t: TrainState
    train: Split
    val: Split
    labels: Tensor  # of train, on the device
    h: Hyperparameters
    compute: Compute

    @property
    def steps(self) -> int:
        return len(self.labels) // self.h.batch_size


def measure(cache: Cache, compute: Compute, image_px: int, batch_size: int, rounds: int) -> Measured:
    bench = prepare(cache, compute, image_px, batch_size, steps_a_round(image_px, batch_size, compute.device.type))
    way = whole_rounds if compute.device.type == "cuda" else step_by_step
    values = way(bench, rounds)
    alone = [a + b for a, b in zip(values["training"], values["validation"], strict=True)]
    beside = [100 * share for share in ratios(values["beside"], values["training"])]
    rate = [bench.steps * bench.h.batch_size / seconds for seconds in values["training"]]
    return Measured(ratios(alone, values["epoch"]), beside, rate)


def prepare(cache: Cache, compute: Compute, image_px: int, batch_size: int, steps: int) -> Bench:
    """steps: an epoch's."""
    h = Hyperparameters(batch_size=batch_size, image_px=image_px, lr=1e-8, weights="none")
    train = first(cache.split("training", store_px(image_px)), steps * batch_size, compute)
    val = first(cache.split("validation", store_px(image_px)), EVALUATION_BATCH[compute.device.type], compute)
    model = compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed))
    t = start_training(model, h, None, compute.precision)
    return Bench(t, train, val, torch.from_numpy(train.labels).to(compute.device), h, compute)


def step_by_step(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """Within each epoch, a step of the trial and a step of the model alone take turns. The first round is not counted."""
    values: dict[str, list[float]] = {name: [] for name in ("training", "validation", "epoch", "beside")}
    training, validation = (
        InTurns(*pair) for pair in zip((bench.t.train_micro_batch, bench.t.evaluation_micro_batch), alone(bench))
    )
    for number in range(rounds + 1):
        training.seconds = validation.seconds = 0.0
        started = time.perf_counter()
        run_epoch(bench, training, validation)
        wall = time.perf_counter() - started
        beside = timed(lambda: beside_model(bench), bench.compute)()
        if number:
            seconds = (training.seconds, validation.seconds, wall - training.seconds - validation.seconds, beside)
            for name, value in zip(values, seconds, strict=True):
                values[name].append(value)
    return values


class InTurns(MicroBatch):
    """The trial's own work, and after each piece of it another, whose seconds are added up."""

    def __init__(self, own: MicroBatch, other: Callable[[], None]) -> None:
        super().__init__(own.images, own.smallest)
        self.other, self.seconds = other, 0.0

    def run(self, work, undo):
        result = super().run(work, undo)
        started = time.perf_counter()
        self.other()
        self.seconds += time.perf_counter() - started
        return result


def whole_rounds(bench: Bench, rounds: int) -> dict[str, list[float]]:
    """As many steps of the model alone as an epoch has, and whole epochs, take turns."""
    training, validation = alone(bench)

    def steps() -> None:
        bench.t.model.train()
        for _ in range(bench.steps):
            training()

    def score() -> None:
        bench.t.model.eval()
        with torch.inference_mode():
            validation()

    ways = {
        "training": steps,
        "validation": score,
        "epoch": lambda: run_epoch(bench, bench.t.train_micro_batch, bench.t.evaluation_micro_batch),
        "beside": lambda: beside_model(bench),
    }
    return alternate({name: timed(work, bench.compute) for name, work in ways.items()}, rounds)


def run_epoch(bench: Bench, train_micro_batch: MicroBatch, evaluation_micro_batch: MicroBatch) -> None:
    """As `fit` does it."""
    bench.t.train_micro_batch = train_micro_batch
    train_epoch(bench.t, bench.train, bench.labels, bench.h, bench.compute)
    evaluate(bench.t.model, bench.val, bench.h.image_px, bench.compute, evaluation_micro_batch)


def alone(bench: Bench) -> tuple[Callable[[], None], Callable[[], None]]:
    """A training step, and the scoring of a batch, of the model alone on a resident batch of the epoch's size."""
    planned = next(plan_epoch(len(bench.labels), bench.h.batch_size, torch.Generator()))
    images, labels = training_batch(bench.train.images, bench.labels, planned, bench.h.image_px)
    val_labels = torch.from_numpy(bench.val.labels).to(bench.compute.device)
    at_once = slice(0, min(len(val_labels), bench.t.evaluation_micro_batch.images))
    val_images, val_labels = evaluation_batch(bench.val.images, val_labels, at_once, bench.h.image_px)

    def score() -> None:
        with bench.compute.autocast():
            logits = bench.t.model(val_images).float()
        F.cross_entropy(logits, val_labels)

    return lambda: bare_step(bench.t, images, labels, bench.compute), score


def bare_step(t: TrainState, images: Tensor, labels: Tensor, compute: Compute) -> None:
    """Forward, loss, backward, update: (B, 3, S, S) float32, (B,) int64, on the device."""
    with compute.autocast():
        loss = F.cross_entropy(t.model(images).float(), labels)
    t.optimizer.zero_grad()
    t.scaler.scale(loss).backward()
    t.scaler.step(t.optimizer)
    t.scaler.update()


def beside_model(bench: Bench) -> None:
    """All that the training steps of an epoch do but forward, loss, backward and update."""
    counter, buffers = Counter(int(bench.train.labels.max()) + 1, bench.labels.device), Buffers(bench.t.model)
    for planned in plan_epoch(len(bench.labels), bench.h.batch_size, bench.t.generator):
        buffers.keep()
        images, labels = training_batch(bench.train.images, bench.labels, planned, bench.h.image_px)
        counter.add(images[:, 0, 0], labels, images[0, 0, 0, 0])
    counter.score()


def timed(work: Callable[[], None], compute: Compute) -> Callable[[], float]:
    """Seconds that `work` takes."""

    def run_once() -> float:
        started = time.perf_counter()
        work()
        wait_for(compute)
        return time.perf_counter() - started

    return run_once


def steps_a_round(image_px: int, batch_size: int, kind: str) -> int:
    """Enough for two seconds and more on two cores, or on a GPU that takes 8 ms to launch a step; several in any case:
    one disturbed step would be a round's figure."""
    if kind == "cuda":
        return max(LEAST_STEPS, min(GPU_STEPS, GPU_IMAGES // batch_size))
    return max(LEAST_STEPS, round(64 * (224 / image_px) ** 1.4) // batch_size)


def first(split: Split, n: int, compute: Compute) -> Split:
    """n of its images, mapped from the cache; where it has fewer, all of them over and over, in memory."""
    if n <= len(split.labels):
        return resident(Split(split.images[:n], split.labels[:n]), compute)
    rows = np.arange(n) % len(split.labels)
    return resident(Split(split.images[rows], split.labels[rows]), compute)


def resident(split: Split, compute: Compute) -> Split:
    """On a GPU with its images in its memory where they take at most half of what is free."""
    placed = to_device(split, compute.device)
    if placed is not split:
        place_images([placed.images], torch.cuda.mem_get_info()[0] // 2)
    return placed
