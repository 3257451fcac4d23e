"""What the logs of NNI's manager and of its trials say: why it ended, what it is busy with, what a trial failed of."""

from __future__ import annotations

import re
import time
from pathlib import Path

from analysis.reading.logs import failure_reason, last_lines, lines_since
from analysis.reading.records import Trial

CLEANING = "Stopping experiment, cleaning up"
BY_HAND = ("SIGTERM", "SIGINT", "SIGBREAK", "REST request")
_STAMP = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ")
_FAULT = re.compile(r"\] (ERROR|CRITICAL|FATAL) \([^)]*\) *(.*)")
# What a cause is known by, in whichever line of a message and its stack it is.
_NAMED = re.compile(r"\bE(CONN\w+|ADDRINUSE|NOSPC|DQUOT|ACCES|MFILE|HOSTUNREACH|TIMEDOUT|NOTFOUND|NOENT)\b|SQLITE_\w+")
PREPARING_S = 3600.0  # longer without a line, an installation or upload hangs
# (begins, ends): of the first there are more while NNI prepares its tuner or its workers.
_PREPARING = [
    (r"\(NNIManager\) Setup tuner", r"Add event listeners"),
    (r"Starting remote training service", r"Remote training service started"),
    (r"Initializing SSH worker", r"Worker .* initialized|Failed to recover worker"),
    (r"Upload directory|Installing nni|pip install", r"\) Uploading |failed to upload|Installed nni|version mismatch"),
    (r"\) Uploading ", r"Upload success|failed to upload"),
]


def session_lines(folder: Path, start: float) -> list[str]:
    """The end of the manager's log, of the session that began at `start` (seconds since 1970)."""
    return last_session(lines_since(last_lines(folder / "log" / "nnimanager.log"), start))


def last_session(lines: list[str]) -> list[str]:
    """The lines of the last manager of the log: of a copied experiment the registry knows no start."""
    starts = [number for number, line in enumerate(lines) if line.endswith("(main) Start NNI manager")]
    return lines[starts[-1] :] if starts else lines


def without_headings(lines: list[str]) -> list[str]:
    """What the last manager itself wrote into one of its output files: nnictl begins each session there with a heading."""
    starts = [number for number, line in enumerate(lines) if re.match(r"Experiment \S+ start:", line)]
    return [line for line in lines[starts[-1] + 1 if starts else 0 :] if not re.match(r"-{20}", line)]


def was_stopped_by_hand(lines: list[str]) -> bool:
    """By launch or watch, nnictl stop, or the web page; not where the manager shut down by itself."""
    if _shutdown_reason(lines) is not None:
        return not ended_itself(lines)
    return any(CLEANING in line for line in lines)


def ended_itself(lines: list[str]) -> bool:
    """Whether the manager began its own end, for a fault."""
    return _shutdown_reason(lines) not in (None, *BY_HAND)


def faults(lines: list[str]) -> list[str]:
    """What the manager logged as errors before it cleaned up, one line each. The line that begins a shutdown is written at
    once and may be before the error that is its cause."""
    end = next((n for n, line in enumerate(lines) if CLEANING in line), len(lines))
    messages = []
    for number, line in enumerate(lines[: end + 1]):
        if fault := _FAULT.search(line):
            rest = lines[number + 1 :]
            more = rest[: next((n for n, after in enumerate(rest) if _STAMP.match(after)), len(rest))]
            named = next((line for line in more if _NAMED.search(line)), "") if not _NAMED.search(line) else ""
            messages.append(" ".join((fault[2] or next(iter(more), ""), named)).strip()[:300])
    return list(dict.fromkeys(messages))


def why_manager_ended(folder: Path, lines: list[str]) -> str:
    """One line from its log or, of a crash, its error output; "" where it was stopped with no error before, or says
    nothing."""
    errors = faults(lines)
    worst = next((error for error in reversed(errors) if _NAMED.search(error)), (errors or [""])[-1])
    if ended_itself(lines):
        return ": ".join(filter(None, (_shutdown_reason(lines), worst)))
    if worst:
        return worst
    if was_stopped_by_hand(lines):
        return ""
    output = without_headings(last_lines(folder / "log" / "nnictl_stderr.log"))
    return next((line[:300] for line in output if re.match(r"\w*Error\b|FATAL ERROR|The repairs of NNI", line)), "")


def is_preparing(lines: list[str]) -> bool:
    """Whether NNI waits for its tuner to connect, installs itself on remote workers, or uploads the trial's folder to them:
    no trial can run meanwhile."""
    begun = [line for line in lines for begins, _ in _PREPARING if re.search(begins, line)]
    stamp = _STAMP.match(begun[-1]) if begun else None
    if stamp is None or time.time() - time.mktime(time.strptime(stamp[0], "[%Y-%m-%d %H:%M:%S] ")) > PREPARING_S:
        return False
    return any(_count(begins, lines) > _count(ends, lines) for begins, ends in _PREPARING)


def is_queued(lines: list[str]) -> bool:
    """Whether the manager's last line about the start of a trial is that it has not happened."""
    pattern = r"submitTrialJob: form|(Created|Failed to create) trial|Trial \d+ waits:"
    starts = [line for line in lines if re.search(pattern, line)]
    return bool(starts) and "Created trial" not in starts[-1]


def _count(pattern: str, lines: list[str]) -> int:
    return sum(bool(re.search(pattern, line)) for line in lines)


def _shutdown_reason(lines: list[str]) -> str | None:
    """NNI's word for why the manager ended itself, "" where the line itself is the error; None where it did not."""
    for line in lines:
        if "CRITICAL (ShutdownManager)" in line:
            return ""
        if "Initiate shutdown: " in line:
            return line.partition("Initiate shutdown: ")[2].strip()
    return None


def failure_kind(trial: Trial, assessed: bool = False) -> str | None:
    """Equal for failures of one kind: the reason without its numbers. None for a trial that did its work, or was
    ended by a person or by the assessor."""
    if trial.state == "SUCCEEDED":
        return "no result" if trial.final is None else None
    if trial.state == "USER_CANCELED" and (trial.cancel_asked or assessed):
        return None
    return re.sub(r"0x[0-9a-f]+|\d+(\.\d+)?", "#", f"{trial.state} {failure_reason(trial)}")


def why_no_result(trial: Trial) -> str:
    """One line."""
    return "it ended well and reported no final result" if trial.state == "SUCCEEDED" else failure_reason(trial)


def log_of(trial: Trial) -> str:
    """The log that holds a trial's last lines, as an absolute path; "" where it left none."""
    for name in ("trial.stderr", "trial.log", "trial.stdout"):
        if trial.folder and (trial.folder / name).is_file() and (trial.folder / name).stat().st_size:
            return str(trial.folder / name)
    return ""
