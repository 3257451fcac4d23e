"""Real NNI with Optuna's sampler and the assessor by successive halving: trials are pruned, from the start to page and export."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pandas as pd
import pytest
from conftest import ROOT, run_module

from analysis.reading.reader import load_experiment

pytestmark = pytest.mark.nni

EXPERIMENT = """
experimentName: pruned
searchSpaceFile: {root}/search_spaces/log_scale.json
trialCodeDirectory: {root}
trialCommand: python -m trial --weights none --image-px 32 --epochs 8 --patience 0 --threads 1 --device cpu
trialConcurrency: 1
maxTrialNumber: 3
maxTrialDuration: 10m
maxExperimentDuration: 30m
tuner:
  className: optuna_search.OptunaSearch
  codeDirectory: {root}/experiments/tuners
  classArgs:
    optimize_mode: maximize
    seed: 0
    first: [{{batch_size: 8, lr: 0.01, momentum: 0.9}}, {{batch_size: 64, lr: 0.0001, momentum: 0.1}}]
    initial: 0
assessor:
  className: asha.Asha
  codeDirectory: {root}/experiments/tuners
  classArgs: {{optimize_mode: maximize, min_epochs: 2, reduction_factor: 3, min_trials: 2}}
trainingService:
  platform: local
"""


@pytest.fixture(scope="module")
def record(nni_env, tiny_cache, tmp_path_factory):
    file = tmp_path_factory.mktemp("pruned") / "pruned.yml"
    file.write_text(EXPERIMENT.format(root=ROOT))
    done = run_module("experiments", "launch", str(file), "--cache", str(tiny_cache), env=nni_env)
    assert done.returncode == 0, done.stderr
    assert "1 of 3 trials are chosen by the tuner: Optuna" in done.stderr and "pruned" in done.stderr
    experiment_id = re.search(r"^experiment \S+ (\S+) DONE", done.stdout, re.MULTILINE)[1]
    return load_experiment(Path(nni_env["HOME"]) / "nni-experiments" / experiment_id)


def test_nnis_record_says_which_trials_were_pruned_and_they_keep_their_result(record):
    """The second is trained with so small a learning rate that it is behind the first at every rung."""
    assert record.trials[0].state == "SUCCEEDED" and record.trials[1].state == "EARLY_STOPPED"
    pruned = [trial for trial in record.trials if trial.state == "EARLY_STOPPED"]
    assert record.counts == {
        "succeeded": 3 - len(pruned), "failed": 0, "cancelled": 0, "running": 0, "pruned": len(pruned),
    }  # fmt: skip
    for trial in pruned:
        assert trial.final["interrupted"] == 1 and trial.final["epochs_run"] < 8
        assert trial.score == trial.final["default"] == max(result.value["default"] for result in trial.intermediates)
        assert (trial.folder / f"best-{trial.final['best_epoch']}.pt").is_file()
    assert record.chosen == [False, False, True]


def test_why_names_the_rung_and_its_numbers(record, nni_env):
    trial = record.trials[1]
    decisions = [json.loads(line) for line in (record.folder / "checkpoint/asha.jsonl").read_text().splitlines()]
    (end,) = (entry for entry in decisions if entry["trial"] == trial.trial_id and entry["is_pruned"])
    text = run_module("experiments", "why", str(record.folder), "1", env=nni_env).stdout
    assert f"at rung {end['rung']} (epoch {end['epoch']})" in text and f"{end['threshold']:.4g} was needed" in text
    assert f"{end['best']:.4g}" in text
    whole = run_module("experiments", "why", str(record.folder), env=nni_env).stdout
    assert f"{record.counts['pruned']} pruned, 0 failed" in whole and "error" not in whole


def test_page_and_exports_show_them_as_pruned(record, nni_env, tmp_path):
    folder = str(record.folder)
    shown = run_module("analysis", "show", folder, env=nni_env).stdout
    assert f"pruned after epoch {record.trials[1].final['epochs_run']}" in shown
    copy = tmp_path / "copy"  # compare takes two experiments
    shutil.copytree(folder, copy)
    with closing(sqlite3.connect(copy / "db" / "nni.sqlite")) as database:
        database.execute("update ExperimentProfile set id = 'copy0001'")
        database.commit()
    words = ["compare", folder, str(copy), "--out", str(tmp_path)]
    assert run_module("analysis", *words, env=nni_env).returncode == 0
    assert f"pruned after epoch {record.trials[1].final['epochs_run']}" in (tmp_path / "report.html").read_text()
    for kind, name in (("csv", "trials.csv"), ("optuna", "study.db")):
        done = run_module("analysis", "export", folder, "--format", kind, "--out", str(tmp_path / name), env=nni_env)
        assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table["state"]) == [trial.state for trial in record.trials]

    import optuna

    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path / 'study.db'}")
    states = {"SUCCEEDED": "COMPLETE", "EARLY_STOPPED": "PRUNED"}
    assert [trial.state.name for trial in study.trials] == [states[trial.state] for trial in record.trials]


def test_a_pruned_trial_can_be_evaluated(record, nni_env, tiny_cache):
    trial = record.trials[1]
    weights = trial.folder / f"best-{trial.final['best_epoch']}.pt"
    done = run_module("trial", "--evaluate", str(weights), "--cache", str(tiny_cache), env=nni_env)
    assert done.returncode == 0 and "/22 (" in done.stdout, done.stdout + done.stderr
