"""From the trained cells of a confirmation to its numbers: means, paired differences to the default, realised optimism."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..reading.provenance import best_result, shared_photos
from ..reading.replication import Cell, Configuration, ConfirmationPlan
from ..render.formats import validation_n
from ..stats.compare import evaluation
from ..stats.paired import by_seed, holm, mean_interval, paired, seeds_needed, spread

SPLITS = ("validation", "evaluation")


def result_of(plan: ConfirmationPlan, cells: Sequence[Cell]) -> dict[str, Any]:
    """The content of confirm.json but for the statement. Accuracies are fractions; what cannot be estimated is None.

    The tuned configuration is chosen by mean validation accuracy over the seeds, those with failed cells after all others.
    The networks it is chosen by are those that the evaluation judges: what luck they had in training is chosen with them.
    So the evaluation's interval is as wide as for all configurations together (Bonferroni), which holds whichever is chosen.
    """
    by_name = {c.name: [cell for cell in cells if cell.configuration is c] for c in plan.configurations}
    default, tuned = plan.configurations[-1], plan.configurations[:-1]
    rows = [_configuration(plan, c, by_name[c.name]) for c in plan.configurations]
    differences = {c.name: _less_default(by_name[c.name], by_name[default.name], len(tuned)) for c in tuned}
    _adjust([difference["validation"] for difference in differences.values()])
    for row in rows[:-1]:
        row["less_default"] = differences[row["name"]]["validation"]
    chosen = _choose(rows[:-1])
    return {
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


def _configuration(plan: ConfirmationPlan, configuration: Configuration, cells: list[Cell]) -> dict[str, Any]:
    values = {split: _accuracies(cells, split) for split in SPLITS}
    row = {
        "name": configuration.name,
        "parameters": configuration.parameters,
        "planned": len(cells),
        "n": len(values["validation"]),
        **{split: _spread(values[split], cells, split) for split in SPLITS},
        "less_default": None,
        "optimism": [],
    }
    expected = {search["id"]: search["expected_optimism"] for search in plan.searches}
    for promise in configuration.promises:
        row["optimism"].append(_optimism(promise, list(values["validation"].values()), expected))
    return row


def _accuracies(cells: list[Cell], split: str) -> dict[int, float]:
    """{seed: accuracy} of the cells that have one."""
    found = {}
    for cell in cells:
        if cell.state != "succeeded" or cell.trial is None:
            continue
        judged = evaluation(cell.trial) if split == "evaluation" else {"top1": cell.trial.score}
        if judged is not None and judged["top1"] is not None:
            found[cell.seed] = judged["top1"]
    return found


def _spread(values: dict[int, float], cells: list[Cell], split: str) -> dict[str, Any]:
    """As `paired.spread` tells it; `images` is the number behind each accuracy."""
    trials = [cell.trial for cell in cells if cell.state == "succeeded" and cell.trial is not None]
    images = [validation_n(t) if split == "validation" else (evaluation(t) or {}).get("n") for t in trials]
    return {**spread(values), "images": images[0] if images else None}


def _optimism(promise: dict[str, Any], retrained: list[float], expected: dict[str, Any]) -> dict[str, Any]:
    """What the search promised less what retraining found, with the t interval that the retrained mean gives it. `expected`
    is told of the best of a search only: it is that of a maximum."""
    realised = paired([promise["val_accuracy"] - value for value in retrained])
    interval = None if realised is None or realised.low is None else [realised.low, realised.high]
    return {
        **promise,
        "realised": None if realised is None else realised.mean,
        "interval": interval,
        "n": len(retrained),
        "expected": expected.get(promise["experiment"]) if promise["rank"] == 1 else None,
    }


def _less_default(own: list[Cell], default: list[Cell], comparisons: int) -> dict[str, dict[str, Any] | None]:
    """For each split the paired differences of the seeds that have both, or None. The evaluation's p values are multiplied
    by the number of comparisons; `alone` is its interval as if there were one, and `seeds_needed` for an answer."""
    found: dict[str, dict[str, Any] | None] = dict.fromkeys(SPLITS)
    for split in SPLITS:
        differences = by_seed(_accuracies(own, split), _accuracies(default, split))
        pairs = paired(list(differences.values()), comparisons)
        if pairs is None:
            continue
        found[split] = {**pairs._asdict(), "left_out": len(own) - len(differences), "by_seed": differences}
        if split == "evaluation":
            interval = mean_interval(list(differences.values()))
            p_values = {f"p_{test}": found[split][f"p_{test}"] for test in ("t", "flip")}
            adjusted = {f"{k}_adjusted": None if p is None else min(1.0, comparisons * p) for k, p in p_values.items()}
            found[split] |= {**adjusted, "alone": interval, "seeds_needed": seeds_needed(pairs, comparisons)}
    return found


def _adjust(differences: list[dict[str, Any] | None]) -> None:
    """Holm over the comparisons that have a p; adds `p_t_adjusted` and `p_flip_adjusted`."""
    for test in ("t", "flip"):
        tested = [d for d in differences if d is not None and d[f"p_{test}"] is not None]
        for difference in (d for d in differences if d is not None):
            difference[f"p_{test}_adjusted"] = None
        for difference, p in zip(tested, holm([d[f"p_{test}"] for d in tested])):
            difference[f"p_{test}_adjusted"] = p


def _choose(rows: list[dict[str, Any]]) -> str | None:
    """The earliest, that is the best ranked, among equals."""
    found = [row for row in rows if row["n"]]
    best = max(found, key=lambda row: (row["n"] == row["planned"], row["validation"]["mean"]), default=None)
    return None if best is None else best["name"]


def _failed(cell: Cell) -> dict[str, Any]:
    return {
        "configuration": cell.configuration.name,
        "seed": cell.seed,
        "experiment": cell.experiment,
        "trial": cell.trial.trial_id if cell.trial else None,
        "reason": cell.failure,
    }
