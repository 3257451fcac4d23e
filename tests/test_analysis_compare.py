"""The numbers of a comparison, against brute force and scipy, and the words that may be said about them."""

from __future__ import annotations

import itertools
import json
import random

import pytest
from fixtures_analysis import Recorder, final
from scipy import stats

from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment
from analysis.reading.values import strict_json
from analysis.stats import two_sample
from analysis.stats.compare import compare


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def arm(tmp_path, experiment_id, finals, tuner="TPE", arguments=None, **config):
    """An experiment of one trial a final result; None is a trial that failed."""
    config.setdefault("experimentName", experiment_id)
    arguments = {"optimize_mode": "maximize"} | (arguments or {})
    recorder = Recorder(tmp_path, experiment_id, tuner={"name": tuner, "classArgs": arguments}, **config)
    for sequence, value in enumerate(finals):
        recorder.trial(sequence, value, state="FAILED" if value is None else "SUCCEEDED")
    return load_experiment(recorder.folder)


def brute_force(first, second, maximise):
    """Every way of dealing the labels: sorted differences of the bests."""
    best, pool = (max if maximise else min), first + second
    differences = []
    for chosen in itertools.combinations(range(len(pool)), len(first)):
        a = [pool[i] for i in chosen if pool[i] is not None]
        b = [pool[i] for i in range(len(pool)) if i not in chosen and pool[i] is not None]
        if a and b:
            differences.append(best(b) - best(a))
    return sorted(differences)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("maximise", [True, False])
def test_the_null_band_equals_brute_force(seed, maximise):
    rng = random.Random(seed)
    first = [round(rng.random(), 1 + seed % 3) if rng.random() < 0.8 else None for _ in range(5)] + [0.5]
    second = [round(rng.random(), 1 + seed % 3) if rng.random() < 0.8 else None for _ in range(6)] + [0.4]
    band = two_sample.null_band(first, second, maximise)
    differences = brute_force(first, second, maximise)
    best = max if maximise else min
    observed = abs(best(x for x in second if x is not None) - best(x for x in first if x is not None))

    def quantile(level):
        return next(d for rank, d in enumerate(differences, start=1) if rank / len(differences) >= level - 1e-12)

    assert band.low == pytest.approx(quantile(0.025), abs=1e-12)
    assert band.high == pytest.approx(quantile(0.975), abs=1e-12)
    at_least = sum(abs(d) >= observed - 1e-12 for d in differences)
    assert band.share == pytest.approx(at_least / len(differences), abs=1e-9)
    assert (band.n_first, band.n_second) == (6, 7)


def test_permuted_differences_by_hand():
    """Two trials an arm, scores 4 3 2 1. The best two in one arm: 2/6 of the deals, a difference of 2."""
    values, weights = two_sample.permuted_differences(2, 2, [4.0, 3.0, 2.0, 1.0], maximise=True)
    total = {value: sum(w for v, w in zip(values, weights, strict=True) if v == value) for value in set(values)}
    assert total == pytest.approx({-1.0: 2 / 6, 1.0: 2 / 6, -2.0: 1 / 6, 2.0: 1 / 6})


def test_failed_trials_take_part_in_the_permutation():
    scores = [0.9, 0.8, 0.7, 0.6]
    failed = [*scores, *[None] * 12]
    values, weights = two_sample.permuted_differences(16, 4, scores + scores, maximise=True)
    deals = brute_force(failed, scores, maximise=True)
    for sign in (-1, 1):
        expected = sum(sign * deal > 0.15 for deal in deals) / len(deals)
        found = sum(w for v, w in zip(values, weights, strict=True) if sign * v > 0.15)
        assert found == pytest.approx(expected, abs=1e-12)
    assert two_sample.null_band(failed, scores, True).low < two_sample.null_band(scores, scores, True).low
    assert two_sample.null_band([None, None], scores, True) is None


@pytest.mark.parametrize(("correct", "n"), [(0, 10), (10, 10), (45, 50), (171, 200), (3087, 3430)])
def test_wilson_equals_scipy(correct, n):
    expected = stats.binomtest(correct, n).proportion_ci(method="wilson")
    assert two_sample.wilson(correct / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize("repeats", [2, 3, 4, 5])
def test_the_smallest_p_equals_scipy(repeats):
    low, high = list(range(repeats)), list(range(10, 10 + repeats))
    assert two_sample.smallest_p(repeats) == pytest.approx(stats.mannwhitneyu(low, high, method="exact").pvalue)


def test_four_repeats_are_the_fewest():
    assert two_sample.repeats_needed() == 4
    assert two_sample.smallest_p(4) == pytest.approx(2 / 70)


def test_two_arms_in_start_up_show_no_difference(tmp_path):
    first = arm(tmp_path, "tpe", [final(0.80 + 0.005 * k) for k in range(14)] + [None])
    second = arm(tmp_path, "evo", [final(0.78 + 0.01 * k) for k in range(15)], "Evolution", {"population_size": 100})
    summary = compare(first, second)
    a, b = summary["experiments"]
    assert a["trials"] == {"succeeded": 14, "failed": 1, "cancelled": 0, "running": 0}
    assert (a["chosen_by_tuner"], b["chosen_by_tuner"]) == (0, 0)
    assert (a["tuner"], b["tuner"], a["state"], b["state"]) == ("TPE", "Evolution", "DONE", "DONE")
    assert (a["best"]["val_accuracy"], a["best"]["trial_id"]) == (pytest.approx(0.865), "t0013")
    assert a["best"]["evaluation"] == pytest.approx({"top1": 0.845, "top3": 0.915, "macro": 0.835, "n": 400})
    assert a["best"]["params"] == {"lr": pytest.approx(0.14), "momentum": 0.9}
    assert (a["trial_seconds"], a["wall_seconds"]) == (120.0, 148.0)
    found = summary["comparison"]
    assert found["difference"] == pytest.approx(0.92 - 0.865)
    assert (found["interval"], found["p_value"], found["verdict"]) == (None, None, "no_difference_shown")
    assert found["null_band"]["n_first"] == found["null_band"]["n_second"] == 15
    for text in ("only sampled at random", "0 of 15 trials of tpe", "chance", "5.5 points above", "all 30 trials"):
        assert text in found["statement"]


def test_once_a_tuner_chooses_one_run_each_is_not_enough(tmp_path):
    finals = [final(0.5 + 0.01 * k) for k in range(15)]
    first = arm(tmp_path, "tpe", finals, arguments={"tpe_args": {"n_startup_jobs": 5}})
    second = arm(tmp_path, "evo", finals, "Evolution", {"population_size": 5})
    summary = compare(first, second)
    assert [found["chosen_by_tuner"] for found in summary["experiments"]] == [10, 10]
    found = summary["comparison"]
    assert (found["verdict"], found["repeats_needed"], found["difference"]) == ("not_estimable", 4, 0.0)
    assert "at least 4 experiments of each" in found["statement"] and "0.029" in found["statement"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"searchSpace": {"lr": {"_type": "uniform", "_value": [0.1, 1.0]}}}, "search spaces differ"),
        ({"trialCommand": "python -m trial --set epochs=1"}, "different commands"),
        ({"arguments": {"optimize_mode": "minimize"}}, "optimize_mode differs (maximize and minimize)"),
        ({"finals": [None, None]}, "none of the 2 trials of second ended with a result"),
    ],
)
def test_arms_that_cannot_be_compared_say_why(tmp_path, changes, reason):
    first = arm(tmp_path, "first", [0.5, 0.6])
    second = arm(tmp_path, "second", **{"finals": [0.5, 0.7]} | changes)
    found = compare(first, second)["comparison"]
    assert (found["verdict"], found["difference"], found["null_band"]) == ("not_comparable", None, None)
    assert reason in found["statement"]


def test_plain_numbers_of_other_scripts(tmp_path):
    """No accuracy is claimed where no number of images is known."""
    first = arm(tmp_path, "first", [12.5, 20.0], "Random")
    second = arm(tmp_path, "second", [11.0, 13.0], "Random")
    summary = compare(first, second)
    assert summary["experiments"][0]["best"]["evaluation"] is None
    assert summary["experiments"][0]["best"]["validation_interval"] is None
    assert summary["comparison"]["difference"] == -7.0
    assert "7 below" in summary["comparison"]["statement"] and "%, " not in summary["comparison"]["statement"]


def test_a_running_trial_is_no_failure_and_an_experiment_is_not_its_own_rival(tmp_path):
    first = arm(tmp_path, "first", [0.5, 0.6])
    with pytest.raises(AnalysisError, match="named twice"):
        compare(first, load_experiment(tmp_path / "first"))


def test_summary_is_strict_json(tmp_path):
    first = arm(tmp_path, "first", [0.5, float("nan")])
    second = arm(tmp_path, "second", [0.5, 0.7])
    summary = compare(first, second)
    summary["experiments"][0]["best"]["params"]["lr"] = float("inf")
    text = strict_json(summary)

    def refuse(name):
        raise AssertionError(name)

    assert json.loads(text, parse_constant=refuse)["experiments"][0]["best"]["params"]["lr"] is None
