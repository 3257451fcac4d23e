"""What `check` refuses about a file itself, and the line of the file that it names."""

from __future__ import annotations

import json
import os

import pytest
from conftest import ROOT, run_module
from experiments.errors import ExperimentError
from experiments.file_check import command_problems, file_problems
from experiments.lines import place, place_of_refusal

from experiments.config import Overrides, read_experiment, read_yaml

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
    ("text", "line"),
    [
        ("lr: uniform [1, 0] has its bounds reversed", 3 + 1),
        ("model.layers: choice has no options", 7),
        ("search space: 2 different points for 3 trials", 3),
        ("trialCommand: empty", 9),
        ("trialConcurrency: 4: NNI gives trials", 11),
        ("tuner TPE: NNI cannot use it: 'maximise' is not a valid OptimizeMode", 16),
        ("trialGpuNumber: 1, but NNI sees 0", 19),
        ("maxTrialDuration is not set", None),
        ("port 8080 is taken", None),
    ],
)
def test_a_finding_names_its_line(text, line, tmp_path):
    file = tmp_path / "lines.yml"
    file.write_text(YAML)
    assert place(file, text) == (f"{file}:{line}" if line else str(file))


def test_a_finding_about_a_space_file_names_that_file(tmp_path):
    (tmp_path / "spaces").mkdir()
    space = tmp_path / "spaces" / "space.json"
    space.write_text(
        '{\n  "lr": {"_type": "uniform", "_value": [0, 1]},\n  "momentum": {"_type": "choice", "_value": []}\n}\n'
    )
    file = tmp_path / "lines.yml"
    file.write_text("searchSpaceFile: spaces/space.json\ntrialCommand: ''\n")
    assert place(file, "momentum: choice has no options") == f"{space}:3"
    assert place(file, "search space: empty") == f"{file}:1"
    space.write_text('{\n\t"lr": 1}')  # a tab: JSON, but not YAML
    assert place(file, "lr: expected") == str(file)


def test_nnis_refusal_names_the_line_of_the_key(tmp_path):
    file = tmp_path / "lines.yml"
    file.write_text("experimentName: x\nmaxTrialNum: 3\n")
    assert place_of_refusal(file, "ExperimentConfig does not have field(s) maxtrialnum") == f"{file}:2"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("", "empty; NNI would retry it without end"),
        ("   ", "empty"),
        ("pyhton t.py", "'pyhton' is not a command here"),
        ("python 't.py", "no shell command (No closing quotation)"),
        ("cd sub && python t.py", "compound command"),
        ("python t.py; echo done", "compound command"),
        ("python t.py | tee log", "compound command"),
        ("python gone.py", "there is no gone.py"),
        ("./gone.sh", "'./gone.sh' is not a command here"),
        ("python t.py --note 'a; b && c'", None),
        ("SEED=1 python -u t.py > log", None),
        ("cd sub && exec python t.py", None),
        ("exec python t.py", None),
        ("python -m module", None),
    ],
)
def test_trial_commands_that_bash_would_fail_on_are_refused(command, message, tmp_path):
    (tmp_path / "t.py").touch()
    found = command_problems(command, tmp_path, os.environ["PATH"], limited=True)
    assert len(found) == bool(message) and all(message in text and text.startswith("trialCommand: ") for text in found)


def test_a_compound_command_does_no_harm_without_a_limit(tmp_path):
    assert command_problems("true; true", tmp_path, os.environ["PATH"], limited=False) == []


@pytest.mark.parametrize(
    ("more", "raw", "level", "message"),
    [
        ({}, {"search_space": {}, "searchSpaceFile": "x"}, "error", "NNI silently takes the file"),
        ({"logLevel": "fatal"}, {}, "error", "does not know fatal"),
        ({"trainingService": {"platform": "local", "reuseMode": True}}, {}, "error", "broken in NNI 3.0"),
        ({"trialGpuNumber": 0}, {}, "warning", "hides all GPUs"),
        ({"trainingService": {"trialGpuNumber": 0}}, {}, "warning", "hides all GPUs"),
        ({"tuner": {"name": "Hyperband"}}, {}, "error", "dies at the first result"),
        ({"assessor": {"name": "Medianstop", "classArgs": {"optimize_mode": "maximise"}}}, {}, "error", "expected maximize or"),
        ({"assessor": {"name": "Medianstop", "classArgs": {"start": 1}}}, {}, "error", "NNI cannot use it"),
        ({"assessor": {"name": "Medianstop"}}, {}, "warning", "USER_CANCELED without a result"),
        ({"sharedStorage": {"storageType": "NFS"}}, {}, "warning", "reads it for no local"),
    ],
)  # fmt: skip
def test_what_a_file_asks_of_nni_in_vain_is_said(more, raw, level, message):
    found = file_problems(more, raw)
    assert [found_level for found_level, _ in found] == [level] and message in found[0][1]
    assert (
        file_problems({"trainingService": {"platform": "local"}, "tuner": {"name": "TPE"}}, {"searchSpace": {}}) == []
    )


def test_check_prints_the_lines_and_exits_with_1(tmp_path):
    (tmp_path / "t.py").touch()
    (tmp_path / "space.json").write_text(json.dumps({"lr": {"_type": "uniform", "_value": [1, 0]}}))
    file = tmp_path / "bad.yml"
    text = YAML.replace("trialCommand: python -m trial", "trialCommand: python t.py; true\nmaxTrialDuration: 1h")
    file.write_text(text.replace("  trialGpuNumber: 1\n", "  reuseMode: true\nlogLevel: fatal\n"))
    done = run_module("experiments", "check", str(file), env={**os.environ, "HOME": str(tmp_path)})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    for line, words in ((4, "bounds reversed"), (7, "no options"), (9, "compound"), (20, "reuseMode"), (21, "fatal")):
        assert any(said.startswith(f"error: {file}:{line}: ") and words in said for said in done.stderr.splitlines()), (
            words
        )


def test_our_own_files_have_no_finding_about_themselves():
    from experiments.config import Overrides, read_experiment, read_yaml

    for file in sorted((ROOT / "experiments").glob("*.yml")):
        assert file_problems(read_experiment(file, Overrides()).config, read_yaml(file)) == []


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
