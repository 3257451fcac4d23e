"""Two sentences on a study: what can be concluded, and what cannot."""

from __future__ import annotations

from typing import Any

from .study_arms import shown
from .study_words import BY_KEY, difference_words, range_text, signed_text

JUDGED = "evaluation_top1"
"""What the sentences rest on; balance, which is about the rare classes, is judged by the macro accuracy too."""


def statement(result: dict[str, Any]) -> tuple[str, str]:
    """(what can be said, what cannot)."""
    keys = [JUDGED, *(["evaluation_macro"] if result["study"] == "balance" else [])]
    rows = [row for row in result["differences"] if row["measure"] in keys]
    if not rows or all(row["n"] < 2 for row in rows):
        return (
            "Nothing can be concluded: no two seeds have a result under both arms.",
            "No difference can be estimated without pairs; train more seeds or mend what failed.",
        )
    can = [f"{_what(row)}: {difference_words(row, BY_KEY[row['measure']])}" for row in rows if shown(row)]
    parts = [f"a difference is shown for {'; '.join(can)}" if can else "no difference in accuracy is shown"]
    parts = [*_extras(result), *parts]
    sentence = "; ".join(parts) + "."
    return sentence[0].upper() + sentence[1:], _cannot(result, [row for row in rows if not shown(row)])


def _what(row: dict[str, Any]) -> str:
    return f"{row['arm']} less {row['reference']} ({BY_KEY[row['measure']].title.lower()})"


def _extras(result: dict[str, Any]) -> list[str]:
    """What belongs to the one study alone."""
    rows = {(row["measure"], row["arm"]): row for row in result["differences"]}
    told = []
    if result["study"] == "early_stopping":
        for arm in result["arms"][1:]:
            for key, noun in (("epochs_run", "a training"), ("duration_s", "a training")):
                if row := rows.get((key, arm["name"])):
                    word = "changes the length of" if shown(row) else "is not shown to change the length of"
                    told.append(f"{arm['name']} {word} {noun} by {difference_words(row, BY_KEY[key])}")
    if result["rare_classes"] is not None:
        told.append(rank_words(result["rare_classes"]))
    return told


def rank_words(rank: dict[str, Any]) -> str:
    """Whether the rare classes gain most."""
    what = "gain most" if rank["holds"] else "are not shown to gain most"
    sign = "−" if rank["rho"] < 0 else "+"
    return (
        f"the rare classes {what} (Spearman's rank correlation of training images and gain {sign}{abs(rank['rho']):.2f}, "
        f"p = {rank['p']:.2g}, n = {rank['n']} classes)"
    )


def _cannot(result: dict[str, Any], open_rows: list[dict[str, Any]]) -> str:
    """What the intervals leave open, and what this design cannot tell at all."""
    told = []
    for row in open_rows:
        measure = BY_KEY[row["measure"]]
        if row["low"] is None:
            told.append(f"{_what(row)} has no interval ({signed_text(row['mean'], measure)}, n = {row['n']})")
        else:
            told.append(f"{_what(row)} may be anything from {range_text(row, measure)} (n = {row['n']})")
    scope = f"what other images or settings would show: {result['images']}"
    scope += f", {min(arm['n'] for arm in result['arms'])} seeds an arm"
    parts = (
        [f"it stays open which way the difference goes where the interval spans zero: {'; '.join(told)}"]
        if told
        else []
    )
    sentence = "; and ".join([*parts, f"it cannot be said {scope}"])
    return sentence[0].upper() + sentence[1:] + "."
