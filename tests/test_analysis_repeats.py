"""Repeats: grouping, the statistics against scipy and brute force, what is said, and that it is calibrated."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from fixtures_analysis import Recorder, final
from scipy import stats

from analysis import calibrate
from analysis.__main__ import main
from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment
from analysis.stats import best_of_n, two_sample
from analysis.stats.arms import group
from analysis.stats.compare import compare

GUIDED = {"tpe_args": {"n_startup_jobs": 1}}


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def experiment(tmp_path, name, best, tuner="TPE", **arguments):
    """Three trials that end at `best`; TPE with one start-up trial, Evolution with a population of one."""
    arguments = {"optimize_mode": "maximize"} | arguments
    arguments |= GUIDED if tuner == "TPE" else {"population_size": 1}
    recorder = Recorder(tmp_path, name, tuner={"name": tuner, "classArgs": arguments}, experimentName=name)
    for sequence, accuracy in enumerate((best - 0.1, best - 0.05, best)):
        recorder.trial(sequence, final(accuracy))
    return load_experiment(recorder.folder)


def arms(tmp_path, first, second):
    return [experiment(tmp_path, f"tpe{k}", best, seed=k) for k, best in enumerate(first)] + [
        experiment(tmp_path, f"evo{k}", best, "Evolution") for k, best in enumerate(second)
    ]


def test_repeats_are_grouped_by_tuner_and_arguments_but_not_by_seed(tmp_path):
    found = group(arms(tmp_path, (0.8, 0.81), (0.7,)))
    assert [(arm.name, arm.bests) for arm in found] == [("TPE", [0.8, 0.81]), ("evo0", [0.7])]


def test_two_experiments_are_two_arms_even_of_one_configuration(tmp_path):
    found = group([experiment(tmp_path, "a", 0.8), experiment(tmp_path, "b", 0.9)])
    assert [arm.name for arm in found] == ["a", "b"]


def test_group_overrides_and_its_mistakes_are_told(tmp_path):
    experiments = arms(tmp_path, (0.8, 0.81, 0.82), ())
    found = group(experiments, ["old=tpe0,tpe2"])
    assert [(arm.name, len(arm.experiments)) for arm in found] == [("old", 2), ("tpe1", 1)]
    for named, message in (
        ([], "are one arm"),
        (["old"], "not of the form NAME=ID,ID"),
        (["old=nothere"], "'nothere' is not compared here"),
        (["old=tpe0", "new=tpe0"], "in two groups"),
    ):
        with pytest.raises(AnalysisError, match=message):
            group(experiments, named)


@pytest.mark.parametrize("seed", range(6))
def test_exact_p_equals_scipy_without_ties_and_brute_force_with(seed):
    rng = random.Random(seed)
    first, second = [rng.random() for _ in range(4 + seed % 3)], [rng.random() + 0.2 for _ in range(5)]
    expected = stats.mannwhitneyu(first, second, method="exact").pvalue
    assert two_sample.mann_whitney_p(first, second) == pytest.approx(expected, abs=1e-12)
    first, second = [rng.randrange(4) for _ in range(4)], [rng.randrange(5) for _ in range(5)]
    ranks = stats.rankdata(first + second)
    sums = [sum(ranks[list(deal)]) for deal in itertools.combinations(range(9), 4)]
    distance = abs(sum(ranks[:4]) - ranks.sum() * 4 / 9)
    brute = sum(abs(total - ranks.sum() * 4 / 9) >= distance - 1e-9 for total in sums) / len(sums)
    assert two_sample.mann_whitney_p(first, second) == pytest.approx(brute, abs=1e-12)


def test_the_difference_of_means_equals_scipy():
    first, second = [0.80, 0.82, 0.79, 0.85], [0.86, 0.84, 0.88, 0.83, 0.85]
    expected = stats.ttest_ind(second, first, equal_var=False).confidence_interval(0.95)
    difference, interval = two_sample.welch(first, second)
    assert difference == pytest.approx(0.037)
    assert interval == pytest.approx((expected.low, expected.high))
    assert two_sample.welch([1.0] * 4, [2.0] * 4) == (1.0, (1.0, 1.0))


def test_probability_of_improvement_by_hand():
    assert two_sample.probability_of_improvement([1, 2], [2, 3], True) == 3.5 / 4
    assert two_sample.probability_of_improvement([1, 2], [2, 3], False) == 0.5 / 4
    low, high = two_sample.improvement_interval(1.0, 4, 4)
    assert 0.5 < low < 0.7 and high == pytest.approx(1.0)
    assert two_sample.improvement_interval(0.0, 4, 4) == pytest.approx((0.0, 1 - low))
    low, high = two_sample.improvement_interval(0.5, 8, 8)
    assert (0.5 - low) == pytest.approx(high - 0.5) and 0.2 < low < 0.3


def test_four_repeats_show_a_difference(tmp_path):
    summary = compare(*arms(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93)))
    found = summary["comparison"]
    assert (found["verdict"], found["difference"]) == ("difference_shown", pytest.approx(0.1))
    assert found["p_value"] == pytest.approx(2 / 70)
    assert found["interval"][0] < 0.1 < found["interval"][1]
    assert (found["probability_of_improvement"], found["repeats"]) == (1.0, [4, 4])
    assert found["headline"].startswith(
        "A difference is shown: Evolution's best trials have higher validation accuracy"
    )
    assert found["statement"] == " ".join([found["headline"], *found["details"]])
    assert [arm["experiments"] for arm in summary["arms"]] == [
        [f"{arm}{k}" for k in range(4)] for arm in ("tpe", "evo")
    ]
    assert (summary["arms"][0]["mean"], summary["arms"][0]["trials"]) == (pytest.approx(0.815), 12)


def test_four_repeats_that_overlap_show_none(tmp_path):
    found = compare(*arms(tmp_path, (0.80, 0.82, 0.84, 0.86), (0.81, 0.83, 0.85, 0.87)))["comparison"]
    assert found["verdict"] == "no_difference_shown"
    assert found["interval"][0] < 0 < found["interval"][1]


def test_unequal_numbers_of_trials_are_named_beside_the_difference(tmp_path):
    experiments = arms(tmp_path, (), (0.90, 0.91, 0.92, 0.93))
    experiments += [load_experiment(lone_trial(tmp_path, f"r{k}", "Random", 0.7).folder) for k in range(4)]
    details = compare(*experiments)["comparison"]["details"]
    assert any("3 and 1 trials per experiment" in sentence for sentence in details)


def test_three_repeats_cannot_be_estimated_however_far_apart(tmp_path):
    found = compare(*arms(tmp_path, (0.5, 0.51, 0.52), (0.9, 0.91, 0.92)))["comparison"]
    assert (found["verdict"], found["interval"], found["p_value"]) == ("not_estimable", None, None)
    assert found["repeats_needed"] == 4 and "too few" in found["statement"]


def test_a_difference_between_random_draws_is_never_claimed(tmp_path):
    experiments = [
        load_experiment(lone_trial(tmp_path, f"{name}{k}", name, best + k / 1000).folder)
        for name, best in (("Random", 0.8), ("TPE", 0.9))
        for k in range(4)
    ]
    found = compare(*experiments)["comparison"]
    assert found["p_value"] < 0.05 and found["verdict"] == "no_difference_shown"
    assert not any("trials per experiment" in sentence for sentence in found["details"])
    assert "due to chance" in found["details"][0]


def lone_trial(tmp_path, name, tuner, best):
    recorder = Recorder(tmp_path, name, tuner={"name": tuner, "classArgs": {"optimize_mode": "maximize"}})
    recorder.trial(0, final(best))
    return recorder


def test_three_arms_are_compared_in_pairs_and_p_pays_for_it(tmp_path):
    experiments = arms(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93))
    random_arm = [load_experiment(lone_trial(tmp_path, f"r{k}", "Random", 0.7 + k / 100).folder) for k in range(4)]
    summary = compare(*experiments, *random_arm)
    assert [pair["arms"] for pair in summary["comparisons"]] == [
        ["TPE", "Evolution"],
        ["TPE", "Random"],
        ["Evolution", "Random"],
    ]
    assert [pair["p_value"] for pair in summary["comparisons"]] == pytest.approx([6 / 70] * 3)
    assert (summary["comparison"]["verdict"], summary["comparison"]["repeats_needed"]) == ("not_estimable", 5)
    assert "that all pairs share" in summary["comparison"]["statement"]


def test_five_repeats_of_three_arms_are_enough(tmp_path):
    experiments = arms(tmp_path, [0.80 + k / 100 for k in range(5)], [0.90 + k / 100 for k in range(5)])
    experiments += [load_experiment(lone_trial(tmp_path, f"r{k}", "Random", 0.7 + k / 100).folder) for k in range(5)]
    found = compare(*experiments)["comparison"]
    assert found["verdict"] == "difference_shown" and found["headline"].startswith("A difference is shown among the 3")


def test_the_page_and_the_terminal_of_repeats(tmp_path, capsys):
    experiments = arms(tmp_path, (0.80, 0.81, 0.82, 0.83), (0.90, 0.91, 0.92, 0.93))
    folders = [str(e.folder) for e in experiments]
    assert main(["compare", *folders, "--group", "old=tpe0,tpe1,tpe2,tpe3", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "verdict: difference_shown" in printed and "81.5 %" in printed and "Evolution less old" in printed
    page = (tmp_path / "out" / "report.html").read_text()
    for text in ("Arm against arm", "difference shown", "old against Evolution", "the tuner chose 16 of the trials"):
        assert text in page
    assert main(["compare", folders[0], "--out", str(tmp_path / "out")]) == 1
    assert "two or more experiments" in capsys.readouterr().err


def test_optimism_of_equal_trials_is_the_order_statistic_of_the_noise():
    """True accuracy 0.9 everywhere: the expected maximum of 15 normals is 1.736 standard errors."""
    rng = np.random.default_rng(3)
    biases = [best_of_n.optimism(list(rng.binomial(3430, 0.9, 15) / 3430), 3430).bias for _ in range(40)]
    error = (0.09 / 3430) ** 0.5
    assert 1.3 * error < np.mean(biases) < 1.75 * error
    assert best_of_n.optimism([0.9] * 15, 3430).bias == pytest.approx(1.736 * error, rel=0.02)


def test_optimism_is_near_the_real_one_where_trials_differ():
    rng = np.random.default_rng(4)
    real, estimated = [], []
    for _ in range(60):
        truth = 0.93 - 0.1 * rng.beta(1, 3, 15)
        seen = rng.binomial(1000, truth) / 1000
        real.append(seen.max() - truth[seen.argmax()])
        estimated.append(best_of_n.optimism(list(seen), 1000).bias)
    assert np.mean(estimated) == pytest.approx(np.mean(real), abs=0.002)
    assert np.mean(real) > 0.002
    assert best_of_n.optimism([0.9, 0.8], 1000) is None


def test_optimism_needs_a_number_of_images(tmp_path):
    summary = compare(experiment(tmp_path, "a", 0.8), experiment(tmp_path, "b", 0.9, "Evolution"))
    assert summary["experiments"][0]["optimism"]["n_images"] == 200
    plain = Recorder(tmp_path, "plain")
    for sequence in range(3):
        plain.trial(sequence, 0.5 + sequence / 10)
    assert best_of_n.optimism_of(load_experiment(plain.folder)) is None


@pytest.mark.parametrize("n", [4, 8])
def test_the_verdict_is_calibrated(n):
    """A small `make calibrate`: 300 comparisons, so a tolerance of three standard errors about the nominal level."""
    null = calibrate.compare(0.0, n, 300, seed=1)
    assert null.claimed <= 0.05 + 3 * (0.05 * 0.95 / 300) ** 0.5
    assert null.welch == pytest.approx(0.95, abs=0.038)
    assert null.improvement == pytest.approx(0.95, abs=0.038)
    assert calibrate.compare(2.0, n, 100, seed=1).claimed > 0.3
    assert calibrate.compare(0.0, 1, 100, seed=1).claimed < 0.12
