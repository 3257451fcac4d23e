"""list, show and best beside a real NNI: while it runs, and after its manager was killed; and the time of NNI's own export."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest
from conftest import PATIENCE_S, new_port, run_module

from benchmarks.analysis import build, nni_export

pytestmark = pytest.mark.nni

SPACE = {
    "x": {"_type": "uniform", "_value": [0, 1]},
    "layer": {
        "_type": "choice",
        "_value": [{"_name": "conv", "k": {"_type": "choice", "_value": [3, 5]}}, {"_name": "none"}],
    },
}
TRIAL = """
import nni, time
p = nni.get_next_parameter()
if p["x"] < 0.2 and not PAUSE:
    raise SystemExit("too small \\x1b[31mx\\x1b[0m")
nni.report_intermediate_result(p["x"])
time.sleep(PAUSE)
nni.report_final_result(p["x"])
time.sleep(0.3)
"""


def create(folder: Path, env: dict[str, str], pause: float) -> tuple[str, int]:
    """Starts an experiment of plain numbers, to be minimised, in a working directory of its own; id and manager's pid."""
    folder.mkdir()
    (folder / "trial.py").write_text(TRIAL.replace("PAUSE", str(pause)))
    config = {
        "experimentName": "own Σ \x1b[31mred",
        "searchSpace": SPACE,
        "trialCommand": "python trial.py",
        "trialCodeDirectory": ".",
        "experimentWorkingDirectory": str(folder / "work"),
        "trialConcurrency": 1,
        "maxTrialNumber": 4,
        "tuner": {"name": "TPE", "classArgs": {"seed": 3, "tpe_args": {"n_startup_jobs": 2}}},
        "trainingService": {"platform": "local"},
    }
    (folder / "e.json").write_text(json.dumps(config))  # JSON is YAML
    command = ["nnictl", "create", "-c", str(folder / "e.json"), "-p", str(new_port())]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    created = re.search(r"Experiment ID: \x1b\[36m(\w+)|Experiment ID: (\w+)", done.stdout)
    assert done.returncode == 0 and created, done.stdout + done.stderr
    experiment_id = created[1] or created[2]
    registry = json.loads((Path(env["HOME"]) / "nni-experiments" / ".experiment").read_text())
    return experiment_id, registry[experiment_id]["pid"]


def row(env: dict[str, str], experiment_id: str) -> dict:
    done = run_module("analysis", "list", "--format", "json", env=env)
    assert done.returncode == 0, done.stderr
    return next(row for row in json.loads(done.stdout) if row["id"] == experiment_id)


def until(check) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def test_running_then_killed_then_listed_as_crashed(nni_env, tmp_path):
    experiment_id, pid = create(tmp_path / "slow", nni_env, 120)
    until(lambda: row(nni_env, experiment_id)["trials"]["all"] >= 1)
    until(lambda: "so far" in run_module("analysis", "show", experiment_id, env=nni_env).stdout)
    listed = row(nni_env, experiment_id)
    assert (listed["state"], listed["optimise_mode"], listed["best"]) == ("running", "minimize", None)
    assert listed["folder"] == str(tmp_path / "slow" / "work" / experiment_id)  # known by the registry alone
    os.kill(pid, signal.SIGKILL)
    until(lambda: row(nni_env, experiment_id)["state"] == "crashed")
    text = re.sub(r"\s+", " ", run_module("analysis", "show", experiment_id, env=nni_env).stdout)
    assert "cut off" in text
    assert f"manager (process {pid}) is gone" in text, text
    assert run_module("analysis", "best", experiment_id, env=nni_env).returncode == 1


def test_a_finished_search_that_minimises_plain_numbers(nni_env, tmp_path):
    experiment_id, _ = create(tmp_path / "quick", nni_env, 0)
    until(lambda: row(nni_env, experiment_id)["state"] == "done")
    text = run_module("analysis", "show", experiment_id, env=nni_env).stdout
    assert text.startswith(f"own Σ red ({experiment_id})\n") and "\x1b" not in text
    best = json.loads(run_module("analysis", "best", experiment_id, "--format", "json", env=nni_env).stdout)
    from analysis.reading.reader import load_experiment

    trials = load_experiment(best["folder"].split("/environments")[0]).trials
    scores = [trial.parameters["x"] for trial in trials if trial.state == "SUCCEEDED"]
    assert best["score"] == best["parameters"]["x"] == min(scores) and best["retrain"] is None
    words = " ".join(text.split())  # however wide the terminal
    assert "minimize" in words and "layer {_name" in words and "TPE samples the first 2 at random" in words
    failed = sum(trial.state == "FAILED" for trial in trials)
    assert (f"{failed} of 4 trials  failed: too small x" in text) == (failed > 0)


def test_nnis_own_export_is_timed(tmp_path):
    experiment = build(tmp_path / "nni-experiments" / "bench1", 100, epochs=3)
    port = new_port()
    assert len(nni_export(tmp_path, experiment, port, repeats=1)) == 1
    rows = (tmp_path / "nni.csv").read_text().splitlines()
    assert len(rows) == 1 + 97  # NNI leaves out what failed, was killed or has no result
    with pytest.raises(OSError), closing(socket.create_connection(("127.0.0.1", port), timeout=2)):
        pass
