"""Reads one experiment, finished or running, from NNI's database: profile, and the trials rebuilt from event and metric rows.

NNI itself rebuilds them in `nni_node/core/nniDataStore.js` (`getTrialJobsByReplayEvents`). Trial numbers and parameter ids can
repeat after a resume; only the trial id is unique.
"""

from __future__ import annotations

import gc
import json
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from . import database, locate
from .database import Event, Metric, Rows
from .records import ENDED, PRUNED, Experiment, Intermediate, Trial
from .values import Unreadable, load_json, read_event, score


def load_experiment(id_or_path: str | os.PathLike[str], finals_only: bool = False) -> Experiment:
    """Reads an experiment, finished or running, by id, folder or nni.sqlite file. Raises AnalysisError.

    With `finals_only` the trials have no intermediate results: much quicker, and enough for a list."""
    source = locate.source(id_or_path)
    with _no_collections():
        rows = database.read(source.database, finals_only)
        database.check_profile(rows.profile)
        trials, warnings = replay(rows, source.folder)
    profile, config = rows.profile, rows.profile["params"]
    return Experiment(
        id=str(profile["id"]),
        name=str(config.get("experimentName") or ""),
        state=_state(str(profile["id"]), source.folder, config.get("maxTrialNumber"), trials),
        folder=source.folder,
        config=config,
        started=profile["startTime"],
        trials=tuple(trials),
        warnings=tuple(warnings),
    )


@contextmanager
def _no_collections() -> Iterator[None]:
    """Python looks for cycles after every few hundred new objects, over and over; records have none."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _state(experiment_id: str, folder: Path, max_trials: int | None, trials: list[Trial]) -> str:
    """A copy of a running experiment elsewhere does not run."""
    ended = sum(trial.state in ENDED for trial in trials)
    entry = locate.entry_of(experiment_id, folder)
    outstanding = ended < len(trials) or max_trials is None or ended < max_trials
    if entry and outstanding and entry.get("status") in locate.ACTIVE and locate.is_running(entry):
        return "RUNNING"
    return "DONE" if max_trials is not None and ended >= max_trials else "STOPPED"


_STATES = {"USER_TO_CANCEL": "USER_CANCELED", "ADD_RESUMED": "WAITING", "ADD_CUSTOMIZED": "WAITING"}


class _Proposal(NamedTuple):
    """A parameter set as NNI recorded it, with its id (text) and the time of its event row (ms)."""

    time: int
    trial_id: str  # the trial that it was meant for
    parameter_id: str
    parameters: dict[str, Any]
    customised: bool
    kinds: list[str]  # serialised objects that were in it


class _Own(NamedTuple):
    """What belongs to one trial: its rows in their order, its output folder, its first and last session."""

    events: list[Event]
    metrics: list[Metric]
    proposals: list[_Proposal]
    folder: Path | None
    sessions: tuple[int, int]


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
    proposals = {trial_id: _proposals(own) for trial_id, own in events.items()}
    by_id = _by_parameter_id(proposals.values())
    sessions, begins = _sessions(rows.events)
    # <experiment>/environments/<environment>/trials/<trial id>; right for a moved experiment too
    folders = {path.name: path for path in folder.glob("environments/*/trials/*")}
    trials = []
    for trial_id, own in events.items():
        place = folders.get(trial_id) or _local(own[-1].log_path)
        trials.append(
            _trial(_Own(own, metrics.pop(trial_id, []), proposals[trial_id], place, sessions[trial_id]), by_id)
        )
    strays = sum(map(len, metrics.values()))
    concurrency = int(rows.profile["params"].get("trialConcurrency") or 1)
    return _with_proposal_times(trials, begins, concurrency), _warnings(trials, strays)


def _trial(own: _Own, by_id: dict[str, list[_Proposal]]) -> Trial:
    """`by_id`: the proposals of all trials."""
    warnings: list[str] = []
    events = own.events
    starts = [event.time for event in events if event.event == "RUNNING"]
    if len(starts) > 1:  # run again after a crash: the rows of the broken attempt stay in the database
        again = [metric for metric in own.metrics if metric.time >= starts[-1]]
        own = own._replace(metrics=again or [metric for metric in own.metrics if metric.type == "FINAL"])
    state = _STATES.get(events[-1].event, events[-1].event)  # NNI's `getJobStatusByLatestEvent`: the last in row order
    final, result_time = _final(own.metrics, state, warnings)
    parameters = _parameter_fields(own, by_id, warnings)
    return Trial(
        trial_id=events[0].trial_id,
        sequence=next((event.sequence for event in events if event.sequence is not None), None),
        state=state,
        proposed=events[0].time,
        start=starts[-1] if starts else None,
        end=_end(events, starts, state),
        intermediates=_intermediates(own.metrics, warnings),
        final=final,
        result_time=result_time,
        session=own.sessions[0],
        last_session=own.sessions[1],
        attempts=len(starts),
        folder=own.folder,
        warnings=tuple(warnings),
        message=next((event.message for event in reversed(events) if event.message), ""),
        cancel_asked=any(event.event == "USER_TO_CANCEL" for event in events),
        **parameters,
    )


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
    elif isinstance(value, dict) and value.get("interrupted") and state != PRUNED:
        warnings.append(f"interrupted after epoch {value.get('epochs_run')}: its best so far counts, not evaluated")
    if state in ENDED and state not in ("SUCCEEDED", PRUNED) and score(value) is not None:
        warnings.append(f"reported {score(value):.4g} and then ended as {state}: not ranked")
    return value, rows[0].time


def _intermediates(metrics: list[Metric], warnings: list[str]) -> tuple[Intermediate, ...]:
    """By NNI's position, not by row: rows of one trial arrive out of order."""
    results: dict[int, Intermediate] = {}
    for metric in metrics:
        if metric.type == "PERIODICAL":
            position = len(results) if metric.sequence is None else metric.sequence
            if position in results:
                warnings.append(f"intermediate result {position} came twice; the first counts")
                continue
            value = _value(metric, f"intermediate result {position}", warnings)
            results[position] = Intermediate(position, metric.time, value)
    return tuple(results[position] for position in sorted(results))


def _value(metric: Metric, what: str, warnings: list[str]) -> Any:
    warnings.extend(f"{what} {fault}" for fault in metric.faults)
    return metric.value


def _local(log_path: str | None) -> Path | None:
    path = Path(log_path) if log_path else None
    return path if path is not None and path.is_dir() else None


def _warnings(trials: list[Trial], strays: int) -> list[str]:
    n, warnings = len(trials), []
    swapped = sum(trial.parameters_mismatch for trial in trials)
    unknown = sum(trial.parameters_source == "event" and trial.attempts > 0 for trial in trials)
    sets = {json.dumps(trial.parameters, sort_keys=True) for trial in trials}
    repeated = n - len(sets) if any(trial.parameters for trial in trials) else 0
    pruned = sum(trial.state == PRUNED for trial in trials)
    sessions = 1 + max((trial.last_session for trial in trials), default=0)
    if swapped:
        warnings.append(
            f"{swapped} of {n} trials ran with other parameters than NNI shows; the true ones are used here"
        )
    if unknown:
        warnings.append(
            f"{unknown} of {n} trials reported nothing: their parameters are NNI's record, which may be wrong"
        )
    if pruned:
        warnings.append(
            f"ended early by the assessor: {pruned} of {n} trials; the best epoch so far of each counts, without a score on the "
            "evaluation split (python -m trial --evaluate FILE gives it)"
        )
    if sessions > 1:
        times = "once" if sessions == 2 else f"{sessions - 1} times"
        warnings.append(f"resumed {times}: trial numbers may repeat, Evolution forgets and a seeded TPE repeats itself")
    if repeated:
        warnings.append(f"{repeated} of {n} trials repeat the hyperparameters of an earlier trial")
    if strays:
        warnings.append(f"{strays} results belong to no trial of this experiment")
    return warnings


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _proposals(events: list[Event]) -> list[_Proposal]:
    proposals = []
    for event in events:
        if not event.data or not event.data.strip():
            continue
        try:
            data, kinds = read_event(event.data)
        except Unreadable:
            continue
        if isinstance(data, dict) and isinstance(data.get("parameters"), dict):
            parameter_id, customised = str(data.get("parameter_id")), data.get("parameter_source") == "customized"
            proposals.append(_Proposal(event.time, event.trial_id, parameter_id, data["parameters"], customised, kinds))
    return proposals


def _by_parameter_id(proposals: Iterable[list[_Proposal]]) -> dict[str, list[_Proposal]]:
    index: dict[str, list[_Proposal]] = defaultdict(list)
    for proposal in sorted((item for own in proposals for item in own), key=lambda item: item.time):
        index[proposal.parameter_id].append(proposal)
    return index


def _parameter_fields(own: _Own, by_id: dict[str, list[_Proposal]], warnings: list[str]) -> dict[str, Any]:
    """The fields of Trial that say which hyperparameters it ran with, and how that is known.

    NNI 3.0 keeps one queue of parameters per experiment, and whichever trial asks first gets the oldest entry,
    so the event row of a trial may show another trial's parameters. The parameter id in the trial's own
    metrics is right, and so is the hyperparameters.json that our trial writes.
    """
    metrics = own.metrics
    recorded = own.proposals[-1] if own.proposals else _Proposal(0, "", "", {}, False, [])
    actual, source = recorded, "event"
    if metrics and metrics[-1].parameter_id is not None:
        actual, source = _resolve(metrics[-1], by_id, warnings) or recorded, "metric"
    elif metrics and recorded.parameter_id == "None":
        source = "metric"  # added by a person: NNI gives such a set no id, and the metric shows none
    if len({metric.parameter_id for metric in metrics}) > 1:
        warnings.append("its results name several parameter ids; the last counts")
    warnings.extend(f"parameters carry a serialised object ({kind}): not read" for kind in actual.kinds)
    parameters, file = actual.parameters, _parameters_file(own.folder, warnings)
    mismatch = actual.parameter_id != recorded.parameter_id
    received = file.get("received")
    if isinstance(received, dict) and received != parameters:
        if source == "metric":
            warnings.append("hyperparameters.json differs from the set its results name; the file counts")
        parameters, source, mismatch = received, "file", received != recorded.parameters
    if mismatch:
        warnings.append("ran with other parameters than NNI shows for it")
    effective = file.get("effective")
    return {
        "parameters": parameters,
        "recorded": recorded.parameters,
        "proposed_for": actual.trial_id,
        "parameters_source": source,
        "parameters_mismatch": mismatch,
        "effective": effective if isinstance(effective, dict) else {},
        "customised": recorded.customised,
    }


def _resolve(metric: Metric, by_id: dict[str, list[_Proposal]], warnings: list[str]) -> _Proposal | None:
    """The latest proposal of that id not later than the metric: ids start again after a resume."""
    proposals = by_id.get(str(metric.parameter_id), [])
    if not proposals:
        warnings.append(f"its results name parameter id {metric.parameter_id}, which is not in the database")
        return None
    return proposals[max(0, bisect_right([proposal.time for proposal in proposals], metric.time) - 1)]


def _parameters_file(folder: Path | None, warnings: list[str]) -> dict[str, Any]:
    """What the trial itself wrote about its parameters: `received` from NNI, and `effective`."""
    try:
        content = load_json((folder / "hyperparameters.json").read_text(encoding="utf-8")) if folder else {}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.append(f"hyperparameters.json cannot be read ({type(error).__name__})")
        return {}
    return content if isinstance(content, dict) else {}


def _sessions(events: list[Event]) -> tuple[dict[str, tuple[int, int]], list[int]]:
    """Session (0, 1, ...) of each trial's first and of its last event, and when each session began (ms).

    A resume shows as ADD_RESUMED rows, or, with nothing in flight, as a trial number given out again.
    """
    sessions: dict[str, tuple[int, int]] = {}
    begins: list[int] = []
    numbers: set[int] = set()
    previous = ""
    for event in events:
        if not event.trial_id:
            continue
        new = event.trial_id not in sessions and event.sequence is not None
        resumed = event.event == "ADD_RESUMED" and previous != "ADD_RESUMED"
        if not begins or resumed or (new and event.sequence in numbers):
            begins.append(event.time)
            numbers = set()
        if new:
            numbers.add(event.sequence)
        session = len(begins) - 1
        sessions[event.trial_id] = (sessions.get(event.trial_id, (session,))[0], session)
        previous = event.event
    return sessions, begins


def _with_proposal_times(trials: list[Trial], begins: list[int], concurrency: int) -> list[Trial]:
    """The trials with `proposed` set; never later than the trial's first event, where it was set before.

    From `nni_node/core/nnimanager.js`: at the start of a session NNI asks the tuner for as many trials as may
    run at a time, and for one more at each end of a trial. Trials cut off by a crash go to the head of the
    queue, so after a resume a trial can be proposed long before it starts.
    """
    ends: dict[int, list[int]] = defaultdict(list)
    for trial in trials:
        if trial.end is not None:
            ends[trial.last_session].append(trial.end)
    for times in ends.values():
        times.sort()
    requests: dict[int, int] = defaultdict(int)  # per session
    dated = []
    for trial in trials:
        if trial.customised:
            dated.append(trial)
            continue
        time = _request_time(requests[trial.session] - concurrency, begins[trial.session], ends[trial.session])
        requests[trial.session] += 1
        dated.append(trial if time is None or time >= trial.proposed else replace(trial, proposed=time))
    return dated


def _request_time(position: int, begin: int, ends: list[int]) -> int | None:
    """Time of the request that is `position` places behind the first ones; None where no end is known."""
    if position < 0:
        return begin
    return ends[position] if position < len(ends) else None
