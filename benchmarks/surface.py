"""A surface: what trainings over a grid of hyperparameters measured, epoch by epoch, in one compressed file.

benchmarks/surfaces/NAME.json.gz holds

    about       format, name, axes {hyperparameter: values}, hyperparameters (the fixed ones), images per split, cache and
                weights digests, versions, machine, precision
    attempts    [{revision, started, trainings}]: the commits that it was measured with, and how many trainings each
    trainings   one per cell and seed: a `Training`

`python -m benchmarks surface build` makes it (benchmarks/surface_build.py), `replay` simulates searches on it.
"""

from __future__ import annotations

import argparse
import gzip
import itertools
import json
import os
import random
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

FORMAT = 1  # raised when the file's meaning changes: older surfaces are then refused
FOLDER = Path(__file__).resolve().parent / "surfaces"
SEEDS, MORE_SEEDS, MORE_CELLS = 2, 5, 26  # seeds of every cell; of some cells, for the spread between seeds; how many
_ABOUT = ("format", "name", "axes", "hyperparameters", "images", "cache", "weights", "versions", "machine", "precision")


class SurfaceError(Exception):
    """What is wrong with a surface, and what to do about it, in one line."""


@dataclass(frozen=True)
class Training:
    """One training of a cell. Counts are of images; lists have an entry per epoch.

    A worker of one thread trains it: `processor_s` is what it takes on a quiet machine, `wall_s` what it took.
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
    """(point, seed) in the order of training: a partial surface then covers the whole grid evenly.

    The first seed of every cell in a scattered order, then the second, then three more of 26 cells, in which each value
    of the last axis comes twice and each combination of the others at least once (of the lab report's grid).
    """
    cells = [dict(zip(axes, values)) for values in itertools.product(*axes.values())]
    random.Random(0).shuffle(cells)
    *others, last = axes
    combinations = [list(values) for values in itertools.product(*(axes[name] for name in others))]
    random.Random(1).shuffle(combinations)
    more = [
        dict(zip(axes, [*combinations[i % len(combinations)], axes[last][i % len(axes[last])]]))
        for i in range(MORE_CELLS)
    ]
    more = [cell for i, cell in enumerate(more) if cell not in more[:i]]
    return [(cell, seed) for seed in range(SEEDS) for cell in cells] + [
        (cell, seed) for seed in range(SEEDS, MORE_SEEDS) for cell in more
    ]


def surface_path(name: str) -> Path:
    """NAME of benchmarks/surfaces, or a file."""
    return Path(name) if name.endswith(".gz") else FOLDER / f"{name}.json.gz"


def read_surface(name: str) -> Surface:
    """All of it or, with SurfaceError, nothing."""
    path = surface_path(name)
    again = f"build it with: python -m benchmarks surface build {path.name.removesuffix('.json.gz')}"
    try:
        content = json.loads(gzip.decompress(path.read_bytes()))
    except OSError as error:  # gzip's BadGzipFile is one
        others = ", ".join(sorted(file.name.removesuffix(".json.gz") for file in FOLDER.glob("*.json.gz")))
        reason = error.strerror or f"damaged: {error}"
        raise SurfaceError(f"{path}: {reason}; there are {others or 'none'}; {again}") from error
    except (EOFError, ValueError, ArithmeticError) as error:
        raise SurfaceError(f"{path}: damaged ({error}); take it from the repository, or {again}") from error
    except Exception as error:
        if type(error).__module__ != "zlib":
            raise
        raise SurfaceError(f"{path}: damaged ({error}); take it from the repository, or {again}") from error
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
    except (KeyError, TypeError, ValueError) as error:
        raise SurfaceError(f"{path}: damaged ({error}); take it from the repository, or {again}") from error
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
        if not all(second >= 0 for second in [*training.wall_s, *training.processor_s]):
            raise ValueError(f"training {number}: negative seconds")


# -- python -m benchmarks surface ------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks surface", description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train what is missing; the same command continues", allow_abbrev=False)
    build.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each (default: 2)")
    build.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/surfaces/NAME.json.gz")
    show = commands.add_parser("show", help="what it holds", allow_abbrev=False)
    check = commands.add_parser("check", help="is it whole? with --retrain: do trainings repeat?", allow_abbrev=False)
    check.add_argument("--retrain", type=int, default=0, metavar="N", help="train N of its trainings again and compare")
    check.add_argument("--seed", type=int, default=0, help="which N (default: 0)")
    for command in (build, show, check):
        command.add_argument("name", metavar="NAME", help="such as sample, or a file")
    for command in (build, check):
        command.add_argument("--demo", action="store_true", help="the demo's cache and scale")
        command.add_argument("--cache", type=Path, metavar="DIR", help="photos, from python -m data prepare")
        text = "a hyperparameter that is the same everywhere; may be repeated"
        command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=text)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    from data import DataError
    from experiments.findings import ExperimentError
    from trial import TrialError

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill writes the file as Ctrl-C does
    try:
        return {"build": _run_build, "show": _run_show, "check": _run_check}[args.command](args)
    except (SurfaceError, DataError, TrialError, ExperimentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has been trained is kept, the same command continues", file=sys.stderr)
        return 130


def _target(args: argparse.Namespace) -> Any:
    from benchmarks.surface_build import LAB_AXES, Plan, typed
    from experiments.config import DEMO_CACHE, DEMO_FIELDS, parse_set

    fields = {**(DEMO_FIELDS if args.demo else {}), **parse_set(args.set)}
    cache = args.cache or (DEMO_CACHE if args.demo else None)
    if cache is None:
        raise SurfaceError("which photos? give --cache DIR or --demo")
    if both := sorted({*LAB_AXES, "seed"} & fields.keys()):
        raise SurfaceError(f"--set {both[0]}: the surface varies it; remove it")
    return Plan(args.name, typed(fields), cache.resolve(), LAB_AXES)


def _run_build(args: argparse.Namespace) -> int:
    from benchmarks.surface_build import build

    out = args.out or surface_path(args.name)
    surface = build(_target(args), out, args.workers)
    print(f"{out}: {surface.completeness}")
    return 0


def _run_show(args: argparse.Namespace) -> int:
    surface = read_surface(args.name)
    print(f"surface {surface.name}: {surface.completeness}")
    return 0


def _run_check(args: argparse.Namespace) -> int:
    surface = read_surface(args.name)
    print(f"surface {surface.name}: {surface.completeness}")
    return 0
