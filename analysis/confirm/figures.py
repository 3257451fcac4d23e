"""The figures of a confirmation: each has a function that gives its numbers and one that draws them."""

from __future__ import annotations

from html import escape
from typing import Any, NamedTuple

import plotly.graph_objects as go

from ..render.formats import difference_text, score_text
from ..reports.figures import COLOURS, HOVER, empty_figure


class Row(NamedTuple):
    """One line of a figure: a value a seed, their mean, and an interval or None. Fractions."""

    label: str
    seeds: list[str]
    values: list[float]
    mean: float
    low: float | None
    high: float | None


def difference_rows(result: dict[str, Any]) -> list[Row]:
    """Each tuned configuration less the default on validation, then the chosen one on evaluation, paired by seed."""
    told = [(f"{row['name']}, validation", row["less_default"]) for row in result["configurations"][:-1]]
    told.append((f"{result['chosen']}, evaluation", result["evaluation"]))
    return [_row(label, d["by_seed"], d["mean"], (d["low"], d["high"])) for label, d in told if d is not None]


def accuracy_rows(result: dict[str, Any]) -> tuple[list[Row], list[tuple[str, float]]]:
    """Retrained validation accuracies with their 95 % t intervals, and what the searches had promised: (label, value)."""
    rows, promises = [], []
    for row in result["configurations"]:
        found = row["validation"]
        if found["mean"] is not None:
            rows.append(_row(row["name"], found["by_seed"], found["mean"], found["interval"] or (None, None)))
            promises += [(row["name"], promise["val_accuracy"]) for promise in row["optimism"]]
    return rows, promises


def _row(label: str, by_seed: dict[str, float], mean: float, interval: tuple[float | None, float | None]) -> Row:
    return Row(label, list(by_seed), list(by_seed.values()), mean, *interval)


def difference_figure(rows: list[Row], title: str) -> go.Figure:
    """Paired differences of accuracies around zero; `title` says less what."""
    figure = rows_figure(rows, lambda value: difference_text(value, True, signed=True))
    figure.add_vline(x=0, line={"color": COLOURS[5], "width": 1, "dash": "dash"})
    figure.update_xaxes(title_text=title, tickformat="+.0%")
    return figure


def accuracy_figure(result: dict[str, Any]) -> go.Figure:
    rows, promises = accuracy_rows(result)
    figure = rows_figure(rows, lambda value: score_text(value, True))
    figure.add_scatter(
        x=[value for _, value in promises],
        y=[escape(label) for label, _ in promises],
        mode="markers",
        name="promised by the search",
        marker={"symbol": "diamond", "size": 11, "color": COLOURS[1]},
        customdata=[f"promised: {score_text(value, True)}" for _, value in promises],
        hovertemplate=HOVER,
    )
    figure.update_xaxes(title_text="validation accuracy", tickformat=".0%")
    return figure


def rows_figure(rows: list[Row], text: Any) -> go.Figure:
    """A dot a seed, the mean with its interval; the first row at the top. Texts are escaped: plotly reads them as HTML."""
    figure = empty_figure()
    figure.add_scatter(
        x=[value for row in rows for value in row.values],
        y=[_tick(row) for row in rows for _ in row.values],
        mode="markers",
        name="a seed",
        marker={"size": 8, "color": COLOURS[0], "opacity": 0.45},
        customdata=[f"seed {s}: {text(v)}" for row in rows for s, v in zip(row.seeds, row.values)],
        hovertemplate=HOVER,
    )
    halves = [0.0 if row.high is None else row.high - row.mean for row in rows]
    figure.add_scatter(
        x=[row.mean for row in rows],
        y=[_tick(row) for row in rows],
        error_x={"type": "data", "array": halves, "thickness": 2, "color": COLOURS[0]},
        mode="markers",
        name="mean and interval",
        marker={"symbol": "line-ns", "size": 16, "line": {"width": 3, "color": COLOURS[0]}},
        customdata=[f"{escape(row.label)}: mean {text(row.mean)}, n = {len(row.values)}" for row in rows],
        hovertemplate=HOVER,
    )
    figure.update_yaxes(autorange="reversed", automargin=True, zeroline=False)
    figure.update_xaxes(zeroline=False)
    figure.update_layout(height=170 + 44 * len(rows))
    return figure


def _tick(row: Row) -> str:
    """The label on two lines, so that a phone has room beside it."""
    return escape(row.label).replace(", ", "<br>")
