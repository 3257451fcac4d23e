"""Learning curves over the seeds of an arm, and whether a stopped training is the beginning of the full one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from ..reading.records import Trial
from .arms import Arm, curve, measured


def band(arm: Arm, key: str = "default") -> dict[str, Any]:
    """Mean, lowest and highest over the seeds after each epoch, as far as all of them were trained."""
    curves = [values for training in arm.good if (values := curve(training.trial, key))]
    epochs = min(map(len, curves), default=0)
    columns = [[values[epoch] for values in curves] for epoch in range(epochs)]
    return {
        "arm": arm.name,
        "metric": key,
        "n": len(curves),
        "epoch": list(range(1, epochs + 1)),
        "mean": [statistics.fmean(column) for column in columns],
        "low": [min(column) for column in columns],
        "high": [max(column) for column in columns],
    }


def prefixes(full: Arm, stopped: Sequence[Arm]) -> list[dict[str, Any]]:
    """For each stopped arm, whether its trainings equal the first epochs of the full ones of the same seed.

    Compared are all metrics of every epoch that both have. On a CPU they should be equal to the last bit;
    `largest_difference` is of validation accuracy. `saved_epochs` is {seed: epochs that stopping cut off}; in `same_weights` of
    the `pairs` both are equal so far and kept the weights of the same epoch."""
    found = []
    for arm in stopped:
        others = {training.seed: training.trial for training in full.good}
        own = {training.seed: training.trial for training in arm.good if training.seed in others}
        pairs = [(trial, others[seed]) for seed, trial in own.items()]
        equal = [_is_prefix(trial.intermediates, other.intermediates) for trial, other in pairs]
        apart = [abs(a - b) for trial, other in pairs for a, b in zip(curve(trial), curve(other))]
        found.append(
            {
                "arm": arm.name,
                "pairs": len(pairs),
                "equal": sum(equal),
                "largest_difference": max(apart, default=None),
                "saved_epochs": {
                    str(seed): len(others[seed].intermediates) - len(trial.intermediates) for seed, trial in own.items()
                },
                "same_weights": sum(alike and _kept(*pair) for alike, pair in zip(equal, pairs)),
            }
        )
    return found


def _kept(own: Trial, other: Trial) -> bool:
    """Whether both say that they kept the weights of the same epoch."""
    epoch = measured(own, "best_epoch")
    return epoch is not None and epoch == measured(other, "best_epoch")


def _is_prefix(own: Sequence[Any], other: Sequence[Any]) -> bool:
    if not own or len(own) > len(other):
        return False
    return all(a.value == b.value for a, b in zip(own, other))
