"""Which of a study's own teachers teaches its students."""

from __future__ import annotations

import sys

from analysis.render.formats import score_text
from analysis.study.arms import Training, arms_of, measured
from analysis.study.files import Part, Plan, experiments_of
from analysis.study.teacher import WEIGHTS, able, best_of
from experiments.findings import ExperimentError


def taught(part: Part, plan: Plan) -> Part:
    """The students' part with the weights of the teacher that is best on the validation split, of those that came to their
    end and left best.pt. Raises ExperimentError where there is none."""
    if plan.teacher is None:
        return part
    trainings = arms_of(plan.teacher, experiments_of(plan.teacher))[0].trainings
    best = best_of(able(trainings))
    if best is None:
        raise ExperimentError(
            f"{plan.teacher.experiment}: none of its {len(trainings)} trainings ended with a best.pt, so that there is no "
            "teacher; name one with --set teacher=FILE and another folder with --out"
        )
    better = [training for training in trainings if _validation(training) > _validation(best)]
    if better:
        passed = ", ".join(f"seed {t.seed} ({_percent(t)}, {_why_not(t)})" for t in better)
        print(
            f"{plan.teacher.experiment}: seed {best.seed} teaches (validation {_percent(best)}), as better ones cannot: "
            f"{passed}",
            file=sys.stderr,
        )
    return part._replace(fields=part.fields | {"teacher": str(best.trial.folder / WEIGHTS)})


def _validation(training: Training) -> float:
    """Below every accuracy where it has no result."""
    value = measured(training.trial, "validation") if training.state == "succeeded" else None
    return -1.0 if value is None else value


def _percent(training: Training) -> str:
    return score_text(_validation(training), True)


def _why_not(training: Training) -> str:
    if training.interrupted:
        return "cut short"
    return f"no {WEIGHTS} in {training.trial.folder or 'any folder on this machine'}"
