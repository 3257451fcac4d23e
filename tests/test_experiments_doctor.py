"""`doctor`: what it finds on machines with faults made on purpose; and whose processes are ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from conftest import PATIENCE_S, run_module

from experiments import check as checks
from experiments import doctor as doctors
from experiments import nni
from experiments.findings import Finding


def doctor(home: Path, **environment: str):
    """Its exit code, and {topic: "level: topic: text" with its next step}."""
    done = run_module("experiments", "doctor", "--no-trial", env={**os.environ, "HOME": str(home), **environment})
    assert done.stderr == "" and done.stdout
    findings = done.stdout.strip().replace("\n    ", " ").splitlines()
    return done.returncode, {line.split(": ")[1]: line for line in findings}


def test_a_sound_machine_has_a_line_for_each_check(tmp_path):
    code, lines = doctor(tmp_path, http_proxy="", HTTP_PROXY="")
    assert code == 0 and not any(line.startswith("error") for line in lines.values())
    assert list(lines)[:5] == ["Python", "packages", "nnictl", "port", "localhost"]
    assert lines["repairs"].startswith(("ok", "warning")) and "FOOD11" not in lines["repairs"]
    assert lines["left over"] == "ok: left over: nothing" and "0 experiments" in lines["registry"]
    assert [path.name for path in (tmp_path / "nni-experiments").iterdir()] == []


def test_a_spoiled_machine_is_told_what_to_do(tmp_path):
    (tmp_path / "nni-experiments" / "abc" / "db").mkdir(parents=True)
    (tmp_path / "nni-experiments" / ".experiment").write_text('{"abc": {"id"')
    database = tmp_path / "nni-experiments" / "abc" / "db" / "nni.sqlite"
    database.touch()
    os.utime(database, (time.time() + 9000, time.time() + 9000))
    code, lines = doctor(tmp_path, http_proxy="http://proxy:3128", no_proxy="", FOOD11_NNI_REPAIRS="off")
    assert code == 1
    assert lines["registry"].startswith("error") and ".experiment.broken" in lines["registry"]
    assert lines["localhost"].startswith("error") and "export no_proxy=localhost" in lines["localhost"]
    assert lines["repairs"].startswith("warning") and "FOOD11_NNI_REPAIRS=off" in lines["repairs"]
    assert lines["home"].startswith("error") and "set the clock" in lines["home"]


def test_a_home_that_cannot_be_written_is_a_fault(tmp_path):
    (tmp_path / "file").touch()
    code, lines = doctor(tmp_path / "file")
    assert code == 1 and "cannot be written" in lines["home"]


def test_the_gpu_is_what_nnis_own_collector_sees(tmp_path, monkeypatch):
    """NVML in place of a driver: the collector is NNI's."""
    (tmp_path / "pynvml.py").write_text(
        "from types import SimpleNamespace as S\n"
        "nvmlInit = nvmlShutdown = lambda: None\n"
        "nvmlDeviceGetCount = lambda: 1\n"
        "nvmlSystemGetDriverVersion = lambda: '1'\n"
        "nvmlSystemGetCudaDriverVersion_v2 = lambda: 1\n"
        "nvmlDeviceGetHandleByIndex = nvmlDeviceGetNumGpuCores = lambda *_: 1\n"
        "nvmlDeviceGetName = lambda _: 'Pan 9000'\n"
        "nvmlDeviceGetMemoryInfo = lambda _: S(total=8 * 2**30, free=7 * 2**30)\n"
        "nvmlDeviceGetUtilizationRates = lambda _: S(gpu=0, memory=0)\n"
        "nvmlDeviceGetComputeRunningProcesses_v3 = nvmlDeviceGetGraphicsRunningProcesses_v3 = lambda _: []\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctors.gpu() == Finding("ok", "gpu", "GPU: Pan 9000 7 GiB free")


def test_a_gpu_that_torch_cannot_use_is_a_fault_with_its_cures(old_driver, tmp_path):
    code, lines = doctor(tmp_path, **{name: old_driver[name] for name in ("LD_LIBRARY_PATH", "STUB_DRIVER")})
    assert code == 1
    assert lines["PyTorch"].startswith("error: PyTorch: an NVIDIA GPU is here, but its driver (CUDA 12.2)")
    assert "whl/cu126" in lines["PyTorch"] and "--device cpu" in lines["PyTorch"]


@pytest.mark.parametrize(
    ("answer", "level", "key"),
    [
        ('{"state": "none", "why": "no card", "names": []}', "ok", "torch.no_gpu"),
        ('{"state": "usable", "why": "", "names": ["T4", "T4"]}', "ok", "torch.gpu"),
        ('{"state": "unusable", "why": "too old", "names": []}', "error", "torch.gpu_unusable"),
        ("", "error", "torch.fails"),
    ],
)
def test_what_the_trial_says_of_the_gpu_is_a_finding(answer, level, key, monkeypatch):
    done = subprocess.CompletedProcess([], 0, answer, "Traceback\nno torch\n")
    checks.describe.cache_clear()
    monkeypatch.setattr(checks.subprocess, "run", lambda *_, **__: done)
    assert (doctors.torch_gpu().level, doctors.torch_gpu().key) == (level, key)


def test_missing_packages_and_sizes(tmp_path, monkeypatch):
    (tmp_path / "requirements.txt").write_text("nni==3.0  # reason\nno-such-package>=1  # reason\n")
    monkeypatch.setattr(doctors, "ROOT", tmp_path)
    assert doctors.packages().key == "packages.missing" and "no-such-package" in doctors.packages().text
    (tmp_path / "requirements.txt").write_text("nni==3.0  # reason\nfilelock<3  # reason\n")
    assert doctors.packages().key == "packages.version" and "expected <3" in doctors.packages().text
    assert [doctors.by_size("disk", gib, (1, 6), "x", "y").level for gib in (0.5, 5, 7)] == ["error", "warning", "ok"]


@contextmanager
def process(**environment: str):
    """A process that NNI might have started, with a child that inherits its environment, in a shell of its own."""
    code = "import subprocess, sys; print('up', flush=True); subprocess.run([sys.executable, '-c', 'import time; time.sleep(60)'])"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True) as started:
        started.stdout.readline()
        while not psutil.Process(started.pid).children():
            time.sleep(0.05)
        try:
            yield started
        finally:
            for child in psutil.Process(started.pid).children() if psutil.pid_exists(started.pid) else ():
                child.kill()
            started.kill()


def test_only_processes_of_that_experiment_are_ended(tmp_path):
    place = tmp_path / "nni-experiments" / "exp00001"
    outputs = str(place / "environments/local-env/trials/A")
    ours = {"NNI_EXP_ID": "exp00001", "NNI_OUTPUT_DIR": outputs}
    foreign = {"NNI_EXP_ID": "exp00001", "NNI_OUTPUT_DIR": str(tmp_path / "elsewhere/A")}
    tuner = {"SDK_PROCESS": "dispatcher", "NNI_LOG_DIRECTORY": str(place / "log")}
    with process(**ours) as one, process(**foreign) as other, process(**tuner) as dispatcher, process() as nobodys:
        assert {trial.pid for trial in nni.trial_processes("exp00001", place)} >= {one.pid}
        assert nni.trial_processes("exp00002", place) == [] and nni.tuner_processes(tmp_path) == []
        assert nni.end_orphans("exp00001", place) == "its trials (2 processes) and its tuner (2 processes)"
        assert (one.wait(5), dispatcher.wait(5)) and other.poll() is None and nobodys.poll() is None
        assert nni.end_orphans("exp00001", place) == ""


@pytest.mark.parametrize("command", ["doctor", "resume"])
def test_what_a_killed_manager_left_is_found(command, tmp_path):
    folder = tmp_path / "nni-experiments"
    folder.mkdir()
    entry = {"id": "exp00001", "status": "RUNNING", "pid": 2**22 + 1, "port": 8080, "logDir": str(folder)}
    (folder / ".experiment").write_text(json.dumps({"exp00001": entry}))
    with process(NNI_EXP_ID="exp00001", NNI_OUTPUT_DIR=str(folder / "exp00001/environments/local-env/trials/A")):
        if command == "doctor":
            code, lines = doctor(tmp_path)
            assert code == 0 and lines["left over"].startswith("warning") and "resume exp00001" in lines["left over"]
        else:  # without a database there is nothing to go on with
            done = run_module("experiments", "resume", "exp00001", env={**os.environ, "HOME": str(tmp_path)})
            assert done.returncode == 1 and "cannot be resumed (no experiment" in done.stderr
            assert len(done.stderr.splitlines()) == 1


def test_nnictl_ends_a_foreign_program_where_the_registry_was_not_mended(tmp_path):
    """After a restart of the machine a dead manager's process number is another program's."""
    folder = tmp_path / "nni-experiments"
    folder.mkdir()
    environment = {**os.environ, "HOME": str(tmp_path)}
    nnictl = [sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl", "stop", "--all"]
    for mended in (True, False):
        with subprocess.Popen(["sleep", "60"]) as program:
            threading.Thread(target=program.wait).start()  # nnictl waits until the number is free
            entry = {"id": "exp00001", "status": "RUNNING", "pid": program.pid, "port": 8080, "logDir": str(folder)}
            (folder / ".experiment").write_text(json.dumps({"exp00001": entry}))
            if mended:
                assert "no experiment is running" in run_module("experiments", "watch", env=environment).stderr
                assert json.loads((folder / ".experiment").read_text())["exp00001"]["status"] == "STOPPED"
            assert (
                subprocess.run(nnictl, env=environment, capture_output=True, timeout=PATIENCE_S, check=False).returncode
                == 0
            )
            assert psutil.pid_exists(program.pid) == mended
            program.kill()


def test_nnictl_without_pkg_resources_is_found(monkeypatch):
    monkeypatch.setitem(sys.modules, "pkg_resources", None)  # as setuptools 82 leaves it
    assert doctors.nnictl_packages().key == "packages.setuptools" and "setuptools<82" in doctors.nnictl_packages().next
