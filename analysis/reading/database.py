"""Reads the rows of an NNI database without ever disturbing the manager that writes it, and holds them to NNI's types.

Schema: `nni_node/core/sqlDatabase.js`. The journal mode is `delete`, and the manager gives up after one
second on a locked file and then stops the experiment; so a read lock must be short. Every SELECT here
takes a chunk by rowid and is fetched at once. All three tables only ever grow. SQLite keeps anything in any column: a
cell of another type than NNI writes means a damaged file.
"""

from __future__ import annotations

import itertools
import math
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import startup
from .locate import AnalysisError
from .values import load_json, read_metric

CHUNK_ROWS = 1000  # about 2 ms of read lock
_EVENTS = "timestamp, trialJobId, event, data, logPath, sequenceId, environmentId, message"
_METRICS = "timestamp, trialJobId, parameterId, type, sequence, data"


def read(path: Path, finals_only: bool = False) -> Rows:
    """Reads profile, events and metrics of the database at `path`, in the order they were written.

    Events come before metrics, so that no trial is seen as ended without the results it sent before. `finals_only`
    leaves out the rows of intermediate results.
    Raises AnalysisError for a file that is not an NNI database or holds no experiment yet.
    """
    finals = "+type = 'FINAL'" if finals_only else "1"  # +: by rowid, not by NNI's index of types
    try:
        with _open(path) as connection:
            profile = _newest_profile(connection)
            events = [_event_row(row) for row in _chunks(connection, "TrialJobEvent", _EVENTS)]
            same: dict[Any, Any] = {}
            metrics = [_metric_row(row, same) for row in _chunks(connection, "MetricData", _METRICS, finals)]
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter for a damaged text in SQLite's own message
        raise AnalysisError(
            f"{path} is not a readable NNI database ({error}); expected an NNI 3.0 nni.sqlite"
        ) from None
    if profile is None:
        raise AnalysisError(
            f"{path} holds no experiment profile: NNI had not finished starting; try again or remove it"
        )
    return Rows(profile, events, metrics)


def rewrite(path: Path, copy: Path, cell: Callable[[str, str, Any], Any]) -> None:
    """Writes all rows of the database at `path` into a new one of the same schema, each cell as `cell` gives it from
    table, column and value."""
    with _open(path) as connection, closing(sqlite3.connect(copy)) as target:
        tables = ("ExperimentProfile", "TrialJobEvent", "MetricData")
        schema = "SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql IS NOT NULL AND tbl_name IN (?, ?, ?)"
        for (sql,) in connection.execute(schema, tables).fetchall():
            target.execute(sql)
        for table in tables:
            names = [row[1] for row in connection.execute(f"PRAGMA table_info({table})").fetchall()]
            rows = (
                map(cell, itertools.repeat(table), names, row) for row in _chunks(connection, table, ", ".join(names))
            )
            target.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * len(names))})", map(tuple, rows))
        target.commit()


@contextmanager
def _open(path: Path) -> Iterator[sqlite3.Connection]:
    """A read-only connection. A manager that was killed may leave behind a journal to roll back, which a
    read-only connection cannot do: then a copy of database and journal is read instead."""
    uri = f"{path.resolve().as_uri()}?mode=ro"
    if _readable(uri, path):
        with closing(sqlite3.connect(uri, uri=True, timeout=10, isolation_level=None)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        shutil.copyfile(path, copy)
        shutil.copyfile(_journal(path), _journal(copy))
        with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
            yield connection


def _readable(uri: str, path: Path, tries: int = 5) -> bool:
    """False where a journal that was left behind prevents reading. A live manager removes its journal within milliseconds."""
    for attempt in range(tries):
        try:
            with closing(sqlite3.connect(uri, uri=True, timeout=10)) as connection:
                connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
            return True
        except sqlite3.OperationalError:
            left = _journal(path).is_file() and _journal(path).stat().st_size > 0
            if attempt == tries - 1 and not left:
                raise
            time.sleep(0.1)
    return False


def _journal(path: Path) -> Path:
    return path.with_name(path.name + "-journal")


def _chunks(
    connection: sqlite3.Connection, table: str, columns: str, condition: str = "1"
) -> Iterator[tuple[Any, ...]]:
    """The rows of `table`, one chunk per SELECT; the read lock is free whenever this yields."""
    last = 0
    query = f"SELECT rowid, {columns} FROM {table} WHERE rowid > ? AND {condition} ORDER BY rowid LIMIT {CHUNK_ROWS}"
    while rows := connection.execute(query, (last,)).fetchall():
        if rows[-1][0] <= last:  # a damaged index would be walked for ever
            raise sqlite3.DatabaseError(f"rows of {table} out of order")
        last = rows[-1][0]
        for row in rows:
            yield row[1:]


def _newest_profile(connection: sqlite3.Connection) -> dict[str, Any] | None:
    """The row of the highest revision: NNI appends one for every change and every few seconds."""
    revisions = _chunks(connection, "ExperimentProfile", "revision, rowid")
    newest = max(((revision or 0, rowid) for revision, rowid in revisions if _whole(revision)), default=None)
    if newest is None:
        return None
    columns = ("params", "id", "execDuration", "startTime", "endTime", "logDir", "nextSequenceId", "revision")
    query = f"SELECT {', '.join(columns)} FROM ExperimentProfile WHERE rowid = ?"
    profile = dict(zip(columns, connection.execute(query, (newest[1],)).fetchall()[0], strict=True))
    try:
        profile["params"] = load_json(profile["params"])
    except (TypeError, ValueError, RecursionError):
        raise AnalysisError(f"experiment {profile['id']}: the profile in its database is not JSON") from None
    return profile


def _whole(revision: Any) -> bool:
    return revision is None or isinstance(revision, int)


_TEXT = (str, type(None))
LAST_MS = 253_402_300_799_000  # the year 9999


class Event(NamedTuple):
    """A row of TrialJobEvent; `time` in ms since 1970, `data` JSON text on a trial's first row."""

    time: int
    trial_id: str
    event: str
    data: str | None
    log_path: str | None
    sequence: int | None
    environment: str | None
    message: str | None  # why the repaired manager calls a trial failed; plain NNI writes none for local trials


class Metric(NamedTuple):
    """A row of MetricData; `time` (ms) is its arrival at the manager, `value` the decoded data, `faults` what is wrong
    with it."""

    time: int
    trial_id: str
    parameter_id: str | None
    type: str
    sequence: int | None
    value: Any
    faults: tuple[str, ...]


class Rows(NamedTuple):
    """All that is needed of a database; `profile` is the newest revision, its `params` already decoded."""

    profile: dict[str, Any]
    events: list[Event]
    metrics: list[Metric]


def _is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_MS


def _event_row(row: tuple[Any, ...]) -> Event:
    """Raises AnalysisError for a cell of another type."""
    time, trial_id, event, data, log_path, sequence, environment, message = row
    texts = all(type(cell) in _TEXT for cell in (trial_id, data, log_path, environment, message))
    if not (texts and _is_time(time) and type(event) is str and _is_count(sequence)):
        raise _damaged("TrialJobEvent", Event(*row))
    return Event(*row)


def _metric_row(row: tuple[Any, ...], same: dict[Any, Any]) -> Metric:
    """Decodes the row's data. `same` keeps one text for all rows of the same id or type. Raises AnalysisError for a
    cell of another type."""
    time, trial_id, parameter_id, kind, sequence, data = row
    texts = type(trial_id) in _TEXT and type(parameter_id) in _TEXT and type(data) in _TEXT
    if not (texts and _is_time(time) and type(kind) is str and _is_count(sequence)):
        raise _damaged("MetricData", Metric(*row, ()))
    names = (same.setdefault(text, text) for text in (trial_id, parameter_id, kind))
    return Metric(time, *names, sequence, *read_metric(data))


def _is_count(value: Any) -> bool:
    return value is None or (type(value) is int and -(2**53) < value < 2**53)


def _damaged(table: str, row: Event | Metric) -> AnalysisError:
    cells = ", ".join(
        f"{name} {value!r:.30}" for name, value in row._asdict().items() if name not in ("data", "value", "faults")
    )
    return AnalysisError(f"{table} has a row that NNI cannot have written ({cells}): the database is damaged")


_FIELDS = {
    "experimentName": str,
    "searchSpace": dict,
    "trialCommand": str,
    "trialCodeDirectory": str,
    "trialConcurrency": int,
    "maxTrialNumber": int,
    "tuner": dict,
    "advisor": dict,
}
_TUNER = {"name": str, "className": str, "classArgs": dict}
_WORDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list", float: "a number"}


def check_profile(profile: dict[str, Any]) -> None:
    """`profile`: the row of ExperimentProfile, its `params` decoded. Raises AnalysisError naming the field; a field that
    is absent or null is left to the reader."""
    name, params = profile.get("id"), profile["params"]
    if not isinstance(name, str) or not name:
        raise AnalysisError(f"the experiment's profile has the id {_short(name)}, expected a text: it is damaged")
    if not isinstance(params, dict):
        _check(name, "", {"params": params}, {"params": dict})
        raise AnalysisError(f"experiment {name}: the profile in its database is empty: it is damaged")
    if profile["startTime"] is not None and not _is_time(profile["startTime"]):
        raise AnalysisError(f"experiment {name}: it started at {_short(profile['startTime'])}, which is no time in ms")
    _check(name, "", params, _FIELDS)
    for key in ("tuner", "advisor"):
        tuner = params.get(key) or {}
        _check(name, f"{key}.", tuner, _TUNER)
        _check_arguments(name, f"{key}.classArgs.", tuner)


def _check_arguments(name: str, place: str, tuner: dict[str, Any]) -> None:
    """Those that `startup` counts by; another tuner's may be anything."""
    kind = startup.key_of(str(tuner.get("name") or tuner.get("className") or ""))
    arguments = tuner.get("classArgs") or {}
    if kind in startup.SEEDED:
        _check(name, place, arguments, {"first": list, "initial": float, "initial_seed": float, "initial_design": str})
    if kind in startup.TPES:
        _check(name, place, arguments, {"tpe_args": dict})
        _check(name, f"{place}tpe_args.", arguments.get("tpe_args") or {}, {"n_startup_jobs": float})
    if kind in startup.EVOLUTIONS:
        _check(name, place, arguments, {"population_size": float})


def _check(name: str, place: str, fields: dict[str, Any], types: dict[str, type]) -> None:
    for key, kind in types.items():
        value = fields.get(key)
        accepted = (int, float) if kind is float else kind
        odd = isinstance(value, bool) or not isinstance(value, accepted)
        if value is not None and (odd or (isinstance(value, float) and not math.isfinite(value))):
            raise AnalysisError(
                f"experiment {name}: the profile in its database has {place}{key} = {_short(value)}, expected "
                f"{_WORDS[kind]}: it is damaged, or not NNI 3.0's"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
