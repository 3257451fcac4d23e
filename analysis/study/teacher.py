"""Distillation: who taught, and on which splits the student gained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..reading.provenance import best_result
from ..reading.replication import WEIGHTS
from ..render.formats import score_text
from .arms import Arm, measured
from .differences import TOP1, TRAINING, shown
from .words import BY_KEY, difference_words, listed, spread_text

SPLITS = {TRAINING: "training", "validation": "validation", TOP1: "evaluation"}


def teacher_facts(students: Sequence[Arm], trained: Arm | None) -> dict[str, Any] | None:
    """What the students' result.json say of their teacher; None where they had none.

    `of` is the number of the study's `planned` teachers that it was chosen from, both None where the file was named by a
    person; `files` that of different files asked; accuracies are fractions, None where unknown. `same_photos` False: it was
    trained on other photos."""
    told = [
        found for arm in students for t in arm.good if isinstance(found := best_result(t.trial).get("teacher"), dict)
    ]
    good = trained.good if trained else []
    ended = [training for training in good if training.weights] or good  # none of them: the weights were removed since
    best = max(ended, key=lambda training: training.trial.score, default=None)
    if not told and best is None:
        return None
    facts = told[0] if told else {"arch": trained.value, "same_photos": True}
    own = {"validation": _own(facts, "validation"), TOP1: _own(facts, "evaluation")}
    if best is not None and None in own.values():
        own = {key: measured(best.trial, key) for key in own}
    files = len({found.get("sha256") for found in told}) or 1
    of, planned = (len(ended), len(trained.trainings)) if trained else (None, None)
    kept = {key: facts.get(key) for key in ("arch", "sha256", "image_px", "same_photos")}
    return {"of": of, "planned": planned, "files": files, **own, **kept}


def _own(facts: dict[str, Any], split: str) -> float | None:
    found = facts.get(split)
    return found.get("top1") if isinstance(found, dict) else None


def no_better(result: dict[str, Any]) -> bool:
    """Whether the teacher is known not to be better than the student alone, on the evaluation split of the same photos."""
    teacher, alone = result["teacher"], _alone(result)
    known = teacher is not None and teacher["same_photos"] is not False and None not in (teacher[TOP1], alone["mean"])
    return known and teacher[TOP1] <= alone["mean"]


def _alone(result: dict[str, Any]) -> dict[str, Any]:
    return next(arm for arm in result["arms"] if arm["name"] == result["reference"])[TOP1]


def teacher_words(result: dict[str, Any]) -> list[str]:
    """Where it is from and how good it is: a student cannot be expected to gain from one that is worse than itself."""
    teacher = result["teacher"]
    if teacher is None:
        return []
    if teacher["files"] > 1:
        told = [
            f"{teacher['files']} different teachers taught the trainings, so that their pairs differ by more than teaching"
        ]
    else:
        named = _chosen(teacher) if teacher["of"] else f"a {teacher['arch']} given by file"
        told = [f"one teacher, {named}, taught all seeds, so that the intervals know no other teacher"]
    told.append(_scores(teacher, spread_text(_alone(result), BY_KEY[TOP1])))
    if no_better(result):
        told.append("it is no better than its student, and what a better one would do is not answered here")
    return [": ".join(told[:2]), *told[2:]]


def _chosen(teacher: dict[str, Any]) -> str:
    """From among which of the study's own."""
    of, planned = teacher["of"], teacher["planned"]
    if of < planned:
        choice = "the only one" if of == 1 else f"the best on validation of the {of}"
        return f"{choice} of {planned} that ended with a {WEIGHTS}"
    return "the only one trained" if of == 1 else f"the best on validation of {of}"


def _scores(teacher: dict[str, Any], alone: str) -> str:
    if teacher["same_photos"] is False:
        return "it was trained on other photos or another split, which may hold images of this evaluation split"
    if teacher[TOP1] is None:
        return (
            "no result.json of its own lies beside its file, so that neither its accuracy nor whether it saw images of this "
            "evaluation split is known"
        )
    own = f"{score_text(teacher[TOP1], True)} of the evaluation images right (validation {score_text(teacher['validation'], True)})"
    return f"it has {own} where the student alone has {alone}"


def gain_words(result: dict[str, Any]) -> list[str]:
    """What kind of gain it is: on the images trained on, those that chose the epoch, those that steered nothing."""
    told = []
    for arm in dict.fromkeys(row["arm"] for row in result["differences"]):
        rows = {row["measure"]: row for row in result["differences"] if row["arm"] == arm and row["measure"] in SPLITS}
        values = [f"{name} {difference_words(rows[key], BY_KEY[key])}" for key, name in SPLITS.items() if key in rows]
        told.append(f"{arm} less {result['reference']} by split: {', '.join(values)}: {_kind(rows)}")
    curves = [arm["curve_accuracy"] for arm in result["reported"]["arms"].values() if "curve_accuracy" in arm]
    if told and len(curves) == 2:
        before, after = (f"{100 * value:.0f}" for value in sorted(curves))
        told[-1] += f" (the report's {before} to {after} % are of training and validation curves)"
    return told


def _kind(rows: dict[str, Any]) -> str:
    """Which splits show a gain or a loss."""
    signs = {name: rows[key]["mean"] for key, name in SPLITS.items() if key in rows and shown(rows[key])}
    gains, losses = ([name for name, mean in signs.items() if mean * way > 0] for way in (1, -1))
    words = [f"a {word} on {listed(names)}" for word, names in (("gain", gains), ("loss", losses)) if names]
    if not words:
        return "neither a gain nor a loss is shown on any split"
    alone = ", not on evaluation images" if gains and "evaluation" not in gains + losses else ""
    return f"{listed(words)} {'is' if len(words) == 1 else 'are'} shown{alone}"
