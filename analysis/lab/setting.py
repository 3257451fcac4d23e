"""Where data, weights and settings are not the lab report's: for one study, and for all of them in one table."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, NamedTuple

from ..render.formats import NONE
from ..render.markdown import text as escaped
from ..study.reported import reported, setting

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


class Setting(NamedTuple):
    """One setting of one part, as text; None where it is not told."""

    theirs: str | None
    ours: str | None
    differs: bool


class Told(NamedTuple):
    """A part of the report: its blocks of Markdown, and what the tables at the top have of it. `n` says of what, in words."""

    blocks: list[str]
    headline: str
    n: str
    settings: dict[str, Setting]
    made: dict[str, Any]  # as `provenance.made_of` tells
    experiments: list[str]


def settings_of(part: str, made: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, Setting]:
    """{key of FIELDS: theirs and ours}. `made` is what `provenance.made_of` tells of a training; `varied` has the values of
    each field that the part varies, None where a tuner searches it."""
    theirs, ours = _theirs(part, varied), _ours(made, varied)
    found = {
        key: Setting(theirs[key], ours[key], None not in (theirs[key], ours[key]) and theirs[key] != ours[key])
        for key in FIELDS
    }
    pairs = zip(made.get("images") or [], setting()["images"])
    other = any(own is not None and own != told for own, told in pairs)
    found["images"] = found["images"]._replace(differs=other)
    # Where classes and images are Food-11's, it is that, whatever the folder's name.
    found["cache"] = found["cache"]._replace(
        differs=found["cache"].ours is not None and (other or found["classes"].differs)
    )
    return found


def _theirs(part: str, varied: dict[str, list[Any] | None]) -> dict[str, str | None]:
    told = reported(part)
    values = setting() | told.get("setting", {})
    texts = {key: _text(key, values.get(key)) for key in FIELDS}
    for field, own in varied.items():
        texts[field] = "searched" if own is None else _list(told["arms"]) if told["arms"] else None
    return texts


def _ours(made: dict[str, Any], varied: dict[str, list[Any] | None]) -> dict[str, str | None]:
    values = {**(made.get("hyperparameters") or {}), **made}
    values["classes"] = len(made["classes"]) if made.get("classes") else None
    texts = {key: _text(key, values.get(key)) for key in FIELDS}
    if made.get("generated"):
        texts["cache"] = f"generated drawings, no photos ({texts['cache']})"
    for field, own in varied.items():
        texts[field] = "searched" if own is None else _list(own)
    return texts


def _list(values: Any) -> str:
    return "varied: " + ", ".join(map(short, values))


def _text(key: str, value: Any) -> str | None:
    if value is None or (key == "images" and not any(value)):
        return None
    if key == "images":
        return " / ".join(NONE if n is None else str(n) for n in value)
    return short(value)


def short(value: Any) -> str:
    """A setting without the folders of the machine that it was made on."""
    if isinstance(value, str) and PurePath(value).is_absolute():
        return PurePath(value).name
    return f"{value:g}" if isinstance(value, float) else str(value)


def differing(found: dict[str, Setting]) -> str:
    """A sentence that names what is not the report's, and one for what is not known to be."""
    others = [_name(key) for key, one in found.items() if one.differs]
    unknown = [_name(key) for key, one in found.items() if one.theirs is not None and one.ours is None]
    if not others and not unknown:
        return "Data, weights and settings are the report's."
    told = [f"Not as in the report: {', '.join(others)}."] if others else []
    return " ".join([*told, *([f"Not told: {', '.join(unknown)}."] if unknown else [])])


def _name(key: str) -> str:
    return re.split("[:,]", FIELDS[key])[0].lower()


def settings_rows(parts: dict[str, dict[str, Setting]]) -> list[tuple[str, list[str]]]:
    """A row a setting, with the report's and ours over all parts; ours is set in bold where any part differs."""
    rows = []
    for key, label in FIELDS.items():
        theirs, ours = (
            {part: getattr(found[key], side) for part, found in parts.items()} for side in ("theirs", "ours")
        )
        text = grouped(ours)
        rows.append((label, [grouped(theirs), f"**{text}**" if any(f[key].differs for f in parts.values()) else text]))
    return rows


def grouped(values: dict[str, str | None]) -> str:
    """One text where all parts agree; otherwise each text with the parts that have it."""
    parts: dict[str, list[str]] = {}
    for part, value in values.items():
        parts.setdefault(NONE if value is None else value, []).append(part.replace("_", " "))
    if len(parts) == 1:
        return escaped(next(iter(parts)))
    return "; ".join(f"{escaped(value)} ({', '.join(names)})" for value, names in parts.items())
