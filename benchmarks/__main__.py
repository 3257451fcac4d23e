"""python -m benchmarks [PART ...]: the figures of docs/performance.md, measured here and now; and surface and replay."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.measure import cache_of, sample_photos
from benchmarks.table import LATEST, Report, machine

PARTS = ("pipeline", "peak", "plain", "startup", "search", "preparation", "memory", "accuracy")
PRECISIONS = ("auto", "fp32", "tf32", "bf16", "fp16")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__, allow_abbrev=False)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; default: all")
    parser.add_argument("--photos", type=Path, metavar="DIR", help="a folder per class; default: drawn ones of 512 px")
    parser.add_argument("--weights", default="none", help="that `plain` starts from: none, imagenet or a file")
    parser.add_argument("--rounds", type=int, default=5, help="measurements per figure (default: 5)")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--precision", choices=PRECISIONS, default="auto", help="of `pipeline`, `peak`, `plain` and `accuracy`"
    )
    parser.add_argument("--out", type=Path, default=LATEST, metavar="FILE")
    args = parser.parse_args(arguments)
    if unknown := sorted(set(args.parts) - set(PARTS)):
        parser.error(f"no such part: {', '.join(unknown)}; there are {', '.join(PARTS)}")
    if args.rounds < 2:
        parser.error("--rounds below 2 has no spread")
    return args


def main(arguments: list[str] | None = None, report: Report | None = None) -> int:
    """report: figures measured before, which are written with these."""
    words = sys.argv[1:] if arguments is None else arguments
    if words[:1] == ["surface"]:
        from benchmarks import surface_command

        return surface_command.main(words[1:])
    if words[:1] == ["replay"]:
        from benchmarks import replay_report

        return replay_report.main(words[1:])
    args = parse(arguments)
    from benchmarks import epoch, overhead, training
    from trial.device import choose_compute

    parts, report = args.parts or PARTS, report or Report()
    compute = choose_compute(args.device, args.precision, 0)
    photos = args.photos or sample_photos()
    cache, about = cache_of(photos), machine(compute)
    print("  ".join(f"{key}: {value}" for key, value in about.items()), flush=True)
    work = {
        "pipeline": lambda: epoch.pipeline(report, cache, compute, args.rounds),
        "peak": lambda: epoch.peak(report, cache, compute, args.rounds),
        "plain": lambda: training.against_plain(report, photos, cache, compute, args.rounds, args.weights),
        "startup": lambda: overhead.startup(report, cache, str(compute.device), args.rounds),
        "search": lambda: overhead.search(report, cache, str(compute.device)),
        "preparation": lambda: overhead.preparation(report, photos, args.rounds),
        "memory": lambda: overhead.memory(report, cache, str(compute.device)),
        "accuracy": lambda: training.accuracy(report, cache, compute),
    }
    for part in PARTS:
        if part in parts:
            work[part]()
            report.write(args.out, about)
    missed = [figure.name for figure in report.figures if figure.meets_goal is False]
    print(f"{args.out}: {len(report.figures)} figures; goals missed: {', '.join(missed) or 'none'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
