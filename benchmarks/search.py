"""4. Search overhead: wall-clock of a 15-trial experiment over the sum of its trials' own seconds.

A trial's own seconds are those of its process, as NNI records them; what is left is NNI's: starting the manager and the
tuner, waiting between two trials (it looks every second), and putting it all away.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from analysis.reading.reader import load_experiment
from benchmarks.measure import Report
from benchmarks.setting import ROOT, scratch
from data.cache import Cache

TRIALS = 15
TRIAL_S = 20.0  # that the goal names


def epochs_of(seconds: float, trial_fields: dict[str, str], cache: Cache) -> int:
    """How many epochs make a trial of so many seconds, its start among them; 2 at least. Measured on one of 3 epochs."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        command = [sys.executable, "-m", "trial", "--cache", str(cache.directory), "--output", folder, "--epochs", "3"]
        for name, value in trial_fields.items():
            command += [f"--{name.replace('_', '-')}", value]
        started = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        taken = time.monotonic() - started
        lines = [json.loads(line) for line in Path(folder, "epochs.jsonl").read_text("utf-8").splitlines()]
    epoch = (lines[-1]["seconds"] - lines[0]["seconds"]) / (len(lines) - 1)
    return max(2, round(len(lines) + (seconds - taken) / epoch))


def run(report: Report, cache: Cache, device: str) -> None:
    """One experiment of 15 trials; about six minutes."""
    trial_fields = {"weights": "none", "image_px": "64", "patience": "0", "device": device}
    trial_fields["epochs"] = str(epochs_of(TRIAL_S, trial_fields, cache))
    command = [sys.executable, "-m", "experiments", "launch", "experiments/random.yml", "--max-trials", str(TRIALS)]
    command += ["--cache", str(cache.directory)]
    for name, value in trial_fields.items():
        command += ["--set", f"{name}={value}"]
    started = time.monotonic()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    wall = time.monotonic() - started
    ended = [line.split() for line in done.stdout.splitlines() if line.startswith("experiment ")]
    if done.returncode or not ended:
        raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
    experiment = load_experiment(ended[0][2])
    trials = [trial for trial in experiment.trials if trial.duration_s]
    seconds = [trial.duration_s for trial in trials]
    own = sum(seconds)
    at_goal = (wall - own + TRIAL_S * len(trials)) / (TRIAL_S * len(trials))
    note = f"{len(trials)} trials of {own / len(trials):.1f} s; the same pauses around trials of {TRIAL_S:.0f} s: {at_goal:.2f}"
    report.add("search wall-clock / trials' seconds", [wall / own], "times", "<= 1.15", note)
    report.add("seconds a trial", seconds, "s")
    gaps = [(after.start - before.end) / 1000 for before, after in zip(trials, trials[1:])]
    report.add("between two trials", gaps, "s", note="NNI's")
    report.add(
        "before the first and after the last trial",
        [wall - own - sum(gaps)],
        "s",
        note="start, stop, checks",
    )
