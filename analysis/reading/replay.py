"""Rebuilds the trials of an experiment from NNI's event and metric rows.

NNI itself does the same in `nni_node/core/nniDataStore.js` (`getTrialJobsByReplayEvents`). Trial numbers
and parameter ids can repeat after a resume; only the trial id is unique.
"""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

from .parameters import Proposal, by_parameter_id, parameter_fields, proposals_of
from .records import ENDED, Intermediate, Trial
from .rows import Event, Metric, Rows
from .sessions import sessions_of, with_proposal_times
from .values import score

_STATES = {"USER_TO_CANCEL": "USER_CANCELED", "ADD_RESUMED": "WAITING", "ADD_CUSTOMIZED": "WAITING"}


def replay(rows: Rows, folder: Path) -> tuple[list[Trial], list[str]]:
    """Returns the trials in the order of their first event, and warnings about the whole experiment.

    Uses up `rows.metrics`, so that what a trial has taken is held once.
    """
    events: dict[str, list[Event]] = defaultdict(list)
    metrics: dict[str, list[Metric]] = defaultdict(list)
    for event in rows.events:
        if event.trial_id:
            events[event.trial_id].append(event)
    for metric in rows.metrics:
        metrics[metric.trial_id].append(metric)
    rows.metrics.clear()
    proposals = {trial_id: proposals_of(own) for trial_id, own in events.items()}
    by_id = by_parameter_id(proposals.values())
    sessions, begins = sessions_of(rows.events)
    folders = _trial_folders(folder)
    trials = []
    for trial_id, own in events.items():
        place = folders.get(trial_id) or _local(own[-1].log_path)
        trials.append(_trial(own, metrics.pop(trial_id, []), (proposals[trial_id], by_id), (place, sessions[trial_id])))
    strays = sum(map(len, metrics.values()))
    concurrency = int(rows.profile["params"].get("trialConcurrency") or 1)
    return with_proposal_times(trials, begins, concurrency), _warnings(trials, strays)


def _trial(
    own: list[Event],
    metrics: list[Metric],
    proposals: tuple[list[Proposal], dict[str, list[Proposal]]],
    place: tuple[Path | None, tuple[int, int]],
) -> Trial:
    """One trial from its rows; `proposals` are its own and those of all trials by id, `place` its output
    folder and its first and last session."""
    warnings: list[str] = []
    starts = [event.time for event in own if event.event == "RUNNING"]
    if len(starts) > 1:  # run again after a crash: the rows of the broken attempt stay in the database
        metrics = [metric for metric in metrics if metric.time >= starts[-1]] or [
            metric for metric in metrics if metric.type == "FINAL"
        ]
    state = _state(own)
    final, result_time = _final(metrics, state, warnings)
    facts = parameter_fields(metrics, proposals, place[0], warnings)
    return Trial(
        trial_id=own[0].trial_id,
        sequence=next((event.sequence for event in own if event.sequence is not None), None),
        state=state,
        proposed=own[0].time,
        start=starts[-1] if starts else None,
        end=_end(own, starts, state),
        intermediates=_intermediates(metrics, warnings),
        final=final,
        result_time=result_time,
        session=place[1][0],
        last_session=place[1][1],
        attempts=len(starts),
        folder=place[0],
        warnings=tuple(warnings),
        message=next((event.message for event in reversed(own) if event.message), ""),
        cancel_asked=any(event.event == "USER_TO_CANCEL" for event in own),
        **facts,
    )


def _state(own: list[Event]) -> str:
    """NNI's `getJobStatusByLatestEvent`: the last event in row order."""
    return _STATES.get(own[-1].event, own[-1].event)


def _end(own: list[Event], starts: list[int], state: str) -> int | None:
    if state not in ENDED:
        return None
    ends = [event.time for event in own if event.event in ENDED and event.time >= (starts[-1] if starts else 0)]
    return ends[-1] if ends else own[-1].time


def _final(metrics: list[Metric], state: str, warnings: list[str]) -> tuple[Any, int | None]:
    """The first FINAL row, as NNI's REST server takes it; but of the last attempt where there is one."""
    rows = [metric for metric in metrics if metric.type == "FINAL"]
    if len(rows) > 1:
        warnings.append(f"{len(rows)} final results; the first counts")
    if not rows:
        if state == "SUCCEEDED":
            warnings.append("ended without a final result")
        return None, None
    value = _value(rows[0], "final result", warnings)
    if score(value) is None:
        warnings.append(f"final result is no finite number ({_short(value)}): not ranked")
    elif isinstance(value, dict) and value.get("interrupted"):
        warnings.append(f"interrupted after epoch {value.get('epochs_run')}: its best so far counts, not evaluated")
    if state in ENDED and state != "SUCCEEDED" and score(value) is not None:
        warnings.append(f"reported {score(value):.4g} and then ended as {state}: not ranked")
    return value, rows[0].time


def _intermediates(metrics: list[Metric], warnings: list[str]) -> tuple[Intermediate, ...]:
    """By NNI's position, not by row: rows of one trial arrive out of order."""
    found: dict[int, Intermediate] = {}
    for metric in metrics:
        if metric.type == "PERIODICAL":
            position = len(found) if metric.sequence is None else metric.sequence
            if position in found:
                warnings.append(f"intermediate result {position} came twice; the first counts")
                continue
            value = _value(metric, f"intermediate result {position}", warnings)
            found[position] = Intermediate(position, metric.time, value)
    return tuple(found[position] for position in sorted(found))


def _value(metric: Metric, what: str, warnings: list[str]) -> Any:
    warnings.extend(f"{what} {fault}" for fault in metric.faults)
    return metric.value


def _trial_folders(folder: Path) -> dict[str, Path]:
    """`<experiment>/environments/<environment>/trials/<trial id>`; works for a moved experiment too."""
    return {path.name: path for path in folder.glob("environments/*/trials/*")}


def _local(log_path: str | None) -> Path | None:
    path = Path(log_path) if log_path else None
    return path if path is not None and path.is_dir() else None


def _warnings(trials: list[Trial], strays: int) -> list[str]:
    n, found = len(trials), []
    swapped = sum(trial.parameters_mismatch for trial in trials)
    unknown = sum(trial.parameters_source == "event" and trial.attempts > 0 for trial in trials)
    sets = {json.dumps(trial.parameters, sort_keys=True) for trial in trials}
    repeated = n - len(sets) if any(trial.parameters for trial in trials) else 0
    sessions = 1 + max((trial.last_session for trial in trials), default=0)
    if swapped:
        found.append(f"{swapped} of {n} trials ran with other parameters than NNI shows; the true ones are used here")
    if unknown:
        found.append(f"{unknown} of {n} trials reported nothing: their parameters are NNI's record, which may be wrong")
    if sessions > 1:
        times = "once" if sessions == 2 else f"{sessions - 1} times"
        found.append(f"resumed {times}: trial numbers may repeat, Evolution forgets and a seeded TPE repeats itself")
    if repeated:
        found.append(f"{repeated} of {n} trials repeat the hyperparameters of an earlier trial")
    if strays:
        found.append(f"{strays} results belong to no trial of this experiment")
    return found


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."
