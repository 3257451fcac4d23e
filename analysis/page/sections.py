"""The page's figures in their order: title, figure or none, and a caption with n and when it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import plotly.graph_objects as go

from ..reading.records import Experiment
from ..render import formats as words
from ..stats.best_of_n import best_of_k, pooled_startup
from ..stats.importance import importances
from . import charts, figures, series
from .parallel import parallel


class Section(NamedTuple):
    """`figure` is None where the numbers do not carry one; the caption then says why."""

    title: str
    figure: go.Figure | None
    caption: str


def sections(experiments: list[Experiment], styles: Sequence[figures.Style]) -> list[Section]:
    found = [_best(experiments, styles), _time(experiments, styles), _curves(experiments, styles)]
    found += [
        _best_of_k(experiments),
        _parallel(experiments, styles),
        _importance(experiments),
        _over(experiments, styles),
    ]
    return [section for section in found if section is not None]


def _best(experiments: list[Experiment], styles: Sequence[figures.Style]) -> Section:
    names = words.arm_names(experiments)
    counts = " and ".join(f"{len(e.trials)} trials of {name}" for e, name in zip(experiments, names, strict=True))
    if len(experiments) > 3:
        counts = f"{sum(len(e.trials) for e in experiments)} trials of {len(experiments)} experiments"
    caption = (
        f"{counts}. Line: best of the trials so far. Dot: one trial. Cross: a trial without a result. "
        "Dashed: the tuner's random start-up ends; left of it every trial is a random draw."
    )
    return Section("Best so far", figures.best_figure(experiments, styles), caption)


def _time(experiments: list[Experiment], styles: Sequence[figures.Style]) -> Section:
    caption = (
        "The same against wall clock, at each trial's end, failed ones too; pauses before a resume are left out. Each "
        "line is one run, which other load on the machine and the number of trials at a time change as well."
    )
    return Section("Best so far against wall clock", charts.time_figure(experiments, styles), caption)


def _curves(experiments: list[Experiment], styles: Sequence[figures.Style]) -> Section | None:
    shown = sum(len(series.learning_curves(experiment)) for experiment in experiments)
    total = sum(bool(trial.intermediates) for experiment in experiments for trial in experiment.trials)
    if not shown:
        return None
    figure = figures.curves_figure(experiments, styles)
    stops = charts.mark_stops(figure, experiments, styles)
    caption = (
        f"{shown} of {total} trials with intermediate results; thick: the best trial of each experiment. Cross: early "
        f"stopping ended the trial there ({stops} known to be)."
    )
    return Section("Learning curves", figure, caption)


def _best_of_k(experiments: list[Experiment]) -> Section:
    title = "What k random trials find"
    scores, refusal = pooled_startup(experiments)
    if refusal:
        return Section(title, None, f"Not shown: {refusal}. The curve holds for independent trials only.")
    curve = best_of_k(scores, experiments[0].optimise_mode == "maximize")
    lost = sum(score is None for score in scores)
    caption = (
        f"Expected best of k, over the {curve.n} trials of all experiments ({lost} without a result count as worst), up to "
        "half of them. It holds because every trial here was sampled independently at random; once a tuner chooses, it does "
        "not. The estimator is unbiased (Tang et al. 2020). The band is where 95 % of single "
        "searches of k of these trials end, not how well the mean is known."
    )
    return Section(title, charts.best_of_k_figure(curve, words.is_percent(experiments)), caption)


def _parallel(experiments: list[Experiment], styles: Sequence[figures.Style]) -> Section | None:
    table, figure = parallel(experiments), charts.parallel_figure(experiments, styles)
    if table is None or figure is None:
        return None
    more = f" of {table.total}, evenly over the ranking" if table.total > len(table.trials) else ""
    caption = f"n = {len(table.trials)} trials with a result{more}. A line is a trial; thick: the best tenth."
    return Section("Hyperparameters together", figure, caption)


def _importance(experiments: list[Experiment]) -> Section | None:
    found = importances(experiments)
    if not found:
        return None
    figure = charts.importance_figure(found)
    refused = [f"{one.name}: {one.reason}" for one in found if one.reason]
    told = f" Not shown: {'; '.join(refused)}." if refused else ""
    if figure is None:
        return Section("Importance of each hyperparameter", None, told.strip())
    shown = [one for one in found if one.share is not None]
    values = "; ".join(
        f"{one.name} {one.share:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f}, p = {one.p:.2g}, n = {one.n} trials "
        f"in {one.parts} groups)"
        for one in shown
    )
    caption = (
        f"Share of the variance of the trials' ranks that each explains by itself, about 0 where it does nothing, with "
        f"its 95 % interval: {values}. Randomly drawn trials only; numbers of many values are cut into thirds. What two "
        f"hyperparameters do together is not in it.{told}"
    )
    return Section("Importance of each hyperparameter", figure, caption)


def _over(experiments: list[Experiment], styles: Sequence[figures.Style]) -> Section | None:
    parameter = series.numeric_parameter(experiments)
    if parameter is None:
        return None
    n = sum(len(series.over_parameter(experiment, parameter)[0]) for experiment in experiments)
    figure = figures.parameter_figure(experiments, parameter, styles)
    return Section(f"Trials over {parameter}", figure, f"n = {n} trials with a result.")
