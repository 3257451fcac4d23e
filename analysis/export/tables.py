"""Writes the tables of an experiment to files that other tools read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pandas as pd

from ..reading.locate import AnalysisError
from ..reading.records import Experiment
from ..reading.tables import epochs_table, trials_table

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
