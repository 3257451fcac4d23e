"""Does speed cost accuracy? The same seeds, weights, batches and crops, in the precision that was chosen and in float32."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.against_plain import interval_note, our_training
from benchmarks.measure import Report
from data.cache import Cache
from trial.batches import store_px
from trial.device import Compute
from trial.hyperparameters import Hyperparameters

SEEDS = 5
IMAGE_PX = 64


def run(report: Report, cache: Cache, compute: Compute) -> None:
    """The best validation accuracy of each seed's training, the paired differences with their interval."""
    if compute.autocast_dtype is None:
        print("accuracy: float32 was chosen here, there is no faster precision to compare it with")
        return
    exact = replace(compute, autocast_dtype=None)
    h = Hyperparameters(lr=0.01, epochs=6, patience=0, image_px=IMAGE_PX, weights="none")
    differences = []
    for seed in range(SEEDS):
        fast, slow = (our_training(cache, way, replace(h, seed=seed))[1] for way in (compute, exact))
        differences.append(100 * (fast - slow))
    n = len(cache.split("validation", store_px(IMAGE_PX)).labels)
    note = f"{interval_note(differences)}; {n} validation images, {h.epochs} epochs"
    report.add(f"accuracy, chosen precision - float32, {IMAGE_PX} px", differences, "points", note=note)
