"""NNI's Batch tuner as `check` sees it, and the experiment that `analysis confirm` writes for it."""

from __future__ import annotations

import pytest
from conftest import ROOT
from experiments.batch import batch_problems, is_batch
from fixtures_confirm import search

from analysis.__main__ import main
from experiments.check import check
from experiments.config import Overrides, read_experiment
from trial.hyperparameters import describe_fields

SETS = [{"lr": 0.01, "seed": 1}, {"lr": 0.02, "seed": 1}]


def space(*sets, kind="choice"):
    return {"combine_params": {"_type": kind, "_value": list(sets)}}


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (space(*SETS, kind="uniform"), "Batch expects one choice of sets"),
        (space(), "Batch expects one choice of sets"),
        (space(0.1, 0.2), "Batch expects one choice of sets"),
        (space(*SETS) | {"lr": {"_type": "choice", "_value": [0.1]}}, "Batch expects one choice of sets"),
        (space({"_name": "a", "lr": 0.1}, *SETS), "set 1: the trial has no field _name; it knows batch_size, lr"),
        (space(SETS[0], {"lr": 100.0}), "set 2: lr: 100.0 is outside what the trial accepts"),
        (space(SETS[0]), "1 sets for 2 trials"),
    ],
)
def test_a_faulty_batch_is_one_line(told, message):
    problems = batch_problems(told, describe_fields(), 2)
    assert len(problems) == 1 and message in problems[0]


def test_a_sound_batch():
    assert batch_problems(space(*SETS), describe_fields(), 2) == batch_problems(space({"x": 1}), None, None) == []
    assert is_batch("Batch") and is_batch("BatchTuner") and not is_batch("TPE")


def confirm(folder, cache, out) -> int:
    command = f"python -m trial --weights none --image-px 32 --epochs 1 --cache {cache}"
    name = f"from{cache.name}"
    search(folder, name, (0.4, 0.02), (0.3, 0.03), trialCommand=command, trialCodeDirectory=str(ROOT))
    return main(["confirm", str(folder / name), "--top", "1", "--seeds", "2", "--no-launch", "--out", str(out)])


def test_what_confirm_writes_passes_check_without_a_word_from_nni(tiny_cache, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert confirm(tmp_path, tiny_cache, tmp_path / "out") == 0
    file = tmp_path / "out" / "confirm.yml"
    assert capfd.readouterr().out == f"python -m experiments launch {file}\n"
    findings = check(read_experiment(file, Overrides()))
    assert not [finding for finding in findings if finding.level == "error"]
    assert any("4 of 4 trials are set by the tuner: Batch" in finding.text for finding in findings)
    assert "should only contain" not in "".join(capfd.readouterr())
    fixed = check(read_experiment(file, Overrides({"lr": "0.1"})))
    assert [finding.text for finding in fixed if finding.level == "error"] == [
        "lr: searched by the search space and fixed by --set; drop one"
    ]


def test_a_cache_that_is_gone_is_told_before_anything_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert confirm(tmp_path, tmp_path / "gone", tmp_path / "out") == 1
    said = capfd.readouterr().err
    assert (
        "the trial of fromgone cannot run again" in said and "python -m data prepare" in said and said.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()
