"""The JPEG decoder alone, which preparation is held against. Imports nothing else: its start is part of what is timed."""

from __future__ import annotations

import io
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from PIL import Image


def decode_all(files: list[Path]) -> None:
    for path in files:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.convert("RGB")


def decoder_alone(photos: Path) -> None:
    """Read and decode every photo at its full size, a process a core, and do nothing with it."""
    files, cores = sorted(photos.rglob("*.jpg")), len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores) as pool:
        for done in [pool.submit(decode_all, files[start::cores]) for start in range(cores)]:
            done.result()


if __name__ == "__main__":
    decoder_alone(Path(sys.argv[1]))
