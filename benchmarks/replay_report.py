"""python -m benchmarks replay: what simulated searches say about experiment files, as JSON, a page and a table.

python -m benchmarks replay --surface sample --file experiments/tpe.yml --file experiments/evolution.yml --repeats 1000
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from analysis.reading.values import strict_json
from analysis.render import formats, html, terminal
from analysis.render.document import Block, Document, Figure, Heading, Row, Table, Text
from analysis.reports.figures import COLOURS, empty_figure
from benchmarks.answers import HALVES, START_UP_S, Answers
from benchmarks.replay import Budget, ReplayError, quiet, read_arm, replay
from benchmarks.replay_numbers import SIMULATED, TIMES, sensitivity, summarise
from benchmarks.surface import SurfaceError, read_surface
from experiments.findings import ExperimentError

ROOT = Path(__file__).resolve().parent.parent
RANDOM = ROOT / "experiments" / "random.yml"
REGRET = "Regret: validation accuracy that the best cell has in expectation, less that of the configuration whose trial measured best."
_HEADS = (
    "regret",
    "evaluation regret",
    "measured best",
    "within 0.5 points",
    "trials until",
    "time until",
    "beats random",
)


# -- page ----------------------------------------------------------------------------------------------------------------


def document(summary: dict[str, Any]) -> Document:
    """The page; figures are for HTML alone."""
    surface, arms = summary["surface"], summary["arms"]
    budget = summary["budget"]
    limit = f"{budget['trials']} trials" if budget["trials"] else f"{budget['hours']:g} hours"
    images = surface["images"]
    notes = [
        SIMULATED,
        f"Surface {surface['name']}: {surface['completeness']}; {surface['trainings_used']} trainings used"
        + (f", {surface['cells_interpolated']} cells without one are interpolated" if surface["cells_interpolated"] else "")
        + f". Splits: {images['training']} training, {images['validation']} validation, {images['evaluation']} evaluation images.",
        f"{limit} per search, {arms[0]['repeats']} repeats per file. Medians with the middle 80 % of repeats. Seconds are processor "
        f"seconds of one thread ({surface['machine'].get('processor', 'processor')}), {summary['start_up_s']:g} s for the start of each trial "
        "among them; trials at once are as fast as one alone.",
        *(f"{arm['name']}: {len(arm['failures'])} repeats failed, the first with seed {arm['failures'][0]['seed']}: "
          f"{arm['failures'][0]['error']}" for arm in arms if arm["failures"]),
    ]  # fmt: skip
    blocks: list[Block] = [
        Heading(f"After {limit} (simulated)"),
        Table(_HEADS, tuple(Row(arm["name"], _end_cells(arm)) for arm in arms), "file"),
        Text(f"{REGRET} Evaluation regret is the same on the evaluation split, which chooses nothing.", caption=True),
        Heading("Regret by trials (simulated)"),
        Figure(_figure(arms, "by_trials", "trials", "trials")),
        _trials_table(arms),
        Heading("Regret by time (simulated)"),
        Figure(_figure(arms, "by_seconds", "seconds", "seconds")),
        _times_table(arms),
        Heading("Probability that the column's file finds better than the row's (simulated)"),
        _matrix(summary),
        Text("True validation accuracy of what each search would keep, 95 % score intervals, ties half. In brackets: how often the "
             "measured bests of one run each are in the right order.", caption=True),
        Heading(f"Against {arms[0]['name']} (simulated)"),
        Table(("median regret, times", "median time until within 0.5 points, times"),
              tuple(Row(arm["name"], tuple(map(_ratio_text, arm["against_first"].values()))) for arm in arms[1:]), "file"),
        Text("95 % percentile bootstrap intervals over the repeats; a dash where half of the repeats never get there.", caption=True),
    ]  # fmt: skip
    blocks += _sensitivity_blocks(summary.get("sensitivity") or [])
    title, source = f"Simulated searches on surface {surface['name']}", "simulated searches"
    return Document(title, None, tuple(notes), tuple(blocks), source)


def _points(values: dict[str, Any]) -> str:
    if values["median"] is None:
        return formats.NONE
    low, high = (formats.NONE if v is None else f"{100 * v:.1f}" for v in (values["p10"], values["p90"]))
    return f"{100 * values['median']:.2f} points ({low} to {high})"


def _end_cells(arm: dict[str, Any]) -> tuple[str, ...]:
    last, within = arm["by_trials"][-1], arm["within_best"]
    since = arm.get("beats_random_from")
    reached = round(within["share"] * arm["repeats"])
    return (
        _points(last["regret"]),
        _points(last["evaluation_regret"]),
        formats.number_text(last["best"]["median"]),
        formats.share_text(reached, arm["repeats"]),
        formats.NONE if within["trials"]["median"] is None else f"{within['trials']['median']:.0f}",
        formats.seconds_text(within["seconds"]["median"]),
        "" if since is None else formats.NONE if since["trials"] is None else f"from trial {since['trials']}",
    )


def _trials_table(arms: list[dict[str, Any]]) -> Table:
    most = max(len(arm["by_trials"]) for arm in arms)
    steps = sorted({k for k in (1, 3, 5, 10, 15, 20, 30, 50, 100, most) if k <= most})
    rows = [
        Row(str(k), tuple(_points(arm["by_trials"][min(k, len(arm["by_trials"])) - 1]["regret"]) for arm in arms))
        for k in steps
    ]
    return Table(tuple(arm["name"] for arm in arms), tuple(rows), "trials")


def _times_table(arms: list[dict[str, Any]]) -> Table:
    """Every fifth point of the curve."""
    steps = range(TIMES // 5 - 1, TIMES, TIMES // 5)
    rows = [
        Row(
            formats.seconds_text(arms[0]["by_seconds"][k]["seconds"]),
            tuple(_points(arm["by_seconds"][k]["regret"]) for arm in arms),
        )
        for k in steps
    ]
    return Table(tuple(arm["name"] for arm in arms), tuple(rows), "time")


def _matrix(summary: dict[str, Any]) -> Table:
    names = [arm["name"] for arm in summary["arms"]]

    def cell(row: str, column: str) -> str:
        if row == column:
            return ""
        entry = summary["better"][row][column]
        low, high = 100 * entry["low"], 100 * entry["high"]
        rightly = 100 * entry["one_run_each_ranks_rightly"]
        return f"{100 * entry['probability']:.0f} % ({low:.0f} to {high:.0f}) [{rightly:.0f} %]"

    return Table(tuple(names), tuple(Row(row, tuple(cell(row, column) for column in names)) for row in names))


def _ratio_text(entry: dict[str, Any]) -> str:
    if entry["ratio"] is None:
        return formats.NONE
    interval = "" if entry["low"] is None or entry["high"] is None else f" ({entry['low']:.2f} to {entry['high']:.2f})"
    return f"{entry['ratio']:.2f}{interval}"


def _sensitivity_blocks(rows: list[dict[str, Any]]) -> list[Block]:
    if not rows:
        return []
    cells = tuple(
        Row(row["name"], (row["error"], "", ""))
        if "error" in row
        else Row(
            row["name"],
            (_points(row["regret"]), formats.seconds_text(row["seconds"]["median"]), _failed_text(row)),
        )
        for row in rows
    )
    heads = ("regret", "time of the search", "failed repeats")
    return [Heading("Other arguments and trials at once (simulated)"), Table(heads, cells, "variant")]


def _failed_text(row: dict[str, Any]) -> str:
    failures = row["failures"]
    return f"{len(failures)}, first seed {failures[0]['seed']}: {failures[0]['error']}" if failures else "0"


def _figure(arms: list[dict[str, Any]], key: str, x: str, title: str) -> go.Figure:
    """Median regret of each file, and its band."""
    figure = empty_figure()
    for number, arm in enumerate(arms):
        colour = COLOURS[number % len(COLOURS)]
        points = [point for point in arm[key] if point["regret"]["p90"] is not None]
        at = [point[x] for point in points]
        low, middle, high = ([100 * point["regret"][q] for point in points] for q in ("p10", "median", "p90"))
        red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
        figure.add_scatter(x=at + at[::-1], y=high + low[::-1], fill="toself", fillcolor=f"rgba({red},{green},{blue},0.12)",
                           line={"width": 0}, hoverinfo="skip", showlegend=False, legendgroup=arm["name"])  # fmt: skip
        figure.add_scatter(
            x=at, y=middle, name=arm["name"], legendgroup=arm["name"], mode="lines", line={"color": colour}
        )
    figure.update_xaxes(title_text=f"{title} (simulated)")
    figure.update_yaxes(title_text="regret, points of validation accuracy", rangemode="tozero")
    return figure


# -- command -------------------------------------------------------------------------------------------------------------


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "python -m benchmarks replay", description=__doc__.split("\n")[0], allow_abbrev=False
    )
    add = parser.add_argument
    add("--surface", required=True, metavar="NAME", help="of benchmarks/surfaces, or a file")
    text = "an experiment; may be repeated, the first is what others are compared with (default: tpe.yml and evolution.yml)"
    add("--file", type=Path, action="append", metavar="YAML", help=text)
    add("--repeats", type=_positive, default=1000, metavar="N", help="searches per file (default: 1000)")
    add("--seed", type=int, default=0, help="of the first repeat (default: 0)")
    add("--trials", type=_positive, metavar="N", help="trials per search (default: 15)")
    add("--hours", type=float, metavar="H", help="hours per search instead")
    add("--concurrency", type=_positive, metavar="N", help="trials at once (default: the file's)")
    add(
        "--half",
        choices=tuple(HALVES),
        default="all",
        help="seeds of the surface: tune on one half, confirm on the other",
    )
    text = "process start of each trial, not part of the surface (default: 3.6)"
    add("--start-up-s", type=float, default=START_UP_S, metavar="S", help=text)
    add("--sensitivity", action="store_true", help="other arguments of each file, and 1, 2 and 4 trials at once")
    add("--out", type=Path, metavar="DIR", help="folder for replay.json and replay.html")
    args = parser.parse_args(arguments)
    if args.trials and args.hours:
        parser.error("--trials and --hours: give one of the two")
    if args.hours is not None and args.hours <= 0:
        parser.error("--hours: expected a number above 0")
    if args.start_up_s < 0:
        parser.error("--start-up-s: expected a number from 0")
    args.file = args.file or [ROOT / "experiments" / name for name in ("tpe.yml", "evolution.yml")]
    if doubled := sorted({file.stem for file in args.file if [f.stem for f in args.file].count(file.stem) > 1}):
        parser.error(f"--file: {doubled[0]} is given twice; files are known by their names")
    return args


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    args = parse(arguments)
    quiet()
    try:
        return _run(args)
    except (SurfaceError, ExperimentError, ReplayError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _run(args: argparse.Namespace) -> int:
    """Exit code 1 where a repeat failed: the others are shown all the same."""
    answers = Answers(read_surface(args.surface), args.half, args.start_up_s)
    files = args.file if any(file.stem == RANDOM.stem for file in args.file) else [*args.file, RANDOM]
    budget = Budget(None, args.hours) if args.hours else Budget(args.trials or 15)
    arms = [read_arm(file, answers, args.concurrency) for file in files]
    replayed = [replay(arm, answers, budget, args.repeats, args.seed) for arm in arms]
    summary = summarise(replayed, answers, budget, args.start_up_s)
    summary |= {"half": args.half, "first_seed": args.seed}
    if args.sensitivity:
        summary["sensitivity"] = [row for arm in arms for row in sensitivity(arm, answers, budget, args.repeats)]
    page = document(summary)
    terminal.say(terminal.render(page))
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / "replay.json").write_text(strict_json(summary, indent=2) + "\n", encoding="utf-8")
        (args.out / "replay.html").write_text(html.render(page), encoding="utf-8")
        print(f"\n{args.out / 'replay.html'}, replay.json")
    return 1 if any(each.failures for each in replayed) else 0
