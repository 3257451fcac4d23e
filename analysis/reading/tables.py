"""Tidy tables: a row per trial, a row per epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .records import Experiment
from .values import flatten


def trials_table(experiment: Experiment) -> pd.DataFrame:
    """One row per trial, in the order of proposal; failed trials stay in.

    Columns: trial_id, sequence, state, start and end (UTC), duration_s, then `params_<name>` (those the trial
    really ran with) and `final_<key>` (a plain number is `final_default`). Nested values are flattened with
    dots: `params_layer._name`; lists are JSON text. The prefixes keep a hyperparameter and a metric of
    one name apart. A missing value is NaN, as is a final result that was NaN.
    """
    trials = experiment.trials
    columns = {
        "trial_id": [trial.trial_id for trial in trials],
        "sequence": [trial.sequence for trial in trials],
        "state": [trial.state for trial in trials],
        "start": [trial.start for trial in trials],
        "end": [trial.end for trial in trials],
        "duration_s": [trial.duration_s for trial in trials],
    }
    columns |= _spread([trial.parameters for trial in trials], "params")
    columns |= _spread([trial.final for trial in trials], "final")
    table = _frame(columns)
    for column in ("start", "end"):
        table[column] = pd.to_datetime(table[column].astype("float64"), unit="ms", utc=True).dt.as_unit("ms")
    table["duration_s"] = table["duration_s"].astype("float64")
    return table


def epochs_table(experiment: Experiment) -> pd.DataFrame:
    """One row per intermediate result: trial_id, sequence, epoch (position, from 1), time (arrival, UTC), then
    `intermediate_<key>`, a plain number as `intermediate_default`."""
    results = [(trial, *pair) for trial in experiment.trials for pair in enumerate(trial.intermediates, start=1)]
    columns = {
        "trial_id": [trial.trial_id for trial, _, _ in results],
        "sequence": [trial.sequence for trial, _, _ in results],
        "epoch": [epoch for _, epoch, _ in results],
        "time": [result.time for _, _, result in results],
    }
    table = _frame(columns | _spread([result.value for _, _, result in results], "intermediate"))
    table["epoch"] = table["epoch"].astype("int64")
    table["time"] = pd.to_datetime(table["time"].astype("float64"), unit="ms", utc=True).dt.as_unit("ms")
    return table


def _spread(values: list[Any], prefix: str) -> dict[str, list[Any]]:
    """A column for each key that occurs in any value, in order of first appearance, as `flatten` names it."""
    columns: dict[str, list[Any]] = {}
    for row, value in enumerate(values):
        for name, cell in flatten(value, prefix).items() if value is not None else ():
            column = columns.get(name)
            if column is None:
                column = columns[name] = [None] * len(values)
            column[row] = cell
    return columns


def _frame(columns: dict[str, list[Any]]) -> pd.DataFrame:
    table = pd.DataFrame({name: _column(cells) for name, cells in columns.items()}, columns=list(columns))
    table["sequence"] = table["sequence"].astype("Int64")
    return table


def _column(cells: list[Any]) -> Any:
    """Whole numbers with gaps stay whole numbers, instead of 250.0."""
    present = [cell for cell in cells if cell is not None]
    if 0 < len(present) < len(cells) and all(type(cell) is int and abs(cell) < 2**63 for cell in present):
        return pd.array(cells, dtype="Int64")
    return cells
