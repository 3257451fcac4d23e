"""Each statistic against scipy, brute force or a result by hand, and that the verdicts are calibrated."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import statistics

import numpy as np
import pytest
from fixtures_analysis import Recorder, final
from scipy import stats

from analysis import calibrate_comparisons, calibrate_estimates, calibrate_trainings
from analysis.reading.reader import load_experiment
from analysis.render import formats
from analysis.stats import best_of_n, early_stopping, importance, two_sample
from analysis.stats.early_stopping import Curve, Patience
from analysis.stats.paired import MOST_PAIRS, holm, mean_interval, paired, sign_flip_p, smallest_flip_p


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
    assert two_sample.smallest_p(repeats, repeats) == pytest.approx(
        stats.mannwhitneyu(low, high, method="exact").pvalue
    )


def test_four_repeats_are_the_fewest():
    assert two_sample.repeats_needed() == 4
    assert two_sample.smallest_p(4, 4) == pytest.approx(2 / 70)


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


CASES = {case.name: case for case in calibrate_comparisons.CASES}


@pytest.mark.parametrize(
    ("case", "least", "most"),
    [
        ("equal, 8 v 8", 0.0, 0.08),
        ("better by 2 SD, 8 v 8", 0.6, 1.0),
        ("equal networks, best of 1 v 4 epochs", 0.0, 0.12),
    ],
)
def test_a_comparison_claims_what_it_may(case, least, most):
    """A small `make calibrate`. Where one arm's networks are measured more often and are not better, the validation scores alone
    would claim a difference in half of the comparisons."""
    rates = calibrate_comparisons.rates(CASES[case], 100, seed=1)
    assert least <= rates.claimed <= most and rates.wrong <= most
    assert rates.mean_holds > 0.86 and rates.probability_holds > 0.86
    assert (rates.by_validation > 0.3) == (case != "equal, 8 v 8")


def test_runs_without_a_result_count_and_none_is_claimed_better_for_failing():
    failing = calibrate_comparisons.rates(CASES["better by 2 SD, 2 in 5 of it without a result"], 100, seed=1)
    assert failing.mean_holds is None and failing.wrong < 0.08


def differences(seed: int, n: int) -> list[float]:
    return list(np.random.default_rng(seed).normal(0.3, 1.0, n))


@pytest.mark.parametrize("n", [2, 3, 5, 12])
@pytest.mark.parametrize("comparisons", [1, 4])
def test_the_paired_t_is_scipys(n, comparisons):
    first, second = differences(n, n), differences(n + 50, n)
    found = paired([a - b for a, b in zip(first, second)], comparisons)
    expected = stats.ttest_rel(first, second)
    interval = expected.confidence_interval(1 - 0.05 / comparisons)
    assert (found.n, found.df, found.level) == (n, n - 1, 1 - 0.05 / comparisons)
    assert found.mean == pytest.approx(np.mean(first) - np.mean(second))
    assert (found.low, found.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
    assert found.p_t == pytest.approx(expected.pvalue)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 8])
def test_the_sign_flip_p_is_the_share_of_all_patterns(n):
    for seed in range(5):
        values = [round(value, 1) for value in differences(seed, n)]  # with ties
        sums = [sum(s * d for s, d in zip(signs, values)) for signs in itertools.product((1, -1), repeat=n)]
        expected = sum(abs(total) >= abs(sum(values)) - 1e-9 for total in sums) / 2**n
        assert sign_flip_p(values) == expected


def test_the_sign_flip_p_is_scipys_permutation_test():
    values = differences(3, 9)
    expected = stats.permutation_test((values, [0.0] * 9), lambda a, b: np.mean(a - b), permutation_type="samples")
    assert sign_flip_p(values) == pytest.approx(expected.pvalue)


def test_what_few_pairs_can_show():
    assert sign_flip_p([0.01, 0.02, 0.005, 0.03, 0.02]) == smallest_flip_p(5) == 2 / 32
    assert sign_flip_p([0.1] * 6) == smallest_flip_p(6) < 0.05
    assert sign_flip_p([0.0, 0.0, 0.0]) == smallest_flip_p(1) == 1.0
    with pytest.raises(ValueError, match=f"at most {MOST_PAIRS}"):
        sign_flip_p([0.1] * (MOST_PAIRS + 1))


def test_no_spread_no_interval():
    assert paired([]) is None
    alone, equal = paired([0.02]), paired([0.3 - 0.1, 0.4 - 0.2, 0.2])  # equal but for rounding
    assert (alone.mean, alone.sd, alone.low, alone.p_t, alone.df) == (0.02, None, None, None, 0)
    assert equal.low is None and equal.p_t is None and equal.p_flip == 0.25
    assert mean_interval([0.5]) is None and mean_interval([]) is None
    assert mean_interval([0.5, 0.7]) == pytest.approx(stats.t.interval(0.95, 1, loc=0.6, scale=0.1))


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_the_closed_test_of_bonferroni():
    """Marcus, Peritz and Gabriel 1976: a hypothesis falls where every intersection that it is in does."""
    rng = random.Random(0)
    for _ in range(20):
        p = [rng.random() ** 3 for _ in range(4)]
        closed = [
            max(
                min(1.0, len(members) * min(p[j] for j in members))
                for size in range(1, 5)
                for members in itertools.combinations(range(4), size)
                if index in members
            )
            for index in range(4)
        ]
        assert holm(p) == pytest.approx(closed)


def test_a_confirmation_claims_no_more_than_it_may():
    """A small `make calibrate`: six configurations like the default, and one better by 3 points found in two stages."""
    assert calibrate_trainings.confirmations([0.0] * 6, 0, 5, 500, seed=1).claimed < 0.08
    assert calibrate_trainings.confirmations([3.0] + [0.0] * 5, 3, 8, 200, seed=1).found > 0.6


def test_evaluation_intervals_cover_and_validation_intervals_of_the_best_do_not():
    bias = calibrate_estimates.bias("one kind, best of 10 epochs", 228, 30, seed=1)
    assert bias.evaluation > 0.91 and bias.validation < 0.8
    assert bias.ratio == pytest.approx(1, abs=4 * bias.error)


def test_what_another_patience_lost_by_noise_is_not_shown():
    steady = calibrate_estimates.patience(2, 228, 60, seed=1, is_steady=True)
    assert steady.observed > 0.3 and abs(steady.true) < 1e-9 and steady.shown < 0.1
    assert calibrate_estimates.patience(1, 228, 60, seed=1).shown > 0.9  # 6 points are


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


def test_the_band_of_best_of_k_covers_a_new_search_as_often_as_it_says():
    rng, ends = np.random.default_rng(2), []
    for _ in range(1000):
        curve = best_of_n.best_of_k(list(rng.random(12)), True)
        ends.append([low <= rng.random(k).max() <= high for k, low, high in zip(curve.k, curve.low, curve.high)])
    assert np.mean(ends, axis=0) == pytest.approx(curve.covers, abs=0.05)
    assert (curve.covers[0], curve.covers[-1]) == (pytest.approx(11 / 13), pytest.approx(0.642, abs=0.001))


def test_the_band_of_few_of_many_is_that_of_95_percent():
    scores = [k / 999 for k in range(999)]
    for maximise in (True, False):
        curve = best_of_n.best_of_k(scores, maximise)
        assert curve.covers[0] == pytest.approx(0.95, abs=0.002)
        assert (curve.low[0], curve.high[0]) == pytest.approx((0.025, 0.975), abs=0.002)


def test_the_expected_best_of_k_is_unbiased():
    """Uniform draws: the expected best of 5 is 5/6."""
    rng = random.Random(1)
    curves = [best_of_n.best_of_k([rng.random() for _ in range(12)], True) for _ in range(3000)]
    assert statistics.fmean(c.mean[4] for c in curves) == pytest.approx(5 / 6, abs=0.006)


def test_best_of_k_of_thousands_of_trials_has_few_points_and_the_right_value():
    found = best_of_n.best_of_k([k / 5000 for k in range(1, 5001)], True)
    assert (found.k[:2], found.k[49:52], found.k[-1]) == ([1, 2], [50, 52, 54], 2500)
    assert len(found.k) < 200
    assert found.mean[9] == pytest.approx(10 / 11 * 5001 / 5000)  # the expected maximum of 10 of 1..N: 10 (N + 1) / 11


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


def optimism_ratio(truth_of, images, runs=40, seed=4):
    """Mean estimate over the mean true excess of the best of the accuracies; `truth_of(rng)` is (trials, epochs)."""
    rng = np.random.default_rng(seed)
    real, estimates = [], []
    for _ in range(runs):
        truth = truth_of(rng)
        seen = rng.binomial(images, truth) / images
        real.append(seen.max() - truth.flat[seen.argmax()])
        estimates.append(best_of_n.optimism(seen.tolist(), images).bias)
    return np.mean(estimates) / np.mean(real)


def two_kinds(rng):
    return np.where(rng.random(15) < 0.5, rng.normal(0.92, 0.005, 15), rng.normal(0.6, 0.05, 15))[:, None]


def best_epochs(rng):
    """15 trials of 10 epochs: their accuracies rise and then stay."""
    rise = 1 - 0.5 * np.exp(-np.arange(1, 11) / rng.uniform(1, 4, (15, 1)))
    return (0.93 - 0.1 * rng.beta(1, 3, (15, 1))) * rise


@pytest.mark.parametrize(
    "truth_of",
    [lambda rng: np.full((15, 1), 0.9), lambda rng: 0.93 - 0.1 * rng.beta(1, 3, (15, 1)), two_kinds, best_epochs],
)
def test_the_selection_bias_is_near_the_real_one(truth_of):
    assert optimism_ratio(truth_of, 228) == pytest.approx(1, abs=0.16)


def test_the_selection_bias_of_equal_accuracies_is_the_order_statistic_of_the_noise():
    """The expected maximum of 15 normals is 1.736 standard errors, of 150 it is 2.615: the best epochs of 15 trials."""
    error = (0.09 / 3430) ** 0.5
    assert best_of_n.optimism([[0.9]] * 15, 3430).bias == pytest.approx(1.736 * error, rel=0.03)
    of_epochs = best_of_n.optimism([[0.9] * 10] * 15, 3430)
    assert of_epochs.bias == pytest.approx(2.615 * error, rel=0.03)
    assert (of_epochs.n_trials, of_epochs.n_accuracies) == (15, 150)
    assert best_of_n.optimism([[0.9], [0.8]], 1000) is None


def test_the_epochs_count_where_the_best_of_them_is_the_result(tmp_path):
    recorder = Recorder(tmp_path, "curves", tuner={"name": "Random", "classArgs": {}})
    for n in range(3):
        values = [0.5, 0.7 + n / 100, 0.6]
        recorder.trial(n, final(values[1]), *values)
        recorder.trial(n + 3, final(values[2]), *values)
    bias = best_of_n.optimism_of(load_experiment(recorder.folder))
    assert (bias.n_trials, bias.n_accuracies) == (6, 3 * 3 + 3)


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


def test_hyperparameters_looked_at_together_are_one_family(tmp_path):
    rng, recorder = random.Random(0), Recorder(tmp_path, tuner={"name": "Random", "classArgs": {}})
    rows = [(rng.random(), rng.random(), rng.choice([8, 16])) for _ in range(30)]
    for sequence, (value, lr, size) in enumerate(rows):
        recorder.trial(sequence, value, lr=lr, size=size, fixed=1)
    lr, size, fixed = importance.importances([load_experiment(recorder.folder)])
    assert [lr.p_adjusted, size.p_adjusted, fixed.p_adjusted] == [*holm([lr.p, size.p]), None]
    alone = importance.rank_share([row[0] for row in rows], [row[2] for row in rows], 1 - 0.05 / 2)
    assert (size.share, size.interval, size.p) == alone
    assert all(one.interval[0] <= one.share <= one.interval[1] for one in (lr, size))


def test_a_training_that_two_experiments_share_counts_once(tmp_path):
    rng, folders = random.Random(3), []
    rows = [(rng.random(), rng.random()) for _ in range(12)]
    for name, own in (("a", []), ("b", [(0.5, 0.5)])):
        recorder = Recorder(tmp_path, name, tuner={"name": "Random", "classArgs": {}})
        for sequence, (value, lr) in enumerate([*rows, *own]):
            recorder.trial(sequence, value, lr=lr, size=8)
        folders.append(load_experiment(recorder.folder))
    assert len(best_of_n.pooled_startup(folders)[0]) == 13
    assert importance.importances(folders)[0].reason.startswith("13 random trials")
    assert [len(trials) for trials in best_of_n.distinct_trials(folders)] == [12, 1]


def test_experiments_that_cannot_be_compared_are_not_pooled(tmp_path):
    experiments = [arm(tmp_path, name, [k / 100 for k in range(15)]) for name in "ab"]
    assert "cannot be compared" in best_of_n.pooled_startup(experiments, "not_comparable")[1]
    assert all("cannot be compared" in one.reason for one in importance.importances(experiments, "not_comparable"))


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
    known = [curve._replace(images=200) for curve in curves]
    assert early_stopping.counterfactual(known, True, (1,))[0].error == pytest.approx((2 * 0.45 * 0.55 / 200) ** 0.5)
    assert early_stopping.stop_at(Curve([3.0, 1.0, 2.0], 3), 1, False) == 3


def test_a_trial_that_diverged_was_not_stopped_early(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, final(0.6) | {"diverged": 1}, {"default": 0.5}, {"default": 0.6})
    told = {"received": {"lr": 0.01, "momentum": 0.9}, "effective": {"lr": 0.01, "momentum": 0.9, "epochs": 4}}
    (recorder.output("t0000") / "hyperparameters.json").write_text(json.dumps(told))
    assert early_stopping.saved(early_stopping.curves(load_experiment(recorder.folder))) == (2, 2, 0)


def pairs_row(*differences):
    return paired(differences)._asdict() | {"by_seed": {str(seed): value for seed, value in enumerate(differences)}}


@pytest.mark.parametrize(
    ("differences", "text"),
    [
        ((0.012,), "+1.2 points (n = 1 pair, which bounds no mean)"),
        ((-0.01, 0.02), "+0.5 points (−1.0 and +2.0 points: two pairs bound no mean)"),
        ((0.0, 0.0, 0.03), "+1.0 points (0.0, 0.0 and +3.0 points: three pairs bound no mean)"),
        ((0.0, 0.0), "0.0 points in each of 2 pairs"),
        ((0.01,) * 6, "+1.0 points in each of 6 pairs, p = 0.0312"),
        ((0.01, 0.02, 0.03, 0.06), "+3.0 points (−0.4 to +6.4 points; p = 0.0691, n = 4)"),
        ((-0.9, -0.9, -0.9, 0.5), "−55.0 points (−100.0 to +56.4 points; p = 0.214, n = 4)"),
    ],
)
def test_few_pairs_are_shown_themselves_and_no_interval_leaves_what_is_possible(differences, text):
    row = pairs_row(*differences)
    assert formats.paired_text(row, row["p_flip"] if row["p_t"] is None else row["p_t"]) == text


def test_a_residual_pooled_over_arms_bounds_the_mean_of_three_pairs():
    row = pairs_row(0.01, 0.02, 0.03)
    assert not formats.bounds_mean(row) and formats.bounds_mean(row | {"df": 4})


def test_intervals_end_where_the_unit_does():
    stopped = dataclasses.replace(formats.EPOCHS, differences=(-25, 0))  # less the full training of 25 epochs
    assert formats.range_text((-12.3, 1.7), stopped) == "−12.3 to 0.0 epochs"
    assert formats.range_text((-6.03, 6.32)) == "−100.0 to +100.0 points"
    assert formats.interval_text((0.93, 1.04)) == "93.0 to 100.0 %"
