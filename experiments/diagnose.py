"""Has a running experiment ended, and in which way? Judgements over one look at it, without any effect.

NNI itself knows DONE, STOPPED and ERROR. The others are deaths that it does not show: `/check-status` still says RUNNING
with a dead tuner, a queue that cannot run, or trials that fail one like the other.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from nni.experiment.config.utils import parse_time

from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial
from experiments.config import is_local, requested_gpus
from experiments.logs import failure_kind, log_of, why_no_result

GONE_S = 5.0  # the manager's process is gone for so long; nnictl registers it a moment after its start
HUNG_S = 90.0  # the process is there and answers nothing
TUNERLESS_S = 5.0  # no tuner process for so long, while NNI says RUNNING
SETTLE_S = 5.0  # between the end of a trial and the start of the next one
NO_GPU_S = 20.0  # the manager has submitted a trial, and this machine has fewer GPUs than it requests
QUEUE_S = 180.0  # the same, where nothing is missing: a busy machine starts slowly, and so does one behind SSH
SILENT_S = 90.0  # no trial runs and the tuner proposes none, without a line in its log
SPARE_S = 300.0  # for starting and ending, beyond the experiment's own limits
NO_LIMIT_S = 7 * 24 * 3600.0  # of an experiment that sets no duration itself


@dataclass(frozen=True)
class Limits:
    """What a person may choose about watching."""

    stop_after_failures: int = 3  # equal ones in a row; 0: never
    stall_minutes: float = 30.0  # without a new result, a grown log or a written file; 0: never


@dataclass(frozen=True)
class Snapshot:
    """One look at a running experiment. All durations in seconds; `now` and `since` in seconds since 1970."""

    now: float
    since: float  # this session's start: earlier failures were seen by somebody else
    watched_s: float
    status: str | None  # NNI's word; None where nobody answered
    errors: tuple[str, ...]
    silent_s: float  # since the manager's last answer
    gone_s: float  # its process is not there
    tunerless_s: float  # the tuner's process is not there
    tuner_death: str | None  # the exception that ended the tuner, by its log
    idle_s: float  # since a trial last ran
    queued: bool  # the manager submitted a trial that has not been started
    waits_for_gpu: bool  # it requests GPUs that are there, perhaps taken by another program
    stopped_by_hand: bool  # by the manager's log: it did not shut down by itself
    record: Record | None
    cause: str = ""  # why a manager that is gone ended, by its log
    signs: dict[str, float] = field(default_factory=dict)  # running trial: its last sign of life, seconds since 1970


class Verdict(NamedTuple):
    """state: NNI's DONE, STOPPED or ERROR, or one that NNI has no word for. reason: one line, "" where all went well.

    DEAD (the tuner died), LOST (the manager left), HUNG (it answers no more), EXHAUSTED (the search space has no more
    points), STUCK (a trial cannot be started), FAILING (equal failures in a row), STALLED (a trial makes no progress),
    TIMEOUT (longer than its own limits allow). log: the file below the experiment's folder that shows it, or "".
    """

    state: str
    reason: str
    log: str = ""


def judge(look: Snapshot, limits: Limits) -> Verdict | None:
    """None while the experiment continues."""
    return (
        _ended(look)
        or _manager(look)
        or _tuner(look)
        or _queue(look)
        or _failing(look, limits.stop_after_failures)
        or _stalled(look, limits.stall_minutes * 60)
        or _overdue(look)
    )


def _ended(look: Snapshot) -> Verdict | None:
    if look.status == "DONE":
        return _done(look.record)
    if look.status == "STOPPED":
        return Verdict("STOPPED", "")
    if look.status == "ERROR":
        if look.tuner_death:  # NNI may or may not have noticed it by the time of this look: one word for both
            return _dead_tuner(look.tuner_death)
        return Verdict("ERROR", "; ".join(look.errors) or "NNI gives no reason", "log/nnimanager.log")
    return None


def _done(record: Record | None) -> Verdict:
    """An experiment without any result is DONE for NNI all the same."""
    if record is None or record.best or not record.trials:
        return Verdict("DONE", "")
    first = record.trials[0]
    reason = f"no trial has a result; the first one {first.state}: {why_no_result(first)}"
    return Verdict("DONE", reason, log_of(first))


def _manager(look: Snapshot) -> Verdict | None:
    if look.gone_s > GONE_S:
        if look.stopped_by_hand:
            before = f"NNI's manager: {look.cause}; then " if look.cause else ""
            return Verdict("STOPPED", f"{before}it was stopped by hand (nnictl stop, or its web page)")
        if look.cause:
            return Verdict("LOST", f"NNI's manager has ended by itself: {look.cause}", "log/nnimanager.log")
        return Verdict("LOST", "NNI's manager has ended without being told to", "log/nnictl_stderr.log")
    if look.silent_s > HUNG_S:
        return Verdict("HUNG", f"NNI's manager has not answered for {look.silent_s:.0f} s", "log/nnimanager.log")
    return None


def _tuner(look: Snapshot) -> Verdict | None:
    if look.status not in ("RUNNING", "TUNER_NO_MORE_TRIAL"):
        return None  # before, it may still start; after the last trial was given out, it is not needed
    if look.tuner_death:
        return _dead_tuner(look.tuner_death)
    if look.status == "TUNER_NO_MORE_TRIAL":
        done = look.idle_s > SETTLE_S
        return Verdict("EXHAUSTED", "the tuner has no more points to try in this search space") if done else None
    if look.tunerless_s > TUNERLESS_S:
        reason = "the tuner's process has ended without a word (killed, perhaps for memory)"
        return Verdict("DEAD", reason, "log/dispatcher.log")
    if look.idle_s > SILENT_S and not look.queued:
        return Verdict("DEAD", f"the tuner has proposed nothing for {look.idle_s:.0f} s", "log/dispatcher.log")
    return None


def _dead_tuner(exception: str) -> Verdict:
    return Verdict("DEAD", f"the tuner died: {exception}", "log/dispatcher.log")


def _queue(look: Snapshot) -> Verdict | None:
    gpus = requested_gpus(look.record.config) if look.record else 0
    queue_s = NO_GPU_S if gpus and is_local(look.record.config) else QUEUE_S
    if look.status == "RUNNING" and look.queued and look.idle_s > queue_s and not look.waits_for_gpu:
        reason = f"a trial has been waiting for {look.idle_s:.0f} s and none can be started"
        return Verdict("STUCK", reason + (f" (trialGpuNumber: {gpus})" if gpus else ""), "log/nnimanager.log")
    return None


def _failing(look: Snapshot, times: int) -> Verdict | None:
    trials = look.record.trials if look.record else ()
    ended = sorted((t for t in trials if t.end is not None and t.end / 1000 >= look.since), key=lambda t: t.end)
    if not times or len(ended) < times:
        return None
    kinds = {failure_kind(trial, bool(look.record.config.get("assessor"))) for trial in ended[-times:]}
    if len(kinds) > 1 or None in kinds:
        return None
    reason = f"the last {times} trials failed alike, the latest ({ended[-1].trial_id}) with: {why_no_result(ended[-1])}"
    return Verdict("FAILING", reason, log_of(ended[-1]))


def _stalled(look: Snapshot, limit_s: float) -> Verdict | None:
    if not limit_s or not look.record:
        return None
    limit_s = max(limit_s, 5 * _epoch_s(look.record.trials))
    for trial in look.record.trials:
        quiet_s = look.now - look.signs.get(trial.trial_id, look.now)
        if quiet_s > limit_s:
            reason = f"trial {trial.trial_id} has reported, logged and written nothing for {quiet_s / 60:.1f} minutes"
            return Verdict("STALLED", reason, log_of(trial))
    return None


def _epoch_s(trials: tuple[Trial, ...]) -> float:
    """Median time between two intermediate results of one trial, s; 0 where there are none."""
    times = [[result.time for result in trial.intermediates] for trial in trials]
    gaps = [(later - earlier) / 1000 for own in times for earlier, later in pairwise(own)]
    return statistics.median(gaps) if gaps else 0.0


def _overdue(look: Snapshot) -> Verdict | None:
    config = look.record.config if look.record else {}
    experiment, trial = config.get("maxExperimentDuration"), config.get("maxTrialDuration")
    limit = parse_time(experiment) + parse_time(trial or 0) + SPARE_S if experiment else NO_LIMIT_S
    return Verdict("TIMEOUT", "it has run longer than its own limits allow") if look.watched_s > limit else None
