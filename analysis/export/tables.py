"""Tidy tables, a row per trial or per epoch, and the files that other tools read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..reading.locate import AnalysisError
from ..reading.records import Experiment
from ..reading.values import flatten


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


FORMATS = ("csv", "json", "parquet", "optuna")


def export(
    experiment: Experiment, file_format: str, out: Path, epochs_out: Path | None = None
) -> list[tuple[Path, int]]:
    """Writes the trials to `out`, and the epochs to `epochs_out`, in one of `FORMATS`.

    Returns each file with its number of rows. Raises AnalysisError where a file cannot be written. An Optuna study
    holds the epochs itself.
    """
    if file_format == "optuna":
        if epochs_out is not None:
            raise AnalysisError("an Optuna study holds the epochs itself; remove --epochs")
        try:
            from .optuna import write_study
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] != "optuna":
                raise
            raise AnalysisError(
                "the format optuna needs Optuna, which is not installed here: pip install optuna"
            ) from None
        return [(out, write_study(experiment, out))]
    written = [write_table(trials_table(experiment), file_format, out)]
    if epochs_out is not None:
        written.append(write_table(epochs_table(experiment), file_format, epochs_out))
    return written


def write_table(table: pd.DataFrame, file_format: str, out: Path) -> tuple[Path, int]:
    """JSON is an array of objects, strict: missing and non-finite numbers are null, times ISO 8601."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        if file_format == "csv":
            table.to_csv(out, index=False, date_format="%Y-%m-%dT%H:%M:%S.%fZ")
        elif file_format == "json":
            out.write_text(_json_rows(table), encoding="utf-8")
        else:
            _one_type_a_column(table).to_parquet(out, index=False)
    except OSError as error:
        raise AnalysisError(f"cannot write {out}: {error.strerror or error}") from None
    return out, len(table)


def _json_rows(table: pd.DataFrame) -> str:
    """A row per line."""
    names = list(table.columns)
    columns = [map(_plain, table[name].tolist()) for name in names]
    rows = (dict(zip(names, cells)) for cells in zip(*columns))
    encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    return "[\n" + ",\n".join(map(encode, rows)) + "\n]\n"


def _plain(cell: Any) -> Any:
    if cell is None or cell is pd.NA or cell is pd.NaT:
        return None
    if isinstance(cell, pd.Timestamp):
        return cell.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if isinstance(cell, float):
        return cell if math.isfinite(cell) else None
    return cell.item() if hasattr(cell, "item") else cell


def _one_type_a_column(table: pd.DataFrame) -> pd.DataFrame:
    """Parquet has one type per column; where a choice mixes numbers and texts, all become texts."""
    table = table.copy()
    for column in table.columns:
        present = table[column].dropna()
        if present.dtype == object and present.map(type).nunique() > 1:
            numbers = present.map(lambda cell: isinstance(cell, (int, float)) and not isinstance(cell, bool)).all()
            table[column] = table[column].astype("float64") if numbers else table[column].map(str, na_action="ignore")
    return table
