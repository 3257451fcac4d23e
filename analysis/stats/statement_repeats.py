"""The verdict in words where arms have repeats, or where there are more than two arms."""

from __future__ import annotations

from typing import Any

from ..render.formats import difference_text, is_percent, score_text
from . import verdict
from .grouping import Arm


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
    few = _too_few(found["repeats_needed"]) if found["repeats_needed"] else ""
    draws = [sum(len(e.trials) for e in arm.experiments) / len(arm.experiments) for arm in arms]
    if draws[0] != draws[1]:
        few = f"Beware: {draws[0]:.4g} and {draws[1]:.4g} trials an experiment, and more draws find better bests. {few}"
    if found["interval"] is None:
        return f"{_headline(arms, found, word)} {luck}{apart} {few}".rstrip()
    low, high = (difference_text(value, percent, signed=True) for value in found["interval"])
    chance, span = found["probability_of_improvement"], found["probability_interval"]
    several = f", multiplied by the {found['tests']} pairs compared" if found["tests"] > 1 else ""
    return (
        f"{_headline(arms, found, word)} {luck}{apart} The 95 % interval of that difference is "
        f"{low.removesuffix(' points')} to {high} (Welch t), p = {found['p_value']:.3g} (exact Mann-Whitney{several}; the "
        f"verdict rests on it, at the 5 % level). A run of {arms[1].name} is better than one of {arms[0].name} with "
        f"probability {chance:.2f} (95 % {span[0]:.2f} to {span[1]:.2f}). {few}"
    ).rstrip()


def _headline(arms: tuple[Arm, Arm], found: dict[str, Any], word: str) -> str:
    if word == verdict.DIFFERENCE:
        maximise = arms[0].experiments[0].optimise_mode == "maximize"
        better = arms[1] if (found["difference"] > 0) == maximise else arms[0]
        return f"A difference is shown: {better.name} is better."
    if word == verdict.NO_DIFFERENCE:
        return "No difference can be shown."
    return f"Which tuner is better cannot be estimated from {min(found['repeats'])} experiments of each."


def _too_few(needed: int) -> str:
    shared = "" if needed == verdict.repeats_needed() else " that all pairs share"
    return (
        f"That is too few to tell a difference from luck: with fewer than {needed} experiments of each, no exact "
        f"Mann-Whitney test can reach the 5 % level{shared} (p = {verdict.smallest_p(needed):.3f} at best with {needed})."
    )


def headline_of_many(arms: list[Arm], found: list[dict[str, Any]], word: str) -> str:
    """A headline, then a line a pair."""
    headlines = {
        verdict.DIFFERENCE: f"A difference is shown among the {len(arms)} arms.",
        verdict.NO_DIFFERENCE: f"No difference can be shown among the {len(arms)} arms.",
        verdict.NOT_ESTIMABLE: f"Which of the {len(arms)} arms is better cannot be estimated.",
        verdict.NOT_COMPARABLE: f"These {len(arms)} arms cannot be compared.",
    }
    percent = is_percent([e for arm in arms for e in arm.experiments])
    needed = max((pair["repeats_needed"] or 0 for pair in found), default=0)
    few = [_too_few(needed)] if needed else []
    return " ".join([headlines[word], *(_one_line(pair, percent) for pair in found), *few])


def _one_line(pair: dict[str, Any], percent: bool) -> str:
    """One pair of several; `comparisons` in summary.json has its whole statement."""
    first, second = pair["arms"]
    if pair["difference"] is None:
        return f"{first} and {second}: {pair['statement']}"
    apart = difference_text(pair["difference"], percent, signed=True)
    p_value = "" if pair["p_value"] is None else f", p = {pair['p_value']:.3g} for all {pair['tests']} pairs together"
    return f"{second} less {first}: {apart}{p_value} ({pair['verdict'].replace('_', ' ')})."
