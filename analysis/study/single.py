"""The sentences that belong to one study alone: what stopping saved, the rare classes, convergence, a decay that never comes."""

from __future__ import annotations

import statistics
from typing import Any

from .differences import MACRO, TOP1, shown
from .teacher import gain_words, teacher_words
from .words import BY_KEY, difference_words, listed, signed_text, spread_text


def single_words(result: dict[str, Any]) -> list[str]:
    """Parts of a sentence, in the order that they are read."""
    told = {
        "early_stopping": stopping_words,
        "pretrained": lambda found: [*class_words(found), *convergence_words(found)],
        "balance": lambda found: [*_family_words(found), *class_words(found)],
        "step_size": decay_words,
        "distill": lambda found: [*teacher_words(found), *gain_words(found)],
    }
    own = told[result["study"]](result) if result["study"] in told else []
    return [*own, *_diverged_words(result)]


def stopping_words(result: dict[str, Any]) -> list[str]:
    """What was saved, pair by pair where a stopped training is the beginning of the full one; else by the intervals."""
    rows = {(row["measure"], row["arm"]): row for row in result["differences"]}
    told = []
    for found in result["prefixes"]:
        arm, n = found["arm"], found["pairs"]
        lengths = [rows[key, arm] for key in ("epochs_run", "duration_s") if (key, arm) in rows]
        if not n or len(lengths) < 2:
            continue
        if found["equal"] == n:
            saved = list(found["saved_epochs"].values())
            each = f"{', '.join(map(str, saved))} epochs (mean {statistics.fmean(saved):.1f})"
            told.append(
                f"{arm} stopped earlier in {sum(value > 0 for value in saved)} of {n} pairs, saving {each} and "
                f"{difference_words(_turned(lengths[1]), BY_KEY['duration_s']).lstrip('+')}"
            )
        else:
            apart = f"only {found['equal']} of {n} stopped trainings ({arm}) are the beginning of the full one, so that the arms"
            told.append(f"{apart} differ by more than the stopping: {' and '.join(map(_length, lengths))}")
        if found["same_weights"] or found["equal"] == n:
            same = f"the same weights were kept in {found['same_weights']} of {n} pairs"
            told.append(same + (", whose accuracies are therefore equal" if found["same_weights"] else ""))
    return told


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    """The reference less the arm."""
    if row["low"] is None:
        return {**row, "mean": -row["mean"]}
    return {**row, "mean": -row["mean"], "low": -row["high"], "high": -row["low"]}


def _length(row: dict[str, Any]) -> str:
    """A difference of epochs or seconds, judged on its own; without a spread it is the same in every pair."""
    measure = BY_KEY[row["measure"]]
    if row["low"] is None:
        return f"{signed_text(row['mean'], measure)} in {'each' if row['n'] > 1 else 'the one'} of {row['n']} pairs"
    word = ("shorter" if row["mean"] < 0 else "longer") if shown(row) else "not shown to differ"
    return f"{measure.title.lower()} {word}, {difference_words(row, measure)}"


def rank_words(rank: dict[str, Any], arm: str = "") -> str:
    """Whether the rare classes gain most."""
    what = "gain most" if rank["holds"] else "are not shown to gain most"
    return (
        f"the rare classes {what}{f' under {arm}' if arm else ''} (Spearman's rank correlation of training images and gain "
        f"{rho_text(rank['rho'])}, p = {rank['p']:.2g}, n = {rank['n']} classes)"
    )


def rho_text(rho: float) -> str:
    return f"{'−' if rho < 0 else '+'}{abs(rho):.2f}"


def class_words(result: dict[str, Any]) -> list[str]:
    """The rank verdict of each arm, the report's own beside it, and how many classes had no room."""
    entries = result["classes"]
    names = [entry["arm"] if len(entries) > 1 else "" for entry in entries]
    told = [rank_words(entry["rank"], name) for entry, name in zip(entries, names) if entry["rank"]]
    theirs = result["reported_rank"]
    if told and theirs:
        told.append(
            f"the report's own two tables give {rho_text(theirs['rho'])} (p = {theirs['p']:.2g}, n = {theirs['n']})"
        )
    full = max((entry["full"] for entry in entries), default=0)
    if told and full:
        n = len(entries[0]["rows"])
        told.append(
            f"{full} of {n} classes have 95 % or more {_under(result['reference'])} already, and little room to gain"
        )
    return told


def _under(name: str) -> str:
    return name if name.startswith("from ") else f"under {name}"


def convergence_words(result: dict[str, Any]) -> list[str]:
    """When each arm has 95 % of the accuracy of its last epoch, beside the report's epoch by eye."""
    measure, arms = BY_KEY["epoch_95"], {arm["name"]: arm for arm in result["arms"]}
    told = []
    for row in (row for row in result["differences"] if row["measure"] == "epoch_95"):
        before, after = (
            f"{spread_text(arms[row[key]]['epoch_95'], measure)} {row[key]}" for key in ("reference", "arm")
        )
        told.append(
            f"95 % of the last epoch's accuracy is first reached at epoch {before} and {after}, {difference_words(row, measure)}"
        )
    by_eye = result["reported"].get("converged_by_eye")
    if told and by_eye:
        told[-1] += f"; the report saw both converge at about epoch {by_eye}, by eye"
    return told


def decay_words(result: dict[str, Any]) -> list[str]:
    """Arms whose first decay lies at the end of the training or behind it."""
    never, epochs = result["never_decays"], (result["provenance"]["hyperparameters"] or {}).get("epochs")
    if not never:
        return []
    alike = ": one and the same training" if len(never) > 1 else ""
    return [f"in these {epochs} epochs the learning rate never decays under {listed(never)}{alike}"]


def _family_words(result: dict[str, Any]) -> list[str]:
    if result["judged"] == [TOP1]:
        return ["macro accuracy is top-1 accuracy here, as the evaluation split has as many images of each class"]
    number = sum(row["measure"] in (TOP1, MACRO) for row in result["differences"])
    return [f"the intervals and p values of top-1 and macro accuracy hold together, over all {number} comparisons"]


def _diverged_words(result: dict[str, Any]) -> list[str]:
    found = [f"{arm['diverged']} of {arm['n']} trainings of {arm['name']}" for arm in result["arms"] if arm["diverged"]]
    if not found:
        return []
    return [
        f"{listed(found)} diverged: their best epochs are in the accuracies, and epochs that they did not run are no saving"
    ]
