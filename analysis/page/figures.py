"""Draws the numbers of `series` with plotly: trials, learning curves, one hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ..reading.records import Experiment
from ..render.formats import arm_names, is_percent, score_text
from . import series
from .canvas import COLOURS, HOVER, empty_figure, hover_text, score_axis


class Style(NamedTuple):
    """How the traces of an experiment are drawn: the name and the colour of its arm. Repeats of an arm share one legend
    entry, which toggles them all."""

    arm: str
    colour: str

    @property
    def label(self) -> str:
        """The name, as plotly's HTML, its middle left out where it would not fit on a phone."""
        short = self.arm if len(self.arm) <= 32 else f"{self.arm[:15]}…{self.arm[-16:]}"
        return escape(short)


def own_styles(experiments: Sequence[Experiment]) -> list[Style]:
    """Each experiment an arm of its own."""
    return [Style(name, COLOURS[k % len(COLOURS)]) for k, name in enumerate(arm_names(list(experiments)))]


def firsts(styles: Sequence[Style]) -> list[bool]:
    """Whether each experiment is the first of its arm: the one that the legend names."""
    return [style not in styles[:index] for index, style in enumerate(styles)]


def best_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Best score so far over NNI's trial numbers, every trial as a dot, the end of start-up as a line."""
    percent, figure = is_percent(experiments), empty_figure()
    longest = max((len(experiment.trials) for experiment in experiments), default=0)
    floor, step = _floor(experiments)
    labelled = 0
    for experiment, name, style, first in zip(experiments, arm_names(experiments), styles, firsts(styles)):
        colour, group = style.colour, escape(style.arm)
        numbers, bests = series.best_so_far(experiment)
        line = {"color": colour, "width": 2.5, "shape": "hv"}
        legend = {"name": style.label, "legendgroup": group, "showlegend": first}
        figure.add_scatter(x=numbers, y=bests, mode="lines", line=line, hoverinfo="skip", **legend)
        points, lost = series.trial_points(experiment), series.without_score(experiment)
        marker = {"color": colour, "size": 8, "opacity": 0.75}
        hover = [hover_text(trial, name, percent) for trial in points.trial]
        _dots(figure, (points.number, points.score), hover, marker, style)
        if lost.number:
            cross = {"color": colour, "size": 9, "symbol": "x-thin", "line": {"color": colour, "width": 2}}
            hover = [hover_text(trial, name, percent) for trial in lost.trial]
            _dots(figure, (lost.number, [floor - labelled * step] * len(lost.number)), hover, cross, style)
        if first:
            _startup_line(figure, experiment, (labelled, longest), style)
            labelled += 1
    own = all(series.has_own_numbers(experiment) for experiment in experiments)
    figure.update_xaxes(title_text="trial no." if own else "trial, in order (NNI's numbers repeat after a resume)")
    figure.update_layout(margin={"t": 16 + 22 * labelled})
    return score_axis(figure, percent)


def _startup_line(figure: go.Figure, experiment: Experiment, place: tuple[int, int], style: Style) -> None:
    """A dashed line where start-up ends; where that is far to the right, a remark with the number."""
    index, longest = place
    end = series.startup_end(experiment)
    name, colour = style.label, style.colour
    if end is None:
        return
    if end <= 1.5 * longest:
        dash = "dash" if index % 2 == 0 else "dot"  # both show where two lines fall together
        figure.add_vline(x=end, line={"color": colour, "width": 2, "dash": dash})
        anchor = "right" if end > longest / 2 else "left"
        text, x, reference = f"{name}: start-up ends", end, "x"
    else:
        text, x, anchor, reference = f"{name}: start-up takes {end + 0.5:.0f} trials →", 1, "right", "paper"
    spot = {
        "x": x,
        "xref": reference,
        "y": 1 + 0.07 * index,
        "yref": "paper",
        "xanchor": anchor,
        "yanchor": "bottom",
    }
    figure.add_annotation(text=text, showarrow=False, font={"color": colour, "size": 12}, **spot)


def curves_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Learning curves, thin; the best trial of each arm thick."""
    percent, figure = is_percent(experiments), empty_figure()
    named: set[str] = set()
    for experiment, name, style in zip(experiments, arm_names(experiments), styles):
        colour, group = style.colour, escape(style.arm)
        curves = series.learning_curves(experiment)
        for curve in curves:
            line = {"color": colour, "width": 3 if curve.is_best else 1}
            hover = [
                f"{hover_text(curve.trial, name, percent)}<br>epoch {epoch}: {score_text(value, percent)}"
                for epoch, value in zip(curve.epoch, curve.value, strict=True)
            ]
            figure.add_scatter(
                x=curve.epoch,
                y=curve.value,
                mode="lines+markers" if len(curve.epoch) == 1 or curve.is_best else "lines",
                line=line,
                opacity=1 if curve.is_best else 0.45,
                name=style.label,
                legendgroup=group,
                showlegend=curve is curves[-1] and style.arm not in named,
                customdata=hover,
                hovertemplate=HOVER,
            )
        named |= {style.arm} if curves else set()
    longest = max((len(trace.x) for trace in figure.data), default=0)
    figure.update_xaxes(title_text="epoch", tickformat="d", dtick=1 if longest <= 12 else None)
    return score_axis(figure, percent)


def parameter_figure(experiments: list[Experiment], parameter: str, styles: Sequence[Style]) -> go.Figure:
    """Every trial's score over one hyperparameter, on a logarithmic axis where it spans a factor of 20."""
    percent, figure = is_percent(experiments), empty_figure()
    values: list[float] = []
    for experiment, name, style, first in zip(experiments, arm_names(experiments), styles, firsts(styles)):
        x, y, trials = series.over_parameter(experiment, parameter)
        values += x
        marker = {"color": style.colour, "size": 9, "opacity": 0.8}
        _dots(figure, (x, y), [hover_text(trial, name, percent) for trial in trials], marker, style)
        figure.data[-1].showlegend = first
    if values and min(values) > 0 and max(values) / min(values) > 20:
        ticks = "D2" if max(values) / min(values) < 3000 else 1  # 2 and 5 between the powers of ten, if there is room
        figure.update_xaxes(type="log", dtick=ticks, exponentformat="none")
    figure.update_xaxes(title_text=escape(parameter))
    return score_axis(figure, percent)


def _dots(
    figure: go.Figure, xy: tuple[list[Any], list[Any]], hover: list[str], marker: dict[str, Any], style: Style
) -> None:
    figure.add_scatter(
        x=xy[0],
        y=xy[1],
        mode="markers",
        marker=marker,
        name=style.label,
        legendgroup=escape(style.arm),
        showlegend=False,
        customdata=hover,
        hovertemplate=HOVER,
    )


def _floor(experiments: list[Experiment]) -> tuple[float, float]:
    """Height of the crosses of trials without a score, just below the lowest dot, and the step to the next
    arm's, so that crosses of one number do not hide each other."""
    found = [trial.score for experiment in experiments for trial in experiment.trials if trial.score is not None]
    spread = ((max(found) - min(found)) or 0.1) if found else 1.0
    return (min(found) - 0.08 * spread if found else 0.0), 0.05 * spread
