"""Small real NNI experiments for the tests: trials without torch that misbehave on request, and what NNI recorded of them."""

from __future__ import annotations

import json
import socket
import sqlite3
import subprocess
import time
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

from conftest import PATIENCE_S, new_port

# NNI_TEST_MODES: how the trial of each number behaves, comma-separated; later ones are good.
TRIAL = """
import json, os, sys, time
from pathlib import Path
number = int(os.environ["NNI_TRIAL_SEQ_ID"])
modes = os.environ.get("NNI_TEST_MODES", "").split(",")
mode = modes[number] if number < len(modes) else "good"
out = Path(os.environ["NNI_OUTPUT_DIR"])
time.sleep([0, 1.6, 0.4, 1][number % 4])  # trials that start together ask in another order
if mode == "early":
    sys.exit("died before it asked")
import nni
parameters = nni.get_next_parameter()
(out / "parameters.json").write_text(json.dumps(parameters))
if mode == "again":
    (out / "again.json").write_text(json.dumps(nni.get_next_parameter()))
if mode == "killed":
    os.kill(os.getpid(), 9)
if mode == "long":
    time.sleep(600)
nni.report_intermediate_result(parameters["x"])
finals = {"nan": [float("nan")], "text": ["0.5"], "none": [], "twice": [0.1, 0.2], "infinite": [{"default": float("inf")}],
          "big": [{"default": 0.3, "table": ["x" * 100] * 20000}], "side": [{"default": 0.4, "loss": float("nan")}]}
for value in finals.get(mode, [parameters["x"]]):
    nni.report_final_result(value)
names = {"gpus": "CUDA_VISIBLE_DEVICES", "node": "NODE_OPTIONS", "repaired": "FOOD11_NNI_REPAIRED"}
(out / "env.json").write_text(json.dumps({short: os.environ.get(name) for short, name in names.items()}))
if mode == "exit1":
    sys.exit(1)
"""
# NVML's Python package, of a machine with one idle GPU. Each start of NNI's collector is a line in NNI_TEST_COLLECTORS.
PYNVML = """
import os, sys, time
class NVMLError(Exception): pass
class _Rates: gpu = memory = 0
class _Memory: total = free = 1
if any("collect_gpu_info" in word for word in sys.orig_argv):
    with open(os.environ.get("NNI_TEST_COLLECTORS", os.devnull), "a") as file: file.write(f"{time.time()}\\n")
def nvmlInit(): pass
def nvmlShutdown(): pass
def nvmlDeviceGetCount(): return 1
def nvmlSystemGetDriverVersion(): return "1"
def nvmlSystemGetCudaDriverVersion_v2(): return 1
def nvmlSystemGetProcessName(pid): return "a program"
def nvmlDeviceGetHandleByIndex(index): return index
def nvmlDeviceGetName(device): return "a drawn GPU"
def nvmlDeviceGetNumGpuCores(device): return 1
def nvmlDeviceGetMemoryInfo(device): return _Memory()
def nvmlDeviceGetUtilizationRates(device): return _Rates()
def nvmlDeviceGetComputeRunningProcesses_v3(device): return []
def nvmlDeviceGetGraphicsRunningProcesses_v3(device): return []
"""
TPE = {"name": "TPE", "classArgs": {"optimize_mode": "maximize", "seed": 1}}
EVOLUTION = {"name": "Evolution", "classArgs": {"optimize_mode": "maximize", "population_size": 2}}


class Run:
    """One experiment of `nnictl create`: its port, its folder, and what NNI says and recorded."""

    def __init__(
        self,
        folder: Path,
        env: dict[str, str],
        config: dict[str, Any],
        nnictl: tuple[str, ...] = ("nnictl",),
        trial: str = TRIAL,
        tuner_is_late: bool = False,
    ):
        """tuner_is_late: on purpose, so that plain NNI's end of the experiment is left as it is."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "trial.py").write_text(trial)
        (folder / "experiment.yml").write_text(json.dumps({**DEFAULTS, **config}))
        self.env, self.nnictl = env, nnictl
        for attempt in range(20):  # plain NNI gives its manager 3 s to answer, and its tuner 10 s to connect
            self.port = new_port()
            done = self.call("create", "--config", str(folder / "experiment.yml"), "--port", str(self.port))
            if done.returncode == 0:
                profile = self.get("experiment")
                self.id = profile["id"]
                self.folder = Path(profile["params"]["experimentWorkingDirectory"]) / self.id
                if tuner_is_late or tuner_connects(self.folder):
                    break
                self.call("stop", self.id)
            assert attempt < 19, done.stdout + done.stderr

    def call(self, *words: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [*self.nnictl, *words], env=self.env, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )

    def get(self, path: str, **headers: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/api/v1/nni/{path}", headers=headers)
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    @property
    def status(self) -> str:
        return self.get("check-status")["status"]

    def wait(self, is_done: Callable[[], Any]) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not is_done():
            assert time.monotonic() < deadline and self.status != "ERROR", (
                self.status,
                self.log("dispatcher")[-2000:],
                self.log("nnimanager")[-2000:],
            )
            time.sleep(0.3)

    def log(self, name: str) -> str:
        file = self.folder / "log" / f"{name}.log"
        return file.read_text() if file.exists() else ""

    def query(self, sql: str) -> list[tuple]:
        with closing(sqlite3.connect(f"file:{self.folder / 'db/nni.sqlite'}?mode=ro", uri=True)) as database:
            return database.execute(sql).fetchall()

    def recorded(self) -> dict[str, dict]:
        """Trial id -> the parameters that NNI recorded for it."""
        rows = self.query("SELECT trialJobId, data FROM TrialJobEvent WHERE trialJobId != '' AND data != ''")
        return {trial: json.loads(data)["parameters"] for trial, data in rows}

    def received(self) -> dict[str, dict]:
        """Trial id -> the parameters that the trial got, as the trial itself wrote them."""
        return {file.parent.name: json.loads(file.read_text()) for file in self.trials.glob("*/parameters.json")}

    @property
    def trials(self) -> Path:
        return self.folder / "environments/local-env/trials"

    def ends(self) -> dict[int, tuple[str, str]]:
        """Number -> (how the trial ended, the reason in its record)."""
        rows = self.query(
            "SELECT sequenceId, event, message FROM TrialJobEvent WHERE sequenceId IS NOT NULL ORDER BY rowid"
        )
        return {number: (event, message or "") for number, event, message in rows}


def tuner_connects(experiment: Path) -> bool:
    """Whether it does in the 10 s that plain NNI gives it: a machine with other work may need more. Returns when that is known."""
    log, deadline = experiment / "log/nnimanager.log", time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        text = log.read_text() if log.exists() else ""
        if "Add event listeners" in text or "did not connect in 10 seconds" in text:
            return "did not connect" not in text
        time.sleep(0.1)
    raise AssertionError(f"{log}: no tuner in {PATIENCE_S} s")


def other_address() -> str:
    """An address of this machine that is not loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))  # sends nothing
        return probe.getsockname()[0]


DEFAULTS = {
    "searchSpace": {"x": {"_type": "uniform", "_value": [0, 1]}},
    "trialCodeDirectory": ".",
    "trialCommand": "python trial.py",
    "trialConcurrency": 1,
    "maxTrialNumber": 4,
    "tuner": TPE,
    "trainingService": {"platform": "local"},
}
