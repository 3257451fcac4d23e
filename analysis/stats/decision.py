"""What the bests of two arms show: plain numbers in, numbers and verdict out, so that it can be simulated.

The verdict rests on ranks: the exact Mann-Whitney test, or for pairs of experiments that begin alike the exact sign-flip test.
Everything is about the second arm against the first.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import two_sample
from .equivalence import MARGIN, equivalence
from .paired import MOST_PAIRS, mean_interval, sign_flip_p, signed_rank_p, smallest_flip_p
from .statement import DIFFERENCE, NO_DIFFERENCE, NOT_ESTIMABLE

LEVEL = 0.05
LATER_LEVELS = ((4, 0.02), (10_000, 0.01))
"""(earlier looks at most, level that p is held to): with these all looks at arms that grow from 4 to 12 repeats claim a
difference falsely in 5.6 % together; with 0.05 at each of them in 12.8 % (docs/log.md)."""
FEWEST_FOR_MEAN = 3
"""Experiments per arm below which a mean has no interval: two bound it so little that the interval would mislead."""

INTERVAL_METHOD = "Welch t interval of the difference of means"
PAIRED_INTERVAL_METHOD = "t interval of the mean of paired differences"
P_METHOD = "two-sided exact Mann-Whitney test with mid-ranks"
PAIRED_P_METHOD = "two-sided exact sign-flip test of paired differences"
IMPROVEMENT_METHOD = "Newcombe 2006, method 5"

Bests = Sequence[float | None]


@dataclass(frozen=True)
class Question:
    """What a comparison is to answer. `paired`: experiment k of both arms belong together. `tests` pairs of arms share the 5 %.
    `looks`: earlier looks at fewer repeats of the same arms. `margin`: in units of the score, None for no equivalence.
    `reaches`: how far apart two scores can be, 1 for accuracies as fractions, None for no limit."""

    maximise: bool = True
    paired: bool = False
    tests: int = 1
    looks: int = 0
    margin: float | None = MARGIN
    reaches: float | None = 1.0

    @property
    def level(self) -> float:
        """That p, multiplied by `tests`, is held to."""
        return LEVEL if not self.looks else next(level for most, level in LATER_LEVELS if self.looks <= most)


def decide(first: Sequence[Bests], second: Sequence[Bests], question: Question) -> dict[str, Any]:
    """The numbers of a comparison in summary.json and its verdict.

    `first` and `second` are (validation, evaluation): for each experiment the best validation score, None where no trial has a
    result, and the evaluation accuracy of the same network, None where it was not reported. An experiment without a result
    counts as worse than all others, and leaves means and intervals None. A difference is shown if p of the validation scores
    is at most the level, and if on the evaluation split the same networks differ in the same direction, by the
    same test in one direction at the same level; without any evaluation accuracy by the first alone.
    """
    sizes = (len(first[0]), len(second[0]))
    numbers: dict[str, Any] = _described(first[0], second[0], question) | {"repeats": list(sizes)}
    numbers |= {"level": question.level, "tests": question.tests, "looks": question.looks, "paired": question.paired}
    reachable = question.tests * _smallest_p(sizes, question.paired)
    numbers |= {"smallest_p": reachable, "evaluation": _evaluation(first, second, question)}
    if reachable > question.level:
        needed = _repeats_needed(question)
        missing = {"interval": None, "p_value": None, "equivalence": None}
        return numbers | missing | {"verdict": NOT_ESTIMABLE, "repeats_needed": needed}
    numbers |= _improvement(first[0], second[0], question)
    numbers["p_value"] = min(1.0, question.tests * _p_value(first[0], second[0], question, "two-sided"))
    numbers["p_method"] = PAIRED_P_METHOD if question.paired else P_METHOD
    numbers["equivalence"] = _equivalence(first, second, question)
    confirmed = numbers["evaluation"] is None or numbers["evaluation"]["confirms"]
    is_shown = numbers["p_value"] <= question.level and confirmed
    return numbers | {"verdict": DIFFERENCE if is_shown else NO_DIFFERENCE, "repeats_needed": None}


def _smallest_p(sizes: tuple[int, int], is_paired: bool) -> float:
    return smallest_flip_p(sizes[0]) if is_paired else two_sample.smallest_p(*sizes)


def _repeats_needed(question: Question) -> int:
    repeats = 1
    while question.tests * _smallest_p((repeats, repeats), question.paired) > question.level:
        repeats += 1
    return repeats


def _described(first: Bests, second: Bests, question: Question) -> dict[str, Any]:
    """Difference of means and its interval, None where an experiment has no result; without an interval below
    `FEWEST_FOR_MEAN` experiments per arm."""
    method = PAIRED_INTERVAL_METHOD if question.paired else INTERVAL_METHOD
    described: dict[str, Any] = {"difference": None, "interval": None, "interval_method": method}
    if not first or not second or None in (*first, *second):
        return described
    described["difference"] = statistics.fmean(second) - statistics.fmean(first)
    if min(len(first), len(second)) < FEWEST_FOR_MEAN:
        return described
    ends = (
        mean_interval([other - one for one, other in zip(first, second, strict=True)])
        if question.paired
        else two_sample.welch(first, second)[1]
    )
    limit = question.reaches
    if ends is not None and limit is not None:
        ends = tuple(min(limit, max(-limit, end)) for end in ends)
    return described | {"interval": None if ends is None else list(ends)}


def _improvement(first: Bests, second: Bests, question: Question) -> dict[str, Any]:
    """P(an experiment of the second arm is better); with pairs the share of pairs, of which no interval is given."""
    one, other = _ranked(first, second, question.maximise)
    if question.paired:
        better = statistics.fmean((b > a) + (a == b) / 2 for a, b in zip(one, other, strict=True))
        return {"probability_of_improvement": better, "probability_interval": None, "probability_method": None}
    better = two_sample.probability_of_improvement(one, other, True)
    return {
        "probability_of_improvement": better,
        "probability_interval": list(two_sample.improvement_interval(better, len(one), len(other))),
        "probability_method": IMPROVEMENT_METHOD,
    }


def _ranked(first: Bests, second: Bests, maximise: bool) -> tuple[list[float], list[float]]:
    """Both arms so that more is better, with a number below all others for each experiment without a result."""
    sign = 1.0 if maximise else -1.0
    scores = [sign * best for best in (*first, *second) if best is not None]
    worst = min(scores, default=0.0) - 1.0
    one, other = ([worst if best is None else sign * best for best in arm] for arm in (first, second))
    return one, other


def _p_value(first: Bests, second: Bests, question: Question, alternative: str) -> float:
    """Of one test: "greater" is that the second arm is better. Pairs of which differences are not known are ranked."""
    one, other = _ranked(first, second, question.maximise)
    if not question.paired:
        return two_sample.mann_whitney_p(one, other, alternative)
    differences = [b - a for a, b in zip(one, other, strict=True)]
    if None in (*first, *second):
        return signed_rank_p(_beyond(differences, first, second), alternative)
    return (sign_flip_p if len(differences) <= MOST_PAIRS else signed_rank_p)(differences, alternative)


def _beyond(differences: list[float], first: Bests, second: Bests) -> list[float]:
    """A pair in which one experiment has no result differs by more than all others do, and no two such pairs by another amount."""
    most = 1.0 + max(map(abs, differences))
    return [
        difference if (a is None) == (b is None) else (most if a is None else -most)
        for difference, a, b in zip(differences, first, second, strict=True)
    ]


def _evaluation(first: Sequence[Bests], second: Sequence[Bests], question: Question) -> dict[str, Any] | None:
    """The same networks on the evaluation split; None where none has an accuracy there.

    Tested in the one direction that the validation scores have. A network that has a result and no evaluation
    accuracy counts against that direction, one without a result as worst.
    """
    known = [accuracy for arm in (first, second) for accuracy in arm[1] if accuracy is not None]
    if not known:
        return None
    where = two_sample.direction(_improvement(first[0], second[0], question)["probability_of_improvement"])
    as_accuracy, p_value = Question(True, question.paired), None
    if where:
        above_all = max(known) + 1.0
        gaps = (above_all, None) if where > 0 else (None, above_all)  # what one counts as in either arm
        one, other = (_without_gaps(arm, gap) for arm, gap in zip((first, second), gaps))
        p_value = min(1.0, question.tests * _p_value(one, other, as_accuracy, "greater" if where > 0 else "less"))
    described = _described(first[1], second[1], as_accuracy)
    return {
        "means": [None if None in arm[1] else statistics.fmean(arm[1]) for arm in (first, second)],
        "difference": described["difference"],
        "interval": described["interval"],
        "probability_of_improvement": _improvement(first[1], second[1], as_accuracy)["probability_of_improvement"],
        "p_value": p_value,
        "missing": sum(map(_is_gap, (*first[0], *second[0]), (*first[1], *second[1]))),
        "confirms": p_value is not None and p_value <= question.level,
    }


def _is_gap(score: float | None, accuracy: float | None) -> bool:
    """A network that was trained and not evaluated."""
    return score is not None and accuracy is None


def _without_gaps(arm: Sequence[Bests], gap: float | None) -> list[float | None]:
    return [gap if _is_gap(score, accuracy) else accuracy for score, accuracy in zip(*arm, strict=True)]


def _equivalence(first: Sequence[Bests], second: Sequence[Bests], question: Question) -> dict[str, Any] | None:
    """Whether the means are shown to differ by less than the margin, on the validation split and, where every network was
    evaluated, on the evaluation split too; None without a margin, without means, and where neither arm has any spread."""
    if question.margin is None:
        return None
    validation = _equivalent(first[0], second[0], question)
    if validation is None:
        return None
    evaluation = _equivalent(first[1], second[1], question)
    return {
        "margin": question.margin,
        "interval": [validation.low, validation.high],
        "evaluation_interval": None if evaluation is None else [evaluation.low, evaluation.high],
        "holds": validation.holds and (evaluation is None or evaluation.holds),
    }


def _equivalent(first: Bests, second: Bests, question: Question) -> Any:
    if None in (*first, *second) or min(len(first), len(second)) < FEWEST_FOR_MEAN:
        return None
    difference = statistics.fmean(second) - statistics.fmean(first)
    if question.paired:
        differences = [b - a for a, b in zip(first, second, strict=True)]
        error, freedom = statistics.stdev(differences) / len(differences) ** 0.5, len(differences) - 1
    elif len(set(first)) == 1 == len(set(second)):
        return None
    else:
        error, freedom = two_sample.welch_scale(first, second)
    return None if error < 1e-12 else equivalence(difference, error, freedom, question.margin, question.tests)
