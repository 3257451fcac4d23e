"""The numbers behind each figure: pure functions from records to plain lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from ..reading import startup
from ..reading.records import Experiment, Trial
from ..reading.values import score
from ..render.formats import NONE, value_text
from ..stats.early_stopping import planned_epochs

MOST_CURVES = 60
MOST_LINES = 200  # of the parallel coordinates
MOST_LABELS = 8  # of one of their axes


class Points(NamedTuple):
    """Trials as dots: `x`, a trial number (see `numbers`) or a hyperparameter's value; score; the trial itself."""

    x: list[float]
    score: list[float]
    trial: list[Trial]


class Curve(NamedTuple):
    """The intermediate results of one trial: epochs (from 1), values, whether it is the experiment's best, whether early
    stopping ended it."""

    trial: Trial
    epoch: list[int]
    value: list[float]
    is_best: bool
    stopped_early: bool


class Axis(NamedTuple):
    """`ticks`: height 0..1 and text, the ends of a number, each value of a choice (at most 8). The last axis is the score."""

    name: str
    ticks: list[tuple[float, str]]
    is_score: bool


class _Parallel(NamedTuple):
    """`heights`: for each trial a number 0..1 for each axis; `arms`: index of its experiment; `top`: among the best tenth
    of those drawn; `total`: trials with a score, of which at most 200, evenly over the ranking, are here."""

    axes: list[Axis]
    heights: list[list[float]]
    trials: list[Trial]
    arms: list[int]
    top: list[bool]
    total: int


def has_own_numbers(experiment: Experiment) -> bool:
    """Whether NNI's trial numbers tell the trials apart: plain NNI begins at 1 again after a resume."""
    sequences = [trial.sequence for trial in experiment.trials]
    return None not in sequences and all(before < after for before, after in pairwise(sequences))


def numbers(experiment: Experiment) -> list[int]:
    """NNI's number of each trial, from 0; places in the order of proposal, from 0, where its numbers repeat."""
    own = has_own_numbers(experiment)
    return [trial.sequence if own else place for place, trial in enumerate(experiment.trials)]


def trial_points(experiment: Experiment) -> Points:
    """Every trial that has a score, over its number."""
    return _points([(n, t.score, t) for n, t in zip(numbers(experiment), experiment.trials) if t.score is not None])


def without_score(experiment: Experiment) -> Points:
    """Trials that failed, were cancelled, or reported no finite number; their score is empty."""
    unscored = [(n, t) for n, t in zip(numbers(experiment), experiment.trials) if t.score is None and t.end is not None]
    return Points([n for n, _ in unscored], [], [trial for _, trial in unscored])


def over_parameter(experiment: Experiment, name: str) -> Points:
    """Every trial that has a score, over the number that it has for one hyperparameter."""
    rows = [(t.parameters.get(name), t.score, t) for t in experiment.trials if t.score is not None]
    return _points([row for row in rows if isinstance(row[0], (int, float))])


def _points(rows: Sequence[tuple[Any, float | None, Trial]]) -> Points:
    return Points(*map(list, zip(*rows))) if rows else Points([], [], [])


def best_so_far(experiment: Experiment) -> tuple[list[int], list[float]]:
    """Number of each trial from the first one with a score on, and the best score up to it. A failed trial takes its
    place and leaves the best as it is."""
    scores = [trial.score for trial in experiment.trials]
    return _running_best(zip(numbers(experiment), scores), experiment.optimise_mode)


def best_over_time(experiment: Experiment) -> tuple[list[float], list[float]]:
    """Seconds since the first trial began, at each trial's end, and the best score until then. Time between the last end
    of a session and the first start after `nnictl resume` is left out, as in `wall_seconds`."""
    spans: dict[int, list[int]] = {}
    for trial in experiment.trials:
        begin = trial.start or trial.proposed
        spans.setdefault(trial.last_session, []).extend((begin, trial.end or begin))
    offsets, elapsed = {}, 0
    for session in sorted(spans):
        offsets[session] = elapsed - min(spans[session])
        elapsed += max(spans[session]) - min(spans[session])
    ended = [((t.end + offsets[t.last_session]) / 1000, t.score) for t in experiment.trials if t.end is not None]
    return _running_best(sorted(ended, key=lambda pair: pair[0]), experiment.optimise_mode)


def _running_best(pairs: Iterable[tuple[Any, float | None]], optimise_mode: str) -> tuple[list[Any], list[float]]:
    """Of (place, score), from the first score on."""
    better = max if optimise_mode == "maximize" else min
    places: list[Any] = []
    bests: list[float] = []
    for place, value in pairs:
        candidates = [*bests[-1:], *([] if value is None else [value])]
        if candidates:
            places.append(place)
            bests.append(better(candidates))
    return places, bests


def startup_end(experiment: Experiment) -> float | None:
    """Where, between two trial numbers, the tuner's random start-up ends: half a trial before its first own choice,
    or before the first that it would choose. None where the tuner is not known or never chooses."""
    chosen = experiment.chosen
    if chosen is None:
        return None
    if any(chosen):
        return numbers(experiment)[chosen.index(True)] - 0.5
    first = startup.startup_trials(experiment.tuner, experiment.class_args)
    failed = sum(trial.score is None and trial.end is not None for trial in experiment.trials)
    return None if first is None or first == startup.ALL else max(first + failed, len(experiment.trials)) - 0.5


def origins(experiment: Experiment) -> list[str]:
    """Where the hyperparameters of each trial are from: tuner, random, given, or "–" where the tuner is not known."""
    if experiment.chosen is None:
        return [NONE] * len(experiment.trials)
    return [
        "tuner" if chosen else "given" if experiment.was_given(trial) else "random"
        for trial, chosen in zip(experiment.trials, experiment.chosen, strict=True)
    ]


def learning_curves(experiment: Experiment, limit: int = MOST_CURVES) -> list[Curve]:
    """Intermediate results of the trials that have any, the best trial's last (drawn on top).

    Of more than `limit` trials, `limit` are taken evenly over the ranking: the picture keeps its spread.
    """
    curves = [_curve(trial, experiment) for trial in experiment.trials]
    ranked = sorted((curve for curve in curves if curve.epoch), key=lambda curve: (curve.is_best, max(curve.value)))
    return _evenly(ranked, limit)


def _curve(trial: Trial, experiment: Experiment) -> Curve:
    values = [(epoch, score(result.value)) for epoch, result in enumerate(trial.intermediates, start=1)]
    points = [(epoch, value) for epoch, value in values if value is not None]
    stopped = bool(points) and points[-1][0] < (planned_epochs(trial) or 0)
    return Curve(trial, [epoch for epoch, _ in points], [v for _, v in points], trial is experiment.best, stopped)


def _evenly(ranked: list[Any], limit: int) -> list[Any]:
    step = max(1.0, (len(ranked) - 1) / (limit - 1))
    return [ranked[round(k * step)] for k in range(min(len(ranked), limit))]


def numeric_parameter(experiments: list[Experiment]) -> str | None:
    """The hyperparameter to draw scores over: `lr`, or else the numeric one of widest ratio."""
    values: dict[str, list[float]] = {}
    for trial in (trial for experiment in experiments for trial in experiment.trials):
        for name, value in trial.parameters.items():
            if isinstance(value, (int, float)) and not isinstance(value, bool):
                values.setdefault(name, []).append(value)
    ratios = {name: max(own) / min(own) if min(own) > 0 else 1.0 for name, own in values.items() if len(set(own)) > 1}
    return "lr" if "lr" in ratios else max(ratios, key=lambda name: ratios[name], default=None)


def parallel(experiments: Sequence[Experiment]) -> _Parallel | None:
    """A hyperparameter that a trial has not (nested spaces) is a value of its own. The best are last, drawn on top.
    None where no trial has a score and hyperparameters."""
    sign = 1 if experiments[0].optimise_mode == "maximize" else -1
    scored = [(i, t) for i, e in enumerate(experiments) for t in e.trials if t.score is not None and t.parameters]
    if not scored:
        return None
    sample = _evenly(sorted(scored, key=lambda pair: sign * (pair[1].score or 0.0)), MOST_LINES)
    trials = [trial for _, trial in sample]
    names = dict.fromkeys(name for trial in trials for name in trial.parameters)
    scaled = [scale([trial.parameters.get(name) for trial in trials]) for name in names]
    axes = [Axis(name, ticks, False) for name, (_, ticks) in zip(names, scaled)]
    scores = [trial.score or 0.0 for trial in trials]
    low, high = min(scores), max(scores)
    heights = [(value - low) / (high - low) if high > low else 0.5 for value in scores]
    axes.append(Axis("score", [(0.0, repr(low)), (1.0, repr(high))] if high > low else [(0.5, repr(low))], True))
    columns = [column for column, _ in scaled] + [heights]
    first_top = len(trials) - max(1, len(trials) // 10)
    top = [k >= first_top for k in range(len(trials))]
    return _Parallel(
        axes, [list(row) for row in zip(*columns)], trials, [index for index, _ in sample], top, len(scored)
    )


def scale(values: Sequence[Any]) -> tuple[list[float], list[tuple[float, str]]]:
    """Heights 0..1 and ticks. More than eight different numbers: by value; else evenly, in order of size or of text."""
    numeric = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)
    if numeric and len(set(values)) > MOST_LABELS:
        low, high = min(values), max(values)
        return [(value - low) / (high - low) for value in values], [(0.0, value_text(low)), (1.0, value_text(high))]
    keys = [value if numeric else value_text(value) for value in values]
    ordered = sorted(set(keys))
    places = {key: k / (len(ordered) - 1) if len(ordered) > 1 else 0.5 for k, key in enumerate(ordered)}
    ticks = [(places[key], value_text(key)) for key in ordered]
    return [places[key] for key in keys], ticks if len(ticks) <= MOST_LABELS else [ticks[0], ticks[-1]]
