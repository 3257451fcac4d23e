"""python -m experiments launch | watch | check"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from experiments.errors import ExperimentError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m experiments", description="NNI experiments, checked and watched.")
    commands = parser.add_subparsers(dest="command", required=True)
    launch = commands.add_parser("launch", help="check, start and watch", allow_abbrev=False)
    check = commands.add_parser("check", help="what can be known before a night is lost", allow_abbrev=False)
    for command in (launch, check):
        command.add_argument("files", nargs="+", type=Path, metavar="FILE", help="such as experiments/tpe.yml")
        command.add_argument("--cache", metavar="DIR", help="made by python -m data prepare; default: data/cache")
        command.add_argument(
            "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field or setting of the trial"
        )
        command.add_argument("--max-trials", type=_positive, metavar="N", help="instead of the file's maxTrialNumber")
        command.add_argument("--demo", action="store_true", help="the demo's scale: generated sample, small images")
    launch.add_argument("--parallel", action="store_true", help="all files at once instead of one after another")
    watch = commands.add_parser("watch", help="return to running experiments", allow_abbrev=False)
    watch.add_argument("ids", nargs="*", metavar="ID", help="default: all that run")
    for command in (launch, watch):
        command.add_argument("--keep-ui", action="store_true", help="leave NNI's web page up after the last trial")
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number of trials")
    return value


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    try:
        from experiments import launch  # NNI is imported only now: --help answers at once
        from experiments.config import Overrides, parse_set
    except ModuleNotFoundError as error:
        print(f"error: {error} in this Python; activate the environment: . .venv/bin/activate", file=sys.stderr)
        return 1
    try:
        if args.command == "watch":
            return launch.watch_running(args.ids, args.keep_ui)
        fields = parse_set(args.set) | ({"cache": args.cache} if args.cache else {})
        overrides = Overrides(fields, args.max_trials, args.demo)
        if args.command == "check":
            return 0 if launch.run_check(args.files, overrides) else 1
        return launch.launch(args.files, overrides, launch.Options(args.parallel, args.keep_ui))
    except ExperimentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted before anything was started", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
