"""A recorded copy says the same as its experiment, and nothing about the machine."""

from __future__ import annotations

import json
import re
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from conftest import ROOT
from fixtures_analysis import Recorder, final

from analysis.__main__ import main
from analysis.export.recording import Neutral
from analysis.reading.logs import failure_reason, tuner_errors
from analysis.reading.reader import load_experiment
from analysis.reading.tables import epochs_table, trials_table
from analysis.render.document import Row
from analysis.reports.facts import class_rows
from analysis.stats.compare import compare, facts

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
        assert all(trial.parameters_confirmed and trial.folder for trial in experiment.trials)
    assert len(class_rows([tpe, evolution])) == 11
    assert compare(tpe, evolution)["comparison"]["verdict"] == "no_difference_shown"
