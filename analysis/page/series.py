"""The numbers behind each figure: pure functions from records to plain lists."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from ..reading import startup
from ..reading.records import Experiment, Trial
from ..reading.values import score


class Points(NamedTuple):
    """Trials with a score: number (see `numbers`), score, and the trial itself."""

    number: list[int]
    score: list[float]
    trial: list[Trial]


class Curve(NamedTuple):
    """One trial's intermediate results: epochs (from 1), values, whether it is the experiment's best."""

    trial: Trial
    epoch: list[int]
    value: list[float]
    is_best: bool


def has_own_numbers(experiment: Experiment) -> bool:
    """Whether NNI's trial numbers tell the trials apart: plain NNI begins at 1 again after a resume."""
    given = [trial.sequence for trial in experiment.trials]
    return None not in given and all(before < after for before, after in pairwise(given))


def numbers(experiment: Experiment) -> list[int]:
    """NNI's number of each trial, from 0; places in the order of proposal, from 0, where its numbers repeat."""
    own = has_own_numbers(experiment)
    return [trial.sequence if own else place for place, trial in enumerate(experiment.trials)]


def trial_points(experiment: Experiment) -> Points:
    """Every trial that has a score."""
    pairs = [(n, trial) for n, trial in _numbered(experiment) if trial.score is not None]
    return Points([n for n, _ in pairs], [trial.score or 0.0 for _, trial in pairs], [trial for _, trial in pairs])


def without_score(experiment: Experiment) -> Points:
    """Trials that failed, were cancelled, or reported no finite number; their score is empty."""
    pairs = [(n, trial) for n, trial in _numbered(experiment) if trial.score is None and trial.end is not None]
    return Points([n for n, _ in pairs], [], [trial for _, trial in pairs])


def _numbered(experiment: Experiment) -> list[tuple[int, Trial]]:
    return list(zip(numbers(experiment), experiment.trials, strict=True))


def best_so_far(experiment: Experiment) -> tuple[list[int], list[float]]:
    """Number of each trial from the first one with a score on, and the best score up to it. A failed trial takes its
    place and leaves the best as it is."""
    better = max if experiment.optimise_mode == "maximize" else min
    found: list[int] = []
    bests: list[float] = []
    for number, trial in _numbered(experiment):
        if trial.score is None and not bests:
            continue
        known = [*bests[-1:], *([] if trial.score is None else [trial.score])]
        found.append(number)
        bests.append(better(known))
    return found, bests


def best_over_time(experiment: Experiment) -> tuple[list[float], list[float]]:
    """Seconds since the first trial began, at each trial's end, and the best score until then. Time between the last end
    of a session and the first start after `nnictl resume` is left out, as in `wall_seconds`."""
    better = max if experiment.optimise_mode == "maximize" else min
    spans: dict[int, list[int]] = {}
    for trial in experiment.trials:
        begin = trial.start or trial.proposed
        spans.setdefault(trial.last_session, []).extend((begin, trial.end or begin))
    offsets, elapsed = {}, 0
    for session in sorted(spans):
        offsets[session] = elapsed - min(spans[session])
        elapsed += max(spans[session]) - min(spans[session])
    ended = [(t.end + offsets[t.last_session], t.score) for t in experiment.trials if t.end is not None]
    seconds: list[float] = []
    bests: list[float] = []
    for time, value in sorted(ended, key=lambda pair: pair[0]):
        if value is None and not bests:
            continue
        seconds.append(time / 1000)
        bests.append(better([*bests[-1:], *([] if value is None else [value])]))
    return seconds, bests


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


def learning_curves(experiment: Experiment, limit: int = 60) -> list[Curve]:
    """Intermediate results of the trials that have any, the best trial's last (drawn on top).

    Of more than `limit` trials, `limit` are taken evenly over the ranking: the picture keeps its spread.
    """
    curves = [
        Curve(trial, [epoch for epoch, _ in points], [value for _, value in points], trial is experiment.best)
        for trial in experiment.trials
        if (points := _finite_points(trial))
    ]
    curves.sort(key=lambda curve: (curve.is_best, max(curve.value)))
    if len(curves) <= limit:
        return curves
    step = (len(curves) - 1) / (limit - 1)
    return [curves[round(k * step)] for k in range(limit)]


def _finite_points(trial: Trial) -> list[tuple[int, float]]:
    values = [(epoch, score(result.value)) for epoch, result in enumerate(trial.intermediates, start=1)]
    return [(epoch, value) for epoch, value in values if value is not None]


def numeric_parameter(experiments: list[Experiment]) -> str | None:
    """The hyperparameter to draw scores over: `lr`, or else the numeric one of widest ratio."""
    ratios: dict[str, float] = {}
    values: dict[str, list[float]] = {}
    for experiment in experiments:
        for trial in experiment.trials:
            for name, value in trial.parameters.items():
                if isinstance(value, (int, float)) and not isinstance(value, bool):
                    values.setdefault(name, []).append(value)
    for name, found in values.items():
        if len(set(found)) > 1:
            ratios[name] = max(found) / min(found) if min(found) > 0 else 1.0
    return "lr" if "lr" in ratios else max(ratios, key=lambda name: ratios[name], default=None)


def over_parameter(experiment: Experiment, name: str) -> tuple[list[float], list[float], list[Trial]]:
    """Values of one hyperparameter and the scores, for the trials that have both."""
    found = [
        (trial.parameters[name], trial.score, trial)
        for trial in experiment.trials
        if trial.score is not None and isinstance(trial.parameters.get(name), (int, float))
    ]
    return [x for x, _, _ in found], [y for _, y, _ in found], [trial for _, _, trial in found]


def table_rows(experiment: Experiment) -> list[dict[str, Any]]:
    """One dict a trial for the page's table: `chosen_by` is tuner, random, given, or "–" where the tuner is not known."""
    chosen = experiment.chosen or [None] * len(experiment.trials)

    def chosen_by(trial: Trial, flag: bool | None) -> str:
        return "–" if flag is None else "tuner" if flag else "given" if experiment.was_given(trial) else "random"

    return [
        {"trial": trial, "chosen_by": chosen_by(trial, flag), "is_best": trial is experiment.best}
        for trial, flag in zip(experiment.trials, chosen, strict=True)
    ]
