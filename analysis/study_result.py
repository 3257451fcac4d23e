"""The content of study.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .confirm_trained import why_failed
from .provenance import best_result, made_of
from .study_arms import Arm, arm_facts, differences
from .study_classes import class_rows, rare_gain_most
from .study_curves import band, prefixes
from .study_files import Plan
from .study_reported import reported
from .study_statement import statement

BY_CLASS = ("pretrained", "balance")
"""Studies in which the classes are told apart."""


def result_of(plan: Plan, arms: Sequence[Arm], teacher: Arm | None) -> dict[str, Any]:
    """Accuracies are fractions, times seconds, epochs counted from 1; what cannot be estimated is None.

    `arms` has the reference first; `teacher` is an arm of its own, with no difference: it is another network."""
    told = [*arms, *([teacher] if teacher else [])]
    made = made_of(next((found for arm in told for t in arm.good if (found := best_result(t.trial))), {}))
    by_class = [{"arm": arm.name, "rows": class_rows(arms[0], arm)} for arm in arms[1:] if plan.study in BY_CLASS]
    result = {
        "study": plan.study,
        "field": plan.main.field,
        "reference": arms[0].name,
        "seeds": plan.main.seeds,
        "fields": plan.main.fields,
        "experiments": list(dict.fromkeys(t.experiment for arm in told for t in arm.trainings if t.experiment)),
        "arms": [arm_facts(arm) for arm in told],
        "differences": differences(arms),
        "curves": [band(arm, metric) for metric in ("default", "train_accuracy") for arm in told],
        "prefixes": prefixes(arms[0], arms[1:]) if plan.study == "early_stopping" else [],
        "classes": by_class,
        "rare_classes": rare_gain_most(by_class[0]["rows"]) if plan.study == "pretrained" else None,
        "reported": reported(plan.study),
        "images": _images(made["images"], "generated drawings" if made["generated"] else "images"),
        "trainings": [_training(arm, training) for arm in told for training in arm.trainings],
        "provenance": made,
    }
    result["headline"], result["can"], result["cannot"] = statement(result)
    return result


def _images(counts: list[int | None], what: str) -> str:
    """Numbers of images of the splits, in words; `what` they are."""
    names = ("training", "validation", "evaluation")
    return (
        ", ".join(f"{n} {name}" for n, name in zip(counts, names) if n is not None) + f" {what}"
        if any(counts)
        else f"an unknown number of {what}"
    )


def _training(arm: Arm, training: Any) -> dict[str, Any]:
    trial = training.trial
    reason = ""
    if training.state == "failed" and trial is not None:
        reason = why_failed(trial)
    if training.state == "succeeded" and training.interrupted:
        reason = "cut short, and left out of all numbers"
    return {
        "arm": arm.name,
        "seed": training.seed,
        "state": training.state,
        "experiment": training.experiment,
        "trial": trial.trial_id if trial else None,
        "reason": reason,
    }
