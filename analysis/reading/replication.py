"""The plan of a confirmation or a study as it is on disk, and which trial of which NNI experiment trained each of its cells.

A cell is one configuration under one seed. The folder of a confirmation or a study:

plan.json             what is trained, written once, before the first training
experiments.json      of a confirmation: ids of the NNI experiments that trained its cells
report.html           the page, with its numbers in confirm.json or study.json
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from .locate import AnalysisError, registry
from .logs import failure_reason
from .reader import load_experiment
from .records import ENDED, Experiment, Trial

PLAN, EXPERIMENTS = "plan.json", "experiments.json"
MAIN, TEACHER = "main", "teacher"
WEIGHTS = "best.pt"  # what a training leaves at its end; one that was cut short has them under another name
CANCELLED = ("USER_CANCELED", "SYS_CANCELED")


@dataclass(frozen=True)
class Configuration:
    """`parameters` are the hyperparameters that make it up. Of a confirmation, `promises` are the searches that had it among
    their top, [{experiment, trial, rank, val_accuracy}]; empty for a default that no search had, and in a study."""

    name: str
    parameters: dict[str, Any]
    promises: tuple[dict[str, Any], ...] = ()


class Grid:
    """Configurations × seeds, trained by NNI experiments that all have the name `experiment`, which no others have.

    `types` are the trial's fields, {name: {type, ...}}, as far as trials may report 32.0 for 32."""

    experiment: str
    configurations: tuple[Configuration, ...]
    seeds: Sequence[int]
    types: dict[str, dict[str, Any]]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The parameters of each training, seed by seed, so that an interrupted run has whole pairs."""
        pairs = itertools.product(self.seeds, self.configurations)
        return [{**configuration.parameters, "seed": seed} for seed, configuration in pairs]


@dataclass(frozen=True)
class ConfirmationPlan(Grid):
    """`searches` are facts of each search, `notes` what a reader should know. With `screen`, in two stages: see `screening`."""

    request: dict[str, Any]  # experiments, top, seeds and, of two stages, screen: as requested
    configurations: tuple[Configuration, ...]  # the default last
    seeds: tuple[int, ...]
    settings: dict[str, Any]  # NNI's, but for tuner, search space and limits
    fields: dict[str, dict[str, Any]]  # the trial's
    searches: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]
    screen: tuple[int, ...] = ()  # seeds of the first stage; none of a plan of one stage

    @property
    def screening(self) -> ConfirmationPlan | None:
        """The first stage: the tuned configurations under seeds of their own, to choose one. None of a plan of one stage."""
        if not self.screen:
            return None
        return dataclasses.replace(self, configurations=self.configurations[:-1], seeds=self.screen, screen=())

    def final(self, name: str) -> ConfirmationPlan:
        """The second stage: the configuration that the first one chose, and the default, under seeds that chose nothing."""
        kept = tuple(c for c in self.configurations[:-1] if c.name == name)
        return dataclasses.replace(self, configurations=(*kept, self.configurations[-1]), screen=())

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> ConfirmationPlan:
        configurations = tuple(
            Configuration(c["name"], c["parameters"], tuple(c["promises"])) for c in content["configurations"]
        )
        lists = {name: tuple(content[name]) for name in ("seeds", "searches", "notes")}
        lists["screen"] = tuple(content.get("screen", ()))
        return cls(content["request"], configurations, settings=content["settings"], fields=content["fields"], **lists)

    @property
    def experiment(self) -> str:
        """The searches' ids, and a digest of all that is trained."""
        content = json.dumps([self.cells, self.settings], sort_keys=True)
        digest = hashlib.sha256(content.encode()).hexdigest()[:8]
        return f"confirm_{'_'.join(self.request['experiments'])}_{digest}"

    @property
    def types(self) -> dict[str, dict[str, Any]]:
        return self.fields


@dataclass(frozen=True)
class Part(Grid):
    """Of a study, what it compares or its teachers. `space` is a grid as an NNI search space, all of it choices, the seed
    first; `fields` are the trial's fixed fields and settings, as text."""

    name: str  # MAIN or TEACHER
    experiment: str
    space: dict[str, Any]
    fields: dict[str, str]

    @property
    def field(self) -> str:
        """The one whose values are the arms."""
        return next(name for name in self.space if name != "seed")

    @property
    def values(self) -> list[Any]:
        """Of the arms, the reference first."""
        return self.space[self.field]["_value"]

    @property
    def seeds(self) -> list[int]:
        return self.space["seed"]["_value"]

    @property
    def configurations(self) -> tuple[Configuration, ...]:
        return tuple(Configuration(f"{self.field} {value}", {self.field: value}) for value in self.values)

    @property
    def types(self) -> dict[str, dict[str, Any]]:
        return {}


@dataclass(frozen=True)
class StudyPlan:
    """All that a study trains, part after part."""

    study: str
    parts: tuple[Part, ...]

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> StudyPlan:
        plan = cls(content["study"], tuple(Part(**part) for part in content["parts"]))
        if not all(part.cells for part in (*plan.parts, plan.main)):
            raise ValueError("a part without trainings")
        return plan

    @property
    def main(self) -> Part:
        return next(part for part in self.parts if part.name == MAIN)

    @property
    def teacher(self) -> Part | None:
        return next((part for part in self.parts if part.name == TEACHER), None)


AnyPlan = TypeVar("AnyPlan", ConfirmationPlan, StudyPlan)


def confirmation_folder(ids: Sequence[str]) -> Path:
    """Where a confirmation of these searches is kept unless another folder is named."""
    return Path("runs") / f"confirm-{'-'.join(ids)}"


def study_folder(study: str) -> Path:
    """Where a study is kept unless another folder is named."""
    return Path("runs") / "studies" / study


def write_text(path: Path, text: str) -> None:
    """Old content or new, never half of one. Raises AnalysisError where it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no text
        os.replace(partial, path)
    except OSError as error:
        raise AnalysisError(f"cannot write {path}: {error.strerror or error}; name another folder with --out") from None


def write_plan(folder: Path, plan: ConfirmationPlan | StudyPlan) -> None:
    content = dataclasses.asdict(plan)
    if not content.get("screen", True):
        del content["screen"]  # as plans of one stage always were
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / PLAN, text + "\n")


def read_plan(folder: Path, kind: type[AnyPlan]) -> AnyPlan | None:
    """The plan in `folder`, None where there is none. Raises AnalysisError for one that cannot be read, or of another kind."""
    try:
        return kind.from_json(json.loads((folder / PLAN).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise AnalysisError(f"{folder / PLAN} cannot be read ({error}); name another folder with --out") from None


def known_ids(grid: Grid, folder: Path | None = None) -> list[str]:
    """Ids of this grid's experiments, oldest first: those noted in `folder`, if given, then those that NNI's registry knows by
    their name, which are noted too. More than one where a run was continued, or NNI was started again."""
    named = [
        entry for entry in registry().values() if entry.get("experimentName") == grid.experiment and entry.get("id")
    ]
    ids = [entry["id"] for entry in sorted(named, key=lambda entry: entry.get("startTime") or 0)]
    if folder is None:
        return ids
    try:
        noted = json.loads((folder / EXPERIMENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = []
    ids = list(dict.fromkeys([*noted, *ids]))
    if ids != noted:
        write_text(folder / EXPERIMENTS, json.dumps(ids) + "\n")
    return ids


def load_readable(
    ids: Sequence[str], on_error: Callable[[AnalysisError], Any] = lambda error: None
) -> list[Experiment]:
    """The experiments that can be read; `on_error` gets the others' errors: deleted, or NNI has only just started it."""
    experiments = []
    for experiment_id in ids:
        try:
            experiments.append(load_experiment(experiment_id))
        except AnalysisError as error:
            on_error(error)
    return experiments


class Cell(NamedTuple):
    """One configuration under one seed, and its training. `state`: succeeded, failed, or missing (to be trained, again where
    it was cut off); `trial` is the one that counts, `experiment` its id."""

    configuration: Configuration
    seed: int
    state: str
    trial: Trial | None
    experiment: str

    @property
    def interrupted(self) -> bool:
        """Cut short by a time limit or a full disk, with the result of its best epoch so far."""
        return self._flag("interrupted")

    @property
    def diverged(self) -> bool:
        """Ended early as its loss was no number any more, with the result of its best epoch so far."""
        return self._flag("diverged")

    @property
    def counts(self) -> bool:
        """Whether it came to its end with a result, as every number of a study needs."""
        return self.state == "succeeded" and not self.interrupted

    @property
    def weights(self) -> Path | None:
        """The file of its best epoch's weights, None where it was cut short or the file is gone."""
        file = self.trial.folder / WEIGHTS if self.counts and self.trial and self.trial.folder else None
        return file if file and file.is_file() else None

    @property
    def failure(self) -> str:
        """Why it has failed, in a line; "" where it has not."""
        if self.state != "failed" or self.trial is None:
            return ""
        return "succeeded without a finite result" if self.trial.state == "SUCCEEDED" else failure_reason(self.trial)

    def _flag(self, key: str) -> bool:
        final = self.trial.final if self.trial else None
        return isinstance(final, dict) and bool(final.get(key))


def cells_of(grid: Grid, experiments: Sequence[Experiment]) -> list[Cell]:
    """Every cell of the grid, in its order, with the first trial that succeeded in it, in whichever experiment.

    A trial is known by the parameters it really ran with. One without an end was cut off, and a cancelled one may have
    been, by a person or by want of memory, which NNI records alike: its cell is trained once more. Cancelled twice, or
    ended without a finite result, it has failed."""
    trials: dict[str, list[tuple[Trial, str]]] = defaultdict(list)
    for experiment in experiments:
        for trial in experiment.trials:
            trials[key_of(typed(trial.parameters, grid.types))].append((trial, experiment.id))
    pairs = itertools.product(grid.seeds, grid.configurations)
    cells = zip(pairs, grid.cells, strict=True)
    return [Cell(configuration, seed, *_outcome(trials[key_of(cell)])) for (seed, configuration), cell in cells]


def _outcome(attempts: list[tuple[Trial, str]]) -> tuple[str, Trial | None, str]:
    """State, trial and experiment of a cell, from all its trials, oldest first."""
    for trial, experiment in attempts:
        if trial.score is not None:
            return "succeeded", trial, experiment
    ended = [(trial, experiment) for trial, experiment in attempts if trial.state in ENDED]
    if any(trial.state not in CANCELLED for trial, _ in ended) or len(ended) > 1:
        return "failed", *ended[-1]
    return "missing", *(ended[-1] if ended else (None, ""))


def best_teacher(cells: Sequence[Cell]) -> Cell | None:
    """The cell of the best validation accuracy that left its weights, the first seed among equals; None where none did."""
    return max((cell for cell in cells if cell.weights), key=lambda cell: cell.trial.score, default=None)


def key_of(parameters: dict[str, Any]) -> str:
    """Equal for equal parameters, whatever their order."""
    return json.dumps(parameters, sort_keys=True)


def typed(parameters: dict[str, Any], types: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """32.0 for a whole-number field is 32 and 1 for a fraction 1.0, as the trial itself reads them."""
    return {name: _typed(value, types.get(name, {}).get("type")) for name, value in parameters.items()}


def _typed(value: Any, kind: str | None) -> Any:
    if kind == "int" and isinstance(value, float) and value.is_integer():
        return int(value)
    return float(value) if kind == "float" and type(value) is int else value
