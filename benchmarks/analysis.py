"""How long the analysis takes on large experiments, and how much memory: `python -m benchmarks.analysis`.

Every figure is that of a whole command in a process of its own, start of Python included. Goals: 10,000 trials of 25
epochs are read and exported in under 10 s, reported in under 60 s; memory grows in proportion to the trials. The
experiments are drawn, not trained, in NNI's own database, with records as large as those of our trial.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import re
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

EPOCHS = 25
GOALS_S = {"csv": 10, "json": 10, "parquet": 10, "optuna": 10}
_LOAD = "import sys, analysis; print(len(analysis.load(sys.argv[1]).record.trials))"

START = 1_700_000_000_000  # ms
SPACE = {
    "batch_size": {"_type": "choice", "_value": [8, 16, 32, 64, 128]},
    "lr": {"_type": "uniform", "_value": [0.0001, 0.1]},
    "momentum": {"_type": "choice", "_value": [0.1, 0.3, 0.5, 0.7, 0.9]},
}
_EXCEPTIONS = {97: "failed", 98: "killed", 99: "no result", 96: "nan"}  # of every hundred trials


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
    for name, goal_s in GOALS_S.items():
        epochs = [] if name == "optuna" else ["--epochs", f"{out}.epochs"]
        words = [sys.executable, "-m", "analysis", "export", str(first), "--format", name, "--out", str(out), *epochs]
        seconds = []
        for _ in range(repeats):
            out.unlink(missing_ok=True)
            seconds.append(measure(words).seconds)
        _print(f"export --format {name}" + (" with epochs" if epochs else ""), seconds, goal_s)
    report = [sys.executable, "-m", "analysis", "compare", str(first), str(second), "--out", str(folder / "report")]
    _print("compare, two such experiments", [measure(report).seconds for _ in range(repeats)], 60)
    try:
        _print("nnictl experiment export -t csv --intermediate", nni_export(folder, first, port, repeats), None)
    except RuntimeError as error:
        print(f"  nnictl experiment export --intermediate: {error}")


def growth(folder: Path, trials: int) -> None:
    """Prints the memory of reading 1, 3 and 10 times as many trials, beyond that of reading ten."""
    base = measure([sys.executable, "-c", _LOAD, str(build(folder / "few", 10, EPOCHS))])
    print(f"reading, one run each: peak memory, and per trial beyond the {base.peak_mb:.0f} MB of reading 10 trials")
    for size in (trials, 3 * trials, 10 * trials):
        run = measure([sys.executable, "-c", _LOAD, str(build(folder / f"n{size}", size, EPOCHS))])
        per_trial_kb = 1000 * (run.peak_mb - base.peak_mb) / size
        print(f"  {size:7d} trials: {run.peak_mb:6.0f} MB, {per_trial_kb:5.1f} KB per trial, {run.seconds:5.1f} s")


class Run(NamedTuple):
    """One run of a command: wall clock, and the most memory it held."""

    seconds: float
    peak_mb: float


def measure(command: list[str]) -> Run:
    """Linux counts the memory of the process that starts a command as the command's: this one stays small. Raises
    SystemExit with the command's output where it fails."""
    begin = time.monotonic()
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(command, cwd=Path(__file__).parent.parent, stdout=output, stderr=output)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            output.seek(0)
            raise SystemExit(f"{' '.join(command)} failed: {output.read().decode(errors='replace')[-500:]}")
    kilobytes = usage.ru_maxrss if sys.platform != "darwin" else usage.ru_maxrss / 1024
    return Run(time.monotonic() - begin, kilobytes / 1000)


def _print(what: str, seconds: list[float], goal_s: float | None) -> None:
    goal = "" if goal_s is None else f", goal {goal_s} s"
    print(f"  {what}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}{goal})", flush=True)


def nni_export(home: Path, experiment: Path, port: int, repeats: int) -> list[float]:
    """Seconds of each `nnictl experiment export`, which needs NNI's manager: it is started to view the experiment, which is
    in `home`/nni-experiments, and stopped again. Raises RuntimeError with the reason where there are none."""
    (experiment / "log").mkdir(exist_ok=True)
    entry = {"id": experiment.name, "port": port, "startTime": START, "endTime": START + 1, "status": "STOPPED",
             "platform": "local", "experimentName": experiment.name, "tag": [], "pid": 0, "webuiUrl": [],
             "logDir": str(experiment.parent), "prefixUrl": None}  # fmt: skip
    (experiment.parent / ".experiment").write_text(json.dumps({experiment.name: entry}), encoding="utf-8")
    out, words = home / "nni.csv", ["experiment", "export", experiment.name, "-t", "csv", "--intermediate", "-f"]
    seconds = []
    try:
        viewed = _nnictl(home, "view", experiment.name, "-p", str(port))
        if viewed.returncode != 0:
            raise RuntimeError(f"NNI cannot show the experiment: {(viewed.stdout + viewed.stderr).strip()[-200:]}")
        for _ in range(repeats):
            out.unlink(missing_ok=True)
            begin = time.monotonic()
            done = _nnictl(home, *words, str(out))
            if not out.is_file():
                raise RuntimeError(f"NNI wrote nothing: {(done.stdout + done.stderr).strip()[-200:]}")
            seconds.append(time.monotonic() - begin)
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"no answer in {error.timeout:.0f} s") from error
    finally:
        _nnictl(home, "stop", experiment.name)
    return seconds


def _nnictl(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    env = {**os.environ, "HOME": str(home), "PATH": path, "PYTHONWARNINGS": "ignore"}
    return subprocess.run(["nnictl", *words], env=env, capture_output=True, text=True, timeout=120, check=False)


class Drawn(NamedTuple):
    """One trial as it will be in the database."""

    trial_id: str
    parameters: dict[str, Any]
    epochs: list[dict[str, Any]]
    final: dict[str, Any] | None
    state: str


def schema() -> str:
    """NNI's CREATE statements, read from the installed NNI. Raises SystemExit where it does not hold them as 3.0 does."""
    package = importlib.util.find_spec("nni_node")
    if package is None or package.origin is None:
        raise SystemExit("NNI is not installed, its schema is needed: pip install -r requirements.txt")
    source = Path(package.origin).parent / "core" / "sqlDatabase.js"
    match = re.search(r"const createTables = `(.*?)`;", source.read_text(encoding="utf-8"), re.DOTALL)
    if match is None:
        raise SystemExit(f"{source} has no createTables; NNI 3.0 was expected")
    return match[1]


def build(folder: Path, trials: int, epochs: int = 25, seed: int = 0) -> Path:
    """Writes the experiment into the new folder `folder`, whose name becomes its id; returns the folder."""
    (folder / "db").mkdir(parents=True)
    with closing(sqlite3.connect(folder / "db" / "nni.sqlite")) as connection:
        connection.execute("pragma synchronous=off")
        connection.executescript(schema())
        params = json.dumps(_config(folder, trials))
        row = (params, folder.name, 60, START, START + trials * 10_000, str(folder), trials, 1)
        connection.execute("insert into ExperimentProfile values (?,?,?,?,?,?,?,?)", row)
        for number, trial in enumerate(draw(trials, epochs, seed)):
            connection.executemany("insert into TrialJobEvent values (?,?,?,?,?,?,?,?)", _events(folder, number, trial))
            connection.executemany("insert into MetricData values (?,?,?,?,?,?)", _metrics(number, trial))
        connection.commit()
    return folder


def _config(folder: Path, trials: int) -> dict[str, Any]:
    """The experiment file as NNI keeps it; complete enough for `nnictl view`."""
    trial = {"trialCommand": "true", "trialCodeDirectory": str(folder), "debug": False}
    return {
        **trial,
        "experimentName": f"{trials} drawn trials",
        "experimentType": "hpo",
        "searchSpace": SPACE,
        "trialConcurrency": 1,
        "maxTrialNumber": trials,
        "useAnnotation": False,
        "logLevel": "info",
        "experimentWorkingDirectory": str(folder.parent),
        "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "trainingService": {"platform": "local", **trial, "maxTrialNumberPerGpu": 1, "reuseMode": False},
    }


def draw(trials: int, epochs: int, seed: int) -> Iterator[Drawn]:
    """The same trials for the same arguments: one in a hundred fails, one is killed, one has no result, one reports NaN."""
    rng = random.Random(seed)
    for number in range(trials):
        kind = _EXCEPTIONS.get(number % 100, "succeeded")
        choices = SPACE["batch_size"]["_value"], SPACE["momentum"]["_value"]
        batch_size, lr, momentum = rng.choice(choices[0]), rng.uniform(1e-4, 0.1), rng.choice(choices[1])
        top = rng.uniform(0.5, 0.9)
        curve = [_epoch(epoch, top * (1 - 0.8**epoch), lr, rng) for epoch in range(1, epochs + 1)]
        final = None if kind in ("failed", "killed", "no result") else _final(curve[-1], kind == "nan", rng)
        state = {"failed": "FAILED", "killed": "USER_CANCELED"}.get(kind, "SUCCEEDED")
        yield Drawn(f"t{number:06d}", {"batch_size": batch_size, "lr": lr, "momentum": momentum}, curve, final, state)


def _epoch(epoch: int, accuracy: float, lr: float, rng: random.Random) -> dict[str, Any]:
    names = {"default": 0.01, "train_loss": 0.05, "train_accuracy": 0.01, "val_loss": 0.05}
    means = {name: 3 * (1 - accuracy) if name.endswith("loss") else accuracy for name in names}
    return {name: means[name] + rng.gauss(0, sd) for name, sd in names.items()} | {"lr": lr, "epoch": epoch}


def _final(last: dict[str, Any], nan: bool, rng: random.Random) -> dict[str, Any]:
    top1 = last["default"] - 0.02 + rng.gauss(0, 0.01)
    evaluation = {"evaluation_top1": top1, "evaluation_top3": top1 + 0.08, "evaluation_macro": top1 - 0.03}
    counts = {"evaluation_n": 3347, "validation_n": 3430, "epochs_run": last["epoch"], "best_epoch": last["epoch"]}
    return last | evaluation | counts | {"diverged": 0, "duration_s": 8.0} | ({"default": float("nan")} if nan else {})


def _events(folder: Path, number: int, trial: Drawn) -> list[tuple[Any, ...]]:
    """Rows of TrialJobEvent: its start and its end."""
    record = {
        "parameter_id": number,
        "parameter_source": "algorithm",
        "parameters": trial.parameters,
        "parameter_index": 0,
    }
    place = (str(folder / "environments" / "local-env" / "trials" / trial.trial_id), number, None, "local-env")
    begin = START + number * 10_000
    return [
        (begin, trial.trial_id, "RUNNING", json.dumps(record), *place),
        (begin + 9000, trial.trial_id, trial.state, None, *place),
    ]


def _metrics(number: int, trial: Drawn) -> Iterator[tuple[Any, ...]]:
    """Rows of MetricData: each epoch, then the final result."""
    begin = START + number * 10_000
    for position, epoch in enumerate(trial.epochs):
        time_ms = begin + round(8000 * (position + 1) / len(trial.epochs))
        yield time_ms, trial.trial_id, str(number), "PERIODICAL", position, json.dumps(json.dumps(epoch))
    if trial.final is not None:
        yield begin + 8500, trial.trial_id, str(number), "FINAL", 0, json.dumps(json.dumps(trial.final))


if __name__ == "__main__":
    sys.exit(main())
