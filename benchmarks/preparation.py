"""5. Preparation: images/s of `python -m data prepare` over the JPEG decoder alone on all cores, and its memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.measure import Report, alternate, ratios
from benchmarks.setting import ROOT, scratch

LINKS = (
    32  # the photos are linked so many times over: as many as Food-11 has, so that starts weigh what they weigh there
)


def run(report: Report, photos: Path, rounds: int) -> None:
    """Both over the same files, in memory's file cache; the starts of their processes are part of both."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        few, many = link(photos, Path(folder, "few"), 1), link(photos, Path(folder, "many"), LINKS)
        ways = {"decoder": lambda: command_seconds("benchmarks.decoder", many), "prepare": lambda: prepare(many)[0]}
        values = alternate(ways, rounds)
        peaks = [prepare(tree)[1] / 2**20 for tree in (few, many)]
        n = sum(1 for _ in many.rglob("*.jpg"))
    rates = {name: [n / seconds for seconds in each] for name, each in values.items()}
    report.add("preparation / JPEG decoder alone", ratios(rates["prepare"], rates["decoder"]), "times", ">= 0.85")
    report.add("preparation", rates["prepare"], "images/s", note=f"{n} photos, 256 px")
    report.add("JPEG decoder alone", rates["decoder"], "images/s", note="at full size")
    report.add(
        f"preparation's memory, {LINKS} times the photos / once", [peaks[1] / peaks[0]], "times", "<= 1.1",
        f"{peaks[1]:.0f} MiB in all its processes, without the cache's pages",
    )  # fmt: skip


def link(photos: Path, target: Path, times: int) -> Path:
    """A tree of symbolic links to every photo, `times` over."""
    for photo in photos.rglob("*.jpg"):
        for copy in range(times):
            path = target / photo.relative_to(photos).with_name(f"{copy}-{photo.name}")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.symlink_to(photo.resolve())
    return target


def command_seconds(module: str, *words: object) -> float:
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", module, *map(str, words)], cwd=ROOT, check=True, capture_output=True)
    return time.perf_counter() - started


def prepare(photos: Path) -> tuple[float, int]:
    """Seconds, and the most anonymous memory in bytes that all its processes held at once, of one preparation."""
    with tempfile.TemporaryDirectory(dir=photos.parent) as folder:
        started, peak = time.perf_counter(), 0
        command = [sys.executable, "-m", "data", "prepare", str(photos), "--cache", f"{folder}/cache"]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None:
            peak = max(peak, anonymous_bytes(process.pid))
            time.sleep(0.02)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
        return time.perf_counter() - started, peak


def anonymous_bytes(pid: int) -> int:
    """Of a process and its children; what the cache's files map is left out, as it can be given back at any time."""
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="utf-8").split()
    except OSError:
        return 0  # it has just ended
    own = next((int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")), 0)
    return own + sum(anonymous_bytes(int(child)) for child in children)
