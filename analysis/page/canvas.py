"""What all figures share. Colours of text, axes and grid come from the page's style sheet, so that one figure reads on
light and dark."""

from __future__ import annotations

from html import escape

import plotly.graph_objects as go

from ..reading.records import Trial
from ..render.formats import params_text, score_text

COLOURS = ("#3b7dd8", "#d9772b", "#2f9e77", "#a259b5", "#b5892b", "#5c6b7a")
HOVER = "%{customdata}<extra></extra>"


def hover_text(trial: Trial, arm: str, percent: bool) -> str:
    """Plotly reads hover texts as HTML, so all that comes from the database is escaped."""
    number = "" if trial.sequence is None else f" (no. {trial.sequence})"
    result = trial.state if trial.score is None else score_text(trial.score, percent)
    parameters = "<br>".join(escape(part) for part in params_text(trial.parameters).split(", "))
    return f"<b>{escape(arm)}</b> trial {escape(trial.trial_id)}{number}<br>{escape(result)}<br>{parameters}"


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
