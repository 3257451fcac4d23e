"""The rows of NNI's tables, held to the types that NNI writes: SQLite itself keeps anything in any column."""

from __future__ import annotations

from typing import Any, NamedTuple

from .locate import AnalysisError

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


class Metric(NamedTuple):
    """A row of MetricData; `time` (ms) is its arrival at the manager, `data` a JSON text inside JSON."""

    time: int
    trial_id: str
    parameter_id: str | None
    type: str
    sequence: int | None
    data: str


class Rows(NamedTuple):
    """All that is needed of a database; `profile` is the newest revision, its `params` already decoded."""

    profile: dict[str, Any]
    events: list[Event]
    metrics: list[Metric]


def is_time(value: Any) -> bool:
    return type(value) is int and 0 <= value <= LAST_MS


def event_row(row: tuple[Any, ...]) -> Event:
    """Raises AnalysisError for a cell of another type."""
    event = Event(*row)
    sound = is_time(event.time) and isinstance(event.event, str) and _texts(event, (1, 3, 4, 6))
    if not (sound and _number(event.sequence)):
        raise _damaged("TrialJobEvent", event)
    return event


def metric_row(row: tuple[Any, ...]) -> Metric:
    """Raises AnalysisError for a cell of another type."""
    metric = Metric(*row)
    sound = is_time(metric.time) and isinstance(metric.type, str) and _texts(metric, (1, 2, 5))
    if not (sound and _number(metric.sequence)):
        raise _damaged("MetricData", metric)
    return metric


def _texts(row: tuple[Any, ...], places: tuple[int, ...]) -> bool:
    return all(row[place] is None or isinstance(row[place], str) for place in places)


def _number(value: Any) -> bool:
    return value is None or (type(value) is int and abs(value) < 2**53)


def _damaged(table: str, row: Event | Metric) -> AnalysisError:
    cells = ", ".join(f"{name} {value!r:.30}" for name, value in row._asdict().items() if name != "data")
    return AnalysisError(f"{table} has a row that NNI cannot have written ({cells}): the database is damaged")
