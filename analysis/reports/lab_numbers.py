"""The lab report's own numbers and settings (lab_numbers.json, copied from its text), and where our settings differ."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from ..render.document import Row, Table
from ..render.formats import optional

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


def lab_gains(numbers: dict[str, Any], reference: Any, value: Any) -> list[dict[str, Any]]:
    """{id, training, gain} of each class, from the lab report's tables of two arms; `training` images are None where it has
    none, and no class is there where it lacks a table."""
    tables = [lab_arm(numbers, arm).get("per_class", []) for arm in (reference, value)]
    images = dict(enumerate(numbers.get("training_images", [])))
    return [
        {"id": i, "training": images.get(i), "gain": after[0] / after[1] - before[0] / before[1]}
        for i, (before, after) in enumerate(zip(*tables))
    ]


SETTINGS = {
    "cache": "Data",
    "classes": "Classes",
    "images": "Images",
    "weights": "Weights at the start",
    "image_px": "Side of an image",
    "epochs": "Epochs at most",
    "lr": "Learning rate",
    "step_size": "Epochs between two decays",
    "gamma": "Factor of a decay",
    "patience": "Patience",
    "batch_size": "Batch",
    "momentum": "Momentum",
    "compute": "Machine",
}
"""In the order of the table; what is no field of the trial comes from the other keys of a training's result.json."""

_REMARKS = {
    "images": ": training / validation / evaluation",
    "image_px": ", px",
    "patience": ", epochs; 0: none",
    "batch_size": ", images",
    "compute": ", and precision",
}


@dataclass(frozen=True)
class Setting:
    """One setting of one part, the lab report's and ours, as text; None where it is not recorded."""

    lab: str | None
    ours: str | None
    differs: bool


def settings_of(part: str, provenance: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, Setting]:
    """{key of SETTINGS: setting}. `provenance` is that of `made_of`; `varied` has the values of each field that the part
    varies, None where a tuner searches it."""
    numbers, hyperparameters = lab_numbers(part), provenance.get("hyperparameters") or {}
    lab_varied = {field: None if values is None else list(numbers["arms"]) for field, values in varied.items()}
    lab = _texts(lab_setting() | numbers.get("setting", {}), lab_varied)
    classes = len(provenance["classes"]) if provenance.get("classes") else None
    ours = _texts({**hyperparameters, **provenance, "classes": classes}, varied)
    if provenance.get("generated"):
        ours["cache"] = f"generated drawings, no photos ({ours['cache']})"
    differs = {key: None not in (lab[key], ours[key]) and lab[key] != ours[key] for key in SETTINGS}
    counts = zip(provenance.get("images") or [], lab_setting()["images"])
    differs["images"] = any(own is not None and own != other for own, other in counts)
    # Where classes and images are Food-11's, it is that, whatever the folder's name.
    differs["cache"] = ours["cache"] is not None and (differs["images"] or differs["classes"])
    return {key: Setting(lab[key], ours[key], differs[key]) for key in SETTINGS}


def _texts(values: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, str | None]:
    """{key of SETTINGS: text}, of `varied` fields the values that they have instead; None where nothing is recorded."""
    texts = {key: None if values.get(key) is None else _short(values[key]) for key in SETTINGS}
    counts = values.get("images") or []
    texts["images"] = " / ".join(map(optional, counts)) if any(counts) else None
    for field, own in varied.items():
        texts[field] = "searched" if own is None else f"varied: {', '.join(map(_short, own))}" if own else None
    return texts


def _short(value: Any) -> str:
    """A setting without the folders of the machine that it was used on."""
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_sentence(settings: dict[str, Setting]) -> str:
    """What differs from the lab report, and what is not known to."""
    differing = [SETTINGS[key].lower() for key, one in settings.items() if one.differs]
    unknown = [SETTINGS[key].lower() for key, one in settings.items() if one.lab is not None and one.ours is None]
    if not differing and not unknown:
        return "Data, weights and settings are those of the lab report."
    sentences = [f"Not as in the lab report: {', '.join(differing)}."] if differing else []
    return " ".join([*sentences, *([f"Not recorded: {', '.join(unknown)}."] if unknown else [])])


def settings_table(parts: dict[str, dict[str, Setting]]) -> Table:
    """A row per setting, the lab report's and ours over all parts."""
    rows = []
    for key, name in SETTINGS.items():
        lab = by_value({part: settings[key].lab for part, settings in parts.items()})
        ours = by_value({part: settings[key].ours for part, settings in parts.items()})
        differs = any(settings[key].differs for settings in parts.values())
        rows.append(Row(name + _REMARKS.get(key, ""), (lab, ours, "yes" if differs else "")))
    return Table(("The lab report", "Here", "Differs"), tuple(rows), "Setting")


def by_value(values: dict[str, str | None]) -> str:
    """One text where all parts agree; otherwise each text with the parts that have it."""
    parts: dict[str, list[str]] = {}
    for part, value in values.items():
        parts.setdefault(optional(value), []).append(part.replace("_", " "))
    if len(parts) == 1:
        return next(iter(parts))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in parts.items())
