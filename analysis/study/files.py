"""The folder of a study: its plan, fixed before the first training, and where NNI's experiments of it are found.

plan.json             what is trained: the parts, each a grid and one NNI experiment, with a name that no other has
report.html           the page, with its numbers in study.json
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..confirm.files import write_text
from ..reading.locate import AnalysisError, registry
from ..reading.reader import load_experiment
from ..reading.records import Experiment
from ..reading.values import load_json

PLAN, RESULT = "plan.json", "study.json"
MAIN, TEACHER = "main", "teacher"


class Part(NamedTuple):
    """One NNI experiment of a study. `space` is its search space, all of it choices, the seed first; `fields` are the
    trial's fixed fields and settings, as text."""

    name: str  # MAIN or TEACHER
    experiment: str  # its experimentName
    space: dict[str, Any]
    fields: dict[str, str]

    @property
    def field(self) -> str:
        """The one whose values are the arms."""
        return next(name for name in self.space if name != "seed")

    @property
    def values(self) -> list[Any]:
        """The arms, the reference first."""
        return self.space[self.field]["_value"]

    @property
    def seeds(self) -> list[int]:
        return self.space["seed"]["_value"]

    @property
    def cells(self) -> list[dict[str, Any]]:
        """The parameters of each training, seed by seed, so that an interrupted study has whole pairs."""
        return [{"seed": seed, self.field: value} for seed, value in itertools.product(self.seeds, self.values)]


class Plan(NamedTuple):
    """All that a study trains, part after part."""

    study: str
    parts: tuple[Part, ...]

    @property
    def main(self) -> Part:
        return next(part for part in self.parts if part.name == MAIN)

    @property
    def teacher(self) -> Part | None:
        return next((part for part in self.parts if part.name == TEACHER), None)


def default_folder(study: str) -> Path:
    return Path("runs") / "studies" / study


def write_plan(folder: Path, plan: Plan) -> None:
    content = {"study": plan.study, "parts": [part._asdict() for part in plan.parts]}
    write_text(folder / PLAN, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def read_plan(folder: Path) -> Plan | None:
    """None where there is none yet. Raises AnalysisError for one that cannot be read."""
    try:
        told = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        plan = Plan(told["study"], tuple(Part(**part) for part in told["parts"]))
        _ = [part.cells for part in plan.parts], plan.main
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, StopIteration) as error:
        raise AnalysisError(f"{folder / PLAN} cannot be read ({error}); name another folder with --out") from None
    return plan


def read_result(folder: Path, study: str) -> dict[str, Any] | None:
    """The study's study.json, None where there is none yet. Raises AnalysisError for one of another study, or no JSON."""
    file = folder / RESULT
    try:
        result = load_json(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise AnalysisError(f"{file} cannot be read ({error}); python -m analysis study {study} writes it") from None
    found = result.get("study") if isinstance(result, dict) else None
    if found != study:
        raise AnalysisError(
            f"{file}: expected the study {study}, found {found}; python -m analysis study {study} writes it"
        )
    return result


Made = TypeVar("Made")


def from_file(make: Callable[..., Made], file: object, *content: Any) -> Made:
    """`make(*content)`. Raises AnalysisError where that is not as this version writes `file`: a key or a table is missing."""
    try:
        return make(*content)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise AnalysisError(
            f"{file}: not as this version writes it ({type(error).__name__}: {error}); write it again with "
            "python -m analysis study or compare"
        ) from None


def named(part: Part) -> list[dict[str, Any]]:
    """The registry's entries of the part's experiments, oldest first: more than one where NNI did not answer in time and
    was started again."""
    found = [e for e in registry().values() if e.get("experimentName") == part.experiment and e.get("id")]
    return sorted(found, key=lambda entry: entry.get("startTime") or 0)


def experiments_of(part: Part) -> list[Experiment]:
    """Those that can be read, oldest first; none before the first has made its database."""
    found = []
    for entry in named(part):
        with contextlib.suppress(AnalysisError):
            found.append(load_experiment(entry["id"]))
    return found
