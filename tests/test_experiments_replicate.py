"""Replication: which trials count for which cell, what is missing and trained next; what a confirmation retrains and refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from fixtures_analysis import Recorder, final
from fixtures_confirm import FIELDS, SCORES, SPACE, confirming, plan_of, search, train
from fixtures_study import part_of

from analysis.reading.locate import AnalysisError
from analysis.reading.reader import load_experiment
from analysis.reading.replication import ConfirmationPlan, cells_of, read_plan, typed, write_plan
from experiments.__main__ import main
from experiments.config import Experiment
from experiments.confirm import (
    choose_configurations,
    common_flags,
    flags_of,
    fresh_seeds,
    refuse_another,
    settings_of,
    write_experiment,
)
from experiments.findings import ExperimentError
from experiments.replicate import batch_settings, replicate
from experiments.space import batch_sets
from experiments.watch import WatchSettings

EVIL = "<script>alert(1)</script>"
pytestmark = pytest.mark.usefixtures("nni")


def test_the_top_is_chosen_on_validation_and_failures_are_never_in_it(nni):
    """The best by evaluation is not the best by validation; the failed trial reported 0.99 before it failed."""
    record = search(nni, "search01", (0.8, 0.01), (0.9, 0.02), (None, 0.05), (0.7, 0.03))
    configurations, notes = choose_configurations([record], 2, FIELDS)
    assert [c.parameters for c in configurations] == [
        {"lr": 0.02, "momentum": 0.1},
        {"lr": 0.01, "momentum": 0.1},
        {"lr": 0.001, "momentum": 0.9},
    ]
    assert [c.name for c in configurations] == ["rank 1", "rank 2", "default"]
    assert configurations[0].promises[0]["val_accuracy"] == 0.9 and not notes


def test_a_configuration_of_several_searches_is_confirmed_once(nni):
    searches = [search(nni, "search01", (0.8, 0.01), (0.9, 0.02)), search(nni, "search02", (0.7, 0.02), (0.6, 0.04))]
    configurations, notes = choose_configurations(searches, 2, FIELDS)
    assert [c.name for c in configurations] == ["search01 rank 1", "search01 rank 2", "search02 rank 2", "default"]
    assert [(p["experiment"], p["rank"]) for p in configurations[0].promises] == [("search01", 1), ("search02", 1)]
    assert notes == ["1 of the configurations were found by several searches: each is trained once"]


def test_the_same_configuration_twice_in_one_search_counts_once_with_its_best(nni):
    configurations, notes = choose_configurations([search(nni, "search01", (0.8, 0.02), (0.9, 0.02))], 3, FIELDS)
    assert [c.name for c in configurations] == ["rank 1", "default"]
    assert configurations[0].promises[0]["val_accuracy"] == 0.9
    assert notes == ["--top 3: search01 has only 1 different configurations with a result"]


def test_a_default_among_the_top_is_trained_once_and_alone_is_nothing_to_confirm(nni):
    lr = {"lr": SPACE["lr"], "momentum": {"_type": "choice", "_value": [0.9]}}
    record = search(nni, "search01", (0.8, 0.02), searchSpace=lr)
    configurations, _ = choose_configurations([record], 1, FIELDS | {"lr": {"type": "float", "default": 0.5}})
    assert configurations[1].parameters == {"lr": 0.5, "momentum": 0.9}
    same = FIELDS | {"lr": {"type": "float", "default": 0.02}, "momentum": {"type": "float", "default": 0.1}}
    with pytest.raises(ExperimentError, match="nothing to confirm"):
        choose_configurations([record], 1, same)
    both, notes = choose_configurations([search(nni, "search02", (0.8, 0.02), (0.7, 0.03))], 2, same)
    assert [c.name for c in both] == ["rank 2", "default"] and both[1].promises[0]["rank"] == 1
    assert notes == ["the default is itself among the top configurations: it is trained once"]


def test_seeds_are_fresh(nni):
    record = search(nni, "search01", (0.8, 0.01), (0.9, 0.02))
    for trial, seed in zip(("t0000", "t0001"), (2, 4)):
        folder = nni / "search01/environments/local-env/trials" / trial
        folder.mkdir(parents=True)
        received = {"lr": 0.01 if trial == "t0000" else 0.02, "momentum": 0.1}
        hyperparameters = {"received": received, "effective": received | {"seed": seed}}
        (folder / "hyperparameters.json").write_text(json.dumps(hyperparameters))
    assert fresh_seeds([load_experiment(record.folder)], 4, [0]) == [1, 3, 5, 6]
    assert fresh_seeds([search(nni, "search02", (0.8, 0.01))], 2, [1]) == [2, 3]


def test_types_are_the_trials():
    values = typed({"batch_size": 32.0, "lr": 1, "arch": "resnet18", "other": 3}, FIELDS)
    assert [(value, type(value)) for value in values.values()] == [(32, int), (1.0, float), ("resnet18", str), (3, int)]
    odd = {"batch_size": 32.5, "epochs": float("inf"), "seed": True}
    assert typed(odd, FIELDS) == odd and typed(odd, FIELDS)["seed"] is True


def test_fixed_settings_are_carried_and_the_seed_is_not(nni):
    command = "python -m trial --weights none --image-px=32 --seed 7 --cache '/a b/cache' --threads 1"
    service = {"platform": "local", "trialCommand": command, "trialCodeDirectory": str(nni)}
    more = {"maxTrialDuration": "5m", "trainingService": service, "assessor": {"name": "Medianstop"}}
    record = search(nni, "search01", (0.8, 0.01), trialCommand=command, **more)
    flags = common_flags([record])
    assert flags == {"weights": "none", "image_px": "32", "cache": "/a b/cache", "threads": "1"}
    settings = settings_of(record, flags)
    assert settings["trialCommand"] == "python -m trial --weights none --image-px 32 --cache '/a b/cache' --threads 1"
    assert settings["trainingService"] == service | {"trialCommand": settings["trialCommand"]}
    assert settings["maxTrialDuration"] == "5m" and "assessor" not in settings


def test_searches_of_other_settings_and_other_trials_are_refused_in_one_line(nni, capsys):
    search(nni, "search01", (0.8, 0.01), trialCommand="python -m trial --epochs 5 --threads 1")
    search(nni, "search02", (0.8, 0.01), trialCommand="python -m trial --epochs 6 --threads 2")
    foreign = search(nni, "search03", (0.8, 0.01), trialCommand="python train.py")
    with pytest.raises(ExperimentError, match="no flag of the trial|not a flag"):
        flags_of(search(nni, "search04", (0.8, 0.01), trialCommand="python -m trial epochs"))
    assert main(["confirm", "search01", "search02"]) == 1
    assert "search01 and search02 fixed epochs differently (epochs: 5 and 6)" in capsys.readouterr().err
    assert main(["confirm", foreign.id]) == 1
    output = capsys.readouterr().err
    assert "search03 runs 'python train.py'" in output and output.count("\n") == 1
    assert not (nni.parent / "runs").exists()


def test_what_cannot_be_confirmed_is_refused(nni, capsys):
    search(nni, "search01", (0.8, 0.01), (0.9, 0.02))
    search(nni, "search02", (0.8, 0.01), tuner={"name": "TPE", "classArgs": {}})
    for words, message in (
        (["search01", "search01"], "named twice"),
        (["search02"], "minimised"),
        (["search01", "--seeds", "1"], "2 to 20 --seeds"),
        (["search01", "--top", "0"], "--top of 1 or more"),
        (["nothing1"], "no experiment 'nothing1'"),
        (["search01"], "has no trial/ any more"),
    ):
        assert main(["confirm", *words]) == 1
        output = capsys.readouterr()
        assert message in output.err and output.err.count("\n") == 1 and not output.out


def test_the_experiment_is_a_batch_of_flat_sets(plan, tmp_path):
    file = write_experiment(tmp_path, plan, plan.cells[4:])
    config = yaml.safe_load(file.read_text())
    cells = json.loads((tmp_path / config["searchSpaceFile"]).read_text())["combine_params"]["_value"]
    assert cells == [{**c.parameters, "seed": s} for s in (1, 2, 3) for c in plan.configurations][4:]
    assert (config["tuner"], config["maxTrialNumber"], config["trialConcurrency"]) == ({"name": "Batch"}, 5, 1)
    assert config["maxExperimentDuration"] == f"{5 * 24 * 3600}s"


def test_the_plan_comes_back_from_its_file_and_belongs_to_one_request(plan, tmp_path):
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path, ConfirmationPlan) == plan
    assert read_plan(tmp_path / "other", ConfirmationPlan) is None
    with pytest.raises(ExperimentError, match="holds the confirmation of search01 --top 2 --seeds 3"):
        refuse_another(tmp_path, plan, plan.request | {"top": 3})
    (tmp_path / "plan.json").write_text('{"request"')
    with pytest.raises(AnalysisError, match="cannot be read"):
        read_plan(tmp_path, ConfirmationPlan)


def test_a_trial_counts_for_the_cell_whose_parameters_it_really_had(plan, nni):
    """NNI recorded the first two trials the wrong way round; their results name the sets they ran with."""
    recorder = confirming(nni, plan)
    sets = plan.cells
    for index in (0, 1):
        recorder.run(index, f"t{index}", index, index, **sets[index])
    for index, ran in ((0, 1), (1, 0)):
        recorder.metric(index + 5, f"t{index}", ran, final(0.5 + 0.1 * ran))
        recorder.event(index + 6, f"t{index}", "SUCCEEDED", index)
    cells = cells_of(plan, [load_experiment(recorder.folder)])
    assert [cell.trial.score for cell in cells[:2]] == [0.5, 0.6]
    assert {cell.state for cell in cells[2:]} == {"missing"}


def test_cut_off_and_cancelled_cells_are_trained_again_but_not_for_ever(plan, nni):
    first, second = confirming(nni, plan), confirming(nni, plan, "conf0002")
    names = [f"t{index}" for index in range(4)]
    for index, name in enumerate(names):
        first.run(index, name, index, index, **plan.cells[index])
    first.event(9, "t1", "USER_CANCELED", 1)
    first.event(9, "t2", "USER_CANCELED", 2)
    first.metric(9, "t3", 3, float("nan"))
    first.event(10, "t3", "SUCCEEDED", 3)
    second.run(20, "u2", 0, 0, **plan.cells[2])
    second.event(29, "u2", "USER_CANCELED", 0)
    cells = cells_of(plan, [load_experiment(recorder.folder) for recorder in (first, second)])
    assert [cell.state for cell in cells[:5]] == ["missing", "missing", "failed", "failed", "missing"]
    assert cells[3].failure == "succeeded without a finite result"


def test_of_a_cell_trained_twice_the_first_success_counts(plan, nni):
    first, second = confirming(nni, plan), confirming(nni, plan, "conf0002")
    train(first, plan, {("rank 1", 1): None, ("rank 2", 1): 0.6})
    train(second, plan, {("rank 1", 1): 0.7, ("rank 2", 1): 0.9})
    cells = cells_of(plan, [load_experiment(recorder.folder) for recorder in (first, second)])
    assert [cell.trial.score for cell in cells[:2]] == [0.7, 0.6]
    assert [cell.experiment for cell in cells[:2]] == ["conf0002", "conf0001"]


def test_the_command_goes_on_where_it_was_cut_off(plan, nni, capsys):
    """Without launching: it writes the experiment of what is missing and says how to train it; then it reads."""
    folder = nni.parent / "runs" / "confirm-search01"
    write_plan(folder, plan)
    words = ["confirm", "search01", "--top", "2", "--seeds", "3", "--no-launch"]
    assert main(words) == 0
    output = capsys.readouterr()
    assert output.out == f"python -m experiments launch {folder / 'confirm.yml'}\n"
    assert (
        "0 of 9 trainings have ended" in output.err and "python -m experiments confirm search01 --top 2" in output.err
    )
    first = confirming(nni, plan)
    train(first, plan, dict(list(SCORES.items())[:4]))
    assert main(words) == 0
    assert "4 of 9 trainings have ended" in capsys.readouterr().err
    left = json.loads((folder / "confirm_space.json").read_text())["combine_params"]["_value"]
    assert left == plan.cells[4:]
    second = confirming(nni, plan, "conf0002")
    train(second, plan, dict(list(SCORES.items())[4:]))
    (nni / ".experiment").unlink()  # NNI forgets: the folder knows the first, which it has seen, and not the second
    assert main(words) == 0 and "4 of 9 trainings have ended" in capsys.readouterr().err
    assert json.loads((folder / "experiments.json").read_text()) == ["conf0001"]
    shutil.rmtree(first.folder)
    assert main(words) == 0
    output = capsys.readouterr().err
    assert "note: no experiment 'conf0001'" in output and "0 of 9 trainings have ended" in output


def test_the_command_ends_with_verdict_table_and_files(plan, nni, capsys):
    folder = nni.parent / "here"
    write_plan(folder, plan)
    recorder = confirming(nni, plan)
    train(recorder, plan, SCORES)
    assert main(["confirm", "search01", "--top", "2", "--seeds", "3", "--out", str(folder)]) == 0
    output = capsys.readouterr().out
    assert output.startswith("verdict: difference_shown\n") and "rank 2 (chosen)" in output
    assert f"report: {folder / 'report.html'}" in output
    result = json.loads((folder / "confirm.json").read_text())
    assert result["verdict"] == "difference_shown" and result["experiments"] == ["conf0001"]
    assert result["headline"] in (folder / "report.html").read_text() and (folder / "cells.csv").exists()


class Nni:
    """In place of NNI: every start trains the cells of its batch that `trains` lets through, in an experiment of its own."""

    def __init__(self, home, monkeypatch):
        self.home, self.batches, self.watched = home, [], []
        self.trains, self.code = (lambda cell: True), 0
        monkeypatch.setattr("experiments.replicate.start", self.start)
        monkeypatch.setattr("experiments.replicate.watch_to_end", lambda managers, settings: self.code)
        monkeypatch.setattr("experiments.replicate.watch_running", self.watch)
        monkeypatch.setattr("experiments.replicate.is_running", lambda entry: entry["status"] == "RUNNING")
        monkeypatch.setattr("experiments.replicate.forget_dead", lambda: None)

    def record(self, grid, cells, tuner="Batch", status="STOPPED"):
        name = f"nni{len(self.entries()):05d}"
        recorder = Recorder(self.home, name, experimentName=grid.experiment, tuner={"name": tuner})
        for sequence, cell in enumerate(cells):
            recorder.trial(sequence, final(0.5), **cell)
        entry = {"id": name, "experimentName": grid.experiment, "logDir": str(self.home), "startTime": int(name[3:])}
        content = {**self.entries(), name: {**entry, "status": status, "pid": 0}}
        (self.home / ".experiment").write_text(json.dumps(content))
        return name

    def entries(self):
        file = self.home / ".experiment"
        return json.loads(file.read_text()) if file.exists() else {}

    def start(self, experiment):
        cells = batch_sets(experiment.config["searchSpace"])
        self.batches.append(cells)
        self.record(self.grid, filter(self.trains, cells))

    def watch(self, ids, settings):
        """A running experiment that trains nothing more."""
        self.watched += ids
        content = {i: entry | {"status": "STOPPED"} for i, entry in self.entries().items()}
        (self.home / ".experiment").write_text(json.dumps(content))
        return self.code

    def replicate(self, grid):
        self.grid = grid

        def prepare(status):
            return Experiment(Path("study.yml"), batch_settings(grid, status.missing, "2h"))

        return replicate(grid, prepare, WatchSettings())


@pytest.fixture
def pretended(nni, monkeypatch):
    return Nni(nni, monkeypatch)


def test_a_confirmation_of_two_stages_trains_one_after_the_other(pretended, nni, monkeypatch, capsys):
    """The first chooses of both configurations, the second trains the best and the default with seeds that chose nothing."""
    monkeypatch.setattr("experiments.confirm.checked", lambda experiment: experiment)
    plan = plan_of(search(nni, "search01", (0.8, 0.01), (0.9, 0.02)), seeds=4, screen=2)
    folder = nni.parent / "here"
    write_plan(folder, plan)

    def start(experiment):
        pretended.grid = plan.screening if experiment.name == plan.screening.experiment else plan.final("rank 1")
        cells = batch_sets(experiment.config["searchSpace"])
        pretended.batches.append(cells)
        pretended.record(pretended.grid, cells)

    monkeypatch.setattr("experiments.replicate.start", start)
    words = ["confirm", "search01", "--out", str(folder)]
    assert main(words) == 0
    output = capsys.readouterr()
    assert (
        "12 trainings: 2 configurations with 2 seeds, then the best of them and the default with 4 others" in output.err
    )
    assert "4 seeds show a true difference of 3.0 points in 80 % of cases" in output.err
    assert "first stage: rank 1 is the best of 2 by validation accuracy" in output.err
    assert [sorted({cell["seed"] for cell in batch}) for batch in pretended.batches] == [[1, 2], [3, 4, 5, 6]]
    assert sorted({cell["lr"] for cell in pretended.batches[1]}) == [0.001, 0.02]
    result = json.loads((folder / "confirm.json").read_text())
    assert result["screening"]["chosen"] == "rank 1" and result["screening"]["cells"]["succeeded"] == 4
    assert result["cells"]["succeeded"] == 8 and len(pretended.batches) == 2
    assert main(words) == 0 and len(pretended.batches) == 2, "what has ended is read again"
    assert main([*words, "--screen", "0"]) == 1
    assert "holds the confirmation of search01 --top 2 --seeds 4 --screen 2" in capsys.readouterr().err


def test_what_a_grid_search_left_of_a_study_is_trained_as_a_batch(pretended):
    """Studies were trained by GridSearch before."""
    part = part_of("step_size", 2)
    pretended.record(part, part.cells[:3], tuner="GridSearch")
    assert pretended.replicate(part) == 0 and pretended.batches == [part.cells[3:]]
    assert pretended.replicate(part) == 0 and len(pretended.batches) == 1


def test_a_running_experiment_is_returned_to_before_another_is_started(pretended):
    part = part_of("balance", 2)
    running = pretended.record(part, part.cells[:4], status="RUNNING")
    assert pretended.replicate(part) == 0
    assert pretended.watched == [running] and pretended.batches == [part.cells[4:]]


@pytest.mark.parametrize(("code", "expected"), [(0, 1), (1, 1), (130, 130)])
def test_it_stops_where_nothing_more_is_trained(pretended, code, expected):
    part = part_of("balance", 2)
    pretended.trains, pretended.code = (lambda cell: False), code
    assert pretended.replicate(part) == expected and pretended.batches == [part.cells]


def test_a_second_batch_has_what_the_first_left_out(pretended):
    part = part_of("balance", 2)
    pretended.trains = lambda cell: cell["seed"] == 0 or len(pretended.batches) > 1
    assert pretended.replicate(part) == 0
    assert pretended.batches == [part.cells, [cell for cell in part.cells if cell["seed"] == 1]]


@pytest.mark.parametrize(("limit", "cells", "duration"), [("2h", 3, "21600s"), (600, 2, "1200s"), (None, 2, "172800s")])
def test_the_time_of_a_batch_is_that_of_its_trials(limit, cells, duration):
    part = part_of("balance", 2)
    assert batch_settings(part, part.cells[:cells], limit)["maxExperimentDuration"] == duration


def test_a_plan_of_an_earlier_version_finds_its_experiments(tmp_path):
    """The name holds a digest of all that is trained: another one, and every training would be repeated."""
    content = {
        "request": {"experiments": ["a1b2c3d4"], "top": 1, "seeds": 2},
        "configurations": [
            {
                "name": "rank 1",
                "parameters": {"lr": 0.02, "momentum": 0.1},
                "promises": [{"experiment": "a1b2c3d4", "trial": "t1", "rank": 1, "val_accuracy": 0.9}],
            },
            {"name": "default", "parameters": {"lr": 0.001, "momentum": 0.9}, "promises": []},
        ],
        "seeds": [1, 2],
        "settings": {"trialCodeDirectory": "/project", "trialCommand": "python -m trial"},
        "fields": {"lr": {"type": "float", "default": 0.001}},
        "searches": [{"id": "a1b2c3d4", "expected_optimism": 0.01}],
        "notes": ["a note"],
    }
    (tmp_path / "plan.json").write_text(json.dumps(content))
    plan = read_plan(tmp_path, ConfirmationPlan)
    assert plan.experiment == "confirm_a1b2c3d4_ffb68e3f"
    write_plan(tmp_path, plan)
    assert json.loads((tmp_path / "plan.json").read_text()) == content
