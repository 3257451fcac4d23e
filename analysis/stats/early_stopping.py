"""What early stopping saved, and what another patience would have done on the same curves."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from ..reading.records import Experiment, Trial, validation_n
from ..reading.values import score


class Curve(NamedTuple):
    """A finished trial: score of each epoch that ran, the most epochs it might have run, the validation images behind each
    score, None where it is no accuracy or their number is not known."""

    values: list[float]
    planned: int
    images: int | None = None


class Patience(NamedTuple):
    """One row of the counterfactual: of the `known` of all curves, `epochs` used in all, `lost`: mean score lost
    against the curve's own best, `best_lost`: what the arm's best lost. None where curves end too soon to tell.

    `error`: standard error of a difference of two accuracies of so many images, None where that is not known. A longer curve has
    more epochs to be lucky in, so with a true loss of zero about a third of it is "lost": what is below it says nothing."""

    patience: int
    known: int
    epochs: int | None
    lost: float | None
    best_lost: float | None
    error: float | None = None


def curves(experiment: Experiment) -> list[Curve]:
    """Of the trials that succeeded, report a number each epoch, and say how many epochs they were allowed."""
    usable = []
    for trial in experiment.trials:
        values = [score(result.value) for result in trial.intermediates]
        planned = planned_epochs(trial)
        if values and None not in values and planned:
            usable.append(Curve(values, planned, validation_n(trial)))
    return usable


def planned_epochs(trial: Trial) -> int | None:
    """Most epochs that a trial which succeeded might have run; one that diverged could not go on. None where it
    is not recorded, as of other trial scripts, and where it was interrupted: that was no early stop."""
    value = trial.effective.get("epochs")
    if trial.state != "SUCCEEDED" or not isinstance(value, int) or isinstance(value, bool) or value < 1:
        return None
    final = trial.final if isinstance(trial.final, dict) else {}
    if final.get("interrupted"):
        return None
    return len(trial.intermediates) if final.get("diverged") else value


def stopped_early(curve: Curve) -> bool:
    return len(curve.values) < curve.planned


def saved(finished: Sequence[Curve]) -> tuple[int, int, int]:
    """Epochs run, epochs planned, trials stopped early."""
    return sum(len(c.values) for c in finished), sum(c.planned for c in finished), sum(map(stopped_early, finished))


def stop_at(curve: Curve, patience: int, maximise: bool) -> int | None:
    """Epoch (from 1) after which this patience stops: the first with no better score for `patience` epochs, else the
    last planned. None where the curve ends before that is known."""
    best, since = None, 0
    for epoch, value in enumerate(curve.values, start=1):
        if best is None or (value > best if maximise else value < best):
            best, since = value, 0
        else:
            since += 1
        if since >= patience:
            return epoch
    return None if stopped_early(curve) else len(curve.values)


def counterfactual(
    finished: Sequence[Curve], maximise: bool, patiences: Sequence[int] = range(1, 11)
) -> list[Patience]:
    """A row per patience. The schedule of the learning rate does not depend on when a trial stops, so a shorter
    patience is an exact prefix of the curve; a longer one is known only where a trial ran to its end."""
    best, sign = (max if maximise else min), 1 if maximise else -1
    rows, error = [], _error(finished)
    for patience in patiences:
        stops = [stop_at(curve, patience, maximise) for curve in finished]
        known = sum(stop is not None for stop in stops)
        if not finished or known < len(finished):
            rows.append(Patience(patience, known, None, None, None, error))
            continue
        prefixes = [best(curve.values[:stop]) for curve, stop in zip(finished, stops)]
        own = [best(curve.values) for curve in finished]
        lost = [sign * (whole - part) for whole, part in zip(own, prefixes)]
        best_lost = sign * (best(own) - best(prefixes))
        rows.append(Patience(patience, known, sum(stops), statistics.fmean(lost), best_lost, error))
    return rows


def _error(finished: Sequence[Curve]) -> float | None:
    """sqrt(2 p (1 - p) / n) at the curves' mean best accuracy and fewest images."""
    images = [curve.images for curve in finished]
    if not images or None in images:
        return None
    accuracy = statistics.fmean(max(curve.values) for curve in finished)
    return (2 * accuracy * (1 - accuracy) / min(images)) ** 0.5
