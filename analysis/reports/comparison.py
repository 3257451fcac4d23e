"""The comparison of two or more experiments as a document and as files: report.html, summary.json, trials.csv."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from ..export.tables import trials_table, write_table
from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.records import Experiment, arm_names, is_percent
from ..reading.values import strict_json
from ..render import formats, html
from ..render.document import Block, Details, Document, Figure, Heading, Items, Row, Table, Text
from ..stats.best_of_n import best_of_k, pooled_startup
from ..stats.compare import ALL_TRIALS, evaluation
from ..stats.importance import importances
from ..stats.statement import statement_of
from . import facts, figures, series
from .figures import Style

PAIR_COLUMNS = ("Difference of means", "95 %", "p (exact)", "P(better), 95 %", "On evaluation", "Verdict")
MOST_ROWS = 1000  # of the table of all trials
MOST_WARNINGS = 200
OPEN_UP_TO = 40  # trials
CLASSES = "The best trial of each experiment: correct / n images of the class."
HIDDEN = (
    "The evaluation accuracies of the trials that are not the best of their experiment are not shown, so that the evaluation split "
    "stays new to whoever chooses among them; `--show-evaluation` shows them."
)
STOPPING = (
    "What each patience would have used and lost on these curves. A shorter one is an exact prefix of what ran; a longer one is "
    "known only where every trial ran long enough. Lost: best accuracy of the whole curve less that of the prefix; <: less than the standard error of a "
    "difference of two such accuracies, so that it may be chance."
)


def earlier_summary(out: Path) -> dict[str, Any] | None:
    """What compare wrote into this folder before; None where there is no such file, or none that can be read."""
    try:
        summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return summary if isinstance(summary, dict) else None


def write_comparison(experiments: list[Experiment], summary: dict[str, Any], out: Path) -> Path:
    """The path of the page, written into the folder `out` beside summary.json and trials.csv. Raises AnalysisError."""
    page = html.render(comparison(experiments, summary))
    tables = []
    for experiment in experiments:
        table = trials_table(experiment)
        table.insert(0, "experiment_id", experiment.id)
        table.insert(1, "tuner", startup.label(experiment.tuner))
        tables.append(table)
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in (("summary.json", strict_json(summary, indent=2) + "\n"), ("report.html", page)):
            (out / name).write_text(text, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = error.strerror or error
        raise AnalysisError(f"cannot write to {out}: {reason}; name another folder with --out") from None
    write_table(pd.concat(tables, ignore_index=True), "csv", out / "trials.csv")
    return out / "report.html"


def comparison(experiments: list[Experiment], summary: dict[str, Any]) -> Document:
    """The whole page; `summary` is what `stats.compare` says of these experiments."""
    page = _Page(experiments, arm_styles(experiments, summary), summary["comparison"]["verdict"])
    blocks: list[Block] = [*_arms(summary, page.percent), *_experiments(page)]
    for section in (_best, _time, _curves, _best_of_k, _parallel, _importance, _over_parameter):
        blocks += section(page)
    blocks += _table("Evaluation accuracy by class", facts.class_rows(experiments), page, CLASSES)
    blocks += _table("Early stopping", facts.stopping_rows(experiments, page.percent), page, STOPPING)
    blocks += _failures(page)
    shows_all = summary["evaluation_shown"] == ALL_TRIALS
    blocks += [Heading("All trials"), *(_trials(e, name, shows_all) for e, name in zip(experiments, page.names))]
    blocks += [] if shows_all else [_caption(HIDDEN)]
    blocks += [Heading("Warnings"), *map(_warnings, experiments, page.names, page.colours)]
    blocks += _table("Provenance", facts.provenance_rows(experiments), page)
    title = " against ".join(arm["name"] for arm in summary["arms"])
    return _document(title, summary, blocks)


def short_comparison(experiments: list[Experiment], summary: dict[str, Any]) -> Document:
    """The statement and the table that it rests on, for a terminal."""
    page = _Page(experiments, arm_styles(experiments, summary), summary["comparison"]["verdict"])
    blocks = _arms(summary, page.percent) or _experiments(page)
    return _document("", summary, [block for block in blocks if not isinstance(block, Text)])


@dataclass(frozen=True)
class _Page:
    """The experiments, one column or trace each, how they are drawn, and the verdict of their comparison."""

    experiments: list[Experiment]
    styles: list[Style]
    verdict: str

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(arm_names(self.experiments))

    @property
    def colours(self) -> tuple[str, ...]:
        return tuple(style.colour for style in self.styles)

    @property
    def percent(self) -> bool:
        return is_percent(self.experiments)


def _document(title: str, summary: dict[str, Any], blocks: Sequence[Block]) -> Document:
    result = summary["comparison"]
    return Document(title, statement_of(result), tuple(result["notes"]), tuple(blocks))


def arm_styles(experiments: list[Experiment], summary: dict[str, Any]) -> list[Style]:
    """One for each experiment: that of its arm."""
    arms = summary["arms"]
    members = {key: index for index, arm in enumerate(arms) for key in arm["experiments"]}
    places = [members[experiment.id] for experiment in experiments]
    return [Style(arms[k]["name"], figures.COLOURS[k % len(figures.COLOURS)]) for k in places]


def _arms(summary: dict[str, Any], percent: bool) -> list[Block]:
    """The arms and each pair of them; nothing where every arm is one experiment and there are two."""
    arms = summary["arms"]
    if len(arms) == 2 and all(len(arm["experiments"]) == 1 for arm in arms):
        return []
    pairs = [pair_row(pair, percent) for pair in summary["comparisons"]]
    return [
        Heading("The arms"),
        Table(tuple(arm["name"] for arm in arms), _arm_rows(arms, percent)),
        _caption("An arm is one tuner with its arguments, the seed aside, or the experiments of one --group."),
        Heading("Arm against arm"),
        Table(PAIR_COLUMNS, tuple(pairs)),
        _caption(
            "The verdict rests on p, which is multiplied by the number of pairs of arms, and on the evaluation of the same networks, "
            "which must confirm it. The differences are of the mean bests; the intervals are for each pair alone."
        ),
    ]


def _caption(text: str) -> Text:
    return Text(text, caption=True)


def _arm_rows(arms: list[dict[str, Any]], percent: bool) -> tuple[Row, ...]:
    def row(label: str, text: Any) -> Row:
        return Row(label, tuple(map(text, arms)))

    return (
        row("Experiments", lambda arm: f"{len(arm['experiments'])}: {', '.join(arm['experiments'])}"),
        row("Best of each", lambda arm: ", ".join(formats.score_text(best, percent) for best in arm["bests"])),
        row("Mean of the bests", lambda arm: formats.score_text(arm["mean"], percent)),
        row("Their standard deviation", lambda arm: _deviation(arm, percent)),
        *_evaluation_row(arms),
        row("Chosen by the tuner", lambda arm: f"{formats.optional(arm['chosen_by_tuner'])} of {arm['trials']} trials"),
    )


def _evaluation_row(arms: list[dict[str, Any]]) -> list[Row]:
    """The networks of the bests on the evaluation split; nothing where none was evaluated there."""
    accuracies = [arm["evaluations"] for arm in arms]
    if all(accuracy is None for own in accuracies for accuracy in own):
        return []
    cells = (", ".join(formats.score_text(accuracy, True) for accuracy in own) for own in accuracies)
    return [Row("Their networks' evaluation accuracy", tuple(cells))]


def _deviation(arm: dict[str, Any], percent: bool) -> str:
    n = len(arm["bests"])
    if None in arm["bests"]:
        return f"none, {arm['bests'].count(None)} of n = {n} without a result"
    return f"none of n = {n}" if arm["sd"] is None else f"{formats.difference_text(arm['sd'], percent)} (n = {n})"


def pair_row(pair: dict[str, Any], percent: bool) -> Row:
    unit, chance = formats.unit_of(percent), pair.get("probability_of_improvement")
    better = formats.NONE if chance is None else f"{chance:.2f}"
    if chance is not None and pair["probability_interval"]:
        better += f" ({' to '.join(f'{end:.2f}' for end in pair['probability_interval'])})"
    evaluation = pair.get("evaluation") or {"difference": None, "interval": None}
    ends = f" ({formats.range_text(evaluation['interval'])})" if evaluation["interval"] else ""
    on_evaluation = formats.signed_text(evaluation["difference"]) + ends
    difference, interval = formats.signed_text(pair["difference"], unit), formats.range_text(pair["interval"], unit)
    cells = (
        difference,
        interval,
        formats.p_text(pair["p_value"]),
        better,
        on_evaluation,
        pair["verdict"].replace("_", " "),
    )
    return Row(f"{pair['arms'][1]} less {pair['arms'][0]}", cells)


def _experiments(page: _Page) -> list[Block]:
    if page.percent:
        caption = (
            "The best trial is the one with the best validation accuracy, so this accuracy is optimistic (selection bias) "
            "and has no interval. The evaluation split was not used for any choice: its interval is that of the images."
        )
    else:
        caption = "The best trial is the one with the best score, so this score is optimistic (selection bias)."
    return _table("The experiments", facts.experiment_rows(page.experiments), page, caption)


def _best(page: _Page) -> list[Block]:
    counts = " and ".join(f"{len(e.trials)} trials of {name}" for e, name in zip(page.experiments, page.names))
    if len(page.experiments) > 3:
        counts = f"{sum(len(e.trials) for e in page.experiments)} trials of {len(page.experiments)} experiments"
    caption = (
        f"{counts}. Line: best of the trials so far. Dot: one trial. Cross: a trial without a result. "
        "Dashed: end of the tuner's random start-up; left of it the tuner chose no trial."
    )
    return facts.section("Best so far", Figure(figures.best_figure(page.experiments, page.styles)), caption)


def _time(page: _Page) -> list[Block]:
    caption = (
        "The same against wall clock, at the end of each trial, failed ones included; pauses before a resume are left out. "
        "Each line is one run, which also depends on other load on the machine and on the number of trials at a time."
    )
    return facts.section(
        "Best so far against wall clock", Figure(figures.time_figure(page.experiments, page.styles)), caption
    )


def _curves(page: _Page) -> list[Block]:
    curves = [curve for experiment in page.experiments for curve in series.learning_curves(experiment)]
    total = sum(bool(trial.intermediates) for experiment in page.experiments for trial in experiment.trials)
    if not curves:
        return []
    caption = (
        f"{len(curves)} of {total} trials with intermediate results; thick: the best trial of each experiment. Cross: early "
        f"stopping ended the trial there ({sum(curve.stopped_early for curve in curves)} trials)."
    )
    return facts.section("Learning curves", Figure(figures.curves_figure(page.experiments, page.styles)), caption)


def _best_of_k(page: _Page) -> list[Block]:
    title = "Expected best of k random trials"
    scores, refusal = pooled_startup(page.experiments, page.verdict)
    if refusal:
        return facts.section(title, None, f"Not shown: {refusal}. The curve holds for independent trials only.")
    curve = best_of_k(scores, page.experiments[0].optimise_mode == "maximize")
    unscored = sum(score is None for score in scores)
    caption = (
        f"Over the {curve.n} trials of all experiments ({unscored} without a result count as worst), up to half of them; unbiased "
        "(Tang 2020). It holds because every trial here was sampled independently at random; once a tuner chooses, it does not. "
        f"The band is for one new search of k such trials: it ends there in {100 * curve.covers[0]:.0f} % (k = 1) to "
        f"{100 * curve.covers[-1]:.0f} % (k = {curve.k[-1]}), as it may be better than all {curve.n} trials of these."
    )
    return facts.section(title, Figure(figures.best_of_k_figure(curve, page.percent)), caption)


def _parallel(page: _Page) -> list[Block]:
    table = series.parallel(page.experiments)
    if table is None:
        return []
    more = f" of {table.total}, evenly over the ranking" if table.total > len(table.trials) else ""
    caption = f"n = {len(table.trials)} trials with a result{more}. A line is a trial; thick: the best tenth."
    return facts.section(
        "Hyperparameters together", Figure(figures.parallel_figure(page.experiments, page.styles)), caption
    )


def _importance(page: _Page) -> list[Block]:
    title, estimates = "Importance of each hyperparameter", importances(page.experiments, page.verdict)
    if not estimates:
        return []
    reasons = "; ".join(f"{one.name}: {one.reason}" for one in estimates if one.reason)
    refusal = f"Not shown: {reasons}." if reasons else ""
    figure = figures.importance_figure(estimates)
    if figure is None:
        return facts.section(title, None, refusal)
    values = "; ".join(
        f"{one.name} {one.share:.2f} ({one.interval[0]:.2f} to {one.interval[1]:.2f}, p = {one.p_adjusted:.2g}, n = {one.n} "
        f"trials in {one.parts} groups)"
        for one in estimates
        if one.share is not None
    )
    caption = (
        "Share of the variance of the trials' ranks that each hyperparameter explains by itself, about 0 where it has no "
        f"effect: {values}. The intervals hold together with 95 % (Bonferroni), p is Holm's for all of them. Only trials sampled "
        "at random, each training once; numbers of many values are cut into thirds. Interactions of hyperparameters are not "
        f"included. {refusal}"
    )
    return facts.section(title, Figure(figure), caption.rstrip())


def _over_parameter(page: _Page) -> list[Block]:
    parameter = series.numeric_parameter(page.experiments)
    if parameter is None:
        return []
    n = sum(len(series.over_parameter(experiment, parameter).trial) for experiment in page.experiments)
    figure = figures.parameter_figure(page.experiments, parameter, page.styles)
    return facts.section(f"Trials over {parameter}", Figure(figure), f"n = {n} trials with a result.")


def _table(title: str, rows: Sequence[Row], page: _Page, caption: str = "") -> list[Block]:
    """Nothing where there are no rows."""
    if not rows:
        return []
    table = Table(page.names, tuple(rows), colours=page.colours)
    return facts.section(title, table, caption)


def _failures(page: _Page) -> list[Block]:
    caption = "The last line of each trial's log. Failed trials are included in every count above."
    table = _table("Failures", facts.failure_rows(page.experiments), page, caption)
    return table or [Heading("Failures"), _caption("No trial ended without success.")]


def _trials(experiment: Experiment, name: str, shows_evaluation: bool) -> Details:
    percent, total = is_percent([experiment]), len(experiment.trials)
    parameters = list(dict.fromkeys(name for trial in experiment.trials for name in trial.parameters))
    rows = []
    for trial, origin in list(zip(experiment.trials, series.origins(experiment)))[:MOST_ROWS]:
        accuracy = evaluation(trial)
        cells = [
            formats.optional(trial.sequence),
            trial.trial_id,
            trial.status,
            formats.score_text(trial.score, percent),
            *([formats.score_text(accuracy["top1"] if accuracy else None, True)] if shows_evaluation else []),
            formats.NONE if trial.duration_s is None else f"{trial.duration_s:.1f}",
            origin,
        ]
        values = [formats.value_text(trial.parameters.get(key, formats.NONE)) for key in parameters]
        mark = "best" if trial is experiment.best else "lost" if trial.score is None else ""
        rows.append(Row("", (*cells, *values), mark))
    evaluation_head = ["Evaluation"] if shows_evaluation else []
    score_head = "Validation accuracy" if percent else "Score"
    head = ("No.", "Id", "State", score_head, *evaluation_head, "Seconds", "Chosen by", *parameters)
    more = f", the first {MOST_ROWS} here, all of them in trials.csv" if total > MOST_ROWS else ""
    return Details(f"{name}: {total} trials{more}", (Table(head, tuple(rows)),), total <= OPEN_UP_TO)


def _warnings(experiment: Experiment, name: str, colour: str) -> Items:
    texts = facts.warnings_of(experiment)
    more = [f"and {len(texts) - MOST_WARNINGS} more"] if len(texts) > MOST_WARNINGS else []
    return Items((*texts[:MOST_WARNINGS], *more), f"{name}: {len(texts) or 'none'}", colour)
