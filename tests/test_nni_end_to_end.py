"""Real NNI, real trials, real training: launched, watched, looked at in a browser, read back and compared."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, interrupted_at, run_module

pytestmark = pytest.mark.nni

SMALL = ["--set", "image_px=32", "--set", "weights=none", "--set", "epochs=2"]
LINE = re.compile(r"^experiment (\S+) (\S+) (\S+) best (\S+)$", re.MULTILINE)


@pytest.fixture(scope="module")
def pair(nni_env, tiny_cache) -> list[tuple[str, str, str, str]]:
    """The report's pair, both at once, three trials each; their web pages are left up. [(name, id, state, best)]"""
    files = ["experiments/tpe.yml", "experiments/evolution.yml"]
    options = ["--parallel", "--keep-ui", "--max-trials", "3", "--cache", str(tiny_cache), *SMALL]
    done = run_module("experiments", "launch", *files, *options, env=nni_env)
    assert done.returncode == 0, done.stderr
    assert "0 of 3 trials are chosen by the tuner: TPE" in done.stderr
    return LINE.findall(done.stdout)


def folder_of(experiment_id: str, env: dict[str, str]) -> Path:
    return Path(env["HOME"]) / "nni-experiments" / experiment_id


def port_of(experiment_id: str, env: dict[str, str]) -> int:
    registry = json.loads((Path(env["HOME"]) / "nni-experiments" / ".experiment").read_text())
    return registry[experiment_id]["port"]


def test_launch_ends_with_a_line_an_experiment(pair):
    assert [(name, state) for name, _, state, _ in pair] == [
        ("resnet18_food11_tpe", "DONE"),
        ("resnet18_food11_evolution", "DONE"),
    ]
    assert all(0 < float(best) <= 1 for *_, best in pair)


def test_the_web_page_shows_the_trials_in_a_browser(pair, nni_env, tmp_path):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if not browser and not os.environ.get("CI"):
        pytest.skip("no Chromium here; the continuous integration has one")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        options = ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        chromium = playwright.chromium.launch(executable_path=browser, args=[*options, "--no-sandbox"])
        page = chromium.new_page()
        page.goto(f"http://127.0.0.1:{port_of(pair[0][1], nni_env)}/oview")
        page.get_by_text("resnet18_food11_tpe").first.wait_for(timeout=30_000)
        page.get_by_text("DONE").first.wait_for(timeout=30_000)
        page.goto(f"http://127.0.0.1:{port_of(pair[0][1], nni_env)}/detail")
        page.get_by_text("SUCCEEDED").first.wait_for(timeout=30_000)
        assert page.get_by_text("SUCCEEDED").count() >= 3
        chromium.close()


def test_each_trial_left_what_it_promises(pair, nni_env):
    for _, experiment_id, _, _ in pair:
        trials = sorted((folder_of(experiment_id, nni_env) / "environments/local-env/trials").iterdir())
        assert len(trials) == 3
        for trial in trials:
            received = json.loads((trial / "hyperparameters.json").read_text())["received"]
            assert set(received) == {"batch_size", "lr", "momentum"}
            result = json.loads((trial / "result.json").read_text())
            assert {k: result["hyperparameters"][k] for k in received} == received
            assert sum(row["total"] for row in result["evaluation"]["per_class"]) == 22
            saved = torch.load(trial / "best.pt", weights_only=True)
            assert saved["classes"][10] == "Vegetable/Fruit" and saved["model"]["fc.weight"].shape == (11, 512)
            lines = (trial / "epochs.jsonl").read_text().splitlines()
            assert len(lines) == result["epochs_run"] == (trial / "trial.log").read_text().count("validation loss")
            assert list((trial / "tensorboard").glob("events.*"))


def test_what_nni_recorded_is_what_the_trials_used(pair, nni_env, tmp_path):
    _, experiment_id, _, best = pair[0]
    out, epochs = tmp_path / "trials.parquet", tmp_path / "epochs.parquet"
    words = ["export", experiment_id, "--format", "parquet", "--out", str(out), "--epochs", str(epochs)]
    assert run_module("analysis", *words, env=nni_env).returncode == 0
    trials, lines = pd.read_parquet(out), pd.read_parquet(epochs)
    assert len(trials) == 3 and len(lines) >= 3
    assert f"{trials.final_default.max():.4f}" == best
    for row in trials.itertuples():
        folder = folder_of(experiment_id, nni_env) / "environments/local-env/trials" / row.trial_id
        received = json.loads((folder / "hyperparameters.json").read_text())["received"]
        assert (row.params_lr, row.params_batch_size, row.params_momentum) == tuple(
            received[name] for name in ("lr", "batch_size", "momentum")
        )
        curve = lines[lines.trial_id == row.trial_id].intermediate_default
        assert row.final_default == curve.max()  # the metric reported is the metric of the weights kept


def test_compare_says_that_no_difference_can_be_shown(pair, nni_env, tmp_path):
    ids = [experiment_id for _, experiment_id, _, _ in pair]
    done = run_module("analysis", "compare", *ids, "--out", str(tmp_path), env=nni_env)
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [arm["id"] for arm in summary["experiments"]] == ids
    assert [arm["chosen_by_tuner"] for arm in summary["experiments"]] == [0, 0]
    for arm, (_, _, _, best) in zip(summary["experiments"], pair, strict=True):
        assert f"{arm['best']['val_accuracy']:.4f}" == best
        assert arm["best"]["evaluation"]["n"] == 22
        assert arm["trials"] == {"succeeded": 3, "failed": 0, "cancelled": 0, "running": 0, "pruned": 0}
    assert summary["comparison"]["verdict"] == "no_difference_shown"
    assert summary["comparison"]["interval"] is None and summary["comparison"]["p_value"] is None
    assert (tmp_path / "report.html").stat().st_size > 100_000


def test_ctrl_c_leaves_the_experiment_running_and_watch_returns_to_it(nni_env, tiny_cache):
    words = ["launch", "experiments/random.yml", "experiments/tpe_guided.yml", "--max-trials", "2"]
    words += ["--cache", str(tiny_cache), *SMALL]
    code, lines = interrupted_at("0 of 2 trials, no result", "experiments", *words, env=nni_env)
    assert code == 130
    assert "still running: resnet18_food11_random" in lines[-2] and "python -m experiments watch" in lines[-2]
    assert "not started yet: experiments/tpe_guided.yml" in lines[-1]
    experiment_id = re.search(r"resnet18_food11_random \((\w+)\)", "".join(lines))[1]
    done = run_module("experiments", "watch", experiment_id, env=nni_env)
    assert done.returncode == 0, done.stderr
    assert LINE.findall(done.stdout)[0][:3] == ("resnet18_food11_random", experiment_id, "DONE")
    again = run_module("experiments", "watch", experiment_id, env=nni_env)
    assert again.returncode == 1 and "not running" in again.stderr and "Traceback" not in again.stderr


def test_an_experiment_whose_trials_all_fail_is_not_called_good(nni_env, tmp_path):
    text = (ROOT / "experiments/tpe.yml").read_text().replace("../search_spaces", str(ROOT / "search_spaces"))
    text = text.replace("trialCodeDirectory: ..", "trialCodeDirectory: .").replace("python -m trial", "python fails.py")
    (tmp_path / "fails.yml").write_text(text)
    (tmp_path / "fails.py").write_text(
        "import nni\nnni.get_next_parameter()\nraise SystemExit('no pan in this kitchen')\n"
    )
    done = run_module("experiments", "launch", str(tmp_path / "fails.yml"), "--max-trials", "1", env=nni_env)
    assert done.returncode == 1
    assert LINE.findall(done.stdout)[0][2:] == ("DONE", "none")
    assert "no pan in this kitchen" in done.stderr and "Traceback" not in done.stderr
