"""What the logs of an experiment say about its end, and about the end of its cancelled trials; in words with the next step."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import NamedTuple

from nni.experiment.config.utils import parse_time

from analysis.reading import database
from analysis.reading.locate import source
from analysis.reading.logs import MANAGER_GONE, last_lines, lines_since, tuner_death, tuner_errors
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial
from experiments import manager_log
from experiments.manager import attach, session_start
from experiments.nnictl import without_headings
from experiments.signatures import Meaning, explain
from experiments.watch import Outcome, verdict_now

NOTES = "watch.jsonl"  # in the experiment's folder
_LINE_CHARS = 400  # a line of NNI's log can hold a whole search space


class Session(NamedTuple):
    """The last session of an experiment, from its logs."""

    since: float  # its start, seconds since 1970; 0 where it is not known
    tuner_death: str | None
    errors: list[str]  # of the manager, in order, each once
    own_end: str  # why the manager shut down by itself, "" where it did not
    exhausted: bool  # the tuner said that it has no more points
    told_to_stop: bool
    last_words: list[str]  # of the manager's error output


def last_session(record: Record) -> Session:
    since = session_start(record.id) or 0.0
    logs = record.folder / "log"
    manager = manager_log.last_session(lines_since(_lines(logs / "nnimanager.log"), since))
    said = without_headings(_lines(logs / "nnictl_stderr.log"))
    return Session(
        since,
        tuner_death(record.folder, since),
        manager_log.faults(manager),
        manager_log.why_it_ended(record.folder, manager) if manager_log.ended_itself(manager) else "",
        any("to: TUNER_NO_MORE_TRIAL" in line for line in manager),
        manager_log.told_to_stop(manager),
        said[-8:],
    )


def why_stuck(record: Record) -> tuple[str, Meaning | None]:
    """What holds up an experiment that NNI calls running; ("", None) where nothing does."""
    verdict = verdict_now(attach(record.id))
    return (f"{verdict.state}: {verdict.reason}", explain(verdict.reason)) if verdict else ("", None)


def why_ended(record: Record) -> tuple[str, Meaning | None]:
    """Why the experiment ended or does not move, one line, and what it means; ("", None) where all went well."""
    session = last_session(record)
    refused = next((error for error in session.errors if "Tuner did not connect" in error), "")
    if refused:
        cause = session.tuner_death or next(iter(tuner_errors(record)), "")
        return f"{refused.split(': ', 1)[-1]} The tuner's log: {cause or 'nothing'}", explain(cause) or explain(refused)
    if session.tuner_death and record.state != "DONE":
        return f"the tuner died: {session.tuner_death}", explain(session.tuner_death)
    if record.state == "DONE":
        return "", None
    if session.exhausted and len(record.trials) < (record.max_trials or 0):
        step = f"it is complete as it is; or widen the search space, or set maxTrialNumber to {len(record.trials)}"
        return "the tuner has no more points to try in this search space", Meaning("", step)
    if session.own_end:
        return f"NNI's manager has ended by itself: {session.own_end}", explain(session.own_end)
    noted = noted_outcome(record.folder, session.since)
    if noted and noted["state"] != "LOST":  # of that, the logs say more
        return f"{noted['state']}: {noted['reason']}", explain(noted["reason"])
    limit = record.config.get("maxExperimentDuration")
    used_s = database.read(source(record.folder).database).profile["execDuration"] or 0
    if limit and used_s > parse_time(limit):
        return f"maxExperimentDuration ({limit}) was used up ({used_s} s)", None
    words = [*session.errors, *session.last_words]
    known = next((word for word in words if explain(word) and not MANAGER_GONE.search(word)), None)
    if known or session.errors:
        return f"NNI's manager: {known or session.errors[0]}", explain(known or "")
    if session.told_to_stop:
        return "it was told to stop (by launch or watch, nnictl stop, or the web page)", None
    return "NNI's manager ended without a word in its log: it was killed, or the machine restarted", None


def note_outcome(folder: Path, outcome: Outcome) -> None:
    """What the watching concluded, for `why`: a stall, for one, leaves no other trace."""
    line = {"time": outcome.noticed, "state": outcome.state, "reason": outcome.verdict.reason}
    with contextlib.suppress(OSError), (folder / NOTES).open("a", encoding="utf-8") as file:  # the disk may be full
        file.write(json.dumps(line) + "\n")


def noted_outcome(folder: Path, since: float) -> dict | None:
    """The last such conclusion of this session, {"time", "state", "reason"}."""
    try:
        noted = json.loads(last_lines(folder / NOTES)[-1])
        return noted if noted["time"] >= since and noted["reason"] and isinstance(noted["state"], str) else None
    except (IndexError, KeyError, TypeError, ValueError):
        return None


def who_cancelled(record: Record, trial: Trial) -> str:
    """NNI records a time limit, an assessor, a person and a killed process all as USER_CANCELED: which was it?"""
    limit = record.config.get("maxTrialDuration")
    about = [line for line in _lines(record.folder / "log" / "nnimanager.log") if trial.trial_id in line]
    if trial.cancel_asked or any("User cancelTrialJob" in line for line in about):
        return "a person cancelled it, on NNI's web page or with nnictl trial kill"
    if any("over max trial duration" in line for line in about):
        return f"NNI ended it at maxTrialDuration ({limit})"
    if any(f"cancelTrialJob: {json.dumps(trial.trial_id)}" in line for line in about):
        return "the assessor stopped it early"
    if limit and trial.duration_s and trial.duration_s >= parse_time(limit):
        return f"it ran as long as maxTrialDuration ({limit}) allows"
    return (
        "its process was killed by a signal that NNI did not send: by the kernel when memory runs out "
        "(look with: dmesg | grep -i oom), or by kill"
    )


def _lines(path: Path) -> list[str]:
    """All non-empty lines, each cut to 400 characters; none where there is no such file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line[:_LINE_CHARS].strip() for line in file if line.strip()]
    except OSError:
        return []
