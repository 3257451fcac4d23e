"""Builds small experiments in NNI's own database schema (nni_node/core/sqlDatabase.js)."""

from __future__ import annotations

import json
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
