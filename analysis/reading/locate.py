"""Where NNI keeps its experiments, and whether one still runs.

NNI's registry is `~/nni-experiments/.experiment`, one JSON object from id to entry; each experiment has a
folder `<working directory>/<id>` with `db/nni.sqlite` inside. Everything here only reads.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from .values import load_json

ACTIVE = ("INITIALIZED", "RUNNING", "NO_MORE_TRIAL", "TUNER_NO_MORE_TRIAL", "STOPPING")
"""What the registry says of an experiment whose manager has something to do; stale after a crash."""


class AnalysisError(Exception):
    """A mistake that a person can put right; the message is one line."""


class Source(NamedTuple):
    """An experiment on disk: its folder (logs, trials' outputs) and its database file."""

    folder: Path
    database: Path


def home() -> Path:
    """NNI's folder of experiments; `$HOME` moves it."""
    return Path(os.path.expanduser("~")) / "nni-experiments"


def registry(place: Path | None = None) -> dict[str, dict[str, Any]]:
    """NNI's list of experiments in the folder `place` (default: `home()`), by id; entries have `id`, `status`, `pid`,
    `port`, `logDir`, ...

    The recorded status is stale after a crash: ask `is_running`. An unreadable registry counts as empty, as
    it does for NNI; NNI writes it in place, so a half-written file is read again before that.
    """
    path = (place or home()) / ".experiment"
    for _ in range(5):
        try:
            content = load_json(path.read_text(encoding="utf-8"))
        except OSError:
            return {}
        except (ValueError, RecursionError):
            if not path.exists() or time.time() - path.stat().st_mtime > 2:
                return {}  # nobody is writing it
            time.sleep(0.05)
            continue
        entries = content.items() if isinstance(content, dict) else ()
        return {key: entry for key, entry in entries if isinstance(entry, dict) and _is_path(entry.get("logDir"), key)}
    return {}


def source(id_or_path: str | os.PathLike[str]) -> Source:
    """Folder and database of an experiment, from its id, its folder, or its nni.sqlite file. Raises AnalysisError with what
    was named, where it was looked for, and the ids that exist."""
    requested = os.fspath(id_or_path)
    entry = registry().get(requested)
    folders = [Path(entry["logDir"]) / requested] if entry and entry.get("logDir") else []
    path = Path(requested).expanduser()
    if path.is_file():
        path = path.resolve()
        return Source(path.parent.parent if path.parent.name == "db" else path.parent, path)
    folders += [path.resolve(), home() / requested]
    for folder in folders:
        for database in (folder / "db" / "nni.sqlite", folder / "nni.sqlite"):
            if os.path.isfile(database):
                return Source(folder, database)
    looked = " and ".join(dict.fromkeys(str(folder) for folder in folders))
    raise AnalysisError(f"no experiment {requested!r}: no db/nni.sqlite in {looked}; {_known()}")


def known_ids() -> list[str]:
    """Ids of all experiments that have a database: those in the registry, then folders it forgot."""
    return [folder.name for folder in folders() if (folder / "db").is_dir()]


def folders(place: Path | None = None) -> list[Path]:
    """Folders of all experiments of the registry in `place` (default: `home()`), there or not, then those with a
    database that it forgot, in `place` and in the working directories that it names."""
    place, entries = place or home(), registry(place)
    folders = {key: _folder(key, entry, place) for key, entry in entries.items()}
    for directory in dict.fromkeys([place, *(folder.parent for folder in folders.values())]):
        for path in sorted(directory.glob("*/db/nni.sqlite")):
            if path.parts[-3] != "_latest":
                folders.setdefault(path.parts[-3], path.parent.parent)
    return list(folders.values())


def entry_of(experiment_id: str, folder: Path) -> dict[str, Any] | None:
    """The registry's entry for the experiment in `folder`, from the registry at home or, for an experiment of another
    home, the one beside the folder; None where there is none. A copy of an experiment elsewhere has none."""
    for place in (home(), folder.parent):
        entry = registry(place).get(experiment_id)
        if entry and os.path.realpath(Path(entry.get("logDir") or "") / experiment_id) == os.path.realpath(folder):
            return entry
    return None


def _folder(experiment_id: str, entry: dict[str, Any], place: Path) -> Path:
    """Where the registry says; of a registry copied from another machine, beside it."""
    registered = Path(entry.get("logDir") or place) / experiment_id
    beside = place / experiment_id
    return (
        beside if not os.path.isdir(registered) and os.path.isdir(beside) else registered
    )  # unlike pathlib's, never an OSError


def _is_path(value: Any, key: str) -> bool:
    return (value is None or isinstance(value, str)) and "\0" not in f"{value}{key}"


def is_running(entry: dict[str, Any]) -> bool:
    """Is the manager of this registry entry alive? Its process must be NNI's and name the experiment,
    because a pid is used again after a crash."""
    try:
        command = " ".join(psutil.Process(int(entry["pid"])).cmdline())
    except (KeyError, TypeError, ValueError, OverflowError, psutil.Error):
        return False
    return "nni_node" in command and str(entry.get("id")) in command


def _known(most: int = 12) -> str:
    ids = known_ids()
    if not ids:
        return f"there is no experiment in {home()} (start one, or name a folder or an nni.sqlite file)"
    more = f" and {len(ids) - most} more" if len(ids) > most else ""
    return f"experiments here: {', '.join(ids[-most:])}{more}"
