"""A study: a grid over one field of the trial times seeds, run through NNI's GridSearch until every training has ended.

The plan is fixed in the study's folder before the first training; the same command goes on from what NNI's database holds.
A resumed GridSearch does not know the trials that run again after a crash and hands out their points once more: NNI then
says DONE while the last points are missing. They are added by a higher number of trials, as its tuner is told of all
results on a resume and skips their points.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.reading.locate import AnalysisError, is_running
from analysis.reading.records import Experiment as Record
from analysis.reading.replication import (
    MAIN,
    TEACHER,
    Part,
    StudyPlan,
    cells_of,
    load_readable,
    read_plan,
    registered,
    study_folder,
    write_plan,
)
from experiments.check import check
from experiments.config import DEMO_CACHE, ROOT, Experiment, Overrides, absolute, read_experiment
from experiments.findings import ExperimentError
from experiments.launch import resume, watch_running
from experiments.nni import forget_dead, start
from experiments.plan_difference import difference
from experiments.studies import STUDIES, demo_fields
from experiments.study_teacher import taught
from experiments.watch import WatchSettings, print_interrupted, watch_to_end

FILE = ROOT / "experiments" / "study.yml"
SPACES = ROOT / "search_spaces"


@dataclass(frozen=True)
class Asked:
    """What was asked for. `fields` are the trial's, as text; `weights` stand in for "imagenet", and are not used where the
    demo or a field says "none", nor by teachers: `teacher_weights` are theirs, whatever the fields say, and not used in the
    demo; `folder` may be None."""

    study: str
    seeds: int
    fields: dict[str, str]
    weights: str | None = None
    teacher_weights: str | None = None
    demo: bool = False
    folder: Path | None = None


def studies(all_asked: Sequence[Asked], watching: WatchSettings) -> int:
    """One after another, when the plans of all are known to be sound. Returns the exit code: 0 where every training has
    ended. Raises ExperimentError."""
    folders = [(asked.folder or study_folder(asked.study)).resolve() for asked in all_asked]
    try:
        plans = [_plan(asked, folder) for asked, folder in zip(all_asked, folders, strict=True)]
        _refuse_unused_weights(all_asked, plans)
        _refuse_early(plans)
        for plan, folder in zip(plans, folders, strict=True):
            if read_plan(folder, StudyPlan) is None:
                write_plan(folder, plan)
    except AnalysisError as error:
        raise ExperimentError(str(error)) from error
    for asked, plan in zip(all_asked, plans, strict=True):
        if code := _study(asked, plan, watching):
            return code
    return 0


def _study(asked: Asked, plan: StudyPlan, watching: WatchSettings) -> int:
    """Part after part. Returns the exit code."""
    try:
        for part in plan.parts:
            code = _run(part if part.name == TEACHER else taught(part, plan), watching)
            if code:
                print("nothing is lost: the same command continues", file=sys.stderr)
                return code
    except AnalysisError as error:
        raise ExperimentError(str(error)) from error
    where = f" --out {asked.folder}" if asked.folder else ""
    print(f"all trainings have ended; the page: python -m analysis study {asked.study}{where}", file=sys.stderr)
    return 0


def _plan(asked: Asked, folder: Path) -> StudyPlan:
    """The folder's plan, where it is the one asked for; a new one where there is none."""
    known, new = read_plan(folder, StudyPlan), StudyPlan(asked.study, tuple(_parts(asked)))
    if known is None:
        return new
    if (known.study, *map(_asked_of, known.parts)) != (new.study, *map(_asked_of, new.parts)):
        raise ExperimentError(
            f"{folder} holds the study {known.study} {difference(known, new)}; repeat that, or name another folder with --out"
        )
    return known


def _asked_of(part: Part) -> tuple:
    return part.name, part.space, part.fields


def _refuse_unused_weights(all_asked: Sequence[Asked], plans: Sequence[StudyPlan]) -> None:
    """Raises ExperimentError for --weights or --teacher-weights that no study takes."""
    asked, parts = all_asked[0], [part for plan in plans for part in plan.parts]
    if asked.weights and not any(_starts_from(asked.weights, part) for part in parts if part.name == MAIN):
        raise ExperimentError(
            f"--weights {asked.weights}: nothing here starts from ImageNet's weights (--demo trains from scratch); to start "
            f"from the file: --set weights={asked.weights}"
        )
    theirs = asked.teacher_weights
    if theirs and not any(_starts_from(theirs, part) for part in parts if part.name == TEACHER):
        raise ExperimentError(
            f"--teacher-weights {theirs}: no teacher here starts from it (only distill trains teachers, unless "
            "--set teacher=FILE names one, and from scratch with --demo); leave it away"
        )


def _starts_from(weights: str, part: Part) -> bool:
    return absolute("weights", weights) in (
        part.fields.get("weights"),
        *part.space.get("weights", {}).get("_value", []),
    )


def _refuse_early(plans: Sequence[StudyPlan]) -> None:
    """Raises ExperimentError where a part of a plan that was not begun would be refused at its start, after hours maybe."""
    for plan in plans:
        if not any(registered(part) for part in plan.parts):
            for part in plan.parts:
                _refuse(_before_teaching(part, plan), ("error",))  # the rest is told at its start


def _before_teaching(part: Part, plan: StudyPlan) -> Part:
    """Of students, as their teacher is not there yet, those that learn alone."""
    if plan.teacher is None or part.name == TEACHER:
        return part
    return replace(part, space=part.space | {part.field: {"_type": "choice", "_value": part.values[:1]}})


def _parts(asked: Asked) -> list[Part]:
    names = {MAIN: f"study_{asked.study}"}
    if asked.study == "distill" and "teacher" not in asked.fields:
        names = {TEACHER: "study_distill_teacher", **names}
    token = secrets.token_hex(4)
    return [_part(asked, part, file, f"{file}_{token}") for part, file in names.items()]


def _part(asked: Asked, name: str, file: str, experiment: str) -> Part:
    space = json.loads((SPACES / f"{file}.json").read_text("utf-8"))
    fixed = STUDIES[asked.study] | (
        {**demo_fields(asked.study, name == TEACHER), "cache": str(DEMO_CACHE)} if asked.demo else {}
    )
    if asked.weights and name == MAIN:
        own = absolute("weights", asked.weights)
        fixed.setdefault("weights", own)
        if "weights" in space:
            space["weights"]["_value"] = [own if v == "imagenet" else v for v in space["weights"]["_value"]]
    count = 1 if asked.demo and name == TEACHER else asked.seeds  # a ResNet50 takes minutes there
    seeds = {"seed": {"_type": "choice", "_value": list(range(count))}}
    fields = {key: value for key, value in fixed.items() if key not in space} | asked.fields
    if asked.teacher_weights and name == TEACHER and not asked.demo:
        fields["weights"] = asked.teacher_weights
    return Part(name, experiment, {**seeds, **space}, {key: absolute(key, value) for key, value in fields.items()})


def _experiment(part: Part) -> Experiment:
    """study.yml with the part's grid in place of its own."""
    base = read_experiment(FILE, Overrides(part.fields))
    hours = 2 * len(part.cells)
    changed: dict[str, Any] = {
        "experimentName": part.experiment,
        "searchSpace": part.space,
        "maxTrialNumber": len(part.cells),
        "maxExperimentDuration": f"{hours}h",  # as many as its trials may take
    }
    config = {**base.config, **changed}
    config.pop("searchSpaceFile")  # NNI would take it before the space
    return replace(base, config=config)


def _refuse(part: Part, levels: tuple[str, ...] = ("error", "warning", "note")) -> Experiment:
    """The part's experiment. Prints what `check` finds of these levels; raises ExperimentError where it stops a launch."""
    experiment = _experiment(part)
    findings = check(experiment)
    errors = [finding.text for finding in findings if finding.level == "error"]
    for finding in (finding for finding in findings if finding.level in levels):
        print(f"{finding.level}: {experiment.name}: {finding.text}", file=sys.stderr)
    if errors:
        raise ExperimentError(f"{experiment.name}: nothing was started{_hint(part, errors)}")
    return experiment


def _hint(part: Part, errors: list[str]) -> str:
    if part.name == TEACHER and any("weights = " in text for text in errors):
        return "; name a ResNet50's state dict with --teacher-weights FILE"
    if any("imagenet" in text for text in errors):
        return "; name a weights file with --weights FILE (make studies WEIGHTS=FILE)"
    return ""


def _run(part: Part, watching: WatchSettings) -> int:
    """Start it, return to it or go on with it, until no training is missing. Returns the exit code."""
    while True:
        records = load_readable([entry["id"] for entry in registered(part)])
        states = [cell.state for cell in cells_of(part, records)]
        if "missing" not in states:
            return 0
        busy = _busy(part, records)
        left = len(states) - states.count("succeeded")  # a resumed GridSearch repeats failed ones too
        if records:
            print(f"{part.experiment}: {len(states) - left} of {len(states)} trainings have a result", file=sys.stderr)
        if busy:
            code = watch_running(busy, watching)
        elif not records:
            code = _start(part, watching)
        else:
            last = records[-1]
            code = resume(last.id, len(last.trials) + left if last.state == "DONE" else None, watching)
        if code:
            return code


def _busy(part: Part, records: list[Record]) -> list[str]:
    """Ids of its experiments that run, or start just now."""
    states = {record.id: record.state for record in records}
    return [e["id"] for e in registered(part) if is_running(e) and states.get(e["id"], "RUNNING") == "RUNNING"]


def _start(part: Part, watching: WatchSettings) -> int:
    experiment = _refuse(part)
    forget_dead()
    try:
        return watch_to_end([start(experiment)], watching)
    except KeyboardInterrupt:
        print_interrupted([])
        return 130
