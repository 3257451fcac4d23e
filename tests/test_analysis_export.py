"""What leaves an experiment: an Optuna study equal to what Optuna's own calls write, and a copy without the machine's names."""

from __future__ import annotations

import json
import math
import re
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import datetime
from pathlib import Path

import optuna
import pytest
from conftest import PATIENCE_S, ROOT
from fixtures_analysis import START, Recorder, final
from nni.algorithms.hpo.random_tuner import RandomTuner
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from analysis.__main__ import main
from analysis.export.optuna import distributions, flat, frozen_trials
from analysis.export.recording import Neutral
from analysis.export.tables import epochs_table, trials_table
from analysis.reading.logs import failure_reason, tuner_errors
from analysis.reading.reader import load_experiment
from analysis.render.document import Row
from analysis.reports.facts import class_rows
from analysis.stats.compare import compare, facts

NAN, INF = float("nan"), float("inf")


SPACE = {
    "layer": {
        "_type": "choice",
        "_value": [
            {
                "_name": "conv",
                "k": {"_type": "randint", "_value": [1, 8]},
                "act": {"_type": "choice", "_value": ["a", "b"]},
            },
            {"_name": "none"},
        ],
    },
    "list": {"_type": "choice", "_value": [[1, 2], [3]]},
    "drop": {"_type": "quniform", "_value": [0.1, 0.5, 0.1]},
    "off_grid": {"_type": "quniform", "_value": [1, 10, 4]},
    "lr": {"_type": "loguniform", "_value": [0.001, 0.1]},
    "q_log": {"_type": "qloguniform", "_value": [1, 1000, 5]},
    "momentum": {"_type": "uniform", "_value": [0.5, 0.9]},
    "shift": {"_type": "normal", "_value": [1, 0.5]},
    "scale": {"_type": "qlognormal", "_value": [0, 1, 0.5]},
}


@pytest.fixture
def recorder(tmp_path, monkeypatch) -> Recorder:
    monkeypatch.setenv("HOME", str(tmp_path))
    return Recorder(tmp_path, maxTrialNumber=8)


def study_of(recorder: Recorder, out: Path) -> optuna.Study:
    assert main(["export", str(recorder.folder), "--format", "optuna", "--out", str(out)]) == 0
    name = f"example {recorder.id}"
    return optuna.load_study(study_name=name, storage=f"sqlite:///{out}")


def half_broken(recorder: Recorder) -> None:
    """One trial of each kind; the last two have no end."""
    recorder.trial(0, final(0.8), {"default": 0.5}, {"default": 0.8}, lr=0.01, momentum=0.1)
    recorder.trial(1, 0.9, 0.6, NAN, INF, lr=0.02, momentum=0.9)
    recorder.trial(2, final(0.99), {"default": 0.7}, state="FAILED", lr=0.03, momentum=0.9)
    recorder.trial(3, None, {"loss": 0.7}, {"default": "x"}, state="USER_CANCELED", lr=0.04, momentum=0.9)
    recorder.trial(4, {"default": NAN, "loss": INF}, lr=0.05, momentum=0.9)
    recorder.trial(5, None, 0.1, 0.3, state="EARLY_STOPPED", lr=0.06, momentum=0.9)
    recorder.run(60, "t0006", 6, 6, lr=0.07, momentum=0.9)
    recorder.metric(61, "t0006", 6, 0.2, 0)
    recorder.event(70, "t0007", "WAITING", 7, parameter_id=7, parameters={"lr": 0.5, "momentum": 0.25})


def test_states_values_steps_times_and_attributes(recorder, tmp_path):
    half_broken(recorder)
    study = study_of(recorder, tmp_path / "study.db")
    trials = study.trials
    states = "COMPLETE COMPLETE FAIL FAIL FAIL PRUNED FAIL FAIL"
    assert " ".join(trial.state.name for trial in trials) == states
    assert [trial.value for trial in trials] == [0.8, 0.9, None, None, None, 0.3, None, None]
    assert [list(trial.intermediate_values) for trial in trials] == [[1, 2], [1, 2, 3], [1], [], [], [1, 2], [1], []]
    assert repr(trials[1].intermediate_values) == "{1: 0.6, 2: nan, 3: inf}"
    assert study.best_trial.number == 1 and study.direction.name == "MAXIMIZE"
    assert trials[0].params == {"lr": 0.01, "momentum": 0.1}
    assert trials[1].datetime_start == datetime.fromtimestamp(START / 1000 + 10)
    assert [trials[n].duration.total_seconds() for n in (0, 2, 6, 7)] == [8, 8, 1, 0]
    assert trials[0].user_attrs["evaluation_top1"] == final(0.8)["evaluation_top1"]
    assert trials[2].user_attrs["reason"] == "exit code other than 0; it wrote nothing"
    assert (
        trials[4].user_attrs["nni_final"] == "{'default': nan, 'loss': inf}" and trials[4].user_attrs["loss"] == "inf"
    )
    assert trials[7].user_attrs["reason"].startswith("no end on record")
    assert [trial.user_attrs["nni_state"] for trial in trials][:4] == [
        "SUCCEEDED",
        "SUCCEEDED",
        "FAILED",
        "USER_CANCELED",
    ]
    assert [trial.user_attrs["nni_trial_id"] for trial in trials] == [f"t000{n}" for n in range(8)]
    assert {trial.user_attrs["chosen_by_tuner"] for trial in trials} == {False}
    assert study.user_attrs["nni_search_space"] == load_experiment(recorder.folder).config["searchSpace"]
    # 0.5 and 0.25 lie outside the space: the distributions hold them all the same
    assert trials[0].distributions == {
        "lr": FloatDistribution(0.0001, 0.5),
        "momentum": CategoricalDistribution([0.1, 0.9, 0.25]),
    }


def test_the_file_is_what_optunas_own_calls_would_have_written(recorder, tmp_path):
    half_broken(recorder)
    ours = study_of(recorder, tmp_path / "study.db")
    theirs = optuna.create_study(storage=f"sqlite:///{tmp_path / 'theirs.db'}", direction="maximize")
    theirs.add_trials(frozen_trials(load_experiment(recorder.folder)))
    assert [repr(trial) for trial in ours.trials] == [repr(trial) for trial in theirs.trials]


def test_a_running_experiments_trials_run_and_wait(recorder):
    half_broken(recorder)
    experiment = load_experiment(recorder.folder)
    object.__setattr__(experiment, "state", "RUNNING")  # a manager that lives is another test's matter
    trials = frozen_trials(experiment)
    assert [trial.state for trial in trials[6:]] == [TrialState.RUNNING, TrialState.WAITING]
    for trial in trials:
        trial._validate()


def test_optunas_tools_open_the_recorded_pair(tmp_path, monkeypatch):
    for name in ("tpe", "evolution"):
        assert main(["export", f"analysis/recorded/{name}", "--format", "optuna", "--out", str(tmp_path / name)]) == 0
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / name}")
        record = load_experiment(f"analysis/recorded/{name}")
        assert study.best_value == record.best.score
        assert study.best_params == record.best.parameters
        table = study.trials_dataframe()
        assert len(table) == 15 and {"params_lr", "user_attrs_evaluation_top1", "duration"} <= set(table)
        assert set(optuna.importance.get_param_importances(study)) == {"lr", "momentum", "batch_size"}
        points = optuna.visualization.plot_optimization_history(study).data[0]
        assert list(points.y) == [trial.score for trial in record.trials]
        curves = optuna.visualization.plot_intermediate_values(study).data
        assert [len(curve.x) for curve in curves] == [len(trial.intermediates) for trial in record.trials]


def test_optuna_goes_on_where_nni_ended(recorder, tmp_path):
    half_broken(recorder)
    study = study_of(recorder, tmp_path / "study.db")
    study.optimize(
        lambda trial: trial.suggest_float("lr", 0.0001, 0.5) + trial.suggest_categorical("momentum", [0.1, 0.9, 0.25]),
        n_trials=3,
    )
    assert [trial.number for trial in study.trials] == list(range(11))


def test_every_type_of_search_space_as_nni_draws_it():
    tuner = RandomTuner(seed=1)
    tuner.update_search_space(SPACE)
    drawn = [dict(flat(SPACE, tuner.generate_parameters(number))) for number in range(300)]
    found = distributions(SPACE, drawn)
    assert found == {
        "layer._name": CategoricalDistribution(["conv", "none"]),
        "layer.conv.k": IntDistribution(1, 7),
        "layer.conv.act": CategoricalDistribution(["a", "b"]),
        "list": CategoricalDistribution(["[1, 2]", "[3]"]),
        "drop": FloatDistribution(0.1, 0.5, step=0.1),
        "off_grid": FloatDistribution(1, 10),
        "lr": FloatDistribution(0.001, 0.1, log=True),
        "q_log": FloatDistribution(1, 1000, log=True),
        "momentum": FloatDistribution(0.5, 0.9),
        "shift": FloatDistribution(-2, 4),
        "scale": FloatDistribution(0, math.exp(6)),  # 0 was drawn, so not in logarithms
    }
    conv = [own for own in drawn if own["layer._name"] == "conv"]
    assert 0 < len(conv) < 300 and all(("layer.conv.k" in own) == (own["layer._name"] == "conv") for own in drawn)
    for own in drawn:
        FrozenTrial(
            number=0,
            state=TrialState.COMPLETE,
            value=1.0,
            datetime_start=datetime.now(),
            datetime_complete=datetime.now(),
            params=own,
            distributions={name: found[name] for name in own},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
            trial_id=0,
        )._validate()


@pytest.mark.parametrize(
    ("entry", "values", "expected"),
    [
        (None, [3, 5], IntDistribution(3, 5)),
        (None, [3, 5.5], FloatDistribution(3, 5.5)),
        (None, ["a", 1, None, "a"], CategoricalDistribution(["a", 1, None])),
        (("uniform", [0, 1]), ["x", 0.5], CategoricalDistribution(["x", 0.5])),
        (("uniform", [0, 1]), [-1], FloatDistribution(-1, 1)),
        (("unifrom", [0, 1]), [0.5], FloatDistribution(0.5, 0.5)),
        (("uniform", ["a"]), [0.5], FloatDistribution(0.5, 0.5)),
        (("randint", [2, 5]), [2, 9], IntDistribution(2, 9)),
        (("randint", [2, 5]), [2.5], FloatDistribution(2, 4)),
        (("quniform", [0, 1, 0.25]), [0.3], FloatDistribution(0, 1)),
        (("loguniform", [0.1, 1]), [0], FloatDistribution(0, 1)),
        (("choice", [True, 1, "x"]), [1], CategoricalDistribution([True, "x"])),
    ],
)
def test_values_outside_the_space_are_held(entry, values, expected):
    space = {} if entry is None else {"p": {"_type": entry[0], "_value": entry[1]}}
    assert distributions(space, [{"p": value} for value in values]) == {"p": expected}


def test_values_that_are_no_numbers_are_left_out():
    assert distributions({}, [{"p": NAN, "q": 1}, {"p": INF}]) == {"q": IntDistribution(1, 1)}


def test_an_existing_file_and_epochs_are_refused(recorder, tmp_path, capsys):
    recorder.trial(0, 0.5)
    out = tmp_path / "study.db"
    out.write_text("mine")
    words = ["export", str(recorder.folder), "--format", "optuna", "--out", str(out)]
    assert main(words) == 1
    assert (
        capsys.readouterr().err
        == f"error: {out} exists already and may hold other studies; name a new file with --out\n"
    )
    assert out.read_text() == "mine"
    assert main([*words, "--epochs", str(tmp_path / "epochs")]) == 1
    assert capsys.readouterr().err == "error: an Optuna study holds the epochs itself; remove --epochs\n"
    words[-1] = str(out / "below" / "study.db")
    assert main(words) == 1
    assert "cannot write" in capsys.readouterr().err


def test_without_optuna_one_line_says_what_to_install(tmp_path):
    code = (
        "import sys; sys.modules['optuna'] = None; from analysis.__main__ import main; "
        f"sys.exit(main(['export', 'analysis/recorded/tpe', '--format', 'optuna', '--out', {str(tmp_path / 's.db')!r}]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the format optuna needs Optuna, which is not installed here: pip install optuna\n"


RECORDED = ROOT / "analysis" / "recorded"


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "jöe"))
    (tmp_path / "jöe" / "nni-experiments").mkdir(parents=True)
    return tmp_path / "jöe"


def build(home: Path, **config) -> Recorder:
    """Five trials: two succeeded, one failed in /scratch, one was killed, one has no end."""
    folders = {"trialCodeDirectory": "/srv/food11", "experimentWorkingDirectory": str(home / "nni-experiments")}
    recorder = Recorder(
        home / "nni-experiments", trialCommand="python -m trial --cache /scratch/joe/cache", **folders, **config
    )
    for number, accuracy in enumerate((0.5, 0.7)):
        name = recorder.trial(
            number, final(accuracy), {"default": 0.4}, {"default": accuracy}, weights="/scratch/joe/a.pt"
        )
        result = {
            "cache": str(home / "cache"),
            "command": ["/srv/food11/trial/__main__.py"],
            "evaluation": {"per_class": [{"id": 0, "class": "Noodles/Pasta", "correct": 3, "total": 4}]},
        }
        (recorder.output(name) / "result.json").write_text(json.dumps(result))
        (recorder.output(name) / "hyperparameters.json").write_text(
            json.dumps({"received": {"weights": "/scratch/joe/a.pt"}})
        )
        (recorder.output(name) / "best.pt").write_bytes(b"weights")
        (recorder.output(name) / "trial.log").write_text("all went well\n")
    recorder.trial(2, None, {"default": 0.3}, state="FAILED", weights="/other/a.pt")
    (recorder.output("t0002") / "trial.stderr").write_text(
        "x" * 20_000
        + f"\non {socket.gethostname()}\nOSError: [Errno 28] No space left: '/scratch/joe/cache/training.npy'\n"
    )
    recorder.trial(3, None, state="USER_CANCELED", weights="/scratch/joe/a.pt")
    recorder.run(40, "t0004", 4, 4, weights="/scratch/joe/b.pt")
    (recorder.folder / "log").mkdir()
    (recorder.folder / "log" / "dispatcher.log").write_text(f"Traceback\nKeyError: '{home}/x'\n")
    return recorder


def everything(folder: Path) -> str:
    """All that a recording holds, names of files too."""
    texts = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    texts += [path.read_bytes().decode("utf-8", errors="replace") for path in folder.rglob("*") if path.is_file()]
    return "\n".join(texts)


def test_a_recording_says_what_the_experiment_says(home, tmp_path, capsys):
    recorder = build(home)
    assert main(["record", recorder.id, "--out", str(tmp_path / "copy")]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'copy'}: experiment exp00001, 5 trials, 0.0")
    before, after = load_experiment(recorder.id), load_experiment(tmp_path / "copy")
    paths = {"/scratch/joe/": "/elsewhere1/", "/other/": "/elsewhere2/"}
    expected = trials_table(before)
    expected["params_weights"] = expected["params_weights"].replace(paths, regex=True)
    assert trials_table(after).equals(expected)
    assert epochs_table(after).equals(epochs_table(before))
    assert [t.parameters_source for t in after.trials] == [t.parameters_source for t in before.trials]
    assert [t.warnings for t in after.trials] == [t.warnings for t in before.trials]
    assert (after.warnings, after.state, after.id, after.chosen) == (
        before.warnings,
        before.state,
        before.id,
        before.chosen,
    )
    assert class_rows([after]) == class_rows([before]) == (Row("Noodles/Pasta", ("3 / 4 (75.0 %)",)),)
    told = json.dumps(facts(before)).replace(str(recorder.folder), str(tmp_path / "copy"))
    assert json.dumps(facts(after)) == told.replace("/scratch/joe/", "/elsewhere1/")
    assert failure_reason(after.trials[2]) == "OSError: [Errno 28] No space left: '/elsewhere3/training.npy'"
    assert failure_reason(after.trials[3]) == failure_reason(before.trials[3])
    assert tuner_errors(after) == ["the tuner's log has an error: KeyError: '/home/user/x'"]


def test_a_recording_holds_no_path_and_no_log_without_need(home, tmp_path):
    recorder = build(home)
    assert main(["record", str(recorder.folder), "--out", str(tmp_path / "copy")]) == 0
    text = everything(tmp_path / "copy")
    for private in (
        str(tmp_path),
        "jöe",
        "j\\u00f6e",
        "joe",
        "/srv",
        "/scratch",
        "all went well",
        "best.pt",
        "x" * 17_000,
    ):
        assert private not in text, private
    assert f"on {socket.gethostname()}\n" not in text
    assert "--cache /elsewhere1/cache" in text
    assert not list(tmp_path.glob(".copy*"))


def test_what_opens_remote_machines_is_removed(home, tmp_path):
    machine = {
        "host": "10.0.0.7",
        "port": 22,
        "user": "joe",
        "password": "secret",
        "sshKeyFile": "/k/id",
        "gpuIndices": 0,
    }
    service = {"platform": "remote", "machineList": [machine], "nniManagerIp": "10.0.0.1"}
    recorder = build(home, trainingService=service)
    with closing(sqlite3.connect(recorder.database)) as connection:
        connection.execute("update TrialJobEvent set logPath = '10.0.0.7:~/nni-experiments/exp00001'")
        connection.commit()
    assert main(["record", recorder.id, "--out", str(tmp_path / "copy")]) == 0
    text = everything(tmp_path / "copy")
    assert not [word for word in ("10.0.0", "joe", "secret", "/k/") if word in text]
    kept = load_experiment(tmp_path / "copy").config["trainingService"]
    assert kept["machineList"][0] | {} == dict.fromkeys(machine, "removed") | {"port": 22, "gpuIndices": 0}


@pytest.mark.parametrize(
    ("text", "neutral"),
    [
        ("Noodles/Pasta 196/222 http://localhost:8080/env/local-env/x", None),
        ("/usr/lib/python3.11/json.py and /tanh and ~/data/x", None),
        ('"error": "line\\n/data/a/b.py"', '"error": "line\\n/elsewhere1/b.py"'),
        ("PATH=/data/a:/data/b/c", "PATH=/elsewhere1/a:/elsewhere2/c"),
        ("/srv/food11/x /srv/food11.old/x", "/home/user/code/x /elsewhere1/x"),
    ],
)
def test_only_paths_are_replaced(home, text, neutral):
    assert Neutral(load_experiment(build(home).folder)).text(text) == (neutral or text)


def test_a_recording_is_whole_or_not_there(home, tmp_path, capsys):
    recorder = build(home)
    (tmp_path / "copy").mkdir()
    assert main(["record", recorder.id, "--out", str(tmp_path / "copy")]) == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'copy'} exists already; name a new folder with --out\n"
    (tmp_path / "file").write_text("")
    assert main(["record", recorder.id, "--out", str(tmp_path / "file" / "copy")]) == 1
    assert "cannot write" in capsys.readouterr().err
    assert main(["record", "nosuchid", "--out", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()


def test_the_recorded_pair_is_small_whole_and_neutral():
    files = [path for path in RECORDED.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 1_000_000
    text = everything(RECORDED)
    assert {name for name in re.findall(r"(?<![\w.:/])/(\w+)/", text) if Path("/", name).is_dir()} <= {"home"}
    assert set(re.findall(r"/home/(\w+)", text)) == {"user"}
    tpe, evolution = (load_experiment(RECORDED / name) for name in ("tpe", "evolution"))
    assert [tpe.tuner, evolution.tuner] == ["TPE", "Evolution"]
    for experiment in (tpe, evolution):
        assert (experiment.state, experiment.counts["succeeded"]) == ("DONE", 15)
        assert all(
            trial.parameters_source == "metric" and trial.effective and trial.folder for trial in experiment.trials
        )
    assert len(class_rows([tpe, evolution])) == 11
    assert compare(tpe, evolution)["comparison"]["verdict"] == "no_difference_shown"
