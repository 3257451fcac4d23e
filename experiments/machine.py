"""What of the machine a run of NNI needs, each checked in a function that gives one line."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import NamedTuple

import psutil

from analysis.reading.locate import home
from experiments.config import ROOT
from experiments.ports import FIRST, find_port, is_free

DISK_GIB = (1, 6)  # below the first: a fault; below the second: a warning. 15 trials leave 0.7, the full cache 3.3
MEMORY_GIB = (1, 4)  # available; one trial of ResNet18 takes about 2


class Line(NamedTuple):
    """level: "ok", "warning" or "fault"."""

    level: str
    what: str
    text: str


def python() -> Line:
    version = platform.python_version()
    good = (3, 10) <= sys.version_info[:2] <= (3, 13)
    return Line("ok", "Python", f"{version}, {sys.executable}") if good else Line(
        "fault", "Python", f"{version}; 3.10 to 3.13 is needed: make PYTHON=python3.11 demo"
    )  # fmt: skip


def packages() -> Line:
    """Everything in requirements.txt, and NNI in the one version whose behaviour is known here."""
    names = [re.match(r"[\w-]+", line)[0] for line in (ROOT / "requirements.txt").read_text("utf-8").splitlines()]
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    if missing := [name for name, version in found.items() if version is None]:
        return Line("fault", "packages", f"{', '.join(missing)} missing; python -m pip install -r requirements.txt")
    if found["nni"] != "3.0":
        return Line("fault", "packages", f"nni {found['nni']}, expected 3.0: python -m pip install nni==3.0")
    shown = ", ".join(f"{name} {found[name]}" for name in ("nni", "torch", "torchvision", "numpy"))
    return Line("ok", "packages", shown)


def nnictl() -> Line:
    """setuptools 82 dropped pkg_resources, which nnictl imports and nni does not require."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pkg_resources  # noqa: F401
        except ImportError:
            text = "needs pkg_resources, which this setuptools lacks: python -m pip install 'setuptools<82'"
            return Line("fault", "nnictl", text)
    return Line("ok", "nnictl", f"pkg_resources of setuptools {importlib.metadata.version('setuptools')}")


def ports() -> Line:
    if is_free(FIRST):
        return Line("ok", "ports", f"{FIRST} is free")
    return Line("warning", "ports", f"{FIRST} is taken; launch will use {find_port()}, nnictl create needs --port")


def localhost() -> Line:
    """NNI's tuner and trials reach their manager as http://localhost, through a proxy where the environment says so."""
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo("localhost", None)}
    except OSError:
        addresses = set()
    if not addresses & {"127.0.0.1", "::1"}:
        return Line("fault", "localhost", "is not this machine; add `127.0.0.1 localhost` to /etc/hosts")
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if proxy and not {"localhost", "*"} & set(re.split(r"[,\s]+", excepted)):
        return Line("fault", "localhost", "goes through http_proxy; export no_proxy=localhost,127.0.0.1")
    return Line("ok", "localhost", "is this machine, without a proxy")


def gpu() -> Line:
    """NNI's own collector, as its manager runs it."""
    command = [sys.executable, "-m", "nni.tools.nni_manager_scripts.collect_gpu_info", "--detail"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    try:
        seen = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Line("warning", "GPU", f"NNI's collector fails ({last}); leave trialGpuNumber away")
    gpus = seen.get("gpus") or []
    if not gpus:
        return Line("ok", "GPU", "NNI sees none: remove trialGpuNumber where a file has it")
    texts = [f"{g.get('model', 'GPU')} {g.get('freeGpuMemory', 0) / 2**30:.0f} GiB free" for g in gpus]
    busy = seen.get("processes")
    return Line("warning" if busy else "ok", "GPU", "; ".join(texts) + ("; in use, see nvidia-smi" if busy else ""))


def torch_gpu() -> Line:
    """The trial's own answer: a GPU that is there and not usable is a fault, none is not."""
    command = [sys.executable, "-m", "trial", "--gpu"]
    environment = {name: value for name, value in os.environ.items() if name != "NNI_TRIAL_JOB_ID"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)
    try:
        gpu = json.loads(done.stdout)
    except ValueError:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        return Line("fault", "PyTorch", f"python -m trial --gpu fails: {last}")
    if gpu["state"] == "unusable":
        return Line("fault", "PyTorch", gpu["why"])
    if gpu["state"] == "none":
        return Line("ok", "PyTorch", f"sees no GPU ({gpu['why']}): trials run on the CPU")
    return Line("ok", "PyTorch", f"trials can use {', '.join(gpu['names'])}")


def disk() -> Line:
    """Of the folder of experiments and of this project, which holds the cache."""
    free = {str(place): shutil.disk_usage(place).free / 2**30 for place in (existing(home()), ROOT)}
    text = ", ".join(f"{gib:.1f} GiB free in {place}" for place, gib in free.items())
    return _by_size(
        "disk", min(free.values()), DISK_GIB, text, "15 trials leave 0.7 GiB, the cache takes 3.3; free space"
    )


def memory() -> Line:
    available = psutil.virtual_memory().available / 2**30
    text = f"{available:.1f} GiB available"
    return _by_size("memory", available, MEMORY_GIB, text, "a trial takes about 2 GiB; close programs")


def _by_size(what: str, gib: float, limits: tuple[float, float], text: str, hint: str) -> Line:
    level = "fault" if gib < limits[0] else "warning" if gib < limits[1] else "ok"
    return Line(level, what, text if level == "ok" else f"{text}; {hint}")


def existing(folder: Path) -> Path:
    """The folder, or the nearest one above it that is there: they share a disk."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())
