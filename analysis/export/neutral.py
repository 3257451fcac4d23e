"""Texts of an experiment without the names of the machine that it ran on.

Known folders get a name that says what they were, and any other absolute path keeps its last part alone. Hyperparameters
are text too: a replacement is the same everywhere, so two equal values stay equal and two different ones different.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import socket
from pathlib import Path
from typing import Any

from ..reading.records import Experiment

_HOME = "/home/user"
_ACCESS = {"host", "user", "password", "sshkeyfile", "sshpassphrase", "pythonpath", "nnimanagerip"}
# two parts or more, not the rest of a URL or of a relative path; after \n or \t in JSON too
_PATH = re.compile(r"""(?:(?<![\w./\\~])|(?<=\\[nt]))/(?:[^\s"'\\/,:;<>()\[\]{}]+/)+[^\s"'\\/,:;<>()\[\]{}]*""")
_NEUTRAL = re.compile(r"/(?:home/user|elsewhere\d+|usr|lib|bin|dev|proc|sys)(?:/|$)")
_REMOTE_LOG = re.compile(r"^[^/\s{\"]+:~")


class Neutral:
    """Replaces; one for each experiment, as it remembers the folders that it has met."""

    def __init__(self, experiment: Experiment) -> None:
        config = experiment.config
        working = config.get("experimentWorkingDirectory")
        known = {
            str(experiment.folder): f"{_HOME}/nni-experiments/{experiment.id}",
            str(Path(working) / experiment.id) if working else "": f"{_HOME}/nni-experiments/{experiment.id}",
            str(working or ""): f"{_HOME}/nni-experiments",
            str(config.get("trialCodeDirectory") or ""): f"{_HOME}/code",
            os.path.expanduser("~"): _HOME,
        }
        self._known = [
            (re.compile(re.escape(form) + r"(?![\w.-])"), new)
            for old, new in sorted(known.items(), key=lambda pair: -len(pair[0]))
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
