"""What `resume` refuses, in one line each and before it touches anything. It goes on for real in test_nni_faults.py."""

from __future__ import annotations

import json

import pytest
from fixtures_analysis import Recorder, final

from experiments.errors import ExperimentError
from experiments.finish import Watching
from experiments.resume import resume


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
        resume(experiment_id, max_trials, Watching())
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
    assert "cannot go on (" in refused() and "start it anew" in refused()


@pytest.mark.parametrize(
    ("status", "message"), [("RUNNING", "is running; return to it"), ("VIEWED", "is being viewed")]
)
def test_one_that_runs_is_refused(status, message, written, monkeypatch, tmp_path):
    written.run(30, "t0002", 2, 2)
    written.config["maxTrialNumber"] = 5
    written.profile(revision=2)
    registry = tmp_path / "nni-experiments" / ".experiment"
    registry.write_text(registry.read_text().replace('"RUNNING"', f'"{status}"'))
    for module in ("experiments.resume", "analysis.locate"):  # a manager's process cannot be had without one
        monkeypatch.setattr(f"{module}.is_running", lambda entry: True)
    assert message in refused()
