"""Measure a surface: trainings through the trial's own code, without NNI, in workers of one thread each.

runs/surfaces/NAME/records.jsonl has a line per training, flushed to the disk as it ends: a build that was killed continues
after the last whole line. Resuming with another cache, version, machine or setting is refused.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import multiprocessing
import os
import platform
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks.surface import FORMAT, Surface, SurfaceError, Training, plan
from data.cache import Cache, open_cache
from data.layouts import SPLITS
from trial import TrialError
from trial.files import lock_folder
from trial.hyperparameters import Hyperparameters, describe_fields
from trial.result import code_revision

ROOT = Path(__file__).resolve().parent.parent
# The lab report's own space: batch sizes and momenta as it lists them, 13 learning rates of equal ratio.
LAB_AXES = {
    "batch_size": [8, 16, 32, 64, 128],
    "momentum": [0.1, 0.3, 0.5, 0.7, 0.9],
    "lr": [float(f"{10 ** (-4 + i / 4):.6g}") for i in range(13)],
}
_RECORDS = "records.jsonl"


@dataclass(frozen=True)
class Plan:
    """What is to be measured: a name, the axes of the grid, the fixed hyperparameters and the photos."""

    name: str
    fixed: dict[str, Any]
    cache: Path
    axes: dict[str, list[float]]

    def hyperparameters(self, point: dict[str, float], seed: int) -> Hyperparameters:
        return Hyperparameters().merged(self.fixed).merged({**point, "seed": seed})

    def about(self) -> dict[str, Any]:
        """The surface's `about`. Raises DataError and TrialError where cache or hyperparameters do not fit."""
        import numpy
        import torch
        import torchvision

        from benchmarks.table import processor
        from trial.device import choose_compute

        first = self.hyperparameters(*plan(self.axes)[0])
        cache = open_cache(self.cache, first.image_px)
        fixed = {name: value for name, value in asdict(first).items() if name not in {*self.axes, "seed"}}
        weights = Path(first.weights)
        is_file = first.weights not in ("none", "imagenet")
        if is_file and not weights.is_file():
            raise TrialError(f"weights = {first.weights!r}: no such file")
        return {
            "format": FORMAT,
            "name": self.name,
            "axes": self.axes,
            "hyperparameters": {**fixed, "weights": weights.name if is_file else first.weights},
            "images": {name: sum(cache.manifest["counts"][name]) for name in SPLITS},
            "cache": {
                "photos": cache.photos,
                "image_px": cache.manifest["image_px"],
                "generated": cache.manifest.get("generated"),
            },
            "weights": hashlib.sha256(weights.read_bytes()).hexdigest() if is_file else None,
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "torchvision": torchvision.__version__,
                "numpy": numpy.__version__,
            },
            "machine": {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "threads_per_training": 1},
            "precision": choose_compute("cpu", "auto", 1).precision,
        }


def typed(fields: dict[str, str]) -> dict[str, Any]:
    """`--set` values as the fields' types. Raises TrialError for a field that there is not."""
    kinds = {"int": int, "float": float, "str": str}
    try:
        return {name: kinds[describe_fields()[name]["type"]](value) for name, value in fields.items()}
    except (KeyError, ValueError) as error:
        raise TrialError(f"--set: no such hyperparameter or not its kind of value: {error}") from error


def build(target: Plan, out: Path, workers: int = 2, folder: Path | None = None) -> Surface:
    """Train what is missing and write `out` after every training.

    folder: of the records; default: runs/surfaces/NAME. Raises SurfaceError, DataError and TrialError."""
    folder = folder or ROOT / "runs" / "surfaces" / target.name
    try:
        lock_folder(folder, wait_s=0)
    except TrialError as error:
        raise SurfaceError(f"{folder}: cannot be written, or another build writes there: wait for it") from error
    about = json.loads(json.dumps(target.about()))
    records = Records(folder / _RECORDS, about)
    surface = records.surface
    done = {training.key for training in surface.trainings}
    jobs = [(point, seed) for point, seed in surface.planned if (*point.values(), seed) not in done]
    bar = tqdm(total=len(surface.planned), initial=len(done), desc=target.name, unit=" trainings", smoothing=0)
    bar.mininterval = 0.5 if sys.stderr.isatty() else 60
    try:
        for training in _train_all(target, about["precision"], jobs, workers):
            records.add(training)
            bar.update()
            surface.write(out)
    finally:
        bar.close()
    surface.write(out)
    return surface


class Records:
    """The trainings so far, on the disk."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        """Read what is there, without a torn last line. Raises SurfaceError where it is another surface's."""
        attempt = {"revision": code_revision(), "started": time.strftime("%Y-%m-%d %H:%M"), "trainings": 0}
        self.surface = Surface(about, [], [])
        self._path = path
        lines, whole = path.read_bytes().splitlines(keepends=True) if path.exists() else [], 0
        for number, line in enumerate(lines, start=1):
            try:
                content = json.loads(line)
            except ValueError as error:
                if number < len(lines):
                    raise SurfaceError(
                        f"{path}: line {number} is damaged ({error}); remove it, it is trained again"
                    ) from error
                break
            if line.endswith(b"\n"):
                self._read(content)
                whole += len(line)
        with path.open("ab") as file:
            file.truncate(whole)
        if not whole:
            self._append({"about": about})
        self.surface.attempts.append(attempt)
        self._append({"attempt": attempt})

    def _read(self, content: dict[str, Any]) -> None:
        about = self.surface.about
        if "about" in content and (other := [key for key in about if content["about"].get(key) != about[key]]):
            was, now = (json.dumps(each.get(other[0])) for each in (content["about"], about))
            raise SurfaceError(
                f"{self._path}: measured with another {other[0]}: {was}, now {now}; build under another name, or delete it"
            )
        if "attempt" in content:
            self.surface.attempts.append(content["attempt"])
        elif "about" not in content:
            self._count(Training(**content))

    def add(self, training: Training) -> None:
        self._append(asdict(training))
        self._count(training)

    def _count(self, training: Training) -> None:
        self.surface.trainings.append(training)
        self.surface.attempts[-1]["trainings"] += 1

    def _append(self, content: dict[str, Any]) -> None:
        with self._path.open("ab") as file:
            file.write(json.dumps(content, separators=(",", ":"), allow_nan=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def retrain(target: Plan, surface: Surface, n: int, seed: int) -> list[tuple[Training, Training]]:
    """(recorded, trained now) of n trainings. Raises SurfaceError where this is no surface of the same photos, weights,
    versions, machine and settings."""
    about = json.loads(json.dumps(target.about()))
    if other := [key for key in about if key != "name" and about[key] != surface.about.get(key)]:
        raise SurfaceError(
            f"surface {surface.name}: its {other[0]} is {json.dumps(surface.about.get(other[0]))}, here it is "
            f"{json.dumps(about[other[0]])}; trainings would differ for that reason alone"
        )
    chosen = random.Random(seed).sample(surface.trainings, min(n, len(surface.trainings)))
    recorded = {training.key: training for training in chosen}
    jobs = [(training.point, training.seed) for training in chosen]
    bar = tqdm(_train_all(target, about["precision"], jobs, 1), total=len(jobs), unit=" trainings", disable=None)
    return [(recorded[training.key], training) for training in bar]


# -- workers -------------------------------------------------------------------------------------------------------------
# A connection each, whose other end closes with the process that started them: they end where it does, however it does.


def _train_all(target: Plan, precision: str, jobs: list, workers: int) -> Iterator[Training]:
    """Each as it ends. Raises SurfaceError where a worker ends before its time."""
    context = multiprocessing.get_context("spawn")
    waiting, processes, busy = iter(jobs), [], []
    try:
        for job in itertools.islice(waiting, workers):
            ours, theirs = context.Pipe()
            processes.append(context.Process(target=_work, args=(theirs, target, precision), daemon=True))
            processes[-1].start()
            theirs.close()
            ours.send(job)
            busy.append(ours)
        while busy:
            connection = wait(busy)[0]
            training = connection.recv()
            if job := next(waiting, None):
                connection.send(job)
            else:
                busy.remove(connection)
            yield training
    except (EOFError, BrokenPipeError, ConnectionResetError):
        raise SurfaceError("a worker ended before its time: see above; the same command continues") from None
    finally:
        for process in processes:
            process.terminate()
            process.join()


def _work(connection: Connection, target: Plan, precision: str) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all; the process that started this one handles it
    from trial.device import choose_compute

    compute = choose_compute("cpu", precision, 1)
    cache = open_cache(target.cache, target.hyperparameters(*plan(target.axes)[0]).image_px)
    while True:
        try:
            connection.send(train(target, cache, compute, *connection.recv()))
        except (EOFError, BrokenPipeError):
            return


class _Clock:
    """Wall clock and this process's own time, since the last reading."""

    def __init__(self) -> None:
        self._last = self._now()

    def lap(self) -> list[float]:
        last, self._last = self._last, self._now()
        return [round(now - before, 4) for now, before in zip(self._last, last)]

    @staticmethod
    def _now() -> tuple[float, float]:
        return time.perf_counter(), time.process_time()


def train(target: Plan, cache: Cache, compute: Any, point: dict[str, float], seed: int) -> Training:
    """One training, as a trial does it: the same model, batches, schedule, early stopping and weights kept."""
    from trial.batches import store_px
    from trial.evaluate import evaluate
    from trial.model import build_model
    from trial.state import start_training
    from trial.train import fit

    h, clock, laps = target.hyperparameters(point, seed), _Clock(), []
    splits = {name: cache.split(name, store_px(h.image_px)) for name in SPLITS}
    model = compute.place(build_model(h.arch, h.weights, len(cache.classes), h.seed))
    state = start_training(model, h, precision=compute.precision)
    start = clock.lap()
    result = fit(state, splits["training"], splits["validation"], h, compute, lambda _: laps.append(clock.lap()))
    unfinished = clock.lap()
    validation, evaluation = (
        score or evaluate(model, splits[name], h.image_px, compute)
        for name, score in (("validation", result.validation), ("evaluation", None))
    )
    return Training(
        point=point,
        seed=seed,
        correct=[round(epoch.val_accuracy * validation.n) for epoch in result.history],
        wall_s=[wall for wall, _ in laps],
        processor_s=[processor for _, processor in laps],
        best_epoch=result.best_epoch,
        stopped_by=result.stopped_by,
        kept_correct=round(validation.top1 * validation.n),
        evaluation_correct=round(evaluation.top1 * evaluation.n),
        other_s={"start": start, "unfinished": unfinished, "evaluation": clock.lap()},
    )
