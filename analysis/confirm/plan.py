"""The plan of a confirmation, from the searches as they are on disk: refused early, or fixed once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from ..reading.locate import AnalysisError
from ..reading.reader import load_experiment
from ..reading.records import Experiment
from ..reading.replication import ConfirmationPlan, confirmation_folder, read_plan, write_plan
from ..render.formats import seconds_text
from ..stats.paired import MOST_PAIRS
from .cells import choose_configurations, fresh_seeds, search_facts
from .settings import common_flags, describe, flags_of, settings_of


class Request(NamedTuple):
    """What was asked for. `ids` may be paths, `folder` is None for runs/confirm-IDS."""

    ids: list[str]
    top: int
    seeds: int
    folder: Path | None
    launch: bool


def plan_of(request: Request) -> tuple[Path, ConfirmationPlan]:
    """The folder and its plan; made and written where there is none yet. Raises AnalysisError."""
    if request.top < 1 or not 2 <= request.seeds <= MOST_PAIRS:
        raise AnalysisError(
            f"--top {request.top} --seeds {request.seeds}: expected a --top of 1 or more, and 2 to {MOST_PAIRS} --seeds "
            "(one seed has no spread)"
        )
    searches = [load_experiment(name) for name in request.ids]
    ids = [search.id for search in searches]
    folder = (request.folder or confirmation_folder(ids)).resolve()
    asked = {"experiments": ids, "top": request.top, "seeds": request.seeds}
    plan = read_plan(folder, ConfirmationPlan)
    if plan is None:
        plan = _new_plan(searches, asked)
        write_plan(folder, plan)
    refuse_another(folder, plan, asked)
    return folder, plan


def refuse_another(folder: Path, plan: ConfirmationPlan, request: dict[str, Any]) -> None:
    """Raises AnalysisError for the plan of another request."""
    if plan.request != request:
        known = "{} --top {top} --seeds {seeds}".format(" ".join(plan.request["experiments"]), **plan.request)
        raise AnalysisError(
            f"{folder} holds the confirmation of {known}; repeat that, or name another folder with --out"
        )


def _new_plan(searches: list[Experiment], asked: dict[str, Any]) -> ConfirmationPlan:
    for search in searches:
        if asked["experiments"].count(search.id) > 1:
            raise AnalysisError(f"experiment {search.id} was named twice; name each search once")
        if search.state == "RUNNING":
            raise AnalysisError(
                f"experiment {search.id} still runs, its top may change; wait for it: python -m experiments watch {search.id}"
            )
        if search.optimise_mode != "maximize":
            raise AnalysisError(
                f"experiment {search.id} minimised what its trials report; confirm expects an accuracy that was maximised"
            )
    flags = common_flags(searches)
    fields = [describe(search, flags) for search in searches][0]
    configurations, notes = choose_configurations(searches, asked["top"], fields)
    fixed = [int(flags_of(search).get("seed", fields["seed"]["default"])) for search in searches]
    return ConfirmationPlan(
        request=asked,
        configurations=tuple(configurations),
        seeds=tuple(fresh_seeds(searches, asked["seeds"], fixed)),
        settings=settings_of(searches[0], flags),
        fields=fields,
        searches=tuple(search_facts(search) for search in searches),
        notes=tuple(notes),
    )


def size_text(plan: ConfirmationPlan) -> str:
    """How much there is to train, and about how long that takes."""
    size = f"{len(plan.cells)} trainings: {len(plan.configurations)} configurations with {len(plan.seeds)} seeds"
    medians = [search["median_trial_s"] for search in plan.searches if search["median_trial_s"]]
    if not medians:
        return size
    return f"{size}, about {seconds_text(len(plan.cells) * sum(medians) / len(medians))} by the searches' median trial"
