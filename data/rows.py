"""What a decoding process runs: photos in, rows of an array file out.

It imports as little as it can, no numpy among it: of a few thousand photos the processes' start is a quarter of the time.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import NamedTuple

from data.decode import decode_square
from data.memory import keep_freed_memory, resident_bytes, trim
from data.source import UNREAD, Reader, digest_of

KEPT_BYTES = 2**28  # several times what a process with photos of 24 megapixels holds


class Rows(NamedTuple):
    """Where an array of squares, (N, image_px, image_px, 3) uint8, begins in its .npy file."""

    path: Path
    offset: int  # bytes
    image_px: int


_reader: Reader | None = None  # one a process


def start_worker(path: Path, is_zip: bool, parent: int) -> None:
    """Open the source, and leave with the parent if it is killed."""
    global _reader
    keep_freed_memory()
    _reader = Reader(path, is_zip)
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()


def _leave_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def decode_rows(target: Rows, start: int, paths: list[str]) -> tuple[int, dict[str, str], bytes]:
    """Decode these photos into the rows from `start` on: how many, why some failed, and the digests of all, DIGEST_BYTES each.
    Raises OSError where the disk is full.

    Written, not mapped: a fifth of the time (no page is faulted in), and a full disk is an error, not a signal.
    """
    failed, digests = {}, bytearray()
    with target.path.open("r+b") as file:
        for row, path in enumerate(paths, start):
            digest = UNREAD
            try:
                raw = _reader.read(path)
                digest = digest_of(raw)
                square = decode_square(raw, target.image_px, path).tobytes()
            except Exception as error:  # noqa: BLE001  Pillow's decoders raise many types; each is reported by file name
                failed[path] = str(error).split("\n")[0] or type(error).__name__
            else:
                file.seek(target.offset + row * len(square))
                file.write(square)
            digests += digest
    if resident_bytes() > KEPT_BYTES:  # after a huge photo
        trim()
    return len(paths), failed, bytes(digests)
