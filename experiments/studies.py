"""The studies: parts (a) to (c) of the lab report, and the imbalance that it leaves alone. Each trains one field's values × seeds.

The plan is fixed in the study's folder before the first training; the same command continues.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.reading.replication import (
    MAIN,
    TEACHER,
    WEIGHTS,
    Cell,
    Part,
    StudyPlan,
    best_teacher,
    cells_of,
    known_ids,
    load_readable,
    read_plan,
    study_folder,
    write_plan,
)
from analysis.render.formats import score_text
from experiments.config import DEMO_CACHE, ROOT, Experiment, Overrides, absolute, read_experiment
from experiments.findings import LEVELS, ExperimentError

if TYPE_CHECKING:  # NNI is imported by what runs a study: --help answers at once
    from experiments.watch import WatchSettings

FILE = ROOT / "experiments" / "study.yml"
SPACES = ROOT / "search_spaces"

# What each study fixes: the settings of the lab report's part, where they are not the trial's defaults.
STUDIES: dict[str, dict[str, str]] = {
    "early_stopping": {"lr": "0.01"},
    "pretrained": {"lr": "0.01", "patience": "0"},
    "learning_rate": {"patience": "0"},
    "step_size": {"lr": "0.01", "patience": "0"},
    "distill": {"patience": "0"},
    "balance": {"lr": "0.01", "patience": "0"},
}


@dataclass(frozen=True)
class StudyRequest:
    """`fields` are the trial's, as text; `weights` stand in for "imagenet", and are not used where the demo or a field says
    "none", nor by teachers: `teacher_weights` are theirs, whatever the fields say, and not used in the demo."""

    study: str
    seeds: int
    fields: dict[str, str]
    weights: str | None = None
    teacher_weights: str | None = None
    demo: bool = False
    out: Path | None = None

    @property
    def folder(self) -> Path:
        return (self.out or study_folder(self.study)).resolve()


def run_studies(requests: Sequence[StudyRequest], settings: WatchSettings) -> int:
    """One after another, when the plans of all are known to be sound. Returns the exit code: 0 where every training has
    ended. Raises ExperimentError or AnalysisError."""
    plans = [_plan(request) for request in requests]
    _refuse_unused_weights(requests[0], [part for plan in plans for part in plan.parts])
    for plan in plans:
        _refuse_early(plan)
    for plan in plans:
        print(_power_text(plan), file=sys.stderr)
    for request, plan in zip(requests, plans, strict=True):
        if read_plan(request.folder, StudyPlan) is None:
            write_plan(request.folder, plan)
    for request, plan in zip(requests, plans, strict=True):
        for part in plan.parts:
            if code := run_part(part if part.name == TEACHER else _with_teacher(plan), settings):
                print("nothing is lost: the same command continues", file=sys.stderr)
                return code
        where = f" --out {request.out}" if request.out else ""
        print(f"all trainings have ended; the page: python -m analysis study {request.study}{where}", file=sys.stderr)
    return 0


def _power_text(plan: StudyPlan) -> str:
    """What its seeds can show."""
    from experiments.replicate import power_text

    families = 2 if plan.study == "balance" else 1  # top-1 and macro accuracy are both judged
    return f"{plan.study}: {power_text(len(plan.main.seeds), len(plan.main.values) - 1, families)}"


def run_part(part: Part, settings: WatchSettings) -> int:
    """Returns the exit code: 0 where every training of the part has ended."""
    from experiments.replicate import replicate

    return replicate(part, lambda status: _checked(part, status.missing), settings)


def _demo_fields(study: str, teaches: bool = False) -> dict[str, str]:
    """The demo's scale: the generated sample from scratch on two CPU cores. Learning from scratch at the lr of fine-tuning
    would take too long; early stopping keeps the lab report's 25 epochs, as fewer leave nothing to be saved; a ResNet50 from
    scratch is no teacher after ten."""
    epochs = "25" if study == "early_stopping" else "10"
    longer = {"epochs": "30", "step_size": "15"} if teaches else {}
    return {"weights": "none", "image_px": "32", "epochs": epochs, "lr": "0.01"} | longer


def _plan(request: StudyRequest) -> StudyPlan:
    """The folder's plan, where it is the requested one; a new one where there is none."""
    plan, new = read_plan(request.folder, StudyPlan), StudyPlan(request.study, tuple(study_parts(request)))
    if plan is None:
        return new
    if _without_names(plan) == _without_names(new):
        return plan
    raise ExperimentError(
        f"{request.folder} holds the study {plan.study} {_difference(plan, new)}; repeat that, or name another folder "
        "with --out"
    )


def _without_names(plan: StudyPlan) -> StudyPlan:
    return replace(plan, parts=tuple(replace(part, experiment="") for part in plan.parts))


def study_parts(request: StudyRequest) -> list[Part]:
    """As a new plan has them, teachers first, with experiment names that no other has."""
    names = {MAIN: f"study_{request.study}"}
    if request.study == "distill" and "teacher" not in request.fields:
        names = {TEACHER: "study_distill_teacher", **names}
    token = secrets.token_hex(4)
    return [_part(request, name, file, f"{file}_{token}") for name, file in names.items()]


def _part(request: StudyRequest, name: str, file: str, experiment: str) -> Part:
    space = json.loads((SPACES / f"{file}.json").read_text("utf-8"))
    fixed = dict(STUDIES[request.study])
    if request.demo:
        fixed |= {**_demo_fields(request.study, name == TEACHER), "cache": str(DEMO_CACHE)}
    if request.weights and name == MAIN:
        own = absolute("weights", request.weights)
        fixed.setdefault("weights", own)
        if "weights" in space:
            space["weights"]["_value"] = [own if v == "imagenet" else v for v in space["weights"]["_value"]]
    count = 1 if request.demo and name == TEACHER else request.seeds  # a ResNet50 takes minutes there
    seeds = {"seed": {"_type": "choice", "_value": list(range(count))}}
    fields = {key: value for key, value in fixed.items() if key not in space} | request.fields
    if request.teacher_weights and name == TEACHER and not request.demo:
        fields["weights"] = request.teacher_weights
    return Part(name, experiment, {**seeds, **space}, {key: absolute(key, value) for key, value in fields.items()})


def _difference(plan: StudyPlan, new: StudyPlan) -> str:
    """What `plan` has instead of what `new` has, in words; what differs alike for teachers and students comes once."""
    if plan.study != new.study:
        return f"instead of {new.study}"
    differences = _part_differences(plan.main, new.main)
    if plan.teacher and new.teacher:
        own = _part_differences(plan.teacher, new.teacher)
        differences += [f"{text} (teachers)" for text in own if text not in differences]
    return f"with {' and '.join(differences) or 'other parts'}"


def _part_differences(own: Part, new: Part) -> list[str]:
    before, after = ({name: entry["_value"] for name, entry in part.space.items()} | part.fields for part in (own, new))
    return [
        f"{_field_text(name, before.get(name))} instead of {_field_text(name, after.get(name))}"
        for name in before | after
        if before.get(name) != after.get(name)
    ]


def _field_text(name: str, value: Any) -> str:
    """A field as a person reads it; `value` is a list where it is searched, None where it is left to the trial."""
    if value is None:
        return f"no {name}"
    if name == "seed" and isinstance(value, list):
        return f"{len(value)} seeds"
    return f"{name}={', '.join(map(str, value)) if isinstance(value, list) else value}"


def _refuse_unused_weights(request: StudyRequest, parts: Sequence[Part]) -> None:
    """Raises ExperimentError for --weights or --teacher-weights that no study takes."""
    own, theirs = request.weights, request.teacher_weights
    if own and not any(_starts_from(own, part) for part in parts if part.name == MAIN):
        raise ExperimentError(
            f"--weights {own}: nothing here starts from ImageNet's weights (--demo trains from scratch); to start from the "
            f"file: --set weights={own}"
        )
    if theirs and not any(_starts_from(theirs, part) for part in parts if part.name == TEACHER):
        raise ExperimentError(
            f"--teacher-weights {theirs}: no teacher here starts from it (only distill trains teachers, unless "
            "--set teacher=FILE names one, and from scratch with --demo); remove the flag"
        )


def _starts_from(weights: str, part: Part) -> bool:
    options = part.space.get("weights", {}).get("_value", [])
    return absolute("weights", weights) in (part.fields.get("weights"), *options)


def _refuse_early(plan: StudyPlan) -> None:
    """Raises ExperimentError where a part of a plan that was not begun would be refused at its start, after hours maybe. Of
    students whose teacher is not there yet, those that learn alone are checked. Warnings follow at each start."""
    if any(known_ids(part) for part in plan.parts):
        return
    for part in plan.parts:
        alone = plan.teacher is not None and part.name == MAIN
        cells = [cell for cell in part.cells if not alone or cell[part.field] == part.values[0]]
        _checked(part, cells, ("error",))


def _checked(part: Part, cells: Sequence[dict[str, Any]], levels: Sequence[str] = LEVELS) -> Experiment:
    """study.yml with these cells in place of its own. Raises ExperimentError where `check` finds an error."""
    from experiments.replicate import checked

    return checked(study_experiment(part, cells), levels, lambda errors: _hint(part, errors))


def study_experiment(part: Part, cells: Sequence[dict[str, Any]]) -> Experiment:
    """study.yml with the part's name and fields, and these cells in place of its own."""
    from experiments.replicate import batch_settings

    base = read_experiment(FILE, Overrides(part.fields))
    config = base.config | batch_settings(part, cells, base.config.get("maxTrialDuration"))
    config.pop("searchSpaceFile", None)  # NNI would take it before the space
    return replace(base, config=config)


def _hint(part: Part, errors: str) -> str:
    if part.name == TEACHER and "weights = " in errors:
        return "; name a ResNet50's state dict with --teacher-weights FILE"
    return "; name a weights file with --weights FILE (make studies WEIGHTS=FILE)" if "imagenet" in errors else ""


def _with_teacher(plan: StudyPlan) -> Part:
    """The main part; its fields name the weights of the study's own teacher, where it has one, that is best on the validation
    split, of those that came to their end and left best.pt. Raises ExperimentError where none did."""
    if plan.teacher is None:
        return plan.main
    name = plan.teacher.experiment
    cells = cells_of(plan.teacher, load_readable(known_ids(plan.teacher)))
    best = best_teacher(cells)
    if best is None:
        raise ExperimentError(
            f"{name}: none of its {len(cells)} trainings ended with a {WEIGHTS}, so that there is no teacher; name one with "
            "--set teacher=FILE and another folder with --out"
        )
    if better := [cell for cell in cells if cell.state == "succeeded" and cell.trial.score > best.trial.score]:
        passed = ", ".join(f"seed {cell.seed} ({_percent(cell)}, {_why_not(cell)})" for cell in better)
        print(
            f"{name}: seed {best.seed} is the teacher (validation {_percent(best)}), as better ones cannot be: {passed}",
            file=sys.stderr,
        )
    return replace(plan.main, fields=plan.main.fields | {"teacher": str(best.weights)})


def _percent(cell: Cell) -> str:
    return score_text(cell.trial.score, True)


def _why_not(cell: Cell) -> str:
    return "cut short" if cell.interrupted else f"no {WEIGHTS} in {cell.trial.folder or 'any folder on this machine'}"
