"""One self-contained page: opens from disk without network, on a phone and on paper, light and dark."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from plotly.offline import get_plotlyjs

from ..export.files import write_table
from ..reading import startup
from ..reading.locate import AnalysisError
from ..reading.provenance import provenance
from ..reading.records import Experiment
from ..reading.tables import trials_table
from ..reading.values import strict_json
from ..render import formats as words
from ..stats.compare import evaluation
from ..stats.statement import statement_of
from . import figures, page_rows, series
from .arms import arm_rows, per_class_rows, warnings_of
from .sections import sections

TABLE_ROWS = 1000


def write_comparison(experiments: list[Experiment], summary: dict[str, Any], out: Path) -> Path:
    """Writes report.html, summary.json and trials.csv into the folder `out`; returns the page's path."""
    page = render(experiments, summary)
    tables = []
    for experiment in experiments:
        table = trials_table(experiment)
        table.insert(0, "experiment_id", experiment.id)
        table.insert(1, "tuner", startup.label(experiment.tuner))
        tables.append(table)
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "summary.json").write_text(
            strict_json(summary, indent=2) + "\n", encoding="utf-8", errors="backslashreplace"
        )
        (out / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise AnalysisError(
            f"cannot write to {out}: {error.strerror or error}; name another folder with --out"
        ) from None
    write_table(pd.concat(tables, ignore_index=True), "csv", out / "trials.csv")
    return out / "report.html"


def render_page(name: str, details: str, **values: Any) -> str:
    """A page from a template of this folder, each of which goes into frame.html.j2; every value is escaped."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([Path(__file__).parent, Path(__file__).parent.with_name("render")]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(name).render(
        **values,
        details=details.replace(" %", "\u00a0%"),
        plotly_js=get_plotlyjs(),
        now=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )


def render(experiments: list[Experiment], summary: dict[str, Any]) -> str:
    """The whole page as text. Autoescape is on; figures are data, never markup."""
    names, percent = words.arm_names(experiments), words.is_percent(experiments)
    styles = _styles(experiments, summary)
    statement = statement_of(summary["comparison"])
    return render_page(
        "report.html.j2",
        title=" against ".join(arm["name"] for arm in summary["arms"]),
        headline=statement.headline,
        details=" ".join(statement.details),
        notes=summary["comparison"]["notes"],
        comparison=summary["comparison"],
        names=names,
        colours=[style.colour for style in styles],
        pair_columns=page_rows.PAIR_COLUMNS,
        repeats=page_rows.repeat_rows(summary, percent),
        arm_names=[arm["name"] for arm in summary["arms"]],
        pairs=page_rows.pair_rows(summary, percent),
        stopping=page_rows.stopping_rows(experiments, percent),
        failures=page_rows.failure_rows(experiments),
        percent=percent,
        rows=arm_rows(experiments),
        figures=[
            {"title": section.title, "json": script_json(section.figure), "caption": section.caption}
            for section in sections(experiments, styles)
        ],
        tables=[_trial_table(experiment) for experiment in experiments],
        classes=per_class_rows(experiments),
        warnings=[warnings_of(experiment) for experiment in experiments],
        provenance=provenance(experiments),
    )


def _styles(experiments: list[Experiment], summary: dict[str, Any]) -> list[figures.Style]:
    """One for each experiment: that of its arm."""
    arms = summary["arms"]
    members = {key: index for index, arm in enumerate(arms) for key in arm["experiments"]}
    places = [members[experiment.id] for experiment in experiments]
    return [figures.Style(arms[k]["name"], figures.COLOURS[k % len(figures.COLOURS)]) for k in places]


def script_json(figure: Any) -> str:
    """JSON for a <script> element: `<` as an escape, so that no text can close the element; "" without a figure."""
    return "" if figure is None else figure.to_json().replace("<", "\\u003c")


def _trial_table(experiment: Experiment) -> dict[str, Any]:
    rows = series.table_rows(experiment)
    parameters = list(dict.fromkeys(name for trial in experiment.trials for name in trial.parameters))
    return {
        "parameters": parameters,
        "rows": rows[:TABLE_ROWS],
        "total": len(rows),
        "words": words,
        "percent": words.is_percent([experiment]),
        "evaluation": evaluation,
    }
