"""Writes an experiment as an Optuna study, an SQLite file that optuna-dashboard and Optuna's own tools open.

Optuna makes the file, so its schema is that of the Optuna installed here. The rows go in with one statement a table:
Optuna's `add_trial` asks the database several times for each value, which takes 20 ms for a trial of 25 epochs.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..reading.locate import AnalysisError
from ..reading.records import Experiment

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_ROWS = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_user_attributes": "trial_id, key, value_json",
    "trial_intermediate_values": "trial_id, step, intermediate_value, intermediate_value_type",
}


def write_study(experiment: Experiment, out: Path) -> int:
    """Writes all trials into the new file `out`; returns their number.

    Raises AnalysisError where Optuna is not installed, `out` exists already (it may hold other studies), or the file
    cannot be written.
    """
    if out.exists():
        raise AnalysisError(f"{out} exists already and may hold other studies; name a new file with --out")
    try:
        from .optuna_trials import frozen_trials
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "optuna":
            raise
        raise AnalysisError("the format optuna needs Optuna, which is not installed here: pip install optuna") from None
    trials = frozen_trials(experiment)
    try:
        with tempfile.TemporaryDirectory() as folder:  # its name is one that a database address can hold
            study, partial = Path(folder) / "study.db", out.with_name(f".{out.name}.partial")
            _create(experiment, study)
            _fill(study, trials)
            out.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(study, partial)
            partial.rename(out)
    except (OSError, sqlite3.Error) as error:
        raise AnalysisError(f"cannot write {out}: {getattr(error, 'strerror', None) or error}") from None
    return len(trials)


def _create(experiment: Experiment, path: Path) -> None:
    import optuna

    storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        name = f"{experiment.name} {experiment.id}".strip()
        study = optuna.create_study(storage=storage, study_name=name, direction=experiment.optimise_mode)
        attributes = {
            "nni_experiment_id": experiment.id,
            "nni_state": experiment.state,
            "nni_tuner": experiment.tuner,
            "nni_tuner_arguments": experiment.class_args,
            "nni_search_space": experiment.config.get("searchSpace"),
            "nni_warnings": list(experiment.warnings),
        }
        for key, value in attributes.items():
            study.set_user_attr(key, value)
    finally:
        optuna.logging.set_verbosity(before)
        storage.remove_session()
        storage.engine.dispose()


def _fill(path: Path, trials: list[FrozenTrial]) -> None:
    with closing(sqlite3.connect(path)) as connection:
        (study_id,) = connection.execute("SELECT study_id FROM studies").fetchone()
        for table, columns in _ROWS.items():
            marks = ", ".join("?" * len(columns.split(",")))
            rows = (row for trial in trials for row in _rows(table, trial, study_id))
            connection.executemany(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
        connection.commit()


def _rows(table: str, trial: FrozenTrial, study_id: int) -> Iterator[tuple[Any, ...]]:
    """The trial's rows of one table, as `optuna/storages/_rdb/models.py` describes it."""
    from optuna.distributions import distribution_to_json

    key = trial.number + 1
    if table == "trials":
        times = (trial.datetime_start, trial.datetime_complete)
        yield (
            key,
            trial.number,
            study_id,
            trial.state.name,
            *(time and f"{time:%Y-%m-%d %H:%M:%S.%f}" for time in times),
        )
    elif table == "trial_values" and trial.value is not None:
        yield key, 0, *_stored(trial.value)
    elif table == "trial_params":
        for name, value in trial.params.items():
            distribution = trial.distributions[name]
            yield key, name, distribution.to_internal_repr(value), distribution_to_json(distribution)
    elif table == "trial_user_attributes":
        for name, value in trial.user_attrs.items():
            yield key, name, json.dumps(value)
    elif table == "trial_intermediate_values":
        for step, value in trial.intermediate_values.items():
            yield key, step, *_stored(value)


def _stored(value: float) -> tuple[float | None, str]:
    """Optuna keeps what SQL has no number for as a kind."""
    if math.isfinite(value):
        return value, "FINITE"
    return None, "NAN" if math.isnan(value) else "INF_POS" if value > 0 else "INF_NEG"
