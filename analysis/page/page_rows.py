"""Further tables of the page: arms of repeats, pairs of arms, early stopping, failures. A label, and a text a column."""

from __future__ import annotations

import itertools
from typing import Any

from ..reading.logs import failure_reason
from ..reading.records import Experiment
from ..render import formats as words
from ..stats import early_stopping

Rows = list[tuple[str, list[str]]]


def repeat_rows(summary: dict[str, Any], percent: bool) -> Rows:
    """A column an arm; no rows where every arm is one experiment and there are two."""
    arms = summary["arms"]
    if len(arms) == 2 and all(len(arm["experiments"]) == 1 for arm in arms):
        return []
    return [
        ("Experiments", [f"{len(arm['experiments'])}: {', '.join(arm['experiments'])}" for arm in arms]),
        ("Best of each", [", ".join(words.score_text(best, percent) for best in arm["bests"]) for arm in arms]),
        ("Mean of the bests", [words.score_text(arm["mean"], percent) for arm in arms]),
        ("Their standard deviation", [_spread(arm, percent) for arm in arms]),
        (
            "Chosen by the tuner",
            [f"{words.optional(arm['chosen_by_tuner'])} of {arm['trials']} trials" for arm in arms],
        ),
    ]


def _spread(arm: dict[str, Any], percent: bool) -> str:
    n = len(arm["bests"])
    return f"{words.difference_text(arm['sd'], percent)} (n = {n})" if arm["sd"] is not None else f"none of n = {n}"


def pair_rows(summary: dict[str, Any], percent: bool) -> Rows:
    """A row a pair of arms: difference, interval, p, probability of improvement, verdict. None without repeats."""
    rows = []
    for pair in summary["comparisons"] if repeat_rows(summary, percent) else ():
        interval, chance = pair["interval"], pair.get("probability_of_improvement")
        difference = words.NONE
        if pair["difference"] is not None:
            difference = words.difference_text(pair["difference"], percent, signed=True)
        span = words.NONE
        if interval is not None:
            span = " to ".join(words.difference_text(end, percent, signed=True) for end in interval).replace(
                " points to", " to"
            )
        better = words.NONE
        if chance is not None:
            better = f"{chance:.2f} ({' to '.join(f'{end:.2f}' for end in pair['probability_interval'])})"
        p_value = words.NONE if pair["p_value"] is None else f"{pair['p_value']:.3g}"
        label = f"{pair['arms'][1]} less {pair['arms'][0]}"
        rows.append((label, [difference, span, p_value, better, pair["verdict"].replace("_", " ")]))
    return rows


PAIR_COLUMNS = ["Difference of means", "95 % (Welch t)", "p (exact)", "P(better), 95 %", "Verdict"]


def stopping_rows(experiments: list[Experiment], percent: bool) -> Rows:
    """What early stopping saved, then each patience; no rows where no trial tells how long it might have run."""
    found = [early_stopping.curves(experiment) for experiment in experiments]
    if not any(found):
        return []
    rows = [("As it ran", [_as_it_ran(curves) for curves in found])]
    tables = [early_stopping.counterfactual(c, e.optimise_mode == "maximize") for c, e in zip(found, experiments)]
    told: list[tuple[int, list[str]]] = []
    for lines in zip(*tables):
        told.append((lines[0].patience, [_patience(line, len(c), percent) for line, c in zip(lines, found)]))
    for _, same in itertools.groupby(told, key=lambda row: row[1]):
        patiences = [*same]
        first, last = patiences[0][0], patiences[-1][0]
        rows.append((f"Patience {first}" if first == last else f"Patience {first} to {last}", patiences[0][1]))
    return rows


def _as_it_ran(curves: list[early_stopping.Curve]) -> str:
    used, planned, early = early_stopping.saved(curves)
    return f"{used} of {planned} epochs; {early} of {len(curves)} trials stopped early" if curves else words.NONE


def _patience(line: early_stopping.Patience, n: int, percent: bool) -> str:
    if line.epochs is None or line.lost is None or line.best_lost is None:
        return f"not known: {n - line.known} of {n} curves end too soon" if n else words.NONE
    lost, best_lost = (words.difference_text(value, percent) for value in (line.lost, line.best_lost))
    return f"{line.epochs} epochs; lost: {lost} a trial, {best_lost} at the best"


def failure_rows(experiments: list[Experiment]) -> Rows:
    """Each reason found in the logs of trials that ended without success, with the number of trials, most first."""
    counts: dict[str, list[int]] = {}
    for index, experiment in enumerate(experiments):
        for trial in experiment.trials:
            if trial.state in ("FAILED", "USER_CANCELED", "SYS_CANCELED", "EARLY_STOPPED"):
                reason = f"{trial.state.lower().replace('_', ' ')}: {failure_reason(trial)}"
                counts.setdefault(reason, [0] * len(experiments))[index] += 1
    ordered = sorted(counts.items(), key=lambda item: -sum(item[1]))
    totals = [len(experiment.trials) for experiment in experiments]
    return [(reason, [f"{n} of {total} trials" for n, total in zip(found, totals)]) for reason, found in ordered[:50]]
