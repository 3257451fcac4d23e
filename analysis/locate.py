"""Where NNI keeps its experiments, and whether one still runs.

NNI's registry is `~/nni-experiments/.experiment`, one JSON object from id to entry; each experiment has a
folder `<working directory>/<id>` with `db/nni.sqlite` inside. Everything here only reads.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil


class AnalysisError(Exception):
    """A mistake that a person can put right; the message is one line."""


class Source(NamedTuple):
    """An experiment on disk: its folder (logs, trials' outputs) and its database file."""

    folder: Path
    database: Path


def home() -> Path:
    """NNI's folder of experiments; `$HOME` moves it."""
    return Path(os.path.expanduser("~")) / "nni-experiments"


def registry() -> dict[str, dict[str, Any]]:
    """NNI's list of experiments, by id; entries have `id`, `status`, `pid`, `port`, `logDir`, ...

    The recorded status is stale after a crash: ask `is_running`. An unreadable registry counts as empty, as
    it does for NNI; NNI writes it in place, so a half-written file is read again before that.
    """
    for _ in range(5):
        try:
            content = json.loads((home() / ".experiment").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return {}
        except ValueError:
            time.sleep(0.05)
            continue
        entries = content.items() if isinstance(content, dict) else ()
        return {key: entry for key, entry in entries if isinstance(entry, dict)}
    return {}


def find(id_or_path: str | os.PathLike[str]) -> Path:
    """The folder of an experiment, from its id, its folder, or its nni.sqlite file.

    Raises AnalysisError with what was asked, where it was looked for, and the ids that exist.
    """
    return source(id_or_path).folder


def source(id_or_path: str | os.PathLike[str]) -> Source:
    """As `find`, with the database file beside the folder."""
    asked = os.fspath(id_or_path)
    entry = registry().get(asked)
    folders = [Path(entry["logDir"]) / asked] if entry and entry.get("logDir") else []
    path = Path(asked).expanduser()
    if path.is_file():
        path = path.resolve()
        return Source(path.parent.parent if path.parent.name == "db" else path.parent, path)
    folders += [path.resolve(), home() / asked]
    for folder in folders:
        for database in (folder / "db" / "nni.sqlite", folder / "nni.sqlite"):
            if database.is_file():
                return Source(folder, database)
    looked = " and ".join(dict.fromkeys(str(folder) for folder in folders))
    raise AnalysisError(f"no experiment {asked!r}: no db/nni.sqlite in {looked}; {_known()}")


def known_ids() -> list[str]:
    """Ids of all experiments that have a database: those in the registry, then folders it forgot."""
    ids = [key for key, entry in registry().items() if (Path(entry.get("logDir") or home()) / key / "db").is_dir()]
    ids += [path.parent.parent.name for path in sorted(home().glob("*/db/nni.sqlite")) if path.parts[-3] != "_latest"]
    return list(dict.fromkeys(ids))


def is_running(entry: dict[str, Any]) -> bool:
    """Is the manager of this registry entry alive? Its process must be NNI's and name the experiment,
    because a pid is used again after a crash."""
    try:
        command = " ".join(psutil.Process(int(entry["pid"])).cmdline())
    except (KeyError, TypeError, ValueError, psutil.Error):
        return False
    return "nni_node" in command and str(entry.get("id")) in command


def _known(shown: int = 12) -> str:
    ids = known_ids()
    if not ids:
        return f"there is no experiment in {home()} (start one, or name a folder or an nni.sqlite file)"
    more = f" and {len(ids) - shown} more" if len(ids) > shown else ""
    return f"experiments here: {', '.join(ids[-shown:])}{more}"
