"""Why a trial or a tuner ended, from the logs that NNI leaves in an experiment's folder."""

from __future__ import annotations

import re
import time
from pathlib import Path

from .records import Experiment, Trial

TRIAL_LOGS = ("trial.stderr", "stderr", "trial.log")
"""Where the reason is looked for, in this order."""

TAIL_BYTES = 16_384
"""Only the end of a log is read."""

_OF_EVERY_BATCH = "(choice) should only contain numbers or strings"
"""NNI's Batch tuner logs this as an error and continues (nni/common/hpo_utils/validation.py)."""

_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b")
_STAMP = re.compile(r"\[(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)\]")
# The two places in NNI from which the tuner's process does not come back: its worker threads, and its main function.
_DEATH = re.compile(r"ERROR \(nni\.(runtime\.msg_dispatcher_base|main)/")
# What the tuner and trials say after their manager has gone: not a death of their own.
MANAGER_GONE = re.compile(r"Connect call failed|ConnectionClosed|ConnectionReset|close frame")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def failure_reason(trial: Trial) -> str:
    """The last line that a trial without success wrote, warnings aside: normally its exception; 200 characters at most.

    NNI records a kill by signal (out of memory), a time limit and a cancel by a person alike.
    """
    if trial.message and not trial.message.startswith("exit code"):
        return trial.message[:200]  # the trial itself may not know: a result that is no number, a kill
    if trial.folder is not None:
        for name in TRIAL_LOGS:
            lines = [line for line in last_lines(trial.folder / name) if not line.startswith("warning: ")]
            if lines:
                return lines[-1][:200]
    if trial.state == "FAILED":
        return f"{trial.message or 'exit code other than 0'}; it wrote nothing"
    return "cancelled by a person, by its time limit, by the assessor, or killed by a signal (out of memory)"


def tuner_errors(experiment: Experiment) -> list[str]:
    """The last exception in the tuner's own log: NNI keeps saying RUNNING after its tuner has died."""
    lines = last_lines(experiment.folder / "log" / "dispatcher.log")
    errors = [line for line in lines if _EXCEPTION.match(line) or (" ERROR " in line and _OF_EVERY_BATCH not in line)]
    return [f"the tuner's log has an error: {errors[-1][:200]}"] if errors else []


def tuner_death(folder: Path, since: float = 0.0) -> str | None:
    """The exception that ended the tuner of this experiment's folder; None where its log shows none.

    since: seconds since 1970; earlier lines are of an earlier session. Other errors in the log did not end it.
    """
    lines = lines_since(last_lines(folder / "log" / "dispatcher.log"), since)
    deaths = [number for number, line in enumerate(lines) if _DEATH.search(line)]
    if not deaths:
        return None
    trace = [line for line in lines[deaths[-1] + 1 :] if not _STAMP.match(line)]
    exceptions = [line for line in trace if _EXCEPTION.match(line)]
    reason = (exceptions or [lines[deaths[-1]].partition(") ")[2]])[-1][:300]
    return None if MANAGER_GONE.search(reason) else reason


def lines_since(lines: list[str], since: float) -> list[str]:
    """The lines of NNI's log from that time on (seconds since 1970; NNI writes whole seconds of local time)."""
    for number, line in enumerate(lines):
        stamp = _STAMP.match(line)
        if stamp and time.mktime(time.strptime(stamp[1], "%Y-%m-%d %H:%M:%S")) >= int(since):
            return lines[number:]
    return [] if since else lines


def last_lines(path: Path) -> list[str]:
    """Non-empty lines of the file's last 16 KiB, without colours and other control characters; none where there is no
    such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    lines = (_CONTROL.sub("", line).strip() for line in re.split(r"[\r\n]+", text))
    return [line for line in lines if line]
