"""Paired differences of a study's arms to the reference, and which of them its sentences rest on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..stats.paired import by_seed, holm, paired, smallest_flip_p
from .arms import MEASURES, Arm, values_of

TOP1, MACRO, TRAINING = "evaluation_top1", "evaluation_macro", "train_accuracy"


def judged_by(study: str, arms: Sequence[Arm]) -> list[str]:
    """The measures that the sentences rest on: top-1 of the evaluation split; for balance, which is about the rare classes,
    the macro accuracy too, unless both are the same because that split has as many images of each class."""
    if study != "balance":
        return [TOP1]
    pairs = [(values_of(arm, TOP1), values_of(arm, MACRO)) for arm in arms]
    same = all(
        top1.keys() == macro.keys() and all(math.isclose(top1[seed], macro[seed], abs_tol=1e-9) for seed in top1)
        for top1, macro in pairs
    )
    return [TOP1] if same else [TOP1, MACRO]


def differences(arms: Sequence[Arm], study: str, judged: Sequence[str]) -> list[dict[str, Any]]:
    """Of every arm less the first, paired by seed, one entry a measure and arm. The intervals of a measure hold together
    with 95 % (Bonferroni over the arms), its p values are Holm's over them; the judged measures are one family.

    Of balance there is none of the training accuracy: a sampler draws other images."""
    compared = [measure.key for measure in MEASURES if study != "balance" or measure.key != TRAINING]
    families = [list(judged), *([key] for key in compared if key not in judged)]
    found = [row for family in families for row in _family(arms, family)]
    return sorted(found, key=lambda row: compared.index(row["measure"]))


def _family(arms: Sequence[Arm], keys: Sequence[str]) -> list[dict[str, Any]]:
    reference, others = arms[0], arms[1:]
    rows = []
    for key in keys:
        base = values_of(reference, key)
        for arm in others:
            apart = by_seed(values_of(arm, key), base)
            pairs = paired(list(apart.values()), len(others) * len(keys))
            if pairs is not None:
                told = {"measure": key, "arm": arm.name, "reference": reference.name, "by_seed": apart}
                rows.append({**told, **pairs._asdict()})
    adjust(rows)
    return rows


def adjust(rows: list[dict[str, Any]]) -> None:
    """Adds `p_adjusted` after Holm: of the t test, where there is no spread of the exact sign-flip test."""
    p_values = [row["p_flip"] if row["p_t"] is None else row["p_t"] for row in rows]
    for row, p in zip(rows, holm(p_values)):
        row["p_adjusted"] = p


def shown(row: dict[str, Any]) -> bool:
    """Whether the interval leaves out zero; without a spread (all equal), whether the sign-flip test says so."""
    return row["p_adjusted"] < 0.05 if row["low"] is None else not row["low"] <= 0 <= row["high"]


def fewest_pairs(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """{n, p}: the fewest pairs behind these rows and the smallest p that the exact sign-flip test reaches with so many; None
    where that would do for the rows' level."""
    fewest = min((row for row in rows if row["n"] > 1), key=lambda row: row["n"], default=None)
    if fewest is None or smallest_flip_p(fewest["n"]) < 1 - fewest["level"]:
        return None
    return {"n": fewest["n"], "p": smallest_flip_p(fewest["n"])}
