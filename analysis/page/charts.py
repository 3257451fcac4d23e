"""Draws wall clock, expected best of k, parallel coordinates and importance; `figures` draws the rest."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import plotly.graph_objects as go

from ..reading.records import Experiment
from ..render.formats import arm_names, is_percent, score_text, value_text
from ..stats import early_stopping
from ..stats.best_of_n import BestOfK
from ..stats.importance import Importance
from . import series
from .figures import COLOURS, HOVER, Style, empty_figure, firsts, hover_text, score_axis
from .parallel import parallel


def time_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Best score so far against wall clock, in minutes where the longest took more than ten."""
    figure, found = empty_figure(), [series.best_over_time(experiment) for experiment in experiments]
    longest = max((seconds[-1] for seconds, _ in found if seconds), default=0.0)
    unit, divisor = ("minutes", 60) if longest > 600 else ("seconds", 1)
    for (seconds, bests), style, first in zip(found, styles, firsts(styles)):
        line = {"color": style.colour, "width": 2.5, "shape": "hv"}
        legend = {"name": style.label, "legendgroup": escape(style.arm), "showlegend": first}
        x = [time / divisor for time in seconds]
        figure.add_scatter(x=x, y=bests, mode="lines+markers", line=line, marker={"size": 5}, **legend)
    figure.update_xaxes(title_text=f"{unit} since the first trial began", rangemode="tozero")
    return score_axis(figure, is_percent(experiments))


def mark_stops(figure: go.Figure, experiments: list[Experiment], styles: Sequence[Style]) -> int:
    """A cross where early stopping ended one of the learning curves shown; returns how many there are."""
    marked = 0
    for experiment, name, style in zip(experiments, arm_names(experiments), styles):
        shown = series.learning_curves(experiment)
        ends = [
            (c.epoch[-1], c.value[-1]) for c in shown if c.epoch[-1] < (early_stopping.planned_epochs(c.trial) or 0)
        ]
        marked += len(ends)
        if ends:
            cross = {"color": style.colour, "width": 2}
            marker = {"color": style.colour, "size": 9, "symbol": "x-thin", "line": cross}
            x, y = zip(*ends)
            legend = {"name": escape(f"{name}, stopped early"), "legendgroup": escape(style.arm), "showlegend": False}
            figure.add_scatter(x=x, y=y, mode="markers", marker=marker, hoverinfo="name", **legend)
    return marked


def best_of_k_figure(curve: BestOfK, percent: bool) -> go.Figure:
    figure, grey, blue = empty_figure(), "rgba(120,130,145,0.25)", COLOURS[0]
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(x=curve.k, y=curve.low, showlegend=False, **edge)
    figure.add_scatter(x=curve.k, y=curve.high, fill="tonexty", fillcolor=grey, name="95 % of such searches", **edge)
    shared = {"mode": "lines+markers", "marker": {"size": 5}}
    figure.add_scatter(x=curve.k, y=curve.mean, name="expected best", line={"color": blue}, **shared)
    figure.update_xaxes(title_text="k random trials", tickformat="d")
    return score_axis(figure, percent)


def parallel_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure | None:
    """A line a trial through its hyperparameters, the best tenth thick; None where no trial has a score and any. Drawn
    as plain lines: plotly's own parallel coordinates need WebGL and show no trial on hover."""
    table = parallel(experiments)
    if table is None:
        return None
    percent, names, figure = is_percent(experiments), arm_names(experiments), empty_figure()
    last = {
        styles[index].arm: k for k, index in enumerate(table.arms)
    }  # the best of each arm: its line stands in the legend
    for k, (heights, trial, index, top) in enumerate(zip(table.heights, table.trials, table.arms, table.top)):
        figure.add_scatter(
            x=list(range(len(heights))),
            y=heights,
            mode="lines+markers",
            line={"color": styles[index].colour, "width": 3 if top else 1},
            marker={"size": 7 if top else 4},
            opacity=1 if top else 0.45,
            name=styles[index].label,
            legendgroup=escape(styles[index].arm),
            showlegend=last[styles[index].arm] == k,
            customdata=[hover_text(trial, names[index], percent)] * len(heights),
            hovertemplate=HOVER,
        )
    for place, axis in enumerate(table.axes):
        figure.add_vline(x=place, line={"color": "rgba(120,130,145,0.6)", "width": 1})
        for height, text in axis.ticks:
            shown = score_text(float(text), percent) if axis.is_score else text
            spot = {
                "x": place,
                "y": height,
                "xanchor": "left",
                "yanchor": "bottom",
                "font": {"size": 11, "color": "#808a96"},
            }
            figure.add_annotation(text=escape(shown), showarrow=False, **spot)
    ticks = {"tickvals": list(range(len(table.axes))), "ticktext": [escape(axis.name) for axis in table.axes]}
    figure.update_xaxes(showgrid=False, zeroline=False, range=[-0.4, len(table.axes) - 0.4], **ticks)
    figure.update_yaxes(visible=False, range=[-0.06, 1.1])
    figure.update_layout(margin={"l": 12})
    return figure


def importance_figure(found: Sequence[Importance]) -> go.Figure | None:
    """A dot a hyperparameter with its interval; None where all were refused."""
    shown = [one for one in found if one.share is not None and one.interval is not None]
    if not shown:
        return None
    figure = empty_figure()
    x = [max(0.0, one.share) for one in shown]
    errors = {
        "type": "data",
        "symmetric": False,
        "array": [max(0.0, one.interval[1] - value) for one, value in zip(shown, x)],
        "arrayminus": [max(0.0, value - one.interval[0]) for one, value in zip(shown, x)],
    }
    hover = [f"{escape(one.name)}: {value_text(one.share)}, p = {one.p:.3g}, n = {one.n}" for one in shown]
    names = [escape(one.name) for one in shown]
    marker = {"color": COLOURS[0], "size": 10}
    figure.add_scatter(
        x=x, y=names, error_x=errors, mode="markers", marker=marker, hovertext=hover, hoverinfo="text", showlegend=False
    )
    figure.update_xaxes(title_text="share of the variance of ranks", range=[-0.03, 1], zeroline=False)
    figure.update_layout(height=140 + 45 * len(shown), margin={"l": 110})
    return figure
