"""The numbers of the further figures: expected best of k, importance, early stopping; brute force, hand, scipy."""

from __future__ import annotations

import itertools
import json
import random
import statistics

import numpy as np
import pytest
from fixtures_analysis import Recorder, final
from scipy import stats

from analysis.reading.reader import load_experiment
from analysis.reports import series
from analysis.reports.facts import failure_rows, stopping_rows
from analysis.stats import best_of_n, early_stopping, importance
from analysis.stats.early_stopping import Curve, Patience


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.mark.parametrize("maximise", [True, False])
@pytest.mark.parametrize("failed", [0, 2])
def test_best_of_k_equals_enumeration(maximise, failed):
    rng, best = random.Random(failed), max if maximise else min
    scores = [round(rng.random(), 2) for _ in range(7 - failed)] + [None] * failed
    found = best_of_n.best_of_k(scores, maximise)
    assert (found.k, found.n) == ([1, 2, 3], 7)
    for k in found.k:
        subsets = [best(y) for deal in itertools.combinations(scores, k) if (y := [s for s in deal if s is not None])]
        assert found.mean[k - 1] == pytest.approx(statistics.fmean(subsets))
        ordered = sorted(subsets, reverse=not maximise)
        ends = [
            next(y for rank, y in enumerate(ordered, 1) if rank / len(ordered) >= q - 1e-12) for q in (0.025, 0.975)
        ]
        assert [found.low[k - 1], found.high[k - 1]] == pytest.approx(sorted(ends))


def test_the_expected_best_of_k_is_unbiased():
    """Uniform draws: the expected best of 5 is 5/6."""
    rng = random.Random(1)
    curves = [best_of_n.best_of_k([rng.random() for _ in range(12)], True) for _ in range(3000)]
    assert statistics.fmean(c.mean[4] for c in curves) == pytest.approx(5 / 6, abs=0.006)


def arm(tmp_path, name, scores, **arguments):
    recorder = Recorder(tmp_path, name, tuner={"name": "TPE", "classArgs": {"optimize_mode": "maximize"} | arguments})
    for sequence, value in enumerate(scores):
        recorder.trial(sequence, value, state="FAILED" if value is None else "SUCCEEDED")
    return load_experiment(recorder.folder)


def test_trials_are_pooled_only_while_all_are_random(tmp_path):
    first, second = arm(tmp_path, "a", (0.1, 0.2, 0.3, None)), arm(tmp_path, "b", (0.4, 0.5, 0.6))
    assert best_of_n.pooled_startup([first, second]) == ([0.1, 0.2, 0.3, None, 0.4, 0.5, 0.6], "")
    assert "2 trials with a result are too few" in best_of_n.pooled_startup([arm(tmp_path, "c", (0.1, 0.2))])[1]
    guided = arm(tmp_path, "d", (0.1, 0.2, 0.3), tpe_args={"n_startup_jobs": 2})
    assert "the tuner chose 1 of the trials" in best_of_n.pooled_startup([first, guided])[1]


def test_rank_share_by_hand_and_its_p_equals_scipy():
    """Ranks 1 2 3 | 4 5 6: within 4 of 17.5 in all, so 1 - (4/4) / (17.5/5)."""
    share, (low, high), p = importance.rank_share([1, 2, 3, 4, 5, 6], list("aaabbb"))
    assert share == pytest.approx(1 - 1 / 3.5)
    assert p == pytest.approx(stats.kruskal([1, 2, 3], [4, 5, 6]).pvalue)
    assert 0 < low < share < high < 1
    assert importance.rank_share([1.0] * 6, list("aaabbb"))[0] == 0.0


@pytest.mark.parametrize("shift", [0.5, 4.0, 60.0])
def test_the_noncentral_f_equals_simulation(shift):
    rng = np.random.default_rng(0)
    drawn = rng.noncentral_chisquare(2, shift, 200_000) / 2 / (rng.chisquare(27, 200_000) / 27)
    for ratio in np.quantile(drawn, [0.05, 0.5, 0.95]):
        assert importance._noncentral_f(ratio, (2, 27), shift) == pytest.approx(np.mean(drawn <= ratio), abs=0.005)


def test_the_interval_of_the_share_covers_nothing_where_there_is_nothing():
    """Independent of the groups the truth is 0: the interval holds it in about 97.5 % (it ends at 0 on one side)."""
    rng = np.random.default_rng(0)
    held = sum(importance.rank_share(rng.random(30), list(rng.integers(0, 3, 30)))[1][0] == 0.0 for _ in range(200))
    assert 0.93 <= held / 200 <= 1.0


def test_importance_finds_a_best_value_in_the_middle_and_refuses_what_it_cannot_say(tmp_path):
    rng = random.Random(0)
    recorder = Recorder(tmp_path, tuner={"name": "Random", "classArgs": {}})
    for sequence in range(30):
        lr = rng.random()
        recorder.trial(sequence, 1 - abs(lr - 0.5) + 0.01 * rng.random(), lr=lr, size=rng.choice([8, 16]), fixed=1)
    experiment = load_experiment(recorder.folder)
    lr, size, fixed = importance.importances([experiment])
    assert (lr.name, lr.n, lr.parts) == ("lr", 30, 3)
    assert lr.share > 0.4 and lr.interval[0] > 0.1 and lr.p < 0.01
    assert size.interval[0] == 0.0
    assert "too few trials share a value" in fixed.reason
    assert (
        "3 random trials with a result are too few"
        in importance.importances([arm(tmp_path, "few", (0.1, 0.2, 0.3))])[0].reason
    )


def test_trials_that_the_tuner_chose_do_not_count_for_importance(tmp_path):
    guided = arm(tmp_path, "g", [0.1 + k / 100 for k in range(25)], tpe_args={"n_startup_jobs": 10})
    assert importance.importances([guided])[0].reason.startswith("10 random trials")


def test_another_patience_by_hand():
    curves = [Curve([0.1, 0.3, 0.2, 0.2, 0.5], 5), Curve([0.4, 0.3, 0.3, 0.3], 9)]
    assert early_stopping.saved(curves) == (9, 14, 1)
    assert [early_stopping.stop_at(curves[0], patience, True) for patience in (1, 2, 3)] == [3, 4, 5]
    assert [early_stopping.stop_at(curves[1], patience, True) for patience in (1, 2, 3, 4)] == [2, 3, 4, None]
    rows = early_stopping.counterfactual(curves, True, (1, 2, 3, 4))
    assert rows[0] == Patience(1, 2, 5, pytest.approx(0.1), pytest.approx(0.1))
    assert rows[1] == Patience(2, 2, 7, pytest.approx(0.1), pytest.approx(0.1))
    assert rows[2] == Patience(3, 2, 9, 0.0, 0.0)
    assert rows[3] == Patience(4, 1, None, None, None)
    assert early_stopping.stop_at(Curve([3.0, 1.0, 2.0], 3), 1, False) == 3


def test_curves_come_from_trials_that_say_how_long_they_might_run(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, final(0.6), {"default": 0.5}, {"default": 0.6})
    recorder.trial(1, final(0.7), {"default": 0.7})
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 4}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    experiment = load_experiment(recorder.folder)
    assert early_stopping.curves(experiment) == [Curve([0.5, 0.6], 4)]
    assert [curve.stopped_early for curve in series.learning_curves(experiment)] == [True, False]


def test_a_trial_that_diverged_was_not_stopped_early(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, final(0.6) | {"diverged": 1}, {"default": 0.5}, {"default": 0.6})
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 4}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    assert early_stopping.saved(early_stopping.curves(load_experiment(recorder.folder))) == (2, 2, 0)


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


def test_best_of_k_of_thousands_of_trials_has_few_points_and_the_right_value():
    found = best_of_n.best_of_k([k / 5000 for k in range(1, 5001)], True)
    assert (found.k[:2], found.k[49:52], found.k[-1]) == ([1, 2], [50, 52, 54], 2500)
    assert len(found.k) < 200
    assert found.mean[9] == pytest.approx(10 / 11 * 5001 / 5000)  # the expected maximum of 10 of 1..N: 10 (N + 1) / 11
