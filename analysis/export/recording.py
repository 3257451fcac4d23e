"""Copies an experiment into a small folder that can be handed to somebody else.

It keeps what `analysis` reads: every row of NNI's database, the JSON files that a trial of ours leaves, and the ends of
the logs that explain a failure; no weights, no TensorBoard files, no other logs. Every path of this machine becomes a
neutral one, so does whatever the experiment file says about machines to log in to; names of hosts and users go from
the logs. Scores, hyperparameters, times and ids stay as they are. NNI's layout stays, so that every command works on it.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

from ..reading import database
from ..reading.locate import AnalysisError, Source, source
from ..reading.logs import TAIL_BYTES, TRIAL_LOGS, tuner_errors
from ..reading.reader import load_experiment
from ..reading.records import Experiment, Trial

KEPT = ("hyperparameters.json", "epochs.jsonl", "result.json")
_HOME = "/home/user"
_ACCESS = {"host", "user", "password", "sshkeyfile", "sshpassphrase", "pythonpath", "nnimanagerip"}
# two parts or more, not the rest of a URL or of a relative path; after \n or \t in JSON too
_PATH = re.compile(r"""(?:(?<![\w./\\~])|(?<=\\[nt]))/(?:[^\s"'\\/,:;<>()\[\]{}]+/)+[^\s"'\\/,:;<>()\[\]{}]*""")
_NEUTRAL = re.compile(r"/(?:home/user|elsewhere\d+|usr|lib|bin|dev|proc|sys)(?:/|$)")
_REMOTE_LOG = re.compile(r"^[^/\s{\"]+:~")


def record(id_or_path: str, out: Path) -> tuple[Experiment, int]:
    """Writes the experiment into the new folder `out`, whole or not at all; returns it with the bytes written.

    Raises AnalysisError where there is no such experiment, `out` exists already, or it cannot be written.
    """
    if out.exists():
        raise AnalysisError(f"{out} exists already; name a new folder with --out")
    place, experiment = source(id_or_path), load_experiment(id_or_path)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.partial-") as partial:
            copy = Path(partial) / "copy"
            _write(experiment, place, copy)
            size = sum(path.stat().st_size for path in copy.rglob("*") if path.is_file())
            copy.rename(out)
    except (OSError, sqlite3.Error) as error:
        why = getattr(error, "strerror", None) or error
        raise AnalysisError(f"cannot write {out}: {why}; name another folder with --out") from None
    return experiment, size


def _write(experiment: Experiment, place: Source, copy: Path) -> None:
    neutral = Neutral(experiment)
    (copy / "db").mkdir(parents=True)
    database.rewrite(place.database, copy / "db" / "nni.sqlite", neutral.cell)
    for trial in experiment.trials:
        if trial.folder is not None:
            environment = trial.folder.parent.parent.name if trial.folder.parent.name == "trials" else "local-env"
            _write_trial(trial, copy / "environments" / environment / "trials" / trial.trial_id, neutral)
    if tuner_errors(experiment):
        _write_end(place.folder / "log" / "dispatcher.log", copy / "log", neutral)


def _write_trial(trial: Trial, folder: Path, neutral: Neutral) -> None:
    folder.mkdir(parents=True)  # also where nothing is kept: the trial had a folder
    for name in KEPT:
        path = trial.folder / name
        if path.is_file():
            (folder / name).write_text(
                neutral.text(path.read_text(encoding="utf-8", errors="replace")), encoding="utf-8"
            )
    if trial.has_failed:
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


class Neutral:
    """Texts of one experiment without the names of the machine that it ran on.

    Known folders get a name that says what they were, and any other absolute path keeps its last part alone. Hyperparameters
    are text too: a replacement is the same everywhere, so two equal values stay equal and two different ones different.
    """

    def __init__(self, experiment: Experiment) -> None:
        config = experiment.config
        working = config.get("experimentWorkingDirectory")
        replacements = {
            str(experiment.folder): f"{_HOME}/nni-experiments/{experiment.id}",
            str(Path(working) / experiment.id) if working else "": f"{_HOME}/nni-experiments/{experiment.id}",
            str(working or ""): f"{_HOME}/nni-experiments",
            str(config.get("trialCodeDirectory") or ""): f"{_HOME}/code",
            os.path.expanduser("~"): _HOME,
        }
        self._known = [
            (re.compile(re.escape(form) + r"(?![\w.-])"), new)
            for old, new in sorted(replacements.items(), key=lambda pair: -len(pair[0]))
            if old.rstrip("/")
            for form in dict.fromkeys((old, _escaped(old), _escaped(_escaped(old))))
        ]
        self._elsewhere: dict[str, str] = {}
        names = {socket.gethostname(), socket.gethostname().partition(".")[0], _user()}
        self._names = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})\b")

    def text(self, text: str) -> str:
        """JSON or plain text with neutral paths."""
        for old, new in self._known:
            text = old.sub(new, text)
        return _PATH.sub(self._other, text)

    def log(self, text: str) -> str:
        """As `text`, and without the names of host and user. Only in logs: in a record, `adam` is an optimiser."""
        return self._names.sub("name", self.text(text))

    def cell(self, table: str, column: str, value: Any) -> Any:
        """A cell of NNI's database."""
        if not isinstance(value, str):
            return value
        if table == "ExperimentProfile" and column == "params":
            value = _without_access(value)
        if column == "logPath":
            value = _REMOTE_LOG.sub("remote:~", value)
        return self.text(value)

    def _other(self, match: re.Match[str]) -> str:
        path = match[0]
        if _NEUTRAL.match(path):
            return path
        parent, _, name = path.rstrip("/").rpartition("/")
        return f"{self._elsewhere.setdefault(parent, f'/elsewhere{len(self._elsewhere) + 1}')}/{name}"


def _without_access(params: str) -> str:
    """The experiment file without what is needed to log in to its machines."""
    try:
        return json.dumps(_removed(json.loads(params)), ensure_ascii=False, separators=(",", ":"))
    except ValueError:
        return "{}"  # an old revision that nobody can read; the newest was read before


def _removed(value: Any) -> Any:
    if isinstance(value, list):
        return [_removed(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key == "searchSpace" else "removed" if key.lower() in _ACCESS else _removed(item)
        for key, item in value.items()
    }


def _escaped(text: str) -> str:
    return json.dumps(text)[1:-1]


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no name for this user id, as in some containers
        return socket.gethostname()
