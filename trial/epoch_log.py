"""The curve of a trial, a line an epoch: epochs.jsonl for programs, event files for TensorBoard."""

from __future__ import annotations

import errno
import io
import json
import os
import time
from pathlib import Path
from typing import Any

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
        version = {"wall_time": time.time(), "file_version": "brain.Event:2"}
        append(self._events, records([version, *(event for line in lines for event in scalars(line))]))

    def add(self, line: dict[str, Any]) -> None:
        """An `epoch_line`."""
        self.lines.append(line)
        append(self._path, (json.dumps(line, allow_nan=False) + "\n").encode())
        append(self._events, records(scalars(line)))


def scalars(line: dict[str, Any]) -> list[dict[str, Any]]:
    """The fields of TensorBoard's events: one a metric, at the time that the epoch ended."""
    from torch.utils.tensorboard.summary import scalar

    values = {name: value for name, value in line.items() if name not in ("epoch", "seconds", "time")}
    tags = {name: name.replace("_", "/", 1) for name in values}  # train_loss beside val_loss: train/loss, val/loss
    return [
        {"wall_time": line["time"], "step": line["epoch"], "summary": scalar(tags[name], value)}
        for name, value in values.items()
    ]


def records(events: list[dict[str, Any]]) -> bytes:
    """As an event file holds them. Not by torch's SummaryWriter: its thread meets a full disk with a traceback, and the
    trial hears of it later."""
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.summary.writer.record_writer import RecordWriter

    buffer = io.BytesIO()
    writer = RecordWriter(buffer)
    for event in events:
        writer.write(Event(**event).SerializeToString())
    return buffer.getvalue()


def append(path: Path, content: bytes) -> None:
    """All of it, or TrialError."""
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(content) < len(content):  # the disk filled up in its midst
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise cannot_write(path, error) from error
