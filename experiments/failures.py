"""What a failed trial left behind, and which failures are of one kind."""

from __future__ import annotations

import re

from analysis.reading.logs import failure_reason
from analysis.reading.records import Experiment as Record
from analysis.reading.records import Trial


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
    """The log that holds a trial's last words, as an absolute path; "" where it left none."""
    for name in ("trial.stderr", "trial.log", "trial.stdout"):
        if trial.folder and (trial.folder / name).is_file() and (trial.folder / name).stat().st_size:
            return str(trial.folder / name)
    return ""


def all_failed(record: Record | None) -> tuple[str, str]:
    """(reason, log) of an experiment without any result, which NNI calls DONE all the same; ("", "") otherwise."""
    if record is None or record.best or not record.trials:
        return "", ""
    first = record.trials[0]
    return f"no trial has a result; the first one {first.state}: {why_no_result(first)}", log_of(first)
