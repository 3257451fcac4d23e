"""The page of a confirmation and its files: confirm.json, cells.csv and report.html."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..reading.records import best_result
from ..reading.replication import Cell, write_text
from ..reading.values import strict_json
from ..render import formats, html
from ..render.document import Block, Document, Figure, Heading, Table
from ..stats.statement import statement_of
from . import facts, figures
from .confirmation_result import SPLITS, Result, accuracies


def _configurations_table(result: Result) -> Table:
    """One row per configuration, the default last."""
    rows = []
    for row in result["configurations"]:
        name = f"{row['name']} (chosen)" if row["name"] == result["chosen"] else row["name"]
        pairs = row["less_default"]
        difference = formats.NONE if pairs is None else formats.paired_text(pairs, pairs["p_adjusted"])
        validation, evaluation_text = (formats.spread_text(row[split]) for split in SPLITS)
        cells = [formats.params_text(row["parameters"]), validation, difference, evaluation_text]
        rows.append((name, [*cells, f"{row['n']} of {row['planned']}"]))
    columns = ["Hyperparameters", "Validation", "Minus the default, validation", "Evaluation", "Trainings"]
    return facts.rows_table(columns, rows, "Configuration")


def _screening_blocks(result: Result) -> list[Block]:
    """The first stage, where there was one."""
    screened = result["screening"]
    if not screened:
        return []
    rows = []
    for row in screened["configurations"]:
        name = f"{row['name']} (goes on)" if row["name"] == screened["chosen"] else row["name"]
        values = [formats.params_text(row["parameters"]), formats.spread_text(row["validation"])]
        rows.append((name, [*values, f"{row['n']} of {row['planned']}"]))
    return facts.section(
        "The first stage",
        facts.rows_table(["Hyperparameters", "Validation", "Trainings"], rows, "Configuration"),
        f"Seeds {', '.join(map(str, screened['seeds']))}: the best mean goes on, configurations with failed trainings after all "
        "others. Their evaluation was not looked at, and their trainings are in no number below.",
    )


def _optimism_table(result: Result) -> Table:
    """One row for each time that a search had a configuration among its top."""
    rows = []
    for row in result["configurations"]:
        for entry in row["optimism"]:
            realized = formats.signed_text(entry["realised"])
            if entry["interval"]:
                realized += f" ({formats.range_text(entry['interval'])}, n = {entry['n']})"
            values = [formats.number_text(entry["val_accuracy"]), formats.spread_text(row["validation"])]
            label = f"{row['name']}: rank {entry['rank']} of {entry['experiment']}"
            rows.append((label, [*values, realized]))
    columns = ["Validation in the search", "Retrained", "In the search minus retrained"]
    return facts.rows_table(columns, rows, "Configuration")


def difference_rows(result: Result) -> list[figures.SeedRow]:
    """Each tuned configuration minus the default on validation, then the chosen one on evaluation, paired by seed."""
    pairs = [(f"{row['name']}, validation", row["less_default"]) for row in result["configurations"][:-1]]
    pairs.append((f"{result['chosen']}, evaluation", result["evaluation"]))
    return [figures.difference_row(label, entry) for label, entry in pairs if entry is not None]


def accuracy_rows(result: Result) -> tuple[list[figures.SeedRow], list[tuple[str, float]]]:
    """Retrained validation accuracies with their 95 % t intervals, and those that the searches had: (label, value)."""
    retrained = [row for row in result["configurations"] if row["validation"]["mean"] is not None]
    rows = [figures.accuracy_row(row["name"], row["validation"]) for row in retrained]
    return rows, [(row["name"], entry["val_accuracy"]) for row in retrained for entry in row["optimism"]]


def _training_rows(result: Result, cells: Sequence[Cell]) -> list[dict[str, Any]]:
    """The rows of cells.csv, one per cell; accuracies as fractions, a missing value None: so is the evaluation of the first
    stage."""
    judged, rows = set(result["seeds"]), []
    for cell in cells:
        splits = {split: accuracies([cell], split).get(cell.seed) for split in SPLITS}
        rows.append(
            {
                "configuration": cell.configuration.name,
                "seed": cell.seed,
                "state": cell.state,
                "val_accuracy": splits["validation"],
                "evaluation_top1": splits["evaluation"] if cell.seed in judged else None,
                "duration_s": cell.trial.duration_s if cell.trial else None,
                "experiment": cell.experiment,
                "trial": cell.trial.trial_id if cell.trial else "",
                "reason": cell.failure,
            }
        )
    return rows


def confirmation_document(result: Result, cells: Sequence[Cell], settings: dict[str, Any]) -> Document:
    """The page; `settings` are NNI's, of the plan."""
    accuracies, in_search = accuracy_rows(result)
    differences = figures.difference_figure(difference_rows(result), "minus the default")
    bias = figures.accuracy_figure(accuracies, "validation accuracy", in_search, "in the search")
    blocks: list[Block] = [
        *_screening_blocks(result),
        *facts.section(
            "The configurations",
            _configurations_table(result),
            "Mean ± standard deviation over the seeds. Minus the default: paired by seed, with intervals and p that hold together "
            "(t; of several configurations Dunnett's); chosen is the best mean. The search chose by validation too, which favours "
            "the tuned configurations. The evaluation split steered nothing; of the configurations that were not chosen it is "
            "reported without a test.",
        ),
        *facts.section(
            "Paired differences to the default",
            Figure(differences),
            "A dot per seed: both were trained with it. The intervals hold together.",
        ),
        *facts.section(
            "Validation in the search and retrained",
            Figure(bias),
            "The bars are 95 % t intervals of each mean over the seeds.",
        ),
        *facts.section(
            "Selection bias of the searches",
            _optimism_table(result),
            "The search's accuracy minus the retrained mean, with the t interval over the seeds. Both are of the same validation "
            "images: what these images favour is in both, and only the evaluation split is free of it.",
        ),
        Heading("All trainings"),
        facts.trainings_table("configuration", _training_rows(result, cells)),
        Heading("Provenance"),
        _provenance(result, cells, settings),
    ]
    title = f"Confirmation of {', '.join(result['request']['experiments'])}"
    return Document(title, statement_of(result), tuple(result["notes"]), tuple(blocks))


def _provenance(result: Result, cells: Sequence[Cell], settings: dict[str, Any]) -> Table:
    searches = [
        f"{s['id']} {s['name']} ({s['with_result']} of {s['trials']} trials with a result)" for s in result["searches"]
    ]
    default = result["configurations"][-1]
    rows = {
        "Searches": "; ".join(searches),
        "Confirmed by experiments": ", ".join(dict.fromkeys(cell.experiment for cell in cells if cell.experiment)),
        "Seeds": ", ".join(map(str, result["seeds"])),
        "Trial command": str(settings.get("trialCommand")),
        "Images": ", ".join(f"{default[split]['images']} {split}" for split in SPLITS),
    }
    first = next((best_result(cell.trial) for cell in cells if cell.state == "succeeded"), {})
    return facts.provenance_table(rows, first)


def confirmation_summary(result: Result) -> Document:
    """What a terminal shows: the statement and the table of the configurations."""
    return Document("", statement_of(result), (), (_configurations_table(result),))


def write_confirmation(folder: Path, result: Result, cells: Sequence[Cell], settings: dict[str, Any]) -> Path:
    """Writes confirm.json, cells.csv and report.html; returns the page's path."""
    write_text(folder / "confirm.json", strict_json(result, indent=2) + "\n")
    rows = pd.DataFrame(_training_rows(result, cells))
    write_text(folder / "cells.csv", rows.to_csv(index=False, lineterminator="\n"))
    write_text(folder / "report.html", html.render(confirmation_document(result, cells, settings)))
    return folder / "report.html"
