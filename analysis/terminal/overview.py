"""python -m analysis list: every experiment found on this machine, a row each, newest first."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from ..reading import locate, startup
from ..reading.locate import AnalysisError
from ..reading.reader import load_experiment
from ..reading.records import Experiment
from ..render import formats as words
from ..render.terminal import clean, grid, indented, safe_json, say
from .condition import condition

HEADS = ["Id", "Name", "Tuner", "State", "Ok/failed/all", "Best", "Of trial", "Started (UTC)"]


def print_list(place: Path | None, file_format: str) -> None:
    """`place`: a folder of experiments, or a home that has one; None is this home's. `file_format`: "text" or "json"."""
    folder = _folder(place)
    found = overview(folder)
    if file_format == "json":
        print(safe_json(found))
    elif found:
        heads, *lines = grid(HEADS, [_cells(row) for row in found]).split("\n")
        say(heads)
        for line, row in zip(lines, found):
            say(line)
            if remark := row["fault"] or row["remark"]:
                say(indented(remark))
    else:
        say(f"no experiment in {clean(str(folder))}: start one with python -m experiments launch, or name its folder")


def overview(folder: Path) -> list[dict[str, Any]]:
    """One dict an experiment of NNI's registry in `folder` or on disk. One that cannot be read has a `fault`, and of the
    other keys only what the registry knows."""
    rows = [_row(path, locate.registry(folder).get(path.name) or {}) for path in locate.folders(folder)]
    return sorted(rows, key=lambda row: row["started"] or "", reverse=True)


def _folder(place: Path | None) -> Path:
    if place is None:
        return locate.home()
    if not place.is_dir():
        raise AnalysisError(f"--home {place}: no such folder; name a folder of experiments, or a home that has one")
    inside = place / "nni-experiments"
    return inside if inside.is_dir() else place


def _row(folder: Path, entry: dict[str, Any]) -> dict[str, Any]:
    try:
        return _facts(load_experiment(folder, finals_only=True))
    except (AnalysisError, OSError) as error:
        started = entry.get("startTime")
        return {
            "id": folder.name,
            "name": str(entry.get("experimentName") or ""),
            "state": "unreadable",
            "started": _iso(started) if isinstance(started, int) else None,
            "folder": str(folder),
            "fault": str(error),
        }


def _facts(experiment: Experiment) -> dict[str, Any]:
    state, remark = condition(experiment)
    best = experiment.best
    return {
        "id": experiment.id,
        "name": experiment.name,
        "tuner": startup.label(experiment.tuner),
        "state": state,
        "remark": remark,
        "trials": {**experiment.counts, "all": len(experiment.trials), "max": experiment.max_trials},
        "best": None if best is None else best.score,
        "best_trial": None if best is None else best.trial_id,
        "best_sequence": None if best is None else best.sequence,
        "validation_n": None if best is None else words.validation_n(best),
        "optimise_mode": experiment.optimise_mode,
        "started": None if experiment.started is None else _iso(experiment.started),
        "folder": str(experiment.folder),
        "fault": None,
    }


def _cells(row: dict[str, Any]) -> list[str]:
    started = words.NONE if row["started"] is None else row["started"][:16].replace("T", " ")
    name = row["name"] if len(row["name"]) <= 40 else row["name"][:39] + "…"
    if row["fault"]:
        return [row["id"], name, words.NONE, row["state"], *[words.NONE] * 3, started]
    trials, n = row["trials"], row["validation_n"]
    counts = f"{trials['succeeded']}/{trials['failed'] + trials['cancelled']}/{trials['all']}"
    value = words.score_text(row["best"], n is not None) + (f" (n = {n})" if n else "")
    best = words.NONE if row["best"] is None else f"{row['best_trial']} (no. {row['best_sequence']})"
    return [row["id"], name, row["tuner"], row["state"], counts, value, best, started]


def _iso(ms: int | float) -> str | None:
    """UTC; None for a time that no calendar has."""
    try:
        return datetime.fromtimestamp(ms / 1000, timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (OverflowError, OSError, ValueError):
        return None
