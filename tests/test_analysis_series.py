"""The numbers behind the figures, and the rows of the tables of facts."""

from __future__ import annotations

import json

import pytest
from fixtures_analysis import Recorder, final

from analysis.reading.reader import load_experiment
from analysis.reports import series
from analysis.reports.facts import failure_rows, stopping_rows
from analysis.stats import early_stopping
from analysis.stats.early_stopping import Curve


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def test_curves_come_from_trials_that_say_how_long_they_might_run(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, final(0.6), {"default": 0.5}, {"default": 0.6})
    recorder.trial(1, final(0.7), {"default": 0.7})
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 4}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    experiment = load_experiment(recorder.folder)
    assert early_stopping.curves(experiment) == [Curve([0.5, 0.6], 4, 200)]
    assert [curve.stopped_early for curve in series.learning_curves(experiment)] == [True, False]


def test_a_trial_that_was_interrupted_was_not_stopped_early(tmp_path):
    recorder = Recorder(tmp_path)
    result = {key: value for key, value in final(0.6).items() if not key.startswith("evaluation")}
    recorder.trial(0, result | {"interrupted": 1, "epochs_run": 2}, {"default": 0.5}, {"default": 0.6})
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 4}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    experiment = load_experiment(recorder.folder)
    (trial,) = experiment.trials
    assert early_stopping.curves(experiment) == [] and trial.score == 0.6
    assert trial.warnings == ("interrupted after epoch 2: its best so far counts, not evaluated",)
    assert not any(curve.stopped_early for curve in series.learning_curves(experiment))


def test_best_so_far_over_time_leaves_the_pause_of_a_resume_out(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.run(10, "a", 0, 0)
    recorder.metric(17, "a", 0, 0.5)
    recorder.event(18, "a", "SUCCEEDED", 0)
    recorder.run(100, "b", 0, 0)
    recorder.metric(104, "b", 0, 0.4)
    recorder.event(106, "b", "SUCCEEDED", 0)
    experiment = load_experiment(recorder.folder)
    assert series.best_over_time(experiment) == ([8.0, 16.0 - 2.0], [0.5, 0.5])


def test_parallel_coordinates_by_hand(tmp_path):
    first, second = (Recorder(tmp_path, name) for name in ("first", "second"))
    first.trial(0, 0.5, lr=1.0, kind="b")
    first.trial(1, None, state="FAILED", lr=9.0, kind="c")
    second.trial(0, 0.9, lr=3.0)
    table = series.parallel([load_experiment(recorder.folder) for recorder in (first, second)])
    assert [axis.name for axis in table.axes] == ["lr", "kind", "score"]
    assert table.heights == [[0.0, 1.0, 0.0], [1.0, 0.0, 1.0]]  # a choice's values in order of text: None, b
    assert table.axes[0].ticks == [(0.0, "1"), (1.0, "3")]
    assert (table.arms, table.top, table.total) == ([0, 1], [False, True], 2)


def test_scale_takes_many_numbers_by_value_and_keeps_the_ends_of_many_texts():
    heights, ticks = series.scale([0, 1, 2, 3, 4, 5, 6, 7, 20])
    assert (heights[4], ticks) == (0.2, [(0.0, "0"), (1.0, "20")])
    assert series.scale([True, False, None])[0] == [1.0, 0.0, 0.5]
    assert len(series.scale([f"v{k}" for k in range(20)])[1]) == 2
    assert series.scale([5, 5]) == ([0.5, 0.5], [(0.5, "5")])


def test_rows_of_early_stopping_join_equal_patiences_and_say_what_is_not_known(tmp_path):
    recorder = Recorder(tmp_path)
    curve = [{"default": value} for value in (0.5, 0.4, 0.6)]
    recorder.trial(0, final(0.6), *curve)
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 3}}
    path = recorder.output("t0000") / "hyperparameters.json"
    path.write_text(json.dumps(told))
    rows = {row.label: row.cells for row in stopping_rows([load_experiment(recorder.folder)], True)}
    assert rows["As it ran"] == ("3 of 3 epochs; 0 of 1 trials stopped early",)
    assert rows["Patience 1"] == ("2 epochs; lost: 10.0 points per trial, 10.0 points at the best",)
    assert rows["Patience 2 to 10"] == ("3 epochs; lost: 0.0 points per trial, 0.0 points at the best",)
    told["effective"]["epochs"] = 8
    path.write_text(json.dumps(told))
    rows = {row.label: row.cells for row in stopping_rows([load_experiment(recorder.folder)], True)}
    assert rows["Patience 2 to 10"] == ("not known: 1 of 1 curves end too soon",)


def test_failures_are_counted_by_reason(tmp_path):
    recorder = Recorder(tmp_path)
    for sequence in range(3):
        recorder.trial(sequence, None, state="FAILED")
        (recorder.output(f"t{sequence:04d}") / "trial.stderr").write_text(
            "MemoryError\n" if sequence else "KeyError: 1\n"
        )
    rows = failure_rows([load_experiment(recorder.folder)])
    assert [(row.label, [*row.cells]) for row in rows] == [
        ("failed: MemoryError", ["2 of 3 trials"]),
        ("failed: KeyError: 1", ["1 of 3 trials"]),
    ]
