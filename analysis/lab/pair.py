"""Part (d) of docs/report.md: the tuners, from what `compare` says of their experiments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..reading.locate import AnalysisError
from ..reading.reader import load_experiment
from ..render.formats import NONE, interval_text, optional, score_text, seconds_text
from ..render.markdown import code, plain_table, text
from ..stats.compare import compare
from ..stats.statement import statement_of
from ..study.arms import Measure
from ..study.reported import reported
from ..study.words import spread_text
from .setting import Told, differing, settings_of

RECORDED = Path(__file__).parent.with_name("recorded")
COLUMNS = [
    "Experiment",
    "Tuner",
    "Trials with a result",
    "Chosen by the tuner",
    "Best on validation, its 95 % interval",
    "Evaluation of its weights",
    "Wall clock",
]


def read_pair(folder: Path | None, demo: Path) -> tuple[dict[str, Any], str]:
    """What compare says, and where it is from, as Markdown: the summary.json in `folder`; without one named that in `demo`, or
    else of the recorded pair. Raises AnalysisError."""
    file = (folder or demo) / "summary.json"
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        return summary, code(str(file))
    except FileNotFoundError:
        if folder:
            write = f"python -m analysis compare ID ID --out {folder}"
            raise AnalysisError(f"{file}: no such file; expected what compare writes: {write}") from None
    except (OSError, ValueError) as error:
        raise AnalysisError(f"{file} cannot be read ({error}); write it again with compare") from None
    pair = [load_experiment(RECORDED / arm) for arm in ("tpe", "evolution")]
    told = (
        "the recorded pair that comes with the project, on generated drawings; after `make demo` it is the demo's own"
    )
    return compare(*pair), told


def told(summary: dict[str, Any], source: str) -> Told:
    """Part (d). Settings and machine are those of the first experiment's best trial; where the experiments differ, compare
    says so in its notes."""
    first = summary["experiments"][0]
    made, searched = first.get("made") or {}, (first["best"] or {}).get("params") or {}
    found = settings_of("tuners", made, dict.fromkeys(searched))
    trials = [str(sum(experiment["trials"].values())) for experiment in summary["experiments"]]
    names = [experiment["id"] for experiment in summary["experiments"]]
    headline = statement_of(summary["comparison"]).headline
    return Told(
        _blocks(summary, source, differing(found)), headline, f"{' + '.join(trials)} trials", found, made, names
    )


def _blocks(summary: dict[str, Any], source: str, others: str) -> list[str]:
    """Claim, verdict, what differs, a row an experiment. `others` says what is not the report's."""
    told, pairs, notes = reported("tuners"), summary.get("comparisons") or [], summary["comparison"]["notes"]
    return [
        f"The report: {text(told['claim'])}",
        _bold_headline(summary["comparison"]),
        *([_bold_headline(pair) for pair in pairs] if len(pairs) > 1 else []),
        *(["\n".join(f"- {text(note)}" for note in notes)] if notes else []),
        others,
        plain_table(COLUMNS, [_row(experiment) for experiment in summary["experiments"]]),
        "Wilson's interval is that of the images alone: it knows neither the choice of the best nor another run.",
        *_arms(summary),
        "On the report's text:\n\n" + "\n".join(f"- {text(note)}" for note in told["notes"]),
        f"Source: {source}.",
    ]


def _bold_headline(comparison: dict[str, Any]) -> str:
    statement = statement_of(comparison)
    return f"**{text(statement.headline)}** {text(' '.join(statement.details))}".rstrip()


def _row(experiment: dict[str, Any]) -> tuple[str, list[str]]:
    trials, best = experiment["trials"], experiment["best"]
    counts = f"{trials['succeeded']} of {sum(trials.values())}"
    cells = [experiment["tuner"], counts, optional(experiment["chosen_by_tuner"]), *_best(best)]
    return f"{experiment['name'] or experiment['id']}", [*cells, seconds_text(experiment["wall_seconds"])]


def _best(best: dict[str, Any] | None) -> tuple[str, str]:
    """Validation accuracy with its interval and images, evaluation accuracy with its images."""
    if best is None:
        return NONE, NONE
    n, found = best["validation_n"], best["evaluation"]
    validation = score_text(best["val_accuracy"], n is not None)
    if n is not None:
        validation += f" ({interval_text(best['validation_interval'])}, n = {n})"
    evaluation = NONE if found is None else f"{score_text(found['top1'], True)} (n = {optional(found['n'])})"
    return validation, evaluation


def _arms(summary: dict[str, Any]) -> list[str]:
    """The means over repeats, where there are any."""
    arms = summary.get("arms") or []
    if all(len(arm["experiments"]) < 2 for arm in arms):
        return []
    measure = Measure("best", "Best", "fraction")
    rows = [(arm["name"], [spread_text(arm | {"n": len(arm["bests"])}, measure)]) for arm in arms]
    return [plain_table(["Arm", "Best on validation, over its experiments"], rows)]
