"""Tables, files, figures' numbers and the page."""

from __future__ import annotations

import ast
import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT
from fixtures_analysis import Recorder, final
from golden import golden

import analysis
from analysis.__main__ import main
from analysis.reading.logs import failure_reason, tuner_errors
from analysis.reading.reader import load_experiment
from analysis.reading.records import best_result, shared_photos
from analysis.render import markdown
from analysis.render.document import Row
from analysis.reports import figures, series
from analysis.reports.comparison import comparison
from analysis.reports.facts import class_rows
from analysis.stats.compare import compare

EVIL = "<script>alert(1)</script>"


@pytest.fixture(autouse=True)
def nni_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def pair(tmp_path):
    """Two arms with a failed trial each; the second has a name that would run as a script."""
    first = Recorder(tmp_path, "first001", experimentName="tpe")
    first.trial(0, final(0.6), {"default": 0.5}, {"default": 0.6}, lr=0.001, momentum=0.9)
    first.trial(1, None, {"default": 0.1}, state="FAILED", lr=0.09, momentum=0.1)
    first.trial(2, final(0.8), {"default": 0.7}, {"default": 0.8}, lr=0.02, momentum=0.9)
    tuner = {"name": "Evolution", "classArgs": {"optimize_mode": "maximize", "population_size": 2}}
    second = Recorder(tmp_path, "second01", experimentName=EVIL, tuner=tuner)
    for sequence, accuracy in enumerate((0.5, 0.7, 0.65)):
        second.trial(sequence, final(accuracy), {"default": accuracy}, lr=0.01, momentum=EVIL)
    return first, second


def test_trials_table_by_hand(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, {"default": 0.5, "lr": 0.05, "note": [1, 2]}, lr=0.1, layer={"_name": "conv", "k": {"a": 3}})
    recorder.trial(1, None, state="FAILED", lr=0.2, layer={"_name": "none"})
    table = analysis.load(recorder.folder).trials
    assert list(table.columns) == [
        "trial_id", "sequence", "state", "start", "end", "duration_s",
        "params_lr", "params_layer._name", "params_layer.k.a", "final_default", "final_lr", "final_note",
    ]  # fmt: skip
    assert table["params_lr"].tolist() == [0.1, 0.2]
    assert table["final_lr"].tolist()[0] == 0.05
    assert table["final_note"].tolist()[0] == "[1, 2]"
    assert table["params_layer.k.a"].tolist() == [3, pd.NA]
    assert table["state"].tolist() == ["SUCCEEDED", "FAILED"]
    assert table["start"].tolist() == [
        pd.Timestamp("2023-11-14T22:13:20Z"),
        pd.Timestamp("2023-11-14T22:13:30Z"),
    ]
    assert table["duration_s"].tolist() == [8.0, 8.0]


def test_epochs_table_by_hand(tmp_path):
    recorder = Recorder(tmp_path)
    recorder.trial(0, 0.5, 0.3, {"default": 0.4, "lr": 0.1})
    table = analysis.load(recorder.folder).epochs
    assert list(table.columns) == [
        "trial_id",
        "sequence",
        "epoch",
        "time",
        "intermediate_default",
        "intermediate_lr",
    ]
    assert table["epoch"].tolist() == [1, 2]
    assert table["intermediate_default"].tolist() == [0.3, 0.4]
    assert table["time"].tolist()[1] == pd.Timestamp("2023-11-14T22:13:21.100Z")


def test_an_experiment_without_trials_has_empty_tables(tmp_path):
    loaded = analysis.load(Recorder(tmp_path).folder)
    assert (len(loaded.trials), len(loaded.epochs), loaded.best, loaded.tuner) == (0, 0, None, "TPE")
    assert list(loaded.epochs.columns) == ["trial_id", "sequence", "epoch", "time"]


def read_strict_json(path):
    def refuse(name):
        raise AssertionError(name)

    return pd.DataFrame(json.loads(path.read_text(encoding="utf-8"), parse_constant=refuse))


@pytest.mark.parametrize("file_format", ["csv", "json", "parquet"])
def test_export_reads_back_the_same(tmp_path, pair, file_format, capsys):
    out, epochs = tmp_path / f"t.{file_format}", tmp_path / f"e.{file_format}"
    arguments = [
        "export",
        str(pair[0].folder),
        "--format",
        file_format,
        "--out",
        str(out),
        "--epochs",
        str(epochs),
    ]
    assert main(arguments) == 0
    assert "3 rows" in capsys.readouterr().out
    read = {"csv": pd.read_csv, "json": read_strict_json, "parquet": pd.read_parquet}[file_format]
    trials, per_epoch = read(out), read(epochs)
    assert trials["trial_id"].tolist() == ["t0000", "t0001", "t0002"]
    assert trials["params_lr"].tolist() == [0.001, 0.09, 0.02]
    assert trials["final_default"].dropna().tolist() == [0.6, 0.8]
    assert trials["final_validation_n"].dropna().tolist() == [200, 200]
    assert pd.to_datetime(trials["start"]).tolist()[0] == pd.Timestamp("2023-11-14T22:13:20Z")
    assert per_epoch["intermediate_default"].tolist() == [0.5, 0.6, 0.1, 0.7, 0.8]


def test_parquet_takes_a_choice_of_numbers_and_texts(tmp_path):
    recorder = Recorder(tmp_path)
    for sequence, value in enumerate((1, 0.5, "auto", None)):
        recorder.trial(sequence, 0.5, size=value)
    assert main(["export", str(recorder.folder), "--format", "parquet", "--out", str(tmp_path / "t.parquet")]) == 0
    assert pd.read_parquet(tmp_path / "t.parquet")["params_size"].tolist()[:3] == ["1", "0.5", "auto"]


def test_best_so_far_counts_failed_trials(pair):
    experiment = load_experiment(pair[0].folder)
    assert series.best_so_far(experiment) == ([0, 1, 2], [0.6, 0.6, 0.8])
    assert series.trial_points(experiment)[:2] == ([0, 2], [0.6, 0.8])
    assert series.without_score(experiment).x == [1]


def test_head_table_figure_and_terminal_number_the_trials_as_nni_does(tmp_path, capsys):
    recorder = Recorder(tmp_path, "numbers1", tuner={"name": "Random"})
    for sequence in range(14):
        recorder.trial(sequence, final(0.9 if sequence == 12 else 0.5), lr=0.001 * (sequence + 1))
    other = Recorder(tmp_path, "numbers2", tuner={"name": "Random"})
    other.trial(0, final(0.6), lr=0.1)
    assert main(["compare", str(recorder.folder), str(other.folder), "--out", str(tmp_path / "out")]) == 0
    page = (tmp_path / "out" / "report.html").read_text()
    assert "t0012 (no. 12)" in page and '<tr class="best"><td>12</td><td>t0012</td>' in page
    capsys.readouterr()
    assert main(["show", str(recorder.folder)]) == 0
    text = capsys.readouterr().out
    assert "90.0 % at no. 12" in text and re.search(r"^ *12\* +t0012 ", text, re.MULTILINE)
    experiment = load_experiment(recorder.folder)
    points = series.trial_points(experiment)
    assert points.x[points.trial.index(experiment.best)] == 12


def test_numbers_that_repeat_after_a_plain_resume_are_noted_and_drawn_in_order(tmp_path):
    recorder = Recorder(tmp_path)
    for time, trial, sequence in ((0, "a", 0), (10, "b", 1), (20, "c", 1)):
        recorder.run(time, trial, sequence, sequence)
        recorder.metric(time + 5, trial, sequence, 0.5)
        recorder.event(time + 6, trial, "SUCCEEDED", sequence)
    experiment = load_experiment(recorder.folder)
    assert series.numbers(experiment) == [0, 1, 2] and not series.has_own_numbers(experiment)
    assert "repeat" in figures.best_figure([experiment], figures.own_styles([experiment])).layout.xaxis.title.text


def test_best_so_far_of_a_loss_that_starts_with_a_failure(tmp_path):
    recorder = Recorder(tmp_path, tuner={"name": "TPE"})
    for sequence, loss in enumerate((None, 3.0, 4.0, 1.0)):
        recorder.trial(sequence, loss, state="FAILED" if loss is None else "SUCCEEDED")
    assert series.best_so_far(load_experiment(recorder.folder)) == ([1, 2, 3], [3.0, 3.0, 1.0])


def test_startup_end_is_a_line_between_trials(pair):
    first, second = (load_experiment(recorder.folder) for recorder in pair)
    assert series.startup_end(first) == 20.5  # 20 records, and one trial failed
    assert second.chosen == [False, False, True]
    assert series.startup_end(second) == 1.5


def test_learning_curves_end_with_the_best_and_are_thinned_over_the_ranking(tmp_path):
    recorder = Recorder(tmp_path)
    for sequence in range(20):
        recorder.trial(sequence, sequence / 20, sequence / 40, sequence / 20)
    experiment = load_experiment(recorder.folder)
    curves = series.learning_curves(experiment)
    assert len(curves) == 20 and curves[-1].is_best and curves[-1].value == [19 / 40, 19 / 20]
    few = series.learning_curves(experiment, limit=5)
    assert [curve.trial.sequence for curve in few] == [0, 5, 10, 14, 19]


def test_the_parameter_drawn_is_lr_or_the_widest(pair, tmp_path):
    first = load_experiment(pair[0].folder)
    assert series.numeric_parameter([first]) == "lr"
    assert series.over_parameter(first, "lr")[:2] == ([0.001, 0.02], [0.6, 0.8])
    assert figures.parameter_figure([first], "lr", figures.own_styles([first])).layout.xaxis.type is None
    other = Recorder(tmp_path / "o")
    for sequence, size in enumerate((1, 1000)):
        other.trial(sequence, 0.5, width=10 + sequence, size=size, kind="a")
    other = load_experiment(other.folder)
    assert series.numeric_parameter([other]) == "size"
    assert figures.parameter_figure([other], "size", figures.own_styles([other])).layout.xaxis.type == "log"


def test_compare_writes_a_page_a_summary_and_a_table(pair, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["compare", str(pair[0].folder), str(pair[1].folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "verdict: not_estimable" in printed and "n = 200" in printed and str(out / "report.html") in printed
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    assert [row["chosen_by_tuner"] for row in summary["experiments"]] == [0, 1]
    assert summary["comparison"]["difference"] == pytest.approx(-0.1)
    with (out / "trials.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["experiment_id"] for row in rows] == ["first001"] * 3 + ["second01"] * 3
    assert rows[1]["state"] == "FAILED" and rows[1]["final_default"] == ""


class Page(HTMLParser):
    """Collects what a browser would run or fetch."""

    def __init__(self, text):
        super().__init__()
        self.scripts, self.links, self.text, self._inside = [], [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self._inside = tag
        if tag == "script":
            self.scripts.append(dict(attrs).get("type"))
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "action")]
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data):
        if self._inside not in ("script", "style"):
            self.text.append(data)


def test_the_page_fetches_nothing_and_escapes_what_it_shows(pair, tmp_path):
    assert main(["compare", str(pair[0].folder), str(pair[1].folder), "--out", str(tmp_path)]) == 0
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert EVIL not in text
    page = Page(text)
    assert page.links == []
    assert page.scripts == ["application/json"] * 5 + [None, None]
    assert EVIL in "".join(page.text)
    assert len(text) < 6_000_000
    assert text.count("plotly.js v") <= 2
    for figure in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
        hover = json.dumps(json.loads(figure))
        assert EVIL not in hover  # plotly reads hover texts and names as HTML
    assert "alert(1)" in json.dumps(json.loads(figure))


def test_the_words_of_the_recorded_pairs_page():
    pair = [load_experiment(ROOT / "analysis/recorded" / name) for name in ("tpe", "evolution")]
    golden("comparison.txt", markdown.render(comparison(pair, compare(*pair))))


def test_the_page_of_arms_without_any_result(tmp_path):
    recorders = [Recorder(tmp_path, name) for name in ("empty001", "lost0001")]
    recorders[1].trial(0, None, state="FAILED")
    arguments = ["compare", *(str(recorder.folder) for recorder in recorders), "--out", str(tmp_path)]
    assert main(arguments) == 0
    summary = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert summary["comparison"]["verdict"] == "not_comparable"
    assert [row["best"] for row in summary["experiments"]] == [None, None]


def test_reasons_of_failures_come_from_the_logs(pair):
    first = pair[0]
    (first.output("t0001") / "trial.stderr").write_text("Traceback\n  File\nRuntimeError: out of memory\n\n")
    log = first.folder / "log" / "dispatcher.log"
    log.parent.mkdir()
    log.write_text("[x] INFO fine\n[x] ERROR (nni) failed\nTraceback (most recent call last):\nKeyError: 7\n")
    experiment = load_experiment(first.folder)
    assert failure_reason(experiment.trials[1]) == "RuntimeError: out of memory"
    (first.output("t0001") / "trial.stderr").write_text(
        "warning: /photos is not there; /cache is used as it was made\n"
    )
    (first.output("t0001") / "trial.log").write_text("epoch 3/30\n")
    assert failure_reason(experiment.trials[1]) == "epoch 3/30"
    assert tuner_errors(experiment) == ["the tuner's log has an error: KeyError: 7"]


def test_mistakes_are_one_line_and_exit_1(tmp_path, capsys, pair):
    assert main(["export", "nothere1", "--out", str(tmp_path / "t.csv")]) == 1
    message = capsys.readouterr().err
    assert message.startswith("error: no experiment 'nothere1'") and message.count("\n") == 1
    blocked = tmp_path / "file"
    blocked.write_text("")
    assert main(["compare", str(pair[0].folder), str(pair[1].folder), "--out", str(blocked)]) == 1
    assert "name another folder with --out" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["export", "x", "--form", "csv", "--out", "y"])  # abbreviations are typos


def test_analysis_imports_none_of_the_other_half():
    for path in Path(analysis.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            assert not {name.split(".")[0] for name in names} & {
                "torch",
                "nni",
                "trial",
                "data",
                "experiments",
            }


def test_per_class_rows_come_from_the_best_trials_own_file(pair):
    classes = [{"class": "Bread", "correct": 30, "total": 40}, {"class": "Rice", "correct": 0, "total": 0}]
    for name in ("t0000", "t0002"):
        classes[0]["correct"] += 1
        text = json.dumps({"evaluation": {"per_class": classes}})
        (pair[0].output(name) / "result.json").write_text(text)
    experiments = [load_experiment(recorder.folder) for recorder in pair]
    assert class_rows(experiments) == (Row("Bread", ("32 / 40 (80.0 %)", "–")),)


def test_photos_in_two_splits_are_a_warning_of_the_comparison(pair, tmp_path, capsys):
    counts = {"training/evaluation": 12, "training/validation": 1}
    for recorder, trial in ((pair[0], "t0002"), (pair[1], "t0001")):  # the best of each: said once
        (recorder.output(trial) / "result.json").write_text(json.dumps({"photos_in_two_splits": counts}))
    folders = [str(recorder.folder) for recorder in pair]
    assert main(["compare", *folders, "--out", str(tmp_path / "out")]) == 0
    notes = [
        "12 photos are in both training and evaluation: the evaluation accuracy is too optimistic",
        "1 photo is in both training and validation: the validation accuracy is too optimistic",
    ]
    summary = json.loads((tmp_path / "out/summary.json").read_text(encoding="utf-8"))
    page, printed = (tmp_path / "out/report.html").read_text(encoding="utf-8"), capsys.readouterr().out
    for note in notes:
        assert summary["comparison"]["notes"].count(note) == 1
        assert page.count(f"<li>{note}</li>") == 1 and f"note: {note}" in printed
    assert main(["show", folders[0]]) == 0
    assert notes[0] in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("counts", [None, {}, [], 3, "training/evaluation"])
def test_without_photos_in_two_splits_there_is_no_note(pair, counts):
    (pair[0].output("t0002") / "result.json").write_text(json.dumps({"photos_in_two_splits": counts}))
    assert shared_photos(best_result(load_experiment(pair[0].folder).best)) == []


def test_chosen_follows_the_parameters_that_a_trial_ran_with(tmp_path):
    arguments = {"optimize_mode": "maximize", "tpe_args": {"n_startup_jobs": 1}}
    recorder = Recorder(tmp_path, tuner={"name": "TPE", "classArgs": arguments})
    for sequence, name in enumerate("ab"):
        recorder.run(sequence, name, sequence, sequence)
    for name, swapped in (("a", 1), ("b", 0)):
        recorder.metric(5, name, swapped, 0.5)
        recorder.event(6, name, "SUCCEEDED")
    assert load_experiment(recorder.folder).chosen == [True, False]
