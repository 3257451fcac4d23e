"""Tidy tables: a row a trial, a row an epoch."""

from __future__ import annotations

from typing import Any

import pandas as pd

from .records import Experiment
from .values import flatten

TRIAL_COLUMNS = ["trial_id", "sequence", "state", "start", "end", "duration_s"]
EPOCH_COLUMNS = ["trial_id", "sequence", "epoch", "time"]


def trials_table(experiment: Experiment) -> pd.DataFrame:
    """One row a trial, in the order of proposal; failed trials stay in.

    Columns: trial_id, sequence, state, start and end (UTC), duration_s, then `params_<name>` (those the trial
    really ran with) and `final_<key>` (a plain number is `final_default`). Nested values are flattened with
    dots: `params_layer._name`; lists are JSON text. The prefixes keep a hyperparameter and a metric of
    one name apart. A missing value is NaN, as is a final result that was NaN.
    """
    rows = []
    for trial in experiment.trials:
        row = dict(
            zip(
                TRIAL_COLUMNS,
                (trial.trial_id, trial.sequence, trial.state, trial.start, trial.end),
                strict=False,
            )
        )
        row["duration_s"] = trial.duration_s
        row |= flatten(trial.parameters, "params") if trial.parameters else {}
        row |= flatten(trial.final, "final") if trial.final is not None else {}
        rows.append(row)
    table = _frame(rows, TRIAL_COLUMNS, ("params_", "final_"))
    for column in ("start", "end"):
        table[column] = pd.to_datetime(table[column].astype("float64"), unit="ms", utc=True).dt.as_unit("ms")
    table["duration_s"] = table["duration_s"].astype("float64")
    return table


def epochs_table(experiment: Experiment) -> pd.DataFrame:
    """One row an intermediate result: trial_id, sequence, epoch (position, from 1), time (arrival, UTC), then
    `intermediate_<key>`, a plain number as `intermediate_default`."""
    rows = []
    for trial in experiment.trials:
        for epoch, result in enumerate(trial.intermediates, start=1):
            row = {
                "trial_id": trial.trial_id,
                "sequence": trial.sequence,
                "epoch": epoch,
                "time": result.time,
            }
            row |= flatten(result.value, "intermediate") if result.value is not None else {}
            rows.append(row)
    table = _frame(rows, EPOCH_COLUMNS, ("intermediate_",))
    table["epoch"] = table["epoch"].astype("int64")
    table["time"] = pd.to_datetime(table["time"].astype("float64"), unit="ms", utc=True).dt.as_unit("ms")
    return table


def _frame(rows: list[dict[str, Any]], fixed: list[str], prefixes: tuple[str, ...]) -> pd.DataFrame:
    """A column for each key that occurs in any row, grouped by prefix, in order of first appearance."""
    seen = dict.fromkeys(key for row in rows for key in row)
    columns = fixed + [key for prefix in prefixes for key in seen if key.startswith(prefix)]
    table = pd.DataFrame({column: _column([row.get(column) for row in rows]) for column in columns}, columns=columns)
    table["sequence"] = table["sequence"].astype("Int64")
    return table


def _column(cells: list[Any]) -> Any:
    """Whole numbers with gaps stay whole numbers, instead of 250.0."""
    present = [cell for cell in cells if cell is not None]
    if 0 < len(present) < len(cells) and all(type(cell) is int and abs(cell) < 2**63 for cell in present):
        return pd.array(cells, dtype="Int64")
    return cells
