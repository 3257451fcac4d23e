"""3. Start-up: seconds from the trial's process start to its first optimiser step, over its imports alone."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time

from benchmarks.measure import Report, alternate, ratios
from benchmarks.setting import ROOT
from data.cache import Cache

# Python's own end takes a second with torch; a trial does without it, and so do both ways here.
IMPORTS = "import os, torch, torchvision, nni; os._exit(0)"

# A trial as NNI runs it, but without its manager; the process ends with the first step.
FIRST_STEP = """
import os, runpy, sys
import nni, torch
step = torch.optim.SGD.step
def first_step(*arguments, **options):
    step(*arguments, **options)
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    os._exit(0)
torch.optim.SGD.step = first_step
sys.argv = ["trial", *{words!r}, "--output", os.path.join({folder!r}, str(os.getpid()))]
runpy.run_module("trial", run_name="__main__")
"""


def run(report: Report, cache: Cache, device: str, rounds: int, image_px: int = 96) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = ["--cache", str(cache.directory), "--weights", "none", "--image-px", str(image_px), "--device", device]
        trial = FIRST_STEP.format(words=words, folder=folder)
        values = alternate({"first step": lambda: seconds_of(trial), "imports": lambda: seconds_of(IMPORTS)}, rounds)
    report.add("start-up / imports", ratios(values["first step"], values["imports"]), "times", "<= 1.25")
    report.add("start-up", values["first step"], "s", note=f"process start to first optimiser step, {image_px} px")
    report.add("imports of torch, torchvision and nni", values["imports"], "s")


def seconds_of(code: str) -> float:
    """Wall clock of a Python process that runs `code`."""
    started = time.perf_counter()
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NNI_")}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - started
