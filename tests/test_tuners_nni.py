"""The seeded tuners through real NNI: the same proposals for the same seed, also after the manager was killed."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import PATIENCE_S, ROOT, new_port
from fixtures_nni import tuner_connects

from analysis.reading.locate import is_running
from analysis.reading.reader import load_experiment

sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does
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
TRIALS = 9
FIRST = {"batch_size": 32, "lr": 0.001, "momentum": 0.9}
DESIGN = {"optimize_mode": "maximize", "seed": 1, "first": [FIRST], "initial": 3}
TUNERS = {
    "tpe": ("seeded_tpe.SeededTpe", {"tpe_args": {"n_startup_jobs": 3}}),
    "evolution": ("seeded_evolution.SeededEvolution", {"population_size": 4}),
}


def nnictl(env, *words) -> subprocess.CompletedProcess:
    command = [sys.executable, "-W", "ignore", "-m", "nni.tools.nnictl.nnictl", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)


def registry(env) -> dict:
    return json.loads((Path(env["HOME"]) / "nni-experiments" / ".experiment").read_text())


def create(env, folder: Path, tuner: str, name: str, *arguments: str) -> str:
    """Start an experiment of TRIALS small trials; its id."""
    (folder / "trial.py").write_text(TRIAL)
    class_name, own = TUNERS[tuner]
    config = {
        "experimentName": name,
        "searchSpaceFile": str(ROOT / "search_spaces/report.json"),
        "trialCodeDirectory": str(folder),
        "trialCommand": " ".join(["python trial.py", *arguments]),
        "trialConcurrency": 1,
        "maxTrialNumber": TRIALS,
        "maxTrialDuration": "100s",
        "maxExperimentDuration": "1200s",
        "tuner": {
            "className": class_name,
            "codeDirectory": str(ROOT / "experiments/tuners"),
            "classArgs": DESIGN | own,
        },
        "trainingService": {"platform": "local"},
    }
    (folder / f"{name}.yml").write_text(json.dumps(config))
    for _ in range(20):  # plain NNI gives its manager 3 s, and its tuner 10
        port = new_port()
        created = nnictl(env, "create", "--config", str(folder / f"{name}.yml"), "--port", str(port))
        if created.returncode == 0:
            key = next(key for key, entry in registry(env).items() if entry["port"] == port and is_running(entry))
            if tuner_connects(Path(env["HOME"]) / "nni-experiments" / key):
                return key
            nnictl(env, "stop", key)
    raise AssertionError(created.stdout + created.stderr)


def read(env, experiment_id: str):
    return load_experiment(Path(env["HOME"]) / "nni-experiments" / experiment_id)


def wait(until) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        assert time.monotonic() < deadline, "NNI did not come so far in time"
        time.sleep(1)


def resume(env, experiment_id: str) -> None:
    nnictl(env, "experiment", "list")  # notices that the manager is gone
    for _ in range(20):
        if nnictl(env, "resume", experiment_id, "--port", str(new_port())).returncode == 0:
            return
        nnictl(env, "stop", experiment_id)
        time.sleep(2)
    raise AssertionError("nnictl resume failed again and again")


def is_done(env, experiment_id: str) -> bool:
    return read(env, experiment_id).state == "DONE"


def proposals(experiment) -> list[dict]:
    assert not any(trial.parameters_mismatch for trial in experiment.trials)
    return [trial.parameters for trial in experiment.trials]


@pytest.fixture(scope="module")
def experiments(nni_env, tmp_path_factory):
    """Both tuners with their manager killed in trial 5 and resumed, and Evolution once more, left alone."""
    folder, env = tmp_path_factory.mktemp("trial"), nni_env
    killed = {name: create(env, folder, name, f"{name}_killed", "hang") for name in TUNERS}
    whole = create(env, folder, "evolution", "evolution_whole")
    trials = Path(env["HOME"]) / "nni-experiments"
    for key in killed.values():
        wait(lambda key=key: list((trials / key).glob("environments/local-env/trials/*/seen")))
        os.kill(registry(env)[key]["pid"], signal.SIGKILL)
    wait(lambda: is_done(env, whole))
    for key in killed.values():
        resume(env, key)
    for key in killed.values():
        wait(lambda key=key: is_done(env, key))
    return {name: read(env, key) for name, key in {**killed, "whole": whole}.items()}


def test_the_same_seed_proposes_the_same(experiments):
    whole, killed = proposals(experiments["whole"]), proposals(experiments["evolution"])
    assert len(whole) == len(killed) == TRIALS
    assert whole[:6] == killed[:6] and whole[0] == FIRST


def test_both_tuners_share_their_first_trials(experiments):
    one, other = (proposals(experiments[tuner]) for tuner in TUNERS)
    assert one[:4] == other[:4] and one[4:6] != other[4:6]


@pytest.mark.parametrize("session", [0, 1])
@pytest.mark.parametrize("tuner", TUNERS)
def test_a_record_can_be_proposed_again(experiments, tuner, session):
    """A tuner of the same arguments, told in this process what NNI recorded, proposes the same: the resume included."""
    module, name = TUNERS[tuner][0].split(".")
    again = getattr(importlib.import_module(module), name)(**DESIGN, **TUNERS[tuner][1])
    trials = experiments[tuner].trials
    again.update_search_space(experiments[tuner].config["searchSpace"])
    finished = [trial for trial in trials if trial.last_session < session and trial.final is not None]
    again.import_data([{"parameter": trial.parameters, "value": trial.final} for trial in finished])
    callback = Recovered({5: trials[5].parameters} if session else {}).callback
    for _, kind, number in events(trials, session):
        trial = trials[number]
        if kind == PROPOSED:
            assert again.generate_parameters(number, st_callback=callback) == trial.parameters
        elif trial.session < session and kind == RESULT:
            again.import_data([{"parameter": trial.parameters, "value": trial.final}])
        elif kind == RESULT:
            again.receive_trial_result(number, trial.parameters, trial.final)
        elif trial.session == session:
            again.trial_end(number, True)


RESULT, ENDED, PROPOSED = range(3)  # NNI asks for the next trial at the end of one


def events(trials, session: int) -> list[tuple[int, int, int]]:
    """(ms, what, trial) of one session in their order."""
    rows = [(t.proposed, PROPOSED, n) for n, t in enumerate(trials) if t.session == session]
    ended = [(n, t) for n, t in enumerate(trials) if t.last_session == session]
    rows += [(t.result_time, RESULT, n) for n, t in ended if t.result_time is not None]
    return sorted(rows + [(t.end, ENDED, n) for n, t in ended])


class Recovered:
    """What a tuner can see of NNI's dispatcher."""

    def __init__(self, recovered_trial_params):
        self.recovered_trial_params = recovered_trial_params

    def callback(self, number, parameters):
        raise AssertionError("not used")


def test_after_a_resume_evolution_mutates_what_it_knew(experiments):
    resumed = experiments["evolution"]
    assert [trial.session for trial in resumed.trials] == [0] * 6 + [1] * 3
    assert resumed.trials[5].attempts == 2 and resumed.trials[5].score is not None
    # Two of the four first trials had no result: two random ones stand in, then every trial is a mutation.
    assert resumed.chosen == experiments["whole"].chosen == [False] * 6 + [True] * 3
    for index in (6, 7, 8):
        earlier = [trial.parameters for trial in resumed.trials[:index] if trial.score is not None]
        child = resumed.trials[index].parameters
        assert min(sum(child[name] != parent[name] for name in child) for parent in earlier) <= 1


def test_after_a_resume_tpe_models_what_it_knew(experiments):
    resumed = experiments["tpe"]
    assert resumed.chosen == [False] * 5 + [True] * 4
    assert not [parameters for parameters in proposals(resumed)[6:] if parameters in proposals(resumed)[:6]]
