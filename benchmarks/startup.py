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

# A trial as NNI runs it, but without its manager: nni is imported as well, and the process ends with the first step. What
# does that is put in when the trial loads its optimiser, so that nothing is imported before the trial itself does it.
FIRST_STEP = """
import importlib.util, os, runpy, sys
class AtTheFirstStep:
    def find_spec(self, name, path, target=None):
        if name != "trial.state":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def load_and_change(module):
            load(module)
            import nni, torch
            step = module.SGD.step
            def first_step(optimizer):
                step(optimizer)
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
                os._exit(0)
            module.SGD.step = first_step
        spec.loader.exec_module = load_and_change
        return spec
sys.meta_path.insert(0, AtTheFirstStep())
sys.argv = ["trial", *{words!r}, "--output", os.path.join({folder!r}, str(os.getpid()))]
runpy.run_module("trial", run_name="__main__")
sys.exit("no step was taken")
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
