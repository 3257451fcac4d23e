"""One real trial through NNI, on the same path that every experiment takes: check, start, watch, stop.

It has a home folder of its own for NNI's registry and files, which is removed afterwards; nothing is downloaded.
"""

from __future__ import annotations

import json
import re
import site
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiments.check import trial_environment
from experiments.config import ROOT
from experiments.nnictl import NNICTL

LIMIT_S = 180.0  # a busy machine: the start of NNI's manager alone may take a minute

# What a trial of ours meets: NNI's parameters first, then PyTorch and the GPU that it sees there.
TRIAL = """\
import nni
x = nni.get_next_parameter()["x"]
import torch
nni.report_intermediate_result(x)
nni.report_final_result({"default": x, "gpus": torch.cuda.device_count()})
import time
time.sleep(1)
"""

EXPERIMENT = {
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


def run_smoke(limit_s: float = LIMIT_S) -> tuple[bool, str]:
    """(True, how long it took and what it saw), or (False, what went wrong)."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nni-smoke-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        (place / "smoke_trial.py").write_text(TRIAL)
        (place / "smoke.yml").write_text(json.dumps(EXPERIMENT))
        environment = _environment(place)
        command = [sys.executable, "-m", "experiments", "launch", str(place / "smoke.yml")]
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            out, err = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return False, f"no result after {limit_s:.0f} s (a busy machine, or NNI does not work here)"
        finally:
            _put_away(process, environment)
        took = f"{time.monotonic() - started:.0f} s"
        if process.returncode == 0 and " DONE best 0.2500" in out:
            return True, f"one trial through NNI in {took}; it saw {_gpus(place)} GPUs"
        return False, _reason(err) or f"launch ended with exit code {process.returncode}"


def _environment(place: Path) -> dict[str, str]:
    """This one, with another home folder; packages installed for this user stay visible."""
    return {**trial_environment(), "HOME": str(place), "PYTHONUSERBASE": site.getuserbase()}


def _put_away(process: subprocess.Popen, environment: dict[str, str]) -> None:
    if process.poll() is None:
        process.kill()
        process.communicate()
        subprocess.run([*NNICTL, "stop", "--all"], env=environment, capture_output=True, timeout=90, check=False)


def _gpus(place: Path) -> str:
    """As the trial reported; "an unknown number of" where its result cannot be read."""
    from analysis.reading.locate import AnalysisError
    from analysis.reading.reader import load_experiment

    databases = list(place.glob("nni-experiments/*/db/nni.sqlite"))
    try:
        trial = load_experiment(databases[0]).trials[0]
        return str(trial.final["gpus"])
    except (AnalysisError, IndexError, KeyError, TypeError):
        return "an unknown number of"


def _reason(err: str) -> str:
    """The line of `launch` that says why."""
    lines = [line for line in err.splitlines() if re.match(r"error: |[A-Z]+: smoke ", line)]
    return lines[0] if lines else ""
