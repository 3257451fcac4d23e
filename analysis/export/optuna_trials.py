"""NNI's trials as Optuna's.

A trial that succeeded with a finite score is COMPLETE, one that the assessor stopped PRUNED; every other ended one is
FAIL, as is one without an end when nothing runs any more. NNI's own word is the attribute `nni_state`.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from ..reading.logs import failure_reason
from ..reading.records import ENDED, Experiment, Trial
from ..reading.values import flatten
from .optuna_space import distributions, flat


def frozen_trials(experiment: Experiment) -> list[FrozenTrial]:
    """In the order of proposal, which becomes Optuna's number, from 0.

    Steps are epochs, from 1; an intermediate result that is no number is left out. Times are local ones, as Optuna's
    are. Attributes: `nni_trial_id`, `nni_sequence`, `nni_state`, `chosen_by_tuner` (absent where the tuner is not
    known), `parameters_mismatch`, `reason` of a trial without success, and each further key of the final result.
    """
    space = experiment.config.get("searchSpace")
    params = [dict(flat(space, trial.parameters)) for trial in experiment.trials]
    known = distributions(space, params)
    chosen = experiment.chosen or [None] * len(params)
    return [
        _frozen(trial, number, experiment.state, (params[number], known), chosen[number])
        for number, trial in enumerate(experiment.trials)
    ]


def _frozen(
    trial: Trial,
    number: int,
    experiment_state: str,
    parameters: tuple[dict[str, Any], dict[str, Any]],
    chosen: bool | None,
) -> FrozenTrial:
    state = _state(trial, experiment_state)
    values, known = parameters
    usable = {name: value for name, value in values.items() if name in known and _usable(value)}
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
        params=usable,
        distributions={name: known[name] for name in usable},
        user_attrs=_attributes(trial, chosen, experiment_state),
        system_attrs={},
        intermediate_values=steps,
        trial_id=number + 1,
    )


def _state(trial: Trial, experiment_state: str) -> TrialState:
    if trial.score is not None:
        return TrialState.COMPLETE
    if trial.state == "EARLY_STOPPED":
        return TrialState.PRUNED
    if trial.state in ENDED or experiment_state != "RUNNING":
        return TrialState.FAIL
    return TrialState.RUNNING if trial.start is not None else TrialState.WAITING


def _end(trial: Trial, start: int) -> int:
    """Of a trial that was cut off: its last sign of life."""
    return trial.end or max((result.time for result in trial.intermediates), default=trial.result_time or start)


def _attributes(trial: Trial, chosen: bool | None, experiment_state: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if isinstance(trial.final, dict):
        for key, value in flatten(trial.final, "").items():
            if key != "_default":
                found[key.removeprefix("_")] = (
                    value if not isinstance(value, float) or math.isfinite(value) else str(value)
                )
    if trial.score is None and trial.final is not None:
        found["nni_final"] = str(trial.final)
    found |= {"nni_trial_id": trial.trial_id, "nni_sequence": trial.sequence, "nni_state": trial.state}
    found["parameters_mismatch"] = trial.parameters_mismatch
    if chosen is not None:
        found["chosen_by_tuner"] = chosen
    if trial.state in ENDED and trial.state != "SUCCEEDED":
        found["reason"] = failure_reason(trial)
    elif trial.state == "SUCCEEDED" and trial.score is None:
        found["reason"] = "; ".join(trial.warnings)
    elif trial.state not in ENDED and experiment_state != "RUNNING":
        found["reason"] = "no end on record: cut off when NNI's manager died"
    return found


def _number(value: Any) -> float | None:
    """As `values.score`, and NaN and infinities too."""
    if isinstance(value, dict):
        value = value.get("default")
    return value if isinstance(value, (int, float)) else None


def _usable(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _local(time: int) -> datetime:
    return datetime.fromtimestamp(time / 1000)
