"""The numbers of simulated searches: regret by trials and by time, who beats whom how often, and from which budget on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from analysis.stats.two_sample import improvement_interval, probability_of_improvement
from benchmarks.answers import Answers
from benchmarks.replay import Arm, Budget, Replayed, ReplayError, replay, variants

WITHIN = 0.005  # of the best: half a point
TIMES = 25  # points of the curves by time
SIMULATED = (
    "Simulated: no trial was run. The tuners are the real ones; the results are those recorded in the surface, resampled with "
    "their spread between seeds."
)
_RESAMPLES = 1000


class Curves:
    """The best of each repeat after k trials, (repeats, trials); a search that ended earlier keeps its best."""

    def __init__(self, replayed: Replayed, answers: Answers) -> None:
        traces = [trace for trace in replayed.traces if trace.measured]
        self.trials = max((len(trace.measured) for trace in traces), default=0)
        shape = (len(traces), self.trials)
        self.best, self.regret, self.evaluation_regret, self.ended_s = (np.empty(shape) for _ in range(4))
        for row, trace in enumerate(traces):
            measured = np.array(trace.measured)
            best = np.maximum.accumulate(measured)
            is_new = np.concatenate(([True], measured[1:] > best[:-1]))
            chosen = np.maximum.accumulate(np.where(is_new, np.arange(len(measured)), 0))
            n = len(measured)
            self.best[row, :n] = best
            self.regret[row, :n] = answers.best - np.array(trace.truth)[chosen]
            self.evaluation_regret[row, :n] = answers.best_evaluation - np.array(trace.evaluation)[chosen]
            self.ended_s[row, :n] = trace.ended_s
            for array in (self.best, self.regret, self.evaluation_regret):
                array[row, n:] = array[row, n - 1]
            self.ended_s[row, n:] = np.inf

    def at(self, seconds: float) -> np.ndarray:
        """Regret of each repeat then; infinite before its first trial has ended. (repeats,)"""
        ended = (self.ended_s <= seconds).sum(axis=1)
        values = self.regret[np.arange(len(ended)), np.maximum(ended - 1, 0)]
        return np.where(ended > 0, values, np.inf)

    def reached(self) -> tuple[np.ndarray, np.ndarray]:
        """(trials, seconds) of each repeat until its regret is at most WITHIN; infinite where it never is."""
        inside = self.regret <= WITHIN
        first = np.where(inside.any(axis=1), inside.argmax(axis=1), self.trials)
        seconds = np.concatenate([self.ended_s, np.full((len(first), 1), np.inf)], axis=1)
        return np.where(first < self.trials, first + 1.0, np.inf), seconds[np.arange(len(first)), first]


def band(values: np.ndarray) -> dict[str, Any]:
    """Median and the middle 80 % of repeats; None where that is infinite: not reached, or no trial yet."""
    n = int(np.isfinite(values).sum())
    levels = np.quantile(values, [0.1, 0.5, 0.9], method="lower") if len(values) else [np.inf] * 3
    low, middle, high = (float(level) if np.isfinite(level) else None for level in levels)
    return {"median": middle, "p10": low, "p90": high, "n": len(values), "finite": n}


def better(first: np.ndarray, second: np.ndarray) -> dict[str, Any]:
    """P(second better than first) of two samples in which less is better, ties half, with its 95 % interval."""
    ranked = [np.where(np.isfinite(values), values, 1e9) for values in (first, second)]
    probability = probability_of_improvement(*ranked, maximise=False)
    low, high = improvement_interval(probability, len(first), len(second))
    return {"probability": probability, "low": low, "high": high, "n": [len(first), len(second)]}


def from_when(samples: Sequence[tuple[float, np.ndarray, np.ndarray]]) -> float | None:
    """The first budget from which on an arm beats random search: P(better) is above a half with its whole interval, there
    and at all larger budgets. samples: (budget, regret of random search, regret of the arm), by budget."""
    since = None
    for budget, random, arm in samples:
        is_better = better(random, arm)["low"] > 0.5
        since = (budget if since is None else since) if is_better else None
    return since


def ratio(values: np.ndarray, reference: np.ndarray) -> dict[str, Any]:
    """Median over the reference's median, with a 95 % percentile bootstrap interval; None where a median is not finite."""
    rng = np.random.default_rng(0)

    def medians(sample: np.ndarray) -> np.ndarray:
        return np.median(sample[rng.integers(len(sample), size=(_RESAMPLES, len(sample)))], axis=1)

    with np.errstate(invalid="ignore", divide="ignore"):
        value, resampled = np.median(values) / np.median(reference), medians(values) / medians(reference)
        low, high = np.nanquantile(resampled, [0.025, 0.975]) if np.isfinite(resampled).any() else (np.nan, np.nan)
    return {name: float(v) if np.isfinite(v) else None for name, v in (("ratio", value), ("low", low), ("high", high))}


def summarise(arms: list[Replayed], answers: Answers, budget: Budget, start_up_s: float) -> dict[str, Any]:
    """All numbers of the page; the first arm is what the others are compared with, one named `random` is random search."""
    curves = {each.arm.name: Curves(each, answers) for each in arms}
    longest = max(np.median(c.ended_s[:, -1][np.isfinite(c.ended_s[:, -1])]) for c in curves.values())
    times = [float(longest * (k + 1) / TIMES) for k in range(TIMES)]
    surface = answers.surface
    return {
        "simulated": True,
        "note": SIMULATED,
        "surface": {
            "name": surface.name,
            "completeness": surface.completeness,
            "trainings_used": len(answers.trainings),
            "cells_interpolated": answers.filled,
            "machine": surface.about["machine"],
            "versions": surface.about["versions"],
            "images": surface.about["images"],
        },
        "budget": {"trials": budget.trials, "hours": budget.hours},
        "start_up_s": start_up_s,
        "best_validation_accuracy": answers.best,
        "within": WITHIN,
        "arms": [_arm_numbers(each, curves, times, arms[0].arm.name) for each in arms],
        "better": {
            a: {
                b: {**better(curves[a].regret[:, -1], curves[b].regret[:, -1]), **_ranked(curves[a], curves[b])}
                for b in curves
                if b != a
            }
            for a in curves
        },  # fmt: skip
    }


def _ranked(first: Curves, second: Curves) -> dict[str, float]:
    """How often the measured bests of one run each are in the order of the arms' mean regret."""
    probability = probability_of_improvement(first.best[:, -1], second.best[:, -1], maximise=True)
    rightly = probability if second.regret[:, -1].mean() <= first.regret[:, -1].mean() else 1 - probability
    return {"one_run_each_ranks_rightly": rightly}


def _arm_numbers(each: Replayed, curves: dict[str, Curves], times: list[float], reference: str) -> dict[str, Any]:
    name, own = each.arm.name, curves[each.arm.name]
    reached_trials, reached_s = own.reached()
    first = curves[reference]
    numbers = {
        "name": name,
        "tuner": each.arm.experiment.tuner[0],
        "class_args": each.arm.tuner.get("classArgs") or {},
        "assessor": each.arm.experiment.config.get("assessor"),
        "concurrency": each.arm.concurrency,
        "repeats": len(each.traces),
        "failures": [{"seed": seed, "error": error} for seed, error in each.failures],
        "pruned_share": float(np.mean([np.mean(trace.pruned) for trace in each.traces if trace.pruned] or [0])),
        "by_trials": [
            {"trials": k + 1, "best": band(own.best[:, k]), "regret": band(own.regret[:, k]),
             "evaluation_regret": band(own.evaluation_regret[:, k]), "seconds": band(own.ended_s[:, k])}
            for k in range(own.trials)
        ],
        "by_seconds": [{"seconds": at, "regret": band(own.at(at))} for at in times],
        "within_best": {
            "share": float(np.isfinite(reached_trials).mean()),
            "trials": band(reached_trials),
            "seconds": band(reached_s),
        },
        "against_first": {
            "regret": ratio(own.regret[:, -1], first.regret[:, -1]),
            "seconds_until": ratio(reached_s, first.reached()[1]),
        },
    }  # fmt: skip
    if "random" in curves and name != "random":
        random = curves["random"]
        common = range(min(own.trials, random.trials))
        numbers["beats_random_from"] = {
            "trials": from_when([(k + 1, random.regret[:, k], own.regret[:, k]) for k in common]),
            "seconds": from_when([(at, random.at(at), own.at(at)) for at in times]),
        }
    return numbers


def sensitivity(arm: Arm, answers: Answers, budget: Budget, repeats: int) -> list[dict[str, Any]]:
    """Final regret of the arm's variants, and of those that fail the first reason."""
    rows = []
    for variant in variants(arm):
        try:
            each = replay(variant, answers, budget, repeats)
        except ReplayError as error:
            rows.append({"name": variant.name, "error": str(error)})
            continue
        curves = Curves(each, answers)
        rows.append(
            {
                "name": variant.name,
                "repeats": len(each.traces),
                "failures": [{"seed": seed, "error": error} for seed, error in each.failures],
                "regret": band(curves.regret[:, -1]),
                "seconds": band(curves.ended_s[:, -1]),
            }
        )
    return rows
