"""When the tuner was asked for each trial, and where `nnictl resume` began anew.

From `nni_node/core/nnimanager.js`: at the start of a session NNI asks the tuner for as many trials as may
run at a time, and for one more at each end of a trial. Trials cut off by a crash go to the head of the
queue, so after a resume a trial can be proposed long before it starts.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from .records import Trial
from .rows import Event


def sessions_of(events: list[Event]) -> tuple[dict[str, tuple[int, int]], list[int]]:
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


def with_proposal_times(trials: list[Trial], begins: list[int], concurrency: int) -> list[Trial]:
    """The trials with `proposed` set; never later than the trial's first event, where it was set before."""
    ends: dict[int, list[int]] = defaultdict(list)
    for trial in trials:
        if trial.end is not None:
            ends[trial.last_session].append(trial.end)
    for times in ends.values():
        times.sort()
    asked: dict[int, int] = defaultdict(int)
    dated = []
    for trial in trials:
        if trial.customised:
            dated.append(trial)
            continue
        time = _asked_at(asked[trial.session] - concurrency, begins[trial.session], ends[trial.session])
        asked[trial.session] += 1
        dated.append(trial if time is None or time >= trial.proposed else replace(trial, proposed=time))
    return dated


def _asked_at(position: int, begin: int, ends: list[int]) -> int | None:
    """Time of the request that is `position` places behind the first ones; None where no end is known."""
    if position < 0:
        return begin
    return ends[position] if position < len(ends) else None
