"""What `resume` refuses, in one line each and before it touches anything. Real ones: test_nni_faults.py."""

from __future__ import annotations

import json
import os
import subprocess

import pytest
from conftest import ROOT
from fixtures_analysis import Recorder, final

from experiments.findings import ExperimentError
from experiments.launch import resume
from experiments.nni import Manager, find_port
from experiments.watch import WatchSettings, watch_to_end
from experiments.why import why


@pytest.fixture
def written(tmp_path, monkeypatch) -> Recorder:
    """Two of two trials ended; in NNI's registry, its manager gone."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "nni-experiments"
    recorder = Recorder(folder, maxTrialNumber=2, maxExperimentDuration="1h")
    entry = {"id": "exp00001", "status": "RUNNING", "pid": 2**22 + 1, "port": 8080, "logDir": str(folder)}
    (folder / ".experiment").write_text(json.dumps({"exp00001": entry}))
    recorder.trial(0, final(0.8))
    recorder.trial(1, final(0.7))
    return recorder


def refused(experiment_id: str = "exp00001", max_trials: int | None = None) -> str:
    with pytest.raises(ExperimentError) as error:
        resume(experiment_id, max_trials, WatchSettings())
    assert "\n" not in str(error.value)
    return str(error.value)


def test_an_unknown_id_is_refused_with_the_known_ones(written):
    assert refused("nobody") == "nobody: not in NNI's registry; experiments here: exp00001"


def test_a_finished_one_is_refused_with_the_way_to_add_trials(written):
    assert refused().endswith("add more with: python -m experiments resume exp00001 --max-trials 4")
    assert "it has 2 trials already; name a higher number" in refused(max_trials=2)


def test_a_used_up_time_limit_is_refused_with_the_way_to_more(written):
    written.config["maxExperimentDuration"] = "50s"
    written.profile(revision=2)  # of 60 s that it ran
    assert "(50s) is used up (60 s)" in refused(max_trials=3)


def test_a_damaged_database_is_refused(written):
    written.database.write_bytes(b"SQLite format 3\0" + b"\xff" * 200)
    assert "cannot be resumed (" in refused() and "start it anew" in refused()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trialCodeDirectory": "{tmp}/gone"}, "its trialCodeDirectory {tmp}/gone is not there (moved or removed?)"),
        ({"tuner": {"className": "a.B", "codeDirectory": "{tmp}/gone"}}, "its tuner's codeDirectory {tmp}/gone"),
        ({"experimentWorkingDirectory": "{tmp}/gone"}, "ln -s {tmp}/nni-experiments {tmp}/gone"),
        ({"trialCommand": "{tmp}/.venv/bin/python trial.py"}, "its trials cannot run any more"),
        (
            {"trialCommand": "python -m trial --cache {tmp}/gone", "trialCodeDirectory": str(ROOT)},
            "python -m data prepare",
        ),
    ],
)
def test_a_project_that_was_moved_is_refused_before_its_trials_fail(changes, message, written, tmp_path):
    written.run(30, "t0002", 2, 2)
    filled = json.loads(json.dumps(changes).replace("{tmp}", str(tmp_path)))
    written.config |= {"maxTrialNumber": 5, "trialCodeDirectory": str(tmp_path), "trialCommand": "true"} | filled
    written.profile(revision=2)
    said = refused()
    assert message.replace("{tmp}", str(tmp_path)) in said and "python -m experiments launch" in said


def test_a_folder_that_was_moved_is_named(written, tmp_path):
    (tmp_path / "nni-experiments" / "exp00001").rename(tmp_path / "elsewhere")
    assert f"if its folder was moved: ln -s NEW_FOLDER {tmp_path}/nni-experiments/exp00001" in refused()


@pytest.mark.parametrize(
    ("status", "message"), [("RUNNING", "is running; return to it"), ("VIEWED", "is being viewed")]
)
def test_one_that_runs_is_refused(status, message, written, monkeypatch, tmp_path):
    written.run(30, "t0002", 2, 2)
    written.config["maxTrialNumber"] = 5
    written.profile(revision=2)
    registry = tmp_path / "nni-experiments" / ".experiment"
    registry.write_text(registry.read_text().replace('"RUNNING"', f'"{status}"'))
    for module in ("experiments.launch", "analysis.reading.locate"):  # a manager's process cannot be had without one
        monkeypatch.setattr(f"{module}.is_running", lambda entry: True)
    assert message in refused()


def test_lost_experiments_are_cleaned_up_one_by_one_with_a_line_each(tmp_path, monkeypatch, capsys):
    """No NNI is needed: their managers are gone. A trial of the first lives on, and is ended."""
    monkeypatch.setenv("HOME", str(tmp_path))
    folder = tmp_path / "nni-experiments"
    managers = []
    for name in ("exp00001", "exp00002"):
        Recorder(folder, name).trial(0, final(0.8))
        managers.append(Manager(name, f"name-{name}", find_port(18590), folder / name))
    entry = {"status": "RUNNING", "pid": 2**22 + 1, "logDir": str(folder)}
    (folder / ".experiment").write_text(json.dumps({m.id: {**entry, "id": m.id} for m in managers}))
    outputs = str(folder / "exp00001/environments/local-env/trials/t0001")
    environment = {**os.environ, "NNI_EXP_ID": "exp00001", "NNI_OUTPUT_DIR": outputs}
    with subprocess.Popen(["sleep", "60"], env=environment) as left:
        assert watch_to_end(managers, WatchSettings()) == 1
        assert left.poll() is not None
    said = capsys.readouterr()
    assert said.out == "".join(f"experiment name-{m.id} {m.id} LOST best 0.8000\n" for m in managers)
    assert "name-exp00001: stopped what its manager had left running: its trials (1 processes)" in said.err
    assert said.err.count("explained: python -m experiments why") == 2
    assert "it was killed, or the machine restarted" in why("exp00002")
