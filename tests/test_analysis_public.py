"""`import analysis`: what notebooks and scripts use."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pandas as pd
import plotly.graph_objects as go
import pytest
from conftest import ROOT
from fixtures_analysis import Recorder, final

import analysis
from analysis.reading.locate import AnalysisError

PAIR = [ROOT / "analysis" / "recorded" / name for name in ("tpe", "evolution")]


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


def figures(shown) -> dict[str, go.Figure]:
    return {name: getattr(shown, name)() for name in dir(shown) if name.startswith("plot_")}


def notes_in(figure: go.Figure) -> str:
    return " ".join(annotation.text for annotation in figure.layout.annotations)


def test_an_experiment_has_tables_and_figures(tmp_path):
    experiment = analysis.load(PAIR[0])
    assert (len(experiment.trials), len(experiment.epochs)) == (15, 90)
    assert experiment.best.score == experiment.trials["final_default"].max()
    assert experiment.facts.shape[1] == 1 and len(experiment.classes) == 11 and experiment.failures.empty
    assert list(experiment.importance["name"]) == ["batch_size", "lr", "momentum"]
    drawn = figures(experiment)
    assert len(drawn) == 7 and all(isinstance(figure, go.Figure) for figure in drawn.values())
    assert "15 random trials with a result are too few" in notes_in(drawn["plot_importance"])
    assert not notes_in(drawn["plot_best_of_k"]) and len(drawn["plot_parallel"].data) == 15
    assert experiment.export(tmp_path / "a.json", tmp_path / "b.json", "json") == [
        (tmp_path / "a.json", 15),
        (tmp_path / "b.json", 90),
    ]
    assert pickle.loads(pickle.dumps(experiment)).id == experiment.id


def test_an_experiment_without_a_result_has_figures_that_say_so(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, None, state="FAILED", kind="<b>")
    drawn = figures(analysis.load(recorder.folder))
    assert "no trial has a score" in notes_in(drawn["plot_parallel"])
    assert "no hyperparameter has two numbers" in notes_in(drawn["plot_parameter"])
    assert all("<b>" not in notes_in(figure) for figure in drawn.values())


def test_a_comparison_shows_itself_and_writes_its_page(tmp_path):
    comparison = analysis.compare(analysis.load(PAIR[0]), PAIR[1])
    assert comparison.verdict == "no_difference_shown"
    assert comparison.statement == comparison.summary["comparison"]["statement"]
    assert list(comparison.facts.columns) == [experiment.name for experiment in comparison.experiments]
    assert len(comparison.pairs) == 1
    page = comparison.to_html(tmp_path / "new" / "page.html").read_text()
    assert comparison.summary["comparison"]["headline"] in page
    html = comparison._repr_html_()
    assert "<table" in html and "No difference in validation accuracy can be shown." in html and len(html) < 20_000
    with pytest.raises(AnalysisError, match="cannot write"):
        comparison.to_html(tmp_path)


def test_groups_are_arms_and_mistakes_one_line(tmp_path):
    folders = []
    for name in ("a", "b", "c<i>"):
        recorder = Recorder(tmp_path, name, tuner={"name": "Random", "classArgs": {}}, experimentName=name)
        recorder.trial(0, final(0.5))
        folders.append(recorder.folder)
    comparison = analysis.compare(*folders, group={"old": ["a", "b"]})
    assert [arm["experiments"] for arm in comparison.summary["arms"]] == [["a", "b"], ["c<i>"]]
    assert "c&lt;i&gt;" in comparison._repr_html_() and "c<i>" not in comparison._repr_html_()
    for named, message in (({"old": ["nothere"]}, "'nothere' is not compared here"), (None, "are one arm")):
        with pytest.raises(AnalysisError, match=message):
            analysis.compare(*folders, group=named)
    with pytest.raises(AnalysisError, match="two or more"):
        analysis.compare(folders[0])


def test_the_list_is_a_table(tmp_path):
    assert isinstance(analysis.list_experiments(), pd.DataFrame) and analysis.list_experiments().empty
    (tmp_path / "nni-experiments").mkdir()
    Recorder(tmp_path / "nni-experiments", "exp00001").trial(0, final(0.5))
    listed = analysis.list_experiments()
    assert list(listed["id"]) == ["exp00001"] and listed["best"][0] == 0.5
    assert analysis.list_experiments(tmp_path).equals(listed)


def test_importing_analysis_is_cheap():
    code = "import sys, analysis; print(sorted({'pandas', 'plotly', 'scipy', 'numpy', 'psutil'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
