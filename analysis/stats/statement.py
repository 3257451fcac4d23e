"""The verdict in words, for the top of a page; its first sentence is a headline."""

from __future__ import annotations

from ..reading.records import Experiment
from ..render.formats import arm_names, difference_text, is_percent, score_text
from . import verdict


def judge(
    arms: tuple[Experiment, Experiment],
    obstacles: list[str],
    difference: float | None,
    band: verdict.NullBand | None,
) -> tuple[str, str]:
    """The verdict's word and its sentences. `difference` is None where `obstacles` stand in the way."""
    names = arm_names(list(arms))
    if obstacles or difference is None:
        return (
            verdict.NOT_COMPARABLE,
            f"These two experiments cannot be compared. The reason: {'; '.join(obstacles)}.",
        )
    chosen = [arm.chosen for arm in arms]
    bests = _bests(arms, names, difference)
    if all(flags is not None and not any(flags) for flags in chosen):
        counts = " and ".join(f"0 of {len(arm.trials)} trials of {name}" for arm, name in zip(arms, names, strict=True))
        return verdict.NO_DIFFERENCE, (
            f"No difference can be shown. Both tuners only drew at random: {counts} were chosen by the "
            f"tuner, so any difference between them is luck. {bests} {_band(arms, difference, band)}"
        )
    needed = verdict.repeats_needed()
    return verdict.NOT_ESTIMABLE, (
        f"Which tuner is better cannot be estimated from one experiment of each. {bests} "
        f"One run a tuner has no spread to compare that with: it takes at least {needed} experiments of each "
        f"before an exact Mann-Whitney test can reach p < 0.05 ({verdict.smallest_p(needed):.3f} at best), "
        f"and more where the difference is small. {_band(arms, difference, band)}"
    )


def _bests(arms: tuple[Experiment, Experiment], names: list[str], difference: float) -> str:
    percent = is_percent(list(arms))
    values = [score_text(arm.best.score if arm.best else None, percent) for arm in arms]
    if difference == 0:
        return f"Both bests are {values[0]}."
    texts = [
        f"the best of {name} ({value}, {len(arm.trials)} trials)"
        for name, value, arm in zip(names, values, arms, strict=True)
    ]
    where = "above" if difference > 0 else "below"
    return f"T{texts[1][1:]} is {difference_text(difference, percent)} {where} {texts[0]}."


def _band(arms: tuple[Experiment, Experiment], difference: float, band: verdict.NullBand | None) -> str:
    if band is None:
        return ""
    percent = is_percent(list(arms))
    low, high = (difference_text(value, percent, signed=True) for value in (band.low, band.high))
    where = "inside" if band.contains(difference) else "outside"
    return (
        f"Deal the arm labels at random over all {band.n_first + band.n_second} trials, and the bests differ "
        f"by {low.removesuffix(' points')} to {high} in 95 % of the deals; the observed difference is "
        f"{where} that band, and {100 * band.share:.0f} % of the deals differ at least as much."
    )
