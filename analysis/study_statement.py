"""A headline and two sentences on a study: what can be concluded, and what cannot."""

from __future__ import annotations

from typing import Any

from .study_arms import shown
from .study_words import BY_KEY, difference_words, range_text, signed_text, spread_text

JUDGED = "evaluation_top1"
"""What the sentences rest on; balance, which is about the rare classes, is judged by the macro accuracy too."""


def statement(result: dict[str, Any]) -> tuple[str, str, str]:
    """(headline, what can be said, what cannot)."""
    keys = [JUDGED, *(["evaluation_macro"] if result["study"] == "balance" else [])]
    rows = [row for row in result["differences"] if row["measure"] in keys]
    if not rows or all(row["n"] < 2 for row in rows):
        return (
            "Nothing can be concluded.",
            "No two seeds have a result under both arms.",
            "No difference can be estimated without pairs; train more seeds or mend what failed.",
        )
    found, still_open = [row for row in rows if shown(row)], [row for row in rows if not shown(row)]
    headline = "No difference in evaluation accuracy is shown."
    if found:
        better = [f"{row['arm']} is {'better' if row['mean'] > 0 else 'worse'}" for row in found]
        headline = _sentence(
            [f"{' and '.join(dict.fromkeys(better))} than {result['reference']} on the evaluation split"]
        )
    can = [f"{_what(row)}: {difference_words(row, BY_KEY[row['measure']])}" for row in found]
    told = (
        f"a difference is shown for {'; '.join(can)}"
        if can
        else "no interval of paired evaluation accuracies leaves out zero"
    )
    return headline, _sentence([*_extras(result), told]), _cannot(result, still_open)


def _sentence(parts: list[str]) -> str:
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."


def _what(row: dict[str, Any]) -> str:
    return f"{row['arm']} less {row['reference']} ({BY_KEY[row['measure']].title.lower()})"


def _extras(result: dict[str, Any]) -> list[str]:
    """What belongs to the one study alone."""
    rows = {(row["measure"], row["arm"]): row for row in result["differences"]}
    told = []
    if result["study"] == "early_stopping":
        for arm in result["arms"][1:]:
            found = [rows[key, arm["name"]] for key in ("epochs_run", "duration_s") if (key, arm["name"]) in rows]
            if found:
                word = "changes" if shown(found[0]) else "is not shown to change"
                lengths = " and ".join(difference_words(row, BY_KEY[row["measure"]]) for row in found)
                told.append(f"{arm['name']} {word} the length of a training: {lengths}")
    if result["rare_classes"] is not None:
        told.append(rank_words(result["rare_classes"]))
    return [*told, *_teacher_words(result)]


def _teacher_words(result: dict[str, Any]) -> list[str]:
    """How good the teacher is: a student cannot be expected to gain from one that is worse than itself."""
    teacher = next((arm for arm in result["arms"] if arm["name"].startswith("teacher")), None)
    alone = next(arm for arm in result["arms"] if arm["name"] == result["reference"])
    if teacher is None or not teacher[JUDGED]["n"] or not alone[JUDGED]["n"]:
        return []
    taught, own = (spread_text(arm[JUDGED], BY_KEY[JUDGED]) for arm in (teacher, alone))
    if teacher[JUDGED]["mean"] > alone[JUDGED]["mean"]:
        return [f"the teacher has {taught} where the student alone has {own}"]
    return [
        f"the teacher has {taught} where the student alone has {own}: it is no better than its student, "
        "and what a better one would do is not answered here"
    ]


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
            told.append(f"{_what(row)} has no interval ({signed_text(row['mean'], measure)} in all {row['n']} pairs)")
        else:
            told.append(f"{_what(row)} may be anything from {range_text(row, measure)} (n = {row['n']})")
    paired = {result["reference"], *(row["arm"] for row in result["differences"])}  # not the teacher
    seeds = min(arm["n"] for arm in result["arms"] if arm["name"] in paired)
    scope = f"it cannot be said what other images, settings or networks would show than {result['images']}, {seeds} seeds an arm"
    parts = [f"which way the difference goes stays open: {', '.join(told)}"] if told else []
    return _sentence([*parts, scope])
