"""Copies an experiment into a small folder that can be handed to somebody else.

It keeps what `analysis` reads: every row of NNI's database, the JSON files that a trial of ours leaves, and the ends of
the logs that explain a failure; no weights, no TensorBoard files, no other logs. Every path of this machine becomes a
neutral one, so does whatever the experiment file says about machines to log in to; names of hosts and users go from
the logs. Scores, hyperparameters, times and ids stay as they are. NNI's layout stays, so that every command works on it.
"""

from __future__ import annotations

import sqlite3
import tempfile
from pathlib import Path

from ..reading import database
from ..reading.locate import AnalysisError, Source, source
from ..reading.logs import TAIL_BYTES, TRIAL_LOGS, tuner_errors
from ..reading.reader import load_experiment
from ..reading.records import ENDED, Experiment, Trial
from .neutral import Neutral

KEPT = ("hyperparameters.json", "epochs.jsonl", "result.json")


def record(id_or_path: str, out: Path) -> tuple[Experiment, int]:
    """Writes the experiment into the new folder `out`, whole or not at all; returns it with the bytes written.

    Raises AnalysisError where there is no such experiment, `out` exists already, or it cannot be written.
    """
    if out.exists():
        raise AnalysisError(f"{out} exists already; name a new folder with --out")
    found, experiment = source(id_or_path), load_experiment(id_or_path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.partial-") as partial:
            copy = Path(partial) / "copy"
            _write(experiment, found, copy)
            size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
            copy.rename(out)
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise AnalysisError(f"cannot write {out}: {why}; name another folder with --out") from None
    return experiment, size


def _write(experiment: Experiment, found: Source, copy: Path) -> None:
    neutral = Neutral(experiment)
    (copy / "db").mkdir(parents=True)
    database.rewrite(found.database, copy / "db" / "nni.sqlite", neutral.cell)
    for trial in experiment.trials:
        if trial.folder is not None:
            environment = trial.folder.parent.parent.name if trial.folder.parent.name == "trials" else "local-env"
            _write_trial(trial, copy / "environments" / environment / "trials" / trial.trial_id, neutral)
    if tuner_errors(experiment):
        _write_end(found.folder / "log" / "dispatcher.log", copy / "log", neutral)


def _write_trial(trial: Trial, folder: Path, neutral: Neutral) -> None:
    folder.mkdir(parents=True)  # also where nothing is kept: it tells that the trial had a folder
    for name in KEPT:
        path = trial.folder / name
        if path.is_file():
            (folder / name).write_text(
                neutral.text(path.read_text(encoding="utf-8", errors="replace")), encoding="utf-8"
            )
    if trial.state in ENDED and trial.state != "SUCCEEDED":
        for name in TRIAL_LOGS:
            _write_end(trial.folder / name, folder, neutral)


def _write_end(log: Path, folder: Path, neutral: Neutral) -> None:
    """The end of a log, from the start of a line."""
    if not log.is_file() or log.stat().st_size == 0:
        return
    content = log.read_bytes()
    if len(content) > TAIL_BYTES:
        content = content[-TAIL_BYTES:].partition(b"\n")[2]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / log.name).write_text(neutral.log(content.decode("utf-8", errors="replace")), encoding="utf-8")
