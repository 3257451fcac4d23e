"""Why did it end, why is it stuck, which trials failed: in words, with the next command. Reads only; no server needed."""

from __future__ import annotations

from pathlib import Path

from analysis.reading.locate import AnalysisError
from analysis.reading.logs import last_lines
from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial
from experiments.errors import ExperimentError
from experiments.evidence import who_cancelled, why_ended, why_stuck
from experiments.failures import failure_kind, log_of, why_no_result
from experiments.signatures import Meaning, explain

NAMED = 5  # trials that a group names
TAIL_LINES = 15


def why(asked: str, trial: str | None = None) -> str:
    """The explanation of an experiment (id, folder or nni.sqlite), or of one of its trials by id or number.

    Raises ExperimentError where there is no such experiment or trial.
    """
    try:
        record = load_experiment(asked)
    except AnalysisError as error:
        raise ExperimentError(str(error)) from error
    return "\n".join(_trial_lines(record, _find(record, trial)) if trial else _experiment_lines(record))


def _find(record: Record, asked: str) -> Trial:
    found = [trial for trial in record.trials if trial.trial_id == asked] or [
        trial for trial in record.trials if str(trial.sequence) == asked
    ]
    if len(found) != 1:
        ids = ", ".join(f"{trial.trial_id} (no. {trial.sequence})" for trial in record.trials[-12:]) or "none"
        raise ExperimentError(f"{asked}: {len(found) or 'no'} trials of that name in {record.id}; trials: {ids}")
    return found[0]


def _experiment_lines(record: Record) -> list[str]:
    n = record.counts
    of = f" of {record.max_trials}" if record.max_trials else ""
    cut = "running" if record.state == "RUNNING" else "cut off"
    lines = [
        f"{record.name} ({record.id}): {record.state}; {len(record.trials)}{of} trials: {n['succeeded']} succeeded, "
        f"{n['failed']} failed, {n['cancelled']} cancelled, {n['running']} {cut}"
    ]
    reason, meaning = why_stuck(record) if record.state == "RUNNING" else why_ended(record)
    lines += _said("why", reason, meaning, record) if reason else []
    groups = _groups(record)
    lines += [line for group in groups for line in _group_lines(record, group)]
    lines += [f"note: {warning}" for warning in record.warnings]
    if not reason and not groups:
        lines.append("Nothing wrong found.")
    if groups:
        lines.append(f"one of them: python -m experiments why {record.id} {groups[0][0].trial_id}")
    return lines + [f"next: {_next(record)}"]


def _groups(record: Record) -> list[list[Trial]]:
    """Trials without a result, those of one kind together, the most frequent first."""
    kinds: dict[str, list[Trial]] = {}
    for trial in record.trials:
        if trial.end is not None and trial.score is None:
            kinds.setdefault(failure_kind(trial) or f"{trial.state} {_reason(record, trial)}", []).append(trial)
    return sorted(kinds.values(), key=len, reverse=True)


def _reason(record: Record, trial: Trial) -> str:
    if trial.state == "USER_CANCELED":
        last = why_no_result(trial) if log_of(trial) else ""
        return who_cancelled(record, trial) + (f"; its last line: {last}" if last else "")
    if trial.state == "SUCCEEDED" and trial.final is not None:
        return f"its final result is no finite number: {str(trial.final)[:60]}"
    return why_no_result(trial)


def _group_lines(record: Record, group: list[Trial]) -> list[str]:
    names = ", ".join(trial.trial_id for trial in group[:NAMED]) + (" and more" if len(group) > NAMED else "")
    reason = _reason(record, group[-1])
    return _said(f"{len(group)} x {group[0].state} ({names})", reason, explain(reason), record)


def _said(what: str, reason: str, meaning: Meaning | None, record: Record) -> list[str]:
    lines = [f"{what}: {reason}"]
    if meaning and meaning.cause:
        lines.append(f"    it means: {meaning.cause}")
    if meaning:
        lines.append(f"    do: {meaning.next.format(id=record.id)}")
    return lines


def _next(record: Record) -> str:
    if record.state == "RUNNING":
        return f"python -m experiments watch {record.id}"
    if record.state == "DONE":
        return f"python -m analysis export {record.id} --format csv --out trials.csv"
    return f"python -m experiments resume {record.id}"


def _trial_lines(record: Record, trial: Trial) -> list[str]:
    after = f" after {trial.duration_s:.0f} s" if trial.duration_s is not None else ""
    status = {"SUCCEEDED": "exit code 0", "FAILED": "exit code other than 0", "USER_CANCELED": "ended by a signal"}
    status |= {trial.state: trial.message} if trial.message else {}
    lines = [
        f"trial {trial.trial_id} (no. {trial.sequence}) of {record.name} ({record.id}): {trial.state}{after}, "
        f"{status.get(trial.state, 'no end on record')}",
        f"ran with: {trial.parameters} (known from: {trial.parameters_source})",
    ]
    if trial.parameters_mismatch:
        lines.append(f"NNI shows for it: {trial.recorded}, which is another trial's set")
    if trial.end is not None and trial.score is None:
        reason = _reason(record, trial)
        lines += _said("why", reason, explain(reason), record)
    elif trial.end is None and record.state != "RUNNING":
        lines += ["why: it was cut off with its experiment; resume runs it again"]
    elif trial.end is None:
        lines += [f"it is running; {len(trial.intermediates)} intermediate results so far"]
    else:
        lines += [f"result: {trial.score:.4g}. Nothing wrong found."]
    lines += [f"note: {warning}" for warning in trial.warnings]
    if log := log_of(trial):
        lines += [f"the end of {log}:", *(f"  | {line[:300]}" for line in last_lines(Path(log))[-TAIL_LINES:])]
    return lines + [f"next: {_next(record)}"]
