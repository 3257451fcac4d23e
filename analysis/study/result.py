"""The content of study.json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..reading.provenance import best_result, made_of
from ..reading.replication import StudyPlan
from .arms import Arm, arm_facts
from .classes import by_class, rare_gain_most
from .curves import band, prefixes
from .differences import differences, fewest_pairs, judged_by
from .reported import reported, reported_gains, same_classes
from .statement import statement
from .teacher import teacher_facts


def result_of(plan: StudyPlan, arms: Sequence[Arm], teacher: Arm | None) -> dict[str, Any]:
    """Accuracies are fractions, times seconds, epochs counted from 1; what cannot be estimated is None.

    `arms` has the reference first; `teacher` is an arm of its own, with no difference: it is another network. `judged` are the
    measures that the sentences rest on, `few` what `fewest_pairs` tells of them."""
    told = [*arms, *([teacher] if teacher else [])]
    made = made_of(next((found for arm in told for t in arm.good if (found := best_result(t.trial))), {}))
    classes, theirs, judged = by_class(plan.study, arms), reported(plan.study), judged_by(plan.study, arms)
    found = differences(arms, plan.study, judged)
    result = {
        "study": plan.study,
        "field": plan.main.field,
        "reference": arms[0].name,
        "seeds": plan.main.seeds,
        "fields": plan.main.fields,
        "experiments": list(dict.fromkeys(t.experiment for arm in told for t in arm.trainings if t.experiment)),
        "arms": [arm_facts(arm) for arm in told],
        "judged": judged,
        "differences": found,
        "few": fewest_pairs([row for row in found if row["measure"] in judged]),
        "curves": [band(arm, metric) for metric in ("default", "train_accuracy") for arm in told],
        "prefixes": prefixes(arms[0], arms[1:]) if plan.study == "early_stopping" else [],
        "classes": classes,
        "never_decays": _never_decays(plan, arms, made),
        "teacher": teacher_facts(arms, teacher) if plan.study == "distill" else None,
        "reported": theirs,
        "reported_rank": _reported_rank(theirs, classes),
        "images": _images(made["images"], "generated drawings" if made["generated"] else "images"),
        "trainings": [_training(arm, training) for arm in told for training in arm.trainings],
        "provenance": made,
    }
    result["headline"], result["can"], result["cannot"] = statement(result)
    return result


def _reported_rank(theirs: dict[str, Any], classes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """`rare_gain_most` of the report's own tables, where its classes are ours."""
    same = bool(classes) and same_classes(theirs, classes[0]["rows"])
    return rare_gain_most(reported_gains(theirs)) if same else None


def _never_decays(plan: StudyPlan, arms: Sequence[Arm], made: dict[str, Any]) -> list[str]:
    """Arms of another step_size whose first decay would come after the last epoch."""
    epochs = (made["hyperparameters"] or {}).get("epochs")
    if plan.main.field != "step_size" or epochs is None:
        return []
    return [arm.name for arm in arms if arm.value >= epochs]


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
    reason = training.failure
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
