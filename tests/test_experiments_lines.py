"""What `check` refuses about a file itself, and the line of the file that it names."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from conftest import ROOT, run_module

from experiments.algorithms import assessor_findings
from experiments.check import command_findings, file_findings
from experiments.config import Experiment, Overrides, place, place_of_refusal, read_experiment, read_yaml
from experiments.findings import ExperimentError

YAML = """\
experimentName: lines
searchSpace:
  lr:
    _type: uniform
    _value: [1, 0]
  model:
    _type: choice
    _value: [{_name: a, layers: {_type: choice, _value: []}}]
trialCommand: python -m trial
trialCodeDirectory: .
trial_concurrency: 1
maxTrialNumber: 3
tuner:
  name: TPE
  classArgs:
    optimize_mode: maximise
trainingService:
  platform: local
  trialGpuNumber: 1
"""


@pytest.mark.parametrize(
    ("path", "line"),
    [
        (("searchSpace",), 2),
        (("searchSpace", "lr"), 3),
        (("searchSpace", "lr", "_type"), 4),
        (("searchSpace", "model", "_value", 0, "layers"), 8),
        (("searchSpace", "gone"), 2),
        (("trialCommand",), 9),
        (("trialConcurrency",), 11),  # written with an underscore
        (("tuner", "classArgs", "optimize_mode"), 16),
        (("tuner", "classArgs", "gone"), 15),
        (("trialGpuNumber",), 19),  # below trainingService
        (("maxTrialDuration",), None),
        ((), None),
    ],
)
def test_a_finding_names_the_line_of_its_key(path, line, tmp_path):
    file = tmp_path / "lines.yml"
    file.write_text(YAML)
    assert place(file, path) == (f"{file}:{line}" if line else str(file))


def test_a_finding_about_a_space_file_names_that_file(tmp_path):
    (tmp_path / "spaces").mkdir()
    space = tmp_path / "spaces" / "space.json"
    space.write_text(
        '{\n  "lr": {"_type": "uniform", "_value": [0, 1]},\n  "momentum": {"_type": "choice", "_value": []}\n}\n'
    )
    file = tmp_path / "lines.yml"
    file.write_text("searchSpaceFile: spaces/space.json\ntrialCommand: ''\n")
    assert place(file, ("searchSpace", "momentum")) == f"{space}:3"
    assert place(file, ("searchSpace",)) == f"{file}:1"
    space.write_text('{\n\t"lr": 1}')  # a tab: JSON, but not YAML
    assert place(file, ("searchSpace", "lr")) == f"{file}:1"


def test_nnis_refusal_names_the_line_of_the_key(tmp_path):
    file = tmp_path / "lines.yml"
    file.write_text("experimentName: x\nmaxTrialNum: 3\n")
    assert place_of_refusal(file, "ExperimentConfig does not have field(s) maxtrialnum") == f"{file}:2"


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("pyhton t.py", "not_found"),
        ("python 't.py", "quotes"),
        ("cd sub && python t.py", "compound"),
        ("python t.py; echo done", "compound"),
        ("python t.py | tee log", "compound"),
        ("python gone.py", "no_script"),
        ("./gone.sh", "not_found"),
        ("python t.py --note 'a; b && c'", None),
        ("SEED=1 python -u t.py > log", None),
        ("cd sub && exec python t.py", None),
        ("exec python t.py", None),
        ("python -m module", None),
    ],
)
def test_trial_commands_that_bash_would_fail_on_are_refused(command, key, tmp_path):
    (tmp_path / "t.py").touch()
    found = command_findings(command, tmp_path, os.environ["PATH"], limited=True)
    assert [(f.level, f.key, f.path) for f in found] == [("error", f"command.{key}", ("trialCommand",))] * bool(key)


def test_a_compound_command_does_no_harm_without_a_limit(tmp_path):
    assert command_findings("true; true", tmp_path, os.environ["PATH"], limited=False) == []


@pytest.mark.parametrize(
    ("more", "raw", "level", "key"),
    [
        ({}, {"search_space": {}, "searchSpaceFile": "x"}, "error", "file.two_spaces"),
        ({"logLevel": "fatal"}, {}, "error", "file.log_level"),
        ({"trainingService": {"platform": "local", "reuseMode": True}}, {}, "error", "file.reuse_mode"),
        ({"trialGpuNumber": 0}, {}, "warning", "gpu.hidden"),
        ({"trainingService": {"trialGpuNumber": 0}}, {}, "warning", "gpu.hidden"),
        ({"tuner": {"name": "Hyperband"}}, {}, "error", "tuner.broken"),
        ({"sharedStorage": {"storageType": "NFS"}}, {}, "warning", "file.shared_storage"),
        ({"trainingService": {"maxTrialNumberPerGpu": 2, "useActiveGpu": False}}, {}, "warning", "gpu.own_trials"),
        ({"trainingService": {"machineList": [{"maxTrialNumberPerGpu": 2}]}}, {}, "warning", "gpu.own_trials"),
    ],
)  # fmt: skip
def test_what_a_file_asks_of_nni_in_vain_is_said(more, raw, level, key):
    assert [(finding.level, finding.key) for finding in file_findings(more, raw)] == [(level, key)]
    sound = {"trainingService": {"platform": "local"}, "tuner": {"name": "TPE"}}
    assert file_findings(sound, {"searchSpace": {}}) == []


def test_a_list_of_training_services_is_refused_with_its_line(tmp_path):
    (tmp_path / "space.json").write_text("{}")
    file = tmp_path / "hybrid.yml"
    file.write_text(YAML.replace("  platform: local\n  trialGpuNumber: 1", "  - platform: local\n  - platform: remote"))
    with pytest.raises(ExperimentError, match=rf"{file}:17: trainingService is a list \(hybrid\)"):
        read_experiment(file, Overrides())


OURS = {"className": "asha.Asha", "codeDirectory": str(ROOT / "experiments" / "tuners")}
EPOCHS = {"fields": {"epochs": {"default": 25}}, "given": {"epochs": 6}}


@pytest.mark.parametrize(
    ("assessor", "level", "key"),
    [
        ({"name": "Medianstop", "classArgs": {"optimize_mode": "maximise"}}, "error", "assessor.arguments"),
        ({"name": "Medianstop", "classArgs": {"optimize_mode": "minimize"}}, "error", "assessor.other_mode"),
        ({"name": "Medianstop", "classArgs": {"start": 1}}, "error", "assessor.arguments"),
        ({"name": "Medianstop", "classArgs": {"start_step": 6}}, "warning", "assessor.too_late"),
        ({"name": "Medianstop", "classArgs": {"start_step": 5}}, "note", "assessor.counts"),
        ({"name": "Medianstopp"}, "error", "assessor.arguments"),
        ({"name": "Curvefitting", "classArgs": {"epochs": 6}}, "error", "assessor.arguments"),
        ({"name": "Curvefitting", "classArgs": {"epoch_num": 6}}, "warning", "assessor.too_late"),
        ({**OURS, "classArgs": {"optimize_mode": "maximize", "min_epochs": 0}}, "error", "assessor.arguments"),
        ({**OURS, "classArgs": {"optimize_mode": "maximize", "min_epochs": 6}}, "warning", "assessor.too_late"),
        ({**OURS, "classArgs": {"optimize_mode": "maximize", "eta": 3}}, "error", "assessor.arguments"),
        ({**OURS, "classArgs": {"optimize_mode": "maximize"}}, "note", "assessor.counts"),
        ({"className": "mine.Mine", "codeDirectory": "/nowhere"}, "note", "assessor.custom"),
    ],
)
def test_an_assessors_name_arguments_and_epochs_are_tried(assessor, level, key):
    tuner = {"name": "TPE", "classArgs": {"optimize_mode": "maximize"}}
    experiment = Experiment(Path("x.yml"), {"tuner": tuner, "assessor": assessor, "searchSpace": {}})
    finding = assessor_findings(experiment, EPOCHS)[0]
    assert (finding.level, finding.key) == (level, key)


def test_without_an_assessor_there_is_nothing_to_say():
    assert assessor_findings(Experiment(Path("x.yml"), {"tuner": {"name": "TPE"}}), None) == []


def test_check_prints_the_lines_and_exits_with_1(tmp_path):
    (tmp_path / "t.py").touch()
    (tmp_path / "space.json").write_text(json.dumps({"lr": {"_type": "uniform", "_value": [1, 0]}}))
    file = tmp_path / "bad.yml"
    text = YAML.replace("trialCommand: python -m trial", "trialCommand: python t.py; true\nmaxTrialDuration: 1h")
    file.write_text(text.replace("  trialGpuNumber: 1\n", "  reuseMode: true\nlogLevel: fatal\n"))
    done = run_module("experiments", "check", str(file), env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for line, words in ((3, "bounds reversed"), (8, "no options"), (9, "compound"), (20, "reuseMode"), (21, "fatal")):
        printed = [text for text in done.stderr.splitlines() if text.startswith(f"error: {file}:{line}: ")]
        assert any(words in text for text in printed), words


def test_our_own_files_have_no_finding_about_themselves(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh/id_ed25519").touch()  # NNI refuses a remote.yml whose key is not there
    for file in sorted((ROOT / "experiments").glob("*.yml")):
        assert file_findings(read_experiment(file, Overrides()).config, read_yaml(file)) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("maxTrialNumber: 3\nfoo: 1\nmaxTrialNumber: 4\n", (3, 1)),
        ("maxTrialNumber: 3\nmax_trial_number: 4\n", (2, 1)),  # one key for NNI
        ("tuner:\n  name: TPE\n  classArgs:\n    seed: 1\n    seed: 2\n", (5, 4)),
        ("trainingService:\n  platform: local\n  machineList:\n  - host: a\n    HOST: b\n", (5, 4)),
        ("searchSpace:\n  lr: {_type: uniform, _value: [0, 1]}\n  'lr': {_type: choice, _value: [1]}\n", (3, 2)),
        ("searchSpace:\n  lr:\n    _type: uniform\n    _type: choice\n", (4, 3)),
    ],
)
def test_a_key_given_twice_is_refused_with_both_lines(text, lines, tmp_path):
    file = tmp_path / "twice.yml"
    file.write_text(text)
    with pytest.raises(ExperimentError, match=rf":{lines[0]}: \S+ is given twice: line {lines[1]} has .*take the last"):
        read_yaml(file)


def test_keys_that_differ_and_merge_keys_are_no_duplicates(tmp_path):
    file = tmp_path / "once.yml"
    file.write_text(
        "x-shared: &shared {name: Random, classArgs: {seed: 1}}\ntuner: {<<: *shared, name: TPE}\n"
        "assessor: {<<: *shared}\nsearchSpace:\n  lr: {_type: choice, _value: [1]}\n  LR: {_type: choice, _value: [1]}\n"
    )
    assert read_yaml(file)["tuner"] == {"name": "TPE", "classArgs": {"seed": 1}}


@pytest.mark.parametrize("space", ["  ", "\t"])
def test_an_entry_given_twice_in_the_space_file_is_refused(space, tmp_path):
    entry = '"lr": {"_type": "uniform", "_value": [0, 1]}'
    (tmp_path / "space.json").write_text(f"{{\n{space}{entry},\n{space}{entry}\n}}\n")
    file = tmp_path / "twice.yml"
    file.write_text("searchSpaceFile: space.json\n")
    with pytest.raises(ExperimentError, match=r"space.json:3: lr is given twice: line 2 has it too"):
        read_experiment(file, Overrides())
