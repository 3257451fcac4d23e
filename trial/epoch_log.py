"""The curve of a trial, a line an epoch: epochs.jsonl for programs, event files for TensorBoard."""

from __future__ import annotations

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
    names = ("train_loss", "train_accuracy", "val_loss", "lr", "epoch")
    return {"default": line["val_accuracy"], **{name: line[name] for name in names}}


class EpochLog:
    """Appends to both. Every method raises TrialError where the folder cannot be written."""

    def __init__(self, folder: Path, lines: list[dict[str, Any]]) -> None:
        """lines: the epochs of an interrupted attempt; both files are made anew with them, without torn ends."""
        from tensorboard.summary.writer.record_writer import RecordWriter

        self.lines = list(lines)
        self._path, self._folder = folder / "epochs.jsonl", folder / "tensorboard"
        write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        try:
            self._folder.mkdir(exist_ok=True)
            for old in self._folder.glob("events.*"):
                old.unlink()
            # Not torch's SummaryWriter: its thread meets a full disk with a traceback, and the trial hears of it late.
            name = f"events.out.tfevents.{int(time.time()):010d}.trial.{os.getpid()}"
            self._events = (self._folder / name).open("wb")
            self._records = RecordWriter(self._events)
            self._write_event(wall_time=time.time(), file_version="brain.Event:2")
            for line in lines:
                self._write_scalars(line)
            self._events.flush()
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def add(self, line: dict[str, Any]) -> None:
        """An `epoch_line`."""
        self.lines.append(line)
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, allow_nan=False) + "\n")
            self._write_scalars(line)
            self._events.flush()
        except OSError as error:
            raise cannot_write(self._path, error) from error

    def close(self) -> None:
        try:
            self._events.close()
        except OSError as error:
            raise cannot_write(self._folder, error) from error

    def _write_scalars(self, line: dict[str, Any]) -> None:
        from torch.utils.tensorboard.summary import scalar

        for name, value in line.items():
            if name not in ("epoch", "seconds", "time"):
                summary = scalar(name.replace("_", "/", 1), value)
                self._write_event(wall_time=line["time"], step=line["epoch"], summary=summary)

    def _write_event(self, **fields: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._records.write(Event(**fields).SerializeToString())
