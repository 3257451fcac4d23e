"""Builds an experiment of any size in NNI's own database, with records as large as those of our trial.

The schema is read from the installed NNI (`nni_node/core/sqlDatabase.js`), so it is not a copy. The curves are drawn, not
trained: of every hundred trials one fails, one is killed, one has no final result and one reports NaN.
"""

from __future__ import annotations

import importlib.util
import json
import random
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

START = 1_700_000_000_000  # ms
SPACE = {
    "batch_size": {"_type": "choice", "_value": [8, 16, 32, 64, 128]},
    "lr": {"_type": "uniform", "_value": [0.0001, 0.1]},
    "momentum": {"_type": "choice", "_value": [0.1, 0.3, 0.5, 0.7, 0.9]},
}
_ODD = {97: "failed", 98: "killed", 99: "no result", 96: "nan"}


class Drawn(NamedTuple):
    """One trial as it will stand in the database."""

    trial_id: str
    parameters: dict[str, Any]
    epochs: list[dict[str, Any]]
    final: dict[str, Any] | None
    state: str


def schema() -> str:
    """NNI's CREATE statements. Raises SystemExit where the file does not hold them as NNI 3.0 does."""
    found = importlib.util.find_spec("nni_node")
    if found is None or found.origin is None:
        raise SystemExit("NNI is not installed, its schema is needed: pip install -r requirements.txt")
    source = Path(found.origin).parent / "core" / "sqlDatabase.js"
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
        params = json.dumps(config(folder, trials))
        row = (params, folder.name, 60, START, START + trials * 10_000, str(folder), trials, 1)
        connection.execute("insert into ExperimentProfile values (?,?,?,?,?,?,?,?)", row)
        for number, trial in enumerate(draw(trials, epochs, seed)):
            connection.executemany("insert into TrialJobEvent values (?,?,?,?,?,?,?,?)", _events(folder, number, trial))
            connection.executemany("insert into MetricData values (?,?,?,?,?,?)", _metrics(number, trial))
        connection.commit()
    return folder


def config(folder: Path, trials: int) -> dict[str, Any]:
    """The experiment file as NNI keeps it; complete enough for `nnictl view`."""
    return {
        "experimentName": f"{trials} drawn trials",
        "experimentType": "hpo",
        "searchSpace": SPACE,
        "trialCommand": "true",
        "trialCodeDirectory": str(folder),
        "trialConcurrency": 1,
        "maxTrialNumber": trials,
        "useAnnotation": False,
        "debug": False,
        "logLevel": "info",
        "experimentWorkingDirectory": str(folder.parent),
        "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "trainingService": {
            "platform": "local",
            "trialCommand": "true",
            "trialCodeDirectory": str(folder),
            "debug": False,
            "maxTrialNumberPerGpu": 1,
            "reuseMode": False,
        },
    }


def draw(trials: int, epochs: int, seed: int) -> Iterator[Drawn]:
    """The same trials for the same arguments."""
    rng = random.Random(seed)
    for number in range(trials):
        kind = _ODD.get(number % 100, "succeeded")
        parameters = {
            "batch_size": rng.choice((8, 16, 32, 64, 128)),
            "lr": rng.uniform(1e-4, 0.1),
            "momentum": rng.choice((0.1, 0.3, 0.5, 0.7, 0.9)),
        }
        top = rng.uniform(0.5, 0.9)
        curve = [_epoch(epoch, top * (1 - 0.8**epoch), parameters["lr"], rng) for epoch in range(1, epochs + 1)]
        final = None if kind in ("failed", "killed", "no result") else _final(curve[-1], kind == "nan", rng)
        state = {"failed": "FAILED", "killed": "USER_CANCELED"}.get(kind, "SUCCEEDED")
        yield Drawn(f"t{number:06d}", parameters, curve, final, state)


def _epoch(epoch: int, accuracy: float, lr: float, rng: random.Random) -> dict[str, Any]:
    return {
        "default": accuracy + rng.gauss(0, 0.01),
        "train_loss": 3 * (1 - accuracy) + rng.gauss(0, 0.05),
        "train_accuracy": accuracy + rng.gauss(0, 0.01),
        "val_loss": 3 * (1 - accuracy) + rng.gauss(0, 0.05),
        "lr": lr,
        "epoch": epoch,
    }


def _final(last: dict[str, Any], nan: bool, rng: random.Random) -> dict[str, Any]:
    top1 = last["default"] - 0.02 + rng.gauss(0, 0.01)
    evaluation = {"evaluation_top1": top1, "evaluation_top3": top1 + 0.08, "evaluation_macro": top1 - 0.03}
    counts = {"evaluation_n": 3347, "validation_n": 3430, "epochs_run": last["epoch"], "best_epoch": last["epoch"]}
    return last | evaluation | counts | {"diverged": 0, "duration_s": 8.0} | ({"default": float("nan")} if nan else {})


def _events(folder: Path, number: int, trial: Drawn) -> list[tuple[Any, ...]]:
    record = {
        "parameter_id": number,
        "parameter_source": "algorithm",
        "parameters": trial.parameters,
        "parameter_index": 0,
    }
    log = str(folder / "environments" / "local-env" / "trials" / trial.trial_id)
    begin = START + number * 10_000
    return [
        (begin, trial.trial_id, "RUNNING", json.dumps(record), log, number, None, "local-env"),
        (begin + 9000, trial.trial_id, trial.state, None, log, number, None, "local-env"),
    ]


def _metrics(number: int, trial: Drawn) -> Iterator[tuple[Any, ...]]:
    begin = START + number * 10_000
    for position, epoch in enumerate(trial.epochs):
        time = begin + round(8000 * (position + 1) / len(trial.epochs))
        yield time, trial.trial_id, str(number), "PERIODICAL", position, json.dumps(json.dumps(epoch))
    if trial.final is not None:
        yield begin + 8500, trial.trial_id, str(number), "FINAL", 0, json.dumps(json.dumps(trial.final))
