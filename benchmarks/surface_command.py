"""python -m benchmarks surface build | show | check"""

from __future__ import annotations

import argparse
import math
import signal
import statistics
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from analysis.render import formats, terminal
from analysis.render.document import Document, Heading, Row, Table, Text
from benchmarks.surface import Surface, SurfaceError, Training, read_surface, surface_path
from data import DataError
from experiments.findings import ExperimentError
from trial import TrialError


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks surface", description="Trainings over a grid of hyperparameters, for replay."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    build = commands.add_parser("build", help="train what is missing; the same command continues", allow_abbrev=False)
    build.add_argument("--workers", type=int, default=2, help="trainings at once, one thread each (default: 2)")
    build.add_argument("--out", type=Path, metavar="FILE", help="default: benchmarks/surfaces/NAME.json.gz")
    show = commands.add_parser("show", help="what it holds", allow_abbrev=False)
    check = commands.add_parser("check", help="is it whole? with --retrain: do trainings repeat?", allow_abbrev=False)
    check.add_argument("--retrain", type=int, default=0, metavar="N", help="train N of its trainings again and compare")
    check.add_argument("--seed", type=int, default=0, help="which N (default: 0)")
    for command in (build, show, check):
        command.add_argument("name", metavar="NAME", help="such as sample, or a file")
    for command in (build, check):
        command.add_argument("--demo", action="store_true", help="the demo's cache and scale")
        command.add_argument("--cache", type=Path, metavar="DIR", help="photos, from python -m data prepare")
        text = "a hyperparameter that is the same everywhere; may be repeated"
        command.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help=text)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends the workers as Ctrl-C does
    try:
        return {"build": _run_build, "show": _run_show, "check": _run_check}[args.command](args)
    except (SurfaceError, DataError, TrialError, ExperimentError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted: what has been trained is kept, the same command continues", file=sys.stderr)
        return 130


def _target(args: argparse.Namespace) -> Any:
    from benchmarks.surface_build import LAB_AXES, Plan, typed
    from experiments.config import DEMO_CACHE, DEMO_FIELDS, parse_set

    fields = {**(DEMO_FIELDS if args.demo else {}), **parse_set(args.set)}
    cache = args.cache or (DEMO_CACHE if args.demo else None)
    if cache is None:
        raise SurfaceError("which photos? give --cache DIR or --demo")
    if getattr(args, "workers", 1) < 1:
        raise SurfaceError(f"--workers {args.workers}: expected a whole number from 1")
    if both := sorted({*LAB_AXES, "seed"} & fields.keys()):
        raise SurfaceError(f"--set {both[0]}: the surface varies it; remove it")
    return Plan(args.name, typed(fields), cache.resolve(), LAB_AXES)


def _run_build(args: argparse.Namespace) -> int:
    from benchmarks.surface_build import build

    out = args.out or surface_path(args.name)
    surface = build(_target(args), out, args.workers)
    print(f"{out}: {surface.completeness}")
    return 0


def _run_show(args: argparse.Namespace) -> int:
    terminal.say(terminal.render(document(read_surface(args.name))))
    return 0


def _run_check(args: argparse.Namespace) -> int:
    """Exit code 1 where trainings are missing, or differ from what was recorded."""
    surface = read_surface(args.name)
    missing = len(surface.planned) - len(surface.trainings)
    print(f"surface {surface.name}: {surface.completeness}; {f'{missing} are missing' if missing else 'complete'}")
    if not args.retrain:
        return 1 if missing else 0
    from benchmarks.surface_build import retrain

    pairs = retrain(_target(args), surface, args.retrain, args.seed)
    for recorded, again in pairs:
        same = (recorded.correct, recorded.evaluation_correct) == (again.correct, again.evaluation_correct)
        counts = f"{recorded.correct}, evaluation {recorded.evaluation_correct}"
        now = "" if same else f"; now {again.correct}, evaluation {again.evaluation_correct}"
        print(f"{'same' if same else 'DIFFERS'}: {recorded.point}, seed {recorded.seed}: {counts}{now}")
    differing = sum(recorded.correct != again.correct for recorded, again in pairs)
    print(f"{len(pairs) - differing} of {len(pairs)} trainings repeat to the image")
    return 1 if missing or differing else 0


# -- what it holds -------------------------------------------------------------------------------------------------------


def document(surface: Surface) -> Document:
    """Provenance, the best cells, the spread between seeds, and seconds."""
    about, trainings = surface.about, surface.trainings
    cells: dict[tuple, list[Training]] = defaultdict(list)
    for training in trainings:
        cells[tuple(training.point.values())].append(training)
    facts = {
        "measured": surface.completeness,
        "photos": f"{about['cache'].get('photos', '?')[:12]}, {about['cache'].get('image_px')} px"
        + (" (generated)" if about["cache"].get("generated") else ""),
        "images": formats.params_text(about["images"]),
        "fixed": formats.params_text(about["hyperparameters"]),
        "versions": formats.params_text(about["versions"]),
        "machine": f"{formats.params_text(about['machine'])}; {about['precision']}",
        "commits": ", ".join(f"{a['revision'][:10]} ({a['trainings']})" for a in surface.attempts if a["trainings"]),
        "spread between seeds": _spread_text(surface, cells),
        "diverged": formats.share_text(sum(t.stopped_by == "diverged" for t in trainings), len(trainings))
        if trainings
        else "",
    }
    rows = [Row(name, (text,)) for name, text in facts.items()]
    blocks = [Table(("",), tuple(rows))]
    if trainings:
        blocks += [
            Heading("Best cells"),
            _best(surface, cells),
            Heading("Seconds per epoch, by batch size"),
            _seconds(trainings),
        ]
        blocks += [
            Text(
                "Processor seconds of one thread are what a quiet machine takes at most; wall seconds are what it took beside other work.",
                caption=True,
            )
        ]
    return Document(f"Surface {surface.name}", None, (), tuple(blocks))


def _spread_text(surface: Surface, cells: dict[tuple, list[Training]]) -> str:
    """Pooled standard deviation of the validation accuracy within cells."""
    n = surface.about["images"]["validation"]
    several = [[t.kept_correct / n for t in group] for group in cells.values() if len(group) > 1]
    freedom = sum(len(group) - 1 for group in several)
    if not freedom:
        return "unknown: no cell has two seeds"
    pooled = math.sqrt(sum((len(group) - 1) * statistics.variance(group) for group in several) / freedom)
    return f"SD {100 * pooled:.2f} points of validation accuracy ({len(several)} cells with 2 seeds or more)"


def _best(surface: Surface, cells: dict[tuple, list[Training]]) -> Table:
    def mean(group: list[Training], count: str, split: str) -> float:
        return statistics.mean(getattr(t, count) for t in group) / surface.about["images"][split]

    ranked = sorted(cells.values(), key=lambda group: -mean(group, "kept_correct", "validation"))[:10]
    rows = [
        Row(
            formats.params_text(group[0].point),
            (
                formats.number_text(mean(group, "kept_correct", "validation")),
                formats.number_text(mean(group, "evaluation_correct", "evaluation")),
                str(len(group)),
            ),
        )
        for group in ranked
    ]
    return Table(("validation accuracy, mean", "evaluation accuracy, mean", "seeds"), tuple(rows), "cell")


def _seconds(trainings: list[Training]) -> Table:
    by_size = defaultdict(list)
    for training in trainings:
        by_size[training.point.get("batch_size", "any")].append(training)
    rows = []
    for size, group in sorted(by_size.items(), key=lambda item: str(item[0]).zfill(9)):
        processor, wall = ([s for t in group for s in getattr(t, name)] for name in ("processor_s", "wall_s"))
        middle = [f"{statistics.median(seconds):.2f} s" if seconds else formats.NONE for seconds in (processor, wall)]
        rows.append(Row(str(size), (*middle, str(len(processor)))))
    return Table(("processor, median", "wall, median", "epochs"), tuple(rows), "batch size")
