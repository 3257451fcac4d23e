"""The verdict of a comparison in words: of two experiments, of two arms with repeats, of several arms."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..reading.records import Experiment, arm_names, is_percent
from ..render.document import Statement
from ..render.formats import difference_text, listed, p_text, range_text, score_text, signed_text, unit_of
from . import two_sample
from .paired import smallest_flip_p

if TYPE_CHECKING:
    from .comparable import Arm

# The four verdicts, as summary.json, study.json and confirm.json have them.
DIFFERENCE = "difference_shown"
NO_DIFFERENCE = "no_difference_shown"
NOT_ESTIMABLE = "not_estimable"
NOT_COMPARABLE = "not_comparable"

UNEQUAL_SPREAD = 3.0
"""Ratio of the arms' standard deviations from which the page says what that does to the test (docs/log.md)."""


def fields(statement: Statement) -> dict[str, Any]:
    """The statement's keys in summary.json."""
    return {
        "verdict": statement.verdict,
        "statement": statement.text,
        "headline": statement.headline,
        "details": list(statement.details),
    }


def statement_of(comparison: dict[str, Any]) -> Statement:
    """The statement of a comparison in summary.json; of an older file without `headline`, the whole text is the headline."""
    headline = comparison.get("headline") or comparison["statement"]
    return Statement(comparison["verdict"], headline, tuple(comparison.get("details") or ()), comparison)


def look_notes(looks: Sequence[dict[str, Any]]) -> list[str]:
    """Earlier tests of fewer repeats of the same arms, and what they cost."""
    if not looks:
        return []
    sizes = listed([" and ".join(map(str, look["repeats"])) for look in looks])
    once = "once" if len(looks) == 1 else f"{len(looks)} times"
    return [
        f"these arms were tested {once} before, with {sizes} experiments: looking again after more repeats claims false "
        "differences too often, so p is held to a smaller level; fix the number of repeats first"
    ]


def of_obstacles(arms: tuple[Arm, Arm], obstacles: list[str]) -> Statement:
    """Arms that cannot be compared, and why."""
    single = all(len(arm.experiments) == 1 for arm in arms)
    whose = "these two experiments" if single else f"{arms[0].name} and {arms[1].name}"
    plural = "validation accuracies" if _percent(arms) else "scores"
    return Statement(
        NOT_COMPARABLE, f"The {plural} of {whose} cannot be compared.", (f"The reason: {'; '.join(obstacles)}.",)
    )


def of_single_experiments(
    arms: tuple[Experiment, Experiment], numbers: dict[str, Any], luck: str, handicap: str
) -> Statement:
    """One experiment per arm. `numbers`: difference of the bests, evaluation accuracies of the same networks, null band."""
    names, percent = arm_names(list(arms)), is_percent(list(arms))
    bests = [_bests(arms, names, numbers["difference"]), *_single_evaluation(numbers["evaluation"], names)]
    chance = _band(numbers["band"], numbers["difference"], percent)
    if luck == "chance" and not handicap:
        return Statement(NO_DIFFERENCE, _none_shown(percent), (_chance(arms, names), *bests, *chance))
    needed = two_sample.repeats_needed()
    few = (
        f"One experiment per tuner has no spread to compare that with: it takes at least {needed} experiments of each "
        f"before an exact Mann-Whitney test can reach p < 0.05 ({two_sample.smallest_p(needed, needed):.3f} at best), "
        f"and more where the difference is small."
    )
    headline = f"Which tuner finds the better {_measure(percent)} cannot be estimated from one experiment of each."
    return Statement(NOT_ESTIMABLE, headline, (*_reservations(luck, handicap), *bests, few, *chance))


def _chance(experiments: Sequence[Experiment], names: Sequence[str]) -> str:
    """No trial was chosen, and all else is equal."""
    n_given = len(experiments[0].design.given)
    counts = listed([f"0 of {len(e.trials)} trials of {name}" for e, name in zip(experiments, names)])
    if n_given:
        first = "the first trial is" if n_given == 1 else f"the first {n_given} trials are"
        return (
            f"No trial was chosen by a tuner ({counts}): {first} given, the same in both, and the others were sampled at random, "
            "so any difference between them is due to chance."
        )
    return f"Both tuners only sampled at random: {counts} were chosen by the tuner, so any difference between them is due to chance."


def _reservations(luck: str, handicap: str) -> list[str]:
    """What else than the tuners can make a difference."""
    texts = []
    if luck == "given":
        texts.append(
            "No trial was chosen by a tuner, and the first trials that the files give differ: they can make a difference."
        )
    elif luck == "people":
        texts.append("No trial was chosen by a tuner, and people added trials: they can make a difference.")
    elif luck:
        texts.append("Both tuners only sampled at random: a difference is that of the budgets, or chance.")
    if handicap:
        texts.append(f"A handicap is accepted: {handicap}, and more trials find better bests.")
    return texts


def _bests(arms: tuple[Experiment, Experiment], names: list[str], difference: float) -> str:
    percent = is_percent(list(arms))
    values = [score_text(arm.best.score if arm.best else None, percent) for arm in arms]
    what = _measure(percent)
    if difference == 0:
        return f"Both best {what.replace('accuracy', 'accuracies').replace('score', 'scores')} are {values[0]}."
    first, second = (
        f"best {what} of {name} ({value}, {len(arm.trials)} trials)"
        for name, value, arm in zip(names, values, arms, strict=True)
    )
    return f"The {second} is {difference_text(difference, percent)} {_where(difference)} the {first}."


def _single_evaluation(accuracies: tuple[float | None, float | None], names: list[str]) -> list[str]:
    first, second = accuracies
    if first is None or second is None:
        return []
    if first == second:
        return [f"On the evaluation split both of these networks have {score_text(first, True)}."]
    second_text, first_text = f"{names[1]} ({score_text(second, True)})", f"{names[0]} ({score_text(first, True)})"
    away = f"{difference_text(second - first, True)} {_where(second - first)}"
    return [f"On the evaluation split the same network of {second_text} is {away} that of {first_text}."]


def _band(band: two_sample.NullBand | None, difference: float, percent: bool) -> list[str]:
    if band is None:
        return []
    place = "inside" if band.contains(difference) else "outside"
    return [
        f"If the arm labels are permuted over all {band.n_first + band.n_second} trials, the bests differ by "
        f"{range_text((band.low, band.high), unit_of(percent))} in 95 % of the permutations; the observed difference is {place} that "
        f"band, and {100 * band.share:.0f} % of the permutations differ at least as much."
    ]


def of_repeats(arms: tuple[Arm, Arm], numbers: dict[str, Any], luck: str, handicap: str) -> Statement:
    """Several experiments per arm. `numbers` are those of `decision.decide`."""
    percent, experiments = _percent(arms), [arm.experiments[0] for arm in arms]
    is_chance = luck == "chance" and not handicap
    details = [_chance_of_arms(arms)] if is_chance else _reservations(luck, handicap)
    details += [_apart(arms, numbers, percent), *_disagreement(arms, numbers, percent)]
    details += [*_test(arms, numbers, percent), *_evaluation(arms, numbers), *_unequal_spread(arms, numbers)]
    details += _equivalence(numbers, percent)
    details += [_too_few(numbers)] if numbers["repeats_needed"] else []
    return Statement(numbers["verdict"], _headline(arms, numbers, experiments), tuple(details), numbers)


def _chance_of_arms(arms: tuple[Arm, Arm]) -> str:
    return _chance(arms[0].experiments + arms[1].experiments, arm_names([*arms[0].experiments, *arms[1].experiments]))


def _apart(arms: tuple[Arm, Arm], numbers: dict[str, Any], percent: bool) -> str:
    """Means, or how many experiments have no result and so no mean."""
    sizes = [f"{_experiments(len(arm.experiments))} of {arm.name}" for arm in arms]
    difference = numbers["difference"]
    if difference is None:
        lost = [f"{arm.bests.count(None)} of the {sizes[k]}" for k, arm in enumerate(arms) if None in arm.bests]
        return f"{listed(lost)} ended without a result: they are ranked last, and no means are given."
    means = [score_text(statistics.fmean(arm.bests), percent) for arm in arms]
    text = f"Over {' and '.join(sizes)}, the mean best {_measure(percent)} of {arms[1].name} ({means[1]}) is "
    if difference == 0:
        return f"{text}that of {arms[0].name}."
    return f"{text}{difference_text(difference, percent)} {_where(difference)} that of {arms[0].name} ({means[0]})."


def _experiments(n: int) -> str:
    return f"{n} experiment{'s' * (n != 1)}"


def _disagreement(arms: tuple[Arm, Arm], numbers: dict[str, Any], percent: bool) -> list[str]:
    """Where the means point the other way than the ranks."""
    difference, where = numbers["difference"], two_sample.direction(numbers.get("probability_of_improvement"))
    gain = 0 if difference is None else difference * (1 if arms[0].maximises else -1)
    if where * gain >= 0:
        return []
    ranges = [
        f"those of {arm.name} from {' to '.join(score_text(f(arm.bests), percent) for f in (min, max))}" for arm in arms
    ]
    test = "pairs" if numbers["paired"] else "ranks"
    return [
        f"The means point the other way than the {test}, on which the verdict rests: the bests, {listed(ranges)}, have outliers."
    ]


def _test(arms: tuple[Arm, Arm], numbers: dict[str, Any], percent: bool) -> list[str]:
    if numbers["p_value"] is None:
        return []
    n, p = numbers["repeats"][0], numbers["p_value"]
    test = f"exact sign-flip test of {n} pairs" if numbers["paired"] else "exact Mann-Whitney"
    several = f", multiplied by the {numbers['tests']} pairs of arms compared" if numbers["tests"] > 1 else ""
    level = f"{100 * numbers['level']:g} % level"
    if numbers["looks"]:
        level += f" because of {numbers['looks']} earlier look{'s' * (numbers['looks'] != 1)}"
    p_sentence = f"p = {p:.3g} ({test}{several}; the verdict rests on it, at the {level})."
    if numbers["interval"] is not None:
        method = "paired t" if numbers["paired"] else "Welch t"
        interval = range_text(numbers["interval"], unit_of(percent))
        p_sentence = f"The 95 % interval of that difference is {interval} ({method}), {p_sentence}"
    return [
        p_sentence[0].upper() + p_sentence[1:] if numbers["interval"] else f"On validation, {p_sentence}",
        _improvement(arms, numbers),
    ]


def _improvement(arms: tuple[Arm, Arm], numbers: dict[str, Any]) -> str:
    probability = numbers["probability_of_improvement"]
    if numbers["paired"]:
        n = numbers["repeats"][0]
        return f"{arms[1].name} is better in {probability * n:g} of {n} pairs (ties count half)."
    low, high = numbers["probability_interval"]
    return (
        f"The best of one experiment of {arms[1].name} is better than that of one of {arms[0].name} with probability "
        f"{probability:.2f} (95 % interval {low:.2f} to {high:.2f})."
    )


def _evaluation(arms: tuple[Arm, Arm], numbers: dict[str, Any]) -> list[str]:
    """The same networks on the evaluation split, and whether that confirms what the validation scores show."""
    evaluation = numbers["evaluation"]
    if evaluation is None:
        if not _percent(arms):
            return []
        return [
            "No evaluation accuracy was reported, so nothing is confirmed beyond the validation split, which chose these networks."
        ]
    if evaluation["difference"] is None:
        text = "On the evaluation split the same networks have no means, as not every experiment has an accuracy there"
    else:
        interval = "" if evaluation["interval"] is None else f", 95 % interval {range_text(evaluation['interval'])}"
        means = [f"{arm.name} {score_text(mean, True)}" for arm, mean in zip(arms, evaluation["means"])]
        text = f"On the evaluation split the same networks have the means {listed(means)} ({signed_text(evaluation['difference'])}{interval})"
    if not _is_significant(numbers):
        return [f"{text}."]
    gaps = f" ({evaluation['missing']} without an accuracy there count against it)" if evaluation["missing"] else ""
    confirms = "confirms" if evaluation["confirms"] else "does not confirm"
    return [
        f"{text}; the same test in the direction of the validation split gives p = {p_text(evaluation['p_value'])}{gaps}, "
        f"which {confirms} the difference at the {100 * numbers['level']:g} % level."
    ]


def _is_significant(numbers: dict[str, Any]) -> bool:
    return numbers["p_value"] is not None and numbers["p_value"] <= numbers["level"]


def _unequal_spread(arms: tuple[Arm, Arm], numbers: dict[str, Any]) -> list[str]:
    """The test is exact for arms that differ in nothing; of arms that spread differently it claims more often."""
    if (
        numbers["verdict"] != DIFFERENCE
        or numbers["paired"]
        or numbers["difference"] is None
        or min(numbers["repeats"]) < 2
    ):
        return []
    low, high = sorted(statistics.stdev(arm.bests) for arm in arms)
    if high < UNEQUAL_SPREAD * low or high == 0:
        return []
    times = f"{high / low:.1f} times as much" if low else "and the other's do not"
    return [
        f"One arm's bests vary {times}: with spreads so unequal the test claims a difference of equal medians in up to 9 % with equal "
        "numbers of experiments, and in up to 12 % where the arm that varies more has fewer."
    ]


def _equivalence(numbers: dict[str, Any], percent: bool) -> list[str]:
    """Where no difference is shown: whether one greater than the margin is excluded."""
    result = numbers["equivalence"]
    if result is None or numbers["verdict"] != NO_DIFFERENCE:
        return []
    unit = unit_of(percent)
    margin = f"{unit.factor * result['margin']:g}" + (f" point{'s' * (result['margin'] != 0.01)}" if percent else "")
    ends = [f"{range_text(result['interval'], unit)}{' on validation' if percent else ''}"]
    ends += [f"{range_text(result['evaluation_interval'])} on evaluation"] if result["evaluation_interval"] else []
    many, level = "s" * (len(ends) > 1), f"{100 - 10 / numbers['tests']:.3g} %"
    intervals = f"the {level} interval{many} of the difference of means, {listed(ends)},"
    if result["holds"]:
        verb = "lie" if many else "lies"
        return [
            f"No difference greater than {margin}: {intervals} {verb} within {margin} of zero (two one-sided tests at the 5 % level)."
        ]
    verb = "do not both lie" if many else "does not lie"
    return [
        f"Not enough data to say that no difference is greater than {margin}: {intervals} {verb} within {margin} of zero."
    ]


def _headline(arms: tuple[Arm, Arm], numbers: dict[str, Any], experiments: list[Experiment]) -> str:
    percent, word = _percent(arms), numbers["verdict"]
    if word == NOT_ESTIMABLE:
        n, m = numbers["repeats"]
        sizes = f"{_experiments(n)} of each" if n == m else f"{n} and {_experiments(m)}"
        return f"Which tuner finds the better {_measure(percent)} cannot be estimated from {sizes}."
    where = two_sample.direction(numbers.get("probability_of_improvement"))
    better, other = reversed(arms) if where > 0 else arms
    higher = "higher" if experiments[0].optimise_mode == "maximize" else "lower"
    claim = f"{better.name}'s best trials have {higher} {_measure(percent)} than {other.name}'s"
    evaluation = numbers["evaluation"]
    if word == DIFFERENCE and evaluation is not None:
        return f"A difference is shown: {claim}, and the same networks have higher evaluation accuracy."
    if word == DIFFERENCE:
        alone = (
            "on the validation split alone, not confirmed on the evaluation split"
            if percent
            else "in the score that was tuned"
        )
        return f"A difference is shown {alone}: {claim}."
    if _is_significant(numbers) and evaluation is not None and not evaluation["confirms"]:
        return f"No difference is shown: {claim}, but the evaluation accuracy of the same networks does not confirm it."
    return _none_shown(percent)


def _none_shown(percent: bool) -> str:
    return f"No difference in {_measure(percent)} can be shown."


def _measure(percent: bool) -> str:
    return "validation accuracy" if percent else "score"


def _too_few(numbers: dict[str, Any]) -> str:
    """Why no p could reach the level, and how many experiments it takes."""
    needed, tests, looks = numbers["repeats_needed"], numbers.get("tests", 1), numbers.get("looks", 0)
    shared = f" that all {tests} pairs of arms share" if tests > 1 else " after earlier looks" if looks else ""
    level = f"{100 * numbers.get('level', 0.05):g} % level{shared}"
    if numbers.get("paired"):
        test, best, of_each = "sign-flip test", tests * smallest_flip_p(needed), f"{needed} pairs"
    else:
        test, best, of_each = (
            "Mann-Whitney test",
            tests * two_sample.smallest_p(needed, needed),
            f"{needed} experiments of each",
        )
    return (
        f"That is too few to tell a difference from chance: here no exact {test} can reach the {level} (p = "
        f"{numbers['smallest_p']:.3f} at best); from {of_each} on it can (p = {best:.3f})."
    )


def of_many(arms: list[Arm], pairs: list[dict[str, Any]], word: str) -> Statement:
    """Three or more arms: a headline, then a line per pair."""
    percent = _percent(arms)
    what = f"in {_measure(percent)} "
    confirmed = ", confirmed on the evaluation split" * any(
        pair["verdict"] == DIFFERENCE and pair.get("evaluation") is not None for pair in pairs
    )
    headlines = {
        DIFFERENCE: f"A difference {what}is shown among the {len(arms)} arms{confirmed}.",
        NO_DIFFERENCE: f"No difference {what}can be shown among the {len(arms)} arms.",
        NOT_ESTIMABLE: f"Which of the {len(arms)} arms finds the better {_measure(percent)} cannot be estimated.",
        NOT_COMPARABLE: f"The {'validation accuracies' if percent else 'scores'} of these {len(arms)} arms cannot be compared.",
    }
    few = max((pair for pair in pairs if pair["repeats_needed"]), key=lambda pair: pair["smallest_p"], default=None)
    return Statement(
        word, headlines[word], (*(_one_line(pair, percent) for pair in pairs), *([_too_few(few)] if few else []))
    )


def _one_line(pair: dict[str, Any], percent: bool) -> str:
    """One pair of several; `comparisons` in summary.json has its whole statement."""
    first, second = pair["arms"]
    if pair["verdict"] == NOT_COMPARABLE:
        return f"{first} and {second}: {pair['statement']}"
    difference, evaluation = pair["difference"], pair.get("evaluation")
    parts = [
        "no means, as an experiment has no result" if difference is None else signed_text(difference, unit_of(percent))
    ]
    if evaluation is not None and evaluation["difference"] is not None:
        parts.append(f"{signed_text(evaluation['difference'])} on evaluation")
    if pair["p_value"] is not None:
        parts.append(f"p = {pair['p_value']:.3g} for all {pair['tests']} pairs together")
    where = two_sample.direction(pair.get("probability_of_improvement"))
    if pair["verdict"] == DIFFERENCE:
        parts.append(f"{second if where > 0 else first} is better")
    return f"{second} less {first}: {', '.join(parts)} ({pair['verdict'].replace('_', ' ')})."


def _percent(arms: Sequence[Arm]) -> bool:
    return is_percent([experiment for arm in arms for experiment in arm.experiments])


def _where(difference: float) -> str:
    return "above" if difference > 0 else "below"
