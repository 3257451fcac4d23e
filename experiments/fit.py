"""How many trials should train at once on this device? Measured by training them, without NNI.

    python -m experiments fit experiments/recommended.yml

One trial trains for a few epochs, then two at once, and so on; on a CPU they share its threads, on a GPU its memory. Trials
per hour are those of whole trials: all epochs that the file allows, and the start of Python and torch. What several at once
cost a tuner, which then chooses with fewer results, is not in it: docs/which-search.md.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from prettytable import PrettyTable

from experiments.check import describe_trial
from experiments.config import Experiment, Overrides, is_local, read_experiment
from experiments.findings import ExperimentError
from experiments.nni import trial_environment

ENOUGH = 0.95  # of the most trials per hour: fewer at once are better for the tuner
FULL = 0.9  # of the memory: beyond, a larger batch or another program would end a trial
_LOOK_S = 0.2


@dataclass(frozen=True)
class FitRequest:
    """`epochs`: that each trial trains; `at_once`: the numbers of trials to try; `may_write`: the result into the file."""

    file: Path
    overrides: Overrides
    at_once: tuple[int, ...]
    epochs: int
    may_write: bool


@dataclass(frozen=True)
class Device:
    """What trials share. `threads`: of a CPU, None of a GPU; `memory_mib`: free before the first one starts; `gpu`: its number."""

    name: str
    threads: int | None
    memory_mib: float
    gpu: int | None = None


@dataclass(frozen=True)
class Measured:
    """So many trials at once. `epochs_s`: seconds of each epoch after the first, of all trials."""

    n: int
    threads: int | None
    epochs_s: tuple[float, ...]
    trials_per_hour: float
    memory_mib: float  # the most that all took together

    def fits(self, device: Device) -> bool:
        return self.memory_mib <= FULL * device.memory_mib


def fit(request: FitRequest) -> int:
    """Measure, print the table and what to set. Returns the exit code. Raises ExperimentError."""
    experiment = read_experiment(request.file, request.overrides)
    if not experiment.is_ours or not is_local(experiment.config):
        raise ExperimentError(
            f"{request.file}: fit measures `python -m trial` on this machine, and this file runs others"
        )
    described = describe_trial(experiment)
    if described["problems"]:
        raise ExperimentError(f"{request.file}: its trial cannot run: {'; '.join(described['problems'])}")
    device, trial = _device(described["gpu"]), _Trial(experiment, described, request.epochs)
    print(f"{device.name}: {trial.describe()}; {request.epochs} of {trial.planned} epochs each", file=sys.stderr)
    rows: list[Measured] = []
    for n in request.at_once:
        print(f"  {n} at once ...", file=sys.stderr, flush=True)
        row = _measure(trial, device, n)
        if row is None:
            print(f"  {n} at once: a trial failed, most likely for want of memory; no more are tried", file=sys.stderr)
            break
        rows.append(row)
    if not rows:
        raise ExperimentError(f"{request.file}: not one trial alone could train; try: {trial.command_line()}")
    best = choose(rows, device)
    print(_table(rows, device))
    print(_advice(request.file, best, device))
    if request.may_write:
        print(f"written: {request.file}: {write(request.file, best)}")
    return 0


def choose(rows: list[Measured], device: Device) -> Measured:
    """The fewest at once that reach ENOUGH of the most trials per hour, among those whose memory fits."""
    fitting = [row for row in rows if row.fits(device)] or rows[:1]
    most = max(row.trials_per_hour for row in fitting)
    return next(row for row in fitting if row.trials_per_hour >= ENOUGH * most)


class _Trial:
    """The trial of an experiment file, as this command runs it: with its known-good first hyperparameters, or the defaults; on a
    GPU with the largest batch that may be searched, which takes the most memory."""

    def __init__(self, experiment: Experiment, described: dict[str, Any], epochs: int) -> None:
        fields = {name: spec["default"] for name, spec in described["fields"].items()} | described["given"]
        self.planned, self.epochs = int(fields["epochs"]), min(epochs, int(fields["epochs"]))
        space = experiment.config.get("searchSpace") or {}
        first = next(iter(experiment.tuner[1].get("first") or []), {})
        self._values = {name: first.get(name, fields[name]) for name in space if name in fields}
        sizes = (space.get("batch_size") or {}).get("_value") or []
        if described["gpu"].get("device") != "cpu" and sizes:
            self._values["batch_size"] = max(sizes)
        self._words, self._folder = experiment.trial_words[1:], experiment.config["trialCodeDirectory"]

    def describe(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self._values.items()) or "the trial's defaults"

    def start(self, output: Path, threads: int | None) -> subprocess.Popen:
        log = (output.parent / f"{output.name}.log").open("wb")
        with log:
            return subprocess.Popen(
                [sys.executable, *self._arguments(output, threads)],
                cwd=self._folder, env=trial_environment(), stdout=log, stderr=log,
            )  # fmt: skip

    def _arguments(self, output: Path, threads: int | None) -> list[str]:
        flags = {**self._values, "epochs": self.epochs, "patience": 0, "output": output}
        flags |= {"threads": threads} if threads else {}
        return [
            *self._words,
            *(part for key, value in flags.items() for part in (f"--{key.replace('_', '-')}", str(value))),
        ]

    def command_line(self) -> str:
        return shlex.join(["python", *self._arguments(Path("runs/fit"), None)])


def _device(gpu: dict[str, Any]) -> Device:
    """gpu: our trial's answer to --gpu."""
    if (gpu.get("device") or "cpu") == "cpu":
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return Device(f"CPU, {threads} threads", threads, psutil.virtual_memory().available / 2**20)
    index = int(gpu["device"].partition(":")[2] or 0)
    return Device(f"{gpu['names'][index]} (cuda:{index})", None, _free_on_gpu(index), index)


def _free_on_gpu(index: int) -> float:
    """MiB."""
    import pynvml

    pynvml.nvmlInit()
    return pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(index)).free / 2**20


def _measure(trial: _Trial, device: Device, n: int) -> Measured | None:
    """None where a trial failed."""
    threads = None if device.threads is None else max(1, device.threads // n)
    with tempfile.TemporaryDirectory(prefix="food11-fit-") as folder:
        outputs = [Path(folder, f"trial{number}") for number in range(n)]
        began = time.monotonic()
        running = [trial.start(output, threads) for output in outputs]
        try:
            memory_mib, ended_s = _watch(running, device, began)
        finally:
            _end(running)
        if any(process.returncode for process in running):
            return None
        curves = [_seconds(output) for output in outputs]
    gaps = [[later - earlier for earlier, later in zip(curve, curve[1:])] or curve for curve in curves]
    # of a whole trial: what it took here, and the epochs that were left out
    trials_s = [ended + (trial.planned - trial.epochs) * statistics.mean(own) for ended, own in zip(ended_s, gaps)]
    rate = sum(3600 / seconds for seconds in trials_s)
    return Measured(n, threads, tuple(gap for own in gaps for gap in own), rate, memory_mib)


def _watch(running: list[subprocess.Popen], device: Device, began: float) -> tuple[float, list[float]]:
    """The most memory that all took together, MiB, and the seconds after which each ended."""
    ended: dict[int, float] = {}
    most = 0.0
    while len(ended) < len(running):
        time.sleep(_LOOK_S)
        for number, process in enumerate(running):
            if process.poll() is not None:
                ended.setdefault(number, time.monotonic() - began)
        most = max(most, _memory(running, device))
    return most, [ended[number] for number in range(len(running))]


def _memory(running: list[subprocess.Popen], device: Device) -> float:
    if device.gpu is not None:
        return device.memory_mib - _free_on_gpu(device.gpu)
    total = 0
    for process in running:
        with contextlib.suppress(psutil.Error):
            total += psutil.Process(process.pid).memory_info().rss
    return total / 2**20


def _end(running: list[subprocess.Popen]) -> None:
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait()


def _seconds(output: Path) -> list[float]:
    """Since the training's start, at the end of each epoch."""
    return [json.loads(line)["seconds"] for line in (output / "epochs.jsonl").read_text("utf-8").splitlines()]


def _table(rows: list[Measured], device: Device) -> PrettyTable:
    table = PrettyTable(
        ["At once", "Threads each", "Seconds per epoch, median (range)", "Trials per hour", "Memory, MiB"]
    )
    for row in rows:
        low, middle, high = min(row.epochs_s), statistics.median(row.epochs_s), max(row.epochs_s)
        epochs = f"{middle:.2f} ({low:.2f} to {high:.2f}, n = {len(row.epochs_s)})"
        memory = f"{row.memory_mib:.0f}{'' if row.fits(device) else ' (too near to all)'}"
        table.add_row([row.n, row.threads or "–", epochs, f"{row.trials_per_hour:.1f}", memory])
    return table


def _advice(file: Path, best: Measured, device: Device) -> str:
    share = "" if best.threads is None or best.n == 1 else f" and --set threads={best.threads}"
    limit = f"of {device.memory_mib:.0f} MiB free, {best.memory_mib:.0f} are used"
    return f"set trialConcurrency: {best.n}{share} ({limit}); --write puts it into {file}"


def write(file: Path, best: Measured) -> str:
    """Change trialConcurrency and, on a CPU, --threads of the trialCommand, and nothing else. Returns what was written."""
    text = file.read_text("utf-8")
    text, n = re.subn(r"(?m)^(trialConcurrency:\s*)\d+", rf"\g<1>{best.n}", text)
    if n != 1:
        raise ExperimentError(f"{file}: has no line `trialConcurrency: N`; write trialConcurrency: {best.n} by hand")
    changed = f"trialConcurrency: {best.n}"
    if best.threads is not None:
        text = re.sub(r"(?m)^(trialCommand: python -m trial.*?) --threads \d+", r"\1", text)
        if best.n > 1:
            text = re.sub(r"(?m)^(trialCommand: python -m trial)", rf"\1 --threads {best.threads}", text)
            changed += f", trialCommand with --threads {best.threads}"
    file.write_text(text, "utf-8")
    return changed
