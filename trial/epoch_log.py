"""The curve of a trial, a line an epoch: epochs.jsonl for programs, event files for TensorBoard."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from typing import Any

from trial.event_file import records, scalars, version
from trial.outputs import cannot_write, write_atomically


def epoch_line(metrics: dict[str, float], seconds: float) -> dict[str, Any]:
    """metrics: an EpochMetrics as a dict; seconds: of training so far. Adds the time of day, in seconds since 1970."""
    return {**metrics, "seconds": round(seconds, 3), "time": round(time.time(), 3)}


def metrics_of_epoch(line: dict[str, Any]) -> dict[str, float]:
    """An epoch as NNI gets it, from an EpochMetrics as a dict or a line of epochs.jsonl; `default` is what tuners and
    assessors read."""
    names = ("train_loss", "train_accuracy", "val_loss", "val_macro", "lr", "epoch")
    return {"default": line["val_accuracy"], **{name: line[name] for name in names}}


class EpochLog:
    """Appends to both; keeps neither open, so that nothing is left to be flushed when a process ends on a full disk.

    Every method raises TrialError where the folder cannot be written.
    """

    def __init__(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        """lines: the epochs of an interrupted attempt; both files are made anew with them, without torn ends."""
        self.lines = list(lines)
        self._path = folder / "epochs.jsonl"
        events = folder / "tensorboard"
        self._events = events / f"events.out.tfevents.{int(time.time()):010d}.trial.{os.getpid()}"
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        try:
            events.mkdir(exist_ok=True)
            for old in events.glob("events.*"):
                old.unlink()
        except OSError as error:
            raise cannot_write(events, error) from error
        append(self._events, records([version(time.time()), *(event for line in lines for event in events_of(line))]))

    def add(self, line: dict[str, Any]) -> None:
        """An `epoch_line`."""
        self.lines.append(line)
        append(self._path, (json.dumps(line, allow_nan=False) + "\n").encode())
        append(self._events, records(events_of(line)))


def events_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A line's metrics as TensorBoard's events, at the time that the epoch ended."""
    metrics = {name: value for name, value in line.items() if name not in ("epoch", "seconds", "time")}
    tags = {name.replace("_", "/", 1): value for name, value in metrics.items()}  # train/loss beside val/loss
    return scalars(tags, line["epoch"], line["time"])


def append(path: Path, content: bytes) -> None:
    """All of it, or TrialError."""
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(content) < len(content):  # the disk filled up in its midst
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise cannot_write(path, error) from error
