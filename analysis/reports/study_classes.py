"""The accuracy of a study's arms class by class, and whether the rare classes gain most."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import stats

from ..reading.records import Trial, best_result
from ..stats.paired import holm

if TYPE_CHECKING:
    from .study_result import StudyArm

CLASS_STUDIES = ("pretrained", "balance")  # whose accuracies are compared class by class
FULL = 0.95  # from here on a class has little room to gain
LEAST_CLASSES = 5  # below it no order of the classes has p < 0.05
EXACT_CLASSES = 7  # up to here all orders are counted


def by_class(study: str, arms: Sequence[StudyArm]) -> list[dict[str, Any]]:
    """For each arm beside the reference {arm, rows, rank, full}, in a study of `CLASS_STUDIES`: `rows` of `class_rows`, `rank`
    of `rare_gain_most` (p and `holds` after Holm over the arms), `full` the number of classes that have `FULL` or more under
    the reference."""
    if study not in CLASS_STUDIES:
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


def class_rows(reference: StudyArm, arm: StudyArm) -> list[dict[str, Any]]:
    """One row per class, the largest gain first: correct and all images of the evaluation split for both arms, added up over
    the seeds that both have, and the number of training images (None where the trials do not record it)."""
    seeds = {cell.seed for cell in reference.complete} & {cell.seed for cell in arm.complete}
    before, after = _summed(reference, seeds), _summed(arm, seeds)
    tables = (_per_class(cell.trial, "training") for cell in reference.complete)
    images = {row["id"]: row["total"] for row in next(filter(None, tables), [])}
    rows = []
    for key, own in before.items():
        other = after.get(key)
        if other is None or not own["total"] or not other["total"]:
            continue
        entry = {"id": key, "class": own["class"], "training": images.get(key)}
        counts = {name: {k: c[k] for k in ("correct", "total")} for name, c in (("reference", own), ("arm", other))}
        gain = other["correct"] / other["total"] - own["correct"] / own["total"]
        rows.append({**entry, **counts, "gain": gain})
    return sorted(rows, key=lambda row: (-row["gain"], row["id"]))


def _summed(arm: StudyArm, seeds: set[int]) -> dict[int, dict[str, Any]]:
    """{class id: {class, correct, total}} over the trainings of these seeds."""
    sums: dict[int, dict[str, Any]] = {}
    for cell in arm.complete:
        for row in _per_class(cell.trial, "evaluation") if cell.seed in seeds else ():
            entry = sums.setdefault(row["id"], {"class": row["class"], "correct": 0, "total": 0})
            entry["correct"] += row["correct"]
            entry["total"] += row["total"]
    return sums


def _per_class(trial: Trial, split: str) -> list[dict[str, Any]]:
    table = best_result(trial).get(split)
    rows = table.get("per_class") if isinstance(table, dict) else None
    return rows if isinstance(rows, list) else []


def rare_gain_most(rows: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """Spearman's rank correlation of training images and gain over the classes; rare classes gain most where it is
    negative. p is two-sided, of a permutation test (exact up to `EXACT_CLASSES`, else of 10,000 orders); None where it
    cannot be estimated. It treats classes as independent, and is of these trainings and images."""
    counted = [row for row in rows if row["training"] is not None]
    images = stats.rankdata([row["training"] for row in counted])
    gains = stats.rankdata([row["gain"] for row in counted])
    if len(counted) < LEAST_CLASSES or len(set(images)) < 2 or len(set(gains)) < 2:
        return None
    rho = float(np.corrcoef(images, gains)[0, 1])
    p = permutation_p(images - images.mean(), gains)
    return {"rho": rho, "n": len(counted), "p": p, "holds": rho < 0 and p < 0.05}


def permutation_p(centred: np.ndarray, gains: np.ndarray) -> float:
    """The share of orders of `gains`, (n,), whose sum of products with `centred`, (n,), is at least as far from zero as
    that observed; of sampled orders the observed one is among them (Phipson and Smyth 2010, Stat. Appl. Genet. Mol. Biol. 9)."""
    n = len(gains)
    if n <= EXACT_CLASSES:
        orders = np.array(list(itertools.permutations(range(n))))  # (n!, n)
    else:
        sampled = np.random.default_rng(0).permuted(np.tile(np.arange(n), (9999, 1)), axis=1)
        orders = np.vstack([np.arange(n), sampled])  # (10000, n)
    return float(np.mean(np.abs(gains[orders] @ centred) >= abs(gains @ centred) - 1e-9))
