"""A trial's folder may hold an earlier attempt of the same trial: one that still runs, or one that came to its end.

After a crash of its manager NNI starts each trial without a recorded end again, with the same id, hyperparameters and
folder; the earlier process may not have noticed yet, or may have finished without NNI having heard of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from trial import checkpoint_files
from trial.epoch_log import metrics_of_epoch
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters
from trial.outputs import cannot_write


def lock_folder(folder: Path, wait_s: float) -> None:
    """Keep others from writing there until this process ends, however it does. Raises TrialError where another does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise cannot_write(folder, error) from error
    deadline = time.monotonic() + wait_s
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if time.monotonic() >= deadline:
                raise TrialError(
                    f"{folder}: another training writes there; wait for it or choose another --output"
                ) from error
        time.sleep(0.2)


def refuse_others(folder: Path, h: Hyperparameters) -> None:
    """Raises TrialError where the folder holds an interrupted training with other hyperparameters than these."""
    try:
        found = json.loads((folder / "hyperparameters.json").read_text("utf-8"))["effective"]
    except (OSError, ValueError, KeyError, TypeError):
        return
    # A teacher may lie elsewhere by now: the checkpoint knows the file itself.
    names = [name for name, value in asdict(h).items() if found.get(name) != value and name != "teacher"]
    if names and checkpoint_files.checkpoints(folder):
        there = ", ".join(f"{name} = {found.get(name)}" for name in names)
        raise TrialError(
            f"{folder}: holds an interrupted training with {there}; give the same again to continue it, or choose another "
            "--output"
        )


def finished_result(folder: Path, h: Hyperparameters | None) -> dict[str, Any] | None:
    """The result.json of a training that came to its end, or None; with `h`, of one with these hyperparameters."""
    try:
        result = json.loads((folder / "result.json").read_text("utf-8"))
        if not result["final"]["interrupted"] and (h is None or result["hyperparameters"] == asdict(h)):
            return result
    except (OSError, ValueError, KeyError, TypeError):
        pass  # none there, or not one of this version's: the training itself will tell
    return None


def report_again(folder: Path, finished: dict[str, Any], report: Callable[[dict], None]) -> dict[str, Any]:
    """Tell NNI all of a training that ended before NNI heard of it. Returns its final metrics."""
    print("this training had come to its end: its results are reported again")
    for line in (folder / "epochs.jsonl").read_text("utf-8").splitlines():
        report(metrics_of_epoch(json.loads(line)))
    checkpoint_files.keep_best(folder, finished["best_epoch"])
    return finished["final"]
