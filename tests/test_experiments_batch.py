"""NNI's Batch tuner as `check` sees it, and the experiment that `experiments confirm` writes for it."""

from __future__ import annotations

import pytest
from conftest import ROOT
from fixtures_confirm import search

from experiments.__main__ import main
from experiments.check import check
from experiments.config import Overrides, read_experiment
from experiments.space import batch_findings, is_batch, searched_values
from trial.hyperparameters import describe_fields

pytestmark = pytest.mark.usefixtures("trial_in_forks")

SETS = [{"lr": 0.01, "seed": 1}, {"lr": 0.02, "seed": 1}]


def space(*sets, kind="choice"):
    return {"combine_params": {"_type": kind, "_value": list(sets)}}


@pytest.mark.parametrize(
    ("faulty", "key", "text"),
    [
        (space(*SETS, kind="uniform"), "space.batch_form", ""),
        (space(), "space.batch_form", ""),
        (space(0.1, 0.2), "space.batch_form", ""),
        (space(*SETS) | {"lr": {"_type": "choice", "_value": [0.1]}}, "space.batch_form", ""),
        (space({"_name": "a", "lr": 0.1}, *SETS), "space.unknown_field", "set 1: _name: "),
        (space(SETS[0], {"lr": 100.0}), "space.value_out_of_range", "set 2: lr: 100.0 is outside"),
        (space(SETS[0]), "space.too_small", "1 sets for 2 trials"),
    ],
)
def test_a_faulty_batch_is_one_finding(faulty, key, text):
    (finding,) = batch_findings(faulty, describe_fields(), 2)
    assert (finding.level, finding.key) == ("error", key) and text in finding.text


def test_a_sound_batch():
    assert batch_findings(space(*SETS), describe_fields(), 2) == batch_findings(space({"x": 1}), None, None) == []
    assert is_batch("Batch") and is_batch("BatchTuner") and not is_batch("TPE")


def test_all_values_of_a_batch_are_searched():
    assert searched_values(space(*SETS), "Batch") == {"lr": [0.01, 0.02], "seed": [1]}


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
    assert [finding.key for finding in fixed if finding.level == "error"] == ["trial.searched_and_fixed"]


def test_a_cache_that_is_gone_is_told_before_anything_is_written(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert confirm(tmp_path, tmp_path / "gone", tmp_path / "out") == 1
    said = capfd.readouterr().err
    assert (
        "the trial of fromgone cannot run again" in said and "python -m data prepare" in said and said.count("\n") == 1
    )
    assert not (tmp_path / "out").exists()
