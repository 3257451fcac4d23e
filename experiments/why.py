"""Why did it end, why is it stuck, which trials failed: findings from its logs and its record. Reads only, needs no server."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nni.experiment.config.utils import parse_time

from analysis.reading import database
from analysis.reading.locate import AnalysisError, source
from analysis.reading.logs import MANAGER_GONE, last_lines, lines_since, tuner_death, tuner_errors
from analysis.reading.reader import load_experiment
from analysis.reading.records import PRUNED, Trial
from analysis.reading.records import Experiment as Record
from experiments import logs
from experiments.findings import ExperimentError, Finding, format_finding
from experiments.logs import explain
from experiments.nni import attach, session_start
from experiments.watch import noted_outcome, verdict_now

NAMED = 5  # trials that a group names
TAIL_LINES = 15
LINE_CHARS = 400  # a line of NNI's log can hold a whole search space
_RUNG = {"trial", "rung", "epoch", "best", "n", "threshold", "is_pruned"}  # keys of tuners/asha.py's Decision
SOUND = Finding("ok", "sound", "Nothing wrong found.")


def why(experiment: str, trial: str | None = None) -> str:
    """The explanation of an experiment (id, folder or nni.sqlite), or of one of its trials by id or number, as text.

    Raises ExperimentError where there is no such experiment or trial.
    """
    try:
        record = load_experiment(experiment)
    except AnalysisError as error:
        raise ExperimentError(str(error)) from error
    lines = _trial_lines(record, _find(record, trial)) if trial else _experiment_lines(record)
    return "\n".join([*lines, f"next: {_next(record)}"])


def experiment_findings(record: Record) -> list[Finding]:
    """Why it ended or is stuck, then a finding per kind of trials without a result, the most frequent first."""
    cause = _why_stuck(record) if record.state == "RUNNING" else _why_ended(record)
    groups = [_group_finding(record, group) for group in _groups(record)]
    findings = ([cause] if cause else []) + groups
    return [*(findings or [SOUND]), *(Finding("note", "record", warning) for warning in record.warnings)]


def trial_findings(record: Record, trial: Trial) -> list[Finding]:
    """Why it failed, was cancelled or cut off."""
    findings = []
    if trial.parameters_mismatch:
        text = f"NNI shows for it: {trial.recorded}, which is another trial's set"
        findings.append(Finding("warning", "records.mixed", text))
    if trial.state == PRUNED:
        findings.append(Finding("note", "trial.pruned", _why_pruned(record, trial)))
    elif trial.end is not None and trial.score is None:
        findings.append(_explained(record, "error", _cause(record, trial)))
    elif trial.end is None and record.state != "RUNNING":
        text = "it was cut off with its experiment; resume runs it again"
        findings.append(Finding("warning", "trial.cut_off", text))
    elif trial.end is None:
        text = f"it is running; {len(trial.intermediates)} intermediate results so far"
        findings.append(Finding("note", "trial.running", text))
    else:
        findings.append(Finding("ok", "sound", f"result: {trial.score:.4g}. {SOUND.text}"))
    return [*findings, *(Finding("note", "record", warning) for warning in trial.warnings)]


@dataclass(frozen=True)
class _Cause:
    """Why something ended, with the key that a finding has where the reason is no known message."""

    key: str
    reason: str
    message: str = ""  # of a log, which the reason may only contain


def _explained(record: Record, level: str, cause: _Cause, what: str = "") -> Finding:
    """The finding of a cause: with its meaning and next step where its message is known."""
    entry = explain(cause.message or cause.reason)
    if entry is None:
        return Finding(level, cause.key, f"{what}{cause.reason}")
    text = f"{what}{cause.reason}\nit means: {entry.cause}"
    return Finding(level, entry.key, text, entry.next.format(id=record.id))


def _why_stuck(record: Record) -> Finding | None:
    """What holds up an experiment that NNI calls running; None where nothing does."""
    verdict = verdict_now(attach(record.id))
    if verdict is None:
        return None
    cause = _Cause(f"verdict.{verdict.state.lower()}", f"{verdict.state}: {verdict.reason}", verdict.reason)
    return _explained(record, "error", cause)


@dataclass(frozen=True)
class _Session:
    """The last session of an experiment, from its logs."""

    since: float  # its start, seconds since 1970; 0 where it is not known
    manager_log: list[str]
    errors: list[str]  # of the manager, in order, each once
    tuner_death: str | None
    last_output: list[str]  # the end of the manager's error output


def _last_session(record: Record) -> _Session:
    since = session_start(record.id) or 0.0
    folder = record.folder / "log"
    log = logs.last_session(lines_since(_lines(folder / "nnimanager.log"), since))
    output = logs.without_headings(_lines(folder / "nnictl_stderr.log"))
    return _Session(since, log, logs.faults(log), tuner_death(record.folder, since), output[-8:])


def _why_ended(record: Record) -> Finding | None:
    """Why the experiment ended or does not move; None where all went well."""
    session = _last_session(record)
    if refused := next((error for error in session.errors if "Tuner did not connect" in error), ""):
        message = session.tuner_death or next(iter(tuner_errors(record)), "")
        reason = f"{refused.split(': ', 1)[-1]} The tuner's log: {message or 'nothing'}"
        return _explained(
            record, "error", _Cause("tuner.not_connected", reason, message if explain(message) else refused)
        )
    if record.state == "DONE":
        return None
    if session.tuner_death:
        cause = _Cause("tuner.died", f"the tuner died: {session.tuner_death}", session.tuner_death)
        return _explained(record, "error", cause)
    has_no_points = any("to: TUNER_NO_MORE_TRIAL" in line for line in session.manager_log)
    if has_no_points and len(record.trials) < (record.max_trials or 0):
        step = f"it is complete as it is; or widen the search space, or set maxTrialNumber to {len(record.trials)}"
        return Finding("warning", "space.exhausted", "the tuner has no more points to try in this search space", step)
    return _manager_finding(record, session)


def _manager_finding(record: Record, session: _Session) -> Finding:
    """Why its manager ended."""
    message = logs.why_manager_ended(record.folder, session.manager_log)
    if message and logs.ended_itself(session.manager_log):
        cause = _Cause("manager.ended_itself", f"NNI's manager has ended by itself: {message}", message)
        return _explained(record, "error", cause)
    noted = noted_outcome(record.folder, session.since)
    if noted and noted.state != "LOST":  # of that, the logs say more
        cause = _Cause(f"verdict.{noted.state.lower()}", f"{noted.state}: {noted.reason}", noted.reason)
        return _explained(record, "error", cause)
    limit = record.config.get("maxExperimentDuration")
    used_s = database.read(source(record.folder).database).profile["execDuration"] or 0
    if limit and used_s > parse_time(limit):
        return Finding("warning", "limit.used_up", f"maxExperimentDuration ({limit}) was used up ({used_s} s)")
    messages = [*session.errors, *session.last_output]
    match = next((text for text in messages if explain(text) and not MANAGER_GONE.search(text)), None)
    if match or session.errors:
        return _explained(record, "error", _Cause("manager.error", f"NNI's manager: {match or session.errors[0]}"))
    if logs.was_stopped_by_hand(session.manager_log):
        text = "it was told to stop (by launch or watch, nnictl stop, or the web page)"
        return Finding("note", "manager.stopped", text)
    text = "NNI's manager ended without a word in its log: it was killed, or the machine restarted"
    return Finding("error", "manager.killed", text)


def _groups(record: Record) -> list[list[Trial]]:
    """Trials without a result, those of one kind together, the most frequent first."""
    kinds: dict[str, list[Trial]] = {}
    for trial in record.trials:
        if trial.end is not None and trial.score is None and trial.state != PRUNED:
            kind = logs.failure_kind(trial) or f"{trial.state} {_cause(record, trial).reason}"
            kinds.setdefault(kind, []).append(trial)
    return sorted(kinds.values(), key=len, reverse=True)


def _group_finding(record: Record, group: list[Trial]) -> Finding:
    names = ", ".join(trial.trial_id for trial in group[:NAMED]) + (" and more" if len(group) > NAMED else "")
    return _explained(record, "error", _cause(record, group[-1]), f"{len(group)} x {group[0].state} ({names}): ")


def _cause(record: Record, trial: Trial) -> _Cause:
    """Why a trial has no result."""
    if trial.state == "USER_CANCELED":
        last = logs.why_no_result(trial) if logs.log_of(trial) else ""
        cause = _who_cancelled(record, trial)
        return _Cause(cause.key, f"{cause.reason}; its last line: {last}") if last else cause
    if trial.state == "SUCCEEDED" and trial.final is not None:
        return _Cause("trial.result_not_finite", f"its final result is no finite number: {str(trial.final)[:60]}")
    key = "trial.no_result" if trial.state == "SUCCEEDED" else "trial.failed"
    return _Cause(key, logs.why_no_result(trial))


def _who_cancelled(record: Record, trial: Trial) -> _Cause:
    """NNI records a time limit, an assessor, a person and a killed process all as USER_CANCELED: which was it?"""
    limit = record.config.get("maxTrialDuration")
    about = [line for line in _lines(record.folder / "log" / "nnimanager.log") if trial.trial_id in line]
    if trial.cancel_asked or any("User cancelTrialJob" in line for line in about):
        return _Cause("cancel.person", "a person cancelled it, on NNI's web page or with nnictl trial kill")
    if any("over max trial duration" in line for line in about):
        return _Cause("cancel.duration", f"NNI ended it at maxTrialDuration ({limit})")
    if any(f"cancelTrialJob: {json.dumps(trial.trial_id)}" in line for line in about):
        return _Cause("cancel.assessor", "the assessor stopped it early")
    if limit and trial.duration_s and trial.duration_s >= parse_time(limit):
        return _Cause("cancel.duration", f"it ran as long as maxTrialDuration ({limit}) allows")
    return _Cause(
        "cancel.signal",
        "its process was killed by a signal that NNI did not send: by the kernel when memory runs out "
        "(look with: dmesg | grep -i oom), or by kill",
    )


def _why_pruned(record: Record, trial: Trial) -> str:
    """Which rung ended it and with which numbers, by the record that the assessor of experiments/tuners keeps; other
    assessors keep none."""
    assessor = record.config.get("assessor") or {}
    name = assessor.get("name") or assessor.get("className") or "the assessor"
    kept = "" if trial.score is None else f" Its best epoch counts as its result: {trial.score:.4g}."
    decision = next((d for d in _rungs(record.folder) if d["trial"] == trial.trial_id and d["is_pruned"]), None)
    if decision is None:
        return f"{trial.status} by {name}.{kept}"
    best = "no finite number" if decision["best"] is None else f"{decision['best']:.4g}"
    limit = "" if decision["threshold"] is None else f"; {decision['threshold']:.4g} was needed"
    return (
        f"{trial.status}: at rung {decision['rung']} (epoch {decision['epoch']}) {name} compared its best so far, {best}, with "
        f"{decision['n'] - 1} others{limit} to be among those that continue.{kept}"
    )


def _rungs(folder: Path) -> list[dict[str, Any]]:
    """The decisions that experiments/tuners/asha.py wrote, oldest first; none where there are none."""
    decisions = []
    for line in _lines(folder / "checkpoint" / "asha.jsonl"):
        with contextlib.suppress(ValueError):  # a torn last line
            decisions.append(json.loads(line))
    return [entry for entry in decisions if isinstance(entry, dict) and entry.keys() >= _RUNG]


def _find(record: Record, name: str) -> Trial:
    matches = [trial for trial in record.trials if trial.trial_id == name] or [
        trial for trial in record.trials if str(trial.sequence) == name
    ]
    if len(matches) != 1:
        ids = ", ".join(f"{trial.trial_id} (no. {trial.sequence})" for trial in record.trials[-12:]) or "none"
        raise ExperimentError(f"{name}: {len(matches) or 'no'} trials of that name in {record.id}; trials: {ids}")
    return matches[0]


def _experiment_lines(record: Record) -> list[str]:
    n = record.counts
    pruned = f", {n['pruned']} pruned" if n["pruned"] else ""
    of = f" of {record.max_trials}" if record.max_trials else ""
    cut = "running" if record.state == "RUNNING" else "cut off"
    lines = [
        f"{record.name} ({record.id}): {record.state}; {len(record.trials)}{of} trials: {n['succeeded']} succeeded{pruned}, "
        f"{n['failed']} failed, {n['cancelled']} cancelled, {n['running']} {cut}",
        *map(format_finding, experiment_findings(record)),
    ]
    if groups := _groups(record):
        lines.append(f"one of them: python -m experiments why {record.id} {groups[0][0].trial_id}")
    return lines


def _trial_lines(record: Record, trial: Trial) -> list[str]:
    after = f" after {trial.duration_s:.0f} s" if trial.duration_s is not None else ""
    status = {"SUCCEEDED": "exit code 0", "FAILED": "exit code other than 0", "USER_CANCELED": "ended by a signal"}
    status |= {trial.state: trial.message} if trial.message else {}
    status |= {PRUNED: trial.status}
    lines = [
        f"trial {trial.trial_id} (no. {trial.sequence}) of {record.name} ({record.id}): {trial.state}{after}, "
        f"{status.get(trial.state, 'no end on record')}",
        f"ran with: {trial.parameters} (known from: {trial.parameters_source})",
        *map(format_finding, trial_findings(record, trial)),
    ]
    if log := logs.log_of(trial):
        lines += [f"the end of {log}:", *(f"  | {line[:300]}" for line in last_lines(Path(log))[-TAIL_LINES:])]
    return lines


def _next(record: Record) -> str:
    if record.state == "RUNNING":
        return f"python -m experiments watch {record.id}"
    if record.state == "DONE":
        return f"python -m analysis export {record.id} --format csv --out trials.csv"
    return f"python -m experiments resume {record.id}"


def _lines(path: Path) -> list[str]:
    """All non-empty lines, each cut to 400 characters; none where there is no such file."""
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return [line[:LINE_CHARS].strip() for line in file if line.strip()]
    except OSError:
        return []
