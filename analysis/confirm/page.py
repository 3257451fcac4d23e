"""The result of a confirmation as a table, a page and files."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..page.report import render_page, script_json
from ..reading.provenance import best_result, made_with
from ..reading.values import strict_json
from ..render.formats import NONE, difference_text, params_text, score_text, seconds_text, spread_text
from .figures import accuracy_figure, difference_figure, difference_rows
from .files import write_text
from .statement import p_text, points_range
from .trained import Cell

COLUMNS = ["Hyperparameters", "Validation", "Less the default, validation", "Evaluation", "Trainings"]
PROMISE_COLUMNS = ["Promised, validation", "Retrained", "Promised too much", "Foretold"]
_TRAINING = ["configuration", "seed", "state", "val_accuracy", "evaluation_top1", "duration_s", "experiment", "trial"]

Rows = list[tuple[str, list[str]]]


def configuration_rows(result: dict[str, Any]) -> Rows:
    """One row a configuration, the default last; cells as `COLUMNS`."""
    rows = []
    for row in result["configurations"]:
        name = f"{row['name']} (chosen)" if row["name"] == result["chosen"] else row["name"]
        spreads = [spread_text(row[split]) for split in ("validation", "evaluation")]
        trained = f"{row['n']} of {row['planned']}"
        rows.append(
            (name, [params_text(row["parameters"]), spreads[0], _less_text(row["less_default"]), spreads[1], trained])
        )
    return rows


def _less_text(found: dict[str, Any] | None) -> str:
    if found is None:
        return NONE
    mean = difference_text(found["mean"], True, signed=True)
    if found["low"] is None:
        return f"{mean} (n = {found['n']})"
    return f"{mean} ({points_range(found)}; p = {p_text(found['p_t_adjusted'])}, n = {found['n']})"


def promise_rows(result: dict[str, Any]) -> Rows:
    """One row for each time that a search had a configuration among its top; cells as `PROMISE_COLUMNS`."""
    rows = []
    for row in result["configurations"]:
        for found in row["optimism"]:
            realised = NONE if found["realised"] is None else difference_text(found["realised"], True, signed=True)
            if found["interval"]:
                realised += f" ({points_range(dict(zip(('low', 'high'), found['interval'])))}, n = {found['n']})"
            expected = NONE if found["expected"] is None else difference_text(found["expected"], True, signed=True)
            cells = [
                score_text(found["val_accuracy"], True),
                spread_text(row["validation"]),
                realised,
                expected,
            ]
            rows.append((f"{row['name']}: rank {found['rank']} of {found['experiment']}", cells))
    return rows


def training_rows(result: dict[str, Any], cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """One row a cell; accuracies as fractions, a missing value None."""
    reasons = {(cell["configuration"], cell["seed"]): cell["reason"] for cell in result["failed"]}
    by_name = {row["name"]: row for row in result["configurations"]}
    rows = []
    for cell in cells:
        row, seed = by_name[cell.configuration.name], str(cell.seed)
        accuracies = [row[split]["by_seed"].get(seed) for split in ("validation", "evaluation")]
        trial = (cell.trial.duration_s, cell.experiment, cell.trial.trial_id) if cell.trial else (None, "", "")
        values = [row["name"], cell.seed, cell.state, *accuracies, *trial]
        rows.append({**dict(zip(_TRAINING, values)), "reason": reasons.get((row["name"], cell.seed), "")})
    return rows


def provenance_rows(result: dict[str, Any], cells: Sequence[Cell], settings: dict[str, Any]) -> Rows:
    told = next((best_result(cell.trial) for cell in cells if cell.state == "succeeded"), {})
    searches = [
        f"{s['id']} {s['name']} ({s['with_result']} of {s['trials']} trials with a result)" for s in result["searches"]
    ]
    values = {
        "Searches": "; ".join(searches),
        "Confirmed by experiments": ", ".join(result["experiments"]),
        "Seeds": ", ".join(map(str, result["seeds"])),
        "Trial command": str(settings.get("trialCommand")),
        "Images": ", ".join(f"{result['configurations'][-1][s]['images']} {s}" for s in ("validation", "evaluation")),
        **made_with(told),
    }
    return [(label, [text]) for label, text in values.items()]


def write_result(folder: Path, result: dict[str, Any], cells: Sequence[Cell], settings: dict[str, Any]) -> Path:
    """Writes confirm.json, cells.csv and report.html; returns the page's path."""
    write_text(folder / "confirm.json", strict_json(result, indent=2) + "\n")
    rows = training_rows(result, cells)
    text = io.StringIO()
    writer = csv.DictWriter(text, [*_TRAINING, "reason"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(folder / "cells.csv", text.getvalue())
    write_text(folder / "report.html", render(result, rows, provenance_rows(result, cells, settings)))
    return folder / "report.html"


def render(result: dict[str, Any], trainings: list[dict[str, Any]], provenance: Rows) -> str:
    """The whole page as text. Autoescape is on; figures are data, never markup."""
    headline, _, details = result["statement"].partition(". ")
    return render_page(
        "confirm.html.j2",
        title=f"Confirmation of {', '.join(result['request']['experiments'])}",
        headline=headline.rstrip(".") + ".",
        details=details,
        notes=result["notes"],
        columns=COLUMNS,
        rows=configuration_rows(result),
        promise_columns=PROMISE_COLUMNS,
        promises=promise_rows(result),
        figures=_figures(result),
        trainings=[{"state": row["state"], "cells": _training_cells(row)} for row in trainings],
        provenance=provenance,
    )


def _training_cells(row: dict[str, Any]) -> list[str]:
    accuracies = [score_text(row[name], True) for name in ("val_accuracy", "evaluation_top1")]
    words = [row["experiment"], row["trial"], row["reason"]]
    return [row["configuration"], str(row["seed"]), row["state"], *accuracies, seconds_text(row["duration_s"]), *words]


def _figures(result: dict[str, Any]) -> list[dict[str, str]]:
    told = [
        (
            "Less the default",
            difference_figure(difference_rows(result), "less the default"),
            "A dot a seed: both were trained with it. The intervals hold together.",
        ),
        (
            "Promised and retrained",
            accuracy_figure(result),
            "The bars are 95 % t intervals of each mean over the seeds.",
        ),
    ]
    return [{"title": title, "json": script_json(figure), "caption": caption} for title, figure, caption in told]
