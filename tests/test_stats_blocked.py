"""Dunnett's test with the seeds as blocks, equivalence, failed trainings, and what simulated studies claim."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from analysis import calibrate_trainings as calibrate
from analysis.stats.blocked import (
    contrasts,
    coverage,
    critical_value,
    detectable,
    equal_spread_p,
    is_shown_with_failures,
    lost_pairs,
    residual_sd,
)
from analysis.stats.equivalence import equivalence
from analysis.stats.paired import paired


def by_seed(*values: float) -> dict[int, float]:
    return dict(enumerate(values))


@pytest.mark.parametrize(
    ("arms", "df", "expected"), [(1, 7, 2.365), (2, 4, 3.31), (2, 16, 2.42), (6, 24, 2.76), (9, 60, 2.77)]
)
def test_the_critical_values_are_those_of_dunnetts_table(arms, df, expected):
    """Dunnett 1964, Biometrics 20, 482-491, table of two-sided 5 %."""
    assert critical_value(arms, df) == pytest.approx(expected, abs=0.011)


def test_the_integral_is_scipys_multivariate_t():
    correlation = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    bounds = np.full(3, 2.5)
    sampled = stats.multivariate_t.cdf(bounds, np.zeros(3), correlation, df=6, lower_limit=-bounds, random_state=1)
    assert coverage(2.5, 3, 6) == pytest.approx(sampled, abs=2e-3)
    assert 2 * stats.t.sf(30, 4) < 1 - coverage(30, 2, 4) < 4 * stats.t.sf(30, 4)  # far out too


def test_two_arms_are_the_paired_t_test():
    reference, arm = by_seed(0.7, 0.8, 0.75, 0.78), by_seed(0.74, 0.81, 0.80, 0.79)
    (row,) = contrasts(reference, [arm])
    by_hand = paired([0.04, 0.01, 0.05, 0.01])
    assert (row.low, row.high, row.p_t, row.df) == pytest.approx((by_hand.low, by_hand.high, by_hand.p_t, 3))
    assert row.p_adjusted == row.p_t and not row.pooled


def test_three_arms_share_the_residual_without_what_the_seeds_do():
    table = np.array([[0.70, 0.74, 0.71], [0.60, 0.63, 0.62], [0.80, 0.85, 0.79]])
    sd, df = residual_sd(table)
    assert df == 4 and residual_sd(table + [[0.1], [0.0], [-0.2]]) == pytest.approx((sd, df))
    reference, *arms = [by_seed(*column) for column in table.T]
    first, second = contrasts(reference, arms)
    assert first.pooled and second.pooled and first.df == 4
    assert first.standard_error == pytest.approx(sd * (2 / 3) ** 0.5)
    assert first.high - first.mean == pytest.approx(3.31 * first.standard_error, rel=1e-3)
    assert first.claims and not second.claims
    halved = contrasts(reference, arms, families=2)[0]  # two measures share the level
    assert halved.p_adjusted == pytest.approx(2 * first.p_adjusted) and halved.low < first.low


def test_an_arm_that_is_far_noisier_is_not_pooled():
    rng = np.random.default_rng(3)
    table = rng.normal(size=(8, 4)) * [1, 1, 6, 1]
    assert equal_spread_p(table) < 0.10 < equal_spread_p(np.random.default_rng(1).normal(size=(8, 4)))
    reference, *arms = [by_seed(*column) for column in table.T]
    noisy = contrasts(reference, arms)[1]
    alone = paired(list(table[:, 2] - table[:, 0]), 3)
    assert not noisy.pooled and (noisy.low, noisy.high) == (alone.low, alone.high)
    quiet = contrasts(reference, arms)[0]
    assert quiet.pooled and quiet.high - quiet.low > paired(list(table[:, 1] - table[:, 0]), 3).high - quiet.mean


def test_arms_without_a_pair_or_with_one():
    assert contrasts(by_seed(0.7, 0.8), [{}, {5: 0.9}]) == [None, None]
    (one,) = contrasts(by_seed(0.7, 0.8), [{1: 0.9}])
    assert (one.n, one.low, one.claims) == (1, None, False)
    missing, whole = contrasts(by_seed(0.7, 0.8, 0.9), [{0: 0.71, 1: 0.83}, by_seed(0.7, 0.81, 0.9)])
    assert (missing.n, whole.n, missing.df) == (2, 3, 2)


def test_equal_differences_are_judged_by_the_sign_flip_test():
    rows = [contrasts(by_seed(*[0.5] * n), [by_seed(*[0.75] * n)])[0] for n in (4, 6)]
    assert [(row.low, row.p_adjusted, row.claims) for row in rows] == [(None, 0.125, False), (None, 0.03125, True)]


def test_three_pairs_claim_nothing():
    (row,) = contrasts(by_seed(0.70, 0.71, 0.69), [by_seed(0.80, 0.81, 0.795)])
    assert row.p_adjusted < 0.05 and not row.claims and detectable(3) is None and detectable(4) > detectable(8)


def test_the_detectable_difference_is_found_four_times_of_five():
    shift = 100 * detectable(6) * (calibrate.TRAINING_SD**2 + 0.9 * 0.1 / 3347) ** 0.5
    assert calibrate.studies(shift, 2, 6, 300, seed=1).found == pytest.approx(0.8, abs=0.07)


def test_equivalence_is_two_one_sided_tests():
    low, high = equivalence(0.002, 0.003, 8), equivalence(0.008, 0.003, 8)
    assert low.holds and not high.holds and -0.01 < low.low < low.high < 0.01 < high.high
    assert low.p == pytest.approx(stats.t.sf((0.01 - 0.002) / 0.003, 8))
    assert equivalence(0.002, 0.003, 8, comparisons=4).p == pytest.approx(4 * low.p)


def test_a_failed_training_is_a_loss_of_its_arm():
    own, reference = {0: 0.8, 1: 0.9}, {0: 0.7, 1: 0.7, 2: 0.7}
    assert lost_pairs(own, reference, range(4)) == pytest.approx([0.1, 0.2, -0.2, 0.0])
    assert lost_pairs(reference, own, [0, 1, 2]) == pytest.approx([-0.1, -0.2, 0.2])
    assert lost_pairs(own, reference, [0, 1]) is None and lost_pairs({}, reference, [0]) is None
    assert is_shown_with_failures(0.1, None) and not is_shown_with_failures(0.1, paired([-0.1, -0.11, -0.1, -0.12]))


def test_pooling_finds_more_and_claims_no_more_where_nothing_differs():
    null, better = calibrate.studies(0, 3, 3, 200, seed=2), calibrate.studies(3, 3, 3, 200, seed=2)
    assert null.claimed < 0.10 and better.found > better.found_alone + 0.15


def test_a_second_stage_finds_more_and_claims_no_more_where_nothing_differs():
    shifts = (2.0, 0, 0, 0, 0, 0)
    two, one = (calibrate.confirmations(shifts, screen, seeds, 100, seed=3) for screen, seeds in ((3, 8), (0, 5)))
    assert two.found > 0.7 > one.found + 0.05
    assert calibrate.confirmations((0,) * 6, 3, 8, 150, seed=3).claimed < 0.11


def test_a_configuration_that_fails_often_is_not_better():
    often = calibrate.failing(2, 0.4, 8, 150, seed=4)
    assert often.by_ended > 0.4 and often.claimed < 0.15


def test_six_answers_are_one_family():
    alone, together = calibrate.report_pages(100, seed=5)
    assert together < 0.12 < alone
