"""The processes of one experiment, found by what NNI wrote into their environment, and their end.

NNI gives every trial NNI_EXP_ID and NNI_OUTPUT_DIR, and its tuner NNI_LOG_DIRECTORY. They outlive a manager that was
killed, and what a trial's shell command started outlives the shell. Nothing else is ever touched.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import psutil

GRACE_S = 5.0  # between SIGTERM and SIGKILL; a trial writes its last checkpoint meanwhile


def trials(experiment_id: str, folder: Path) -> list[psutil.Process]:
    """Processes of this experiment's trials, with those that they started."""
    inside = os.path.join(os.path.realpath(folder), "")
    return [
        process
        for process, environment in _ours()
        if environment.get("NNI_EXP_ID") == experiment_id
        and os.path.realpath(environment.get("NNI_OUTPUT_DIR", "/")).startswith(inside)
    ]


def tuners(folder: Path) -> list[psutil.Process]:
    """Processes of this experiment's tuner: NNI calls them dispatcher."""
    logs = os.path.realpath(folder / "log")
    return [
        process
        for process, environment in _ours()
        if environment.get("SDK_PROCESS") == "dispatcher"
        and os.path.realpath(environment.get("NNI_LOG_DIRECTORY", "/")) == logs
    ]


def end(processes: list[psutil.Process]) -> int:
    """Ask them to end, wait, kill what stays. Returns how many there were."""
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=GRACE_S)
    for process in alive:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(alive, timeout=GRACE_S)
    return len(processes)


def end_orphans(experiment_id: str, folder: Path) -> str:
    """End all processes of an experiment without a manager; in words what was ended, "" where nothing was."""
    found = {"trials": trials(experiment_id, folder), "tuner": tuners(folder)}
    end([process for processes in found.values() for process in processes])
    return " and ".join(f"its {name} ({len(processes)} processes)" for name, processes in found.items() if processes)


def _ours():
    """(process, environment) of this user's processes; not of this one and those that started it."""
    mine = os.getuid()
    kept = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.pid not in kept and process.uids().real == mine:
                yield process, process.environ()
