"""Reads the rows of an NNI database without ever disturbing the manager that writes it.

Schema: `nni_node/core/sqlDatabase.js`. The journal mode is `delete`, and the manager gives up after one
second on a locked file and then stops the experiment; so a read lock must be short. Every SELECT here
takes a chunk by rowid and is fetched at once. All three tables only ever grow.
"""

from __future__ import annotations

import itertools
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .locate import AnalysisError
from .rows import Rows, event_row, metric_row
from .values import load_json

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
            events = [event_row(row) for row in _chunks(connection, "TrialJobEvent", _EVENTS)]
            same: dict[Any, Any] = {}
            metrics = [metric_row(row, same) for row in _chunks(connection, "MetricData", _METRICS, finals)]
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
    """A read-only connection. A manager that was killed may leave a journal to roll back, which a
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
    """False where a left journal stands in the way. A live manager's journal goes within milliseconds."""
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
    """The rows of `table`, a chunk a SELECT; the read lock is free whenever this yields."""
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
