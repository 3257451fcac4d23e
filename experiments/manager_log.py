"""What the log of NNI's manager says about its end, and about what it is still busy with."""

from __future__ import annotations

import re
import time
from pathlib import Path

from analysis.reading.logs import last_lines, lines_since
from experiments.nnictl import without_headings

CLEANING = "Stopping experiment, cleaning up"
BY_HAND = ("SIGTERM", "SIGINT", "SIGBREAK", "REST request")
_STAMP = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ")
_FAULT = re.compile(r"\] (ERROR|CRITICAL|FATAL) \([^)]*\) *(.*)")
# What a cause is known by, in whichever line of a message and its stack it is.
_NAMED = re.compile(r"\bE(CONN\w+|ADDRINUSE|NOSPC|DQUOT|ACCES|MFILE|HOSTUNREACH|TIMEDOUT|NOTFOUND|NOENT)\b|SQLITE_\w+")
PREPARING_S = 3600.0  # longer without a word, an installation or upload hangs
# (begins, ends): of the first there are more while NNI prepares its tuner or its workers.
_PREPARING = [
    (r"\(NNIManager\) Setup tuner", r"Add event listeners"),
    (r"Starting remote training service", r"Remote training service started"),
    (r"Initializing SSH worker", r"Worker .* initialized|Failed to recover worker"),
    (r"Upload directory|Installing nni|pip install", r"\) Uploading |failed to upload|Installed nni|version mismatch"),
    (r"\) Uploading ", r"Upload success|failed to upload"),
]


def since(folder: Path, start: float) -> list[str]:
    """The end of the log, of the session that began at `start` (seconds since 1970)."""
    return last_session(lines_since(last_lines(folder / "log" / "nnimanager.log"), start))


def last_session(lines: list[str]) -> list[str]:
    """The lines of the last manager of the log: of a copied experiment the registry knows no start."""
    starts = [number for number, line in enumerate(lines) if line.endswith("(main) Start NNI manager")]
    return lines[starts[-1] :] if starts else lines


def told_to_stop(lines: list[str]) -> bool:
    """By launch or watch, nnictl stop, or the web page; not where the manager shut down by itself."""
    if _shutdown(lines):
        return not ended_itself(lines)
    return any(CLEANING in line for line in lines)


def faults(lines: list[str]) -> list[str]:
    """What the manager logged as errors before it cleaned up, one line each. The line that begins a shutdown is written at
    once and may stand before the error that is its cause."""
    end = next((n for n, line in enumerate(lines) if CLEANING in line), len(lines))
    found = []
    for number, line in enumerate(lines[: end + 1]):
        if fault := _FAULT.search(line):
            rest = lines[number + 1 :]
            more = rest[: next((n for n, after in enumerate(rest) if _STAMP.match(after)), len(rest))]
            named = next((line for line in more if _NAMED.search(line)), "") if not _NAMED.search(line) else ""
            found.append(" ".join((fault[2] or next(iter(more), ""), named)).strip()[:300])
    return list(dict.fromkeys(found))


def ended_itself(lines: list[str]) -> bool:
    """Whether the manager began its own end, for a fault."""
    shutdown = _shutdown(lines)
    return shutdown is not None and shutdown[1] not in BY_HAND


def why_it_ended(folder: Path, lines: list[str]) -> str:
    """Why a manager that has ended did so, one line from its log or, of a crash, its error output; "" where it was told to
    stop with no error before, or says nothing."""
    shutdown, errors = _shutdown(lines), faults(lines)
    worst = next((error for error in reversed(errors) if _NAMED.search(error)), (errors or [""])[-1])
    if shutdown and ended_itself(lines):
        return ": ".join(filter(None, (shutdown[1], worst)))
    if worst:
        return worst
    if told_to_stop(lines):
        return ""
    words = without_headings(last_lines(folder / "log" / "nnictl_stderr.log"))
    return next((word[:300] for word in words if re.match(r"\w*Error\b|FATAL ERROR|The repairs of NNI", word)), "")


def is_preparing(lines: list[str]) -> bool:
    """Whether NNI waits for its tuner to connect, installs itself on remote workers, or uploads the trial's folder to them:
    no trial can run meanwhile."""
    begun = [line for line in lines for begins, _ in _PREPARING if re.search(begins, line)]
    stamp = _STAMP.match(begun[-1]) if begun else None
    if stamp is None or time.time() - time.mktime(time.strptime(stamp[0], "[%Y-%m-%d %H:%M:%S] ")) > PREPARING_S:
        return False
    return any(_count(begins, lines) > _count(ends, lines) for begins, ends in _PREPARING)


def _count(pattern: str, lines: list[str]) -> int:
    return sum(bool(re.search(pattern, line)) for line in lines)


def _shutdown(lines: list[str]) -> tuple[int, str] | None:
    """Where the manager began to end itself, and NNI's word for why: "" where the line itself is the error."""
    for number, line in enumerate(lines):
        if "CRITICAL (ShutdownManager)" in line:
            return number, ""
        if "Initiate shutdown: " in line:
            return number, line.partition("Initiate shutdown: ")[2].strip()
    return None
