"""How long the analysis takes on large experiments, and how much memory: `python -m benchmarks.analysis`.

Every figure is that of a whole command in a process of its own, start of Python included. Goals: 10,000 trials of 25
epochs are read and exported in under 10 s, reported in under 60 s; memory grows in proportion to the trials.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from .experiment import build
from .nni_export import nni_export

EPOCHS = 25
_LOAD = "import sys, analysis; print(len(analysis.load(sys.argv[1]).record.trials))"


class Run(NamedTuple):
    """One run of a command: wall clock, and the most memory it held."""

    seconds: float
    peak_mb: float


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analysis", allow_abbrev=False, description=__doc__)
    parser.add_argument("--trials", type=int, default=10_000, metavar="N", help="memory is measured at N, 3 N and 10 N")
    parser.add_argument("--repeats", type=int, default=3, metavar="K", help="runs of each timed command")
    parser.add_argument("--port", type=int, default=18_080, help="a free port for NNI's manager")
    options = parser.parse_args(arguments)
    if options.trials < 1 or options.repeats < 1:
        parser.error("--trials and --repeats are 1 or more")
    with tempfile.TemporaryDirectory(prefix="bench-analysis-") as folder:
        times(Path(folder), options.trials, options.repeats, options.port)
        growth(Path(folder), options.trials)
    return 0


def times(folder: Path, trials: int, repeats: int, port: int) -> None:
    """Prints the timed commands, and NNI's own export of the same experiment."""
    home = folder / "nni-experiments"
    first, second = (build(home / f"bench{seed}", trials, EPOCHS, seed) for seed in (1, 2))
    out = folder / "out"
    print(f"{trials} trials of {EPOCHS} epochs, {repeats} runs each: median (range)")
    for name, goal_s in (("csv", 10), ("json", 10), ("parquet", 10), ("optuna", 10)):
        epochs = [] if name == "optuna" else ["--epochs", f"{out}.epochs"]
        words = ["-m", "analysis", "export", str(first), "--format", name, "--out", str(out), *epochs]
        runs = []
        for _ in range(repeats):
            out.unlink(missing_ok=True)
            runs.append(measure([sys.executable, *words]))
        _tell(f"export --format {name}" + (" with epochs" if epochs else ""), [run.seconds for run in runs], goal_s)
    report = [sys.executable, "-m", "analysis", "compare", str(first), str(second), "--out", str(folder / "report")]
    _tell("compare, two such experiments", [measure(report).seconds for _ in range(repeats)], 60)
    found = nni_export(folder, first, port, repeats)
    if isinstance(found, str):
        print(f"  nnictl experiment export --intermediate: {found}")
    else:
        _tell("nnictl experiment export -t csv --intermediate", found, None)


def growth(folder: Path, trials: int) -> None:
    """Prints the memory of reading 1, 3 and 10 times as many trials, beyond that of reading ten."""
    base = measure([sys.executable, "-c", _LOAD, str(build(folder / "few", 10, EPOCHS))])
    print(f"reading, one run each: peak memory, and per trial beyond the {base.peak_mb:.0f} MB of reading 10 trials")
    for size in (trials, 3 * trials, 10 * trials):
        run = measure([sys.executable, "-c", _LOAD, str(build(folder / f"n{size}", size, EPOCHS))])
        per_trial_kb = 1000 * (run.peak_mb - base.peak_mb) / size
        print(f"  {size:7d} trials: {run.peak_mb:6.0f} MB, {per_trial_kb:5.1f} KB a trial, {run.seconds:5.1f} s")


def measure(command: list[str]) -> Run:
    """Linux counts the memory of the process that starts a command as the command's: this one stays small. Raises
    SystemExit with what the command said where it fails."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            said.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {said.read().decode(errors='replace')[-500:]}")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return Run(time.monotonic() - begin, kilobytes / 1000)


def _tell(what: str, seconds: list[float], goal_s: float | None) -> None:
    goal = "" if goal_s is None else f", goal {goal_s} s"
    print(f"  {what}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}{goal})", flush=True)


if __name__ == "__main__":
    sys.exit(main())
