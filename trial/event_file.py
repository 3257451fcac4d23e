"""TensorBoard's event files, byte by byte: a record an event, each with its checksums.

TensorBoard's own writer imports for 0.4 s, a fiftieth of a short trial (docs/log.md), and torch's SummaryWriter meets a full
disk in a thread of its own, of which the trial hears too late. The records' form is TensorFlow's, documented in its
tensorflow/core/lib/io/record_writer.h: length (uint64), its checksum (uint32), the event, its checksum; little-endian.
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any

CASTAGNOLI = 0x82F63B78  # the polynomial of CRC-32C (RFC 3720, appendix B.4), bits reversed


def version(wall_time: float) -> dict[str, Any]:
    """The fields of an event file's first event; wall_time: seconds since 1970."""
    return {"wall_time": wall_time, "file_version": "brain.Event:2"}


def scalars(values: dict[str, float], step: int, wall_time: float) -> list[dict[str, Any]]:
    """The fields of one event a value. values: by tag; wall_time: seconds since 1970."""
    return [
        {"wall_time": wall_time, "step": step, "summary": {"value": [{"tag": tag, "simple_value": value}]}}
        for tag, value in values.items()
    ]


def records(events: list[dict[str, Any]]) -> bytes:
    """As an event file holds them. events: the fields of each Event message."""
    from tensorboard.compat.proto.event_pb2 import Event  # not above: hyperparameters are fetched before all imports

    return b"".join(record(Event(**event).SerializeToString()) for event in events)


def record(content: bytes) -> bytes:
    length = struct.pack("<Q", len(content))
    return length + struct.pack("<I", masked(length)) + content + struct.pack("<I", masked(content))


def masked(content: bytes) -> int:
    """The CRC-32C, rotated and shifted so that a checksum of data that holds checksums is still a good one."""
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    crc, table = 0xFFFFFFFF, _table()
    for byte in content:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


@lru_cache
def _table() -> tuple[int, ...]:
    def entry(byte: int) -> int:
        for _ in range(8):
            byte = byte >> 1 ^ (CASTAGNOLI if byte & 1 else 0)
        return byte

    return tuple(entry(byte) for byte in range(256))
