"""`python -m benchmarks.analysis`: its experiment is NNI's in schema and ours in content, and is read back as it was built."""

from __future__ import annotations

import math
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_analysis import SCHEMA

import analysis
from benchmarks.analysis import START, build, draw, measure, schema


def test_the_schema_is_nnis(tmp_path):
    assert SCHEMA.strip() in schema()
    with closing(sqlite3.connect(build(tmp_path / "b", 2) / "db" / "nni.sqlite")) as connection:
        tables = connection.execute("select name from sqlite_master where type = 'table' order by name").fetchall()
    assert tables == [("ExperimentProfile",), ("MetricData",), ("TrialJobEvent",)]


def test_what_is_built_is_what_is_read(tmp_path):
    experiment = analysis.load(build(tmp_path / "bench", 300, epochs=7, seed=3))
    assert (experiment.id, experiment.state, experiment.max_trials) == ("bench", "DONE", 300)
    assert experiment.counts == {"succeeded": 294, "failed": 3, "cancelled": 3, "running": 0, "pruned": 0}
    assert sum(trial.score is not None for trial in experiment.record.trials) == 288
    assert len(experiment.epochs) == 300 * 7
    for number, (trial, drawn) in enumerate(zip(experiment.record.trials, draw(300, 7, 3), strict=True)):
        assert (trial.trial_id, trial.state, trial.sequence) == (drawn.trial_id, drawn.state, number)
        assert (trial.parameters, trial.parameters_mismatch) == (drawn.parameters, False)
        assert [result.value for result in trial.intermediates] == drawn.epochs
        assert trial.start == START + 10_000 * number and trial.duration_s == 9
        if number % 100 == 96:
            assert math.isnan(trial.final.pop("default")) and math.isnan(drawn.final.pop("default"))
        assert trial.final == drawn.final


def test_a_command_is_measured_and_one_that_fails_ends_the_benchmark():
    inner = "import time; x = b'x' * 100_000_000; time.sleep(0.2)"
    code = f"import sys; from benchmarks.analysis import measure; print(*measure([sys.executable, '-c', {inner!r}]))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=True
    )
    seconds, peak_mb = map(float, done.stdout.split())
    assert 0.2 <= seconds < 20 and 100 <= peak_mb < 150
    with pytest.raises(SystemExit, match="failed: .*no such thing"):
        measure([sys.executable, "-c", "import sys; sys.exit('no such thing')"])
