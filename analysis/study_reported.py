"""The lab report's own numbers, beside ours: study_reported.json, copied from its text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("study_reported.json")


def reported(study: str) -> dict[str, Any]:
    """{place, claim, setting, arms: {value as text: numbers}, notes}; empty arms where the report has no numbers. `setting` is
    what this part has of its own beside `setting()`. "tuners" is part (d), which is no study.

    Counts are [right, all], other accuracies fractions, times seconds; `per_class` is in the order of the class ids."""
    return json.loads(FILE.read_text("utf-8")).get(study, {"place": None, "arms": {}, "notes": []})


def setting() -> dict[str, Any]:
    """The report's data, weights, machine and what else its parts share, by the names of the trial's fields."""
    return json.loads(FILE.read_text("utf-8"))["setting"]


def reported_arm(told: dict[str, Any], value: Any) -> dict[str, Any]:
    """Of the arm with this value of the field; a weights file stands where the report used ImageNet's."""
    arms = told["arms"]
    key = f"{value:g}" if isinstance(value, (int, float)) else str(value)
    return arms.get(key) or (arms.get("imagenet", {}) if key != "none" else {})
