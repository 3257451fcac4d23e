"""A headline and two sentences on a study: what can be concluded, and what cannot."""

from __future__ import annotations

from typing import Any

from .differences import MACRO, TOP1, fewest_pairs, shown
from .single import single_words
from .teacher import no_better
from .words import BY_KEY, difference_words, listed, range_text, signed_text

MEASURE = {TOP1: "top-1 accuracy", MACRO: "macro accuracy"}
ARTICLES = {"lr": "an", "step_size": "a"}


def statement(result: dict[str, Any]) -> tuple[str, str, str]:
    """(headline, what can be said, what cannot)."""
    rows = [row for row in result["differences"] if row["measure"] in result["judged"]]
    if not rows or all(row["n"] < 2 for row in rows):
        return (
            "Nothing can be concluded.",
            "No two seeds have a result under both arms.",
            "No difference can be estimated without pairs; train more seeds or mend what failed.",
        )
    found, still_open = [row for row in rows if shown(row)], [row for row in rows if not shown(row)]
    can = [f"{_what(result, row)}: {difference_words(row, BY_KEY[row['measure']])}" for row in found]
    told = (
        f"a difference is shown for {'; '.join(can)}"
        if can
        else f"no interval of paired differences of evaluation {_measures(result)} leaves out zero"
    )
    return _headline(result, found), _sentence([*single_words(result), told]), _cannot(result, rows, still_open)


def _headline(result: dict[str, Any], found: list[dict[str, Any]]) -> str:
    weak = no_better(result)
    if not found:
        note = ["the teacher is no better than its student"] if weak else []
        return _sentence([f"no difference in evaluation {_measures(result)} is shown", *note])
    better = []
    for name in dict.fromkeys(row["arm"] for row in found):
        own = [row for row in found if row["arm"] == name]
        words = {way: listed([MEASURE[r["measure"]] for r in own if r["mean"] * way > 0]) for way in (1, -1)}
        sides = [f"{word} in {words[way]}" for word, way in (("better", 1), ("worse", -1)) if words[way]]
        better.append(f"{_arm(result, name)} is {listed(sides)}")
    taught = ", taught by a teacher no better than itself" if weak else ""
    return _sentence([f"{listed(better)} than {_arm(result, result['reference'])} on the evaluation split{taught}"])


def _measures(result: dict[str, Any]) -> str:
    """The judged ones, "top-1 or macro accuracy"."""
    return " or ".join(MEASURE[key].removesuffix(" accuracy") for key in result["judged"]) + " accuracy"


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _arm(result: dict[str, Any], name: str) -> str:
    """Its name, as a noun where it is no more than the field's name and a value."""
    field = result["field"]
    if field not in ARTICLES or not name.startswith(f"{field} "):
        return name
    return f"{ARTICLES[field]} {field} of {name.removeprefix(field + ' ')}"


def _what(result: dict[str, Any], row: dict[str, Any]) -> str:
    return f"{_arm(result, row['arm'])} less {_arm(result, row['reference'])} ({BY_KEY[row['measure']].title.lower()})"


def _cannot(result: dict[str, Any], rows: list[dict[str, Any]], open_rows: list[dict[str, Any]]) -> str:
    """What the intervals leave open, and what this design cannot tell at all."""
    told = []
    for row in open_rows:
        measure = BY_KEY[row["measure"]]
        if row["low"] is None:
            told.append(
                f"{_what(result, row)} has no interval ({signed_text(row['mean'], measure)} in all {row['n']} pairs)"
            )
        else:
            told.append(f"{_what(result, row)} may be anything from {range_text(row, measure)} (n = {row['n']})")
    paired = {result["reference"], *(row["arm"] for row in result["differences"])}  # not the teacher
    seeds = min(arm["n"] for arm in result["arms"] if arm["name"] in paired)
    scope = f"it cannot be said what other images, settings or networks would show than {result['images']}, {seeds} seeds an arm"
    parts = [f"which way the difference goes stays open: {', '.join(told)}"] if told else []
    few = fewest_pairs(rows)
    return _sentence([*parts, scope]) + (f" {few_words(few)}" if few else "")


def few_words(few: dict[str, Any]) -> str:
    """What so few pairs cannot show, whatever their differences."""
    return (
        f"With {few['n']} pairs the exact sign-flip test cannot go below p = {few['p']:.3g}; the t intervals and their p take the "
        "differences to be normal, which so few cannot show."
    )
