"""`experiments confirm` with real NNI and real training: interrupted, returned to, read, and not trained again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from conftest import ROOT, interrupted_at, run_module
from fixtures_confirm import search

from analysis.reading.logs import tuner_errors
from analysis.reading.reader import load_experiment

pytestmark = pytest.mark.nni


def test_confirm_is_interrupted_returns_and_ends_with_a_verdict(nni_env, tiny_cache, tmp_path):
    home = Path(nni_env["HOME"]) / "nni-experiments"
    home.mkdir(exist_ok=True)
    command = f"python -m trial --weights none --image-px 32 --epochs 1 --seed 1 --cache {tiny_cache}"
    settings = {"trialCommand": command, "trialCodeDirectory": str(ROOT), "maxTrialDuration": "5m"}
    search(home, "searched", (0.4, 0.02), (0.3, 0.03), **settings)
    out = tmp_path / "confirmed"
    words = ["confirm", "searched", "--top", "1", "--seeds", "2", "--out", str(out)]

    code, lines = interrupted_at("1 of 4 trials", "experiments", *words, env=nni_env)
    assert code == 130, "".join(lines)
    assert (
        "is still running. Continue with the same command: python -m experiments confirm searched --top 1" in lines[-1]
    )
    assert "Traceback" not in "".join(lines) and not (out / "confirm.json").exists()

    done = run_module("experiments", *words, env=nni_env, timeout=200)
    assert done.returncode == 0, done.stderr
    result = json.loads((out / "confirm.json").read_text())
    assert done.stdout.startswith(f"verdict: {result['verdict']}\n") and f"report: {out / 'report.html'}" in done.stdout
    assert result["cells"] == {"succeeded": 4, "failed": 0, "missing": 0} and result["seeds"] == [2, 3]
    assert result["evaluation"]["n"] == 2 and result["configurations"][0]["evaluation"]["images"] == 22

    experiment = load_experiment(home / result["experiments"][0])
    assert len(result["experiments"]) == 1 and experiment.state == "DONE" and not tuner_errors(experiment)
    ran = [(trial.recorded, trial.effective) for trial in experiment.trials]
    assert [recorded for recorded, _ in ran] == [
        {"lr": lr, "momentum": momentum, "seed": seed}
        for seed in (2, 3)
        for lr, momentum in ((0.02, 0.1), (0.001, 0.9))
    ]
    assert all(recorded.items() <= used.items() and used["epochs"] == 1 for recorded, used in ran)

    again = run_module("experiments", *words, env=nni_env)
    assert again.returncode == 0 and again.stdout == done.stdout
    assert json.loads((out / "experiments.json").read_text()) == result["experiments"]
