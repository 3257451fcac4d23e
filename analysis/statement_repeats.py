"""The verdict in words where arms have repeats, or where there are more than two arms."""

from __future__ import annotations

from typing import Any

from . import verdict
from .grouping import Arm
from .words import difference_text, interval_text, is_percent, score_text


def describe_repeats(arms: tuple[Arm, Arm], found: dict[str, Any], word: str, random: bool) -> str:
    """`found` is the comparison's dict, `random`: no trial of either arm was chosen by a tuner."""
    percent = is_percent([e for arm in arms for e in arm.experiments])
    sizes = " and ".join(f"{n} experiments of {arm.name}" for n, arm in zip(found["repeats"], arms))
    means = [sum(arm.bests) / len(arm.bests) for arm in arms]
    where = "above" if found["difference"] > 0 else "below"
    apart = (
        f"Over {sizes}, the mean best of {arms[1].name} ({score_text(means[1], percent)}) is "
        f"{difference_text(found['difference'], percent)} {where} that of {arms[0].name} ({score_text(means[0], percent)})."
    )
    luck = "Both tuners only drew at random, so any difference between them is luck. " if random else ""
    if found["interval"] is None:
        return f"{_headline(arms, found, word)} {luck}{apart} {_too_few()}"
    low, high = (difference_text(value, percent, signed=True) for value in found["interval"])
    chance, span = found["probability_of_improvement"], found["probability_interval"]
    several = f", multiplied by the {found['tests']} pairs compared" if found["tests"] > 1 else ""
    return (
        f"{_headline(arms, found, word)} {luck}{apart} The 95 % interval of that difference is "
        f"{low.removesuffix(' points')} to {high} (Welch t), p = {found['p_value']:.3g} (exact Mann-Whitney{several}; the "
        f"verdict rests on it, at the 5 % level). A run of {arms[1].name} is better than one of {arms[0].name} with "
        f"probability {chance:.2f} (95 % {interval_text(tuple(span), False)})."
    )


def _headline(arms: tuple[Arm, Arm], found: dict[str, Any], word: str) -> str:
    if word == verdict.DIFFERENCE:
        maximise = arms[0].experiments[0].optimise_mode == "maximize"
        better = arms[1] if (found["difference"] > 0) == maximise else arms[0]
        return f"A difference is shown: {better.name} is better."
    if word == verdict.NO_DIFFERENCE:
        return "No difference can be shown."
    return f"Which tuner is better cannot be estimated from {min(found['repeats'])} experiments of each."


def _too_few() -> str:
    needed = verdict.repeats_needed()
    return (
        f"That is too few to estimate how far luck reaches: with fewer than {needed} experiments of each no exact "
        f"Mann-Whitney test can reach p < 0.05 ({verdict.smallest_p(needed):.3f} at best with {needed})."
    )


def headline_of_many(arms: list[Arm], found: list[dict[str, Any]], word: str) -> str:
    """A headline, then each pair's own statement."""
    headlines = {
        verdict.DIFFERENCE: f"A difference is shown among the {len(arms)} arms.",
        verdict.NO_DIFFERENCE: f"No difference can be shown among the {len(arms)} arms.",
        verdict.NOT_ESTIMABLE: f"Which of the {len(arms)} arms is better cannot be estimated.",
        verdict.NOT_COMPARABLE: f"These {len(arms)} arms cannot be compared.",
    }
    pairs = [f"{pair['arms'][0]} and {pair['arms'][1]}: {pair['statement']}" for pair in found]
    return " ".join([headlines[word], *pairs])
