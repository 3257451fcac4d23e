"""Accuracy by class, in the report's form, and whether the rare classes gain most."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from ..reading.provenance import best_result
from ..stats.paired import holm
from .arms import Arm

BY_CLASS = ("pretrained", "balance")
"""Studies in which the classes are told apart."""

FULL = 0.95
"""From here on a class has little room to gain."""

LEAST_CLASSES = 5
"""Below it no order of the classes has p < 0.05."""

EXACT_CLASSES = 7
"""Up to here all orders are counted."""


def class_rows(reference: Arm, arm: Arm) -> list[dict[str, Any]]:
    """One row a class, the largest gain first: right and all images of the evaluation split for both arms, added up over
    the seeds that both have, and the number of training images (None where the trials do not tell it)."""
    seeds = {t.seed for t in reference.good} & {t.seed for t in arm.good}
    before, after = _added(reference, seeds), _added(arm, seeds)
    images = _training_images(reference)
    rows = []
    for key, (name, right, total) in before.items():
        if key not in after or not total or not after[key][2]:
            continue
        _, right_after, total_after = after[key]
        rows.append(
            {
                "id": key,
                "class": name,
                "training": images.get(key),
                "reference": {"correct": right, "total": total},
                "arm": {"correct": right_after, "total": total_after},
                "gain": right_after / total_after - right / total,
            }
        )
    return sorted(rows, key=lambda row: (-row["gain"], row["id"]))


def rare_gain_most(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Spearman's rank correlation of training images and gain over the classes; rare classes gain most where it is
    negative. p is two-sided, of a permutation test (exact up to `EXACT_CLASSES`, else of 10,000 orders); None where it cannot be
    told. It treats classes as independent, and is of these trainings and images."""
    known = [row for row in rows if row["training"] is not None]
    images = stats.rankdata([row["training"] for row in known])
    gains = stats.rankdata([row["gain"] for row in known])
    if len(known) < LEAST_CLASSES or len(set(images)) < 2 or len(set(gains)) < 2:
        return None
    rho = float(np.corrcoef(images, gains)[0, 1])
    p = permutation_p(images - images.mean(), gains)
    return {"rho": rho, "n": len(known), "p": p, "holds": rho < 0 and p < 0.05}


def by_class(study: str, arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """For each arm beside the reference {arm, rows, rank, full}, where the study tells classes apart: `rows` of `class_rows`,
    `rank` of `rare_gain_most` (p and `holds` after Holm over the arms), `full` the number of classes that have `FULL` or more
    under the reference."""
    if study not in BY_CLASS:
        return []
    entries = []
    for arm in arms[1:]:
        rows = class_rows(arms[0], arm)
        full = sum(row["reference"]["correct"] >= FULL * row["reference"]["total"] for row in rows)
        entries.append({"arm": arm.name, "rows": rows, "rank": rare_gain_most(rows), "full": full})
    ranks = [entry["rank"] for entry in entries if entry["rank"]]
    for rank, p in zip(ranks, holm([rank["p"] for rank in ranks])):
        rank |= {"p": p, "holds": rank["rho"] < 0 and p < 0.05}
    return entries


def permutation_p(centred: np.ndarray, gains: np.ndarray) -> float:
    """The share of orders of `gains`, (n,), whose sum of products with `centred`, (n,), is at least as far from zero as
    that observed; of drawn orders the observed one is among them (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9)."""
    n = len(gains)
    if n <= EXACT_CLASSES:
        orders = np.array(list(itertools.permutations(range(n))))  # (n!, n)
    else:
        drawn = np.random.default_rng(0).permuted(np.tile(np.arange(n), (9999, 1)), axis=1)
        orders = np.vstack([np.arange(n), drawn])  # (10000, n)
    return float(np.mean(np.abs(gains[orders] @ centred) >= abs(gains @ centred) - 1e-9))


def _added(arm: Arm, seeds: set[int]) -> dict[int, tuple[str, int, int]]:
    """{class id: (name, right, all)} over the trainings of these seeds."""
    found: dict[int, tuple[str, int, int]] = {}
    for training in arm.good:
        if training.seed in seeds:
            for row in _table(training.trial, "evaluation"):
                name, right, total = found.get(row["id"], (row["class"], 0, 0))
                found[row["id"]] = (name, right + row["correct"], total + row["total"])
    return found


def _training_images(arm: Arm) -> dict[int, int]:
    tables = (_table(training.trial, "training") for training in arm.good)
    return {row["id"]: row["total"] for row in next((table for table in tables if table), [])}


def _table(trial: Any, split: str) -> list[dict[str, Any]]:
    table = best_result(trial).get(split)
    rows = table.get("per_class") if isinstance(table, dict) else None
    return rows if isinstance(rows, list) else []
