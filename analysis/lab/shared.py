"""Which studies trained the same settings under the same seeds, so that their answers are not independent."""

from __future__ import annotations

from collections import defaultdict
from typing import Any


def repeated(results: dict[str, dict[str, Any]]) -> list[tuple[list[tuple[str, str]], list[int]]]:
    """([(study, arm)], seeds) of each set of settings that several studies trained on the same photos; `results` has the
    content of each study's study.json. The seeds are those that two or more of the arms have."""
    found: dict[frozenset, list[tuple[str, str, list[int]]]] = defaultdict(list)
    for name, result in results.items():
        for arm in result["arms"]:
            settings = _settings(result, arm)
            if settings and not arm["name"].startswith("teacher "):
                found[settings].append((name, arm["name"], result["seeds"]))
    groups = []
    for arms in found.values():
        seeds = [seed for _, _, own in arms for seed in own]
        shared = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        members = [(name, arm) for name, arm, own in arms if set(own) & set(shared)]
        if members:
            groups.append((members, shared))
    return groups


def _settings(result: dict[str, Any], arm: dict[str, Any]) -> frozenset:
    """All that decides a training but its seed: the fields that a training of the study used, with the arm's own value. A
    teacher without weight changes nothing. Empty where it is not recorded."""
    made = result["provenance"]
    if not made.get("hyperparameters"):
        return frozenset()
    used = made["hyperparameters"] | {result["field"]: arm["value"], "photos": made.get("source_digest")}
    idle = ("seed", *(() if used.get("distill_weight") else ("teacher", "temperature")))
    return frozenset((key, value) for key, value in used.items() if key not in idle)


def sentences(results: dict[str, dict[str, Any]]) -> list[str]:
    """One a set of settings, as plain text."""
    told = []
    for members, seeds in repeated(results):
        names = [f"{arm} ({name.replace('_', ' ')})" for name, arm in members]
        told.append(
            f"Not independent: {', '.join(names[:-1])} and {names[-1]} are trainings with the same settings, photos and seeds "
            f"({', '.join(map(str, seeds))}). Where chance made these good or bad, all answers that compare with them err alike."
        )
    return told
