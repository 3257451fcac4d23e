"""The result of a confirmation: from its trained cells to numbers and a statement, the content of confirm.json."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..reading.records import best_result, shared_photos, validation_n
from ..reading.replication import Cell, Configuration, ConfirmationPlan
from ..render import formats
from ..render.document import Statement
from ..stats.blocked import Contrast, contrasts, detectable, equivalence_of, is_shown_with_failures, lost_pairs
from ..stats.compare import evaluation
from ..stats.equivalence import MARGIN
from ..stats.paired import by_seed, paired, smallest_flip_p, spread
from ..stats.statement import DIFFERENCE, NO_DIFFERENCE, NOT_ESTIMABLE, fields

SPLITS = ("validation", "evaluation")

Result = dict[str, Any]


def screening(plan: ConfirmationPlan, cells: Sequence[Cell]) -> Result:
    """The first stage: what confirm.json has of it, and in `chosen` the configuration that goes on. The evaluation of its
    networks is not looked at."""
    rows = []
    for configuration in plan.configurations:
        own = [cell for cell in cells if cell.configuration.name == configuration.name]
        values = accuracies(own, "validation")
        rows.append(
            {
                "name": configuration.name,
                "parameters": configuration.parameters,
                "planned": len(own),
                "n": len(values),
                "validation": {**spread(values), "images": _images(own, "validation")},
            }
        )
    return {"seeds": list(plan.seeds), "configurations": rows, "chosen": _choose(rows), **_outcomes(cells)}


def _outcomes(cells: Sequence[Cell]) -> dict[str, Any]:
    states = ("succeeded", "failed", "missing")
    return {
        "experiments": list(dict.fromkeys(cell.experiment for cell in cells if cell.experiment)),
        "cells": {state: sum(cell.state == state for cell in cells) for state in states},
        "failed": [_failed(cell) for cell in cells if cell.state == "failed"],
    }


def confirmation_result(
    plan: ConfirmationPlan, cells: Sequence[Cell], margin: float = MARGIN, screened: Result | None = None
) -> Result:
    """The content of confirm.json. Accuracies are fractions; what cannot be estimated is None.

    In two stages the plan is that of the second, with one tuned configuration, and `screened` what `screening` returns of the
    first: no network that chose is judged. In one stage the tuned configuration is chosen by mean validation accuracy over the
    seeds, those with failed cells after all others, and the evaluation of the same networks is judged: what luck they had in
    training is chosen with them. So the intervals hold for all configurations together (Dunnett), whichever is chosen.
    """
    by_name = {c.name: [cell for cell in cells if cell.configuration.name == c.name] for c in plan.configurations}
    *tuned, default = plan.configurations
    rows = [_configuration(configuration, by_name[configuration.name]) for configuration in plan.configurations]
    apart = {split: _less_default([by_name[c.name] for c in tuned], by_name[default.name], split) for split in SPLITS}
    for row, difference in zip(rows[:-1], apart["validation"]):
        row["less_default"] = difference
    chosen = _choose(rows[:-1])
    judged = dict(zip(by_name, apart["evaluation"])).get(chosen)
    if judged is not None:
        judged |= _judged(judged, [by_name[chosen], by_name[default.name]], len(tuned), margin)
    result = {
        "request": plan.request,
        "searches": list(plan.searches),
        "screening": screened,
        "seeds": list(plan.seeds),
        "configurations": rows,
        "comparisons": len(tuned),
        "margin": margin,
        "chosen": chosen,
        "evaluation": judged,
        **_outcomes(cells),
        "notes": [
            *plan.notes,
            *dict.fromkeys(note for cell in cells for note in shared_photos(best_result(cell.trial))),
        ],
    }
    return result | fields(_confirmation_statement(result))


def _configuration(configuration: Configuration, cells: list[Cell]) -> dict[str, Any]:
    values = {split: accuracies(cells, split) for split in SPLITS}
    retrained = list(values["validation"].values())
    return {
        "name": configuration.name,
        "parameters": configuration.parameters,
        "planned": len(cells),
        "n": len(retrained),
        **{split: {**spread(values[split]), "images": _images(cells, split)} for split in SPLITS},
        "less_default": None,
        "optimism": [_optimism(search, retrained) for search in configuration.promises],
    }


def accuracies(cells: list[Cell], split: str) -> dict[int, float]:
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


def _optimism(search: dict[str, Any], retrained: list[float]) -> dict[str, Any]:
    """The search's validation accuracy minus the retrained mean, with the t interval that this mean gives it: what the
    search's seed and its choice had added on the same images. `search` is an entry of `Configuration.promises`."""
    realized = paired([search["val_accuracy"] - value for value in retrained])
    interval = None if realized is None or realized.low is None else [realized.low, realized.high]
    return {
        **search,
        "realised": None if realized is None else realized.mean,
        "interval": interval,
        "n": len(retrained),
    }


def _less_default(tuned: list[list[Cell]], default: list[Cell], split: str) -> list[dict[str, Any] | None]:
    """For each configuration the paired differences of the seeds that both have, or None."""
    reference, arms = accuracies(default, split), [accuracies(cells, split) for cells in tuned]
    entries = []
    for cells, values, contrast in zip(tuned, arms, contrasts(reference, arms)):
        apart = by_seed(values, reference)
        entries.append(None if contrast is None else _entry(contrast, apart, len(cells), len(tuned)))
    return entries


def _entry(contrast: Contrast, apart: dict[str, float], planned: int, comparisons: int) -> dict[str, Any]:
    ends = {key: max(-1.0, min(1.0, end)) for key in ("low", "high") if (end := getattr(contrast, key)) is not None}
    return {
        **contrast._asdict(),
        **ends,
        "claims": contrast.claims,
        "p_t_adjusted": None if contrast.p_t is None else contrast.p_adjusted,
        "p_flip_adjusted": min(1.0, comparisons * contrast.p_flip),
        "left_out": planned - len(apart),
        "by_seed": apart,
    }


def _judged(pairs: dict[str, Any], cells: list[list[Cell]], comparisons: int, margin: float) -> dict[str, Any]:
    """What the evaluation of the chosen configuration has more: the same with failed trainings counted against their
    configuration, whether the difference is shown to be small, and which difference so many seeds would show."""
    own, reference = (accuracies(one, "evaluation") for one in cells)
    differences = lost_pairs(own, reference, [cell.seed for cell in cells[0]])
    lost = paired(differences, comparisons) if differences else None
    small = equivalence_of(pairs, margin, comparisons)
    in_sd, error = detectable(pairs["n"], comparisons) if pairs["n"] > 1 else None, pairs["standard_error"]
    return {
        "with_failures": None if lost is None else lost._asdict(),
        "claims": pairs["claims"] and is_shown_with_failures(pairs["mean"], lost),
        "equivalence": None if small is None else small._asdict(),
        "detectable": None if in_sd is None or error is None else in_sd * error * math.sqrt(pairs["n"] / 2),
    }


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
    on the exact sign-flip test. Where trainings failed, a difference has to be shown with these counted too."""
    pairs, rows = result["evaluation"], {row["name"]: row for row in result["configurations"]}
    chosen, default = rows.get(result["chosen"]), result["configurations"][-1]
    if chosen is None or pairs is None:
        reason = "No tuned configuration has a result." if chosen is None else "No seed has a result of both."
        headline = "Nothing can be said about the tuned configuration."
        return Statement(NOT_ESTIMABLE, headline, (reason, *_failures(result)))
    word = _verdict(pairs)
    details = (
        _choice(result, chosen),
        _evaluation(result, chosen, default),
        *_too_few(pairs, word),
        *_counting_failures(pairs),
        *(_small(result) if word == NO_DIFFERENCE and pairs["with_failures"] is None else ()),
        *_pooling(pairs, result["comparisons"]),
        *_sign_flip(pairs, result["comparisons"]),
        *_selection_bias(chosen),
        *_default_leads(chosen, default),
        *_images_error(default),
        *_failures(result),
    )
    return Statement(word, _headline(word, pairs), details, pairs)


def _verdict(pairs: dict[str, Any]) -> str:
    if pairs["df"] < formats.FEWEST_FREEDOM:
        return NOT_ESTIMABLE
    return DIFFERENCE if pairs["claims"] else NO_DIFFERENCE


def _headline(word: str, pairs: dict[str, Any]) -> str:
    if word == NOT_ESTIMABLE:
        count = "one pair" if pairs["n"] == 1 else f"{pairs['n']} pairs"
        return f"Whether the tuned configuration is better than the default cannot be estimated from {count}."
    if word == NO_DIFFERENCE:
        return "No difference in evaluation accuracy between the tuned configuration and the default can be shown."
    better, other = ("tuned configuration", "default") if pairs["mean"] > 0 else ("default", "tuned configuration")
    return f"The {better} has higher evaluation accuracy than the {other}."


def _choice(result: Result, chosen: dict[str, Any]) -> str:
    count, how = result["comparisons"], "the only one"
    if screened := result["screening"]:
        seeds, judged = len(screened["seeds"]), len(result["seeds"])
        how = (
            f"chosen of {len(screened['configurations'])} by its mean validation accuracy over {seeds} seeds; it is judged by "
            f"{judged} others, which chose nothing"
        )
    elif count > 1:
        how = f"chosen of {count} by its mean validation accuracy"
    return f"Tuned is {chosen['name']} ({formats.params_text(chosen['parameters'])}), {how}."


def _evaluation(result: Result, chosen: dict[str, Any], default: dict[str, Any]) -> str:
    pairs, comparisons = result["evaluation"], result["comparisons"]
    own, other = (formats.mean_text(row["evaluation"]) for row in (chosen, default))
    text = f"On the evaluation split it has {own}, the default {other}: "
    if pairs["df"] < formats.FEWEST_FREEDOM or pairs["low"] is None:
        return f"{text}{formats.paired_text(pairs, pairs['p_adjusted'])}."
    method = "paired t" if comparisons == 1 else f"Dunnett's, for all {comparisons} configurations together"
    interval = f"95 % {formats.range_text((pairs['low'], pairs['high']))}, {method}, df = {pairs['df']}"
    difference = f"{formats.signed_text(pairs['mean'])} over {pairs['n']} paired seeds"
    return f"{text}{difference} ({interval}; p = {formats.p_text(pairs['p_adjusted'])})."


def _too_few(pairs: dict[str, Any], word: str) -> list[str]:
    if word != NOT_ESTIMABLE:
        return []
    return ["A difference is claimed from 4 pairs on, as `compare` claims one from 4 experiments of each on."]


def _counting_failures(pairs: dict[str, Any]) -> list[str]:
    lost = pairs["with_failures"]
    if lost is None:
        return []
    text = formats.signed_text(lost["mean"])
    if lost["low"] is not None:
        text += f" ({formats.range_text((lost['low'], lost['high']))})"
    return [
        "That is of the seeds whose trainings ended under both. With each failed training counted as a loss of its configuration, "
        f"by as much as the largest difference seen, it is {text} over {lost['n']}: a difference is shown only where both say so."
    ]


def _small(result: Result) -> list[str]:
    """Whether the difference is shown to be small; if not, which one so many seeds would have shown."""
    pairs, margin = result["evaluation"], formats.difference_text(result["margin"], True)
    small = pairs["equivalence"]
    if small is not None and small["holds"]:
        within = formats.range_text((small["low"], small["high"]))
        return [
            f"No difference greater than {margin}: it is within {within} (two one-sided tests, p = {formats.p_text(small['p'])})."
        ]
    sentences = [f"There is not enough data to say that the difference is below {margin}."]
    if pairs["detectable"] is not None:
        sentences.append(
            f"With {pairs['n']} seeds and the spread seen here, 80 % of confirmations would show a true difference of "
            f"{formats.difference_text(pairs['detectable'], True)}; smaller ones are mostly missed."
        )
    return sentences


def _pooling(pairs: dict[str, Any], comparisons: int) -> list[str]:
    if comparisons == 1 or pairs["p_t"] is None:
        return []
    if pairs["pooled"]:
        return [
            "The interval pools the scatter of all configurations, none of which is shown to be noisier than the others."
        ]
    return ["One configuration is noisier than the others or lacks pairs: the interval is by its own pairs."]


def _sign_flip(pairs: dict[str, Any], comparisons: int) -> list[str]:
    if pairs["df"] < formats.FEWEST_FREEDOM:
        return []
    times = f" (times {comparisons})" if comparisons > 1 else ""
    p = f"p = {formats.p_text(pairs['p_flip_adjusted'])}{times}"
    text = f"The exact sign-flip test, which does not assume normal differences, gives {p}"
    least = comparisons * smallest_flip_p(pairs["n"])
    if least < 0.05:
        return [f"{text}."]
    return [
        f"{text}; with {pairs['n']} pairs it cannot go below {min(1.0, least):.3g}, and so cannot show a difference."
    ]


def _selection_bias(chosen: dict[str, Any]) -> list[str]:
    if not chosen["optimism"] or chosen["optimism"][0]["realised"] is None:
        return []
    entry = chosen["optimism"][0]
    return [
        f"The search had {formats.number_text(entry['val_accuracy'])} on validation, retrained it has "
        f"{formats.mean_text(chosen['validation'])} on the same images: {formats.signed_text(entry['realised'])} came of the "
        "search's seed and of choosing by it."
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
    return [f"{len(result['failed'])} of {sum(result['cells'].values())} cells failed ({names})."]
