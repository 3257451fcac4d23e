"""A made-up surface: one optimum in lr / (batch size x (1 - momentum)), known exactly, with noise between seeds."""

from __future__ import annotations

import math

import numpy as np

from benchmarks.surface import FORMAT, Surface, Training, plan

AXES = {"batch_size": [8, 32, 128], "momentum": [0.1, 0.9], "lr": [0.0001, 0.001, 0.01, 0.1]}
LAB = {
    "batch_size": [8, 16, 32, 64, 128],
    "momentum": [0.1, 0.3, 0.5, 0.7, 0.9],
    "lr": [float(f"{10 ** (-4 + i / 4):.6g}") for i in range(13)],
}
EPOCHS, VALIDATION, EVALUATION = 6, 1000, 500


def made_accuracy(point: dict[str, float]) -> float:
    step = math.log10(point["lr"] / point["batch_size"] / (1 - point["momentum"]))
    return 0.3 + 0.6 * math.exp(-(((step + 2.6) / 0.8) ** 2) / 2)


def made_surface(axes: dict[str, list[float]] = AXES, noise: float = 0.01, trainings: int | None = None) -> Surface:
    """trainings: the first so many of the plan."""
    rng = np.random.default_rng(0)
    about = {
        "format": FORMAT,
        "name": "made",
        "axes": axes,
        "hyperparameters": {"epochs": EPOCHS},
        "images": {"training": 1000, "validation": VALIDATION, "evaluation": EVALUATION},
        "cache": {"photos": "0" * 64, "image_px": 32, "generated": None},
        "weights": None,
        "versions": {"torch": "0"},
        "machine": {"processor": "made up", "cores": 1},
        "precision": "fp32",
    }
    return Surface(about, [], [_training(point, seed, noise, rng) for point, seed in plan(axes)[:trainings]])


def _training(point: dict[str, float], seed: int, noise: float, rng: np.random.Generator) -> Training:
    final = min(max(made_accuracy(point) + rng.normal(0, noise), 0), 1) if noise else made_accuracy(point)
    correct = [int(VALIDATION * final * (1 - 0.5 * 0.5**epoch)) for epoch in range(EPOCHS)]
    seconds = [1 + 8 / point["batch_size"]] * EPOCHS
    other_s = {"start": [0.5, 0.25], "unfinished": [0.0, 0.0], "evaluation": [0.2, 0.125]}
    kept = round(EVALUATION * max(final - 0.02, 0))
    return Training(
        point, seed, correct, [2 * s for s in seconds], seconds, EPOCHS, "epochs", correct[-1], kept, other_s
    )
