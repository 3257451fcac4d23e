"""The numbers of the parallel coordinates: every trial's hyperparameters and score, each scaled to 0..1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ..reading.records import Experiment, Trial
from ..render.formats import value_text

MOST_LINES = 200
MOST_LABELS = 8


class Axis(NamedTuple):
    """`ticks`: height 0..1 and text, the ends of a number, each value of a choice (at most 8). The last axis is the score."""

    name: str
    ticks: list[tuple[float, str]]
    is_score: bool


class Parallel(NamedTuple):
    """`heights`: for each trial a number 0..1 for each axis; `arms`: index of its experiment; `top`: among the best tenth
    of those shown; `total`: trials with a score, of which at most 200, evenly over the ranking, are here."""

    axes: list[Axis]
    heights: list[list[float]]
    trials: list[Trial]
    arms: list[int]
    top: list[bool]
    total: int


def parallel(experiments: Sequence[Experiment]) -> Parallel | None:
    """A hyperparameter that a trial has not (nested spaces) is a value of its own. The best are last, drawn on top.
    None where no trial has a score and hyperparameters."""
    sign = 1 if experiments[0].optimise_mode == "maximize" else -1
    found = [(i, t) for i, e in enumerate(experiments) for t in e.trials if t.score is not None and t.parameters]
    if not found:
        return None
    found.sort(key=lambda pair: sign * (pair[1].score or 0.0))
    step = max(1.0, (len(found) - 1) / (MOST_LINES - 1))
    kept = [found[round(k * step)] for k in range(min(len(found), MOST_LINES))]
    trials = [trial for _, trial in kept]
    names = dict.fromkeys(name for trial in trials for name in trial.parameters)
    scaled = [scale([trial.parameters.get(name) for trial in trials]) for name in names]
    axes = [Axis(name, ticks, False) for name, (_, ticks) in zip(names, scaled)]
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    heights = [(score - low) / (high - low) if high > low else 0.5 for score in scores]
    axes.append(Axis("score", [(0.0, repr(low)), (1.0, repr(high))] if high > low else [(0.5, repr(low))], True))
    columns = [column for column, _ in scaled] + [heights]
    first_top = len(trials) - max(1, len(trials) // 10)
    top = [k >= first_top for k in range(len(trials))]
    return Parallel(axes, [list(row) for row in zip(*columns)], trials, [index for index, _ in kept], top, len(found))


def scale(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights 0..1 and ticks. More than eight different numbers: by value; else evenly, in order of size or of text."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numeric and len(set(values)) > MOST_LABELS:
        low, high = min(values), max(values)
        heights = [(value - low) / (high - low) for value in values]
        return heights, [(0.0, value_text(low)), (1.0, value_text(high))]
    keys = [value if numeric else value_text(value) for value in values]
    ordered = sorted(set(keys))
    places = {key: k / (len(ordered) - 1) if len(ordered) > 1 else 0.5 for k, key in enumerate(ordered)}
    ticks = [(places[key], value_text(key)) for key in ordered]
    return [places[key] for key in keys], ticks if len(ticks) <= MOST_LABELS else [ticks[0], ticks[-1]]
