"""What a trial accepts, and what it says of what it does not."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
from conftest import ROOT

from experiments.space import space_findings
from trial.__main__ import parse
from trial.errors import TrialError
from trial.hyperparameters import Hyperparameters, describe_fields


def test_defaults_are_the_reports():
    h = Hyperparameters()
    assert (h.batch_size, h.lr, h.momentum) == (32, 0.001, 0.9)
    assert (h.step_size, h.gamma, h.epochs, h.patience) == (7, 0.1, 25, 5)
    assert (h.arch, h.weights, h.image_px) == ("resnet18", "imagenet", 224)


@pytest.mark.parametrize("file", sorted((ROOT / "search_spaces").iterdir()), ids=lambda file: file.name)
def test_every_search_space_is_sound_and_its_keys_are_fields(file):
    space = json.loads(file.read_text())
    trials = 1 if file.name.startswith("study_") else 15  # a study sets the number to its grid's
    assert space_findings(space, describe_fields(), max_trials=trials) == []


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"learning_rate": 0.1}, "unknown hyperparameter 'learning_rate'; this trial knows batch_size, lr"),
        ({"lr": "1e-4"}, "lr = '1e-4' is str; expected float"),
        ({"lr": float("nan")}, "lr = nan; expected 1e-08 to 10"),
        ({"lr": 0}, "lr = 0.0; expected 1e-08 to 10"),
        ({"batch_size": 8.5}, "batch_size = 8.5 is float; expected int"),
        ({"batch_size": True}, "batch_size = True is bool; expected int"),
        ({"batch_size": 1}, "batch_size = 1; expected 2 to 4096"),
        ({"momentum": 1.0}, "momentum = 1.0; expected 0 to 0.9999"),
        ({"arch": "vgg"}, "arch = 'vgg'; expected one of resnet18, resnet50"),
        ({"weights": None}, "weights = None is NoneType; expected str"),
        ([("lr", 0.1)], "should be a mapping"),
    ],
)
def test_an_unknown_or_illegal_value_is_one_clear_line(values, message):
    with pytest.raises(TrialError) as error:
        Hyperparameters().merged(values)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_whole_floats_fit_int_fields_and_ints_fit_float_fields():
    h = Hyperparameters().merged({"batch_size": 16.0, "lr": 1})
    assert (h.batch_size, type(h.batch_size), h.lr, type(h.lr)) == (16, int, 1.0, float)


def test_every_field_is_a_flag():
    words = [f"--{field.name.replace('_', '-')}={field.default}" for field in fields(Hyperparameters)]
    _, given = parse(words)
    assert Hyperparameters().merged(given) == Hyperparameters() and len(given) == len(words)


def test_a_misspelt_flag_is_refused(capsys):
    with pytest.raises(SystemExit) as error:
        parse(["--learning-rate", "0.1"])
    assert error.value.code == 2 and "unrecognized arguments" in capsys.readouterr().err
