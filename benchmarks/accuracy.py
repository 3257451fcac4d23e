"""Does speed cost accuracy? The same seeds, weights, batches and crops, trained the fast way and the slow one.

The fast way is the trial's: the precision that it chooses here, channels last, one fused update. The slow one is float32,
contiguous, with torch's SGD a weight at a time. Both go through the trial's own `fit`.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from benchmarks.against_plain import interval_note
from benchmarks.measure import Report
from benchmarks.pipeline import resident
from data.cache import Cache
from trial.batches import store_px
from trial.device import Compute
from trial.hyperparameters import Hyperparameters
from trial.model import build_model
from trial.state import TrainState, start_training
from trial.train import fit

SEEDS = 5
IMAGE_PX, EPOCHS = 64, 12  # the learning rate falls after 7: the accuracies of the last epochs hardly move


def run(report: Report, cache: Cache, compute: Compute) -> None:
    """The best validation accuracy of each seed's training, the paired differences with their interval."""
    h = Hyperparameters(lr=0.01, epochs=EPOCHS, patience=0, image_px=IMAGE_PX, weights="none")
    pairs = [both_ways(cache, compute, replace(h, seed=seed)) for seed in range(SEEDS)]
    n = len(cache.split("validation", store_px(IMAGE_PX)).labels)
    note = f"{n} validation images, {EPOCHS} epochs"
    differences = [fast - slow for fast, slow in pairs]
    report.add(f"accuracy of the fast way, {IMAGE_PX} px", [fast for fast, _ in pairs], "%", note=compute.name)
    report.add(f"accuracy of the slow way, {IMAGE_PX} px", [slow for _, slow in pairs], "%", note="fp32, contiguous")
    report.add("accuracy, fast - slow way", differences, "points", note=f"{interval_note(differences)}; {note}")


def both_ways(cache: Cache, compute: Compute, h: Hyperparameters) -> tuple[float, float]:
    """Best validation accuracies of one seed in per cent: the fast way's, the slow one's."""
    model = build_model(h.arch, h.weights, len(cache.classes), h.seed)
    fast = best_accuracy(start_training(compute.place(model), h, None, compute.precision), cache, h, compute)
    exact = replace(compute, precision="fp32")
    return fast, best_accuracy(start_slowly(cache, exact, h), cache, h, exact)


def start_slowly(cache: Cache, compute: Compute, h: Hyperparameters) -> TrainState:
    """A training whose network is contiguous, as are the images it gets, and whose update is torch's plainest."""
    model = build_model(h.arch, h.weights, len(cache.classes), h.seed).to(compute.device)
    model.register_forward_pre_hook(lambda _, images: (images[0].contiguous(),))
    t = start_training(model, h)
    t.optimizer = torch.optim.SGD(
        model.parameters(), h.lr, h.momentum, weight_decay=h.weight_decay, foreach=False, fused=False
    )
    t.schedule = torch.optim.lr_scheduler.StepLR(t.optimizer, h.step_size, h.gamma)
    return t


def best_accuracy(t: TrainState, cache: Cache, h: Hyperparameters, compute: Compute) -> float:
    """Of its epochs on the validation split, in per cent."""
    splits = (cache.split(name, store_px(h.image_px)) for name in ("training", "validation"))
    train, val = (resident(split, compute) for split in splits)
    fitted = fit(t, train, val, h, compute, lambda _: None)
    return 100 * max(epoch.val_accuracy for epoch in fitted.history)
