"""1. Pipeline efficiency: how much of an epoch the model itself takes.

    efficiency = (N / training rate + M / validation rate) / seconds of the epoch

The rates are the model's alone: forward, loss, backward, update (or forward and loss) on one resident batch, in images/s.
The epoch is the trial's own: N training images read, augmented, moved, trained on and counted, M validated at once.
Of two long times that differ by a hundredth, a shared machine shows the noise; what a step does beside the model is
therefore timed by itself too.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from benchmarks.measure import Report, alternate, ratios
from data.cache import Cache, Split
from trial.batches import evaluation_batch, place_split, plan_epoch, store_px, training_batch
from trial.device import Compute
from trial.fit import Training, start_training, train_epoch
from trial.hyperparameters import Hyperparameters
from trial.metrics import Counter
from trial.micro_batch import Buffers
from trial.model import build_model
from trial.scoring import EVALUATED_AT_ONCE, evaluate

SIZES = (64, 96, 224)
BATCHES = (8, 32, 128)
GPU_TIMES = 100  # as many images a round, for it to take seconds there too


def run(report: Report, cache: Cache, compute: Compute, rounds: int) -> None:
    for image_px in SIZES:
        for batch_size in BATCHES:
            efficiency, beside = measure(cache, compute, image_px, batch_size, rounds)
            report.add(f"pipeline efficiency, {image_px} px, batch {batch_size}", efficiency, "", ">= 0.97")
            report.add(f"a step beside its model, {image_px} px, batch {batch_size}", beside, "%")


def measure(
    cache: Cache, compute: Compute, image_px: int, batch_size: int, rounds: int
) -> tuple[list[float], list[float]]:
    """Efficiency, and the time of a step beside its model in per cent of the model's: a value a round each.

    Nothing is learned: a network that fits one batch would slow down in denormals.
    """
    h = Hyperparameters(batch_size=batch_size, image_px=image_px, lr=1e-8, weights="none")
    wanted = images_a_round(image_px, batch_size) * (GPU_TIMES if compute.device.type == "cuda" else 1)
    train = first(cache.split("training", store_px(image_px)), wanted, compute)
    val = first(cache.split("validation", store_px(image_px)), EVALUATED_AT_ONCE[compute.device.type], compute)
    t = start_training(compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed)), h)
    labels = torch.from_numpy(train.labels).to(compute.device)

    def epoch() -> float:
        train_epoch(t, train, labels, h, compute)
        evaluate(t.model, val, h.image_px, compute)
        return 1.0

    ways = {**model_alone(t, (train, val), h, compute), "epoch": timed(epoch, compute)}
    values = alternate({**ways, "beside": timed(partial(beside_model, t, train, labels, h), compute)}, rounds)
    alone = [a + b for a, b in zip(values["training"], values["validation"], strict=True)]
    return ratios(alone, values["epoch"]), [100 * share for share in ratios(values["beside"], values["training"])]


def beside_model(t: Training, train: Split, labels: Tensor, h: Hyperparameters) -> float:
    """All that the training steps of an epoch do but forward, loss, backward and update."""
    counter, buffers = Counter(int(train.labels.max()) + 1, labels.device), Buffers(t.model)
    for planned in plan_epoch(len(train.labels), h.batch_size, t.generator):
        buffers.keep()
        images, batch_labels = training_batch(train.images, labels, planned, h.image_px)
        counter.add(images[:, 0, 0], batch_labels, images[0, 0, 0, 0])
    counter.score()
    return 1.0


def model_alone(
    t: Training, splits: tuple[Split, Split], h: Hyperparameters, compute: Compute
) -> dict[str, Callable[[], float]]:
    """Seconds that the training steps and the validation of an epoch take on one resident batch each."""
    train, val = splits
    train_labels, val_labels = (torch.from_numpy(split.labels).to(compute.device) for split in splits)
    planned = next(plan_epoch(len(train.labels), h.batch_size, torch.Generator()))
    images, labels = training_batch(train.images, train_labels, planned, h.image_px)
    val_images, _ = evaluation_batch(val.images, val_labels, slice(0, len(val_labels)), h.image_px)

    def training() -> float:
        t.model.train()
        steps = max(1, round(len(train.labels) / len(labels)))
        for _ in range(steps):
            bare_step(t, images, labels, compute)
        return len(train.labels) / (steps * len(labels))

    @torch.inference_mode()
    def validation() -> float:
        t.model.eval()
        with compute.autocast():
            logits = t.model(val_images).float()
        F.cross_entropy(logits, val_labels)
        return 1.0

    return {"training": timed(training, compute), "validation": timed(validation, compute)}


def bare_step(t: Training, images: Tensor, labels: Tensor, compute: Compute) -> None:
    """Forward, loss, backward, update: (B, 3, S, S) float32, (B,) int64, on the device."""
    with compute.autocast():
        loss = F.cross_entropy(t.model(images).float(), labels)
    t.optimizer.zero_grad()
    loss.backward()
    t.optimizer.step()


def timed(work: Callable[[], float], compute: Compute) -> Callable[[], float]:
    """Seconds that `work` takes, times the factor that it returns: rounds of whole batches are scaled to the epoch."""

    def run_once() -> float:
        started = time.perf_counter()
        factor = work()
        if compute.device.type == "cuda":
            torch.cuda.synchronize(compute.device)
        return (time.perf_counter() - started) * factor

    return run_once


def images_a_round(image_px: int, batch_size: int) -> int:
    """Enough for about two seconds on two cores, and whole batches of them."""
    wanted = round(64 * (224 / image_px) ** 1.4)
    return max(batch_size, wanted // batch_size * batch_size)


def first(split: Split, n: int, compute: Compute) -> Split:
    """n of its images, mapped from the cache; where it has fewer, all of them over and over, in memory."""
    if n <= len(split.labels):
        return place_split(Split(split.images[:n], split.labels[:n]), compute.device)
    rows = np.arange(n) % len(split.labels)
    return place_split(Split(split.images[rows], split.labels[rows]), compute.device)
