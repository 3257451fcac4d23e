"""The lab report's own numbers and settings (lab_numbers.json, copied from its text), and where our settings differ."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
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


def lab_gains(numbers: dict[str, Any]) -> list[dict[str, Any]]:
    """{id, training, gain} of each class, from the lab report's two tables."""
    tables = [numbers["arms"].get(arm, {}).get("per_class", []) for arm in ("none", "imagenet")]
    pairs = zip(numbers.get("training_images", []), *tables)
    return [
        {"id": i, "training": images, "gain": after[0] / after[1] - before[0] / before[1]}
        for i, (images, before, after) in enumerate(pairs)
    ]


FIELDS = {
    "cache": "Data",
    "classes": "Classes",
    "images": "Images: training / validation / evaluation",
    "weights": "Weights at the start",
    "image_px": "Side of an image, px",
    "epochs": "Epochs at most",
    "lr": "Learning rate",
    "step_size": "Epochs between two decays",
    "gamma": "Factor of a decay",
    "patience": "Patience, epochs; 0: none",
    "batch_size": "Batch, images",
    "momentum": "Momentum",
    "compute": "Machine, and precision",
}
"""In the order of the table; what is no field of the trial comes from the other keys of a training's result.json."""


@dataclass(frozen=True)
class Setting:
    """One setting of one part, the lab report's and ours, as text; None where it is not recorded."""

    lab: str | None
    ours: str | None
    differs: bool


def settings_of(part: str, provenance: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, Setting]:
    """{key of FIELDS: setting}. `provenance` is that of `made_of`; `varied` has the values of each field that the part
    varies, None where a tuner searches it."""
    lab, ours = _lab_texts(part, varied), _our_texts(provenance, varied)
    differs = {key: None not in (lab[key], ours[key]) and lab[key] != ours[key] for key in FIELDS}
    counts = zip(provenance.get("images") or [], lab_setting()["images"])
    differs["images"] = any(own is not None and own != other for own, other in counts)
    # Where classes and images are Food-11's, it is that, whatever the folder's name.
    differs["cache"] = ours["cache"] is not None and (differs["images"] or differs["classes"])
    return {key: Setting(lab[key], ours[key], differs[key]) for key in FIELDS}


def _lab_texts(part: str, varied: dict[str, list[Any] | None]) -> dict[str, str | None]:
    numbers = lab_numbers(part)
    values = lab_setting() | numbers.get("setting", {})
    texts = {key: _setting_text(key, values.get(key)) for key in FIELDS}
    for field, own in varied.items():
        texts[field] = "searched" if own is None else _varied(numbers["arms"]) if numbers["arms"] else None
    return texts


def _our_texts(provenance: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, str | None]:
    values = {**(provenance.get("hyperparameters") or {}), **provenance}
    values["classes"] = len(provenance["classes"]) if provenance.get("classes") else None
    texts = {key: _setting_text(key, values.get(key)) for key in FIELDS}
    if provenance.get("generated"):
        texts["cache"] = f"generated drawings, no photos ({texts['cache']})"
    for field, own in varied.items():
        texts[field] = "searched" if own is None else _varied(own)
    return texts


def _varied(values: Iterable[Any]) -> str:
    return "varied: " + ", ".join(map(_short, values))


def _setting_text(key: str, value: Any) -> str | None:
    if value is None or (key == "images" and not any(value)):
        return None
    return " / ".join(map(optional, value)) if key == "images" else _short(value)


def _short(value: Any) -> str:
    """A setting without the folders of the machine that it was used on."""
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)


def settings_sentence(settings: dict[str, Setting]) -> str:
    """What differs from the lab report, and what is not known to."""
    differing = [_name(key) for key, one in settings.items() if one.differs]
    unknown = [_name(key) for key, one in settings.items() if one.lab is not None and one.ours is None]
    if not differing and not unknown:
        return "Data, weights and settings are those of the lab report."
    sentences = [f"Not as in the lab report: {', '.join(differing)}."] if differing else []
    return " ".join([*sentences, *([f"Not recorded: {', '.join(unknown)}."] if unknown else [])])


def _name(key: str) -> str:
    return re.split("[:,]", FIELDS[key])[0].lower()


def settings_table(parts: dict[str, dict[str, Setting]]) -> Table:
    """A row per setting, the lab report's and ours over all parts."""
    rows = []
    for key, label in FIELDS.items():
        settings = {part: settings[key] for part, settings in parts.items()}
        lab = by_value({part: setting.lab for part, setting in settings.items()})
        ours = by_value({part: setting.ours for part, setting in settings.items()})
        differs = any(setting.differs for setting in settings.values())
        rows.append(Row(label, (lab, ours, "yes" if differs else "")))
    return Table(("The lab report", "Here", "Differs"), tuple(rows), "Setting")


def by_value(values: dict[str, str | None]) -> str:
    """One text where all parts agree; otherwise each text with the parts that have it."""
    parts: dict[str, list[str]] = {}
    for part, value in values.items():
        parts.setdefault(optional(value), []).append(part.replace("_", " "))
    if len(parts) == 1:
        return next(iter(parts))
    return "; ".join(f"{value} ({', '.join(names)})" for value, names in parts.items())
