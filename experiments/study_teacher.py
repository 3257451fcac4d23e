"""Which of a study's own teachers teaches its students."""

from __future__ import annotations

import sys
from dataclasses import replace

from analysis.reading.replication import (
    WEIGHTS,
    Cell,
    Part,
    StudyPlan,
    best_teacher,
    cells_of,
    load_readable,
    registered,
)
from analysis.render.formats import score_text
from experiments.findings import ExperimentError


def taught(part: Part, plan: StudyPlan) -> Part:
    """The students' part with the weights of the teacher that is best on the validation split, of those that came to their
    end and left best.pt. Raises ExperimentError where there is none."""
    if plan.teacher is None:
        return part
    trainings = cells_of(plan.teacher, load_readable([entry["id"] for entry in registered(plan.teacher)]))
    best = best_teacher(trainings)
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
    return replace(part, fields=part.fields | {"teacher": str(best.weights)})


def _validation(training: Cell) -> float:
    """Below every accuracy where it has no result."""
    return training.trial.score if training.state == "succeeded" else -1.0


def _percent(training: Cell) -> str:
    return score_text(_validation(training), True)


def _why_not(training: Cell) -> str:
    if training.interrupted:
        return "cut short"
    return f"no {WEIGHTS} in {training.trial.folder or 'any folder on this machine'}"
