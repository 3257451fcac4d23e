"""Writes an experiment as an Optuna study, an SQLite file that optuna-dashboard and Optuna's own tools open.

Optuna makes the file (`create_study`, `set_user_attr`), so its schema is that of the Optuna installed here. The trials go in with
one statement per table: `study.add_trials` asks the database several times for each value and takes 65 ms of processor time
for a trial of 25 epochs (Optuna 5.0), 11 minutes for 10,000 trials, against seconds here.

A trial that succeeded with a finite score is COMPLETE, one that the assessor stopped PRUNED; every other ended one is
FAIL, as is one without an end when nothing runs any more. NNI's own word is the attribute `nni_state`.

NNI's search space as Optuna's distributions:

    choice                          categorical; lists and dicts as JSON text
    choice of dicts with `_name`    `layer._name` categorical, and `layer.conv.k` for what belongs to that choice alone
    randint [low, high)             integers low to high - 1
    uniform, loguniform             floats, the latter in logarithms
    quniform                        floats in steps where low and high are multiples of q, else without steps
    qloguniform                     floats in logarithms: Optuna has no steps there
    normal, lognormal, with or      mu plus or minus 6 sigma: Optuna's distributions have bounds, and say nothing of
      without q                     where within them a value is likely

A distribution is widened to hold what trials really had: a person may add trials, and a space may be changed while the
experiment runs. What has no entry in the space (Batch, PBT) is described by its values. NNI's own space goes with the
study as the attribute `nni_search_space`. Source: `nni/common/hpo_utils/formatting.py`.
"""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.trial import FrozenTrial, TrialState

from ..reading.locate import AnalysisError
from ..reading.logs import failure_reason
from ..reading.records import ENDED, PRUNED, Experiment, Trial
from ..reading.values import flatten

_ROWS = {
    "trials": "trial_id, number, study_id, state, datetime_start, datetime_complete",
    "trial_values": "trial_id, objective, value, value_type",
    "trial_params": "trial_id, param_name, param_value, distribution_json",
    "trial_user_attributes": "trial_id, key, value_json",
    "trial_intermediate_values": "trial_id, step, intermediate_value, intermediate_value_type",
}


def write_study(experiment: Experiment, out: Path) -> int:
    """Writes all trials into the new file `out`; returns their number.

    Raises AnalysisError where `out` exists already (it may hold other studies) or the file cannot be written.
    """
    if out.exists():
        raise AnalysisError(f"{out} exists already and may hold other studies; name a new file with --out")
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


def frozen_trials(experiment: Experiment) -> list[FrozenTrial]:
    """In the order of proposal, which becomes Optuna's number, from 0.

    Steps are epochs, from 1; an intermediate result that is no number is left out. Times are local ones, as Optuna's
    are. Attributes: `nni_trial_id`, `nni_sequence`, `nni_state`, `chosen_by_tuner` (absent where the tuner is not
    known), `parameters_mismatch`, `reason` of a trial without success, and each further key of the final result.
    """
    space = experiment.config.get("searchSpace")
    params = [dict(flat(space, trial.parameters)) for trial in experiment.trials]
    searched = distributions(space, params)
    chosen = experiment.chosen or [None] * len(params)
    trials = []
    for number, (trial, values) in enumerate(zip(experiment.trials, params)):
        usable = {name: value for name, value in values.items() if name in searched and _usable(value)}
        attributes = _attributes(trial, chosen[number], experiment.state)
        frozen = _frozen(trial, number, _state(trial, experiment.state), attributes)
        frozen.params, frozen.distributions = usable, {name: searched[name] for name in usable}
        trials.append(frozen)
    return trials


def _frozen(trial: Trial, number: int, state: TrialState, attributes: dict[str, Any]) -> FrozenTrial:
    """Without its parameters."""
    steps = {
        epoch: float(value)
        for epoch, result in enumerate(trial.intermediates, start=1)
        if (value := _number(result.value)) is not None
    }
    value = trial.score if state == TrialState.COMPLETE else None
    if state == TrialState.PRUNED and steps and not math.isnan(last := list(steps.values())[-1]):
        value = last
    start = trial.start or trial.proposed
    return FrozenTrial(
        number=number,
        state=state,
        value=value,
        datetime_start=None if state == TrialState.WAITING else _local(start),
        datetime_complete=_local(_end(trial, start)) if state.is_finished() else None,
        params={},
        distributions={},
        user_attrs=attributes,
        system_attrs={},
        intermediate_values=steps,
        trial_id=number + 1,
    )


def _state(trial: Trial, experiment_state: str) -> TrialState:
    if trial.state == PRUNED:
        return TrialState.PRUNED
    if trial.score is not None:
        return TrialState.COMPLETE
    if trial.state in ENDED or experiment_state != "RUNNING":
        return TrialState.FAIL
    return TrialState.RUNNING if trial.start is not None else TrialState.WAITING


def _end(trial: Trial, start: int) -> int:
    """Of a trial that was cut off: its last event or result."""
    return trial.end or max((result.time for result in trial.intermediates), default=trial.result_time or start)


def _attributes(trial: Trial, chosen: bool | None, experiment_state: str) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    if isinstance(trial.final, dict):
        for key, value in flatten(trial.final, "").items():
            if key != "_default":
                attributes[key.removeprefix("_")] = value if _usable(value) else str(value)
    if trial.score is None and trial.final is not None:
        attributes["nni_final"] = str(trial.final)
    attributes |= {"nni_trial_id": trial.trial_id, "nni_sequence": trial.sequence, "nni_state": trial.state}
    attributes["parameters_mismatch"] = trial.parameters_mismatch
    if chosen is not None:
        attributes["chosen_by_tuner"] = chosen
    if trial.has_failed or trial.state == PRUNED:
        attributes["reason"] = failure_reason(trial)
    elif trial.state == "SUCCEEDED" and trial.score is None:
        attributes["reason"] = "; ".join(trial.warnings)
    elif trial.state not in ENDED and experiment_state != "RUNNING":
        attributes["reason"] = "no end on record: cut off when NNI's manager died"
    return attributes


def _number(value: Any) -> float | None:
    """As `values.score`, and NaN and infinities too."""
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, (int, float)) else None


def _usable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _local(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000)


def flat(space: Any, parameters: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Name and value of each parameter, nested ones too."""
    for key, value in parameters.items():
        branches = _branches(space, key)
        name = value.get("_name") if isinstance(value, dict) else None
        if isinstance(name, str) and name in branches:
            yield f"{prefix}{key}._name", name
            rest = {inner: item for inner, item in value.items() if inner != "_name"}
            yield from flat(branches[name], rest, f"{prefix}{key}.{name}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False) if isinstance(value, (list, dict)) else value


def distributions(space: Any, params: list[dict[str, Any]]) -> dict[str, BaseDistribution]:
    """One for each name that occurs in `params`, the flat parameters of all trials; holds every finite value."""
    values: dict[str, list[Any]] = {}
    for own in params:
        for name, value in own.items():
            if not isinstance(value, float) or math.isfinite(value):
                values.setdefault(name, []).append(value)
    entries = dict(_entries(space))
    return {name: _distribution(entries.get(name), own) for name, own in values.items()}


def _entries(space: Any, prefix: str = "") -> Iterator[tuple[str, tuple[str, list[Any]]]]:
    """Flat name, type and arguments of each entry of the space."""
    for key, entry in (space if isinstance(space, dict) else {}).items():
        if branches := _branches(space, key):
            yield f"{prefix}{key}._name", ("choice", list(branches))
            for name, branch in branches.items():
                yield from _entries(branch, f"{prefix}{key}.{name}.")
        elif isinstance(entry, dict) and isinstance(entry.get("_value"), list):
            yield f"{prefix}{key}", (str(entry.get("_type")), entry["_value"])


def _branches(space: Any, key: str) -> dict[str, dict[str, Any]]:
    """The alternatives of a nested choice by name; none where the entry is no such choice."""
    entry = space.get(key) if isinstance(space, dict) else None
    options = entry.get("_value") if isinstance(entry, dict) and entry.get("_type") == "choice" else None
    if not isinstance(options, list) or not all(
        isinstance(option, dict) and isinstance(option.get("_name"), str) for option in options
    ):
        return {}
    return {option["_name"]: {key: item for key, item in option.items() if key != "_name"} for option in options}


def _distribution(entry: tuple[str, list[Any]] | None, values: list[Any]) -> BaseDistribution:
    kind, arguments = entry or ("", [])
    if kind == "choice":
        options = [
            json.dumps(item, ensure_ascii=False) if isinstance(item, (list, dict)) else item for item in arguments
        ]
        return _categorical(options + values)
    if not all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return _categorical(values)
    whole = all(isinstance(value, int) for value in values)
    try:
        low, high, log, step = _range(kind, [float(argument) for argument in arguments])
    except (TypeError, ValueError, OverflowError):
        low, high, log, step = min(values), max(values), False, None
        kind = "randint" if whole else kind
    low, high = min(low, *values), max(high, *values)
    if kind == "randint" and whole:
        return IntDistribution(int(low), int(high))
    if step is not None:
        places = [(value - low) / step for value in values]
        if all(abs(place - round(place)) < 1e-8 for place in places):
            return FloatDistribution(low, high, step=step)
    return FloatDistribution(low, high, log=log and low > 0)


def _range(kind: str, arguments: list[float]) -> tuple[float, float, bool, float | None]:
    """Lowest, highest, logarithmic, step. Raises ValueError for a type or number of arguments not known here."""
    if kind == "randint":
        low, high = arguments
        return math.ceil(low), math.ceil(high) - 1, False, None
    if kind in ("normal", "lognormal", "qnormal", "qlognormal"):
        mu, sigma = arguments[:2]
        low, high = mu - 6 * sigma, mu + 6 * sigma
        return (math.exp(low), math.exp(high), True, None) if "log" in kind else (low, high, False, None)
    if kind not in ("uniform", "loguniform", "quniform", "qloguniform"):
        raise ValueError(kind)
    low, high = arguments[:2]
    step = arguments[2] if kind == "quniform" and _on_grid(*arguments) else None
    return low, high, "log" in kind, step


def _on_grid(low: float, high: float, q: float) -> bool:
    """Are both ends multiples of q, so that Optuna's steps, counted from low, are NNI's, counted from 0?"""
    exact_low, exact_high, exact_q = (Fraction(str(number)) for number in (low, high, q))
    return exact_q > 0 and exact_low % exact_q == 0 and exact_high % exact_q == 0


def _categorical(options: list[Any]) -> CategoricalDistribution:
    """Each option once, in order; 1, 1.0 and True are one option to Optuna."""
    return CategoricalDistribution(list(dict.fromkeys(options)))
