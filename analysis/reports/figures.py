"""Draws the numbers of `series` with Plotly. Colours of text, axes and grid come from the page's style sheet, so that one
figure reads on light and dark. Plotly reads all texts as HTML: what comes from the database is escaped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from ..reading.records import Experiment, Trial, arm_names, is_percent
from ..render.formats import (
    ACCURACY,
    FEWEST_FREEDOM,
    bounds_mean,
    clipped,
    number_text,
    params_text,
    score_text,
    signed_text,
    value_text,
)
from ..stats.best_of_n import BestOfK
from ..stats.importance import Importance
from . import series

COLOURS = ("#3b7dd8", "#d9772b", "#2f9e77", "#a259b5", "#b5892b", "#5c6b7a")
HOVER = "%{customdata}<extra></extra>"
GREY = "rgba(120,130,145,{})"
LONGEST_NAME = 32  # of a legend, on a phone


@dataclass(frozen=True)
class Style:
    """How the traces of an experiment are subject: the name and the colour of its arm. Repeats of an arm share one legend
    entry, which toggles them all."""

    arm: str
    colour: str

    @property
    def label(self) -> str:
        """The name without its middle where it is too long."""
        short = self.arm if len(self.arm) <= LONGEST_NAME else f"{self.arm[:15]}…{self.arm[-16:]}"
        return escape(short)


def own_styles(experiments: Sequence[Experiment]) -> list[Style]:
    """Each experiment an arm of its own."""
    return [Style(name, COLOURS[k % len(COLOURS)]) for k, name in enumerate(arm_names(list(experiments)))]


def empty_figure() -> go.Figure:
    return go.Figure(
        layout={
            "template": "none",
            "paper_bgcolor": "rgba(0,0,0,0)",
            "plot_bgcolor": "rgba(0,0,0,0)",
            "margin": {"l": 56, "r": 12, "t": 12, "b": 84},
            "height": 400,
            "xaxis": {"title": {"font": {"size": 13}}},
            "yaxis": {"title": {"font": {"size": 13}}},
            "font": {"family": "system-ui, sans-serif", "size": 13},
            "legend": {"orientation": "h", "x": 0, "y": -0.17, "yanchor": "top"},
            "hoverlabel": {"align": "left"},
            "hovermode": "closest",
        }
    )


def score_axis(figure: go.Figure, percent: bool) -> go.Figure:
    figure.update_yaxes(title_text="validation accuracy" if percent else "score", zeroline=False)
    figure.update_xaxes(zeroline=False, showgrid=False, title_standoff=8)
    if percent:
        figure.update_yaxes(tickformat=".0%")
    return figure


def best_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Best score so far over NNI's trial numbers, every trial as a dot, the end of start-up as a line."""
    figure = empty_figure()
    longest = max((len(experiment.trials) for experiment in experiments), default=0)
    floor, step = _floor(experiments)
    labelled = 0
    for subject in _subjects(experiments, styles):
        numbers, bests = series.best_so_far(subject.experiment)
        line = {"color": subject.style.colour, "width": 2.5, "shape": "hv"}
        _trace(
            figure, subject, x=numbers, y=bests, mode="lines", line=line, hoverinfo="skip", showlegend=subject.is_first
        )
        points, unscored = series.trial_points(subject.experiment), series.without_score(subject.experiment)
        _dots(figure, subject, points, {"size": 8, "opacity": 0.75})
        if unscored.x:
            cross = {"size": 9, "symbol": "x-thin", "line": {"color": subject.style.colour, "width": 2}}
            _dots(figure, subject, unscored._replace(score=[floor - labelled * step] * len(unscored.x)), cross)
        if subject.is_first:
            _startup_line(figure, subject, labelled, longest)
            labelled += 1
    own = all(series.has_own_numbers(experiment) for experiment in experiments)
    figure.update_xaxes(title_text="trial no." if own else "trial, in order (NNI's numbers repeat after a resume)")
    figure.update_layout(margin={"t": 16 + 22 * labelled})
    return score_axis(figure, is_percent(experiments))


def time_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Best score so far against wall clock, in minutes where the longest took more than ten."""
    figure, lines = empty_figure(), [series.best_over_time(experiment) for experiment in experiments]
    longest = max((seconds[-1] for seconds, _ in lines if seconds), default=0.0)
    unit, divisor = ("minutes", 60) if longest > 600 else ("seconds", 1)
    for (seconds, bests), subject in zip(lines, _subjects(experiments, styles)):
        line = {"color": subject.style.colour, "width": 2.5, "shape": "hv"}
        x, look = [time / divisor for time in seconds], {"mode": "lines+markers", "marker": {"size": 5}}
        _trace(figure, subject, x=x, y=bests, line=line, showlegend=subject.is_first, **look)
    figure.update_xaxes(title_text=f"{unit} since the first trial began", rangemode="tozero")
    return score_axis(figure, is_percent(experiments))


def curves_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure:
    """Learning curves, thin; the best trial of each experiment thick; a cross where early stopping ended one."""
    percent, figure = is_percent(experiments), empty_figure()
    in_legend: set[str] = set()
    for subject in _subjects(experiments, styles):
        curves = series.learning_curves(subject.experiment)
        for curve in curves:
            texts = [
                f"{subject.hover(curve.trial)}<br>epoch {epoch}: {score_text(value, percent)}"
                for epoch, value in zip(curve.epoch, curve.value, strict=True)
            ]
            look = {"line": {"color": subject.style.colour, "width": 3 if curve.is_best else 1}}
            look |= {"mode": "lines+markers" if len(curve.epoch) == 1 or curve.is_best else "lines"}
            look |= {"opacity": 1 if curve.is_best else 0.45}
            look |= {"showlegend": curve is curves[-1] and subject.style.arm not in in_legend}
            _trace(figure, subject, x=curve.epoch, y=curve.value, **look, **_on_hover(texts))
        in_legend |= {subject.style.arm} if curves else set()
    longest = max((len(trace.x) for trace in figure.data), default=0)
    for subject in _subjects(experiments, styles):
        _mark_stops(figure, subject)
    figure.update_xaxes(title_text="epoch", tickformat="d", dtick=1 if longest <= 12 else None)
    return score_axis(figure, percent)


def parameter_figure(experiments: list[Experiment], parameter: str, styles: Sequence[Style]) -> go.Figure:
    """Every trial's score over one hyperparameter, on a logarithmic axis where it spans a factor of 20."""
    figure, values = empty_figure(), []
    for subject in _subjects(experiments, styles):
        points = series.over_parameter(subject.experiment, parameter)
        values += points.x
        _dots(figure, subject, points, {"size": 9, "opacity": 0.8}, showlegend=subject.is_first)
    if values and min(values) > 0 and max(values) / min(values) > 20:
        ticks = "D2" if max(values) / min(values) < 3000 else 1  # 2 and 5 between the powers of ten, if there is room
        figure.update_xaxes(type="log", dtick=ticks, exponentformat="none")
    figure.update_xaxes(title_text=escape(parameter))
    return score_axis(figure, is_percent(experiments))


def best_of_k_figure(curve: BestOfK, percent: bool) -> go.Figure:
    """Expected best of k random trials, and the band for a new search of k."""
    figure = empty_figure()
    edge = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    figure.add_scatter(x=curve.k, y=curve.low, showlegend=False, **edge)
    band = {"fill": "tonexty", "fillcolor": GREY.format(0.25), "name": "one new search"}
    figure.add_scatter(x=curve.k, y=curve.high, **band, **edge)
    line = {"mode": "lines+markers", "marker": {"size": 5}, "line": {"color": COLOURS[0]}, "name": "expected best"}
    figure.add_scatter(x=curve.k, y=curve.mean, **line)
    figure.update_xaxes(title_text="k random trials", tickformat="d")
    return score_axis(figure, percent)


def parallel_figure(experiments: list[Experiment], styles: Sequence[Style]) -> go.Figure | None:
    """One line per trial through its hyperparameters, the best tenth thick; None where no trial has a score and any. Drawn
    as plain lines: Plotly's own parallel coordinates need WebGL and name no trial on hover."""
    table = series.parallel(experiments)
    if table is None:
        return None
    figure, arms = empty_figure(), list(_subjects(experiments, styles))
    last = {styles[index].arm: k for k, index in enumerate(table.arms)}  # each arm's best line is in the legend
    for k, (heights, trial, index, top) in enumerate(zip(table.heights, table.trials, table.arms, table.top)):
        subject = arms[index]
        look = {"line": {"color": subject.style.colour, "width": 3 if top else 1}, "marker": {"size": 7 if top else 4}}
        look |= {"mode": "lines+markers", "opacity": 1 if top else 0.45, "showlegend": last[subject.style.arm] == k}
        texts = [subject.hover(trial)] * len(heights)
        _trace(figure, subject, x=list(range(len(heights))), y=heights, **look, **_on_hover(texts))
    for place, axis in enumerate(table.axes):
        _parallel_axis(figure, place, axis, is_percent(experiments))
    ticks = {"tickvals": list(range(len(table.axes))), "ticktext": [escape(axis.name) for axis in table.axes]}
    figure.update_xaxes(showgrid=False, zeroline=False, range=[-0.4, len(table.axes) - 0.4], **ticks)
    figure.update_yaxes(visible=False, range=[-0.06, 1.1])
    figure.update_layout(margin={"l": 12})
    return figure


def importance_figure(importances: Sequence[Importance]) -> go.Figure | None:
    """A dot per hyperparameter with its interval; None where all were refused."""
    estimates = [one for one in importances if one.share is not None and one.interval is not None]
    if not estimates:
        return None
    figure = empty_figure()
    above = [one.interval[1] - one.share for one in estimates]
    below = [one.share - one.interval[0] for one in estimates]
    figure.add_scatter(
        x=[one.share for one in estimates],
        y=[escape(one.name) for one in estimates],
        error_x={"type": "data", "symmetric": False, "array": above, "arrayminus": below},
        mode="markers",
        marker={"color": COLOURS[0], "size": 10},
        hovertext=[
            f"{escape(one.name)}: {value_text(one.share)}, p = {one.p_adjusted:.3g}, n = {one.n}" for one in estimates
        ],
        hoverinfo="text",
        showlegend=False,
    )
    figure.update_xaxes(title_text="share of the variance of ranks", range=[-0.03, 1], zeroline=False)
    figure.update_layout(height=140 + 45 * len(estimates), margin={"l": 110})
    return figure


@dataclass(frozen=True)
class _Subject:
    """An experiment as it is drawn; `is_first`: of its arm, so that the legend names it."""

    experiment: Experiment
    name: str
    style: Style
    is_first: bool
    percent: bool

    def hover(self, trial: Trial) -> str:
        number = "" if trial.sequence is None else f" (no. {trial.sequence})"
        result = trial.state if trial.score is None else score_text(trial.score, self.percent)
        parameters = "<br>".join(escape(part) for part in params_text(trial.parameters).split(", "))
        return f"<b>{escape(self.name)}</b> trial {escape(trial.trial_id)}{number}<br>{escape(result)}<br>{parameters}"


def _subjects(experiments: list[Experiment], styles: Sequence[Style]) -> Iterator[_Subject]:
    percent = is_percent(experiments)
    for k, (experiment, name, style) in enumerate(zip(experiments, arm_names(experiments), styles)):
        yield _Subject(experiment, name, style, style not in styles[:k], percent)


def _trace(figure: go.Figure, subject: _Subject, **options: Any) -> None:
    legend = {"name": subject.style.label, "legendgroup": escape(subject.style.arm), "showlegend": False}
    figure.add_scatter(**(legend | options))


def _dots(
    figure: go.Figure, subject: _Subject, points: series.Points, marker: dict[str, Any], showlegend: bool = False
) -> None:
    hover = _on_hover([subject.hover(trial) for trial in points.trial])
    look = {"mode": "markers", "marker": {"color": subject.style.colour} | marker, "showlegend": showlegend}
    _trace(figure, subject, x=points.x, y=points.score, **look, **hover)


def _on_hover(texts: list[str]) -> dict[str, Any]:
    return {"customdata": texts, "hovertemplate": HOVER}


def _mark_stops(figure: go.Figure, subject: _Subject) -> None:
    stopped = [curve for curve in series.learning_curves(subject.experiment) if curve.stopped_early]
    if stopped:
        cross = {"color": subject.style.colour, "width": 2}
        marker = {"color": subject.style.colour, "size": 9, "symbol": "x-thin", "line": cross}
        name = escape(f"{subject.name}, stopped early")
        x, y = [curve.epoch[-1] for curve in stopped], [curve.value[-1] for curve in stopped]
        _trace(figure, subject, x=x, y=y, mode="markers", marker=marker, hoverinfo="name", name=name)


def _startup_line(figure: go.Figure, subject: _Subject, index: int, longest: int) -> None:
    """A dashed line where start-up ends; where that is far to the right, a remark with the number."""
    end = series.startup_end(subject.experiment)
    name, colour = subject.style.label, subject.style.colour
    if end is None:
        return
    if end <= 1.5 * longest:
        dash = "dash" if index % 2 == 0 else "dot"  # both are visible where two lines coincide
        figure.add_vline(x=end, line={"color": colour, "width": 2, "dash": dash})
        place = {"x": end, "xref": "x", "xanchor": "right" if end > longest / 2 else "left"}
        text = f"{name}: start-up ends"
    else:
        place = {"x": 1, "xref": "paper", "xanchor": "right"}
        text = f"{name}: start-up takes {end + 0.5:.0f} trials →"
    place |= {"y": 1 + 0.07 * index, "yref": "paper", "yanchor": "bottom"}
    figure.add_annotation(text=text, showarrow=False, font={"color": colour, "size": 12}, **place)


def _floor(experiments: list[Experiment]) -> tuple[float, float]:
    """Height of the crosses of trials without a score, just below the lowest dot, and the step to the next
    arm's, so that crosses of one number do not hide each other."""
    scores = [trial.score for experiment in experiments for trial in experiment.trials if trial.score is not None]
    spread = ((max(scores) - min(scores)) or 0.1) if scores else 1.0
    return (min(scores) - 0.08 * spread if scores else 0.0), 0.05 * spread


def _parallel_axis(figure: go.Figure, place: int, axis: series.Axis, percent: bool) -> None:
    figure.add_vline(x=place, line={"color": GREY.format(0.6), "width": 1})
    for height, text in axis.ticks:
        label = escape(score_text(float(text), percent) if axis.is_score else text)
        corner = {"x": place, "y": height, "xanchor": "left", "yanchor": "bottom"}
        figure.add_annotation(text=label, showarrow=False, font={"size": 11, "color": "#808a96"}, **corner)


@dataclass(frozen=True)
class SeedRow:
    """One line of a figure: {seed: value}, their mean, and its interval (low, high), or None where there is none or so few
    values that it says nothing. Fractions."""

    label: str
    by_seed: Mapping[str, float]
    mean: float
    interval: Sequence[float] | None


def accuracy_row(label: str, spread: Mapping[str, Any]) -> SeedRow:
    """Of `stats.paired.spread`."""
    interval = spread["interval"] if spread["n"] > FEWEST_FREEDOM else None
    shown = None if interval is None else clipped(interval, ACCURACY.values)
    return SeedRow(label, spread["by_seed"], spread["mean"], shown)


def difference_row(label: str, pairs: Mapping[str, Any]) -> SeedRow:
    """Of paired differences with the keys by_seed, mean, low, high, n and df."""
    interval = clipped((pairs["low"], pairs["high"]), ACCURACY.differences) if bounds_mean(pairs) else None
    return SeedRow(label, pairs["by_seed"], pairs["mean"], interval)


def accuracy_figure(
    rows: Sequence[SeedRow], title: str, marks: Sequence[tuple[str, float]], mark_name: str
) -> go.Figure:
    """Accuracies per seed; `marks` are (label, accuracy) of another kind, drawn as diamonds."""
    figure = _seed_figure(rows, number_text)
    figure.add_scatter(
        x=[value for _, value in marks],
        y=[escape(label) for label, _ in marks],
        mode="markers",
        name=mark_name,
        marker={"symbol": "diamond", "size": 11, "color": COLOURS[1]},
        customdata=[f"{mark_name}: {number_text(value)}" for _, value in marks],
        hovertemplate=HOVER,
    )
    figure.update_xaxes(title_text=title, tickformat=".0%")
    return figure


def difference_figure(rows: Sequence[SeedRow], title: str) -> go.Figure:
    """Paired differences of accuracies around zero; `title` names what is subtracted."""
    figure = _seed_figure(rows, signed_text)
    figure.add_vline(x=0, line={"color": COLOURS[5], "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text=title, tickformat="+.0%")
    return figure


def _seed_figure(rows: Sequence[SeedRow], text: Callable[[float], str]) -> go.Figure:
    """A dot per seed, the mean with its interval; the first row at the top. Texts are escaped: plotly reads them as HTML."""
    ticks = [
        escape(row.label).replace(", ", "<br>") for row in rows
    ]  # on two lines, so that a phone has room beside it
    dots = [(tick, seed, value) for tick, row in zip(ticks, rows) for seed, value in row.by_seed.items()]
    figure = empty_figure()
    figure.add_scatter(
        x=[value for _, _, value in dots],
        y=[tick for tick, _, _ in dots],
        mode="markers",
        name="one seed",
        marker={"size": 8, "color": COLOURS[0], "opacity": 0.45},
        customdata=[f"seed {seed}: {text(value)}" for _, seed, value in dots],
        hovertemplate=HOVER,
    )
    figure.add_scatter(
        x=[row.mean for row in rows],
        y=ticks,
        error_x={
            "type": "data",
            "symmetric": False,
            "array": [row.interval[1] - row.mean if row.interval else 0.0 for row in rows],
            "arrayminus": [row.mean - row.interval[0] if row.interval else 0.0 for row in rows],
            "thickness": 2,
            "color": COLOURS[0],
        },
        mode="markers",
        name="mean and interval",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": COLOURS[0]}},
        customdata=[f"{escape(row.label)}: mean {text(row.mean)}, n = {len(row.by_seed)}" for row in rows],
        hovertemplate=HOVER,
    )
    figure.update_yaxes(autorange="reversed", automargin=True, zeroline=False)
    figure.update_xaxes(zeroline=False)
    figure.update_layout(height=170 + 44 * len(rows))
    return figure
