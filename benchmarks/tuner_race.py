"""The figures of docs/log.md on tuners: who finds the better of two optima, and what a shared initial design does to the verdict.

    python -m benchmarks.tuner_race           # about 5 minutes of one core
    python -m benchmarks.tuner_race --runs 200

In one process, without NNI's manager: each tuner proposes a trial and receives its result, one at a time. The surface is
made up and known: over the report's search space one broad optimum of 0.90 (large batches and learning rates) and a
narrower one of 0.93 (batches of 16, learning rate 0.01, momentum 0.9), with the noise of 3,430 validation images.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from nni.algorithms.hpo.random_tuner import RandomTuner
from nni.algorithms.hpo.tpe_tuner import TpeTuner
from scipy import stats

from analysis.calibrate import sample_trials
from analysis.stats import two_sample

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "experiments" / "tuners"))  # as NNI's dispatcher does
from seeded_evolution import SeededEvolution  # noqa: E402
from seeded_tpe import SeededTpe  # noqa: E402

SPACE = json.loads((ROOT / "search_spaces/report.json").read_text())
FIRST = {"batch_size": 32, "lr": 0.001, "momentum": 0.9}  # 0.70 on the surface: far from both optima
LOCAL, IMAGES = 0.90, 3430
STARTUP = {"n_startup_jobs": 5}
TUNERS: dict[str, Callable] = {
    "Random": lambda seed: RandomTuner(seed),
    "TPE, 20 start-up trials (NNI's own)": lambda seed: TpeTuner("maximize", seed),
    "TPE, 5 start-up trials": lambda seed: SeededTpe("maximize", seed, STARTUP),
    "Evolution, population 5": lambda seed: SeededEvolution("maximize", 5, seed),
    "TPE, 5: defaults first, then 4": lambda seed: SeededTpe("maximize", seed, STARTUP, [FIRST], 4, seed),
    "Evolution, 5: defaults first, then 4": lambda seed: SeededEvolution("maximize", 5, seed, [FIRST], 4, seed),
}
# How two arms of repeats share their first trials: (name, which of them are alike, one design or one for each pair)
DESIGNS = (
    ("none", None, "one"),
    ("measured alike in both arms", "same", "one"),
    ("measured anew in each arm", "anew", "one"),
    ("alike, a design for each pair of repeats", "same", "pairs"),
    ("a design for each arm, shared by its repeats alone", "arm", "one"),
)


def accuracy(parameters: dict[str, float]) -> float:
    """True accuracy of a point: 0.6, and two bumps of which the higher counts."""
    rate, batch, momentum = math.log10(parameters["lr"]), math.log2(parameters["batch_size"]), parameters["momentum"]
    better = ((rate + 2) / 0.7) ** 2 + ((batch - 4) / 2.0) ** 2 + ((momentum - 0.9) / 0.4) ** 2
    broad = ((rate + 1.2) / 0.8) ** 2 + ((batch - 6) / 2) ** 2 + ((momentum - 0.5) / 0.5) ** 2
    return 0.6 + max(0.33 * math.exp(-better / 2), 0.30 * math.exp(-broad / 2))


def search(tuner, trials: int, rng: np.random.Generator) -> float:
    """One experiment; the true accuracy of the trial that measured best."""
    tuner.update_search_space(SPACE)
    truths, accuracies = [], []
    for number in range(trials):
        parameters = tuner.generate_multiple_parameters([number], st_callback=None)[0]
        truths.append(accuracy(parameters))
        accuracies.append(rng.binomial(IMAGES, truths[-1]) / IMAGES)
        tuner.receive_trial_result(number, parameters, accuracies[-1])
        tuner.trial_end(number, True)
    return truths[int(np.argmax(accuracies))]


def _race(runs: int) -> None:
    print("| tuner | trials | better optimum found | true accuracy of the best, mean (sd) |\n|---|---|---|---|")
    for trials in (15, 50):
        for name, make in TUNERS.items():
            bests = np.array(
                [search(make(seed), trials, np.random.default_rng([seed, trials])) for seed in range(runs)]
            )
            better = int((bests > LOCAL).sum())
            low, high = stats.binomtest(better, runs).proportion_ci(method="wilson")
            share = f"{100 * better / runs:.1f} % ({100 * low:.1f} to {100 * high:.1f})"
            print(f"| {name} | {trials} | {share} | {bests.mean():.4f} ({bests.std():.4f}) |", flush=True)
    print(f"n = {runs} runs per row, 95 % Wilson intervals\n")


def shared_design(runs: int, shared: int = 5) -> None:
    """How often two equal random arms fall outside the band, or the test claims a difference, at 15 trials each."""
    print(f"| {shared} shared first trials | outside the null band | test claims, 8 repeats |\n|---|---|---|")
    for name, alike, blocks in DESIGNS:
        outside, claimed = 0, 0
        for run in range(runs):
            rng = np.random.default_rng([run, 1])
            first, second = _arms(rng, 1, shared, alike, "one")
            band = two_sample.null_band(list(first[0]), list(second[0]), True)
            outside += not band.contains(float(second.max() - first.max()))
            bests = [list(arm.max(axis=1)) for arm in _arms(rng, 8, shared, alike, blocks)]
            claimed += two_sample.mann_whitney_p(*bests) < 0.05
        print(f"| {name} | {100 * outside / runs:.1f} % | {100 * claimed / runs:.1f} % |", flush=True)
    print(f"n = {runs} comparisons per row")


def _arms(rng: np.random.Generator, n: int, shared: int, alike: str | None, blocks: str) -> list[np.ndarray]:
    """Two arms of n experiments as measured, (n, 15) each."""
    arms = [sample_trials(rng, n) for _ in range(2)]
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(n if blocks == "pairs" else 1, shared))
    results = np.broadcast_to(rng.binomial(IMAGES, truth) / IMAGES, (n, shared))  # the same training: the same result
    for arm in arms:
        if alike == "same":
            arm[:, :shared] = results
        elif alike == "anew":
            arm[:, :shared] = rng.binomial(IMAGES, np.broadcast_to(truth, (n, shared))) / IMAGES
        elif alike == "arm":
            arm[:, :shared] = sample_trials(rng, 1)[:, :shared]
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=2000)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    _race(options.runs)
    shared_design(options.runs)


if __name__ == "__main__":
    main()
