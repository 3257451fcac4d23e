"""The result of a study as tables, a page and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..page.report import render_page
from ..reading.provenance import shared_photos
from ..reading.replication import write_text
from ..reading.values import strict_json
from ..render.formats import NONE, optional
from .arms import MEASURES
from .figures import figures
from .files import RESULT
from .losses import loss_rows
from .made import TRAINING_COLUMNS, provenance_rows, training_cells
from .reported import reported_arm, same_classes
from .single import rank_words
from .words import TITLES, difference_words, number_text, spread_text

Rows = list[tuple[str, list[str]]]


def arm_rows(result: dict[str, Any]) -> Rows:
    """One row a measure, a cell an arm."""
    diverged = {arm["name"]: arm.get("diverged") for arm in result["arms"]}  # None: an older study.json does not tell
    cells = [
        f"{arm['n']} of {arm['planned']}" + (f", {diverged[arm['name']]} diverged" if diverged[arm["name"]] else "")
        for arm in result["arms"]
    ]
    rows = [("Trainings with a result", cells)]
    rows += [(m.title, [spread_text(arm[m.key], m) for arm in result["arms"]]) for m in MEASURES]
    return rows + loss_rows(result)


def compared(result: dict[str, Any]) -> list[str]:
    """Names of the arms that have a difference to the reference."""
    return list(dict.fromkeys(row["arm"] for row in result["differences"]))


def difference_table(result: dict[str, Any]) -> Rows:
    """One row a measure, a cell an arm beside the reference."""
    found = {(row["measure"], row["arm"]): row for row in result["differences"]}
    return [
        (
            m.title,
            [difference_words(found[m.key, name], m) if (m.key, name) in found else NONE for name in compared(result)],
        )
        for m in MEASURES
    ]


def class_table(result: dict[str, Any], entry: dict[str, Any]) -> tuple[str, list[str], Rows]:
    """Title, columns and rows of the accuracy by class, the report's numbers beside ours where it has them."""
    values = {arm["name"]: arm["value"] for arm in result["arms"]}
    theirs = [
        reported_arm(result["reported"], values[name]).get("per_class", [])
        for name in (result["reference"], entry["arm"])
    ]
    told = all(theirs) and same_classes(result["reported"], entry["rows"])
    columns = ["Training images", result["reference"], entry["arm"], "Gain", *(["Gain in the report"] if told else [])]
    rows = []
    for row in entry["rows"]:
        cells = [
            optional(row["training"]),
            _part(row["reference"]),
            _part(row["arm"]),
            f"{100 * row['gain']:+.1f} points",
        ]
        if told:
            (r0, t0), (r1, t1) = (table[row["id"]] if row["id"] < len(table) else (0, 0) for table in theirs)
            cells.append(f"{100 * (r1 / t1 - r0 / t0):+.1f} points" if t0 and t1 else NONE)
        rows.append((f"class {row['id']} {row['class']}", [cell.replace("-", "−") for cell in cells]))
    return f"By class: {entry['arm']}", columns, rows


def _part(found: dict[str, int]) -> str:
    return f"{found['correct']}/{found['total']} {100 * found['correct'] / found['total']:.0f} %"


def reported_rows(result: dict[str, Any]) -> Rows:
    """One row a number that the report tells, ours beside it; a cell an arm."""
    told = [reported_arm(result["reported"], arm["value"]) for arm in result["arms"]]
    rows: Rows = []
    for measure in MEASURES:
        if any(measure.key in arm for arm in told):
            rows.append((f"{measure.title}: report", [_reported(arm.get(measure.key), measure) for arm in told]))
            rows.append((f"{measure.title}: ours", [spread_text(arm[measure.key], measure) for arm in result["arms"]]))
    for key, title in (("curve", "Accuracy read off a curve: report"), ("curve_loss", "Loss read off a curve: report")):
        if any(key in arm for arm in told):
            rows.append((title, [arm.get(key, NONE) for arm in told]))
    return rows


def _reported(value: Any, measure: Any) -> str:
    if value is None:
        return NONE
    if isinstance(value, list):
        return f"{value[0]}/{value[1]} {100 * value[0] / value[1]:.1f} %"
    return f"{number_text(value, measure)} (n = 1)"


def write_result(folder: Path, result: dict[str, Any]) -> Path:
    """Writes study.json and report.html; returns the page's path."""
    write_text(folder / RESULT, strict_json(result, indent=2) + "\n")
    write_text(folder / "report.html", render(result))
    return folder / "report.html"


def render(result: dict[str, Any]) -> str:
    """The whole page as text. Autoescape is on; figures are data, never markup."""
    names = [arm["name"] for arm in result["arms"]]
    return render_page(
        "study.html.j2",
        title=TITLES[result["study"]],
        study=result["study"],
        headline=result["headline"],
        details=f"{result['can']} {result['cannot']}",
        notes=shared_photos(result["provenance"]),
        reference=result["reference"],
        arm_columns=names,
        arm_rows=arm_rows(result),
        difference_columns=compared(result),
        difference_rows=[row for row in difference_table(result) if set(row[1]) != {NONE}],
        figures=figures(result),
        prefixes=[(row["arm"], _prefix_cells(row)) for row in result["prefixes"]],
        classes=[(*class_table(result, entry), _rank(entry)) for entry in result["classes"]],
        reported=result["reported"],
        reported_columns=names,
        reported_rows=reported_rows(result),
        images=result["images"],
        training_columns=TRAINING_COLUMNS,
        experiments=result["experiments"],
        trainings=[{"state": row["state"], "cells": training_cells(result, row)} for row in result["trainings"]],
        provenance=provenance_rows(result),
    )


def _rank(entry: dict[str, Any]) -> str | None:
    """Whether the rare classes gain most; None where that is not told, as by an older study.json."""
    return f"T{rank_words(entry['rank'])[1:]}." if entry.get("rank") else None


def _prefix_cells(row: dict[str, Any]) -> list[str]:
    largest = row["largest_difference"]
    return [str(row["pairs"]), str(row["equal"]), NONE if largest is None else f"{100 * largest:.2f} points"]
