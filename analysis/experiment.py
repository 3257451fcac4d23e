"""What `import analysis` hands to notebooks and scripts: experiments and comparisons as DataFrames, texts and Plotly figures.

Tables need pandas alone: Plotly and scipy, which take a second to import, are imported where a figure or a statistic is made.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from .export.tables import epochs_table, trials_table
from .reading.locate import AnalysisError
from .reading.reader import load_experiment
from .reading.records import Experiment, arm_names, is_percent
from .render.document import Row

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from .reports.figures import Style


class _Shown:
    """Tables and figures of one experiment or of several, one colour per arm. Where nothing can be drawn, the figure says
    why."""

    records: list[Experiment]
    styles: Sequence[Style]
    _verdict = ""  # of their comparison; of one experiment none

    @cached_property
    def facts(self) -> pd.DataFrame:
        """What each experiment did: a row per fact, a column per experiment."""
        from .reports import facts

        return self._table(facts.experiment_rows(self.records))

    @cached_property
    def classes(self) -> pd.DataFrame:
        """Evaluation accuracy of the best trial by class; empty where its result.json is not there."""
        from .reports import facts

        return self._table(facts.class_rows(self.records))

    @cached_property
    def failures(self) -> pd.DataFrame:
        """The last line in the log of each trial that did not succeed, with the number of such trials."""
        from .reports import facts

        return self._table(facts.failure_rows(self.records))

    @cached_property
    def importance(self) -> pd.DataFrame:
        """A row per hyperparameter: share of the variance of ranks, its interval, p, n; or the reason for none."""
        from .stats.importance import importances

        return pd.DataFrame(importances(self.records, self._verdict))

    def plot_best_so_far(self) -> go.Figure:
        """Best score so far over the trials' numbers; a dot per trial, a cross for one without a result."""
        from .reports import figures

        return figures.best_figure(self.records, self.styles)

    def plot_over_time(self) -> go.Figure:
        """Best score so far over wall clock."""
        from .reports import figures

        return figures.time_figure(self.records, self.styles)

    def plot_learning_curves(self) -> go.Figure:
        """A line per trial over its epochs, the best thick, a cross where early stopping ended it."""
        from .reports import figures

        return figures.curves_figure(self.records, self.styles)

    def plot_parameter(self, name: str | None = None) -> go.Figure:
        """Score over one hyperparameter; by default `lr`, or else the one whose values span the widest ratio."""
        from .reports import figures, series

        name = name or series.numeric_parameter(self.records)
        if name is None:
            return _no_figure("no hyperparameter has two numbers")
        return figures.parameter_figure(self.records, name, self.styles)

    def plot_importance(self) -> go.Figure:
        """The share of the variance of ranks that each hyperparameter explains, with its interval."""
        from .reports import figures
        from .stats.importance import importances

        estimates = importances(self.records, self._verdict)
        reasons = "; ".join(f"{one.name}: {one.reason}" for one in estimates)
        return figures.importance_figure(estimates) or _no_figure(reasons or "no trial has hyperparameters")

    def plot_parallel(self) -> go.Figure:
        """A line per trial through all its hyperparameters to its score, the best tenth thick."""
        from .reports import figures

        return figures.parallel_figure(self.records, self.styles) or _no_figure("no trial has a score")

    def plot_best_of_k(self) -> go.Figure:
        """Expected best of k random trials with a band for a new search, as long as no tuner chose any trial."""
        from .reports import figures
        from .stats.best_of_n import best_of_k, pooled_startup

        scores, refusal = pooled_startup(self.records, self._verdict)
        if refusal:
            return _no_figure(refusal)
        curve = best_of_k(scores, self.records[0].optimise_mode == "maximize")
        return figures.best_of_k_figure(curve, is_percent(self.records))

    def _table(self, rows: Sequence[Row]) -> pd.DataFrame:
        cells, labels = [row.cells for row in rows], [row.label for row in rows]
        return pd.DataFrame(cells, index=labels, columns=arm_names(self.records))


def _no_figure(reason: str) -> go.Figure:
    from .reports import figures

    figure = figures.empty_figure()
    figure.update_layout(height=120, xaxis={"visible": False}, yaxis={"visible": False})
    return figure.add_annotation(text=escape(f"Not shown: {reason}."), showarrow=False, xref="paper", yref="paper")


class LoadedExperiment(_Shown):
    """`trials` and `epochs` are tables; every other attribute (`id`, `name`, `tuner`, `state`, `best`,
    `counts`, `chosen`, ...) is that of the record, which is `record` itself."""

    def __init__(self, record: Experiment) -> None:
        self.record, self.records = record, [record]

    @property
    def styles(self) -> Sequence[Style]:
        from .reports import figures

        return figures.own_styles(self.records)

    @cached_property
    def trials(self) -> pd.DataFrame:
        """A row per trial, failed ones too."""
        return trials_table(self.record)

    @cached_property
    def epochs(self) -> pd.DataFrame:
        """A row per intermediate result."""
        return epochs_table(self.record)

    def export(
        self,
        out: str | os.PathLike[str],
        epochs_out: str | os.PathLike[str] | None = None,
        file_format: str = "csv",
    ) -> list[tuple[Path, int]]:
        """Writes trials and epochs as csv, json, parquet or an Optuna study; returns each file with its number of rows."""
        from .export import tables

        return tables.export(self.record, file_format, Path(out), Path(epochs_out) if epochs_out else None)

    def __getattr__(self, name: str) -> Any:
        if name in ("record", "records"):  # not set yet, while unpickling
            raise AttributeError(name)
        return getattr(self.record, name)

    def __repr__(self) -> str:
        n = len(self.record.trials)
        return f"<experiment {self.id} {self.name!r}: {self.tuner}, {self.state}, {n} trials>"


class Comparison(_Shown):
    """Several experiments, grouped into arms. `summary` is the content of summary.json (docs), `experiments` those compared."""

    def __init__(
        self, experiments: Sequence[LoadedExperiment], group: Mapping[str, Sequence[str]] | None = None
    ) -> None:
        from .reports.comparison import arm_styles
        from .stats.compare import Choices, compare

        named = [f"{name}={','.join(ids)}" for name, ids in (group or {}).items()]
        self.experiments = list(experiments)
        self.records = [experiment.record for experiment in experiments]
        self.summary = compare(*self.records, choices=Choices(named))
        self.styles = arm_styles(self.records, self.summary)
        self._verdict = self.verdict

    @property
    def verdict(self) -> str:
        """One of `analysis.stats.statement`."""
        return self.summary["comparison"]["verdict"]

    @property
    def statement(self) -> str:
        """The verdict in words, with the numbers that it rests on."""
        return self.summary["comparison"]["statement"]

    @property
    def notes(self) -> list[str]:
        """What a reader should know beside the statement."""
        return self.summary["comparison"]["notes"]

    @cached_property
    def pairs(self) -> pd.DataFrame:
        """A row per pair of arms: difference of the means of the bests, interval, p, verdict."""
        from .reports.comparison import PAIR_COLUMNS, pair_row

        rows = [pair_row(pair, is_percent(self.records)) for pair in self.summary["comparisons"]]
        return pd.DataFrame([row.cells for row in rows], index=[row.label for row in rows], columns=PAIR_COLUMNS)

    def to_html(self, path: str | os.PathLike[str]) -> Path:
        """Writes the page of the comparison into this file and returns its path. Raises AnalysisError."""
        from .render import html
        from .reports.comparison import comparison

        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            text = html.render(comparison(self.records, self.summary))
            path.write_text(text, encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise AnalysisError(f"cannot write {path}: {error.strerror or error}") from None
        return path

    def _repr_html_(self) -> str:
        result = self.summary["comparison"]
        notes = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        details = escape(" ".join(result["details"]))
        return f"<b>{escape(result['headline'])}</b><p>{details}</p><ul>{notes}</ul>{self.facts.to_html()}"

    def __repr__(self) -> str:
        return f"<comparison of {', '.join(arm['name'] for arm in self.summary['arms'])}: {self.verdict}>"


def loaded(experiment: LoadedExperiment | str | os.PathLike[str]) -> LoadedExperiment:
    """The experiment itself, or that of an id, folder or nni.sqlite file."""
    return experiment if isinstance(experiment, LoadedExperiment) else LoadedExperiment(load_experiment(experiment))
