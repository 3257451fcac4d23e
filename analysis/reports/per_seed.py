"""What pages of repeated trainings share: figures with a dot per seed, the table of all trainings, where they were made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import plotly.graph_objects as go

from ..render.document import Block, Heading, Row, Table, Text
from ..render.formats import number_text, optional, seconds_text, signed_text
from .facts import made_with
from .figures import COLOURS, HOVER, empty_figure


@dataclass(frozen=True)
class SeedRow:
    """One line of a figure: {seed: value}, their mean, and its interval (low, high) or None. Fractions."""

    label: str
    by_seed: Mapping[str, float]
    mean: float
    interval: Sequence[float] | None


def accuracy_row(label: str, spread: Mapping[str, Any]) -> SeedRow:
    """Of `stats.paired.spread`."""
    return SeedRow(label, spread["by_seed"], spread["mean"], spread["interval"])


def difference_row(label: str, pairs: Mapping[str, Any]) -> SeedRow:
    """Of paired differences with the keys by_seed, mean, low and high."""
    interval = None if pairs["low"] is None else (pairs["low"], pairs["high"])
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
            "array": [row.interval[1] - row.mean if row.interval else 0.0 for row in rows],
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


def section(title: str, block: Block, caption: str) -> list[Block]:
    """A heading, a table or figure, and the small print below it."""
    return [Heading(title), block, Text(caption, caption=True)]


def rows_table(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]], corner: str = "") -> Table:
    """A table of rows that are (label, cells)."""
    return Table(tuple(columns), tuple(Row(label, tuple(cells)) for label, cells in rows), corner)


def trainings_table(name: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    """One record per training, of rows with the keys `name`, seed, state, val_accuracy and evaluation_top1 (fractions),
    duration_s, experiment, trial, reason, and epochs_run where there are any; what is missing is None."""
    has_epochs = any("epochs_run" in row for row in rows)
    records = []
    for row in rows:
        accuracies = [number_text(row[key]) for key in ("val_accuracy", "evaluation_top1")]
        epochs = [optional(row["epochs_run"])] if has_epochs else []
        cells = [row[name], str(row["seed"]), row["state"], *accuracies, *epochs, seconds_text(row["duration_s"])]
        mark = "" if row["state"] == "succeeded" else "lost"
        records.append(Row("", (*cells, row["experiment"], optional(row["trial"]), row["reason"]), mark))
    columns = [
        name.capitalize(),
        "Seed",
        "State",
        "Validation",
        "Evaluation",
        *(["Epochs"] if has_epochs else []),
        "Time",
    ]
    return Table((*columns, "Experiment", "Trial", "Reason"), tuple(records))


def provenance_table(facts: Mapping[str, str], result: Mapping[str, Any]) -> Table:
    """`facts` of the page, then what a training's result.json records about machine, versions, code and photos."""
    return rows_table(["Value"], [(label, [text]) for label, text in {**facts, **made_with(result)}.items()])
