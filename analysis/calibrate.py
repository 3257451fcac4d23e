"""Do the pages keep their promises? `python -m analysis.calibrate` simulates comparisons, studies, confirmations and searches whose
truth is known, with the functions that the pages use, and prints how often a difference is claimed, how often intervals hold
the truth, and how near the estimates are. Every share has its Monte Carlo standard error.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import calibrate_comparisons as comparisons
from . import calibrate_estimates as estimates
from . import calibrate_trainings as trainings
from .calibrate_trainings import error_of

LOOKS, PAGES = 0.25, 0.25  # of the comparisons and confirmations: each simulates many


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m analysis.calibrate", description=__doc__, allow_abbrev=False)
    parser.add_argument("--comparisons", type=int, default=1000, help="simulated for each row (1000)")
    parser.add_argument("--confirmations", type=int, default=1000, help="and studies, simulated for each row (1000)")
    parser.add_argument("--searches", type=int, default=400, help="simulated for each row (400)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    _comparisons(options.comparisons, options.seed)
    _trainings(options.confirmations, options.seed)
    _estimates(options.searches, options.seed)


def _comparisons(times: int, seed: int) -> None:
    _header(
        "comparison",
        "claimed",
        "wrong arm claimed",
        "by validation alone",
        "interval of means holds",
        "P's interval holds",
        "shown to be below 1 point",
    )
    for case in comparisons.CASES:
        _row(case.name, [_share(share, times) for share in comparisons.rates(case, times, seed)])
    some = max(1, round(LOOKS * times))
    for name, share in zip(("at 5 % each", "at the later looks' levels"), comparisons.looking(some, seed)):
        _row(f"equal, a look at 4, 5, … 12 repeats, {name} (n = {some})", [_share(share, some)])
    print(f"n = {times} comparisons per row, seed {seed}\n")


def _trainings(times: int, seed: int) -> None:
    _header(
        "study: better by (points)", "arms", "seeds", "claimed", "found", "found by pairs alone", "shown below 1 point"
    )
    for shift, arms, seeds in ((0, 2, 5), (0, 3, 3), (0, 3, 5), (3, 2, 5), (3, 3, 3), (3, 3, 5)):
        shares = trainings.studies(shift, arms, seeds, times, seed)
        _row(str(shift), [str(arms), str(seeds), *(_share(share, times) for share in shares)])
    for spreads in ((1, 1, 3), (3, 1, 1)):
        shares = trainings.studies(0, 3, 5, times, seed, spreads)
        label = " : ".join(map(str, spreads))
        _row(f"0, spreads {label}", ["3", "5", *(_share(share, times) for share in shares)])
    print()
    _header("confirmation", "claimed", "found")
    for name, shifts, screen, seeds in (
        ("equal, 6 configurations × 5 seeds", [0.0] * 6, 0, 5),
        ("equal, 6 × 3, then 1 × 8", [0.0] * 6, 3, 8),
        ("one of 6 better by 2 points, × 5", [2.0, *[0.0] * 5], 0, 5),
        ("one of 6 better by 2 points, 6 × 3, then 1 × 8", [2.0, *[0.0] * 5], 3, 8),
    ):
        _row(name, [_share(share, times) for share in trainings.confirmations(shifts, screen, seeds, times, seed)])
    by_ended, claimed = trainings.failing(2.0, 0.4, 8, times, seed)
    _row("better by 2 points, 2 in 5 trainings fail, 8 seeds", [_share(claimed, times), NONE])
    _row("the same by the pairs that ended", [_share(by_ended, times), NONE])
    some = max(1, round(PAGES * times))
    for name, share in zip(("each study by itself", "as one family"), trainings.report_pages(some, seed)):
        _row(f"six equal studies, {name} (n = {some})", [_share(share, some), NONE])
    print(f"n = {times} studies or confirmations per row, seed {seed}\n")


def _estimates(times: int, seed: int) -> None:
    _biases(times, seed)
    _importances(times, seed)
    _header("best of k of 30", "a new search is in the band", "as the page says")
    for k in (1, 5, 15):
        inside, stated = estimates.new_searches(k, times, seed)
        _row(str(k), [_share(inside, times), f"{100 * stated:.1f} %"])
    print()
    _patiences(times, seed)
    print(f"n = {times} searches per row, seed {seed}")


def _biases(times: int, seed: int) -> None:
    _header(
        "search of 15",
        "images",
        "bias (points)",
        "estimate / truth",
        "SD of one",
        "validation holds",
        "evaluation holds",
    )
    for kind in estimates.KINDS:
        for images in (228, 3430):
            bias = estimates.bias(kind, images, times, seed)
            ratio = f"{bias.ratio:.2f} ± {bias.error:.2f}"
            cells = [str(images), f"{100 * bias.truth:.2f}", ratio, f"{bias.sd:.2f}"]
            # a search is measured several times, which are not independent: the error is that of the searches
            _row(kind, [*cells, _share(bias.validation, times), _share(bias.evaluation, times)])
    print()


def _importances(times: int, seed: int) -> None:
    _header(
        "importance of 1 of 3 (share)", "any, by p alone", "any, by Holm's p", "any interval", "found", "interval holds"
    )
    for share in (0.0, 0.2, 0.4):
        _row(f"{share:g}", [_share(rate, times) for rate in estimates.importances(share, times, seed)])
    print()


def _patiences(times: int, seed: int) -> None:
    _header("another patience", "images", "lost, observed (points)", "lost, true", "loss shown")
    for epochs, images, is_steady in (
        (1, 228, False),
        (2, 228, False),
        (2, 228, True),
        (1, 3430, False),
        (2, 3430, True),
    ):
        lost = estimates.patience(epochs, images, times, seed, is_steady)
        _row(
            f"{epochs}{', all epochs truly alike' if is_steady else ''}",
            [str(images), f"{lost.observed:.2f}", f"{lost.true:.2f}", _share(lost.shown, times)],
        )


NONE = "–"


def _share(share: float | None, times: int) -> str:
    return NONE if share is None else f"{100 * share:.1f} ± {100 * error_of(share, times):.1f} %"


def _header(*columns: str) -> None:
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")


def _row(name: str, cells: Sequence[str]) -> None:
    print(f"| {' | '.join([name, *cells])} |", flush=True)


if __name__ == "__main__":
    main()
