"""Doctor: the machine and NNI's folder before the first run, each check a finding, and one real trial through NNI."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
import site
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
from packaging.requirements import Requirement

from analysis.reading.locate import AnalysisError, home, is_running, registry
from analysis.reading.reader import load_experiment
from experiments.check import describe, nnictl_packages, port, repair_findings
from experiments.config import ROOT, Overrides, existing, is_local, read_experiment
from experiments.findings import ExperimentError, Finding, format_finding
from experiments.nni import NNICTL, trial_environment, trial_processes, tuner_processes
from experiments.remote import remote_findings

DISK_GIB = (1, 6)  # below the first: an error; below the second: a warning. 15 trials leave 0.7, the full cache 3.3
MEMORY_GIB = (1, 4)  # available; one trial of ResNet18 takes about 2
INSTALL_PACKAGES = "python -m pip install -r requirements.txt"
SMOKE_S = 180.0  # a busy machine: the start of NNI's manager alone may take a minute


def doctor(with_trial: bool, remote: Path | None = None) -> int:
    """Print each finding as it is made, also of the machines of the experiment file `remote`. Returns the exit code: 1
    where there is an error."""
    has_error = False
    for finding in _remote_findings(remote) if remote else ():
        has_error |= _print(finding)
    for finding in _machine_findings():
        has_error |= _print(finding)
    if with_trial:
        print("trial: one through NNI, under a minute ...", file=sys.stderr, flush=True)
        has_error |= _print(_try_nni())
    return 1 if has_error else 0


def _remote_findings(file: Path) -> list[Finding]:
    experiment = read_experiment(file, Overrides())
    if is_local(experiment.config):
        raise ExperimentError(f"{file}: its trials run here; expected a file such as experiments/remote.yml")
    return remote_findings(experiment, DISK_GIB[0] * 1024)


def _print(finding: Finding) -> bool:
    print(format_finding(finding), flush=True)
    return finding.level == "error"


def _machine_findings() -> Iterator[Finding]:
    """One finding per check, "ok" where there is nothing to say; the repairs may have several."""
    for check in (_python, packages, nnictl_packages, port, _localhost, gpu, torch_gpu, _disk, _memory):
        yield check()
    yield from repair_findings() or [Finding("ok", "repairs", "repairs: active, for launch and for nnictl")]
    for check in (_home, _registry, _left_over):
        yield check()


def _python() -> Finding:
    version = platform.python_version()
    if (3, 10) <= sys.version_info[:2] <= (3, 13):
        return Finding("ok", "python", f"Python: {version}, {sys.executable}")
    text = f"Python: {version}; 3.10 to 3.13 is needed"
    return Finding("error", "python.version", text, "make PYTHON=python3.11 demo")


def packages() -> Finding:
    """Everything in requirements.txt, in the versions that it allows: a later filelock alone makes nnictl wait forever."""
    lines = (ROOT / "requirements.txt").read_text("utf-8").splitlines()
    versions, wrong = {}, []
    for required in (Requirement(line.partition("#")[0]) for line in lines):
        try:
            versions[required.name] = importlib.metadata.version(required.name)
        except importlib.metadata.PackageNotFoundError:
            versions[required.name] = None
            continue
        if not required.specifier.contains(versions[required.name], prereleases=True):
            wrong.append(f"{required.name} {versions[required.name]}, expected {required.specifier}")
    if missing := [name for name, version in versions.items() if version is None]:
        return Finding("error", "packages.missing", f"packages: {', '.join(missing)} missing", INSTALL_PACKAGES)
    if wrong:
        return Finding("error", "packages.version", f"packages: {'; '.join(wrong)}", INSTALL_PACKAGES)
    main = ", ".join(f"{name} {versions[name]}" for name in ("nni", "torch", "torchvision", "numpy"))
    return Finding("ok", "packages", f"packages: {main}")


def _localhost() -> Finding:
    """NNI's tuner and trials reach their manager as http://localhost, through a proxy where the environment says so."""
    try:
        addresses = {entry[4][0] for entry in socket.getaddrinfo("localhost", None)}
    except OSError:
        addresses = set()
    if not addresses & {"127.0.0.1", "::1"}:
        text = "localhost: is not this machine"
        return Finding("error", "localhost.unknown", text, "add `127.0.0.1 localhost` to /etc/hosts")
    proxy = os.environ.get("http_proxy") or os.environ.get("HTTP_PROXY")
    excepted = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    if proxy and not {"localhost", "*"} & set(re.split(r"[,\s]+", excepted)):
        text = "localhost: is reached through http_proxy"
        return Finding("error", "localhost.proxy", text, "export no_proxy=localhost,127.0.0.1")
    return Finding("ok", "localhost", "localhost: is this machine, without a proxy")


def gpu() -> Finding:
    """NNI's own collector, as its manager runs it."""
    command = [sys.executable, "-m", "nni.tools.nni_manager_scripts.collect_gpu_info", "--detail"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    try:
        info = json.loads(done.stdout)
    except ValueError:
        reason = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        text = f"GPU: NNI's collector fails ({reason}); remove trialGpuNumber where a file has it"
        return Finding("warning", "gpu.collector", text)
    gpus = info.get("gpus") or []
    if not gpus:
        return Finding("ok", "gpu.none", "GPU: NNI sees none; remove trialGpuNumber where a file has it")
    text = "; ".join(f"{g.get('model', 'GPU')} {g.get('freeGpuMemory', 0) / 2**30:.0f} GiB free" for g in gpus)
    if info.get("processes"):
        return Finding("warning", "gpu.in_use", f"GPU: {text}; in use", "nvidia-smi")
    return Finding("ok", "gpu", f"GPU: {text}")


def torch_gpu() -> Finding:
    """The trial's own answer: a GPU that is there and not usable is an error, none is not."""
    state = describe(("-m", "trial", "--gpu"), str(ROOT))
    if "state" not in state:
        return Finding("error", "torch.fails", f"PyTorch: python -m trial --gpu fails: {state['problems'][0]}")
    if state["state"] == "unusable":
        return Finding("error", "torch.gpu_unusable", f"PyTorch: {state['why']}")
    if state["state"] == "none":
        return Finding("ok", "torch.no_gpu", f"PyTorch: sees no GPU ({state['why']}): trials run on the CPU")
    return Finding("ok", "torch.gpu", f"PyTorch: trials can use {', '.join(state['names'])}")


def _disk() -> Finding:
    """Of the folder of experiments and of this project, which holds the cache."""
    free = {str(place): shutil.disk_usage(place).free / 2**30 for place in (existing(home()), ROOT)}
    text = ", ".join(f"{gib:.1f} GiB free in {place}" for place, gib in free.items())
    need = "15 trials leave 0.7 GiB, the cache takes 3.3; free space"
    return by_size("disk", min(free.values()), DISK_GIB, text, need)


def _memory() -> Finding:
    available = psutil.virtual_memory().available / 2**30
    need = "a trial takes about 2 GiB; close programs"
    return by_size("memory", available, MEMORY_GIB, f"{available:.1f} GiB available", need)


def by_size(what: str, gib: float, limits: tuple[float, float], text: str, need: str) -> Finding:
    """limits: GiB below which it is an error, and below which it is a warning."""
    level = "error" if gib < limits[0] else "warning" if gib < limits[1] else "ok"
    return Finding(level, what, f"{what}: {text}" if level == "ok" else f"{what}: {text}; {need}")


def _home() -> Finding:
    """NNI's folder takes a file, and no file in it comes from the future: NNI's records are told apart by time."""
    try:
        home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=home()) as file:
            file.write(b"x")
    except OSError as error:
        text = f"home: {home()} cannot be written ({error.strerror}); correct its owner, or set HOME"
        return Finding("error", "home.not_writable", text)
    newest = max((path.stat().st_mtime for path in home().glob("*/db/nni.sqlite")), default=0.0)
    if newest > time.time() + 3600:
        text = f"home: an experiment in {home()} is from the future; set the clock"
        return Finding("error", "home.clock", text, "timedatectl")
    return Finding("ok", "home", f"home: {home()} can be written")


def _registry() -> Finding:
    """NNI takes an unreadable registry for an empty one, and forgets all experiments."""
    file = home() / ".experiment"
    try:
        entries = json.loads(file.read_text("utf-8")) if file.exists() else {}
        if not isinstance(entries, dict):
            raise ValueError
    except (OSError, ValueError):
        text = f"registry: {file} is not readable JSON; move it out of the way"
        return Finding("error", "registry.unreadable", text, f"mv {file} {file}.broken")
    return Finding("ok", "registry", f"registry: {len(entries)} experiments")


def _left_over() -> Finding:
    """Managers that nobody needs, and processes of managers that have ended."""
    texts = []
    for key, entry in registry().items():
        folder = Path(str(entry.get("logDir") or home())) / key
        if is_running(entry):
            if entry.get("status") in ("DONE", "ERROR", "VIEWED"):
                texts.append(f"{key} is {entry['status']} and holds port {entry.get('port')}: nnictl stop {key}")
        elif trial_processes(key, folder) or tuner_processes(folder):
            texts.append(f"{key} left processes behind: python -m experiments resume {key}")
    if texts:
        return Finding("warning", "left_over", f"left over: {'; '.join(texts)}")
    return Finding("ok", "left_over", "left over: nothing")


# A trial of ours in short: NNI's parameters first, then PyTorch and the GPUs that it sees there.
SMOKE_TRIAL = """\
import nni
x = nni.get_next_parameter()["x"]
import torch
nni.report_intermediate_result(x)
nni.report_final_result({"default": x, "gpus": torch.cuda.device_count()})
import time
time.sleep(1)
"""
SMOKE_EXPERIMENT = {
    "experimentName": "smoke",
    "searchSpace": {"x": {"_type": "choice", "_value": [0.25]}},
    "trialCodeDirectory": ".",
    "trialCommand": "python smoke_trial.py",
    "trialConcurrency": 1,
    "maxTrialNumber": 1,
    "maxTrialDuration": "150s",
    "maxExperimentDuration": "150s",
    "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
    "trainingService": {"platform": "local"},
}


def _try_nni() -> Finding:
    """One real trial through NNI, on the same path that every experiment takes: check, start, watch, stop.

    It has a home folder of its own for NNI's registry and files, which is removed afterwards; nothing is downloaded.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nni-smoke-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "smoke_trial.py").write_text(SMOKE_TRIAL)
        (place / "smoke.yml").write_text(json.dumps(SMOKE_EXPERIMENT))
        # Packages installed for this user stay visible.
        environment = {**trial_environment(), "HOME": str(place), "PYTHONUSERBASE": site.getuserbase()}
        command = [sys.executable, "-m", "experiments", "launch", str(place / "smoke.yml")]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes)
        try:
            out, err = process.communicate(timeout=SMOKE_S)
        except subprocess.TimeoutExpired:
            text = f"trial: no result after {SMOKE_S:.0f} s (a busy machine, or NNI does not work here)"
            return Finding("error", "nni.slow", text)
        finally:
            _end_smoke(process, environment)
        if process.returncode == 0 and " DONE best 0.2500" in out:
            took = f"trial: one trial through NNI in {time.monotonic() - started:.0f} s"
            return Finding("ok", "nni", f"{took}; it saw {_smoke_gpus(place)} GPUs")
        reasons = [line for line in err.splitlines() if re.match(r"error: |[A-Z]+: smoke ", line)]
        return Finding(
            "error", "nni.fails", f"trial: {(*reasons, f'launch ended with exit code {process.returncode}')[0]}"
        )


def _end_smoke(process: subprocess.Popen, environment: dict[str, str]) -> None:
    if process.poll() is None:
        process.kill()
        process.communicate()
        subprocess.run([*NNICTL, "stop", "--all"], env=environment, capture_output=True, timeout=90, check=False)


def _smoke_gpus(place: Path) -> str:
    """As the trial reported; "an unknown number of" where its result cannot be read."""
    try:
        databases = list(place.glob("nni-experiments/*/db/nni.sqlite"))
        return str(load_experiment(databases[0]).trials[0].final["gpus"])
    except (AnalysisError, IndexError, KeyError, TypeError):
        return "an unknown number of"
