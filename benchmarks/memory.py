"""6. Memory: the peak of a whole trial over that of the model and one batch alone plus what the cache maps; its growth.

The peak is VmHWM of /proc: all resident memory, the pages of the cache that the trial has read included.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile

from benchmarks.measure import Report
from benchmarks.setting import ROOT
from data.cache import Cache
from trial.batches import store_px

PEAK = """
def resident_bytes(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
"""

# What no trial can do without: the imports, the network, one batch, its optimiser and a step of it.
ALONE = """
import sys, json
sys.path.insert(0, {root!r})
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
import sys, json
sys.path.insert(0, {root!r})
from trial import __main__ as trial, files
resident = []
add = files.EpochLog.add
def and_look(log, *arguments):
    add(log, *arguments)
    resident.append(resident_bytes("VmRSS"))
files.EpochLog.add = and_look
import contextlib
with contextlib.redirect_stdout(sys.stderr):
    code = trial.main({arguments!r})
print(json.dumps([resident_bytes("VmHWM"), resident]))
sys.exit(code)
"""


def run(report: Report, cache: Cache, device: str) -> None:
    for image_px, epochs in ((96, 20), (224, 5)):
        measure(report, cache, (image_px, 32), epochs, device)


def measure(report: Report, cache: Cache, shape: tuple[int, int], epochs: int, device: str = "cpu") -> None:
    """shape: side of an image, images a batch. The peak of a training of so many epochs, and of 20 and more what its memory grew by in an epoch of their second
    half: before, allocators fill their pools."""
    image_px, batch = shape
    mapped = sum(cache.split(name, store_px(image_px)).images.nbytes for name in ("training", "validation"))
    alone = probe(ALONE.format(root=str(ROOT), batch=batch, px=image_px, device=device))
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["--cache", str(cache.directory), "--output", folder, "--weights", "none", "--patience", "0"]
        arguments += ["--image-px", str(image_px), "--batch-size", str(batch), "--epochs", str(epochs)]
        arguments += ["--device", device]
        peak, resident = probe(TRIAL.format(root=str(ROOT), arguments=arguments))
    note = f"{peak / 2**20:.0f} MiB; alone {alone / 2**20:.0f}, mapped {mapped / 2**20:.0f}"
    report.add(f"peak of a trial, {image_px} px, batch {batch}", [peak / (alone + mapped)], "times", "<= 1.2", note)
    if epochs >= 20:
        growth = (resident[-1] - resident[epochs // 2 - 1]) / 2**20 / (epochs - epochs // 2)
        goal = "<= 0.1" if epochs >= 50 else ""  # before, allocators may still be filling their pools
        report.add(f"growth an epoch, {image_px} px", [growth], "MiB", goal, f"epochs {epochs // 2} to {epochs}")


def probe(code: str):
    """What the process prints last, as JSON. Its memory is its own: nothing is inherited."""
    done = subprocess.run([sys.executable, "-c", PEAK + code], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the measured process failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])
