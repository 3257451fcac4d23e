"""What the plan in a study's folder has instead of the one that is asked for."""

from __future__ import annotations

from typing import Any

from analysis.reading.replication import Part, StudyPlan


def difference(known: StudyPlan, new: StudyPlan) -> str:
    """What `known` has instead of what `new` has, in words; what differs alike for teachers and students is told once."""
    if known.study != new.study:
        return f"instead of {new.study}"
    own = _differences(known.main, new.main)
    theirs = _differences(known.teacher, new.teacher) if known.teacher and new.teacher else []
    told = [*own, *(f"{text} (teachers)" for text in theirs if text not in own)]
    return f"with {' and '.join(told) or 'other parts'}"


def _differences(known: Part, new: Part) -> list[str]:
    before, after = (
        {name: entry["_value"] for name, entry in part.space.items()} | part.fields for part in (known, new)
    )
    return [
        f"{_text(name, before.get(name))} instead of {_text(name, after.get(name))}"
        for name in before | after
        if before.get(name) != after.get(name)
    ]


def _text(name: str, value: Any) -> str:
    """A field as a person reads it; `value` is a list where it is searched, None where it is left to the trial."""
    if value is None:
        return f"no {name}"
    if name == "seed" and isinstance(value, list):
        return f"{len(value)} seeds"
    return f"{name}={', '.join(map(str, value)) if isinstance(value, list) else value}"
