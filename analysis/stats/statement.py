"""The verdict of a comparison in words: of two experiments, of two arms with repeats, of several arms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..reading.records import Experiment, arm_names, is_percent
from ..render.document import Statement
from ..render.formats import difference_text, range_text, score_text, signed_text, unit_of
from . import two_sample

if TYPE_CHECKING:
    from .compare import Arm

# The four verdicts, as summary.json, study.json and confirm.json have them.
DIFFERENCE = "difference_shown"
NO_DIFFERENCE = "no_difference_shown"
NOT_ESTIMABLE = "not_estimable"
NOT_COMPARABLE = "not_comparable"

AT_RANDOM = "Both tuners only sampled at random"
BY_CHANCE = "so any difference between them is due to chance."


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


def of_single_experiments(
    arms: tuple[Experiment, Experiment],
    obstacles: list[str],
    difference: float | None,
    band: two_sample.NullBand | None,
) -> Statement:
    """One experiment per arm. `difference` is None where `obstacles` stand in the way."""
    if obstacles or difference is None:
        return Statement(
            NOT_COMPARABLE,
            "These two experiments cannot be compared.",
            (f"The reason: {'; '.join(obstacles)}.",),
        )
    names, percent = arm_names(list(arms)), is_percent(list(arms))
    bests = _bests(arms, names, difference)
    chance = _band(band, difference, percent)
    if all(arm.chosen is not None and not any(arm.chosen) for arm in arms):
        counts = " and ".join(f"0 of {len(arm.trials)} trials of {name}" for arm, name in zip(arms, names, strict=True))
        random = f"{AT_RANDOM}: {counts} were chosen by the tuner, {BY_CHANCE}"
        return Statement(NO_DIFFERENCE, "No difference can be shown.", (random, bests, *chance))
    needed = two_sample.repeats_needed()
    few = (
        f"One experiment per tuner has no spread to compare that with: it takes at least {needed} experiments of each "
        f"before an exact Mann-Whitney test can reach p < 0.05 ({two_sample.smallest_p(needed):.3f} at best), "
        f"and more where the difference is small."
    )
    headline = "Which tuner is better cannot be estimated from one experiment of each."
    return Statement(NOT_ESTIMABLE, headline, (bests, few, *chance))


def _bests(arms: tuple[Experiment, Experiment], names: list[str], difference: float) -> str:
    percent = is_percent(list(arms))
    values = [score_text(arm.best.score if arm.best else None, percent) for arm in arms]
    if difference == 0:
        return f"Both bests are {values[0]}."
    first, second = (
        f"best of {name} ({value}, {len(arm.trials)} trials)"
        for name, value, arm in zip(names, values, arms, strict=True)
    )
    return f"The {second} is {difference_text(difference, percent)} {_where(difference)} the {first}."


def _band(band: two_sample.NullBand | None, difference: float, percent: bool) -> list[str]:
    if band is None:
        return []
    place = "inside" if band.contains(difference) else "outside"
    return [
        f"If the arm labels are permuted over all {band.n_first + band.n_second} trials, the bests differ by "
        f"{range_text((band.low, band.high), unit_of(percent))} in 95 % of the permutations; the observed difference is {place} that "
        f"band, and {100 * band.share:.0f} % of the permutations differ at least as much."
    ]


def of_repeats(arms: tuple[Arm, Arm], numbers: dict[str, Any], word: str, random: bool) -> Statement:
    """Several experiments per arm. `numbers` are those of the comparison; `random`: no trial was chosen by a tuner."""
    percent = _percent(arms)
    sizes = " and ".join(f"{n} experiments of {arm.name}" for n, arm in zip(numbers["repeats"], arms))
    means = [score_text(sum(arm.bests) / len(arm.bests), percent) for arm in arms]
    apart = (
        f"Over {sizes}, the mean best of {arms[1].name} ({means[1]}) is "
        f"{difference_text(numbers['difference'], percent)} {_where(numbers['difference'])} that of {arms[0].name} ({means[0]})."
    )
    details = [f"{AT_RANDOM}, {BY_CHANCE}"] if random else []
    details += [apart, *_test(arms, numbers, percent), *_unequal(arms)]
    details += [_too_few(numbers["repeats_needed"])] if numbers["repeats_needed"] else []
    return Statement(word, _headline(arms, numbers, word), tuple(details), numbers)


def _test(arms: tuple[Arm, Arm], numbers: dict[str, Any], percent: bool) -> list[str]:
    if numbers["interval"] is None:
        return []
    probability, (low, high) = numbers["probability_of_improvement"], numbers["probability_interval"]
    several = f", multiplied by the {numbers['tests']} pairs compared" if numbers["tests"] > 1 else ""
    return [
        f"The 95 % interval of that difference is {range_text(numbers['interval'], unit_of(percent))} (Welch t), p = "
        f"{numbers['p_value']:.3g} (exact Mann-Whitney{several}; the verdict rests on it, at the 5 % level).",
        f"The best of one experiment of {arms[1].name} is better than that of one of {arms[0].name} with probability "
        f"{probability:.2f} (95 % interval {low:.2f} to {high:.2f}).",
    ]


def _unequal(arms: tuple[Arm, Arm]) -> list[str]:
    first, second = (sum(len(e.trials) for e in arm.experiments) / len(arm.experiments) for arm in arms)
    if first == second:
        return []
    return [f"The arms have {first:.4g} and {second:.4g} trials per experiment, and more trials find better bests."]


def _headline(arms: tuple[Arm, Arm], numbers: dict[str, Any], word: str) -> str:
    if word == NO_DIFFERENCE:
        return "No difference can be shown."
    if word == NOT_ESTIMABLE:
        return f"Which tuner is better cannot be estimated from {min(numbers['repeats'])} experiments of each."
    maximise = arms[0].maximises
    better, other = reversed(arms) if (numbers["difference"] > 0) == maximise else arms
    measure = "validation accuracy" if _percent(arms) else "score"
    return (
        f"A difference is shown: {better.name}'s best trials have {'higher' if maximise else 'lower'} {measure} than "
        f"{other.name}'s."
    )


def _too_few(needed: int) -> str:
    shared = "" if needed == two_sample.repeats_needed() else " that all pairs share"
    return (
        f"That is too few to tell a difference from chance: with fewer than {needed} experiments of each, no exact "
        f"Mann-Whitney test can reach the 5 % level{shared} (p = {two_sample.smallest_p(needed):.3f} at best with {needed})."
    )


def of_many(arms: list[Arm], pairs: list[dict[str, Any]], word: str) -> Statement:
    """Three or more arms: a headline, then a line per pair."""
    headlines = {
        DIFFERENCE: f"A difference is shown among the {len(arms)} arms.",
        NO_DIFFERENCE: f"No difference can be shown among the {len(arms)} arms.",
        NOT_ESTIMABLE: f"Which of the {len(arms)} arms is better cannot be estimated.",
        NOT_COMPARABLE: f"These {len(arms)} arms cannot be compared.",
    }
    percent = _percent(arms)
    needed = max((pair["repeats_needed"] or 0 for pair in pairs), default=0)
    few = [_too_few(needed)] if needed else []
    return Statement(word, headlines[word], (*(_one_line(pair, percent) for pair in pairs), *few))


def _one_line(pair: dict[str, Any], percent: bool) -> str:
    """One pair of several; `comparisons` in summary.json has its whole statement."""
    first, second = pair["arms"]
    if pair["difference"] is None:
        return f"{first} and {second}: {pair['statement']}"
    apart = signed_text(pair["difference"], unit_of(percent))
    p_value = "" if pair["p_value"] is None else f", p = {pair['p_value']:.3g} for all {pair['tests']} pairs together"
    return f"{second} less {first}: {apart}{p_value} ({pair['verdict'].replace('_', ' ')})."


def _percent(arms: Sequence[Arm]) -> bool:
    return is_percent([experiment for arm in arms for experiment in arm.experiments])


def _where(difference: float) -> str:
    return "above" if difference > 0 else "below"
