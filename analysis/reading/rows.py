"""The rows of NNI's tables, held to the types that NNI writes: SQLite itself keeps anything in any column."""

from __future__ import annotations

from typing import Any, NamedTuple

from .locate import AnalysisError
from .values import read_metric

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


def is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_MS


def event_row(row: tuple[Any, ...]) -> Event:
    """Raises AnalysisError for a cell of another type."""
    time, trial_id, event, data, log_path, sequence, environment, message = row
    texts = all(type(cell) in _TEXT for cell in (trial_id, data, log_path, environment, message))
    if not (texts and is_time(time) and type(event) is str and _is_count(sequence)):
        raise _damaged("TrialJobEvent", Event(*row))
    return Event(*row)


def metric_row(row: tuple[Any, ...], same: dict[Any, Any]) -> Metric:
    """Decodes the row's data. `same` keeps one text for all rows of the same id or type. Raises AnalysisError for a
    cell of another type."""
    time, trial_id, parameter_id, kind, sequence, data = row
    texts = type(trial_id) in _TEXT and type(parameter_id) in _TEXT and type(data) in _TEXT
    if not (texts and is_time(time) and type(kind) is str and _is_count(sequence)):
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
