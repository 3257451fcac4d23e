"""The figures of a study, drawn from the numbers of study.json."""

from __future__ import annotations

from html import escape
from typing import Any

import plotly.graph_objects as go

from ..confirm.figures import Row, difference_figure
from ..page.report import script_json
from ..render.formats import score_text
from ..reports.figures import COLOURS, HOVER, empty_figure, score_axis
from .words import BY_KEY


def curves_figure(bands: list[dict[str, Any]], metric: str) -> go.Figure:
    """The mean of each arm, and a band from the lowest to the highest seed. Names are escaped: plotly reads HTML."""
    figure = empty_figure()
    for number, band in enumerate(band for band in bands if band["metric"] == metric):
        colour, name = COLOURS[number % len(COLOURS)], escape(band["arm"])
        figure.add_scatter(
            x=[*band["epoch"], *reversed(band["epoch"])],
            y=[*band["high"], *reversed(band["low"])],
            fill="toself",
            fillcolor=colour,
            opacity=0.18,
            line={"width": 0},
            hoverinfo="skip",
            showlegend=False,
            legendgroup=name,
        )
        figure.add_scatter(
            x=band["epoch"],
            y=band["mean"],
            mode="lines+markers",
            name=name,
            legendgroup=name,
            line={"color": colour, "width": 2.5},
            marker={"size": 5},
            customdata=[
                f"{name}, epoch {epoch}: {score_text(mean, True)} ({score_text(low, True)} to {score_text(high, True)}, "
                f"n = {band['n']})"
                for epoch, mean, low, high in zip(band["epoch"], band["mean"], band["low"], band["high"])
            ],
            hovertemplate=HOVER,
        )
    score_axis(figure, True)
    titles = {"default": "validation accuracy", "train_accuracy": "training accuracy"}
    figure.update_yaxes(title_text=titles[metric])
    figure.update_xaxes(title_text="epoch")
    return figure


def difference_rows(result: dict[str, Any]) -> list[Row]:
    """The differences of accuracies, one line an arm and split."""
    keys = ("validation", "evaluation_top1", "evaluation_macro")
    rows = [row for row in result["differences"] if row["measure"] in keys]
    return [
        Row(
            f"{row['arm']}, {BY_KEY[row['measure']].title.lower()}",
            list(row["by_seed"]),
            list(row["by_seed"].values()),
            row["mean"],
            row["low"],
            row["high"],
        )
        for row in rows
    ]


def figures(result: dict[str, Any]) -> list[dict[str, str]]:
    """Title, JSON and caption of each, in the order of the page."""
    n = ", ".join(f"{band['arm']} {band['n']}" for band in result["curves"] if band["metric"] == "default")
    band = f"Line: mean over the seeds (n: {n}), as far as all of them were trained. Band: lowest to highest seed."
    told = [
        ("Validation accuracy by epoch", curves_figure(result["curves"], "default"), band),
        ("Training accuracy by epoch", curves_figure(result["curves"], "train_accuracy"), band),
        (
            "Differences, seed by seed",
            difference_figure(difference_rows(result), "less the reference"),
            "A dot a seed; the bar is the interval of the mean.",
        ),
    ]
    return [{"title": title, "json": script_json(figure), "caption": caption} for title, figure, caption in told]
