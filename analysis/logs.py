"""Why a trial or a tuner ended, from the logs that NNI leaves in an experiment's folder."""

from __future__ import annotations

import re
from pathlib import Path

from .records import Experiment, Trial

TRIAL_LOGS = ("trial.stderr", "stderr", "trial.log")
"""Where the reason is looked for, in this order."""

TAIL_BYTES = 16_384
"""Only the end of a log is read."""

_OF_EVERY_BATCH = "(choice) should only contain numbers or strings"
"""NNI's Batch tuner logs this as an error and goes on (nni/common/hpo_utils/validation.py)."""

_EXCEPTION = re.compile(r"[\w.]*(Error|Exception|Interrupt|Exit)\b")


def failure_reason(trial: Trial) -> str:
    """The last line that a trial without success wrote, normally its exception; 200 characters at most.

    NNI records a kill by signal (out of memory), a time limit and a cancel by a person alike.
    """
    if trial.folder is not None:
        for name in TRIAL_LOGS:
            lines = _last_lines(trial.folder / name)
            if lines:
                return lines[-1][:200]
    if trial.state == "FAILED":
        return "exit code other than 0; it wrote nothing"
    return "cancelled by a person, by its time limit, by the assessor, or killed by a signal (out of memory)"


def tuner_errors(experiment: Experiment) -> list[str]:
    """The last exception in the tuner's own log: NNI keeps saying RUNNING after its tuner has died."""
    lines = _last_lines(experiment.folder / "log" / "dispatcher.log")
    found = [line for line in lines if _EXCEPTION.match(line) or (" ERROR " in line and _OF_EVERY_BATCH not in line)]
    return [f"the tuner's log has an error: {found[-1][:200]}"] if found else []


def _last_lines(path: Path) -> list[str]:
    """Non-empty lines of the file's last 16 KiB; none where there is no such file."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - TAIL_BYTES))
            text = file.read().decode("utf-8", errors="replace")
    except OSError:
        return []
    return [line.strip() for line in text.splitlines() if line.strip()]
