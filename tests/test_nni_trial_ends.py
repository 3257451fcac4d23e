"""Ends of a trial under real NNI: its manager killed and resumed, its time limit, a cache that is cut short."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from conftest import PATIENCE_S, ROOT, new_port
from fixtures_nni import tuner_connects

from analysis.reading.reader import load_experiment
from analysis.reading.records import Experiment
from data.cache import open_cache
from trial.hyperparameters import Hyperparameters
from trial.result import metrics_of_epoch
from trial.run import Settings, run_trial

pytestmark = pytest.mark.nni
FLAGS = "--weights none --image-px 36 --patience 0 --device cpu --precision fp32 --threads 1"


def nnictl(*words: str, env: dict[str, str]) -> str:
    """nnictl's output; again where the manager did not answer in the 3 s that plain NNI gives it."""
    for _ in range(20):
        command = [sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl", *words]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        if done.returncode == 0:
            return done.stdout
        assert "refused" in done.stdout + done.stderr, done.stdout + done.stderr
        time.sleep(2)
    pytest.fail(f"nnictl {words[0]}: {done.stdout}")


def create(folder: Path, env: dict[str, str], flags: str, **config) -> Path:
    """Start an experiment; returns its folder."""
    space = {"lr": {"_type": "uniform", "_value": [0.01, 0.02]}}
    config = {
        "searchSpace": space, "trialCommand": f"{sys.executable} -m trial {flags}", "trialCodeDirectory": str(ROOT),
        "trialConcurrency": 1, "tuner": {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}},
        "trainingService": {"platform": "local"}, **config,
    }  # fmt: skip
    (folder / "experiment.yml").write_text(yaml.safe_dump(config))
    for _ in range(20):  # plain NNI gives its tuner 10 s
        before = set(registry(env))
        nnictl("create", "--config", str(folder / "experiment.yml"), "--port", str(new_port()), env=env)
        (name,) = (name for name, entry in registry(env).items() if name not in before and entry["status"] != "STOPPED")
        if tuner_connects(experiment := Path(env["HOME"]) / "nni-experiments" / name):
            return experiment
        nnictl("stop", name, env=env)
    pytest.fail("the tuner never connected in time")


def registry(env: dict[str, str]) -> dict:
    """NNI's list of experiments; it writes the file in place, so that a reader may meet half of it."""
    file = Path(env["HOME"]) / "nni-experiments" / ".experiment"
    for _ in range(20):
        try:
            return json.loads(file.read_text())
        except FileNotFoundError:
            return {}
        except ValueError:
            time.sleep(0.1)
    pytest.fail(f"{file} cannot be read")


def wait_for(what: Callable[[], object]) -> object:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := what()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)
    return value


def trials(folder: Path) -> list[Path]:
    """Output folders in the order of their start."""
    logs = (folder / "environments/local-env/trials").glob("*/trial.stdout")  # NNI makes it after the folder
    return [log.parent for log in sorted(logs, key=lambda log: log.stat().st_ctime)]


def epochs(trial: Path) -> int:
    file = trial / "epochs.jsonl"
    return len(file.read_text().splitlines()) if file.exists() else 0


def ended(folder: Path, env: dict[str, str]) -> Experiment:
    states = ("DONE", "ERROR", "STOPPED")
    state = wait_for(lambda: (status := registry(env)[folder.name]["status"]) in states and status)
    assert state == "DONE", (folder / "log/nnimanager.log").read_text()[-3000:]
    nnictl("stop", folder.name, env=env)
    return load_experiment(folder)


def test_a_killed_manager_and_a_resume_leave_a_whole_curve(nni_env, tiny_cache, tmp_path):
    flags = f"--cache {tiny_cache} {FLAGS} --epochs 6 --batch-size 8"
    folder = create(tmp_path, nni_env, flags, maxTrialNumber=1)
    trial = wait_for(lambda: next((t for t in trials(folder) if epochs(t) >= 2), None))
    os.kill(registry(nni_env)[folder.name]["pid"], signal.SIGKILL)
    error = wait_for(lambda: (trial / "trial.stderr").read_text())
    assert error.startswith("error: NNI's manager ") and "nnictl resume" in error and error.count("\n") == 1
    nnictl("experiment", "list", env=nni_env)  # NNI notices only now
    nnictl("resume", folder.name, "--port", str(new_port()), env=nni_env)
    (resumed,) = ended(folder, nni_env).trials
    assert (resumed.state, resumed.attempts, resumed.trial_id) == ("SUCCEEDED", 2, trial.name)
    result = json.loads((trial / "result.json").read_text())
    assert len(result["attempts"]) == 2 and result["attempts"][1]["after_epoch"] >= 2
    assert [value.sequence for value in resumed.intermediates] == list(range(6))
    expected = alone(Hyperparameters().merged(result["hyperparameters"]), tiny_cache, tmp_path / "alone")
    assert [value.value for value in resumed.intermediates] == expected
    assert resumed.final["epochs_run"] == 6 and resumed.final["interrupted"] == 0 and resumed.warnings == ()


def alone(h: Hyperparameters, cache: Path, folder: Path) -> list[dict]:
    """The same training without NNI and without interruption: the metrics of its epochs."""
    run_trial(h, open_cache(cache), Settings(folder, "cpu", "fp32", 1), lambda metrics: None)
    return [metrics_of_epoch(json.loads(line)) for line in (folder / "epochs.jsonl").read_text().splitlines()]


def test_a_time_limit_and_a_cut_cache_leave_the_result_so_far(nni_env, tiny_cache, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(tiny_cache, cache)
    flags = f"--cache {cache} {FLAGS} --epochs 1000"
    folder = create(tmp_path, nni_env, flags, maxTrialNumber=2, maxTrialDuration="30s")
    second = wait_for(lambda: next((t for t in trials(folder)[1:] if epochs(t) >= 1), None))
    os.truncate(cache / "training.images.npy", 5000)
    limited, cut = ended(folder, nni_env).trials
    for trial in (limited, cut):
        assert trial.state == "SUCCEEDED" and trial.final["interrupted"] == 1 and "evaluation_top1" not in trial.final
        assert trial.score == max(value.value["default"] for value in trial.intermediates)
        assert f"interrupted after epoch {len(trial.intermediates)}" in trial.warnings[0]
    assert "stopped: SIGINT after epoch" in (limited.folder / "trial.stderr").read_text()
    message = (second / "trial.stderr").read_text()
    assert "training.images.npy: 5000 bytes, expected" in message and "Traceback" not in message
