"""The figure of docs/log.md on initial trials that two arms share: how often equal arms then seem to differ.

python -m benchmarks.shared_design --runs 1000
"""

from __future__ import annotations

import argparse

import numpy as np

from analysis.stats import two_sample

IMAGES, TRIALS = 3430, 15
# How two arms of repeats share their first trials: (name, which of them are alike, one design or one for each pair)
DESIGNS = (
    ("none", None, "one"),
    ("measured alike in both arms", "same", "one"),
    ("measured anew in each arm", "anew", "one"),
    ("alike, a design for each pair of repeats", "same", "pairs"),
    ("a design for each arm, shared by its repeats alone", "arm", "one"),
)


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


def _sample_trials(rng: np.random.Generator, experiments: int) -> np.ndarray:
    """Accuracies as measured, (experiments, 15)."""
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(experiments, TRIALS))
    return rng.binomial(IMAGES, truth) / IMAGES


def _arms(rng: np.random.Generator, n: int, shared: int, alike: str | None, blocks: str) -> list[np.ndarray]:
    """Two arms of n experiments as measured, (n, 15) each."""
    arms = [_sample_trials(rng, n) for _ in range(2)]
    truth = 0.93 - 0.10 * rng.beta(1, 3, size=(n if blocks == "pairs" else 1, shared))
    results = np.broadcast_to(rng.binomial(IMAGES, truth) / IMAGES, (n, shared))  # the same training: the same result
    for arm in arms:
        if alike == "same":
            arm[:, :shared] = results
        elif alike == "anew":
            arm[:, :shared] = rng.binomial(IMAGES, np.broadcast_to(truth, (n, shared))) / IMAGES
        elif alike == "arm":
            arm[:, :shared] = _sample_trials(rng, 1)[:, :shared]
    return arms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    parser.add_argument("--runs", type=int, default=2000)
    shared_design(parser.parse_args().runs)


if __name__ == "__main__":
    main()
