"""What a study says in words: a headline, what can be concluded, and what cannot."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from ..reading.replication import WEIGHTS
from ..render.document import Statement
from ..render.formats import (
    CORRELATION,
    EPOCHS,
    FEWEST_FREEDOM,
    bounds_mean,
    difference_text,
    listed,
    number_text,
    p_text,
    paired_text,
    range_text,
    signed_text,
    spread_text,
)
from ..stats.statement import DIFFERENCE, NO_DIFFERENCE, NOT_ESTIMABLE
from .study_result import BY_KEY, MACRO, TOP1, TRAINING, is_shown

Result = dict[str, Any]

MEASURE_NAMES = {TOP1: "top-1 accuracy", MACRO: "macro accuracy"}
SPLITS = {TRAINING: "training", "validation": "validation", TOP1: "evaluation"}
_ARTICLES = {"lr": "an", "step_size": "a"}


def study_statement(result: Result) -> Statement:
    """`details` are two paragraphs: what can be concluded, and what cannot. `numbers` has the differences that it rests on."""
    rows = _judged_rows(result)
    if all(row["n"] < 2 for row in rows):
        details = (
            "No two seeds have a result under both arms.",
            "No difference can be estimated without pairs: train more seeds, or fix what failed.",
        )
        return Statement(NOT_ESTIMABLE, "Nothing can be concluded.", details)
    significant = [row for row in rows if is_shown(row)]
    can = [*_own_sentences(result), _conclusion(result, rows, significant), *_within_margin(result, rows)]
    cannot = [*_failures(result, rows), *_open(result, rows)]
    word = DIFFERENCE if significant else NOT_ESTIMABLE if _too_few(rows) else NO_DIFFERENCE
    return Statement(word, _headline(result, significant), (" ".join(can), " ".join(cannot)), {"differences": rows})


def _judged_rows(result: Result) -> list[dict[str, Any]]:
    """The differences that the statement rests on."""
    return [row for row in result["differences"] if row["measure"] in result["judged"]]


def _too_few(rows: list[dict[str, Any]]) -> bool:
    """Whether no difference could have been shown, however large: `compare` refuses so few in the same words."""
    return all(row["df"] < FEWEST_FREEDOM for row in rows)


def _headline(result: Result, significant: list[dict[str, Any]]) -> str:
    weak = ", with a teacher no better than its student" if _teacher_is_no_better(result) else ""
    if not significant and _too_few(rows := _judged_rows(result)):
        pairs = max(row["n"] for row in rows)
        return _sentence(f"{pairs} pairs are too few to show a difference in {_judged(result)}{weak}")
    if not significant:
        return _sentence(f"no difference in {_judged(result)} is shown{weak}")
    clauses = []
    for name in dict.fromkeys(row["arm"] for row in significant):
        own = [row for row in significant if row["arm"] == name]
        names = {way: listed([MEASURE_NAMES[r["measure"]] for r in own if r["mean"] * way > 0]) for way in (1, -1)}
        sides = [f"{word} {names[way]}" for word, way in (("higher", 1), ("lower", -1)) if names[way]]
        clauses.append(f"{_arm(result, name)} has {listed(sides)}")
    clauses[-1] += f" than {_arm(result, result['reference'])} on the evaluation split"
    return _sentence(listed(clauses) + weak)


def _judged(result: Result) -> str:
    """The judged measures, such as "evaluation top-1 or macro accuracy"."""
    return "evaluation " + {(TOP1,): "top-1", (TOP1, MACRO): "top-1 or macro"}[tuple(result["judged"])] + " accuracy"


def _conclusion(result: Result, all_rows: list[dict[str, Any]], significant: list[dict[str, Any]]) -> str:
    if not significant and _too_few(all_rows):
        return (
            f"A spread estimated from {max(row['df'] for row in all_rows)} degrees of freedom is too uncertain to claim a "
            f"difference: it takes {FEWEST_FREEDOM}, which two arms have from 4 seeds on, and three arms, whose residual is pooled, from 3."
        )
    if not significant:
        return f"None of the differences in {_judged(result)} has a p below 0.05, that of all arms together."
    rows = [f"{_difference_name(result, row)}: {_paired(row)}" for row in significant]
    return f"A difference is shown for {'; '.join(rows)}."


def _failures(result: Result, rows: list[dict[str, Any]]) -> list[str]:
    """Differences that are not claimed, or are, with failed trainings counted against their arm."""
    return [
        f"{_difference_name(result, row)} with each failed training counted as a loss of its arm, by as much as the largest "
        f"difference seen: {paired_text(row['with_failures'] | {'by_seed': row['by_seed']}, None)}."
        for row in rows
        if row.get("with_failures")
    ]


def _within_margin(result: Result, rows: list[dict[str, Any]]) -> list[str]:
    """Which differences are shown to be small, and of which that cannot be said."""
    judged = [row for row in rows if row["equivalence"] and not is_shown(row)]
    margin = difference_text(result["margin"], True)
    small = [row for row in judged if row["equivalence"]["holds"]]
    sentences = [
        f"No difference greater than {margin}: {_difference_name(result, row)} is within "
        f"{range_text((row['equivalence']['low'], row['equivalence']['high']))} (two one-sided tests, "
        f"p = {p_text(row['equivalence']['p'])})."
        for row in small
    ]
    unknown = [_difference_name(result, row) for row in judged if row not in small]
    if unknown:
        sentences.append(f"Not enough data to say that the difference is below {margin}: {'; '.join(unknown)}.")
    return sentences


def _open(result: Result, rows: list[dict[str, Any]]) -> list[str]:
    """What the intervals leave open, and what this design cannot answer at all."""
    directions = [_undecided(result, row) for row in rows if not is_shown(row)]
    sentences = [f"The direction of the difference is not known: {'; '.join(directions)}."] if directions else []
    names = {result["reference"], *(row["arm"] for row in result["differences"])}  # not the teacher
    seeds = min(arm["n"] for arm in result["arms"] if arm["name"] in names)
    sentences.append(
        f"These results are of {result['images']} and {seeds} seeds per arm; other images, settings or networks may behave "
        "differently."
    )
    sentences += _detectable(result)
    if any(row["pooled"] for row in rows):
        sentences.append(
            "Intervals and p pool the scatter of all arms, which assumes that they scatter alike; no arm is shown to be noisier."
        )
    elif len(rows) > len(result["judged"]):
        sentences.append(
            "One arm is noisier than the others or lacks pairs: each interval is by its own pairs where that is wider."
        )
    if few := result["few"]:
        sentences.append(
            f"With {few['n']} pairs the exact sign-flip test cannot go below p = {few['p']:.3g}; the t intervals and their p "
            "assume normal differences, which so few pairs cannot verify."
        )
    return sentences


def _detectable(result: Result) -> list[str]:
    plan = result["detectable"]
    if plan["difference"] is None:
        return []
    return [
        f"With {len(result['seeds'])} seeds per arm and the spread seen here (SD {difference_text(plan['sd'], True)}), 80 % of such "
        f"studies would show a true difference of {difference_text(plan['difference'], True)}; smaller ones are mostly missed."
    ]


def _undecided(result: Result, row: dict[str, Any]) -> str:
    name, unit = _difference_name(result, row), BY_KEY[row["measure"]].unit
    if not bounds_mean(row):
        return f"{name} has no interval: {paired_text(row, None, unit)}"
    return f"{name} may be anything from {range_text((row['low'], row['high']), unit)} (n = {row['n']})"


def _difference_name(result: Result, row: dict[str, Any]) -> str:
    arms = f"{_arm(result, row['arm'])} minus {_arm(result, row['reference'])}"
    return f"{arms} ({BY_KEY[row['measure']].title.lower()})"


def _arm(result: Result, name: str) -> str:
    """Its name, as a noun where it is no more than the field's name and a value."""
    field = result["field"]
    value = next((arm["value"] for arm in result["arms"] if arm["name"] == name), None)
    return f"{_ARTICLES[field]} {field} of {value:g}" if field in _ARTICLES and value is not None else name


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."


def _paired(row: dict[str, Any]) -> str:
    return paired_text(row, row["p_adjusted"], BY_KEY[row["measure"]].unit)


def _own_sentences(result: Result) -> list[str]:
    """Those of one study alone, and of trainings that diverged."""
    own: dict[str, Callable[[Result], list[str]]] = {
        "early_stopping": _stopping,
        "pretrained": lambda result: [*_classes(result), *_convergence(result)],
        "balance": lambda result: [_family(result), *_classes(result)],
        "step_size": _decay,
        "distill": lambda result: [*_teacher(result), *_gains(result)],
    }
    sentences = own[result["study"]](result) if result["study"] in own else []
    counts = [
        f"{arm['diverged']} of {arm['n']} trainings of {arm['name']}" for arm in result["arms"] if arm["diverged"]
    ]
    if counts:
        sentences.append(
            f"{listed(counts)} diverged: the accuracies include their best epochs, and the epochs that they did not run "
            "are no saving."
        )
    return sentences


def _stopping(result: Result) -> list[str]:
    """What was saved, pair by pair where a stopped training is the beginning of the full one; else by the intervals."""
    rows = {(row["measure"], row["arm"]): row for row in result["differences"]}
    sentences = []
    for entry in result["prefixes"]:
        arm, n = entry["arm"], entry["pairs"]
        lengths = [rows[key, arm] for key in ("epochs_run", "duration_s") if (key, arm) in rows]
        if not n or len(lengths) < 2:
            continue
        if entry["equal"] == n:
            numbers = list(entry["saved_epochs"].values())
            epochs = f"{', '.join(map(str, numbers))} epochs (mean {number_text(statistics.fmean(numbers), EPOCHS)})"
            earlier = f"{arm} stopped earlier in {sum(value > 0 for value in numbers)} of {n} pairs"
            sentences.append(_sentence(f"{earlier} and saved {epochs}; time saved: {_paired(_negated(lengths[1]))}"))
        else:
            sentences.append(
                f"Only {entry['equal']} of {n} stopped trainings ({arm}) are the beginning of the full one, so that the arms "
                f"differ by more than the stopping: {' and '.join(map(_length, lengths))}."
            )
        if entry["same_weights"] or entry["equal"] == n:
            equal = ", whose accuracies are therefore equal" if entry["same_weights"] else ""
            sentences.append(f"The same weights were kept in {entry['same_weights']} of {n} pairs{equal}.")
    return sentences


def _negated(row: dict[str, Any]) -> dict[str, Any]:
    """The reference minus the arm."""
    low, high = (None if end is None else -end for end in (row["high"], row["low"]))
    by_seed = {seed: -value for seed, value in row["by_seed"].items()}
    return {**row, "by_seed": by_seed, "mean": -row["mean"], "low": low, "high": high}


def _length(row: dict[str, Any]) -> str:
    """A difference of epochs or seconds, judged on its own; without a spread it is the same in every pair."""
    measure = BY_KEY[row["measure"]]
    if row["low"] is None:
        return (
            f"{signed_text(row['mean'], measure.unit)} in {'each' if row['n'] > 1 else 'the one'} of {row['n']} pairs"
        )
    word = ("shorter" if row["mean"] < 0 else "longer") if is_shown(row) else "not shown to differ"
    return f"{measure.title.lower()} {word}, {_paired(row)}"


def rank_sentence(rank: dict[str, Any], arm: str = "") -> str:
    """Whether the rare classes gain most."""
    verb = "gain most" if rank["holds"] else "are not shown to gain most"
    return (
        f"The rare classes {verb}{f' under {arm}' if arm else ''} (Spearman's rank correlation of training images and gain "
        f"{signed_text(rank['rho'], CORRELATION)}, p = {rank['p']:.2g}, n = {rank['n']} classes)."
    )


def _classes(result: Result) -> list[str]:
    """The rank correlation of each arm, the lab report's beside it, and how many classes had no room."""
    entries = result["classes"]
    several = len(entries) > 1
    sentences = [rank_sentence(entry["rank"], entry["arm"] if several else "") for entry in entries if entry["rank"]]
    if not sentences:
        return []
    if other := result["reported_rank"]:
        rho = signed_text(other["rho"], CORRELATION)
        sentences.append(f"The lab report's own two tables give {rho} (p = {other['p']:.2g}, n = {other['n']}).")
    if full := max(entry["full"] for entry in entries):
        reference = result["reference"]
        where = reference if reference.startswith("from ") else f"under {reference}"
        n = len(entries[0]["rows"])
        sentences.append(f"{full} of {n} classes have 95 % or more {where} already, and little room to gain.")
    return sentences


def _convergence(result: Result) -> list[str]:
    """When each arm has 95 % of the accuracy of its last epoch, beside the lab report's epoch by eye."""
    arms = {arm["name"]: arm for arm in result["arms"]}
    sentences = []
    for row in (row for row in result["differences"] if row["measure"] == "epoch_95"):
        before, after = (f"{spread_text(arms[row[k]]['epoch_95'], EPOCHS)} {row[k]}" for k in ("reference", "arm"))
        sentences.append(
            f"95 % of the last epoch's accuracy is first reached at epoch {before} and {after}: {_paired(row)}."
        )
    if sentences and (epoch := result["reported"].get("converged_by_eye")):
        sentences.append(f"The lab report judged both as converged at about epoch {epoch}, by eye.")
    return sentences


def _decay(result: Result) -> list[str]:
    """Arms whose first decay would come at the end of the training or after it."""
    arms, epochs = result["never_decays"], (result["provenance"]["hyperparameters"] or {}).get("epochs")
    if not arms:
        return []
    same = ": one and the same training" if len(arms) > 1 else ""
    return [f"In these {epochs} epochs the learning rate never decays under {listed(arms)}{same}."]


def _family(result: Result) -> str:
    if result["judged"] == [TOP1]:
        return "Macro accuracy equals top-1 accuracy here, as the evaluation split has as many images of each class."
    number = sum(row["measure"] in (TOP1, MACRO) for row in result["differences"])
    return f"The intervals and p values of top-1 and macro accuracy hold together, over all {number} comparisons."


def _teacher_is_no_better(result: Result) -> bool:
    """Whether the teacher is known not to be better than the student alone, on the evaluation split of the same photos."""
    teacher, alone = result["teacher"], _student_alone(result)["mean"]
    if teacher is None or teacher["same_photos"] is False or None in (teacher[TOP1], alone):
        return False
    return teacher[TOP1] <= alone


def _student_alone(result: Result) -> dict[str, Any]:
    return next(arm for arm in result["arms"] if arm["name"] == result["reference"])[TOP1]


def _teacher(result: Result) -> list[str]:
    """Where it is from and how good it is: a student cannot be expected to gain from one that is worse than itself."""
    teacher = result["teacher"]
    if teacher is None:
        return []
    if teacher["files"] > 1:
        origin = f"{teacher['files']} different teachers were used, so that the pairs differ by more than distillation."
    else:
        name = _choice(teacher) if teacher["of"] else f"a {teacher['arch']} given by file"
        origin = f"One teacher, {name}, taught all seeds: the intervals do not include the choice of another teacher."
    sentences = [origin, _teacher_accuracy(teacher, spread_text(_student_alone(result)))]
    if _teacher_is_no_better(result):
        sentences.append("It is no better than its student; what a better teacher would do is not answered here.")
    return sentences


def _choice(teacher: dict[str, Any]) -> str:
    """From among which of the study's own."""
    of, planned = teacher["of"], teacher.get("planned", teacher["of"])  # older study.json: all that were planned
    if of < planned:
        choice = "the only one" if of == 1 else f"the best on validation of the {of}"
        return f"{choice} of {planned} that ended with a {WEIGHTS}"
    return "the only one trained" if of == 1 else f"the best on validation of {of}"


def _teacher_accuracy(teacher: dict[str, Any], student: str) -> str:
    if teacher["same_photos"] is False:
        return "It was trained on other photos or another split, which may contain images of this evaluation split."
    if teacher[TOP1] is None:
        return (
            "There is no result.json beside its file, so that neither its accuracy nor whether it saw images of this "
            "evaluation split is known."
        )
    accuracies = f"{number_text(teacher[TOP1])} (validation {number_text(teacher['validation'])})"
    return f"Its evaluation top-1 accuracy is {accuracies}, that of the student alone {student}."


def _gains(result: Result) -> list[str]:
    """What kind of gain it is: on the images trained on, those that chose the epoch, those that steered nothing."""
    sentences = []
    for arm in dict.fromkeys(row["arm"] for row in result["differences"]):
        rows = {row["measure"]: row for row in result["differences"] if row["arm"] == arm}
        by_split = {name: rows[key] for key, name in SPLITS.items() if key in rows}
        values = ", ".join(f"{name} {_paired(row)}" for name, row in by_split.items())
        sentences += [_sentence(f"{arm} minus {result['reference']} by split: {values}"), _gain_splits(by_split)]
    accuracies = [arm["curve_accuracy"] for arm in result["reported"]["arms"].values() if "curve_accuracy" in arm]
    if sentences and len(accuracies) == 2:
        before, after = (f"{100 * value:.0f}" for value in sorted(accuracies))
        sentences.append(f"The lab report's {before} to {after} % are of training and validation curves.")
    return sentences


def _gain_splits(by_split: dict[str, dict[str, Any]]) -> str:
    """Which splits show a gain or a loss."""
    means = {name: row["mean"] for name, row in by_split.items() if is_shown(row)}
    gains, losses = ([name for name, mean in means.items() if mean * way > 0] for way in (1, -1))
    clauses = [f"a {word} on {listed(names)}" for word, names in (("gain", gains), ("loss", losses)) if names]
    if not clauses:
        return "Neither a gain nor a loss is shown on any split."
    alone = ", not on evaluation images" if gains and "evaluation" not in means else ""
    return _sentence(f"{listed(clauses)} {'is' if len(clauses) == 1 else 'are'} shown{alone}")
