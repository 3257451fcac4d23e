"""The folder of a confirmation: the plan as it was fixed, and the NNI experiment of the cells that are still missing.

plan.json             what is confirmed, written once, before the first training
experiments.json      ids of the NNI experiments that trained its cells
confirm.yml           the next experiment to launch, with confirm_space.json: its cells
confirm.json          the result, with report.html and cells.csv
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import yaml

from ..reading.locate import AnalysisError, registry
from .cells import Configuration, Plan

PLAN, EXPERIMENTS, EXPERIMENT, SPACE = "plan.json", "experiments.json", "confirm.yml", "confirm_space.json"
_DAY_S = 24 * 3600


def default_folder(ids: list[str]) -> Path:
    return Path("runs") / f"confirm-{'-'.join(ids)}"


def write_text(path: Path, text: str) -> None:
    """Old content or new, never half of one. Raises AnalysisError where it cannot be written."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")  # names that are no text
        os.replace(partial, path)
    except OSError as error:
        raise AnalysisError(f"cannot write {path}: {error.strerror or error}; name another folder with --out") from None


def write_plan(folder: Path, plan: Plan) -> None:
    write_text(
        folder / PLAN, json.dumps(dataclasses.asdict(plan), indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    )


def read_plan(folder: Path, request: dict[str, Any]) -> Plan | None:
    """The plan in `folder`, None where there is none. Raises AnalysisError for the plan of another request."""
    try:
        told = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        configurations = tuple(
            Configuration(c["name"], c["parameters"], tuple(c["promises"])) for c in told["configurations"]
        )
        lists = {name: tuple(told[name]) for name in ("seeds", "searches", "notes")}
        plan = Plan(told["request"], configurations, settings=told["settings"], fields=told["fields"], **lists)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AnalysisError(f"{folder / PLAN} cannot be read ({error}); name another folder with --out") from None
    if plan.request != request:
        asked = "{} --top {top} --seeds {seeds}".format(" ".join(plan.request["experiments"]), **plan.request)
        raise AnalysisError(
            f"{folder} holds the confirmation of {asked}; repeat that, or name another folder with --out"
        )
    return plan


def experiment_name(plan: Plan) -> str:
    """Of every NNI experiment of this plan and of no other: the searches' ids, and a digest of all that is trained."""
    content = json.dumps([plan.cells, plan.settings], sort_keys=True)
    return f"confirm_{'_'.join(plan.request['experiments'])}_{hashlib.sha256(content.encode()).hexdigest()[:8]}"


def known_experiments(folder: Path, plan: Plan) -> list[str]:
    """Ids of this plan's experiments, oldest first: those written down here, then those NNI's registry knows by name."""
    try:
        noted = json.loads((folder / EXPERIMENTS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        noted = []
    named = [e for e in registry().values() if e.get("experimentName") == experiment_name(plan) and e.get("id")]
    found = list(dict.fromkeys([*noted, *(e["id"] for e in sorted(named, key=lambda e: e.get("startTime") or 0))]))
    if found != noted:
        write_text(folder / EXPERIMENTS, json.dumps(found) + "\n")
    return found


def write_experiment(folder: Path, plan: Plan, cells: list[dict[str, Any]]) -> Path:
    """confirm.yml and confirm_space.json for `cells`. NNI's Batch tuner hands out a list as it is, each entry flat."""
    write_text(folder / SPACE, json.dumps({"combine_params": {"_type": "choice", "_value": cells}}, indent=1) + "\n")
    longest_s = _seconds(plan.settings.get("maxTrialDuration"))
    config = {
        "experimentName": experiment_name(plan),
        "searchSpaceFile": SPACE,
        **plan.settings,
        "trialConcurrency": 1,
        "maxTrialNumber": len(cells),
        "maxExperimentDuration": f"{(len(cells) * longest_s)}s" if longest_s else f"{len(cells) * _DAY_S}s",
        "tuner": {"name": "Batch"},
    }
    write_text(folder / EXPERIMENT, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    return folder / EXPERIMENT


def _seconds(duration: Any) -> int | None:
    """NNI's 7200 or "2h" in seconds."""
    if duration is None:
        return None
    text = str(duration).strip()
    factor = {"s": 1, "m": 60, "h": 3600, "d": _DAY_S}.get(text[-1:])
    return round(float(text[:-1]) * factor) if factor else round(float(text))
