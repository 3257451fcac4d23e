"""python -m data prepare | sample | show"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from data import DataError, printable, show_any_name

_DEFAULT_CACHE = Path(__file__).resolve().parent / "cache"


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m data", description="From photos to the cache that trials train on.")
    commands = parser.add_subparsers(dest="command", required=True)

    prepare = commands.add_parser("prepare", help="decode photos once into a cache", allow_abbrev=False)
    prepare.add_argument("source", type=Path, metavar="SOURCE", help="folder, zip or tar of photos")
    prepare.add_argument("--cache", type=Path, default=_DEFAULT_CACHE, metavar="DIR", help="default: data/cache")
    prepare.add_argument("--image-px", type=_positive, default=256, metavar="N", help="side of the stored squares")
    prepare.add_argument("--train-split", choices=("auto", "training", "skewed_training"), default="auto")
    prepare.add_argument("--skew", choices=("none", "lab"), default="none", help="lab: derive the lab's skewed split")
    prepare.add_argument(
        "--split",
        type=_percentages,
        metavar="70,15,15",
        help="divide a tree without split folders: per cent for training, validation, evaluation",
    )
    prepare.add_argument("--split-seed", type=int, metavar="N", help="another division (default: 0)")
    prepare.add_argument("--skip-unreadable", action="store_true", help="leave broken files out instead of stopping")

    sample = commands.add_parser("sample", help="draw the generated Food-11 sample", allow_abbrev=False)
    sample.add_argument("directory", type=Path, metavar="DIR")
    sample.add_argument("--seed", type=int, default=0)

    show = commands.add_parser("show", help="counts, and a contact sheet of what the network sees", allow_abbrev=False)
    show.add_argument("cache", type=Path, nargs="?", default=_DEFAULT_CACHE, metavar="CACHE")
    show.add_argument("--out", type=Path, metavar="PNG", help="default: CACHE/contact_sheet.png")
    args = parser.parse_args(arguments)
    if args.command == "prepare" and args.split_seed is not None and not args.split:
        prepare.error("--split-seed belongs to --split")
    return args


def _percentages(text: str) -> str:
    """Three positive numbers that add up to 100, as 70,15,15; or to 1."""
    try:
        shares = [float(part.rstrip("% ")) for part in text.split(",")]
    except ValueError:
        shares = []
    if len(shares) == 3 and abs(sum(shares) - 1) < 1e-6:
        shares = [round(100 * share, 4) for share in shares]
    if len(shares) != 3 or not all(share > 0 for share in shares) or not abs(sum(shares) - 100) < 1e-3:
        raise argparse.ArgumentTypeError(
            f"{text!r}: expected three percentages, for training, validation and evaluation, that add up to 100, such as "
            "70,15,15"
        )
    return ",".join(f"{share:g}" for share in shares)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of pixels")
    return value


def main(arguments: list[str] | None = None) -> int:
    show_any_name()
    args = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill cleans up as Ctrl-C does
    try:
        {"prepare": _run_prepare, "sample": _run_sample, "show": _run_show}[args.command](args)
    except DataError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        print(f"error: {error} in this Python; activate the environment: . .venv/bin/activate", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: nothing incomplete was left; repeat the command to start again", file=sys.stderr)
        return 130
    return 0


def _run_prepare(args: argparse.Namespace) -> None:
    from data.prepare import Settings, prepare
    from data.show import counts_table

    settings = Settings(
        args.image_px, args.train_split, args.skew, args.skip_unreadable, args.split or "", args.split_seed or 0
    )
    manifest = prepare(args.source, args.cache, settings)
    print(counts_table(manifest))
    if manifest["skipped"]:
        reasons = manifest.get("why_skipped", {})  # earlier versions did not keep them
        names = [f"{path} ({reasons[path]})" if path in reasons else path for path in manifest["skipped"]]
        print(f"skipped {len(names)} that cannot be decoded: {printable('; '.join(names))}")
    print("".join(f"{note}\n" for note in manifest.get("notes", [])), end="")
    _print_warnings(args.cache, manifest)
    if _could_be_skewed(manifest):
        print("this is Food-11's full training split; the lab trained on a skewed one: --skew lab derives it")
    print(f"{'up to date' if manifest['reused'] else 'wrote'}: {args.cache} ({manifest['image_px']} px)")


def _print_warnings(cache: Path, manifest: dict) -> None:
    from data.contents import warnings_of

    for line in warnings_of(cache, manifest):
        print(f"warning: {line}", file=sys.stderr)


def _could_be_skewed(manifest: dict) -> bool:
    from data.food11 import SKEWED

    is_full = manifest["is_food11"] and manifest["train_split"] == "training" and manifest["skew"] == "none"
    return is_full and all(n >= lab for n, lab in zip(manifest["counts"]["training"], SKEWED))


def _run_sample(args: argparse.Namespace) -> None:
    from data.sample import write_sample

    counts = write_sample(args.directory, args.seed)
    total = {split: sum(classes.values()) for split, classes in counts.items()}
    print(f"sample: {args.directory} ({', '.join(f'{split} {n}' for split, n in total.items())})")


def _run_show(args: argparse.Namespace) -> None:
    from data.cache import open_cache
    from data.show import counts_table, save_contact_sheet

    cache = open_cache(args.cache)
    target = args.out or args.cache / "contact_sheet.png"
    print(counts_table(cache.manifest))
    _print_warnings(args.cache, cache.manifest)
    save_contact_sheet(cache, target)
    print(f"contact sheet: {target}")


if __name__ == "__main__":
    sys.exit(main())
