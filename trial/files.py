"""What a trial leaves in its folder, each file readable without this project, and how they are written.

.lock                  held while a process writes there
hyperparameters.json   what was received and what was used, written before anything else
epochs.jsonl           a line per epoch, as it ends
tensorboard/           the same curves as event files
best.pt                weights of the best epoch, with the class names and the hyperparameters
result.json            scores of the kept weights on both splits, per class, and how the training went

While it runs, and where it was interrupted, checkpoint.py's files take the place of best.pt.
"""

from __future__ import annotations

import errno
import fcntl
import io
import json
import os
import struct
import time
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from trial import TrialError
from trial.hyperparameters import Hyperparameters


def lock_folder(folder: Path, wait_s: float) -> None:
    """Keep others from writing there until this process ends, however it does. Raises TrialError where another does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise _cannot_write(folder, error) from error
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


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write strict JSON so that a reader sees the old file or the new one, never half of one."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    _write_atomically(
        path, text.encode("utf-8", "backslashreplace")
    )  # a name that is no text: JSON has the same escapes


def _write_atomically(path: Path, content: bytes | memoryview) -> None:
    """Raises TrialError where the folder cannot be written. One trial per folder: `lock_folder` ensures it."""
    partial = path.with_name(f".{path.name}.partial")  # always the same: what a killed trial left is written over
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.write_bytes(content)
            os.replace(partial, path)
        except OSError:
            partial.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise _cannot_write(path, error) from error


def write_over(path: Path, content: bytes | memoryview) -> None:
    """Write over what the file holds. It is torn where the process is killed meanwhile: for files whose reader notices.

    Raises TrialError where the folder cannot be written; the file is then gone.
    """
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644), "wb") as file:
            file.write(content)
            file.truncate()
    except OSError as error:
        path.unlink(missing_ok=True)
        raise _cannot_write(path, error) from error


def append(path: Path, content: bytes) -> None:
    """Append all of it, or raise TrialError."""
    try:
        with path.open("ab", buffering=0) as file:
            if file.write(content) < len(content):  # the disk became full meanwhile
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        raise _cannot_write(path, error) from error


def _cannot_write(path: Path, error: OSError) -> TrialError:
    return TrialError(
        f"{path}: cannot be written ({error.strerror or error}); free space there or choose another --output"
    )


def write_hyperparameters(folder: Path, received: dict, used: Hyperparameters) -> None:
    """received: as NNI sent it; used: after defaults and flags."""
    write_json(folder / "hyperparameters.json", {"received": received, "effective": asdict(used)})


def write_weights(path: Path, state: dict, classes: tuple[str, ...], used: Hyperparameters) -> None:
    """{"model": state dict, "classes": names by output, "hyperparameters": ...}; loads with weights_only=True."""
    import torch  # not above: the hyperparameters are written before torch is imported

    buffer = io.BytesIO()
    state = {name: value.cpu() for name, value in state.items()}
    torch.save({"model": state, "classes": list(classes), "hyperparameters": asdict(used)}, buffer)
    _write_atomically(path, buffer.getbuffer())


# -- the learning curve: epochs.jsonl for programs, event files for TensorBoard ------------------------------------------


def epoch_line(metrics: dict[str, float], seconds: float) -> dict[str, Any]:
    """metrics: an EpochMetrics as a dict; seconds: of training so far. Adds the time of day, in seconds since 1970."""
    return {**metrics, "seconds": round(seconds, 3), "time": round(time.time(), 3)}


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
        _write_atomically(self._path, "".join(json.dumps(line) + "\n" for line in lines).encode())
        try:
            events.mkdir(exist_ok=True)
            for old in events.glob("events.*"):
                old.unlink()
        except OSError as error:
            raise _cannot_write(events, error) from error
        version = {"wall_time": time.time(), "file_version": "brain.Event:2"}
        append(self._events, event_records([version, *(event for line in lines for event in events_of(line))]))

    def add(self, line: dict[str, Any]) -> None:
        """An `epoch_line`."""
        self.lines.append(line)
        append(self._path, (json.dumps(line, allow_nan=False) + "\n").encode())
        append(self._events, event_records(events_of(line)))


def events_of(line: dict[str, Any]) -> list[dict[str, Any]]:
    """A line's metrics as the fields of TensorBoard's events, one per value, at the time that the epoch ended."""
    metrics = {name: value for name, value in line.items() if name not in ("epoch", "seconds", "time")}
    tags = {name.replace("_", "/", 1): value for name, value in metrics.items()}  # train/loss beside val/loss
    return [
        {
            "wall_time": line["time"],
            "step": line["epoch"],
            "summary": {"value": [{"tag": tag, "simple_value": value}]},
        }
        for tag, value in tags.items()
    ]


# TensorBoard's own writer imports for 0.4 s, a fiftieth of a short trial (docs/log.md), and torch's SummaryWriter meets a full
# disk in a thread of its own, of which the trial learns too late. The records' form is TensorFlow's, documented in its
# tensorflow/core/lib/io/record_writer.h: length (uint64), its checksum (uint32), the event, its checksum; little-endian.
_CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C (RFC 3720, appendix B.4), bits reversed


def event_records(events: list[dict[str, Any]]) -> bytes:
    """The content of an event file. events: the fields of each Event message."""
    from tensorboard.compat.proto.event_pb2 import Event  # not above: hyperparameters are fetched before all imports

    return b"".join(event_record(Event(**event).SerializeToString()) for event in events)


def event_record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))


def masked_crc32c(content: bytes) -> int:
    """The checksum, rotated and shifted so that one of data that holds checksums is still a good one."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@lru_cache
def _crc_table() -> tuple[int, ...]:
    def entry(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (_CASTAGNOLI if byte & 1 else 0)
        return byte

    return tuple(entry(byte) for byte in range(256))
