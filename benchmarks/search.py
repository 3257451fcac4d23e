"""4. Search overhead: wall-clock of a 15-trial experiment over the sum of its trials' own seconds.

A trial's own seconds are those of its process, as NNI records them, less the pause after its result that NNI needs; what is
left is NNI's: starting the manager and the tuner, waiting between two trials (it looks every few seconds), that pause, and
putting it all away.
"""

from __future__ import annotations

import subprocess
import sys
import time

from analysis.reading.reader import load_experiment
from benchmarks.measure import Report
from benchmarks.setting import ROOT
from data.cache import Cache
from trial.__main__ import PAUSE_S

TRIALS = 15
EPOCHS = {"cpu": "8", "cuda": "60"}  # about 20 seconds a trial, most of them the start on a GPU


def run(report: Report, cache: Cache, device: str) -> None:
    """One experiment of 15 trials; about six minutes."""
    trial_fields = {"weights": "none", "image_px": "64", "patience": "0", "device": device}
    trial_fields["epochs"] = EPOCHS[device.split(":")[0]]
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
    seconds = [trial.duration_s - PAUSE_S for trial in trials]
    own = sum(seconds)
    report.add("search wall-clock / trials' seconds", [wall / own], "times", "<= 1.15", f"{len(trials)} trials")
    report.add("seconds a trial", seconds, "s")
    gaps = [(after.start - before.end) / 1000 for before, after in zip(trials, trials[1:])]
    report.add("between two trials", [gap + PAUSE_S for gap in gaps], "s", note="NNI's")
    report.add(
        "before the first and after the last trial",
        [wall - own - sum(gaps) - PAUSE_S * len(trials)],
        "s",
        note="start, stop, checks",
    )
