"""The seeded tuners through real NNI: the same proposals for the same seed, also after the manager was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT

from analysis.locate import is_running
from analysis.reader import load_experiment
from experiments.ports import find_port

pytestmark = pytest.mark.nni

# Trial 2 ends without a result, trial 3 with a useless one; trial 5 hangs once, to be killed.
TRIAL = """
import os, sys, time, nni
from pathlib import Path
p = nni.get_next_parameter()
sequence, marker = int(os.environ["NNI_TRIAL_SEQ_ID"]), Path(os.environ["NNI_OUTPUT_DIR"], "seen")
if sequence == 5 and sys.argv[1:] == ["hang"] and not marker.exists():
    marker.touch()
    time.sleep(90)
if sequence != 2:
    nni.report_final_result(float("nan") if sequence == 3 else 1 - abs(p["lr"] - 0.03) - 0.001 * p["batch_size"] / 128)
"""
FIRST = {"batch_size": 32, "lr": 0.001, "momentum": 0.9}
DESIGN = {"optimize_mode": "maximize", "seed": 1, "first": [FIRST], "initial": 3}
TUNERS = {
    "tpe": ("seeded_tpe.SeededTpe", {"tpe_args": {"n_startup_jobs": 3}}),
    "evolution": ("seeded_evolution.SeededEvolution", {"population_size": 4}),
}


def nnictl(env, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=90, check=False)


def registry(env) -> dict:
    return json.loads((Path(env["HOME"]) / "nni-experiments" / ".experiment").read_text())


def create(env, folder: Path, tuner: str, name: str, *arguments: str) -> str:
    """Start an experiment of 10 small trials; its id."""
    (folder / "trial.py").write_text(TRIAL)
    class_name, own = TUNERS[tuner]
    config = {
        "experimentName": name,
        "searchSpaceFile": str(ROOT / "search_spaces/report.json"),
        "trialCodeDirectory": str(folder),
        "trialCommand": " ".join(["python trial.py", *arguments]),
        "trialConcurrency": 1,
        "maxTrialNumber": 10,
        "maxTrialDuration": "100s",
        "maxExperimentDuration": "200s",
        "tuner": {
            "className": class_name,
            "codeDirectory": str(ROOT / "experiments/tuners"),
            "classArgs": DESIGN | own,
        },
        "trainingService": {"platform": "local"},
    }
    (folder / f"{name}.yml").write_text(json.dumps(config))
    for attempt in range(4):  # NNI gives its manager 3 s, and one that came too late may still hold its port
        port = find_port(18450 + 3 * attempt)
        done = nnictl(env, "create", "--config", str(folder / f"{name}.yml"), "--port", str(port))
        if done.returncode == 0:
            return next(key for key, entry in registry(env).items() if entry["port"] == port and is_running(entry))
    raise AssertionError(done.stdout + done.stderr)


def read(env, experiment_id: str):
    return load_experiment(Path(env["HOME"]) / "nni-experiments" / experiment_id)


def wait(until, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, "NNI did not come so far in time"
        time.sleep(1)


def resume(env, experiment_id: str) -> None:
    nnictl(env, "experiment", "list")  # notices that the manager is gone
    for _ in range(6):
        port = find_port(18470)
        if nnictl(env, "resume", experiment_id, "--port", str(port)).returncode == 0:
            return
        nnictl(env, "stop", experiment_id)
        time.sleep(2)
    raise AssertionError("nnictl resume failed six times")


def done(env, experiment_id: str) -> bool:
    return read(env, experiment_id).state == "DONE"


def proposals(experiment) -> list[dict]:
    assert not any(trial.parameters_mismatch for trial in experiment.trials)
    return [trial.parameters for trial in experiment.trials]


@pytest.fixture(scope="module")
def experiments(nni_env, tmp_path_factory):
    """Each tuner twice: left alone, and with its manager killed in trial 5 and resumed. {tuner: (whole, resumed)}"""
    folder, env = tmp_path_factory.mktemp("trial"), nni_env
    ids = {
        (tuner, how): create(env, folder, tuner, f"{tuner}_{how}", how) for tuner in TUNERS for how in ("run", "hang")
    }
    hanging = [ids[tuner, "hang"] for tuner in TUNERS]
    trials = Path(env["HOME"]) / "nni-experiments"
    wait(lambda: all(list((trials / key).glob("environments/local-env/trials/*/seen")) for key in hanging), 120)
    for key in hanging:
        os.kill(registry(env)[key]["pid"], signal.SIGKILL)
    wait(lambda: all(done(env, ids[tuner, "run"]) for tuner in TUNERS), 120)
    for key in hanging:
        resume(env, key)
    wait(lambda: all(done(env, key) for key in hanging), 120)
    return {tuner: tuple(read(env, ids[tuner, how]) for how in ("run", "hang")) for tuner in TUNERS}


@pytest.mark.parametrize("tuner", TUNERS)
def test_the_same_seed_proposes_the_same(experiments, tuner):
    whole, resumed = map(proposals, experiments[tuner])
    assert len(whole) == len(resumed) == 10
    assert whole[:6] == resumed[:6] and whole[0] == FIRST


def test_both_tuners_share_their_first_trials(experiments):
    one, two = (proposals(experiments[tuner][0]) for tuner in TUNERS)
    assert one[:4] == two[:4] and one[4:] != two[4:]


def test_after_a_resume_evolution_mutates_what_it_knew(experiments):
    resumed = experiments["evolution"][1]
    assert [trial.session for trial in resumed.trials] == [0] * 6 + [1] * 4
    assert resumed.trials[5].attempts == 2 and resumed.trials[5].score is not None
    # Two of the four first trials had no result: two random ones stand in, then every trial is a mutation.
    assert resumed.chosen == [False] * 6 + [True] * 4
    for index in (6, 7, 8, 9):
        earlier = [trial.parameters for trial in resumed.trials[:index] if trial.score is not None]
        child = resumed.trials[index].parameters
        assert min(sum(child[name] != parent[name] for name in child) for parent in earlier) <= 1


def test_after_a_resume_tpe_models_what_it_knew(experiments):
    whole, resumed = experiments["tpe"]
    assert resumed.chosen == [False] * 5 + [True] * 5 == whole.chosen
    assert not [p for p in proposals(resumed)[6:] if p in proposals(resumed)[:6]]
