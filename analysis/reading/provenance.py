"""Where the numbers come from: tuner, space, command, machine, versions."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import PurePath
from typing import Any

from ..render import formats as words
from . import startup
from .records import Experiment, Trial
from .values import load_json

MADE = (
    "compute",
    "versions",
    "revision",
    "source_digest",
    "generated",
    "photos_in_two_splits",
    "hyperparameters",
    "classes",
)
"""What is kept of a training's result.json: machine, versions, commit, digest of the photos, which generator drew them (None
for photos, and where it is not told), how many photos two splits have in common, all that it used, classes."""


def best_result(best: Trial | None) -> dict[str, Any]:
    """The trial's result.json, an extra of our own trial: all else on the page comes from the database."""
    if best is None or best.folder is None:
        return {}
    try:
        result = load_json((best.folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return result if isinstance(result, dict) else {}


def made_of(result: dict[str, Any]) -> dict[str, Any]:
    """What a training's result.json says about its making, None where it does not: MADE, `cache` (the folder's name), and
    `images`, the numbers of training, validation and evaluation images."""
    splits = [result.get(split) for split in ("training", "validation", "evaluation")]
    return {
        **{key: result.get(key) for key in MADE},
        "cache": PurePath(str(result["cache"])).name if result.get("cache") else None,
        "images": [split.get("n") if isinstance(split, dict) else None for split in splits],
    }


def made_with(result: dict[str, Any]) -> dict[str, str]:
    """Label and text of what a training's result.json says about its making; a dash where it says nothing."""
    versions = result.get("versions")
    return {
        "Machine": words.optional(result.get("compute")),
        "Versions": words.params_text(versions) if isinstance(versions, dict) else words.NONE,
        "Commit of the code": words.optional(result.get("revision")),
        "Digest of the photos": words.optional(result.get("source_digest"))[:16],
    }


def shared_photos(result: dict[str, Any]) -> list[str]:
    """From a training's result.json: what its accuracies are worth where splits have photos in common."""
    counts = result.get("photos_in_two_splits")
    notes = []
    for pair, n in counts.items() if isinstance(counts, dict) else ():
        one, _, other = str(pair).partition("/")
        photos = "1 photo is" if n == 1 else f"{n} photos are"
        notes.append(f"{photos} in both {one} and {other}: the {other} accuracy is too optimistic")
    return notes


def provenance(experiments: list[Experiment]) -> list[tuple[str, list[str]]]:
    """Where each number comes from: a label, and a text for each arm."""

    def texts(make: Any) -> list[str]:
        return [make(experiment) for experiment in experiments]

    return [
        ("Experiment", texts(lambda e: e.id)),
        ("Name", texts(lambda e: e.name or words.NONE)),
        ("Started", texts(lambda e: words.date_text(e.started))),
        (
            "Tuner and arguments",
            texts(lambda e: f"{startup.label(e.tuner)} {json.dumps(e.class_args, ensure_ascii=False)}"),
        ),
        ("Search space", texts(lambda e: json.dumps(e.config.get("searchSpace"), ensure_ascii=False))),
        ("Trial command", texts(lambda e: str(e.config.get("trialCommand", words.NONE)))),
        ("Settings of the best trial", texts(_settings)),
        ("Machine of the best trial", texts(lambda e: str(best_result(e.best).get("compute", words.NONE)))),
        ("Versions of the best trial", texts(_versions)),
        ("Commit of its code", texts(lambda e: str(best_result(e.best).get("revision", words.NONE)))),
        ("Digest of its photos", texts(lambda e: str(best_result(e.best).get("source_digest", words.NONE))[:16])),
        ("Trials at a time", texts(lambda e: str(e.config.get("trialConcurrency", words.NONE)))),
        ("Folder", texts(lambda e: str(e.folder))),
        ("NNI installed here", [_nni_version()] * len(experiments)),
    ]


def _settings(experiment: Experiment) -> str:
    """What the best trial says it used beyond the searched hyperparameters; empty for other trial scripts."""
    best = experiment.best
    if best is None:
        return words.NONE
    return words.params_text({key: value for key, value in best.effective.items() if key not in best.parameters})


def _versions(experiment: Experiment) -> str:
    versions = best_result(experiment.best).get("versions")
    return words.params_text(versions) if isinstance(versions, dict) else words.NONE


def _nni_version() -> str:
    """From the package's metadata, without importing it; NNI does not record its version in the database."""
    try:
        return metadata.version("nni")
    except metadata.PackageNotFoundError:
        return "none"
