"""The lab report's own numbers, beside ours: lab_numbers.json, copied from its text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")


def lab_numbers(part: str) -> dict[str, Any]:
    """{place, claim, setting, arms: {value as text: numbers}, notes} of one study, or of "tuners", part (d), which is no
    study; empty arms where the lab report has no numbers. `setting` is what this part has of its own beside `lab_setting`.
    "pretrained" has `class_names` and `training_images` of the course's skewed Food-11 too, and the epoch by which both arms
    `converged_by_eye`.

    Counts are [correct, all], other accuracies fractions, times seconds; `per_class` is in the order of the class ids."""
    return json.loads(FILE.read_text("utf-8")).get(part, {"place": None, "arms": {}, "notes": []})


def lab_setting() -> dict[str, Any]:
    """The lab report's data, weights, machine and what else its parts share, by the names of the trial's fields."""
    return json.loads(FILE.read_text("utf-8"))["setting"]


def lab_arm(numbers: dict[str, Any], value: Any) -> dict[str, Any]:
    """Of the arm with this value of the field; a weights file is in the place of the lab report's ImageNet weights."""
    arms = numbers["arms"]
    key = f"{value:g}" if isinstance(value, (int, float)) else str(value)
    return arms.get(key) or (arms.get("imagenet", {}) if key != "none" else {})


def same_classes(numbers: dict[str, Any], rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the classes of these rows, {id, class}, are those that the lab report's tables have under the same ids."""
    names = numbers.get("class_names", [])
    return bool(rows) and all(
        row["id"] < len(names) and _letters(row["class"]) == _letters(names[row["id"]]) for row in rows
    )


def _letters(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def lab_gains(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """{id, training, gain} of each class, from the lab report's two tables."""
    tables = [numbers["arms"].get(arm, {}).get("per_class", []) for arm in ("none", "imagenet")]
    pairs = zip(numbers.get("training_images", []), *tables)
    return [
        {"id": i, "training": images, "gain": after[0] / after[1] - before[0] / before[1]}
        for i, (images, before, after) in enumerate(pairs)
    ]
