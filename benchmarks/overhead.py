"""What a search costs besides training: preparing its photos, a trial's start, its memory, NNI's own time.

Preparation is images/s of `python -m data prepare` over the JPEG decoder alone on all cores, and its memory.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

from analysis.reading.reader import load_experiment
from benchmarks.measure import ROOT, Finished, alternate, ratios, run_python, scratch
from benchmarks.table import Report
from data.cache import Cache
from trial.batches import store_px

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

RESIDENT = """
import json, sys
def resident_bytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
"""

# What no trial can do without: the imports, the network, one batch, its optimiser and a step of it.
ALONE = """
import torch, torchvision, nni
from torch.nn import functional as F
from trial.device import Compute, choose_precision
from trial.model import build_model
device = torch.device({device!r})
compute = Compute(device, choose_precision(device)[0], "")  # its freed memory goes back to the system
model = compute.place(build_model("resnet18", "none", 11, 0))
optimizer = torch.optim.SGD(model.parameters(), 0.001, 0.9)
images = torch.rand({batch}, 3, {px}, {px}).to(compute.device, memory_format=torch.channels_last)
labels = torch.zeros({batch}, dtype=torch.int64, device=compute.device)
for _ in range(4):
    with compute.autocast():
        loss = F.cross_entropy(model(images).float(), labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(json.dumps(resident_bytes("VmHWM")))
"""

TRIAL = """
import contextlib
from trial import __main__ as trial, files
resident = []
add = files.EpochLog.add
def and_look(log, *arguments):
    add(log, *arguments)
    resident.append(resident_bytes("VmRSS"))
files.EpochLog.add = and_look
with contextlib.redirect_stdout(sys.stderr):
    code = trial.main({words!r})
print(json.dumps([resident_bytes("VmHWM"), resident]))
sys.exit(code)
"""

TRIALS = 15
TRIAL_S = 20.0  # that the goal names


def startup(report: Report, cache: Cache, device: str, rounds: int, image_px: int = 96) -> None:
    """Seconds from the trial's process start to its first optimiser step, over its imports alone."""
    with tempfile.TemporaryDirectory() as folder:
        words = _trial_words(cache, weights="none", image_px=image_px, device=device)
        trial = FIRST_STEP.format(words=words, folder=folder)
        ways = {
            "first step": lambda: run_python("-c", trial).seconds,
            "imports": lambda: run_python("-c", IMPORTS).seconds,
        }
        values = alternate(ways, rounds)
    report.add("start-up / imports", ratios(values["first step"], values["imports"]), "times", "<= 1.25")
    report.add("start-up", values["first step"], "s", note=f"process start to first optimiser step, {image_px} px")
    report.add("imports of torch, torchvision and nni", values["imports"], "s")


def _trial_words(cache: Cache, **fields: object) -> list[str]:
    """The options of `python -m trial` for these settings."""
    words = ["--cache", str(cache.directory)]
    return words + [word for name, value in fields.items() for word in (f"--{name.replace('_', '-')}", str(value))]


def memory(report: Report, cache: Cache, device: str) -> None:
    for image_px, epochs in ((96, 20), (224, 5)):
        memory_of(report, cache, (image_px, 32), epochs, device)


def memory_of(report: Report, cache: Cache, shape: tuple[int, int], epochs: int, device: str = "cpu") -> None:
    """The peak of a whole trial over that of the model and one batch alone plus what the cache maps; of 10 epochs and more
    also what its memory grew by per epoch in their second half: before, allocators fill their pools.

    shape: side of an image, images per batch. The peak is VmHWM of /proc: all resident memory, the pages of the cache that
    the trial has read included."""
    image_px, batch = shape
    mapped = sum(cache.split(name, store_px(image_px)).images.nbytes for name in ("training", "validation"))
    alone = _probe(ALONE.format(batch=batch, px=image_px, device=device))
    with tempfile.TemporaryDirectory() as folder:
        fields = {"weights": "none", "image_px": image_px, "batch_size": batch, "patience": 0, "device": device}
        peak, resident = _probe(TRIAL.format(words=_trial_words(cache, **fields, epochs=epochs, output=folder)))
    note = f"{peak / 2**20:.0f} MiB; alone {alone / 2**20:.0f}, mapped {mapped / 2**20:.0f}"
    report.add(f"peak of a trial, {image_px} px, batch {batch}", [peak / (alone + mapped)], "times", "<= 1.2", note)
    if epochs >= 10:
        growth = (resident[-1] - resident[epochs // 2 - 1]) / 2**20 / (epochs - epochs // 2)
        goal = "<= 0.1" if epochs >= 50 else ""  # before, allocators may still be filling their pools
        report.add(f"growth an epoch, {image_px} px", [growth], "MiB", goal, f"epochs {epochs // 2} to {epochs}")


def _probe(code: str):
    """What the process prints last, as JSON. Its memory is its own: nothing is inherited."""
    return json.loads(run_python("-c", RESIDENT + code).output.splitlines()[-1])


def search(report: Report, cache: Cache, device: str) -> None:
    """Wall clock of an experiment of 15 trials over the sum of its trials' own seconds; about six minutes.

    A trial's own seconds are those of its process, as NNI records them; what is left is NNI's: starting the manager and
    the tuner, waiting between two trials (it looks every second), and stopping both."""
    fields = {"weights": "none", "image_px": 64, "patience": 0, "device": device}
    fields["epochs"] = _epochs_of(TRIAL_S, cache, fields)
    words = [word for name, value in fields.items() for word in ("--set", f"{name}={value}")]
    launch = ["-m", "experiments", "launch", "experiments/random.yml", "--max-trials", TRIALS]
    done = run_python(*launch, "--cache", cache.directory, *words)
    (line,) = (line for line in done.output.splitlines() if line.startswith("experiment "))
    experiment = load_experiment(line.split()[2])
    trials = [trial for trial in experiment.trials if trial.duration_s]
    seconds = [trial.duration_s for trial in trials]
    own, goal_s = sum(seconds), TRIAL_S * len(trials)
    at_goal = (done.seconds - own + goal_s) / goal_s
    note = f"{len(trials)} trials of {own / len(trials):.1f} s; the same pauses around trials of {TRIAL_S:.0f} s: {at_goal:.2f}"
    report.add("search wall-clock / trials' seconds", [done.seconds / own], "times", "<= 1.15", note)
    report.add("seconds a trial", seconds, "s")
    gaps = [(after.start - before.end) / 1000 for before, after in zip(trials, trials[1:])]
    report.add("between two trials", gaps, "s", note="NNI's")
    around = done.seconds - own - sum(gaps)
    report.add("before the first and after the last trial", [around], "s", note="start, stop, checks")


def _epochs_of(seconds: float, cache: Cache, fields: dict[str, object]) -> int:
    """How many epochs make a trial of so many seconds, its start among them; 2 at least. Measured on one of 3 epochs."""
    with tempfile.TemporaryDirectory(dir=scratch()) as folder:
        done = run_python("-m", "trial", *_trial_words(cache, **fields, output=folder, epochs=3))
        lines = [json.loads(line) for line in Path(folder, "epochs.jsonl").read_text("utf-8").splitlines()]
    epoch = (lines[-1]["seconds"] - lines[0]["seconds"]) / (len(lines) - 1)
    return max(2, round(len(lines) + (seconds - done.seconds) / epoch))


# -- preparation --------------------------------------------------------------------------------------------------------

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


def preparation(report: Report, photos: Path, rounds: int) -> None:
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
