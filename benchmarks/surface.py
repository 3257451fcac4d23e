"""A surface: what trainings over a grid of hyperparameters measured, epoch by epoch, in one compressed file.

benchmarks/surfaces/NAME.json.gz holds

    about       format, name, axes {hyperparameter: values}, hyperparameters (the fixed ones), images per split, cache and
                weights digests, versions, machine, precision
    attempts    [{revision, started, trainings}]: the commits that it was measured with, and how many trainings each
    trainings   one per cell and seed: a `Training`

`python -m benchmarks surface build` makes it (surface_build.py), `replay` simulates searches on it (answers.py, replay.py).
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import zlib
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FORMAT = 1  # raised when the file's meaning changes: older surfaces are then refused
FOLDER = Path(__file__).resolve().parent / "surfaces"
SEEDS, MORE_SEEDS, MORE_CELLS = 2, 5, 26  # seeds of every cell; of 26 cells, for the spread between seeds
_ABOUT = ("format", "name", "axes", "hyperparameters", "images", "cache", "weights", "versions", "machine", "precision")


class SurfaceError(Exception):
    """What is wrong with a surface, and what to do about it, in one line."""


@dataclass(frozen=True)
class Training:
    """One training of a cell. Counts are of images; lists have an entry per epoch.

    A worker of one thread trains it: `processor_s` is what it takes on a quiet machine at most, `wall_s` what it took.
    """

    point: dict[str, float]  # one value of each axis
    seed: int
    correct: list[int]  # of the validation split
    wall_s: list[float]  # training and validation
    processor_s: list[float]
    best_epoch: int  # whose weights were kept; 0: none ended with finite numbers
    stopped_by: str  # "epochs", "patience" or "diverged"
    kept_correct: int  # of the validation split, by the weights kept
    evaluation_correct: int  # of the evaluation split, by the weights kept
    other_s: dict[str, list[float]]  # [wall, processor] of start, unfinished (an epoch that diverged) and evaluation

    @property
    def key(self) -> tuple:
        return (*self.point.values(), self.seed)


@dataclass(frozen=True)
class Surface:
    about: dict[str, Any]
    attempts: list[dict[str, Any]]
    trainings: list[Training]

    @property
    def name(self) -> str:
        return self.about["name"]

    @cached_property
    def planned(self) -> list[tuple[dict[str, float], int]]:
        return plan(self.about["axes"])

    @property
    def completeness(self) -> str:
        """Such as: 450 of 728 trainings: 325 of 325 cells, 125 of them with 2 seeds or more."""
        seeds = Counter(tuple(training.point.values()) for training in self.trainings)
        cells = len({tuple(point.values()) for point, _ in self.planned})
        text = f"{len(self.trainings)} of {len(self.planned)} trainings: {len(seeds)} of {cells} cells"
        return f"{text}, {sum(n >= SEEDS for n in seeds.values())} of them with {SEEDS} seeds or more"

    def write(self, path: Path) -> None:
        """Replace the file at once; equal surfaces are equal bytes."""
        content = {**asdict(self), "trainings": [asdict(training) for training in self.trainings]}
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.partial")
        partial.write_bytes(gzip.compress(text.encode(), mtime=0))
        os.replace(partial, path)


def plan(axes: dict[str, list[float]]) -> list[tuple[dict[str, float], int]]:
    """(point, seed) in the order of training: a partial surface covers the whole grid evenly, its noise is known early.

    First 26 cells with two seeds each, in which each value of the last axis comes twice and each combination of the others at
    least once (of the lab report's grid); then the first seed of all other cells in a scattered order, then their second; at
    last three more seeds of the 26.
    """
    cells = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    random.Random(0).shuffle(cells)
    *others, last = axes
    combinations = [list(values) for values in itertools.product(*(axes[name] for name in others))]
    random.Random(1).shuffle(combinations)
    spread = [
        dict(zip(axes, [*combinations[i % len(combinations)], axes[last][i % len(axes[last])]]))
        for i in range(MORE_CELLS)
    ]
    first = [cell for i, cell in enumerate(spread) if cell not in spread[:i]]
    rest = [cell for cell in cells if cell not in first]
    rounds = [(cells, range(SEEDS)) for cells in (first, rest)] + [(first, range(SEEDS, MORE_SEEDS))]
    return [(cell, seed) for cells, seeds in rounds for seed in seeds for cell in cells]


def surface_path(name: str) -> Path:
    """NAME of benchmarks/surfaces, or a file."""
    return Path(name) if name.endswith(".gz") else FOLDER / f"{name}.json.gz"


def read_surface(name: str) -> Surface:
    """All of it or, with SurfaceError, nothing."""
    path = surface_path(name)
    again = f"build it with: python -m benchmarks surface build {path.name.removesuffix('.json.gz')}"
    damaged = f"take it from the repository, or {again}"
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except (EOFError, ValueError, zlib.error, gzip.BadGzipFile) as error:
        raise SurfaceError(f"{path}: damaged ({error}); {damaged}") from error
    except OSError as error:
        others = ", ".join(sorted(file.name.removesuffix(".json.gz") for file in FOLDER.glob("*.json.gz")))
        raise SurfaceError(f"{path}: {error.strerror}; there are {others or 'none'}; {again}") from error
    about = content.get("about") if isinstance(content, dict) else None
    found = about.get("format") if isinstance(about, dict) else None
    if found != FORMAT:
        raise SurfaceError(f"{path}: format {found!r}, this version reads format {FORMAT}; {again}")
    try:
        if missing := [key for key in _ABOUT if key not in about]:
            raise ValueError(f"no {missing[0]}")
        trainings = [Training(**record) for record in content["trainings"]]
        surface = Surface(about, content["attempts"], trainings)
        _check(surface)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SurfaceError(f"{path}: damaged ({error}); {damaged}") from error
    return surface


def _check(surface: Surface) -> None:
    """Raises ValueError, TypeError or KeyError for a training that cannot have been measured."""
    planned = {(*point.values(), seed) for point, seed in surface.planned}
    images = surface.about["images"]
    for number, training in enumerate(surface.trainings):
        epochs = len(training.correct)
        if training.key not in planned:
            raise ValueError(f"training {number} is no cell of its grid, or given twice")
        planned.discard(training.key)
        if not epochs == len(training.wall_s) == len(training.processor_s) or not 0 <= training.best_epoch <= epochs:
            raise ValueError(f"training {number}: lists of different lengths")
        if not all(0 <= count <= images["validation"] for count in [*training.correct, training.kept_correct]):
            raise ValueError(f"training {number}: counts beyond {images['validation']} validation images")
        if not 0 <= training.evaluation_correct <= images["evaluation"]:
            raise ValueError(f"training {number}: counts beyond {images['evaluation']} evaluation images")
        others = [second for part in ("start", "unfinished", "evaluation") for second in training.other_s[part]]
        if len(others) != 6 or not all(second >= 0 for second in [*training.wall_s, *training.processor_s, *others]):
            raise ValueError(f"training {number}: negative or missing seconds")
