"""The answers of a surface: what a trial at any point of a search space would report, its noise and its seconds.

A trial's answer is one recorded training of a cell next to its point, moved as a whole by a constant: so that its expected
result is the truth, and that the spread between seeds is the recorded one. Truth, from which regret counts, is the cells' means,
smoothed over the grid and interpolated between learning rates on the log scale.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from scipy.interpolate import RBFInterpolator

from benchmarks.surface import Surface, SurfaceError, Training

START_UP_S = 3.6  # from a trial's process start to its first step: docs/performance.md, median of 3 on a quiet machine
LOG_AXIS = "lr"  # interpolated; of the other axes a search may take measured values only
HALVES = {"all": (0, 1), "first": (0, 2), "second": (1, 2)}  # (first seed, step)
_FAR = 1e-9
_LENDERS = 4  # cells
_FEWEST = 20  # cells
_KERNEL = "cubic"  # of scipy's, the one that predicts left-out cells best on a made-up surface
_SMOOTHINGS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0)


@dataclass(frozen=True)
class Answer:
    """What a trial at a point would report. Accuracies are fractions."""

    curve: list[float]  # validation accuracy after each epoch
    final: float  # validation accuracy of the weights kept
    truth: float  # its expectation at this point
    evaluation: float  # expected evaluation accuracy at this point
    epoch_s: float
    before_s: float  # process start and model
    after_s: float  # an epoch that diverged, and the evaluation
    stopped_by: str


@dataclass
class _Cell:
    """Mean accuracies of a cell; the trainings that stand for it, each with what moves its result there."""

    validation: float
    evaluation: float
    trainings: list[tuple[Training, float]]


class Answers:
    """The response of a surface to any point of a search space, with the noise of its seeds.

    half: "first" is seeds 0, 2 and 4, "second" 1 and 3. Raises SurfaceError where too little has been measured.
    """

    def __init__(self, surface: Surface, half: str = "all", start_up_s: float = START_UP_S) -> None:
        self.surface, self._start_up_s = surface, start_up_s
        axes = surface.about["axes"]
        if len(axes.get(LOG_AXIS, ())) < 2:
            raise SurfaceError(
                f"surface {surface.name}: measured at a single {LOG_AXIS}; a replay interpolates between several"
            )
        self._others = [name for name in axes if name != LOG_AXIS]
        self._rates = [math.log(rate) for rate in axes[LOG_AXIS]]
        first, step = HALVES[half]
        self.trainings = [t for t in surface.trainings if t.seed % step == first % step]
        self._n = surface.about["images"]
        by_cell: dict[tuple, list[Training]] = defaultdict(list)
        for training in self.trainings:
            by_cell[self._key(training.point)].append(training)
        if len(by_cell) < _FEWEST or sum(len(group) > 1 for group in by_cell.values()) < 2:
            raise SurfaceError(
                f"surface {surface.name}, {half} seeds: {surface.completeness}: too few to replay; a simulation needs "
                f"{_FEWEST} cells all over the grid, 2 of them with 2 seeds: continue python -m benchmarks surface build"
            )
        self.filled = len(self._keys) - len(by_cell)  # cells without a training, whose means are interpolated
        self._cells = self._all_cells(by_cell)
        self._seconds = self._seconds_by_cost()
        self.best = max(cell.validation for cell in self._cells.values())
        self.best_evaluation = max(cell.evaluation for cell in self._cells.values())

    @cached_property
    def _keys(self) -> list[tuple]:
        return list(dict.fromkeys(self._key(point) for point, _ in self.surface.planned))

    def _key(self, point: dict[str, float]) -> tuple:
        rate = min(range(len(self._rates)), key=lambda i: abs(self._rates[i] - math.log(point[LOG_AXIS])))
        return (*(point[name] for name in self._others), rate)

    def _accuracy(self, training: Training) -> float:
        return training.kept_correct / self._n["validation"]

    def _residuals(self, trainings: list[Training]) -> list[float]:
        """Deviations from the cell's mean, as wide as the spread between seeds is; none of a single seed."""
        n, accuracies = len(trainings), [self._accuracy(training) for training in trainings]
        return [(a - sum(accuracies) / n) * math.sqrt(n / (n - 1)) for a in accuracies] if n > 1 else []

    def _all_cells(self, by_cell: dict[tuple, list[Training]]) -> dict[tuple, _Cell]:
        """A cell of one seed borrows the deviations of the nearest cells that have several; one of none, the nearest cell's
        trainings too."""
        places = {key: self._place(key) for key in self._keys}
        means = self._means(by_cell, places)
        residuals = {key: self._residuals(trainings) for key, trainings in by_cell.items()}
        spread = [key for key, values in residuals.items() if values]

        def near(keys: list[tuple], key: tuple) -> list[tuple]:
            return sorted(keys, key=lambda other: math.dist(places[other], places[key]))

        cells = {}
        for key in self._keys:
            if own := residuals.get(key):
                moves = list(zip(by_cell[key], own))
            else:
                borrowed = [r for other in near(spread, key)[:_LENDERS] for r in residuals[other]]
                trainings = by_cell.get(key) or by_cell[near(list(by_cell), key)[0]]
                moves = [(training, residual) for residual in borrowed for training in trainings]
            validation, evaluation = means[key]
            cells[key] = _Cell(validation, evaluation, [(t, validation + r - self._accuracy(t)) for t, r in moves])
        return cells

    def _means(
        self, by_cell: dict[tuple, list[Training]], places: dict[tuple, tuple]
    ) -> dict[tuple, tuple[float, float]]:
        """(validation, evaluation) accuracy of every cell, of those without a training too, smoothed over the grid: the best of
        many noisy means would otherwise be a lucky one, which no search could find again."""
        counts = [
            [np.mean([t.kept_correct for t in group]), np.mean([t.evaluation_correct for t in group])]
            for group in by_cell.values()
        ]
        known = np.array(counts) / [self._n["validation"], self._n["evaluation"]]
        at = np.array([places[key] for key in by_cell])
        self.smoothing = _best_smoothing(at, known)
        surface = RBFInterpolator(at, known, kernel=_KERNEL, smoothing=self.smoothing)
        means = np.clip(surface([places[key] for key in self._keys]), known.min(axis=0), known.max(axis=0))
        return dict(zip(self._keys, map(tuple, means.tolist())))

    def _place(self, key: tuple) -> tuple[float, ...]:
        """A cell in units of the grid's steps; hyperparameters of a single value are left out."""
        axes = self.surface.about["axes"]
        steps = [float(axes[name].index(value)) for name, value in zip(self._others, key) if len(axes[name]) > 1]
        return (*steps, float(key[-1]))

    def _seconds_by_cost(self) -> dict[Any, float]:
        """Median processor seconds of an epoch by batch size: trainings of one batch size do the same work."""
        seconds = defaultdict(list)
        for training in self.trainings:
            seconds[training.point.get("batch_size")] += training.processor_s
            seconds["all"] += training.processor_s
        sizes = self.surface.about["axes"].get("batch_size", [None])
        times = {size: median(seconds[size] or seconds["all"]) for size in sizes}
        for part in ("start", "evaluation"):
            times[part] = median(training.other_s[part][1] for training in self.trainings)
        return times

    def check_space(self, space: dict[str, Any], file: Path) -> None:
        """Raises SurfaceError where the space has a hyperparameter or a value that was not measured."""
        axes, name = self.surface.about["axes"], self.surface.name
        if set(space) != set(axes):
            raise SurfaceError(
                f"{file}: searches {', '.join(sorted(space))}, but surface {name} was measured over {', '.join(sorted(axes))}"
            )
        for key, spec in space.items():
            values = spec["_value"]
            if key == LOG_AXIS and spec["_type"] in ("uniform", "loguniform", "quniform", "qloguniform"):
                bad = [value for value in values[:2] if not axes[key][0] - _FAR <= value <= axes[key][-1] + _FAR]
            else:
                bad = [value for value in values if spec["_type"] != "choice" or value not in axes[key]]
            if bad:
                raise SurfaceError(
                    f"{file}: {key} {spec['_type']} {values} is not within what surface {name} measured: "
                    f"{', '.join(map(str, axes[key]))}"
                )

    def answer(self, point: dict[str, Any], rng: np.random.Generator) -> Answer:
        rate = math.log(point[LOG_AXIS])
        right = min(max(bisect.bisect_left(self._rates, rate), 1), len(self._rates) - 1)
        low, high = self._rates[right - 1], self._rates[right]
        weight = min(max((rate - low) / (high - low), 0.0), 1.0)
        others = tuple(point[name] for name in self._others)
        left_cell, right_cell = self._cells[(*others, right - 1)], self._cells[(*others, right)]
        truth = (1 - weight) * left_cell.validation + weight * right_cell.validation
        evaluation = (1 - weight) * left_cell.evaluation + weight * right_cell.evaluation
        chosen, pick = rng.random(2).tolist()
        cell = right_cell if chosen < weight else left_cell
        training, move = cell.trainings[int(pick * len(cell.trainings))]
        move += truth - cell.validation
        n = self._n["validation"]
        epoch_s = self._seconds[point.get("batch_size")]
        return Answer(
            curve=[min(max(count / n + move, 0.0), 1.0) for count in training.correct],
            final=min(max(training.kept_correct / n + move, 0.0), 1.0),
            truth=truth,
            evaluation=evaluation,
            epoch_s=epoch_s,
            before_s=self._start_up_s + self._seconds["start"],
            after_s=self._seconds["evaluation"] + (epoch_s if training.stopped_by == "diverged" else 0.0),
            stopped_by=training.stopped_by,
        )


def _best_smoothing(at: np.ndarray, known: np.ndarray) -> float:
    """That with which cells are predicted best from the others, by ten-fold cross-validation. at: (cells, axes) in steps of the
    grid; known: (cells, 2)."""
    folds = np.random.default_rng(0).permutation(len(at)) % min(10, len(at))

    def error(smoothing: float) -> float:
        total = 0.0
        for fold in range(folds.max() + 1):
            rest, left = folds != fold, folds == fold
            guess = RBFInterpolator(at[rest], known[rest], kernel=_KERNEL, smoothing=smoothing)(at[left])
            total += float(((guess - known[left]) ** 2).sum())
        return total

    return min(_SMOOTHINGS, key=error)
