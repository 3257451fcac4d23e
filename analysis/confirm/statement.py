"""The result of a confirmation in words; its first sentence is a headline."""

from __future__ import annotations

import math
from typing import Any

from ..render.formats import NONE, difference_text, params_text, score_text
from ..stats import verdict
from ..stats.paired import smallest_flip_p


def judge(result: dict[str, Any]) -> tuple[str, str]:
    """The verdict's word and its sentences. It rests on the t interval of the evaluation's paired differences; where all
    differences are equal and there is none, on the exact sign-flip test."""
    found, rows = result["evaluation"], {row["name"]: row for row in result["configurations"]}
    chosen, default = rows.get(result["chosen"]), result["configurations"][-1]
    if chosen is None or found is None:
        trained = "no tuned configuration has a result" if chosen is None else "no seed has a result of both"
        return (
            verdict.NOT_ESTIMABLE,
            f"Nothing can be said about the tuned configuration: {trained}. {_failures(result)}",
        )
    word = _word(found)
    several = result["comparisons"]
    parts = [
        _headline(word, found),
        _choice(result, chosen),
        _evaluation(chosen, default, found, several),
        _more_seeds(word, found, several),
        _small_n(found, several),
        _promise(chosen),
        _default_leads(chosen, default),
        _images(default),
    ]
    return word, " ".join(filter(None, [*parts, _failures(result)]))


def _word(found: dict[str, Any]) -> str:
    if found["n"] < 2:
        return verdict.NOT_ESTIMABLE
    if found["low"] is None:
        return verdict.DIFFERENCE if found["p_flip_adjusted"] < 0.05 else verdict.NO_DIFFERENCE
    return verdict.NO_DIFFERENCE if found["low"] <= 0 <= found["high"] else verdict.DIFFERENCE


def _headline(word: str, found: dict[str, Any]) -> str:
    if word == verdict.NOT_ESTIMABLE:
        return "Whether the tuned configuration is better than the default cannot be estimated from one pair."
    if word == verdict.NO_DIFFERENCE:
        return "No difference between the tuned configuration and the default can be shown."
    better = ("tuned configuration", "default") if found["mean"] > 0 else ("default", "tuned configuration")
    return f"The {better[0]} is better than the {better[1]}."


def _choice(result: dict[str, Any], chosen: dict[str, Any]) -> str:
    of = result["comparisons"]
    how = f"chosen of {of} by its mean validation accuracy" if of > 1 else "the only one"
    return f"Tuned is {chosen['name']} ({params_text(chosen['parameters'])}), {how}."


def _evaluation(chosen: dict[str, Any], default: dict[str, Any], found: dict[str, Any], comparisons: int) -> str:
    means = [_mean(row["evaluation"]) for row in (chosen, default)]
    text = (
        f"On the evaluation split it has {means[0]}, the default {means[1]}: {_points(found['mean'])} over "
        f"{found['n']} paired seeds"
    )
    if found["low"] is None:
        return text + ("; all differences are equal, so that they have no interval." if found["n"] > 1 else ".")
    wide = f", wide enough for all {comparisons} configurations together" if comparisons > 1 else ""
    return (
        f"{text} (95 % {points_range(found)}, paired t, df = {found['df']}{wide}; p = {p_text(found['p_t_adjusted'])}"
        f"{f', multiplied by the {comparisons}' if comparisons > 1 else ''})."
    )


def _more_seeds(word: str, found: dict[str, Any], comparisons: int) -> str:
    """What would answer, where the difference is too large to be called none and too uncertain to be shown."""
    if word != verdict.NO_DIFFERENCE or found["seeds_needed"] is None or found["seeds_needed"] <= found["n"]:
        return ""
    more = f"At this size and spread it would have taken about {found['seeds_needed']} seeds to show it"
    if comparisons == 1 or found["alone"][0] <= 0 <= found["alone"][1]:
        return more + "."
    alone = points_range(dict(zip(("low", "high"), found["alone"])))
    return f"{more}, fewer with --top 1: had it been the only one, its interval would be {alone}."


def _small_n(found: dict[str, Any], comparisons: int) -> str:
    times = f" (times {comparisons})" if comparisons > 1 else ""
    text = f"The exact sign-flip test, which assumes no normal differences, gives p = {p_text(found['p_flip_adjusted'])}{times}"
    least = comparisons * smallest_flip_p(found["n"])
    if least < 0.05:
        return text + "."
    return text + f"; {found['n']} pairs cannot give it less than {min(1.0, least):.3g}, so that it shows nothing here."


def _promise(chosen: dict[str, Any]) -> str:
    if not chosen["optimism"] or chosen["optimism"][0]["realised"] is None:
        return ""
    found = chosen["optimism"][0]
    where = "too good" if found["realised"] > 0 else "too low"
    promised = score_text(found["val_accuracy"], True)
    expected = (
        f" (the search's own trials foretold {_points(found['expected'])})" if found["expected"] is not None else ""
    )
    return (
        f"The search had promised {promised} on validation; retrained it has {_mean(chosen['validation'])}: the promise was "
        f"{difference_text(found['realised'], True)} {where}{expected}."
    )


def _default_leads(chosen: dict[str, Any], default: dict[str, Any]) -> str:
    means = [row["validation"]["mean"] for row in (chosen, default)]
    if means[1] is None or means[1] < means[0]:
        return ""
    return "By its mean validation accuracy the default is as good as every tuned configuration, or better."


def _images(default: dict[str, Any]) -> str:
    spread = default["evaluation"]
    if not spread["images"] or spread["mean"] is None:
        return ""
    error = math.sqrt(spread["mean"] * (1 - spread["mean"]) / spread["images"])
    return (
        f"The intervals are over seeds, on these {spread['images']} images; one accuracy of so many has a standard error of "
        f"{difference_text(error, True)} beside, most of which a pair shares."
    )


def _failures(result: dict[str, Any]) -> str:
    if not result["failed"]:
        return ""
    cells = sum(result["cells"].values())
    named = ", ".join(f"{cell['configuration']} seed {cell['seed']}" for cell in result["failed"])
    return f"{len(result['failed'])} of {cells} cells failed ({named}); a seed that lacks one of a pair is left out."


def _mean(spread: dict[str, Any]) -> str:
    """Mean, SD and n: no number without them."""
    sd = "" if spread["sd"] is None else f"SD {difference_text(spread['sd'], True).removesuffix(' points')}, "
    return f"{score_text(spread['mean'], True)} ({sd}n = {spread['n']})"


def _points(value: float | None) -> str:
    return NONE if value is None else difference_text(value, True, signed=True)


def points_range(found: dict[str, Any]) -> str:
    return f"{_points(found['low']).removesuffix(' points')} to {_points(found['high'])}"


def p_text(p: float | None) -> str:
    return NONE if p is None else f"{p:.3g}"
