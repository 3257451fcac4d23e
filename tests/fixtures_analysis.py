"""Builds small experiments in NNI's own database schema (nni_node/core/sqlDatabase.js)."""

from __future__ import annotations

import json
import random
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

SCHEMA = """
create table TrialJobEvent (
    timestamp integer,
    trialJobId text,
    event text,
    data text,
    logPath text,
    sequenceId integer,
    message text,
    environmentId text);
create index TrialJobEvent_trialJobId on TrialJobEvent(trialJobId);
create index TrialJobEvent_event on TrialJobEvent(event);

create table MetricData (timestamp integer, trialJobId text, parameterId text, type text, sequence integer, data text);
create index MetricData_trialJobId on MetricData(trialJobId);
create index MetricData_type on MetricData(type);

create table ExperimentProfile (
    params text,
    id text,
    execDuration integer,
    startTime integer,
    endTime integer,
    logDir text,
    nextSequenceId integer,
    revision integer);
create index ExperimentProfile_id on ExperimentProfile(id);
"""
SPACE = {
    "lr": {"_type": "uniform", "_value": [0.0001, 0.1]},
    "momentum": {"_type": "choice", "_value": [0.1, 0.9]},
}
START = 1_700_000_000_000  # ms


class Recorder:
    """Writes rows as NNI's manager does. Times are given in seconds after START."""

    def __init__(self, folder: Path, experiment_id: str = "exp00001", **config: Any) -> None:
        self.folder, self.id = folder / experiment_id, experiment_id
        self.database = self.folder / "db" / "nni.sqlite"
        self.database.parent.mkdir(parents=True)
        self._write(SCHEMA)
        self.config = {
            "experimentName": "example",
            "searchSpace": SPACE,
            "trialCommand": "python -m trial",
            "trialConcurrency": 1,
            "maxTrialNumber": 15,
            "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        } | config
        self.profile(revision=1)

    def profile(self, revision: int) -> None:
        row = (json.dumps(self.config), self.id, 60, START, None, str(self.folder), 0, revision)
        self._write("insert into ExperimentProfile values (?,?,?,?,?,?,?,?)", row)

    def event(self, time: float, trial: str, event: str, sequence: int | None = None, **data: Any) -> None:
        """`data` are the keys of the parameter record; without `parameters` the row carries none."""
        log = str(self.folder / "environments/local-env/trials" / trial)
        record = json.dumps(data) if data else ("" if event == "ADD_RESUMED" else None)
        row = (START + round(1000 * time), trial, event, record, log, sequence, None, "local-env")
        self._write("insert into TrialJobEvent values (?,?,?,?,?,?,?,?)", row)

    def run(self, time: float, trial: str, sequence: int, parameter_id: Any, **parameters: Any) -> None:
        self.event(
            time,
            trial,
            "RUNNING",
            sequence,
            parameter_id=parameter_id,
            parameter_source="algorithm",
            parameters=parameters or {"lr": 0.01 * (sequence + 1), "momentum": 0.9},
            parameter_index=0,
        )

    def metric(self, time: float, trial: str, parameter_id: Any, value: Any, position: int | None = None) -> None:
        """A final result, or with `position` an intermediate one. `value` is encoded twice, as NNI does."""
        kind, sequence = ("FINAL", 0) if position is None else ("PERIODICAL", position)
        row = (START + round(1000 * time), trial, parameter_id, kind, sequence, json.dumps(json.dumps(value)))
        self._write("insert into MetricData values (?,?,?,?,?,?)", row)

    def trial(self, sequence: int, final: Any, *epochs: Any, state: str = "SUCCEEDED", **parameters: Any) -> str:
        """A whole trial of 8 s, ten seconds after the one before; `final` None reports nothing."""
        name, time = f"t{sequence:04d}", 10.0 * sequence
        self.run(time, name, sequence, sequence, **parameters)
        for position, value in enumerate(epochs):
            self.metric(time + 1 + 0.1 * position, name, sequence, value, position)
        if final is not None:
            self.metric(time + 7, name, sequence, final)
        self.event(time + 8, name, state, sequence)
        return name

    def output(self, trial: str) -> Path:
        """The trial's output folder."""
        folder = self.folder / "environments" / "local-env" / "trials" / trial
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _write(self, sql: str, row: tuple[Any, ...] | None = None) -> None:
        with closing(sqlite3.connect(self.database)) as connection:
            connection.execute("pragma synchronous=off")
            connection.executescript(sql) if row is None else connection.execute(sql, row)
            connection.commit()


def final(accuracy: float, n: int = 200) -> dict[str, float]:
    """A final result as our trial reports it."""
    return {
        "default": accuracy,
        "epoch": 3,
        "lr": 0.01,
        "train_loss": 0.5,
        "val_loss": 0.6,
        "evaluation_top1": accuracy - 0.02,
        "evaluation_top3": min(1.0, accuracy + 0.05),
        "evaluation_macro": accuracy - 0.03,
        "evaluation_n": 2 * n,
        "validation_n": n,
        "epochs_run": 5,
        "best_epoch": 3,
        "duration_s": 4.5,
    }


GUIDED = {"TPE": {"tpe_args": {"n_startup_jobs": 1}}, "Evolution": {"population_size": 1}}
"""Arguments with which a tuner chooses all trials but the first."""


def search(folder: Path, name: str, best: float | None, tuner: str = "TPE", trials: int = 3, **changes: Any) -> Path:
    """The folder of an experiment whose last trial is its best, `best`, and whose first trials are worse; None: all failed.

    `changes`: `evaluation`, of the best trial's network (default: 2 points below `best`; False: not reported); `start`, of which the
    hyperparameters are sampled (default: `name`), so that experiments of one start begin alike; `arguments` of the tuner; `n`
    validation images; `result`, the content of the best trial's result.json; `seed`, that its trials train with; all others are keys
    of the experiment file.
    """
    own = {key: changes.pop(key, None) for key in ("evaluation", "start", "arguments", "n", "result", "seed")}
    arguments = {"optimize_mode": "maximize"} | GUIDED.get(tuner, {}) | (own["arguments"] or {})
    given = {"name": tuner} if "." not in tuner else {"className": tuner, "codeDirectory": "/somewhere"}
    settings = {"experimentName": name, "tuner": given | {"classArgs": arguments}, "maxTrialNumber": trials} | changes
    recorder, sampled = Recorder(folder, name, **settings), random.Random(own["start"] or name)
    for sequence in range(trials):
        is_last, lr = sequence == trials - 1, sampled.uniform(0.001, 0.1)
        result = None if best is None else final(best if is_last else max(0.0, best - 0.1), own["n"] or 200)
        if result and own["evaluation"] is False:
            result = {key: value for key, value in result.items() if not key.startswith("evaluation")}
        elif result and is_last and own["evaluation"] is not None:
            result["evaluation_top1"] = own["evaluation"]
        trial = recorder.trial(sequence, result, state="SUCCEEDED" if result else "FAILED", lr=lr, momentum=0.9)
        if own["seed"] is not None:
            hyperparameters = {"received": {"lr": lr, "momentum": 0.9}, "effective": {"lr": lr, "seed": own["seed"]}}
            (recorder.output(trial) / "hyperparameters.json").write_text(json.dumps(hyperparameters))
        if own["result"] and is_last:
            (recorder.output(trial) / "result.json").write_text(json.dumps(own["result"]))
    return recorder.folder
