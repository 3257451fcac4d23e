"""The result of a confirmation: from its trained cells to numbers, a statement, a page and files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from ..reading.records import best_result, shared_photos, validation_n
from ..reading.replication import Cell, Configuration, ConfirmationPlan, write_text
from ..reading.values import strict_json
from ..render import formats, html
from ..render.document import Block, Document, Figure, Heading, Statement, Table
from ..stats.compare import evaluation
from ..stats.paired import by_seed, holm, mean_interval, paired, seeds_needed, smallest_flip_p, spread
from ..stats.statement import DIFFERENCE, NO_DIFFERENCE, NOT_ESTIMABLE, fields, statement_of
from . import facts, figures

SPLITS = ("validation", "evaluation")

Result = dict[str, Any]


def confirmation_result(plan: ConfirmationPlan, cells: Sequence[Cell]) -> Result:
    """The content of confirm.json. Accuracies are fractions; what cannot be estimated is None.

    The tuned configuration is chosen by mean validation accuracy over the seeds, those with failed cells after all others.
    The networks it is chosen by are those that the evaluation judges: what luck they had in training is chosen with them.
    So the evaluation's interval is as wide as for all configurations together (Bonferroni), which holds whichever is chosen.
    """
    by_name = {c.name: [cell for cell in cells if cell.configuration.name == c.name] for c in plan.configurations}
    *tuned, default = plan.configurations
    rows = [_configuration(plan, configuration, by_name[configuration.name]) for configuration in plan.configurations]
    differences = {c.name: _less_default(by_name[c.name], by_name[default.name], len(tuned)) for c in tuned}
    _adjust([difference["validation"] for difference in differences.values()])
    for row in rows[:-1]:
        row["less_default"] = differences[row["name"]]["validation"]
    chosen = _choose(rows[:-1])
    result = {
        "request": plan.request,
        "searches": list(plan.searches),
        "seeds": list(plan.seeds),
        "experiments": list(dict.fromkeys(cell.experiment for cell in cells if cell.experiment)),
        "cells": {state: sum(cell.state == state for cell in cells) for state in ("succeeded", "failed", "missing")},
        "configurations": rows,
        "comparisons": len(tuned),
        "chosen": chosen,
        "evaluation": None if chosen is None else differences[chosen]["evaluation"],
        "failed": [_failed(cell) for cell in cells if cell.state == "failed"],
        "notes": [
            *plan.notes,
            *dict.fromkeys(note for cell in cells for note in shared_photos(best_result(cell.trial))),
        ],
    }
    return result | fields(_confirmation_statement(result))


def _configuration(plan: ConfirmationPlan, configuration: Configuration, cells: list[Cell]) -> dict[str, Any]:
    values = {split: _accuracies(cells, split) for split in SPLITS}
    retrained = list(values["validation"].values())
    expected = {search["id"]: search["expected_optimism"] for search in plan.searches}
    return {
        "name": configuration.name,
        "parameters": configuration.parameters,
        "planned": len(cells),
        "n": len(retrained),
        **{split: {**spread(values[split]), "images": _images(cells, split)} for split in SPLITS},
        "less_default": None,
        "optimism": [_optimism(search, retrained, expected) for search in configuration.promises],
    }


def _accuracies(cells: list[Cell], split: str) -> dict[int, float]:
    """{seed: accuracy} of the cells that have one."""
    values = {}
    for cell in cells:
        if cell.state != "succeeded" or cell.trial is None:
            continue
        value = cell.trial.score if split == "validation" else (evaluation(cell.trial) or {}).get("top1")
        if value is not None:
            values[cell.seed] = value
    return values


def _images(cells: list[Cell], split: str) -> int | None:
    """The number of images behind each accuracy."""
    trial = next((cell.trial for cell in cells if cell.state == "succeeded" and cell.trial is not None), None)
    if trial is None:
        return None
    return validation_n(trial) if split == "validation" else (evaluation(trial) or {}).get("n")


def _optimism(search: dict[str, Any], retrained: list[float], expected: dict[str, Any]) -> dict[str, Any]:
    """The search's validation accuracy minus the retrained mean, with the t interval that this mean gives it. `search` is an
    entry of `Configuration.promises`; `expected` is of the best of a search only: it is that of a maximum."""
    realized = paired([search["val_accuracy"] - value for value in retrained])
    interval = None if realized is None or realized.low is None else [realized.low, realized.high]
    return {
        **search,
        "realised": None if realized is None else realized.mean,
        "interval": interval,
        "n": len(retrained),
        "expected": expected.get(search["experiment"]) if search["rank"] == 1 else None,
    }


def _less_default(own: list[Cell], default: list[Cell], comparisons: int) -> dict[str, dict[str, Any] | None]:
    """For each split the paired differences of the seeds that have both, or None. The evaluation's p values are multiplied
    by the number of comparisons; `alone` is its interval as if there were one, and `seeds_needed` for an answer."""
    entries: dict[str, dict[str, Any] | None] = dict.fromkeys(SPLITS)
    for split in SPLITS:
        differences = by_seed(_accuracies(own, split), _accuracies(default, split))
        pairs = paired(list(differences.values()), comparisons)
        if pairs is None:
            continue
        entry = {**pairs._asdict(), "left_out": len(own) - len(differences), "by_seed": differences}
        if split == "evaluation":
            for key in ("p_t", "p_flip"):
                entry[f"{key}_adjusted"] = None if entry[key] is None else min(1.0, comparisons * entry[key])
            entry["alone"] = mean_interval(list(differences.values()))
            entry["seeds_needed"] = seeds_needed(pairs, comparisons)
        entries[split] = entry
    return entries


def _adjust(differences: list[dict[str, Any] | None]) -> None:
    """Holm over the comparisons that have a p; adds `p_t_adjusted` and `p_flip_adjusted`."""
    for key in ("p_t", "p_flip"):
        present = [difference for difference in differences if difference is not None]
        with_p = [difference for difference in present if difference[key] is not None]
        for difference in present:
            difference[f"{key}_adjusted"] = None
        for difference, p in zip(with_p, holm([difference[key] for difference in with_p]), strict=True):
            difference[f"{key}_adjusted"] = p


def _choose(rows: list[dict[str, Any]]) -> str | None:
    """The earliest, that is the best ranked, among equals."""
    candidates = [row for row in rows if row["n"]]
    best = max(candidates, key=lambda row: (row["n"] == row["planned"], row["validation"]["mean"]), default=None)
    return None if best is None else best["name"]


def _failed(cell: Cell) -> dict[str, Any]:
    return {
        "configuration": cell.configuration.name,
        "seed": cell.seed,
        "experiment": cell.experiment,
        "trial": cell.trial.trial_id if cell.trial else None,
        "reason": cell.failure,
    }


def _confirmation_statement(result: Result) -> Statement:
    """It rests on the t interval of the evaluation's paired differences; where all differences are equal and there is none,
    on the exact sign-flip test."""
    pairs, rows = result["evaluation"], {row["name"]: row for row in result["configurations"]}
    chosen, default = rows.get(result["chosen"]), result["configurations"][-1]
    if chosen is None or pairs is None:
        reason = "No tuned configuration has a result." if chosen is None else "No seed has a result of both."
        headline = "Nothing can be said about the tuned configuration."
        return Statement(NOT_ESTIMABLE, headline, (reason, *_failures(result)))
    word, comparisons = _verdict(pairs), result["comparisons"]
    details = (
        _choice(chosen, comparisons),
        _evaluation(chosen, default, pairs, comparisons),
        *(_more_seeds(pairs, comparisons) if word == NO_DIFFERENCE else ()),
        _sign_flip(pairs, comparisons),
        *_selection_bias(chosen),
        *_default_leads(chosen, default),
        *_images_error(default),
        *_failures(result),
    )
    return Statement(word, _headline(word, pairs), details, pairs)


def _verdict(pairs: dict[str, Any]) -> str:
    if pairs["n"] < 2:
        return NOT_ESTIMABLE
    if pairs["low"] is None:
        return DIFFERENCE if pairs["p_flip_adjusted"] < 0.05 else NO_DIFFERENCE
    return NO_DIFFERENCE if pairs["low"] <= 0 <= pairs["high"] else DIFFERENCE


def _headline(word: str, pairs: dict[str, Any]) -> str:
    if word == NOT_ESTIMABLE:
        return "Whether the tuned configuration is better than the default cannot be estimated from one pair."
    if word == NO_DIFFERENCE:
        return "No difference in evaluation accuracy between the tuned configuration and the default can be shown."
    better, other = ("tuned configuration", "default") if pairs["mean"] > 0 else ("default", "tuned configuration")
    return f"The {better} has higher evaluation accuracy than the {other}."


def _choice(chosen: dict[str, Any], comparisons: int) -> str:
    how = f"chosen of {comparisons} by its mean validation accuracy" if comparisons > 1 else "the only one"
    return f"Tuned is {chosen['name']} ({formats.params_text(chosen['parameters'])}), {how}."


def _evaluation(chosen: dict[str, Any], default: dict[str, Any], pairs: dict[str, Any], comparisons: int) -> str:
    own, other = (formats.mean_text(row["evaluation"]) for row in (chosen, default))
    difference = f"{formats.signed_text(pairs['mean'])} over {pairs['n']} paired seeds"
    text = f"On the evaluation split it has {own}, the default {other}: {difference}"
    if pairs["low"] is None:
        return text + ("; all differences are equal, so that they have no interval." if pairs["n"] > 1 else ".")
    together = f", wide enough for all {comparisons} configurations together" if comparisons > 1 else ""
    multiplied = f", multiplied by the {comparisons}" if comparisons > 1 else ""
    interval = f"95 % {formats.range_text((pairs['low'], pairs['high']))}, paired t, df = {pairs['df']}{together}"
    return f"{text} ({interval}; p = {formats.p_text(pairs['p_t_adjusted'])}{multiplied})."


def _more_seeds(pairs: dict[str, Any], comparisons: int) -> list[str]:
    """What would answer, where the difference is too large to be called none and too uncertain to be shown."""
    if pairs["seeds_needed"] is None or pairs["seeds_needed"] <= pairs["n"]:
        return []
    text = f"At this size and spread it would have taken about {pairs['seeds_needed']} seeds to show it"
    if comparisons > 1 and not pairs["alone"][0] <= 0 <= pairs["alone"][1]:
        text += (
            f", fewer with --top 1: as the only comparison, its interval would be {formats.range_text(pairs['alone'])}"
        )
    return [f"{text}."]


def _sign_flip(pairs: dict[str, Any], comparisons: int) -> str:
    times = f" (times {comparisons})" if comparisons > 1 else ""
    p = f"p = {formats.p_text(pairs['p_flip_adjusted'])}{times}"
    text = f"The exact sign-flip test, which does not assume normal differences, gives {p}"
    least = comparisons * smallest_flip_p(pairs["n"])
    if least < 0.05:
        return f"{text}."
    return f"{text}; with {pairs['n']} pairs it cannot go below {min(1.0, least):.3g}, and so cannot show a difference."


def _selection_bias(chosen: dict[str, Any]) -> list[str]:
    if not chosen["optimism"] or chosen["optimism"][0]["realised"] is None:
        return []
    entry = chosen["optimism"][0]
    expected = ""
    if entry["expected"] is not None:
        expected = f"; expected from the search's own trials: {formats.signed_text(entry['expected'])}"
    return [
        f"The search had {formats.number_text(entry['val_accuracy'])} on validation, retrained it has {formats.mean_text(chosen['validation'])}: "
        f"the realized optimism is {formats.signed_text(entry['realised'])}{expected}."
    ]


def _default_leads(chosen: dict[str, Any], default: dict[str, Any]) -> list[str]:
    own, other = (row["validation"]["mean"] for row in (chosen, default))
    if other is None or other < own:
        return []
    return ["The default's mean validation accuracy is at least that of every tuned configuration."]


def _images_error(default: dict[str, Any]) -> list[str]:
    values = default["evaluation"]
    if not values["images"] or values["mean"] is None:
        return []
    error = math.sqrt(values["mean"] * (1 - values["mean"]) / values["images"])
    return [
        f"The intervals are over seeds, on these {values['images']} images; a single accuracy on that many images has a standard "
        f"error of {formats.difference_text(error, True)}, most of which is common to both of a pair."
    ]


def _failures(result: Result) -> list[str]:
    if not result["failed"]:
        return []
    names = ", ".join(f"{cell['configuration']} seed {cell['seed']}" for cell in result["failed"])
    return [
        f"{len(result['failed'])} of {sum(result['cells'].values())} cells failed ({names}); a seed that lacks one of a pair is "
        "left out."
    ]


def _configurations_table(result: Result) -> Table:
    """One row per configuration, the default last."""
    rows = []
    for row in result["configurations"]:
        name = f"{row['name']} (chosen)" if row["name"] == result["chosen"] else row["name"]
        pairs = row["less_default"]
        difference = formats.NONE if pairs is None else formats.paired_text(pairs, pairs["p_t_adjusted"])
        validation, evaluation_text = (formats.spread_text(row[split]) for split in SPLITS)
        cells = [formats.params_text(row["parameters"]), validation, difference, evaluation_text]
        rows.append((name, [*cells, f"{row['n']} of {row['planned']}"]))
    columns = ["Hyperparameters", "Validation", "Minus the default, validation", "Evaluation", "Trainings"]
    return facts.rows_table(columns, rows, "Configuration")


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
            rows.append((label, [*values, realized, formats.signed_text(entry["expected"])]))
    columns = ["Validation in the search", "Retrained", "Realized optimism", "Expected optimism"]
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
    """The rows of cells.csv, one per cell; accuracies as fractions, a missing value None."""
    by_name = {row["name"]: row for row in result["configurations"]}
    return [
        {
            "configuration": cell.configuration.name,
            "seed": cell.seed,
            "state": cell.state,
            "val_accuracy": by_name[cell.configuration.name]["validation"]["by_seed"].get(str(cell.seed)),
            "evaluation_top1": by_name[cell.configuration.name]["evaluation"]["by_seed"].get(str(cell.seed)),
            "duration_s": cell.trial.duration_s if cell.trial else None,
            "experiment": cell.experiment,
            "trial": cell.trial.trial_id if cell.trial else "",
            "reason": cell.failure,
        }
        for cell in cells
    ]


def confirmation_document(result: Result, cells: Sequence[Cell], settings: dict[str, Any]) -> Document:
    """The page; `settings` are NNI's, of the plan."""
    accuracies, in_search = accuracy_rows(result)
    differences = figures.difference_figure(difference_rows(result), "minus the default")
    bias = figures.accuracy_figure(accuracies, "validation accuracy", in_search, "in the search")
    blocks: list[Block] = [
        *facts.section(
            "The configurations",
            _configurations_table(result),
            "Mean ± standard deviation over the seeds. Minus the default: paired by seed, with intervals that hold together with "
            "95 % (t, Bonferroni) and p after Holm; chosen is the best mean. The search chose by validation too, which favours the "
            "tuned configurations. The evaluation split steered nothing; of the configurations that were not chosen it is "
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
            "Realized optimism is the search's accuracy minus the retrained mean, with the t interval over the seeds: the best of "
            "many trials was chosen on the images that its accuracy is of. Expected optimism is estimated from the search's own "
            "trials, for its best one.",
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
        "Confirmed by experiments": ", ".join(result["experiments"]),
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
