"""The lab report's own numbers, beside ours: reported.json, copied from its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_name("reported.json")


def reported(study: str) -> dict[str, Any]:
    """{place, claim, setting, arms: {value as text: numbers}, notes}; empty arms where the report has no numbers. `setting` is
    what this part has of its own beside `setting()`. "tuners" is part (d), which is no study. "pretrained" has `class_names` and
    `training_images` of the course's skewed Food-11 too, and the epoch by which both arms `converged_by_eye`.

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


def same_classes(told: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the classes of these rows, {id, class}, are those that the report's tables have under the same ids."""
    names = told.get("class_names", [])
    return bool(rows) and all(
        row["id"] < len(names) and _plain(row["class"]) == _plain(names[row["id"]]) for row in rows
    )


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def reported_gains(told: dict[str, Any]) -> list[dict[str, Any]]:
    """{id, training, gain} of each class, from the report's two tables."""
    tables = [told["arms"].get(arm, {}).get("per_class", []) for arm in ("none", "imagenet")]
    pairs = zip(told.get("training_images", []), *tables)
    return [
        {"id": i, "training": images, "gain": after[0] / after[1] - before[0] / before[1]}
        for i, (images, before, after) in enumerate(pairs)
    ]
