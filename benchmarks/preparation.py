"""Preparation: images/s of `python -m data prepare` over the JPEG decoder alone on all cores, and its memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.measure import ROOT, Finished, alternate, ratios, run_python, scratch
from benchmarks.table import Report

# The photos are linked so many times over: as many as Food-11 has, so that starts weigh what they weigh there.
LINKS = 32

# Reads and decodes every photo at its full size, a process per core, and does nothing with it. It imports nothing else:
# its start is part of what is timed.
DECODER = """
import io, os, sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from PIL import Image
def decode_all(files):
    for path in files:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            image.convert("RGB")
files, cores = sorted(Path(sys.argv[1]).rglob("*.jpg")), len(os.sched_getaffinity(0))
with ProcessPoolExecutor(cores) as pool:
    for done in [pool.submit(decode_all, files[start::cores]) for start in range(cores)]:
        done.result()
"""


def run(report: Report, photos: Path, rounds: int) -> None:
    """Both over the same files, in memory's file cache; the starts of their processes are part of both."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        few, many = link(photos, Path(folder, "few"), 1), link(photos, Path(folder, "many"), LINKS)
        ways = {"decoder": lambda: decode(many).seconds, "prepare": lambda: prepare(many)[0]}
        values = alternate(ways, rounds)
        peaks = [prepare(tree)[1] / 2**20 for tree in (few, many)]
        n = sum(1 for _ in many.rglob("*.jpg"))
    rates = {name: [n / seconds for seconds in each] for name, each in values.items()}
    report.add("preparation / JPEG decoder alone", ratios(rates["prepare"], rates["decoder"]), "times", ">= 0.85")
    report.add("preparation", rates["prepare"], "images/s", note=f"{n} photos, 256 px")
    report.add("JPEG decoder alone", rates["decoder"], "images/s", note="at full size")
    name = f"preparation's memory, {LINKS} times the photos / once"
    note = f"{peaks[1]:.0f} MiB in all its processes, without the cache's pages"
    report.add(name, [peaks[1] / peaks[0]], "times", "<= 1.1", note)


def link(photos: Path, target: Path, times: int) -> Path:
    """A tree of symbolic links to every photo, `times` over."""
    for photo in photos.rglob("*.jpg"):
        for copy in range(times):
            path = target / photo.relative_to(photos).with_name(f"{copy}-{photo.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(photo.resolve())
    return target


def decode(photos: Path) -> Finished:
    return run_python("-c", DECODER, photos)


def prepare(photos: Path) -> tuple[float, int]:
    """Seconds, and the most anonymous memory in bytes that all its processes held at once, of one preparation."""
    with tempfile.TemporaryDirectory(dir=photos.parent) as folder:
        started, peak = time.perf_counter(), 0
        command = [sys.executable, "-m", "data", "prepare", str(photos), "--cache", f"{folder}/cache"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, _anonymous_bytes(process.pid))
            time.sleep(0.02)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        return time.perf_counter() - started, peak


def _anonymous_bytes(pid: int) -> int:
    """Of a process and its children; what the cache's files map is left out, as it can be given back at any time."""
    try:
        process = psutil.Process(pid)
        memory = [each.memory_info() for each in (process, *process.children(recursive=True))]
    except psutil.Error:
        return 0  # one has just ended
    return sum(each.rss - each.shared for each in memory)
