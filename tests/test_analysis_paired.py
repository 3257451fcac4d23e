"""Paired statistics against scipy and brute force, and that a confirmation claims no more than it may."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest
from scipy import stats

from analysis import calibrate
from analysis.stats.paired import MOST_PAIRS, holm, mean_interval, paired, seeds_needed, sign_flip_p, smallest_flip_p


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


def test_seeds_needed_is_the_first_number_whose_interval_leaves_out_zero():
    found = paired([0.02, 0.06, 0.01])
    assert found.low < 0
    n = seeds_needed(found, 1)
    halves = [stats.t.ppf(0.975, k - 1) * found.sd / k**0.5 for k in (n - 1, n)]
    assert n > 3 and halves[0] >= found.mean > halves[1]
    assert seeds_needed(found, 4) > n
    assert seeds_needed(paired([0.01, -0.01, 0.0001]), 1) is None and seeds_needed(paired([0.1, 0.1]), 1) is None


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
    """A small `python -m analysis.calibrate`, tolerances of three standard errors. The choice among the networks
    that are judged costs: an interval for the chosen one alone claims too often, the one in use does not."""
    null = calibrate.confirm(0.0, tuned=6, seeds=5, confirmations=3000, seed=1)
    assert null.claimed <= 0.05 + 0.012 and null.holds >= 0.95 - 0.012
    assert null.claimed_alone > 0.055
    assert calibrate.confirm(2.0, tuned=3, seeds=5, confirmations=100, seed=1).claimed > 0.3
